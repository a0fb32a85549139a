"""Numbers, on the line or modulo a period: counted from an offset in float64, and rounded back in it."""

import decimal
import math
from dataclasses import replace
from typing import Any, cast

import narwhals as nw
import numpy as np
from scipy.special import expit

from flows.core import FlowsError
from flows.tables.dtypes import column_of, factorized, gaps_of, holds_times, is_duration, is_single, whole_range
from flows.tables.fields import Entries, Field
from flows.tables.kinds import Circular, Integer, Real

MOST_DIGITS = 12  # after the point, of values that are taken to be decimal
OF_128_BITS = ("Int128", "UInt128")  # which NumPy does not have
NAMES = 2**60  # the span of whole numbers, from which they are no counts
FAR = 2**62  # beyond which no whole number is decoded
MOST_WHOLE = 2.0**50  # times that, whose digits float64 tells surely apart
ON_GRID = 1e-6  # of a step, by which values may miss those that start at the least one


def values_of(name: str, column: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a column and which are gaps, NaN there. Whole numbers without gaps stay such, with all their digits."""
    gaps = gaps_of(column)
    column = column.cast(nw.Float64()) if str(column.dtype) in OF_128_BITS else column
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
    return _of_objects(name, column, what), gaps


def names_among(column: Any) -> int:
    """How many values whole numbers have that span so much that they are names; 0 where they are none."""
    if not column.dtype.is_integer() or not len(column.drop_nulls()):
        return 0
    return column.drop_nulls().n_unique() if _are_names(int(column.min()), int(column.max())) else 0


def _are_names(least: float, most: float) -> bool:
    return most - least >= NAMES or most >= 2**63


def _scattered(gaps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values, in the rows that are no gaps."""
    whole = np.full(len(gaps), np.nan)
    whole[~gaps] = values
    return whole


def _of_objects(name: str, column: Any, what: str) -> np.ndarray:
    """Numbers of a column whose dtype does not tell that they are."""
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


def learnt(name: str, field: Field, column: Any, what: str) -> Field:
    """A number with the least value, the digits and the steps of a column."""
    values, gaps = values_of(name, column, what)
    values = values[~gaps] if gaps.any() else values
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not len(values):
        raise FlowsError(
            f"{what}: column {name!r} holds no finite number; expected one. Give it the kind Constant(None), or Ignored()"
        )
    least = values.min().item()
    step = getattr(field.kind, "step", None)
    if isinstance(field.kind, Integer):
        if _are_names(float(values.min()), float(values.max())):
            raise FlowsError(
                f"{what}: column {name!r} holds whole numbers from {values.min()} to {values.max()}, more than are counted; "
                "expected a span below 2^60, and none from 2^63 on. Names, such as identifiers and hashes, are Ignored()"
            )
        least = math.floor(least)
    digits = field.digits if field.digits is not None else digits_of(values)
    low, origin = field.kind.low, field.origin  # type: ignore[attr-defined]
    if step is not None and origin is None:
        # Steps start at the low end or the least value, if all values are on them; others are rounded to those from 0.
        starts = [start for start in (low, least) if start is not None]
        origin = next((start for start in starts if _begin_at(values, start, step)), low or 0.0)
    if isinstance(field.kind, Circular):
        return replace(field, origin=origin, digits=digits)
    # A low end is the offset, so the least value is no matter: a file has as few values of rows as can be.
    known = field.least if low is not None or field.least is not None else least
    return replace(field, least=known, origin=origin, digits=digits)


def _begin_at(values: np.ndarray, start: float, step: float) -> bool:
    places = (values - start) / step
    return bool((np.abs(places - np.rint(places)) <= ON_GRID).all())


def digits_of(values: np.ndarray) -> int | None:
    """How many digits after the point hold all values; None where they are no decimals."""
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


def encoded(name: str, field: Field, column: Any, what: str) -> Entries:
    """Numbers less their offset, on their steps; angles within a period."""
    values, gaps = values_of(name, column, what)
    kind: Any = field.kind
    with np.errstate(invalid="ignore"):
        outside = np.isinf(values)
        if isinstance(kind, Circular):
            return Entries(_turned(field, np.where(outside, np.nan, values)), outside, gaps)
        if isinstance(kind, Integer):
            outside |= (values != np.rint(values)) & ~gaps
        strict, single = field.step == 0, str(column.dtype) == "Float32"
        for given, sign in ((kind.low, 1), (kind.high, -1)):
            if given is not None:
                end = float(np.float32(given)) if single else given  # 0.1 of float32 is no more than 0.1
                outside |= (sign * (values - end) <= 0) if strict else (sign * (values - end) < 0)
        whole = isinstance(field.offset, int) and values.dtype.kind == "i" and _without_overflow(values, field.offset)
        numbers = (values - int(field.offset) if whole else values - float(field.offset)).astype(np.float64)
        if isinstance(kind, Real) and kind.step is not None:
            numbers = _on_steps(field, numbers)
    return Entries(numbers, outside, gaps)


def _without_overflow(values: np.ndarray, offset: int) -> bool:
    """Tell whether int64 holds these whole numbers less an offset."""
    ends = offset, int(values.min()) - offset, int(values.max()) - offset
    return min(ends) >= -(2**63) and max(ends) < 2**63


def _on_steps(field: Field, numbers: np.ndarray) -> np.ndarray:
    """Encoded numbers at the nearest of the steps within the bounds."""
    step, first = field.step, float(field.origin or 0) - float(field.offset)
    low, high = ((end - first) / step for end in field.ends)
    slack = ON_GRID  # bounds that lie on a step but for rounding
    places = np.clip(np.rint((numbers - first) / step), np.ceil(low - slack), np.floor(high + slack))
    digits = decimals_of(step, float(field.origin or 0), float(field.offset))
    return np.round(first + places * step, digits) if digits <= MOST_DIGITS else first + places * step


def _turned(field: Field, values: np.ndarray) -> np.ndarray:
    """Angles as what they are beyond the low end, in [0, period)."""
    kind = cast(Circular, field.kind)
    angles = np.mod(values.astype(np.float64) - kind.low, kind.period)
    if kind.step is not None:
        turns, first = (
            round(kind.period / kind.step),
            np.mod((kind.low if field.origin is None else field.origin) - kind.low, kind.step),
        )
        first = first if first < (1 - ON_GRID) * kind.step else 0.0
        return first + np.mod(np.rint((angles - first) / kind.step), turns) * kind.step
    return np.where(angles >= kind.period, 0.0, angles)  # what is a rounding error below 0 comes out as the period


def decoded(name: str, field: Field, values: np.ndarray, library: str) -> Any:
    """Encoded numbers as a native column."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise FlowsError(f"decode: column {name!r}, row {row}, is {values[row]:.6g}; expected a finite number")
    dtype = field.dtype or "float64"
    numbers = _angles(field, values) if isinstance(field.kind, Circular) else _numbers(field, values)
    if is_duration(dtype):
        ticks = np.rint(numbers * 1e9).astype(np.int64)
        return column_of(library, dtype, ticks.astype("m8[ns]"), name)
    if (span := whole_range(dtype)) is not None:
        numbers = np.clip(np.rint(numbers), *span).astype(np.int64) if numbers.dtype.kind == "f" else np.clip(numbers, *span)
    elif "bool" in str(dtype).lower():
        numbers = numbers >= 0.5
    return column_of(library, dtype, numbers, name)


def _numbers(field: Field, values: np.ndarray) -> np.ndarray:
    """Return what was counted from the offset: on the steps and inside the bounds."""
    kind: Any = field.kind
    if isinstance(kind, Integer):
        start = int(field.offset)
        whole = np.rint(np.clip(values, float(-FAR), float(FAR))).astype(np.int64)
        whole = np.clip(whole, max(-FAR, -2 * FAR - start), min(FAR, 2 * FAR - 1 - start)) + start
        return np.clip(whole, kind.low, kind.high) if (kind.low, kind.high) != (None, None) else whole
    offset = float(field.offset)
    if kind.step is not None:
        numbers = offset + _on_steps(field, values)
        digits = decimals_of(kind.step, field.origin or 0.0)
        numbers = np.round(numbers, digits) if digits <= MOST_DIGITS else numbers
        return np.clip(numbers, kind.low, kind.high) if (kind.low, kind.high) != (None, None) else numbers
    numbers = offset + values
    if field.digits is not None:
        numbers = np.round(_within_digits(kind, numbers, field.digits), field.digits)
    return _inside(kind, numbers, is_single(field.dtype or "float64"))


def _within_digits(kind: Any, numbers: np.ndarray, digits: int) -> np.ndarray:
    """Numbers between the first and the last of so many digits that lie inside the box."""
    unit = 10.0**digits
    first = -np.inf if kind.low is None else (np.floor(kind.low * unit) + 1) / unit
    last = np.inf if kind.high is None else (np.ceil(kind.high * unit) - 1) / unit
    return np.clip(numbers, first, last) if first <= last else numbers


def _inside(kind: Any, numbers: np.ndarray, single: bool) -> np.ndarray:
    """Numbers that are no ends of their box, as these have no density."""
    dtype = np.float32 if single else np.float64
    if kind.low is not None:
        numbers = np.maximum(numbers, np.nextafter(dtype(kind.low), dtype(np.inf)))
    if kind.high is not None:
        numbers = np.minimum(numbers, np.nextafter(dtype(kind.high), dtype(-np.inf)))
    return numbers


def unbounded(field: Field, values: np.ndarray) -> np.ndarray:
    """Encoded numbers on the whole line, as `flows.Unconstrain` takes them there; on steps, from where their cells end."""
    low, high = _cells_end(field)
    with np.errstate(invalid="ignore", divide="ignore"):
        from_low = np.log(values - low) if np.isfinite(low) else 0.0
        to_high = np.log(high - values) if np.isfinite(high) else 0.0
    return np.asarray(from_low - to_high) if np.isfinite([low, high]).any() else values


def bounded(field: Field, values: np.ndarray) -> np.ndarray:
    """The inverse of `unbounded`."""
    low, high = _cells_end(field)
    if np.isfinite([low, high]).all():
        return np.asarray(low + (high - low) * expit(values))
    return np.asarray(low + np.exp(values) if np.isfinite(low) else high - np.exp(-values) if np.isfinite(high) else values)


def _cells_end(field: Field) -> list[float]:
    """The ends, of rounded numbers those of their outermost cells."""
    return [end + side * field.step / 2 for end, side in zip(field.ends, (-1, 1), strict=True)]


def _angles(field: Field, values: np.ndarray) -> np.ndarray:
    """Angles in [low, low + period)."""
    kind: Any = field.kind
    numbers = kind.low + _turned(field, values + kind.low)
    digits = field.digits if kind.step is None else decimals_of(kind.step, kind.low, field.origin or 0.0)
    if digits is not None and digits <= MOST_DIGITS:
        numbers = np.round(numbers, digits)
    end = kind.low + kind.period
    if is_single(field.dtype or "float64"):
        numbers = np.where(numbers.astype(np.float32) >= np.float32(end), kind.low, numbers)
    return np.where(numbers >= end, kind.low, numbers)
