"""Conditional fits without options, beside the linear regression on the context and other ways to start.

    python benchmarks/conditional.py                       # six sets, three seeds each, one core: an hour
    python benchmarks/conditional.py --quantiles           # what quantiles and intervals given a context cost: four minutes
    python benchmarks/conditional.py --table               # what was measured

"regression": the Gaussian whose mean is linear in the context, in closed form. "fit": `flows.fit(0, Flow(NSF()), rows,
context=...)`. "whitened": the same with `standardize="whiten"`, behind the correlation of the rows and on a standard normal.
"columns": the same with `standardize="columns"`. "freed": the rows less their regression on the context, which is the map of a
layer that does not train, by "fit" without a context's start. Quantiles are those of redshift, by a single fit and by the
average of five, as multiples of as many densities; memory is the growth of the process, in MiB.
Written to benchmarks/results/conditional.json.
"""

import argparse
import json
import os
import resource
import time
import warnings
from pathlib import Path

import numpy as np
import records
from sets import of_household, table

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "conditional.json"
TEST = 5_000
QUANTILES = "quantiles"  # their record, beside the records of sets
METHODS = ("regression", "fit", "whitened", "columns", "freed")


def linear(rng, n):
    """Ten Gaussian parameters, seen through a matrix and noise: the regression is the truth."""
    own = np.random.default_rng(1)
    prior, seen = own.normal(size=(10, 10)), own.normal(size=(10, 8))
    x = rng.normal(size=(n, 10)) @ prior
    return x, x @ seen + 2.0 * rng.normal(size=(n, 8))


def curved(rng, n):
    """Five normal parameters, of which products, squares and sines are seen."""
    x = rng.normal(size=(n, 5))
    seen = np.column_stack([x[:, 0] + 0.5 * x[:, 1] ** 2, x[:, 1] * x[:, 2], np.sin(2 * x[:, 3]) + x[:, 3], x[:, 4], x.sum(1)])
    return x, seen + 0.3 * rng.normal(size=seen.shape)


def bounded(rng, n):
    """Ten rates in (0, 1), seen as counts of 20 trials each and the mean of all."""
    x = 1 / (1 + np.exp(-rng.normal(size=(n, 10)) - rng.normal(size=(n, 1))))
    seen = rng.binomial(20, x) / 20
    return x, np.column_stack([seen, x.mean(1) + 0.02 * rng.normal(size=n)])


def two_ways(rng, n):
    """Two parameters, of which the absolute value of one and the squared distance from 0 are seen: several modes."""
    x = rng.uniform(-1, 1, (n, 2))
    return x, np.column_stack([np.abs(x[:, 0]), (x**2).sum(1)]) + 0.05 * rng.normal(size=(n, 2))


def redshift(rng, n):
    rows = table("galaxies")[rng.permutation(10_000)]
    return rows[:, :1], rows[:, 1:]


def power(rng, n):
    """Active power, reactive power and voltage of a household, given the minute of the day on its circle."""
    rows = of_household()[rng.permutation(20_000)]
    angle = 2 * np.pi * rows[:, 0] / 1440
    return rows[:, 1:4], np.column_stack([np.cos(angle), np.sin(angle)])


SETS = {
    "linear 10": linear,
    "curved 5": curved,
    "bounded 10": bounded,
    "two ways": two_ways,
    "redshift": redshift,
    "power": power,
}
ROWS = {"linear 10": 10_000, "curved 5": 10_000, "bounded 10": 5_000, "two ways": 5_000, "redshift": 8_000, "power": 16_000}


def regression(context, x):
    """The coefficients of least squares, and the covariance of what is left."""
    design = np.column_stack([np.ones(len(x)), context])
    coefficients = np.linalg.lstsq(design, x, rcond=None)[0]
    return coefficients, np.atleast_2d(np.cov((x - design @ coefficients).T, bias=True))


def scored(method, x, context, test, seen, seed):
    flow = flows.Flow(flows.NSF())
    coefficients, covariance = regression(context, x)
    left = [each - np.column_stack([np.ones(len(each)), given]) @ coefficients for each, given in ((x, context), (test, seen))]
    if method == "regression":
        factor = np.linalg.cholesky(covariance)
        z = np.linalg.solve(factor, left[1].T)
        return -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * x.shape[1] * np.log(2 * np.pi)
    rows, tests = left if method == "freed" else (x, test)
    standardize = {"whitened": "whiten", "columns": "columns"}.get(method, True)
    result = flows.fit(seed, flow, rows, context=context, standardize=standardize, verbose=0)
    return np.asarray(result.log_prob(tests, context=seen), float)


