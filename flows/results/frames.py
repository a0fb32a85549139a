"""Frames, of pandas, polars and any other library that narwhals knows: their columns, rows in an order of columns, and draws
as a frame again.

Frames of pandas and polars are read as they are. Others become frames of pandas, and results become frames of their library
again. A lazy frame, such as a relation of DuckDB, is collected first, and a warning says so.
"""

import datetime as dt
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError, as_array, native, warn_user

SHOWN = 5  # columns that an error names
LIBRARIES = "pandas", "polars", "pyarrow", "modin"  # to which results return

_offsets: ContextVar[Mapping[str, float]] = ContextVar("offsets", default=MappingProxyType({}))


@contextmanager
def less_offsets(offsets: Mapping[str, float]) -> Iterator[None]:
    """Declare offsets that the columns of these names lack within the context; warnings add them to values."""
    token = _offsets.set(offsets)
    try:
        yield
    finally:
        _offsets.reset(token)


def offset_of(name: str) -> float:
    """Return the offset that the values of a column lack, for messages."""
    return _offsets.get().get(name, 0.0)


class Header(NamedTuple):
    """The labels of the columns of a frame, in order, and the library it was made with, such as "pandas"."""

    labels: tuple[Any, ...]
    library: str

    @property
    def names(self) -> tuple[str, ...]:
        """The labels as text, which identify columns."""
        return tuple(map(str, self.labels))

    def numbers(self, x: Any, what: str) -> Any:
        """Return rows as numbers, in the order of these columns."""
        return in_order(x, self, what)

    def natural(self, rows: Any) -> Any:
        """Return rows as a frame."""
        array = np.asarray(rows)
        if self.library == "polars":
            return module_of("polars").DataFrame(array, schema=list(self.names))
        return returned(module_of("pandas").DataFrame(array, columns=list(self.labels)), self.library)

    def entries(self, count: int) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self.names

    def of(self, places: Sequence[int]) -> "Header":
        """Return the header of some of these columns."""
        return Header(tuple(self.labels[i] for i in places), self.library)

    def described(self) -> dict[str, Any]:
        """Return the header for JSON."""
        return {"labels": list(map(_described, self.labels)), "library": self.library}


def _described(label: Any) -> Any:
    """Return the label of a column for JSON; a list for several levels."""
    if isinstance(label, tuple):
        return list(map(_described, label))
    return int(label) if isinstance(label, int | np.integer) and not isinstance(label, bool) else str(label)


def library_of(x: Any) -> str:
    """Return the name of the library of an object."""
    return type(x).__module__.partition(".")[0]


