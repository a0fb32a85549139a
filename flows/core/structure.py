"""Structure of a model: combinators and distributions declare the values within them, and one walk from data to noise, with or
without params, serves every caller.

A combinator returns `Composite(part, layers, order=..., pieces=...)`. Without an order it counts as one layer, whose inside
nothing looks at.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.contract import Array, Shape
from flows.core.errors import FlowsError, Place
from flows.core.inputs import size
from flows.core.lifting import bijection_part, distribution_part
from flows.core.parts import DistributionPart
from flows.core.support import Region, Support, Traits, everywhere, num_seen, seen

# How pieces are related, after "opaque": layers one after the other; one layer many times; layers within another layout, which
# comes first; a bijection and its base; a distribution with a standardized context; components; blocks of features that are
# independent; blocks of features that depend on the blocks before them.
ORDERS = ("opaque", "chain", "loop", "between", "flow", "context", "mixture", "joint", "chain rule")


class Piece(NamedTuple):
    """A value within another, or a layer of a chain.

    Attributes:
        value: a constructor's value, or a plain closure.
        params_at: the path to its params in the params of the whole, such as ("prior",) or (2,).
        argument: the constructor's argument that holds it.
        inverted: whether it runs backwards.
        event: the event that an inverted piece returns, where it is known.
        copies: the number of copies of its params, stacked along a first axis; None without copies.
        place: its index in the argument, where that is a tuple of values.
        features: where the features of a block begin and end.
    """

    value: Any
    params_at: tuple[Any, ...] = ()
    argument: str = ""
    inverted: bool = False
    event: Shape | None = None
    copies: int | None = None
    place: int | None = None
    features: tuple[int, int] | None = None


class Composite(NamedTuple):
    """Body of a combinator.

    Attributes:
        part: `part(event, context)` makes the part.
        layers: the values within it.
        keywords: keywords of init that it names whatever its layers name.
        order: how the layers are related, one of `ORDERS`.
        pieces: the same values with their places; by default the params are a tuple with an entry for each layer.
        features: the shape of the context that they see, if it is not the context of the whole.
    """

    part: Callable[[Shape, Shape | None], Any]
    layers: tuple[Any, ...]
    keywords: frozenset[str] = frozenset()
    order: str = "opaque"
    pieces: tuple[Piece, ...] = ()
    features: Shape | None = None


class Structure(NamedTuple):
    """Composition of a value; without pieces where it is one layer, or one distribution."""

    order: str = "opaque"
    pieces: tuple[Piece, ...] = ()

    @property
    def of_blocks(self) -> bool:
        """Tells whether the pieces are blocks of features."""
        return self.order in ("joint", "chain rule")

    @property
    def dependent(self) -> bool:
        """Tells whether each piece is a block of features that depends on the blocks before it."""
        return self.order == "chain rule"

    @property
    def of_context(self) -> bool:
        """Tells whether the one piece sees something else that is made of the context."""
        return self.order == "context"

    @property
    def of_components(self) -> bool:
        """Tells whether the pieces are components of a mixture."""
        return self.order == "mixture"

    @property
    def forwards(self) -> bool:
        """Tells whether the pieces are layers that run one after the other, and none backwards."""
        return self.order in ("chain", "loop") and not any(piece.inverted for piece in self.pieces)


def support_by(value: Any) -> Support:
    """The support that a layer declares; a plain closure declares nothing."""
    return getattr(value, "own_support", None) or Support()


def traits_by(value: Any) -> Traits:
    """The traits that a layer or a distribution declares; a plain closure declares none."""
    return getattr(value, "own_traits", None) or Traits()


def features_of(value: Any, context: Shape | None) -> Shape | None:
    """The shape of the context that the distribution within a distribution with a context sees."""
    return context and (value.inner.features or context)


def declares(value: Any, trait: str) -> bool:
    """Tell whether a model declares a trait, or every component of a mixture."""
    structure = structure_of(value)
    if structure.of_components:
        return all(declares(piece.value, trait) for piece in structure.pieces)
    return bool(getattr(traits_by(value), trait))


def opened(value: Any) -> Any:
    """The value that a model is short for; any other value as it is."""
    while hasattr(getattr(value, "inner", None), "inner"):
        value = value.inner
    return value


def structure_of(value: Any) -> Structure:
    """The structure of a value; a model that is short for another value is `opened` first, by the caller."""
    inner = getattr(value, "inner", None)
    if not isinstance(inner, Composite) or inner.order == "opaque":
        return Structure()
    return Structure(inner.order, inner.pieces or tuple([Piece(layer, (i,)) for i, layer in enumerate(inner.layers)]))


def chain(value: Any, at: tuple[Any, ...] = ()) -> list[Piece]:
    """The layers of a bijection, one after the other; a loop counts as one, as do layers within another layout."""
    value = opened(value)
    order, pieces = structure_of(value)
    if order != "chain":
        return [Piece(value, at)]
    steps = list[Piece]()
    for piece in pieces:
        inner_steps = chain(piece.value, (*at, *piece.params_at))
        steps += undone(inner_steps, piece.event) if piece.inverted else inner_steps
    return steps


def undone(steps: Sequence[Piece], event: Shape | None) -> list[Piece]:
    """Layers backwards, from the last to the first; `event` is the input of the first, where it is known."""
    backwards = list[Piece]()
    for step in steps:
        backwards.append(step._replace(inverted=not step.inverted, event=event))
        event = None if event is None else behind([step], event)
    return backwards[::-1]


def behind(steps: Sequence[Piece], event: Shape) -> Shape:
    """The event behind layers of which layouts alone change it: other layers may need a context, and are not made here."""
    for step in steps:
        if support_by(step.value).moves_entries:
            try:
                event = (step.event or event) if step.inverted else step.value.part(event, None).output
            except FlowsError:  # something else has changed it before
                break
    return event


def moves_entries(value: Any) -> bool:
    """Tell whether a bijection is known to do nothing but move entries."""
    value = opened(value)
    pieces = structure_of(value).pieces
    return all(moves_entries(piece.value) for piece in pieces) if pieces else support_by(value).moves_entries


def params_in(params: Any, at: Sequence[Any], copy: int | None = None) -> Any:
    """The params of a piece, or of one of its copies, in the params of the whole."""
    for key in at:
        params = params[key]
    return params if copy is None else jax.tree.map(lambda leaf: leaf[copy], params)


# The path from data to noise

KINDS = {"flow": "bijection", "context": "context"}  # of the stage before the base of a distribution, by its order


class Block(NamedTuple):
    """A block of features of a distribution.

    Attributes:
        piece: its distribution, and the place of that.
        features: where they begin and end.
        part: the part of its distribution.
        before: the regions of the blocks on which it depends.
    """

    piece: Piece
    features: tuple[int, int]
    part: DistributionPart
    before: tuple[Region, ...]

    @property
    def region(self) -> Region:
        return everywhere(self.part.event) if self.part.region is None else self.part.region

    def of(self, x: Array) -> Array:
        """The features of the block, of rows."""
        return x[:, slice(*self.features)]

    def context(self, x: Any, context: Any, xp: Any = jnp) -> Any:
        """The context of the block for rows x, from the features of earlier blocks and the context of the rows."""
        ends = np.cumsum([0, *(region.period.size for region in self.before)])
        numbers = [seen(region, x[:, a:b], xp) for region, (a, b) in zip(self.before, pairwise(ends), strict=True)]
        return joined_context(numbers, context, xp)


class Stage(NamedTuple):
    """Step on the path of points from data to noise.

    Attributes:
        kind: "bijection"; "context", where the context changes for all behind it, by `embed` of its part; "component" of a
            mixture; "block" of features; or "base", which comes last and may be a mixture, or blocks, without a bijection.
        value, params, at: the constructor's value, a plain closure or a `Block`; its params, or None; and their path in the
            params of the model, or of the component or block that the stage is in.
        event, context: the shapes of its input and of its context; None where they are not known.
    """

    kind: str
    value: Any
    params: Any
    at: tuple[Any, ...]
    event: Any
    context: Any

    @property
    def part(self) -> Any:
        return (bijection_part if self.kind == "bijection" else distribution_part)(self.value, self.event, self.context)


def joined_context(numbers: Sequence[Any], context: Any, xp: Any = jnp) -> Any:
    """The inputs of networks for a block: what they see of the blocks before it, then the context."""
    return xp.concatenate([*numbers, *(() if context is None else (context,))], 1) if numbers else context


def blocks_within(value: Any, event: Shape, context: Shape | None) -> list[Block]:
    """The blocks of features of a distribution; none where it is composed in another way."""
    structure = structure_of(opened(value))
    return laid_out(structure, context) if structure.of_blocks else []


def laid_out(structure: Structure, context: Shape | None, places: Sequence[Place] = ()) -> list[Block]:
    """The blocks with their parts. The context of a block that depends on others is what networks see of them."""
    blocks, before, width = list[Block](), tuple[Region, ...](), 0 if context is None else size(context)
    for i, piece in enumerate(structure.pieces):
        a, b = features = piece.features or (0, 0)
        inputs = (width,) if before else context
        with places[i] if places else Place("a block", piece.value, (b - a,)):
            blocks.append(Block(piece, features, distribution_part(piece.value, (b - a,), inputs), before))
        if structure.dependent:
            before, width = (*before, blocks[-1].region), width + num_seen(blocks[-1].region)
    return blocks


def is_flow(value: Any) -> bool:
    """Tell whether a distribution is a `Flow` itself, not a model that is short for one."""
    return structure_of(value).order == "flow"


def has_bijection(value: Any) -> bool:
    """Tell whether some points of a distribution go through a bijection, or their context is standardised."""
    order, pieces = structure_of(opened(value))
    return order in KINDS or any(has_bijection(piece.value) for piece in pieces)


def leading(
    value: Any, params: Any = None, event: Shape | None = None, context: Shape | None = None, *, opening: bool = True
) -> list[Stage]:
    """The bijections and contexts that all points go through, and the base behind them.

    Without `opening`, models that are short for flows, and flows whose context is standardised, count as bases.
    """
    stages, at = list[Stage](), tuple[Any, ...]()
    while True:
        value = opened(value) if opening else value
        order, pieces = structure_of(value)
        kind = KINDS.get(order, "base")
        if kind == "base" or (kind == "context" and not opening):
            return [*stages, Stage("base", value, params, at, event, context)]
        first, base = pieces[0], pieces[-1]
        step, key = (first.value, first.params_at) if kind == "bijection" else (value, ())
        stages.append(Stage(kind, step, None if params is None else params_in(params, key), (*at, *key), event, context))
        event = bijection_part(step, event, context).output if kind == "bijection" and event is not None else event
        context = features_of(value, context) if kind == "context" else context
        value, at = base.value, (*at, *base.params_at)
        params = None if params is None else params_in(params, base.params_at)


def stages(value: Any, params: Any, event: Shape, context: Shape | None) -> Iterator[tuple[Stage, ...]]:
    """Paths from data to noise: one for every component of a mixture, and every block of features with a bijection in it."""
    *first, base = leading(value, params, event, context)
    structure = structure_of(base.value)
    if not has_bijection(base.value):
        yield (*first, base)
    elif structure.of_components:
        for piece in structure.pieces:
            for copy in [None] if piece.copies is None else range(piece.copies):
                known = None if params is None else params_in(base.params, piece.params_at, copy)
                component = Stage("component", piece.value, known, (), base.event, context)
                for rest in stages(piece.value, known, base.event, context):
                    yield (*first, component, *rest)
    else:
        for block in blocks_within(base.value, base.event, context):
            if has_bijection(block.piece.value):
                known = None if params is None else params_in(base.params, block.piece.params_at)
                stage = Stage("block", block, known, (), base.event, context)
                for rest in stages(block.piece.value, known, block.part.event, block.part.context):
                    yield (*first, stage, *rest)
