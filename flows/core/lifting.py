"""From an author's functions to those of a part: lifted from one event to a batch, checked before anything can broadcast.

An `Author` is one init_fun at one event and context. Before its functions are used they are tried out on a few abstract rows,
which tells the shape of what they return, whether JAX can trace them, and whether they hold on to a value of one init.
"""

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.caching import holds_tracer, program
from flows.core.contract import CALL, INIT, Array, Given, Layer, Params, Shape
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.inputs import as_dim, default_dtype, named_by, naming, select
from flows.core.params import check_leaves, check_structure, shapes_of
from flows.core.parts import BijectionPart, DistributionPart
from flows.core.validation import check_result

_traced: ContextVar[bool] = ContextVar("traced", default=False)

# direct, inverse and, of some, the inverse with its log-det (or None) and the velocity; or log_pdf and sample
Functions = tuple[Any, ...]
KEY = partial(jax.eval_shape, jax.random.key, 0)  # an abstract one
ROWS = 7  # of a trial run; unlike the sizes of most events, so that a wrong axis shows
FIRST_RULE = (
    "{name}: a function closes over a value that its init_fun drew from rng or computed from data. Put it into params "
    '(under "fixed" if it must not train): functions never depend on rng or on data'
)


def traced_by_author() -> bool:
    """Whether the init of a decorated layer is being traced: it may make a model of plain closures, as functions that hold on
    to what that init drew are refused anyway."""
    return _traced.get()


class CallingForm(NamedTuple):
    """`take(*functions)` makes an author's functions those of a part; `run(functions, params, x, call, key)` runs them;
    `keywords` are those that each may name."""

    take: Callable[..., Functions]
    run: Callable[..., tuple]
    records: bool = False  # whether an author's init_fun may return a `Layer`
    keywords: tuple[tuple[str, ...], ...] = (CALL,) * 4


def bijection_form(name: str, batched: bool, pairs: bool = False) -> CallingForm:
    """With `pairs` the inverse returns its log-det too, as that of a plain closure does."""
    form = plain if batched else lift

    def take(direct_fun: Callable, inverse_fun: Callable, native: Callable | None = None, velocity: Any = None) -> Functions:
        direct, inverse = checked_pair(form(direct_fun), f"{name}: direct_fun", batched), form(inverse_fun)
        if not pairs:
            if native is not None:
                native = checked_pair(form(native), f"{name}: its inverse with log_det", batched)
            velocity = None if velocity is None else of_time(velocity, batched)
            return direct, checked_point(inverse, f"{name}: inverse_fun"), native, velocity
        inverse = checked_pair(inverse, f"{name}: inverse_fun", batched)
        return direct, lambda *call: inverse(*call)[0]

    def run(functions: Functions, params: Params, x: Array, call: tuple, key: Array) -> tuple:
        y, log_det = functions[0](params, x, *call)
        back = functions[1](params, y, *call)
        check_result(back, x.shape, name, "the inverse's points")
        return y, log_det, back

    return CallingForm(take, run, records=not pairs)


def distribution_form(name: str, event: Shape, batched: bool) -> CallingForm:
    form = plain if batched else lift

    def take(log_pdf: Callable, sample: Callable) -> Functions:
        return checked_density(form(log_pdf), name, batched), checked_sample(sample, event, name, batched)

    def run(functions: Functions, params: Params, x: Array, call: tuple, key: Array) -> tuple:
        return functions[0](params, x, *call), functions[1](key, params, x.shape[0], x.dtype, call[0])

    of_sample = tuple([name for name in CALL if name != "rng"])  # its first argument, which is no keyword
    return CallingForm(take, run, keywords=(CALL, of_sample))


