"""The box of a support: its ends, the layer that takes it to the line, and rows, ends and noise that do not go with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.bijections.composition import layers_of, support_of
from flows.bijections.unconstrain import Unconstrain
from flows.core import BijectionInit, FlowsError, Region, Value, traits_by, warn_user
from flows.training.data.dependence import COARSE
from flows.training.data.gaussian import moments
from flows.training.data.table import DataWarning, Split, Table, place_of
from flows.training.model_view import ModelView

# Of a standard deviation, what is lost of a column in its distance to an end: from there on few draws are unlike each other,
# and scores are off by a hundredth of a nat and soon by a nat.
TOO_COARSE = 0.03


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


def check_noise_once(
    view: ModelView, labels: Sequence[str], ends: Region | None, steps: np.ndarray | None, caller: str
) -> None:
    """Refuse what `dequantize=` and `support=` would put before a model's own Dequantize: noise again, or logits."""
    noisy, bounded = view.noisy, np.zeros(view.columns, bool)
    if ends is not None:
        bounded |= np.isfinite(ends.low) | np.isfinite(ends.high)
    twice = noisy & (np.zeros(view.columns) if steps is None else steps).astype(bool)
    for wrong, refuse in ((bounded & noisy, _noise_on_logits), (twice, _noise_twice)):
        if wrong.any():
            column = int(np.argmax(wrong))
            layer = next(layer for layer, columns in view.noise if columns[column])
            raise FlowsError(f"{caller}: {refuse(labels[column], layer)}")


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
