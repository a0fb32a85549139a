"""Categories with an order: grades, sizes, levels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flows.core import FlowsError
from flows.results.frames import as_numbers
from flows.results.one_column import ends_of, shares_of
from flows.tables.dtypes import gaps_of
from flows.tables.kinds.base import Entries, one_of_values
from flows.tables.kinds.category import Codes, checked_values, factorized_plain, in_order


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

    def encoded(self, name: str, field: Any, column: Any, what: str) -> Entries:
        codes, outside, _ = super().encoded(name, field, column, what)
        gaps = gaps_of(column)
        return Entries(np.where(gaps, np.nan, codes), outside & ~gaps, gaps)

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
            contexts = np.atleast_2d(context)
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
        return codes if np.ndim(context) > 1 else codes[0]

    def interval(self, share: float, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The codes between which a share lies at least, as little below as above."""
        both = self.quantile(ends_of(share), context)
        return both[..., 0], both[..., 1]
