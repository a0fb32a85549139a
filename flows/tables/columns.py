"""Work on one column, by its kind: learn what is open, encode, decode, and what a model sees of a condition."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from flows.core import FlowsError
from flows.results.frames import Frame
from flows.tables import codes, dates, numbers
from flows.tables.dtypes import Dtype, column_of, described, is_date, is_duration
from flows.tables.faults import check
from flows.tables.fields import Entries, Field
from flows.tables.kinds import Category, Circular, Constant, DateTime, Kind


def dtype_of(schema: Any, name: str) -> Dtype | None:
    """The dtype of a column of the frame that a schema was fitted to."""
    dtype: Dtype | None = schema._fields[name].dtype
    return dtype


def _room(kind: Kind) -> ModuleType:
    """The module that knows a kind."""
    if isinstance(kind, Category | Constant):
        return codes
    return dates if isinstance(kind, DateTime) else numbers


def learnt(name: str, field: Field, table: Frame, anew: bool, what: str) -> Field:
    """A column of which all is known; its dtype is read `anew` where that known is one of another library."""
    column, first = table.column(name), field.dtype is None
    if first or anew:
        field = replace(field, dtype=described(column), label=table.header.labels[table.places[name]])
    if first or not field.complete or isinstance(field.kind, Circular):
        field = _room(field.kind).learnt(name, field, column, what)
    check(name, field, column, encoded(name, field, table, what), what, gaps=False)
    return field


def replaced(field: Field, old: Field) -> Field:
    """A column of another kind, with what stays known of the old one."""
    field = field.with_facts_of(old)
    both_dates = isinstance(field.kind, DateTime) and isinstance(old.kind, DateTime)
    return dates.replaced(field, old) if both_dates else field


def encoded(name: str, field: Field, table: Frame, what: str) -> Entries:
    """A column as numbers."""
    entries: Entries = _room(field.kind).encoded(name, field, table.column(name), what)
    return entries


def complete(name: str, field: Field) -> Field:
    """The column; an error if it still has to be learnt."""
    if not field.complete:
        raise FlowsError(
            f"column {name!r} is {field.kind!r}, of which not all is known; expected a schema that was fitted to a frame: "
            "schema.fitted(frame)"
        )
    return field


def checked(name: str, field: Field, table: Frame, what: str, errors: str) -> Entries:
    """A column as numbers, whose first fault is an error if `errors` is "raise"."""
    entries = encoded(name, complete(name, field), table, what)
    if errors == "raise":
        check(name, field, table.column(name), entries, what)
    return entries


def decoded(name: str, field: Field, values: np.ndarray, library: str) -> Any:
    """Numbers as a native column; of a constant its value, as often."""
    if not isinstance(field.kind, Constant):
        return _room(field.kind).decoded(name, field, values, library)
    value, dtype = field.kind.value, field.dtype or "object"
    few: Any = [value]
    if value is not None and is_date(dtype):
        few = np.array([value.removesuffix("Z")], "M8[us]")
    elif value is not None and is_duration(dtype):
        few = np.array([round(value * 1e9)], "m8[ns]")
    return codes.taken(column_of(library, dtype, few, name), np.zeros(len(values), np.int64))


def width(field: Field) -> int:
    """How many numbers a model sees of a column of the condition."""
    kind = field.kind
    if isinstance(kind, Category):
        return len(kind.known)
    if isinstance(kind, DateTime):
        return 1 + 2 * len(dates.cycles_of(field))
    return 2 if isinstance(kind, Circular) else int(not isinstance(kind, Constant))


def context(name: str, field: Field, table: Frame, values: np.ndarray, what: str) -> np.ndarray:
    """These numbers, (rows, width), of the column and what it is encoded as."""
    kind = field.kind
    if isinstance(kind, Category):
        return (values[:, None] == np.arange(len(kind.known))).astype(np.float64)
    if isinstance(kind, Constant):
        return np.empty((len(values), 0))
    if isinstance(kind, Circular):
        turns = 2 * np.pi * values / kind.period
        return np.stack([np.cos(turns), np.sin(turns)], 1)
    if isinstance(kind, DateTime):
        return dates.context(name, field, table.column(name), values, what)
    return numbers.unbounded(field, values)[:, None]
