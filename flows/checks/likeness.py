"""Are rows like draws? Scores, columns, pairs of columns, and all of them together."""

import numpy as np

from flows.checks.features import as_numbers
from flows.checks.sample import Sample, flat
from flows.checks.verdicts import Finding, OneTest, worst
from flows.diagnostics import (
    classifier_two_sample,
    code_counts,
    correlations,
    energy_distance,
    ranks,
    uniformity,
)
from flows.diagnostics import coverage as coverage_of
from flows.diagnostics.arrays import chosen
from flows.results.columns import Column

MOST_COLUMNS = 64  # of which pairs are looked at
SHIFTS = ("location", "spread", "skewness", "tails")


def coverage(sample: Sample) -> Finding:
    """The rank of a row's log p among those of draws says which highest-density region holds it."""
    log_p, of_draws = sample.log_p[sample.places], sample.draws_log_p
    unknown = int(np.isnan(log_p).sum() + np.isnan(of_draws).sum())
    if unknown:
        return Finding(f"log p is NaN of {unknown:,} rows and draws")
    told = coverage_of(log_p, of_draws, rng=sample.key(10))
    levels = np.sort(told.levels)
    shares = np.arange(1, len(levels) + 1) / len(levels)
    at = int(np.abs(shares - levels).argmax())
    detail = f"largest error: the region of {levels[at]:.0%} of draws holds {shares[at]:.0%} of rows"
    return Finding(detail, told.size, told.p)


def columns(sample: Sample) -> Finding:
    """Each column of rows beside that of draws; of one column given contexts, by the model's own distribution function."""
    if sample.conditional:
        return _by_cdf(sample)
    tests, random = list[OneTest](), sample.random(11)
    for column in sample.columns:
        if column.classes:
            tests.append(_of_codes(column, sample))
            continue
        of_rows, of_draws = as_numbers(column, sample.rows), as_numbers(column, sample.draws)
        for name in of_rows:
            found = ranks(of_rows[name], of_draws[name], rng=int(random.integers(2**32)))
            told = uniformity(found, len(sample.draws), shared=True)
            what = f"Kolmogorov distance of {name}, {_in_what(told.terms)}"
            tests.append(OneTest(float(told.p), float(told.size), what))
    return worst(tests, "{}")


def _of_codes(column: Column, sample: Sample) -> OneTest:
    told = code_counts(sample.rows[:, column.place], sample.draws[:, column.place])
    at = int(np.abs(told.rows - told.draws).argmax())
    shares = f"{column.code(told.codes[at])} in {told.rows[at]:.1%} of rows, {told.draws[at]:.1%} of draws"
    return OneTest(told.p, told.size, f"total variation of {column.name}, {shares}")


def has_cdf(sample: Sample) -> bool:
    """Tell whether a model of one column has a distribution function of its own."""
    result = sample.model.result
    return len(sample.columns) == 1 and not sample.columns[0].classes and result is not None and result.cdf_by == "map"


def _by_cdf(sample: Sample) -> Finding:
    result = sample.model.result
    if result is None or not has_cdf(sample):
        return Finding("a conditional model: see ranks, which are of each row among its own draws")
    shares = np.asarray(result.cdf(sample.all_rows[sample.places], context=sample.contexts), float)
    if np.isnan(shares).any():
        return Finding(f"the distribution function is NaN at {int(np.isnan(shares).sum()):,} rows")
    told = uniformity(np.clip(shares, 0, 1))
    return Finding(f"Kolmogorov distance of P(X <= x), {_in_what(told.terms)}", float(told.size), float(told.p))


def _in_what(terms: np.ndarray) -> str:
    """Return what is most off, and to which side."""
    at = int(np.abs(terms).argmax())
    sides = {
        "location": ("rows lie lower than draws", "rows lie higher than draws"),
        "spread": ("draws are too wide", "draws are too narrow"),
    }
    return sides[SHIFTS[at]][int(terms[at] > 0)] if at < len(sides) else f"in {SHIFTS[at]}"


def pairs(sample: Sample) -> Finding:
    """Correlations of normal scores, of each two columns."""
    if sample.conditional:
        return Finding("a conditional model: see ranks, tarp and classifier")
    names, rows, draws = sample.numbers
    if len(names) < 2:
        return Finding("one column")
    kept = np.sort(chosen(np.arange(len(names)), MOST_COLUMNS, sample.random(12)))
    note = f"; {MOST_COLUMNS} columns of {len(names):,}, at random" if len(kept) < len(names) else ""
    told = correlations(rows[:, kept], draws[:, kept])
    first, second = (names[kept[i]] for i in told.pair)
    r, s = told.rows[told.pair], told.draws[told.pair]
    return Finding(f"correlation of {first} and {second}: {r:.2f} of rows, {s:.2f} of draws{note}", told.size, told.p)


def energy(sample: Sample) -> Finding:
    """Energy distance of all columns."""
    if sample.conditional:
        return Finding("a conditional model: see ranks, tarp and classifier")
    _, rows, draws = sample.numbers
    if not rows.shape[1]:
        return Finding("no column that varies")
    told = energy_distance(rows, draws, rng=sample.key(13))
    return Finding(f"energy coefficient of {min(len(rows), 1_000):,} rows and as many draws", told.size, told.p)


def classifier(sample: Sample, given: object = None) -> Finding:
    """Tell whether rows can be told from draws, of a conditional model together with their context."""
    _, rows, draws = sample.numbers
    if sample.conditional:
        rows, draws = (np.concatenate([each, flat(sample.contexts)], 1) for each in (rows, draws))
    if not rows.shape[1]:
        return Finding("no column that varies")
    told = classifier_two_sample(rows, draws, classifier=given, paired=sample.conditional, rng=sample.key(14))
    beside = ", beside their context" if sample.conditional else ""
    return Finding(f"{told.statistic:.1%} of rows and draws are told apart{beside}", max(told.size, 0.0), told.p)
