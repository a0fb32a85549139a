"""A fitted model as a distribution of NumPyro's."""

from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape

from flows.core import (
    Array,
    FlowsError,
    Memo,
    Params,
    Shape,
    as_array,
    as_key,
    everywhere,
    structure_of,
    traits_by,
)
from flows.distributions.support import support
from flows.interop.models import Known, Model, leading_of, model_of_result
from flows.interop.numpyro.constraint import as_scalar, constraint_of
from flows.interop.rows import Batch, leading
from flows.results import FitResult
from flows.results.columns import Inputs

_supports = Memo(size=1024)


def distribution(fitted: FitResult, *, context: Any = None, scalar: bool = False) -> "FlowDistribution":
    """A fitted model as a NumPyro distribution: a prior, a likelihood, a guide.

    It is a pytree of its params and its context, whose static half is the constructor's value, the event and the shape of the
    context: it passes jit, vmap, scan and plates, and one made anew with other params, `distribution(result._replace(
    params=params))`, compiles nothing. Draws with their log-density come from one pass (`sample_with_intermediates`), so that
    an ELBO never inverts what it has drawn. `log_prob` without them is `result.log_prob`; draws are `result.sample`'s: angles
    within half a period of 0, of which any other real number that is the same angle has the same density.

    Args:
        fitted: the result of `flows.fit`, `fit_to_density`, `fit_ensemble` or `load`.
        context: of a conditional model: (..., *context), whose leading axes are the `batch_shape`, or a table of rows.
        scalar: events are numbers, of shape (), of a model of one column.

    Returns:
        A `numpyro.distributions.Distribution`. `support` is one constraint for all that `flows.support` tells: its `biject_to`
        is the inverse of `flows.Unconstrain` between ends; `constraints.circular` holds angles (of another period than 2 pi
        it is the interval of one turn around 0), `constraints.sphere` a unit vector. `has_rsample` is False of mixtures, whose
        draws pick a component.

    Errors:
        FlowsError: codes; a plain closure; a log-density that is a lower bound; a context that is missing or of another shape;
            `scalar` of several columns; params of another model. TypeError: no result.

    Example:
        >>> import flows, jax, numpy as np, numpyro
        >>> from flows.interop.numpyro import distribution
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> result = flows.fit(0, flows.Flow(flows.RealNVP(2, hidden=(8,))), x, max_epochs=1, verbose=0)
        >>> prior = distribution(result)
        >>> prior.batch_shape, prior.event_shape, prior.support
        ((), (2,), RealVector(Real(), 1))
        >>> prior.log_prob(prior.sample(jax.random.key(1), (3, 4))).shape
        (3, 4)
    """
    model = model_of_result(fitted, "distribution", scalar)
    if scalar and model.event != (1,):
        raise FlowsError(
            f"distribution: scalar=True is of a model of one column, and this one has events {model.event}; leave scalar out"
        )
    given = Inputs(fitted).context(context)
    return given_context(fitted.params, given.get("context"), model, "distribution")


def given_context(params: Params, context: Any, model: Model, whose: str) -> "FlowDistribution":
    """The distribution at a context, which is looked at."""
    if context is None and model.context is not None:
        raise FlowsError(
            f"{whose}: context is missing; the model was made with a context of shape {model.context}: give context= (..., "
            f"{', '.join(map(str, model.context))}), whose leading axes are the batch_shape"
        )
    if context is not None:
        if model.context is None:
            raise TypeError(f"{whose}: context was given, but this model was made without; give context_dim, or leave it out")
        context = as_array(context, f"{whose}: context")
        leading(context.shape, model.context, f"{whose}: context")
    made = FlowDistribution(params, context, model)
    _ = made.support  # which says what is wrong with a model of codes
    return made


