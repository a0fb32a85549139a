"""Are rows like draws? Scores, columns, pairs of columns, all of them together, and each row among draws given its context."""

import numpy as np

from flows.checks.sample import PER_ROW, Sample, as_numbers, features
from flows.checks.verdicts import Finding, OneTest, one_test, rank_test, worst
from flows.diagnostics import classifier_two_sample, code_counts, correlations, energy_distance, sbc, uniformity
from flows.diagnostics import coverage as coverage_of
from flows.diagnostics import tarp as tarp_of
from flows.diagnostics.arrays import chosen
from flows.diagnostics.calibration import Coverage
from flows.diagnostics.uniformity import Uniformity
from flows.results.columns import Column

MOST_COLUMNS = 64  # whose pairs are tested
PAIRS = 10  # of which a page has the correlations


def coverage(sample: Sample) -> Finding:
    """Test which highest-density regions hold rows, by the rank of a row's log p among the log p of draws."""
    log_p, draws_log_p = sample.log_p[sample.places], sample.draws_log_p
    unknown = int(np.isnan(log_p).sum() + np.isnan(draws_log_p).sum())
    if unknown:
        return Finding(f"log p is NaN of {unknown:,} rows and draws")
    test = coverage_of(log_p, draws_log_p, rng=sample.key(10))
    error = _keep("coverage", sample, test, draws_log_p.shape[-1], draws_log_p.ndim == 1)
    return Finding(f"largest error: {error}", test.size, test.p)


def columns(sample: Sample) -> Finding:
    """Compare each column of rows with the column of draws; for one column given contexts, by its distribution function."""
    if sample.conditional:
        return _by_cdf(sample)
    tests, random = list[OneTest](), sample.random(11)
    for column in sample.columns:
        if column.classes:
            tests.append(_code_test(column, sample))
            continue
        rows, draws = as_numbers(column, sample.rows), as_numbers(column, sample.draws)
        for name in rows:
            tests.append(rank_test(rows[name], draws[name], random, name)._replace(place=column.place))
    sample.tests["columns"] = tests
    return worst(tests, "{0.unit} of {0.name}, {0.fault}")


def _keep(name: str, sample: Sample, test: Coverage, draws: int, shared: bool) -> str:
    """Keep the levels of a test of coverage, and its curve; return its largest error in words."""
    levels = np.sort(test.levels)
    shares = np.arange(1, len(levels) + 1) / len(levels)
    at = int(np.abs(shares - levels).argmax())
    error = f"the region of {levels[at]:.0%} of draws holds {shares[at]:.0%} of rows"
    curve = one_test(test, name, test.ranks, draws, shared)
    sample.arrays[name], sample.tests[name] = test.levels, [curve._replace(fault=error)]
    return error


def _code_test(column: Column, sample: Sample) -> OneTest:
    rows, draws = (x[:, column.place] for x in (sample.rows, sample.draws))
    test = code_counts(rows, draws)
    at = int(np.abs(test.rows - test.draws).argmax())
    shares = f"{column.code(test.codes[at])} in {test.rows[at]:.1%} of rows, {test.draws[at]:.1%} of draws"
    curve = rank_test(rows, draws, sample.random(17 + column.place), column.name)
    return curve._replace(p=test.p, size=test.size, fault=shares, unit="total variation", place=column.place)


def has_cdf(sample: Sample) -> bool:
    """Return whether a model has one column, and its exact distribution function."""
    result = sample.model.result
    return len(sample.columns) == 1 and not sample.columns[0].classes and result is not None and result.cdf_by == "map"


def _by_cdf(sample: Sample) -> Finding:
    result = sample.model.result
    if result is None or not has_cdf(sample):
        return Finding("a conditional model: see ranks, which are of each row among its own draws")
    shares = np.asarray(result.cdf(sample.all_rows[sample.places], context=sample.contexts), float)
    if np.isnan(shares).any():
        return Finding(f"the distribution function is NaN at {int(np.isnan(shares).sum()):,} rows")
    shares = np.clip(shares, 0, 1)
    sample.tests["columns"] = [test] = [one_test(uniformity(shares), "P(X <= x)", shares, None)._replace(place=0)]
    return worst([test], "{0.unit} of {0.name}, {0.fault}")


def pairs(sample: Sample) -> Finding:
    """Compare the correlations of normal scores of all pairs of columns."""
    names, (rows, draws) = sample.numbers
    if len(names) < 2:
        return Finding("one column")
    some = np.sort(chosen(np.arange(len(names)), MOST_COLUMNS, sample.random(12)))
    note = f"; {MOST_COLUMNS} columns of {len(names):,}, at random" if len(some) < len(names) else ""
    test = correlations(rows[:, some], draws[:, some])
    far, (i, j) = np.abs(test.rows - test.draws), np.triu_indices(len(some), 1)
    order = [test.pair, *((i[k], j[k]) for k in np.argsort(-far[i, j], kind="stable") if {i[k], j[k]} != {*test.pair})][:PAIRS]
    sample.pairs = [(names[some[a]], names[some[b]], float(test.rows[a, b]), float(test.draws[a, b])) for a, b in order]
    first, second, r, s = sample.pairs[0]
    return Finding(f"correlation of {first} and {second}: {r:.2f} of rows, {s:.2f} of draws{note}", test.size, test.p)


def energy(sample: Sample) -> Finding:
    _, (rows, draws) = sample.numbers
    if not rows.shape[1]:
        return Finding("no column that varies")
    test = energy_distance(rows, draws, rng=sample.key(13))
    return Finding(f"energy coefficient of {min(len(rows), 1_000):,} rows and as many draws", test.size, test.p)


def classifier(sample: Sample) -> Finding:
    """Test whether a classifier separates rows from draws; for a conditional model it sees the context, too."""
    numbers, context = sample.numbers[1], ""
    if sample.conditional:
        numbers, context = [np.concatenate([x, sample.conditions[1]], 1) for x in numbers], ", beside their context"
    if not numbers[0].shape[1]:
        return Finding("no column that varies")
    test = classifier_two_sample(*numbers, classifier=sample.classifier, paired=sample.conditional, rng=sample.key(14))
    return Finding(f"{test.statistic:.1%} of rows and draws are told apart{context}", max(test.size, 0.0), test.p)


def ranks(sample: Sample) -> Finding:
    """Test ranks of rows among draws given their context, over all rows and over slices of each column of the context."""
    names, numbers = features(sample.columns, sample.rows, sample.draws)
    called, conditions = sample.conditions
    test = sbc(*numbers, context=conditions, rng=sample.key(20))
    terms = uniformity(test.ranks, PER_ROW, shared=False)
    sample.tests["ranks"] = [
        one_test(Uniformity(*(np.asarray(field)[..., j] for field in terms)), names[j], test.ranks[:, j], PER_ROW)
        for j in range(len(names))
    ]
    where = "all rows" if test.part is None else f"slice {test.part[1]} of {called[test.part[0]]}"
    return Finding(f"Kolmogorov distance of the ranks of {names[test.column]}, {where}", test.size, test.p)


def tarp(sample: Sample) -> Finding:
    """Test that balls around points of reference hold rows as often as draws given the same context."""
    _, numbers = features(sample.columns, sample.rows, sample.draws)
    test = tarp_of(*numbers, context=sample.conditions[1], rng=sample.key(21))
    _keep("tarp", sample, test, PER_ROW, False)
    return Finding(f"largest error of coverage, of balls around points of reference, {PER_ROW} draws a row", test.size, test.p)
