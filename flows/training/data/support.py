"""The layers that rows go through before they are standardised, and the region where points of a model live. Rows, supports and
models that do not go together are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.bijections.composition import PlacedStep, layers_of, support_of
from flows.bijections.degrees import told_of_degrees
from flows.bijections.dequantize import Dequantize
from flows.bijections.unconstrain import Unconstrain
from flows.compose import joined
from flows.core import (
    MOST_TURNS,
    NEAR_END,
    OF_BLOCKS,
    OFF_SPHERE,
    SPHERE,
    BijectionInit,
    Block,
    DistributionInit,
    FlowsError,
    ModelValue,
    Region,
    Shape,
    Value,
    blocks_of,
    blocks_within,
    distribution_part,
    leading,
    opened,
    replaced,
    structure_of,
    support_by,
    traits_by,
    warn_user,
)
from flows.distributions.flow import Flow
from flows.training.data.dependence import COARSE
from flows.training.data.gaussian import moments
from flows.training.data.table import DataWarning, Split, Table, place_of

# Of a standard deviation, what is lost of a column in its distance to an end: from there on few draws are unlike each other,
# and scores are off by a hundredth of a nat and soon by a nat.
TOO_COARSE = 0.03
TURNS = 3  # that an angle may span before it is taken for another unit


def split_off(init_fun: Any, event: Shape, context: Shape | None) -> tuple[tuple[BijectionInit, ...], Any]:
    """The first layers of a flow that are defined for the units of the data alone, and the model that is left.

    These are all up to the last that is not defined on the whole line, or that adds noise as wide as a step of the data. Those
    of flows of blocks of features have to be noise.
    """
    if blocks := blocks_within(init_fun, event, context):
        return _noise_of_blocks(init_fun, blocks)
    *way, last = leading(init_fun, opening=False)
    layers, base = [layer for stage in way for layer in layers_of(stage.value)], last.value
    _refuse_noise_behind(layers, base, context)
    deciding = max((i + 1 for i, layer in enumerate(layers) if adds_noise(layer)), default=0)
    remedy = "so the data cannot be standardised behind it. Put it first, or give standardize=False"
    try:
        deciding = max(deciding, support_of(layers, event, context)[2])
        # Standardised values may lie anywhere, also where what bounded them before was enough for a later layer.
        while deciding and (more := support_of(layers[deciding:], event, context)[2]):
            deciding += more
    except FlowsError as error:
        raise FlowsError(f"fit: {error}, {remedy}") from None
    for layer in layers[:deciding]:
        if not layer.declared.entrywise:
            last = layers[deciding - 1].bijection
            why = "which trains, mixes or moves entries"
            raise FlowsError(f"fit: {last!r:.60} comes after {layer.bijection!r:.60}, {why}, {remedy}")
    if not deciding:
        return (), init_fun
    rest = [layer.bijection for layer in layers[deciding:]]
    left = Flow(joined(rest), base) if rest else base
    return tuple(layer.bijection for layer in layers[:deciding]), left


def _refuse_noise_behind(layers: Sequence[PlacedStep], base: Any, context: Shape | None) -> None:
    """Refuse noise, as wide as a step of the data, of blocks of features that lie behind layers."""
    pieces = structure_of(opened(base)).pieces
    if pieces and pieces[-1].features and (noise := split_off(base, (pieces[-1].features[1],), context)[0]):
        raise FlowsError(
            f"fit: {noise[0]!r:.80}, of blocks of features, comes after {layers[-1].bijection!r:.60}, so the data cannot be "
            "standardised behind it. Put it first, or give standardize=False"
        )


def _noise_of_blocks(model: Any, blocks: Sequence[Block]) -> tuple[tuple[BijectionInit, ...], Any]:
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


def adds_noise(layer: PlacedStep) -> bool:
    return traits_by(layer.value).rounding is not None


def own_noise(init_fun: Any, columns: int) -> np.ndarray:
    """Which columns, or channels, a model dequantises itself."""
    order, pieces = structure_of(opened(init_fun))
    if order in OF_BLOCKS:
        sizes = [b - a for a, b in (piece.features or (0, 0) for piece in pieces)]
        of_blocks = np.concatenate([own_noise(piece.value, size) for piece, size in zip(pieces, sizes, strict=True)])
        return of_blocks if len(of_blocks) == columns else np.full(columns, of_blocks.any())
    within = [init_fun, *init_fun.values_within()] if isinstance(init_fun, ModelValue) else []
    if any(structure_of(value).order in OF_BLOCKS for value in within):
        of_pieces = np.any([own_noise(piece.value, columns) for piece in pieces], 0)
        moved = any(support_by(value).moves_entries for value in within)
        return np.full(columns, of_pieces.any()) if moved else of_pieces
    noisy = np.zeros(columns, bool)
    for value in within:
        if (rounding := traits_by(value).rounding) is not None:
            steps = np.asarray(rounding.step) > 0
            # Behind a layout there are other channels, and each may be of any of these.
            noisy |= steps if steps.shape in ((), (columns,)) else steps.any()
    return noisy


def check_noise_once(init_fun: Any, labels: Sequence[str], ends: Region | None, steps: np.ndarray | None, caller: str) -> None:
    """Refuse what `dequantize=` and `support=` would put before a model's own Dequantize: noise again, or logits."""
    columns = len(labels)
    noisy, bounded = own_noise(init_fun, columns), np.zeros(columns, bool)
    if ends is not None:
        bounded |= np.isfinite(ends.low) | np.isfinite(ends.high)
    twice = noisy & (np.zeros(columns) if steps is None else steps).astype(bool)
    for wrong, refuse in ((bounded & noisy, _noise_on_logits), (twice, _noise_twice)):
        if wrong.any():
            column = int(np.argmax(wrong))
            raise FlowsError(f"{caller}: {refuse(labels[column], _layer_of_noise(init_fun, column))}")


