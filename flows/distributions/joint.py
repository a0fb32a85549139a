"""Different distributions for different features. Family: Codes, and blocks of columns."""

from collections.abc import Sequence

from flows.core import DistributionInit, DistributionLike, combinator
from flows.distributions.features import side_by_side


@combinator(DistributionInit)
def Joint(*bases: DistributionLike, sizes: Sequence[int] | None = None):
    """Independent blocks of features with a separate distribution for each: log p(x) = sum_i log p_i(x_i), in nats.

    For blocks that depend on the blocks before them use `ChainRule`.

    Args:
        bases: distributions; the first is for the first block of features, and so on.
        sizes: how many features each has; one each by default.

    Params:
        A tuple of the params of each; a context reaches all bases that take one.

    Errors:
        TypeError: no bases, or an argument that is not a distribution.
        FlowsError: sizes that are not one whole number for each base, or that do not add up to the event.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Joint(flows.Normal(trainable=True), flows.Uniform(), sizes=(2, 1))
        >>> params, log_pdf, sample = init_fun(0, 3)
        >>> log_pdf(params, jnp.array([[0.0, 0.0, 0.5], [0.0, 0.0, 2.0]])).round(4).tolist()
        [-1.837..., -inf]
    """
    return side_by_side("Joint", bases, sizes, "joint", "bases", "Joint(Normal(), Uniform())")
