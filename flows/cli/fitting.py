"""Parts that `flows fit` and `flows schema` share: rows with a dtype for each column, and the schema of them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from flows import tables
from flows.cli.columns import guessed, numbers_of_text
from flows.cli.failures import Mistake
from flows.cli.models import asked
from flows.cli.source import Block, Source
from flows.core import FlowsError
from flows.results.frames import listed
from flows.tables import Schema

ODD = 0.01  # of a column of numbers: the share of values that may be mistyped
LEAST_NUMBERS = 20  # values up to which a column of numbers may be one of codes
ODD_NAMES = 0.9  # of a column: the share that is numbers, where its name is one


class Columns(NamedTuple):
    """Columns that options name: those that are given, those that are not read, and that of the weights."""

    condition: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    weights: str = ""


def read(source: Source, path: str | None, columns: Columns, rows: int | None = None, seed: int = 0) -> tuple[Block, Schema]:
    """All rows of a file, or so many of them at random, and their schema: that of a file of JSON, or what columns suggest."""
    schema = None if path is None else _of_file(path, columns)
    block = source.whole()
    _check_names(block, source.name, columns)
    if source.format == "csv" and source.reading.header is None and first_row_is_data(block.frame):
        raise Mistake(
            f"{source.name}: the names of columns, {listed(block.frame.columns)}, read like the rows below them. Give "
            "--no-header if the first row is one of data, else --header"
        )
    if schema is not None:
        _check_columns(schema, str(path), block, source.name, columns)
    block = _some(Block(guessed(block, source.origin, schema)), rows, seed)
    schema = _suggested(block, source.name, columns) if schema is None else schema
    _check_range(block, source.name, schema, columns)
    for name in columns.ignore:  # they are in the schema, so that rows to score may have them, and may not
        schema = schema.ignoring(name, "--ignore")
    return block, schema


def _some(block: Block, rows: int | None, seed: int) -> Block:
    """So many rows at random, in their order."""
    if rows is None or rows >= len(block.frame):
        return block
    places = np.sort(np.random.default_rng(seed).choice(len(block.frame), rows, replace=False))
    return Block(block.frame[places], numbers=1 + places)


def _suggested(block: Block, name: str, columns: Columns) -> Schema:
    frame = block.frame.drop([*columns.ignore, *filter(None, [columns.weights])])
    if not frame.columns:
        raise Mistake(f"{name} has no column that is left to model; expected one or more beside --ignore and --weights")
    schema: Schema = asked(
        lambda rows: tables.infer_schema(rows, columns.condition), frame, name, block, "Correct it, or name it in --gaps"
    )
    for column in frame.get_columns():
        kind = schema[column.name]
        place = text_among_numbers(column) if kind.block == "codes" or not kind.is_read else None
        if place is not None:
            raise Mistake(
                f"{name}, row {block.row(place)}, column {column.name!r}, is {column[place]!r:.60}, in a column of numbers. "
                f"Correct it, name it in --gaps, give --ignore {column.name}, or a --schema where it is a category"
            )
    return schema


def _check_names(block: Block, name: str, columns: Columns) -> None:
    """Refuse an option that names no column."""
    for option, names in zip(("--condition", "--ignore", "--weights"), columns, strict=True):
        for one in [names] if isinstance(names, str) else names:
            if one and one not in block.frame.columns:
                raise Mistake(f"{option} is {one!r}, no column of {name}; expected one of {listed(block.frame.columns)}")


def _check_columns(schema: Schema, path: str, block: Block, name: str, columns: Columns) -> None:
    """Refuse a schema of a file that is of other columns than the rows."""
    missing = [one for one in schema if one not in block.frame.columns and schema[one].is_read]
    besides = [one for one in block.frame.columns if one not in schema and one not in (*columns.ignore, columns.weights)]
    if missing:
        raise Mistake(f"{name} lacks {listed(missing)}, which {path} has; expected the same columns, or another --schema")
    if besides:
        raise Mistake(f"{name} has {listed(besides)}, which {path} lacks; add it there, or give --ignore {besides[0]}")


def _check_range(block: Block, name: str, schema: Schema, columns: Columns) -> None:
    """Refuse a number that float32, in which models compute, does not have."""
    for column in block.frame.get_columns():
        read = column.name in schema and column.name not in columns.ignore and schema[column.name].is_read
        far = column.is_finite() & (column.abs() > np.finfo(np.float32).max) if column.dtype.is_float() and read else None
        if far is not None and far.any():
            place = int(far.arg_max() or 0)
            raise Mistake(
                f"{name}, row {block.row(place)}, column {column.name!r}, is {column[place]:g}; expected numbers up to 3e+38. "
                f"Correct it, name it in --gaps, or give --ignore {column.name}"
            )


def _of_file(path: str, columns: Columns) -> Schema:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; expected JSON") from error
    try:
        schema = Schema.from_json(text)
    except FlowsError as error:
        raise Mistake(f"{path}: {str(error).removeprefix('from_json: ')}") from None
    condition = columns.condition
    if condition and schema.condition and condition != schema.condition:
        raise Mistake(f"--condition is {listed(condition)}, and {path} has {listed(schema.condition)}; expected one of them")
    if condition and not schema.condition:
        schema = Schema(schema.kinds, condition)
    return schema


def text_among_numbers(column: pl.Series) -> int | None:
    """The place of the first value that is no number in a column of text nearly all of which are, but for one value or a
    hundredth of them; None in others, and where they are codes."""
    if column.dtype != pl.String:
        return None
    numbers = numbers_of_text(column.str.strip_chars())
    odd = 0 if numbers is None else column.count() - numbers.count()
    if numbers is None or not 0 < odd <= max(1, ODD * column.count()) or numbers.n_unique() <= LEAST_NUMBERS:
        return None
    return int((numbers.is_null() & column.is_not_null()).arg_max() or 0)


def first_row_is_data(frame: pl.DataFrame) -> bool:
    """Return whether the names of columns of text read like the values below them, and are no numbers 0, 1, 2, ... or years."""
    names = pl.Series(frame.columns, dtype=pl.String).str.strip_chars()
    numbers = names.cast(pl.Float64, strict=False)
    known = numbers.drop_nulls()
    steps = set(known.diff().drop_nulls())
    counted = (known == known.round()).all() and (len(known) == 1 or steps == {1.0} or (len(steps) == 1 and len(known) > 2))
    if not len(known) or counted:
        return False
    columns = [column.str.strip_chars().drop_nulls() for column in frame.get_columns()]
    return all(_reads_like(name, column) for name, column in zip(names, columns, strict=True) if len(column))


def _reads_like(name: str, there: pl.Series) -> bool:
    if name in there:
        return True
    alike = (pl.Series([name]).cast(pl.Float64, strict=False), there.cast(pl.Float64, strict=False))
    return all(numbers.count() > ODD_NAMES * len(numbers) for numbers in alike)
