"""Parts of the layers of a model: a constructor's value makes its part once, a plain closure makes one for each init.

A plain closure is a function that returns params and two functions of batches, the style of jax-flows 0.0.1. The init that
makes the params of a closure also makes its functions, which serve these params alone. So a part of a closure is never cached:
it serves one init. Copies, members and files need several inits of one part, a traced init, or functions for existing params:
they refuse a closure; a constructor has no such limits. A constructor whose init JAX cannot trace, such as an init in NumPy, is
treated as a closure, except that its functions may serve existing params.
"""

from typing import Any

from flows.core.constructors import check_takes
from flows.core.contract import Array, Given, Params, Shape
from flows.core.decorators import NOTHING, ModelValue
from flows.core.errors import FlowsError
from flows.core.lifting import SERVE, BijectionAuthor, DistributionAuthor
from flows.core.parts import BijectionPart, DistributionPart, Part


def initialize(layer: Any, key: Array, event: Shape, context: Shape | None, data: Given = NOTHING) -> tuple[Params, Any]:
    """The params and the part of a whole model: a constructor's value, or a plain closure that is a distribution."""
    part = distribution_part(layer, event, context)
    return part.init(key, data), part


def part_of(layer: Any, event: Shape, context: Shape | None) -> Any:
    """The part of a whole model whose params exist already."""
    part = distribution_part(layer, event, context)
    refuse_closures(part, f"functions are needed for existing params of {layer!r:.80}", several=False)
    return part


def bijection_part(layer: Any, event: Shape, context: Shape | None) -> BijectionPart:
    """The part of one layer of a combinator: a constructor's value or a plain closure."""
    return layer.part(event, context) if isinstance(layer, ModelValue) else _part(BijectionAuthor, layer, event, context)


def distribution_part(layer: Any, event: Shape, context: Shape | None) -> DistributionPart:
    """The part of a distribution in a combinator, as `bijection_part`."""
    return layer.part(event, context) if isinstance(layer, ModelValue) else _part(DistributionAuthor, layer, event, context)


def _part(make: type[BijectionAuthor | DistributionAuthor], layer: Any, event: Shape, context: Shape | None) -> Any:
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
