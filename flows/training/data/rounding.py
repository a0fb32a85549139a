"""Values that were rounded: what a warning says of them, and the steps by which columns are dequantised."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flows.bijections.composition import layers_of
from flows.core import BijectionInit, FlowsError, rows_within, traits_by, warn_user
from flows.training.data.grid import LEAST_TIES, OFF_GRID, ULPS, step_of
from flows.training.data.table import LOOKED_AT, DataWarning, Split, Table
from flows.training.options import Options

ATOM = 0.01  # the share of rows from which one value is an atom, if it is LEAST_TIES rows at least
ALONE = 5  # times as many rows as any other value has: an atom among rounded values
LEVELS = 10  # values of a rounded column; one of them is an atom only where there are more
FINE = 1e-3  # of a standard deviation: steps below it do no harm
IMAGES = 2**22  # numbers of the images by which channels are judged, whose pixels are drawn at random from these
UNBOUNDED = "A density is unbounded on values that repeat, so a better fit may be no better model"


def ties(column: np.ndarray, offset: float = 0.0) -> tuple[str, float | None]:
    """What a warning says of a column, less an offset, whose values repeat, and the step to spread them by; None where a single
    one does."""
    values, counts = np.unique(column, return_counts=True)
    most, rows = int(counts.argmax()), len(column)
    if len(values) == 1:  # of the rows looked at; others are too rare to be among them
        return f"is {values[0] + offset:.9g} in nearly all rows", None
    often = bool(counts[most] >= LEAST_TIES and counts[most] > ATOM * rows)
    atom = f"{values[most] + offset:.9g} in {counts[most] / rows:.1%} of the rows"
    step = step_of(column)
    if step is not None and step > FINE * column.std():
        text = "holds whole numbers" if step == 1 and (values == np.round(values)).all() else f"is rounded to {step:.6g}"
        alone = often and len(values) > LEVELS and counts[most] > ALONE * np.delete(counts, most).max()
        return f"{text}, and is {atom}" if alone else text, step
    return (f"is {atom}" if often else ""), None


def steps_of(dequantize: Any, table: Table, coded: np.ndarray | None = None) -> np.ndarray | None:
    """The step of each column, 0 for one that is continuous; None where nothing is to be dequantised. Columns that are `coded`
    are not looked at for steps that show."""
    if dequantize is None or dequantize is False:
        return None
    x, columns = table.x, len(table.labels)
    if dequantize is True:
        steps_and_spreads = [(step_of(column) or 0.0, column.std()) for column in values_of(some_of(x)).T]
        steps = np.array([step if step > FINE * std else 0.0 for step, std in steps_and_spreads])
        steps = steps if coded is None else np.where(coded, 0.0, steps)
        if not steps.any():
            raise FlowsError("fit: dequantize=True, but no column is rounded to a step that shows; leave it out, or give steps")
        return steps
    steps = np.zeros(columns)
    if isinstance(dequantize, Mapping):
        for column, step in dequantize.items():
            if isinstance(step, bool) or not isinstance(step, int | float | np.number):
                raise FlowsError(f"fit: dequantize has the step {step!r:.60} for column {column!r}; expected a number")
            steps[table.place(column, "dequantize has a step for")] = step
    else:
        numbers = np.asarray(dequantize)
        if numbers.dtype.kind not in "iuf" or numbers.shape not in ((), (columns,)):
            raise FlowsError(
                f"fit: dequantize is {dequantize!r:.80}; expected True, a step, {columns} steps (0: continuous), or "
                "a dict of steps by column"
            )
        steps[:] = numbers
    if not np.isfinite(steps).all() or (steps < 0).any() or not steps.any():
        raise FlowsError(f"fit: dequantize is {dequantize!r:.80}; expected finite steps, 0 or more, and one above 0")
    return steps


def check_rounded(x: np.ndarray, steps: np.ndarray, labels: Sequence[str], before: Sequence[BijectionInit] = ()) -> None:
    """Refuse noise as wide as a step to which a column, or a channel, is not rounded; warn where a few values are not. `x` are
    rows as they come out of the layers `before` it."""
    flat = values_of(x)
    for j in map(int, np.flatnonzero(steps)):
        column, step = flat[:, j], float(steps[j])
        column = column[np.isfinite(column)]  # others lie where a layer is not defined, of which its support tells
        if not len(column):
            continue
        values, counts = np.unique(column, return_counts=True)
        least, often = float(values[0]), float(values[counts.argmax()])
        off = _missed(column, least, step)
        if not off.any():
            continue
        behind = f", behind {', '.join(f'{layer!r:.60}' for layer in before)}," if before else ""
        what = f"fit: {labels[j]} of data{behind} is to be dequantised in steps of {step:.6g}, but"
        odd = column[off][0]
        if off.mean() <= OFF_GRID:
            warn_user(
                f"{what} {100 * off.mean():.2g}% of its values, such as {odd:.6g}, are no such steps from {least:.6g}, and "
                "samples always are. Round them",
                DataWarning,
            )
        elif _missed(column, often, step).mean() <= OFF_GRID:
            raise FlowsError(
                f"{what} its least value, {least:.6g}, from which steps are counted, is no such step from {often:.6g}. Round it"
            )
        else:
            rounding_step = step_of(column)
            remedy = "leave it out" if rounding_step is None else f"give {rounding_step:.9g}, to which it is rounded"
            raise FlowsError(
                f"{what} {odd:.6g} is no such step from {least:.6g}; {remedy}. Pixels are whole numbers 0, 1, 2, ..., not "
                "floats in [0, 1]"
            )


def _missed(values: np.ndarray, start: float, step: float) -> np.ndarray:
    """Which values are no whole number of steps from there."""
    places = (values - start) / step
    slack = 1e-3 + ULPS * np.finfo(np.float32).eps * np.maximum(np.abs(values), abs(start)) / step
    return np.abs(places - np.round(places)) > slack


def check_pixels(split: Split, channels: np.ndarray, options: Options) -> None:
    """Warn of images whose pixels are rounded, in these channels."""
    values, said, steps = values_of(some_of(split.train.x)), list[str](), dict[int, float]()
    for j in map(int, np.flatnonzero(channels)):
        text, step = ties(values[:, j])
        if step is not None:
            said.append(f"{split.train.labels[j]} {text}")
            steps[j] = step
    if not steps:
        return
    alike = len(steps) == values.shape[1] and len(set(steps.values())) == 1
    argument = f"{steps[0]:.9g}" if alike else "{" + ", ".join(f"{j}: {step:.9g}" for j, step in steps.items()) + "}"
    remedy = f"Give dequantize={argument}, the step of the pixels"
    if alike and options.support is None:
        seen = [table.x for table in split.tables]
        low, high = min(float(x.min()) for x in seen), max(float(x.max()) for x in seen)
        remedy += f", and support=({min(low, 0):.6g}, {high:.6g}), the least and the largest that there may be, here of data"
    warn_user(f"fit: {'; '.join(said)}. {UNBOUNDED}. {remedy}; or a model with flows.Dequantize first", DataWarning)


def rows_at_noise(
    layers: Sequence[BijectionInit], few: np.ndarray
) -> Iterator[tuple[Any, np.ndarray, tuple[BijectionInit, ...]]]:
    """Of each Dequantize among first layers its step, rows as they reach it, and the layers they come from; up to a layer that
    trains or mixes, behind which they are not known."""
    before = tuple[BijectionInit, ...]()
    for layer in (inner for value in layers for inner in layers_of(value)):
        if (rounding := traits_by(layer.value).rounding) is not None:
            yield rounding.step, few, before
        elif not layer.declared.entrywise:
            return
        else:
            few, before = layer.mapped(few, few.shape[1:], backwards=False), (*before, layer.bijection)


def scale_before(few: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """How much wider each column, or channel, is before layers than behind them."""
    spread, behind = (np.ptp(rows.reshape(-1, rows.shape[-1]), 0) for rows in (few, reached))
    known = (spread > 0) & (behind > 0) & np.isfinite(behind)
    return np.divide(spread, behind, out=np.ones_like(spread), where=known)


def some_of(x: np.ndarray) -> np.ndarray:
    """Rows from all over; of images fewer, and whole ones."""
    rows = LOOKED_AT[0] if x.ndim == 2 else rows_within(LOOKED_AT[0], IMAGES, x.shape[1:])
    return x[:: -(-len(x) // rows)].astype(float, copy=False)


def values_of(few: np.ndarray) -> np.ndarray:
    """The values of each column, or of pixels of each channel: drawn at random, as each so many would be of the same places."""
    flat = few.reshape(-1, few.shape[-1])
    if len(flat) <= LOOKED_AT[0]:
        return flat
    return flat[np.random.default_rng(0).choice(len(flat), LOOKED_AT[0], replace=False)]
