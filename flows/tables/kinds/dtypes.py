"""Columns of narwhals: their values, gaps and times, their dtypes as text, which JSON has, and columns of such a dtype."""

import ast
import decimal
import importlib
import re
from typing import Any

import narwhals as nw
import numpy as np

from flows.core import FlowsError
from flows.results.frames import module_of

Dtype = str | dict[str, Any]  # of a categorical dtype also its categories

POLARS = re.compile(r"(U?Int\d+|Float\d+|String|Boolean|Date|Datetime|Duration|Decimal|Categorical|Object|Null)(?:\((.*)\))?")
ZONE = re.compile(r"datetime64\[\w+, (.+)\]|arrow\[timestamp\[\w+, tz=(.+)\]\]|.*time_zone='(.+)'\)")
DECIMAL = re.compile(r"(decimal\d+)\((\d+), (-?\d+)\)")
WHOLE = re.compile(r"(u?)int(8|16|32|64)", re.IGNORECASE)
LONG_INTEGERS = ("Int128", "UInt128")  # which NumPy does not have
NAMES = 2**60  # the span of whole numbers, from which they are not counts


def described(column: Any) -> Dtype:
    """The dtype of a column of narwhals."""
    native = column.to_native()
    return _described_pandas(native.dtype) if column.implementation.is_pandas() else _described_polars(native.dtype)


def _described_pandas(dtype: Any) -> Dtype:
    name = type(dtype).__name__
    if name == "CategoricalDtype":
        categories = dtype.categories
        return {"categories": categories.tolist(), "of": _described_pandas(categories.dtype), "ordered": bool(dtype.ordered)}
    if name == "StringDtype":
        return "str" if dtype.na_value is np.nan else f"string[{dtype.storage}]"
    if name == "ArrowDtype":
        return f"arrow[{dtype.pyarrow_dtype}]"
    return str(dtype)


def _described_polars(dtype: Any) -> Dtype:
    if type(dtype).__name__ == "Enum":
        return {"categories": dtype.categories.to_list(), "of": "Enum"}
    if type(dtype).__name__ == "Categorical":
        return "Categorical"
    return str(dtype)


def whole_range(dtype: Dtype) -> tuple[int, int] | None:
    """The least and the largest number of a dtype of whole numbers; None for any other."""
    match = WHOLE.search(dtype) if isinstance(dtype, str) and not dtype.startswith(("date", "time")) else None
    if match is None:
        return None
    info = np.iinfo(f"{match[1].lower()}int{match[2]}")
    return max(int(info.min), -(2**63)), min(int(info.max), 2**63 - 1)


def zone_in(dtype: Dtype | None) -> str | None:
    """The time zone of a dtype of times; None where it has none."""
    match = ZONE.fullmatch(dtype) if isinstance(dtype, str) else None
    return next(filter(None, match.groups())) if match else None


def is_single(dtype: Dtype) -> bool:
    """Tell whether a dtype holds numbers of float32."""
    return isinstance(dtype, str) and dtype.lower() in ("float32", "arrow[float]")


def is_date(dtype: Dtype) -> bool:
    """Tell whether a dtype holds dates or times."""
    return isinstance(dtype, str) and dtype.lower().startswith(("date", "arrow[date", "arrow[timestamp"))


def is_text(dtype: Dtype) -> bool:
    """Tell whether a dtype holds text; one of objects may."""
    return isinstance(dtype, str) and dtype.lower().startswith(("str", "object", "arrow[string", "arrow[large_string"))


def is_duration(dtype: Dtype) -> bool:
    """Tell whether a dtype holds durations."""
    return isinstance(dtype, str) and dtype.lower().startswith(("timedelta", "duration", "arrow[duration"))


def holds_times(column: Any) -> bool:
    """Tell whether a column is of dates or times."""
    return is_date(described(column))


def without_zone(column: Any, zone: str | None = None) -> tuple[Any, Any]:
    """Times with a zone as times without: by Universal Time, and by the clock of a zone, by default the zone of the column."""
    if not column.implementation.is_pandas():
        local = column if zone is None else column.dt.convert_time_zone(zone)
        return column.dt.convert_time_zone("UTC").dt.replace_time_zone(None), local.dt.replace_time_zone(None)
    native = column.to_native()
    if (arrow := getattr(native.dtype, "pyarrow_dtype", None)) is not None:
        native = native.astype(module_of("pandas").DatetimeTZDtype(arrow.unit, arrow.tz))
    local = native if zone is None else native.dt.tz_convert(zone)
    both = native.dt.tz_convert("UTC").dt.tz_localize(None), local.dt.tz_localize(None)
    return nw.from_native(both[0], series_only=True), nw.from_native(both[1], series_only=True)


