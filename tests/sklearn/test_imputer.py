"""`FlowImputer`, and the other estimators with a model that takes gaps."""

import io
import pickle

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flows
from flows.sklearn import FlowClassifier, FlowImputer, FlowOutlierDetector, NormalizingFlow

MODEL = flows.AnySubset(hidden=(4,), num_bins=2)
QUICK = {"max_epochs": 1, "folds": 1, "random_state": 0}
rng = np.random.default_rng(0)
X = rng.normal(size=(120, 2)).astype(np.float32)
X[::3, 0] = np.nan
FRAME = pd.DataFrame({"town": np.where(rng.uniform(size=120) < 0.2, None, rng.choice(["Bonn", "Oslo"], 120)), "x": X[:, 0]})


@pytest.fixture(autouse=True)
def usual():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def fitted():
    return FlowImputer(MODEL, **QUICK).fit(X)


def test_gaps_of_arrays_are_filled_and_equal_rows_get_draws_of_their_own(fitted):
    filled = fitted.transform(X)
    there = ~np.isnan(X)
    assert filled.dtype == np.float32 and not np.isnan(filled).any() and (filled[there] == X[there]).all()
    rows = np.tile([[np.nan, 0.5]], (20, 1)).astype(np.float32)
    assert len(np.unique(fitted.transform(rows)[:, 0])) == 1
    drawing = pickle.loads(pickle.dumps(fitted)).set_params(sample_posterior=True)
    draws = drawing.transform(rows)[:, 0]
    assert len(np.unique(draws)) == 20 and (draws == drawing.transform(rows)[:, 0]).all()
    assert list(fitted.get_feature_names_out()) == ["x0", "x1"] and fitted.__sklearn_tags__().input_tags.allow_nan
    np.testing.assert_allclose(fitted.score_samples(X), fitted.table_.log_prob(fitted._frame(X)), rtol=1e-5, atol=1e-5)
    assert fitted.score_samples(np.full((1, 2), np.nan)).tolist() == [0.0]


@pytest.mark.parametrize("library", [pd.DataFrame, pl.from_pandas], ids=["pandas", "polars"])
def test_frames_have_categories_too(library):
    frame = library(FRAME)
    imputer = FlowImputer(MODEL, **QUICK).fit(frame)
    filled = imputer.transform(frame)
    assert type(filled) is type(frame) and set(filled["town"]) == {"Bonn", "Oslo"}
    assert list(imputer.get_feature_names_out()) == ["town", "x"]
    imputer.save(file := io.BytesIO())
    file.seek(0)
    loaded = FlowImputer.load(file)
    assert loaded.transform(frame).equals(filled) and loaded.get_params()["model"] == MODEL


def test_it_stands_in_a_pipeline_and_a_search():
    pipeline = make_pipeline(StandardScaler(), FlowImputer(MODEL, **QUICK))
    assert np.isfinite(pipeline.fit_transform(X)).all()
    search = GridSearchCV(FlowImputer(MODEL, **QUICK), {"sample_posterior": [False, True]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert clone(FlowImputer(sample_posterior=True)).sample_posterior and FlowImputer().model is None


def test_no_row_is_in_a_pickle(fitted):
    assert X[1].tobytes() not in pickle.dumps(fitted)


def test_outliers_are_rows_below_what_is_usual_for_what_they_have(fitted):
    detector = FlowOutlierDetector(0.1, MODEL, **QUICK).fit(X)
    far = np.array([[9.0, np.nan], [np.nan, 9.0], [0.0, np.nan], [np.nan, 0.0]], np.float32)
    assert detector.predict(far).tolist() == [-1, -1, 1, 1]
    frame, scores = fitted._frame(X), detector.table_.log_prob(detector._frame(X))
    held_out, usual = flows.tables.ranks.gap_scores(detector.table_.result)
    expected = scores - ~np.isnan(X) @ usual[:-1] - usual[-1]
    np.testing.assert_allclose(detector.score_samples(X), expected, atol=1e-4)
    assert detector.offset_ <= np.quantile(held_out, 0.1) + 1e-6 and len(frame) == 120
    assert np.isfinite(NormalizingFlow(MODEL, **QUICK).fit(X).score(X))


@pytest.mark.parametrize(
    ("estimator", "error"),
    [
        (FlowImputer(flows.Normal()), "model is Normal.*; expected one that takes gaps, flows.AnySubset"),
        (FlowImputer(MODEL, sample_posterior=2, **QUICK), "sample_posterior"),
        (NormalizingFlow(flows.Normal(), **QUICK), "NaN"),
    ],
)
def test_what_cannot_be_is_refused(estimator, error):
    with pytest.raises((ValueError, TypeError), match=error):
        estimator.fit(X).transform(X)


def test_a_classifier_names_the_table():
    with pytest.raises(flows.FlowsError, match=r"labels are a column of a table: .*conditional\(label, given\)"):
        FlowClassifier(MODEL).fit(np.ones((4, 1)), [0, 1, 0, 1])
