"""The region of rows: the box of a support, unit vectors, codes and angles; checks of rows, ends and noise against it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.bijections.bounds import Unconstrain
from flows.bijections.composition import layers_of, support_of
from flows.bijections.degrees import told_of_degrees
from flows.core import OFF_SPHERE, BijectionInit, FlowsError, Region, Shape, blocks_of, traits_by, warn_user
from flows.training.data.copies import COARSE
from flows.training.data.gaussian import moments
from flows.training.data.table import Split, Table, warn_of_data
from flows.training.model_view import ModelView
from flows.training.options import place_of

# The error of the distance to an end, in standard deviations. Beyond it draws coincide, and scores are off by a hundredth of a
# nat and soon by a nat.
TOO_COARSE = 0.03
TURNS = 3  # an angle that spans more may be in another unit


def check_points(view: ModelView, split: Split) -> None:
    """Refuse rows that are not points of a model, such as degrees or wrong codes, and a model that does not fit the rows."""
    table, labels = split.train, split.train.labels
    # A model of the sphere may not fit an event of two columns.
    if view.event == (2,) and view.spherical and (degrees := told_of_degrees(np.asarray(table.x), labels)):
        raise FlowsError(f"fit: data has 2 columns, and {view.init_fun!r:.80} takes unit vectors: {degrees}")
    region = view.region
    if region is None or region.flat:
        return
    _check_codes(region, split)
    for block in blocks_of(region.sphere):
        which = ", ".join(labels[i].removeprefix("column ") for i in block)
        for table in split.tables:
            squared = np.square(np.asarray(table.x, float)[:, block]).sum(1)
            off = np.abs(squared - 1) > OFF_SPHERE
            if off.any():
                row = int(np.argmax(off))
                degrees = told_of_degrees(np.asarray(table.x)[:, block], [labels[i] for i in block])
                raise FlowsError(
                    f"fit: row {table.numbers[row]} of {table.source} is not a point of the sphere: the squares of "
                    f"its columns {which} add up to {squared[row]:.6g}; {int(off.sum())} of {len(off)} rows are off it. "
                    "Expected unit vectors: " + (degrees or "divide each row by its norm, or give a model of the line")
                )
        vectors = np.asarray(split.train.x)[:, block]
        if (vectors == vectors[:1]).all():
            one = ", ".join(f"{coordinate:.6g}" for coordinate in vectors[0])
            raise FlowsError(
                f"fit: columns {which} of data are constant, the unit vector ({one}) in all {len(vectors)} training rows, "
                "so they have no density. Leave them out, or add noise the size of their recorded step"
            )


def _check_codes(region: Region, split: Split) -> None:
    """Refuse values that are not codes, or not whole numbers, where the model has them."""
    for entry in map(tuple, np.argwhere(region.discrete)):
        classes, (low, high) = int(region.classes[entry]), (float(end[entry]) for end in region)
        what, expected, remedy = "whole number", "whole numbers", "round them, or give a model of the line"
        if np.isfinite([low, high]).any():
            what, remedy = "value of the model", "widen its ends, or drop them"
            expected = f"whole numbers from {low:g} to {high:g}"
        if classes:
            what, expected = "code", f"whole numbers 0 to {classes - 1}, one for each category"
            remedy = "give them one, or drop them"
        for table in split.tables:
            column = np.asarray(table.x[(slice(None), *entry)])
            wrong = (column < low) | (column > high) | (column != np.floor(column))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise FlowsError(
                    f"fit: {table.labels[entry[-1]]} of {table.source} is {column[row]:.6g} in row {table.numbers[row]}, "
                    f"which is not a {what}; expected {expected}. "
                    f"{int(wrong.sum())} of {len(wrong)} rows have no {what}: {remedy}"
                )


def ends_of(support: Any, columns: int, names: tuple[str, ...] | None = None) -> Region | None:
    """Return the ends of each column in `support=`, infinite where a side is open."""
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
    """Return the layer that maps a box to the whole line; the box is half a step wider where columns are dequantised."""
    low, high = ends
    if steps is not None:
        low, high = low - steps / 2, high + steps / 2
    return Unconstrain(*(float(end[0]) if (end == end[0]).all() else tuple(end) for end in (low, high)))


def _pair(pair: Any, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    or_several = f", or of {shape[0]} numbers each," if shape else ","
    expected = f"a pair (low, high) of numbers{or_several} -inf or inf where a side is open"
    refusal = FlowsError(f"fit: {name} is {pair!r:.80}; expected {expected}")
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise refusal
    try:
        low, high = (np.asarray(at if end is None else end, float) for end, at in zip(pair, (-np.inf, np.inf), strict=True))
    except (TypeError, ValueError):
        raise refusal from None
    if any(end.shape not in {(), shape} or np.isnan(end).any() for end in (low, high)):
        raise refusal
    if not (low < high).all():
        raise FlowsError(f"fit: {name} is {pair!r:.80}; expected low < high")
    return low, high


def check_noise_once(view: ModelView, labels: Sequence[str], ends: Region | None, steps: np.ndarray | None) -> None:
    """Refuse noise of `dequantize=` or logits of `support=` before a Dequantize of the model."""
    none = np.zeros(view.columns, bool)
    bounded = none if ends is None else np.isfinite(ends.low) | np.isfinite(ends.high)
    for wrong in (view.noisy & bounded, view.noisy & (none if steps is None else steps > 0)):
        if not wrong.any():
            continue
        column = int(np.argmax(wrong))
        what, layer = labels[column], next(layer for layer, noisy in view.noise if noisy[column])
        if not bounded[column]:
            raise FlowsError(
                f"fit: dequantize= adds noise to {what}, and so does {layer!r:.60} of the model: expected it once. "
                "Leave dequantize= out: the model dequantises itself"
            )
        step, levels, _ = traits_by(layer).rounding or (0.0, None, False)
        support = "(low, high), the least and the largest recorded value"
        if levels is not None and not isinstance(step, Sequence):
            support = f"(0, {(levels - 1) * step:g})"
        raise FlowsError(
            f"fit: support= takes {what} to the line before {layer!r:.60} of the model adds noise, which is as wide as a "
            f"step of the data. Leave that layer out, and give dequantize={step}, support={support}; or leave support= and "
            "dequantize= out, and put flows.Unconstrain behind that layer"
        )


def defined(layers: Sequence[BijectionInit], event: Shape) -> Region:
    """Return the region where these layers are defined."""
    return support_of([layer for bijection in layers for layer in layers_of(bijection)], event)[0]


def check_inside(split: Split, region: Region) -> None:
    """Refuse rows outside the region where the first layers are defined, and name one."""
    if np.isneginf(region.low).all() and np.isposinf(region.high).all():
        return
    remedy = "Correct the support, drop such rows, or leave out the layer that is defined there alone"
    for table in split.tables:
        outside = (table.x < region.low) | (table.x > region.high)  # without a float64 copy of images
        _refuse(table, outside, region, "outside", remedy)


def check_finite_behind(table: Table, y: np.ndarray, region: Region) -> None:
    """Refuse rows at an end of the region, which the first layers map to infinity, as y."""
    remedy = "Widen the support, drop such rows, or give dequantize= if values were rounded"
    _refuse(table, ~np.isfinite(y), region, "at an end of", remedy)


def _refuse(table: Table, bad: np.ndarray, region: Region, where: str, remedy: str) -> None:
    if not bad.any():
        return
    row, *entry = np.argwhere(bad)[0].tolist()
    low, high = (float(end[tuple(entry)]) for end in region)
    what = table.labels[entry[0]] if len(entry) == 1 else f"entry {tuple(entry)}"
    value, rows = float(table.x[(row, *entry)]), int(bad.any(tuple(range(1, bad.ndim))).sum())
    raise FlowsError(
        f"fit: {what} of {table.source} is {value:.6g} in row {table.numbers[row]}, {where} ({low:.6g}, {high:.6g}), where the "
        f"model is defined; {rows} rows are {where} it. {remedy}"
    )


def check_ends_are_near(table: Table, layers: Sequence[BijectionInit], ends: Region | None) -> None:
    """Refuse ends so far from the data that distances to them keep no digits of how the data vary; warn if they keep few."""
    x, dtype = table.x, table.dtype
    region = defined(layers, table.event) if ends is None else ends
    if x.ndim != 2 or not np.isfinite(np.stack(np.broadcast_arrays(*region))).any():
        return
    mean, std = moments(x, table.weights)
    for j in map(int, np.flatnonzero(std > 0)):
        low, high = (float(end[j]) for end in region)
        near = min(abs(low - mean[j]), abs(high - mean[j]))
        lost, times = near * np.finfo(dtype).eps / std[j], near / std[j]
        if not COARSE < lost < np.inf or abs(mean[j]) * np.finfo(dtype).eps > COARSE * std[j]:  # `offsets` warns of it
            continue
        message = (
            f"fit: the support of {table.labels[j]} is ({low:.6g}, {high:.6g}), whose nearer end is {times:.2g} "
            f"standard deviations from the data: {dtype.name} keeps"
        )
        remedy = "Leave support out for it, or give ends near the data"
        if lost > TOO_COARSE:
            raise FlowsError(f"{message} too few digits of how the data vary. {remedy}")
        warn_of_data(f"{message} few digits of how the data vary. {remedy}")


def check_turns(region: Region | None, table: Table) -> None:
    """Warn of angles that look like degrees."""
    for i, period in enumerate([] if region is None else region.period.reshape(-1, len(table.labels)).max(0).tolist()):
        if period and (spread := float(np.ptp(table.x[..., i]))) > TURNS * period:
            warn_user(
                f"fit: {table.labels[i]} spans {spread:.4g}, {spread / period:.0f} turns of "
                f"{period:.4g}: are these degrees? Give radians, or transformers and a base of their period"
            )
