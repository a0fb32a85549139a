"""The monotone rational-quadratic spline, the transformer of neural spline flows."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, FlowsError, positive, positive_int, transformer


@transformer
def RationalQuadratic(num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-3, min_slope: float = 1e-3):
    """A monotone rational-quadratic spline on [-bound, bound], the identity outside.

    In the bin between the knots (x0, y0) and (x1, y1) with slopes d0 and d1, s = (y1 - y0) / (x1 - x0),
    xi = (x - x0) / (x1 - x0), c = 1 - xi and q = s (xi^2 + c^2) + (d0 + d1) xi c:

        y         = y0 + (y1 - y0) xi (s xi + d0 c) / q
        log dy/dx = log(s^2 (d1 xi^2 + 2 s xi c + d0 c^2) / q^2)

    The slopes at the bounds are exactly 1, so the density is continuous everywhere; theta = 0 is the identity. The
    inverse is in closed form, a few roundings from exact at any theta.

    `theta` is (3 num_bins - 1, *x.shape): raw widths and raw heights, num_bins of each (a softmax, then the floor), and
    num_bins - 1 raw slopes of the inner knots (a softplus above the floor; 0 gives slope 1).

    Args:
        num_bins: the number of bins, at least 1.
        bound: half the side of the square that holds the spline, in the units of x.
        min_bin: the least width and height of a bin, in units of 2 bound; at least 1e-6 and less than 1 / num_bins.
        min_slope: the least slope at a knot; at least 1e-6 and less than 1.

    Raises:
        FlowsError: an argument is outside its range.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, equations 4-8.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.RationalQuadratic(num_bins=4)
        >>> spline.num_params
        11
        >>> theta, x = jnp.linspace(-2, 2, 11 * 3).reshape(11, 3), jnp.array([-1.0, 2.5, 7.0])
        >>> y, log_det = spline.direct(theta, x)
        >>> x_again, minus_log_det = spline.inverse(theta, y)
        >>> bool(abs(x_again - x).max() < 1e-5), bool(abs(minus_log_det + log_det).max() < 1e-5)
        (True, True)
    """
    num_bins = positive_int(num_bins, "RationalQuadratic: num_bins")
    bound = positive(bound, "RationalQuadratic: bound")
    # In float32 a thinner bin may have no width at all, and the square of a far smaller slope would underflow.
    for name, floor, limit in (("min_bin", min_bin, 1 / num_bins), ("min_slope", min_slope, 1)):
        if not 1e-6 <= positive(floor, f"RationalQuadratic: {name}") < limit:
            raise FlowsError(f"RationalQuadratic: {name} is {floor}; expected at least 1e-6 and less than {limit:.4g}")
    slope_offset = math.log(math.expm1(1 - min_slope))

    def rows(array: Array) -> list[Array]:
        # The gradient of lax.split is one concatenation; that of indexing is a sum of padded arrays, 6 times slower.
        return [row.squeeze(0) for row in lax.split(array, (1,) * len(array))] if len(array) else []

    def knots(raw: Array) -> list[Array]:
        weights = rows(jnp.exp(raw - lax.stop_gradient(raw.max(0, keepdims=True))))
        totals = weights[:1]
        for weight in weights[1:]:
            totals.append(totals[-1] + weight)
        scale = 2 * bound * (1 - num_bins * min_bin) / totals[-1]
        inner = [scale * totals[k - 1] + bound * (2 * min_bin * k - 1) for k in range(1, num_bins)]
        return [jnp.full_like(scale, -bound), *inner, jnp.full_like(scale, bound)]

    def find_bin(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        """x0, x1, y0, y1, d0 and d1 of the bin that holds `value`, an x for axis 0 and a y for axis 1."""
        widths, heights, slopes = lax.split(theta, (num_bins, num_bins, num_bins - 1))
        xs, ys = corners = knots(widths), knots(heights)
        raw = [jnp.zeros_like(value), *rows(slopes), jnp.zeros_like(value)]
        found = [xs[0], xs[1], ys[0], ys[1], raw[0], raw[1]]
        for k in range(1, num_bins):
            beyond = value >= corners[axis][k]
            bin_k = (xs[k], xs[k + 1], ys[k], ys[k + 1], raw[k], raw[k + 1])
            found = [jnp.where(beyond, new, old) for new, old in zip(bin_k, found, strict=True)]
        x0, x1, y0, y1, raw0, raw1 = found
        # Only two softplus for each point. The end knots are pinned, so an equality tells them.
        d0 = jnp.where(x0 == -bound, 1.0, min_slope + jax.nn.softplus(raw0 + slope_offset))
        d1 = jnp.where(x1 == bound, 1.0, min_slope + jax.nn.softplus(raw1 + slope_offset))
        return x0, x1, y0, y1, d0, d1

    def fractions(value: Array, low: Array, high: Array) -> tuple[Array, Array]:
        """The distances of `value` from both ends, in units of the bin; each is precise where it is small."""
        below, above = value - low, high - value
        # Fused code may compute a knot twice, one rounding apart: the distance could be a little negative.
        below, above = jnp.where(below < 0, 0.0, below), jnp.where(above < 0, 0.0, above)
        return below / (high - low), above / (high - low)

    def divide(low: Array, high: Array, m: Array, n: Array) -> Array:
        """The point that divides an interval as m to n: never outside it, and exact at both ends."""
        return jnp.where(m < n, low + (high - low) * (m / (m + n)), high - (high - low) * (n / (m + n)))

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        outside = jnp.abs(x) >= bound  # false for NaN, which runs through the spline and stays NaN
        inside = jnp.where(outside, 0.0, x)
        x0, x1, y0, y1, d0, d1 = find_bin(theta, inside, 0)
        xi, c = fractions(inside, x0, x1)
        s = (y1 - y0) / (x1 - x0)
        m, n = xi * (s * xi + d0 * c), c * (s * c + d1 * xi)  # m + n is q
        ratio = s / (m + n)
        log_det = jnp.log((d1 * xi * xi + 2 * s * xi * c + d0 * c * c) * ratio * ratio)
        return jnp.where(outside, x, divide(y0, y1, m, n)), jnp.where(outside, 0.0, log_det)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        outside = jnp.abs(y) >= bound
        inside = jnp.where(outside, 0.0, y)
        x0, x1, y0, y1, d0, d1 = find_bin(theta, inside, 1)
        up, down = fractions(inside, y0, y1)
        s = (y1 - y0) / (x1 - x0)
        # In the odds u = xi / c, the equation m / n = up / down reads  down s u^2 + b u - up s = 0.  Its discriminant
        # is a sum of squares, and the sign of b says which form of the root only adds: no Newton step is needed.
        b = down * d0 - up * d1
        root = jnp.sqrt(b * b + 4 * up * down * s * s)
        m = jnp.where(b < 0, root - b, 2 * up * s)
        n = jnp.where(b < 0, 2 * down * s, root + b)
        x = jnp.where(outside, y, divide(x0, x1, m, n))
        return x, -direct(theta, x)[1]

    return 3 * num_bins - 1, direct, inverse
