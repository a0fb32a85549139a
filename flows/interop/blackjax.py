"""A flow as a proposal of BlackJAX, and as what straightens a density for its samplers."""

from flows.interop.extras import needs

needs("blackjax")

__all__: list[str] = []
