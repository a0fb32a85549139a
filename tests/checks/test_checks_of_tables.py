"""A fitted table is checked by its frames, with draws as users get them."""

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import error_of
from frames import GIVEN, mixed

import flows
from flows import tables

pytestmark = pytest.mark.filterwarnings("ignore:.*the closed-form Gaussian with")
KINDS = {
    "town": tables.Category(),
    "guests": tables.Integer(low=0),
    "x": tables.Real(),
    "unit": tables.Constant("kg"),
}
QUICK = {"validation": 0.5, "folds": 1, "max_epochs": 1, "verbose": 0}
FAST = {"only": ["columns", "pairs"], "samples": 1_000}


@pytest.fixture(scope="module")
def result():
    return tables.fit(0, mixed().round({"x": 4}), tables.Schema(KINDS), model=GIVEN, **QUICK)


@pytest.fixture(scope="module")
def given_town():
    return tables.fit(0, mixed(), tables.Schema(KINDS, ["town"]), model=GIVEN, **QUICK)


def test_columns_keep_their_names_whatever_the_frame(result):
    rows = result.draw(5, 300)
    told = flows.check(result, rows, **FAST)
    assert told.passed and list(told.figures["crps"]) == ["guests", "x"]
    told_of_polars = flows.check(result, pl.from_pandas(rows[["x", "unit", "town", "guests"]]), **FAST)
    assert told_of_polars.figures == told.figures
    rows["x"] += 3.0
    assert flows.check(result, rows, **FAST)["columns"].detail.startswith("Kolmogorov distance of x, rows lie higher")
    rows["x"], rows["town"] = rows["x"] - 3.0, "Bonn"
    assert "total variation of town, Bonn in 100.0% of rows" in flows.check(result, rows, **FAST)["columns"].detail


def test_draws_lie_on_steps_and_are_those_that_decode_and_encode_give(result):
    model = result.__flows_check__()
    key = jax.random.key(3)
    draws = model.draw(key, 200, None)
    assert (
        [column.name for column in model.columns] == ["town", "guests", "x"]
        and draws.shape == (200, 3)
        and draws.dtype == np.float64
    )
    np.testing.assert_array_equal(draws[:, :2], np.rint(draws[:, :2]))
    x = draws[:, 2] + result.schema._fields["x"].offset
    np.testing.assert_allclose(x, np.round(x, 4), atol=1e-12)  # digits that the data had
    assert (draws[:, 1] >= 0).all() and set(draws[:, 0]) == {0.0, 1.0}
    np.testing.assert_array_equal(draws, result.schema.encode(result.draw(key, 200)))


def test_numbers_keep_their_digits():
    """Values that float32 cannot tell apart, and their copies among training rows."""
    far = pd.DataFrame({"y": 1e9 + np.random.default_rng(0).normal(size=400)})
    result = tables.fit(0, far, model=flows.Normal(trainable=True), **QUICK)
    x, context = result.__flows_check__().read(far, None, "data")
    np.testing.assert_allclose(x[:, 0], far["y"] - far["y"].min(), atol=1e-6)
    assert context is None and len(np.unique(x)) > 300
    told = flows.check(result, far, train=far[:150], only=["columns", "copies"], samples=1_000)
    assert "150" in repr(told) and told["columns"].size < 0.2


def test_a_condition_is_in_the_frame(given_town):
    given = mixed(rows=300, seed=1)[["town"]]
    rows = given_town.draw(7, 1, given=given)
    assert (rows["town"] == given["town"]).all()
    told = flows.check(given_town, rows, train=rows[:200], only=["ranks", "tarp", "copies"])
    assert told.passed and "200 of 300 rows are in train" in repr(told) and told.figures["draws"] == 300 * 99
    assert "its condition among its columns" in error_of(lambda: flows.check(given_town, rows, context=rows[["town"]]))
    bonn = rows[rows["town"] == "Bonn"]
    alone = flows.check(given_town, bonn, **FAST)
    assert alone.figures["draws"] == 1_000 and alone["columns"].verdict == "pass"
    context = given_town.__flows_check__().read(rows, None, "data")[1]
    np.testing.assert_array_equal(context, given_town.schema.context(rows))
    draws = given_town.__flows_check__().draw(jax.random.key(0), 300, context)
    np.testing.assert_array_equal(draws, given_town.schema.encode(given_town.draw(jax.random.key(0), 1, given=rows)))
    rows["x"] = np.where(rows["town"] == "Oslo", rows["x"] + 1.5, rows["x"] - 1.5)
    assert not flows.check(given_town, rows, only=["ranks"]).passed


def test_frames_that_do_not_fit_are_refused(result):
    rows = mixed()
    assert "check: data: encode: the frame lacks 'x'" in error_of(lambda: flows.check(result, rows.drop(columns="x")))
    assert "fitted without a condition" in error_of(lambda: flows.check(result, rows, context=rows))
    strange = rows.assign(town=["Rome", *rows["town"][1:]])
    message = error_of(lambda: flows.check(result, rows, train=strange))
    assert "check: train: encode: column 'town', row 0, is 'Rome'" in message
    gaps = rows.assign(x=[1.0, np.nan, *rows["x"][2:]])
    assert "column 'x', row 1" in error_of(lambda: flows.check(result, gaps))
    with pytest.raises(TypeError, match=r"check: data: .* expected a frame of pandas or polars"):
        flows.check(result, rows.to_numpy())
