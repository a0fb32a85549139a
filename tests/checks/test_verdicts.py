"""p-values and sizes by hand, and the verdicts that follow."""

import numpy as np
import pytest
from triples import density, normal, triple

import flows
from flows.checks.verdicts import Finding, OneTest, judged, worst
from flows.diagnostics import holm, uniformity
from flows.results import FitResult
from flows.results.held_out import Kept

RIGHT = normal()
ROWS = np.random.default_rng(0).normal(size=(400, 2))


def test_columns_and_coverage_by_hand():
    """Ranks among 500 draws: what they share counts in every p-value, and the least is one of two."""
    checks = flows.check(RIGHT, ROWS, only=["columns", "coverage"], samples=500, level=0.001)
    rows, draws = checks.arrays["rows"], checks.arrays["draws"]
    assert rows.shape == (400, 2) and draws.shape == (500, 2)
    told = uniformity((draws < rows[:, None]).sum(1), 500, shared=True)
    np.testing.assert_array_equal(checks.arrays["ranks"], (draws < rows[:, None]).sum(1))
    of_rows, of_draws = ((each.astype(np.float32).astype(float) ** 2).sum(1) for each in (rows, draws))
    covered = uniformity((of_draws < of_rows[:, None]).sum(1), 500, shared=True)
    p = holm([2 * told.p.min(), covered.p])
    np.testing.assert_allclose([checks["columns"].p, checks["coverage"].p], np.minimum(p, 1), rtol=1e-6)
    np.testing.assert_allclose([checks["columns"].size, checks["coverage"].size], [told.size.max(), covered.size], rtol=1e-6)


def test_verdicts():
    findings = {
        "a": Finding("", 0.04, 0.004),
        "b": Finding("", 0.01, 0.004),
        "c": Finding("", 0.5, 0.006),
        "d": Finding("no reason"),
        "e": Finding("", 2e-3),
        "f": Finding("", 5e-4),
        "g": Finding("", 0.0, minor=True),
        "h": Finding("", 0.0),
    }
    tolerances = {**dict.fromkeys(findings, 1e-3), "a": 0.03, "b": 0.03, "c": 0.03}
    told = judged(findings, tolerances, 0.015)
    assert [each.verdict for each in told.values()] == [
        "FAIL",
        "small",
        "FAIL",
        "cannot tell",
        "FAIL",
        "small",
        "small",
        "pass",
    ]
    assert [each.p for each in told.values()][:4] == pytest.approx([0.012, 0.012, 0.012, None])
    assert [each.verdict for each in judged(findings, tolerances, 0.012).values()][:3] == ["pass"] * 3


def test_the_column_that_is_wrong_is_named():
    def told(ps, sizes):
        return worst([OneTest(p, size, name) for p, size, name in zip(ps, sizes, "abc", strict=False)], "of {0.name}")

    assert told([0.4, 1e-6], [0.2, 0.05]) == ("of b", 0.05, 2e-6, False), "0.2 is chance"
    assert told([1e-6, 1e-5, 0.5], [0.04, 0.05, 0.9])[:2] == ("of b", 0.05), "the largest of those that are not"
    assert told([0.5, 0.2], [0.2, 0.1])[:3] == ("of b", 0.1, 0.4)
    assert told([0.0, 0.0], [0.3, 0.4])[:3] == ("of b", 0.4, 0.0)


def test_a_posterior_that_is_right_passes():
    context = 3 * np.random.default_rng(1).normal(size=(400, 2))
    asked = ["coverage", "ranks", "tarp", "normalisation", "sampler"]
    posterior = normal(loc=lambda c: c, scale=np.array([0.5, 2.0]))
    told = flows.check(posterior, context + [0.5, 2.0] * ROWS, context=context, only=asked)
    assert told.passed and {each.verdict for each in told.values()} == {"pass"}, told
    assert told.arrays["draws"].shape == (400, 99, 2) and told.figures["draws"] == 400 * 99


def test_equal_scores_are_ranked_at_random():
    def log_p(x, context):
        return np.where((np.abs(x) < 1).all(1), -np.log(4), -np.inf)

    uniform = triple(log_p, lambda random, n, context: random.uniform(-1, 1, size=(n, 2)))
    rows = np.random.default_rng(2).uniform(-1, 1, size=(800, 2))
    assert flows.check(FitResult(*uniform, None, 2, kept=Kept(rows[400:])), rows[:400], only="shift").passed


def test_scores_of_a_fit_with_weights_and_of_folds():
    """Held-out rows twice as wide, with the weights that make them like the others; and folds, each of another member."""
    wide, log_pdf = 2 * np.random.default_rng(3).normal(size=(1_500, 2)), normal()
    weights = np.exp(-0.375 * np.square(wide).sum(1))
    assert flows.check(FitResult(*log_pdf, None, 2, kept=Kept(wide, None, weights)), ROWS, only="shift")["shift"].p > 0.01
    assert flows.check(FitResult(*log_pdf, None, 2, kept=Kept(wide)), ROWS, only="shift")["shift"].verdict == "FAIL"
    few = np.where(np.arange(1_500) < 5, 1.0, 0.0)
    told = flows.check(FitResult(*log_pdf, None, 2, kept=Kept(wide, None, few)), ROWS, only="shift")["shift"]
    assert told.verdict == "cannot tell" and told.detail == "5 rows held out"
    memory = density(ROWS[:50], 0.1)
    assert flows.check(FitResult(*memory, None, 2, kept=Kept(ROWS[50:200])), ROWS[200:], only="shift").passed
