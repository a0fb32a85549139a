"""CSV as rows of text, which keeps every value as it was written; errors name the row and the line."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any, TextIO

import polars as pl

from flows.cli.command import Mistake

SEPARATORS = ";,\t|"  # that a header of one column hints at


class TextRows:
    """The rows of a file of CSV, or of stdin.

    Args:
        path: "-" for stdin.
        name: of the file, for errors.
        header: whether the first row has names.
    """

    def __init__(self, path: str, name: str, separator: str, encoding: str, header: bool | None = None):
        self.path, self.name, self.separator, self.encoding, self.header = path, name, separator, encoding, header
        self.rows, self.line = 0, 1  # rows before the records at hand, and the line where these begin
        self.count = 0  # of columns
        self.records: list[list[str]] = []  # at hand, with empty lines

    def pieces(self, rows: int) -> Iterator[pl.DataFrame]:
        """Frames of text of this size or less, with null for an empty cell. Empty lines are left out, where rows have several
        values."""
        with self._opened() as file, self._blamed():
            first = list[str]()
            reader = csv.reader(_noted(file, first), delimiter=self.separator, strict=True)
            names = self._header(next(filter(None, reader), None))
            self.count = len(names)
            if self.header is not False:
                self.line += reader.line_num
            left = chain(first if self.header is False else (), file)
            while lines := list(islice(left, rows)):
                if (frame := _plain(names, lines, self.separator)) is not None:
                    self.line += len(lines)
                else:
                    reader = csv.reader(chain(lines, left), delimiter=self.separator, strict=True)
                    self.records.extend(islice(reader, len(lines)))  # which keeps those before an error
                    columns = list(zip(*self._checked(len(names)), strict=True)) or [()] * len(names)
                    texts = pl.DataFrame(dict(zip(names, columns, strict=True)), dict.fromkeys(names, pl.String))
                    frame = texts.with_columns(pl.when(pl.all() != "").then(pl.all()))  # a name may be empty
                    self.line += reader.line_num
                self.rows, self.records = self.rows + len(frame), []
                if len(frame):
                    yield frame

    def _header(self, names: list[str] | None) -> list[str]:
        if not names:
            raise Mistake(f"{self.name} is empty; expected a header and rows")
        mark = next((mark for mark in SEPARATORS if mark in names[0]), None)
        if len(names) == 1 and mark is not None:
            raise Mistake(f"{self.name} has one column, {names[0]!r:.60}, with {mark!r} in its name; give --separator {mark!r}")
        if self.header is False:
            return [str(i) for i in range(len(names))]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Mistake(
                f"{self.name} has columns of one name, {', '.join(map(repr, twice[:5]))}; rename them, or give --no-header "
                "if the first row is one of data"
            )
        return names

    def _checked(self, expected: int) -> list[list[str]]:
        held = [record for record in self.records if record] if expected > 1 else [record or [""] for record in self.records]
        if set(map(len, held)) - {expected}:
            place = next(i for i, record in enumerate(self.records) if record and len(record) != expected)
            raise Mistake(
                f"{self.name}, row {self._row(place)} (line {self._line(place)}), has {len(self.records[place])} values; "
                f"expected {expected}, as the header has. Correct it, or give --separator"
            )
        return held

    def _row(self, place: int) -> int:
        """The number of the row that is a record at hand, from 0."""
        return self.rows + sum(bool(record) or self.count == 1 for record in self.records[:place])

    def _line(self, place: int) -> int:
        """The line on which that row begins, as texts may have line ends."""
        return self.line + place + sum(value.count("\n") for record in self.records[:place] for value in record)

    def line_of(self, number: int) -> int | None:
        """The line on which a row begins, as some texts have line ends and some lines are empty; None behind the last row."""
        with self._opened() as file:
            reader, columns = csv.reader(file, delimiter=self.separator, strict=True), 0
            row, line = (0, 1) if self.header is False else (-1, 1)
            for record in reader:
                columns = columns or len(record)
                is_row = bool(record) or columns == 1
                if is_row and row == number:
                    return line
                row, line = row + is_row, reader.line_num + 1
        return None

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        plain = self.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        encoding = "utf-8-sig" if plain else self.encoding  # which removes a byte order mark
        place: Any = sys.stdin.fileno() if self.path == "-" else self.path
        try:
            file = open(place, encoding=encoding, newline="", closefd=self.path != "-")  # noqa: SIM115
        except OSError as error:
            raise Mistake(f"{self.name} cannot be read: {error.strerror or error}; expected a file of rows") from error
        with file:
            yield file

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Name the place where a file is not CSV of this encoding."""
        try:
            yield
        except UnicodeDecodeError as error:
            byte = error.object[error.start : error.start + 1]
            raise Mistake(
                f"{self.name}, line {self._line_of_other_encoding()}, has the byte {byte!r}, which is not {self.encoding}; "
                "give --encoding, such as latin-1 or cp1252"
            ) from None
        except UnicodeError as error:  # of the whole file, such as UTF-16 without a byte order mark
            raise Mistake(f"{self.name} is not {self.encoding}: {error}; give --encoding, such as utf-8 or utf-16-le") from None
        except csv.Error as error:
            read = len(self.records)
            raise Mistake(
                f"{self.name}, row {self._row(read)}, which begins on line {self._line(read)}, is not CSV: {error}; "
                "expected quotes around texts that hold separators, and each that is opened to be closed"
            ) from None

    def _line_of_other_encoding(self) -> int:
        """The line that cannot be decoded, which is after the row at hand; for stdin the line of that row."""
        with suppress(OSError), open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError:
                    return number
        return self._line(len(self.records))


def _noted(lines: Iterable[str], noted: list[str]) -> Iterator[str]:
    """The lines, noted as they are read."""
    for line in lines:
        noted.append(line)
        yield line


def _plain(names: list[str], lines: list[str], separator: str) -> pl.DataFrame | None:
    """Rows without quotes, a line each, by the reader of polars, which is four times as fast; None for others."""
    text, separators = "".join(lines).replace("\r\n", "\n"), {line.count(separator) for line in lines}
    if len(names) == 1 or separators != {len(names) - 1} or any(mark in text for mark in '"\r\0'):
        return None
    schema = dict.fromkeys(names, pl.String)
    return pl.read_csv(io.BytesIO(text.encode()), has_header=False, schema=schema, separator=separator, quote_char=None)
