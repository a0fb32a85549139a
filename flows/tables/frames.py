"""Frames of pandas and polars: which columns they have, and one column at a time, by position, as names need not be text."""

import datetime as dt
import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np

from flows.core import FlowsError
from flows.results.frames import SHOWN, Header, header_of

LIBRARIES = ("pandas", "polars")


class Frame(NamedTuple):
    """A frame that was looked at: what it is of, the places of its columns by their names, as text, and its length."""

    native: Any
    header: Header
    places: dict[str, int]
    rows: int

    def column(self, name: str) -> Any:
        """A column as one of narwhals."""
        place = self.places[name]
        native = self.native.iloc[:, place] if self.header.library == "pandas" else self.native[:, place]
        return nw.from_native(native, series_only=True)

    def sliced(self, part: slice) -> "Frame":
        """Some of its rows."""
        native = self.native.iloc[part] if self.header.library == "pandas" else self.native[part]
        return self._replace(native=native, rows=len(native))


def looked_at(frame: Any, what: str) -> Frame:
    """A frame that can be read; anything else is refused."""
    header = header_of(frame)
    if header is None or header.library not in LIBRARIES:
        lazy = hasattr(frame, "collect")
        remedy = "; read it first: frame.collect()" if lazy else ""
        if isinstance(frame, np.ndarray):
            remedy = "; give its columns names: pandas.DataFrame(array, columns=[...])"
        kind = type(frame)
        name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}" if lazy or header else kind.__name__
        article = "an array" if isinstance(frame, np.ndarray) else f"a {name}"
        raise TypeError(f"{what}: {article} was given; expected a frame of pandas or polars{remedy}")
    names = header.names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FlowsError(
            f"{what}: the frame has columns of one name, {listed(twice)}; rename them, so that they can be told apart"
        )
    if not len(frame):
        raise FlowsError(f"{what}: the frame has no rows; expected one or more")
    return Frame(frame, header, {name: j for j, name in enumerate(names)}, len(frame))


def check_columns(frame: Frame, expected: Iterable[str], optional: Iterable[str], what: str) -> None:
    """Refuse a frame that lacks columns, or has others."""
    expected, optional = tuple(expected), set(optional)
    missing = [name for name in expected if name not in frame.places]
    besides = [name for name in frame.places if name not in optional and name not in expected]
    faults = [("lacks", missing), ("has besides", besides)]
    if any(names for _, names in faults):
        said = "; it ".join(f"{verb} {listed(names)}" for verb, names in faults if names)
        remedy = f". Drop what is besides: frame[{list(expected)!r:.200}]" if besides and not missing else ""
        raise FlowsError(f"{what}: the frame {said}; expected the columns {listed(expected)}, in any order{remedy}")


def listed(names: Sequence[Any]) -> str:
    """Names for an error, the first few."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more if names else "none"


def library_of(name: str) -> Any:
    """The module of a library that frames are made with."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FlowsError(
            f'the schema is of a frame of {name}, which is not installed; install it, or change "library" in its JSON to '
            f"{'pandas' if name == 'polars' else 'polars'!r}, and the dtypes to those that it has"
        ) from None


def framed(library: str, labels: Sequence[Any], columns: Sequence[Any], rows: int) -> Any:
    """Native columns as a frame."""
    module = library_of(library)
    if library == "polars":
        return module.DataFrame({str(label): column for label, column in zip(labels, columns, strict=True)})
    frame = module.DataFrame(dict(enumerate(columns)), index=module.RangeIndex(rows))
    frame.columns = module.Index(list(labels), dtype=object if not all(isinstance(x, str) for x in labels) else None)
    return frame


def one_row(library: str, values: Mapping[Any, Any]) -> Any:
    """A frame of one row, of values by name; dates of NumPy and of Python as times, which all libraries have."""
    row = dict[str, list[Any]]()
    for name, value in values.items():
        if isinstance(value, np.datetime64):
            value = value.astype("M8[us]").item()
        elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            value = dt.datetime(value.year, value.month, value.day)
        row[str(name)] = [value]
    return library_of(library).DataFrame(row)


def taken_rows(frame: Any, places: np.ndarray) -> Any:
    """The rows of a native frame at these places, or those of a mask."""
    if hasattr(frame, "iloc"):
        return frame.iloc[places].reset_index(drop=True)
    return frame.filter(places) if places.dtype == bool else frame[places]


def zone_of(column: Any) -> Any:
    """The time zone of a column of times; None where it has none. narwhals does not know all of them in pandas."""
    dtype = column.to_native().dtype
    return (
        getattr(dtype, "tz", None)
        or getattr(dtype, "time_zone", None)
        or getattr(getattr(dtype, "pyarrow_dtype", None), "tz", None)
    )


def holds_times(column: Any) -> bool:
    """Tell whether a column is of dates or times."""
    return zone_of(column) is not None or str(column.dtype).startswith("Date")


def without_zone(column: Any, zone: str | None = None) -> tuple[Any, Any]:
    """Times with a zone as such without: by Universal Time, and by the clock of a zone, their own by default."""
    if not column.implementation.is_pandas():
        local = column if zone is None else column.dt.convert_time_zone(zone)
        return column.dt.convert_time_zone("UTC").dt.replace_time_zone(None), local.dt.replace_time_zone(None)
    native = column.to_native()
    if (arrow := getattr(native.dtype, "pyarrow_dtype", None)) is not None:
        native = native.astype(library_of("pandas").DatetimeTZDtype(arrow.unit, arrow.tz))
    local = native if zone is None else native.dt.tz_convert(zone)
    both = native.dt.tz_convert("UTC").dt.tz_localize(None), local.dt.tz_localize(None)
    return nw.from_native(both[0], series_only=True), nw.from_native(both[1], series_only=True)


def gaps_of(column: Any) -> np.ndarray:
    """Tell which rows have no value: null, or NaN."""
    gaps = column.is_null().to_numpy()
    if column.dtype.is_float():
        gaps = gaps | column.is_nan().fill_null(True).to_numpy()
    return np.asarray(gaps, bool)


def factorized(column: Any) -> tuple[np.ndarray, list[Any]]:
    """For each row the place of its value among those that occur, -1 for a gap; and these values, as those of Python."""
    native = column.to_native()
    if column.implementation.is_pandas():
        places, values = library_of("pandas").factorize(native)
        return np.asarray(places, np.int64), values.tolist()
    if str(native.dtype) == "Object":
        raise TypeError("objects of Python in polars")
    values = native.unique()
    known = values.filter(values.is_not_null() & values.is_not_nan()) if native.dtype.is_float() else values.drop_nulls()
    if not len(known):
        return np.full(len(native), -1), []
    places = native.replace_strict(known, np.arange(len(known)), default=-1)
    return places.to_numpy().astype(np.int64), known.to_list()


def without(frame: Frame, name: str) -> Any:
    """All columns of a frame but one."""
    others = [place for other, place in frame.places.items() if other != name]
    return frame.native.iloc[:, others] if frame.header.library == "pandas" else frame.native[:, others]


def shortened_name(name: str, length: int = 40) -> str:
    """A name of a column, cut where it is long."""
    return name if len(name) <= length else f"{name[: length - 3]}..."
