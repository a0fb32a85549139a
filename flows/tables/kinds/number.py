"""Numbers on the line, or between bounds: counted from an offset in float64, and rounded back in it."""

import decimal
import math
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
from scipy.special import expit

from flows.core import FlowsError
from flows.tables.dtypes import column_of, factorized, gaps_of, holds_times, is_duration, is_single, whole_range
from flows.tables.kinds.base import Entries, Kind, check_box, check_finite, check_step, without_numpy

MOST_DIGITS = 12  # after the point, of values that are taken to be decimal
LONG_INTEGERS = ("Int128", "UInt128")  # which NumPy does not have
NAMES = 2**60  # the span of whole numbers, from which they are not counts
FAR = 2**62  # beyond which no whole number is decoded
MOST_WHOLE = 2.0**50  # values times a power of 10 below this keep their digits in float64
MOST_BITS = 2**63  # below which int64 has whole numbers
ON_GRID = 1e-6  # of a step, by which values may miss those that start at the least one


class Number(Kind):
    """A number: what `Real`, `Integer` and `Circular` share."""

    block, sort, whole = "numbers", "numbers", False
    low: Any
    high: Any
    _restored: Any  # (field, values) -> what was counted from the offset, on the steps and inside the bounds

    def is_learnt(self, field: Any) -> bool:
        return field.offset is not None and (getattr(self, "step", None) is None or field.origin is not None)

    def learnt(self, name: str, field: Any, column: Any, what: str) -> Any:
        """A number with the least value, the digits and the steps of a column."""
        values, gaps = values_of(name, column, what)
        values = values[~gaps] if gaps.any() else values
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if not len(values):
            raise FlowsError(
                f"{what}: column {name!r} holds no finite number; expected one. Give it the kind Constant(None), or Ignored()"
            )
        if self.whole and _are_names(float(values.min()), float(values.max())):
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
        # A low end is the offset, so the least value is not needed: a file has as few values of rows as can be.
        known = field.least if self.low is not None or field.least is not None else least
        return replace(field, least=known, origin=origin, digits=digits)

    def replaced(self, field: Any, old: Any) -> Any:
        if field.least is None or self.low is not None:  # a low end is the offset
            return replace(field, least=None)
        return replace(field, least=math.floor(field.least) if self.whole else field.least)

    def encoded(self, name: str, field: Any, column: Any, what: str) -> Entries:
        """Numbers less their offset, on their steps."""
        values, gaps = values_of(name, column, what)
        with np.errstate(invalid="ignore"):
            outside = np.isinf(values)
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
        check_finite(name, values, "a finite number")
        dtype = field.dtype or "float64"
        numbers = self._restored(field, values)
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

    def parsed_as(self, dtype: Any) -> str:
        return "numbers"

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

    def in_units(self, field: Any, values: np.ndarray) -> np.ndarray:
        return np.asarray(values + float(field.offset))

    def from_units(self, field: Any, values: np.ndarray) -> np.ndarray:
        return np.asarray(values - float(field.offset))


@dataclass(frozen=True, repr=False)
class Real(Number):
    """A number on the line, or between bounds. Durations are numbers too, in seconds.

    Args:
        low, high: the ends, in the units of the column; None where a side is open. Without a step they have no density, and
            values lie between them; with a step values may equal them.
        step: the distance of neighbouring values, in the units of the column, to which values are rounded; None where they are
            continuous.

    Errors:
        FlowsError: ends that are not in order, a step that is not above 0, or a value that is not a finite number.

    Example:
        >>> from flows import tables
        >>> tables.Real(low=0, step=0.1)
        Real(low=0, step=0.1)
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        check_box("Real", self.low, self.high)
        without_numpy(self)
        check_step("Real", self.step)

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

    Errors:
        FlowsError: ends that are not whole, or not in order.

    Example:
        >>> from flows import tables
        >>> tables.Integer(low=0)
        Integer(low=0)
    """

    low: int | None = None
    high: int | None = None

    def __post_init__(self) -> None:
        check_box("Integer", self.low, self.high)
        without_numpy(self)
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


def values_of(name: str, column: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a column, NaN in gaps, and which rows are gaps. Whole numbers without gaps stay whole, with all digits."""
    gaps = gaps_of(column)
    column = column.cast(nw.Float64()) if str(column.dtype) in LONG_INTEGERS else column
    dtype = column.dtype
    if dtype.is_integer() or str(dtype) == "Boolean":
        if not gaps.any():
            whole = column.to_numpy()
            return whole.astype(np.float64 if whole.dtype == np.uint64 and whole.max() >= 2**63 else np.int64), gaps
        return _scattered(gaps, column.drop_nulls().to_numpy().astype(np.float64)), gaps
    if dtype.is_float() or dtype.is_decimal():
        if not gaps.any():
            return column.to_numpy().astype(np.float64), gaps
        return _scattered(gaps, column.filter((~gaps).tolist()).to_numpy().astype(np.float64)), gaps
    if str(dtype).startswith("Duration"):
        ticks = column.drop_nulls().dt.total_nanoseconds().to_numpy().astype(np.float64)
        return _scattered(gaps, ticks / 1e9), gaps
    if gaps.all():
        return np.full(len(gaps), np.nan), gaps
    return _numbers_of_objects(name, column, what), gaps


def names_among(column: Any) -> int:
    """The number of distinct whole numbers, if they span so much that they are names; 0 where they are not names."""
    if not column.dtype.is_integer() or not len(column.drop_nulls()):
        return 0
    return column.drop_nulls().n_unique() if _are_names(int(column.min()), int(column.max())) else 0


def _are_names(least: float, most: float) -> bool:
    return most - least >= NAMES or most >= 2**63


def _scattered(gaps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values, in the rows that are not gaps."""
    whole = np.full(len(gaps), np.nan)
    whole[~gaps] = values
    return whole


def _numbers_of_objects(name: str, column: Any, what: str) -> np.ndarray:
    """Numbers of a column whose dtype does not say so."""
    if column.dtype.is_temporal() or holds_times(column):
        raise TypeError(f"{what}: column {name!r} holds {column.dtype}; expected numbers. Give it the kind DateTime()")
    try:
        if column.dtype.is_nested():
            raise TypeError
        places, values = factorized(column)
    except TypeError:
        raise TypeError(f"{what}: column {name!r} holds {column.dtype}; expected numbers. Give it the kind Ignored()") from None
    odd = [not isinstance(value, int | float | np.number | decimal.Decimal) for value in values]
    if any(odd):
        row = int(np.append(odd, False)[places].argmax())
        value = values[places[row]]
        raise TypeError(
            f"{what}: column {name!r}, row {row}, is {value!r:.60}, a {type(value).__name__}; expected a number. Correct it, "
            "make it a gap (None), or give the column the kind Category()"
        )
    return np.array([*map(float, values), np.nan])[places]


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
    step, first = field.step, float(field.origin or 0) - float(field.offset)
    low, high = ((end - first) / step for end in field.ends)
    slack = ON_GRID  # bounds that lie on a step but for rounding
    places = np.clip(np.rint((numbers - first) / step), np.ceil(low - slack), np.floor(high + slack))
    digits = decimals_of(step, float(field.origin or 0), float(field.offset))
    return np.round(first + places * step, digits) if digits <= MOST_DIGITS else first + places * step


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
