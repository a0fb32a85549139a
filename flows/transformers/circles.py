"""Maps of circles: the rational-quadratic spline, and averages of Möbius maps. Family: Circles."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, positive_int
from flows.transformers import bins
from flows.transformers.base import transformer
from flows.transformers.rational_splines import backward, forward
from flows.transformers.solve import solve

LARGEST = 0.99  # norm of a centre: slopes lie between 1 / 199 and 199


@transformer(period=lambda bound, line, **_: None if line else 2 * float(bound), shared=True)
def CircularRationalQuadratic(
    num_bins: int = 8, bound: float = math.pi, min_bin: float = 1e-3, min_slope: float = 1e-3, line: bool = False
):
    """A monotone rational-quadratic spline of the circle [-bound, bound], extended to the line by periodicity.

    On [-bound, bound] it is a `RationalQuadratic` f, with one trained slope for both ends, so that the density is continuous on
    the circle. Everywhere else:

        y         = x + f(r) - r,    r = x - 2 bound k in [-bound, bound] for a whole number k
        log dy/dx = log f'(r)

    So y(x + 2 bound) = y(x) + 2 bound: a bijection of the circle, and of the line, that maps -bound to itself; a `Rotation`
    before or after it turns the circle. Its `period` is 2 bound. theta = 0 is the identity, and so is the map where |x| is so
    large that neighbouring floats are a period apart.

    `theta` is (3 num_bins, *x.shape): raw widths, raw heights (a softmax, then the floor) and raw slopes of the knots
    from -bound on (a softplus above the floor; 0 gives slope 1), num_bins of each.

    Args:
        num_bins: the number of bins, at least 1.
        bound: half the period, in the units of x.
        min_bin: the least width and height of a bin, in units of 2 bound; at least 1e-4 and less than 1 / num_bins.
        min_slope: the least slope at a knot; at least 1e-4 and less than 1.
        line: use it as a map of the line: it then declares no `period`, networks see its values as they are, and its base
            lives on the line.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, "Normalizing Flows on Tori and Spheres",
        2020, arXiv:2002.02428, circular splines.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.CircularRationalQuadratic(num_bins=4, bound=0.5)
        >>> theta, x = jnp.linspace(-2, 2, 12)[:, None] * jnp.ones(3), jnp.array([0.25, 1.25, -0.75])
        >>> y, log_det = spline.direct(theta, x)
        >>> bool(abs(y - y[0] - jnp.array([0.0, 1.0, -1.0])).max() < 1e-6), bool((log_det == log_det[0]).all())
        (True, True)
    """
    name = "CircularRationalQuadratic"
    num_bins, bound = bins.check_bins(name, num_bins, bound, min_bin)
    cuts, slope = bins.Axis(num_bins, bound, min_bin), bins.slope_above(f"{name}: min_slope", min_slope)

    def find(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        widths, heights, slopes = lax.split(theta, (num_bins, num_bins, num_bins))
        weights = bins.weights(widths), bins.weights(heights)
        k = cuts.find(weights[axis], value)
        ends = bins.at_ends(slope, jnp.concatenate([slopes, slopes[:1]]), k + 1)
        return *cuts.knots(weights[0], k), *cuts.knots(weights[1], k), *ends

    def extend(value: Array, r: Array, image: Array, beyond: Array) -> Array:
        """The image of a value, from the image of its r."""
        return jnp.where(jnp.abs(value) <= bound, image, jnp.where(beyond, value, value + (image - r)))

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        beyond, r = reduced(x, bound)
        y, log_det = forward(r, *find(theta, r, 0))
        return extend(x, r, y, beyond), jnp.where(beyond, 0.0, log_det)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        beyond, r = reduced(y, bound)
        x = extend(y, r, backward(r, *find(theta, r, 1)), beyond)
        return x, -direct(theta, x)[1]

    return 3 * num_bins, direct, inverse


def reduced(value: Array, bound: float) -> tuple[Array, Array]:
    """Return a mask of values so large that neighbouring floats are a period apart, and values reduced to [-bound, bound]:
    exactly, so that there is no seam."""
    period = 2 * bound
    beyond = jnp.abs(value) >= period / jnp.finfo(value.dtype).eps  # false for NaN, which stays NaN
    r = lax.rem(jnp.where(beyond, 0.0, value), jnp.full_like(value, period))
    return beyond, jnp.where(r > bound, r - period, jnp.where(r < -bound, r + period, r))


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
