"""Shifts and scales: the additive, the affine and the gated transformer; and the inverse of any transformer. Family: Affine."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from flows.core import Array, FlowsError, positive, soft_clip
from flows.transformers.base import Transformer, check_transformer, transformer

MIN_SCALE = 1e-3  # the least scale by a sigmoid, so that the inverse cannot overflow
SCALES = ("tanh", "exp", "sigmoid", "learned")


@transformer
def Additive():
    """A shift: y = x + theta[0], log dy/dx = 0.

    Source:
        Dinh, Krueger and Bengio, "NICE: Non-linear Independent Components Estimation", 2014, arXiv:1410.8516, section 3.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> flows.transformers.Additive().direct(jnp.ones((1, 2)), jnp.array([0.0, 3.0]))[0].tolist()
        [1.0, 4.0]
    """

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        return x + theta[0], jnp.zeros_like(x)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        return y - theta[0], jnp.zeros_like(y)

    return 1, direct, inverse


@transformer
def Affine(bound: float = 10.0, scale: str = "tanh"):
    """A scale and a shift with the scale bounded by construction.

    y = x exp(s) + theta[1], log dy/dx = s, and the log-scale s is made of r = theta[0] by one of

        "tanh":     s = bound tanh(r / bound), which is r for |r| well below the bound
        "exp":      s = r, cut at +-bound
        "sigmoid":  s = log((sigmoid(r + 2) + 1e-3) / (sigmoid(2) + 1e-3)), from -6.8 to 0.13: it can hardly stretch
        "learned":  s = bound tanh(g / bound) tanh(r), where g is one trained number, a weight, which starts at 0

    All are the identity at theta = 0. theta is (2, ...). With "learned" a scale is never learned where r is exactly 0 at
    first, as g is, since both gradients are 0: by a network with last_scale=0, in `Elementwise`, in a coupling of one column.

    Args:
        bound: the largest |s|, in nats; "sigmoid" has its own.
        scale: "tanh", "exp", "sigmoid" or "learned".

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, equations 4-5, and its
        code, whose (x + t) exp(s) with a learned scale is `Inverse(Affine(scale="learned"))` of -t and -s. The sigmoid:
        Kingma and Dhariwal, "Glow", 2018, arXiv:1807.03039, in its code; with the floor, Durkan, Bekasov, Murray and
        Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, the affine baseline.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> y, log_det = flows.transformers.Affine().direct(jnp.zeros((2, 3)), jnp.ones(3))
        >>> y.tolist(), log_det.tolist()
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    bound = positive(bound, "Affine: bound")
    if scale not in SCALES:
        raise FlowsError(f"Affine: scale is {scale!r}; expected one of {', '.join(SCALES)}")
    at_zero = math.log(1 / (1 + math.exp(-2)) + MIN_SCALE)

    def log_scale(raw: Array, gain: Array | None) -> Array:
        if gain is not None:
            return soft_clip(gain, bound) * jnp.tanh(raw)
        if scale == "tanh":
            return soft_clip(raw, bound)
        if scale == "exp":
            return jnp.clip(raw, -bound, bound)
        return jnp.log(jax.nn.sigmoid(raw + 2) + MIN_SCALE) - at_zero

    def direct(theta: Array, x: Array, gain: Array | None = None) -> tuple[Array, Array]:
        s = log_scale(theta[0], gain)
        return x * jnp.exp(s) + theta[1], s

    def inverse(theta: Array, y: Array, gain: Array | None = None) -> tuple[Array, Array]:
        s = log_scale(theta[0], gain)
        return (y - theta[1]) * jnp.exp(-s), -s

    return (2, direct, inverse, lambda rng: jnp.zeros(())) if scale == "learned" else (2, direct, inverse)


@transformer
def Gated(bias: float = 2.0):
    """The gated update of inverse autoregressive flows: a weighted mean of x and a target.

    y = sigma x + (1 - sigma) theta[1], log dy/dx = log sigma, with sigma = 1e-3 + (1 - 1e-3) sigmoid(theta[0] + bias): it
    only shrinks, which keeps it stable. At theta = 0 it is y = sigma x, not quite the identity.

    Args:
        bias: how far the gate is open at theta = 0, above 0: 2 is sigma = 0.88.

    Errors:
        FlowsError: the bias is not above 0.

    Source:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improving Variational Inference with Inverse
        Autoregressive Flow", 2016, arXiv:1606.04934, equations 13-14.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> gated = flows.transformers.Gated()
        >>> y, log_det = gated.direct(jnp.array([[-2.0], [5.0]]), jnp.ones(1))  # half way from 1 to 5
        >>> y.round(2).tolist()
        [3.0]
    """
    bias = positive(bias, "Gated: bias")

    def gate(raw: Array) -> tuple[Array, Array]:
        """sigma and 1 - sigma."""
        free = 1 - MIN_SCALE
        return MIN_SCALE + free * jax.nn.sigmoid(raw + bias), free * jax.nn.sigmoid(-raw - bias)

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        keep, change = gate(theta[0])
        return keep * x + change * theta[1], jnp.log(keep)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        keep, change = gate(theta[0])
        return (y - change * theta[1]) / keep, -jnp.log(keep)

    return 2, direct, inverse


@transformer(
    period=lambda of: of.period,
    bound=lambda of: of.bound,
    shared=lambda of: of.shared,
    classes=lambda of: of.classes,
    unit=lambda of: of.unit,
)
def Inverse(of: Transformer):
    """The inverse of a transformer as a transformer: its direct is the other's inverse, y = f^-1(x).

    `theta` is the `theta` of `of`, and so are the weights if it has any.

    Args:
        of: the transformer f.

    Errors:
        TypeError: `of` is not a transformer.

    Example:
        >>> import flows
        >>> flows.transformers.Inverse(flows.transformers.Affine())
        transformers.Inverse(transformers.Affine())
    """
    of = check_transformer(of, "Inverse")
    functions = of.num_params, partial(of.apply, "inverse"), partial(of.apply, "direct")
    return (*functions, of.init) if of.has_weights else functions
