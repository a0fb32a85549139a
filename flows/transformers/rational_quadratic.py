"""The monotone rational-quadratic spline, the transformer of neural spline flows."""

import math
from itertools import accumulate

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, FlowsError, positive, positive_int, transformer


@transformer
def RationalQuadratic(num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-3, min_slope: float = 1e-3):
    """A monotone rational-quadratic spline on [-bound, bound], the identity outside.

    In the bin between the knots (x0, y0) and (x1, y1) with slopes d0 and d1, s = (y1 - y0) / (x1 - x0),
    xi = (x - x0) / (x1 - x0), c = 1 - xi, p = s c + d1 xi and q = s xi + d0 c:

        y         = y0 + (y1 - y0) xi q / (xi q + c p)
        log dy/dx = log(s^2 (xi p + c q) / (xi q + c p)^2)

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
        >>> theta, x = jnp.linspace(-2, 2, 11 * 3).reshape(11, 3), jnp.array([-1.0, 2.5, 7.0])
        >>> y, log_det = spline.direct(theta, x)
        >>> x_again, minus_log_det = spline.inverse(theta, y)
        >>> bool(abs(x_again - x).max() < 1e-5), bool(abs(minus_log_det + log_det).max() < 1e-5)
        (True, True)
    """
    num_bins, bound = positive_int(num_bins, "RationalQuadratic: num_bins"), positive(bound, "RationalQuadratic: bound")
    # In float32 a thinner bin may have no width at all, and the square of a far smaller slope would underflow.
    for name, floor, limit in (("min_bin", min_bin, 1 / num_bins), ("min_slope", min_slope, 1)):
        if not 1e-6 <= positive(floor, f"RationalQuadratic: {name}") < limit:
            raise FlowsError(f"RationalQuadratic: {name} is {floor}; expected at least 1e-6 and less than {limit:.4g}")
    slope_offset, last = math.log(math.expm1(1 - min_slope)), num_bins - 1
    free = 2 * bound * (1 - num_bins * min_bin)  # what the softmax shares out; knot i lies above floors[i]
    floors = [bound * (2 * min_bin * i - 1) for i in range(num_bins + 1)]

    def rows(array: Array) -> list[Array]:
        # The gradient of lax.split is one concatenation; that of indexing is a sum of padded arrays, 6 times slower.
        return [row.squeeze(0) for row in lax.split(array, (1,) * len(array))] if len(array) else []

    def weights(raw: Array) -> Array:
        return jnp.exp(raw - lax.stop_gradient(raw.max(0, keepdims=True)))

    # `shares` and `pick` are unrolled over the bins, which is fast. Their derivatives are not: XLA would store no
    # intermediate of an unrolled gradient, but compute each again for every bin (16 ms where this takes 0.6).
    @jax.custom_jvp
    def shares(raw: Array, k: Array) -> tuple[Array, Array]:
        """The shares, in a softmax of `raw`, of the bins before bin k, without it and with it."""
        each = rows(weights(raw))
        low, high, total = jnp.zeros_like(each[0]), each[0], each[0]
        for i in range(1, num_bins):
            low, total = jnp.where(k >= i, total, low), total + each[i]
            high = jnp.where(k >= i, total, high)
        return low / total, high / total

    @shares.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple:
        (raw, k), (low, high), each = primals, shares(*primals), weights(primals[0])
        i, change, total = lax.broadcasted_iota(k.dtype, raw.shape, 0), each * tangents[0], sum(rows(each))
        before, through = (jnp.where(i < end[None], change, 0.0).sum(0) for end in (k, k + 1))
        return (low, high), ((before - low * change.sum(0)) / total, (through - high * change.sum(0)) / total)

    @jax.custom_jvp
    def pick(raw: Array, k: Array) -> tuple[Array, Array]:
        """The raw slopes at both ends of bin k; 0 at the bounds."""
        zero = jnp.zeros(k.shape, raw.dtype)
        each = [zero, *rows(raw), zero]
        low, high = each[0], each[1]
        for i in range(1, num_bins):
            low, high = jnp.where(k >= i, each[i], low), jnp.where(k >= i, each[i + 1], high)
        return low, high

    @pick.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple:
        (raw, k), i = primals, lax.broadcasted_iota(primals[1].dtype, primals[0].shape, 0)
        return pick(raw, k), tuple(jnp.where(i == end[None], tangents[0], 0.0).sum(0) for end in (k - 1, k))

    def find_bin(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        """x0, x1, y0, y1, d0 and d1 of the bin that holds `value`, an x for axis 0 and a y for axis 1."""
        widths, heights, slopes = lax.split(theta, (num_bins, num_bins, last))
        totals = list(accumulate(rows(weights(lax.stop_gradient((widths, heights)[axis])))))
        k = jnp.zeros_like(value, jnp.int32)
        for i in range(1, num_bins):
            k = jnp.where(value >= free * (totals[i - 1] / totals[-1]) + floors[i], i, k)
        # A compiler may compute a comparison twice and round it both ways; every use has to see one and the same bin.
        k = lax.optimization_barrier(k)
        floor, ceiling = (jnp.full_like(value, each) for each in floors[:2])
        for i in range(1, num_bins):  # selected, not computed from k, so that a knot comes out the same from both its sides
            floor, ceiling = jnp.where(k >= i, floors[i], floor), jnp.where(k >= i, floors[i + 1], ceiling)
        below, through = zip(shares(widths, k), shares(heights, k), strict=True)
        x0, y0 = (free * share + floor for share in below)
        x1, y1 = (jnp.where(k == last, bound, free * share + ceiling) for share in through)
        d0, d1 = (min_slope + jax.nn.softplus(raw + slope_offset) for raw in pick(slopes, k))
        return x0, x1, y0, y1, jnp.where(k == 0, 1.0, d0), jnp.where(k == last, 1.0, d1)

    def fractions(value: Array, low: Array, high: Array) -> tuple[Array, Array]:
        """The distances of `value` from both ends, in units of the bin; each is precise where it is small."""
        below, above = value - low, high - value
        # A knot that is computed twice may differ by a rounding, and the distance from it be a little negative.
        return jnp.where(below < 0, 0.0, below) / (high - low), jnp.where(above < 0, 0.0, above) / (high - low)

    def divide(low: Array, high: Array, m: Array, n: Array) -> Array:
        """The point that divides an interval as m to n: never outside it, and exact at both ends."""
        return jnp.where(m < n, low + (high - low) * (m / (m + n)), high - (high - low) * (n / (m + n)))

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        outside = jnp.abs(x) >= bound  # false for NaN, which runs through the spline and stays NaN
        inside = jnp.where(outside, 0.0, x)
        x0, x1, y0, y1, d0, d1 = find_bin(theta, inside, 0)
        (xi, c), s = fractions(inside, x0, x1), (y1 - y0) / (x1 - x0)
        p, q = s * c + d1 * xi, s * xi + d0 * c
        m, n = xi * q, c * p
        ratio = s / (m + n)
        log_det = jnp.log((xi * p + c * q) * ratio * ratio)
        return jnp.where(outside, x, divide(y0, y1, m, n)), jnp.where(outside, 0.0, log_det)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        outside = jnp.abs(y) >= bound
        inside = jnp.where(outside, 0.0, y)
        x0, x1, y0, y1, d0, d1 = find_bin(theta, inside, 1)
        (up, down), s = fractions(inside, y0, y1), (y1 - y0) / (x1 - x0)
        # In the odds u = xi / c, the equation m / n = up / down reads  down s u^2 + b u - up s = 0.  Its discriminant
        # is a sum of squares, and the sign of b says which form of the root only adds: no Newton step is needed.
        b = down * d0 - up * d1
        root = jnp.sqrt(b * b + 4 * up * down * s * s)
        m, n = jnp.where(b < 0, root - b, 2 * up * s), jnp.where(b < 0, 2 * down * s, root + b)
        x = jnp.where(outside, y, divide(x0, x1, m, n))
        return x, -direct(theta, x)[1]

    return 3 * num_bins - 1, direct, inverse
