"""A column of a schema: its kind, and what was learnt of it from the frame that the schema was fitted to."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from flows.tables.dtypes import Dtype
from flows.tables.kinds import Category, Circular, DateTime, Ignored, Integer, Kind, Real


@dataclass(frozen=True)
class Field:
    """A column.

    Attributes:
        kind: what it holds.
        label: its name in the frame, which need not be text.
        dtype: as `dtypes.described` tells it.
        least: the least value, of dates as text of ISO 8601, from which numbers count; None where they have a low bound.
        largest: the same of dates, which tells the cycles that they went through.
        origin: a value that lies on the steps.
        digits: after the point, that hold all values; None where more than float64 has would be needed.
        why: it is of this kind, for people.
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
        """Tells whether all is known that encoding needs."""
        kind = self.kind
        if isinstance(kind, Ignored):
            return True
        if isinstance(kind, Category) and kind.values is None:
            return False
        if isinstance(kind, DateTime) and (self.least is None or self.largest is None or kind.step is None):
            return False
        if isinstance(kind, Real | Integer) and self.offset is None:
            return False
        if isinstance(kind, Real) and kind.step is not None and self.origin is None:
            return False
        return self.dtype is not None

    @property
    def offset(self) -> Any:
        """The value that is encoded as 0."""
        low = getattr(self.kind, "low", None)
        return self.least if low is None else low

    @property
    def step(self) -> float:
        """The distance of neighbouring values in encoded units; 0 where they are continuous."""
        if isinstance(self.kind, Integer):
            return 1.0
        return float(getattr(self.kind, "step", None) or 0.0)

    @property
    def ends(self) -> tuple[float, float]:
        """The bounds, in encoded units; infinite where a side is open."""
        low, high = (getattr(self.kind, name, None) for name in ("low", "high"))
        if isinstance(self.kind, Circular):
            return -np.inf, np.inf
        return -np.inf if low is None else 0.0, np.inf if high is None else float(high - self.offset)

    def with_facts_of(self, old: "Field") -> "Field":
        """Return the column with what is known of it whatever its kind is: values of one sort stay what they are."""
        sorts = [isinstance(kind, Real | Integer | Circular) for kind in (self.kind, old.kind)]
        if not (all(sorts) or (isinstance(self.kind, DateTime) and isinstance(old.kind, DateTime))):
            return self
        origin = old.origin if self.step and self.step == old.step else None
        least = old.least
        if isinstance(self.kind, Circular) or getattr(self.kind, "low", None) is not None:
            least = None  # a low end is the offset
        elif isinstance(self.kind, Integer) and least is not None:
            least = math.floor(least)
        return replace(self, least=least, largest=old.largest, digits=old.digits, origin=origin)


class Entries(NamedTuple):
    """A column as numbers.

    Attributes:
        values: (rows,), NaN where there is a gap, -1 for what is no known category.
        outside: which are no values of the kind: unknown, infinite, not within the bounds.
        gaps: which are missing, where the kind has no value for that.
    """

    values: np.ndarray
    outside: np.ndarray
    gaps: np.ndarray
