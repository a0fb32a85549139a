"""Plain closures as layers, the style of jax-flows 0.0.1: a function that returns params and two functions of batches.

The functions of a closure are made anew by each call, and are known only then. So its part gives back its params as `Bound`,
together with the functions that came with them, and runs whatever functions it finds there. `settle` separates them:
plain params for the user, and a part that holds the functions. Functions that compute the same (`caching.program`) are one
object, so that nothing compiles twice. A closure whose functions depend on rng or on data breaks the first rule: its own triple
is right, compiles at each init and is not kept; what needs the functions of one init to serve another (`fit`, `Repeat`, copies
in a `Mixture`) refuses it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax

from flows.core.caching import Memo
from flows.core.constructors import check_takes
from flows.core.contract import Array, Given, Params, Shape
from flows.core.errors import TRACING_ERRORS, FlowsError
from flows.core.inputs import as_dim
from flows.core.lifting import KEY, Author, Form, Functions, bijection_form, distribution_form
from flows.core.params import check_structure, shapes_of
from flows.core.parts import BijectionPart, DistributionPart, Part

P = TypeVar("P", bound=Part)
_functions = Memo(size=1024)  # by the part and the program that they are traced to
UNEQUAL = (
    "{name} differ from one init to the next: put what they draw from rng, or measure, into params. If they do not, make the "
    "layer a constructor (flows.bijection, flows.distribution), so that its functions are made once"
)


@jax.tree_util.register_pytree_with_keys_class
class Bound:
    """The params of a closure, and the functions that came with them; are these shared by all that compute the same?"""

    def __init__(self, params: Params, functions: Functions, shared: bool):
        self.params, self.functions, self.shared = params, functions, shared

    def tree_flatten_with_keys(self) -> tuple[tuple, tuple]:
        return ((jax.tree_util.GetAttrKey("params"), self.params),), (self.functions, self.shared)

    @classmethod
    def tree_unflatten(cls, functions: tuple[Functions, bool], children: tuple) -> "Bound":
        return cls(children[0], *functions)


def check_equal_functions(name: str, params: Sequence[Params]) -> None:
    """Refuse copies of a closure whose functions differ: one program is to run them all."""
    if len({jax.tree.structure(each) for each in params}) > 1:
        raise FlowsError(UNEQUAL.format(name=name))


def settle(part: P, params: Params) -> tuple[Params, P]:
    """Plain params, and the part that runs on them with the functions that the closures in `params` came with."""
    if not part.closures:
        return params, part
    tree, bound = jax.tree.structure(params), jax.tree.leaves(params, is_leaf=_is_bound)
    shared = all([node.shared for node in bound if _is_bound(node)])
    return unbound(params), _functions((part, tree) if shared else None, lambda: _with_functions(part, tree, shared))


def unbound(params: Params) -> Params:
    """Plain params, without the functions of closures."""
    return jax.tree.map(lambda node: node.params if _is_bound(node) else node, params, is_leaf=_is_bound)


def _is_bound(node: Any) -> bool:
    return isinstance(node, Bound)


def _with_functions(part: P, tree: Any, shared: bool) -> P:
    def bound(params: Params) -> Params:
        return jax.tree.unflatten(tree, jax.tree.leaves(params))

    def on_params(function: Callable) -> Callable:
        return lambda params, *call: function(bound(params), *call)

    def init(key: Array, given: Given) -> Params:
        return unbound(part.init(key, given))

    if isinstance(part, BijectionPart):
        native = part.native_inverse and on_params(part.native_inverse)
        own: Any = {"direct": on_params(part.direct), "inverse": on_params(part.inverse), "native_inverse": native}
    elif isinstance(part, DistributionPart):

        def of_draws(function: Callable) -> Callable:
            return lambda rng, params, *call: function(rng, bound(params), *call)

        joint_draw = part.joint_draw and of_draws(part.joint_draw)
        own = {"log_pdf": on_params(part.log_pdf), "sample": of_draws(part.sample), "joint_draw": joint_draw}
    return replace(part, init=init, closures=False, shared=shared, **own)


def closure_bijection(layer: Callable, event: Shape, context: Shape | None) -> BijectionPart:
    """The part of a plain closure that returns a bijection's triple."""
    closure = Closure(layer, event, context, bijection_form(name_of(layer), batched=True, pairs=True))

    def run(i: int) -> Callable:
        return lambda bound, *call: bound.functions[i](bound.params, *call)

    own: Any = {"direct": run(0), "inverse": run(1), "output": closure.output, "independent": False}
    own["noisy"] = "rng" in closure.keywords
    return BijectionPart(closure.name, closure.init, event, context, closure.keywords, closure.compiled, True, **own)


def closure_distribution(layer: Callable, event: Shape, context: Shape | None) -> DistributionPart:
    """The part of a plain closure that returns a distribution's triple."""
    closure = Closure(layer, event, context, distribution_form(name_of(layer), event, batched=True))

    def log_pdf(bound: Bound, *call: Any) -> Array:
        return bound.functions[0](bound.params, *call)

    def sample(rng: Array, bound: Bound, *call: Any) -> Array:
        return bound.functions[1](rng, bound.params, *call)

    own: Any = {"log_pdf": log_pdf, "sample": sample, "independent": False, "noisy": "rng" in closure.keywords}
    return DistributionPart(closure.name, closure.init, event, context, closure.keywords, closure.compiled, True, **own)


def name_of(layer: Callable) -> str:
    return getattr(layer, "__name__", repr(layer))


class Closure(Author):
    """A plain closure. What is known of it before any init comes from a run with an abstract key."""

    def __init__(self, layer: Callable, event: Shape, context: Shape | None, form: Form):
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
        self.keywords, functions = self.keywords_of(*made), form.take(*made)
        self.output, self.compiled, remembers = self.try_out(functions, params, self.keywords)
        if self.compiled and not remembers:
            self._share(functions, params)  # they hold no data, as those of a later init may

    def _run(self, key: Array, given: Given) -> tuple[Params, Callable, Callable]:
        with jax.ensure_compile_time_eval():
            return self.call(key, as_dim(self.event), given)

    def _share(self, functions: Functions, params: Params) -> tuple[Functions, bool]:
        """The functions that compute the same, and whether these are kept."""
        digest = self.digest(functions, params, self.keywords) if self.compiled else None
        return _functions(None if digest is None else (self, digest), lambda: functions), digest is not None

    def init(self, key: Array, given: Given) -> Bound:
        params, *made = self._run(key, given)
        if given.params is not None:
            check_structure(given.params, shapes_of(params), self.name)
            params = params if "params" in self.names else given.params
        if self.keywords_of(*made) != self.keywords:
            raise FlowsError(
                f"{self.name}: its functions name other keywords from one init to the next; name the same each time"
            )
        return Bound(params, *self._share(self.form.take(*made), params))