class Author:
    """One init_fun, a decorated layer's or a plain closure, at one event and context."""

    def __init__(self, name: str, init_fun: Callable, event: Shape, context: Shape | None, form: CallingForm):
        self.name, self.init_fun, self.event, self.context, self.form = name, init_fun, event, context, form
        self.names = named_by(init_fun, INIT)

    def call(self, key: Array, input_dim: Any, given: Given) -> tuple[Any, ...]:
        named = select(self.names, context_dim=as_dim(self.context), **given._asdict())
        triple = self.init_fun(key, input_dim, **named)
        if isinstance(triple, Layer) and self.form.records:
            params, *functions, keywords = triple
            if not all(function is None or callable(function) for function in functions):
                raise TypeError(f"{self.name}: its init_fun returned {triple!r:.80}; expected a Layer of params and functions")
            return params, *(
                function if function is None or not keywords else naming(function, keywords) for function in functions
            )
        if not isinstance(triple, tuple | list) or len(triple) != 3 or not all(map(callable, triple[1:])):
            more = ", or a flows.Layer" if self.form.records else ""
            raise TypeError(f"{self.name}: its init_fun returned {triple!r:.80}; expected (params, function, function){more}")
        return tuple(triple)

    def keywords_of(self, *functions: Callable) -> frozenset[str]:
        pairs = [pair for pair in zip(functions, self.form.keywords, strict=False) if pair[0] is not None]
        return self.names.union(*[named_by(*pair) for pair in pairs])

    def try_out(self, functions: Functions, params: Params, keywords: frozenset[str]) -> tuple[Shape, bool, bool]:
        """The event of the first result, whether the functions can be traced, and whether they remember a tracer."""
        usual, *others = sorted(self._ways(keywords), key=lambda way: way != ("rng" in keywords, False))
        try:
            jaxpr, results = jax.make_jaxpr(partial(self._results, functions, [usual]), return_shape=True)(*self._rows(params))
            remembers = holds_tracer(jaxpr) or any([self._remembers(functions, way, params) for way in others])
            return tuple(results[0][0].shape[1:]), True, remembers
        except TRACING_ERRORS:  # ordinary Python on values: it runs row by row, uncompiled
            with jax.ensure_compile_time_eval():
                rows = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), self._rows(params)[:3])
                results = functions[0](*rows, jax.random.key(0), False)  # the inverse would take its time
            return tuple(results[0].shape[1:]), False, False
        except (TypeError, AttributeError) as error:
            if self.context is None and "context" in keywords:
                error.add_note(f"{self.name} was made without a context; if it needs one, give context_dim=")
            raise

    def digest(self, functions: Functions, params: Params, keywords: frozenset[str]) -> str | None:
        """Of all that the functions compute, however they are called."""
        return program(partial(self._results, functions, self._ways(keywords)), *self._rows(params))

    def _remembers(self, functions: Functions, way: tuple[bool, bool], params: Params) -> bool:
        try:
            return holds_tracer(jax.make_jaxpr(partial(self._results, functions, [way]))(*self._rows(params)))
        except Exception:  # batch norm, say, has no inverse under train=True; a call of that kind will say so
            return False

    def _ways(self, keywords: frozenset[str]) -> list[tuple[bool, bool]]:
        """The ways of calling the functions: whether with rng, whether with train=True."""
        draws, trains = ([False, True] if name in keywords else [False] for name in ("rng", "train"))
        return [(draw, train) for draw in draws for train in trains]

    def _results(self, functions: Functions, ways: list, params: Params, x: Array, context: Any, key: Array) -> list[tuple]:
        return [self.form.run(functions, params, x, (context, key if draw else None, train), key) for draw, train in ways]

    def _rows(self, params: Params) -> tuple:
        def abstract_rows(shape: Shape) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((ROWS, *shape), default_dtype())

        context = None if self.context is None else abstract_rows(self.context)
        return abstract(params), abstract_rows(self.event), context, KEY()


