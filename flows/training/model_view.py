"""The questions of a fit to a model at the shapes of its data, without a row of them; nothing is compiled for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from flows.bijections.composition import layers_of, support_of
from flows.bijections.dequantize import Dequantize
from flows.bijections.whiten import MOST_COLUMNS
from flows.compose import joined
from flows.core import (
    SPHERE,
    BijectionInit,
    Block,
    DistributionInit,
    DistributionPart,
    FlowsError,
    ModelValue,
    Region,
    Shape,
    Value,
    blocks_within,
    distribution_part,
    is_flow,
    leading,
    opened,
    replaced,
    structure_of,
    support_by,
    trainable,
    traits_by,
)
from flows.distributions.flow import STANDARD, Flow
from flows.distributions.normal import Normal

Layers = tuple[BijectionInit, ...]
BEHIND = "so the data cannot be standardised behind it. Put it first, or give standardize=False"


@dataclass(frozen=True)
class ModelView:
    """A model at an event and a context. Answers are worked out when they are asked for, as some models fit no event."""

    init_fun: Any
    event: Shape  # of a row
    context: Shape | None  # the shape of its context
    standardize: bool | str = True  # the option of the fit

    @property
    def columns(self) -> int:
        """The number of columns, or channels."""
        return self.event[-1]

    @cached_property
    def _pieces(self) -> tuple[Layers, Any]:
        return ((), self.init_fun) if self.standardize is False else split_off(self.init_fun, self.event, self.context)

    @property
    def first(self) -> Layers:
        """The layers that rows go through before they are standardised."""
        return self._pieces[0]

    @property
    def rest(self) -> Any:
        """The model behind them."""
        return self._pieces[1]

    @cached_property
    def region(self) -> Region | None:
        """Where its points live. What is wrong with first layers is refused before what is wrong with the whole."""
        _ = self._pieces
        return distribution_part(self.init_fun, self.event, self.context).region

    @property
    def rest_part(self) -> DistributionPart:
        return distribution_part(self.rest, self.event, self.context)

    @cached_property
    def leading(self) -> Layers:
        """Its first layers, also where nothing is standardised; none where rows could not go through them alone."""
        if self.standardize is not False:
            return self.first
        try:
            return split_off(self.init_fun, self.event, self.context)[0]
        except FlowsError:
            return ()

    @property
    def of_sphere(self) -> bool:
        """Tell whether something in it takes unit vectors, also where it has no part at this event."""
        return any(support_by(value).inputs == SPHERE for value in values_of(self.init_fun))

    @cached_property
    def curved(self) -> np.ndarray:
        """Mark columns, or channels, that are angles, coordinates of unit vectors, or codes."""
        return self._columns_where(None if self.region is None else ~self.region.of_line)

    @cached_property
    def coded(self) -> np.ndarray:
        """Mark columns, or channels, that hold codes."""
        return self._columns_where(None if self.region is None else self.region.classes > 0)

    def _columns_where(self, entries: Any) -> np.ndarray:
        return np.zeros(self.columns, bool) if entries is None else entries.reshape(-1, self.columns).any(0)

    @cached_property
    def noise(self) -> list[tuple[Value, np.ndarray]]:
        """The layers that dequantise, each with its columns, or channels."""
        return noise_of(self.init_fun, self.columns)

    @property
    def noisy(self) -> np.ndarray:
        """Mark columns, or channels, that it dequantises itself."""
        noisy: np.ndarray = np.any([np.zeros(self.columns, bool), *(columns for _, columns in self.noise)], axis=0)
        return noisy

    @property
    def clusters(self) -> bool:
        """Tell whether there is a mixture in it, so that clusters suit it."""
        return any(structure_of(value).of_components or traits_by(value).clusters for value in values_of(self.rest))

    @property
    def mixing(self) -> bool:
        """Tell whether each column is freed of all before it, however little these tell: where it was asked for, and for
        densities without a network, to which that does no harm. A mixture of diagonal Gaussians would no longer see clusters
        along columns, and what is given columns as a context has a network for them."""
        networks = has_flow(self.rest) or structure_of(self.rest).order == "chain rule"
        return self.standardize == "whiten" or not (networks or traits_by(self.rest).clusters == "along columns")

    def started(self, shrinkage: float | None) -> Any:
        """The model that is standardised, with a base that starts at the covariance of its rows."""
        return from_gaussian(self.rest, self.event, self.context, shrinkage)


def num_trained(params: Any) -> int:
    """How many numbers are trained."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trainable(params)), strict=True)
    return sum(int(leaf.size) for leaf, trains in pairs if trains)


def values_of(model: Any) -> list[Value]:
    """A model and all values within it; none of a plain closure."""
    return [model, *model.values_within()] if isinstance(model, ModelValue) else []


def has_flow(model: Any) -> bool:
    """Tell whether a model is a flow, or has a block of features that is one."""
    structure = structure_of(model)
    return is_flow(model) or (structure.of_blocks and any(has_flow(piece.value) for piece in structure.pieces))


