"""One author's layer as a part: a plain closure, or what a decorated constructor returned, lifted from events to batches."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.caching import Memo, Once, fingerprint
from flows.core.contract import Array, Given, Params, Shape
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.inputs import as_dim, default_dtype
from flows.core.keywords import CALL, INIT, named_by, select
from flows.core.params import check_leaves, check_structure, structure
from flows.core.parts import FIRST_RULE, BijectionPart, DistributionPart, canonical, compiled_once
from flows.core.validation import check_result


def plain_bijection(layer: Callable, key: Array, event: Shape, given: Given) -> tuple[Params, BijectionPart]:
    """Params and part of a plain closure that returns a bijection's triple."""
    params, direct_fun, inverse_fun = _call(layer, key, event, given)
    name = name_of(layer)
    direct, inverse = _paired(_plain(direct_fun), f"{name}: direct_fun"), _paired(_plain(inverse_fun), f"{name}: inverse_fun")
    keywords = named_by(direct_fun, CALL) | named_by(inverse_fun, CALL)
    part = BijectionPart(name, direct, lambda *a: inverse(*a)[0], event, event, given.context, keywords)
    return params, _infer_output(canonical(part), params)


def plain_distribution(layer: Callable, key: Array, event: Shape, given: Given) -> tuple[Params, DistributionPart]:
    """Params and part of a plain closure that returns a distribution's triple."""
    params, log_pdf, sample = _call(layer, key, event, given)
    keywords = named_by(log_pdf, CALL) | named_by(sample, CALL)
    name = name_of(layer)
    functions = _density(_plain(log_pdf), name), _lift_sample(sample, event, name, batched=True)
    return params, canonical(DistributionPart(name, *functions, event, given.context, keywords))


def name_of(layer: Callable) -> str:
    return getattr(layer, "__name__", repr(layer))


UNEQUAL = (
    "{name} differ from one init to the next: put what they draw from rng, or measure, into params. If they do not, make the "
    "layer a constructor (flows.bijection, flows.distribution), so that its functions are made once"
)
_outputs = Memo(size=1024)
ROWS = 7  # of a trial run; unlike the sizes of most events, so that a wrong axis shows


def _call(layer: Callable, key: Array, event: Shape, given: Given) -> tuple[Params, Callable, Callable]:
    names = named_by(layer, INIT)
    with jax.ensure_compile_time_eval():
        triple = layer(key, as_dim(event), **_select_given(names, given))
    params, first, second = _triple(triple, name_of(layer))
    if given.params is not None:
        check_structure(given.params, structure(params), name_of(layer))
        params = params if "params" in names else given.params
    return params, first, second


