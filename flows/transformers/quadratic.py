"""The monotone quadratic spline: a piecewise-linear density. Family: Splines and polynomials."""

import jax.numpy as jnp
from jax import lax

from flows.core import Array, FlowsError
from flows.transformers import bins
from flows.transformers.base import transformer
from flows.transformers.rational_quadratic import odds


@transformer(bound=lambda bound, **_: float(bound), shared=True)
def QuadraticSpline(num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-3, min_slope: float = 1e-3):
    """A monotone quadratic spline on [-bound, bound], the identity outside: its density is piecewise linear.

    In the bin between the knots x0 and x1 with slopes d0 and d1, xi = (x - x0) / (x1 - x0), c = 1 - xi and y0 the area
    under the density left of x0, minus bound:

        y         = y0 + (x1 - x0) xi (d0 + (d1 - d0) xi / 2)
        log dy/dx = log(d0 c + d1 xi)

    The slopes at the bounds are exactly 1, so the density is continuous everywhere; the inner ones are scaled so that the
    whole area is 2 bound. theta = 0 is the identity. The inverse is in closed form, a few roundings from exact.

    `theta` is (2 num_bins - 1, *x.shape): num_bins raw widths (a softmax, then the floor), and num_bins - 1 raw slopes of
    the inner knots (their exponentials, scaled, above the floor).

    Args:
        num_bins: the number of bins, at least 1 (which is the identity).
        bound: half the side of the square that holds the spline, in the units of x.
        min_bin: the least width of a bin, in units of 2 bound; at least 1e-4 and less than 1 / num_bins.
        min_slope: the least slope at a knot; at least 1e-4, 1e-6 / min_bin, and less than 1.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Müller, McWilliams, Rousselle, Gross and Novák, "Neural Importance Sampling", 2018, arXiv:1808.03856,
        piecewise-quadratic coupling transforms.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.QuadraticSpline(num_bins=3, bound=1.5)
        >>> y, log_det = spline.direct(jnp.array([[0.0], [0.0], [0.0], [9.0], [-9.0]]), jnp.array([-0.5]))
        >>> print((y + 1.5).round(2), jnp.exp(log_det).round(2))  # a triangle
        [1.5] [2.]
    """
    num_bins, bound = bins.check_bins("QuadraticSpline", num_bins, bound, min_bin)
    bins.check_floor("QuadraticSpline: min_slope", min_slope, 1)
    if min_bin * min_slope < 0.999e-6:  # the least height of a bin; 0.999 for a product that is rounded
        raise FlowsError(f"QuadraticSpline: min_bin * min_slope is {min_bin * min_slope:.4g}; expected at least 1e-6")
    x_axis, y_axis = bins.Axis(num_bins, bound, min_bin), bins.Axis(num_bins, bound)

    def find(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        widths, slopes = lax.split(theta, (num_bins, num_bins - 1))
        widths, slopes = bins.weights(widths), bins.weights(slopes)
        # By the trapezoidal rule, inner slopes with the mean 1 in these weights give the area of the identity.
        sizes = x_axis.sizes(widths)
        around = sizes[:-1] + sizes[1:]
        mean = bins.total(around * slopes) / bins.total(around)
        inner = min_slope + (1 - min_slope) * slopes / mean
        pinned = jnp.ones_like(sizes[:1])
        heights = sizes * (jnp.concatenate([pinned, inner]) + jnp.concatenate([inner, pinned]))
        k = y_axis.find(heights, value) if axis else x_axis.find(widths, value)
        ends = bins.pinned(k, num_bins, *bins.pick(inner, k))
        return *x_axis.knots(widths, k), *y_axis.knots(heights, k), *ends

    return 2 * num_bins - 1, *bins.spline(bound, find, forward, backward)


def forward(x: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
    """y and log dy/dx in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
    (xi, c), s = bins.fractions(x, x0, x1), (d0 + d1) / 2
    return bins.divide(y0, y1, xi * (s * xi + d0 * c), c * (s * c + d1 * xi)), jnp.log(d0 * c + d1 * xi)


def backward(y: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> Array:
    """x in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
    # A rational quadratic whose mean slope is the mean of its end slopes has a constant denominator: it is this quadratic.
    return bins.divide(x0, x1, *odds(*bins.fractions(y, y0, y1), (d0 + d1) / 2, d0, d1))
