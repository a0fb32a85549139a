"""Columns that take no part in a density."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.tables.dtypes import column_of, is_date, is_duration
from flows.tables.kinds.base import Entries, Kind, checked_plain, shown
from flows.tables.kinds.category import codes_of, sort_of_text, taken


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
        object.__setattr__(self, "value", checked_plain("Constant", self.value))

    gaps_are_values = True

    def encoded(self, name: str, field: Any, column: Any, what: str) -> Entries:
        return codes_of(name, column, (self.value,), None, what, constant=True)

    def decoded(self, name: str, field: Any, values: np.ndarray, library: str) -> Any:
        value, dtype = self.value, field.dtype or "object"
        few: Any = [value]
        if value is not None and is_date(dtype):
            few = np.array([value.removesuffix("Z")], "M8[us]")
        elif value is not None and is_duration(dtype):
            few = np.array([round(value * 1e9)], "m8[ns]")
        return taken(column_of(library, dtype, few, name), np.zeros(len(values), np.int64))

    def expected(self, name: str, field: Any, value: Any) -> tuple[str, str]:
        return f"{shown(self.value)}, the one value of this column", (
            f"Correct it, or do not read the column: schema.replace({{{name!r}: Ignored()}})"
        )

    def parsed_as(self, dtype: Any) -> str:
        return "times" if is_date(dtype) else sort_of_text((self.value,))

    def width(self, field: Any) -> int:
        return 0

    def context(self, name: str, field: Any, column: Any, values: np.ndarray, what: str) -> np.ndarray:
        return np.empty((len(values), 0))


@dataclass(frozen=True, repr=False)
class Ignored(Kind):
    """A column that is not read: frames may lack it, and draws do not have it.

    Example:
        >>> from flows import tables
        >>> tables.Ignored()
        Ignored()
    """

    is_read = False
