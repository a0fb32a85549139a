"""Functions of an author become functions of a part: lifted from one event to a batch, and checked before they can broadcast.

An `Author` is one init_fun at one event and context. Before its functions are used they are traced on a few abstract rows,
which shows the shape of their results, whether JAX can trace them, and whether they close over a value of one init.

A plain closure is a function that returns params and two functions of batches, the style of jax-flows 0.0.1. Copies, members
and files need several inits of one part, a traced init, or functions for existing params: they refuse a closure.
"""

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.caching import assigned
from flows.core.constructors import check_takes, is_model
from flows.core.contract import CALL, INIT, Array, Given, Layer, Params, Shape
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.inputs import KEY, as_dim, default_dtype, holds_tracer, named_by, naming, select
from flows.core.params import abstract, check_leaves, check_structure, shapes_of
from flows.core.parts import BijectionPart, DistributionPart, Part
from flows.core.validation import check_result

# Set while the init of a layer runs, which may make a model of plain closures even where it is traced: functions that close
# over values of this init are refused anyway.
_inside_init: ContextVar[bool] = ContextVar("inside_init", default=False)

# direct, inverse, the inverse with its log-det and the velocity, or None for the last two; or log_pdf and sample
Functions = tuple[Any, ...]
WAYS = "direct", "inverse"
ROWS = 7  # of a trial run; unlike the sizes of most events, so that a wrong axis shows
FIRST_RULE = (
    "{name}: a function closes over a value that its init_fun drew from rng or computed from data. Put it into params "
    '(under "fixed" if it must not train): functions never depend on rng or on data'
)
# Layers whose functions serve one init alone, and the remedy.
CLOSURE = "a plain closure", "Make it a constructor with @flows.bijection, or @flows.distribution"
IN_NUMPY = "a layer in NumPy", "Write its init_fun with jax.numpy"
SERVE = "whose functions serve the params of every init"


