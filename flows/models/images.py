"""Flows of images (H, W, C), as they were published: NICE, RealNVP, Glow and spline flows. Their outputs are vectors.
Family: Images."""

from collections.abc import Callable, Sequence

from flows.bijections.coupling import Coupling
from flows.bijections.elementwise import Elementwise
from flows.bijections.layouts import Reshape, Squeeze
from flows.bijections.linear import InvertibleLinear
from flows.bijections.scaling import ActNorm, BatchNorm, Scale
from flows.compose import FactorOut, Serial
from flows.conditioners import MLP, ConvNet, Convolution, ConvResidual, ConvSkip
from flows.conditioners.conv_networks import NORMS
from flows.conditioners.network import Squash
from flows.core import BijectionInit, FlowsError, bijection, positive_int
from flows.models.stack import LOG_SCALE, SQUASH, UNROLLED, UNROLLED_AFFINE, Activation, check_hidden, stack
from flows.transformers import Additive, Affine, Inverse, RationalQuadratic


@bijection
def NICEImage(
    num_layers: int = 4,
    hidden: tuple[int, ...] = (1000,) * 5,
    activation: Activation = "relu",
    scan: bool | None = None,
):
    """NICE for images: additive couplings of every second pixel, by dense networks, then a scale for each pixel.

    y = s f_n(... f_1(x)) of the pixels in a row; the layers keep the odd and the even pixels in turns. log|det J| =
    sum(log s). The base of the paper is logistic: `flows.Flow(flows.NICEImage(), flows.Logistic())`. A context is a vector.

    Args:
        num_layers: couplings.
        hidden: widths of each network.
        activation: as in `MLP`.
        scan: one compiled loop (`Repeat`) over pairs of layers, by default beyond 4 layers.

    Params:
        A tuple over layers, the reshaping first; for a loop the params of a pair, stacked.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; a context that is not a vector.

    Source:
        Dinh, Krueger and Bengio, "NICE: Non-linear Independent Components Estimation", 2014, arXiv:1410.8516, sections 3 and 5.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.NICEImage(hidden=(16,)), flows.Logistic())(0, (4, 4, 1))
        >>> sample(1, params, 3).shape
        (3, 4, 4, 1)
    """
    net = MLP(*check_hidden(hidden, "NICEImage"), activation=activation)
    layer, flipped = (Coupling(net, Additive(), "alternating", flip) for flip in (False, True))
    return Serial(Reshape(), stack("NICEImage", [layer], num_layers, scan, [Scale()], [flipped], UNROLLED_AFFINE))


@bijection
def RealNVPImage(
    num_layers: int = 3,
    width: int = 32,
    num_blocks: int = 4,
    num_scales: int = 2,
    norm: str | None = "batch",
    scan: bool | None = None,
):
    """RealNVP for images: couplings of checkerboards, then of channels, at several scales.

    At each scale `num_layers` affine couplings whose network sees every second pixel; then `Squeeze`, as many couplings that
    see half of the channels, and half of these leave (`FactorOut`). The last scale has one coupling of checkerboards more, and
    no others. Residual networks double their width at each scale; `BatchNorm` follows each coupling.

    Args:
        num_layers: couplings of each kind and scale.
        width: channels of the networks at the first scale.
        num_blocks: residual blocks of each network.
        num_scales: scales; the sides of an image are to be multiples of 2^(num_scales - 1).
        norm: of the networks, as in `ConvResidual`; or "both", for RealNVP as its code has it: networks `ConvSkip`, and
            couplings y = (x - t) exp(-s), where s = g tanh(r) with a trained g (`Inverse(Affine(scale="learned"))`).
        scan: one compiled loop (`Repeat`) over pairs of couplings, by default beyond 4.

    Params:
        A tuple over layers; later scales are within the params of `FactorOut`.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; an event that is not an image, or of other sides.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, sections 3.4 to 3.7.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.RealNVPImage(1, width=4, num_blocks=1))(0, (4, 4, 1))
        >>> sample(1, params, 3).shape
        (3, 4, 4, 1)
    """
    width, num_scales = positive_int(width, "RealNVPImage: width"), _scales(num_scales, "RealNVPImage")
    num_layers = positive_int(num_layers, "RealNVPImage: num_layers")
    if norm not in (*NORMS, "both"):
        raise FlowsError(f"RealNVPImage: norm is {norm!r:.60}; expected 'weight', 'batch', 'both' or None")

    def couplings(count: int, at: int, mask: str) -> BijectionInit:
        channels = width * 2**at
        if norm == "both":
            net, transformer = ConvSkip(channels, num_blocks), Inverse(Affine(LOG_SCALE, scale="learned"))
        else:
            net, transformer = ConvResidual(channels, num_blocks, norm=norm), Affine(LOG_SCALE)
        first, second = ([Coupling(net, transformer, mask, flip), BatchNorm()] for flip in (False, True))
        return stack("RealNVPImage", first, count, scan, (), second, UNROLLED_AFFINE)

    def scale(i: int) -> list[BijectionInit]:
        if i == num_scales - 1:
            return [couplings(num_layers + 1, i, "checkerboard")]
        return [couplings(num_layers, i, "checkerboard"), Squeeze(), couplings(num_layers, i, "halves")]

    return _multi_scale(scale, num_scales)