def collected(x: Any, what: str) -> Any:
    """Return a lazy frame with its rows, and warn; anything else as it is."""
    if hasattr(x, "to_numpy") or library_of(x) == "pyarrow" or not (hasattr(type(x), "columns") or hasattr(x, "collect")):
        return x
    import narwhals as nw  # 40 ms, which only frames need

    frame = nw.from_native(x, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        x = frame.collect().to_native()
        warn_user(f"{what} is lazy, of {frame.implementation.value}: its {len(x):,} rows were collected")
    return x


def plain(x: Any) -> Any:
    """Return a frame of another library as a frame of pandas; anything else as it is."""
    if library_of(x) in ("pandas", "polars") or header_of(x) is None:
        return x
    if library_of(x) == "pyarrow":
        return x.to_pandas(types_mapper=module_of("pandas").ArrowDtype)
    import narwhals as nw

    frame = nw.from_native(x, pass_through=True)
    return frame.to_pandas() if isinstance(frame, nw.DataFrame) else x


def returned(frame: Any, library: str) -> Any:
    """Return a frame of pandas as a frame of a library that results return to; `plain` went the other way."""
    if library == "pyarrow":
        return module_of("pyarrow").Table.from_pandas(frame, preserve_index=False)
    return module_of("modin.pandas").DataFrame(frame) if library == "modin" else frame


def module_of(name: str) -> Any:
    """Return the module of a library that frames are made with."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FlowsError(
            f"the frame is to be of {name}, which is not installed; install it. The JSON of a schema can name another library, "
            "with its dtypes; result.sample(rng, result.params, n) returns an array"
        ) from None


def header_of(x: Any) -> Header | None:
    """Return the header of a frame; None for what is not a frame, and for a lazy frame."""
    library = library_of(x)
    name = "column_names" if library == "pyarrow" else "columns" if hasattr(x, "to_numpy") else ""
    labels = getattr(x, name, None)
    return None if labels is None else Header(tuple(labels), library if library in LIBRARIES else "pandas")


def named_apart(x: Any, what: str) -> Header | None:
    """Return the header of a table for a fit, and refuse equal names, as text."""
    header = header_of(x)
    if header is not None and (twice := _twice(header.names)):
        raise FlowsError(f"{what} has columns of one name, {listed(twice)}; rename them, so that they can be told apart")
    return header


def as_numbers(x: Any, what: str) -> Any:
    """Return a frame as an array of numbers, whatever the dtypes of its columns; anything else as it is."""
    x = plain(collected(x, what))
    header = header_of(x)
    if header is None:
        if isinstance(x, dict):
            raise TypeError(f"{what} is a {type(x).__name__}; expected rows of numbers or a frame")
        return x.to_numpy() if hasattr(x, "to_numpy") else x
    columns = [np.asarray(column_at(x, j).to_numpy()) for j in range(len(header.names))]
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
            "out, encode them, drop or fill what is missing, or fit by flows.tables.fit, which takes text, dates and gaps"
        )
    # Column by column, as a table of several dtypes would become one of objects.
    return np.stack(columns, 1) if columns else x.to_numpy()


def in_order(x: Any, fitted: Header | None, what: str) -> Any:
    """Return the numbers of a table, its columns in the order that a model was fitted to; arrays as they are."""
    x = collected(x, what)
    header, numbers = header_of(x), as_numbers(x, what)
    if header is None and fitted is not None and hasattr(x, "to_numpy"):
        raise FlowsError(
            f"{what} is a {type(x).__name__}, whose order cannot be checked; expected a table with the columns "
            f"{listed(fitted.names)} (of one row of it, table.iloc[[0]]), or an array"
        )
    if header is None or fitted is None or header.names == fitted.names:
        return numbers
    there = set(header.names)
    missing, foreign = [name for name in fitted.names if name not in there], sorted(there - set(fitted.names))
    if faults := _listed_faults(("lacks", missing), ("also has", foreign), ("has twice", _twice(header.names))):
        raise FlowsError(f"{what} {faults}. Expected the columns that the model was fitted to: {listed(fitted.names)}")
    return numbers[:, [header.names.index(name) for name in fitted.names]]


def numbers_of(x: Any, what: str) -> np.ndarray:
    """Return rows as an array of NumPy that keeps all digits."""
    if np.ma.is_masked(x):
        raise FlowsError(f"{what} has masked values; drop these rows, or fill them")
    x = as_numbers(x, what)
    with np.errstate(over="ignore"):
        # Refuses ragged rows and dtypes that are not real numbers; whole numbers, however large, are standardised in float64.
        if not (isinstance(x, np.ndarray) and x.dtype.kind in "iu"):
            as_array(x, what)
    return native(np.asarray(x))


class Frame(NamedTuple):
    """A frame that was checked: its rows, of pandas or polars, its header, the places of its columns by their names, as text,
    and its length."""

    native: Any
    header: Header
    places: dict[str, int]
    rows: int

    def column(self, name: str) -> Any:
        """Return a column as one of narwhals."""
        import narwhals as nw

        return nw.from_native(column_at(self.native, self.places[name]), series_only=True)

    def sliced(self, part: slice) -> "Frame":
        """Return some of its rows."""
        native = self.native.iloc[part] if hasattr(self.native, "iloc") else self.native[part]
        return self._replace(native=native, rows=len(native))

    def taken(self, places: np.ndarray) -> "Frame":
        """Return the rows at these places."""
        return self._replace(native=taken_rows(self.native, places), rows=len(places))

    def without(self, *names: str) -> "Frame":
        """Return all columns but some; they stay at their places."""
        return self._replace(places={other: place for other, place in self.places.items() if other not in names})


def looked_at(frame: Any, what: str) -> Frame:
    """Return a frame that can be read, a checked frame as it is; refuse anything else."""
    if isinstance(frame, Frame):
        return frame
    frame = collected(frame, f"{what}: the frame")
    header, rows = header_of(frame), plain(frame)
    if header is None or header_of(rows) is None or library_of(rows) not in ("pandas", "polars"):
        if isinstance(frame, np.ndarray):
            got, remedy = "an array", "; give its columns names: pandas.DataFrame(array, columns=[...])"
        else:
            got, remedy = f"a {type(frame).__name__}", ""
        raise TypeError(
            f"{what}: {got} was given; expected a frame of pandas or polars, or of another library that narwhals knows{remedy}"
        )
    named_apart(frame, f"{what}: the frame")
    if not len(rows):
        raise FlowsError(f"{what}: the frame has no rows; expected one or more")
    return Frame(rows, header, {name: j for j, name in enumerate(header.names)}, len(rows))


def check_columns(frame: Frame, expected: Iterable[str], optional: Iterable[str], what: str) -> None:
    """Refuse a frame that lacks columns, or has others."""
    expected, optional = tuple(expected), set(optional)
    missing = [name for name in expected if name not in frame.places]
    foreign = [name for name in frame.places if name not in optional and name not in expected]
    if faults := _listed_faults(("lacks", missing), ("also has", foreign)):
        remedy = f". Drop the others: frame[{list(expected)!r:.200}]" if foreign and not missing else ""
        raise FlowsError(f"{what}: the frame {faults}; expected the columns {listed(expected)}, in any order{remedy}")


def frame_of(library: str, labels: Sequence[Any], columns: Sequence[Any], rows: int) -> Any:
    """Return columns of a library as a frame of it."""
    if library == "polars":
        named = {str(label): column for label, column in zip(labels, columns, strict=True)}
        return module_of("polars").DataFrame(named)
    pandas = module_of("pandas")
    frame = pandas.DataFrame(dict(enumerate(columns)), index=pandas.RangeIndex(rows))
    frame.columns = pandas.Index(list(labels), dtype=object if not all(isinstance(x, str) for x in labels) else None)
    return returned(frame, library)


def one_row(library: str, values: Mapping[Any, Any]) -> Any:
    """Return a frame of one row, of values by name; dates of NumPy and of Python as times, which all libraries have."""
    row = dict[str, list[Any]]()
    for name, value in values.items():
        if isinstance(value, np.datetime64):
            value = value.astype("M8[us]").item()
        elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            value = dt.datetime(value.year, value.month, value.day)
        row[str(name)] = [value]
    return module_of("polars" if library == "polars" else "pandas").DataFrame(row)


def taken_rows(frame: Any, places: np.ndarray) -> Any:
    """Return the rows of a frame of pandas or polars at these places, or the rows of a mask."""
    if hasattr(frame, "iloc"):
        return frame.iloc[places].reset_index(drop=True)
    return frame.filter(places) if places.dtype == bool else frame[places]


def column_at(frame: Any, place: int | list[int]) -> Any:
    """Return a column of a frame of pandas or polars; of several places a frame."""
    return frame.iloc[:, place] if hasattr(frame, "iloc") else frame[:, place]


def without_column(x: Any, name: str, what: str) -> tuple[Any, Any]:
    """Return a frame without a column, and the column."""
    x, header = plain(x), header_of(x)
    if header is None or name not in header.names:
        there = listed(header.names if header else ())
        raise FlowsError(f"{what} is {name!r:.60}; expected a value for each row, or a column of data, which has {there}")
    rest = [j for j, other in enumerate(header.names) if other != name]
    return returned(column_at(x, rest), header.library), column_at(x, header.names.index(name))


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Let the errors of a frame begin with what it is."""
    try:
        yield
    except (FlowsError, TypeError) as error:
        error.args = (f"{what}: {error}",)
        raise


def listed(names: Iterable[Any]) -> str:
    """Return names for an error, the first few."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more if names else "none"


def _listed_faults(*faults: tuple[str, list[str]]) -> str:
    """Return the faults of the columns of a frame, for an error; "" without faults."""
    return "; it ".join(f"{verb} {listed(names)}" for verb, names in faults if names)


def shortened_name(name: str, length: int = 40) -> str:
    """Return a name of a column, cut where it is long."""
    return name if len(name) <= length else f"{name[: length - 3]}..."


def _twice(names: tuple[str, ...]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
