"""Facts of a model that a fit asks for, at the shapes of its data. No rows are needed, and nothing is compiled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from flows.bijections.composition import layers_of, support_of
from flows.bijections.noise import Dequantize
from flows.bijections.whiten import MOST_COLUMNS
from flows.compose import joined
from flows.core import (
    COLUMN,
    SPHERE,
    BijectionInit,
    Block,
    DistributionInit,
    DistributionPart,
    FlowsError,
    Piece,
    Region,
    Shape,
    Value,
    bijection_part,
    blocks_within,
    chain,
    declares,
    distribution_part,
    everywhere,
    features_of,
    is_flow,
    leading,
    opened,
    replaced,
    structure_of,
    support_by,
    trainable,
    traits_by,
    warn_user,
)
from flows.distributions.directional import CircularUniform, SphereUniform, VonMises, VonMisesFisher
from flows.distributions.flow import STANDARD, Flow
from flows.distributions.normal import Normal
from flows.distributions.polar import MOST_CHAINED

Layers = tuple[BijectionInit, ...]
BEHIND = "so the data cannot be standardised behind it. Put it first, or give standardize=False"


@dataclass(frozen=True)
class ModelView:
    """A model at an event and a context. Its facts are computed on demand, as some models do not fit the event."""

    init_fun: Any
    event: Shape  # of a row
    context: Shape | None  # of its context
    standardize: bool | str = True  # the option of the fit
    known: tuple[Layers, Any] | None = None  # the first layers and the model behind all layers in front of it, of a result

    @property
    def prepares(self) -> bool:
        """Tell whether the model scales its columns itself, so that nothing is put in front of it."""
        return declares(self.init_fun, "prepares")

    @property
    def has_roles(self) -> bool:
        """Tell whether its context says which values of a row are there."""
        return declares(self.init_fun, "roles") and self.context is not None

    @property
    def columns(self) -> int:
        """The number of columns, or channels."""
        return self.event[-1]

    @cached_property
    def _split(self) -> tuple[Layers, Any]:
        if self.known is not None:
            return self.known
        return ((), self.init_fun) if self.standardize is False else split_off(self.init_fun, self.event, self.context)

    @property
    def first(self) -> Layers:
        """The layers that rows go through before they are standardised."""
        return self._split[0]

    @property
    def rest(self) -> Any:
        """The model behind the first layers."""
        return self._split[1]

    @cached_property
    def region(self) -> Region | None:
        """The region of its points. Errors of the first layers are raised before errors of the whole model."""
        _ = self._split
        return distribution_part(self.init_fun, self.event, self.context).region

    @property
    def rest_part(self) -> DistributionPart:
        return distribution_part(self.rest, self.event, self.context)

    @cached_property
    def leading(self) -> Layers:
        """Its first layers, also where nothing is standardised; empty where rows cannot go through them alone."""
        if self.standardize is not False:
            return self.first
        try:
            return split_off(self.init_fun, self.event, self.context)[0]
        except FlowsError:
            return ()

    @property
    def spherical(self) -> bool:
        """Tell whether some layer or base takes unit vectors, also where the model does not fit this event."""
        return any(support_by(value).inputs == SPHERE for value in values_of(self.init_fun))

    @cached_property
    def curved(self) -> np.ndarray:
        """Mark columns, or channels, that are not numbers of the line: angles, coordinates of unit vectors, codes, counts."""
        return self._columns_where(None if self.region is None else ~self.region.of_line)

    @cached_property
    def coded(self) -> np.ndarray:
        """Mark columns, or channels, that hold codes or whole numbers."""
        return self._columns_where(None if self.region is None else self.region.discrete)

    def _columns_where(self, entries: Any) -> np.ndarray:
        return np.zeros(self.columns, bool) if entries is None else entries.reshape(-1, self.columns).any(0)

    @cached_property
    def noise(self) -> list[tuple[Value, np.ndarray]]:
        """The layers that dequantise, each with its columns, or channels."""
        return noise_of(self.init_fun, self.columns)

    @property
    def noisy(self) -> np.ndarray:
        """Mark columns, or channels, that the model itself dequantises, or that may have values in place of gaps."""
        noisy: np.ndarray = np.any([np.full(self.columns, self.has_roles), *(columns for _, columns in self.noise)], axis=0)
        return noisy

    @property
    def clusters(self) -> bool:
        """Tell whether the model has a mixture, so that clusters suit it."""
        return any(structure_of(value).of_components or traits_by(value).clusters for value in values_of(self.rest))

    @property
    def mixing(self) -> bool:
        """Tell whether each column is whitened by all columns before it, however weakly it depends on them: on request, and for
        densities without a network, which it does not harm. In a mixture of diagonal Gaussians it would hide clusters along
        columns, and a model of the chain rule has networks for this."""
        networks = has_flow(self.rest) or structure_of(self.rest).dependent
        return self.standardize == "whiten" or not (networks or traits_by(self.rest).clusters == "along columns")

    def started(self, shrinkage: float | None, concentrated: bool) -> Any:
        """Return the model behind the first layers, with a base that starts at the covariance of its rows, or at the von Mises
        of angles, or at the von Mises-Fisher of unit vectors if these are `concentrated`."""
        return from_gaussian(self.rest, self.event, self.context, shrinkage, concentrated)


def warn_of_one_column(view: ModelView, caller: str) -> None:
    """Warn of a flow of one column without a context whose networks see nothing: it only stretches a base without params."""
    of_one = view.event == COLUMN and view.context is None and is_flow(view.rest)
    if not of_one or view.rest_part.closures or not view.rest_part.compiled:
        return
    *way, base = leading(view.rest)
    fixed = not jax.tree.leaves(distribution_part(base.value, COLUMN, None).abstract_params())
    networks = any(value.arguments.get("conditioner") is not None for stage in way for value in values_of(stage.value))
    if fixed and networks and all(_is_affine(layer.value) for stage in way for layer in chain(stage.value)):
        warn_user(
            f"{caller}: {view.rest!r:.80} only moves and stretches one column, as its networks see no other: the density "
            f"keeps the shape of {base.value!r:.60}. Give flows.Flow(flows.NSF()), whose splines bend a single column"
        )


def _is_affine(bijection: Any) -> bool:
    """Tell whether the log-det of a bijection of one column does not depend on its input, as its program shows."""
    part = bijection_part(bijection, COLUMN, None)
    params = part.abstract_params()
    rows = jax.ShapeDtypeStruct((1, *COLUMN), next((leaf.dtype for leaf in jax.tree.leaves(params)), np.dtype(np.float32)))
    program = jax.make_jaxpr(lambda x, params: part.direct(params, x, None, None, False)[1])(rows, params)
    return part.output == COLUMN and not dce_jaxpr(program.jaxpr, [True])[1][0]


def num_trained(params: Any) -> int:
    """Return how many numbers are trained."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trainable(params)), strict=True)
    return sum(int(leaf.size) for leaf, trains in pairs if trains)