class Author:
    """One init_fun, of a decorated layer or a plain closure, at one event and context.

    The init of a decorated layer is compiled once, and its functions serve the params of every init. They are taken from a
    trace in which rng is abstract, so that they cannot close over the rng or the data of one call. Constants that they close
    over have to be concrete: where some are not, init is traced again with constants computed at once, which costs small
    compilations.

    The functions of a closure, and of a layer whose init cannot be traced, such as an init in NumPy, are made by the init that
    makes the params, and serve these params alone: the part lists this author in `closures`, and is never cached. Their facts
    come from a trial. Existing params may be served by the functions of such a layer, and not by the functions of a closure.
    """

    vocabulary: tuple[tuple[str, ...], ...]  # the keywords that each function may name
    take: Callable[..., Functions]  # an author's functions in the form of a part
    results: Callable[..., tuple]  # of such functions, params, rows, (context, rng, train) and a key
    start: Callable[[Array, Given], Params]  # init, compiled
    made: Functions = ()  # by the last init of a closure

    def __init__(
        self, name: str, init_fun: Callable, event: Shape, context: Shape | None, batched: bool, is_closure: bool = False
    ):
        self.name, self.init_fun, self.event, self.context = name, init_fun, event, context
        self.batched, self.is_closure, self.names = batched, is_closure, named_by(init_fun, INIT)
        self.records = isinstance(self, BijectionAuthor) and not is_closure  # whether it may return a `Layer`
        self.kind, self.remedy = CLOSURE if is_closure else IN_NUMPY
        self.closures = () if not is_closure and self._trace() else (self,)
        if self.closures:
            self._try_once()

    def run(self, constants: Callable, made: list[Callable], key: Array, data: Given) -> Params:
        """The params of one init; `made` receives the functions of the first init."""
        named = select(self.names, context_dim=as_dim(self.context), **data._asdict())
        event = as_dim(self.event) if self.is_closure else self.event
        with assigned(_inside_init, True), constants():
            params, *functions = self._checked(self.init_fun(key, event, **named))
        made[:] = made or functions
        return params if self.is_closure else check_leaves(params, self.name)

    def _checked(self, result: Any) -> tuple[Any, ...]:
        if isinstance(result, Layer) and self.records:
            params, *functions, keywords = result
            if not all(function is None or callable(function) for function in functions):
                raise TypeError(f"{self.name}: its init_fun returned {result!r:.80}; expected a Layer of params and functions")
            return params, *(naming(function, keywords) if function and keywords else function for function in functions)
        if not isinstance(result, tuple | list) or len(result) != 3 or not all(map(callable, result[1:])):
            more = ", or a flows.Layer" if self.records else ""
            raise TypeError(f"{self.name}: its init_fun returned {result!r:.80}; expected (params, function, function){more}")
        return tuple(result)

    def _trace(self) -> bool:
        """Take the functions of a trace of init, which must not close over its values; False where it cannot be traced."""
        traced = False
        for constants in (nullcontext, jax.ensure_compile_time_eval):
            made = list[Callable]()
            self.start, compiled = compiled_once(partial(self.run, constants, made))
            try:
                self.params = compiled.eval_shape(KEY(), Given())
                self.functions, bound = self._try(made, self.params)
            except TRACING_ERRORS:
                continue
            if not (bound or self._closes_over_data(constants)):
                return True
            traced = True
        if traced:
            raise FlowsError(FIRST_RULE.format(name=self.name))
        return False

    def _try_once(self) -> None:
        """Try functions out, before the init that makes them, to know their facts."""
        made = list[Callable]()
        run = partial(self.run, jax.ensure_compile_time_eval, made)
        try:
            params = jax.eval_shape(run, KEY(), Given())
        except TRACING_ERRORS:
            with jax.ensure_compile_time_eval():
                params = run(jax.random.key(0), Given())
        functions, _ = self._try(made, params)
        self.made = () if self.is_closure else functions  # functions of a constructor serve existing params
        self.functions = tuple([function and partial(self._call_made, i) for i, function in enumerate(functions)])

    def _call_made(self, i: int, *arguments: Any) -> Any:
        if not self.made:
            message = "functions are needed for existing params, but the functions of a plain closure belong to one init"
            raise FlowsError(f"{self.name}: {message}. {self.remedy}, {SERVE}")
        return self.made[i](*arguments)

    def init(self, key: Array, data: Given) -> Params:
        if self.closures:
            return self._init_once(key, data)
        if data.params is not None:
            check_structure(data.params, shapes_of(self.params), self.name)
            if "params" not in self.names:
                return data.params
        inputs = data.init_inputs if "init_inputs" in self.names else None
        context = data.init_context if "init_context" in self.names else None
        return self.start(key, Given(inputs, context, data.params))

    def _init_once(self, key: Array, data: Given) -> Params:
        if isinstance(key, jax.core.Tracer) and not _inside_init.get():
            message = f"it is {self.kind}, whose init cannot be traced (by jit, vmap, scan)"
            raise FlowsError(f"{self.name}: {message}. {self.remedy}, {SERVE}")
        made = list[Callable]()
        params = self.run(jax.ensure_compile_time_eval, made, key, data)
        if data.params is not None:
            check_structure(data.params, shapes_of(params), self.name)
            params = params if "params" in self.names else data.params
        if self._keywords_of(made) != self.keywords:
            raise FlowsError(f"{self.name}: its functions name other keywords than at the first init; name the same every time")
        self.made = self.take(*made)
        return params

    def _keywords_of(self, made: list[Callable]) -> frozenset[str]:
        pairs = [pair for pair in zip(made, self.vocabulary, strict=False) if pair[0] is not None]
        keywords = self.names.union(*[named_by(*pair) for pair in pairs])
        return keywords | {"context"} if "context_dim" in self.names and not self.is_closure else keywords

    def _try(self, made: list[Callable], params: Params) -> tuple[Functions, bool]:
        """The functions in the form of a part, and whether they close over a tracer; their facts become attributes."""
        self.keywords, functions = self._keywords_of(made), self.take(*made)
        self.draws = frozenset(way for way, function in zip(WAYS, made, strict=False) if "rng" in named_by(function, CALL))
        self.output, self.compiled, bound = self._try_out(functions, params)
        return functions, bound

    def _try_out(self, functions: Functions, params: Params) -> tuple[Shape, bool, bool]:
        """The event of the first result, whether the functions can be traced, and whether they close over a tracer of another
        trace, which JAX notes as a constant of their program."""
        rows = self._rows(params)
        # Whether they are called with rng, and whether with train=True.
        usual, *others = dict.fromkeys(product(("rng" in self.keywords, False), (False, "train" in self.keywords)))

        def trace(draws: bool, train: bool) -> tuple[Any, Any]:
            def call(params: Params, x: Array, context: Any, key: Array) -> tuple:
                return self.results(functions, params, x, (context, key if draws else None, train), key)

            return jax.make_jaxpr(call, return_shape=True)(*rows)

        def is_bound(way: tuple[bool, bool]) -> bool:
            try:
                return holds_tracer(trace(*way)[0].consts)
            except Exception:  # batch norm, say, has no inverse under train=True; a call of that kind will say so
                return False

        try:
            jaxpr, results = trace(*usual)
            return tuple(results[0].shape[1:]), True, holds_tracer(jaxpr.consts) or any([is_bound(way) for way in others])
        except TRACING_ERRORS:  # ordinary Python on values: it runs row by row, uncompiled
            with jax.ensure_compile_time_eval():
                ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), rows[:3])
                results = functions[0](*ones, jax.random.key(0), False)  # the inverse would take long
            return tuple(results[0].shape[1:]), False, False
        except (TypeError, AttributeError) as error:
            if self.context is None and "context" in self.keywords:
                error.add_note(f"{self.name} was made without a context; if it needs one, give context_dim=")
            raise

    def _closes_over_data(self, constants: Callable) -> bool:
        """Tell whether the functions of an init with data close over the data."""
        if not self.names & {"init_inputs", "init_context"}:
            return False
        made = list[Callable]()
        _, rows, context, key = self._rows(())
        data = Given(rows if "init_inputs" in self.names else None, context if "init_context" in self.names else None)
        try:
            params = jax.eval_shape(partial(self.run, constants, made), key, data)
        except Exception:  # it needs numbers, or other rows; a call of that kind will say so
            return False
        return self._try_out(self.take(*made), params)[2]

    def _rows(self, params: Params) -> tuple:
        shapes = (self.event, self.context)
        rows = [None if shape is None else jax.ShapeDtypeStruct((ROWS, *shape), default_dtype()) for shape in shapes]
        return abstract(params), *rows, KEY()

    def _part(self, make: Callable, **functions: Any) -> Any:
        known = self.name, self.init, self.event, self.context, self.keywords, self.compiled, self.closures
        draws = self.draws & {*WAYS[: 1 + (make is BijectionPart)]}  # a sample has rng for its draws
        return make(*known, independent=not self.is_closure, draws=draws, **functions)