def abstract(tree: Any) -> Any:
    """The shapes and dtypes of a pytree of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


# Decorated layers


def leaf_bijection(name: str, init_fun: Callable, event: Shape, context: Shape | None, batched: bool) -> BijectionPart:
    """The part of one decorated layer."""
    leaf = Leaf(name, init_fun, event, context, bijection_form(name, batched))
    direct, inverse, native, velocity = leaf.functions
    fields: Any = {"direct": direct, "inverse": inverse, "output": leaf.output, "native_inverse": native}
    if velocity is not None:
        fields["path"] = lambda params, x, context, rng: (x, lambda t, x: velocity(params, t, x, context))
    return BijectionPart(name, leaf.init, event, context, leaf.keywords, leaf.compiled, (), **fields)


def leaf_distribution(name: str, init_fun: Callable, event: Shape, context: Shape | None, batched: bool) -> DistributionPart:
    """As `leaf_bijection`, for a distribution."""
    leaf = Leaf(name, init_fun, event, context, distribution_form(name, event, batched))
    fields: Any = {"log_pdf": leaf.functions[0], "sample": leaf.functions[1]}
    return DistributionPart(name, leaf.init, event, context, leaf.keywords, leaf.compiled, (), **fields)


class Leaf(Author):
    """A decorated layer: its init, compiled once, and functions that serve the params of every init.

    The functions are taken from a trace of init in which rng is abstract, so that nothing can be remembered of the rng or the
    data of any one call. Constants that they close over have to be concrete: where some are not, init is traced again with
    constants computed at once, which costs small compilations. What cannot be traced, such as NumPy, runs as it is.
    """

    start: Callable[[Array, Given], Params]  # init, with the data that it names

    def __init__(self, name: str, init_fun: Callable, event: Shape, context: Shape | None, form: CallingForm):
        super().__init__(name, init_fun, event, context, form)
        self.traced = False
        fits = self._trace(nullcontext) or self._trace(jax.ensure_compile_time_eval)
        if not (fits or (not self.traced and self._run_as_it_is())):
            raise FlowsError(FIRST_RULE.format(name=name))

    def _trace(self, constants: Callable) -> bool:
        """Take the functions of a trace of init, if it can be traced and they remember nothing of it."""
        made: list[Callable] = []
        self.start, compiled = compiled_once(partial(self._run, constants, made))
        try:
            self._take(compiled.eval_shape(KEY(), Given()), made)
        except TRACING_ERRORS:
            return False
        self.traced = True
        return not (self.remembers or self._remembers_data(constants))

    def _run_as_it_is(self) -> bool:
        """Take the functions of an init that runs on numbers, if those of two keys are the same as far as can be told."""
        digests = []
        for seed in (0, 1):
            made: list[Callable] = []
            self.start = partial(self._run, nullcontext, made)
            with jax.ensure_compile_time_eval():
                try:
                    params = self.start(jax.random.key(seed), Given())
                except TRACING_ERRORS:
                    return False
            self._take(params, made)
            digests.append(self.digest(self.functions, self.params, self.keywords))
        return digests[0] == digests[1] and not self.remembers

    def _run(self, constants: Callable, made: list[Callable], key: Array, given: Given) -> Params:
        token = _traced.set(True)
        try:
            with constants():
                params, *functions = self.call(key, self.event, given)
        finally:
            _traced.reset(token)
        made[:] = made or functions  # those of the first run stay
        return check_leaves(params, self.name)

    def _take(self, params: Params, made: list[Callable]) -> None:
        self.params, self.functions, self.keywords = params, self.form.take(*made), self.keywords_of(*made)
        if "context_dim" in self.names:
            self.keywords |= {"context"}
        self.output, self.compiled, self.remembers = self.try_out(self.functions, params, self.keywords)

    def _remembers_data(self, constants: Callable) -> bool:
        """Whether the functions of an init with data hold on to them."""
        if not self.names & {"init_inputs", "init_context"}:
            return False
        made: list[Callable] = []
        _, rows, context, key = self._rows(())
        data = Given(rows if "init_inputs" in self.names else None, context if "init_context" in self.names else None)
        try:
            params = jax.eval_shape(partial(self._run, constants, made), key, data)
        except Exception:  # it needs numbers, or other rows; a call of that kind will say so
            return False
        return self.try_out(self.form.take(*made), params, self.keywords)[2]

    def init(self, key: Array, given: Given) -> Params:
        if given.params is not None:
            check_structure(given.params, shapes_of(self.params), self.name)
            if "params" not in self.names:
                return given.params
        data = given.init_inputs if "init_inputs" in self.names else None
        context = given.init_context if "init_context" in self.names else None
        return self.start(key, Given(data, context, given.params))


def compiled_once(init: Callable) -> tuple[Callable, Any]:
    """A compiled function that runs a time or two, as an init does: compiled quickly rather than well. And one to trace."""
    quickly, nested = jax.jit(init, compiler_options={"xla_backend_optimization_level": 0}), jax.jit(init)

    def call(*args: Any) -> Any:
        # Inside another compilation, whose options hold, what is made anew is traced, or at least an argument is.
        for leaf in (jnp.zeros(()), *jax.tree.leaves(args)):
            if isinstance(leaf, jax.core.Tracer):
                return nested(*args)
        return quickly(*args)

    return call, quickly


# Calls, in the form that parts have


def plain(fun: Callable) -> Callable:
    """A user's function of batches with the calling form of a part: it is handed just what it names."""
    names = named_by(fun, CALL)

    def call(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        return fun(params, x, **select(names, context=context, rng=rng, train=train))

    return call


def lift(fun: Callable) -> Callable:
    """A function of one event as a function of a batch; each row gets a key of its own."""
    names = named_by(fun, CALL)

    def batched(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        def one(x: Array, context: Any, rng: Any) -> Any:
            return fun(params, x, **select(names, context=context, rng=rng, train=train))

        keys = jax.random.split(rng, x.shape[0]) if rng is not None and "rng" in names else None
        return jax.vmap(one)(x, context, keys)

    return batched


def of_time(velocity: Callable, batched: bool) -> Callable:
    """An author's `velocity(params, t, x)` of one event, or of rows, as a function of rows, each at a time of its own."""
    names = named_by(velocity, ("context",))

    def call(params: Params, t: Array, x: Array, context: Any) -> Array:
        def of(t: Array, x: Array, context: Any) -> Array:
            return velocity(params, t, x, **select(names, context=context))

        velocities = of(t, x, context) if batched else jax.vmap(of)(t, x, context)
        check_result(velocities, x.shape, "velocity", "velocities")
        return velocities

    return call


# What comes back, checked


def check_scalars(x: Any, rows: int, batched: bool, name: str, what: str) -> None:
    """Refuse what is not one number a row; of a function of one event, say what it returned for that."""
    shape = tuple(getattr(x, "shape", ()))
    if not batched and len(shape) > 1:
        raise FlowsError(f"{name} returned a {what} of shape {shape[1:]} for one event; expected a scalar: {what}.sum()")
    check_result(x, (rows,), name, f"{what} (one for each row)")


def checked_pair(fun: Callable, name: str, batched: bool) -> Callable:
    """A batch function whose result is a pair with one log-det a row."""

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        result = fun(params, x, context, rng, train)
        if not isinstance(result, tuple) or len(result) != 2:
            raise FlowsError(f"{name} returned a {type(result).__name__}; expected the pair (outputs, log_det)")
        check_scalars(result[1], x.shape[0], batched, name, "log_det")
        check_result(result[0], (x.shape[0], *np.shape(result[0])[1:]), name, "outputs")
        return result

    return checked


def checked_point(fun: Callable, name: str) -> Callable:
    """An author's inverse, which returns the point alone."""

    def checked(params: Params, y: Array, context: Any, rng: Any, train: bool) -> Array:
        x = fun(params, y, context, rng, train)
        if isinstance(x, tuple):
            raise FlowsError(f"{name} returned a tuple of {len(x)}; expected the point alone: its log-det follows")
        return x

    return checked


def checked_density(fun: Callable, name: str, batched: bool) -> Callable:
    """A batch function whose result is one number a row."""

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Array:
        result = fun(params, x, context, rng, train)
        check_scalars(result, x.shape[0], batched, name, "log_pdf")
        return result

    return checked


def checked_sample(fun: Callable, event: Shape, name: str, batched: bool) -> Callable:
    """A part's sample function, of one that makes a batch of draws or a single one."""
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
