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
    """The number of bins and the bound of the spline `name`, if they are in their ranges."""
    num_bins, bound = positive_int(num_bins, f"{name}: num_bins"), positive(bound, f"{name}: bound", 1e-9, 1e9)
    check_floor(f"{name}: min_bin", min_bin, 1 / num_bins)
    return num_bins, bound


def check_floor(name: str, floor: float, limit: float) -> float:
    """`floor`, if it is in its range: in float32 the inverse is exact to a few roundings down to 1e-4, and not far below."""
    if not 1e-4 <= positive(floor, name) < limit:
        raise FlowsError(f"{name} is {floor}; expected at least 0.0001 and less than {limit:.4g}")
    return floor


def slope_above(name: str, floor: float) -> Callable[[Array], Array]:
    """The map from a raw slope to a slope above the floor; 0 becomes 1."""
    offset = math.log(math.expm1(1 - check_floor(name, floor, 1)))
    return lambda raw: floor + softplus(raw + offset)


def spline(
    bound: float, find: Callable, forward: Callable, backward: Callable, ends: Callable | None = None
) -> tuple[Callable, Callable]:
    """`direct` and `inverse` of a spline on [-bound, bound]. Outside it is the identity, or straight lines if `ends(theta)`
    gives the slopes at both ends.

    `find(theta, value, axis)` is the bin that holds `value`, an x for axis 0 and a y for axis 1, as a tuple of arrays;
    `forward(x, *bin)` is y and log dy/dx in this bin, and `backward(y, *bin)` is x.
    """

    def inside(value: Array) -> tuple[Array, Array]:
        outside = jnp.abs(value) >= bound  # false for NaN, which runs through the spline and stays NaN
        return outside, jnp.where(outside, 0.0, value)

    def beyond(theta: Array, value: Array) -> tuple[Any, Any]:
        """The nearer end of a value outside, and the slope there."""
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
    """Return the softmax of `raw` before its division by the sum; never all 0."""
    return jnp.exp(raw - largest(lax.stop_gradient(raw))[None])


def largest(array: Array) -> Array:
    """The largest along the first axis."""
    # A reduction that XLA does not recognise as a maximum. It turns a maximum and the exp behind it into a call of another
    # library, which rounds differently where there are many rows; and it computes a chain of maxima again for every row.
    low = np.array(-np.inf, array.dtype)
    return lax.reduce(array, low, lambda a, b: jnp.where(a < b, b, a), (0,))


def sums(*arrays: Array) -> tuple[Array, ...]:
    """The sums of two or more arrays along the first axis, in one loop."""
    zeros = tuple(np.zeros((), array.dtype) for array in arrays)
    return lax.reduce(arrays, zeros, lambda a, b: tuple(map(operator.add, a, b)), (0,))


def total(array: Array) -> Array:
    """The sum over the first axis, which stays with length 1."""
    return fold(jnp.add, array, 0.0)


def fold(combine: Callable, array: Array, start: float) -> Array:
    # One by one, not as a reduction: XLA computes that and its exp by another library where there are many rows, which rounds
    # differently, and a row's density would depend on its batch.
    return functools.reduce(combine, rows(array), jnp.full(array.shape[1:], start, array.dtype))[None]


def rows(array: Array) -> list[Array]:
    # The gradient of lax.split is one concatenation; the gradient of indexing sums padded arrays, 6 times slower.
    return [row.squeeze(0) for row in lax.split(array, (1,) * len(array))] if len(array) else []


class Axis:
    """The interval [-bound, bound] cut into bins, of size `floor` plus a share of the rest by weight, in units of 2 bound."""

    def __init__(self, num_bins: int, bound: float, floor: float = 0.0):
        self.bound, self.floor, self.free = bound, floor, 1 - num_bins * floor
        self.floors = [bound * (2 * floor * i - 1) for i in range(num_bins + 1)]  # knot i lies above floors[i]

    def sizes(self, weight: Array) -> Array:
        """The sizes of all bins, in units of 2 bound."""
        return self.floor + weight * (self.free / total(weight))

    def find(self, weight: Array, value: Array) -> Array:
        """The number of the bin that holds `value`: how many inner knots are not above it."""
        if len(weight) == 1:
            return jnp.zeros_like(value, jnp.int32)
        # A sum, behind a barrier: XLA computes a chain of selects again in every kernel that reads its result, and may round a
        # comparison both ways, but all uses have to see the same bin.
        past = value[None] >= self._inner(lax.stop_gradient(weight), value)
        return lax.optimization_barrier(past.sum(0, dtype=jnp.int32))

    def _inner(self, weight: Array, value: Array) -> Array:
        """The knots between two bins."""
        if shared_by_rows(weight, value):  # in one operation, as a chain of sums takes seconds to compile for these few numbers
            others = (1,) * (weight.ndim - 1)
            window = (len(weight), *others), (1, *others), ((len(weight) - 1, 0), *((0, 0),) * (weight.ndim - 1))
            totals = lax.reduce_window(weight, np.zeros((), weight.dtype), lax.add, *window)
        else:
            totals = jnp.stack(list(accumulate(rows(weight))))
        floors = np.array(self.floors[1:-1], weight.dtype).reshape(-1, *(1,) * (weight.ndim - 1))
        return 2 * self.bound * self.free * (totals[:-1] / totals[-1:]) + floors

    def knots(self, weight: Array, k: Array) -> tuple[Array, Array]:
        """Both ends of bin k."""
        if shared_by_rows(weight, k) and len(weight) > 1:
            return pinned(k, len(weight), *pick(self._inner(weight, k), k), -self.bound, self.bound)
        low, high = shares(weight, k)
        floor, ceiling = (jnp.full_like(low, end) for end in self.floors[:2])
        for i in range(1, len(weight)):  # selected, not computed from k, so that a knot is the same from both its sides
            floor, ceiling = jnp.where(k >= i, self.floors[i], floor), jnp.where(k >= i, self.floors[i + 1], ceiling)
        low, high = (2 * self.bound * self.free * share for share in (low, high))
        return low + floor, jnp.where(k == len(weight) - 1, self.bound, high + ceiling)


