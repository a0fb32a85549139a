"""Flow++ for images: couplings by mixtures of logistic distributions and attention, and learned noise. Family: Images."""

from collections.abc import Sequence

from flows.bijections.bounds import Logit
from flows.bijections.coupling import Coupling
from flows.bijections.layouts import Reshape, Squeeze, Stripes, check_image
from flows.bijections.linear import InvertibleLinear
from flows.bijections.scaling import ActNorm
from flows.compose import Invert, Serial, Through
from flows.conditioners import GatedConv, conditioner
from flows.conditioners.attention import concat_elu, gated
from flows.conditioners.convolution import conv_layers, convolved
from flows.core import (
    BijectionInit,
    Composite,
    DistributionInit,
    DistributionPart,
    FlowsError,
    Shape,
    bijection,
    combinator,
    positive_int,
)
from flows.distributions.embedded_context import EmbeddedContext
from flows.distributions.flow import Flow
from flows.distributions.standardized_context import OWN_KEYWORDS
from flows.models.stack import stack
from flows.transformers import MixtureCDF

RESIDUAL = 3  # blocks of the network by which noise sees an image


@bijection
def FlowPlusPlus(
    width: int = 96,
    blocks: int = 10,
    num_components: int = 32,
    heads: int = 4,
    layers: tuple[int, int, int] = (4, 2, 3),
    dropout: float = 0.2,
    scan: bool | None = None,
):
    """Flow++: couplings of columns, then of channels of blocks of 2 x 2 pixels, then of columns of such blocks.

    Each coupling moves half of the numbers by a `MixtureCDF` that a `GatedConv` makes of the other half; `ActNorm` of each
    entry and a matrix for each half of the channels come before it. The first couplings take every other column
    (`Stripes(1)`); then `Squeeze`, and couplings of halves of the channels; then every other column of these. Learned noise:
    `Flow(Serial(Dequantize(1.0, 256, FlowPlusPlusNoise()), ..., Logit(False), FlowPlusPlus()))`.

    Args:
        width, blocks, heads, dropout: of each network, as in `GatedConv`.
        num_components: of each mixture.
        layers: couplings of columns, of channels, and of columns of the squeezed image.
        scan: one compiled loop (`Repeat`) over pairs of couplings, by default beyond 3.

    Params:
        A tuple over layers.

    Cost:
        Direct: a pass of each network. Inverse: the same, and a root for each number.

    Errors:
        FlowsError: an argument outside its range; an event that is not an image, of an odd height or of a width that is not a
            multiple of 4.

    Source:
        Ho, Chen, Srinivas, Duan and Abbeel, "Flow++: Improving Flow-Based Generative Models with Variational Dequantization and
        Architecture Design", 2019, arXiv:1902.00275, section 3, and its code.

    Example:
        >>> import flows
        >>> model = flows.Flow(flows.FlowPlusPlus(8, blocks=1, num_components=2, layers=(1, 1, 1)))
        >>> params, log_pdf, sample = model(0, (4, 4, 1))
        >>> sample(1, params, 3).shape
        (3, 4, 4, 1)
    """
    counts = _counts(layers)
    columns, channels, squeezed = [
        _couplings("FlowPlusPlus", count, width, blocks, num_components, heads, dropout, scan) for count in counts
    ]
    return Serial(Through(Stripes(1), columns), Squeeze(), channels, Through(Stripes(1), squeezed), Reshape())


@combinator(DistributionInit)
def FlowPlusPlusNoise(
    width: int = 96, blocks: int = 2, num_components: int = 32, heads: int = 4, layers: int = 4, channels: int = 32
):
    """The noise of Flow++: numbers on (0, 1), a flow given the image, for `Dequantize(noise=)`.

    u = sigmoid(f(e; h(x))), e normal; f are couplings as in `FlowPlusPlus`, of every other column, and h is a convolutional
    network that makes channels of the image x, two columns at a time. Draws, with their density, take a pass of each
    network; the density of given numbers takes a root for each.

    Args:
        width, blocks, heads: of each network, as in `GatedConv`.
        num_components: of each mixture.
        layers: couplings.
        channels: what h makes of two columns of the image.

    Params:
        The params of `EmbeddedContext(Flow(...), network, (H, W / 2, channels))`.

    Errors:
        FlowsError: an argument outside its range; an event that is not an image, or has an odd width; a context that is not an
            image of this size.

    Source:
        Ho, Chen, Srinivas, Duan and Abbeel, "Flow++: Improving Flow-Based Generative Models with Variational Dequantization and
        Architecture Design", 2019, arXiv:1902.00275, sections 3.1 and 4.2, and its code.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> noise = flows.FlowPlusPlusNoise(8, blocks=1, num_components=2, layers=2)
        >>> params, log_pdf, sample = noise(0, (4, 4, 1), context_dim=(4, 4, 1))
        >>> sample(1, params, 3, context=jnp.zeros((4, 4, 1))).shape
        (3, 4, 4, 1)
    """
    positive_int(channels, "FlowPlusPlusNoise: channels")
    couplings = _couplings("FlowPlusPlusNoise", layers, width, blocks, num_components, heads, 0.0, None)
    flow = Flow(Serial(Logit(), Stripes(1), Invert(couplings)))

    def part(event: Shape, context: Shape | None) -> DistributionPart:
        check_image("FlowPlusPlusNoise", event, (1, 2), "an even W")
        if context is None or len(context) != 3 or context[:2] != event[:2]:
            raise FlowsError(f"FlowPlusPlusNoise: context_dim is {context}; expected an image of {event[:2]} pixels")
        return EmbeddedContext(flow, _Columns(channels), (event[0], event[1] // 2, channels)).part(event, context)

    return Composite(part, (), OWN_KEYWORDS)


def _counts(layers: Sequence[int]) -> list[int]:
    if not isinstance(layers, Sequence) or len(layers) != 3:
        raise FlowsError(f"FlowPlusPlus: layers is {layers!r:.60}; expected three numbers of couplings, such as (4, 2, 3)")
    return [positive_int(count, "FlowPlusPlus: layers", most=1_000) for count in layers]


def _couplings(
    name: str, count: int, width: int, blocks: int, num: int, heads: int, dropout: float, scan: bool | None
) -> BijectionInit:
    """Couplings of halves of the channels, in turns, each behind a norm of each entry and a matrix for each half."""
    net, before = GatedConv(width, blocks, heads, dropout), [ActNorm("entry"), InvertibleLinear(dense=True, groups=2)]
    step, flipped = ([*before, Coupling(net, MixtureCDF(num), flip=flip)] for flip in (False, True))
    return stack(name, step, count, scan, (), flipped)


@conditioner
def _Columns(width: int, blocks: int = RESIDUAL):
    """An image (H, W, C) as (H, W / 2, width): two columns at a time, a 3x3 convolution and gated residual blocks."""

    def net(rng, input_dim, output_dim):
        h, w, c = input_dim
        sizes = [(3, 2 * c, width), *[(3, 2 * width, width), (3, 2 * width, 2 * width)] * blocks]

        def apply_fun(params, x):
            first, *rest = params
            y = convolved(first, x.reshape(x.shape[0], h, w // 2, 2 * c))
            for conv, gate in zip(rest[::2], rest[1::2], strict=True):
                y = gated(y, convolved(gate, concat_elu(convolved(conv, concat_elu(y)))))
            return y

        return conv_layers(rng, sizes, [1.0] * len(sizes)), apply_fun

    return net