class BijectionAuthor(Author):
    """Author of a bijection. The inverse of a decorated layer returns the point alone, the inverse of a closure a pair."""

    vocabulary = (CALL,) * 4

    def take(self, direct_fun: Callable, inverse_fun: Callable, native: Any = None, velocity: Any = None) -> Functions:
        name, batched = self.name, self.batched
        direct = lift(direct_fun, f"{name}: direct_fun", batched, check_pair)
        inverse = lift(inverse_fun, f"{name}: inverse_fun", batched, check_pair if self.is_closure else check_point)
        if self.is_closure:
            return direct, lambda *call: inverse(*call)[0], None, None
        native = native and lift(native, f"{name}: its inverse with log_det", batched, check_pair)
        return direct, inverse, native, velocity and lift_velocity(velocity, batched)

    def results(self, functions: Functions, params: Params, x: Array, call: tuple, key: Array) -> tuple:
        y, log_det = functions[0](params, x, *call)
        back = functions[1](params, y, *call)
        check_result(back, x.shape, self.name, "the inverse's points")
        return y, log_det, back

    def part(self) -> BijectionPart:
        direct, inverse, native, velocity = self.functions
        path = velocity and (lambda params, x, context, rng: (x, lambda t, x: velocity(params, t, x, context)))
        return self._part(BijectionPart, direct=direct, inverse=inverse, output=self.output, native_inverse=native, path=path)


class DistributionAuthor(Author):
    """Author of a distribution."""

    vocabulary = (CALL, tuple([name for name in CALL if name != "rng"]))  # rng is the first argument of a sample

    def take(self, log_pdf: Callable, sample: Callable) -> Functions:
        log_pdf = lift(log_pdf, self.name, self.batched, check_scalars)
        return log_pdf, lift_sample(sample, self.event, self.name, self.batched)

    def results(self, functions: Functions, params: Params, x: Array, call: tuple, key: Array) -> tuple:
        return functions[0](params, x, *call), functions[1](key, params, x.shape[0], x.dtype, call[0])

    def part(self) -> DistributionPart:
        log_pdf, sample = self.functions
        joint = getattr(sample, "joint_draw", None)
        return self._part(DistributionPart, log_pdf=log_pdf, sample=sample, joint_draw=joint)


def initialize(layer: Any, key: Array, event: Shape, context: Shape | None) -> tuple[Params, Any]:
    """The params and the part of a whole model: a constructor's value, or a plain closure that is a distribution."""
    part = distribution_part(layer, event, context)
    return part.init(key, Given()), part


def part_of(layer: Any, event: Shape, context: Shape | None) -> Any:
    """The part of a whole model whose params exist already."""
    part = distribution_part(layer, event, context)
    refuse_closures(part, f"functions are needed for existing params of {layer!r:.80}", several=False)
    return part


def bijection_part(layer: Any, event: Shape, context: Shape | None) -> BijectionPart:
    """The part of one layer of a combinator: a constructor's value or a plain closure."""
    return layer.part(event, context) if is_model(layer) else _closure_part(BijectionAuthor, layer, event, context)


def distribution_part(layer: Any, event: Shape, context: Shape | None) -> DistributionPart:
    """The part of a distribution in a combinator, as `bijection_part`."""
    return layer.part(event, context) if is_model(layer) else _closure_part(DistributionAuthor, layer, event, context)


