"""Numbers modulo a period: angles, directions, times of the day."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flows import conditionals
from flows.core import FlowsError
from flows.results.columns import Column
from flows.tables.kinds.base import WHOLE, Entries, check_number, check_step, without_numpy
from flows.tables.kinds.dtypes import is_single, values_of
from flows.tables.kinds.number import MOST_DIGITS, ON_GRID, Number, decimals_of


@dataclass(frozen=True, repr=False)
class Circular(Number):
    """A number modulo a period: an angle, a direction, the time of day.

    Args:
        period: after which values come again, in the units of the column, such as 360.
        low: the least decoded value; decoded values lie in [low, low + period). Any finite number can be encoded.
        step: the distance of neighbouring values; the period is a whole number of steps. None where values are continuous.

    Errors:
        FlowsError: a period or a step that is not above 0, or a period that is not a whole number of steps.

    Example:
        >>> from flows import tables
        >>> tables.Circular(360, step=10)
        Circular(period=360, step=10)
    """

    period: float
    low: float = 0.0
    step: float | None = None

    def __post_init__(self) -> None:
        check_number("Circular", "period", self.period)
        check_number("Circular", "low", self.low)
        without_numpy(self)
        check_step("Circular", self.step)
        if self.period <= 0:
            raise FlowsError(f"Circular: period is {self.period!r}; expected a number above 0")
        if self.step is not None:
            turns = self.period / self.step
            if round(turns) < 1 or abs(turns - round(turns)) > WHOLE * turns:
                raise FlowsError(
                    f"Circular: period is {self.period!r} and step is {self.step!r}; expected a whole number of steps"
                )

    block = "angles"

    def is_learnt(self, field: Any) -> bool:
        return True

    def encoded(self, name: str, field: Any, column: Any, what: str) -> Entries:
        values, gaps = values_of(name, column, what)
        outside = np.isinf(values)
        with np.errstate(invalid="ignore"):
            return Entries(self._turned(field, np.where(outside, np.nan, values)), outside, gaps)

    def ends(self, field: Any) -> tuple[float, float]:
        return -np.inf, np.inf

    def width(self, field: Any) -> int:
        return 2

    def context(self, name: str, field: Any, column: Any, values: np.ndarray, what: str) -> np.ndarray:
        turns = 2 * np.pi * values / self.period
        return np.stack([np.cos(turns), np.sin(turns)], 1)

    def from_context(self, field: Any, context: np.ndarray) -> np.ndarray:
        return np.asarray(np.mod(np.arctan2(context[:, 1], context[:, 0]) / (2 * np.pi), 1.0) * self.period)

    def conditional(self, name: str, field: Any) -> conditionals.Kind:
        if self.step is not None and _first_turn(self, field):
            raise FlowsError(
                f"AnySubset: the steps of column {name!r} begin at {field.origin:.6g}, and angles at {self.low:.6g}; "
                f"expected one start: Circular({self.period!r}, low={field.origin!r}, step={self.step!r})"
            )
        return conditionals.Angle(float(self.period), field.step)

    def axis(self, field: Any, name: str) -> Column:
        return Column(name, low=float(self.low), high=float(self.low + self.period), period=float(self.period), step=field.step)

    def in_units(self, field: Any, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.low + np.mod(values, self.period))

    def _restored(self, field: Any, values: np.ndarray) -> np.ndarray:
        """Angles in [low, low + period)."""
        numbers = self.low + self._turned(field, values + self.low)
        digits = field.digits if self.step is None else decimals_of(self.step, self.low, field.origin or 0.0)
        if digits is not None and digits <= MOST_DIGITS:
            numbers = np.round(numbers, digits)
        end = self.low + self.period
        if is_single(field.dtype or "float64"):
            numbers = np.where(numbers.astype(np.float32) >= np.float32(end), self.low, numbers)
        return np.where(numbers >= end, self.low, numbers)

    def _turned(self, field: Any, values: np.ndarray) -> np.ndarray:
        """Angles from the low end on, in [0, period)."""
        angles = np.mod(values.astype(np.float64) - self.low, self.period)
        if self.step is None:
            return np.where(angles >= self.period, 0.0, angles)  # a rounding error below 0 becomes the period
        turns = round(self.period / self.step)
        first = _first_turn(self, field)
        return first + np.mod(np.rint((angles - first) / self.step), turns) * self.step


def _first_turn(kind: Any, field: Any) -> float:
    """The first step of an angle, from its low end on."""
    first = np.mod((kind.low if field.origin is None else field.origin) - kind.low, kind.step)
    return float(first) if ON_GRID * kind.step < first < (1 - ON_GRID) * kind.step else 0.0
