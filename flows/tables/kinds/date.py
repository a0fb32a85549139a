"""Dates and times as seconds since the least of them, and as what repeats: the day, the week, the year."""

import datetime as dt
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from flows import conditionals
from flows.core import FlowsError
from flows.results.columns import Column
from flows.tables.kinds.base import WHOLE, Entries, Kind, as_plain, check_decodable, check_step, line, without_numpy
from flows.tables.kinds.category import taken
from flows.tables.kinds.dtypes import (
    column_of,
    described,
    factorized,
    gaps_of,
    holds_times,
    is_date,
    whole_range,
    without_zone,
    zone_in,
)
from flows.tables.kinds.ends import abrupt
from flows.tables.kinds.notation import date_text, time_of

ISO = re.compile(r"\d{4}-\d\d(-\d\d(T\d\d(:\d\d){0,2}(\.\d+)?Z?)?)?$")  # as a schema writes times
STEPS = (86_400, 3_600, 60, 1, 1e-3, 1e-6, 1e-9)  # seconds, the coarsest first
NAMES = ("days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds")
NANOSECONDS = 1677, 2262  # the years that are not whole, at the ends of what int64 counts
MOST_STEPS = 2**22  # that float32 can represent, with the cells between them
DAY = 86_400.0
EPOCH, MICROSECOND = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)
CYCLES = {"day": DAY, "week": 604_800.0, "year": 365.2425 * DAY}  # seconds
LEAST_OF_CYCLE = 0.9  # that dates went through, so that it differs from the trend
VALUES_OF_CYCLE = 3  # steps of it, at least