# `shares` and `pick` are sums over masks: of a chain of selects XLA for CPUs stores no intermediate, and computes it again for
# every bin. Their derivatives divide last, as XLA computes a quotient once, but a product for every bin.
@jax.custom_jvp
def shares(weight: Array, k: Array) -> tuple[Array, Array]:
    """The shares, in the sum of all weights, of the rows before row k, and of these rows and row k."""
    before, through, whole = _parts(weight, k)
    return before / whole, through / whole


@shares.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    (weight, k), (low, high), change = primals, shares(*primals), tangents[0]
    i, whole, whole_change = _index(weight, k), _parts(weight, k)[2], change.sum(0)
    before, through = (jnp.where(mask, change, 0.0).sum(0) for mask in (i < k[None], i <= k[None]))
    return (low, high), ((before - low * whole_change) / whole, (through - high * whole_change) / whole)


def _parts(weight: Array, k: Array) -> tuple[Array, ...]:
    """Return sums of weights: before row k, up to row k, and of all rows."""
    i = _index(weight, k)
    weight = jnp.broadcast_to(weight, i.shape)
    return sums(jnp.where(i < k[None], weight, 0.0), jnp.where(i <= k[None], weight, 0.0), weight)


def _index(array: Array, k: Array) -> Array:
    """The number of each row, for each k."""
    return lax.broadcasted_iota(k.dtype, (len(array), *k.shape), 0)


@jax.custom_jvp
def pick(array: Array, k: Array) -> tuple[Array, Array]:
    """Rows k - 1 and k of an array with a row for each inner knot: its values at both ends of bin k, 0 at the bounds."""
    i = _index(array, k)
    low, high = sums(*(jnp.where(i == end[None], array, 0.0) for end in (k - 1, k)))
    return low, high


@pick.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    (array, k), change = primals, tangents[0]
    if shared_by_rows(array, k) and len(array) and array[0].size == len(k):
        # A product: its transpose adds up over rows. The transpose of a select would first make an array of all bins and rows.
        n, places = len(array), k.reshape(len(k), 1, -1)
        hot = lax.broadcasted_iota(k.dtype, (len(k), n + 1, places.shape[2]), 1) == places
        padded = jnp.pad(change.reshape(n, len(k)), ((1, 1), (0, 0)))
        ends = (jnp.einsum("fbn,bf->fn", hot.astype(change.dtype), end, precision=HIGHEST) for end in (padded[:-1], padded[1:]))
        return pick(array, k), tuple(end.reshape(k.shape) for end in ends)
    i = _index(array, k)
    return pick(array, k), tuple(jnp.where(i == end[None], change, 0.0).sum(0) for end in (k - 1, k))


def shared_by_rows(array: Array, k: Array) -> bool:
    """Return whether all rows of x share the array, (bins, features, 1, ...), which is then small."""
    return array.shape[1:] != k.shape


def at_ends(function: Callable, array: Array, k: Array) -> tuple[Array, Array]:
    """An elementwise function of `pick(array, k)`; computed before the pick where rows of x share the array."""
    if shared_by_rows(array, k):
        return pick(function(array), k)
    low, high = pick(array, k)
    return function(low), function(high)


def pinned(k: Array, num_bins: int, low: Array, high: Array, first: float = 1.0, last: float = 1.0) -> tuple[Array, Array]:
    """Return the values at both ends of bin k, with fixed ones at the bounds: slopes of 1 there keep the density continuous."""
    return jnp.where(k == 0, first, low), jnp.where(k == num_bins - 1, last, high)


def fractions(value: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The distances of `value` from both ends, in units of the bin; each is precise where it is small."""
    below, above = value - low, high - value
    # The same knot, computed twice, may differ by a rounding, and the distance from it may be a little negative.
    return jnp.where(below < 0, 0.0, below) / (high - low), jnp.where(above < 0, 0.0, above) / (high - low)


def divide(low: Array, high: Array, m: Array, n: Array) -> Array:
    """The point that divides an interval as m to n: never outside it, and exact at both ends."""
    return jnp.where(m < n, low + (high - low) * (m / (m + n)), high - (high - low) * (n / (m + n)))
