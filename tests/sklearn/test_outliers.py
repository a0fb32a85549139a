"""`FlowOutlierDetector`: how often it raises an alarm, for what, and by which scores."""

import pickle
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from frames import BOTH, GIVEN, NORMAL, QUICK, mixed

import flows
from flows import tables
from flows.sklearn import FlowOutlierDetector

pytestmark = pytest.mark.filterwarnings("ignore:.*the closed-form Gaussian")  # of fits of two epochs


@pytest.fixture(autouse=True)
def usual():
    """Columns and labels are worked on by scikit-learn, which is not written for strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize(
    ("rows", "model"),
    [(300, flows.Flow(flows.NSF(1, hidden=(32, 32), num_bins=4))), (2_200, NORMAL)],
    ids=["folds", "a share held out"],
)
def test_alarms_are_as_rare_as_promised_whatever_the_model(rows, model):
    """Two clusters, to which one Gaussian, or a flow that is hardly trained, is a bad model."""
    rng, rates = np.random.default_rng(0), []
    for split in range(20):
        X = rng.normal(size=(rows + 1_000, 2)) + 8.0 * rng.integers(0, 2, rows + 1_000)[:, None]
        detector = FlowOutlierDetector(0.05, model, max_epochs=1, random_state=split).fit(X[:rows])
        rates.append((detector.predict(X[rows:]) == -1).mean())
    held_out = len(np.ravel(detector.table_.result.scores))
    assert (held_out, np.ndim(detector.table_.result.scores)) == ((300, 2) if rows == 300 else (220, 1))
    error = np.sqrt(0.05 * 0.95 * (1 / held_out + 1 / 1_000) / 20)
    assert np.mean(rates) < 0.05 + 3 * error
    assert np.mean(rates) > (0.02 if rows < 2_000 else 0.05 - 1 / held_out - 3 * error)


def test_an_offset_by_hand():
    """Of 100 scores the tenth has 9 below it: 10 of the 101 with the new one are at most as usual."""
    scores = np.random.default_rng(0).permutation(100).astype(float)
    assert flows.sklearn.outliers.offset(scores, None, 0.1) == 9
    assert flows.sklearn.outliers.offset(scores, np.full(100, 3.0), 0.1) == 9


def test_offsets_are_conformal_quantiles_by_weights():
    frame = mixed(rows=400)
    detector = FlowOutlierDetector(0.1, GIVEN, **QUICK).fit(frame)
    result = detector.table_.result
    of_new = flows.sklearn.base.in_chunks(detector.table_, result.kept.x.reshape(-1, 3).astype(float), None)
    scores = np.sort(np.fmin(np.ravel(result.scores), of_new))
    assert detector.offset_ == scores[int(0.1 * (len(scores) + 1)) - 1]
    np.testing.assert_allclose(detector.decision_function(frame), detector.score_samples(frame) - detector.offset_)
    for weights in (np.ones(400), np.random.default_rng(0).integers(1, 4, 400).astype(float)):
        weighted = FlowOutlierDetector(0.1, GIVEN, **QUICK).fit(frame, sample_weight=weights).table_.result
        some = np.linspace(weighted.scores.min() - 1, weighted.scores.max(), 500)
        usual = weighted.p_values_of(np.stack([some] * len(np.atleast_2d(weighted.scores))))
        found = flows.sklearn.outliers.offset(np.ravel(weighted.scores), weighted.score_weights, 0.1)
        np.testing.assert_array_equal(some < found, usual <= 0.1)


@BOTH
def test_what_is_no_value_is_an_outlier(library):
    detector = FlowOutlierDetector(0.05, GIVEN, **QUICK).fit(mixed(library))
    rows = library({"town": ["Bonn", "Rome", "Bonn"], "guests": [9, 9, 9], "x": [0.0, 0.0, 0.0], "unit": ["kg", "kg", "lb"]})
    assert detector.predict(rows).tolist() == [1, -1, -1]
    assert detector.decision_function(rows)[1] == detector.score_samples(rows)[1] == -np.inf
    gap = library({"town": ["Bonn"] * 2, "guests": [9, 9], "x": [0.0, None], "unit": ["kg"] * 2})
    with pytest.raises(flows.FlowsError, match="column 'x', row 1, is a gap"):
        detector.predict(gap)
    with pytest.warns(UserWarning, match=r"no row can raise an alarm at alarm_rate=0.001, as 300 rows .* is 0.00332"):
        quiet = FlowOutlierDetector(0.001, GIVEN, **QUICK).fit(mixed(library))
    assert quiet.offset_ == -np.inf and quiet.predict(rows).tolist() == [1, -1, -1]
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.decision_function(rows), detector.decision_function(rows))


def test_a_value_that_one_row_alone_has_counts_as_an_outlier():
    """A new row with such a value has log p = -inf: that these are rare is to be counted, or there are too many alarms."""
    rng, flow = np.random.default_rng(0), flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4))
    X = np.concatenate([rng.normal(size=(200, 2)), np.zeros((200, 4))], 1)
    X[17, 2] = X[30, 3] = X[30, 4] = 1.0
    X[40:42, 5] = 1.0  # of two rows either would have been known by the other
    detector = FlowOutlierDetector(0.05, flow, max_epochs=1, random_state=0).fit(X)
    result = detector.table_.result
    scores, kept = np.ravel(result.scores), result.kept.x.reshape(200, -1)
    assert len(scores) == 200, "folds hold out all rows"
    alone = (kept[:, 2] == 1) | (kept[:, 3] == 1)
    assert alone.sum() == 2
    usual = np.fmin(scores, flows.sklearn.base.in_chunks(detector.table_, kept.astype(float), None))
    assert detector.offset_ == np.sort(usual[~alone])[int(0.05 * 201) - 1 - 2]
    with pytest.warns(UserWarning, match=r"1.00% have a value that no other row has.* more than alarm_rate=0.008"):
        assert flows.sklearn.outliers.offset(np.where(alone, -np.inf, scores), None, 0.008) == -np.inf
    frame = pd.DataFrame(rng.normal(size=(200, 8)), columns=list("abcdefgh")).assign(
        town=["Rome", *["Bonn", "Oslo"] * 99, "Bonn"]
    )
    frame.loc[0, list("abcdefgh")] = 0.0  # the likeliest numbers, so that its score is none of the least
    for weights, count in ((None, 1), (np.arange(200) > 0, 0)):
        detector = FlowOutlierDetector(0.1, flow, max_epochs=1, random_state=0).fit(frame, sample_weight=weights)
        result = detector.table_.result
        kept = result.kept.x.reshape(-1, 9)
        alone = detector._alone(kept, frame, weights)
        usual = np.fmin(np.ravel(result.scores), flows.sklearn.base.in_chunks(detector.table_, kept.astype(float), None))
        assert alone.sum() == count and (usual[alone] > np.sort(usual)[20]).all()
        assert detector.offset_ == np.sort(usual[~alone])[int(0.1 * (len(usual) + 1)) - 1 - count]


def test_a_value_that_one_row_alone_has_counts_as_a_score_below_all(monkeypatch):
    """The score is the first column; rows 17 and 30 alone have a value of another one, rows 40 and 41 share theirs."""
    x = np.concatenate([np.random.default_rng(0).permutation(60.0 + np.arange(60))[:, None], np.zeros((60, 3))], 1)
    x[[17, 30], [1, 2]] = x[[40, 41], 3] = 1.0
    x[[17, 30], 0] = 200.0, 201.0

    def fitted(self, frame, schema, weights, groups, order, folds):
        rows = schema.encode(frame)
        result = SimpleNamespace(log_prob=lambda x, context: x[:, 0], scores=rows[:, 0], score_weights=weights)
        result.kept, result.context_dim, result.init_fun = SimpleNamespace(x=rows, context=None), 0, None
        self.table_ = tables.TableResult(schema, result)

    monkeypatch.setattr(FlowOutlierDetector, "_fit", fitted)
    detector = FlowOutlierDetector(0.1).fit(x)
    scores = detector.score_samples(x)
    usual = np.sort(np.delete(scores, [17, 30]))
    assert len(set(scores)) == 60 and detector.offset_ == usual[int(0.1 * 61) - 1 - 2]


def test_alarms_are_rare_in_a_table_of_few_values_too():
    """All rows of a category have one score: the promise is kept for it as a whole, or broken for it as a whole."""
    for split in range(3):
        rng = np.random.default_rng(split)
        frame = pd.DataFrame({"c": rng.choice(["A", "B"], 600, p=[0.9, 0.1])})
        detector = FlowOutlierDetector(0.07, max_epochs=20, random_state=split).fit(frame)
        assert np.ndim(detector.table_.result.scores) == 2, "folds, whose members differ"
        assert detector.predict(pd.DataFrame({"c": ["A", "B"]})).tolist() == [1, 1]


@flows.distribution
def Unsolved():
    """NaN where the first column is large."""
    inside = flows.Normal(trainable=True)

    def init_fun(rng, shape):
        params, log_pdf, sample = inside(rng, shape)

        def log_pdf_of(params, x):
            return jnp.where(x[0] > 4.0, jnp.nan, log_pdf(params, x[None])[0])

        return params, log_pdf_of, lambda rng, params: sample(rng, params, 1)[0]

    return init_fun


def test_a_row_that_is_not_solved_is_told():
    rows = np.random.default_rng(0).normal(size=(300, 2))
    detector = FlowOutlierDetector(0.05, Unsolved(), **QUICK).fit(rows)
    with pytest.warns(UserWarning, match="log p of 1 of 2 rows is NaN"):
        assert detector.predict([[99.0, 0.0], [0.0, 0.0]]).tolist() == [-1, 1]
    again = pickle.loads(pickle.dumps(detector.set_params(model=NORMAL)))
    assert again.table_.result.init_fun == detector.table_.result.init_fun, "constructors of what was fitted go with it"
