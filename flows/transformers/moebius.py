"""Möbius maps of a circle, and their averages. Family: Circles."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, positive_int
from flows.transformers.base import transformer
from flows.transformers.circular import reduced
from flows.transformers.solve import solve

LARGEST = 0.99  # norm of a centre: slopes lie between 1 / 199 and 199


@transformer(period=2 * math.pi)
def Moebius(num_centers: int = 8):
    """An average of Möbius maps of the circle of length 2 pi, lifted to the line.

    A centre w in the unit disk turns the point z = e^(ix) into (z - w) / (1 - conj(w) z), whose angle is x + 2 arg(1 - w / z):

        y         = x + 2 sum_k p_k arg(1 - w_k e^(-ix))
        log dy/dx = log sum_k p_k (1 - |w_k|^2) / |1 - w_k e^(-ix)|^2

    The weights p_k are positive with sum 1. y(x + 2 pi) = y(x) + 2 pi: a bijection of the circle, and of the line, smooth
    everywhere and without the fixed point of `CircularRationalQuadratic`; its `period` is 2 pi. theta = 0 is the identity, and
    so is the map where |x| is so large that neighbouring floats are a period apart. The inverse is in closed form for one
    centre, otherwise numerical, exact to a few roundings, with implicit gradients.

    `theta` is (3 num_centers, *x.shape): raw real parts and raw imaginary parts of the centres, w = 0.99 v / sqrt(1 + |v|^2),
    and raw weights (a softmax), num_centers of each.

    Args:
        num_centers: how many maps are averaged.

    Errors:
        FlowsError: num_centers is not a whole number above 0.

    Source:
        Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, "Normalizing Flows on Tori and Spheres",
        2020, arXiv:2002.02428, Möbius transformations; here lifted maps are averaged, so none has to be turned first.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> moebius = flows.transformers.Moebius(num_centers=2)
        >>> theta, x = jnp.linspace(-2, 2, 6)[:, None] * jnp.ones(2), jnp.array([0.5, 0.5 + 2 * jnp.pi])
        >>> y, log_det = moebius.direct(theta, x)
        >>> round(float(y[1] - y[0]), 4), bool(abs(moebius.inverse(theta, y)[0] - x).max() < 1e-5)
        (6.2832, True)
    """
    k = positive_int(num_centers, "Moebius: num_centers")

    def centers(theta: Array) -> tuple[Array, Array, Array]:
        a, b, raw = lax.split(theta, (k, k, k))
        shrunk = LARGEST * lax.rsqrt(1 + a * a + b * b)
        return a * shrunk, b * shrunk, jax.nn.softmax(raw, axis=0)

    def turned(a: Array, b: Array, p: Array, r: Array) -> tuple[Array, Array]:
        """y - x and log dy/dx at x = r."""
        cos, sin = jnp.cos(r)[None], jnp.sin(r)[None]
        along, across = a * cos + b * sin, a * sin - b * cos
        slope = (p * (1 - a * a - b * b) / (jnp.square(1 - along) + jnp.square(across))).sum(0)
        return 2 * (p * jnp.arctan2(across, 1 - along)).sum(0), jnp.log(slope)

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        beyond, r = reduced(x, math.pi)
        change, log_det = turned(*centers(theta), r)
        return jnp.where(beyond, x, x + change), jnp.where(beyond, 0.0, log_det)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        (a, b, p), (beyond, r) = centers(theta), reduced(y, math.pi)
        if k == 1:
            change = turned(-a, -b, p, r)[0]
        else:

            def lifted(x: Array) -> tuple[Array, Array]:
                change, log_det = turned(a, b, p, x)
                return x + change, log_det

            change = solve(lifted, r, r - math.pi, r + math.pi, r) - r
        x = jnp.where(beyond, y, y + change)
        return x, -direct(theta, x)[1]

    return 3 * k, direct, inverse