def measured(name, seed, methods, known):
    rng = np.random.default_rng(seed)
    x, context = SETS[name](rng, ROWS[name] + TEST)
    n = ROWS[name]
    found, of_regression = dict(known), None
    for method in ("regression", *[each for each in methods if each != "regression"]):
        start = time.process_time()
        scores = scored(method, x[:n], context[:n], x[n : n + TEST], context[n : n + TEST], seed)
        of_regression = scores if of_regression is None else of_regression
        ahead = scores - of_regression
        found[method] = {
            "nats": float(scores.mean()),
            "ahead": [float(ahead.mean()), float(ahead.std() / np.sqrt(len(ahead)))],
            "seconds": time.process_time() - start,
        }
        print(f"{name}, seed {seed}, {method}: {json.dumps(found[method])}", flush=True)
    return found


def of_quantiles(rows=10_000):
    """Milliseconds of the CPU, the least of five calls that compile nothing, and by how much memory grew in the calls."""
    rng = np.random.default_rng(0)
    x, context = redshift(rng, 8_000)
    places, told = rng.integers(len(x), size=rows), {}
    seen, given = x[places], context[places]
    for folds in (1, 5):
        result = flows.fit(0, flows.Flow(flows.NSF()), x, context=context, folds=folds, max_epochs=10, verbose=0)
        calls = {
            "log_prob": lambda many, result=result: result.log_prob(seen[:many], context=given[:many]),
            "cdf": lambda many, result=result: result.cdf(seen[:many], context=given[:many]),
            "quantile": lambda many, result=result: result.quantile(0.3, context=given[:many]),
            "interval": lambda many, result=result: result.interval(0.9, context=given[:many]),
        }
        for many in (1_000, rows):
            for name, call in calls.items():
                call(many)
                before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
                for _ in range(5):
                    start = time.process_time()
                    np.asarray(call(many))
                    times.append(1000 * (time.process_time() - start))
                growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
                told[f"{name} of {many}, {folds} fit{'s' * (folds > 1)}"] = {"ms": min(times), "growth": growth}
                print(many, folds, name, min(times), growth, flush=True)
    return told


def table_of_quantiles(told):
    lines = ["| of as many densities | densities, ms | cdf | quantile | interval |", "|---|---|---|---|---|"]
    for several in dict.fromkeys(name.split(" of ")[1] for name in told):
        one, *others = (told[f"{what} of {several}"]["ms"] for what in ("log_prob", "cdf", "quantile", "interval"))
        lines.append(f"| {several} | {one:.3g} | " + " | ".join(f"{each / one:.1f}" for each in others) + " |")
    return "\n".join(lines)


def as_table(found):
    lines = [
        "| nats a row ahead of the regression (its own) | " + " | ".join(METHODS) + " |",
        "|---" * (len(METHODS) + 1) + "|",
    ]
    for name, runs in found.items():
        if name == QUANTILES:
            continue
        cells = []
        for method in METHODS:
            told = [run[method] for run in runs.values() if method in run]
            if method == "regression":
                cells.append(f"{np.mean([each['nats'] for each in told]):.3f}")
            elif told:
                error = np.sqrt(np.square([each["ahead"][1] for each in told]).sum()) / len(told)
                cells.append(f"{np.mean([each['ahead'][0] for each in told]):+.3f} +- {error:.3f}")
            else:
                cells.append("")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quantiles", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)
    os.sched_setaffinity(0, {options.core})
    warnings.simplefilter("ignore")
    if options.quantiles:
        found[QUANTILES] = of_quantiles()
        records.write(options.out, found)
    elif not options.table:
        for seed in map(str, range(options.seeds)):
            for name in options.sets:
                of = found.setdefault(name, {})
                of[seed] = measured(name, int(seed), options.methods, of.get(seed, {}))
                records.write(options.out, found)
    print(as_table(found))
    if QUANTILES in found:
        print(table_of_quantiles(found[QUANTILES]))


if __name__ == "__main__":
    main()