def _layer_of_noise(model: Any, column: int) -> Value:
    """The layer of a model that dequantises a column."""
    for piece in structure_of(opened(model)).pieces:
        if piece.features and piece.features[0] <= column < piece.features[1]:
            return _layer_of_noise(piece.value, column - piece.features[0])
    layer: Value = next(value for value in model.values_within() if traits_by(value).rounding is not None)
    return layer


def _noise_twice(what: str, layer: Value) -> str:
    return (
        f"dequantize= adds noise to {what}, and so does {layer!r:.60} of the model: expected it once. "
        "Leave dequantize= out: the model dequantises itself"
    )


def _noise_on_logits(what: str, layer: Value) -> str:
    step, levels = traits_by(layer).rounding or (0.0, None)
    ends = "(low, high), the least and the largest value that is recorded"
    if levels is not None and not isinstance(step, Sequence):
        ends = f"(0, {(levels - 1) * step:g})"
    return (
        f"support= takes {what} to the line before {layer!r:.60} of the model adds noise, which is as wide as a step of the "
        f"data. Leave that layer out, and give dequantize={step}, support={ends}; or leave support= and dequantize= out, "
        "and put flows.Unconstrain behind that layer"
    )


def ends_of(support: Any, columns: int, names: tuple[str, ...] | None = None) -> Region | None:
    """The ends of each column that `support=` gives, infinite where a side is open."""
    if support is None:
        return None
    low, high = np.full(columns, -np.inf), np.full(columns, np.inf)
    if isinstance(support, list) and len(support) == columns and all(isinstance(pair, tuple) for pair in support):
        support = dict(enumerate(support))
    if isinstance(support, Mapping):
        for column, pair in support.items():
            at = place_of(column, columns, names, "support has")
            low[at], high[at] = _pair(pair, f"column {column!r} of support", ())
    else:
        low[:], high[:] = _pair(support, "support", (columns,))
    return Region(low, high)


def box_layer(ends: Region, steps: np.ndarray | None) -> BijectionInit:
    """The layer that takes a box to the whole line, half a step wider where columns are dequantised."""
    low, high = ends
    if steps is not None:
        low, high = low - steps / 2, high + steps / 2
    return Unconstrain(*(float(end[0]) if (end == end[0]).all() else tuple(end) for end in (low, high)))


