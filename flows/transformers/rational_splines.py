"""Monotone splines of rational functions: rational-quadratic, as in neural spline flows, and linear-rational.
Family: Splines and polynomials."""

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, FlowsError, positive
from flows.transformers import bins
from flows.transformers.base import transformer


@transformer(bound=lambda bound, **_: float(bound), shared=True)
def RationalQuadratic(
    num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-3, min_slope: float = 1e-3, ends: str = "fixed"
):
    """A monotone rational-quadratic spline on [-bound, bound], the identity outside.

    In the bin between the knots (x0, y0) and (x1, y1) with slopes d0 and d1, s = (y1 - y0) / (x1 - x0),
    xi = (x - x0) / (x1 - x0), c = 1 - xi, p = s c + d1 xi and q = s xi + d0 c:

        y         = y0 + (y1 - y0) xi q / (xi q + c p)
        log dy/dx = log(s^2 (xi p + c q) / (xi q + c p)^2)

    The slopes at the bounds are exactly 1, so the density is continuous everywhere; theta = 0 is the identity. The
    inverse is in closed form, a few roundings from exact at any theta. With ends="free" the slopes at the bounds are trained
    too, and outside the map is linear with these slopes: for variables that live in [-bound, bound].

    `theta` is (3 num_bins - 1, *x.shape): raw widths and raw heights, num_bins of each (a softmax, then the floor), and
    num_bins - 1 raw slopes of the inner knots (a softplus above the floor; 0 gives slope 1); with free ends num_bins + 1 raw
    slopes, of all knots from -bound on.

    Args:
        num_bins: the number of bins, at least 1.
        bound: half the side of the square that holds the spline, in the units of x.
        min_bin: the least width and height of a bin, in units of 2 bound; at least 1e-4 and less than 1 / num_bins.
        min_slope: the least slope at a knot; at least 1e-4 and less than 1.
        ends: "fixed" for slopes 1 at the bounds, or "free".

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, equations 4-8.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.RationalQuadratic(num_bins=4)
        >>> theta, x = jnp.linspace(-2, 2, 11 * 3).reshape(11, 3), jnp.array([-1.0, 2.5, 7.0])
        >>> y, log_det = spline.direct(theta, x)
        >>> x_again, minus_log_det = spline.inverse(theta, y)
        >>> bool(abs(x_again - x).max() < 1e-5), bool(abs(minus_log_det + log_det).max() < 1e-5)
        (True, True)
    """
    num_bins, bound = bins.check_bins("RationalQuadratic", num_bins, bound, min_bin)
    line, slope = bins.Axis(num_bins, bound, min_bin), bins.slope_above("RationalQuadratic: min_slope", min_slope)
    if ends not in ("fixed", "free"):
        raise FlowsError(f'RationalQuadratic: ends is {ends!r:.60}; expected "fixed" or "free"')
    free = ends == "free"
    num_slopes = num_bins + 1 if free else num_bins - 1

    def find(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        widths, heights, slopes = lax.split(theta, (num_bins, num_bins, num_slopes))
        weights = bins.weights(widths), bins.weights(heights)
        k = line.find(weights[axis], value)
        d = bins.at_ends(slope, slopes, k + 1 if free else k)
        return *line.knots(weights[0], k), *line.knots(weights[1], k), *(d if free else bins.pinned(k, num_bins, *d))

    def slopes_at_ends(theta: Array) -> tuple[Array, Array]:
        return slope(theta[2 * num_bins]), slope(theta[-1])

    functions = bins.spline(bound, find, forward, backward, slopes_at_ends if free else None)
    return 2 * num_bins + num_slopes, *functions


@jax.custom_jvp
def forward(x: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
    """y and log dy/dx in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
    xi, c, s, p, q = _fractions(x, x0, x1, y0, y1, d0, d1)
    m, n = xi * q, c * p
    ratio = s / (m + n)
    return bins.divide(y0, y1, m, n), jnp.log((xi * p + c * q) * ratio * ratio)


@forward.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    """Tangents, with r = 1 / (m + n), t = 1 / (xi p + c q), w = x1 - x0, h = y1 - y0, from w dxi, w ds, dd0 and dd1."""
    (_, x0, x1, y0, y1, d0, d1), (dx, dx0, dx1, dy0, dy1, dd0, dd1) = primals, tangents
    xi, c, s, p, q = _fractions(*primals)
    m, n, both = xi * q, c * p, xi * p + c * q
    r, t, over_w, twice = 1 / (m + n), 1 / both, 1 / (x1 - x0), 2 * xi * c
    moved, tilted = dx - c * dx0 - xi * dx1, s * (dx0 - dx1) + (dy1 - dy0)
    on_slopes = (y1 - y0) * xi * c * r * r
    y_change = s * s * both * r * r * moved + s * (xi * xi * n - c * c * m) * r * r * tilted
    y_change += dy0 + m * r * (dy1 - dy0) + on_slopes * (n * dd0 - m * dd1)
    by_place = 2 * ((d1 * xi - d0 * c + s * (c - xi)) * t - (d0 + d1 - 2 * s) * (c - xi) * r) * over_w
    by_mean = (2 / s + twice * t - 2 * (xi * xi + c * c) * r) * over_w
    log_change = by_place * moved + by_mean * tilted + (c * c * t - twice * r) * dd0 + (xi * xi * t - twice * r) * dd1
    return forward(*primals), (y_change, log_change)


def _fractions(x: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> tuple[Array, ...]:
    """xi, c, s, p and q."""
    (xi, c), s = bins.fractions(x, x0, x1), (y1 - y0) / (x1 - x0)
    return xi, c, s, s * c + d1 * xi, s * xi + d0 * c


def backward(y: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array) -> Array:
    """x in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1."""
    return bins.divide(x0, x1, *odds(*bins.fractions(y, y0, y1), (y1 - y0) / (x1 - x0), d0, d1))


def odds(up: Array, down: Array, s: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
    """xi to c of the point whose y divides its bin as `up` to `down`."""
    # In the odds u = xi / c, the equation m / n = up / down reads  down s u^2 + b u - up s = 0.  Its discriminant
    # is a sum of squares, and the sign of b says which form of the root only adds: no Newton step is needed.
    b = down * d0 - up * d1
    root = jnp.sqrt(b * b + 4 * up * down * s * s)
    return jnp.where(b < 0, root - b, 2 * up * s), jnp.where(b < 0, 2 * down * s, root + b)


@transformer(bound=lambda bound, **_: float(bound), shared=True)
def LinearRational(
    num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-2, min_slope: float = 0.1, min_part: float = 0.025
):
    """A monotone linear-rational spline on [-bound, bound], the identity outside: two hyperbolas a bin.

    In the bin between the knots (x0, y0) and (x1, y1) with slopes d0 and d1, s = (y1 - y0) / (x1 - x0),
    xi = (x - x0) / (x1 - x0), and an inner knot at xi = l, both hyperbolas have equal values and slopes there. For xi <= l,
    with a = xi, e = sqrt(d0 d1), m = l d0 a and n = s (l - a) + (1 - l) e a:

        y         = y0 + (y1 - y0) m / (m + n)
        log dy/dx = log(d0 (s l / (m + n))^2)

    For xi > l it is the same seen from the other end: a = 1 - xi, with 1 - l for l, d1 for d0, and y1 - y for y - y0.

    The slopes at the bounds are exactly 1, so the density is continuous everywhere; theta = 0 is the identity. The
    inverse is in closed form without a root, a few roundings from exact. dy/dx at the inner knot is
    s^2 / (l sqrt(d0) + (1 - l) sqrt(d1))^2, a peak where both slopes are far below s. For float32 to resolve it, the floors
    have to satisfy min_bin^2 min_slope >= 1e-6.

    `theta` is (4 num_bins - 1, *x.shape): raw widths and raw heights, num_bins of each (a softmax, then the floor),
    num_bins - 1 raw slopes of the inner knots (a softplus above the floor; 0 gives slope 1), and num_bins raw l (a
    sigmoid between its limits; 0 gives 1/2).

    Args:
        num_bins: the number of bins, at least 1.
        bound: half the side of the square that holds the spline, in the units of x.
        min_bin: the least width and height of a bin, in units of 2 bound; at least 1e-3 and less than 1 / num_bins.
        min_slope: the least slope at a knot; at least 1e-6 / min_bin^2, and less than 1.
        min_part: the least l and 1 - l; at least 1e-3 and less than 0.5.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Dolatabadi, Erfani and Leckie, "Invertible Generative Modeling using Linear Rational Splines", 2020,
        arXiv:2001.05168, algorithm 1, with the weights of the knots multiplied out.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.LinearRational(num_bins=4)
        >>> theta, x = jnp.linspace(-2, 2, 15 * 3).reshape(15, 3), jnp.array([-1.0, 2.5, 7.0])
        >>> y, log_det = spline.direct(theta, x)
        >>> x_again, minus_log_det = spline.inverse(theta, y)
        >>> bool(abs(x_again - x).max() < 1e-5), bool(abs(minus_log_det + log_det).max() < 1e-5)
        (True, True)
    """
    num_bins, bound = bins.check_bins("LinearRational", num_bins, bound, min_bin)
    line, slope = bins.Axis(num_bins, bound, min_bin), bins.slope_above("LinearRational: min_slope", min_slope)
    if not 1e-3 <= positive(min_part, "LinearRational: min_part") < 0.5:
        raise FlowsError(f"LinearRational: min_part is {min_part}; expected at least 0.001 and less than 0.5")
    if min_bin**2 * min_slope < 0.999e-6:  # 0.999 for a product that is rounded
        raise FlowsError(f"LinearRational: min_bin**2 * min_slope is {min_bin**2 * min_slope:.4g}; expected at least 1e-6")

    def find(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        widths, heights, slopes, splits = lax.split(theta, (num_bins, num_bins, num_bins - 1, num_bins))
        weights = bins.weights(widths), bins.weights(heights)
        k = line.find(weights[axis], value)
        ends = bins.pinned(k, num_bins, *bins.at_ends(slope, slopes, k))
        split = min_part + (1 - 2 * min_part) * bins.at_ends(jax.nn.sigmoid, splits, k)[1]
        return *line.knots(weights[0], k), *line.knots(weights[1], k), *ends, split

    return 4 * num_bins - 1, *bins.spline(bound, find, hyperbolas, inverse_of_hyperbolas)


def hyperbolas(x: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array, l: Array) -> tuple[Array, Array]:
    """y and log dy/dx in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1 and its inner knot at l."""
    (xi, c), s = bins.fractions(x, x0, x1), (y1 - y0) / (x1 - x0)
    left, rest = halve(l * c, (1 - l) * xi)
    a, d, l = (jnp.where(left, *pair) for pair in ((xi, c), (d0, d1), (l, 1 - l)))
    m, n = l * d * a, s * rest + (1 - l) * jnp.sqrt(d0 * d1) * a
    ratio = s * l / (m + n)
    return bins.divide(y0, y1, *swap(left, m, n)), jnp.log(d * ratio * ratio)


def inverse_of_hyperbolas(y: Array, x0: Array, x1: Array, y0: Array, y1: Array, d0: Array, d1: Array, l: Array) -> Array:
    """x in the bin from (x0, y0) to (x1, y1), with slopes d0 and d1 and its inner knot at l."""
    (up, down), s = bins.fractions(y, y0, y1), (y1 - y0) / (x1 - x0)
    e0, e1 = jnp.sqrt(d0), jnp.sqrt(d1)
    left, rest = halve(l * e0 * down, (1 - l) * e1 * up)
    a, e, l = (jnp.where(left, *pair) for pair in ((up, down), (e0, e1), (l, 1 - l)))
    return bins.divide(x0, x1, *swap(left, l * s * a, (1 - l) * s * a + e * rest))


def halve(right: Array, left: Array) -> tuple[Array, Array]:
    """Return whether a point is left of its bin's inner knot, by weighted distances from both ends, and their difference."""
    # Not their difference > 0: a compiler may compute it in several places, fuse a product into it in one of them only, and put
    # the point on both sides. A comparison of two products is the same everywhere.
    before = right > left
    rest = jnp.where(before, right - left, left - right)
    return before, jnp.where(rest < 0, 0.0, rest)


def swap(left: Array, m: Array, n: Array) -> tuple[Array, Array]:
    return jnp.where(left, m, n), jnp.where(left, n, m)
