"""Columns of text as what they hold: guessed from all values where a model is fitted, by its schema afterwards."""

import functools
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from flows import tables
from flows.cli.failures import Mistake
from flows.cli.source import Block, Origin
from flows.results.frames import listed
from flows.tables import Schema
from flows.tables.dtypes import is_date, zone_in

ZERO_FIRST = r"^[+-]?0\d"  # a code, such as 007, whose zeros a number would lose
TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"
ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
WHERE = "--where"
TRUE_FALSE = {"true": True, "false": False}


def guessed(block: Block, origin: Origin, schema: Schema | None = None) -> pl.DataFrame:
    """A frame with a dtype for each column that holds all its values: True and False, whole numbers, numbers, dates, times of
    ISO 8601, or text; or else that of the schema, where that says what there is."""
    if not origin.is_text:
        return _without_text(block.frame, origin.name, schema) if schema else block.frame
    columns = []
    for column in block.frame.get_columns():
        plain = _without_gaps(column, origin.gaps)
        kind = schema[column.name] if schema is not None and column.name in schema else tables.Ignored()
        known = kind.is_read and getattr(kind, "values", ()) is not None  # a category without values takes any
        columns.append(_as_kind(plain, schema, origin.name, block) if schema and known else _guessed(plain))
    return _joined(columns)


def _joined(columns: Iterable[pl.Series]) -> pl.DataFrame:
    """A frame of columns, one of which may have an empty name, as rows that pandas wrote with their numbers have."""
    return pl.DataFrame({column.name: column for column in columns})


def _without_gaps(column: pl.Series, gaps: Sequence[str]) -> pl.Series:
    return column.set(column.str.strip_chars().is_in(list(gaps)), None)


def _guessed(column: pl.Series) -> pl.Series:
    plain = column.str.strip_chars()
    there = plain.drop_nulls()
    if not len(there):
        return column
    if there.str.to_lowercase().is_in(list(TRUE_FALSE)).all():
        return _booleans(plain)
    for parsed in (_whole(plain), numbers_of_text(plain), _times(plain)):
        if parsed is not None and parsed.null_count() == column.null_count():
            return parsed
    return column


def _booleans(column: pl.Series) -> pl.Series:
    return column.str.to_lowercase().replace_strict(TRUE_FALSE, default=None, return_dtype=pl.Boolean)


def _whole(column: pl.Series) -> pl.Series | None:
    return None if column.str.contains(ZERO_FIRST).any() else column.cast(pl.Int64, strict=False)


def numbers_of_text(column: pl.Series) -> pl.Series | None:
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


def typed(block: Block, origin: Origin, schema: Schema, names: Iterable[str] | None = None) -> pl.DataFrame:
    """Rows of a file as the schema has its columns; others, and those that it ignores, are left out.

    Args:
        names: of the columns to be there; by default all of the schema that are read.

    Errors:
        Mistake: a column that is missing; text that is no number or no time, by its row.
    """
    wanted = [name for name in (schema if names is None else names) if schema[name].is_read]
    missing = [name for name in wanted if name not in block.frame.columns]
    if missing:
        raise Mistake(
            f"{origin.name} lacks {listed(missing)}; expected the columns {listed(wanted)} of the model, and found "
            f"{listed(block.frame.columns)}"
        )
    if not origin.is_text:
        return _without_text(block.frame.select(wanted), origin.name, schema)
    return _joined(_typed(block.frame[name], origin, schema, block) for name in wanted)


def _typed(column: pl.Series, origin: Origin, schema: Schema, block: Block) -> pl.Series:
    sort = schema[column.name].parsed_as(schema.dtype_of(column.name))
    if sort == "numbers" and not any(map(_is_number, origin.gaps)):
        numbers = _as_numbers(column)  # of text with neither gaps nor spaces nothing else has to be asked
        if numbers.null_count() == column.null_count() and not (numbers.dtype.is_float() and numbers.is_nan().any()):
            return numbers
    return _as_kind(_without_gaps(column, origin.gaps), schema, origin.name, block)


@functools.cache
def _is_number(text: str) -> bool:
    numbers = pl.Series([text], dtype=pl.String).cast(pl.Float64, strict=False)
    return bool(numbers.is_not_nan().any())


def _without_text(frame: pl.DataFrame, where: str, schema: Schema) -> pl.DataFrame:
    """The frame; an error for a column of text where the schema has numbers."""
    for name in frame.columns:
        if name in schema and frame.schema[name] == pl.String and schema[name].sort == "numbers":
            raise Mistake(f"{where}, column {name!r}, is of text; expected numbers. Write it as such, as CSV or as Parquet")
    return frame


def of_options(given: Mapping[str, str], schema: Schema) -> pl.DataFrame:
    """One row of the condition, of texts by name."""
    frame = pl.DataFrame({name: [text] for name, text in given.items()})
    return typed(Block(frame), Origin(WHERE), schema, given)


def _as_kind(column: pl.Series, schema: Schema, where: str, block: Block) -> pl.Series:
    """Text as values of the kind that the schema has."""
    sort = schema[column.name].parsed_as(schema.dtype_of(column.name))
    if sort == "text":
        return column
    plain = column.str.strip_chars()
    parsed = _booleans(plain) if sort == "true or false" else _times(plain) if sort == "times" else _as_numbers(plain)
    wrong = column.is_not_null() & (plain.str.contains(TIME).not_() if parsed is None else parsed.is_null())
    if wrong.any() or parsed is None:
        place = int(wrong.arg_max() or 0)
        raise Mistake(
            f"{where}, row {block.row(place)}, column {column.name!r}, is {column[place]!r:.60}; expected {sort}. Correct it, "
            "or name it in --gaps"
        )
    dtype = schema.dtype_of(column.name)
    if sort == "times" and is_date(dtype):
        parsed = _of_zone(parsed, zone_in(dtype) is not None, where, column.name)
    return parsed.alias(column.name)


def _of_zone(times: pl.Series, zoned: bool, where: str, name: str) -> pl.Series:
    """Times with a zone, or without; gaps alone are either."""
    if bool(getattr(times.dtype, "time_zone", None)) == zoned:
        return times
    if times.count():
        expected, example = ("with", "2024-01-31T12:00:00Z") if zoned else ("without", "2024-01-31T12:00:00")
        raise Mistake(f"{where}, column {name!r}: expected times {expected} a zone, as those of the model, such as {example}")
    return pl.Series([None] * len(times), dtype=pl.Datetime("us", "UTC"))


def _as_numbers(column: pl.Series) -> pl.Series:
    whole = column.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == column.null_count() else column.cast(pl.Float64, strict=False)
