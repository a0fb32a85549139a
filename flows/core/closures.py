"""Plain closures as layers, the style of jax-flows 0.0.1: a function that returns params and two functions of batches.

The functions of a closure are made by the init that makes its params, and serve these alone. So a part of one is never kept: it
is there for one init, which hands it its functions. What needs several inits of one part, or an init that is traced, or makes
functions again for params that are there (copies, members, a file), refuses a closure; a constructor has no such limits.
"""

from collections.abc import Callable
from typing import Any

import jax

from flows.core.constructors import check_takes
from flows.core.contract import Array, Given, Params, Shape
from flows.core.decorators import NOTHING, ModelValue
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.inputs import as_dim
from flows.core.lifting import KEY, Author, CallingForm, Functions, bijection_form, distribution_form, traced_by_author
from flows.core.params import check_structure, shapes_of
from flows.core.parts import BijectionPart, DistributionPart, Part

REMEDY = "Make it a constructor with @flows.bijection, or @flows.distribution, whose functions serve the params of every init"


def initialize(layer: Any, key: Array, event: Shape, context: Shape | None, given: Given = NOTHING) -> tuple[Params, Any]:
    """The params and the part of a whole model: a constructor's value, or a plain closure that is a distribution."""
    part = distribution_part(layer, event, context)
    return part.init(key, given), part


def part_of(layer: Any, event: Shape, context: Shape | None) -> Any:
    """The part of a whole model whose params are known already."""
    part = distribution_part(layer, event, context)
    refuse_closures(part, f"functions are to be made for params of {layer!r:.80}")
    return part


def bijection_part(layer: Any, event: Shape, context: Shape | None) -> BijectionPart:
    """The part of one layer of a combinator: a constructor's value or a plain closure."""
    if isinstance(layer, ModelValue):
        return layer.part(event, context)
    return closure_bijection(layer, event, context)


def distribution_part(layer: Any, event: Shape, context: Shape | None) -> DistributionPart:
    """As `bijection_part`, for a distribution."""
    if isinstance(layer, ModelValue):
        return layer.part(event, context)
    return closure_distribution(layer, event, context)


def closure_bijection(layer: Callable, event: Shape, context: Shape | None) -> BijectionPart:
    """The part of a plain closure that returns a bijection's triple."""
    closure = Closure(layer, event, context, bijection_form(name_of(layer), batched=True, pairs=True))

    def run(i: int) -> Callable:
        return lambda params, *call: closure.function(i)(params, *call)

    fields: Any = {"direct": run(0), "inverse": run(1), "output": closure.output, "independent": False}
    fields["noisy"] = "rng" in closure.keywords
    return BijectionPart(closure.name, closure.init, event, context, closure.keywords, closure.compiled, (closure,), **fields)


def closure_distribution(layer: Callable, event: Shape, context: Shape | None) -> DistributionPart:
    """The part of a plain closure that returns a distribution's triple."""
    closure = Closure(layer, event, context, distribution_form(name_of(layer), event, batched=True))

    def log_pdf(params: Params, *call: Any) -> Array:
        return closure.function(0)(params, *call)

    def sample(rng: Array, params: Params, *call: Any) -> Array:
        return closure.function(1)(rng, params, *call)

    fields: Any = {"log_pdf": log_pdf, "sample": sample, "independent": False, "noisy": "rng" in closure.keywords}
    return DistributionPart(
        closure.name, closure.init, event, context, closure.keywords, closure.compiled, (closure,), **fields
    )


def name_of(layer: Callable) -> str:
    return getattr(layer, "__name__", repr(layer))


def refuse_closures(part: Part, what: str) -> None:
    """Refuse a part with a plain closure where functions of one init would have to serve the params of another."""
    if part.closures:
        names = ", ".join(dict.fromkeys(closure.name for closure in part.closures))
        raise FlowsError(f"{what}, but the functions of {names}, a plain closure, are those of one init. {REMEDY}")


def with_functions_of(part: Part, like: Part) -> Part:
    """A part of a model that holds the closures of another one, with the functions that their init has made."""
    for closure, made in zip(part.closures, like.closures, strict=True):
        closure.functions = made.functions
    return part


class Closure(Author):
    """A plain closure in one part. What is known of it before its init comes from a run with an abstract key."""

    functions: Functions = ()

    def __init__(self, layer: Callable, event: Shape, context: Shape | None, form: CallingForm):
        check_takes(layer, "init_fun(rng, input_dim)", "a layer")
        super().__init__(name_of(layer), layer, event, context, form)
        made: list[Callable] = []

        def run(key: Array, given: Given) -> Params:
            params, *made[:] = self._run(key, given)
            return params

        try:
            params = jax.eval_shape(run, KEY(), Given())
        except TRACING_ERRORS:
            with jax.ensure_compile_time_eval():
                params = run(jax.random.key(0), Given())
        self.keywords = self.keywords_of(*made)
        self.output, self.compiled, _ = self.try_out(form.take(*made), params, self.keywords)

    def _run(self, key: Array, given: Given) -> tuple[Params, Callable, Callable]:
        with jax.ensure_compile_time_eval():
            return self.call(key, as_dim(self.event), given)

    def function(self, i: int) -> Callable:
        """One of the functions that its init has made."""
        if not self.functions:
            raise FlowsError(
                f"{self.name}: functions are to be made for params that are there, but those of a plain closure are of one "
                f"init. {REMEDY}"
            )
        return self.functions[i]

    def init(self, key: Array, given: Given) -> Params:
        if isinstance(key, jax.core.Tracer) and not traced_by_author():
            raise FlowsError(f"{self.name}: it is a plain closure, whose init cannot be traced (by jit, vmap, scan). {REMEDY}")
        params, *made = self._run(key, given)
        if given.params is not None:
            check_structure(given.params, shapes_of(params), self.name)
            params = params if "params" in self.names else given.params
        if self.keywords_of(*made) != self.keywords:
            raise FlowsError(
                f"{self.name}: its functions name other keywords from one init to the next; name the same each time"
            )
        self.functions = self.form.take(*made)
        return params
