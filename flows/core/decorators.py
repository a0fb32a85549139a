"""The decorators with which layers are written, `bijection`, `distribution` and `combinator`, and the values they make.

An author writes the formulas for one event; the decorator lifts them to batches. A combinator composes parts.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.constructors import Value, constructor, decorated, is_constructor, refuse_argument, said_of
from flows.core.contract import INIT, LIKELIHOODS, Array, Bijection, Distribution, Given, Params, Shape
from flows.core.errors import FlowsError
from flows.core.inputs import as_array, as_context, as_event, as_key, default_dtype, named_by, refuse_unknown, signature
from flows.core.lifting import BijectionAuthor, DistributionAuthor
from flows.core.parts import (
    COLUMN,
    BijectionPart,
    DistributionPart,
    Part,
    as_surjection,
    checked_draws,
    exact_on_request,
    init_in_numpy,
    made_once,
)
from flows.core.publish import functions_of
from flows.core.structure import ORDERS, Composite
from flows.core.support import Region, Support, Traits, as_support, resolved
from flows.core.validation import MADE, check_finite, check_rows, spend

P = ParamSpec("P")
I = TypeVar("I", bound="ModelValue")
EVERYWHERE, PLAIN = Support(), Traits()
# Claims of a constructor: values, or functions of the constructor's arguments, by name, that return them.
Label = str | Callable[..., str]
Places = Support | Callable[..., Support]
Points = Support | Region | tuple[Any, Any]  # where points of a distribution live
Known = Traits | Callable[..., Traits]
EXACT = frozenset({"exact"})
OF_TRIPLES = {"params", "log_pdf", "sample", "direct_fun", "inverse_fun", "log_prob", "draw", "fit", "init", "apply", "forward"}


class Declared(NamedTuple):
    """Claims of a constructor about its values: the arguments of `bijection` and `distribution`."""

    batched: bool = True
    likelihood: Label = "exact"
    support: Any = EVERYWHERE
    traits: Known = PLAIN
    cdf: Callable | None = None
    draws: bool = True  # of a combinator, whether it hands rng to its layers
    ways: frozenset[str] = frozenset()  # of a surjection, the directions that draw


class ModelValue(Value):
    """Value of a constructor of bijections or distributions: an init_fun that remembers its arguments."""

    batched: bool
    own_support: Support
    own_traits: Traits
    own_cdf: Callable[[dict, Shape | None], Any] | None  # of the arguments and a context
    labels: frozenset[str]  # of the value itself and of its layers
    bijective: bool  # whether all layers in it are bijections: none draws what another layer would have to undo
    ways: frozenset[str]
    instead: str  # how it is called, for an error

    def __getattr__(self, name: str) -> Any:
        if name in OF_TRIPLES:
            raise AttributeError(f"{self!r:.60} has no {name!r}: it is an init_fun, {self.instead}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __init__(self, construct: Callable, arguments: dict, inner: Any, declared: Declared):
        if not (callable(inner) or isinstance(inner, Composite)):
            raise TypeError(f"{construct.__name__} returned {inner!r:.60}; a constructor returns its init_fun")
        if isinstance(inner, Composite) and inner.order not in ORDERS:
            raise TypeError(f"{construct.__name__}: order is {inner.order!r:.40}; expected one of {', '.join(ORDERS)}")
        super().__init__(construct, arguments, inner)
        name = construct.__name__
        label = _label(said_of(declared.likelihood, arguments, f"{name}: likelihood"), name)
        support = said_of(declared.support, arguments, f"{name}: support")
        if callable(declared.support):
            support = as_support(support, name, isinstance(self, DistributionInit))
        values = [value for value in self.values_beneath() if isinstance(value, ModelValue)]
        hidden = frozenset() if declared.draws else {"unbiased"}
        vars(self).update(
            batched=declared.batched,
            own_cdf=declared.cdf,
            own_support=support,
            own_traits=said_of(declared.traits, arguments, f"{name}: traits"),
            labels=frozenset({label}.union(*[value.labels for value in values])) - hidden,
            bijective=not declared.ways and label != "lower bound" and all(value.bijective for value in values),
            ways=declared.ways,
        )

    @property
    def likelihood(self) -> str:
        """The kind of log_det and log_pdf: 'exact', 'unbiased' or 'lower bound', the weakest of all layers.

        It follows from the constructors' arguments alone. With `rng`, 'unbiased' is one draw of an estimate: its mean and the
        mean of its gradient are exact. Without `rng` it is the exact value. A 'lower bound' holds in the mean over `rng`.
        """
        return max(self.labels, key=LIKELIHOODS.index)

    @property
    def estimates(self) -> bool:
        """Tells whether `rng` makes a log-det in it an estimate, which may enter only objectives that are linear in log p."""
        return "unbiased" in self.labels

    @property
    def keywords(self) -> frozenset[str]:
        """The keywords that its init, or the init of any layer in it, names."""
        inner = self.inner
        if isinstance(inner, Composite):
            return inner.keywords.union(*map(_init_keywords, inner.layers))
        return _init_keywords(inner)

    @property
    def __signature__(self) -> inspect.Signature:
        return signature(self.keywords, "rng", "input_dim")

    def part(self, event: Shape, context: Shape | None) -> Any:
        """The part at one event and context, made once."""
        if isinstance(self.inner, ModelValue):  # a model, short for a composition
            return self.inner.part(event, context)
        key = (self, event, context)
        part = made_once.get(key)  # no function is passed to it: each would be in the traceback of an author's error
        if part is not None:
            return part
        part = self._make_part(event, context)
        return part if part.closures else made_once.keep(key, part)  # the functions of a closure serve one init alone

    def _make_part(self, event: Shape, context: Shape | None) -> Part:
        spend(parts=MADE)
        part: Part
        if isinstance(self.inner, Composite):
            part = self.inner.part(event, context)
            return part if self.labels == EXACT else replace(part, likelihood=self.likelihood)
        name, make = self.constructor.__name__, BijectionAuthor if isinstance(self, BijectionInit) else DistributionAuthor
        part = make(name, self.inner, event, context, self.batched).part()
        fields: dict[str, Any] = {
            # A user's network may look at the whole batch, as a plain closure may.
            "independent": not (self.batched and _has_function(self.arguments)),
            "divisible": "train" not in part.keywords or self.own_traits.joins,
            "draws": frozenset() if self.estimates else part.draws,
            "likelihood": self.likelihood,
        }
        if self.own_traits.in_numpy:
            fields["init"] = partial(init_in_numpy, self.inner, part)
        if isinstance(part, DistributionPart):
            fields["region"] = resolved(self.own_support.inputs, event, name)
            if self.own_cdf is not None and event == COLUMN:
                fields["cdf"] = partial(self.own_cdf, self.arguments, context)
        part = replace(part, **fields)
        if self.ways and isinstance(part, BijectionPart):
            part = as_surjection(checked_draws(part, self.ways))
        return exact_on_request(part) if self.estimates and isinstance(part, BijectionPart) else part

    def _triple(self, rng: Any, input_dim: Any, keywords: dict[str, Any]) -> tuple[Params, Callable, Callable]:
        context, data, event = self._data(as_event(input_dim), **keywords)
        part = self.part(event, context)
        params = part.init(as_key(rng), data)
        refuse_unused_context(self, part, context)
        return (params, *functions_of(part, params))

    def _data(self, event: Shape, context_dim=0, init_inputs=None, init_context=None, params=None, **unknown):
        name = self.constructor.__name__
        refuse_unknown(name, unknown, INIT)
        context = as_context(context_dim)
        if init_inputs is not None:
            init_inputs = as_array(init_inputs, "init_inputs")
            check_rows(init_inputs, event, name, "init_inputs")
            if not len(init_inputs):
                raise FlowsError(f"{name}: init_inputs has no rows; expected data to measure")
            init_inputs = _finite(init_inputs, f"{name}: init_inputs")
            if context is not None and init_context is None:
                raise FlowsError(f"{name}: init_inputs was given without init_context; this model is conditional")
        if init_context is not None:
            if context is None:
                raise TypeError(f"{name}: init_context was given without context_dim; give both")
            init_context = as_array(init_context, "init_context")
            rows = 1 if init_inputs is None else len(init_inputs)
            if init_context.shape == context:
                init_context = jnp.broadcast_to(init_context, (rows, *context))
            elif init_context.shape[1:] != context or (init_inputs is not None and len(init_context) != rows):
                raise FlowsError(f"{name}: init_context has shape {init_context.shape}, expected {(rows, *context)}")
            init_context = _finite(init_context, f"{name}: init_context")
        return context, Given(init_inputs, init_context, params), event


def _finite(x: Array, what: str) -> Array:
    """Data to measure, in the default dtype; the values of a tracer are not known."""
    if not isinstance(x, jax.core.Tracer):
        check_finite(np.asarray(x), default_dtype(), what)
    return x.astype(default_dtype())


class BijectionInit(ModelValue):
    """`init_fun(rng, input_dim, ...) -> Bijection(params, direct_fun, inverse_fun)`."""

    instead = "params, direct_fun, inverse_fun = init_fun(rng, input_dim)"

    def __call__(self, rng: Any, input_dim: Any, **keywords: Any) -> Bijection:
        return Bijection(*self._triple(rng, input_dim, keywords))


class DistributionInit(ModelValue):
    """`init_fun(rng, input_dim, ...) -> Distribution(params, log_pdf, sample)`."""

    instead = "params, log_pdf, sample = init_fun(rng, input_dim); or result = flows.fit(rng, init_fun, data), which has it"

    def __call__(self, rng: Any, input_dim: Any, **keywords: Any) -> Distribution:
        return Distribution(*self._triple(rng, input_dim, keywords))


@overload
def bijection(function: Callable[P, Any], /) -> Callable[P, BijectionInit]: ...
@overload
def bijection(
    *, batched: bool = False, likelihood: Label = "exact", support: Places = EVERYWHERE, traits: Known = PLAIN
) -> Callable[[Callable[P, Any]], Callable[P, BijectionInit]]: ...
def bijection(
    function: Callable | None = None,
    /,
    *,
    batched: bool = False,
    likelihood: Label = "exact",
    support: Places = EVERYWHERE,
    traits: Known = PLAIN,
) -> Any:
    """Make a constructor of bijections from a function that returns an `init_fun`.

    `init_fun(rng, shape, ...)` returns `(params, direct_fun, inverse_fun)`, with formulas for one event:
    `direct_fun(params, x) -> (y, log_det)` with a scalar `log_det` in nats, and `inverse_fun(params, y) -> x`, whose log-det
    the library computes. Each function names only the keywords that it uses: `init_fun` among `context_dim`, `init_inputs`,
    `init_context` and `params`, the other two among `context`, `rng` and `train`. The two must not close over values that are
    drawn from `rng` or measured from data: such values are params, a pytree of float arrays. Arrays that must not train are
    under the key "fixed". An init that JAX cannot trace, such as an init in NumPy, runs at every call; `Repeat`, copies in a
    mixture, ensembles and folds refuse it.

    Where a triple is not enough (an inverse that also makes its log-det, a velocity), `init_fun` returns a `flows.Layer`.

    The decorated function receives its arguments in an immutable form: lists and arrays as tuples of Python numbers (convert
    them with `np.asarray`), dtypes as names.

    Args:
        batched: the functions take whole batches, (batch, *event), and return `log_det` of shape (batch,). In calls without
            `rng` and `train` a row's result must not depend on the other rows, to which `flows` may add copies.
        likelihood: the kind of log_det: 'exact', whatever `rng` is; 'unbiased', exact without `rng` and with it an estimate
            whose mean and mean gradient are exact; 'lower bound', in the mean over `rng`. Or a function of the constructor's
            arguments, by name, that returns one of these.
        support: where inputs and outputs live, if that is not the whole line, as a `Support`: open intervals, `CIRCLE` or
            `SPHERE`; or a function of the constructor's arguments, by name, that returns one.
        traits: further claims, for layers of the library.

    Returns:
        A constructor. Its values print as code, compare by value, and can be saved (`load(path, constructors=[...])`).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> @flows.bijection
        ... def Scale(by=2.0):
        ...     def init_fun(rng, shape):
        ...         return {"log_scale": jnp.full(shape, jnp.log(by))}, direct_fun, inverse_fun
        ...     def direct_fun(params, x):
        ...         return x * jnp.exp(params["log_scale"]), params["log_scale"].sum()
        ...     def inverse_fun(params, y):
        ...         return y * jnp.exp(-params["log_scale"])
        ...     return init_fun
        >>> params, direct_fun, inverse_fun = Scale(4.0)(0, 3)
        >>> outputs, log_det = direct_fun(params, jnp.ones((2, 3)))
        >>> outputs.shape, log_det.round(3).tolist()
        ((2, 3), [4.159..., 4.159...])
    """
    return _decorate(BijectionInit, function, Declared(batched, likelihood, support, traits))


@overload
def distribution(function: Callable[P, Any], /) -> Callable[P, DistributionInit]: ...
@overload
def distribution(
    *,
    batched: bool = False,
    likelihood: Label = "exact",
    support: Points | Callable[..., Points] = EVERYWHERE,
    cdf: Callable | None = None,
    traits: Known = PLAIN,
) -> Callable[[Callable[P, Any]], Callable[P, DistributionInit]]: ...
def distribution(
    function: Callable | None = None,
    /,
    *,
    batched: bool = False,
    likelihood: Label = "exact",
    support: Points | Callable[..., Points] = EVERYWHERE,
    cdf: Callable | None = None,
    traits: Known = PLAIN,
) -> Any:
    """Make a constructor of distributions from a function that returns an `init_fun`.

    As `flows.bijection`, with `init_fun(rng, shape, ...) -> (params, log_pdf, sample)`; for one event `log_pdf(params, x)`
    is a scalar in nats and `sample(rng, params)` is one draw. With `batched=True`, `log_pdf(params, inputs)` is (batch,) and
    `sample(rng, params, num_samples)` is (num_samples, *event).

    Args:
        batched, likelihood, traits: as in `flows.bijection`.
        support: where points live, if that is not the whole line: an interval (low, high), of numbers or arrays, a `Region`
            such as `CIRCLE` or `SPHERE`, or a `Support` of one; or a function of the constructor's arguments, by name, that
            returns one. Outside of it `log_pdf` has to be -inf.
        cdf: a function `cdf(arguments, context_dim)` of a dict of the constructor's arguments: it returns a `flows.core.Cdf` of
            one column, or None. Quantiles of flows with this base are then exact, and not estimated from draws.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> @flows.distribution(support=(0, jnp.inf))
        ... def Exponential():
        ...     def init_fun(rng, shape):
        ...         return {}, log_pdf, lambda rng, params: jax.random.exponential(rng, shape)
        ...     def log_pdf(params, x):
        ...         return jnp.where(x < 0, -jnp.inf, -x).sum()
        ...     return init_fun
        >>> params, log_pdf, sample = Exponential()(0, 2)
        >>> log_pdf(params, jnp.array([[1.0, 2.0]])).tolist(), sample(1, params, 5).shape
        ([-3.0], (5, 2))
        >>> flows.support(Exponential(), 2).inputs
        Region(low=[0.0, 0.0])
    """
    return _decorate(DistributionInit, function, Declared(batched, likelihood, support, traits, cdf))


def combinator(
    make: type[I],
    *,
    likelihood: Label = "exact",
    draws: bool = True,
    ways: frozenset[str] = frozenset(),
    support: Places = EVERYWHERE,
) -> Callable[[Callable[P, Composite]], Callable[P, I]]:
    """Make a constructor from a function that returns a `Composite`, as `Serial` and `Flow` are written.

    `likelihood`, as in `bijection`, describes the combinator without its layers: `ModelValue.likelihood` is the weakest label
    of all. Without `draws` no layer receives an rng from which it would make an estimate, so that log-dets are exact. A
    surjection says in which `ways` it draws, as its part does. `support` is as in `bijection`, of one without an order.
    """
    declared = Declared(likelihood=likelihood, draws=draws, ways=ways, support=support)
    return lambda function: constructor(function, partial(make, declared=declared))


def _label(likelihood: Any, name: str) -> str:
    if not isinstance(likelihood, str) or likelihood not in LIKELIHOODS:
        raise FlowsError(f"{name}: likelihood is {likelihood!r:.60}; expected one of {LIKELIHOODS}")
    return likelihood


def _decorate(make: type[ModelValue], function: Callable | None, declared: Declared) -> Any:
    if not isinstance(declared.batched, bool):
        raise FlowsError(f"batched is {declared.batched!r:.60}; expected True or False")
    kind = make.__name__.removesuffix("Init").lower()
    if not callable(declared.likelihood):
        _label(declared.likelihood, kind)
    if not callable(declared.support):
        declared = declared._replace(support=as_support(declared.support, kind, make is DistributionInit))
    return decorated(function, partial(make, declared=declared), f"flows.{kind}", "an init_fun")


# Layers inside combinators


def check_layers(name: str, layers: Sequence[Any], make: type[ModelValue], article: str) -> None:
    """Refuse arguments that cannot be layers, when a combinator is made."""
    for i, layer in enumerate(layers):
        where, form = f"{name}: argument {i + 1}", ": an init_fun, called with (rng, input_dim)"
        if isinstance(layer, tuple | list):
            raise TypeError(f"{where} is a list of {len(layer)}; expected {article} for each argument: {name}(*layers)")
        if is_constructor(layer):
            refuse_argument(layer, where, article)
        if not (isinstance(layer, make) or (callable(layer) and not isinstance(layer, Value))):
            raise TypeError(f"{where} is {layer!r:.80}, expected {article}{'' if isinstance(layer, ModelValue) else form}")


def refuse_unused_context(init_fun: Any, part: Part, context: Shape | None) -> None:
    if context is not None and "context" not in part.keywords:
        raise TypeError(f"{init_fun!r}: context_dim was given, but no layer of it takes a context; leave it out")


def _has_function(x: Any) -> bool:
    if isinstance(x, dict | tuple | list):
        return any(map(_has_function, x.values() if isinstance(x, dict) else x))
    return callable(x) and not isinstance(x, Value)


def _init_keywords(layer: Any) -> frozenset[str]:
    return layer.keywords if isinstance(layer, ModelValue) else named_by(layer, INIT)
