"""Contents of a picture, as arrays: draws beside rows, and columns on axes, with their ends, their bins, and points that would
hide each other moved apart. Nothing is drawn here.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError
from flows.results.columns import Column

SHOWN = 6  # columns, where nobody says which
MOST = 12  # columns of one picture
TAIL = 0.005  # of the rows, beyond each end of an axis
ROOM = 0.04  # of the width of an axis, at each end
BINS = 12, 40  # of a histogram
REPEATED = 0.5  # distinct values of a column, as a share of all, above which it is not looked at as rounded
FEW = 5  # distinct values, up to which these have to be multiples of their step
ON_STEP = 0.01  # of a step, by which values of rounded columns may miss
COMMONEST = 11  # of so many, which are, beside all others together
CELL = 0.35  # on each side of a category, where its points lie


def places_of(columns: Any, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Tell which columns are drawn, and what is to be remarked of it."""
    count = len(names)
    if columns is None:
        more = [f"the first {SHOWN} of {count} columns, columns= names others"] if count > SHOWN else []
        return list(range(min(count, SHOWN))), more
    several = isinstance(columns, Iterable) and not isinstance(columns, str)
    given = list(columns) if several else [columns]
    places = list[int]()
    for each in given:
        place = names.index(each) if isinstance(each, str) and each in names else each
        if isinstance(place, bool) or not isinstance(place, int | np.integer) or not -count <= place < count:
            known = ", ".join(map(repr, names[:SHOWN])) + (", ..." if count > SHOWN else "")
            raise FlowsError(f"plot: columns has {each!r:.60}; expected some of {known}, or places from 0 to {count - 1}")
        places.append(int(place) % count)
    if not places or len(set(places)) < len(places) or len(places) > MOST:
        raise FlowsError(f"plot: columns is {columns!r:.80}; expected 1 to {MOST} columns, each once")
    return places, []


def commonest(column: Column, values: np.ndarray) -> tuple[Column, Any]:
    """A column of many categories as one of those that most of these values are of, and of all others together; and a function
    of values, of which those that are no code lie beyond the axis."""
    count = len(column.bars)
    codes = np.arange(count)
    often = np.sort(np.argsort(-(values[:, None] == codes).sum(0), kind="stable")[:COMMONEST])
    place = np.full(count, COMMONEST)
    place[often] = np.arange(COMMONEST)

    def placed(values: np.ndarray) -> np.ndarray:
        nearest = np.clip(np.rint(values), 0, count - 1).astype(int)
        return np.where(nearest == values, place[nearest], -1)

    names = (*(column.bars[code] for code in often), "others")
    return column._replace(high=COMMONEST + 0.5, called=names), placed


def step_of(values: np.ndarray) -> float:
    """The step to which values were rounded; 0 where they repeat too rarely to tell, or lie on none.

    Few values have to be whole numbers of steps, as any two or three are nearly on some.
    """
    distinct = np.unique(values)
    if len(distinct) < 2 or len(distinct) > REPEATED * len(values):
        return 0.0
    step = np.diff(distinct).min()
    whole = (distinct - (distinct[0] if len(distinct) > FEW else 0.0)) / step
    if np.abs(whole - np.round(whole)).max() > ON_STEP:
        return 0.0
    return float((distinct[-1] - distinct[0]) / np.round((distinct[-1] - distinct[0]) / step))


def rounded_to(column: Column, values: np.ndarray) -> float:
    """The step of a column, or that of its values where it is not known."""
    return step_of(values) if column.step is None else column.step


