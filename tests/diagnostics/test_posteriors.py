"""SBC and TARP: right posteriors pass; those that are too wide, or ignore the context, do not."""

import numpy as np
import pytest
from common import error_of
from scipy import stats

from flows.diagnostics import sbc, tarp


def posterior(seed, rows=600, draws=99, width=1.0, ignored=False, noise=1.0):
    """Rows = context + noise, draws of their posterior, and the context."""
    rng = np.random.default_rng(seed)
    context, errors = rng.normal(size=(rows, 2)), noise * rng.normal(size=(rows, draws + 1, 2))
    prior = np.sqrt(1 + noise**2) / noise
    return context + errors[:, 0], prior * errors[:, 1:] if ignored else context[:, None] + width * errors[:, 1:], context


def test_right_posteriors_pass():
    for check in tarp, sbc:
        ps = [check(rows, draws, context=context).p for rows, draws, context in map(posterior, range(10, 25))]
        assert np.mean(np.array(ps) < 0.05) < 0.25, check.__name__


def test_what_is_too_wide_is_found():
    rows, draws, context = posterior(0, width=1.3)
    ball, column = tarp(rows, draws, context=context), sbc(rows, draws)
    assert ball.p < 1e-4 and 0.08 < ball.size < 0.2 and ball.terms[0] < 0, "rows are nearer than draws"
    assert column.p < 1e-4 and column.part is None and 0.03 < column.size < 0.15
    rows, draws, context = posterior(0, width=0.7)
    assert tarp(rows, draws, context=context).terms[0] > 0 and sbc(rows, draws, context=context).p < 1e-4


def test_the_prior_is_found_by_what_depends_on_the_context():
    rows, draws, context = posterior(1, ignored=True)
    assert tarp(rows, draws, context=context).p < 1e-10
    assert tarp(rows, draws, references=context).p < 1e-10
    blind = np.random.default_rng(2).normal(size=rows.shape)
    assert tarp(rows, draws, references=blind).p > 0.01, "points that do not depend on the context cannot tell"
    assert sbc(rows, draws).p > 0.01
    sliced = sbc(rows, draws, context=context)
    assert sliced.p < 1e-10 and sliced.part[0] == sliced.column and sliced.part[1] in (0, 4)
    assert sliced.ps.shape == sliced.sizes.shape == (11, 2) and len(sliced.parts) == 11
    squares = context[:, :1] ** 2  # no linear regression predicts these
    of_prior = np.random.default_rng(3).choice(squares[:, 0], size=(600, 99, 1))
    assert tarp(squares, of_prior, context=context).p < 1e-10


def test_points_of_reference_have_not_seen_their_rows():
    """Or a regression on many features of few rows leads them there."""
    rng = np.random.default_rng(5)
    for _ in range(3):
        rows, draws, context = rng.normal(size=(100, 2)), rng.normal(size=(100, 99, 2)), rng.normal(size=(100, 6))
        assert tarp(rows, draws, context=context).p > 0.01


def test_codes_of_the_context_are_slices():
    rng = np.random.default_rng(6)
    code = (rng.uniform(size=500) < 0.15).astype(float)
    rows = code + rng.normal(size=500)
    told = sbc(rows, rng.normal(size=(500, 99)), context=code)
    assert told.parts == (None, (0, 0), (0, 1)) and told.part == (0, 1) and told.p < 1e-6
    alone = sbc(rows[:60], rng.normal(size=(60, 99)), context=np.ones(60))
    assert alone.parts == (None,), "a context that all rows share has no slices"
    few = sbc(rows[:60], rng.normal(size=(60, 99)), context=rng.normal(size=60))
    assert few.parts == (None,), "slices of 12 rows are left out"


def test_wrong_shapes_are_refused():
    rows, draws, context = posterior(7, rows=50, draws=9)
    assert "neither context nor references" in error_of(lambda: tarp(rows, draws))
    assert "expected rows (rows, columns), and draws for each row, (50, draws, 2)" in error_of(
        lambda: sbc(rows, draws[:, :, 0])
    )
    assert "(50, context columns)" in error_of(lambda: sbc(rows, draws, context=context[:20]))
    assert "references have shape (50,)" in error_of(lambda: tarp(rows, draws, references=context[:, 0]))
    assert "at least 40" in error_of(lambda: tarp(rows[:30], draws[:30], context=context[:30]))
    draws[3, 2, 1] = np.inf
    assert "tarp: draws[3, 2, 1] is inf" in error_of(lambda: tarp(rows, draws, context=context))


@pytest.mark.slow
def test_p_values_of_balls_are_uniform():
    rows = [posterior(seed, rows=300) for seed in range(200)]
    assert stats.kstest([tarp(x, y, context=c, rng=i).p for i, (x, y, c) in enumerate(rows)], "uniform").pvalue > 0.01
    least = np.array([sbc(x, y).p for x, y, _ in rows])
    assert np.mean(least < 0.1) < 0.16  # the least times their number
