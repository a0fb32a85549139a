"""Ranks of rows among draws: against values worked out by hand, their band, coverage and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from common import close, error_of
from scipy import stats

from flows.diagnostics import (
    code_counts,
    coverage,
    crps,
    ecdf_band,
    energy_distance,
    holm,
    nearest_rows,
    ranks,
    uniformity,
)

RNG = np.random.default_rng(0)
ROWS, DRAWS = RNG.normal(size=2_000), RNG.normal(size=10_000)


def told(rows, draws, rng=0):
    return uniformity(ranks(rows, draws, rng=rng), len(draws), shared=True)


def test_holm():
    close(holm([0.04, 0.001, 0.03, 0.9]), [0.09, 0.004, 0.09, 0.9], 1e-12)  # 0.04 * 2 is below 0.03 * 3
    close(holm([0.6, np.nan, 0.02]), [0.6, np.nan, 0.04], 1e-12)
    assert holm([]).shape == (0,) and holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert "p-values from 0 to 1" in error_of(lambda: holm([0.1, 1.2]))
    assert "(tests,)" in error_of(lambda: holm([[0.1]]))


def test_ranks_count_the_draws_below():
    rows, draws = np.array([[0.5, 9.0], [-3.0, 2.5]]), np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    assert ranks(rows, draws).tolist() == [[1, 3], [0, 2]]
    assert ranks(jnp.asarray(rows), np.stack([draws, draws[::-1] + 1])).tolist() == [[1, 3], [0, 1]]
    assert ranks([-np.inf, 0.0], [[1.0, -np.inf], [-1.0, -2.0]], rng=1).tolist()[1] == 2


def test_ties_are_broken_at_random():
    found = [ranks([1.0], [0.0, 1.0, 1.0, 2.0], rng=seed)[0] for seed in range(300)]
    assert np.bincount(found, minlength=5)[[0, 4]].sum() == 0 and (np.bincount(found)[1:4] > 60).all()
    assert ranks([1.0] * 99, [1.0] * 99, rng=jax.random.key(3)).tolist() == ranks([1.0] * 99, [1.0] * 99, rng=3).tolist()
    codes = RNG.poisson(1.0, size=12_000)
    assert told(codes[:2_000], codes[2_000:]).p > 0.01
    assert ranks(np.full(200, 0.1), np.full(9, 0.1, np.float32)).max() == 9, "0.1 is no other number in float32"
    own = ranks(np.zeros(200), np.zeros((200, 9)))
    assert own.min() == 0 and own.max() == 9


def test_the_smooth_statistic_by_hand():
    """With as many polynomials as there are ranks, less 1, it is Pearson's chi-square of their counts."""
    counts = np.array([3, 9, 4, 2, 2])
    values = np.repeat(np.arange(5), counts)
    pearson = ((counts - 4) ** 2 / 4).sum()
    own, shared = (uniformity(values, 4, shared=shared) for shared in (False, True))
    close([own.statistic, shared.statistic], [pearson, pearson / (1 + 20 / 4)], 1e-12)
    close(own.p, stats.chi2.sf(pearson, 4), 1e-12)
    close(own.size, 0.2, 1e-12)  # 12 of 20 are 0 or 1, in place of 8
    close(own.terms[0], (values - 2).sum() / np.sqrt(2 * 20), 1e-12)
    top = uniformity(np.ones(10))  # phi_k(1)^2 = 2 k + 1
    close(top.terms, np.sqrt(10 * np.array([3, 5, 7, 9])), 1e-12)
    close([top.statistic, top.size], [240, 1], 1e-12)
    u = RNG.uniform(size=50)
    close(uniformity(u).size, stats.kstest(u, "uniform").statistic, 1e-12)
    grid = np.arange(10_001)  # where ranks are many, the polynomials are those of Legendre
    fine, smooth = uniformity(grid**2 // 10_000, 10_000, shared=False), uniformity((grid**2 // 10_000 + 0.5) / 10_001)
    close(fine.statistic, smooth.statistic, 1e-5)


def test_columns_are_judged_one_by_one():
    rows, draws = np.stack([ROWS, ROWS + 1], 1), np.stack([DRAWS, DRAWS], 1)
    both = told(rows, draws)
    assert both.p.shape == (2,) and both.terms.shape == (4, 2)
    close(both.statistic, [told(ROWS, DRAWS).statistic, told(ROWS + 1, DRAWS).statistic], 1e-12)


def test_what_the_smooth_statistic_finds():
    assert told(ROWS, DRAWS).p > 0.01
    wide = told(ROWS, 1.25 * DRAWS)
    assert wide.p < 2e-18 and 0.04 < wide.size < 0.09 and abs(wide.terms).argmax() == 1 and wide.terms[1] < 0
    seeds = [np.random.default_rng(seed) for seed in range(20)]
    pairs = [(rng.normal(size=2_000), rng.normal(size=10_000)) for rng in seeds]
    assert np.mean([told(x, 1.1 * y).p < 1e-3 for x, y in pairs]) >= 0.8
    assert all(told(x, y + 0.2).p < 1e-3 for x, y in pairs)
    assert np.mean([told(x[:100], y).p < 0.05 for x, y in pairs]) <= 0.2
    constant = told(ROWS, np.zeros(50))
    assert constant.p < 1e-8 and constant.size > 0.4


def test_few_shared_draws_are_no_reason_to_fail():
    """Where ten rows come to a draw, ranks among the same draws are off together."""
    ps = [told(rng.normal(size=1_000), rng.normal(size=100)).p for rng in map(np.random.default_rng, range(40))]
    assert np.mean(np.array(ps) < 0.05) < 0.2 and stats.kstest(ps, "uniform").pvalue > 0.01


def test_bad_ranks_are_refused():
    assert "ranks: rows[2] is nan" in error_of(lambda: ranks([0.0, 1.0, np.nan], [0.0]))
    assert "rows have shape (2, 3) and draws (5, 2)" in error_of(lambda: ranks(np.ones((2, 3)), np.ones((5, 2))))
    assert "no rows" in error_of(lambda: ranks(np.ones((0, 2)), np.ones((5, 2))))
    assert "dtype <U1" in error_of(lambda: ranks(["a"], ["b"]))
    assert "masked" in error_of(lambda: ranks(np.ma.masked_equal([0.0, 1.0], 1.0), [0.0]))
    assert "at least 10 rows" in error_of(lambda: uniformity([0.1] * 9))
    assert "numbers from 0 to 1" in error_of(lambda: uniformity(np.arange(20)))
    assert "draws=9" in error_of(lambda: uniformity(np.arange(20), 9, shared=True))
    assert "at least 4 draws" in error_of(lambda: uniformity(np.zeros(20), 3, shared=True))
    assert "shared=True" in error_of(lambda: uniformity(np.zeros(20), 9)) and "shared=True" in error_of(lambda: ecdf_band(9, 9))
    assert "level is 1.5" in error_of(lambda: ecdf_band(9, level=1.5))
    assert "points is 1" in error_of(lambda: ecdf_band(9, points=1))


@pytest.mark.parametrize(("draws", "shared"), [(None, None), (99, False), (150, True)])
def test_the_band_holds_everywhere_at_once(draws, shared):
    n, times, rng = 200, 1_500, np.random.default_rng(4)
    band = ecdf_band(n, draws, shared=shared, level=0.9)
    if draws is None:
        u = rng.uniform(size=(times, n))
    elif shared:
        sorted_draws = np.sort(rng.uniform(size=(times, draws)), 1)
        x = rng.uniform(size=(times, n))
        u = np.stack([np.searchsorted(each, row) + 1 for each, row in zip(sorted_draws, x, strict=True)]) / (draws + 1)
    else:
        u = rng.integers(1, draws + 2, size=(times, n)) / (draws + 1)
    below = np.stack([(u <= at + 1e-9).mean(1) for at in band.at], 1)
    inside = ((below >= band.lower - 1e-9) & (below <= band.upper + 1e-9)).all(1).mean()
    assert 0.875 < inside < 0.93
    assert 0.98 < band.pointwise < 0.999 and (band.lower <= band.at).all() and (band.at <= band.upper).all()


def test_coverage_of_highest_density_regions():
    region = coverage(-(ROWS**2), -((1.5 * DRAWS) ** 2))
    half = stats.norm.ppf(0.75) * 1.5  # the region that holds half of these draws
    close((region.levels < 0.5).mean(), stats.norm.cdf(half) - stats.norm.cdf(-half), 0.02)
    assert region.p < 1e-20 and region.terms[0] < -5, "rows lie in smaller regions than they should"
    assert coverage(-(ROWS**2), -(DRAWS**2)).p > 0.01
    rounded = np.round(np.stack([ROWS, DRAWS[:2_000]])) ** 2
    assert coverage(-rounded[0], -rounded[1]).p > 0.01
    noise = RNG.normal(size=(300, 20))
    assert coverage(-(noise[:, 0] ** 2), -(noise[:, 1:] ** 2)).p > 0.01
    outside = coverage(np.full(50, -np.inf), -(DRAWS**2))
    assert outside.size > 0.99 and outside.levels.min() > 0.99
    assert "log_p[1] is nan" in error_of(lambda: coverage([0.0, np.nan] * 5, [0.0]))
    assert "draws_log_p (3, 5)" in error_of(lambda: coverage(np.zeros(10), np.zeros((3, 5))))


def test_scores_of_a_normal():
    """CRPS = y (2 Phi(y) - 1) + 2 phi(y) - pi^(-1/2), by many draws."""
    y = np.array([-2.0, 0.0, 0.7])
    closed = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - np.pi**-0.5
    many = RNG.normal(size=200_000)
    close(crps(y, many), closed, 0.01)
    few = crps(np.repeat(y[2], 40_000), RNG.normal(size=(40_000, 3)))  # without bias
    close(few.mean(), closed[2], 0.02)
    rows, draws = RNG.normal(size=(5, 2)), RNG.normal(size=(6, 2))
    apart = np.abs(draws[:, None] - draws).sum((0, 1)) / (6 * 5)
    brute = np.abs(rows[:, None] - draws).mean(1) - apart / 2
    close(crps(rows, draws), brute, 1e-12)
    close(crps(rows, np.broadcast_to(draws, (5, 6, 2))), brute, 1e-12)
    assert "at least 2 draws" in error_of(lambda: crps([0.0], [1.0]))


def test_what_is_no_list_of_numbers_is_told_in_one_line():
    ragged, frame = [[1, 2], [3]], pd.DataFrame({"p": [0.1, 0.2], "name": ["a", "b"]})
    assert error_of(lambda: holm(frame)).startswith("holm: p is p name 0 0.1 a 1 0.2 b; expected p-values")
    assert "holm: p is {'a': 0.1}; expected p-values" in error_of(lambda: holm({"a": 0.1}))
    for call in (
        lambda: energy_distance(ragged, ragged),
        lambda: code_counts(ragged, ragged),
        lambda: nearest_rows(ragged, ragged, ragged),
    ):
        assert "rows are [[1, 2], [3]]; expected numbers in rows of equal length" in error_of(call)
    assert "rows is 1000000000 with points=100; expected at most 1000000 rows" in error_of(lambda: ecdf_band(10**9))
