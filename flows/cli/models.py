"""Fitted tables of files, and rows as they are to be read for them."""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import typer

import flows
from flows import tables
from flows.cli.columns import typed
from flows.cli.failures import Mistake
from flows.cli.options import Shared, is_tsv, marks_of
from flows.cli.source import FORMATS, GAPS, Block, Reading, Source
from flows.tables.fields import CellError

ROWS = 8_192  # of a block: scores and draws are made in these, so that they do not depend on how a file is read
KEY = "reading"  # of the metadata of a model


def reading_of(options: Shared, path: str, table: tables.TableResult | None = None) -> Reading:
    """How to read a file: as options say, or else as the rows were read to which the table was fitted."""
    kept = {} if table is None else table.metadata.get(KEY)
    kept = kept if isinstance(kept, dict) else {}
    if options.format is not None and options.format not in set(FORMATS.values()):
        raise Mistake(f"--format is {options.format!r}; expected csv, parquet or npy")
    separator = "\t" if is_tsv(path) else str(kept.get("separator", ","))
    if options.separator is not None:
        separator = marks_of(options.separator)
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0':
        raise Mistake(f"--separator is {separator!r}; expected one character, such as ';' or '\\t'")
    gaps = tuple(map(str, kept.get("gaps", GAPS)))
    if options.gaps is not None:
        gaps = ("", *options.gaps.split(","))
    encoding = options.encoding or str(kept.get("encoding", "utf-8"))
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):  # of a codec that is none of text, too
        raise Mistake(f"--encoding {encoding!r} is not known; expected one such as utf-8, latin-1 or cp1252") from None
    header = (False if kept.get("header") is False else None) if options.no_header is None else not options.no_header
    return Reading(options.format, separator, encoding, tuple(dict.fromkeys(gaps)), header)


def keep_programs(no_cache: bool) -> None:
    """A second command does not compile what the first did."""
    if not no_cache:
        flows.keep_programs()


def loaded(path: str) -> tables.TableResult:
    """The fitted table of a file; of one without a schema, it says how that is used."""
    text = flows.describe(path)["metadata"].get("table")
    if not isinstance(text, str):
        raise Mistake(f"{path} has a model and no schema of a table, as it was saved by result.save; use flows.load in Python")
    return tables.load(path)


def whole(source: Source, schema: tables.Schema, drop_gaps: bool, quiet: bool) -> tuple[Block, pl.DataFrame]:
    """All rows of a file, and as the schema has them; without those with gaps, if that is asked for."""
    block = source.whole()
    frame = typed(block, source.origin, schema)
    lacking = schema.gaps(frame) if drop_gaps else {}
    if not lacking:
        return block, frame
    keep = np.flatnonzero(~np.any(list(lacking.values()), 0))
    if not len(keep):
        raise Mistake(f"all rows of {source.name} have a gap; ignore these columns when fitting, or fill them")
    if not quiet:
        typer.echo(f"warning: {len(frame) - len(keep)} of {len(frame)} rows are left out, as they have gaps", err=True)
    return block._replace(frame=block.frame[keep], numbers=keep + block.first), frame[keep]


def asked(call: Callable[[pl.DataFrame], Any], frame: pl.DataFrame, where: str, block: Block, remedy: str) -> Any:
    """Ask a table about a frame, the rows of a block; an error names a value by its row in the file."""
    try:
        return call(frame)
    except CellError as error:
        said = f"{where}, row {block.row(error.row)}, column {error.column!r}, {error.said}"
        raise Mistake(f"{said}. {remedy}") from None
    except TypeError as error:  # of times with a zone where there were none
        raise Mistake(f"{where}: {error}") from error


def with_rows(
    call: Callable[[pl.DataFrame], Any], path: str, table: tables.TableResult, shared: Shared
) -> tuple[Any, pl.DataFrame, str]:
    """Return what a table says of all rows of a file, these rows, and the name of the file for messages."""
    source = Source(path, reading_of(shared, path, table))
    block, frame = whole(source, table.schema, shared.drop_gaps, shared.quiet)
    remedy = "Correct it, or leave the row out; --drop-gaps leaves out rows with gaps"
    return asked(call, frame, source.name, block, remedy), frame, source.name


def print_json(value: Any) -> None:
    """One object on stdout; what is no number is null."""
    json.dump(_plain(value), sys.stdout, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
