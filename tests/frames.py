"""What tests of tables share: both libraries, a schema of one column, and when two frames are equal."""

import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flows.tables import Schema

LIBRARIES = [pytest.param(pd.DataFrame, id="pandas"), pytest.param(pl.DataFrame, id="polars")]
BOTH = pytest.mark.parametrize("library", LIBRARIES)


def fitted(library, kind, values, name="x"):
    """A schema of one column, and its frame."""
    frame = library({name: values})
    return Schema({name: kind}).fitted(frame), frame


def same(got, expected):
    """Equal to the last digit but for rounding in float64, with dtypes, columns and their order."""
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(got, expected, check_exact=False, rtol=1e-15, atol=1e-13)
    else:
        assert_frame_equal(got, expected, check_exact=False, rel_tol=1e-15, abs_tol=1e-13)
