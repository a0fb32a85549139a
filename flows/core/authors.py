"""How layers are written: the decorators `bijection`, `distribution` and `combinator`, and the values they make.

An author writes the formulas for one event; the decorator lifts them to batches. A combinator composes parts.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, ParamSpec, overload

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import vocabulary
from flows.core.arrays import Array, Shape, as_array, as_context, as_dim, as_event, as_key, check_rows, default_dtype
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.fingerprint import Memo, fingerprint
from flows.core.params import Params, check_leaves
from flows.core.parts import BijectionPart, DistributionPart, Given, check_result, publish
from flows.core.values import Value, constructor, is_constructor

P = ParamSpec("P")
LIKELIHOODS = ("exact", "unbiased", "lower bound")  # from the strongest claim to the weakest


class Bijection(NamedTuple):
    """What the init of a bijection returns.

    `direct_fun(params, inputs) -> (outputs, log_det)` runs from data to noise, `inverse_fun(params, outputs) ->
    (inputs, log_det)` back; `log_det` (batch,) is log|det J| in nats of the function that was called.
    """

    params: Params
    direct_fun: Callable[..., tuple[Array, Array]]
    inverse_fun: Callable[..., tuple[Array, Array]]


class Distribution(NamedTuple):
    """What the init of a distribution returns.

    `log_pdf(params, inputs) -> (batch,)` in nats, and `sample(rng, params, num_samples=1) -> (num_samples, *event)`.
    """

    params: Params
    log_pdf: Callable[..., Array]
    sample: Callable[..., Array]


class Composite(NamedTuple):
    """A combinator's own body: `build(key, event, given) -> (params, part)`, and the layers it is made of."""

    build: Callable[[Array, Shape, Given], tuple[Params, Any]]
    layers: tuple[Any, ...]


class InitFun(Value):
    """An init_fun with a memory: what the constructors of bijections and of distributions return."""

    batched: bool
    own_likelihood: str

    def __init__(self, construct: Callable, arguments: dict, inner: Any, batched: bool, likelihood: str):
        if not (callable(inner) or isinstance(inner, Composite)):
            raise TypeError(f"{construct.__name__} returned {inner!r:.60}; a constructor returns its init_fun")
        super().__init__(construct, arguments, inner)
        object.__setattr__(self, "batched", batched)
        object.__setattr__(self, "own_likelihood", likelihood)

    @property
    def likelihood(self) -> str:
        """What log_det and log_pdf are: 'exact', 'unbiased' or 'lower bound', the weakest of all layers."""
        inits = [self, *(each for each in self.values_within() if isinstance(each, InitFun))]
        return max((each.own_likelihood for each in inits), key=LIKELIHOODS.index)

    @property
    def keywords(self) -> frozenset[str]:
        """The keywords of init that it, or any layer in it, names."""
        return _init_keywords(self)

    @property
    def __signature__(self) -> inspect.Signature:
        return vocabulary.signature(vocabulary.positional("rng", "input_dim"), self.keywords)

    def build(self, key: Array, event: Shape, given: Given) -> tuple[Params, Any]:
        """Params and part, for a combinator to compose."""
        if isinstance(self.inner, InitFun | Composite):
            return self.inner.build(key, event, given)
        leaf = _leaves(fingerprint((self, event, given.context)), lambda: _Leaf(self, event, given.context))
        return leaf.init(key, given), leaf.part

    def _triple(self, rng: Any, input_dim: Any, keywords: dict[str, Any]) -> tuple[Params, Callable, Callable]:
        given, event = self._given(as_event(input_dim), **keywords)
        params, part = self.build(as_key(rng), event, given)
        if given.context is not None and "context" not in part.keywords:
            raise TypeError(f"{self!r}: context_dim was given, but no layer of it takes a context; leave it out")
        return (params, *publish(part._replace(context=given.context), params))

    def _given(self, event: Shape, context_dim=0, init_inputs=None, init_context=None, params=None, **unknown):
        name = self.constructor.__name__
        vocabulary.refuse_unknown(name, unknown, vocabulary.INIT)
        context = as_context(context_dim)
        if init_inputs is not None:
            init_inputs = as_array(init_inputs, "init_inputs")
            check_rows(init_inputs, event, name, "init_inputs")
            if not len(init_inputs):
                raise FlowsError(f"{name}: init_inputs has no rows; expected data to measure")
            dtype = default_dtype()
            init_inputs = init_inputs.astype(dtype)
            if context is not None and init_context is None:
                raise FlowsError(f"{name}: init_inputs was given without init_context; this model is conditional")
        if init_context is not None:
            if context is None:
                raise TypeError(f"{name}: init_context was given without context_dim; give both")
            init_context = as_array(init_context, "init_context").astype(default_dtype())
            rows = 1 if init_inputs is None else len(init_inputs)
            if init_context.shape == context:
                init_context = jnp.broadcast_to(init_context, (rows, *context))
            elif init_context.shape[1:] != context or (init_inputs is not None and len(init_context) != rows):
                raise FlowsError(f"{name}: init_context has shape {init_context.shape}, expected {(rows, *context)}")
        return Given(context, init_inputs, init_context, params), event


