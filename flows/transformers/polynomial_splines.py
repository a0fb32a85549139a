"""Monotone splines of polynomials: linear, quadratic and cubic. Family: Splines and polynomials."""

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, FlowsError
from flows.transformers import bins, rational_splines
from flows.transformers.base import transformer


@transformer(bound=lambda bound, **_: float(bound), shared=True)
def LinearSpline(num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-3):
    """A monotone piecewise-linear map on [-bound, bound], the identity outside: a histogram as a density.

    In the bin between the knots (x0, y0) and (x1, y1), with xi = (x - x0) / (x1 - x0):

        y         = y0 + (y1 - y0) xi
        log dy/dx = log((y1 - y0) / (x1 - x0))

    All bins have the same width. The density is constant within a bin and jumps at the knots, so the gradient of the log-det
    in x, or in y for the inverse, is 0: it is for density estimation more than for sampling. theta = 0 is the identity.

    `theta` is (num_bins, *x.shape): raw heights (a softmax, then the floor).

    Args:
        num_bins: the number of bins, at least 1.
        bound: half the side of the square that holds the spline, in the units of x.
        min_bin: the least height of a bin, in units of 2 bound; at least 1e-4 and less than 1 / num_bins.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Müller, McWilliams, Rousselle, Gross and Novák, "Neural Importance Sampling", 2018, arXiv:1808.03856,
        piecewise-linear coupling transforms.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.LinearSpline(num_bins=2, bound=1.0, min_bin=0.1)
        >>> y, log_det = spline.direct(jnp.log(jnp.array([[1.0], [3.0]])), jnp.array([0.0]))
        >>> print(y, jnp.exp(log_det))  # the first bin's height is 2 (0.1 + 0.8 / 4) of 2
        [-0.4] [1.4]
    """
    num_bins, bound = bins.check_bins("LinearSpline", num_bins, bound, min_bin)
    x_axis, y_axis = bins.Axis(num_bins, bound), bins.Axis(num_bins, bound, min_bin)

    def find(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        widths, heights = jnp.ones_like(theta), bins.weights(theta)
        k = y_axis.find(heights, value) if axis else x_axis.find(widths, value)
        return *x_axis.knots(widths, k), *y_axis.knots(heights, k)

    def forward(x: Array, x0: Array, x1: Array, y0: Array, y1: Array) -> tuple[Array, Array]:
        log_det = jnp.log((y1 - y0) / (x1 - x0))
        return bins.divide(y0, y1, *bins.fractions(x, x0, x1)), jnp.where(jnp.isnan(x), x, log_det)  # NaN in, NaN out

    def backward(y: Array, x0: Array, x1: Array, y0: Array, y1: Array) -> Array:
        return bins.divide(x0, x1, *bins.fractions(y, y0, y1))

    return num_bins, *bins.spline(bound, find, forward, backward)


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

    def forward(x: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
        """y and log dy/dx in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
        (xi, c), s = bins.fractions(x, x0, x1), (d0 + d1) / 2
        return bins.divide(y0, y1, xi * (s * xi + d0 * c), c * (s * c + d1 * xi)), jnp.log(d0 * c + d1 * xi)

    def backward(y: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> Array:
        """x in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
        # A rational quadratic whose mean slope is the mean of its end slopes has a constant denominator: it is this quadratic.
        return bins.divide(x0, x1, *rational_splines.odds(*bins.fractions(y, y0, y1), (d0 + d1) / 2, d0, d1))

    return 2 * num_bins - 1, *bins.spline(bound, find, forward, backward)


@transformer(bound=lambda bound, **_: float(bound), shared=True)
def CubicSpline(num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-3):
    """A monotone cubic spline on [-bound, bound], the identity outside, given by its knots alone.

    In the bin between the knots (x0, y0) and (x1, y1) with slopes d0 and d1, s = (y1 - y0) / (x1 - x0),
    xi = (x - x0) / (x1 - x0), c = 1 - xi:

        y         = y0 + (x1 - x0) xi (d0 c^2 + (3 s - d1) xi c + s xi^2)
        log dy/dx = log(d0 c^2 + 2 (3 s - d0 - d1) xi c + d1 xi^2)

    At an inner knot between bins of widths w and w' with mean slopes s and s', the slope is Steffen's,
    min((s w' + s' w) / (w + w'), 2 s, 2 s'); at the bounds it is exactly 1, so the density is continuous everywhere. A
    cubic is monotone where both its slopes are at most 3 s. Here all are at most 2 s, since the first and the last bin are
    at least half as high as wide. theta = 0 is the identity. The inverse is by Newton's method from a start in closed form,
    a few roundings from exact.

    `theta` is (2 num_bins, *x.shape): raw widths and raw heights, num_bins of each (a softmax, then the floor).

    Args:
        num_bins: the number of bins, at least 1 (which is the identity).
        bound: half the side of the square that holds the spline, in the units of x.
        min_bin: the least width and height of a bin (height of an outer bin: half of its width), in units of 2 bound; at
            least 1e-4 and less than 1 / num_bins.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Cubic-Spline Flows", 2019, arXiv:1906.02145; the slopes:
        Steffen, "A simple method for monotonic interpolation in one dimension", 1990, A&A 239, 443.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.CubicSpline(num_bins=4)
        >>> theta, x = jnp.linspace(-2, 2, 8 * 3).reshape(8, 3), jnp.array([-1.0, 2.5, 7.0])
        >>> y, log_det = spline.direct(theta, x)
        >>> x_again, minus_log_det = spline.inverse(theta, y)
        >>> bool(abs(x_again - x).max() < 1e-5), bool(abs(minus_log_det + log_det).max() < 1e-5)
        (True, True)
    """
    num_bins, bound = bins.check_bins("CubicSpline", num_bins, bound, min_bin)
    x_axis, y_axis = bins.Axis(num_bins, bound, min_bin), bins.Axis(num_bins, bound)

    def find(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        widths, heights = (bins.weights(raw) for raw in lax.split(theta, (num_bins, num_bins)))
        w = x_axis.sizes(widths)
        i = lax.broadcasted_iota(jnp.int32, w.shape, 0)
        outer = (i == 0) | (i == num_bins - 1)
        floors = jnp.where(outer, w / 2, min_bin)
        # These factors are what floors leave of 1 / num_bins where all widths are equal: heights are equal at theta = 0.
        heights = heights * jnp.where(outer, 0.5 / num_bins, 1 / num_bins - min_bin)
        h = floors + heights * ((1 - bins.total(floors)) / bins.total(heights))
        s = h / w
        mixed = (s[:-1] * w[1:] + s[1:] * w[:-1]) / (w[:-1] + w[1:])
        slopes = jnp.minimum(mixed, 2 * jnp.minimum(s[:-1], s[1:]))
        k = y_axis.find(h, value) if axis else x_axis.find(widths, value)
        ends = bins.pinned(k, num_bins, *bins.pick(slopes, k))
        return *x_axis.knots(widths, k), *y_axis.knots(h, k), *ends

    def forward(x: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
        """y and log dy/dx in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
        (xi, c), s = bins.fractions(x, x0, x1), (y1 - y0) / (x1 - x0)
        return bins.divide(y0, y1, *odds(xi, c, s, d0, d1)), jnp.log(slope(xi, c, s, d0, d1))

    def backward(y: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> Array:
        """x in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
        xi = solve(*bins.fractions(y, y0, y1), (y1 - y0) / (x1 - x0), d0, d1)
        return bins.divide(x0, x1, xi, 1 - xi)

    return 2 * num_bins, *bins.spline(bound, find, forward, backward)


def odds(xi: Array, c: Array, s: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
    """y - y0 to y1 - y, in units of x1 - x0: sums of positive terms, each precise where it is small."""
    return xi * (d0 * c * c + (3 * s - d1) * xi * c + s * xi * xi), c * (s * c * c + (3 * s - d0) * xi * c + d1 * xi * xi)


def slope(xi: Array, c: Array, s: Array, d0: Array, d1: Array) -> Array:
    """dy/dx; positive, since (3 s - d0 - d1)^2 < d0 d1 where 3 s < d0 + d1 and neither is above 2 s."""
    return d0 * c * c + 2 * (3 * s - d0 - d1) * xi * c + d1 * xi * xi


def excess(xi: Array, up: Array, down: Array, s: Array, d0: Array, d1: Array) -> Array:
    """Return a number that is 0 where y divides its bin as `up` to `down`, and whose derivative in xi is the slope."""
    m, n = odds(xi, 1 - xi, s, d0, d1)
    return m * down - n * up


@jax.custom_jvp
def solve(*equation: Array) -> Array:
    """The xi of the point whose y divides its bin as `up` to `down`."""
    m, n = rational_splines.odds(*equation)
    xi = m / (m + n)
    # The rational quadratic with these slopes is so close that five steps reach double precision at any slopes up to 2 s.
    for _ in range(5):
        xi = jnp.clip(xi - excess(xi, *equation) / slope(xi, 1 - xi, *equation[2:]), 0.0, 1.0)
    return xi


@solve.defjvp
def _(equation: tuple, tangents: tuple) -> tuple:
    xi = solve(*equation)
    change = jax.jvp(lambda *equation: excess(xi, *equation), equation, tangents)[1]
    return xi, -change / slope(xi, 1 - xi, *equation[2:])
