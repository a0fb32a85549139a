"""The rational-quadratic spline of a circle. Family: Circles."""

import math

import jax.numpy as jnp
from jax import lax

from flows.core import Array
from flows.transformers import bins
from flows.transformers.base import transformer
from flows.transformers.rational_quadratic import backward, forward


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
