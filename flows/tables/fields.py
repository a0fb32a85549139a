"""Columns of a schema: the kind of each, and what the schema learnt of it from a frame; columns of a frame as numbers; and the
columns of a schema as JSON, one a line, which people may edit: errors name the place in the text.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError
from flows.results.frames import LIBRARIES, Frame, listed
from flows.tables.kinds import KINDS, Entries, Ignored, Kind
from flows.tables.kinds.base import as_plain, shown
from flows.tables.kinds.date import is_iso
from flows.tables.kinds.dtypes import Dtype, described, gaps_of, row_of
from flows.training.options import one_of

VERSION = 1  # of the JSON of a schema


class CellError(FlowsError):
    """A value that its column cannot have.

    Attributes:
        column, row: its place, counted from 0.
        said: what it is, and what was expected.
    """

    column: str
    row: int
    said: str

    @classmethod
    def at(cls, what: str, column: str, values: Any, row: int, said: str, remedy: str) -> "CellError":
        """Return the error, which can be pickled as any other."""
        error = cls(f"{what}: column {column!r}, {row_of(values, row)}, {said}. {remedy}")
        error.column, error.row, error.said = column, row, said
        return error


@dataclass(frozen=True)
class Field:
    """A column.

    Attributes:
        kind: what it holds.
        label: its name in the frame, which need not be text.
        dtype: as `dtypes.described` returns it.
        least: the least value, of dates as text of ISO 8601, from which numbers count; None where they have a low bound.
        largest: the largest date, which shows the cycles that dates went through.
        origin: a value that lies on the steps.
        digits: the number of digits after the point that hold all values; None where float64 has too few.
        why: the reason for this kind, for people.
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
        """Tell whether all that encoding needs is known."""
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
        """Return the column with the facts of an old one that stay true: values of one sort stay what they are."""
        if not self.kind.sort or self.kind.sort != old.kind.sort:
            return self
        origin = old.origin if self.step and self.step == old.step else None
        field = replace(self, least=old.least, largest=old.largest, digits=old.digits, origin=origin)
        return self.kind.replaced(field, old)

    def learnt(self, name: str, table: Frame, new_library: bool, what: str) -> "Field":
        """Return the column with everything learnt; its dtype is read again if the frame is of a new library."""
        column, first, field = table.column(name), self.dtype is None, self
        if first or new_library:
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

    def checked(self, name: str, table: Frame, what: str, errors: str, gaps: bool = True) -> Entries:
        """Return the column as numbers, whose first fault is an error if `errors` is "raise". A gap is a fault if `gaps`;
        otherwise it is missing, and not one of the values that `other` pools."""
        entries = self.known(name).encoded(name, table, what)
        if not gaps and getattr(self.kind, "other", None) is not None and None not in self.kind.known:  # type: ignore[attr-defined]
            missing = gaps_of(table.column(name))
            entries = Entries(np.where(missing, np.nan, entries.values), entries.outside, missing)
        if errors == "raise":
            self.check(name, table.column(name), entries, what, gaps)
        return entries

    def check(self, name: str, column: Any, entries: Entries, what: str, gaps: bool = True) -> None:
        """Refuse the first value that the column cannot have, and the first gap where gaps are not allowed."""
        if entries.outside.any():
            row, count = int(entries.outside.argmax()), int(entries.outside.sum())
            value = as_plain(column.item(row))
            expected, remedy = self.kind.expected(name, self, value)
            more = f", the first of {count:,} such" if count > 1 else ""
            raise CellError.at(what, name, column, row, f"is {shown(value)}{more}; expected {expected}", remedy)
        if gaps and entries.gaps.any():
            row, count = int(entries.gaps.argmax()), int(entries.gaps.sum())
            more = f", the first of {count:,}" if count > 1 else ""
            remedy = (
                "Fit rows with gaps by tables.fit(0, frame, model=flows.AnySubset()), drop such rows, as tables.fit does with "
                "gaps='drop', fill them, or give the column the kind Category, where gaps are values"
            )
            raise CellError.at(what, name, column, row, f"is a gap{more}; expected a value of {self.kind!r}", remedy)


