"""Categories as codes 0, 1, ..., and back; and the one value of a constant column."""

import datetime as dt
import decimal
import math
from dataclasses import replace
from typing import Any

import narwhals as nw
import numpy as np

from flows.core import FlowsError
from flows.tables.dtypes import column_of, factorized, holds_times
from flows.tables.fields import Entries, Field
from flows.tables.kinds import FEW_ROWS, Category, Constant

PLAIN = str | bool | int | float | np.generic  # what categories are


def learnt(name: str, field: Field, column: Any, what: str) -> Field:
    """A category with the values of a column: in their own order, a gap behind them, the pool last."""
    kind = field.kind
    if isinstance(kind, Category) and kind.other is not None:
        _check_other(name, field, column, what)
    if not isinstance(kind, Category) or kind.values is not None:
        return field
    places, values = _factorized(name, column, what)
    counts = np.bincount(places + 1, minlength=len(values) + 1)
    gaps, least = counts[0], 1 if kind.other is None else FEW_ROWS
    kept = [value for value, count in zip(values, counts[1:], strict=True) if count >= least]
    known = in_order(kept, field.dtype) + [None] * bool(gaps and gaps >= least)
    if kind.other is not None and kind.other not in known:
        known.append(kind.other)
    return replace(field, kind=Category(tuple(known), kind.other))


def _check_other(name: str, field: Field, column: Any, what: str) -> None:
    """Refuse a name of the pool that is no value of the column's dtype, in which draws are."""
    other, library = field.kind.other, "pandas" if column.implementation.is_pandas() else "polars"  # type: ignore[attr-defined]
    try:
        held = column_of(library, field.dtype or "object", [other], name)
        fits = as_plain(nw.from_native(held, series_only=True).item(0)) == other
    except FlowsError:
        fits = False
    if not fits:
        raise FlowsError(
            f"{what}: column {name!r} holds {column.dtype}, and other is {other!r:.60}; expected a value of that dtype, as "
            "draws have it. Name another, such as other=-1 for whole numbers, or turn the column into text"
        )


def in_order(values: list[Any], dtype: Any) -> list[Any]:
    """Values sorted; those of a categorical dtype as it has them."""
    if isinstance(dtype, dict):
        place = {value: i for i, value in enumerate(dtype["categories"])}
        return sorted(values, key=lambda value: place[value])
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def encoded(name: str, field: Field, column: Any, what: str) -> Entries:
    """The codes of a column; -1 for an unknown value."""
    constant = isinstance(field.kind, Constant)
    known = (field.kind.value,) if isinstance(field.kind, Constant) else field.kind.known  # type: ignore[attr-defined]
    codes = {value: code for code, value in enumerate(known)}
    unknown = -1 if constant else codes.get(field.kind.other, -1) if field.kind.other is not None else -1  # type: ignore[attr-defined]
    places, values = _factorized(name, column, what, constant)
    table = np.array([*(codes.get(value, unknown) for value in values), codes.get(None, unknown)], np.float64)
    entries = table[places]  # a gap has the place -1, the last
    return Entries(entries, entries < 0, np.zeros(len(entries), bool))


def decoded(name: str, field: Field, values: np.ndarray, library: str) -> Any:
    """Codes as a native column."""
    known = field.kind.known  # type: ignore[attr-defined]
    codes = np.rint(values)
    wrong = ~((codes == values) & (codes >= 0) & (codes < len(known)))
    if wrong.any():
        row = int(wrong.argmax())
        raise FlowsError(f"decode: column {name!r}, row {row}, is {values[row]:.6g}; expected a code, 0 to {len(known) - 1}")
    return taken(column_of(library, field.dtype or "object", list(known), name), codes.astype(np.int64))


def taken(few: Any, places: np.ndarray) -> Any:
    """The values of a native column at these places."""
    return few.take(places).reset_index(drop=True) if hasattr(few, "take") else few.gather(places)


def _factorized(name: str, column: Any, what: str, constant: bool = False) -> tuple[np.ndarray, list[Any]]:
    dated = column.dtype.is_temporal() or holds_times(column)
    if dated and not constant:
        raise TypeError(
            f"{what}: column {name!r} holds {column.dtype}; expected text, numbers or booleans of a Category. Give it the kind "
            "DateTime(), or Real() for durations"
        )
    if column.dtype.is_nested():
        raise TypeError(
            f"{what}: column {name!r} holds {column.dtype}; expected text, numbers or booleans. Give it the kind Ignored()"
        )
    try:
        places, values = factorized(column)
    except TypeError as error:
        raise TypeError(
            f"{what}: column {name!r} holds values that cannot be told apart ({error}); give it the kind Ignored()"
        ) from None
    plain = [as_plain(value) if constant or isinstance(value, PLAIN | decimal.Decimal) else value for value in values]
    odd = next((i for i, value in enumerate(plain) if not isinstance(value, PLAIN)), None)
    if odd is not None:
        row, odd = int((places == odd).argmax()), plain[odd]
        raise TypeError(
            f"{what}: column {name!r}, row {row}, is {odd!r:.60}, a {type(odd).__name__}; expected text, a number, True or "
            "False. Turn such values into text, or give the column the kind Ignored()"
        )
    return places, plain


def as_plain(value: Any) -> Any:
    """A value as one that JSON has, where there is one: dates as text, durations in seconds."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return value.isoformat()
        return value.astimezone(dt.UTC).replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return None if isinstance(value, float) and math.isnan(value) else value