@dataclass(frozen=True, repr=False)
class DateTime(Kind):
    """A date or a time, with or without a time zone; as a number, the seconds since the least one.

    Args:
        low, high: the first and the last date, such as "2024-12-31" (which is its midnight), "2024-12-31T23:59", or a date of
            Python; None where a side is open. Where times have a zone, these are by Universal Time.
        step: in seconds, such as 60 or 86400, to which times are rounded; None for the coarsest of a second, a minute, an hour
            and a day that all values have, counted from the least one. Beyond 2^22 steps, the most that float32 can
            represent, a schema takes the next of these steps that fits, and says so.
        format: the form of dates that are text or whole numbers, such as "%Y%m%d"; without a time zone. "%-d" and "%-m" are
            written without a zero in front.

    Errors:
        FlowsError: ends that are not dates, or not in order; a step that is not above 0; a format without a %, or one with a
            time zone.

    Example:
        >>> from flows import tables
        >>> tables.DateTime(high="2024-12-31", format="%Y%m%d")
        DateTime(high='2024-12-31', format='%Y%m%d')
    """

    low: Any = None
    high: Any = None
    step: float | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        check_step("DateTime", self.step)
        for name in ("low", "high"):
            object.__setattr__(self, name, end := as_plain(getattr(self, name)))
            if end is not None and not is_iso(end):
                raise FlowsError(f"DateTime: {name} is {end!r:.60}; expected a date as in '2024-01-31', or None")
        if np.diff(self._bounds()) <= 0:
            raise FlowsError(f"DateTime: low is {self.low!r} and high is {self.high!r}; expected low < high")
        without_numpy(self)
        if self.format is not None:
            if not isinstance(self.format, str) or "%" not in self.format:
                raise FlowsError(f"DateTime: format is {self.format!r:.60}; expected codes of strftime, such as '%Y%m%d'")
            if "%z" in self.format or "%Z" in self.format:
                raise FlowsError(
                    f"DateTime: format is {self.format!r:.60}, with a time zone; expected one without. Turn such text into "
                    "times first"
                )

    block, sort = "numbers", "times"

    def is_learnt(self, field: Any) -> bool:
        return not (field.least is None or field.largest is None or self.step is None)

    def learnt(self, name: str, field: Any, column: Any, what: str) -> Any:
        """Dates with the least and the largest of a column, and a step that float32 can represent over such a span."""
        times = ticks_of(name, field, column, what)
        ticks = times.ticks[~(times.gaps | times.outside)]
        if not len(ticks):
            there = "no date" if times.outside.any() else "gaps alone"
            raise FlowsError(
                f"{what}: column {name!r} holds {there}; expected a date. Give it the kind Constant(None), or Ignored()"
            )
        least, largest, per_second = int(ticks.min()), int(ticks.max()), _per_second(times.unit)
        if self.step is None:
            step = _step_of(ticks - least, per_second)
            field = replace(field, kind=replace(self, step=step), why=_joined(field.why, f"in {NAMES[STEPS.index(step)]}"))
        ends = [end / 1e6 - least / per_second for end in self._bounds() if np.isfinite(end)]
        field = _within_float32(field, max(*ends, (largest - least) / per_second, 0.0) - min(*ends, 0.0, 0.0))
        if field.least is None:
            step = max(round(field.step * per_second), 1)
            # Times that are to be rounded become whole hours, say, and do not start at the minutes of the least time.
            start = least - least % step if ((ticks - least) % step).any() else least
            field = replace(field, least=_as_text(start, times.unit, times.zoned))
        return replace(field, largest=field.largest or _as_text(largest, times.unit, times.zoned))

    def replaced(self, field: Any, old: Any) -> Any:
        """Forget where steps begin, if not all dates are on steps of another size, or if there are too many."""
        step = self.step
        if old.least is None or old.largest is None or old.step == 0 or step == old.step:
            return field
        parts, span = old.step / step if step else 0.0, _from_text(old.largest, "us") - _from_text(old.least, "us")
        stays = step and round(parts) >= 1 and abs(parts - round(parts)) < WHOLE * parts and span <= MOST_STEPS * step * 1e6
        return field if stays else replace(field, least=None, largest=None)

    def encoded(self, name: str, field: Any, column: Any, what: str) -> Entries:
        """Seconds since the least date, on the steps."""
        times = ticks_of(name, field, column, what)
        if not times.gaps.all():
            _check_zone(name, field, times, what)
        since = (times.ticks - _from_text(field.least, times.unit)).astype(np.float64)
        seconds = np.clip(np.rint(since / (field.step * _per_second(times.unit))) * field.step, *field.ends)
        (low, high), ticks = self._bounds(), times.ticks // (_per_second(times.unit) // 10**6)
        outside = times.outside | (((ticks < low) | (ticks > high)) & ~times.gaps)
        seconds[times.gaps | outside] = np.nan
        return Entries(seconds, outside, times.gaps)

    def expected(self, name: str, field: Any, value: Any) -> tuple[str, str]:
        if self.format is not None and time_of(_plain(value), self.format) is None:
            return f"a date written as {self.format!r}", "Correct it, or make it a gap (None)"
        ends = [f"{word} {end}" for word, end in (("from", self.low), ("up to", self.high)) if end is not None]
        kind = "DateTime()" if self.format is None else f"DateTime(format={self.format!r})"
        return f"a date {' '.join(ends)}", f"Correct it, or widen the bounds: schema.replace({{{name!r}: {kind}}})"

    def ends(self, field: Any) -> tuple[float, float]:
        """The first and the last step within the bounds, in seconds since the least date."""
        low, high = (np.array(self._bounds()) - _from_text(field.least, "us")) / (1e6 * field.step)
        return float(np.ceil(low - WHOLE)) * field.step, float(np.floor(high + WHOLE)) * field.step

    def conditional(self, name: str, field: Any) -> conditionals.Kind:
        low, high = field.ends
        return line(low, high, field.step)

    def _bounds(self) -> tuple[float, float]:
        """The ends in microseconds since 1970, infinite where a side is open."""
        low, high = (None if end is None else float(_from_text(end, "us")) for end in (self.low, self.high))
        return -np.inf if low is None else low, np.inf if high is None else high

    def decoded(self, name: str, field: Any, values: np.ndarray, library: str) -> Any:
        """Seconds as a native column of times, or of text or whole numbers in the format."""
        check_decodable(name, values, ~np.isfinite(values), "a finite number of seconds")
        dtype = field.dtype or "datetime64[us]"
        unit = "ns" if self.format is None and "ns" in str(dtype) else "us"
        ticks = np.rint(np.rint(np.clip(values, *field.ends) / field.step) * (field.step * _per_second(unit)))
        ticks = np.clip(ticks, -(2.0**62), 2.0**62)  # of nanoseconds that is 146 years
        times = (ticks.astype(np.int64) + _from_text(field.least, unit)).view(f"M8[{unit}]")
        if self.format is None:
            return column_of(library, dtype, times, name)
        few, places = np.unique(times, return_inverse=True)
        text = [date_text(time.item(), self.format) for time in few]
        return taken(column_of(library, dtype, text if whole_range(dtype) is None else list(map(int, text)), name), places)

    def parsed_as(self, dtype: Any) -> str:
        return "times" if self.format is None else "text" if whole_range(dtype) is None else "numbers"

    def width(self, field: Any) -> int:
        return 1 + 2 * len(cycles_of(field))

    def context(self, name: str, field: Any, column: Any, values: np.ndarray, what: str) -> np.ndarray:
        """The trend, 0 at the least date and 1 at the largest, and cosine and sine of the cycles, by the clock of the zone."""
        times = ticks_of(name, field, column, what)
        wall = times.wall / _per_second(times.unit)
        turns = [2 * np.pi * (np.mod(wall, cycle) / cycle) for cycle in cycles_of(field)]
        features = np.stack([values / _span_of(field), *(entry for turn in turns for entry in (np.cos(turn), np.sin(turn)))], 1)
        features[times.gaps] = np.nan
        return features

    def from_context(self, field: Any, context: np.ndarray) -> np.ndarray:
        return np.asarray(context[:, 0] * _span_of(field))

    def axis(self, field: Any, name: str) -> Column:
        return Column(name, step=field.step / DAY, dates=True, zone=zone_in(field.dtype or ""))

    def units(self, field: Any) -> tuple[float, float]:  # days since 1970
        return _from_text(field.least, "us") / 1e6, DAY


