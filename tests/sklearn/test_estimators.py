"""The estimators on frames and arrays: scores, draws, classes, alarms, pickles and files, and what they refuse."""

import functools
import io
import pickle
import re
import warnings

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from frames import BOTH, GIVEN, NORMAL, QUICK, mixed
from scipy import stats
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flows
from flows import tables
from flows.sklearn import FlowClassifier, FlowOutlierDetector, NormalizingFlow

pytestmark = pytest.mark.filterwarnings("ignore:.*the closed-form Gaussian")  # of fits of two epochs


@pytest.fixture(autouse=True)
def usual():
    """Columns and labels are worked on by scikit-learn, which is not written for strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def fitted(library=pd.DataFrame, weighted=False):
    weights = np.random.default_rng(1).uniform(size=300) if weighted else None
    return NormalizingFlow(GIVEN, **QUICK).fit(mixed(library), sample_weight=weights)


@BOTH
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
def test_frames_are_scored_and_drawn_as_tables_are(library, weighted):
    estimator, frame = fitted(library, weighted), mixed(library)
    scores = estimator.score_samples(frame)
    np.testing.assert_allclose(scores, estimator.table_.log_prob(frame), rtol=1e-5, atol=1e-5)
    assert scores.dtype == np.float64 and estimator.score(frame) == scores.mean()
    np.testing.assert_array_equal(estimator.p_value(frame), estimator.table_.p_value(frame))
    drawn = estimator.sample(5, random_state=3)
    assert (
        isinstance(drawn, library) and list(drawn.columns) == ["town", "guests", "x", "unit"] and set(drawn["unit"]) == {"kg"}
    )
    assert list(estimator.feature_names_in_) == list(frame.columns) and estimator.n_features_in_ == 4 and estimator.n_iter_ == 2
    weights = estimator.table_.result.score_weights
    assert (weights is not None) == weighted, "weights count in the scores held out"


def test_scores_do_not_depend_on_the_rows_beside(monkeypatch):
    frame, sizes = mixed(rows=700, seed=2), set()
    whole, log_prob = fitted().score_samples(frame), flows.FitResult.log_prob

    def spied(self, x, **keywords):
        sizes.add(len(x))
        return log_prob(self, x, **keywords)

    monkeypatch.setattr(flows.FitResult, "log_prob", spied)
    for places in ([0], [699], range(255), range(257)):
        np.testing.assert_array_equal(fitted().score_samples(frame.iloc[list(places)]), whole[list(places)])
    assert sizes == {256}, "one program for any number of rows"


def test_columns_of_an_array_are_numbers_with_their_steps():
    rng = np.random.default_rng(0)
    X = np.stack([rng.integers(0, 3, 300), rng.normal(size=300).round(1), rng.normal(size=300), np.full(300, 7.0)], 1)
    estimator = NormalizingFlow(NORMAL, **QUICK).fit(X)
    kinds = [tables.Real(step=1.0), tables.Real(step=0.1), tables.Real(), tables.Constant(7.0)]
    assert list(estimator.table_.schema.kinds.values()) == kinds and not hasattr(estimator, "feature_names_in_")
    drawn = estimator.sample(50, random_state=0)
    assert isinstance(drawn, np.ndarray) and drawn.shape == (50, 4) and (drawn[:, 3] == 7).all()
    np.testing.assert_allclose(drawn[:, 1], drawn[:, 1].round(1), atol=1e-12)
    nameless = NormalizingFlow(NORMAL, **QUICK).fit(pd.DataFrame(X))
    np.testing.assert_array_equal(nameless.score_samples(pd.DataFrame(X)), estimator.score_samples(X))
    assert isinstance(nameless.sample(2), pd.DataFrame)
    whole = NormalizingFlow(NORMAL, **QUICK).fit(X[:, :1].astype(np.int32)).sample(3)
    assert whole.dtype == np.int32
    coded = NormalizingFlow(schema=tables.Schema({0: tables.Category()}), **QUICK).fit(X[:, :1])
    assert coded.table_.schema.codes == ("0",) and set(np.unique(coded.sample(50))) <= {0.0, 1.0, 2.0}
    texts = NormalizingFlow(schema=tables.Schema({0: tables.Category()}), **QUICK).fit(np.array([["a"], ["b"]] * 20, object))
    assert set(np.unique(texts.sample(50))) == {"a", "b"}


def test_contributions_are_those_of_the_table():
    frame = mixed(rows=5, seed=3)
    found = fitted().contributions(frame)
    pd.testing.assert_frame_equal(found, fitted().table_.contributions(frame, verbose=0))
    assert list(found.columns) == ["town", "guests", "x"]
    ranks = fitted().p_value(frame, by="columns")
    np.testing.assert_array_equal(ranks, fitted().table_.p_value(frame, by="columns", verbose=0))
    X = np.random.default_rng(0).normal(size=(300, 2)) @ np.array([[1.0, 2.0], [0.0, 0.5]])
    X = np.insert(X, 1, 7.0, axis=1)
    of_array = NormalizingFlow(NORMAL, **QUICK).fit(X).contributions(X[:4])
    np.testing.assert_allclose(of_array[:, 1], 0)
    others = X[:, [0, 1]]
    slopes = np.linalg.lstsq(others, X[:, 2])[0]
    expected = stats.norm(others @ slopes, (X[:, 2] - others @ slopes).std()).logpdf(X[:, 2])
    np.testing.assert_allclose(of_array[:, 2], expected[:4], atol=0.1)


@BOTH
def test_pickles_clones_and_files_have_no_rows(library, tmp_path):
    estimator, frame = fitted(library, True), mixed(library)
    text = pickle.dumps(estimator)
    again = pickle.loads(text)
    np.testing.assert_array_equal(again.score_samples(frame), estimator.score_samples(frame))
    np.testing.assert_array_equal(again.p_value(frame), estimator.p_value(frame))
    estimator.save(tmp_path / "model")
    loaded = NormalizingFlow.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.score_samples(frame), estimator.score_samples(frame))
    assert loaded.get_params() == estimator.get_params() and loaded.n_iter_ == 2 and loaded.n_features_in_ == 4
    assert list(loaded.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(tables.load(tmp_path / "model").log_prob(frame[:3]), estimator.table_.log_prob(frame[:3]))
    assert isinstance(loaded.sample(1), library)
    stored = (tmp_path / "model").read_bytes()
    x = np.sort(frame["x"])
    for values in (x[1:], x[1:] - x[0]):  # numbers count from the least one
        for value in values:
            held = [np.float64(value).tobytes(), np.float32(value).tobytes(), str(value).encode()]
            assert not any(one in text or one in stored for one in held)
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params() and not hasattr(copy, "table_")


def test_a_layer_of_the_users_own_is_found_again():
    @flows.distribution
    def Shifted(by=0.5):
        inside = flows.Normal(trainable=True)

        def init_fun(rng, shape):
            params, log_pdf, sample = inside(rng, shape)

            def log_pdf_of(params, x):
                return log_pdf(params, x[None] - by)[0]

            return params, log_pdf_of, lambda rng, params: sample(rng, params, 1)[0] + by

        return init_fun

    X = np.random.default_rng(0).normal(size=(300, 2))
    estimator = NormalizingFlow(Shifted(), **QUICK).fit(X)
    state = estimator.__getstate__()
    other = NormalizingFlow()
    other.__setstate__(state)
    np.testing.assert_array_equal(other.score_samples(X), estimator.score_samples(X))
    estimator.save(file := io.BytesIO())
    loaded = NormalizingFlow.load(io.BytesIO(file.getvalue()), constructors=[Shifted])
    assert loaded.model == Shifted()


def test_grids_folds_and_pipelines_and_one_seed_gives_one_fit():
    X = np.random.default_rng(0).normal(size=(300, 2)) @ np.array([[1.0, 2.0], [0.0, 0.5]])
    estimator = NormalizingFlow(NORMAL, **QUICK)
    first, second = (clone(estimator).fit(X).score_samples(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    folds = KFold(3)
    scores = cross_val_score(estimator, X, cv=folds)
    assert (abs(scores - stats.multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(X).mean()) < 0.2).all()
    search = GridSearchCV(estimator, {"model": [flows.Laplace(), NORMAL]}, cv=folds).fit(X)
    assert search.best_estimator_.model == NORMAL and search.best_score_ == scores.mean()
    scaled = make_pipeline(StandardScaler(), estimator).fit(X)
    np.testing.assert_allclose(scaled.score_samples(X), first - np.log(X.std(0)).sum() * -1, atol=0.05)


@pytest.mark.parametrize("library", [np.array, pd.DataFrame])
def test_groups_and_order_of_rows_are_held_out(library):
    """As scikit-learn passes them: to `fit`, and to a splitter of groups."""
    groups, y = np.arange(300) % 30, np.arange(300) // 30 % 2
    X = library(np.random.default_rng(0).normal(size=(300, 2)))
    estimators = NormalizingFlow(NORMAL, **QUICK), FlowOutlierDetector(0.2, NORMAL, **QUICK), FlowClassifier(GIVEN, **QUICK)
    for estimator in estimators:
        estimator.fit(X, y, groups=groups)
        assert re.search(r"of \d+ rows of \d+ groups held out", repr(estimator.table_.result))
        assert "of the last 30 rows held out" in repr(estimator.fit(X, y, order=np.arange(300)).table_.result)
    grouped = cross_val_score(estimators[0], X, groups=groups, cv=GroupKFold(2), params={"groups": groups})
    assert (grouped != cross_val_score(estimators[0], X, groups=groups, cv=GroupKFold(2))).all()
    with pytest.raises(flows.FlowsError, match="groups has shape"):
        estimators[0].fit(X, groups=groups[1:])


@BOTH
def test_folds_and_grids_of_frames_with_weights(library):
    frame, weights = mixed(library), np.random.default_rng(1).uniform(size=300)
    estimator, folds = NormalizingFlow(GIVEN, **QUICK), KFold(2)
    scores = cross_val_score(estimator, frame, cv=folds, params={"sample_weight": weights})
    search = GridSearchCV(estimator, {"learning_rate": [0.01]}, cv=folds).fit(frame, sample_weight=weights)
    assert search.best_score_ < 0 and isinstance(search.best_estimator_.sample(1), library)
    found = search.best_estimator_.score_samples(frame)
    assert search.score(frame) == found.mean() != search.best_estimator_.score(frame, sample_weight=weights)
    np.testing.assert_allclose(search.best_estimator_.score(frame, sample_weight=weights), found @ weights / weights.sum())
    even = cross_val_score(estimator, frame, cv=folds)
    assert (even != scores).all() and np.abs(even - scores).max() < 0.5


@pytest.mark.slow
def test_workers_give_the_same_scores():
    X = np.random.default_rng(0).normal(size=(300, 2))
    one, two = (cross_val_score(NormalizingFlow(NORMAL, **QUICK), X, cv=3, n_jobs=jobs) for jobs in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_a_second_fold_compiles_nothing(caplog):
    frame = mixed(rows=530)  # as no other test has
    schema = tables.infer_schema(frame)
    estimator = NormalizingFlow(GIVEN, schema=schema, **QUICK)
    with jax.log_compiles():
        halves = [frame.iloc[places] for _, places in KFold(2).split(frame)]
        for count, half in enumerate(halves):
            caplog.clear()
            clone(estimator).fit(half).score_samples(half)
            compiled = [each.message for each in caplog.records if "Compiling" in each.message]
            assert count or compiled, "the test cannot see compilations"
    assert not compiled, compiled


def test_classes_are_those_of_the_densities_by_the_rule_of_bayes():
    rng = np.random.default_rng(0)
    labels = rng.choice(["left", "right"], 600, p=[0.3, 0.7])
    X = rng.normal(size=(600, 2)) + np.where(labels == "right", 1.0, -1.0)[:, None]
    estimator = FlowClassifier(GIVEN, max_epochs=60, random_state=0).fit(X, labels)
    assert estimator.classes_.tolist() == ["left", "right"]
    np.testing.assert_allclose(estimator.priors_, [(labels == "left").mean(), (labels == "right").mean()])
    found, frame = estimator.predict_proba(X), pd.DataFrame(X, columns=["0", "1"])
    joint = [estimator.table_.log_prob(frame.assign(label=k)) + np.log(estimator.priors_[k]) for k in range(2)]
    np.testing.assert_allclose(found, softmax(joint, axis=0).T, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(np.exp(estimator.predict_log_proba(X)), found)
    assert estimator.score(X, labels) == (estimator.classes_[found.argmax(1)] == labels).mean() > 0.85
    even = FlowClassifier(GIVEN, priors=[0.5, 0.5], max_epochs=60, random_state=0).fit(X, labels)
    shift = np.log(found / even.predict_proba(X))
    np.testing.assert_allclose(shift[:, 1] - shift[:, 0], np.log(estimator.priors_[1] / estimator.priors_[0]), atol=1e-3)
    weights = np.where(labels == "left", 2.0, 1.0)
    weighted = FlowClassifier(GIVEN, max_epochs=2, random_state=0).fit(X, labels, sample_weight=weights)
    np.testing.assert_allclose(weighted.priors_, np.bincount(labels == "right", weights) / weights.sum())
    with pytest.warns(UserWarning, match="1 of 2 rows have no density in any class"):
        np.testing.assert_allclose(estimator.predict_proba([[0.0, 0.0], [1e30, 0.0]])[1], estimator.priors_)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict_proba(X), found)


@BOTH
def test_frames_of_all_kinds_are_classified(library):
    frame = mixed(library)
    rows = frame[["guests", "x", "unit"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = FlowClassifier(GIVEN, max_epochs=20, random_state=0).fit(rows, frame["town"])
    assert estimator.score(rows, frame["town"]) > 0.75
    assert "unit" not in estimator.table_.schema.constants, "a constant tells nothing of labels"
    label = library({"label": np.asarray(frame["x"])})
    assert FlowClassifier(GIVEN, **QUICK).fit(label, frame["town"]).table_.schema.condition == ("label_",)


def test_a_model_that_is_made_of_rows_is_told(tmp_path):
    estimator = NormalizingFlow(flows.KernelDensity(), **QUICK).fit(np.random.default_rng(0).normal(size=(300, 2)))
    for keep in (lambda: pickle.dumps(estimator), lambda: estimator.save(tmp_path / "model")):
        with pytest.warns(UserWarning, match=r"KernelDensity, whose file holds up to [0-9,]+ rows"):
            keep()


def test_arrays_of_all_dtypes_and_options_of_numpy(tmp_path):
    rows = np.random.default_rng(0).normal(size=(300, 2)).round(1)
    plain = NormalizingFlow(NORMAL, **QUICK).fit(rows).score_samples(rows)
    for dtype in (">f8", np.longdouble):
        np.testing.assert_array_equal(NormalizingFlow(NORMAL, **QUICK).fit(rows.astype(dtype)).score_samples(rows), plain)
    far = np.arange(300, dtype=np.uint64)[:, None] * 10**15 + 2**63
    assert np.ptp(NormalizingFlow(NORMAL, **QUICK).fit(far).sample(9)) > 10**15
    estimator = NormalizingFlow(NORMAL, max_epochs=np.int64(2), minutes=np.float32(1), random_state=np.int64(0)).fit(rows)
    estimator.save(tmp_path / "model")
    loaded = NormalizingFlow.load(tmp_path / "model")
    assert loaded.get_params() == {**estimator.get_params(), "max_epochs": 2, "minutes": 1.0, "random_state": 0}
    assert estimator.score_samples([[1e300, 0.0]]) < -1e30, "without a warning"


X, Y = np.random.default_rng(0).normal(size=(20, 2)), np.array([0, 1] * 10)
HERE = mixed()


def closed():
    file = io.BytesIO()
    file.close()
    return file


GAP = HERE.assign(x=HERE["x"].where(HERE.index > 0))


def test_a_lazy_frame_is_collected():
    with pytest.warns(UserWarning, match=f"X is lazy, of polars: its {len(HERE)} rows were collected"):
        scores = fitted().score_samples(pl.from_pandas(HERE).lazy())
    np.testing.assert_array_equal(scores, fitted().score_samples(HERE))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "y has 1 class, ", lambda: FlowClassifier(GIVEN).fit(X, np.zeros(20))),
        (ValueError, "the class .*2.* has 1 rows", lambda: FlowClassifier(GIVEN).fit(X, [2] + [0] * 9 + [1] * 10)),
        (ValueError, "expected 2 numbers, 0 or more", lambda: FlowClassifier(GIVEN, priors=[0.2, 0.3, 0.5]).fit(X, Y)),
        (ValueError, "expected 2 numbers, 0 or more", lambda: FlowClassifier(GIVEN, priors=[0.5, 0.6]).fit(X, Y)),
        (TypeError, "a number for each class", lambda: FlowClassifier(GIVEN, priors="even").fit(X, Y)),
        (ValueError, "the target y is None", lambda: FlowClassifier(GIVEN).fit(X, None)),
        (TypeError, "give a model that takes one", lambda: FlowClassifier(NORMAL).fit(X, Y)),
        (ValueError, "minutes is 'x'", lambda: NormalizingFlow(NORMAL, minutes="x").fit(X)),
        (ValueError, "cannot be sorted|unknown", lambda: FlowClassifier(GIVEN).fit(X, np.array([None, "a"] * 10, object))),
        (TypeError, "masked array", lambda: NormalizingFlow(NORMAL).fit(np.ma.masked_greater(X, 1))),
        (ValueError, "no finite number", lambda: NormalizingFlow(NORMAL).fit(pd.DataFrame({0: Y * 1.0, 1: np.nan}))),
        (ValueError, "open for writing", lambda: fitted().save(closed())),
        (ValueError, "open for reading", lambda: NormalizingFlow.load(closed())),
        (ValueError, "alarm_rate is 0", lambda: FlowOutlierDetector(0).fit(X)),
        (ValueError, "alarm_rate is 0.6", lambda: FlowOutlierDetector(0.6).fit(X)),
        (ValueError, "alarm_rate is '5%'", lambda: FlowOutlierDetector("5%").fit(X)),
        (ValueError, "0 in all rows|one non-zero number", lambda: NormalizingFlow().fit(HERE, sample_weight=np.zeros(300))),
        (ValueError, "Negative values", lambda: NormalizingFlow().fit(X, sample_weight=-np.ones(20))),
        (ValueError, "names should match", lambda: fitted().score_samples(HERE.rename(columns={"x": "y"}))),
        (ValueError, "was fitted to a frame; expected a frame", lambda: fitted().score_samples(np.zeros((2, 4)))),
        (NotFittedError, "not fitted yet", lambda: NormalizingFlow().sample()),
        (NotFittedError, "not fitted yet", lambda: NormalizingFlow().contributions(X)),
        (NotFittedError, "not fitted yet", lambda: NormalizingFlow().save("model")),
        (ValueError, "n_samples", lambda: fitted().sample(0)),
        (ValueError, "lacks 'z'", lambda: NormalizingFlow(schema=tables.Schema({"z": tables.Real()})).fit(HERE)),
        (ValueError, "lacks '2'", lambda: NormalizingFlow(schema=tables.Schema({j: tables.Real() for j in range(3)})).fit(X)),
        (TypeError, "schema is a dict", lambda: NormalizingFlow(schema={"x": tables.Real()}).fit(X)),
        (ValueError, "has the condition", lambda: NormalizingFlow(schema=tables.infer_schema(HERE, ["town"])).fit(HERE)),
        (ValueError, "column 'x', row 0, is a gap", lambda: fitted().score_samples(HERE.assign(x=np.nan))),
        (ValueError, "column 'town', row 0, is 'Rome'", lambda: fitted().score_samples(HERE.assign(town="Rome"))),
        (ValueError, "column 'x', row 0, is a gap", lambda: NormalizingFlow(GIVEN).fit(GAP)),
        (ValueError, "contains NaN", lambda: NormalizingFlow().fit(np.full((20, 2), np.nan))),
        (TypeError, "model is 'nsf'", lambda: NormalizingFlow("nsf").fit(X)),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_a_file_that_is_none_is_refused(tmp_path):
    fitted().table_.save(tmp_path / "table")
    with pytest.raises(flows.FlowsError, match=r"holds a table, and no estimator"):
        NormalizingFlow.load(tmp_path / "table")
    fitted().save(tmp_path / "estimator")
    right = tables.load(tmp_path / "estimator").metadata["estimator"]
    faults = [
        ("model", {"one": {"constructor": "os"}}), ("model", {"one": 5}), ("features", 99), ("features", -1),
        ("features", 1e308),
        ("names", ["q"] * 4), ("names", "town"), ("array", "no"), ("max_epochs", "os"), ("minutes", -1.0), ("iterations", None),
        ("random_state", {"a": 1}), ("schema", 5),
    ]  # fmt: skip
    for told in ({}, 3, *({**right, name: value} for name, value in faults)):
        fitted().table_.save(tmp_path / "table", {"estimator": told})
        with pytest.raises(flows.FlowsError, match="holds no estimator that can be read"):
            NormalizingFlow.load(tmp_path / "table")


@pytest.mark.parametrize("option", ["max_epochs", "learning_rate", "weight_decay", "patience", "folds", "batch_size"])
def test_options_of_fit_are_parameters(monkeypatch, option):
    handed = {}

    def fit(*_, **keywords):
        handed.update(keywords)
        raise InterruptedError

    monkeypatch.setattr(flows.tables, "fit", fit)
    rows = np.random.default_rng(0).normal(size=(40, 2))
    for estimator in (NormalizingFlow(NORMAL), FlowOutlierDetector(model=NORMAL), FlowClassifier(NORMAL)):
        for value in (7, None):
            handed.clear()
            with pytest.raises(InterruptedError):
                clone(estimator).set_params(**{option: value}).fit(rows, np.arange(40) % 2)
            assert handed.get(option) == value
