"""What does not fit a schema, each with its row, its column, the value and the remedy; and JSON that people edited."""

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import error_of
from frames import BOTH

import flows
from flows.tables import Category, Circular, Constant, DateTime, Ignored, Integer, Real, Schema, fit, infer_schema
from flows.tables.fields import CellError
from flows.training.data import table

TIMES = np.array(["2024-01-01T00", "2024-01-01T06", "2024-01-02T00"], "M8[us]")
GOOD = {
    "town": ["a", "b", "a"], "n": [1, 2, 7], "x": [0.5, 0.25, 0.75], "r": [0.5, 1.0, 0.0], "w": [10.0, 20.0, 30.0],
    "t": TIMES, "unit": ["kg"] * 3, "id": [1, 2, 3],
}  # fmt: skip
KINDS = {
    "town": Category(), "n": Integer(low=0), "x": Real(0, 1), "r": Real(0, 1, 0.5), "w": Circular(360),
    "t": DateTime(), "unit": Constant("kg"), "id": Ignored(),
}  # fmt: skip


def put(column, row, value):
    """The good columns with another value."""
    values = list(GOOD[column])
    values = list(map(float, values)) if isinstance(value, float) else values
    values[row] = value
    return {**GOOD, column: values}


REFUSED = {
    "unknown category": (
        "town",
        "z",
        "expected one of 'a', 'b'. Correct it, or pool such values: schema.replace({'town'",
    ),
    "unknown gap": ("town", None, "is a gap; expected a value of Category(values=('a', 'b')). Fit rows with gaps by"),
    "below": (
        "n",
        -1,
        "is -1; expected a whole number at least 0. Correct it, or widen the bounds: schema.replace({'n': Int",
    ),
    "not whole": ("n", 2.5, "is 2.5; expected a whole number. Round it, or give the column the kind Real()"),
    "above": ("x", 1.5, "is 1.5; expected a finite number above 0 and below 1. Correct it, or widen the bounds"),
    "at an end": ("x", 1.0, "above 0 and below 1 (an end has no density, unless there is a step)"),
    "above the steps": ("r", 1.5, "is 1.5; expected a finite number at least 0 and at most 1"),
    "infinite": ("x", float("inf"), "is inf; expected a finite number. Drop such rows, or make it a gap"),
    "infinite angle": ("w", float("-inf"), "is -inf; expected a finite number"),
    "a gap": (
        "x",
        None,
        "is a gap; expected a value of Real(low=0, high=1). Fit rows with gaps by tables.fit(0, frame, "
        "model=flows.AnySubset()), drop such rows, as tables",
    ),
    "NaN": ("w", float("nan"), "is a gap; expected a value of"),
    "a gap of whole numbers": ("n", None, "is a gap; expected a value of"),
    "another constant": (
        "unit",
        "g",
        "is 'g'; expected 'kg', the one value of this column. Correct it, or do not read",
    ),
}


@BOTH
@pytest.mark.parametrize("case", REFUSED)
def test_values_that_are_none_of_their_column_are_refused(library, case):
    column, value, expected = REFUSED[case]
    schema = Schema(KINDS).fitted(library(GOOD))
    message = error_of(lambda: schema.encode(library(put(column, 1, value))))
    assert message.startswith(f"encode: column {column!r}, row 1, is ") and expected in message
    if "gap" not in case and case != "NaN":
        assert "fitted: column" in error_of(lambda: Schema(dict(schema.kinds)).fitted(library(put(column, 1, value))))
    condition = Schema(KINDS, [column]).fitted(library(GOOD))
    message = error_of(lambda: condition.context(library(put(column, 1, value))))
    assert message.startswith(f"context: column {column!r}, row 1, is ")


@BOTH
def test_a_count_of_what_is_wrong(library):
    schema = Schema({"n": Integer(low=0)}).fitted(library({"n": [1, 2, 3]}))
    message = error_of(lambda: schema.encode(library({"n": [1, -2, -3]})))
    assert "row 1, is -2, the first of 2 such; expected a whole number at least 0. Correct" in message
    assert "row 0, is a gap, the first of 2;" in error_of(lambda: schema.encode(library({"n": [None, None, 3.0]})))


