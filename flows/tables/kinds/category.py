"""Values of a set, as codes 0, 1, ..., and back: categories without an order, categories with one, and a single value."""

import decimal
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np

from flows import conditionals
from flows.core import FlowsError, as_context
from flows.results.columns import Column
from flows.results.frames import as_numbers
from flows.results.one_column import ends_of, shares_of
from flows.tables.kinds.base import Entries, Kind, as_plain, check_decodable, checked_plain, one_of_values, shown
from flows.tables.kinds.dtypes import column_of, factorized, holds_times, is_date, is_duration, row_of

FEW_ROWS = 5  # a value in fewer is pooled, where `other` is given
PLAIN = str | bool | int | float | np.generic  # what categories are


class Codes(Kind):
    """One of a set of values, encoded as its place among them."""

    block = "codes"
    values: Any
    other: Any = None

    @property
    def called(self) -> tuple[str, ...]:
        return tuple("none" if value is None else str(value) for value in self.known)

    @property
    def known(self) -> tuple[Any, ...]:
        """All values, with the value of the pool."""
        values = tuple(self.values or ())
        return values if self.other is None or self.other in values else (*values, self.other)

    def is_learnt(self, field: Any) -> bool:
        return self.values is not None

    def encoded(self, name: str, field: Any, column: Any, what: str) -> Entries:
        return codes_of(name, column, self.known, self.other, what)

    def decoded(self, name: str, field: Any, values: np.ndarray, library: str) -> Any:
        codes, known = np.rint(values), self.known
        wrong = ~((codes == values) & (codes >= 0) & (codes < len(known)))
        check_decodable(name, values, wrong, f"a code, 0 to {len(known) - 1}")
        return taken(column_of(library, field.dtype or "object", list(known), name), codes.astype(np.int64))

    def parsed_as(self, dtype: Any) -> str:
        return sort_of_text(self.known)

    def width(self, field: Any) -> int:
        return len(self.known)

    def context(self, name: str, field: Any, column: Any, values: np.ndarray, what: str) -> np.ndarray:
        return (values[:, None] == np.arange(len(self.known))).astype(np.float64)

    def from_context(self, field: Any, context: np.ndarray) -> np.ndarray:
        return context.argmax(1).astype(float)

    def conditional(self, name: str, field: Any) -> conditionals.Kind:
        return conditionals.Category(len(self.known))

    def axis(self, field: Any, name: str) -> Column:
        return Column(name, low=-0.5, high=len(self.known) - 0.5, classes=len(self.known), called=self.called)


@dataclass(frozen=True, repr=False)
class Category(Codes):
    """One of a set of values without an order or a distance: text, numbers, True and False. A gap, None, may be one of them.

    Args:
        values: all values, in the order of their codes 0, 1, ...; None for the values of the frame that a schema is fitted to.
        other: the value into which values of fewer than 5 rows and unknown values are pooled, such as "rest"; None
            where an unknown value is an error.

    Errors:
        FlowsError: no values, doubled ones, or a value that is not text, a number, True, False or None.

    Example:
        >>> from flows import tables
        >>> tables.Category(("red", "green"), other="rest")
        Category(values=('red', 'green'), other='rest')
    """

    values: Sequence[Any] | None = None
    other: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "other", checked_plain("Category", self.other))
        object.__setattr__(self, "values", checked_values("Category", self.values))

    def learnt(self, name: str, field: Any, column: Any, what: str) -> Any:
        """A category with the values of a column in their order, then a gap, and the pool last."""
        if self.other is not None:
            _check_other(name, field, self.other, column, what)
        if self.values is not None:
            return field
        places, values = factorized_plain(name, column, what)
        counts = np.bincount(places + 1, minlength=len(values) + 1)
        gaps, least = counts[0], 1 if self.other is None else FEW_ROWS
        frequent = [value for value, count in zip(values, counts[1:], strict=True) if count >= least]
        known = in_order(frequent, field.dtype) + [None] * bool(gaps and gaps >= least)
        if self.other is not None and self.other not in known:
            known.append(self.other)
        return replace(field, kind=Category(tuple(known), self.other))

    def expected(self, name: str, field: Any, value: Any) -> tuple[str, str]:
        return one_of_values(self.known), (
            f"Correct it, or pool such values: schema.replace({{{name!r}: Category(other='rest')}}) before the model is fitted"
        )


@dataclass(frozen=True, repr=False)
class Ordinal(Codes):
    """One of a set of values with an order, but without a distance: grades, sizes, levels. It is drawn and plotted in this
    order, and has `cdf`, `quantile` and `interval` by it. A gap is not a value.

    Args:
        values: all values, the least first; None for the values of the frame that a schema is fitted to, in the order of a
            categorical dtype, or of numbers.

    Errors:
        FlowsError: no values, doubled ones, a gap, or a value that is not text, a number, True or False.

    Example:
        >>> from flows import tables
        >>> tables.Ordinal(["small", "medium", "large"])
        Ordinal(values=('small', 'medium', 'large'))
    """

    values: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        values = checked_values("Ordinal", self.values)
        if values is not None and None in values:
            raise FlowsError(
                "Ordinal: values has None, a gap, which has no place in an order; leave it out, and drop such rows"
            )
        object.__setattr__(self, "values", values)

    def learnt(self, name: str, field: Any, column: Any, what: str) -> Any:
        """A category with the values of a column, in their order."""
        if self.values is not None:
            return field
        values = in_order(factorized_plain(name, column, what)[1], field.dtype)
        if not values or (any(isinstance(value, str) for value in values) and not isinstance(field.dtype, dict)):
            got = f"text, such as {values[0]!r:.60}, whose order is not known" if values else "gaps alone"
            raise FlowsError(f"{what}: column {name!r} holds {got}; expected values, the least first: Ordinal([...])")
        return replace(field, kind=Ordinal(tuple(values)))

    def expected(self, name: str, field: Any, value: Any) -> tuple[str, str]:
        return one_of_values(self.known), (
            f"Correct it, or give it a place: schema.replace({{{name!r}: Ordinal([...])}}) before the model is fitted"
        )

    def answers(self, result: Any) -> "OrdinalAnswers":
        return OrdinalAnswers(result, len(self.known))


