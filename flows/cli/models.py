"""Fitted tables of files, and rows of files with the dtypes that their schema has."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl

import flows
from flows.cli.command import Mistake
from flows.cli.source import Block
from flows.results.frames import listed

ROWS = 8_192  # of a block: scores and draws are made in these, so that they do not depend on how a file is read


def keep_programs(no_cache: bool) -> None:
    """Keep compiled programs, so that a second command does not compile them again."""
    if not no_cache:
        flows.keep_programs()


def loaded(path: str) -> "flows.tables.TableResult":
    """The fitted table of a file; an error says how a file without a schema is used."""
    if not isinstance(flows.describe(path)["metadata"].get("table"), str):
        raise Mistake(f"{path} has a model and no schema of a table, as it was saved by result.save; use flows.load in Python")
    return flows.tables.load(path)


def asked(call: Callable[[pl.DataFrame], Any], block: Block, remedy: str) -> Any:
    """Ask a table about rows; an error names a value by its row in the file."""
    try:
        return call(block.frame)
    except flows.tables.fields.CellError as error:
        raise Mistake(f"{block.cell(error.row, error.column)} {error.said}. {remedy}") from None
    except TypeError as error:  # of times with a zone where there were none
        raise Mistake(f"{block.name}: {error}") from error


def typed(block: Block, schema: "flows.tables.Schema", names: Iterable[str] | None = None) -> Block:
    """Rows of a file with the columns of the schema; other columns, and ignored ones, are left out.

    Args:
        names: of the columns that are needed; by default all that the schema reads.

    Errors:
        Mistake: a column that is missing; text that is not a number or not a time, by its row.
    """
    wanted = [name for name in (schema if names is None else names) if schema[name].is_read]
    missing = [name for name in wanted if name not in block.frame.columns]
    if missing:
        raise Mistake(
            f"{block.name} lacks {listed(missing)}; expected the columns {listed(wanted)} of the model, and found "
            f"{listed(block.frame.columns)}"
        )
    return with_columns(block, [parsed(block.frame[name], schema, block) for name in wanted])


def with_columns(block: Block, columns: Iterable[pl.Series]) -> Block:
    """The block with other columns, one of which may have an empty name, as rows that pandas wrote with their numbers have."""
    return block._replace(frame=pl.DataFrame({column.name: column for column in columns}))


def parsed(column: pl.Series, schema: "flows.tables.Schema", block: Block) -> pl.Series:
    """A column as values of its kind; text that is not one is an error, and so is text of a file that has numbers."""
    kind, dtype = schema[column.name], schema.dtype_of(column.name)
    if not block.is_text:
        if column.dtype == pl.String and kind.sort == "numbers":
            where = f"{block.name}, column {column.name!r}"
            raise Mistake(f"{where}, is of text; expected numbers. Write it as such, as CSV or as Parquet")
        return column
    sort = kind.parsed_as(dtype)
    if sort == "numbers" and not _has_numbers(block.gaps):
        values = kind.parse(column, dtype)  # where all are numbers, none is a gap
        if values.null_count() == column.null_count() and not (values.dtype.is_float() and values.is_nan().any()):
            return values
    column = without_gaps(column, block)
    values = column if sort == "text" else kind.parse(column.str.strip_chars(), dtype)
    wrong = column.is_not_null() & values.is_null()
    if wrong.any():
        place, texts = int(wrong.arg_max() or 0), column.str.strip_chars().drop_nulls().unique(maintain_order=True).to_list()
        notation = flows.tables.kinds.notation
        ways = (notation.numbers_in(texts) if sort == "numbers" else notation.dates_in(texts)).ways
        argument = "text" if sort == "numbers" else "format"
        remedy = f'Write "{argument}": "{ways[0]}" for it in the schema' if ways else "Correct it, or name it in --gaps"
        raise Mistake(f"{block.cell(place, column.name)} is {column[place]!r:.60}; expected {sort}. {remedy}")
    return _in_zone(values, dtype, block) if sort == "times" else values


def without_gaps(column: pl.Series, block: Block) -> pl.Series:
    return column.set(column.str.strip_chars().is_in(list(block.gaps)), None)


@functools.cache
def _has_numbers(texts: tuple[str, ...]) -> bool:
    return bool(pl.Series(texts, dtype=pl.String).cast(pl.Float64, strict=False).is_not_nan().any())


def _in_zone(times: pl.Series, dtype: Any, block: Block) -> pl.Series:
    """Times with or without a zone, as the dtype has them; gaps alone may be both."""
    zoned = flows.tables.kinds.dtypes.zone_in(dtype) is not None
    if not flows.tables.kinds.dtypes.is_date(dtype) or bool(getattr(times.dtype, "time_zone", None)) == zoned:
        return times
    if times.count():
        expected, example = ("with", "2024-01-31T12:00:00Z") if zoned else ("without", "2024-01-31T12:00:00")
        where = f"{block.name}, column {times.name!r}"
        raise Mistake(f"{where}: expected times {expected} a zone, as in the model, such as {example}")
    return pl.Series(times.name, [None] * len(times), dtype=pl.Datetime("us", "UTC"))
