"""A fitted model as a NumPyro distribution. Family: A flow in a NumPyro program."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape

from flows.core import Array, FlowsError, Memo, Params, Shape, as_array, as_key, everywhere, size, structure_of, traits_by
from flows.distributions.support import support
from flows.interop.models import Model, leading, model_of_result
from flows.interop.numpyro.transform import constraint_of
from flows.results import FitResult
from flows.results.columns import Inputs

_supports = Memo(size=1024)


def distribution(fitted: FitResult, *, context: Any = None, scalar: bool = False) -> "FlowDistribution":
    """A fitted model as a NumPyro distribution: a prior, a likelihood, a guide.

    The distribution is a pytree of its params and its context; the constructor's value, the event and the shape of the context
    are static. It passes jit, vmap, scan and plates, and one with other params, `distribution(result._replace(params=params))`,
    compiles nothing. Draws with their log-density come from one pass (`sample_with_intermediates`), so an ELBO never inverts
    its draws. `log_prob` of other values is `result.log_prob`; draws come from `result.sample`: angles lie within half a period
    of 0, and any other real number for the same angle has the same density.

    Args:
        fitted: the result of `flows.fit`, `fit_to_density`, `fit_ensemble` or `load`.
        context: for a conditional model: (..., *context), whose leading axes are the `batch_shape`, or a table of rows.
        scalar: events are numbers, of shape (), for a model of one column.

    Returns:
        A `numpyro.distributions.Distribution`. `support` is a single constraint with all that `flows.support` knows: between
        ends its `biject_to` is the inverse of `flows.Unconstrain`; `constraints.circular` holds angles (with a period other
        than 2 pi it is the interval of one turn around 0), and `constraints.sphere` a unit vector. `has_rsample` is False for
        mixtures, whose draws pick a component.

    Errors:
        FlowsError: codes; a plain closure; a log-density that is a lower bound; a context that is missing or has another shape;
            `scalar` with several columns; params of another model. TypeError: not a result.

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
    model = model_of_result(fitted, "distribution")
    if scalar and model.event != (1,):
        raise FlowsError(
            f"distribution: scalar=True needs a model of one column, and this model has events {model.event}; leave scalar out"
        )
    keywords = Inputs(fitted).context(context)
    return at_context(fitted.params, keywords.get("context"), model._replace(scalar=scalar), "distribution")


def at_context(params: Params, context: Any, model: Model, whose: str) -> "FlowDistribution":
    """Return the distribution of a model at a context, and check the context."""
    if context is None and model.context is not None:
        raise FlowsError(
            f"{whose}: context is missing; the model was made with a context of shape {model.context}: give context= (..., "
            f"{', '.join(map(str, model.context))}), whose leading axes are the batch_shape"
        )
    if context is not None:
        if model.context is None:
            raise TypeError(f"{whose}: got context, but this model was made without one; give context_dim, or leave it out")
        context = as_array(context, f"{whose}: context")
        leading(context.shape, model.context, f"{whose}: context")
    result = FlowDistribution(params, context, model)
    _ = result.support  # raises the error for a model of codes
    return result


