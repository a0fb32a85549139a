"""Parts of the layers of a model: a constructor's value has its own, and a plain closure is made one of a single init.

A plain closure is a function that returns params and two functions of batches, the style of jax-flows 0.0.1. The functions of
a closure are made by the init that makes its params, and serve these alone. So a part of one is never kept: it is there for one
init, which hands it its functions. What needs several inits of one part, or an init that is traced, or makes functions again
for params that are there (copies, members, a file), refuses a closure; a constructor has no such limits. One whose init JAX
cannot trace, such as an init in NumPy, is treated as a closure, except that its functions may serve params that are there.
"""

from typing import Any

from flows.core.constructors import check_takes
from flows.core.contract import Array, Given, Params, Shape
from flows.core.decorators import NOTHING, ModelValue
from flows.core.errors import FlowsError
from flows.core.lifting import SERVE, BijectionAuthor, DistributionAuthor
from flows.core.parts import BijectionPart, DistributionPart, Part


def initialize(layer: Any, key: Array, event: Shape, context: Shape | None, given: Given = NOTHING) -> tuple[Params, Any]:
    """The params and the part of a whole model: a constructor's value, or a plain closure that is a distribution."""
    part = distribution_part(layer, event, context)
    return part.init(key, given), part


def part_of(layer: Any, event: Shape, context: Shape | None) -> Any:
    """The part of a whole model whose params are known already."""
    part = distribution_part(layer, event, context)
    refuse_closures(part, f"functions are to be made for params of {layer!r:.80}", several=False)
    return part


def bijection_part(layer: Any, event: Shape, context: Shape | None) -> BijectionPart:
    """The part of one layer of a combinator: a constructor's value or a plain closure."""
    return layer.part(event, context) if isinstance(layer, ModelValue) else _part(BijectionAuthor, layer, event, context)


def distribution_part(layer: Any, event: Shape, context: Shape | None) -> DistributionPart:
    """As `bijection_part`, for a distribution."""
    return layer.part(event, context) if isinstance(layer, ModelValue) else _part(DistributionAuthor, layer, event, context)


def _part(make: type[BijectionAuthor | DistributionAuthor], layer: Any, event: Shape, context: Shape | None) -> Any:
    check_takes(layer, "init_fun(rng, input_dim)", "a layer")
    return make(getattr(layer, "__name__", repr(layer)), layer, event, context, batched=True, is_closure=True).part()


def refuse_closures(part: Part, what: str, several: bool = True) -> None:
    """Refuse a part with a plain closure where functions of one init would have to serve the params of another; and for
    `several` inits one with a constructor that is treated as a closure."""
    if authors := [author for author in part.closures if several or author.is_closure]:
        names, author = ", ".join(dict.fromkeys(author.name for author in authors)), authors[0]
        raise FlowsError(
            f"{what}, but the functions of {names}, {author.kind}, are those of one init. {author.remedy}, {SERVE}"
        )


def with_functions_of(part: Part, like: Part) -> Part:
    """A part of a model that holds the closures of another one, with the functions that their init has made."""
    for author, other in zip(part.closures, like.closures, strict=True):
        author.made = other.made
    return part