class FlowDistribution(Distribution):
    """The distribution that `distribution` and `module` make: `params` and `context` are its leaves, `model` is static.

    `batch_shape` is that of the context's leading axes when it is made. What is computed goes by the leaves, also where vmap or
    scan have put axes in front of them, or taken some away; `promote_batch_shape` makes these axes known, as of NumPyro's own.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("params", "context")
    pytree_aux_fields = ("model", "_batch_shape")

    def __init__(self, params: Params, context: Array | None, model: Model):
        self.params, self.context, self.model = params, context, model
        self._batch_shape = self._of_leaves

    def tree_flatten(self) -> tuple:
        return (self.params, self.context), (self.model, self._batch_shape)

    @classmethod
    def tree_unflatten(cls, static: Any, children: Any) -> "FlowDistribution":
        self = cls.__new__(cls)
        self.params, self.context = children
        self.model, self._batch_shape = static
        return self

    @classmethod
    def infer_shapes(cls, *args: Any, **kwargs: Any) -> Any:
        """NumPyro's, of the shapes of arguments, knows constraints of arrays alone."""
        raise NotImplementedError(
            "infer_shapes: the shapes of a flow follow from its model; expected jax.eval_shape, or batch_shape and event_shape "
            "of the distribution"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_known", "_of_params", "_of_leaves")}

    @property
    def event_shape(self) -> Shape:
        return self.model.outer

    @cached_property
    def _known(self) -> Known:
        return self.model.known

    @cached_property
    def _of_params(self) -> Shape:
        return leading_of(self.params, self._known.params)

    @cached_property
    def _of_leaves(self) -> Shape:
        """The leading axes of params and context."""
        context, axes = self.context, len(self.model.context or ())
        return jnp.broadcast_shapes(self._of_params, () if context is None else context.shape[: context.ndim - axes])

    @property
    def support(self) -> constraints.Constraint:
        return _supports(self.model, lambda: _support_of(self.model))

    @property
    def has_rsample(self) -> bool:
        """Tells whether gradients flow through draws to params: not where a draw picks a component."""
        init_fun = self.model.init_fun
        values = [init_fun, *init_fun.values_within()]
        return not any(structure_of(value).of_components or traits_by(value).picks for value in values)

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """log p(value) in nats, for leading axes that broadcast with those of the distribution; of `intermediates` of a draw,
        what came with it."""
        if intermediates:
            return intermediates[0]
        value = as_array(value, "log_prob: value")
        if self.model.scalar:
            value = value[..., None]
        event, log_pdf = self.model.event, self._known.first
        lead = leading(value.shape, event, "log_prob: value")
        batch = Batch(self._shape_with(lead), self._of_params)
        return batch.mapped(log_pdf, self._of_batch(batch), (batch.folded(value, event),), self._contexts(batch))

    def sample(self, key: Any, sample_shape: Shape = ()) -> Array:
        return self._drawn(key, sample_shape, self._known.second)

    def sample_with_intermediates(self, key: Any, sample_shape: Shape = ()) -> tuple[Array, list]:
        """Draws, and their log-density, by one pass."""
        draw = self._known.draw
        if draw is None:
            raise FlowsError(
                f"{self.model.init_fun!r:.80} has functions that were not published; expected a constructor's value"
            )
        x, log_p = self._drawn(key, sample_shape, draw)
        return x, [log_p]

    def _drawn(self, key: Any, sample_shape: Shape, function: Any) -> Any:
        batch = Batch((*sample_shape, *self._of_leaves), self._of_params)

        def draw(params: Params, key: Array, **context: Any) -> Any:
            return function(key, params, batch.rows, **context)

        keys = batch.keys(as_key(key))
        drawn = batch.mapped(draw, self._of_batch(batch), (keys,), self._contexts(batch))
        if not self.model.scalar:
            return drawn
        return jax.tree.map(lambda leaf: leaf[..., 0] if leaf.ndim > len(batch.shape) else leaf, drawn)

    def _shape_with(self, lead: Shape) -> Shape:
        if not self._of_leaves:
            return lead
        try:
            return jnp.broadcast_shapes(lead, self._of_leaves)
        except ValueError:
            raise FlowsError(
                f"log_prob: value has the leading axes {lead}, which do not broadcast with the batch_shape {self._of_leaves}"
            ) from None

    def _of_batch(self, batch: Batch) -> Params:
        return batch.params(self.params, self._known.params)

    def _contexts(self, batch: Batch) -> dict[str, Any]:
        """A context for each row, or one for all."""
        if self.context is None:
            return {}
        return {"context": batch.folded(self.context, self.model.context or (), shared=True)}

    def __repr__(self) -> str:
        scalar = ", scalar" * self.model.scalar
        return f"<{self.model.init_fun!r}, batch_shape {self.batch_shape}, event_shape {self.event_shape}{scalar}>"


@promote_batch_shape.register
def _(distribution: FlowDistribution) -> FlowDistribution:
    return FlowDistribution(distribution.params, distribution.context, distribution.model)


def _support_of(model: Model) -> constraints.Constraint:
    try:
        region = support(model.init_fun, model.event, model.context or 0).inputs
    except FlowsError:  # it cannot be told: where the model is defined, as far as that is known
        region = model.known.part.region or everywhere(model.event)
    return constraint_of(as_scalar(region) if model.scalar else region, f"distribution: {model.init_fun!r:.80}")