def _closure_part(make: type[BijectionAuthor | DistributionAuthor], layer: Any, event: Shape, context: Shape | None) -> Any:
    check_takes(layer, "init_fun(rng, input_dim)", "a layer")
    return make(getattr(layer, "__name__", repr(layer)), layer, event, context, batched=True, is_closure=True).part()


def refuse_closures(part: Part, what: str, several: bool = True) -> None:
    """Refuse a part with a plain closure where functions of one init would have to serve the params of another init; for
    `several` inits also a part with a constructor that is treated as a closure."""
    if authors := [author for author in part.closures if several or author.is_closure]:
        names, author = ", ".join(dict.fromkeys(author.name for author in authors)), authors[0]
        raise FlowsError(f"{what}, but the functions of {names}, {author.kind}, belong to one init. {author.remedy}, {SERVE}")


def with_functions_of(part: Part, like: Part) -> Part:
    """A part of a model with the functions that the init of another part of this model has made."""
    for author, other in zip(part.closures, like.closures, strict=True):
        author.made = other.made
    return part


def compiled_once(init: Callable) -> tuple[Callable, Any]:
    """A function that runs once or twice, as an init does, compiled quickly rather than well; and one to trace."""
    quickly, nested = jax.jit(init, compiler_options={"xla_backend_optimization_level": 0}), jax.jit(init)

    def call(*args: Any) -> Any:
        # Inside another compilation, whose options hold, a new array is a tracer, or at least an argument is.
        return nested(*args) if holds_tracer((jnp.zeros(()), args)) else quickly(*args)

    return call, quickly


# An author's functions in the form of a part, and checks of their results


def lift(fun: Callable, name: str, batched: bool, check: Callable[[Any, int, str, bool], None]) -> Callable:
    """An author's function as a function of rows; a function of one event receives a key for each row."""
    names = named_by(fun, CALL)

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        def call(x: Array, context: Any, rng: Any) -> Any:
            return fun(params, x, **select(names, context=context, rng=rng, train=train))

        if batched:
            result = call(x, context, rng)
        else:
            keys = jax.random.split(rng, x.shape[0]) if rng is not None and "rng" in names else None
            result = jax.vmap(call)(x, context, keys)
        check(result, x.shape[0], name, batched)
        return result

    return checked


def lift_velocity(velocity: Callable, batched: bool) -> Callable:
    """An author's `velocity(params, t, x)` of one event, or of rows, as a function of rows, with a time for each row."""
    names = named_by(velocity, ("context",))

    def call(params: Params, t: Array, x: Array, context: Any) -> Array:
        def at_time(t: Array, x: Array, context: Any) -> Array:
            return velocity(params, t, x, **select(names, context=context))

        velocities = at_time(t, x, context) if batched else jax.vmap(at_time)(t, x, context)
        check_result(velocities, x.shape, "velocity", "velocities")
        return velocities

    return call


def lift_sample(fun: Callable, event: Shape, name: str, batched: bool) -> Callable:
    """The sample function of a part, from a function that makes a batch of draws or a single draw."""
    names = named_by(fun, CALL)

    def sample(rng: Array, params: Params, n: int, dtype: Any, context: Any) -> Array:
        def draw(key: Array, context: Any, *count: int) -> Array:
            return fun(key, params, *count, **select(names, context=context))

        samples = draw(rng, context, n) if batched else jax.vmap(draw)(jax.random.split(rng, n), context)
        check_result(samples, (n, *event), name, "samples")
        return samples.astype(dtype)

    sample.joint_draw = getattr(fun, "joint_draw", None)  # type: ignore[attr-defined]
    return sample


def check_scalars(x: Any, rows: int, name: str, batched: bool, what: str = "log_pdf") -> None:
    """Refuse anything but one number for each row; the error for a function of one event shows its result."""
    shape = tuple(getattr(x, "shape", ()))
    if not batched and len(shape) > 1:
        raise FlowsError(f"{name} returned a {what} of shape {shape[1:]} for one event; expected a scalar: {what}.sum()")
    check_result(x, (rows,), name, f"{what} (one for each row)")


def check_pair(result: Any, rows: int, name: str, batched: bool) -> None:
    """Refuse anything but a pair with one log-det for each row."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise FlowsError(f"{name} returned a {type(result).__name__}; expected the pair (outputs, log_det)")
    check_scalars(result[1], rows, name, batched, "log_det")
    check_result(result[0], (rows, *np.shape(result[0])[1:]), name, "outputs")


def check_point(x: Any, rows: int, name: str, batched: bool) -> None:
    """Refuse an inverse that returns more than the point."""
    if isinstance(x, tuple):
        raise FlowsError(f"{name} returned a tuple of {len(x)}; expected the point alone: its log-det follows")
