"""Tables with names: which columns a model was fitted to, rows put in their order, and draws as such a table again."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError, as_array, native

SHOWN = 5  # columns that an error names


_offsets: ContextVar[Mapping[str, float]] = ContextVar("offsets", default=MappingProxyType({}))


@contextmanager
def less_offsets(offsets: Mapping[str, float]) -> Iterator[None]:
    """Within it columns of these names are less an offset, which warnings of their values add."""
    token = _offsets.set(offsets)
    try:
        yield
    finally:
        _offsets.reset(token)


def offset_of(name: str) -> float:
    """Return what the values of a column lack where they are told."""
    return _offsets.get().get(name, 0.0)


class Header(NamedTuple):
    """The labels of the columns of a table, in order, and the library it was made with, "pandas" or "polars"."""

    labels: tuple[Any, ...]
    library: str

    @property
    def names(self) -> tuple[str, ...]:
        """The labels as text, by which columns are told apart."""
        return tuple(map(str, self.labels))

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {"labels": list(map(_described, self.labels)), "library": self.library}


def _described(label: Any) -> Any:
    """A label of a column; of several levels a list."""
    if isinstance(label, tuple):
        return list(map(_described, label))
    return int(label) if isinstance(label, int | np.integer) and not isinstance(label, bool) else str(label)


def header_of(x: Any) -> Header | None:
    """Return the header of a table of pandas or polars; None for what is no table."""
    labels = getattr(x, "columns", None) if hasattr(x, "to_numpy") else None
    if labels is None:
        return None
    return Header(tuple(labels), type(x).__module__.partition(".")[0])


def named_apart(x: Any, what: str) -> Header | None:
    """The columns of a table that is fitted to, whose names, as text, must be unlike each other."""
    header = header_of(x)
    if header is not None and (twice := _twice(header.names)):
        raise FlowsError(f"{what} has columns of one name, {_listed(twice)}; rename them, so that they can be told apart")
    return header


def as_numbers(x: Any, what: str) -> Any:
    """A table as an array of numbers, whatever its columns hold them in; anything else is returned as it is."""
    header = header_of(x)
    if header is None:
        if isinstance(x, dict) or (hasattr(x, "collect") and not hasattr(x, "to_numpy")):
            raise TypeError(f"{what} is a {type(x).__name__}; expected rows of numbers or a table (a lazy one: x.collect())")
        return x.to_numpy() if hasattr(x, "to_numpy") else x
    columns = [np.asarray(_column(x, j).to_numpy()) for j in range(len(header.names))]
    wrong = [
        (name, column.dtype if column.ndim == 1 else f"arrays of shape {column.shape[1:]}")
        for name, column in zip(header.names, columns, strict=True)
        if column.dtype.kind not in "iufb" or column.ndim > 1
    ]
    if wrong:
        described = ", ".join(f"{name!r} holds {dtype}" for name, dtype in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise TypeError(
            f"{what}: column{'s' * (len(wrong) > 1)} {described}{more}; expected numbers without missing values. Leave them "
            "out, encode them, or drop or fill what is missing"
        )
    # Column by column, as a table of several dtypes would become one of objects.
    return np.stack(columns, 1) if columns else x.to_numpy()


def in_order(x: Any, fitted: Header | None, what: str) -> Any:
    """The numbers of a table whose columns are put in the order of those that a model was fitted to; arrays as they are."""
    header, numbers = header_of(x), as_numbers(x, what)
    if header is None and fitted is not None and hasattr(x, "to_numpy"):
        raise FlowsError(
            f"{what} is a {type(x).__name__}, whose order cannot be checked; expected a table with the columns "
            f"{_listed(fitted.names)} (of one row of it, table.iloc[[0]]), or an array"
        )
    if header is None or fitted is None or header.names == fitted.names:
        return numbers
    there = set(header.names)
    missing, foreign = [name for name in fitted.names if name not in there], sorted(there - set(fitted.names))
    faults = [("lacks", missing), ("has besides", foreign), ("has twice", _twice(header.names))]
    if any(names for _, names in faults):
        said = "; it ".join(f"{verb} {_listed(names)}" for verb, names in faults if names)
        raise FlowsError(f"{what} {said}. Expected the columns that the model was fitted to: {_listed(fitted.names)}")
    return numbers[:, [header.names.index(name) for name in fitted.names]]


def framed(rows: Any, header: Header | None) -> Any:
    """Rows as a table of such columns; an array where a model was fitted to one."""
    if header is None:
        return rows
    try:
        library: Any = importlib.import_module(header.library if header.library in ("pandas", "polars") else "pandas")
    except ImportError:
        raise FlowsError(
            f"the model was fitted to a table of {header.library}, which is not installed; install it, or take an array: "
            "result.sample(rng, result.params, n)"
        ) from None
    array = np.asarray(rows)
    if header.library == "polars":
        return library.DataFrame(array, schema=list(header.names))
    return library.DataFrame(array, columns=list(header.labels))


def numbers_of(x: Any, what: str) -> np.ndarray:
    """Rows as an array of NumPy that keeps its digits."""
    if np.ma.is_masked(x):
        raise FlowsError(f"{what} has masked values; drop these rows, or fill them")
    x = as_numbers(x, what)
    with np.errstate(over="ignore"):
        # Refuses ragged rows and dtypes that are not real numbers; whole numbers, however large, are standardised in float64.
        if not (isinstance(x, np.ndarray) and x.dtype.kind in "iu"):
            as_array(x, what)
    return native(np.asarray(x))


def _column(x: Any, j: int) -> Any:
    return x.iloc[:, j] if hasattr(x, "iloc") else x[:, j]


def _twice(names: tuple[str, ...]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
