"""Files of rows that are written in blocks, whole or not at all; and stdout."""

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from flows.cli.command import Mistake
from flows.cli.source import FORMATS, Reading, is_tsv
from flows.persistence.container import replacement

TIME = "%Y-%m-%dT%H:%M:%S%.f"


class _Tried(Exception):
    """A file could be written."""


def check_output(path: str, force: bool, *inputs: str | None) -> None:
    """Refuse, before there is work to lose, an output that exists, is one of the inputs, or cannot be written."""
    for source in filter(None, inputs):
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise Mistake(f"{path} is an input of this command, which would replace it; give another name for the output")
    if os.path.isfile(path) and not force:
        raise Mistake(f"{path} exists; give --force to replace it, or another name")
    with suppress(_Tried), replacement(path):
        with suppress(FileNotFoundError):
            os.lstat(path)  # which fails where the name is too long
        raise _Tried


def check_rows_output(path: str, force: bool, *inputs: str | None) -> None:
    """Check the output of a command that writes rows; "-" is stdout."""
    if path == "-":
        return
    check_output(path, force, *inputs)
    if FORMATS.get(Path(path).suffix.lower()) not in ("csv", "parquet"):  # of a model, say, which --force shall not replace
        raise Mistake(f"{path}: the ending does not name a format to write; expected .csv, .tsv or .parquet")


def write_rows(path: str, frames: Iterable[pl.DataFrame], reading: Reading) -> None:
    """Write all frames, one after the other, under one header, with the settings of `reading`; "-" is stdout.

    Columns of text are written as they are; a file takes its place once it is whole.
    """
    if path == "-":
        _write_csv(_to_stdout, frames, reading.separator, reading.encoding)
        return
    with replacement(path) as file:
        if FORMATS.get(Path(path).suffix.lower()) == "parquet":
            _write_parquet(file, iter(frames))
        else:
            _write_csv(file.write, frames, "\t" if is_tsv(path) else reading.separator, reading.encoding)


def _to_stdout(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _write_csv(write: Callable[[bytes], Any], frames: Iterable[pl.DataFrame], separator: str, encoding: str) -> None:
    encoder = codecs.getincrementalencoder(encoding)()  # which puts a mark in front once, where there is one
    for i, frame in enumerate(frames):
        times = [
            pl.col(name).dt.strftime(TIME + "%:z" * bool(getattr(dtype, "time_zone", None)))
            for name, dtype in frame.schema.items()
            if dtype == pl.Datetime
        ]
        try:
            text = frame.with_columns(times).write_csv(include_header=i == 0, separator=separator)
        except pl.exceptions.PolarsError as error:  # of lists, say
            raise Mistake(f"CSV has no form for all columns: {error}; give -o FILE.parquet") from None
        try:
            data = encoder.encode(text)
        except UnicodeEncodeError as error:
            character = error.object[error.start : error.start + 1]
            raise Mistake(f"{encoding} has no {character!r}; give --encoding utf-8, or -o FILE.parquet") from None
        write(data)


def _write_parquet(file: Any, frames: Iterator[pl.DataFrame]) -> None:
    """Write by polars, which asks for one frame after the other, and turns an error of ours into another."""
    first, errors = next(frames), list[BaseException]()

    def source(with_columns: Any, predicate: Any, n_rows: Any, batch_size: Any) -> Iterator[pl.DataFrame]:
        try:
            yield first
            yield from frames
        except BaseException as error:
            errors.append(error)
            raise

    try:
        register_io_source(source, schema=first.schema).sink_parquet(file)
    except BaseException as error:
        if errors:
            raise errors[0] from None
        if isinstance(error, pl.exceptions.PolarsError):  # of the file, as it cannot be written
            raise OSError(str(error)) from None
        raise


def as_polars(frame: Any) -> pl.DataFrame:
    """A frame of pandas, from a model that was fitted to one, as a frame of polars."""
    if isinstance(frame, pl.DataFrame):
        return frame
    return pl.DataFrame([_series(str(name), frame[name]) for name in frame.columns])


def _series(name: str, column: Any) -> pl.Series:
    plain = getattr(column.dtype, "kind", "O") in "biuf" and not column.isna().any()
    values = column.to_numpy() if plain else [None if gap else value for gap, value in zip(column.isna(), column, strict=True)]
    made = pl.Series(name, values, strict=False)
    return made.cast(pl.String) if made.dtype == pl.Null else made


def print_json(value: Any) -> None:
    """Print one object; a number that is not finite is null."""
    json.dump(_plain(value), sys.stdout, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