def test_an_error_of_a_cell_has_its_place():
    schema = Schema({"n": Integer(low=0), "town": Category()}).fitted(pl.DataFrame({"n": [1, 2], "town": ["a", "b"]}))
    for column, frame in (("n", {"n": [1, -2], "town": ["a", "b"]}), ("town", {"n": [1, 2], "town": ["a", "c"]})):
        with pytest.raises(CellError) as found:
            schema.encode(pl.DataFrame(frame))
        error = found.value
        assert (error.column, error.row) == (column, 1) and error.said.startswith(f"is {frame[column][1]!r}; expected ")
        assert f"column {column!r}, row 1, {error.said}" in str(error)
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and (again.column, again.row, again.said) == (column, 1, error.said)
    with pytest.raises(CellError, match="row 1, is inf; expected finite numbers"):
        infer_schema(pl.DataFrame({"n": [1.5, float("inf")]}))


@BOTH
def test_columns_are_those_of_the_schema(library):
    schema = Schema(KINDS).fitted(library(GOOD))

    def without(*names):
        return library({name: values for name, values in GOOD.items() if name not in names})

    schema.encode(without("id"))
    assert error_of(lambda: schema.encode(without("n", "unit"))).startswith(
        "encode: the frame lacks 'n', 'unit'; expected the columns 'town', 'w', 'n', 'x', 'r' and 2 more, in any order"
    )
    message = error_of(lambda: schema.encode(library({**GOOD, "more": [1, 2, 3]})))
    assert "the frame also has 'more'; expected" in message and "Drop the others: frame[['town'" in message
    renamed = library({"m" if name == "n" else name: values for name, values in GOOD.items()})
    assert "lacks 'n'; it also has 'm'" in error_of(lambda: schema.encode(renamed))
    assert error_of(lambda: schema.encode(library(GOOD)[:0])) == "encode: the frame has no rows; expected one or more"
    assert "lacks 'id'" not in error_of(lambda: Schema(KINDS).fitted(without("n")))
    with_condition = Schema(KINDS, ["t", "n"]).fitted(library(GOOD))
    assert with_condition.encode(without("t", "n")).shape == (3, 4), "a condition may lack where it is not read"
    assert with_condition.context(library(GOOD)[["n", "t"]]).shape == (3, 4)
    assert "lacks 't'" in error_of(lambda: with_condition.context(without("t")))
    assert "has no condition; name columns of it" in error_of(lambda: schema.context(library(GOOD)))
    assert "has no condition; leave it out" in error_of(
        lambda: schema.decode(schema.encode(library(GOOD)), given=library(GOOD))
    )


def test_doubled_columns_are_refused():
    frame = pd.DataFrame([[1, 2, 3]], columns=["a", "a", 0])
    assert "columns of one name, 'a'; rename them" in error_of(lambda: infer_schema(frame))
    assert "of one name, '0'" in error_of(lambda: infer_schema(pd.DataFrame([[1, 2]], columns=[0, "0"])))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            np.zeros((3, 2)),
            "encode: an array was given; expected a frame of pandas or polars, or of another library that narwhals knows; "
            "give its columns names",
        ),
        (GOOD, "encode: a dict was given; expected a frame of pandas or polars"),
        (pd.Series([1, 2]), "encode: a Series was given"),
        (None, "encode: a NoneType was given"),
    ],
)
def test_what_is_no_frame_is_refused(given, expected):
    schema = Schema(KINDS).fitted(pd.DataFrame(GOOD))
    with pytest.raises(TypeError) as caught:
        schema.encode(given)
    assert str(caught.value).startswith(expected)


@BOTH
def test_columns_of_another_sort_are_refused(library):
    schema = Schema(KINDS).fitted(library(GOOD))

    def refused(column, values):
        with pytest.raises(TypeError) as caught:
            schema.encode(library({**GOOD, column: values}))
        return str(caught.value)

    assert "column 'x', row 0, is 'a', a str; expected a number. Correct it, make it a gap" in refused("x", list("abc"))
    assert "column 'w', row 0, is '10', a str; expected a number" in refused("w", ["10", "20", "30"])
    assert "column 'n' holds Datetime" in refused("n", TIMES) and "the kind DateTime()" in refused("n", TIMES)
    assert "column 'town' holds Datetime" in refused("town", TIMES)
    assert "column 't' holds Int64, such as" in refused("t", [1, 2, 3])
    assert "column 'town' holds List" in refused("town", [[1], [2], [3]]) or library is pd.DataFrame


