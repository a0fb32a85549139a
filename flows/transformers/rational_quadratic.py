"""The monotone rational-quadratic spline, the transformer of neural spline flows."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import FlowsError, transformer


@transformer
def RationalQuadratic(num_bins=8, bound=3.0, min_bin=1e-3, min_slope=1e-3):
    r"""Monotone rational-quadratic spline on ``[-bound, bound]``, the identity outside.

    In the bin between the knots ``(x0, y0)`` and ``(x1, y1)``, whose slopes are ``d0`` and ``d1``, with
    ``s = (y1 - y0) / (x1 - x0)``, ``xi = (x - x0) / (x1 - x0)`` and ``c = 1 - xi``::

        y           = y0 + (y1 - y0) xi (s xi + d0 c) / q,      q = s (xi^2 + c^2) + (d0 + d1) xi c
        log dy / dx = log(s^2 (d1 xi^2 + 2 s xi c + d0 c^2) / q^2)

    The slopes at the bounds are exactly 1, so the density is continuous everywhere. ``theta = 0`` is the identity. The
    inverse is in closed form, and a few roundings from exact for any ``theta``.

    Args:
        num_bins: number of bins K, at least 1; ``num_params`` is ``3 K - 1``.
        bound: half the width of the square in which the spline lives, in the units of ``x``.
        min_bin: least width and height of a bin, as a fraction of ``2 bound``: at least 1e-6, below ``1 / K``.
        min_slope: least slope at a knot, between 0 and 1.

    ``direct(theta, x)`` and ``inverse(theta, y)`` take ``theta`` of shape ``(3 K - 1, *x.shape)``: K raw widths and K raw
    heights (a softmax, then the floor) and K - 1 raw interior slopes (a softplus above the floor, 0 giving slope 1). They
    return the value and the log-derivative of the function called, both of the shape of ``x``.

    Raises:
        FlowsError: an argument outside its range.

    Reference: Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, equations 4 to 8.

    Example:
        >>> import jax.numpy as jnp
        >>> from flows import transformers
        >>> spline = transformers.RationalQuadratic(num_bins=4, bound=3.0)
        >>> spline.num_params
        11
        >>> theta = jnp.arange(11.0)[:, None] * jnp.ones(2)          # two splines, alike
        >>> y, log_det = spline.direct(theta, jnp.array([2.5, 7.0]))
        >>> x, minus_log_det = spline.inverse(theta, y)
        >>> print(x.round(4), (log_det + minus_log_det).round(4))
        [2.5 7. ] [0. 0.]
    """
    if not isinstance(num_bins, int) or num_bins < 1:
        raise FlowsError(f"RationalQuadratic: num_bins must be an int of at least 1, got {num_bins!r}")
    if not 0 < bound < math.inf:
        raise FlowsError(f"RationalQuadratic: bound must be positive and finite, got {bound!r}")
    if not 1e-6 <= min_bin < 1 / num_bins:  # a thinner bin may vanish between two float32 numbers
        raise FlowsError(
            f"RationalQuadratic: min_bin must be at least 1e-6 and below 1 / num_bins = {1 / num_bins:.4g}, got {min_bin!r}"
        )
    if not 0 < min_slope < 1:
        raise FlowsError(f"RationalQuadratic: min_slope must be between 0 and 1, got {min_slope!r}")
    sizes = (num_bins, num_bins, num_bins - 1)
    slope_offset = math.log(math.expm1(1 - min_slope))

    def rows(array):
        # lax.split, because its gradient is one concatenation; that of indexing is a sum of padded arrays, 6x slower.
        return [row.squeeze(0) for row in lax.split(array, (1,) * array.shape[0])] if array.shape[0] else []

    def knots(raw):
        weights = rows(jnp.exp(raw - lax.stop_gradient(raw.max(0, keepdims=True))))
        totals = [weights[0]]
        for weight in weights[1:]:
            totals.append(totals[-1] + weight)
        scale = 2 * bound * (1 - num_bins * min_bin) / totals[-1]
        inner = [scale * totals[k - 1] + bound * (2 * min_bin * k - 1) for k in range(1, num_bins)]
        return [jnp.full_like(scale, -bound), *inner, jnp.full_like(scale, bound)]

    def find_bin(theta, value, axis):
        """The corners and the slopes of the bin that holds ``value``, an x for axis 0 and a y for axis 1."""
        widths, heights, slopes = lax.split(theta, sizes)
        xs, ys, raw = knots(widths), knots(heights), rows(slopes)
        raw = [jnp.zeros_like(value), *raw, jnp.zeros_like(value)]
        bins = list(zip(xs, xs[1:], ys, ys[1:], raw, raw[1:]))
        found = bins[0]
        for k in range(1, num_bins):
            beyond = value >= (xs, ys)[axis][k]
            found = [jnp.where(beyond, new, old) for new, old in zip(bins[k], found)]
        x0, x1, y0, y1, raw0, raw1 = found
        # Two softplus a point instead of K - 1. The ends are pinned, so that equality recognises them.
        d0 = jnp.where(x0 == -bound, 1.0, min_slope + jax.nn.softplus(raw0 + slope_offset))
        d1 = jnp.where(x1 == bound, 1.0, min_slope + jax.nn.softplus(raw1 + slope_offset))
        return x0, x1, y0, y1, d0, d1

    def fractions(value, low, high):
        """How far ``value`` is from each end, as fractions that add to 1; both are precise when small."""
        below, above, width = value - low, high - value, high - low
        # A fused compilation may compute a knot twice, one rounding apart.
        return jnp.where(below < 0, 0.0, below) / width, jnp.where(above < 0, 0.0, above) / width

    def divide(low, high, m, n):
        """The point that divides an interval as m to n: never outside, and exact at both ends."""
        width = high - low
        return jnp.where(m < n, low + width * (m / (m + n)), high - width * (n / (m + n)))

    def direct(theta, x):
        outside = jnp.abs(x) >= bound  # false for NaN, which goes through the spline and stays NaN
        inner = jnp.where(outside, 0.0, x)
        x0, x1, y0, y1, d0, d1 = find_bin(theta, inner, 0)
        xi, c = fractions(inner, x0, x1)
        s = (y1 - y0) / (x1 - x0)
        m, n = xi * (s * xi + d0 * c), c * (s * c + d1 * xi)
        ratio = s / (m + n)
        log_det = jnp.log((d1 * xi * xi + 2 * s * xi * c + d0 * c * c) * ratio * ratio)
        return jnp.where(outside, x, divide(y0, y1, m, n)), jnp.where(outside, 0.0, log_det)

    def inverse(theta, y):
        outside = jnp.abs(y) >= bound
        inner = jnp.where(outside, 0.0, y)
        x0, x1, y0, y1, d0, d1 = find_bin(theta, inner, 1)
        eta, e = fractions(inner, y0, y1)
        s = (y1 - y0) / (x1 - x0)
        # In the odds u = xi / c the spline reads  e s u^2 + b u - eta s = 0.  Its discriminant is a sum of squares, so
        # nothing cancels and the root needs no polish; the sign of b says which of its two forms adds rather than subtracts.
        b = e * d0 - eta * d1
        root = jnp.sqrt(b * b + 4 * eta * e * s * s)
        m = jnp.where(b < 0, root - b, 2 * eta * s)
        n = jnp.where(b < 0, 2 * e * s, root + b)
        x = jnp.where(outside, y, divide(x0, x1, m, n))
        return x, -direct(theta, x)[1]

    return 3 * num_bins - 1, direct, inverse
