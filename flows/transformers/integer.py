"""`Integer`: whole numbers moved by whole numbers. Family: Whole numbers."""

import math

import jax
import jax.numpy as jnp

from flows.core import Array, positive, positive_int
from flows.transformers.base import transformer


def _classes(modulus: int | None, scale: float) -> float:
    return math.inf if modulus is None else modulus


@transformer(classes=_classes, unit=lambda modulus, scale: scale, shared=True)
def Integer(modulus: int | None = None, scale: float = 1.0):
    """A shift of whole numbers: y = x + round(scale theta), or modulo K; log dy/dx = 0.

    Whole numbers have masses, which such a map moves as they are. In a `Coupling` it makes an integer discrete flow of counts;
    with a modulus, one of codes, which networks see one-hot. The gradient goes straight through: dy/dtheta = scale, as if
    nothing were rounded. At theta = 0 it is the identity. The base is a mass of whole numbers, such as `DiscretizedLogistic`,
    or with a modulus `Categorical`, too, whose masses have no gradient with respect to their codes.

    `theta` is (1, *x.shape).

    Args:
        modulus: K, for codes 0 to K - 1; None for whole numbers.
        scale: in units of x; networks see counts over it. A tenth of their spread serves.

    Errors:
        FlowsError: a modulus that is not a whole number above 0, or a scale that is not above 0.

    Source:
        Hoogeboom, Peters, van den Berg and Welling, "Integer Discrete Flows and Lossless Compression", 2019, arXiv:1905.07376,
        equations 7-10; with a modulus: Tran, Vafa, Agrawal, Dinh and Poole, "Discrete Flows", 2019, arXiv:1905.10347,
        equation 3.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> theta, x = jnp.array([[0.4, 1.6, 2.0]]), jnp.array([1.0, 1.0, 3.0])
        >>> flows.transformers.Integer(modulus=4).direct(theta, x)[0].tolist()
        [1.0, 3.0, 1.0]
    """
    scale = positive(scale, "Integer: scale")
    if modulus is not None:
        modulus = positive_int(modulus, "Integer: modulus")

    def moved(x: Array, shift: Array) -> tuple[Array, Array]:
        y = x + shift
        if modulus is not None:
            turns = jnp.where(jnp.isinf(y), 0, jnp.floor(y / modulus))
            y = y - modulus * jax.lax.stop_gradient(turns)  # whose slope is 1
        return y, jnp.zeros_like(y)

    def shift(theta: Array) -> Array:
        raw = scale * theta[0]
        return jnp.round(raw) + (raw - jax.lax.stop_gradient(raw))

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        return moved(x, shift(theta))

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        return moved(y, -shift(theta))

    return 1, direct, inverse
