"""What the columns of a frame suggest: each rule of `infer_schema` at its edge, and what it says."""

import datetime as dt
import decimal
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import error_of
from frames import BOTH

from flows import tables
from flows.tables import Category, Constant, DateTime, Ignored, Integer, Real, Schema, infer_schema
from flows.training import DataWarning

RNG = np.random.default_rng(0)
SPIKE = r"column 'x' is 0 in 20.0% of the rows, and shows no step\. .*tables.Real\(step="
TEXTS = [f"v{i:03}" for i in range(501)]


def guessed(library, values):
    return infer_schema(library({"x": values}))["x"]


def is_left_out(library, values):
    with pytest.warns(DataWarning, match=r"infer_schema: not read as numbers, dates or categories: 'x' \("):
        return guessed(library, values) == Ignored()


@BOTH
def test_text_is_a_category_unless_it_has_too_many_values(library):
    assert guessed(library, ["b", "a", "b", "b"]) == Category(("a", "b"))
    assert guessed(library, ["b", None, "b", "a"]) == Category(("a", "b", None)), "a gap is a value of its own"
    assert is_left_out(library, ["b", "a", "c", "b"]), "3 texts in 4 rows"
    assert len(guessed(library, TEXTS[:500] * 2).values) == 500
    assert is_left_out(library, TEXTS * 2)
    assert guessed(library, [True, False, True]) == Category((False, True))
    assert guessed(library, [True, None, True]) == Category((True, None))


def test_categorical_dtypes_are_categories_of_the_values_that_occur():
    values = ["b", "c", "b"]
    assert guessed(pd.DataFrame, pd.Categorical(values, ["d", "c", "b"])) == Category(("c", "b")), "in the order of the dtype"
    assert guessed(pl.DataFrame, pl.Series(values, dtype=pl.Enum(["d", "c", "b"]))) == Category(("c", "b"))
    assert guessed(pl.DataFrame, pl.Series(values, dtype=pl.Categorical)) == Category(("b", "c"))
    assert guessed(pd.DataFrame, pd.Categorical([3, 1, 2, 3])) == Category((1, 2, 3))
    assert is_left_out(pd.DataFrame, pd.cut([1.0, 2.0, 3.0], 2))


@BOTH
def test_durations_are_numbers_in_seconds_however_few(library):
    for minutes in (np.arange(40) % 4, RNG.integers(0, 200, 400)):
        frame = library({"x": (minutes * 60_000).astype("m8[ms]")})
        assert infer_schema(frame)["x"] == Real(low=0, step=60.0)
        assert list(infer_schema(frame).decode([[90.0], [150.5]])["x"]) == [dt.timedelta(minutes=m) for m in (2, 3)]


def test_decimals_are_numbers():
    few = [decimal.Decimal(text) for text in ("1.10", "2.25")] * 20
    many = [decimal.Decimal(i * i) / 100 for i in range(40)]
    arrow = pd.ArrowDtype(pytest.importorskip("pyarrow").decimal128(10, 2))
    assert guessed(pd.DataFrame, few) == Category((1.1, 2.25))
    for values, kind in ((few, Category((1.1, 2.25))), (many, Real())):
        for frame in (pl.DataFrame({"x": values}), pd.DataFrame({"x": pd.Series(values, dtype=arrow)})):
            schema = infer_schema(frame)
            assert schema["x"] == kind and list(schema.decode(schema.encode(frame))["x"]) == values


def test_what_numpy_does_not_have():
    assert guessed(pl.DataFrame, pl.Series(range(40), dtype=pl.Int128)) == Integer(low=0)
    assert is_left_out(pl.DataFrame, pl.Series([object(), object()], dtype=pl.Object))


@BOTH
def test_few_numbers_are_a_category_and_others_whole_or_real(library):
    assert guessed(library, np.repeat(np.arange(20) * 3, 5)) == Category(tuple(range(0, 60, 3)))
    assert guessed(library, np.repeat(np.arange(20) / 4, 5)) == Category(tuple(np.arange(20) / 4))
    assert guessed(library, np.repeat(np.arange(20) * 3, 5)[1:]) == Integer(low=0), "one in 4 rows"
    assert guessed(library, np.repeat(np.arange(21), 5)) == Integer(low=0), "21 values"
    assert guessed(library, [1.0, 2.0, None, 50.0]) == Integer(), "whole numbers beside gaps"
    assert guessed(library, [0.0, None] * 5) == Category((0.0, None))
    assert guessed(library, [1e300, -2e300, 3.0]) == Real(), "whole to float64, as all large numbers are"
    assert guessed(library, RNG.normal(size=50)) == Real()
    assert guessed(library, np.round(RNG.normal(size=300), 1)) == Real(step=0.1)
    thirds = guessed(library, np.arange(300) % 70 / 3)
    assert thirds.low == 0 and abs(thirds.step - 1 / 3) < 1e-15, "with all its digits"


@BOTH
@pytest.mark.parametrize(
    ("values", "low"),
    [
        ([1, 100, 40], 0),
        ([1, 99, 40], None),
        ([0, 99, 40], 0),
        ([-1, 990, 40], None),
        ([0.013, 1.37, 0.4], 0),
        ([0.014, 1.37, 0.4], None),
        ([0.0, 1.37, 0.4], None),  # 0 itself, and no step
        ([0.0, 0.1, 0.2] * 4 + list(np.arange(30) / 10), 0),
    ],
)
def test_zero_is_the_low_end_where_it_is_near(library, values, low):
    assert guessed(library, values).low == low


