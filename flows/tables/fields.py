"""A column of a schema: its kind, and what was learnt of it from the frame that the schema was fitted to."""

from dataclasses import dataclass, replace
from typing import Any

from flows.core import FlowsError
from flows.results.frames import Frame
from flows.tables.dtypes import Dtype, described
from flows.tables.kinds import Entries, Ignored, Kind
from flows.tables.kinds.base import as_plain, shown


class CellError(FlowsError):
    """A value that is none of its column.

    Attributes:
        column, row: its place, counted from 0.
        said: what it is, and what was expected.
    """

    column: str
    row: int
    said: str

    @classmethod
    def at(cls, what: str, column: str, row: int, said: str, remedy: str) -> "CellError":
        """Made so that it can be pickled as any other."""
        error = cls(f"{what}: column {column!r}, row {row}, {said}. {remedy}")
        error.column, error.row, error.said = column, row, said
        return error


@dataclass(frozen=True)
class Field:
    """A column.

    Attributes:
        kind: what it holds.
        label: its name in the frame, which need not be text.
        dtype: as `dtypes.described` tells it.
        least: the least value, of dates as text of ISO 8601, from which numbers count; None where they have a low bound.
        largest: the same of dates, which tells the cycles that they went through.
        origin: a value that lies on the steps.
        digits: after the point, that hold all values; None where more than float64 has would be needed.
        why: it is of this kind, for people.
    """

    kind: Kind
    label: Any = None
    dtype: Dtype | None = None
    least: Any = None
    largest: Any = None
    origin: float | None = None
    digits: int | None = None
    why: str = ""

    @property
    def complete(self) -> bool:
        """Tells whether all is known that encoding needs."""
        return isinstance(self.kind, Ignored) or (self.dtype is not None and self.kind.is_learnt(self))

    @property
    def offset(self) -> Any:
        """The value that is encoded as 0."""
        low = getattr(self.kind, "low", None)
        return self.least if low is None else low

    @property
    def step(self) -> float:
        """The distance of neighbouring values in encoded units; 0 where they are continuous."""
        return self.kind.spacing()

    @property
    def ends(self) -> tuple[float, float]:
        """The bounds, in encoded units; infinite where a side is open."""
        return self.kind.ends(self)

    def replacing(self, old: "Field") -> "Field":
        """Return the column with what is known of it whatever its kind is: values of one sort stay what they are."""
        if not self.kind.sort or self.kind.sort != old.kind.sort:
            return self
        origin = old.origin if self.step and self.step == old.step else None
        field = replace(self, least=old.least, largest=old.largest, digits=old.digits, origin=origin)
        return self.kind.replaced(field, old)

    def learnt(self, name: str, table: Frame, anew: bool, what: str) -> "Field":
        """Return a column of which all is known; its dtype is read `anew` where that known is one of another library."""
        column, first, field = table.column(name), self.dtype is None, self
        if first or anew:
            field = replace(field, dtype=described(column), label=table.header.labels[table.places[name]])
        if first or not field.complete or field.kind.block == "angles":
            field = field.kind.learnt(name, field, column, what)
        field.check(name, column, field.encoded(name, table, what), what, gaps=False)
        return field

    def encoded(self, name: str, table: Frame, what: str) -> Entries:
        """Return the column as numbers."""
        return self.kind.encoded(name, self, table.column(name), what)

    def known(self, name: str) -> "Field":
        """Return the column; an error if it still has to be learnt."""
        if not self.complete:
            raise FlowsError(
                f"column {name!r} is {self.kind!r}, of which not all is known; expected a schema that was fitted to a frame: "
                "schema.fitted(frame)"
            )
        return self

    def checked(self, name: str, table: Frame, what: str, errors: str) -> Entries:
        """Return the column as numbers, whose first fault is an error if `errors` is "raise"."""
        entries = self.known(name).encoded(name, table, what)
        if errors == "raise":
            self.check(name, table.column(name), entries, what)
        return entries

    def check(self, name: str, column: Any, entries: Entries, what: str, gaps: bool = True) -> None:
        """Refuse the first value that is none of its column, and the first gap where there may be none."""
        if entries.outside.any():
            row, count = int(entries.outside.argmax()), int(entries.outside.sum())
            value = as_plain(column.item(row))
            expected, remedy = self.kind.expected(name, self, value)
            more = f", the first of {count:,} such" if count > 1 else ""
            raise CellError.at(what, name, row, f"is {shown(value)}{more}; expected {expected}", remedy)
        if gaps and entries.gaps.any():
            row, count = int(entries.gaps.argmax()), int(entries.gaps.sum())
            more = f", the first of {count:,}" if count > 1 else ""
            remedy = (
                "Drop such rows, as tables.fit does with gaps='drop', fill them, or give the column the kind Category, where "
                "gaps are values"
            )
            raise CellError.at(what, name, row, f"is a gap{more}; expected a value of {self.kind!r}", remedy)
