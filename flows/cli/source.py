"""Files of rows, read in blocks: CSV as text, which keeps every value as it was written, Parquet and npy with their types."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

import flows
from flows.cli.command import Mistake, Shared
from flows.cli.text import TextRows

GAPS = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet", ".npy": "npy"}
KEY = "reading"  # of the metadata of a model
READ = 8_192  # rows of text that are held as text of Python
MOST_NUMBERS = 2**22  # of a piece of Parquet, as a group of rows is unpacked whole even for a few


@dataclass(frozen=True)
class Reading:
    """Settings by which a file is read; a model keeps the settings of the rows that it was fitted to.

    Attributes:
        format: "csv", "parquet" or "npy"; None for the format of the ending.
        separator, encoding: of CSV.
        gaps: texts that stand for a missing value.
        header: whether the first row of CSV names the columns, which are 0, 1, ... otherwise; None if that is not known.
    """

    format: str | None = None
    separator: str = ","
    encoding: str = "utf-8"
    gaps: tuple[str, ...] = GAPS
    header: bool | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """All settings but the format, which each file's name shows."""
        return {KEY: {**asdict(self), "format": None, "gaps": list(self.gaps)}}


def reading_of(options: Shared, path: str, table: "flows.tables.TableResult | None" = None) -> Reading:
    """The settings of a file: from options, or else from the rows that the table was fitted to."""
    saved = {} if table is None else table.metadata.get(KEY)
    saved = saved if isinstance(saved, dict) else {}
    if options.format is not None and options.format not in FORMATS.values():
        raise Mistake(f"--format is {options.format!r}; expected csv, parquet or npy")
    separator = "\t" if is_tsv(path) else str(saved.get("separator", ","))
    if options.separator is not None:
        separator = {"\\t": "\t", "tab": "\t"}.get(options.separator, options.separator)  # as it is written in a shell
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0':
        raise Mistake(f"--separator is {separator!r}; expected one character, such as ';' or '\\t'")
    gaps = tuple(map(str, saved.get("gaps", GAPS))) if options.gaps is None else ("", *options.gaps.split(","))
    encoding = options.encoding or str(saved.get("encoding", "utf-8"))
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):  # also of a codec that is not for text
        raise Mistake(f"--encoding {encoding!r} is not known; expected one such as utf-8, latin-1 or cp1252") from None
    header = (False if saved.get("header") is False else None) if options.no_header is None else not options.no_header
    return Reading(options.format, separator, encoding, tuple(dict.fromkeys(gaps)), header)


def is_tsv(path: str) -> bool:
    """Tell whether the ending of a file says that tabs separate values."""
    return path.lower().endswith(".tsv")


class Block(NamedTuple):
    """Rows of a file.

    Attributes:
        frame: of text for CSV, typed otherwise.
        numbers: of the rows in the file, from 0, as Python counts them.
        name: of the file, for errors.
        gaps: texts that stand for a missing value.
        is_text: whether values are text.
        line_of: the line of a file of text on which a row begins, by its number; None where there are no lines.
    """

    frame: pl.DataFrame
    numbers: Sequence[int] | np.ndarray
    name: str
    gaps: tuple[str, ...] = GAPS
    is_text: bool = True
    line_of: Callable[[int], int | None] = lambda number: None

    def cell(self, place: int, column: str) -> str:
        """A value of the row at this place of the block, for an error."""
        line = self.line_of(number := int(self.numbers[place]))
        return f"{self.name}, row {number}{f' (line {line})' if line else ''}, column {column!r},"

    def taken(self, places: np.ndarray) -> "Block":
        """The rows at some places of the block."""
        return self._replace(frame=self.frame[places], numbers=np.asarray(self.numbers)[places])


class Source:
    """A file of rows, or stdin, whose path is "-"."""

    def __init__(self, path: str, reading: Reading):
        self.path, self.reading = path, reading
        self.name = "stdin" if path == "-" else path
        self.format = "csv" if path == "-" else reading.format or FORMATS.get(Path(path).suffix.lower(), "")
        if path != "-" and os.path.isdir(path):
            raise Mistake(f"{path} is a folder; expected a file of rows")
        if not self.format:
            raise Mistake(f"{path}: the ending does not name a format; expected .csv, .parquet or .npy, or give --format")

    def blocks(self, rows: int) -> Iterator[Block]:
        """All rows in blocks of this size, however many are read together; the last block has the rest."""
        of_file = self.name, self.reading.gaps, self.format == "csv", self._line_of
        first, held = 0, list[pl.DataFrame]()
        for piece in self._pieces():
            held.append(piece)
            while sum(map(len, held)) >= rows:
                joined = pl.concat(held)
                yield Block(joined[:rows], range(first, first + rows), *of_file)
                first, held = first + rows, [joined[rows:]]
        if rest := sum(map(len, held)):
            yield Block(pl.concat(held), range(first, first + rest), *of_file)
        if first + rest == 0:
            raise Mistake(f"{self.name} has a header and no rows; expected one row or more")

    def whole(self) -> Block:
        """All rows at once."""
        return next(self.blocks(2**62))

    def _text(self) -> TextRows:
        reading = self.reading
        return TextRows(self.path, self.name, reading.separator, reading.encoding, reading.header)

    def _line_of(self, number: int) -> int | None:
        return None if self.format != "csv" or self.path == "-" else self._text().line_of(number)

    def _pieces(self) -> Iterator[pl.DataFrame]:
        if self.format == "csv":
            return self._text().pieces(READ)
        return self._parquet() if self.format == "parquet" else self._npy()

    def _parquet(self) -> Iterator[pl.DataFrame]:
        try:
            with open(self.path, "rb"):  # so that the message is the system's
                pass
            lazy = pl.scan_parquet(self.path, glob=False)
            columns = len(lazy.collect_schema())
            count = int(lazy.select(pl.len()).collect().item())
            rows = max(READ, MOST_NUMBERS // max(columns, 1))
            for start in range(0, count, rows):
                yield lazy.slice(start, rows).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            why = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise Mistake(f"{self.name} cannot be read as Parquet: {why}; expected a file of rows") from error

    def _npy(self) -> Iterator[pl.DataFrame]:
        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or ("it does not hold numbers alone" if "object" in str(error) else error)
            raise Mistake(f"{self.name} cannot be read as npy: {why}; expected an array of numbers") from error
        if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
            shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
            raise Mistake(f"{self.name} has shape {shape} and dtype {dtype}; expected numbers, (rows, columns)")
        array = array.reshape(len(array), -1)
        plain = array.dtype.itemsize <= 8 and array.dtype != np.float16  # a dtype that frames have
        dtype = array.dtype.newbyteorder("=") if plain else np.dtype(np.float64)
        for start in range(0, len(array), READ):
            some = array[start : start + READ].astype(dtype)
            yield pl.DataFrame({str(j): np.ascontiguousarray(some[:, j]) for j in range(some.shape[1])})
