"""Parts that `flows fit` and `flows schema` share: rows with a dtype for each column, and the schema of them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

import flows
from flows.cli.command import Mistake
from flows.cli.models import asked, parsed, with_columns, without_gaps
from flows.cli.source import Block, Source
from flows.results.frames import listed

ODD_NAMES = 0.9  # of a column whose name is a number: the share of values that are numbers


class Columns(NamedTuple):
    """Columns that options name: the condition, columns that are not read, and columns of weights, groups and order."""

    condition: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    order: tuple[str, ...] = ()

    @classmethod
    def of(cls, *options: Any) -> "Columns":
        """Return the columns of options, each of which has several names, one, or None."""
        return cls(*((name,) if isinstance(name, str) else tuple(name or ()) for name in options))


def read(
    source: Source,
    path: str | None,
    columns: Columns,
    rows: int | None = None,
    seed: int = 0,
    takes_gaps: bool = False,
    schema: "flows.tables.Schema | None" = None,
) -> "tuple[Block, flows.tables.Schema]":
    """All rows of a file, or some of them at random, and their schema: of the model at `path`, from a file of JSON there, or as
    columns suggest; for a model that takes gaps, categories are without them."""
    schema = _schema_of(path, columns) if schema is None and path is not None else schema
    block = source.whole()
    there = block.frame.columns
    for option, names in columns._asdict().items():
        for name in names:
            if name not in there:
                raise Mistake(f"--{option} is {name!r}, which is not a column of {block.name}; expected one of {listed(there)}")
    if source.format == "csv" and source.reading.header is None and first_row_is_data(block.frame):
        raise Mistake(
            f"{source.name}: the names of columns, {listed(there)}, read like the rows below them. Give --no-header if the "
            "first row is one of data, else --header"
        )
    if schema is not None:
        _check_columns(schema, str(path), block, columns)
    block = with_columns(block, [_typed(column, schema, block) for column in block.frame.get_columns()])
    if rows is not None and rows < len(block.frame):
        block = block.taken(np.sort(np.random.default_rng(seed).choice(len(block.frame), rows, replace=False)))
    if schema is None:
        schema = _suggested(block, columns)
        schema = flows.tables.gaps.without_codes_of_gaps(schema, None) if takes_gaps else schema
    _check_range(block, schema, columns)
    for name in columns.ignore:  # they are in the schema, so that rows to score may have them, and may not
        schema = schema.ignoring(name, "--ignore")
    return block, schema


def _typed(column: pl.Series, schema: "flows.tables.Schema | None", block: Block) -> pl.Series:
    """A column as the schema has it; as its text suggests where no kind says it, or a category takes any value."""
    kind = schema[column.name] if schema is not None and column.name in schema else None
    if schema is not None and kind is not None and kind.is_read and getattr(kind, "values", ()) is not None:
        return parsed(column, schema, block)
    if not block.is_text:
        return column
    text = without_gaps(column, block)
    values = flows.tables.kinds.notation.guessed(text.str.strip_chars())
    return text if values is None else values


def _suggested(block: Block, columns: Columns) -> "flows.tables.Schema":
    frame = block.frame.drop([name for names in columns[1:] for name in names])
    if not frame.columns:
        raise Mistake(f"{block.name} has no column that is left to model; expected one or more that --ignore and others leave")
    for column in frame.get_columns():
        place = text_among_numbers(column)
        if place is not None:
            raise Mistake(
                f"{block.cell(place, column.name)} is {column[place]!r:.60}, in a column of numbers. "
                f"Correct it, name it in --gaps, give --ignore {column.name}, or a --schema where it is a category"
            )
    schema: flows.tables.Schema = asked(
        lambda rows: flows.tables.infer_schema(rows, columns.condition),
        block._replace(frame=frame),
        "Correct it, or name it in --gaps",
    )
    return schema


def _check_columns(schema: "flows.tables.Schema", path: str, block: Block, columns: Columns) -> None:
    """Refuse a schema of a file whose columns are not the columns of the rows."""
    there, name = block.frame.columns, block.name
    missing = [column for column in schema if column not in there and schema[column].is_read]
    more = [column for column in there if column not in schema and not any(column in names for names in columns[1:])]
    if missing:
        raise Mistake(f"{name} lacks {listed(missing)}, which {path} has; expected the same columns, or another --schema")
    if more:
        raise Mistake(f"{name} has {listed(more)}, which {path} lacks; add it there, or give --ignore {more[0]}")


def _check_range(block: Block, schema: "flows.tables.Schema", columns: Columns) -> None:
    """Refuse a number that float32, in which models compute, does not have."""
    for column in block.frame.get_columns():
        name = column.name
        if column.dtype.is_float() and name in schema and name not in columns.ignore and schema[name].is_read:
            far = column.is_finite() & (column.abs() > np.finfo(np.float32).max)
            if far.any():
                place = int(far.arg_max() or 0)
                raise Mistake(
                    f"{block.cell(place, name)} is {column[place]:g}; expected numbers up to 3e+38. Correct it, name it in "
                    f"--gaps, or give --ignore {name}"
                )


def _schema_of(path: str, columns: Columns) -> "flows.tables.Schema":
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; expected JSON") from error
    try:
        schema = flows.tables.Schema.from_json(text)
    except flows.FlowsError as error:
        raise Mistake(f"{path}: {str(error).removeprefix('from_json: ')}") from None
    condition = columns.condition
    if condition and schema.condition and condition != schema.condition:
        raise Mistake(f"--condition is {listed(condition)}, and {path} has {listed(schema.condition)}; expected one of them")
    return flows.tables.Schema(schema.kinds, condition) if condition and not schema.condition else schema


def text_among_numbers(column: pl.Series) -> int | None:
    """The place of the first value that is not a number in a column of text where all distinct values are numbers but one, or a
    hundredth, however they are written; None in other columns, and in columns of codes."""
    if column.dtype != pl.String or flows.tables.kinds.notation.holds_codes(text := column.str.strip_chars()):
        return None
    mistyped = flows.tables.kinds.notation.numbers_in(text.drop_nulls().unique(maintain_order=True).to_list()).odd
    return None if mistyped is None else int((text == mistyped).arg_max() or 0)


def first_row_is_data(frame: pl.DataFrame) -> bool:
    """Tell whether the names of columns of text read like the values below them, and are not numbers 0, 1, 2, ... or years."""
    names = pl.Series(frame.columns, dtype=pl.String).str.strip_chars()
    known = names.cast(pl.Float64, strict=False).drop_nulls()
    steps = set(known.diff().drop_nulls())
    counted = (known == known.round()).all() and (len(known) == 1 or steps == {1.0} or (len(steps) == 1 and len(known) > 2))
    if not len(known) or counted:
        return False
    for name, values in zip(names, frame.get_columns(), strict=True):
        texts = pl.Series([name]), values.str.strip_chars().drop_nulls()
        alike = all(text.cast(pl.Float64, strict=False).count() > ODD_NAMES * len(text) for text in texts)
        if not (alike or name in texts[1] or texts[1].is_empty()):
            return False
    return True
