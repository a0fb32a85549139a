"""Numbers on the line, or between bounds: counted from an offset in float64, and rounded back in it."""

import decimal
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit

from flows import conditionals
from flows.core import FlowsError
from flows.tables.kinds.base import (
    Entries,
    Kind,
    check_box,
    check_decodable,
    check_step,
    line,
    without_numpy,
)
from flows.tables.kinds.dtypes import (
    are_names,
    column_of,
    factorized,
    gaps_of,
    is_duration,
    is_single,
    is_text,
    values_of,
    whole_range,
)
from flows.tables.kinds.notation import Notation, check_text

MOST_DIGITS = 12  # after the point, of values that are taken to be decimal
FAR = 2**62  # beyond which no whole number is decoded
MOST_WHOLE = 2.0**50  # values times a power of 10 below this keep their digits in float64
MOST_BITS = 2**63  # below which int64 has whole numbers
ON_GRID = 1e-6  # of a step, by which values may miss those that start at the least one


class Number(Kind):
    """A number: what `Real`, `Integer` and `Circular` share."""

    block, sort, whole = "numbers", "numbers", False
    low: Any
    high: Any
    text: str | None = None
    _restored: Any  # (field, values) -> what was counted from the offset, on the steps and inside the bounds

    def is_learnt(self, field: Any) -> bool:
        return field.offset is not None and (getattr(self, "step", None) is None or field.origin is not None)

    def learnt(self, name: str, field: Any, column: Any, what: str) -> Any:
        """A number with the least value, the digits and the steps of a column."""
        values, gaps = self._values(name, column, what)
        values = values[~gaps] if gaps.any() else values
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if not len(values):
            raise FlowsError(
                f"{what}: column {name!r} holds no finite number; expected one. Give it the kind Constant(None), or Ignored()"
            )
        if self.whole and are_names(float(values.min()), float(values.max())):
            raise FlowsError(
                f"{what}: column {name!r} holds whole numbers from {values.min()} to {values.max()}, more than are counted; "
                "expected a span below 2^60, and none from 2^63 on. Names, such as identifiers and hashes, are Ignored()"
            )
        least, step, origin = values.min().item(), getattr(self, "step", None), field.origin
        least = math.floor(least) if self.whole else least
        digits = field.digits if field.digits is not None else digits_of(values)
        if step is not None and origin is None:
            # Steps start at the low end or the least value, if all values are on them; others are rounded to those from 0.
            starts = [start for start in (self.low, least) if start is not None]
            origin = next((start for start in starts if _begin_at(values, start, step)), self.low or 0.0)
            least = origin + math.floor((least - origin) / step + ON_GRID) * step  # on a step, too
        # A low end is the offset, so the least value is not needed: a file has as few values of rows as can be.
        known = field.least if self.low is not None or field.least is not None else least
        return replace(field, least=known, origin=origin, digits=digits)

    def replaced(self, field: Any, old: Any) -> Any:
        if field.least is None or self.low is not None:  # a low end is the offset
            return replace(field, least=None)
        return replace(field, least=math.floor(field.least) if self.whole else field.least)

    def encoded(self, name: str, field: Any, column: Any, what: str) -> Entries:
        """Numbers less their offset, on their steps."""
        values, gaps = self._values(name, column, what)
        with np.errstate(invalid="ignore"):
            outside = np.isinf(values) | (np.isnan(values) & ~gaps)
            if self.whole:
                outside |= (values != np.rint(values)) & ~gaps
            strict, single = field.step == 0, str(column.dtype) == "Float32"
            for bound, sign in ((self.low, 1), (self.high, -1)):
                if bound is not None:
                    end = float(np.float32(bound)) if single else bound  # 0.1 of float32 is not above 0.1
                    outside |= (sign * (values - end) <= 0) if strict else (sign * (values - end) < 0)
            whole = isinstance(field.offset, int) and values.dtype.kind == "i" and _without_overflow(values, field.offset)
            numbers = (values - int(field.offset) if whole else values - float(field.offset)).astype(np.float64)
            if getattr(self, "step", None) is not None:
                numbers = _on_steps(field, numbers)
            return Entries(numbers, outside, gaps)

    def decoded(self, name: str, field: Any, values: np.ndarray, library: str) -> Any:
        """Encoded numbers as a native column."""
        check_decodable(name, values, ~np.isfinite(values), "a finite number")
        dtype = field.dtype or "float64"
        numbers = self._restored(field, values)
        if self.text is not None and is_text(dtype):
            notation, digits = Notation.of(self.text), 0 if self.whole else field.digits
            return column_of(library, dtype, [notation.text(number, digits) for number in numbers.tolist()], name)
        if is_duration(dtype):
            ticks = np.rint(numbers * 1e9).astype(np.int64)
            return column_of(library, dtype, ticks.astype("m8[ns]"), name)
        if (span := whole_range(dtype)) is not None:
            numbers = np.clip(numbers if numbers.dtype.kind == "i" else np.rint(numbers), *span).astype(np.int64)
        elif "bool" in str(dtype).lower():
            numbers = numbers >= 0.5
        return column_of(library, dtype, numbers, name)

    def expected(self, name: str, field: Any, value: Any) -> tuple[str, str]:
        number = "a whole number" if self.whole else "a finite number"
        if not isinstance(value, int | float):
            return f"{number}, written as {self.text!r} is", "Correct it, or make it a gap (None)"
        if isinstance(value, float) and np.isinf(value):
            return number, "Drop such rows, or make it a gap (None) and drop those with gaps"
        if self.block == "angles" or (self.whole and value != np.rint(value)):
            return number, f"Round it, or give the column the kind Real(): schema.replace({{{name!r}: Real()}})"
        strict = field.step == 0
        words = ("above", "below") if strict else ("at least", "at most")
        bounds = [f"{word} {end!r}" for word, end in zip(words, (self.low, self.high), strict=True) if end is not None]
        expected = f"{number} {' and '.join(bounds)}"
        if strict and value in (self.low, self.high):
            return f"{expected} (an end has no density, unless there is a step)", (
                f"Move the end, or say how values were rounded: schema.replace({{{name!r}: Real(low=..., step=...)}})"
            )
        wider = f"{type(self).__name__}()" if self.high is None else f"{type(self).__name__}(low=..., high=...)"
        return expected, f"Correct it, or widen the bounds: schema.replace({{{name!r}: {wider}}})"

    def _values(self, name: str, column: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of a column, and which rows are gaps; text that is not a number is NaN and not a gap."""
        if self.text is None or column.dtype.is_numeric() or column.dtype.is_temporal():
            return values_of(name, column, what)
        places, values = factorized(column)
        return np.append(Notation.of(self.text).numbers(values), np.nan)[places], gaps_of(column)

    def parsed_as(self, dtype: Any) -> str:
        return "numbers" if self.text is None else "text"

    def ends(self, field: Any) -> tuple[float, float]:
        return -np.inf if self.low is None else 0.0, np.inf if self.high is None else float(self.high - field.offset)

    def context(self, name: str, field: Any, column: Any, values: np.ndarray, what: str) -> np.ndarray:
        """Numbers on the whole line, as `flows.Unconstrain` takes them there; on steps, from where their cells end."""
        low, high = _cells_end(field)
        with np.errstate(invalid="ignore", divide="ignore"):
            from_low = np.log(values - low) if np.isfinite(low) else 0.0
            to_high = np.log(high - values) if np.isfinite(high) else 0.0
        return np.asarray(from_low - to_high if np.isfinite([low, high]).any() else values)[:, None]

    def from_context(self, field: Any, context: np.ndarray) -> np.ndarray:
        values, (low, high) = context[:, 0], _cells_end(field)
        if np.isfinite([low, high]).all():
            return np.asarray(low + (high - low) * expit(values))
        return np.asarray(low + np.exp(values) if np.isfinite(low) else high - np.exp(-values) if np.isfinite(high) else values)

    def units(self, field: Any) -> tuple[float, float]:
        return float(field.offset), 1.0

    def conditional(self, name: str, field: Any) -> conditionals.Kind:
        low, high = field.ends
        if step := field.step:  # ends are steps
            low, high = (_first_of(field) + places * step for places in _places_of_ends(field))
        return line(low, high, step)


@dataclass(frozen=True, repr=False)
class Real(Number):
    """A number on the line, or between bounds. Durations are numbers too, in seconds.

    Args:
        low, high: the ends, in the units of the column; None where a side is open. Without a step they have no density, and
            values lie between them; with a step values may equal them.
        step: the distance of neighbouring values, in the units of the column, to which values are rounded; None where they are
            continuous.
        text: how numbers are written in a column of text: the number 1234.5, such as "1.234,5", "$1,234.50" or "(1 234,5 kr)",
            with brackets around negative numbers. A 0 at the end says that all numbers have as many digits.

    Errors:
        FlowsError: ends that are not in order, a step that is not above 0, a value that is not a finite number, or a text that
            is not 1234.5.

    Example:
        >>> from flows import tables
        >>> tables.Real(low=0, step=0.1)
        Real(low=0, step=0.1)
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        check_box("Real", self.low, self.high)
        without_numpy(self)
        check_step("Real", self.step)
        check_text("Real", self.text)

    def _restored(self, field: Any, values: np.ndarray) -> np.ndarray:
        offset = float(field.offset)
        if self.step is not None:
            numbers = offset + _on_steps(field, values)
            digits = decimals_of(self.step, field.origin or 0.0)
            numbers = np.round(numbers, digits) if digits <= MOST_DIGITS else numbers
            return np.clip(numbers, self.low, self.high) if (self.low, self.high) != (None, None) else numbers
        numbers = offset + values
        if field.digits is not None:
            numbers = np.round(_within_digits(self, numbers, field.digits), field.digits)
        return _inside(self, numbers, is_single(field.dtype or "float64"))


@dataclass(frozen=True, repr=False)
class Integer(Number):
    """A whole number, such as a count: a number whose step is 1.

    Args:
        low, high: the least and the largest value; None where a side is open.
        text: how numbers are written in a column of text, such as "1,234", as in `Real`.

    Errors:
        FlowsError: ends that are not whole, or not in order; a text that is not 1234 or 1234.5.

    Example:
        >>> from flows import tables
        >>> tables.Integer(low=0)
        Integer(low=0)
    """

    low: int | None = None
    high: int | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        check_box("Integer", self.low, self.high)
        without_numpy(self)
        check_text("Integer", self.text)
        for name, end in (("low", self.low), ("high", self.high)):
            if end is not None and abs(end) >= MOST_BITS:
                raise FlowsError(f"Integer: {name} is {end!r}; expected a whole number of 64 bits")
            if end is not None and end != math.floor(end):
                raise FlowsError(f"Integer: {name} is {end!r}; expected a whole number, or the kind Real(step=)")

    whole = True

    def spacing(self) -> float:
        return 1.0

    def _restored(self, field: Any, values: np.ndarray) -> np.ndarray:
        start = int(field.offset)
        whole = np.rint(np.clip(values, float(-FAR), float(FAR))).astype(np.int64)
        whole = np.clip(whole, max(-FAR, -2 * FAR - start), min(FAR, 2 * FAR - 1 - start)) + start
        return np.clip(whole, self.low, self.high) if (self.low, self.high) != (None, None) else whole


def _begin_at(values: np.ndarray, start: float, step: float) -> bool:
    places = (values - start) / step
    return bool((np.abs(places - np.rint(places)) <= ON_GRID).all())


def digits_of(values: np.ndarray) -> int | None:
    """The number of digits after the point that hold all values; None where values are not decimals."""
    if values.dtype.kind in "iu":
        return 0
    some, largest = values[:: max(len(values) // 1000, 1)], float(np.abs(values).max())
    for digits in range(MOST_DIGITS + 1):
        if largest * 10.0**digits > MOST_WHOLE:
            return None
        if (np.round(some, digits) == some).all() and (np.round(values, digits) == values).all():
            return digits
    return None


def decimals_of(*numbers: float) -> int:
    """Digits after the point, of the shortest decimals that are these numbers."""
    exponents = (decimal.Decimal(repr(float(number))).normalize().as_tuple().exponent for number in numbers)
    return max(0, *(-int(exponent) for exponent in exponents))


def _without_overflow(values: np.ndarray, offset: int) -> bool:
    """Tell whether int64 holds these whole numbers less an offset."""
    ends = offset, int(values.min()) - offset, int(values.max()) - offset
    return min(ends) >= -(2**63) and max(ends) < 2**63


def _on_steps(field: Any, numbers: np.ndarray) -> np.ndarray:
    """Encoded numbers at the nearest of the steps within the bounds."""
    step, first = field.step, _first_of(field)
    places = np.clip(np.rint((numbers - first) / step), *_places_of_ends(field))
    digits = decimals_of(step, float(field.origin or 0), float(field.offset))
    return np.round(first + places * step, digits) if digits <= MOST_DIGITS else first + places * step


def _first_of(field: Any) -> float:
    """The step from which steps are counted, encoded."""
    return float(field.origin or 0) - float(field.offset)


def _places_of_ends(field: Any) -> tuple[float, float]:
    """The first and the last step within the bounds, counted in steps; infinite where a side is open."""
    low, high = ((end - _first_of(field)) / field.step for end in field.ends)
    return np.ceil(low - ON_GRID), np.floor(high + ON_GRID)  # bounds that lie on a step but for rounding


def _within_digits(kind: Any, numbers: np.ndarray, digits: int) -> np.ndarray:
    """Numbers between the first and the last inside the box that have this many digits."""
    unit = 10.0**digits
    first = -np.inf if kind.low is None else (np.floor(kind.low * unit) + 1) / unit
    last = np.inf if kind.high is None else (np.ceil(kind.high * unit) - 1) / unit
    return np.clip(numbers, first, last) if first <= last else numbers


def _inside(kind: Any, numbers: np.ndarray, single: bool) -> np.ndarray:
    """Numbers moved off the ends of their box, which have no density."""
    dtype = np.float32 if single else np.float64
    if kind.low is not None:
        numbers = np.maximum(numbers, np.nextafter(dtype(kind.low), dtype(np.inf)))
    if kind.high is not None:
        numbers = np.minimum(numbers, np.nextafter(dtype(kind.high), dtype(-np.inf)))
    return numbers


def _cells_end(field: Any) -> list[float]:
    """The bounds; for rounded numbers the ends of their outermost cells."""
    return [end + side * field.step / 2 for end, side in zip(field.ends, (-1, 1), strict=True)]
