"""Two samples: energy distance against its formula, a classifier, copies, counts and correlations."""

import numpy as np
import pytest
from common import close, error_of
from scipy import stats

from flows.diagnostics import classifier_two_sample, code_counts, correlations, energy_distance, nearest_rows, ranks


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def ring_and_disc(seed, n):
    """A ring, and a disc whose columns are moved to the same margins."""
    rng = np.random.default_rng(seed)
    turns = np.exp(2j * np.pi * rng.uniform(size=(2, n))) * np.sqrt([np.ones(n), rng.uniform(size=n)])
    ring, disc = np.stack([turns.real, turns.imag], 2) + 0.05 * rng.normal(size=(2, n, 2))
    places = np.clip(ranks(disc, disc), 0, n - 1)
    return ring, np.take_along_axis(np.sort(ring, 0), places, 0)


def energy_of(x, y):
    def mean(a, b):
        return np.mean([[np.linalg.norm(p - q) for q in b] for p in a])

    return 2 * mean(x, y), mean(x, x), mean(y, y)


def test_energy_distance_against_its_formula():
    x, y = normal(0, 14, 3), normal(1, 22, 3) * [1, 2, 3] + [0, 1, 0]
    both = np.concatenate([x, y])
    between, of_x, of_y = energy_of((x - both.mean(0)) / both.std(0), (y - both.mean(0)) / both.std(0))
    told = energy_distance(x, y, permutations=99)
    close(told.statistic, 14 * 22 / 36 * (between - of_x - of_y), 1e-9)
    close(told.size, (between - of_x * 14 / 13 - of_y * 22 / 21) / between, 1e-9)


def test_permutations_of_energy_distance():
    x, y = normal(2, 30, 2), normal(3, 15, 2) + np.array([0.8, 0.0])
    both, rng = np.concatenate([x, y]), np.random.default_rng(4)
    both = (both - both.mean(0)) / both.std(0)
    apart = np.linalg.norm(both[:, None] - both, axis=2)
    energies = []
    for order in [np.arange(45)] + [rng.permutation(45) for _ in range(1_500)]:
        a, b = order[:30], order[30:]
        cross, of_a, of_b = (apart[np.ix_(*pair)].mean() for pair in ((a, b), (a, a), (b, b)))
        energies.append(2 * cross - of_a - of_b)
    told = energy_distance(x, y, permutations=2_000)
    expected = np.mean(np.array(energies) >= energies[0] - 1e-12)
    assert 0.02 < expected < 0.3 and abs(told.p / expected - 1) < 0.5
    assert told.permutations < 2_000, "50 that are as large are enough"
    far = energy_distance(x, y + 3, permutations=199)
    assert far.p == 1 / 200 and far.permutations == 199 and far.size > 0.3
    close(
        energy_distance(x * [1.0, 1e3], y * [1.0, 1e3], permutations=9).size, energy_distance(x, y, permutations=9).size, 1e-9
    )
    same = energy_distance(np.ones(20), np.ones(30), permutations=99)
    assert same.p == 1 and same.size == same.statistic == 0
    assert energy_distance(normal(5, 400), normal(6, 400), most=300, permutations=9).size < 0.01


@pytest.mark.parametrize("columns", [1, 3])
def test_a_classifier_passes_what_is_right(columns):
    told = [classifier_two_sample(normal(s, 150, columns), normal(s + 99, 400, columns), rng=s) for s in range(15)]
    assert np.mean([each.p < 0.05 for each in told]) < 0.25 and told[0].tested == 150
    assert abs(np.mean([each.size for each in told])) < 0.03


def test_a_classifier_tells_a_ring_from_a_disc():
    ring, disc = ring_and_disc(0, 700)
    close(np.sort(ring, 0).mean(0), np.sort(disc, 0).mean(0), 0.05)
    told = classifier_two_sample(ring, disc)
    assert told.p < 1e-10 and told.statistic - 0.5 == told.size > 0.12
    assert told.probability.shape == told.tested_rows.shape == (350,) and told.probability.mean() > 0.53
    assert sorted(set(told.tested_rows)) == sorted(told.tested_rows)