def values_of(model: Any) -> list[Value]:
    """Return a model and all values within it; an empty list for a plain closure."""
    return [model, *model.values_within()] if isinstance(model, Value) else []


def has_flow(model: Any) -> bool:
    """Tell whether a model is a flow, or has a block of features that is a flow, or is as flexible as one, whatever is made of
    its context."""
    structure, flexible = structure_of(model), is_flow(model) or declares(model, "prepares")
    within = structure.of_blocks or structure.of_context
    return flexible or (within and any(has_flow(piece.value) for piece in structure.pieces))


def noise_of(value: Any, columns: int) -> list[tuple[Value, np.ndarray]]:
    """Return the layers of a model that dequantise, each with its columns, or channels."""
    structure, within = structure_of(opened(value)), values_of(value)
    pairs = list[tuple[Value, np.ndarray]]()
    if structure.of_blocks:
        ends = [piece.features or (0, 0) for piece in structure.pieces]
        for piece, (a, b) in zip(structure.pieces, ends, strict=True):
            for layer, features in noise_of(piece.value, b - a):
                padded = np.pad(features, (a, ends[-1][1] - b))
                pairs.append((layer, padded if len(padded) == columns else np.full(columns, features.any())))
    elif any(structure_of(inner).of_blocks for inner in within):
        moved = any(support_by(inner).moves_entries for inner in within)
        for layer, features in (pair for piece in structure.pieces for pair in noise_of(piece.value, columns)):
            pairs.append((layer, np.full(columns, features.any()) if moved else features))
    else:
        for layer in within:
            if (rounding := traits_by(layer).rounding) is not None:
                steps = np.asarray(rounding.step) > 0
                # Behind a layout there are other channels, and each may come from any of these.
                pairs.append((layer, np.broadcast_to(steps if steps.shape in ((), (columns,)) else steps.any(), (columns,))))
    return pairs


