"""What splines are made of: an axis cut into bins, the bin that holds a value, and the identity outside."""

import functools
import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, FlowsError, positive, positive_int


def check_bins(name: str, num_bins: int, bound: float, min_bin: float) -> tuple[int, float]:
    """The number of bins and the bound of the spline `name`, if its arguments are in their ranges."""
    num_bins, bound = positive_int(num_bins, f"{name}: num_bins"), positive(bound, f"{name}: bound", 1e-9, 1e9)
    check_floor(f"{name}: min_bin", min_bin, 1 / num_bins)
    return num_bins, bound


def check_floor(name: str, floor: float, limit: float) -> float:
    """`floor`, if it is in its range: in float32 the inverse is a few roundings from exact down to 1e-4, and not far below."""
    if not 1e-4 <= positive(floor, name) < limit:
        raise FlowsError(f"{name} is {floor}; expected at least 0.0001 and less than {limit:.4g}")
    return floor


def slope_above(name: str, floor: float) -> Callable[[Array], Array]:
    """The map of a raw slope to one above the floor; 0 becomes 1."""
    offset = math.log(math.expm1(1 - check_floor(name, floor, 1)))
    return lambda raw: floor + jax.nn.softplus(raw + offset)


def spline(
    bound: float, find: Callable, forward: Callable, backward: Callable, ends: Callable | None = None
) -> tuple[Callable, Callable]:
    """`direct` and `inverse` of the map that is the identity outside [-bound, bound]; or, where `ends(theta)` gives the slopes
    at both ends, straight on.

    `find(theta, value, axis)` is the bin that holds `value`, an x for axis 0 and a y for axis 1, as a tuple of arrays;
    `forward(x, *bin)` is y and log dy/dx in it, and `backward(y, *bin)` is x.
    """

    def inside(value: Array) -> tuple[Array, Array]:
        outside = jnp.abs(value) >= bound  # false for NaN, which runs through the spline and stays NaN
        return outside, jnp.where(outside, 0.0, value)

    def beyond(theta: Array, value: Array) -> tuple[Any, Any]:
        """The end nearer to a value outside, and the slope there."""
        if ends is None:
            return 0.0, 1.0
        low, high = ends(theta)
        return jnp.where(value < 0, -bound, bound).astype(value.dtype), jnp.where(value < 0, low, high)

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        outside, within = inside(x)
        y, log_det = forward(within, *find(theta, within, 0))
        end, slope = beyond(theta, x)
        return jnp.where(outside, end + slope * (x - end), y), jnp.where(outside, jnp.log(slope), log_det)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        outside, within = inside(y)
        end, slope = beyond(theta, y)
        x = jnp.where(outside, end + (y - end) / slope, backward(within, *find(theta, within, 1)))
        return x, -direct(theta, x)[1]

    return direct, inverse


def weights(raw: Array) -> Array:
    """What a softmax of `raw` is in proportion to; never all 0."""
    return jnp.exp(raw - lax.stop_gradient(fold(jnp.maximum, raw, -jnp.inf)))


def total(array: Array) -> Array:
    """The sum over the first axis, which stays."""
    return fold(jnp.add, array, 0.0)


def fold(combine: Callable, array: Array, start: float) -> Array:
    # One by one, not as a reduction: XLA gives that and its exp to another library where there are many rows, which rounds
    # otherwise, and a row's density would depend on its batch.
    return functools.reduce(combine, rows(array), jnp.full(array.shape[1:], start, array.dtype))[None]


def rows(array: Array) -> list[Array]:
    # The gradient of lax.split is one concatenation; that of indexing is a sum of padded arrays, 6 times slower.
    return [row.squeeze(0) for row in lax.split(array, (1,) * len(array))] if len(array) else []


