"""Kinds of columns of a table. Kinds are plain values: they print as code, compare by their arguments and go to JSON."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from flows.core import FlowsError, shortened

FEW_ROWS = 5  # a value of fewer is pooled, where `other` is given
MOST_WHOLE = 2**63  # below which int64 has whole numbers
FINITE = float(np.finfo(np.float64).max)  # which whole numbers may exceed
WHOLE = 1e-9  # of a step, by which a period may miss a whole number of them


class Kind:
    """The kind of a column. Its subclasses are all the kinds there are."""

    def __repr__(self) -> str:
        """As code, without the arguments that are at their default."""
        given = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]  # type: ignore[arg-type]
        shown = [f"{name}={shortened(value, 60)}" for name, value, default in given if value != default or value is True]
        return f"{type(self).__name__}({', '.join(shown)})"


def _is_finite(value: Any) -> bool:
    return bool(abs(value) <= FINITE)


def _number(kind: str, name: str, value: Any) -> None:
    """Refuse what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not _is_finite(value):
        raise FlowsError(f"{kind}: {name} is {value!r:.60}; expected a finite number, or None where there is none")


def _without_numpy(kind: Any) -> None:
    """Numbers of NumPy become those of Python, which JSON has."""
    for field in fields(kind):
        if isinstance(value := getattr(kind, field.name), np.generic):
            object.__setattr__(kind, field.name, value.item())


def _check_box(kind: str, low: Any, high: Any) -> None:
    for name, end in (("low", low), ("high", high)):
        if end is not None:
            _number(kind, name, end)
    if low is not None and high is not None and not low < high:
        raise FlowsError(f"{kind}: low is {low!r} and high is {high!r}; expected low < high")


def _check_step(kind: str, step: Any) -> None:
    if step is None:
        return
    _number(kind, "step", step)
    if step <= 0:
        raise FlowsError(f"{kind}: step is {step!r}; expected a number above 0, or None where values are not rounded")


@dataclass(frozen=True, repr=False)
class Real(Kind):
    """A number on the line, or between bounds. Durations are numbers too, in seconds.

    Args:
        low, high: the ends, in the units of the column; None where a side is open. Without a step they have no density and are
            no values themselves; with one they may be.
        step: the distance of neighbouring values, in the units of the column, to which values are rounded; None where they are
            continuous.

    Errors:
        FlowsError: ends that are not in order, a step that is not above 0, or what is no finite number.

    Example:
        >>> from flows import tables
        >>> tables.Real(low=0, step=0.1)
        Real(low=0, step=0.1)
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        _check_box("Real", self.low, self.high)
        _without_numpy(self)
        _check_step("Real", self.step)


@dataclass(frozen=True, repr=False)
class Integer(Kind):
    """A whole number, such as a count: a number whose step is 1.

    Args:
        low, high: the least and the largest that there may be; None where a side is open.

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
        _check_box("Integer", self.low, self.high)
        _without_numpy(self)
        for name, end in (("low", self.low), ("high", self.high)):
            if end is not None and abs(end) >= MOST_WHOLE:
                raise FlowsError(f"Integer: {name} is {end!r}; expected a whole number of 64 bits")
            if end is not None and end != math.floor(end):
                raise FlowsError(f"Integer: {name} is {end!r}; expected a whole number, or the kind Real(step=)")


@dataclass(frozen=True, repr=False)
class Category(Kind):
    """One of a set of values without an order or a distance: text, numbers, True and False. A gap, None, may be one of them.

    Args:
        values: those there are, in the order of their codes 0, 1, ...; None for those of the frame that a schema is fitted to.
        other: the value into which those of fewer than 5 rows are pooled, and any that are not known, such as "rest"; None
            where an unknown value is an error.

    Errors:
        FlowsError: no values, doubled ones, or such that are no text, number, True, False or None.

    Example:
        >>> from flows import tables
        >>> tables.Category(("red", "green"), other="rest")
        Category(values=('red', 'green'), other='rest')
    """

    values: Sequence[Any] | None = None
    other: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "other", _plain("Category", self.other))
        if self.values is None:
            return
        if isinstance(self.values, str | Set | Mapping) or not hasattr(self.values, "__iter__"):
            raise FlowsError(f"Category: values is {self.values!r:.60}; expected a list of them, in the order of their codes")
        values = tuple(_plain("Category", value) for value in self.values)
        if not values:
            raise FlowsError("Category: values is empty; expected one or more, or None for those of the frame")
        if len(set(values)) < len(values):
            twice = next(value for i, value in enumerate(values) if value in values[:i])
            raise FlowsError(f"Category: values has {twice!r} twice; expected each once (to Python, True is 1 and 2.0 is 2)")
        object.__setattr__(self, "values", values)

    @property
    def called(self) -> tuple[str, ...]:
        return tuple("none" if value is None else str(value) for value in self.known)

    @property
    def known(self) -> tuple[Any, ...]:
        """All values, the one of the pool, too."""
        values = tuple(self.values or ())
        return values if self.other is None or self.other in values else (*values, self.other)