def combined(column: Any, other: Any, mask: np.ndarray) -> Any:
    """Return a native column with the values of another where a mask is True, of the dtype of the other where its own does not
    hold them; with gaps there, if the other is None."""
    if hasattr(column, "iloc"):
        if other is None:
            return column.where(~mask)
        other = other.set_axis(column.index) if hasattr(other, "iloc") else type(column)(other.to_list(), column.index)
        try:
            return column.where(~mask, other)
        except (TypeError, ValueError):
            return column.astype(object).where(~mask, other).astype(other.dtype)
    pl = module_of("polars")
    if other is None:
        return column.zip_with(pl.Series(~mask), pl.Series(column.name, [None] * len(column), column.dtype))
    other = pl.Series(column.name, other if isinstance(other, pl.Series) else other.to_list(), strict=False)
    some = other.filter(mask)
    if column.dtype.is_integer() and some.dtype.is_float() and (some != some.round()).any():
        column = column.cast(some.dtype)
    try:
        return column.zip_with(pl.Series(~mask), other.cast(column.dtype))
    except pl.exceptions.PolarsError:  # an integer or a list of values that is too narrow, or gaps alone
        return column.cast(other.dtype).zip_with(pl.Series(~mask), other)


def gaps_of(column: Any) -> np.ndarray:
    """Tell which rows have no value: null, or NaN."""
    gaps = column.is_null().to_numpy()
    if column.dtype.is_float():
        gaps = gaps | column.is_nan().fill_null(True).to_numpy()
    return np.asarray(gaps, bool)


def factorized(column: Any) -> tuple[np.ndarray, list[Any]]:
    """The place of each row's value among the values that occur, -1 for a gap; and these values, as Python has them."""
    native = column.to_native()
    if column.implementation.is_pandas():
        places, values = module_of("pandas").factorize(native)
        return np.asarray(places, np.int64), values.tolist()
    if str(native.dtype) == "Object":
        raise TypeError("objects of Python in polars")
    values = native.unique()
    known = values.filter(values.is_not_null() & values.is_not_nan()) if native.dtype.is_float() else values.drop_nulls()
    if not len(known):
        return np.full(len(native), -1), []
    places = native.replace_strict(known, np.arange(len(known)), default=-1)
    return places.to_numpy().astype(np.int64), known.to_list()


def row_of(column: Any, row: int) -> str:
    """Return a row of a column for an error, with its label where the index of pandas has labels."""
    label = column.to_native().index[row] if column.implementation.is_pandas() else row
    plain = tuple(map(as_label, label)) if isinstance(label, tuple) else as_label(label)
    return f"row {row}" if isinstance(plain, int) and plain == row else f"row {row} (index {plain!r:.60})"


