"""Parts that all kinds of columns share. Kinds are plain values: they print as code, compare by their arguments and go to JSON.

A kind is asked about a column of a schema, a `Field`, which has the kind and what was learnt of the column.
"""

import datetime as dt
import decimal
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from flows import conditionals
from flows.core import FlowsError, shortened
from flows.results.columns import Column
from flows.results.frames import SHOWN
from flows.tables.kinds.notation import PARSERS

FINITE = float(np.finfo(np.float64).max)  # which whole numbers may exceed
WHOLE = 1e-9  # of a step, by which a period may miss a whole number of them


class Entries(NamedTuple):
    """A column as numbers.

    Attributes:
        values: (rows,), NaN where there is a gap, -1 for a value that is not a known category.
        outside: (rows,), True for values that the kind does not have: unknown, infinite, not within the bounds.
        gaps: (rows,), True for missing values, unless a gap is one of the values of the kind.
    """

    values: np.ndarray
    outside: np.ndarray
    gaps: np.ndarray


class Kind:
    """The kind of a column. Its subclasses are all the kinds there are."""

    block = ""  # part of an encoded row in which the column stands: "codes", "angles", "numbers"; "" where it is not modelled
    sort = ""  # of values: "numbers" or "times", of which facts stay known under another kind of the sort
    is_read = True

    def __repr__(self) -> str:
        """Return code, without the arguments that are at their default."""
        settings = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]  # type: ignore[arg-type]
        shown = [f"{name}={shortened(value, 60)}" for name, value, default in settings if value != default or value is True]
        return f"{type(self).__name__}({', '.join(shown)})"

    # What is asked of a kind, of a field that has it; `name`, `column` (of narwhals) and `what` are for errors, too.
    encoded: Any  # (name, field, column, what) -> Entries
    decoded: Any  # (name, field, values, library) -> a native column
    expected: Any  # (name, field, value) -> (what there should be in place of a value, what to do)
    context: Any  # (name, field, column, values, what) -> what a model sees of a column of the condition, (rows, width)
    from_context: Any  # (field, context) -> values, the inverse of `context`
    conditional: Any  # (name, field) -> the column for `flows.AnySubset`, a kind of `flows.conditionals`

    def is_learnt(self, field: Any) -> bool:  # whether all is known that encoding needs
        return True

    def learnt(self, name: str, field: Any, column: Any, what: str) -> Any:  # the field, with all that is to be known
        return field

    def replaced(self, field: Any, old: Any) -> Any:  # less what does not stay known of an old field of the same sort
        return field

    def parsed_as(self, dtype: Any) -> str:  # what text is read as: numbers, times, true or false, or text
        return "text"

    def parse(self, text: Any, dtype: Any) -> Any:  # text of polars as values, null where it is not one
        parser = PARSERS.get(self.parsed_as(dtype))
        return text if parser is None else parser(text)

    def width(self, field: Any) -> int:  # numbers that a model sees of a column of the condition
        return 1

    def spacing(self) -> float:  # of neighbouring values, in encoded units; 0 where they are continuous
        return float(getattr(self, "step", None) or 0.0)

    def ends(self, field: Any) -> tuple[float, float]:  # in encoded units; infinite where a side is open
        return -np.inf, np.inf

    def answers(self, result: Any) -> Any:  # cdf, quantile and interval of a model of this column alone, or None
        return result if self.block == "numbers" else None

    def axis(self, field: Any, name: str) -> Column:  # of a picture
        return Column(name, step=field.step)

    def units(self, field: Any) -> tuple[float, float]:  # start and unit of a picture, which has (start + encoded) / unit
        return 0.0, 1.0

    def in_units(self, field: Any, values: np.ndarray) -> np.ndarray:  # of the frame, as numbers that a picture has
        start, unit = self.units(field)
        return np.asarray((start + values) / unit)

    def from_units(self, field: Any, values: np.ndarray) -> np.ndarray:
        start, unit = self.units(field)
        return np.asarray(values * unit - start)


def line(low: float, high: float, step: float) -> conditionals.Kind:
    """Numbers for `flows.AnySubset`, between ends that may be infinite."""
    ends = [float(end) if math.isfinite(end) else None for end in (low, high)]
    return conditionals.Number(ends[0], ends[1], step)


@dataclass(frozen=True, repr=False)
class Ignored(Kind):
    """A column that is not read: frames may lack it, and draws do not have it.

    Example:
        >>> from flows import tables
        >>> tables.Ignored()
        Ignored()
    """

    is_read = False


def check_number(kind: str, name: str, value: Any) -> None:
    """Refuse anything but a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not abs(value) <= FINITE:  # type: ignore[operator]
        raise FlowsError(f"{kind}: {name} is {value!r:.60}; expected a finite number, or None where there is none")


def without_numpy(kind: Any) -> None:
    """Turn numbers of NumPy into numbers of Python, which JSON has."""
    for field in fields(kind):
        if isinstance(value := getattr(kind, field.name), np.generic):
            object.__setattr__(kind, field.name, value.item())


def check_box(kind: str, low: Any, high: Any) -> None:
    for name, end in (("low", low), ("high", high)):
        if end is not None:
            check_number(kind, name, end)
    if low is not None and high is not None and not low < high:
        raise FlowsError(f"{kind}: low is {low!r} and high is {high!r}; expected low < high")


def check_step(kind: str, step: Any) -> None:
    if step is None:
        return
    check_number(kind, "step", step)
    if step <= 0:
        raise FlowsError(f"{kind}: step is {step!r}; expected a number above 0, or None where values are not rounded")


def check_decodable(name: str, values: np.ndarray, wrong: np.ndarray, expected: str) -> None:
    """Refuse the first of the encoded values that are wrong."""
    if wrong.any():
        row = int(wrong.argmax())
        raise FlowsError(f"decode: column {name!r}, row {row}, is {values[row]:.6g}; expected {expected}")


def checked_plain(kind: str, value: Any) -> Any:
    """A value as one of Python, which JSON has."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        raise FlowsError(f"{kind}: {value!r} is infinite; expected text, a finite number, True, False, or None for a gap")
    if value is not None and not isinstance(value, str | bool | int | float):
        raise FlowsError(
            f"{kind}: {value!r:.60} is a {type(value).__name__}; expected text, a number, True, False, or None for a gap"
        )
    return value


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


def shown(value: Any) -> str:
    """Return a value for an error."""
    return "a gap" if value is None else f"{value!r:.60}"


def one_of_values(values: Sequence[Any]) -> str:
    """Return values for an error, the first few."""
    few = ", ".join("a gap" if value is None else repr(value) for value in values[:SHOWN])
    return f"one of {few}" + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")