class Axis:
    """[-bound, bound] cut into bins of at least `floor`, in units of 2 bound; what is left is shared out by weights."""

    def __init__(self, num_bins: int, bound: float, floor: float = 0.0):
        self.bound, self.floor, self.free = bound, floor, 1 - num_bins * floor
        self.floors = [bound * (2 * floor * i - 1) for i in range(num_bins + 1)]  # knot i lies above floors[i]

    def sizes(self, each: Array) -> Array:
        """The sizes of all bins, in units of 2 bound."""
        return self.floor + each * (self.free / total(each))

    def find(self, each: Array, value: Array) -> Array:
        """The number of the bin that holds `value`."""
        totals = list(accumulate(rows(lax.stop_gradient(each))))
        k = jnp.zeros_like(value, jnp.int32)
        for i in range(1, len(totals)):
            k = jnp.where(value >= 2 * self.bound * self.free * (totals[i - 1] / totals[-1]) + self.floors[i], i, k)
        # A compiler may compute a comparison twice and round it both ways; every use has to see one and the same bin.
        return lax.optimization_barrier(k)

    def knots(self, each: Array, k: Array) -> tuple[Array, Array]:
        """Both ends of bin k."""
        low, high = shares(each, k)
        floor, ceiling = (jnp.full_like(low, end) for end in self.floors[:2])
        for i in range(1, len(each)):  # selected, not computed from k, so that a knot comes out the same from both its sides
            floor, ceiling = jnp.where(k >= i, self.floors[i], floor), jnp.where(k >= i, self.floors[i + 1], ceiling)
        low, high = (2 * self.bound * self.free * share for share in (low, high))
        return low + floor, jnp.where(k == len(each) - 1, self.bound, high + ceiling)


# `shares` and `pick` are unrolled over the bins, which is fast. Their derivatives are not: XLA would store no
# intermediate of an unrolled gradient, but compute each again for every bin (16 ms where this takes 0.6).
@jax.custom_jvp
def shares(each: Array, k: Array) -> tuple[Array, Array]:
    """The shares, in the sum of all weights, of those before row k: without it and with it."""
    first, *others = rows(each)
    low, high, total = jnp.zeros_like(first), first, first
    for i, weight in enumerate(others, 1):
        low, total = jnp.where(k >= i, total, low), total + weight
        high = jnp.where(k >= i, total, high)
    return low / total, high / total


@shares.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    (each, k), (low, high), change = primals, shares(*primals), tangents[0]
    i, total, all_change = lax.broadcasted_iota(k.dtype, each.shape, 0), each.sum(0), change.sum(0)
    before, through = (jnp.where(i < end[None], change, 0.0).sum(0) for end in (k, k + 1))
    return (low, high), ((before - low * all_change) / total, (through - high * all_change) / total)


@jax.custom_jvp
def pick(each: Array, k: Array) -> tuple[Array, Array]:
    """Rows k - 1 and k of `each`, 0 where there is none: what inner knots have, at both ends of bin k."""
    zero = jnp.zeros(k.shape, each.dtype)
    padded = [zero, *rows(each), zero]
    low, high = padded[:2]
    for i in range(1, len(padded) - 1):
        low, high = jnp.where(k >= i, padded[i], low), jnp.where(k >= i, padded[i + 1], high)
    return low, high


@pick.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    (each, k), i = primals, lax.broadcasted_iota(primals[1].dtype, primals[0].shape, 0)
    return pick(each, k), tuple(jnp.where(i == end[None], tangents[0], 0.0).sum(0) for end in (k - 1, k))


def pinned(k: Array, num_bins: int, d0: Array, d1: Array) -> tuple[Array, Array]:
    """The slopes at both ends of bin k, with 1 at the bounds, so that the density is continuous there."""
    return jnp.where(k == 0, 1.0, d0), jnp.where(k == num_bins - 1, 1.0, d1)


def fractions(value: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The distances of `value` from both ends, in units of the bin; each is precise where it is small."""
    below, above = value - low, high - value
    # A knot that is computed twice may differ by a rounding, and the distance from it be a little negative.
    return jnp.where(below < 0, 0.0, below) / (high - low), jnp.where(above < 0, 0.0, above) / (high - low)


def divide(low: Array, high: Array, m: Array, n: Array) -> Array:
    """The point that divides an interval as m to n: never outside it, and exact at both ends."""
    return jnp.where(m < n, low + (high - low) * (m / (m + n)), high - (high - low) * (n / (m + n)))