class Ticks(NamedTuple):
    """Times as whole numbers since 1970, by Universal Time where they have a zone.

    Attributes:
        ticks: (rows,), 0 where there is a gap.
        gaps: which are missing.
        wall: the same by the clock of the zone that the schema was fitted to, by which days and weeks begin.
        unit: of a tick, "us" or "ns".
        zoned: whether they have a time zone.
        outside: texts that are not dates.
    """

    ticks: np.ndarray
    gaps: np.ndarray
    wall: np.ndarray
    unit: str
    zoned: bool
    outside: np.ndarray


def ticks_of(name: str, field: Any, column: Any, what: str) -> Ticks:
    """The times of a column, also of text and whole numbers in a format."""
    gaps, kind = gaps_of(column), field.kind
    if not holds_times(column):
        ticks, outside = _parsed(name, kind, column, what)
        return Ticks(ticks, gaps, ticks, "us", False, outside)
    if kind.format is not None and is_date(field.dtype or ""):
        raise TypeError(
            f"{what}: column {name!r} holds {column.dtype}, which is not text; expected DateTime() without a format"
        )
    there, zoned = column.drop_nulls(), zone_in(described(column)) is not None
    there, local = without_zone(there, zone_in(field.dtype)) if zoned else (there, there)
    unit = "ns" if getattr(local.dtype, "time_unit", "us") == "ns" and _has_nanoseconds(field.least) else "us"
    ticks, wall = np.zeros(len(gaps), np.int64), np.zeros(len(gaps), np.int64)
    ticks[~gaps] = there.dt.timestamp(unit).to_numpy()
    wall[~gaps] = local.dt.timestamp(unit).to_numpy() if zoned else ticks[~gaps]
    return Ticks(ticks, gaps, wall, unit, zoned, np.zeros(len(gaps), bool))


def ends_of_dates(name: str, field: Any, column: Any, what: str) -> tuple[str | None, ...]:
    """Return the first and the last date as ends, None where dates do not begin or end abruptly."""
    times = ticks_of(name, field, column, what)
    ticks, counts = np.unique(times.ticks[~(times.gaps | times.outside)], return_counts=True)
    since, per_second = ticks - ticks[0], _per_second(times.unit)
    shown = abrupt(since, counts, _step_of(since, per_second) * per_second, "times")
    texts = [_as_text(tick, times.unit, times.zoned).removesuffix("T00:00:00") for tick in ticks[[0, -1]]]
    return tuple(text if shows else None for text, shows in zip(texts, shown, strict=True))