class BijectionInit(InitFun):
    """`init_fun(rng, input_dim, ...) -> Bijection(params, direct_fun, inverse_fun)`."""

    def __call__(self, rng: Any, input_dim: Any, **keywords: Any) -> Bijection:
        return Bijection(*self._triple(rng, input_dim, keywords))


class DistributionInit(InitFun):
    """`init_fun(rng, input_dim, ...) -> Distribution(params, log_pdf, sample)`."""

    def __call__(self, rng: Any, input_dim: Any, **keywords: Any) -> Distribution:
        return Distribution(*self._triple(rng, input_dim, keywords))


@overload
def bijection(function: Callable[P, Any], /) -> Callable[P, BijectionInit]: ...
@overload
def bijection(*, batched: bool = False, likelihood: str = "exact") -> Callable[[Callable], Callable]: ...
def bijection(function: Callable | None = None, /, *, batched: bool = False, likelihood: str = "exact") -> Any:
    """Make a constructor of bijections of a function that returns an `init_fun`.

    `init_fun(rng, shape, ...)` returns `(params, direct_fun, inverse_fun)`, with formulas for one event:
    `direct_fun(params, x) -> (y, log_det)` with a scalar `log_det` in nats, and `inverse_fun(params, y) -> x`, whose log-det
    follows. Each names just the keywords it uses: init of `context_dim`, `init_inputs`, `init_context`, `params`; the
    functions of `context`, `rng`, `train`. They never depend on `rng` or on data: what is drawn or measured is in params, a
    pytree of float arrays. What must not train is under the key "fixed".

    Args:
        batched: the functions take whole batches, (batch, *event), and return `log_det` of shape (batch,).
        likelihood: 'exact', 'unbiased' or 'lower bound'.

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
        ((2, 3), [4.15899991989135..., 4.15899991989135...])
    """
    return _decorate(BijectionInit, function, batched, likelihood)


@overload
def distribution(function: Callable[P, Any], /) -> Callable[P, DistributionInit]: ...
@overload
def distribution(*, batched: bool = False, likelihood: str = "exact") -> Callable[[Callable], Callable]: ...
def distribution(function: Callable | None = None, /, *, batched: bool = False, likelihood: str = "exact") -> Any:
    """Make a constructor of distributions of a function that returns an `init_fun`.

    As `flows.bijection`, with `init_fun(rng, shape, ...) -> (params, log_pdf, sample)`; for one event `log_pdf(params, x)`
    is a scalar in nats and `sample(rng, params)` one draw. With `batched=True`, `log_pdf(params, inputs)` is (batch,) and
    `sample(rng, params, num_samples)` is (num_samples, *event).

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> @flows.distribution
        ... def Exponential():
        ...     def init_fun(rng, shape):
        ...         return {}, log_pdf, lambda rng, params: jax.random.exponential(rng, shape)
        ...     def log_pdf(params, x):
        ...         return jnp.where(x < 0, -jnp.inf, -x).sum()
        ...     return init_fun
        >>> params, log_pdf, sample = Exponential()(0, 2)
        >>> log_pdf(params, jnp.array([[1.0, 2.0]])).tolist(), sample(1, params, 5).shape
        ([-3.0], (5, 2))
    """
    return _decorate(DistributionInit, function, batched, likelihood)


def combinator(make: type[InitFun]) -> Callable[[Callable[P, Composite]], Callable[P, Any]]:
    """Make a constructor of a function that returns a `Composite`: the way `Serial`, `Flow` and their like are written."""
    return lambda function: constructor(function, partial(make, batched=True, likelihood="exact"))


def _decorate(make: type[InitFun], function: Callable | None, batched: bool, likelihood: str) -> Any:
    if likelihood not in LIKELIHOODS:
        raise FlowsError(f"likelihood is {likelihood!r}; expected one of {LIKELIHOODS}")

    def decorate(function: Callable) -> Callable:
        return constructor(function, partial(make, batched=batched, likelihood=likelihood))

    return decorate if function is None else decorate(function)


