"""The path of points from data to noise: one walk over a model, with or without its params, for every caller."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from flows.core.contract import Array, Shape
from flows.core.errors import Place
from flows.core.inputs import size
from flows.core.lifting import bijection_part, distribution_part
from flows.core.parts import DistributionPart
from flows.core.structure import Piece, Structure, opened, params_in, structure_of
from flows.core.support import Region, everywhere, num_seen, seen

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
        kind: "bijection"; "context", where a context is standardised for all behind it; "component" of a mixture; "block" of
            features; or "base", which comes last and may be a mixture, or blocks, without a bijection in them.
        value: the constructor's value, or a plain closure; for a block its `Block`; for a context None.
        params: its params, or, for a context, what standardises it; None for a model without params.
        at: the path to them in the params of the model, or of the component or block that the stage is in.
        event, context: the shapes of its input and of its context; None where they are not known.
    """

    kind: str
    value: Any
    params: Any
    at: tuple[Any, ...]
    event: Any
    context: Any


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
        bijection, key = (first.value, first.params_at) if kind == "bijection" else (None, ("fixed",))
        known = None if params is None else params_in(params, key)
        stages.append(Stage(kind, bijection, known, (*at, *key), event, context))
        if bijection is not None and event is not None:
            event = bijection_part(bijection, event, context).output
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
