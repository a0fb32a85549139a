"""Frames of libraries besides pandas and polars go in, and come back."""

import datetime as dt
import sys
from decimal import Decimal
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from common import AFFINE, QUICK, ROWS, error_of

from flows import tables
from flows.results.frames import LIBRARIES, collected, frame_of, plain, returned
from flows.training import fit

FRAME = pd.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1]})
ARROW = pa.Table.from_pandas(FRAME, preserve_index=False)
DAYS = [dt.date(2020, 1, 1), dt.date(2021, 2, 3), dt.date(2021, 5, 3)] * 3


def lazy(library):
    """A frame that has no rows yet."""
    return pl.from_pandas(FRAME).lazy() if library == "polars" else duckdb.sql("select * from FRAME where a > -100")


def test_arrow_goes_in_and_comes_back():
    """With its types, also where pandas has none of its own."""
    table = pa.table(
        {
            "day": pa.array(DAYS),
            "price": pa.array([Decimal("1.25"), Decimal("2.50"), Decimal("7.75")] * 3, pa.decimal128(8, 2)),
            "kind": pa.array(["u", "v", "u"] * 3).dictionary_encode(),
            "size": pa.array([1.5, 2.5, np.pi] * 3, pa.float32()),
            "word": pa.array(["u", None, "u"] * 3),
        }
    )
    schema = tables.infer_schema(table)
    assert schema.fitted_to == "pyarrow"
    rows = schema.encode(table)
    again = tables.Schema.from_json(schema.to_json())  # as a file has it
    for back in (schema.decode(rows), again.decode(rows)):
        assert back.schema.remove_metadata() == table.schema
        assert back.to_pylist() == table.to_pylist()


def test_a_fit_returns_the_library_that_it_was_given():
    result = fit(0, AFFINE, ARROW, **QUICK)
    drawn = result.draw(1, 5)
    assert isinstance(drawn, pa.Table) and drawn.column_names == ["a", "b"]
    np.testing.assert_allclose(drawn["b"], result.sample(1, result.params, 5)[:, 1], rtol=1e-6)
    swapped = ARROW.select(["b", "a"])
    for rows in (swapped, plain(swapped), FRAME):
        np.testing.assert_array_equal(result.log_prob(rows), result.log_prob(ROWS))
    assert "lacks 'a'. Expected the columns" in error_of(lambda: result.log_prob(ARROW.select(["b"])))
    assert "fit: data has nan in row 0, column 'b'" in error_of(lambda: fit(0, AFFINE, FRAME.assign(b=np.nan), **QUICK))


@pytest.mark.parametrize("library", ["polars", "duckdb"])
def test_what_is_lazy_is_collected_once_and_it_is_said(library):
    frame = lazy(library)
    said = f"the frame is lazy, of {library}: its {len(FRAME)} rows were collected"
    with pytest.warns(UserWarning, match=said) as told:
        schema = tables.infer_schema(frame)
    assert len(told) == 1 and schema.fitted_to == {"duckdb": "pyarrow"}.get(library, library)
    with pytest.warns(UserWarning, match="rows were collected"):
        np.testing.assert_array_equal(schema.encode(frame), schema.encode(FRAME))
    with pytest.warns(UserWarning, match="fit: data is lazy") as told:
        result = fit(0, AFFINE, frame, **QUICK)
    assert len([each for each in told if "lazy" in str(each.message)]) == 1
    assert result.table.names == ("a", "b")
    with pytest.warns(UserWarning, match="fit: validation is lazy"):
        fit(0, AFFINE, FRAME, **{**QUICK, "validation": frame})


def test_what_is_not_a_frame_stays_as_it_is():
    for x in (ROWS, FRAME, ARROW, [1.0], None, SimpleNamespace(columns=3), {"a": 1}):
        assert collected(x, "x") is x


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "modin.pandas", None)
    assert "is to be of modin.pandas, which is not installed" in error_of(lambda: frame_of("modin", ["a"], [[1.0]], 1))
    assert returned(FRAME, "pandas") is FRAME and LIBRARIES[:2] == ("pandas", "polars")