class Rows(NamedTuple):
    """Rows of a frame as numbers.

    Attributes:
        x: (rows, d), the modelled columns: codes, angles, numbers. NaN where there is a gap, -1 for an unknown category.
        context: what a model sees: (rows, context_dim) of the condition, or values and roles; None without either.
        outside: (rows,), True where a row has a value that its column cannot have.
        gaps: (rows, columns), True for a gap that the model has no answer to: of the modelled columns, the constants,
            and the condition, in this order.
    """

    x: np.ndarray
    context: np.ndarray | None
    outside: np.ndarray
    gaps: np.ndarray


def encoded_rows(
    fields: Mapping[str, Field],
    names: Sequence[str],
    table: Frame,
    what: str,
    errors: str = "raise",
    constants: Sequence[str] = (),
    refuse_gaps: bool = True,
) -> Rows:
    """Return columns as numbers; constants, which follow them, are checked to have the value that they had before."""
    one_of("raise", "coerce")(errors, "errors")
    every = [fields[name].checked(name, table, what, errors, refuse_gaps) for name in (*names, *constants)]
    x, outside, gaps = (np.stack(entries, 1) for entries in zip(*every, strict=True))
    return Rows(x[:, : len(names)], None, np.asarray(outside.any(1)), gaps)


def context_of(fields: Mapping[str, Field], names: Sequence[str], table: Frame, values: np.ndarray, what: str) -> np.ndarray:
    """Return what a model sees of these columns, which are encoded as `values`."""
    columns = [(name, fields[name], table.column(name), x) for name, x in zip(names, values.T, strict=True)]
    return np.concatenate([field.kind.context(name, field, column, x, what) for name, field, column, x in columns], 1)


def names_of(condition: Any, what: str = "condition") -> tuple[str, ...]:
    """The names of a condition, as text."""
    if isinstance(condition, str | Set | Mapping) or not isinstance(condition, Iterable):
        raise TypeError(f"{what} is {condition!r:.60}; expected a list of names of columns")
    return tuple(map(str, condition))


def decodable(array: Any, names: Sequence[str]) -> np.ndarray:
    """Return rows to decode, with a column for each name."""
    try:
        values = np.asarray(array, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"decode: the array is {array!r:.60} ({error}); expected numbers") from None
    if values.ndim != 2 or values.shape[1] != len(names):
        raise FlowsError(f"decode: the array has shape {values.shape}; expected (rows, {len(names)}), of {listed(names)}")
    return values


def to_json(fields: dict[str, Field], condition: tuple[str, ...], library: str | None) -> str:
    """The text of a schema."""
    head = {"version": VERSION, "library": library, "condition": list(condition)}
    lines = [f"{json.dumps(key)}: {_text(value)}" for key, value in head.items()]
    columns = ",\n".join(f"    {_text(_described(field))}" for field in fields.values())
    return "{\n  " + ",\n  ".join(lines) + f',\n  "columns": [\n{columns}\n  ]\n}}\n'


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _described(field: Field) -> dict[str, Any]:
    kind: Any = field.kind
    arguments = {entry.name: getattr(kind, entry.name) for entry in dataclasses.fields(kind)}
    settings = {name: value for name, value in arguments.items() if value is not None or name == "value"}
    learnt = {name: getattr(field, name) for name in LEARNT}
    return {
        "name": _label(field.label),
        "kind": type(kind).__name__,
        **settings,
        **{name: value for name, value in learnt.items() if value not in (None, "")},
    }


def _label(label: Any) -> Any:
    """A name of a column; a list where it has several levels."""
    if isinstance(label, tuple):
        return list(map(_label, label))
    return int(label) if hasattr(label, "__index__") and not isinstance(label, bool) else str(label)


