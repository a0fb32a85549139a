"""What tests of tables share: both libraries, a schema of one column, a mixed table, and when two frames are equal."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import flows
from flows.tables import Schema

LIBRARIES = [pytest.param(pd.DataFrame, id="pandas"), pytest.param(pl.DataFrame, id="polars")]
NORMAL = flows.Normal(trainable=True)
GIVEN = flows.Normal(conditioner=flows.conditioners.MLP(8))  # of a context
QUICK = {"max_epochs": 2, "random_state": 0}  # of an estimator
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


def mixed(library=pd.DataFrame, rows=300, seed=0):
    rng = np.random.default_rng(seed)
    town = rng.choice(["Bonn", "Oslo"], rows)
    x = rng.normal(np.where(town == "Oslo", 2.0, 0.0))
    return library({"town": town, "guests": rng.poisson(9, rows), "x": x, "unit": ["kg"] * rows})