def _pair(pair: Any, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    or_several = f", or of {shape[0]} numbers each," if shape else ","
    expected = f"a pair (low, high) of numbers{or_several} -inf or inf where a side is open"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise FlowsError(f"fit: {name} is {pair!r:.80}; expected {expected}")
    ends = []
    for end, missing in zip(pair, (-np.inf, np.inf), strict=True):
        try:
            value = np.asarray(missing if end is None else end, float)
        except (TypeError, ValueError):
            raise FlowsError(f"fit: {name} is {pair!r:.80}; expected {expected}") from None
        if value.shape not in {(), shape} or np.isnan(value).any():
            raise FlowsError(f"fit: {name} is {pair!r:.80}; expected {expected}")
        ends.append(value)
    if not (ends[0] < ends[1]).all():
        raise FlowsError(f"fit: {name} is {pair!r:.80}; expected low < high")
    return ends[0], ends[1]


def region_of(init_fun: Any, table: Table) -> Region | None:
    """Where the points of a model live, as far as it is told."""
    return distribution_part(init_fun, table.event, table.context_event).region


def check_degrees(init_fun: Any, table: Table, caller: str = "fit") -> None:
    """Refuse two columns of degrees where a model is one of the sphere, which may have no part at such an event."""
    within = [init_fun, *init_fun.values_within()] if isinstance(init_fun, DistributionInit) else []
    if table.event == (2,) and any(isinstance(value, ModelValue) and value.own_support.inputs == SPHERE for value in within):
        degrees = told_of_degrees(np.asarray(table.x), table.labels)
        if degrees:
            raise FlowsError(f"{caller}: data has 2 columns, and {init_fun!r:.80} takes unit vectors: {degrees}")


def curved_columns(region: Region | None, split: Split, caller: str = "fit") -> np.ndarray:
    """Which columns, or channels, are angles, coordinates of unit vectors or codes; rows that are no unit vectors, or hold what
    is no code, are refused."""
    labels = split.train.labels
    columns = len(labels)
    if region is None or region.flat:
        return np.zeros(columns, bool)
    _check_codes(region, split, caller)
    for block in blocks_of(region.sphere):
        for table in split.tables:
            squared = np.square(np.asarray(table.x, float)[:, block]).sum(1)
            off = np.abs(squared - 1) > OFF_SPHERE
            if off.any():
                row = int(np.argmax(off))
                which = ", ".join(labels[i].removeprefix("column ") for i in block)
                degrees = told_of_degrees(np.asarray(table.x)[:, block], [labels[i] for i in block])
                raise FlowsError(
                    f"{caller}: row {table.numbers[row]} of {table.source} is no point of the sphere: the squares of its "
                    f"columns {which} add up to {squared[row]:.6g}; of {len(off)} rows {int(off.sum())} are off it. Expected "
                    "unit vectors: " + (degrees or "divide each row by its norm, or give a model of the line")
                )
        vectors = np.asarray(split.train.x)[:, block]
        if (vectors == vectors[:1]).all():
            which = ", ".join(labels[i].removeprefix("column ") for i in block)
            one = ", ".join(f"{coordinate:.6g}" for coordinate in vectors[0])
            raise FlowsError(
                f"{caller}: columns {which} of data are constant, the unit vector ({one}) in all {len(vectors)} training rows, "
                "so they have no density. Leave them out, or add noise the size of their recorded step"
            )
    return (~region.of_line).reshape(-1, columns).any(0)


def coded_columns(region: Region | None, columns: int) -> np.ndarray:
    """Which columns, or channels, hold codes."""
    return np.zeros(columns, bool) if region is None else (region.classes > 0).reshape(-1, columns).any(0)


def _check_codes(region: Region, split: Split, caller: str) -> None:
    """Refuse what is no code where the model has one."""
    for entry in map(tuple, np.argwhere(region.classes)):
        classes = int(region.classes[entry])
        for table in split.tables:
            column = np.asarray(table.x[(slice(None), *entry)])
            wrong = (column < 0) | (column >= classes) | (column != np.floor(column))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise FlowsError(
                    f"{caller}: {table.labels[entry[-1]]} of {table.source} is {column[row]:.6g} in row {table.numbers[row]}, "
                    f"which is no code; expected whole numbers 0 to {classes - 1}, one for each category. Of {len(wrong)} rows "
                    f"{int(wrong.sum())} are so: give them a code, or drop them"
                )


def turn_of(region: Region | None, split: Split) -> np.ndarray | None:
    """Where the turn begins on which the data give each angle, of the shape of the event, 0 for what is none; None without any.

    It is [0, period) where that holds all rows, then [-period / 2, period / 2), then another that begins at a multiple of half
    a period; else it begins at the least of them. Around 0 it is where they span more than a turn, which tells nothing.
    """
    if region is None or not np.any(region.period):
        return None
    rows = [np.asarray(table.x) for table in split.tables]
    least = np.min([x.min(0) for x in rows], 0).astype(float)
    most = np.max([x.max(0) for x in rows], 0).astype(float)
    period = np.where(region.period > 0, region.period, 1.0)
    slack, half = NEAR_END * period, period / 2
    turn = -half
    for low in (least, np.floor((least + slack) / half) * half, -half, np.zeros_like(half)):  # the last that holds all is taken
        turn = np.where((least >= low - slack) & (most <= low + period + slack), low, turn)
    known = (region.period > 0) & (np.abs(turn) <= MOST_TURNS * period)
    return np.where(region.period > 0, np.where(known, turn, -half), 0.0)


def tell_of_curved(curved: np.ndarray, region: Region | None, table: Table, caller: str) -> None:
    """Say which angles look like degrees. That columns of circles and spheres stay as they are is what their model asks for."""
    if region is None:
        return
    for i in map(int, np.flatnonzero(curved)):
        period, spread = float(region.period[..., i].max()), float(np.ptp(table.x[..., i]))
        if period and spread > TURNS * period:
            warn_user(
                f"{caller}: {table.labels[i]} spans {spread:.4g}, {spread / period:.0f} turns of "
                f"{period:.4g}: are these degrees? Give radians, or transformers and a base of their period"
            )


def check_inside(split: Split, before: Sequence[BijectionInit]) -> None:
    """Refuse rows outside the region where the layers are defined, and name one."""
    region = _defined(before, split.train)
    if np.isneginf(region.low).all() and np.isposinf(region.high).all():
        return
    for table in split.tables:
        outside = (table.x < region.low) | (table.x > region.high)  # no float64 copy of images
        if outside.any():
            raise _refusal(table, outside, region, "outside")


def check_ends_are_near(table: Table, layers: Sequence[BijectionInit], ends: Region | None) -> None:
    """Refuse ends so far from the data that the distance to them keeps no digits of how these vary; warn where it keeps few."""
    x, dtype = table.x, table.dtype
    region = _defined(layers, table) if ends is None else ends
    if x.ndim != 2 or not np.isfinite(np.stack(np.broadcast_arrays(*region))).any():
        return
    mean, std = moments(x, table.weights)
    for j in map(int, np.flatnonzero(std > 0)):
        low, high = (float(end[j]) for end in region)
        near = min(abs(low - mean[j]), abs(high - mean[j]))
        lost, times = near * np.finfo(dtype).eps / std[j], near / std[j]
        if not COARSE < lost < np.inf or abs(mean[j]) * np.finfo(dtype).eps > COARSE * std[j]:  # of those, others tell
            continue
        message = (
            f"fit: the support of {table.labels[j]} is ({low:.6g}, {high:.6g}), whose nearer end is {times:.2g} "
            f"standard deviations from the data: {dtype.name} keeps"
        )
        remedy = "Leave support out for it, or give ends near the data"
        if lost > TOO_COARSE:
            raise FlowsError(f"{message} too few digits of how the data vary. {remedy}")
        warn_user(f"{message} few digits of how the data vary. {remedy}", DataWarning)


def check_finite_behind(table: Table, y: np.ndarray, before: Sequence[BijectionInit]) -> None:
    """Refuse rows that the layers take to infinity, as y: values at an end."""
    bad = ~np.isfinite(y)
    if bad.any():
        raise _refusal(table, bad, _defined(before, table), "at an end of")


def _defined(before: Sequence[BijectionInit], table: Table) -> Region:
    """Where these layers are defined."""
    return support_of([layer for bijection in before for layer in layers_of(bijection)], table.event)[0]


def _refusal(table: Table, bad: np.ndarray, region: Region, where: str) -> FlowsError:
    row, *entry = (int(i) for i in np.argwhere(bad)[0])
    low, high = (float(end[tuple(entry)]) for end in region)
    what = table.labels[entry[0]] if len(entry) == 1 else f"entry {tuple(entry)}"
    remedy = (
        "Widen the support, drop such rows, or give dequantize= if values were rounded"
        if where != "outside"
        else "Correct the support, drop such rows, or leave out the layer that is defined there alone"
    )
    value = float(table.x[(row, *entry)])
    return FlowsError(
        f"fit: {what} of {table.source} is {value:.6g} in row {table.numbers[row]}, {where} ({low:.6g}, {high:.6g}), where the "
        f"model is defined; {int(bad.any(tuple(range(1, bad.ndim))).sum())} rows are. {remedy}"
    )
