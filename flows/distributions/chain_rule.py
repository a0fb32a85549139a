"""Different distributions for different features, each given the features before it. Family: Codes, and blocks of columns."""

from collections.abc import Sequence

from flows.core import DistributionInit, DistributionLike, combinator
from flows.distributions.features import side_by_side


@combinator(DistributionInit)
def ChainRule(*distributions: DistributionLike, sizes: Sequence[int] | None = None):
    """Blocks of features, each given the blocks before it: log p(x) = sum_k log p_k(x_k | x_<k, context), in nats.

    The context of a block is all features before it, block by block, as networks see them (numbers and coordinates of spheres
    as they are, then angles as cos and sin of 2 pi x / period, then codes one-hot), followed by the context of the call. So
    features of different kinds have one density: for example codes of categories first, then angles, then numbers. Noise that
    an earlier block adds to its features is not shown. The first block sees the context of the call alone. For independent
    blocks use `Joint`.

    Args:
        distributions: the first is for the first block of features, and so on. All but the first take a context:
            `Flow(NSF())`, `MixtureMADE()`, `Normal(conditioner=MLP(32))`.
        sizes: how many features each has; one each by default.

    Params:
        A tuple of the params of each. With `init_inputs`, each starts at its block of features, given the blocks before it.

    Support:
        The supports of the blocks, side by side.

    Errors:
        TypeError: no distributions, an argument that is not one, or one after the first that takes no context.
        FlowsError: sizes that are not one whole number for each, or that do not add up to the event; a context that is not a
            vector.

    Source:
        The chain rule of probability; with blocks of one feature: Larochelle and Murray, "The Neural Autoregressive
        Distribution Estimator", 2011, equation 1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> hours = flows.VonMises(concentration=2.0, period=24.0)
        >>> init_fun = flows.ChainRule(hours, flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4)), sizes=(1, 2))
        >>> params, log_pdf, sample = init_fun(0, 3)
        >>> sample(1, params, 5).shape
        (5, 3)
        >>> x = jnp.array([[1.0, 0.5, -0.5], [25.0, 0.5, -0.5]])         # hours of different days
        >>> bool(jnp.allclose(*log_pdf(params, x), rtol=1e-4))
        True
    """
    return side_by_side(
        "ChainRule", distributions, sizes, "chain rule", "distributions", "ChainRule(Categorical(3), Flow(NSF()))"
    )