class OrdinalAnswers:
    """`cdf`, `quantile` and `interval` of one column of codes in their order, by the masses of all of them."""

    def __init__(self, result: Any, classes: int):
        self.result, self.classes = result, classes

    def shares(self, context: Any) -> np.ndarray:
        """P(X <= code), (rows, classes), for contexts (rows, *context); (1, classes) for one context or none."""
        codes, keywords, rows = np.arange(float(self.classes)), {}, 1
        if context is not None:
            contexts = np.reshape(context, (-1, *(as_context(self.result.context_dim) or ())))
            rows, keywords = len(contexts), {"context": np.repeat(contexts, self.classes, 0)}
        log_p = np.asarray(self.result.log_prob(np.tile(codes, rows)[:, None], **keywords), float)
        return np.cumsum(np.exp(log_p).reshape(rows, self.classes), 1)

    def cdf(self, x: np.ndarray, context: Any = None) -> np.ndarray:
        """P(X <= x) of codes (rows, 1)."""
        shares = self.shares(context)
        return np.broadcast_to(shares, (len(x), self.classes))[np.arange(len(x)), x[:, 0].astype(int)]

    def quantile(self, q: Any, context: Any = None) -> np.ndarray:
        """The least code with P(X <= code) >= q, of the shape of q; (rows, *q.shape) of contexts."""
        q, shares = shares_of(as_numbers(q, "q")), self.shares(context)
        ends = shares.reshape(len(shares), *[1] * q.ndim, self.classes)
        codes = np.minimum((ends < q[..., None]).sum(-1), self.classes - 1).astype(float)
        several = context is not None and np.ndim(context) > len(as_context(self.result.context_dim) or ())
        return codes if several else codes[0]

    def interval(self, share: float, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The codes between which a share lies at least, as little below as above."""
        both = self.quantile(ends_of(share), context)
        return both[..., 0], both[..., 1]


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


def checked_values(kind: str, entries: Any) -> tuple[Any, ...] | None:
    """Return values of a kind, each once; None for the values of a frame."""
    if entries is None:
        return None
    if isinstance(entries, str | Set | Mapping) or not hasattr(entries, "__iter__"):
        raise FlowsError(f"{kind}: values is {entries!r:.60}; expected a list of them, in the order of their codes")
    values = tuple(checked_plain(kind, value) for value in entries)
    if not values:
        raise FlowsError(f"{kind}: values is empty; expected one or more, or None for the values of the frame")
    if len(set(values)) < len(values):
        twice = next(value for i, value in enumerate(values) if value in values[:i])
        raise FlowsError(f"{kind}: values has {twice!r} twice; expected each once (to Python, True is 1 and 2.0 is 2)")
    return values


def sort_of_text(known: Sequence[Any]) -> str:
    """Return the sort of values that text of these values is read as: numbers, true or false, or text."""
    sorts = {type(value) for value in known if value is not None}
    if sorts == {bool}:
        return "true or false"
    return "numbers" if sorts and sorts <= {int, float} else "text"


def _check_other(name: str, field: Any, other: Any, column: Any, what: str) -> None:
    """Refuse a name of the pool that the dtype of the column, which draws have, does not hold."""
    library = "pandas" if column.implementation.is_pandas() else "polars"
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
    """Values sorted; values of a categorical dtype in its order."""
    if isinstance(dtype, dict):
        place = {value: i for i, value in enumerate(dtype["categories"])}
        return sorted(values, key=lambda value: place[value])
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def codes_of(name: str, column: Any, known: Sequence[Any], other: Any, what: str, constant: bool = False) -> Entries:
    """The codes of a column, the places of its values among the known ones; -1 for an unknown value, NaN for a gap, unless it
    has a code."""
    codes = {value: code for code, value in enumerate(known)}
    unknown = -1 if other is None else codes.get(other, -1)
    places, values = factorized_plain(name, column, what, constant)
    gap = codes.get(None, np.nan if other is None else unknown)
    table = np.array([*(codes.get(value, unknown) for value in values), gap], np.float64)
    entries = table[places]  # a gap has the place -1, the last
    return Entries(entries, entries < 0, np.isnan(entries))


def taken(few: Any, places: np.ndarray) -> Any:
    """The values of a native column at these places."""
    return few.take(places).reset_index(drop=True) if hasattr(few, "take") else few.gather(places)


def factorized_plain(name: str, column: Any, what: str, constant: bool = False) -> tuple[np.ndarray, list[Any]]:
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
            f"{what}: column {name!r} holds values that cannot be compared ({error}); give it the kind Ignored()"
        ) from None
    plain = [as_plain(value) if constant or isinstance(value, PLAIN | decimal.Decimal) else value for value in values]
    odd = next((i for i, value in enumerate(plain) if not isinstance(value, PLAIN)), None)
    if odd is not None:
        row, odd = int((places == odd).argmax()), plain[odd]
        raise TypeError(
            f"{what}: column {name!r}, {row_of(column, row)}, is {odd!r:.60}, a {type(odd).__name__}; expected text, a number, "
            "True or False. Turn such values into text, or give the column the kind Ignored()"
        )
    return places, plain