def test_text_among_numbers_is_refused():
    schema = Schema(KINDS).fitted(pd.DataFrame(GOOD))
    with pytest.raises(TypeError, match=r"column 'n', row 2, is 'n/a', a str; expected a number\. Correct it, make it a gap"):
        schema.encode(pd.DataFrame(put("n", 2, "n/a")))
    with pytest.raises(TypeError, match=r"column 'town', row 1, is \(1, 2\), a tuple; expected text, a number"):
        schema.encode(pd.DataFrame(put("town", 1, (1, 2))))
    with pytest.raises(TypeError, match="column 'town' holds values that cannot be compared"):
        schema.encode(pd.DataFrame(put("town", 1, [1, 2])))


@BOTH
def test_times_with_and_without_a_zone_are_not_mixed(library):
    naive = library({"t": TIMES, "y": [1, 2, 3]})
    if library is pd.DataFrame:
        zoned = naive.assign(t=naive["t"].dt.tz_localize("America/New_York"))
    else:
        zoned = naive.with_columns(pl.col("t").dt.replace_time_zone("America/New_York"))
    for known, given, words in ((naive, zoned, ("with", "without")), (zoned, naive, ("without", "with"))):
        schema = infer_schema(known)
        with pytest.raises(TypeError, match=f"column 't' holds times {words[0]} a time zone; expected times {words[1]} one"):
            schema.encode(given)
        schema.encode(known)


def test_arrays_that_do_not_fit_are_refused():
    schema = Schema(KINDS).fitted(pd.DataFrame(GOOD))
    rows = schema.encode(pd.DataFrame(GOOD))
    assert "the array has shape (3, 5); expected (rows, 6), of 'town', 'w'" in error_of(lambda: schema.decode(rows[:, 1:]))
    wrong = [
        (0, 2.0, "a code, 0 to 1"),
        (0, 0.5, "a code"),
        (1, np.nan, "finite"),
        (2, np.inf, "finite"),
        (5, np.nan, "seconds"),
    ]
    for column, value, expected in wrong:
        bad = rows.copy()
        bad[1, column] = value
        message = error_of(lambda bad=bad: schema.decode(bad))
        assert f"column {schema.columns[column]!r}, row 1, is " in message and expected in message
    assert "was not fitted to a frame" in error_of(lambda: Schema({"x": Real()}).decode([[1.0]]))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Real(low=2, high=1), "Real: low is 2 and high is 1; expected low < high"),
        (lambda: Real(low=float("inf")), "Real: low is inf; expected a finite number, or None where there is none"),
        (lambda: Real(step=0), "Real: step is 0; expected a number above 0"),
        (lambda: Real(step=True), "Real: step is True"),
        (lambda: Integer(low=0.5), "Integer: low is 0.5; expected a whole number, or the kind Real(step=)"),
        (lambda: Category("abc"), "Category: values is 'abc'; expected a list of them"),
        (lambda: Category({"a", "b"}), "expected a list of them, in the order of their codes"),
        (lambda: Category([]), "Category: values is empty"),
        (lambda: Category([1.0, float("inf")]), "Category: inf is infinite"),
        (lambda: Integer(low=10**30), "expected a whole number of 64 bits"),
        (lambda: Category(["a", "a"]), "Category: values has 'a' twice"),
        (lambda: Category([(1, 2)]), "Category: (1, 2) is a tuple; expected text, a number, True, False, or None for a gap"),
        (lambda: Circular(0), "Circular: period is 0; expected a number above 0"),
        (lambda: Circular(360, step=7), "Circular: period is 360 and step is 7; expected a whole number of steps"),
        (lambda: DateTime(format="day"), "DateTime: format is 'day'; expected codes of strftime"),
        (lambda: DateTime(format="%Y %z"), "with a time zone; expected one without"),
        (lambda: Constant([1]), "Constant: [1] is a list"),
        (lambda: Schema({}), "Schema: there are no columns"),
        (lambda: Schema({0: Real(), "0": Real()}), "kinds are of 0, '0'; expected names that are not alike as text"),
        (lambda: Schema({"x": Real()}, ["x", "x"]), "expected each name once"),
        (lambda: Schema({"x": Real()}).replace({"y": Real()}), "replace: 'y' is not a column; expected some of 'x'"),
        (lambda: Schema({"x": Real()}).fitted(pd.DataFrame({"x": [None, np.nan]})), "column 'x' holds no finite number"),
        (lambda: Schema({"x": DateTime()}).fitted(pd.DataFrame({"x": pd.to_datetime([None])})), "column 'x' holds gaps alone"),
    ],
)  # fmt: skip
def test_kinds_and_schemas_that_cannot_be_are_refused(make, expected):
    assert expected in error_of(make)


