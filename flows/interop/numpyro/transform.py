"""A bijection as a NumPyro transform, and the support of a model, `flows.support`, as a NumPyro constraint.
Family: A flow in a NumPyro program."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to

from flows.bijections.bounds import Unconstrain
from flows.compose import Invert
from flows.core import (
    CIRCLE,
    REAL,
    SPHERE,
    Array,
    BijectionInit,
    BijectionLike,
    FlowsError,
    Memo,
    Params,
    Region,
    Shape,
    blocks_of,
    check_bijective,
    off_sphere,
)
from flows.distributions.support import support
from flows.interop.models import Model, as_rows, leading, model_of

_constraints = Memo(size=1024)  # constraints of the inputs and the outputs of each bijection


def transform(bijection: BijectionLike, params: Params, input_dim: int | Sequence[int]) -> "FlowTransform":
    """A bijection as a NumPyro `Transform`: y = f(x), its direct function, and log|det df/dx|, for events with leading axes.

    The transform from noise to data is `transform(flows.Invert(bijection), params, input_dim)`, with the same params. Point and
    log-det come from one pass (`call_with_intermediates`), so draws of a `TransformedDistribution` with their density need no
    inverse. Without this pass the log-det is computed in the cheap direction: for `Invert(f)` by f.

    The transform is a pytree of its params: it passes jit, vmap and scan, and transforms that differ in params alone share
    compiled functions.

    Args:
        bijection: a constructor's value.
        params: its params.
        input_dim: its event, as init_fun takes it.

    Returns:
        A `Transform`, whose `domain` and `codomain` are the constraints of `flows.support`.

    Errors:
        TypeError: not a bijection. FlowsError: a plain closure, a layer that adds noise, codes, params of another model, events
            of another shape.

    Example:
        >>> import flows, jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from flows.interop.numpyro import transform
        >>> bijection = flows.IAF(2, hidden=(8,))
        >>> to_data = transform(flows.Invert(bijection), bijection(0, 3).params, 3)
        >>> posterior = dist.TransformedDistribution(dist.Normal(jnp.zeros(3), 1.0).to_event(1), to_data)
        >>> draws, intermediates = posterior.sample_with_intermediates(jax.random.key(1), (5,))
        >>> posterior.log_prob(draws, intermediates).shape
        (5,)
    """
    model = model_of(bijection, BijectionInit, input_dim, 0, "transform")
    check_bijective("transform", bijection)
    model.check(params, "transform: params")
    result = FlowTransform(params, model)
    _ = result.domain, result.codomain  # raise the error for a model of codes
    return result


class FlowTransform(Transform):
    """The transform that `transform` makes: `params` are its leaves, `model` is static."""

    def __init__(self, params: Params, model: Model):
        self.params, self.model = params, model

    @property
    def _output(self) -> Shape:
        return () if self.model.scalar else self.model.known.part.output

    @property
    def domain(self) -> constraints.Constraint:
        return _constraints(self.model, self._both)[0]

    @property
    def codomain(self) -> constraints.Constraint:
        return _constraints(self.model, self._both)[1]

    def _both(self) -> tuple[constraints.Constraint, constraints.Constraint]:
        lives, whose = support(self.model.init_fun, self.model.event), f"transform: {self.model.init_fun!r:.80}"
        return constraint_of(lives.inputs, self.model.outer, whose), constraint_of(lives.outputs, self._output, whose)

    def __call__(self, x: Any) -> Array:
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x: Any) -> tuple[Array, Array]:
        """y and log|det dy/dx|, in one pass."""
        return self._run(x, "x")

    def _inverse(self, y: Any) -> Array:
        return self._run(y, "y")[0]

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        """Return log|det dy/dx|; `intermediates` of the pass that made y hold it."""
        if intermediates is not None:
            return intermediates
        if self.model.known.part.native_inverse is None:
            return self.call_with_intermediates(x)[1]
        return -self._run(y, "y")[1]

    def _run(self, points: Any, side: str) -> tuple[Array, Array]:
        """Return the function of points x, or the inverse of points y, and its log-det."""
        model, known = self.model, self.model.known
        function, event, output = known.first, model.event, self._output
        if side == "y":
            function, event, output = known.second, known.part.output, model.outer
        rows, lead = as_rows(jnp.asarray(points)[..., None] if model.scalar else points, event, f"transform: {side}")
        points, log_det = function(self.params, rows)
        return points.reshape(lead + output), log_det.reshape(lead)

    def forward_shape(self, shape: Shape) -> Shape:
        return leading(shape, self.model.outer, "transform: x") + self._output

    def inverse_shape(self, shape: Shape) -> Shape:
        return leading(shape, self._output, "transform: y") + self.model.outer

    def tree_flatten(self) -> tuple:
        return (self.params,), (("params",), {"model": self.model})

    def eq(self, other: object, static: bool = False) -> Any:
        """True for the same bijection with equal params; with `static`, with the very same arrays."""
        if not isinstance(other, FlowTransform) or self.model != other.model:
            return False
        pairs = list(zip(jax.tree.leaves(self.params), jax.tree.leaves(other.params), strict=True))
        same = all(a is b for a, b in pairs)
        if static or same:
            return same
        return jnp.all(jnp.stack([jnp.array_equal(a, b) for a, b in pairs]))

    def __hash__(self) -> int:
        return hash(self.model)

    def __repr__(self) -> str:
        return f"transform({self.model.init_fun!r}, params, {self.model.event})"


class Within(constraints.Constraint):
    """A constraint of events to a `Region`, entry by entry: entries between its ends, and unit vectors where it has spheres.

    `biject_to(Within(region))` is the inverse of `flows.Unconstrain`; NumPyro has no bijection to unit vectors.
    """

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
        within = ((x >= low) & (x <= high) & xp.isfinite(x)).all(axes)
        for block in blocks_of(sphere):
            within = within & ~off_sphere(jnp.asarray(x)[..., block])
        return within

    def feasible_like(self, prototype: Any) -> Any:
        low, high, sphere = self.region.low, self.region.high, self.region.sphere
        from_low, to_high = np.isfinite(low), np.isfinite(high)
        left, right = np.where(from_low, low, 0.0), np.where(to_high, high, 0.0)
        one_sided = np.where(from_low, left + 1, np.where(to_high, right - 1, 0.0))
        middle = np.where(from_low & to_high, (left + right) / 2, one_sided)
        for block in blocks_of(sphere):
            middle[block] = len(block) ** -0.5
        return jnp.broadcast_to(jnp.asarray(middle, jnp.result_type(float)), jnp.shape(prototype))

    def tree_flatten(self) -> tuple:
        return (), ((), {"region": self.region})

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, Within) and self.region == other.region

    def __hash__(self) -> int:
        return hash(self.region)

    def __repr__(self) -> str:
        return f"Within({self.region!r})"


@biject_to.register(Within)
def from_line(constraint: Within) -> FlowTransform:
    """Return the map of the whole line to the interval between the ends: the inverse of `flows.Unconstrain`."""
    region = constraint.region
    if region.sphere.any():
        raise NotImplementedError(
            "NumPyro has no bijection from the line to unit vectors, so its gradient samplers and automatic guides cannot take "
            "this site; give it a separate guide, such as flows.interop.numpyro.module of a model of the sphere"
        )
    # Ends that are equal for all entries become numbers.
    low, high = (float(end.flat[0]) if (end == end.flat[0]).all() else end for end in region)
    event = region.low.shape
    return FlowTransform({}, Model(Invert(Unconstrain(low, high)), event or (1,), None, scalar=not event))


def constraint_of(region: Region, event: Shape, whose: str) -> constraints.Constraint:
    """Return the constraint of events in a region of arrays: one of NumPyro's constraints for the whole line, angles modulo
    2 pi and one unit vector; else `Within`, with one turn around 0 for any other angle. If the region has another shape than
    the event, its entries are equal."""
    if region.low.shape != event:
        region = Region(*(np.full(event, field.flat[0]) for field in region.values()))
    if region.discrete.any():
        raise FlowsError(
            f"{whose} has codes or whole numbers (entries {np.flatnonzero(region.discrete).tolist()} of the event), which have "
            "no density: draw them at a separate site, numpyro.sample(name, dist.Categorical(...)), whose one-hot value is the "
            "context of a model of the numbers: flows.fit(rng, model, numbers, context=one_hot)"
        )
    axes, angles, half = len(event), region.period > 0, region.period / 2
    if angles.all() and np.allclose(region.period, CIRCLE.period):
        return constraints.independent(constraints.circular, axes) if axes else constraints.circular
    if axes == 1 and (region.sphere == 1).all():
        return constraints.sphere
    low, high = np.where(angles, -half, region.low), np.where(angles, half, region.high)
    if not region.sphere.any() and np.isneginf(low).all() and np.isposinf(high).all():
        named = {0: constraints.real, 1: constraints.real_vector, 2: constraints.real_matrix}
        return named.get(axes) or constraints.independent(constraints.real, axes)
    return Within(replace(region, low=low, high=high, period=np.zeros_like(low)))


def region_of(constraint: Any, whose: str) -> Region:
    """Return the region of points that satisfy a NumPyro constraint, which has to hold entry by entry.

    Other constraints (a simplex, an ordered vector, a matrix of correlations) are refused: with the whole line in their place,
    a model would put mass where there is none.
    """
    if isinstance(constraint, constraints.independent):
        return region_of(constraint.base_constraint, whose)
    if isinstance(constraint, Within):
        return constraint.region
    if getattr(constraint, "is_discrete", False):
        raise FlowsError(
            f"{whose} lives on {constraint!r}, whole numbers, and densities here are of real numbers. Give "
            "flows.Categorical(num_classes) for codes from 0, and flows.Dequantize for counts"
        )
    known = ((constraints.real, REAL), (constraints.circular, CIRCLE), (constraints.sphere, SPHERE))
    for singleton, region in known:
        if isinstance(constraint, type(singleton)):
            return region
    if isinstance(constraint, constraints.interval | constraints.greater_than | constraints.less_than):
        ends = getattr(constraint, "lower_bound", -np.inf), getattr(constraint, "upper_bound", np.inf)
        return Region(*(np.asarray(end, float) for end in ends))
    raise FlowsError(
        f"{whose} lives on {constraint!r}, which is not a region entry by entry; expected the line, intervals, half-lines, "
        "constraints.circular or constraints.sphere. Bring the points to the line before, by numpyro's biject_to, and model it"
    )