class FlowDistribution(Distribution):
    """The distribution that `distribution` and `module` make: `params` and `context` are its leaves, `model` is static.

    `batch_shape` has the leading axes of the context at construction. Computations follow the leaves, also after vmap or scan
    have added or removed leading axes; `promote_batch_shape` puts the axes into `batch_shape`, as for NumPyro's distributions.
    """

    pytree_data_fields = ("params", "context")
    pytree_aux_fields = ("model", "_batch_shape")

    def __init__(self, params: Params, context: Array | None, model: Model):
        self.params, self.context, self.model = params, context, model
        self._batch_shape = self._leaf_axes

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
        """Refuse: NumPyro infers shapes from the constraints of array arguments, and params are a pytree."""
        raise NotImplementedError(
            "infer_shapes: the shapes of a flow follow from its model; expected jax.eval_shape, or batch_shape and event_shape "
            "of the distribution"
        )

    @property
    def event_shape(self) -> Shape:
        return self.model.outer

    @cached_property
    def _params_axes(self) -> Shape:
        """The leading axes that `vmap` and `scan` have stacked in front of the axes of params."""
        leaves = zip(jax.tree.leaves(self.params), jax.tree.leaves(self.model.known.params), strict=True)
        return jnp.broadcast_shapes(*{jnp.shape(leaf)[: jnp.ndim(leaf) - like.ndim] for leaf, like in leaves})

    @cached_property
    def _leaf_axes(self) -> Shape:
        """The leading axes of params and context."""
        context, axes = self.context, len(self.model.context or ())
        return jnp.broadcast_shapes(self._params_axes, () if context is None else context.shape[: context.ndim - axes])

    @property
    def support(self) -> constraints.Constraint:
        model = self.model

        def make() -> constraints.Constraint:
            try:
                region = support(model.init_fun, model.event, model.context or 0).inputs
            except FlowsError:  # the support is not known: the region where the model is defined, if known
                region = model.known.part.region or everywhere(model.event)
            return constraint_of(region, model.outer, f"distribution: {model.init_fun!r:.80}")

        return _supports(model, make)

    @property
    def has_rsample(self) -> bool:
        """True if gradients flow through draws to params, which they do not where a draw picks a component."""
        init_fun = self.model.init_fun
        values = [init_fun, *init_fun.values_within()]
        return not any(structure_of(value).of_components or traits_by(value).picks for value in values)

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Return log p(value) in nats, for leading axes that broadcast with the axes of the distribution; with `intermediates`
        of a draw, the log-density that came with it."""
        if intermediates:
            return intermediates[0]
        value = as_array(value, "log_prob: value")
        if self.model.scalar:
            value = value[..., None]
        event = self.model.event
        lead = leading(value.shape, event, "log_prob: value")
        try:
            shape = jnp.broadcast_shapes(lead, self._leaf_axes)
        except ValueError:
            raise FlowsError(
                f"log_prob: value has the leading axes {lead}, which do not broadcast with the batch_shape {self._leaf_axes}"
            ) from None
        layout = Layout(shape, self._params_axes)
        return self._mapped(layout, self.model.known.first, layout.folded(value, event))

    def sample(self, key: Any, sample_shape: Shape = ()) -> Array:
        return self._drawn(key, sample_shape, self.model.known.second)

    def sample_with_intermediates(self, key: Any, sample_shape: Shape = ()) -> tuple[Array, list]:
        """Return draws and their log-density, from one pass."""
        x, log_p = self._drawn(key, sample_shape, self.model.known.draw)
        return x, [log_p]

    def _drawn(self, key: Any, sample_shape: Shape, function: Callable) -> Any:
        layout, key = Layout((*sample_shape, *self._leaf_axes), self._params_axes), as_key(key)

        def draw(params: Params, key: Array, **context: Any) -> Any:
            return function(key, params, layout.rows, **context)

        drawn = self._mapped(layout, draw, jax.random.split(key, *layout.copies) if layout.copies else key)
        if not self.model.scalar:
            return drawn
        return jax.tree.map(lambda leaf: leaf[..., 0] if leaf.ndim > len(layout.shape) else leaf, drawn)

    def _mapped(self, layout: "Layout", function: Callable, rows_or_keys: Array) -> Any:
        """Return function(params, rows_or_keys), with a context for each row or one for all, mapped over the axes of params."""
        params, context = self.params, dict[str, Array]()
        if self.context is not None:
            context["context"] = layout.folded(self.context, self.model.context or (), shared=True)
        if layout.copies:
            function, expected = jax.vmap(function), self.model.known.params
            params = jax.tree.map(lambda leaf, like: jnp.reshape(leaf, layout.copies + like.shape), params, expected)
        return jax.tree.map(layout.unfolded, function(params, rows_or_keys, **context))

    def __repr__(self) -> str:
        scalar = ", scalar" * self.model.scalar
        return f"<{self.model.init_fun!r}, batch_shape {self.batch_shape}, event_shape {self.event_shape}{scalar}>"


@promote_batch_shape.register
def _(distribution: FlowDistribution) -> FlowDistribution:
    return FlowDistribution(distribution.params, distribution.context, distribution.model)


class Layout:
    """Events with leading axes `shape` as the rows of one model; if params differ along some of these axes, as rows for each
    copy of the params.

    `params_axes` are the leading axes of params, which broadcast with `shape`. `copies` is empty without such axes, else it
    holds the number of copies; `rows` is the number of rows for each copy.
    """

    def __init__(self, shape: Shape, params_axes: Shape):
        padded = (1,) * (len(shape) - len(params_axes)) + params_axes
        self.shape, self.order = shape, sorted(range(len(shape)), key=lambda axis: padded[axis] == 1)
        self.ordered = tuple(shape[axis] for axis in self.order)  # the axes along which params differ come first
        differ = sum(length != 1 for length in padded)
        self.copies, self.rows = (size(self.ordered[:differ]),) if params_axes else (), size(self.ordered[differ:])

    def folded(self, x: Array, event: Shape, shared: bool = False) -> Array:
        """Return events with leading axes as (*copies, rows, *event); with `shared`, a single event stays as it is."""
        if shared and not self.copies and x.ndim == len(event):
            return x
        x = jnp.broadcast_to(x, self.shape + event)
        tail = range(len(self.shape), x.ndim)
        return x.transpose(*self.order, *tail).reshape(*self.copies, self.rows, *event)

    def unfolded(self, y: Array) -> Array:
        y = y.reshape(*self.ordered, *y.shape[len(self.copies) + 1 :])
        back = sorted(range(len(self.shape)), key=self.order.__getitem__)
        return y.transpose(*back, *range(len(self.shape), y.ndim))
