"""A bijection of ours as a transform of NumPyro's, by which its constraints are mapped, too."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to

from flows.bijections.unconstrain import Unconstrain
from flows.compose import Invert
from flows.core import Array, BijectionInit, BijectionLike, Memo, Params, Shape
from flows.distributions.support import support
from flows.interop.models import Model, model_of
from flows.interop.numpyro.constraint import Within, as_scalar, constraint_of, ends_of, reshaped
from flows.interop.rows import as_rows, leading

_constraints = Memo(size=1024)  # of the inputs and of the outputs of each bijection


def transform(bijection: BijectionLike, params: Params, input_dim: int | Sequence[int]) -> "FlowTransform":
    """A bijection as a NumPyro `Transform`: y = f(x), its direct function, and log|det df/dx|, of events behind any axes.

    The one from noise to data is `transform(flows.Invert(bijection), params, input_dim)`, with the same params. Point and
    log-det come from one pass (`call_with_intermediates`), so that draws of a `TransformedDistribution` with their density
    never invert. Without it the log-det is taken in the cheap direction: that of `Invert(f)` by f.

    It is a pytree of its params: it passes jit, vmap and scan, and of transforms that are equal but for these functions are
    compiled once.

    Args:
        bijection: a constructor's value.
        params: its params.
        input_dim: its event, as init_fun takes it.

    Returns:
        A `Transform`, whose `domain` and `codomain` are the constraints of `flows.support`.

    Errors:
        TypeError: no bijection. FlowsError: a plain closure, a layer that adds noise, or codes, params of another model, events
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
    model.check(params, "transform: params")
    made = FlowTransform(params, model)
    _ = made.domain, made.codomain  # which say what is wrong with a model of codes
    return made


class FlowTransform(Transform):
    """The transform that `transform` makes: `params` are its leaves, `model` is static."""

    def __init__(self, params: Params, model: Model):
        self.params, self.model = params, model

    @property
    def _event(self) -> Shape:
        return self.model.outer

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
        found = support(self.model.init_fun, self.model.event)
        # Of an event that a layer changes, support may not tell the shape.
        outputs = reshaped(found.outputs, self.model.known.part.output)
        regions = [as_scalar(region) if self.model.scalar else region for region in (found.inputs, outputs)]
        name = f"transform: {self.model.init_fun!r:.80}"
        return constraint_of(regions[0], name), constraint_of(regions[1], name)

    def __call__(self, x: Any) -> Array:
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x: Any) -> tuple[Array, Array]:
        """y and log|det dy/dx|, in one pass."""
        return self._run(self.model.known.first, x, self._event, self.model.event, self._output, "x")

    def _inverse(self, y: Any) -> Array:
        return self._run(self.model.known.second, y, self._output, self.model.known.part.output, self._event, "y")[0]

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        """log|det dy/dx|: that of the pass that made y, where that is at hand."""
        if intermediates is not None:
            return intermediates
        part = self.model.known.part
        if part.native_inverse is None:
            return self.call_with_intermediates(x)[1]
        return -self._run(self.model.known.second, y, self._output, part.output, self._event, "y")[1]

    def _run(self, function: Any, x: Any, outer: Shape, event: Shape, output: Shape, what: str) -> tuple[Array, Array]:
        if self.model.scalar:
            x = jnp.asarray(x)[..., None]
        rows, lead = as_rows(x, event, f"transform: {what}")
        y, log_det = function(self.params, rows)
        return y.reshape(lead + output), log_det.reshape(lead)

    def forward_shape(self, shape: Shape) -> Shape:
        return leading(shape, self._event, "transform: x") + self._output

    def inverse_shape(self, shape: Shape) -> Shape:
        return leading(shape, self._output, "transform: y") + self._event

    def tree_flatten(self) -> tuple:
        return (self.params,), self.model

    @classmethod
    def tree_unflatten(cls, model: Model, children: Any) -> "FlowTransform":
        (params,) = children
        return cls(params, model)

    def eq(self, other: object, static: bool = False) -> Any:
        """Tell whether it is the same bijection with the same params; with `static`, the very same arrays."""
        if not isinstance(other, FlowTransform) or self.model != other.model:
            return False
        pairs = list(zip(jax.tree.leaves(self.params), jax.tree.leaves(other.params), strict=True))
        if static or all(a is b for a, b in pairs):
            return all(a is b for a, b in pairs)
        return jnp.all(jnp.stack([jnp.array_equal(a, b) for a, b in pairs]))

    def __hash__(self) -> int:
        return hash(self.model)

    def __repr__(self) -> str:
        return f"transform({self.model.init_fun!r}, params, {self.model.event})"


@biject_to.register(Within)
def from_line(constraint: Within) -> FlowTransform:
    """The whole line to between the ends: the inverse of `flows.Unconstrain`."""
    region = constraint.region
    if region.sphere.any():
        raise NotImplementedError(
            "NumPyro has no bijection from the line to unit vectors, so its gradient samplers and automatic guides cannot take "
            "this site; give it a guide of its own, such as flows.interop.numpyro.module of a model of the sphere"
        )
    low, high = ends_of(region)
    scalar = constraint.event_dim == 0
    return FlowTransform({}, Model(Invert(Unconstrain(low, high)), (1,) if scalar else region.low.shape, None, scalar))
