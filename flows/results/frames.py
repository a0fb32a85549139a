"""Tables with names: which columns a model was fitted to, rows put in their order, and draws as such a table again."""

import importlib
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError
from flows.core.inputs import as_array, native

SHOWN = 5  # columns that an error names


class Columns(NamedTuple):
    """The names of the columns of a table, in order, and the library it was made with, "pandas" or "polars"."""

    names: tuple[str, ...]
    library: str


def columns_of(x: Any) -> Columns | None:
    """Those of a table of pandas or polars; None for what is no table."""
    names = getattr(x, "columns", None)
    if names is None or not hasattr(x, "to_numpy"):
        return None
    return Columns(tuple(str(name) for name in names), type(x).__module__.partition(".")[0])


def as_numbers(x: Any, what: str) -> Any:
    """A table as an array of numbers, whatever its columns hold them in; anything else is returned as it is."""
    own = columns_of(x)
    if own is None:
        return x.to_numpy() if hasattr(x, "to_numpy") else x
    columns = [np.asarray(_column(x, j).to_numpy()) for j in range(len(own.names))]
    wrong = [(name, each.dtype) for name, each in zip(own.names, columns, strict=True) if each.dtype.kind not in "iufb"]
    if wrong:
        told = ", ".join(f"{name!r} holds {dtype}" for name, dtype in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise TypeError(
            f"{what}: column{'s' * (len(wrong) > 1)} {told}{more}; expected numbers without missing values. Leave them out, "
            "encode them, or drop or fill what is missing"
        )
    # Column by column, as a table of several dtypes would become one of objects.
    return np.stack(columns, 1) if columns else x.to_numpy()


def in_order(x: Any, fitted: Columns | None, what: str) -> Any:
    """The numbers of a table whose columns are put in the order of those that a model was fitted to; arrays as they are."""
    own, numbers = columns_of(x), as_numbers(x, what)
    if own is None or fitted is None or own.names == fitted.names:
        return numbers
    there = set(own.names)
    missing, foreign = [each for each in fitted.names if each not in there], sorted(there - set(fitted.names))
    twice = sorted({each for each in own.names if own.names.count(each) > 1})
    told = [("lacks", missing), ("has besides", foreign), ("has twice", twice)]
    if any(names for _, names in told):
        said = "; it ".join(f"{verb} {_listed(names)}" for verb, names in told if names)
        raise FlowsError(f"{what} {said}. Expected the columns that the model was fitted to: {_listed(fitted.names)}")
    return numbers[:, [own.names.index(name) for name in fitted.names]]


def framed(rows: Any, columns: Columns | None) -> Any:
    """Rows as a table of such columns; an array where a model was fitted to one."""
    if columns is None:
        return rows
    try:
        library: Any = importlib.import_module(columns.library if columns.library in ("pandas", "polars") else "pandas")
    except ImportError:
        raise FlowsError(
            f"the model was fitted to a table of {columns.library}, which is not installed; install it, or take an array: "
            "result.sample(rng, result.params, n)"
        ) from None
    array = np.asarray(rows)
    if columns.library == "polars":
        return library.DataFrame(array, schema=list(columns.names))
    return library.DataFrame(array, columns=list(columns.names))


def numbers_of(x: Any, what: str) -> np.ndarray:
    """Rows as an array of NumPy that keeps its digits."""
    if np.ma.is_masked(x):
        raise FlowsError(f"{what} has masked values; drop these rows, or fill them")
    x = as_numbers(x, what)
    with np.errstate(over="ignore"):
        # Refuses ragged rows and dtypes that are not real numbers; whole numbers, however large, are standardised in float64.
        as_array(x.astype(float) if getattr(x, "dtype", np.dtype(float)).kind in "iu" else x, what)
    return native(np.asarray(x))


def _column(x: Any, j: int) -> Any:
    return x.iloc[:, j] if hasattr(x, "iloc") else x[:, j]


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