@BOTH
def test_a_spike_in_a_column_without_step_is_told(library):
    values = RNG.lognormal(size=200)
    values[:40] = 0
    with pytest.warns(DataWarning, match=SPIKE) as caught:
        schema = infer_schema(library({"x": values}))
    assert schema["x"] == Real() and "is 0 in 20.0% of the rows" in repr(schema)
    assert caught[0].filename == __file__, "at the line that called it"
    values[4:40] = RNG.lognormal(size=36)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infer_schema(library({"x": values}))
    with_step = schema.replace({"x": Real(step=0.01)})
    assert with_step.fitted(library({"x": values})).steps == (0.01,)


@BOTH
def test_times_durations_constants_and_the_rest(library):
    times = np.datetime64("2024-01-01", "us") + np.arange(30).astype("m8[h]")
    assert guessed(library, times) == DateTime(step=3600)
    assert guessed(library, np.arange(1, 31) ** 2 * np.timedelta64(250, "ms")) == Real(low=0)
    assert guessed(library, np.repeat(np.arange(40), 5) * np.timedelta64(250, "ms")) == Real(low=0, step=0.25)
    assert guessed(library, ["EUR"] * 3) == Constant("EUR")
    assert guessed(library, [4.5] * 3) == Constant(4.5)
    assert guessed(library, [None] * 3) == Constant(None)
    assert guessed(library, times[:1]) == Constant("2024-01-01T00:00:00")
    assert is_left_out(library, [[1], [2]])
    assert is_left_out(library, [b"a", b"b"])
    assert is_left_out(pd.DataFrame, [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]), "objects, of no dtype of times"
    assert guessed(pl.DataFrame, [dt.date(2024, 1, 1), dt.date(2024, 1, 3)]) == DateTime(step=86_400)


def test_a_schema_prints_as_a_table():
    frame = pd.DataFrame({"town": ["b", "a", "b", "b"], "n": [1, 5, 3, 7], "id": ["p", "q", "r", "s"]})
    with pytest.warns(
        DataWarning, match=r"'id' \(4 texts in 4 rows, such as 'p', 'q', 'r': identifiers, or numbers that cannot be read\)"
    ):
        schema = infer_schema(frame, condition=["town"])
    assert repr(schema) == (
        "column  kind                         why\n"
        "town    Category(values=('a', 'b'))  condition; 2 values of text\n"
        "n       Integer()                    whole numbers\n"
        "id      Ignored()                    4 texts in 4 rows"
    )


@BOTH
def test_what_cannot_be_read_is_refused(library):
    assert error_of(lambda: infer_schema(library({"x": [1.5, np.inf]}))) == (
        "infer_schema: column 'x', row 1, is inf; expected finite numbers. Drop such rows, or make it a gap (None)"
    )
    assert "the condition 'y' is not a column" in error_of(lambda: infer_schema(library({"x": [1.5, 2.5]}), condition=["y"]))
    with pytest.raises(TypeError, match="condition is 'x'; expected a list of names"):
        infer_schema(library({"x": [1.5, 2.5]}), condition="x")
    message = "the condition 'x' is Ignored"
    with pytest.warns(DataWarning, match="not read"):
        assert message in error_of(lambda: infer_schema(library({"x": ["a", "b"], "y": [1, 2]}), condition=["x"]))


def test_text_among_numbers_is_refused():
    with pytest.raises(TypeError, match="infer_schema: column 'x', row 2, is 'n/a', in a column with numbers; expected"):
        infer_schema(pd.DataFrame({"x": [1, 2, "n/a", 4]}))
    assert guessed(pd.DataFrame, pd.Series([1, 2.5, None, 1], dtype=object)) == Real()


def test_names_of_the_room():
    assert all(getattr(tables, name).__doc__ for name in tables.__all__)


@BOTH
def test_whole_numbers_too_far_apart_are_names(library):
    rng = np.random.default_rng(0)
    frame = library(
        {
            "hash": rng.integers(-(2**62), 2**62, 60),
            "large": np.arange(60, dtype=np.uint64) + np.uint64(2**63),
            "two": np.array([2**63 + 1, 2**64 - 5], np.uint64).repeat(30),
            "count": rng.integers(0, 2**58, 60),
        }
    )
    with pytest.warns(DataWarning, match=r"'hash' \(60 whole numbers that are names, not counts\); 'large'"):
        schema = infer_schema(frame)
    assert [type(schema[name]).__name__ for name in frame.columns] == ["Ignored", "Ignored", "Category", "Integer"]
    assert schema["two"].values == (2**63 + 1, 2**64 - 5)
    assert "hash    Ignored()" in repr(schema) and "60 whole numbers that are names, not counts" in repr(schema)
    for name in ("hash", "large"):
        told = error_of(lambda name=name: Schema({name: Integer()}).fitted(frame[[name]]))
        assert f"column {name!r} holds whole numbers from" in told and "identifiers and hashes, are Ignored()" in told