def test_a_context_that_is_ignored_is_found():
    context = normal(1, 800, 1)
    rows, draws = context + normal(2, 800, 1), 2**0.5 * normal(3, 800, 1)
    assert classifier_two_sample(rows, draws).p > 0.01
    assert classifier_two_sample(np.hstack([rows, context]), np.hstack([draws, context])).p < 1e-10


class Memory:
    """Knows what it has seen, and guesses the rest."""

    def fit(self, x, y):
        self.seen = {tuple(row): label for row, label in zip(x.tolist(), y.tolist(), strict=True)}

    def predict_proba(self, x):
        labels = np.array([self.seen.get(tuple(row), i % 2) for i, row in enumerate(x.tolist())], float)
        return np.stack([1 - labels, labels], 1)


def test_any_classifier_is_judged_on_what_it_did_not_see():
    told = classifier_two_sample(normal(4, 500, 2), normal(5, 500, 2), classifier=Memory())
    assert told.tested == 500 and abs(told.size) < 0.05 and told.p > 0.05
    close(told.p, stats.binom.sf(round(told.statistic * 500) - 1, 500, 0.5), 1e-9)
    Memory.predict_proba, kept = lambda self, x: np.full((len(x), 3), 0.5), Memory.predict_proba
    try:
        assert "shape (500, 3)" in error_of(lambda: classifier_two_sample(normal(4, 500), normal(5, 500), classifier=Memory()))
    finally:
        Memory.predict_proba = kept
    with pytest.raises(TypeError, match="fit and predict_proba"):
        classifier_two_sample(normal(4, 500), normal(5, 500), classifier="forest")


def test_constant_draws_and_wide_tables():
    rows, constant = normal(6, 200, 2), np.zeros((200, 2))
    assert classifier_two_sample(rows, constant).p < 1e-9
    assert energy_distance(rows, constant, permutations=99).p == 0.01
    assert correlations(rows, constant).draws[0, 1] == 0 and 0 < correlations(rows, constant).p <= 1
    assert correlations(constant, constant).p == 1 and nearest_rows(rows, constant, rows).seen.size == 200
    heavy = np.random.default_rng(7).standard_cauchy(size=(2, 60, 70))  # more than 64 columns, and nothing but outliers
    assert classifier_two_sample(*heavy).p > 0.01


def test_copies_are_told_from_draws():
    train, rows, fresh = normal(8, 400, 2), normal(9, 300, 2), normal(10, 500, 2)
    right = nearest_rows(rows, fresh, train)
    brute = np.linalg.norm((rows[:, None] - train) / train.std(0), axis=2)
    close(right.rows, brute.min(1), 1e-9)
    assert right.of_rows.tolist() == brute.argmin(1).tolist()
    expected = stats.mannwhitneyu(right.draws, right.rows, alternative="less", use_continuity=False, method="asymptotic")
    close([right.p, right.size], [expected.pvalue, 0.5 - expected.statistic / (300 * 500)], 1e-9)
    assert right.p > 0.01 and right.copied.size == right.seen.size == 0
    noisy = nearest_rows(rows, train + 0.05 * normal(11, 400, 2), train)
    assert noisy.p < 1e-6 and noisy.size > 0.15 and noisy.statistic > 5
    rows[[3, 7]], fresh[5] = train[[10, 20]], train[30]
    named = nearest_rows(rows, fresh, train.astype(np.float32))
    assert named.seen.tolist() == [3, 7] and named.copied.tolist() == [5] and named.of_draws[5] == 30
    codes = np.random.default_rng(12).integers(0, 3, size=(3, 200)).astype(float)
    codes[:, :30] += 0.5 + np.random.default_rng(13).uniform(size=(3, 30))
    tied = nearest_rows(*codes)
    expected = stats.mannwhitneyu(tied.draws, tied.rows, alternative="less", use_continuity=False, method="asymptotic")
    close(tied.p, expected.pvalue, 1e-9)