def test_what_is_no_kind_is_refused():
    with pytest.raises(TypeError, match=r"the kind of column 'x' is <class .*; expected one such as .*call it: Real\(\)"):
        Schema({"x": Real})
    with pytest.raises(TypeError, match="kinds is a list; expected a dict"):
        Schema([Real()])
    with pytest.raises(TypeError, match=r"condition is \{'x'\}; expected a list of names of columns"):
        Schema({"x": Real()}, {"x"})
    with pytest.raises(TypeError, match="replace: kinds is a list"):
        Schema({"x": Real()}).replace([Real()])


def test_kinds_are_values():
    assert Real(np.float64(0), step=np.float32(0.5)) == Real(0.0, step=0.5) and repr(Integer(np.int64(3))) == "Integer(low=3)"
    assert repr(Category(np.array(["a", "b"]), other="rest")) == "Category(values=('a', 'b'), other='rest')"
    assert Constant(float("nan")) == Constant(None) and {Real(): 1}[Real()] == 1
    schema = Schema(KINDS, ["t"]).fitted(pd.DataFrame(GOOD))
    assert pickle.loads(pickle.dumps(schema)) == schema


def written():
    return Schema(KINDS, ["t"]).fitted(pd.DataFrame(GOOD)).to_json()


def test_json_is_a_line_a_column_and_tells_no_rows():
    text = written()
    assert Schema.from_json(text).to_json() == text and Schema.from_json(text) == Schema(KINDS, ["t"]).fitted(
        pd.DataFrame(GOOD)
    )
    line = next(line for line in text.split("\n") if '"r"' in line)
    assert json.loads(line.rstrip(",")) == {
        "name": "r", "kind": "Real", "low": 0, "high": 1, "step": 0.5,
        "dtype": "float64", "origin": 0, "digits": 1,
    }  # fmt: skip
    assert "06:00" not in text and "0.75" not in text, "no value of a row, but for the least where there is no low end"