def from_json(text: str) -> tuple[dict[str, Field], tuple[str, ...], str | None]:
    """Columns, condition and library of the text of a schema."""
    if not isinstance(text, str | bytes):
        raise TypeError(f"from_json: a {type(text).__name__} was given; expected text")
    try:
        read = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise FlowsError(f"from_json: line {error.lineno}, column {error.colno}: {error.msg}; expected JSON") from None
    except (ValueError, RecursionError) as error:  # not text, a number of thousands of digits, brackets as deep
        raise FlowsError(f"from_json: the text cannot be read ({error}); expected JSON") from None
    _only(read, ("version", "library", "condition", "columns"), "the text")
    if read.get("version") != VERSION:
        raise FlowsError(f"from_json: version is {read.get('version')!r:.60}; this flows reads {VERSION}")
    library = read.get("library")
    if library is not None and library not in LIBRARIES:
        raise FlowsError(f"from_json: library is {library!r:.60}; expected one of {', '.join(map(repr, LIBRARIES))}, or null")
    columns, condition = read.get("columns"), read.get("condition", [])
    for name, value in (("columns", columns), ("condition", condition)):
        if not isinstance(value, list):
            raise FlowsError(f"from_json: {name} is {value!r:.60}; expected a list")
    fields: dict[str, Field] = {}
    for place, column in enumerate(columns):
        field = _field(column, f"column number {place}")
        if (name := str(field.label)) in fields:
            raise FlowsError(f"from_json: column number {place} has the name {name!r}, as one before; expected each once")
        fields[name] = field
    return fields, tuple(map(str, condition)), library


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FlowsError(f"from_json: {twice!r} occurs twice in {dict(pairs)!r:.100}; expected it once")
    return dict(pairs)


def _only(value: Any, names: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise FlowsError(f"from_json: {where} is {value!r:.60}; expected an object, {{...}}")
    unknown = [name for name in value if name not in names]
    if unknown:
        raise FlowsError(f"from_json: {where} has {listed(unknown)}; expected {', '.join(map(repr, names))}")


def _field(column: Any, where: str) -> Field:
    if not isinstance(column, dict) or "name" not in column:
        raise FlowsError(f"from_json: {where} is {column!r:.60}; expected an object with a name and a kind")
    label = _tuples(column["name"])
    where = f"column {label!r:.60}"
    if not isinstance(column.get("kind"), str) or column["kind"] not in KINDS:
        raise FlowsError(f"from_json: {where} has the kind {column.get('kind')!r:.60}; expected one of {', '.join(KINDS)}")
    make: Any = KINDS[column["kind"]]
    arguments = tuple(entry.name for entry in dataclasses.fields(make))
    _only(column, ("name", "kind", *arguments, *LEARNT), f"{where}, of the kind {make.__name__},")
    try:
        kind = make(**{name: column[name] for name in arguments if name in column})
    except FlowsError as error:
        raise FlowsError(f"from_json: {where}: {error}") from None
    except TypeError:
        raise FlowsError(
            f"from_json: {where}: the kind {make.__name__} lacks an argument; expected {', '.join(arguments)}"
        ) from None
    learnt = {name: column[name] for name in LEARNT if name in column and name not in arguments}
    for name, value in learnt.items():
        fits, expected = DATE if kind.sort == "times" and name in ("least", "largest") else LEARNT[name]
        if value is not None and not fits(value):
            raise FlowsError(f"from_json: {where}: {name} is {value!r:.60}; expected {expected}")
    return Field(kind, label, **learnt)


def _tuples(label: Any) -> Any:
    if isinstance(label, list):
        return tuple(map(_tuples, label))
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise FlowsError(f"from_json: the name of a column is {label!r:.60}; expected text, a whole number, or a list of them")
    return label


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_categorical(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("categories"), list) and isinstance(value.get("of"), str)


# What was learnt of a column, next to its kind: whether a value of JSON is one, and what is expected.
LEARNT: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dtype": (lambda value: isinstance(value, str) or _is_categorical(value), "text, or an object with categories and of"),
    **dict.fromkeys(("least", "largest", "origin"), (_is_number, "a finite number")),
    "digits": (lambda value: isinstance(value, int) and _is_number(value) and 0 <= value <= 15, "a whole number from 0 to 15"),
    "why": (lambda value: isinstance(value, str), "text"),
}
DATE = is_iso, "a time in ISO 8601, such as '2024-01-31T12:00:00', or none for a kind that is new"