def test_counts_of_codes():
    a, b = np.array([30, 50, 20]), np.array([150, 180, 170])
    told = code_counts(np.repeat([0, 2, 5], a), np.repeat([0, 2, 5], b))
    expected = stats.chi2_contingency([a, b], correction=False)
    close([told.statistic, told.p], [expected.statistic, expected.pvalue], 1e-9)
    assert told.degrees == 2 and told.codes.tolist() == [0, 2, 5]
    close([told.size, *told.rows], [0.14, 0.3, 0.5, 0.2], 1e-12)
    rare = code_counts(np.repeat([0, 1, 2, 3, 4], [90, 4, 2, 2, 2]), np.repeat([0, 1, 2, 3], [180, 10, 5, 5]))
    assert rare.degrees == 1, "codes 1 to 4 together are enough"
    close(rare.statistic, stats.chi2_contingency([[90, 10], [180, 20]], correction=False).statistic, 1e-9)
    one = code_counts(np.zeros(20), np.zeros(30))
    assert (one.p, one.size, one.degrees) == (1.0, 0.0, 0)
    apart = code_counts(np.zeros(20), np.ones(30))
    assert apart.p < 1e-6 and apart.size == 1


def test_correlations_of_pairs():
    rows, draws = normal(14, 2_000, 3), normal(15, 10_000, 3)
    assert correlations(rows, draws).p > 0.01
    rows[:, 2] += 0.75 * rows[:, 0]
    told = correlations(rows, draws)
    assert told.pair == (0, 2) and told.p < 1e-100 and 0.5 < told.size < 0.7
    scores = stats.norm.ppf((stats.rankdata(np.concatenate([rows, draws]), axis=0) - 0.5) / 12_000)
    close(told.rows, np.corrcoef(scores[:2_000].T), 1e-9)
    close(correlations(np.exp(3 * rows), np.exp(3 * draws)).rows, told.rows, 1e-9)  # ranks, whatever the columns are
    single = correlations(rows.astype(np.float32), draws)
    close(single.rows, told.rows, 1e-5)


def test_standard_errors_of_correlations_assume_no_normality():
    """Columns that are uncorrelated, and large together: normal theory has errors half as large."""
    rng = np.random.default_rng(16)
    x, y = (rng.normal(size=(60, n, 2)) * np.exp(1.5 * rng.normal(size=(60, n, 1))) for n in (200, 800))
    told = [correlations(a, b) for a, b in zip(x, y, strict=True)]
    differences = np.array([each.rows[0, 1] - each.draws[0, 1] for each in told])
    assert 0.75 < differences.std() / np.mean([each.errors[0, 1] for each in told]) < 1.3
    assert np.mean([each.p < 0.05 for each in told]) < 0.15


def test_samples_that_do_not_belong_together_are_refused():
    x = normal(17, 30, 2)
    for check in energy_distance, classifier_two_sample, correlations:
        assert "shape (30, 2)" in error_of(lambda check=check: check(x, normal(0, 30, 3)))
        assert "at least" in error_of(lambda check=check: check(x[:5], x))
        assert "rows[4, 1] is nan" in error_of(lambda check=check: check(np.where(x == x[4, 1], np.nan, x), x))
    assert "at least 2 columns" in error_of(lambda: correlations(x[:, 0], x[:, 1]))
    assert "one column of codes" in error_of(lambda: code_counts(x, x))
    assert "most is 1" in error_of(lambda: energy_distance(x, x, most=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        lambda s: energy_distance(normal(s, 100, 2), normal(s + 999, 100, 2), permutations=999, rng=s),
        lambda s: classifier_two_sample(normal(s, 400, 2), normal(s + 999, 400, 2), rng=s),
        lambda s: nearest_rows(normal(s, 200, 2), normal(s + 999, 400, 2), normal(s + 1999, 200, 2)),
        lambda s: correlations(normal(s, 500, 2), normal(s + 999, 2_000, 2)),
    ],
    ids=["energy", "classifier", "nearest", "correlations"],
)
def test_p_values_are_uniform(check):
    assert stats.kstest([check(seed).p for seed in range(200)], "uniform").pvalue > 0.01
