"""From an author's functions of one event to a part's functions of batches, each result checked before it can broadcast."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.caching import holds_tracer, program
from flows.core.contract import Array, Given, Params, Shape
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.inputs import as_dim, default_dtype
from flows.core.keywords import CALL, INIT, named_by, select
from flows.core.params import check_leaves, check_structure, structure
from flows.core.parts import BijectionPart, DistributionPart
from flows.core.validation import check_result

ROWS = 7  # of a trial run; unlike the sizes of most events, so that a wrong axis shows
FIRST_RULE = (
    "{name}: a function closes over a value that its init_fun drew from rng or computed from data. Put it into params "
    '(under "fixed" if it must not train): functions never depend on rng or on data'
)


def leaf_bijection(name: str, author: Callable, event: Shape, context: Shape | None, batched: bool) -> BijectionPart:
    """The part of one decorated layer, whose init_fun the author wrote."""
    form = plain if batched else lift

    def in_part_form(direct_fun: Callable, inverse_fun: Callable) -> tuple[Callable, Callable]:
        direct = checked_pair(form(direct_fun), f"{name}: direct_fun")
        return direct, checked_point(form(inverse_fun), f"{name}: inverse_fun")

    leaf = Leaf(name, author, event, context)
    trial: Callable = partial(trial_run, event=event, context=context, name=name)
    (direct, inverse), (output, compiled) = leaf.find_functions(in_part_form, trial)
    return BijectionPart(
        name, leaf.init, event, context, leaf.keywords, compiled, False, direct=direct, inverse=inverse, output=output
    )


def leaf_distribution(name: str, author: Callable, event: Shape, context: Shape | None, batched: bool) -> DistributionPart:
    """As `leaf_bijection`, for a distribution."""
    form = plain if batched else lift

    def in_part_form(log_pdf: Callable, sample: Callable) -> tuple[Callable, Callable]:
        return checked_density(form(log_pdf), name), checked_sample(sample, event, name, batched)

    leaf = Leaf(name, author, event, context)
    trial: Callable = partial(trial_draw, event=event, context=context)
    (log_pdf, sample), _ = leaf.find_functions(in_part_form, trial)
    return DistributionPart(name, leaf.init, event, context, leaf.keywords, True, False, log_pdf=log_pdf, sample=sample)


class Leaf:
    """The init of one decorated layer at one event and context, compiled once."""

    def __init__(self, name: str, author: Callable, event: Shape, context: Shape | None):
        self.name, self.author, self.event, self.context = name, author, event, context
        self.names = named_by(author, INIT)
        self.keywords = self.names
        self.params: Params
        self.start: Callable[[Array, Given], Params]

    def init(self, key: Array, given: Given) -> Params:
        if given.params is not None:
            check_structure(given.params, structure(self.params), self.name)
            if "params" not in self.names:
                return given.params
        data = given.init_inputs if "init_inputs" in self.names else None
        context = given.init_context if "init_context" in self.names else None
        return self.start(key, Given(data, context, given.params))

    def find_functions(self, in_part_form: Callable, trial: Callable) -> tuple[tuple[Callable, Callable], Any]:
        """The functions in the form that parts have, and what `trial(functions, params, keywords=)` finds of them.

        They are taken from a trace of init in which rng is abstract, so that nothing can be remembered of the rng or the
        data of any one call. Constants that they close over have to be concrete: where some are not, init is traced again
        with constants computed at once, which costs small compilations. What cannot be traced, such as NumPy, runs as it is.
        """
        key, error = jax.eval_shape(jax.random.key, 0), FlowsError(FIRST_RULE.format(name=self.name))
        for constants in (nullcontext, jax.ensure_compile_time_eval):
            made: list[Callable] = []
            run: Callable = partial(self._run, constants, made)
            self.start, compiled = compiled_once(run)
            try:
                self.params = compiled.eval_shape(key, Given())
            except TRACING_ERRORS:
                continue
            functions, found, remembers = self._try(in_part_form, made, trial)
            if not remembers:
                return functions, found
            if constants is not nullcontext:
                raise error
        digests = []
        for seed in (0, 1):
            with jax.ensure_compile_time_eval():
                made = []
                self.start = partial(self._run, nullcontext, made)
                self.params = self.start(jax.random.key(seed), Given())
            functions, found, _ = self._try(in_part_form, made, trial)
            digests.append(self._digest(functions[0], key))
        if digests[0] is not None and digests[0] != digests[1]:
            raise error
        return functions, found

    def _run(self, constants: Callable, made: list[Callable], key: Array, given: Given) -> Params:
        with constants():
            triple = self.author(key, self.event, **select_given(self.names, self.context, given))
        params, *made[:] = as_triple(triple, self.name)
        return check_leaves(params, self.name)

    def _digest(self, function: Callable, key: Any) -> str | None:
        context = None if self.context is None else trial_rows(self.context)
        run: Callable = lambda params, x, context, key: function(params, x, context, key, False)  # noqa: E731
        return program(run, abstract(self.params), trial_rows(self.event), context, key)

    def _try(self, in_part_form: Callable, made: list[Callable], trial: Callable) -> tuple[Any, Any, bool]:
        functions = in_part_form(*made)
        self.keywords = self.names.union(*[named_by(each, CALL) for each in made])
        if "context_dim" in self.names:
            self.keywords |= {"context"}
        return functions, *trial(functions, self.params, keywords=self.keywords)


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


# What a call is made of


def as_triple(triple: Any, name: str) -> tuple[Any, Callable, Callable]:
    if not isinstance(triple, tuple | list) or len(triple) != 3 or not all(map(callable, triple[1:])):
        raise TypeError(f"{name}: its init_fun returned {triple!r:.80}; expected (params, function, function)")
    return tuple(triple)


def select_given(names: frozenset[str], context: Shape | None, given: Given) -> dict[str, Any]:
    return select(names, context_dim=as_dim(context), **given._asdict())


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

        keys = jax.random.split(rng, len(x)) if rng is not None and "rng" in names else None
        return jax.vmap(one)(x, context, keys)

    return batched


# What comes back, checked


def checked_pair(fun: Callable, name: str) -> Callable:
    """A batch function whose result is a pair with one log-det a row."""

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        result = fun(params, x, context, rng, train)
        if not isinstance(result, tuple) or len(result) != 2:
            raise FlowsError(f"{name} returned a {type(result).__name__}; expected the pair (outputs, log_det)")
        check_result(result[1], (len(x),), name, "log_det (one for each row)")
        check_result(result[0], (len(x), *np.shape(result[0])[1:]), name, "outputs")
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


def checked_density(fun: Callable, name: str) -> Callable:
    """A batch function whose result is one number a row."""

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Array:
        result = fun(params, x, context, rng, train)
        check_result(result, (len(x),), name, "log_pdf")
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


# Trial runs, on a few abstract rows


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


def trial_rows(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((ROWS, *shape), default_dtype())


def trial_run(
    functions: tuple[Callable, Callable],
    params: Params,
    event: Shape,
    context: Shape | None,
    keywords: frozenset[str],
    name: str,
) -> tuple[tuple[Shape, bool], bool]:
    """The event that a direct function returns and whether it can be traced; and whether it remembers a tracer."""
    direct, inverse = functions

    def both(params: Params, x: Array, context: Any, key: Any) -> Array:
        y = direct(params, x, context, key, False)[0]
        check_result(inverse(params, y, context, key, False), x.shape, name, "the inverse's points")
        return y

    rows = trial_rows(event), None if context is None else trial_rows(context)
    key = jax.eval_shape(jax.random.key, 0) if "rng" in keywords else None
    try:
        jaxpr, y = jax.make_jaxpr(both, return_shape=True)(abstract(params), *rows, key)
        return (tuple(y.shape[1:]), True), holds_tracer(jaxpr)
    except TRACING_ERRORS:  # ordinary Python on values: it runs row by row, uncompiled
        with jax.ensure_compile_time_eval():
            ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), (abstract(params), *rows))
            y = direct(*ones, jax.random.key(0), False)[0]  # the inverse would take its time
        return (tuple(y.shape[1:]), False), False


def trial_draw(
    functions: tuple[Callable, Callable], params: Params, event: Shape, context: Shape | None, keywords: frozenset[str]
) -> tuple[None, bool]:
    """Whether a distribution's functions remember a tracer."""
    log_pdf, sample = functions

    def both(params: Params, x: Array, context: Any, key: Any) -> tuple[Array, Array]:
        of_density = key if "rng" in keywords else None
        return log_pdf(params, x, context, of_density, False), sample(key, params, ROWS, x.dtype, context)

    rows = trial_rows(event), None if context is None else trial_rows(context)
    try:
        jaxpr = jax.make_jaxpr(both)(abstract(params), *rows, jax.eval_shape(jax.random.key, 0))
    except TRACING_ERRORS:
        return None, False
    return None, holds_tracer(jaxpr)