@bijection
def GlowImage(
    num_layers: int = 8,
    width: int = 64,
    num_scales: int = 2,
    additive: bool = False,
    dense: bool = False,
    split_prior: bool = True,
    class_prior: bool = False,
    squash: Squash = SQUASH,
    reversible: bool = False,
    scan: bool | None = None,
):
    """Glow for images: steps of activation normalisation, an invertible 1x1 convolution and a coupling, at several scales.

    At each scale `Squeeze`, then `num_layers` steps; between scales half of the channels leave, after a coupling that makes
    their mean and scale from the channels that stay (the split prior). The networks are `ConvNet`; scales are sigmoids. For
    pixels 0 .. 255: `flows.fit(0, flows.Flow(flows.GlowImage()), images, dequantize=1.0, support=(0, 255))`.

    Args:
        num_layers: steps of each scale; 32 in the paper for CIFAR-10.
        width: channels of the networks; 512 in the paper.
        num_scales: scales, 3 in the paper for CIFAR-10; the sides of an image are to be multiples of 2^num_scales.
        additive: couplings that only shift.
        dense: 1x1 convolutions by their entries, not by LU factors.
        split_prior: means and scales of the channels that leave; without it these are standard.
        class_prior: at the end a mean and a scale for each number that are made of the context, which is then needed, and a
            vector.
        squash: how far out the networks see their inputs as they are, as in `Coupling`; None, as published, for as far as they
            go: then some samples run away, most of them early in training.
        reversible: keep no inputs of the steps for the gradient (`Reversible`): less memory, a seventh more time.
        scan: one compiled loop (`Repeat`) over the steps of a scale, by default beyond 4.

    Params:
        A tuple over layers; later scales are within the params of `FactorOut`.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; an event that is not an image, or of other sides; `class_prior` without a
            context, or with one of images.

    Source:
        Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, section 3, and
        its code (the split prior, the sigmoid).

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.GlowImage(1, width=4))(0, (4, 4, 1))
        >>> sample(1, params, 3).shape
        (3, 4, 4, 1)
    """
    num_scales = _scales(num_scales, "GlowImage")
    coupling = Coupling(ConvNet(width, last_scale=0.0), Additive() if additive else Affine(scale="sigmoid"), squash=squash)
    step = [ActNorm(), InvertibleLinear(dense=dense), coupling]
    split = [Coupling(Convolution(last_scale=0.0), Affine(), flip=True, squash=squash)] if split_prior else []
    top = [Elementwise(Affine(), MLP())] if class_prior else []

    def scale(i: int) -> list[BijectionInit]:
        steps = stack("GlowImage", step, num_layers, scan, unrolled=UNROLLED_AFFINE, reversible=reversible)
        return [Squeeze(), steps, *(top if i == num_scales - 1 else split)]

    return _multi_scale(scale, num_scales)


@bijection
def NSFImage(
    num_layers: int = 7,
    width: int = 64,
    num_blocks: int = 3,
    num_scales: int = 2,
    num_bins: int = 8,
    bound: float = 3.0,
    multi_scale: bool = True,
    affine: bool = False,
    dropout: float = 0.0,
    squash: Squash = SQUASH,
    reversible: bool = False,
    scan: bool | None = None,
):
    """Neural spline flows for images: the steps of Glow with rational-quadratic splines and residual networks.

    At each scale `Squeeze`, `num_layers` steps of `ActNorm`, `InvertibleLinear` and a coupling by `ConvResidual` with batch
    norm, and one more `InvertibleLinear`; between scales half of the channels leave, if it is `multi_scale`.

    Args:
        num_layers: steps of each scale.
        width: channels of the networks; 96 in the paper for CIFAR-10.
        num_blocks: residual blocks of each network.
        num_scales: scales, 3 in the paper for CIFAR-10; the sides of an image are to be multiples of 2^num_scales.
        num_bins, bound: of the splines, which are the identity beyond +-bound.
        multi_scale: channels leave between scales; not so in the paper for CIFAR-10.
        affine: affine couplings instead, the paper's baseline.
        dropout: as in `ConvResidual`.
        squash: how far out the networks see their inputs as they are, as in `Coupling`; None, as published, for as far as they
            go.
        reversible: keep no inputs of the steps for the gradient (`Reversible`): less memory, a seventh more time.
        scan: one compiled loop (`Repeat`) over the steps of a scale, by default beyond 3.

    Params:
        A tuple over layers; later scales are within the params of `FactorOut`.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; an event that is not an image, or of other sides.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, section 5.3.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.NSFImage(1, width=4, num_blocks=1))(0, (4, 4, 1))
        >>> sample(1, params, 3).shape
        (3, 4, 4, 1)
    """
    num_scales = _scales(num_scales, "NSFImage")
    net = ConvResidual(width, num_blocks, dropout=dropout, norm="batch", first_kernel=1)
    transformer = Affine(scale="sigmoid") if affine else RationalQuadratic(num_bins, bound)
    step = [ActNorm(), InvertibleLinear(), Coupling(net, transformer, squash=squash)]

    def scale(i: int) -> list[BijectionInit]:
        steps = stack("NSFImage", step, num_layers, scan, unrolled=UNROLLED, reversible=reversible)
        return [Squeeze(), steps, InvertibleLinear()]

    return _multi_scale(scale, num_scales, leave=multi_scale)


def _scales(num_scales: int, name: str) -> int:
    return positive_int(num_scales, f"{name}: num_scales", most=20)


def _multi_scale(scale: Callable[[int], Sequence[BijectionInit]], num_scales: int, leave: bool = True) -> BijectionInit:
    """The layers of each scale, and half of the channels leaving between them; flat at the end."""
    if not leave:
        return Serial(*[layer for i in range(num_scales) for layer in scale(i)], Reshape())
    layers = [*scale(num_scales - 1)]
    for i in reversed(range(num_scales - 1)):
        layers = [*scale(i), FactorOut(*layers)]
    return Serial(*layers) if num_scales > 1 else Serial(*layers, Reshape())