def split_off(init_fun: Any, event: Shape, context: Shape | None) -> tuple[Layers, Any]:
    """Split a flow into the first layers, which need the units of the data, and the remaining model.

    The first layers end with the last layer that is not defined on the whole line, or that adds noise as wide as a step of the
    data. In flows of blocks of features they can only be noise.
    """
    if blocks := blocks_within(init_fun, event, context):
        return _noise_of_blocks(init_fun, blocks)
    if structure_of(init_fun).of_context:
        (inner,) = structure_of(init_fun).pieces
        first, left = split_off(inner.value, event, features_of(init_fun, context))
        return first, replaced(init_fun, inner.params_at, left)
    *way, last = leading(init_fun, opening=False)
    layers, base = [layer for stage in way for layer in layers_of(stage.value)], last.value
    pieces = structure_of(opened(base)).pieces
    if pieces and pieces[-1].features and (noise := split_off(base, (pieces[-1].features[1],), context)[0]):
        raise FlowsError(f"fit: {noise[0]!r:.80}, of blocks of features, comes after {layers[-1].bijection!r:.60}, {BEHIND}")
    deciding = max((i + 1 for i, layer in enumerate(layers) if traits_by(layer.value).rounding is not None), default=0)

    def lives(event: Shape) -> Region:
        return distribution_part(base, event, context).region or everywhere(event)

    try:
        deciding = max(deciding, support_of(layers, event, context, lives)[2])
        # Standardised values may lie anywhere, also where what bounded them before was enough for a later layer.
        while deciding and (more := support_of(layers[deciding:], event, context, lives)[2]):
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
    """Return the noise of flows of blocks of features, as layers of all features, and the remaining model."""
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


def from_gaussian(model: Any, event: Shape, context: Shape | None, shrinkage: float | None, concentrated: bool = True) -> Any:
    """Replace the base of a flow, or of flows of blocks, if it is the standard normal or uniform on circles or a sphere, by one
    that starts at the covariance of the rows, at a von Mises or at a von Mises-Fisher."""
    if structure_of(model).of_context:
        (inner,) = structure_of(model).pieces
        started = from_gaussian(inner.value, event, features_of(model, context), shrinkage, concentrated)
        return replaced(model, inner.params_at, started)
    for block in blocks_within(model, event, context):
        started = from_gaussian(block.piece.value, block.part.event, block.part.context, shrinkage, concentrated)
        model = replaced(model, block.piece.params_at, started)
    if not is_flow(model) or len(event) != 1 or event[0] > MOST_COLUMNS:
        return model
    base = model
    while is_flow(base):
        base = structure_of(base).pieces[1].value
    conditional = context is not None and math.prod(context) <= MOST_COLUMNS
    if base == STANDARD:
        return with_base(model, _started_normal(event[0], conditional, shrinkage), base)
    if base == SphereUniform():
        started = VonMisesFisher(trainable=True, regression=conditional) if concentrated else base
        return with_base(model, started, base)
    return with_base(model, _started_angles(base, event[0], conditional, MOST_CHAINED * (context is None)), base)


def _started_normal(columns: int, conditional: bool, shrinkage: float | None) -> DistributionInit:
    if columns > 1:
        return Normal(trainable=True, covariance="full", shrinkage=shrinkage, regression=conditional)
    return Normal(trainable=True, regression=True) if conditional else STANDARD


def _started_angles(base: Any, columns: int, conditional: bool, chained: int) -> Any:
    """Return a base that starts at the rows in place of one that is uniform on circles, or has such blocks in a `Joint`; any
    other base as it is. Each of up to `chained` angles starts at its regression on the angles before it."""
    pieces = structure_of(base).pieces if structure_of(base).order == "joint" else (Piece(base, features=(0, columns)),)
    ends = [piece.features or (0, 1) for piece in pieces]
    periods = tuple(_period_of_uniform(piece.value) for piece, (a, b) in zip(pieces, ends, strict=True) for _ in range(a, b))
    if all(periods):
        period = periods[0] if len(set(periods)) == 1 else periods
        return VonMises(trainable=True, period=period, regression="chain" if 1 < columns <= chained else conditional)
    for piece, (a, b) in zip(pieces, ends, strict=True):
        if piece.params_at:
            base = replaced(base, piece.params_at, _started_angles(piece.value, b - a, conditional, chained))
    return base


def _period_of_uniform(base: Any) -> float:
    """Return the period of a base that is uniform on circles; 0 for any other base."""
    period = support_by(base).inputs.period
    return period if isinstance(period, float) and period > 0 and base == CircularUniform(period) else 0.0


def with_base(model: Any, base: DistributionInit, standard: Any = STANDARD) -> Any:
    """Replace the base of a flow if it is `standard`, by default the standard normal; return any other model as it is."""
    if not (is_flow(model) or structure_of(model).of_context):
        return base if model == standard else model
    prior = structure_of(model).pieces[-1]
    return replaced(model, prior.params_at, with_base(prior.value, base, standard))
