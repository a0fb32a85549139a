"""Errors of a value: its row, its column, what was expected there, and the remedy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.core import FlowsError
from flows.results.frames import SHOWN
from flows.tables.codes import as_plain
from flows.tables.fields import Entries, Field
from flows.tables.kinds import Category, Circular, Constant, Integer


class CellError(FlowsError):
    """A value that is none of its column.

    Attributes:
        column, row: its place, counted from 0.
        said: what it is, and what was expected.
    """

    column: str
    row: int
    said: str

    @classmethod
    def at(cls, what: str, column: str, row: int, said: str, remedy: str) -> "CellError":
        """Made so that it can be pickled as any other."""
        error = cls(f"{what}: column {column!r}, row {row}, {said}. {remedy}")
        error.column, error.row, error.said = column, row, said
        return error


def check(name: str, field: Field, column: Any, entries: Entries, what: str, gaps: bool = True) -> None:
    """Refuse the first value that is none of its column, and the first gap where there may be none."""
    if entries.outside.any():
        row = int(entries.outside.argmax())
        value = as_plain(column.item(row))
        expected, remedy = _expected(name, field, value)
        count = int(entries.outside.sum())
        more = f", the first of {count:,} such" if count > 1 else ""
        raise CellError.at(what, name, row, f"is {_shown(value)}{more}; expected {expected}", remedy)
    if gaps and entries.gaps.any():
        row, count = int(entries.gaps.argmax()), int(entries.gaps.sum())
        more = f", the first of {count:,}" if count > 1 else ""
        remedy = (
            "Drop such rows, as tables.fit does with gaps='drop', fill them, or give the column the kind Category, where gaps "
            "are values"
        )
        raise CellError.at(what, name, row, f"is a gap{more}; expected a value of {field.kind!r}", remedy)


def _shown(value: Any) -> str:
    return "a gap" if value is None else f"{value!r:.60}"


def _expected(name: str, field: Field, value: Any) -> tuple[str, str]:
    """Return what there should be, and what to do."""
    kind: Any = field.kind
    if isinstance(kind, Category):
        return _one_of(kind.known), (
            f"Correct it, or pool such values: schema.replace({{{name!r}: Category(other='rest')}}) before the model is fitted"
        )
    if isinstance(kind, Constant):
        return f"{_shown(kind.value)}, the one value of this column", (
            f"Correct it, or do not read the column: schema.replace({{{name!r}: Ignored()}})"
        )
    number = "a whole number" if isinstance(kind, Integer) else "a finite number"
    if isinstance(value, float) and np.isinf(value):
        return number, "Drop such rows, or make it a gap (None) and drop those with gaps"
    if isinstance(kind, Circular) or (isinstance(kind, Integer) and value != np.rint(value)):
        return number, f"Round it, or give the column the kind Real(): schema.replace({{{name!r}: Real()}})"
    strict = field.step == 0
    bounds = [
        f"{word} {end!r}"
        for end, word in ((kind.low, "above" if strict else "at least"), (kind.high, "below" if strict else "at most"))
        if end is not None
    ]
    open_end = " (an end has no density, unless there is a step)" if strict and value in (kind.low, kind.high) else ""
    if strict and value in (kind.low, kind.high):
        return f"{number} {' and '.join(bounds)}{open_end}", (
            f"Move the end, or say how values were rounded: schema.replace({{{name!r}: Real(low=..., step=...)}})"
        )
    wider = f"{type(kind).__name__}()" if kind.high is None else f"{type(kind).__name__}(low=..., high=...)"
    return (
        f"{number} {' and '.join(bounds)}{open_end}",
        f"Correct it, or widen the bounds: schema.replace({{{name!r}: {wider}}})",
    )


def _one_of(values: Sequence[Any]) -> str:
    shown = ", ".join("a gap" if value is None else repr(value) for value in values[:SHOWN])
    return f"one of {shown}" + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")