def test_json_may_be_edited():
    text = (
        written().replace('"low": 0, "dtype": "int64"', '"low": -5, "dtype": "int64"').replace('["a", "b"]', '["b", "a", "c"]')
    )
    schema = Schema.from_json(text)
    assert schema["n"] == Integer(low=-5) and schema["town"] == Category(("b", "a", "c"))
    assert schema.encode(pd.DataFrame(GOOD))[:, :3].tolist() == [[1, 10, 6], [0, 20, 7], [1, 30, 12]]
    short = (
        '{"version": 1, "columns": [{"name": "n", "kind": "Integer"}, {"name": "town", "kind": "Category", "other": "rest"}]}'
    )
    schema = Schema.from_json(short)
    assert schema == Schema({"n": Integer(), "town": Category(other="rest")}) and schema.fitted_to is None
    assert schema.fitted(pl.DataFrame({"n": [1, 2], "town": ["a", "b"]})).classes == (1,)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('"low": 0, "dtype": "int64"', '"low": 0 "dtype": "int64"', "from_json: line 7, column 47: Expecting ',' delimiter"),
        ('"Integer"', '"Whole"', "column 'n' has the kind 'Whole'; expected one of Real, Integer, Category"),
        ('"low": 0, "dtype": "int64"', '"lo": 0, "dtype": "int64"', "of the kind Integer, has 'lo'; expected 'name', 'kind'"),
        ('"low": 0, "dtype": "int64"', '"low": 0.5, "dtype": "int64"', "column 'n': Integer: low is 0.5; expected"),
        ('"period": 360, ', "", "column 'w': the kind Circular lacks an argument; expected period"),
        ('"least": "2024-01-01T00:00:00"', '"least": "yesterday"', "column 't': least is 'yesterday'; expected a time"),
        ('"digits": 1', '"digits": -1', "digits is -1; expected a whole number from 0 to 15"),
        ('"origin": 0', '"least": true', "column 'r': least is True; expected a finite number"),
        ('"dtype": "int64"', '"dtype": 5', "column 'n': dtype is 5; expected text"),
        ('"name": "n"', '"name": "x"', "has the name 'x', as one before; expected each once"),
        ('"name": "n"', '"name": 1.5', "the name of a column is 1.5"),
        ('["t"]', '["when"]', "the condition 'when' is not a column"),
        ('["t"]', '"t"', "condition is 't'; expected a list"),
        ('"kind": "Integer"', '"kind": ["Integer"]', "has the kind ['Integer']; expected one of"),
        ('"digits": 1', '"digits": 1.0', "digits is 1.0; expected a whole number"),
        ('"low": 0, "dtype"', '"low": ' + "9" * 5000 + ', "dtype"', "the text cannot be read (Exceeds the limit"),
        ('["t"]', "[" * 100_000, "the text cannot be read (maximum recursion depth"),
        ('"version": 1', '"version": 2', "version is 2; this flows reads 1"),
        ('"version": 1', '"version": 1, "more": 2', "the text has 'more'; expected 'version', 'library'"),
        ('"pandas"', '"excel"', "library is 'excel'; expected one of 'pandas', 'polars', 'pyarrow', 'modin', or null"),
        ('"kind": "Integer"', '"kind": "Integer", "low": 1', "'low' occurs twice"),
    ],
)  # fmt: skip
def test_an_edit_that_went_wrong_is_told(before, after, expected):
    text = written()
    assert before in text
    assert expected in error_of(lambda: Schema.from_json(text.replace(before, after, 1)))


def test_a_dtype_that_there_is_not_is_told():
    frame = pd.DataFrame(GOOD)
    schema = Schema.from_json(written().replace('"dtype": "int64"', '"dtype": "int63"', 1))
    message = error_of(lambda: schema.decode(schema.encode(frame)))
    assert message.startswith("column 'n'") and "do not fit the dtype 'int63'" in message
    for text in ("[]", "3", '{"version": 1, "columns": 3}', '{"version": 1, "columns": [3]}'):
        assert error_of(lambda text=text: Schema.from_json(text)).startswith("from_json: ")
    with pytest.raises(TypeError, match="a dict was given; expected text"):
        Schema.from_json({})


def test_a_frame_in_place_of_a_word_is_told_in_one_line():
    frame = pd.DataFrame({"a": [1.0, 2.0] * 50})
    for name in ("gaps", "verbose"):
        told = error_of(lambda name=name: fit(0, frame, **{name: frame}))
        assert f"{name} is a 0 1.0 1 2.0" in told and "\n" not in told
    lists = pl.DataFrame({"a": [[1.0], [2.0]]})
    schema = Schema({"a": Real()}).fitted(frame)
    with pytest.raises(TypeError, match=r"column 'a' holds List\(Float64\); expected numbers"):
        schema.rows(lists)
    assert "errors is a 0 1.0" in error_of(lambda: schema.rows(frame, errors=frame))


def test_warnings_tell_values_in_the_units_of_the_frame():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": np.where(rng.random(200) < 0.3, 7.0, rng.normal(size=200)), "far": np.append(rng.normal(size=199), 5e3)}
    )
    schema = Schema({"x": Real(), "far": Real()}).fitted(frame)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(0, frame, schema, model=flows.Normal(trainable=True), max_epochs=1, verbose=0)
    told = " ".join(str(each.message) for each in said)
    assert "column 'x' is 7 in" in told and "column 'far' (5000 in row 199" in told
    assert table.offset_of("x") == 0.0, "and no other fit's"