# Layers inside combinators


def check_layers(name: str, layers: Sequence[Any], make: type[InitFun], article: str) -> None:
    """Refuse, when a combinator is made, what cannot be one of its layers."""
    for i, layer in enumerate(layers):
        where = f"{name}: argument {i + 1}"
        if is_constructor(layer):
            raise TypeError(f"{where} is the constructor {layer.__name__}; call it: {layer.__name__}(...)")
        if isinstance(layer, InitFun) and not isinstance(layer, make):
            raise TypeError(f"{where} is {layer!r:.80}, expected {article}")
        if (isinstance(layer, Value) and not isinstance(layer, InitFun)) or not callable(layer):
            raise TypeError(f"{where} is {layer!r:.80}, expected {article}: an init_fun, called with (rng, input_dim)")


def build_bijection(layer: Any, key: Array, event: Shape, given: Given) -> tuple[Params, BijectionPart]:
    """Params and part of one layer of a combinator: a constructor's value or a plain closure."""
    if isinstance(layer, InitFun):
        return layer.build(key, event, given)
    params, direct_fun, inverse_fun = _call_plain(layer, key, event, given)
    direct, inverse = _plain(direct_fun), _plain(inverse_fun)
    keywords = vocabulary.named_by(direct_fun, vocabulary.CALL) | vocabulary.named_by(inverse_fun, vocabulary.CALL)
    name = getattr(layer, "__name__", repr(layer))
    part = BijectionPart(name, direct, lambda *a: inverse(*a)[0], event, event, given.context, keywords)
    return params, _infer_output(part, params)


def build_distribution(layer: Any, key: Array, event: Shape, given: Given) -> tuple[Params, DistributionPart]:
    """As `build_bijection`, for a distribution."""
    if isinstance(layer, InitFun):
        return layer.build(key, event, given)
    params, log_pdf, sample = _call_plain(layer, key, event, given)
    names = vocabulary.named_by(sample, vocabulary.CALL)

    def draw(rng: Array, params: Params, n: int, dtype: Any, context: Any) -> Array:
        return sample(rng, params, n, **vocabulary.select(names, context=context)).astype(dtype)

    keywords = names | vocabulary.named_by(log_pdf, vocabulary.CALL)
    name = getattr(layer, "__name__", repr(layer))
    return params, DistributionPart(name, _plain(log_pdf), draw, event, given.context, keywords)


def _call_plain(layer: Callable, key: Array, event: Shape, given: Given) -> tuple[Params, Callable, Callable]:
    names = vocabulary.named_by(layer, vocabulary.INIT)
    name = getattr(layer, "__name__", repr(layer))
    with jax.ensure_compile_time_eval():
        triple = layer(key, as_dim(event), **_select_given(names, given))
    if not isinstance(triple, tuple | list) or len(triple) != 3 or not all(map(callable, triple[1:])):
        raise TypeError(f"{name} returned {triple!r:.80}; expected (params, function, function)")
    params, first, second = triple
    keeps = given.params is not None and "params" not in names
    return (given.params if keeps else params), first, second


