"""The columns of a frame side by side: what is modelled, and what a model sees of a condition."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError
from flows.results.frames import Frame, listed
from flows.tables.fields import Field
from flows.training.options import one_of


class Rows(NamedTuple):
    """Rows of a frame as numbers.

    Attributes:
        x: (rows, d), the modelled columns: codes, angles, numbers. NaN where there is a gap, -1 for an unknown category.
        context: (rows, context_dim), what a model sees of the condition; None where there is none.
        outside: which rows have a value that is none of its column, (rows,).
        gaps: which rows have a gap where there is no value for that, (rows,).
    """

    x: np.ndarray
    context: np.ndarray | None
    outside: np.ndarray
    gaps: np.ndarray


Fields = Mapping[str, Field]


def encoded(fields: Fields, names: Sequence[str], constants: Sequence[str], table: Frame, what: str, errors: str) -> Rows:
    """These columns as numbers; constants are looked at, whether they are what they were."""
    one_of("raise", "coerce")(errors, "errors")
    x = np.empty((table.rows, len(names)))
    outside, gaps = np.zeros(table.rows, bool), np.zeros(table.rows, bool)
    for j, name in enumerate((*names, *constants)):
        entries = fields[name].checked(name, table, what, errors)
        outside |= entries.outside
        gaps |= entries.gaps
        if j < len(names):
            x[:, j] = entries.values
    return Rows(x, None, outside, gaps)


def numbers_of(array: Any, names: Sequence[str]) -> np.ndarray:
    """Rows to decode, of a column for each name."""
    try:
        values = np.asarray(array, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"decode: the array is {array!r:.60} ({error}); expected numbers") from None
    if values.ndim != 2 or values.shape[1] != len(names):
        raise FlowsError(f"decode: the array has shape {values.shape}; expected (rows, {len(names)}), of {listed(names)}")
    return values


def context(fields: Fields, names: Sequence[str], table: Frame, values: np.ndarray, what: str) -> np.ndarray:
    """Return what a model sees of these columns, which are encoded as `values`."""
    of = [(name, fields[name], table.column(name), values[:, j]) for j, name in enumerate(names)]
    return np.concatenate([field.kind.context(name, field, *column, what) for name, field, *column in of], 1)


def pieces(rows: Rows, of_condition: Rows, contexts: Callable[[slice], np.ndarray], size: int) -> Iterator[Rows]:
    """Rows with their contexts, so many at a time, as the codes of a condition are one-hot in these.

    Args:
        of_condition: its columns as they are encoded.
        contexts: of some of the rows, makes what a model sees of them.
    """
    outside, gaps = rows.outside | of_condition.outside, rows.gaps | of_condition.gaps
    for start in range(0, len(outside), size):
        part = slice(start, start + size)
        yield Rows(rows.x[part], contexts(part), outside[part], gaps[part])
