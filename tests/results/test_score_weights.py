"""Anomalies after a fit with weights: scores of rows held out count by their weights, also after a file."""

import jax
import numpy as np
import pytest
from common import AFFINE, QUICK, ROWS

import flows
from flows.training import fit
from flows.training.data.table import Rows
from flows.training.fitting import kept_of

FRESH = np.random.default_rng(1).normal(size=(200, 2))


@pytest.fixture(scope="module")
def weighted():
    """Rows of a normal twice as wide, with the weights that make them those of a standard one."""
    rows = 2 * np.random.default_rng(0).normal(size=(2000, 2))
    return fit(0, AFFINE, rows, weights=np.exp(-0.375 * np.square(rows).sum(1)), validation=0.5, folds=1, **QUICK)


def test_scores_count_by_the_weights_of_their_rows(weighted):
    scores, w = weighted.scores, weighted.score_weights
    assert w.shape == scores.shape == (1000,) and len(np.unique(w)) == 1000
    np.testing.assert_allclose(w / w.max(), (each := np.exp(-0.375 * np.square(weighted.kept.x).sum(1))) / each.max())
    x = np.random.default_rng(1).normal(size=(500, 2))
    own, total = np.asarray(weighted.log_prob(x), float), w.sum()
    of_x = np.square(w).sum() / total
    expected = [(of_x + w[scores <= score].sum()) / (of_x + total) for score in own]
    np.testing.assert_allclose(weighted.p_value(x), expected, rtol=1e-9)
    effective = total**2 / np.square(w).sum()
    assert weighted.history["effective"] == pytest.approx(effective) and 350 < effective < 550  # 7 / 16 of 1,000
    np.testing.assert_allclose(weighted.p_value([[90.0, 0.0]]), 1 / (1 + effective))
    assert f"of 1,000 rows held out, as good as {effective:.0f} of equal weight" in repr(weighted)


def test_shares_of_rows_drawn_by_weight_are_those_that_are_asked_for():
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = 2 * rng.normal(size=(600, 2))
        result = fit(seed, AFFINE, rows, weights=np.exp(-0.375 * np.square(rows).sum(1)), validation=0.5, folds=1, **QUICK)
        found.append(result.p_value(rng.normal(size=(300, 2))))
    for share in (0.05, 0.1, 0.5):
        assert abs((np.concatenate(found) <= share).mean() - share) < 0.02


def test_of_many_rows_those_that_are_kept_stand_for_all():
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(9000, 1)), rng.normal(size=(9000, 2)), np.exp(2 * rng.normal(size=9000)))
    kept = kept_of(rows, 500)
    assert kept.x.shape == (500, 1) and kept.context.shape == (500, 2) and kept.weights.shape == (500,)
    for part in (lambda x: x < 0, lambda x: x > 1):
        expected = rows.weights[part(rows.x[:, 0])].sum()
        assert kept.weights[part(kept.x[:, 0])].sum() == pytest.approx(expected, rel=0.12)
    largest = np.argsort(rows.weights)[-20:]
    assert np.isin(rows.x[largest], kept.x).all(), "those that count most are all kept, as they are"
    assert np.isin(rows.weights[largest], kept.weights).all()
    alike = kept_of(rows._replace(weights=np.full(9000, 0.5)), 500)
    assert np.ptp(alike.weights) == 0 and alike.weights.sum() == pytest.approx(4500, rel=0.1)
    few = kept_of(rows, 10_000)
    np.testing.assert_array_equal(few.x, rows.x)
    np.testing.assert_array_equal(few.weights, rows.weights)


def saved(result, path):
    result.save(path)
    return path


def test_weights_of_scores_come_back_from_a_file(weighted, path):
    of_folds = fit(0, AFFINE, ROWS, weights=1 + np.arange(300.0), folds=3, **QUICK)
    assert of_folds.score_weights.shape == of_folds.scores.shape == (3, 100)
    for result in (weighted, of_folds):
        loaded = flows.load(saved(result, path))
        np.testing.assert_array_equal(loaded.p_value(FRESH), result.p_value(FRESH))
        assert repr(loaded).splitlines()[2] == repr(result).splitlines()[2]
        moved = jax.tree.map(lambda leaf: leaf + 0.1, result)
        np.testing.assert_array_equal(moved.score_weights, result.score_weights)
        before = path.read_bytes()
        loaded.save(path)
        assert path.read_bytes() == before
    each = np.asarray(of_folds.log_pdfs(of_folds.params, FRESH), float)
    w, scores = of_folds.score_weights, of_folds.scores
    of_x = np.square(w).sum() / w.sum()
    below = sum((own[:, None] <= score[None]).T @ weight for own, score, weight in zip(scores, each, w, strict=True))
    np.testing.assert_allclose(of_folds.p_value(FRESH), (of_x + below) / (of_x + w.sum()), rtol=1e-9)
