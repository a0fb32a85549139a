"""Plain closures as layers, the style of jax-flows 0.0.1: a function that returns params and two functions of batches.

The functions of a closure are made anew by each call, and are known only then. So its part gives back its params as `Bound`,
together with the functions that came with them, and runs whatever functions it finds there. `settle` separates them:
plain params for the user, and a part that holds the functions. Functions that compute the same (`caching.program`) are one
object, so that nothing compiles twice; a closure whose functions depend on rng or on data compiles each
time, and is never wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax

from flows.core.caching import Memo
from flows.core.contract import Array, Given, Params, Shape
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.inputs import as_dim
from flows.core.lifting import Author, Form, Functions, bijection_form, distribution_form
from flows.core.params import check_structure, structure
from flows.core.parts import BijectionPart, DistributionPart, Part

P = TypeVar("P", bound=Part)
_functions = Memo(size=1024)  # by the part and the program that they are traced to
UNEQUAL = (
    "{name} differ from one init to the next: put what they draw from rng, or measure, into params. If they do not, make the "
    "layer a constructor (flows.bijection, flows.distribution), so that its functions are made once"
)


@jax.tree_util.register_pytree_with_keys_class
class Bound:
    """The params of a closure, and the functions that came with them."""

    def __init__(self, params: Params, functions: Functions):
        self.params, self.functions = params, functions

    def tree_flatten_with_keys(self) -> tuple[tuple, Functions]:
        return ((jax.tree_util.GetAttrKey("params"), self.params),), self.functions

    @classmethod
    def tree_unflatten(cls, functions: Functions, children: tuple) -> "Bound":
        return cls(children[0], functions)


def check_equal_functions(name: str, params: Sequence[Params]) -> None:
    """Refuse copies of a closure whose functions differ: one program is to run them all."""
    if len({jax.tree.structure(each) for each in params}) > 1:
        raise FlowsError(UNEQUAL.format(name=name))


def settle(part: P, params: Params) -> tuple[Params, P]:
    """Plain params, and the part that runs on them with the functions that the closures in `params` came with."""
    if not part.closures:
        return params, part
    tree = jax.tree.structure(params)
    return _unbound(params), _functions((part, tree), lambda: _with_functions(part, tree))


def _unbound(params: Params) -> Params:
    def one(node: Any) -> Any:
        return node.params if isinstance(node, Bound) else node

    return jax.tree.map(one, params, is_leaf=lambda node: isinstance(node, Bound))


def _with_functions(part: P, tree: Any) -> P:
    def bound(params: Params) -> Params:
        return jax.tree.unflatten(tree, jax.tree.leaves(params))

    def on_params(function: Callable) -> Callable:
        return lambda params, *call: function(bound(params), *call)

    def init(key: Array, given: Given) -> Params:
        return _unbound(part.init(key, given))

    if isinstance(part, BijectionPart):
        native = part.native_inverse and on_params(part.native_inverse)
        own: Any = {"direct": on_params(part.direct), "inverse": on_params(part.inverse), "native_inverse": native}
    elif isinstance(part, DistributionPart):
        sample = part.sample
        own = {"log_pdf": on_params(part.log_pdf), "sample": lambda rng, params, *call: sample(rng, bound(params), *call)}
    return replace(part, init=init, closures=False, **own)


def closure_bijection(layer: Callable, event: Shape, context: Shape | None) -> BijectionPart:
    """The part of a plain closure that returns a bijection's triple."""
    closure = Closure(layer, event, context, bijection_form(name_of(layer), batched=True, pairs=True))

    def run(i: int) -> Callable:
        return lambda bound, *call: bound.functions[i](bound.params, *call)

    own: Any = {"direct": run(0), "inverse": run(1), "output": closure.output}
    return BijectionPart(closure.name, closure.init, event, context, closure.keywords, closure.compiled, True, **own)


def closure_distribution(layer: Callable, event: Shape, context: Shape | None) -> DistributionPart:
    """The part of a plain closure that returns a distribution's triple."""
    closure = Closure(layer, event, context, distribution_form(name_of(layer), event, batched=True))

    def log_pdf(bound: Bound, *call: Any) -> Array:
        return bound.functions[0](bound.params, *call)

    def sample(rng: Array, bound: Bound, *call: Any) -> Array:
        return bound.functions[1](rng, bound.params, *call)

    own: Any = {"log_pdf": log_pdf, "sample": sample}
    return DistributionPart(closure.name, closure.init, event, context, closure.keywords, closure.compiled, True, **own)


def name_of(layer: Callable) -> str:
    return getattr(layer, "__name__", repr(layer))


class Closure(Author):
    """A plain closure. What is known of it before any init comes from a run with an abstract key."""

    def __init__(self, layer: Callable, event: Shape, context: Shape | None, form: Form):
        super().__init__(name_of(layer), layer, event, context, form)
        made: list[Callable] = []

        def run(key: Array) -> Params:
            params, *made[:] = self._run(key, Given())
            return params

        try:
            params = jax.eval_shape(run, jax.eval_shape(jax.random.key, 0))
        except TRACING_ERRORS:
            with jax.ensure_compile_time_eval():
                params = run(jax.random.key(0))
        self.keywords = self.keywords_of(*made)
        self.output, self.compiled, _ = self.try_out(form.take(*made), params, self.keywords)

    def _run(self, key: Array, given: Given) -> tuple[Params, Callable, Callable]:
        with jax.ensure_compile_time_eval():
            return self.call(key, as_dim(self.event), given)

    def init(self, key: Array, given: Given) -> Bound:
        params, *made = self._run(key, given)
        if given.params is not None:
            check_structure(given.params, structure(params), self.name)
            params = params if "params" in self.names else given.params
        if self.keywords_of(*made) != self.keywords:
            raise FlowsError(UNEQUAL.format(name=f"the functions of {self.name}"))
        functions = self.form.take(*made)
        digest = self.digest(functions, params, self.keywords) if self.compiled else None
        return Bound(params, _functions(None if digest is None else (self, digest), lambda: functions))
