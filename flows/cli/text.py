"""CSV as rows of text, which keeps every value as it was written; what is wrong in it is told by row and line."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import polars as pl

from flows.cli.failures import Mistake

SEPARATORS = ";,\t|"  # that a header of one column hints at


class TextRows:
    """The rows of a file of CSV, or of stdin.

    Args:
        path: "-" for stdin.
        name: of the file, for errors.
    """

    def __init__(self, path: str, name: str, separator: str, encoding: str):
        self.path, self.name, self.separator, self.encoding = path, name, separator, encoding
        self.row, self.line = 0, 1  # the number of the last row, and of the line on which the next one begins

    def pieces(self, rows: int) -> Iterator[pl.DataFrame]:
        """Frames of text, so many rows each, with null for an empty cell. Empty lines are left out, where rows have several
        values."""
        with self._opened() as file, self._blamed():
            records = csv.reader(file, delimiter=self.separator, strict=True)
            names, held = self._header(next(records, None)), list[list[str]]()
            self.line = records.line_num + 1
            for record in records:
                if record or len(names) == 1:
                    held.append(self._checked(record or [""], len(names)))
                    if len(held) == rows:
                        yield _framed(names, held)
                        held = []
                self.line = records.line_num + 1
        if held:
            yield _framed(names, held)

    def _header(self, names: list[str] | None) -> list[str]:
        if not names:
            raise Mistake(f"{self.name} is empty; expected a header and rows")
        mark = next((mark for mark in SEPARATORS if mark in names[0]), None)
        if len(names) == 1 and mark is not None:
            raise Mistake(f"{self.name} has one column, {names[0]!r:.60}, with {mark!r} in its name; give --separator {mark!r}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Mistake(f"{self.name} has columns of one name, {', '.join(map(repr, twice[:5]))}; rename them")
        return names

    def _checked(self, record: list[str], expected: int) -> list[str]:
        self.row += 1
        if len(record) != expected:
            raise Mistake(
                f"{self.name}, row {self.row}, line {self.line}, has {len(record)} values; expected {expected}, as the header "
                "has. Correct it, or give --separator"
            )
        return record

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        plain = self.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        encoding = "utf-8-sig" if plain else self.encoding  # which takes a mark in front away
        place: Any = sys.stdin.fileno() if self.path == "-" else self.path
        try:
            file = open(place, encoding=encoding, newline="", closefd=self.path != "-")  # noqa: SIM115
        except LookupError:
            raise Mistake(f"--encoding {self.encoding!r} is not known; expected one such as utf-8, latin-1 or cp1252") from None
        except OSError as error:
            raise Mistake(f"{self.name} cannot be read: {error.strerror or error}; expected a file of rows") from error
        with file:
            yield file

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """What a file has that is no CSV of this encoding."""
        try:
            yield
        except UnicodeDecodeError as error:
            found = error.object[error.start : error.start + 1]
            raise Mistake(
                f"{self.name}, line {self._line_of_other_encoding()}, has the byte {found!r}, which is not {self.encoding}; "
                "give --encoding, such as latin-1 or cp1252"
            ) from None
        except csv.Error as error:
            raise Mistake(
                f"{self.name}, row {self.row + 1}, which begins on line {self.line}, is no CSV: {error}; expected quotes "
                "around texts that hold separators, and each that is opened to be closed"
            ) from None

    def _line_of_other_encoding(self) -> int:
        """Files are decoded ahead of the row at hand; of stdin that is all that is known."""
        with suppress(OSError), open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError:
                    return number
        return self.line


def _framed(names: list[str], records: list[list[str]]) -> pl.DataFrame:
    columns = zip(*records, strict=True)
    frame = pl.DataFrame([pl.Series(name, column, pl.String) for name, column in zip(names, columns, strict=True)])
    return frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