def _parsed(name: str, kind: "DateTime", column: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds of dates as text or whole numbers, and which are not dates; each that occurs is read once."""
    places, values = factorized(column)
    if not values:
        return np.zeros(len(places), np.int64), np.zeros(len(places), bool)
    if kind.format is None:
        raise TypeError(
            f"{what}: column {name!r} holds {column.dtype}, such as {values[0]!r:.60}; expected times. Say how they are "
            "written: DateTime(format='%Y-%m-%d')"
        )
    times = [time_of(_plain(value), kind.format) for value in values]
    ticks = [0 if time is None else (time - EPOCH) // MICROSECOND for time in times]
    return np.array([*ticks, 0], np.int64)[places], np.array([*(time is None for time in times), False])[places]


def _plain(value: Any) -> str:
    """A date as text: as it is, or the digits of a whole number."""
    return value.strip() if isinstance(value, str) else f"{value:.0f}" if value == np.rint(value) else str(value)


def _has_nanoseconds(least: str | None) -> bool:
    """Tell whether a time, if there is one, can be counted in nanoseconds since 1970, which reach 292 years."""
    return least is None or NANOSECONDS[0] < _from_text(least, "Y") + 1970 < NANOSECONDS[1]


def _as_text(tick: int, unit: str, zoned: bool) -> str:
    """A time in ISO 8601; by Universal Time, marked by a Z, if times have a zone."""
    text = str(np.int64(tick).astype(f"M8[{unit}]"))
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return whole + (f".{fraction}" if fraction else "") + ("Z" if zoned else "")


def _from_text(text: str, unit: str) -> int:
    return int(np.array(text.removesuffix("Z"), f"M8[{unit}]").astype(np.int64))


def is_iso(text: Any) -> bool:
    """Tell whether a text is a time as a schema writes it, of the years 0 to 9999."""
    try:
        return (
            isinstance(text, str) and ISO.match(text) is not None and not np.isnat(np.datetime64(text.removesuffix("Z"), "us"))
        )
    except ValueError:
        return False


def _per_second(unit: str) -> int:
    return 10**9 if unit == "ns" else 10**6


def _joined(why: str, more: str) -> str:
    return f"{why}, {more}" if why else more


def _step_of(ticks: np.ndarray, per_second: int) -> float:
    """The coarsest step of the ladder that all times have, counted from the least."""
    return next((step for step in STEPS if not (ticks % max(round(step * per_second), 1)).any()), STEPS[-1])


def _within_float32(field: Any, span: float) -> Any:
    kind: Any = field.kind
    coarser = [step for step in STEPS[::-1] if step > kind.step and span <= MOST_STEPS * step]
    if span <= MOST_STEPS * kind.step or not coarser:
        return field
    why = (
        f"rounded to {NAMES[STEPS.index(coarser[0])]}, as float32 tells {MOST_STEPS:,} steps apart, and not "
        f"{span / kind.step:.3g} of {kind.step:.6g} s"
    )
    return replace(field, kind=replace(kind, step=coarser[0]), why=_joined(field.why, why))


def _check_zone(name: str, field: Any, times: Ticks, what: str) -> None:
    if times.zoned == str(field.least).endswith("Z"):
        return
    has, expected, zone = ("with", "without", "None") if times.zoned else ("without", "with", "zone")
    raise TypeError(
        f"{what}: column {name!r} holds times {has} a time zone; expected times {expected} one, as the schema was fitted to. "
        f"Turn them into such: dt.tz_localize({zone}) of pandas, dt.replace_time_zone({zone}) of polars"
    )


def _span_of(field: Any) -> float:
    """Seconds from the least date to the largest; a day where these are equal."""
    return (_from_text(field.largest, "us") - _from_text(field.least, "us")) / 1e6 or CYCLES["day"]


def cycles_of(field: Any) -> tuple[float, ...]:
    """The periods, in seconds, of the day, the week and the year that dates went through, in steps fine enough to show them."""
    span = (_from_text(field.largest, "us") - _from_text(field.least, "us")) / 1e6
    return tuple(cycle for cycle in CYCLES.values() if field.step * VALUES_OF_CYCLE <= cycle and span >= LEAST_OF_CYCLE * cycle)