def noise_of(value: Any, columns: int) -> list[tuple[Value, np.ndarray]]:
    """The layers of a model that dequantise, each with its columns, or channels."""
    structure, within = structure_of(opened(value)), values_of(value)
    found = list[tuple[Value, np.ndarray]]()
    if structure.of_blocks:
        ends = [piece.features or (0, 0) for piece in structure.pieces]
        for piece, (a, b) in zip(structure.pieces, ends, strict=True):
            for layer, features in noise_of(piece.value, b - a):
                of_all = np.pad(features, (a, ends[-1][1] - b))
                found.append((layer, of_all if len(of_all) == columns else np.full(columns, features.any())))
    elif any(structure_of(each).of_blocks for each in within):
        moved = any(support_by(each).moves_entries for each in within)
        for layer, features in (pair for piece in structure.pieces for pair in noise_of(piece.value, columns)):
            found.append((layer, np.full(columns, features.any()) if moved else features))
    else:
        for layer in within:
            if (rounding := traits_by(layer).rounding) is not None:
                steps = np.asarray(rounding.step) > 0
                # Behind a layout there are other channels, and each may be of any of these.
                found.append((layer, np.broadcast_to(steps if steps.shape in ((), (columns,)) else steps.any(), (columns,))))
    return found


def split_off(init_fun: Any, event: Shape, context: Shape | None) -> tuple[Layers, Any]:
    """The first layers of a flow that are defined for the units of the data alone, and the model that is left.

    These are all up to the last that is not defined on the whole line, or that adds noise as wide as a step of the data. Those
    of flows of blocks of features have to be noise.
    """
    if blocks := blocks_within(init_fun, event, context):
        return _noise_of_blocks(init_fun, blocks)
    *way, last = leading(init_fun, opening=False)
    layers, base = [layer for stage in way for layer in layers_of(stage.value)], last.value
    pieces = structure_of(opened(base)).pieces
    if pieces and pieces[-1].features and (noise := split_off(base, (pieces[-1].features[1],), context)[0]):
        raise FlowsError(f"fit: {noise[0]!r:.80}, of blocks of features, comes after {layers[-1].bijection!r:.60}, {BEHIND}")
    deciding = max((i + 1 for i, layer in enumerate(layers) if traits_by(layer.value).rounding is not None), default=0)
    try:
        deciding = max(deciding, support_of(layers, event, context)[2])
        # Standardised values may lie anywhere, also where what bounded them before was enough for a later layer.
        while deciding and (more := support_of(layers[deciding:], event, context)[2]):
            deciding += more
    except FlowsError as error:
        raise FlowsError(f"fit: {error}, {BEHIND}") from None
    for layer in layers[:deciding]:
        if not layer.declared.entrywise:
            last_layer = layers[deciding - 1].bijection
            why = "which trains, mixes or moves entries"
            raise FlowsError(f"fit: {last_layer!r:.60} comes after {layer.bijection!r:.60}, {why}, {BEHIND}")
    bijections = tuple(layer.bijection for layer in layers)
    if not deciding:
        return (), init_fun
    return bijections[:deciding], Flow(joined(bijections[deciding:]), base) if bijections[deciding:] else base


def _noise_of_blocks(model: Any, blocks: Sequence[Block]) -> tuple[Layers, Any]:
    """The noise that flows of blocks add to their features, as layers of all features, and the model that is left."""
    steps_of = dict[int | None, np.ndarray]()  # by the number of levels
    for block in blocks:
        first, left = split_off(block.piece.value, block.part.event, block.part.context)
        for layer in first:
            if (rounding := traits_by(layer).rounding) is None:
                raise FlowsError(
                    f"fit: {layer!r:.60} of {block.piece.value!r:.80}, a block of features, is defined for the units of the "
                    "data alone, so these cannot be standardised behind it. Give support=, put a layer of all features in "
                    "front of the blocks, or give standardize=False"
                )
            steps = steps_of.setdefault(rounding.levels, np.zeros(blocks[-1].features[1]))
            steps[slice(*block.features)] = rounding.step
        model = replaced(model, block.piece.params_at, left)
    return tuple(Dequantize(tuple(steps), levels) for levels, steps in steps_of.items()), model


def from_gaussian(model: Any, event: Shape, context: Shape | None, shrinkage: float | None) -> Any:
    """A flow whose base is the standard normal, or such blocks of features, with a base that starts at the covariance of the
    rows."""
    for block in blocks_within(model, event, context):
        started = from_gaussian(block.piece.value, block.part.event, block.part.context, shrinkage)
        model = replaced(model, block.piece.params_at, started)
    conditional = context is not None and math.prod(context) <= MOST_COLUMNS
    if not is_flow(model) or len(event) != 1 or event[0] > MOST_COLUMNS or (event == (1,) and not conditional):
        return model
    base = Normal(trainable=True, regression=conditional)
    if event[0] > 1:
        base = Normal(trainable=True, covariance="full", shrinkage=shrinkage, regression=conditional)
    return with_base(model, base)


def with_base(model: Any, base: DistributionInit) -> Any:
    """A flow whose base is the standard normal, with another one; any other model as it is."""
    if not is_flow(model):
        return base if model == STANDARD else model
    prior = structure_of(model).pieces[1]
    return replaced(model, prior.params_at, with_base(prior.value, base))
