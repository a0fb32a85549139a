"""Fits to few rows: one model, the same fitted again to all rows, or the average over folds?

    python benchmarks/folds.py               # twelve sets, two seeds each, one core: a quarter of an hour
    python benchmarks/folds.py --table       # what was measured

"One": `flows.fit(folds=1)`, which holds a tenth of the rows out. "Again": a second fit to all rows, which ends after as many
epochs as were best for the first. "Folds": `flows.fit` by default, five models that each hold out another fifth, averaged. All
are `Flow(NSF())`. Written to benchmarks/results/folds.json.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import records
from sets import bounded, clusters, drawn, gaussian, of_household, scikit, shape, split, student, table, tailed

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "folds.json"
SETS = {
    "galaxies, 300 rows": lambda seed: split(table("galaxies"), 300, seed),
    "breast cancer, 455": lambda seed: split(scikit("breast_cancer"), 455, seed),
    "wine, 142": lambda seed: split(scikit("wine"), 142, seed),
    "diabetes, 353": lambda seed: split(scikit("diabetes"), 353, seed),
    "Gaussian in 3 columns, 200": lambda seed: drawn(gaussian(3), 200, seed),
    "TwoMoons, 300": lambda seed: drawn(shape("TwoMoons"), 300, seed),
    "EightGaussians, 1,000": lambda seed: drawn(shape("EightGaussians"), 1_000, seed),
    "8 clusters in 10 columns, 500": lambda seed: drawn(clusters(8, 10, 3.0), 500, seed),
    "t with 2 degrees in 5 columns, 300": lambda seed: drawn(student(2.0, 5), 300, seed),
    "bounded, 4 columns, 1,000": lambda seed: drawn(bounded(4), 1_000, seed),
    "household, 1,000": lambda seed: split(of_household(), 1_000, seed),
    "10 columns with tails, 400": lambda seed: drawn(tailed(10), 400, seed),
}


def one(flow, rows, seed):
    return flows.fit(seed, flow, rows, folds=1, verbose=0)


def again(flow, rows, seed, first):
    history, few = first.history, rows[: max(2, len(rows) // 10)]
    best, settings = int(history["best_epoch"]), {"batch_size": int(history["batch_size"]), "verbose": 0}
    if best < 0:  # the start was best: that of all rows
        return flows.fit(seed, flow, rows, validation=few, max_epochs=1, learning_rate=1e-12, **settings)
    return flows.fit(
        seed, flow, rows, validation=few, max_epochs=int(history["max_epochs"]), patience=10**6,
        callbacks=[lambda epoch: epoch.number >= best], **settings,
    )  # fmt: skip


def scores(result, test):
    pieces = [result.log_pdf(result.params, test[i : i + 5000]) for i in range(0, len(test), 5000)]
    return np.concatenate([np.asarray(each, float) for each in pieces])


def measured(name: str, seed: int) -> dict:
    rows, test = SETS[name](seed)
    flow, found, results, of_one = flows.Flow(flows.NSF()), {}, {}, np.zeros(len(test))
    for method in ("one", "again", "folds"):
        start = time.process_time()
        if method == "one":
            results[method] = one(flow, rows, seed)
        elif method == "again":
            results[method] = again(flow, rows, seed, results["one"])
        else:
            results[method] = flows.fit(seed, flow, rows, verbose=0)
        seconds, own = time.process_time() - start, scores(results[method], test)
        of_one = own if method == "one" else of_one
        ahead = own - of_one
        found[method] = {
            "nats": float(own.mean()),
            "ahead": [float(ahead.mean()), float(ahead.std() / np.sqrt(len(ahead)))],
            "seconds": seconds,
        }
    return found


def as_table(found: dict) -> str:
    lines = ["| nats a row, by seed | one | again, ahead of one | folds, ahead of one |", "|---|---|---|---|"]
    for name, runs in found.items():
        cells = [", ".join(f"{run['one']['nats']:.2f}" for run in runs)]
        cells += [", ".join("{:+.2f} +- {:.2f}".format(*run[method]["ahead"]) for run in runs) for method in ("again", "folds")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(RESULTS) if options.table else {}
    if not options.table:
        os.sched_setaffinity(0, {options.core})
        warnings.simplefilter("ignore")
        for name in SETS:
            found[name] = [measured(name, seed) for seed in range(options.seeds)]
            print(name, json.dumps(found[name]), flush=True)
            records.write(RESULTS, found)
    print(as_table(found))


if __name__ == "__main__":
    main()
