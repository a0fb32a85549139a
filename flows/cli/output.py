"""Files of rows that are written in blocks, whole or not at all; and stdout."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from flows.cli.failures import Mistake
from flows.cli.source import FORMATS
from flows.persistence.container import beside

TIME = "%Y-%m-%dT%H:%M:%S%.f"


def refuse_existing(path: str | None, force: bool) -> None:
    """An output that exists is left alone."""
    if path not in (None, "-") and os.path.exists(str(path)) and not force:
        raise Mistake(f"{path} exists; give --force to replace it, or another name")


def write_frames(path: str, frames: Iterable[pl.DataFrame], separator: str = ",") -> None:
    """All frames, one after the other, under one header; "-" is stdout.

    Columns of text are written as they are; a file is beside its place until it is whole.
    """
    if path == "-":
        _write_csv(sys.stdout.buffer, frames, separator)
        sys.stdout.buffer.flush()
        return
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind not in ("csv", "parquet"):
        raise Mistake(f"{path}: the ending tells no format; expected .csv or .parquet")
    with beside(path) as file:
        if kind == "csv":
            _write_csv(file, frames, separator)
        else:
            _write_parquet(file, iter(frames))


def write_text(path: str, text: str) -> None:
    """A file of text."""
    with beside(path) as file:
        file.write(text.encode())


def _write_csv(file: Any, frames: Iterable[pl.DataFrame], separator: str) -> None:
    for i, frame in enumerate(frames):
        times = [
            pl.col(name).dt.strftime(TIME + "%:z" * bool(getattr(dtype, "time_zone", None)))
            for name, dtype in frame.schema.items()
            if dtype == pl.Datetime
        ]
        file.write(frame.with_columns(times).write_csv(include_header=i == 0, separator=separator).encode())


def _write_parquet(file: Any, frames: Iterator[pl.DataFrame]) -> None:
    first = next(frames)

    def source(with_columns: Any, predicate: Any, n_rows: Any, batch_size: Any) -> Iterator[pl.DataFrame]:
        yield first
        yield from frames

    register_io_source(source, schema=first.schema).sink_parquet(file)


def of_any(frame: Any) -> pl.DataFrame:
    """A frame of pandas, of a model that was fitted to one, as one of polars."""
    if isinstance(frame, pl.DataFrame):
        return frame
    return pl.DataFrame([pl.Series(str(name), frame[name].tolist(), strict=False) for name in frame.columns])


def separator_of(path: str, separator: str) -> str:
    """Of an output: that of the input, but a tab for .tsv."""
    return "\t" if Path(path).suffix.lower() == ".tsv" else separator
