"""The step to which values were rounded, as far as they tell it."""

import numpy as np

LEAST_TIES = 5  # rows of the most common value, at least, where values repeat
DISTINCT = 0.9  # of the values of a column, at most, where they repeat
OFF_GRID = 0.05  # of the values: what may lie between the steps to which a column is said to be rounded
FEW_LEVELS = 5  # that repeat, of a grid; with fewer nothing may lie between them
MOST_DIGITS = 13  # after the point
SLACK = 0.1  # of a step, at most, by which values may miss it, as it is else no wonder that they do not
ULPS = 8  # by which a value may miss its step: it may have been computed


def step_of(column: np.ndarray) -> float | None:
    """The step to which the values of a column were rounded, if that shows: they repeat, and they lie on a grid.

    It is the greatest common divisor of their distances on the decimal grid that holds them, the coarsest that does. The
    smallest gap between values is another thing: those of Fahrenheit that were recorded in tenths of Celsius are multiples of
    0.18, but 0.9 and 1.08 apart. It tells the step only of values that no decimals hold, thirds or 1/256 in float32.
    """
    values, counts = np.unique(column, return_counts=True)
    return grid_of(values, counts) if _repeat(counts) else None


def grid_of(values: np.ndarray, counts: np.ndarray) -> float | None:
    """The step of values, in order, which occur so often; None where they lie on no grid."""
    if len(values) < 2:
        return None
    with np.errstate(over="ignore"):
        single = bool((values == values.astype(np.float32)).all())
    exact, rounded = (float(np.finfo(dtype).eps) for dtype in (np.float64, np.float32))
    for few_off, eps in ((False, exact), (False, rounded), (True, exact), (True, rounded)):
        step = _decimal(values, counts, eps, few_off) if eps == exact or single else None
        if step is not None:
            # A step as fine as float32 itself, far from 0, is none of the data.
            return None if single and step <= ULPS * np.spacing(np.float32(_median(values, counts))) else step
    return _smallest_gap(values, single)


def _repeat(counts: np.ndarray) -> bool:
    """Whether values repeat as rounded ones do; not those beside an atom alone."""
    if counts.max() < LEAST_TIES or len(counts) > DISTINCT * counts.sum():
        return False
    rest = counts.sum() - counts.max()
    return bool(len(counts) - 1 <= max(DISTINCT * rest, 1))


def _median(values: np.ndarray, counts: np.ndarray) -> float:
    """Of the sizes of values that occur so often."""
    order = np.argsort(np.abs(values))
    return float(np.abs(values)[order][np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)])


def _decimal(values: np.ndarray, counts: np.ndarray, eps: float, few_off: bool) -> float | None:
    """The step of values, which occur so often, on the first decimal grid that holds all of them, but for few."""
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
    """The greatest common divisor of the distances of whole numbers, in order, but for few that lie between its multiples."""
    apart = np.abs(whole - whole[most]).astype(np.int64)
    divisor = int(np.gcd.reduce(apart))
    order = np.argsort(-counts, kind="stable")
    order = order[order != most]
    rest = counts[order].sum()
    often = order[: int(np.searchsorted(np.cumsum(counts[order]), (1 - OFF_GRID) * rest)) + 1]
    gaps, times = np.unique(np.diff(whole).astype(np.int64), return_counts=True)
    for larger in (int(np.gcd.reduce(apart[often])), int(gaps[times.argmax()])):  # those that occur often, and most neighbours
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
    step = float(gaps[gaps < 1.5 * gaps.min()].mean())  # of several, as each of float32 has lost some digits
    multiples = (values - values[0]) / step
    # Values of float32 lie on a grid but for their rounding.
    slack = 1e-3 + ULPS * np.finfo(np.float32).eps * largest / step
    if slack > SLACK or np.abs(multiples - np.round(multiples)).max() > slack:
        return None
    return float(f"{float(values[-1] - values[0]) / round(multiples[-1]):.{6 if single else 9}g}")
