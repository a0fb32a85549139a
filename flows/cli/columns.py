"""Columns of text as what they hold: guessed from all values where a model is fitted, by its schema afterwards."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from flows.cli.failures import Mistake
from flows.cli.source import Block, Origin
from flows.tables import Category, Circular, Constant, DateTime, Ignored, Integer, Kind, Real, Schema
from flows.tables.columns import dtype_of
from flows.tables.dtypes import is_date, whole_range
from flows.tables.faults import CellError

ZERO_FIRST = r"^[+-]?0\d"  # a code, such as 007, whose zeros a number would lose
TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"
ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
WHERE = "--where"
TRUE_FALSE = {"true": True, "false": False}


def guessed(block: Block, gaps: Sequence[str]) -> pl.DataFrame:
    """A frame of text with a dtype for each column that holds all its values: True and False, whole numbers, numbers, dates,
    times of ISO 8601, or text."""
    return pl.DataFrame([_guessed(_without_gaps(column, gaps)) for column in block.frame.get_columns()])


def _without_gaps(column: pl.Series, gaps: Sequence[str]) -> pl.Series:
    return column.set(column.is_in(list(gaps)), None)


def _guessed(column: pl.Series) -> pl.Series:
    plain = column.str.strip_chars()
    there = plain.drop_nulls()
    if not len(there):
        return column
    if there.str.to_lowercase().is_in(list(TRUE_FALSE)).all():
        return _booleans(plain)
    for parsed in (_whole(plain), _numbers(plain), _times(plain)):
        if parsed is not None and parsed.null_count() == column.null_count():
            return parsed
    return column


def _booleans(column: pl.Series) -> pl.Series:
    return column.str.to_lowercase().replace_strict(TRUE_FALSE, default=None, return_dtype=pl.Boolean)


def _whole(column: pl.Series) -> pl.Series | None:
    return None if column.str.contains(ZERO_FIRST).any() else column.cast(pl.Int64, strict=False)


def _numbers(column: pl.Series) -> pl.Series | None:
    first = column.str.contains(ZERO_FIRST) & ~column.str.contains(r"[.eE]")
    return None if first.any() else column.cast(pl.Float64, strict=False)


def _times(column: pl.Series) -> pl.Series | None:
    """Dates, or times with a zone or without; None for what is neither."""
    dates = column.str.to_date("%Y-%m-%d", strict=False)
    if dates.null_count() == column.null_count():
        return dates
    if not (column.str.contains(TIME) | column.is_null()).all():
        return None
    text = column.str.replace("T", " ").str.replace(r"^(.{16})($|Z|[+-])", "${1}:00${2}")
    if column.str.contains(ZONE).any():
        return text.str.replace("Z$", "+00:00").str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", strict=False, time_unit="us")
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")


def typed(block: Block, origin: Origin, schema: Schema, names: Sequence[str] | None = None) -> pl.DataFrame:
    """Rows of a file as the schema has its columns; those that it ignores are left out.

    Args:
        names: of the columns to be there; by default all of the schema that are read.

    Errors:
        Mistake: a column that is missing, or besides; text that is no number or no time, by its row.
    """
    wanted = [name for name in (schema if names is None else names) if not isinstance(schema[name], Ignored)]
    frame = block.frame
    missing = [name for name in wanted if name not in frame.columns]
    besides = [name for name in frame.columns if name not in schema]
    if missing:
        raise Mistake(f"{origin.name} lacks the columns {_listed(missing)} of the model; it has {_listed(frame.columns)}")
    if besides and names is None:
        raise Mistake(
            f"{origin.name} has the columns {_listed(besides)}, which the model does not know; fit with --ignore them"
        )
    if not origin.is_text:
        return frame.select(wanted)
    columns = [_without_gaps(frame[name], origin.gaps) for name in wanted]
    return pl.DataFrame([_as_kind(column, schema, origin.name, block.first) for column in columns])


def of_options(given: Mapping[str, str], schema: Schema) -> pl.DataFrame:
    """One row of the condition, of texts by name."""
    frame = pl.DataFrame([pl.Series(name, [text], pl.String) for name, text in given.items()])
    return typed(Block(1, frame), Origin(WHERE), schema, list(given))


def _as_kind(column: pl.Series, schema: Schema, where: str, first: int) -> pl.Series:
    """Text as values of the kind that the schema has."""
    name = column.name
    sort, dtype = _sort_of(schema[name]), dtype_of(schema, name)
    if sort == "times" and schema[name].format is not None:  # type: ignore[attr-defined]
        sort = "text" if whole_range(dtype or "") is None else "whole numbers"
    if isinstance(schema[name], Constant) and is_date(dtype or ""):
        sort = "times"
    if sort == "text":
        return column
    plain = column.str.strip_chars()
    parsed = _booleans(plain) if sort == "true or false" else _times(plain) if sort == "times" else _as_numbers(plain)
    if parsed is None:
        parsed = pl.Series(name, [None] * len(plain), pl.Null)
    wrong = parsed.is_null() & column.is_not_null()
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise Mistake(f"{where}, row {first + row}, column {name!r}, is {column[row]!r:.60}; expected {sort}, as the model has")
    return parsed.alias(name)


def _as_numbers(column: pl.Series) -> pl.Series:
    whole = column.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == column.null_count() else column.cast(pl.Float64, strict=False)


def _sort_of(kind: Kind) -> str:
    if isinstance(kind, Real | Integer | Circular):
        return "numbers"
    if isinstance(kind, DateTime):
        return "times"
    known = kind.known if isinstance(kind, Category) else (kind.value,) if isinstance(kind, Constant) else ()
    sorts = {type(value) for value in known if value is not None}
    if sorts == {bool}:
        return "true or false"
    return "numbers" if sorts and sorts <= {int, float} else "text"


def blame(error: CellError, where: str, first: int, remedy: str) -> Mistake:
    """A value that is none of its column, by the row of the file."""
    return Mistake(f"{where}, row {first + error.row}, column {error.column!r}, {error.said}. {remedy}")


def _listed(names: Sequence[Any]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
