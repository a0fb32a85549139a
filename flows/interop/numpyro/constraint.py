"""Where points live, `flows.support`, in the words of NumPyro: one constraint for a whole event."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from flows.core import CIRCLE, REAL, SPHERE, FlowsError, Region, Shape, blocks_of, off_sphere

TURN = 2 * np.pi


class Within(constraints.Constraint):
    """Events that lie within a `Region` entry by entry: between ends, and in unit vectors where there are some.

    `biject_to(Within(region))` is the inverse of `flows.Unconstrain`; of unit vectors NumPyro has none.
    """

    is_discrete = False

    def __init__(self, region: Region):
        self.region = region

    @property
    def event_dim(self) -> int:
        return len(self.region.low.shape)

    def __call__(self, x: Any) -> Any:
        xp = jnp if isinstance(x, jax.Array) else np
        x = xp.asarray(x)
        sphere, axes = self.region.sphere, tuple(range(-self.event_dim, 0))
        low, high = (
            xp.asarray(np.where(sphere > 0, far, end).reshape((1,) * (x.ndim - self.event_dim) + sphere.shape), x.dtype)
            for end, far in ((self.region.low, -np.inf), (self.region.high, np.inf))
        )
        found = ((x >= low) & (x <= high) & xp.isfinite(x)).all(axes)
        for block in blocks_of(sphere):
            found = found & ~off_sphere(jnp.asarray(x)[..., block])
        return found

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.broadcast_to(jnp.asarray(self._middle, jnp.result_type(float)), jnp.shape(prototype))

    @property
    def _middle(self) -> np.ndarray:
        low, high, sphere = self.region.low, self.region.high, self.region.sphere
        from_low, to_high = np.isfinite(low), np.isfinite(high)
        left, right = np.where(from_low, low, 0.0), np.where(to_high, high, 0.0)
        one_sided = np.where(from_low, left + 1, np.where(to_high, right - 1, 0.0))
        middle = np.where(from_low & to_high, (left + right) / 2, one_sided)
        for block in blocks_of(sphere):
            middle[block] = len(block) ** -0.5
        return middle

    def tree_flatten(self) -> tuple:
        return (), self.region

    @classmethod
    def tree_unflatten(cls, region: Region, children: Any) -> "Within":
        return cls(region)

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, Within) and self.region == other.region

    def __hash__(self) -> int:
        return hash(self.region)

    def __repr__(self) -> str:
        return f"Within({self.region!r})"


def constraint_of(region: Region, whose: str) -> constraints.Constraint:
    """Return the constraint of points that live in a region, of arrays of the event: NumPyro's own for the whole line, angles
    modulo 2 pi and one unit vector; else `Within`, with one turn around 0 of any other angle."""
    if region.classes.any():
        raise FlowsError(
            f"{whose} has codes of categories (entries {np.flatnonzero(region.classes).tolist()} of the event), which are no "
            "numbers of NumPyro's: a site of its own holds them, numpyro.sample(name, dist.Categorical(...)), whose value, one "
            "hot, is the context of a model of the numbers: flows.fit(rng, model, numbers, context=one_hot)"
        )
    axes = region.low.ndim
    angles = region.period > 0
    if angles.all() and np.allclose(region.period, TURN):
        return over(constraints.circular, axes)
    if axes == 1 and (region.sphere == 1).all():
        return constraints.sphere
    half = region.period / 2
    low, high = np.where(angles, -half, region.low), np.where(angles, half, region.high)
    if not region.sphere.any() and np.isneginf(low).all() and np.isposinf(high).all():
        return over(constraints.real, axes)
    return Within(Region(low, high, np.zeros_like(low), region.sphere, region.classes))


def over(constraint: constraints.Constraint, axes: int) -> constraints.Constraint:
    """Return the constraint of each entry of an event with this number of axes."""
    if constraint is constraints.real and axes in (1, 2):
        return (constraints.real_vector, constraints.real_matrix)[axes - 1]
    return constraints.independent(constraint, axes) if axes else constraint


def ends_of(region: Region) -> tuple[Any, Any]:
    """The ends of a region as arguments of `flows.Unconstrain`: numbers where they are the same for all entries."""
    return tuple(float(end.flat[0]) if (end == end.flat[0]).all() else end for end in region)  # type: ignore[return-value]


def as_scalar(region: Region) -> Region:
    """Return the constraint of the one entry of an event (1,), as an event ()."""
    return Region(*(np.reshape(field, ()) for field in fields_of(region)))


def reshaped(region: Region, event: Shape) -> Region:
    """A region whose entries are alike, at an event of another shape."""
    if region.low.shape == event:
        return region
    return Region(*(np.full(event, field.flat[0]) for field in fields_of(region)))


def fields_of(region: Region) -> tuple[Any, Any, Any, Any, Any]:
    return region.low, region.high, region.period, region.sphere, region.classes


def region_of(constraint: Any, whose: str) -> Region:
    """Where the entries of points live that satisfy a constraint of NumPyro's, which has to hold entry by entry.

    What does not (a simplex, an ordered vector, a matrix of correlations) is refused: taken for the whole line, a model would
    put mass where there is none.
    """
    if isinstance(constraint, constraints.independent):
        return region_of(constraint.base_constraint, whose)
    if isinstance(constraint, Within):
        return constraint.region
    if getattr(constraint, "is_discrete", False):
        raise FlowsError(
            f"{whose} lives on {constraint!r}, whole numbers, which a density of the line has none of. Give "
            "flows.Categorical(num_classes) for codes from 0, and flows.Dequantize for counts"
        )
    for kind, region in ((type(constraints.real), REAL), (type(constraints.circular), CIRCLE)):
        if isinstance(constraint, kind):
            return region
    if constraint is constraints.sphere:
        return SPHERE
    if isinstance(constraint, constraints.interval):
        return Region(_number(constraint.lower_bound), _number(constraint.upper_bound))
    if isinstance(constraint, constraints.greater_than):
        return Region(_number(constraint.lower_bound), np.inf)
    if isinstance(constraint, constraints.less_than):
        return Region(-np.inf, _number(constraint.upper_bound))
    raise FlowsError(
        f"{whose} lives on {constraint!r}, which is no region entry by entry; expected the line, intervals, half-lines, "
        "constraints.circular or constraints.sphere. Bring the points to the line before, by numpyro's biject_to, and model it"
    )


def _number(bound: Any) -> Any:
    return np.asarray(bound, float)
