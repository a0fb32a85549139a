"""A schema takes a frame to numbers and back: `decode(encode(frame))` is the frame, of both libraries, whatever its columns."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frames import BOTH, fitted, same

import flows
from flows.tables import Category, Circular, Constant, DateTime, Ignored, Integer, Real, Schema, infer_schema

RNG = np.random.default_rng(0)
ROWS = 60
GAP = None
TOWNS = ["Oslo", "Bonn", "Rom"] * (ROWS // 3)
NAMES = [None if i % 7 == 3 else town for i, town in enumerate(TOWNS)]
COUNTS = RNG.integers(-5, 90, ROWS)
TENTHS = np.round(RNG.normal(170, 9, ROWS), 1)
LOGS = RNG.lognormal(3, 1.5, ROWS)
HOURS = np.datetime64("2024-03-30T00:00", "us") + (RNG.integers(0, 100, ROWS) * 3_600_000_000).astype("m8[us]")
SPANS = (RNG.integers(0, 5000, ROWS) * 250).astype("m8[ms]")


def pandas_column(name):
    zoned = pd.Series(HOURS).dt.tz_localize("UTC")
    return {
        "text": lambda: pd.Series(TOWNS),
        "text with gaps": lambda: pd.Series(NAMES),
        "text of objects": lambda: pd.Series(NAMES, dtype=object),
        "text, nullable": lambda: pd.Series(NAMES, dtype="string"),
        "a categorical": lambda: pd.Series(pd.Categorical(NAMES, ["Rom", "Ulm", "Oslo", "Bonn"])),
        "an ordered categorical": lambda: pd.Series(pd.Categorical(TOWNS, ["Rom", "Ulm", "Oslo", "Bonn"], ordered=True)),
        "a categorical of numbers": lambda: pd.Series(pd.Categorical([3, 1, 2] * (ROWS // 3))),
        "booleans": lambda: pd.Series(COUNTS > 10),
        "booleans with gaps": lambda: pd.Series([None if town is None else town == "Oslo" for town in NAMES]),
        "booleans, nullable": lambda: pd.Series([None if town is None else town == "Oslo" for town in NAMES], dtype="boolean"),
        "whole numbers": lambda: pd.Series(COUNTS),
        "bytes": lambda: pd.Series(np.append(RNG.integers(0, 256, ROWS - 2), [0, 255]).astype(np.uint8)),
        "whole numbers, nullable": lambda: pd.Series(COUNTS, dtype="Int16"),
        "whole floats": lambda: pd.Series(COUNTS.astype(float)),
        "few numbers": lambda: pd.Series(np.arange(ROWS) % 4 / 2),
        "few numbers with gaps": lambda: pd.Series(np.where(np.arange(ROWS) % 9 == 0, np.nan, np.arange(ROWS) % 4 / 2)),
        "identifiers": lambda: pd.Series(2**60 + np.arange(ROWS)),
        "tenths": lambda: pd.Series(TENTHS),
        "tenths, single": lambda: pd.Series(TENTHS.astype(np.float32)),
        "thirds": lambda: pd.Series(np.arange(ROWS) % 25 / 3),
        "continuous": lambda: pd.Series(LOGS),
        "continuous, nullable": lambda: pd.Series(LOGS, dtype="Float64"),
        "negative": lambda: pd.Series(-LOGS),
        "times": lambda: pd.Series(HOURS),
        "times in nanoseconds": lambda: pd.Series(HOURS.astype("M8[ns]") + np.timedelta64(7, "ns")),
        "times in seconds": lambda: pd.Series(HOURS.astype("M8[s]")),
        "times in UTC": lambda: zoned,
        "times in Berlin": lambda: zoned.dt.tz_convert("Europe/Berlin"),
        "durations": lambda: pd.Series(SPANS),
        "one text": lambda: pd.Series(["EUR"] * ROWS),
        "one time": lambda: pd.Series([pd.Timestamp("2024-05-01 12:30")] * ROWS),
        "one zoned time": lambda: pd.Series([pd.Timestamp("2024-05-01 12:30", tz="Asia/Kolkata")] * ROWS),
        "one duration": lambda: pd.Series([pd.Timedelta("90s")] * ROWS),
        "nothing": lambda: pd.Series([None] * ROWS),
        "nothing but NaN": lambda: pd.Series([np.nan] * ROWS),
    }[name]()


PANDAS = (
    "text", "text with gaps", "text of objects", "text, nullable", "a categorical", "an ordered categorical",
    "a categorical of numbers", "booleans", "booleans with gaps", "booleans, nullable", "whole numbers", "bytes",
    "whole numbers, nullable", "whole floats", "few numbers", "few numbers with gaps", "identifiers", "tenths",
    "tenths, single", "thirds", "continuous", "continuous, nullable", "negative", "times", "times in nanoseconds",
    "times in seconds", "times in UTC", "times in Berlin", "durations", "one text", "one time", "one zoned time",
    "one duration", "nothing", "nothing but NaN",
)  # fmt: skip
POLARS = {
    "text": pl.Series(TOWNS),
    "text with gaps": pl.Series(NAMES),
    "categorical": pl.Series(NAMES, dtype=pl.Categorical),
    "enum": pl.Series(NAMES, dtype=pl.Enum(["Rom", "Ulm", "Oslo", "Bonn"])),
    "booleans with gaps": pl.Series([None if town is None else town == "Oslo" for town in NAMES]),
    "bytes": pl.Series(np.append(RNG.integers(0, 256, ROWS - 2), [0, 255])).cast(pl.UInt8),
    "whole numbers": pl.Series(COUNTS).cast(pl.Int32),
    "few numbers with gaps": pl.Series([None if i % 9 == 0 else i % 4 / 2 for i in range(ROWS)]),
    "tenths": pl.Series(TENTHS),
    "tenths, single": pl.Series(TENTHS).cast(pl.Float32),
    "decimals": pl.Series(TENTHS).cast(pl.Decimal(8, 2)),
    "continuous": pl.Series(LOGS),
    "dates": pl.Series(HOURS).cast(pl.Date),
    "times": pl.Series(HOURS),
    "times in milliseconds": pl.Series(HOURS).cast(pl.Datetime("ms")),
    "times in nanoseconds": pl.Series(HOURS).cast(pl.Datetime("ns")),
    "times in Berlin": pl.Series(HOURS).dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin"),
    "durations": pl.Series(SPANS),
    "one text": pl.Series(["EUR"] * ROWS),
    "one date": pl.Series([dt.date(2024, 5, 1)] * ROWS),
    "one duration": pl.Series([dt.timedelta(seconds=90)] * ROWS),
    "nothing": pl.Series([None] * ROWS),
    "nothing of numbers": pl.Series([None] * ROWS, dtype=pl.Float64),
}
ARROW = ("string", "bool", "int32", "double", "date32[day]", "timestamp[us]", "timestamp[us, tz=Europe/Berlin]", "duration[ms]")


def check_round_trip(frame):
    schema = infer_schema(frame)
    for again in (schema, Schema.from_json(schema.to_json())):
        rows = again.encode(frame)
        assert rows.dtype == np.float64 and rows.shape == (ROWS, len(again.columns)) and np.isfinite(rows).all()
        same(again.decode(rows), frame)
        if not again.numbers or min(again.steps) > 0:  # of what is on steps, also after float32
            same(again.decode(rows.astype(np.float32)), frame)
    return schema


@pytest.mark.parametrize("name", PANDAS)
def test_a_frame_of_pandas_comes_back(name):
    check_round_trip(pd.DataFrame({name: pandas_column(name)}))


@pytest.mark.parametrize("name", POLARS)
def test_a_frame_of_polars_comes_back(name):
    check_round_trip(pl.DataFrame({name: POLARS[name]}))


@pytest.mark.parametrize("name", ARROW)
def test_a_frame_of_arrow_comes_back(name):
    pytest.importorskip("pyarrow")
    values = {"string": NAMES, "bool": COUNTS > 0, "int32": COUNTS, "double": TENTHS, "duration[ms]": SPANS}.get(name, HOURS)
    column = pd.Series(values)
    if "tz" in name:
        column = column.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    if name == "date32[day]":
        column = column.dt.date
    check_round_trip(pd.DataFrame({name: column.astype(pd.ArrowDtype(_arrow(name)))}))


def _arrow(name):
    import pyarrow as pa

    named = {"date32[day]": pa.date32(), "duration[ms]": pa.duration("ms"), "bool": pa.bool_()}
    if name.startswith("timestamp"):
        return pa.timestamp("us", "Europe/Berlin" if "tz" in name else None)
    return named.get(name) or pa.type_for_alias(name)


@BOTH
def test_columns_are_in_blocks_and_come_back_in_their_order(library):
    frame = library(
        {"n": [3, 1], "c": ["b", "a"], "a": [350.0, 10.0], "k": [5, 5], "u": [1, 2], "m": [0.5, 0.75], "d": ["x", "x"]}
    )
    kinds = {"n": Integer(low=0), "c": Category(), "a": Circular(360), "k": Constant(5), "u": Ignored(), "m": Real(0, 1)}
    schema = Schema({**kinds, "d": Category(("y", "x"))}).fitted(frame)
    assert schema.columns == ("c", "d", "a", "n", "m") and schema.constants == ("k",)
    assert (schema.codes, schema.angles, schema.numbers) == (("c", "d"), ("a",), ("n", "m"))
    assert schema.classes == (2, 2) and schema.periods == (360.0,) and schema.steps == (1.0, 0.0)
    assert schema.supports == ((0.0, np.inf), (0.0, 1.0))
    assert schema.encode(frame).tolist() == [[1, 1, 350, 3, 0.5], [0, 1, 10, 1, 0.75]]
    back = schema.decode(schema.encode(frame))
    assert list(back.columns) == ["n", "c", "a", "k", "m", "d"] and list(back["k"]) == [5, 5]
    other_order = frame[["d", "m", "k", "c", "a", "n"]]
    assert schema.encode(other_order).tolist() == schema.encode(frame).tolist(), "and ignored columns may lack"


@BOTH
def test_numbers_count_from_their_low_bound_or_the_least_value_in_float64(library):
    values = [1e9 + 0.25, 1e9 + 3, 1e9 + 7.5]
    schema, frame = fitted(library, Real(), values)
    assert schema.encode(frame)[:, 0].tolist() == [0.0, 2.75, 7.25] and schema.supports == ((-np.inf, np.inf),)
    schema, frame = fitted(library, Real(low=1e9, high=2e9), values)
    assert schema.encode(frame)[:, 0].tolist() == [0.25, 3.0, 7.5] and schema.supports == ((0.0, 1e9),)
    assert "1000000000.25" not in schema.to_json(), "a value of a row"
    same(schema.decode(schema.encode(frame).astype(np.float32)), frame)
    for start in (2**60, 2**62, -(2**63)):
        schema, frame = fitted(library, Integer(), [start + 1, start + 4])
        assert schema.encode(frame)[:, 0].tolist() == [0.0, 3.0]
        same(schema.decode(schema.encode(frame)), frame)
        assert schema.decode([[1e300]])["x"][0] > start + 2**61, "and no overflow"


@BOTH
def test_values_are_rounded_back_in_float64(library):
    schema, _ = fitted(library, Real(step=0.1), [3.2, 1.3])
    assert list(schema.decode(np.float32([[1.9], [1.26]]))["x"]) == [3.2, 2.6]
    assert schema.encode(library({"x": [3.21]})).tolist() == [[1.9]], "a step that is given rounds values"
    schema, _ = fitted(library, Real(low=0), [0.0173, 2.4481])
    assert list(schema.decode(np.float32([[2.4481], [1e-7]]))["x"]) == [2.4481, 0.0001], "an end is no value"
    schema, _ = fitted(library, Real(step=0.5), [0.0173, 2.4481, 0.0])
    assert list(schema.decode([[0.3], [2.6]])["x"]) == [0.5, 2.5]
    schema, _ = fitted(library, Real(low=0, step=2), [1.0, 7.0, 3.0])
    assert list(schema.decode([[1.2], [-5.0]])["x"]) == [1.0, 1.0], "steps are those of the data, inside the bounds"


@BOTH
def test_draws_stay_inside_bounds_and_dtypes(library):
    rows = np.array([[-1e3], [0.0], [1e-12], [0.4], [1.0], [1e3]])
    for kind, low, high in ((Real(2, 3), 2, 3), (Real(2, 3, 0.25), 2, 3), (Integer(2, 4), 2, 4), (Circular(3, 2), 2, 5)):
        for dtype in (np.float32, np.float64):
            schema, _ = fitted(library, kind, np.array([2.5, 2.75] if not isinstance(kind, Integer) else [2, 3], dtype))
            drawn = schema.decode(rows)
            values = np.asarray(drawn["x"])
            assert values.dtype == dtype and (values >= low).all() and (values <= high).all()
            schema.encode(drawn)
    schema, frame = fitted(library, Real(0, 0.1, 0.05), np.float32([0.05, 0.1]))
    same(schema.decode(schema.encode(frame)), frame)
    schema, _ = fitted(library, Integer(), np.array([0, 250], np.uint8))
    assert list(schema.decode([[300.0], [-3.0]])["x"]) == [255, 0]


@BOTH
def test_angles_are_wrapped(library):
    schema, frame = fitted(library, Circular(360, -180), [-180.0, 179.5, 540.0, 0.0])
    assert schema.encode(frame)[:, 0].tolist() == [0.0, 359.5, 0.0, 180.0]
    assert list(schema.decode([[-1.0], [0.0], [361.0], [359.99999]])["x"]) == [179.0, -180.0, -179.0, -180.0]
    schema, _ = fitted(library, Circular(1440, step=5), [0, 1435, 700])
    assert list(schema.decode([[1438.0], [2.0], [-3.0]])["x"]) == [0, 0, 1435] and schema.angle_steps == (5.0,)
    for kind, values in (
        (Circular(360, 5, 10), [10, 350, 360]),
        (Circular(360, step=10), [5, 15, 345]),
        (Circular(1, 0.05, 0.1), [0.1, 0.3, 1.0]),
    ):
        schema, frame = fitted(library, kind, values)
        same(schema.decode(schema.encode(frame)), frame)
        assert schema.encode(frame).min() >= 0 and schema.encode(frame).max() < kind.period, "steps are those of the data"
        same(Schema.from_json(schema.to_json()).decode(schema.encode(frame)), frame)
    schema, frame = fitted(library, Circular(2 * np.pi), [-1e-17, 1.0])
    assert schema.encode(frame)[0, 0] == 0


@BOTH
def test_rare_and_unknown_values_are_pooled(library):
    values = ["a"] * 6 + ["b"] * 5 + ["c", None]
    schema, frame = fitted(library, Category(other="rest"), values)
    assert schema["x"] == Category(("a", "b", "rest"), other="rest") and schema.classes == (3,)
    assert schema.encode(frame)[:, 0].tolist() == [0] * 6 + [1] * 5 + [2, 2]
    assert schema.encode(library({"x": ["new", "rest", "b"]}))[:, 0].tolist() == [2, 2, 1]
    assert list(schema.decode([[2.0], [0.0]])["x"]) == ["rest", "a"]
    schema, frame = fitted(library, Category(), values)
    assert schema["x"].values == ("a", "b", "c", None) and schema.encode(frame)[-1] == 3
    schema, frame = fitted(library, Category(("b", "a"), "a"), ["b", "z"])
    assert schema.encode(frame)[:, 0].tolist() == [0, 1]
    with pytest.raises(flows.FlowsError, match=r"column 'x' holds Int64, and other is 'rest'; expected a value of that dtype"):
        fitted(library, Category(other="rest"), [1] * 6 + [2])
    with pytest.raises(flows.FlowsError, match=r"column 'x' holds Boolean, and other is 'rest'"):
        fitted(library, Category((True,), other="rest"), [True, False])
    schema, frame = fitted(library, Category(other=-1), [1] * 6 + [2])
    assert list(schema.decode(schema.encode(frame))["x"]) == [1] * 6 + [-1]


def test_a_pool_is_a_category_of_a_categorical_dtype():
    column = pd.Categorical(["a"] * 5 + ["b"], ["a", "b", "c"])
    schema, frame = fitted(pd.DataFrame, Category(other="rest"), column)
    back = schema.decode(schema.encode(frame))["x"]
    assert list(back) == ["a"] * 5 + ["rest"] and list(back.cat.categories) == ["a", "b", "c", "rest"]
    schema, frame = fitted(pl.DataFrame, Category(other="rest"), pl.Series(list(column), dtype=pl.Enum(["a", "b", "c"])))
    assert schema.decode(schema.encode(frame))["x"].to_list() == ["a"] * 5 + ["rest"]


@BOTH
def test_3_0_is_3_and_categories_of_numbers_are_exact(library):
    schema, _ = fitted(library, Category(), [3, 1, 2])
    assert schema.encode(library({"x": [3.0, 1.0]}))[:, 0].tolist() == [2, 0]
    schema, _ = fitted(library, Integer(), [3, 1, 2])
    assert schema.encode(library({"x": [3.0, 1.0]}))[:, 0].tolist() == [2, 0]
    assert str(schema.decode([[2.0]])["x"].dtype).lower() == "int64"


@BOTH
def test_a_condition_is_what_networks_see(library):
    start = np.datetime64("2024-01-01T00:00", "us")
    hours = start + np.array([0, 6, 24 * 7, 24 * 400 + 12], "m8[h]")
    frame = library({"y": [1.0, 2.0, 3.0, 4.0], "town": ["b", "a", "b", "c"], "wind": [0.0, 90.0, 180.0, 0.0],
                     "count": [0, 3, 4, 9], "share": [0.5, 0.25, 0.75, 0.5], "free": [5.0, 6.0, 5.5, 5.25],
                     "loss": [-1.0, -2.0, -3.0, -0.5], "when": hours, "unit": ["kg"] * 4})  # fmt: skip
    kinds = {"y": Real(), "town": Category(), "wind": Circular(360), "count": Integer(low=0), "share": Real(0, 1),
             "free": Real(), "loss": Real(high=0), "when": DateTime(), "unit": Constant("kg")}  # fmt: skip
    condition = ["when", "town", "wind", "count", "share", "free", "loss", "unit"]
    schema = Schema(kinds, condition).fitted(frame)
    assert schema.columns == ("y",) and schema.condition == tuple(condition) and schema.constants == ()
    context = schema.context(frame)
    assert context.shape == (4, schema.context_dim) == (4, 7 + 3 + 2 + 1 + 1 + 1 + 1)
    np.testing.assert_allclose(context[:, 0], [0, 6 / 9612, 168 / 9612, 1])
    np.testing.assert_allclose(context[:, 1:3], [[1, 0], [0, 1], [1, 0], [-1, 0]], atol=1e-9)
    np.testing.assert_allclose(context[0, 3:5], context[2, 3:5], atol=1e-9)  # a week later
    np.testing.assert_allclose(np.hypot(context[:, 5], context[:, 6]), 1)
    assert context[:, 7:10].tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(context[:, 10:12], [[1, 0], [0, 1], [-1, 0], [1, 0]], atol=1e-9)
    np.testing.assert_allclose(context[:, 12], np.log([0.5, 3.5, 4.5, 9.5]))
    share = flows.Unconstrain(0.0, 1.0)(0, 1).direct_fun({}, np.float32([[0.5], [0.25], [0.75], [0.5]]))[0][:, 0]
    np.testing.assert_allclose(context[:, 13], share, atol=1e-6)
    assert context[:, 14].tolist() == [0, 1, 0.5, 0.25]
    np.testing.assert_allclose(context[:, 15], -np.log([1.0, 2.0, 3.0, 0.5]))
    drawn = schema.decode(schema.encode(frame), given=frame)
    same(drawn, frame)
    alone = schema.decode(schema.encode(frame[["y"]]))
    assert list(alone.columns) == ["y"]
    with pytest.raises(flows.FlowsError, match="given has 4 rows and the array 1"):
        schema.decode([[1.0]], given=frame)


@BOTH
def test_what_is_no_value_can_be_told_instead_of_refused(library):
    kinds = {"c": Category(("a", "b")), "n": Real(0, 1), "g": Integer(), "k": Constant("kg"), "w": Category(("u", "v"))}
    fit = library({"c": ["a", "b"], "n": [0.5, 0.25], "g": [1, 2], "k": ["kg", "kg"], "w": ["u", "v"]})
    schema = Schema(kinds, ["w"]).fitted(fit)
    frame = library({"c": ["a", "z", "b", "b", "b", "a", "a"], "n": [0.5, 0.5, 2.0, np.inf, 0.5, np.nan, 0.5],
                     "g": [1.0, 2.0, 3.0, 4.0, 5.5, 1.0, np.nan], "k": ["kg"] * 6 + ["g"], "w": list("uvuvuvx")})  # fmt: skip
    rows = schema.rows(frame, errors="coerce")
    assert rows.outside.tolist() == [False, True, True, True, True, False, True]
    assert rows.gaps.any(1).tolist() == [False] * 5 + [True, True]
    assert rows.x[1, 0] == -1 and np.isnan(rows.x[5, 1]) and rows.context.shape == (7, 2)
    assert rows.context[-1].tolist() == [0, 0]
    gaps = {name: mask.tolist() for name, mask in schema.gaps(frame).items()}
    assert gaps == {"n": [False] * 5 + [True, False], "g": [False] * 6 + [True]}
    rows = schema.rows(fit)
    assert not rows.outside.any() and not rows.gaps.any() and rows.context.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(flows.FlowsError, match="errors is 'ignore'; expected one of 'raise', 'coerce'"):
        schema.rows(fit, errors="ignore")


def test_names_need_not_be_text():
    frame = pd.DataFrame({0: [1.5, 2.5, 1.0, 3.5], ("a", 1): list("xyxx"), "": [True, False] * 2, 'a\nb "c"': [1, 2, 3, 4]})
    schema = infer_schema(frame, condition=[0])
    assert schema.condition == ("0",) and schema[0] == schema["0"] == Real() and ("a", 1) in schema
    assert list(schema) == ["0", "('a', 1)", "", 'a\nb "c"'] and len(schema) == 4
    schema = Schema.from_json(infer_schema(frame).to_json())
    same(schema.decode(schema.encode(frame)), frame)
    with pytest.raises(flows.FlowsError, match="'b' is not a column of the schema; its columns are '0'"):
        schema["b"]


@BOTH
def test_one_row_many_columns_and_many_categories(library):
    one = library({"a": [1.5], "b": ["x"]})
    schema = infer_schema(one)
    assert schema.columns == () and schema.encode(one).shape == (1, 0)
    same(schema.decode(np.zeros((2, 0))), library({"a": [1.5, 1.5], "b": ["x", "x"]}))
    schema = Schema({"a": Real(), "b": Category()}).fitted(one)
    same(schema.decode(schema.encode(one)), one)
    wide = library({f"c{i}": np.arange(30) * 0.37 + i for i in range(200)})
    assert Schema({name: Real() for name in wide.columns}).fitted(wide).encode(wide).shape == (30, 200)
    texts = library({"t": [f"v{i % 500}" for i in range(2000)]})
    schema = infer_schema(texts)
    assert schema.classes == (500,)
    same(schema.decode(schema.encode(texts)), texts)


def test_a_schema_of_one_library_reads_the_other():
    data = {"x": [1.5, 2.5, 0.5], "t": ["a", None, "b"]}
    schema = Schema({"x": Real(), "t": Category()}).fitted(pd.DataFrame(data))
    assert schema.encode(pl.DataFrame(data)).tolist() == schema.encode(pd.DataFrame(data)).tolist()
    assert isinstance(schema.decode(schema.encode(pl.DataFrame(data))), pd.DataFrame)
    assert schema.fitted(pl.DataFrame(data)).fitted_to == "polars"


def test_replaced_kinds_keep_what_is_known():
    frame = pd.DataFrame({"x": [3.0, 1.0, 2.0], "t": pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02"])})
    schema = Schema({"x": Integer(), "t": DateTime()}).fitted(frame)
    assert schema.replace({"x": Real(low=0)}).encode(frame)[:, 1].tolist() == [2 * 86_400, 0, 86_400]
    assert schema.replace({"x": Real()}).encode(frame)[:, 0].tolist() == [2, 0, 1]
    assert schema.replace({"x": Circular(2)}).encode(frame)[:, 0].tolist() == [1, 1, 0]
    assert schema.replace({"t": DateTime(step=3600)}).encode(frame)[:, 1].tolist() == [2 * 86_400, 0, 86_400]
    late = pd.DataFrame(
        {"x": [1, 2, 3], "t": pd.to_datetime(["2024-01-01 00:00:37", "2024-01-01 02:00:40", "2024-01-03 00:00:00"])}
    )
    schema_of_late = Schema({"x": Integer(), "t": DateTime()}).fitted(late)
    hours = schema_of_late.replace({"t": DateTime(step=3600)}).fitted(late)
    assert hours.decode(hours.encode(late))["t"].tolist() == [*late["t"].dt.floor("h")]
    assert hours.replace({"t": DateTime()}).fitted(late).encode(late).tolist() == schema_of_late.encode(late).tolist()
    assert schema_of_late.replace({"t": DateTime(step=1e-6)}).fitted(late)["t"].step == 1, "which float32 tells apart"
    with pytest.raises(TypeError, match=r"decode: the array is \[\['x'\]\]"):
        hours.decode([["x"]])
    open_, again = (schema.replace({"x": Category()}) for _ in range(2))
    with pytest.raises(
        flows.FlowsError, match=r"column 'x' is Category\(\), of which not all is known; .*schema.fitted\(frame\)"
    ):
        open_.encode(frame)
    assert open_.fitted(frame).encode(frame)[:, 0].tolist() == [2, 0, 1]
    assert open_ != schema and open_ == again and hash(open_) == hash(again)


@BOTH
def test_what_is_given_becomes_a_frame_of_the_condition(library):
    frame = library({"y": [1.0, 2.5], "town": ["b", "a"], "n": [3, 4]})
    schema = Schema({"y": Real(), "town": Category(), "n": Integer()}, ["n", "town"]).fitted(frame)
    three = schema.given({"town": "b", "n": 7}, 3)
    assert isinstance(three, library) and list(three["town"]) == ["b"] * 3 and schema.context(three).tolist() == [[4, 0, 1]] * 3
    each = schema.given(frame, 2)
    assert list(each["town"]) == ["b", "b", "a", "a"] and list(schema.decode(np.zeros((4, 1)), given=each)["n"]) == [3, 3, 4, 4]
    dated = Schema({"y": Real(), "n": DateTime()}, ["n"]).fitted(library({"y": [1.0, 2.5], "n": HOURS[:2]}))
    for date in (np.datetime64("2024-05-01"), dt.date(2024, 5, 1), dt.datetime(2024, 5, 1), pd.Timestamp("2024-05-01")):
        assert dated.given({"n": date})["n"][0] == dt.datetime(2024, 5, 1)
        assert dated.context(dated.given({"n": date})).shape == (1, dated.context_dim)
    with pytest.raises(flows.FlowsError, match="given: the frame lacks 'town'; it also has 'twn'"):
        schema.given({"n": 1, "twn": "b"})
    with pytest.raises(flows.FlowsError, match="given: column 'town', row 0, is 'c'; expected one of 'a', 'b'"):
        schema.given({"n": 1, "town": "c"})
    with pytest.raises(flows.FlowsError, match="the schema has no condition; leave given out"):
        Schema({"y": Real()}).fitted(frame[["y"]]).given({"n": 1})
