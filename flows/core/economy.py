"""How a training step is computed: in fewer bits, or again instead of remembered. Read while a step is traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Economy(NamedTuple):
    products: str | None = None  # the dtype of the networks' matrix products; None: that of the data
    remat: bool = False  # layers keep their inputs alone and are computed again for the gradient


_economy: ContextVar[Economy] = ContextVar("economy", default=Economy())  # noqa: B039


def economy() -> Economy:
    return _economy.get()


@contextmanager
def economical(how: Economy) -> Iterator[None]:
    """What is traced within is computed so."""
    token = _economy.set(how)
    try:
        yield
    finally:
        _economy.reset(token)