@dataclass(frozen=True, repr=False)
class Circular(Kind):
    """A number modulo a period: an angle, a direction, the time of day.

    Args:
        period: after which values come again, in the units of the column, such as 360.
        low: the least value that is decoded; they lie in [low, low + period). Any finite number is encoded.
        step: the distance of neighbouring values, of which the period is a whole number; None where they are continuous.

    Errors:
        FlowsError: a period or a step that is not above 0, or a period that is no whole number of steps.

    Example:
        >>> from flows import tables
        >>> tables.Circular(360, step=10)
        Circular(period=360, step=10)
    """

    period: float
    low: float = 0.0
    step: float | None = None

    def __post_init__(self) -> None:
        _number("Circular", "period", self.period)
        _number("Circular", "low", self.low)
        _without_numpy(self)
        _check_step("Circular", self.step)
        if self.period <= 0:
            raise FlowsError(f"Circular: period is {self.period!r}; expected a number above 0")
        if self.step is not None:
            turns = self.period / self.step
            if round(turns) < 1 or abs(turns - round(turns)) > WHOLE * turns:
                raise FlowsError(
                    f"Circular: period is {self.period!r} and step is {self.step!r}; expected a whole number of steps"
                )


@dataclass(frozen=True, repr=False)
class DateTime(Kind):
    """A date or a time, with or without a time zone; as a number, the seconds since the least one.

    Args:
        step: in seconds, such as 60 or 86400, to which times are rounded; None for the coarsest of a second, a minute, an hour
            and a day that all values have, counted from the least one. Where there were more than 2^22 steps, which is what
            float32 tells apart, a schema takes the next of these that fits, and says so.
        format: how dates are written that are held as text or as whole numbers, such as "%Y%m%d"; without a time zone.

    Errors:
        FlowsError: a step that is not above 0, a format without a %, or one with a time zone.

    Example:
        >>> from flows import tables
        >>> tables.DateTime(format="%Y%m%d")
        DateTime(format='%Y%m%d')
    """

    step: float | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        _check_step("DateTime", self.step)
        _without_numpy(self)
        if self.format is not None:
            if not isinstance(self.format, str) or "%" not in self.format:
                raise FlowsError(f"DateTime: format is {self.format!r:.60}; expected codes of strftime, such as '%Y%m%d'")
            if "%z" in self.format or "%Z" in self.format:
                raise FlowsError(
                    f"DateTime: format is {self.format!r:.60}, with a time zone; expected one without. Turn such text into "
                    "times first"
                )


@dataclass(frozen=True, repr=False)
class Constant(Kind):
    """One value in all rows, which takes no part in the density; draws have it. Another value is refused.

    Args:
        value: text, a number, True, False, a date as text of ISO 8601, or None for a column of gaps.

    Errors:
        FlowsError: a value of another type.

    Example:
        >>> from flows import tables
        >>> tables.Constant("EUR")
        Constant(value='EUR')
    """

    value: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _plain("Constant", self.value))


@dataclass(frozen=True, repr=False)
class Ignored(Kind):
    """A column that is not read: frames may lack it, and draws do.

    Example:
        >>> from flows import tables
        >>> tables.Ignored()
        Ignored()
    """


KINDS: dict[str, type[Kind]] = {
    kind.__name__: kind for kind in (Real, Integer, Category, Circular, DateTime, Constant, Ignored)
}
NUMBERS = (Real, Integer, DateTime)  # which are encoded as numbers on the line


def _plain(kind: str, value: Any) -> Any:
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
