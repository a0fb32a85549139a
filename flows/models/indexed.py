"""Models with numbers that no data have: variational autoencoders, and flows with an index. Family: Latent variables."""

from flows.bijections.surjections import BY_NETWORK, Augment, Slice
from flows.compose import ConditionalCoupling, Serial
from flows.core import (
    BijectionInit,
    BijectionLike,
    BijectionPart,
    Composite,
    DistributionLike,
    FlowsError,
    Shape,
    bijection,
    check_layers,
    combinator,
    positive_int,
)


@bijection
def VAE(encode: DistributionLike = BY_NETWORK, decode: DistributionLike = BY_NETWORK, latent_dim: int = 2):
    """A variational autoencoder as a layer: z drawn from encode(z | x), log_weight = log decode(x | z) - log encode(z | x).

    It is `Serial(Augment(latent_dim, encode), Slice(latent_dim, decode))`. `Flow(VAE(...))` is an autoencoder whose prior is a
    normal, and layers behind it make the prior a flow.

    Args:
        encode: a distribution of latent_dim numbers, given x.
        decode: a distribution of x, given these.
        latent_dim: how many numbers.

    Params:
        A tuple with the params of both.

    Errors:
        As `Augment` and `Slice`.

    Source:
        Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, arXiv:1312.6114; as a layer: Nielsen et al., "SurVAE
        Flows", 2020, arXiv:2007.02731, section 2.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.VAE(latent_dim=1))(0, 3)
        >>> sample(1, params, 4).shape
        (4, 3)
    """
    return Serial(Augment(latent_dim, encode), Slice(latent_dim, decode))


@combinator(BijectionInit, likelihood="lower bound", ways=frozenset({"direct", "inverse"}))
def ContinuouslyIndexed(
    bijection: BijectionLike, index_dim: int = 1, encode: DistributionLike = BY_NETWORK, decode: DistributionLike = BY_NETWORK
):
    """An infinite mixture of bijections: z = f(x; u), with an index u that is drawn from encode(u | x).

    log_weight = log|det df/dx| + log decode(u | z) - log encode(u | x), in nats. One bijection cannot map a blob to rings or to
    separate pieces; a mixture over an index can.

    Args:
        bijection: f, whose context is the index u, then the context of the whole.
        index_dim: how many numbers the index has.
        encode: a distribution of the index, given x.
        decode: a distribution of the index, given z.

    Params:
        A tuple with the params of `Augment`, f and `Slice`.

    Errors:
        FlowsError: as `Augment`, `ConditionalCoupling` and `Slice`. TypeError: not a bijection, or not a distribution.

    Source:
        Cornish, Caterini, Deligiannidis and Doucet, "Relaxing Bijectivity Constraints with Continuously Indexed Normalising
        Flows", 2020, arXiv:1909.13833, section 3.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.ContinuouslyIndexed(flows.RealNVP(2, hidden=(8,))))(0, 2)
        >>> sample(1, params, 4).shape
        (4, 2)
    """
    check_layers("ContinuouslyIndexed", (bijection,), BijectionInit, "a bijection")
    count = positive_int(index_dim, "ContinuouslyIndexed: index_dim")
    augment, moved = Augment(count, encode), ConditionalCoupling(bijection, count)

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        if len(event) != 1:
            raise FlowsError(f"ContinuouslyIndexed: the event is {event}; expected a vector: put Reshape() first")
        whole: BijectionPart = Serial(augment, moved, Slice(event[0], decode, first=False)).part(event, context)
        return whole

    return Composite(part, (bijection, encode, decode))
