"""Files of rows, read in blocks: CSV as text, which keeps every value as it was written, Parquet and npy with their types."""

import csv
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from flows.cli.failures import Mistake

GAPS = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet", ".npy": "npy"}
SEPARATORS = ";\t|"  # that a header of one column hints at


@dataclass(frozen=True)
class Reading:
    """How a file is read; what a model was fitted to is kept beside it.

    Attributes:
        format: "csv", "parquet" or "npy"; None for that of the ending.
        separator, encoding: of CSV.
        gaps: texts that stand for a missing value.
    """

    format: str | None = None
    separator: str = ","
    encoding: str = "utf-8"
    gaps: tuple[str, ...] = GAPS

    def kept(self) -> dict[str, Any]:
        """For the metadata of a model: all but the format, which each file tells."""
        return {**asdict(self), "format": None, "gaps": list(self.gaps)}


class Origin(NamedTuple):
    """Where values come from: its name for errors, texts that are gaps, and whether values are text."""

    name: str
    gaps: tuple[str, ...] = GAPS
    is_text: bool = True


class Block(NamedTuple):
    """Rows of a file.

    Attributes:
        first: the number of the first of them, from 1.
        frame: of text for CSV, typed otherwise.
    """

    first: int
    frame: pl.DataFrame


class Source:
    """A file of rows, or stdin.

    Args:
        path: "-" for stdin.
    """

    def __init__(self, path: str, reading: Reading):
        self.path, self.reading = path, reading
        self.name = "stdin" if path == "-" else path
        self.format = "csv" if path == "-" else reading.format or FORMATS.get(Path(path).suffix.lower(), "")
        if not self.format:
            raise Mistake(f"{path}: the ending tells no format; expected .csv, .parquet or .npy, or give --format")
        if path != "-" and os.path.isdir(path):
            raise Mistake(f"{path} is a folder; expected a file of rows")

    @property
    def origin(self) -> Origin:
        return Origin(self.name, self.reading.gaps, self.format == "csv")

    def blocks(self, rows: int) -> Iterator[Block]:
        """All rows, so many at a time; the last block has the rest."""
        read = {"csv": self._csv, "parquet": self._parquet, "npy": self._npy}[self.format]
        return read(rows)

    def whole(self) -> Block:
        """All rows at once."""
        blocks = list(self.blocks(2**16))
        return Block(1, pl.concat([block.frame for block in blocks]))

    def _csv(self, rows: int) -> Iterator[Block]:
        with _opened(self.path, self.name, self.reading.encoding) as file, _blamed(self.name, self.reading):
            records = csv.reader(file, delimiter=self.reading.separator, strict=True)
            names = self._header(next(records, None))
            held, first = list[list[str]](), 1
            for record in records:
                if len(record) != len(names):
                    if record:
                        raise Mistake(
                            f"{self.name}, row {first + len(held)}, line {records.line_num}, has {len(record)} values; "
                            f"expected {len(names)}, as the header has. Correct it, or give --separator"
                        )
                    if len(names) > 1:
                        continue  # an empty line
                    record = [""]
                held.append(record)
                if len(held) == rows:
                    yield Block(first, _of_text(names, held))
                    first, held = first + rows, []
            if held or first == 1:
                if not held:
                    raise Mistake(f"{self.name} has a header and no rows; expected one row or more")
                yield Block(first, _of_text(names, held))

    def _header(self, names: list[str] | None) -> list[str]:
        if not names:
            raise Mistake(f"{self.name} is empty; expected a header and rows")
        if len(names) == 1 and self.reading.separator not in names[0]:
            for mark in SEPARATORS:
                if mark in names[0]:
                    raise Mistake(
                        f"{self.name} has one column, {names[0]!r:.60}, with {mark!r} in it; give --separator {mark!r}"
                    )
        self._check_names(names)
        return names

    def _check_names(self, names: list[str]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Mistake(f"{self.name} has columns of one name, {', '.join(map(repr, twice[:5]))}; rename them")

    def _parquet(self, rows: int) -> Iterator[Block]:
        try:
            lazy = pl.scan_parquet(self.path)
            self._check_names(lazy.collect_schema().names())
            count = int(lazy.select(pl.len()).collect().item())
        except (OSError, pl.exceptions.PolarsError) as error:
            raise Mistake(f"{self.name} cannot be read as Parquet: {error}") from error
        if not count:
            raise Mistake(f"{self.name} has no rows; expected one or more")
        for start in range(0, count, rows):
            yield Block(start + 1, lazy.slice(start, rows).collect())

    def _npy(self, rows: int) -> Iterator[Block]:
        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Mistake(f"{self.name} cannot be read as npy: {error}") from error
        if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
            shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
            raise Mistake(f"{self.name} has shape {shape} and dtype {dtype}; expected numbers, (rows, columns)")
        array = array.reshape(len(array), -1)
        for start in range(0, len(array), rows):
            some = np.asarray(array[start : start + rows])
            yield Block(start + 1, pl.DataFrame({str(j): np.ascontiguousarray(some[:, j]) for j in range(some.shape[1])}))


def _of_text(names: list[str], records: list[list[str]]) -> pl.DataFrame:
    columns = zip(*records, strict=True)
    return pl.DataFrame([pl.Series(name, column, pl.String) for name, column in zip(names, columns, strict=True)])


@contextmanager
def _opened(path: str, name: str, encoding: str) -> Iterator[io.TextIOWrapper]:
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"  # which takes a mark in front away
    place: Any = sys.stdin.fileno() if path == "-" else path
    try:
        file = open(place, encoding=encoding, newline="", closefd=path != "-")  # noqa: SIM115
    except LookupError:
        raise Mistake(f"--encoding {encoding!r} is not known; expected one such as utf-8, latin-1 or cp1252") from None
    except OSError as error:
        raise Mistake(f"{name} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


@contextmanager
def _blamed(name: str, reading: Reading) -> Iterator[None]:
    """What a file has that is no CSV of this encoding."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise Mistake(
            f"{name} is not written in {reading.encoding}: {error.object[error.start : error.start + 1]!r} at byte "
            f"{error.start}; give --encoding, such as latin-1 or cp1252"
        ) from None
    except csv.Error as error:
        raise Mistake(f"{name} cannot be read as CSV: {error}; expected quotes around texts that hold separators") from None