def limits(column: Column, rows: np.ndarray | None, draws: np.ndarray) -> tuple[float, float]:
    """The ends of an axis: of rows, and of draws as far as these are not much further out, without the outermost of both."""
    if np.isfinite([column.low, column.high]).all():
        before = 0.0 if column.bars else (column.step or 0.0) / 2  # where the cell of the first value begins
        return column.low - before, column.high - before
    ends = [np.quantile(values, (TAIL, 1 - TAIL)) for values in (rows, draws) if values is not None and len(values)]
    (low, high), (least, largest) = ends[0], ends[-1]
    reach = (high - low) / 2 or max(abs(low) / 100, 0.5)
    low, high = max(min(low, least), low - reach), min(max(high, largest), high + reach)
    room = max(ROOM * (high - low), 0.6 * rounded_to(column, draws if rows is None else rows)) or reach
    return low - room, high + room


def edges(column: Column, ends: tuple[float, float], rows: np.ndarray | None, draws: np.ndarray) -> np.ndarray:
    """Return edges of the bins of rows and draws alike; where values are rounded, each bin has as many of their steps."""
    low, high = ends
    if column.bars:
        return np.arange(len(column.bars) + 1) - 0.5
    values = draws if rows is None else rows
    bins = int(np.clip(3 * min(len(values), len(draws)) ** (1 / 3), *BINS))
    step = rounded_to(column, values)
    if not step:
        return np.linspace(low, high, bins + 1)
    steps = max(1, int(np.ceil((high - low) / step / bins)))
    if np.isfinite(column.high):  # the turn of an angle, which has a whole number of bins, if there is one
        cells = round((high - low) / step)
        steps = next((k for k in range(steps, 2 * steps) if cells % k == 0), steps)
    wide, first = step * steps, (low if np.isfinite(column.low) else float(values.min()) - step / 2)
    first += wide * np.floor((low - first) / wide)
    return first + wide * np.arange(int(np.ceil((high - first) / wide - 1e-9)) + 1)


def spread(column: Column, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of points: what is rounded lies anywhere in its cell, and codes around their place."""
    noise = rng.uniform(-1, 1, len(values))
    if column.bars:
        return values + CELL * noise
    step = rounded_to(column, values)
    if not step:
        return values
    steps = (values - values.min()) / step
    return values + step / 2 * noise if np.abs(steps - np.round(steps)).max() < ON_STEP else values


class Compared(NamedTuple):
    """Draws beside rows.

    Attributes:
        rows: (m, *event), at most as many as draws are asked for; None where there are none.
        draws: (n, *event).
        of_rows, of_draws: what they are, for a legend.
        notes: remarks below the picture.
        context: (m, *context), of the rows, or (*context,) of all draws; None without.
    """

    rows: Any
    draws: Any
    of_rows: str
    of_draws: str
    notes: list[str]
    context: Any = None

    def of(self, places: list[int]) -> "Compared":
        """These columns of vectors alone."""
        return self._replace(rows=None if self.rows is None else self.rows[:, places], draws=self.draws[:, places])


def some(rng: np.random.Generator, n: int, *arrays: Any) -> list[Any]:
    """Return the same rows of each array, at most n, in the order they were in."""
    count = len(next(array for array in arrays if array is not None))
    chosen = np.sort(rng.permutation(count)[:n])
    return [None if array is None else array[chosen] for array in arrays]


def counted(shown: int, total: int, what: str) -> str:
    return f"{total:,} {what}" if shown == total else f"{shown:,} of {total:,} {what}"


def check_finite(rows: np.ndarray, what: str) -> None:
    """Refuse rows, or contexts, that have no place."""
    bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
    if len(bad):
        raise FlowsError(
            f"plot: {len(bad)} of {len(rows)} {what} have NaN or inf, the first is row {bad[0]}; drop or fill them"
        )


def finite_of(draws: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Draws that have a place, and a remark on others."""
    usable = np.isfinite(draws.reshape(len(draws), -1)).all(1)
    if usable.all():
        return draws, []
    if not usable.any():
        raise FlowsError(f"plot: none of {len(draws)} draws is finite; see result.verify(rows) for where the model fails")
    return draws[usable], [f"{int((~usable).sum()):,} draws are not finite"]
