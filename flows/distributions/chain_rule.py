"""Different distributions for different features, each given the features before. Family: Codes, and blocks of columns."""

from collections.abc import Sequence

from flows.core import DistributionInit, DistributionLike, combinator
from flows.distributions.features import side_by_side


@combinator(DistributionInit)
def ChainRule(*distributions: DistributionLike, sizes: Sequence[int] | None = None):
    """Blocks of features, each given those before it: log p(x) = sum_k log p_k(x_k | x_<k, context), in nats.

    The context of a block is all that comes before it, block by block, as networks see it (numbers and coordinates of spheres
    as they are, then angles as cos and sin of 2 pi x / period, then codes one-hot), and then the context given. So different
    kinds of features have one density: codes of categories first, say, then angles, then numbers. What a block before it adds
    as noise it does not see. The first block has the given context alone. `Joint` is of blocks that are independent.

    Args:
        distributions: the first is that of the first block of features, and so on. All but the first take a context:
            `Flow(NSF())`, `MixtureMADE()`, `Normal(conditioner=MLP(32))`.
        sizes: how many features each has; one each by default.

    Params:
        A tuple with those of each. With `init_inputs`, each starts at its own features, given those before them.

    Support:
        That of each block, side by side.

    Errors:
        TypeError: no distributions, something that is not one, or one after the first that takes no context.
        FlowsError: sizes that are not one whole number for each, or that do not add up to the event; a context that is not a
            vector.

    Source:
        The chain rule of probability; by blocks of one feature as of Larochelle and Murray, "The Neural Autoregressive
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