def as_label(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def values_of(name: str, column: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a column, NaN in gaps, and which rows are gaps. Whole numbers without gaps stay whole, with all digits."""
    gaps = gaps_of(column)
    column = column.cast(nw.Float64()) if str(column.dtype) in LONG_INTEGERS else column
    dtype, there = column.dtype, column.filter((~gaps).tolist()) if gaps.any() else column
    whole = dtype.is_integer() or str(dtype) == "Boolean"
    if whole or dtype.is_float() or dtype.is_decimal():
        known = there.to_numpy()
        if whole and there is column:
            return known.astype(np.float64 if known.dtype == np.uint64 and known.max() >= 2**63 else np.int64), gaps
        known = known.astype(np.float64)
    elif str(dtype).startswith("Duration"):
        known = there.dt.total_nanoseconds().to_numpy().astype(np.float64) / 1e9
    elif gaps.all():
        known = np.zeros(0)
    else:
        return _numbers_of_objects(name, column, what), gaps
    if there is column:
        return known, gaps
    values = np.full(len(gaps), np.nan)
    values[~gaps] = known
    return values, gaps


def names_among(column: Any) -> int:
    """The number of distinct whole numbers, if they span so much that they are names; 0 where they are not names."""
    if not column.dtype.is_integer() or not len(column.drop_nulls()):
        return 0
    return column.drop_nulls().n_unique() if are_names(int(column.min()), int(column.max())) else 0


def are_names(least: float, most: float) -> bool:
    """Tell whether whole numbers between these span too much to be counts."""
    return most - least >= NAMES or most >= 2**63


def _numbers_of_objects(name: str, column: Any, what: str) -> np.ndarray:
    """Numbers of a column whose dtype does not say so."""
    if column.dtype.is_temporal() or holds_times(column):
        raise TypeError(f"{what}: column {name!r} holds {column.dtype}; expected numbers. Give it the kind DateTime()")
    try:
        if column.dtype.is_nested():
            raise TypeError
        places, values = factorized(column)
    except TypeError:
        raise TypeError(f"{what}: column {name!r} holds {column.dtype}; expected numbers. Give it the kind Ignored()") from None
    odd = [not isinstance(value, int | float | np.number | decimal.Decimal) for value in values]
    if any(odd):
        row = int(np.append(odd, False)[places].argmax())
        value = values[places[row]]
        raise TypeError(
            f"{what}: column {name!r}, {row_of(column, row)}, is {value!r:.60}, a {type(value).__name__}; expected a number. "
            "Correct it, make it a gap (None), say how numbers are written, Real(text='1.234,5'), or give the column the kind "
            "Category()"
        )
    return np.array([*map(float, values), np.nan])[places]


def column_of(library: str, dtype: Dtype, values: Any, name: str) -> Any:
    """Values, an array of NumPy or a list, as a native column."""
    try:
        if library == "polars":
            return _polars(module_of("polars"), dtype, values)
        return _pandas(module_of("pandas"), dtype, values)
    except FlowsError:
        raise
    except Exception as error:
        raise FlowsError(
            f"column {name!r}: {list(values[:5])!r} do not fit the dtype {dtype!r:.80} ({error}); expected values of it"
        ) from None


def _pandas(pandas: Any, dtype: Dtype, values: Any) -> Any:
    target = _pandas_dtype(pandas, dtype, values)
    zone = getattr(target, "tz", None) or getattr(getattr(target, "pyarrow_dtype", None), "tz", None)
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        times = pandas.Series(values)
        if zone is not None:
            times = times.dt.tz_localize("UTC").dt.tz_convert(zone)
        return times if dtype == "object" else times.astype(target)
    return pandas.Series(values, dtype=target) if isinstance(values, list) else pandas.Series(values).astype(target)


def _pandas_dtype(pandas: Any, dtype: Dtype, values: Any) -> Any:
    if isinstance(dtype, dict):
        categories = _with_others(dtype, values)
        index = pandas.Index(categories, dtype=_pandas_dtype(pandas, dtype["of"], ()))
        return pandas.CategoricalDtype(index, ordered=bool(dtype.get("ordered", False)))
    if dtype.startswith("arrow["):
        arrow, name = importlib.import_module("pyarrow"), dtype[6:-1]
        if name.startswith("dictionary<values="):
            return pandas.ArrowDtype(arrow.dictionary(arrow.int32(), arrow.string()))
        if (match := DECIMAL.fullmatch(name)) is not None:
            return pandas.ArrowDtype(getattr(arrow, match[1])(int(match[2]), int(match[3])))
        if name in ("string", "large_string"):
            return pandas.ArrowDtype(getattr(arrow, name)())
        return pandas.ArrowDtype.construct_from_string(f"{name}[pyarrow]")
    return pandas.api.types.pandas_dtype(dtype)


def _with_others(dtype: dict[str, Any], values: Any) -> list[Any]:
    """The categories, and behind them values that only the schema has, such as the name of a pool."""
    categories = list(dtype["categories"])
    return categories + [value for value in values if value is not None and value not in categories]


def _polars(polars: Any, dtype: Dtype, values: Any) -> Any:
    if isinstance(dtype, dict):
        return polars.Series(values, dtype=polars.Enum(_with_others(dtype, values)))
    match = POLARS.fullmatch(dtype)
    if match is None:
        raise FlowsError(f"{dtype!r:.60} is not a dtype of polars that a schema knows; expected one such as 'Int64'")
    target = getattr(polars, match[1])
    if match[2]:
        call = ast.parse(dtype, mode="eval").body
        target = target(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})  # type: ignore[attr-defined]
    if isinstance(values, list):
        return polars.Series(values, dtype=target, strict=True)
    if values.dtype.kind == "M" and (zone := getattr(target, "time_zone", None)):
        return polars.Series(values).dt.replace_time_zone("UTC").dt.convert_time_zone(zone).cast(target)
    return polars.Series(values).cast(target)