def _plain(fun: Callable) -> Callable:
    """A user's function with the calling form of a part: it is handed just what it names."""
    names = named_by(fun, CALL)

    def call(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        return fun(params, x, **select(names, context=context, rng=rng, train=train))

    return call


def _select_given(names: frozenset[str], given: Given) -> dict[str, Any]:
    fields = {"init_inputs": given.init_inputs, "init_context": given.init_context, "params": given.params}
    return select(names, context_dim=as_dim(given.context), **fields)


class Leaf:
    """One decorated layer at one event: its init, compiled once, and its part.

    The functions are taken from a trace of init in which rng is abstract, so that nothing can be remembered of the rng or
    the data of any one call. Constants that they close over have to be concrete: where some are not, init is traced again
    with constants computed at once, which costs small compilations. What cannot be traced, such as NumPy, runs as it is.
    """

    def __init__(self, name: str, inner: Callable, event: Shape, context: Shape | None):
        self.name, self.inner, self.event, self.context = name, inner, event, context
        self.names = named_by(inner, INIT)
        self.functions: list[Callable] = []
        self.init_params: Callable
        key, error = jax.random.key(0), FlowsError(FIRST_RULE.format(name=name))
        for constants in (nullcontext, jax.ensure_compile_time_eval):
            run: Callable = partial(self._run, constants)
            try:
                self.init_params, self.params = compiled_once(run), jax.eval_shape(run, key, Given())
            except TRACING_ERRORS:
                continue
            if fingerprint(self.functions) is not None:
                return
            if constants is not nullcontext:
                raise error
        self.init_params, self.params = run, run(jax.random.key(1), Given())
        before = fingerprint(self.functions)
        run(key, Given())
        if before is None or fingerprint(self.functions) != before:
            raise error

    def _run(self, constants: Callable, key: Array, given: Given) -> Params:
        with constants():
            triple = self.inner(key, self.event, **_select_given(self.names, given._replace(context=self.context)))
        params, *self.functions = _triple(triple, self.name)
        return check_leaves(params, self.name)

    def init(self, key: Array, given: Given) -> Params:
        if given.params is not None:
            check_structure(given.params, structure(self.params), self.name)
            if "params" not in self.names:
                return given.params
        measured = given.init_inputs if "init_inputs" in self.names else None
        return self.init_params(key, given._replace(context=None, init_inputs=measured))

    def bijection_part(self, batched: bool) -> BijectionPart:
        call = _plain if batched else _lift
        direct, inverse = map(call, self.functions)
        direct = Once(_paired(direct, f"{self.name}: direct_fun"))
        inverse = Once(_single(inverse, f"{self.name}: inverse_fun"))
        part = BijectionPart(self.name, direct, inverse, self.event, self.event, self.context, self._keywords())
        return _infer_output(part, self.params)

    def distribution_part(self, batched: bool) -> DistributionPart:
        log_pdf, sample = self.functions
        call = _plain if batched else _lift
        functions = Once(_density(call(log_pdf), self.name)), Once(_lift_sample(sample, self.event, self.name, batched))
        return DistributionPart(self.name, *functions, self.event, self.context, self._keywords())

    def _keywords(self) -> frozenset[str]:
        named = frozenset().union(*(named_by(each, CALL) for each in self.functions))
        return named | {"context"} if "context_dim" in self.names else named


def _triple(triple: Any, name: str) -> tuple[Any, Callable, Callable]:
    if not isinstance(triple, tuple | list) or len(triple) != 3 or not all(map(callable, triple[1:])):
        raise TypeError(f"{name}: its init_fun returned {triple!r:.80}; expected (params, function, function)")
    return tuple(triple)


def _paired(fun: Callable, name: str) -> Callable:
    """A batch function whose result is checked to be a pair with one log-det a row, before anything can broadcast."""

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        result = fun(params, x, context, rng, train)
        if not isinstance(result, tuple) or len(result) != 2:
            raise FlowsError(f"{name} returned a {type(result).__name__}; expected the pair (outputs, log_det)")
        check_result(result[1], (len(x),), name, "log_det (one for each row)")
        check_result(result[0], (len(x), *np.shape(result[0])[1:]), name, "outputs")
        return result

    return checked


def _single(fun: Callable, name: str) -> Callable:
    """An author's inverse, which returns the point alone."""

    def checked(params: Params, y: Array, context: Any, rng: Any, train: bool) -> Array:
        x = fun(params, y, context, rng, train)
        if isinstance(x, tuple):
            raise FlowsError(f"{name} returned a tuple of {len(x)}; expected the point alone: its log-det follows")
        return x

    return checked


def _lift(fun: Callable) -> Callable:
    """A function of one event as a function of a batch; each row gets a key of its own."""
    names = named_by(fun, CALL)

    def batched(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        def one(x: Array, context: Any, rng: Any) -> Any:
            return fun(params, x, **select(names, context=context, rng=rng, train=train))

        keys = jax.random.split(rng, len(x)) if rng is not None and "rng" in names else None
        return jax.vmap(one)(x, context, keys)

    return batched


def _density(fun: Callable, name: str) -> Callable:
    """A batch function whose result is checked to be one number a row, before it can broadcast against others."""

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Array:
        result = fun(params, x, context, rng, train)
        check_result(result, (len(x),), name, "log_pdf")
        return result

    return checked


def _lift_sample(fun: Callable, event: Shape, name: str, batched: bool) -> Callable:
    names = named_by(fun, CALL)

    def draw(rng: Array, params: Params, n: int, context: Any) -> Array:
        if batched:
            return fun(rng, params, n, **select(names, context=context))

        def one(key: Array, context: Any) -> Array:
            return fun(key, params, **select(names, context=context))

        return jax.vmap(one)(jax.random.split(rng, n), context)

    def sample(rng: Array, params: Params, n: int, dtype: Any, context: Any) -> Array:
        samples = draw(rng, params, n, context)
        check_result(samples, (n, *event), name, "samples")
        return samples.astype(dtype)

    return sample


def _infer_output(part: BijectionPart, params: Params) -> BijectionPart:
    """The part with the event that its direct function returns."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), params)
    key = fingerprint((part, tuple(jax.tree.leaves(like)), jax.tree.structure(like)))
    return _outputs(key, lambda: _try_out(part, like))


def _try_out(part: BijectionPart, like: Params) -> BijectionPart:
    """The part with its output event, found by tracing both functions on a few abstract rows."""
    dtype = default_dtype()

    def both(params: Params, x: Array, context: Any) -> Array:
        key = jax.random.key(0) if "rng" in part.keywords else None
        y = part.direct(params, x, context, key, False)[0]
        check_result(part.inverse(params, y, context, key, False), x.shape, part.name, "the inverse's points")
        return y

    shapes = [None if shape is None else (ROWS, *shape) for shape in (part.event, part.context)]
    structs = [None if shape is None else jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    try:
        y = jax.eval_shape(both, like, *structs)
    except TRACING_ERRORS:  # ordinary Python on values: it runs row by row, uncompiled
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), (like, *structs))
        y = part.direct(ones[0], ones[1], ones[2], jax.random.key(0), False)[0]  # the inverse would take its time
        part = replace(part, compiled=False)
    return replace(part, output=tuple(y.shape[1:]))
