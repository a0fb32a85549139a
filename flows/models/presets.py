"""Published models of images, with the settings that they were trained by, as data. Family: Images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from flows.bijections.bounds import Logit
from flows.bijections.elementwise import FixedAffine
from flows.bijections.noise import Dequantize, RandomFlip
from flows.compose import Serial
from flows.core import BijectionInit, DistributionInit, FlowsError, Shape
from flows.distributions.flow import Flow
from flows.distributions.location_scale import Logistic
from flows.distributions.normal import Normal
from flows.models.flow_plus_plus import FlowPlusPlus, FlowPlusPlusNoise
from flows.models.images import GlowImage, NICEImage, NSFImage, RealNVPImage

GLOW = "Kingma and Dhariwal, 2018, arXiv:1807.03039, and its code"
NSF = "Durkan, Bekasov, Murray and Papamakarios, 2019, arXiv:1906.04032, and its code"
REALNVP = "Dinh, Sohl-Dickstein and Bengio, 2017, arXiv:1605.08803, and its code"
NICE = "Dinh, Krueger and Bengio, 2014, arXiv:1410.8516"
FLOW_PLUS_PLUS = "Ho, Chen, Srinivas, Duan and Abbeel, 2019, arXiv:1902.00275, and its code"
CIFAR, IMAGENET = 50_000, 1_281_149  # images to train on
HELD_OUT = 0.01  # of these, to choose the epoch by
WARM_UP = 10 * 98  # iterations of Glow: ten of what its code calls an epoch, 50,000 images by 512, of any data


class Preset(NamedTuple):
    """A published model, and the settings of `flows.fit(0, preset.distribution, images, **preset.fit)`.

    What differs from the sources: a hundredth of the images is held out; Glow, RealNVP and Flow++ name no end, and have one
    here. Flow++ is without weight norm, and for ImageNet has matrices in front of its couplings. Glow is without the learned
    scale of its last noise and the channel that marks edges. RealNVP has log-scales within 2, and normalises the channel of the
    mask like the others. NICE for CIFAR-10 is without whitening. Models called "5bit" are of whole numbers 0 .. 31: give them
    `images // 8`.

    Attributes:
        distribution: a constructor's value, of whole numbers 0 .. levels - 1.
        input_dim: the images that it was published for.
        fit: keywords of `flows.fit`, for as many images as were published.
        source: the authors of the model.
    """

    distribution: DistributionInit
    input_dim: Shape
    fit: dict[str, Any]
    source: str


def _pixels(levels: int, *layers: BijectionInit, low: float = -0.5, width: float = 1.0, prior: Any = None) -> DistributionInit:
    """Pixels with noise, brought to [low, low + width], and what follows."""
    scale = width / levels
    scaled = FixedAffine(scale, low + scale / 2)
    return Flow(Serial(Dequantize(1.0, levels=levels), scaled, *layers), Normal() if prior is None else prior)


def _trained(optimizer: Any, batch_size: int, epochs: int, ema: float | None = None) -> dict[str, Any]:
    settings = {"standardize": False, "folds": 1, "validation": HELD_OUT, "ema": ema, "patience": epochs}
    return {**settings, "optimizer": optimizer, "batch_size": batch_size, "max_epochs": epochs}


def _glow(num_layers: int, num_scales: int, side: int, additive: bool = False, colours: int = 256) -> Preset:
    """Batches of 64 images of 32 x 32 on each of 8 devices, and fewer that are larger."""
    average = 1 - 10 / WARM_UP  # of params, and what is left of the largest gradient
    optimizer = optax.adamax(optax.linear_schedule(0.0, 1e-3, WARM_UP), b2=average)
    model = _pixels(colours, GlowImage(num_layers, 512, num_scales, additive, squash=None))
    return Preset(model, (side, side, 3), _trained(optimizer, 512 * 32**2 // side**2, 1_000, average), GLOW)


def _nsf(num_scales: int, side: int, images: int, steps: int, batch: int, colours: int, **settings: Any) -> Preset:
    epochs = -(-steps // (int(images * (1 - HELD_OUT)) // batch))
    fit = _trained(optax.adam(optax.cosine_decay_schedule(5e-4, steps)), batch, epochs)
    return Preset(_pixels(colours, NSFImage(num_scales=num_scales, squash=None, **settings)), (side, side, 3), fit, NSF)


def _penalised(params: Any) -> Any:
    """True at the norms of kernels, and at learned scales."""
    names = {"gain", "transformer"}
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not names.isdisjoint(getattr(key, "key", None) for key in path), params
    )


def _realnvp(side: int, num_scales: int, width: int, num_blocks: int, epochs: int, flips: bool = False) -> Preset:
    """The clip is of the gradient of nats an image, and of a penalty: 5e-5 times the squares of the norms of kernels, and of
    learned scales."""
    penalty = optax.add_decayed_weights(2 * 5e-5, mask=_penalised)
    optimizer = optax.chain(penalty, optax.clip_by_global_norm(100.0), optax.adam(1e-3))
    model = RealNVPImage(width=width, num_blocks=num_blocks, num_scales=num_scales, norm="both")
    layers = Logit(False), *([RandomFlip()] if flips else []), model
    return Preset(_pixels(256, *layers, low=0.05, width=0.9), (side, side, 3), _trained(optimizer, 64, epochs), REALNVP)


def _nice(event: Shape, hidden: tuple[int, ...], low: float, width: float) -> Preset:
    model = _pixels(256, NICEImage(hidden=hidden), low=low, width=width, prior=Logistic())
    return Preset(model, event, _trained(optax.adam(1e-3, b1=0.9, b2=0.99, eps=1e-4), 200, 1_500), NICE)


def _flow_plus_plus(batch: int, epochs: int, rate: Any, ema: float, noise: tuple, **settings: Any) -> Preset:
    """Blocks and couplings of the noise, and the settings of the model."""
    blocks, layers = noise
    learned = FlowPlusPlusNoise(settings["width"], blocks, layers=layers)
    scale = 0.9 / 256
    pixels = Dequantize(1.0, levels=256, noise=learned), FixedAffine(scale, 0.05 + scale / 2), Logit(False)
    fit = _trained(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)), batch, epochs, ema)
    return Preset(Flow(Serial(*pixels, FlowPlusPlus(**settings))), (32, 32, 3), fit, FLOW_PLUS_PLUS)


PRESETS: dict[str, Callable[[], Preset]] = {
    "flow++-cifar10": lambda: _flow_plus_plus(
        64, 1_000, optax.linear_schedule(0.0, 3e-4, 2_000), 0.999, (2, 4), width=96, blocks=10, dropout=0.2
    ),
    "flow++-imagenet32": lambda: _flow_plus_plus(
        32,
        100,
        optax.linear_schedule(1e-3, 3e-4, 100 * IMAGENET // 32),
        0.999222,
        (8, 8),
        width=128,
        blocks=20,
        dropout=0.0,
    ),
    "glow-cifar10": lambda: _glow(32, 3, 32),
    "glow-cifar10-additive": lambda: _glow(32, 3, 32, additive=True),
    "glow-cifar10-5bit": lambda: _glow(32, 3, 32, colours=32),
    "glow-celebahq256-5bit": lambda: _glow(32, 6, 256, additive=True, colours=32),
    "glow-imagenet32": lambda: _glow(48, 3, 32),
    "glow-imagenet32-5bit": lambda: _glow(48, 3, 32, colours=32),
    "glow-imagenet64": lambda: _glow(48, 4, 64),
    "glow-imagenet64-5bit": lambda: _glow(48, 4, 64, colours=32),
    "nice-cifar10": lambda: _nice((32, 32, 3), (2000,) * 4, -1.0, 2.0),
    "nice-mnist": lambda: _nice((28, 28, 1), (1000,) * 5, 0.0, 1.0),
    "nsf-cifar10": lambda: _nsf(3, 32, CIFAR, 200_000, 512, 256, width=96, num_bins=4, dropout=0.2, multi_scale=False),
    "nsf-cifar10-5bit": lambda: _nsf(3, 32, CIFAR, 100_000, 512, 32, width=64, num_bins=2, dropout=0.2, multi_scale=False),
    "nsf-cifar10-affine": lambda: _nsf(3, 32, CIFAR, 200_000, 512, 256, width=96, affine=True, dropout=0.2, multi_scale=False),
    "nsf-imagenet64": lambda: _nsf(4, 64, IMAGENET, 200_000, 256, 256, width=96, num_bins=8),
    "nsf-imagenet64-5bit": lambda: _nsf(4, 64, IMAGENET, 100_000, 256, 32, width=96, num_bins=8, dropout=0.1),
    "nsf-imagenet64-affine": lambda: _nsf(4, 64, IMAGENET, 200_000, 256, 256, width=96, affine=True),
    "realnvp-cifar10": lambda: _realnvp(32, 2, 64, 8, 1_000, flips=True),
    "realnvp-imagenet32": lambda: _realnvp(32, 4, 32, 4, 100),
    "realnvp-imagenet64": lambda: _realnvp(64, 5, 32, 2, 100),
}


def preset(name: str) -> Preset:
    """A published model of images, by its name.

    Args:
        name: such as "glow-cifar10"; the error of an unknown one lists all.

    Returns:
        Its `Preset`: the distribution, the event, the keywords of `flows.fit`, and the source.

    Errors:
        FlowsError: an unknown name.

    Example:
        >>> import flows
        >>> glow = flows.models.preset("glow-cifar10")
        >>> glow.input_dim, glow.fit["batch_size"]
        ((32, 32, 3), 512)
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise FlowsError(f"preset: name is {name!r:.60}; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]()
