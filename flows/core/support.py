"""Where points live: a region of the line, angles, points of spheres, codes; and what layers declare about it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.contract import Array, Shape
from flows.core.errors import FlowsError

OFF_SPHERE = 1e-4  # by how much |x|^2 may differ from 1
NEAR_END = 1e-6  # of a period: how far rounding may move an angle at an end of a turn
MOST_TURNS = 1e4  # from 0, beyond which float32 has no digits of an angle


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """Region of the entries of points; `low, high = region`. Fields are numbers for all entries, or arrays of the event.

    Attributes:
        low, high: the ends between which entries lie.
        period: the period of an angle, which is any real number modulo this period; 0 for other entries.
        sphere: k for a coordinate of the k-th unit vector of the event; 0 for other entries.
        classes: K for a code, a whole number from 0 to K - 1 that stands for one of K categories; 0 for other entries.
        whole: whether an entry is a whole number, a count, whose differences mean something; codes are not.
    """

    low: Any = -np.inf
    high: Any = np.inf
    period: Any = 0.0
    sphere: Any = 0
    classes: Any = 0
    whole: Any = False

    def __iter__(self) -> Iterator[Any]:
        return iter((self.low, self.high))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and all(map(np.array_equal, self.values(), other.values()))

    def __hash__(self) -> int:
        numbers = (np.asarray(field, float) + 0.0 for field in self.values())  # -0 and 0 are equal, as 1 and 1.0 are
        return hash(tuple((array.shape, array.tobytes()) for array in numbers))

    def __repr__(self) -> str:
        """The fields that differ from the whole line."""
        shown = (
            f"{field.name}={np.asarray(entry).tolist()}"
            for field, entry in zip(fields(self), self.values(), strict=True)
            if not np.all(np.asarray(entry) == field.default)
        )
        return f"Region({', '.join(shown)})"

    def values(self) -> tuple[Any, Any, Any, Any, Any, Any]:
        return self.low, self.high, self.period, self.sphere, self.classes, self.whole

    @property
    def flat(self) -> bool:
        """Tells whether all entries are numbers of the line."""
        return not (np.any(self.period) or np.any(self.sphere) or np.any(self.classes) or np.any(self.whole))

    @property
    def of_line(self) -> Any:
        """Tells which entries are numbers of the line, not angles, coordinates of unit vectors, codes or whole numbers."""
        return (self.period == 0) & (self.sphere == 0) & ~self.discrete

    @property
    def discrete(self) -> Any:
        """Tells which entries have masses, not densities: codes and whole numbers."""
        return (np.asarray(self.classes) > 0) | np.asarray(self.whole, bool)

    @property
    def kind(self) -> "Region":
        """The region without ends: which entries are angles, of which periods, coordinates of which unit vectors, and so on."""
        return replace(self, low=-np.inf, high=np.inf)

    def of(self, features: Any) -> "Region":
        """The region of some features of vectors, from a region of arrays."""
        return Region(*(field[features] for field in self.values()))

    def same_kind(self, other: "Region | None") -> bool:
        """Tell whether regions have the same angles and periods, unit vectors, codes of as many categories, whole numbers."""
        if other is None:
            return self.flat
        alike = all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("sphere", "classes", "whole"))
        return alike and np.allclose(self.period, other.period)

    @property
    def words(self) -> "Words":
        """Words of errors for points of this kind."""
        return next((words for field, words in WORDS.items() if np.any(getattr(self, field))), OF_LINE)


class Words(NamedTuple):
    """Words of errors for points of a kind, a base for them, and layers and a base for them."""

    noun: str
    base: str
    remedy: str


OF_LINE = Words("numbers of the line", "Normal()", "layers and a base of the line")
WORDS = {
    "sphere": Words("points of a sphere", "SphereUniform()", "SphereFlow and SphereUniform"),
    "period": Words("angles", "CircularUniform()", "circular transformers, Rotation and CircularUniform"),
    "classes": Words(
        "codes of categories", "Categorical(...)", "Standardize(as_is=...), which leaves them, Integer(modulus) and Categorical"
    ),
    "whole": Words("whole numbers", "DiscretizedLogistic()", "Coupling(transformer=Integer()) and DiscretizedLogistic"),
}
REAL = Region()
POSITIVE = Region(0.0, np.inf)
UNIT = Region(0.0, 1.0)
CIRCLE = Region(period=2 * np.pi)
SPHERE = Region(-1.0, 1.0, sphere=1)  # the event is one unit vector
INTEGERS = Region(whole=True)


class Rounding(NamedTuple):
    """Rounded values, to which a layer adds noise: their step, for all columns or for each, their number, and whether the
    noise trains."""

    step: float | Sequence[float]
    levels: int | None
    trains: bool = False


@dataclass(frozen=True)
class Traits:
    """Facts about a layer or a distribution, other than its support, that the rest of the library needs.

    Attributes:
        rounding: the rounded values, of a layer that adds noise to them.
        unit: a function of the params of a layer that measures features: its centres and standard deviations of features.
        running: whether a layer keeps running statistics under "fixed", which are measured again before each validation.
        joins: whether a layer that measures batches with train=True joins the measurements of all devices.
        picks: whether draws of a distribution pick one of several values, so that params have no gradient through draws.
        clusters: of a mixture, "anywhere" or, if its components have no correlations, "along columns".
        in_numpy: whether init measures data in NumPy, without a compiled program, and draws nothing.
        prepares: whether a distribution scales its columns itself, so that nothing is put in front of it.
        roles: whether its context is (2, d): values, and for each column whether it is asked, given or absent.
    """

    rounding: Rounding | None = None
    unit: Callable[[Any], tuple[Any, Any]] | None = None
    running: bool = False
    joins: bool = False
    picks: bool = False
    clusters: str = ""
    in_numpy: bool = False
    prepares: bool = False
    roles: bool = False


@dataclass(frozen=True)
class Support:
    """Regions of the inputs and the outputs of a bijection, or of the points of a distribution (as inputs and outputs), and
    what a bijection does to angles and unit vectors.

    Attributes:
        inputs, outputs: a `Region`, a pair (low, high), or a function of the event that returns one.
        entrywise: it has no params, and each entry of the output depends on the same entry of the input alone.
        moves_entries: a permutation or a layout, which only moves entries.
        rotates: a rotation, which maps the sphere onto itself.
        touches: the only features that it changes; None for all.
        leaves: features that it does not change.
        places: of a layer of vectors that adds or drops numbers, a function of the number of its inputs: for each output the
            place of the input that it is, or -1 for a number that joins.
    """

    inputs: Any = REAL
    outputs: Any = REAL
    entrywise: bool = False
    moves_entries: bool = False
    rotates: bool = False
    touches: tuple[int, ...] | None = None
    leaves: tuple[int, ...] = ()
    places: Callable[[int], Any] | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            declared = getattr(self, name)
            if isinstance(declared, tuple | list) and len(declared) == 2:
                object.__setattr__(self, name, Region(*declared))
            elif not isinstance(declared, Region) and not callable(declared):
                raise TypeError(
                    f"Support: {name} is {declared!r:.80}; expected a Region, a pair (low, high), or a function of the event"
                )

    @property
    def inverted(self) -> "Support":
        return replace(self, inputs=self.outputs, outputs=self.inputs)

    def untouched(self, count: int) -> np.ndarray:
        """Tell which of `count` features stay as they are."""
        stays = np.isin(np.arange(count), self.leaves)
        return stays if self.touches is None else stays | ~np.isin(np.arange(count), self.touches)


def as_support(claim: Any, name: str, is_distribution: bool) -> Support:
    """The claim of a decorator as a Support; for a distribution it may be the region of its points."""
    if is_distribution and not isinstance(claim, Support):
        try:
            return Support(claim, claim)
        except TypeError:
            raise TypeError(
                f"{name}: support is {claim!r:.80}; expected a Support, a Region such as CIRCLE, or a pair (low, high)"
            ) from None
    if not isinstance(claim, Support):
        raise TypeError(f"{name}: support is {claim!r:.80}; expected a Support, such as Support((0, inf), (-inf, inf))")
    return claim


def resolved(declared: Any, event: Shape, whose: str = "a layer") -> Region:
    """A declared region, as read-only arrays of the event."""
    declared = declared(event) if callable(declared) else declared
    declared = declared if isinstance(declared, Region) else Region(*declared)
    try:
        low, high, period = (np.broadcast_to(np.asarray(number, float), event) for number in (*declared, declared.period))
        sphere, classes = (np.broadcast_to(np.asarray(number, int), event) for number in (declared.sphere, declared.classes))
        whole = np.broadcast_to(np.asarray(declared.whole, bool), event)
    except ValueError:
        raise FlowsError(f"{whose}: its support does not fit the event {event}") from None
    if not ((low < high) | (classes > 0)).all():
        raise FlowsError(f"{whose}: its support is ({declared.low}, {declared.high}); expected low < high, and no NaN")
    if sphere.any() and len(event) != 1:
        raise FlowsError(f"{whose}: a point of a sphere is a unit vector, and the event is {event}; expected one axis")
    return Region(low, high, period, sphere, classes, whole)


def everywhere(event: Shape) -> Region:
    """The whole line for each entry."""
    return resolved(REAL, event)


def blocks_of(sphere: np.ndarray) -> list[np.ndarray]:
    """The entries of each unit vector."""
    return [np.flatnonzero(sphere == number) for number in np.unique(sphere[sphere > 0])]


def num_seen(region: Region) -> int:
    """The number of inputs that networks see of a vector in a region of arrays."""
    return int(region.period.size + (region.period > 0).sum() + np.maximum(region.classes - 1, 0).sum())


def seen(region: Region, x: Any, xp: Any = jnp) -> Any:
    """Rows x (n, d) in a region as networks see them: numbers, whole or not, and coordinates of unit vectors as they are, then
    cos and sin of angles, which have no seam, then codes as one-hot vectors."""
    angles, codes = np.flatnonzero(region.period), np.flatnonzero(region.classes)
    if not len(angles) and not len(codes):
        return x
    turned = x[:, angles] * xp.asarray(2 * np.pi / region.period[angles], x.dtype)[None]
    one_hot = one_hot_codes(x[:, codes].T, region.classes[codes].tolist(), xp).T
    others = np.flatnonzero((region.period == 0) & (region.classes == 0))
    return xp.concatenate([x[:, others], xp.cos(turned), xp.sin(turned), one_hot], 1)


def inside(region: Region, x: Array) -> Array:
    """Points of the line (an event, or rows) mapped into a region; unchanged where it is the whole line."""
    low, high = region
    shape = (1,) * (x.ndim - low.ndim) + low.shape
    sphere = np.broadcast_to(region.sphere, low.shape)
    on_sphere = (sphere > 0).reshape(shape)
    from_low, to_high = (np.isfinite(end).reshape(shape) & ~on_sphere for end in (low, high))
    ends = (jnp.asarray(np.where(np.isfinite(end), end, 0.0).reshape(shape), x.dtype) for end in (low, high))
    low, high = ends
    between = low + (high - low) * jax.nn.sigmoid(x)
    one_sided = jnp.where(from_low, low + jnp.exp(x), jnp.where(to_high, high - jnp.exp(-x), x))
    x = jnp.where(from_low & to_high, between, one_sided)
    if np.any(region.discrete):
        x = jnp.where(np.broadcast_to(region.discrete, sphere.shape).reshape(shape), jnp.round(x), x)
    for block in blocks_of(sphere):
        v = x[..., block]
        squared = jnp.square(v).sum(-1, keepdims=True)
        first = jnp.zeros_like(v).at[..., 0].set(1.0)
        x = x.at[..., block].set(jnp.where(squared > 0, v / jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), first))
    return x


def beyond(region: Region, x: Array) -> Array:
    """Tell which entries of rows x lie outside a region, which includes its ends; False for NaN."""
    low, high = region
    sphere = np.broadcast_to(region.sphere, low.shape)
    low, high = (jnp.asarray(np.where(sphere > 0, far, end), x.dtype)[None] for end, far in ((low, -np.inf), (high, np.inf)))
    outside = (x < low) | (x > high)
    if np.any(region.discrete):
        outside |= np.broadcast_to(region.discrete, sphere.shape)[None] & jnp.isfinite(x) & (x != jnp.floor(x))
    for block in blocks_of(sphere):
        outside = outside.at[:, block].set(off_sphere(x[:, block])[:, None])
    return outside


def off_sphere(x: Array) -> Array:
    """Tell whether points (..., n + 1) are not unit vectors; False for NaN."""
    return jnp.abs(jnp.square(x).sum(-1) - 1) > OFF_SPHERE


def wrapped(region: Region | None, x: Array, low: np.ndarray | None = None) -> Array:
    """Rows x with their angles within half a period of 0: in [-period / 2, period / 2); or in [low, low + period)."""
    if region is None or not np.any(region.period):
        return x
    turn = np.where(region.period > 0, region.period, 1.0)
    low = -turn / 2 if low is None else low
    period, first, start = (jnp.asarray(array, x.dtype)[None] for array in (turn, low, low / turn))
    turned = x - period * jnp.floor(x / period - start)
    turned = jnp.maximum(jnp.where(turned >= first + period, turned - period, turned), first)  # against rounding
    return jnp.where((region.period > 0)[None] & jnp.isfinite(x), turned, x)


def on_turn(region: Region | None, x: Array, low: np.ndarray) -> Array:
    """Rows x with their angles on the turn that begins at low, and with both of its ends: in [low, low + period]."""
    if region is None or not np.any(region.period):
        return x
    high, slack = low + region.period, NEAR_END * region.period
    first, last, least, most = (jnp.asarray(end, x.dtype)[None] for end in (low, high, low - slack, high + slack))
    there = (region.period > 0)[None] & (x >= least) & (x <= most)
    return jnp.where(there, jnp.clip(x, first, last), wrapped(region, x, low))


def one_hot_codes(x: Any, classes: Sequence[int], xp: Any = jnp) -> Any:
    """Codes x (features, *batch) as one-hot vectors (sum(classes), *batch) in the dtype of x: classes[i] entries for
    feature i, one feature after the other. A number that is not a code becomes zeros."""
    blocks, start = [x[:0]], 0
    for count, run in groupby(classes):  # features with the same number of classes at once
        n = len(list(run))
        codes = xp.arange(count, dtype=x.dtype).reshape(1, count, *[1] * (x.ndim - 1))
        hot = x[start : start + n, None] == codes
        blocks.append(hot.reshape(n * count, *x.shape[1:]).astype(x.dtype))
        start += n
    return xp.concatenate(blocks)


def tangents(region: Region, x: Array) -> Array:
    """An orthonormal basis of the directions in which rows x (batch, d) can move within a region: (batch, d, dimensions)."""
    batch, d = x.shape
    free = np.flatnonzero((region.sphere == 0) & ~np.broadcast_to(region.discrete, region.sphere.shape))
    columns = [jnp.broadcast_to(jnp.eye(d, dtype=x.dtype)[:, free], (batch, d, len(free)))]
    for block in blocks_of(region.sphere):
        columns.append(jnp.zeros((batch, d, len(block) - 1), x.dtype).at[:, block].set(_orthogonal(x[:, block])))
    return jnp.concatenate(columns, axis=2)


def _orthogonal(v: Array) -> Array:
    """An orthonormal basis (batch, m, m - 1) of the directions orthogonal to unit vectors v (batch, m)."""
    # The reflection that exchanges v and the last unit vector or its negative, whichever is farther away.
    sign = jnp.where(v[:, -1:] > 0, 1.0, -1.0)
    w = v.at[:, -1].add(sign[:, 0])
    m = v.shape[1]
    reflection = jnp.eye(m, dtype=v.dtype)[None] - 2 * w[:, :, None] * w[:, None] / jnp.square(w).sum(1)[:, None, None]
    return reflection[:, :, :-1]