def _plain(fun: Callable) -> Callable:
    """A user's function with the calling form of a part: it is handed just what it names."""
    names = vocabulary.named_by(fun, vocabulary.CALL)

    def call(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        return fun(params, x, **vocabulary.select(names, context=context, rng=rng, train=train))

    return call


def _select_given(names: frozenset[str], given: Given) -> dict[str, Any]:
    fields = {"init_inputs": given.init_inputs, "init_context": given.init_context, "params": given.params}
    return vocabulary.select(names, context_dim=as_dim(given.context), **fields)


def _init_keywords(layer: Any) -> frozenset[str]:
    inner = layer.inner if isinstance(layer, InitFun) else layer
    if isinstance(inner, Composite):
        return frozenset().union(*map(_init_keywords, inner.layers))
    return inner.keywords if isinstance(inner, InitFun) else vocabulary.named_by(inner, vocabulary.INIT)


# Leaves: layers written with the decorators

_leaves = Memo(size=1024)
_outputs = Memo(size=1024)


class _Leaf:
    """One author's layer at one event: its init, compiled once, and its part.

    The functions are taken from a trace of init in which only rng is abstract, so that constants stay concrete and nothing
    can be remembered of the rng or the data of any one call.
    """

    def __init__(self, value: InitFun, event: Shape, context: Shape | None):
        self.value, self.event, self.context = value, event, context
        self.names = vocabulary.named_by(value.inner, vocabulary.INIT)
        self.functions: tuple[Callable, Callable] | None = None
        self._jitted: Callable = jax.jit(self._run)
        key = jax.random.key(0)
        try:
            params = jax.eval_shape(self._run, key, Given())
        except TRACING_ERRORS:  # an init that needs numbers, such as NumPy's or SciPy's: run as plain Python
            self._jitted = self._run
            params = self._run(key, Given())
        self.part = self._make_part(params)

    def init(self, key: Array, given: Given) -> Params:
        measured = Given(None, *given[1:])
        if given.params is not None and "params" not in self.names:
            return given.params
        if "init_inputs" not in self.names:
            measured = measured._replace(init_inputs=None)
        return self._jitted(key, measured)

    def _run(self, key: Array, given: Given) -> Params:
        name = self.value.constructor.__name__
        with jax.ensure_compile_time_eval():
            triple = self.value.inner(key, self.event, **_select_given(self.names, given._replace(context=self.context)))
        if not isinstance(triple, tuple | list) or len(triple) != 3 or not all(map(callable, triple[1:])):
            raise TypeError(f"{name}: its init_fun returned {triple!r:.80}; expected (params, function, function)")
        self.functions = self.functions or tuple(triple[1:])
        return check_leaves(triple[0], name)

    def _make_part(self, params: Params) -> Any:
        assert self.functions is not None
        first, second = self.functions
        name, batched = self.value.constructor.__name__, self.value.batched
        keywords = vocabulary.named_by(first, vocabulary.CALL) | vocabulary.named_by(second, vocabulary.CALL)
        if "context_dim" in self.names:
            keywords |= {"context"}
        call = _plain if batched else _lift
        if isinstance(self.value, DistributionInit):
            sample = _lift_sample(second, batched)
            return DistributionPart(name, call(first), sample, self.event, self.context, keywords)
        part = BijectionPart(name, call(first), call(second), self.event, self.event, self.context, keywords)
        return _infer_output(part, params)


def _lift(fun: Callable) -> Callable:
    """A function of one event as a function of a batch; each row gets a key of its own."""
    names = vocabulary.named_by(fun, vocabulary.CALL)

    def batched(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        def one(x: Array, context: Any, rng: Any) -> Any:
            return fun(params, x, **vocabulary.select(names, context=context, rng=rng, train=train))

        keys = jax.random.split(rng, len(x)) if rng is not None and "rng" in names else None
        return jax.vmap(one)(x, context, keys)

    return batched


def _lift_sample(fun: Callable, batched: bool) -> Callable:
    names = vocabulary.named_by(fun, vocabulary.CALL)

    def sample(rng: Array, params: Params, n: int, dtype: Any, context: Any) -> Array:
        if batched:
            return fun(rng, params, n, **vocabulary.select(names, context=context)).astype(dtype)

        def one(key: Array, context: Any) -> Array:
            return fun(key, params, **vocabulary.select(names, context=context))

        return jax.vmap(one)(jax.random.split(rng, n), context).astype(dtype)

    return sample


def _infer_output(part: BijectionPart, params: Params) -> BijectionPart:
    """The part with the event that its direct function returns, which is checked on two abstract rows."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), params)
    key = fingerprint((part, jax.tree.flatten(like)))
    return _outputs(key, lambda: _run_on_two_rows(part, like))


def _run_on_two_rows(part: BijectionPart, like: Params) -> BijectionPart:
    dtype = default_dtype()

    def direct(params: Params, x: Array, context: Any) -> tuple[Array, Array]:
        key = jax.random.key(0) if "rng" in part.keywords else None
        result = part.direct(params, x, context, key, False)
        if not isinstance(result, tuple) or len(result) != 2:
            raise FlowsError(f"{part.name}: direct_fun returned {result!r:.80}; expected the pair (outputs, log_det)")
        return result

    shapes = [None if shape is None else (2, *shape) for shape in (part.event, part.context)]
    structs = [None if shape is None else jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    try:
        y, log_det = jax.eval_shape(direct, like, *structs)
    except TRACING_ERRORS:  # ordinary Python on values: it runs row by row, uncompiled
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), (like, *structs))
        y, log_det = direct(*ones)
        part = part._replace(compiled=False)
    check_result(log_det, (2,), part.name, "log_det (one for each row)")
    if not np.shape(y) or y.shape[0] != 2:
        raise FlowsError(f"{part.name}: outputs have shape {np.shape(y)} for inputs of shape {shapes[0]}")
    return part._replace(output=tuple(y.shape[1:]))
