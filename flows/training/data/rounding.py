"""Rounded values: their step, the texts of warnings, and the steps to dequantise them by."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.bijections.composition import layers_of
from flows.core import BijectionInit, FlowsError, rows_within, traits_by
from flows.training.data.table import LOOKED_AT, Table, warn_of_data

LEAST_TIES = 5  # rows of the most common value, at least, where values repeat
DISTINCT = 0.9  # of the values of a column, at most, where they repeat
OFF_GRID = 0.05  # of the values of a rounded column may lie between its steps
FEW_LEVELS = 5  # of a grid that repeat; with fewer no value may lie between them
MOST_DIGITS = 13  # after the point
SLACK = 0.1  # of a step, at most, by which values may miss it, as otherwise any values would lie on the grid
ULPS = 8  # by which a computed value may miss its step
ATOM = 0.01  # the share of rows from which one value is an atom, if it has at least LEAST_TIES rows
ALONE = 5  # times as many rows as any other value: an atom among rounded values
TALL = 3  # times as many rows as both neighbours together: a spike
OF_SPIKES = 0.45  # of the rows of a column with spikes: from here on 32 bins gain (benchmarks/typed_tables.md)
LEVELS = 10  # values of a rounded column; one of them can be an atom only if there are more
FINE = 1e-3  # of a standard deviation: smaller steps do no harm
IMAGES = 2**22  # numbers of the images by which channels are judged; of their pixels some are drawn at random


class Noise(NamedTuple):
    """Noise as wide as the steps of rounded values, for each column or channel, 0 for none; some rows to which it is added,
    behind the layers `before` it; and its widths in front of these layers."""

    steps: np.ndarray
    rows: np.ndarray
    before: tuple[BijectionInit, ...]
    widths: np.ndarray


def step_of(column: np.ndarray) -> float | None:
    """Return the step to which the values of a column are rounded, if they repeat and lie on a grid, otherwise None.

    The step is the greatest common divisor of their distances on the coarsest decimal grid that holds them. The smallest gap
    between values may be larger: values in Fahrenheit that were recorded in tenths of Celsius are multiples of 0.18, but 0.9
    and 1.08 apart. It is the step only of values that are not decimals, such as thirds, or 1/256 in float32.
    """
    values, counts = np.unique(column, return_counts=True)
    most, rest = counts.max(), counts.sum() - counts.max()
    repeat = most >= LEAST_TIES and len(counts) <= DISTINCT * len(column)
    only_atom = len(counts) - 1 > max(DISTINCT * rest, 1)  # one value alone repeats
    return grid_of(values, counts) if repeat and not only_atom else None


def grid_of(values: np.ndarray, counts: np.ndarray) -> float | None:
    """Return the step of sorted values with these counts; None if they do not lie on a grid."""
    if len(values) < 2:
        return None
    with np.errstate(over="ignore"):
        single = bool((values == values.astype(np.float32)).all())
    exact, rounded = (float(np.finfo(dtype).eps) for dtype in (np.float64, np.float32))
    for few_off, eps in ((False, exact), (False, rounded), (True, exact), (True, rounded)):
        step = _decimal(values, counts, eps, few_off) if eps == exact or single else None
        if step is not None:
            # A step as fine as float32 itself, far from 0, is not a step of the data.
            return None if single and step <= ULPS * np.spacing(np.float32(_median(values, counts))) else step
    return _smallest_gap(values, single)


def _median(values: np.ndarray, counts: np.ndarray) -> float:
    """Return the median size of values with these counts."""
    order = np.argsort(np.abs(values))
    return float(np.abs(values)[order][np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)])


def _decimal(values: np.ndarray, counts: np.ndarray, eps: float, few_off: bool) -> float | None:
    """Return the step of values with these counts on the first decimal grid that holds them, or, with `few_off`, nearly all."""
    most, middle = int(counts.argmax()), _median(values, counts)
    for digits in range(MOST_DIGITS + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = values * 10.0**digits
            slack = ULPS * eps * np.maximum(np.abs(scaled), middle * 10.0**digits)
            whole = np.round(scaled)
            on = (slack <= SLACK) & (np.abs(scaled - whole) <= slack)
        few = counts[~on].sum() <= OFF_GRID * (counts.sum() - counts[most]) and (counts[on] > 1).sum() >= FEW_LEVELS
        if on.all() or (few_off and on[most] and few):
            return _common(whole[on], counts[on], int(counts[on].argmax())) / 10**digits
    return None


def _common(whole: np.ndarray, counts: np.ndarray, most: int) -> int:
    """Return the greatest common divisor of the distances of sorted whole numbers; few may lie between its multiples."""
    apart = np.abs(whole - whole[most]).astype(np.int64)
    divisor = int(np.gcd.reduce(apart))
    order = np.argsort(-counts, kind="stable")
    order = order[order != most]
    rest = counts[order].sum()
    often = order[: int(np.searchsorted(np.cumsum(counts[order]), (1 - OFF_GRID) * rest)) + 1]
    gaps, times = np.unique(np.diff(whole).astype(np.int64), return_counts=True)
    for larger in (int(np.gcd.reduce(apart[often])), int(gaps[times.argmax()])):  # of frequent values, and of most neighbours
        off = (apart % larger).astype(bool) if larger else np.ones(len(apart), bool)
        few = off.sum() <= OFF_GRID * len(apart) or off.sum() == 1 < len(apart) - FEW_LEVELS
        if few and counts[off].sum() <= OFF_GRID * rest:
            divisor = max(divisor, larger)
    return divisor


def _smallest_gap(values: np.ndarray, single: bool) -> float | None:
    gaps = np.diff(values)
    largest = np.abs(values).max()
    gaps = gaps[gaps > ULPS * np.finfo(np.float64).eps * largest]
    if not len(gaps):
        return None
    step = float(gaps[gaps < 1.5 * gaps.min()].mean())  # the mean of several, as each has lost digits in float32
    multiples = (values - values[0]) / step
    # Values of float32 lie on a grid up to their rounding.
    slack = 1e-3 + ULPS * np.finfo(np.float32).eps * largest / step
    if slack > SLACK or np.abs(multiples - np.round(multiples)).max() > slack:
        return None
    return float(f"{float(values[-1] - values[0]) / round(multiples[-1]):.{6 if single else 9}g}")


def spiked(x: np.ndarray) -> bool:
    """Tell whether some column consists of spikes: of values that repeat far more often than those one step from them."""
    for column in sampled(x).T:
        values = column[np.isfinite(column)].astype(float)
        levels, counts = np.unique(values, return_counts=True)
        if len(levels) < FEW_LEVELS:
            continue
        reach, so_far = 1.5 * (step_of(values) or 0.0), np.append(0, np.cumsum(counts))
        below, above = np.searchsorted(levels, levels - reach), np.searchsorted(levels, levels + reach, "right")
        spikes = (counts >= LEAST_TIES) & (counts > TALL * (so_far[above] - so_far[below] - counts))
        if spikes.sum() >= FEW_LEVELS and counts[spikes].sum() > OF_SPIKES * len(values):
            return True
    return False


def ties(column: np.ndarray, offset: float = 0.0) -> tuple[str, float | None]:
    """Return the text of a warning of values that repeat in a column less an offset, and the step to spread them by; None for
    the step if only one value repeats."""
    values, counts = np.unique(column, return_counts=True)
    most, rows = int(counts.argmax()), len(column)
    if len(values) == 1:  # in the rows looked at; other values are too rare
        return f"is {values[0] + offset:.9g} in nearly all rows", None
    often = bool(counts[most] >= LEAST_TIES and counts[most] > ATOM * rows)
    atom = f"{values[most] + offset:.9g} in {counts[most] / rows:.1%} of the rows"
    step = step_of(column)
    if step is not None and step > FINE * column.std():
        text = "holds whole numbers" if step == 1 and (values == np.round(values)).all() else f"is rounded to {step:.6g}"
        alone = often and len(values) > LEVELS and counts[most] > ALONE * np.delete(counts, most).max()
        return f"{text}, and is {atom}" if alone else text, step
    return (f"is {atom}" if often else ""), None


def steps_of(dequantize: Any, table: Table, few: np.ndarray, coded: np.ndarray) -> np.ndarray | None:
    """Return the step of each column, 0 for a continuous column; None without `dequantize`. With True the steps are found in
    few rows; columns marked as `coded` have none."""
    if dequantize is None or dequantize is False:
        return None
    columns = len(table.labels)
    if dequantize is True:
        steps_and_spreads = [(step_of(column) or 0.0, column.std()) for column in sampled(few).T]
        steps = np.where(coded, 0.0, [step if step > FINE * std else 0.0 for step, std in steps_and_spreads])
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


def check_rounded(noise: Noise, labels: Sequence[str]) -> None:
    """Refuse noise as wide as a step to which a column, or a channel, is not rounded; warn if few values are not."""
    flat = sampled(noise.rows)
    for j in map(int, np.flatnonzero(noise.steps)):
        column, step = flat[:, j], float(noise.steps[j])
        column = column[np.isfinite(column)]  # others lie outside the support of a layer, which another check refuses
        values, counts = np.unique(column, return_counts=True)
        off = _missed(column, values[:1], step)
        if not off.any():
            continue
        least, often = float(values[0]), float(values[counts.argmax()])
        behind = f", behind {', '.join(f'{layer!r:.60}' for layer in noise.before)}," if noise.before else ""
        what = f"fit: {labels[j]} of data{behind} is to be dequantised in steps of {step:.6g}, but"
        odd = column[off][0]
        if off.mean() <= OFF_GRID:
            warn_of_data(
                f"{what} {100 * off.mean():.2g}% of its values, such as {odd:.6g}, are not a whole number of steps from "
                f"{least:.6g}, and samples always are. Round them"
            )
        elif _missed(column, often, step).mean() <= OFF_GRID:
            raise FlowsError(f"{what} its least value, {least:.6g}, is not a whole number of steps from {often:.6g}. Round it")
        else:
            rounding_step = step_of(column)
            remedy = "leave it out" if rounding_step is None else f"give {rounding_step:.9g}, to which it is rounded"
            raise FlowsError(
                f"{what} {odd:.6g} is not a whole number of steps from {least:.6g}; {remedy}. Pixels are whole numbers 0, 1, "
                "2, ..., not floats in [0, 1]"
            )


def _missed(values: np.ndarray, start: Any, step: float) -> np.ndarray:
    """Mark values that are not a whole number of steps from the start."""
    places = (values - start) / step
    slack = 1e-3 + ULPS * np.finfo(np.float32).eps * np.maximum(np.abs(values), abs(start)) / step
    return np.abs(places - np.round(places)) > slack


def noise_added(steps: np.ndarray | None, layers: Sequence[BijectionInit], few: np.ndarray) -> Iterator[Noise]:
    """Yield the noise of `dequantize=`, and of each Dequantize among first layers, up to a layer that trains or mixes: behind
    it rows are not known."""
    if steps is not None:
        yield Noise(steps, few, (), steps)
    rows, before = few, tuple[BijectionInit, ...]()
    for layer in (inner for value in layers for inner in layers_of(value)):
        if (rounding := traits_by(layer.value).rounding) is not None:
            steps = np.broadcast_to(rounding.step, few.shape[-1:])
            spread, behind = (np.ptp(x.reshape(-1, x.shape[-1]), 0) for x in (few, rows))
            known = (spread > 0) & (behind > 0) & np.isfinite(behind)
            wider = np.divide(spread, behind, out=np.ones_like(spread), where=known)
            yield Noise(steps, rows, before, steps * wider if before else steps)
        elif not layer.declared.entrywise:
            return
        else:
            rows, before = layer.mapped(rows, rows.shape[1:], backwards=False), (*before, layer.bijection)


def some_of(x: np.ndarray) -> np.ndarray:
    """Return rows from all over; fewer, but whole, images."""
    rows = LOOKED_AT[0] if x.ndim == 2 else rows_within(LOOKED_AT[0], IMAGES, x.shape[1:])
    return x[:: -(-len(x) // rows)].astype(float, copy=False)


def sampled(few: np.ndarray) -> np.ndarray:
    """Return values of each column, or of pixels of each channel, drawn at random, as a stride might meet few places."""
    flat = few.reshape(-1, few.shape[-1])
    if len(flat) <= LOOKED_AT[0]:
        return flat
    return flat[np.random.default_rng(0).choice(len(flat), LOOKED_AT[0], replace=False)]
