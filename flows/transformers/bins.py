"""Parts of splines: an axis cut into bins, the bin that holds a value, and the identity outside."""

import functools
import math
import operator
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.core import HIGHEST, Array, FlowsError, positive, positive_int, softplus


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
    return lambda raw: floor + softplus(raw + offset)


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
    """Return the numbers that a softmax of `raw` is in proportion to; never all 0."""
    return jnp.exp(raw - largest(lax.stop_gradient(raw))[None])


def largest(array: Array) -> Array:
    """The largest along the first axis."""
    # A reduction that XLA does not know as a maximum. Of one that it knows it makes a call of another library, with the exp
    # behind it, which rounds otherwise where there are many rows; and a chain of maxima it computes again for every row.
    low = np.array(-np.inf, array.dtype)
    return lax.reduce(array, low, lambda a, b: jnp.where(a < b, b, a), (0,))


def sums(*arrays: Array) -> tuple[Array, ...]:
    """The sum of each of two or more arrays along the first axis, in one loop."""
    zeros = tuple(np.zeros((), array.dtype) for array in arrays)
    return lax.reduce(arrays, zeros, lambda a, b: tuple(map(operator.add, a, b)), (0,))


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
        """The number of the bin that holds `value`: how many inner knots are not above it."""
        if len(each) == 1:
            return jnp.zeros_like(value, jnp.int32)
        # Added up, as XLA computes a chain of selects again in every kernel that reads its result, and may round a comparison
        # both ways; every use has to see one and the same bin.
        past = value[None] >= self._inner(lax.stop_gradient(each), value)
        return lax.optimization_barrier(past.sum(0, dtype=jnp.int32))

    def _inner(self, each: Array, value: Array) -> Array:
        """The knots between two bins."""
        if shared_by_rows(each, value):  # in one operation, as a chain of sums of so few numbers takes seconds to compile
            others = (1,) * (each.ndim - 1)
            window = (len(each), *others), (1, *others), ((len(each) - 1, 0), *((0, 0),) * (each.ndim - 1))
            totals = lax.reduce_window(each, np.zeros((), each.dtype), lax.add, *window)
        else:
            totals = jnp.stack(list(accumulate(rows(each))))
        floors = np.array(self.floors[1:-1], each.dtype).reshape(-1, *(1,) * (each.ndim - 1))
        return 2 * self.bound * self.free * (totals[:-1] / totals[-1:]) + floors

    def knots(self, each: Array, k: Array) -> tuple[Array, Array]:
        """Both ends of bin k."""
        if shared_by_rows(each, k) and len(each) > 1:
            return pinned(k, len(each), *pick(self._inner(each, k), k), -self.bound, self.bound)
        low, high = shares(each, k)
        floor, ceiling = (jnp.full_like(low, end) for end in self.floors[:2])
        for i in range(1, len(each)):  # selected, not computed from k, so that a knot comes out the same from both its sides
            floor, ceiling = jnp.where(k >= i, self.floors[i], floor), jnp.where(k >= i, self.floors[i + 1], ceiling)
        low, high = (2 * self.bound * self.free * share for share in (low, high))
        return low + floor, jnp.where(k == len(each) - 1, self.bound, high + ceiling)


# `shares` and `pick` select by masks and add up: of a chain of selects XLA's CPU keeps no intermediate, but computes each again
# for every bin. Their derivatives divide last, as what was divided is computed once, and what was multiplied for every bin.
@jax.custom_jvp
def shares(each: Array, k: Array) -> tuple[Array, Array]:
    """The shares, in the sum of all weights, of those before row k: without it and with it."""
    before, through, whole = _parts(each, k)
    return before / whole, through / whole


@shares.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    (each, k), (low, high), change = primals, shares(*primals), tangents[0]
    i, whole, of_all = _index(each, k), _parts(each, k)[2], change.sum(0)
    before, through = (jnp.where(mask, change, 0.0).sum(0) for mask in (i < k[None], i <= k[None]))
    return (low, high), ((before - low * of_all) / whole, (through - high * of_all) / whole)


def _parts(each: Array, k: Array) -> tuple[Array, ...]:
    """Return sums of the weights: before row k, up to it, and of all."""
    i = _index(each, k)
    each = jnp.broadcast_to(each, i.shape)
    return sums(jnp.where(i < k[None], each, 0.0), jnp.where(i <= k[None], each, 0.0), each)


def _index(each: Array, k: Array) -> Array:
    """The number of each row, for each k."""
    return lax.broadcasted_iota(k.dtype, (len(each), *k.shape), 0)


@jax.custom_jvp
def pick(each: Array, k: Array) -> tuple[Array, Array]:
    """Rows k - 1 and k of `each`, 0 where there is none: what inner knots have, at both ends of bin k."""
    i = _index(each, k)
    low, high = sums(*(jnp.where(i == end[None], each, 0.0) for end in (k - 1, k)))
    return low, high


@pick.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    (each, k), change = primals, tangents[0]
    if shared_by_rows(each, k) and len(each) and each[0].size == len(k):
        # A product, whose transpose adds up over rows; that of a select would make an array of all bins and rows first.
        n, places = len(each), k.reshape(len(k), 1, -1)
        hot = lax.broadcasted_iota(k.dtype, (len(k), n + 1, places.shape[2]), 1) == places
        padded = jnp.pad(change.reshape(n, len(k)), ((1, 1), (0, 0)))
        ends = (jnp.einsum("fbn,bf->fn", hot.astype(change.dtype), end, precision=HIGHEST) for end in (padded[:-1], padded[1:]))
        return pick(each, k), tuple(end.reshape(k.shape) for end in ends)
    i = _index(each, k)
    return pick(each, k), tuple(jnp.where(i == end[None], change, 0.0).sum(0) for end in (k - 1, k))


def shared_by_rows(each: Array, k: Array) -> bool:
    """Tell whether values share what is of bins, (bins, features, 1, ...), so that there is little of it."""
    return each.shape[1:] != k.shape


def at_ends(function: Callable, each: Array, k: Array) -> tuple[Array, Array]:
    """An elementwise function of rows k - 1 and k of `each`: of all rows first, if these are few because values share them."""
    if shared_by_rows(each, k):
        return pick(function(each), k)
    low, high = pick(each, k)
    return function(low), function(high)


def pinned(k: Array, num_bins: int, low: Array, high: Array, first: float = 1.0, last: float = 1.0) -> tuple[Array, Array]:
    """Return what is at both ends of bin k, fixed at the bounds: slopes of 1 there keep the density continuous."""
    return jnp.where(k == 0, first, low), jnp.where(k == num_bins - 1, last, high)


def fractions(value: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The distances of `value` from both ends, in units of the bin; each is precise where it is small."""
    below, above = value - low, high - value
    # A knot that is computed twice may differ by a rounding, and the distance from it be a little negative.
    return jnp.where(below < 0, 0.0, below) / (high - low), jnp.where(above < 0, 0.0, above) / (high - low)


def divide(low: Array, high: Array, m: Array, n: Array) -> Array:
    """The point that divides an interval as m to n: never outside it, and exact at both ends."""
    return jnp.where(m < n, low + (high - low) * (m / (m + n)), high - (high - low) * (n / (m + n)))
