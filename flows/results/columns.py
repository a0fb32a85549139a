"""Columns of data: one record of what is known of a column, which results, checks and pictures read; and the ways in which rows
are handed in, and draws handed out, with the names that data had.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from flows.core import Region
from flows.results.frames import in_order

MANY = 24  # categories, above which they are not drawn one by one


class Column(NamedTuple):
    """One column of flat rows.

    Attributes:
        name: as errors and pictures have it.
        place: among the columns.
        low, high: where an axis ends, where that is known: of the turn of an angle the first and the next one's first value,
            of categories half a code beyond the outermost; else infinite.
        period: of an angle; 0 for others.
        classes: how many codes there are, 0, 1, ...; 0 for numbers.
        step: to which values are rounded, 0 where they are not; None where rows have to tell.
        called: names of the codes; () where they have none.
        dates, zone: whether values are days since 1970, and an axis tells dates, by the clock of a zone.
    """

    name: str
    place: int = 0
    low: float = -np.inf
    high: float = np.inf
    period: float = 0.0
    classes: int = 0
    step: float | None = None
    called: tuple[str, ...] = ()
    dates: bool = False
    zone: Any = None

    def code(self, code: float) -> str:
        """Return the name of a code."""
        known = code == int(code) and 0 <= code < len(self.called)
        return self.called[int(code)] if known else f"code {code:g}"

    @property
    def bars(self) -> tuple[str, ...]:
        """The names of the bars of a picture, one for each code; () of numbers, and of more codes than have names in it."""
        return self.called or tuple(map(str, range(self.classes if self.classes <= MANY else 0)))


def columns_of(
    names: tuple[str, ...], region: Region | None, turn: Any = None, categories: Mapping[str, tuple[str, ...]] | None = None
) -> list[Column]:
    """Return the columns of the entries of an event, in order. Turns of angles begin half a turn below 0, unless `turn` says
    where; `categories` are names of codes by the name of their column."""
    called, count = categories or {}, len(names)
    period, classes = (
        np.zeros(count) if region is None else np.broadcast_to(np.asarray(field).ravel(), (count,))
        for field in (getattr(region, "period", 0), getattr(region, "classes", 0))
    )
    start = -period / 2 if turn is None else np.broadcast_to(np.asarray(turn).ravel(), (count,))
    columns = list[Column]()
    for j, name in enumerate(names):
        ends, step = (-np.inf, np.inf), None
        if classes[j] > MANY:  # bars of so many would be lines
            ends, step = (0.0, float(classes[j])), 1.0
        elif classes[j]:
            ends = -0.5, classes[j] - 0.5
        elif period[j]:
            ends = float(start[j]), float(start[j] + period[j])
        columns.append(Column(name, j, *ends, float(period[j]), int(classes[j]), step, called.get(name, ())))
    return columns


class Columns(Protocol):
    """The names that data had: of a frame, of parameters, or none."""

    def numbers(self, x: Any, what: str) -> Any: ...  # rows that were handed in, in the order that a model was fitted to
    def natural(self, rows: Any) -> Any: ...  # rows as data were
    def entries(self, count: int) -> tuple[str, ...]: ...  # a name for each entry of a vector


class Arrays:
    """Data without names."""

    def numbers(self, x: Any, what: str) -> Any:
        return in_order(x, None, what)

    def natural(self, rows: Any) -> Any:
        return rows

    def entries(self, count: int) -> tuple[str, ...]:
        return tuple(f"column {j}" for j in range(count))
