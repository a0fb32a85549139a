"""Which NSF, MAF and RealNVP do best on many tables by `flows.fit` without options: what their defaults are measured by.

    python benchmarks/defaults.py                                # everything; hours
    python benchmarks/defaults.py --only "NSF" --sets galaxies   # some

Each candidate differs from the first of its kind, which has all defaults, in one argument or two. Scores are nats a row of test
rows, and seconds of the CPU, compiling included. What is in benchmarks/results/defaults.json already is not measured again;
`--table` prints how far each candidate is ahead of the first of its kind.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import records
from sets import SETS

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "defaults.json"

CANDIDATES: dict[str, tuple[Callable, dict]] = {  # models, and options of `fit`
    "NSF": (flows.NSF, {}),
    "NSF, rate 3e-3": (flows.NSF, {"learning_rate": 3e-3}),
    "NSF, rate 1e-3": (flows.NSF, {"learning_rate": 1e-3}),
    "NSF, no average": (flows.NSF, {"ema": None}),
    "NSF, bound 5, 8 bins": (partial(flows.NSF, bound=5.0, num_bins=8), {}),
    "NSF, bound 8": (partial(flows.NSF, bound=8.0), {}),
    "NSF, bound 12, 12 bins": (partial(flows.NSF, bound=12.0, num_bins=12), {}),
    "NSF, 3 layers": (partial(flows.NSF, num_layers=3), {}),
    "NSF, 128 units": (partial(flows.NSF, hidden=(128, 128)), {}),
    "NSF, MLP": (partial(flows.NSF, plain=True), {}),
    "NSF, dropout 0.1": (partial(flows.NSF, dropout=0.1), {}),
    "NSF, linear maps": (partial(flows.NSF, linear=True), {}),
    "NSF, couplings": (partial(flows.NSF, hidden=(128, 128), autoregressive=False, linear=True), {}),
    "MAF": (flows.MAF, {}),
    "MAF, rate 3e-3": (flows.MAF, {"learning_rate": 3e-3}),
    "MAF, no average": (flows.MAF, {"ema": None}),
    "MAF, plain": (partial(flows.MAF, plain=True), {}),
    "RealNVP": (flows.RealNVP, {}),
    "RealNVP, rate 3e-3": (flows.RealNVP, {"learning_rate": 3e-3}),
    "RealNVP, no average": (flows.RealNVP, {"ema": None}),
    "RealNVP, plain": (partial(flows.RealNVP, plain=True), {}),
}


@cache
def rows_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    return SETS[name]()


def measured(candidate: str, name: str) -> dict:
    (rows, test), (make, options) = rows_of(name), CANDIDATES[candidate]
    jax.clear_caches()
    flows.clear_caches()
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = flows.fit(0, flows.Flow(make()), rows, verbose=0, **options)
    seconds = time.process_time() - start
    pieces = [result.log_pdf(result.params, test[i : i + 5000]) for i in range(0, len(test), 5000)]
    scores = np.concatenate([np.asarray(each, float) for each in pieces])
    return {"nats": float(scores.mean()), "median": float(np.median(scores)), "seconds": seconds}


def table(found: dict) -> str:
    """A line for each candidate: how far it is ahead of the first of its kind, on the sets where both were measured."""
    titles = (
        "nats ahead of the default",
        "mean",
        "median",
        "sets ahead by 0.02",
        "behind by 0.02",
        "most ahead",
        "most behind",
        "seconds a fit",
    )
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for candidate, scores in found.items():
        default = found[candidate.split(",")[0]]
        gains = {name: scores[name]["nats"] - default[name]["nats"] for name in scores if name in default}
        values, by = np.array(list(gains.values())), sorted(gains, key=gains.get)
        ends = [f"{name} {gains[name]:+.2f}" for name in (by[-1], by[0])] if any(values) else ["", ""]
        counts = [int((values > 0.02).sum()), int((values < -0.02).sum())]
        seconds = np.mean([each["seconds"] for each in scores.values()])
        cells = [candidate, f"{values.mean():+.2f}", f"{np.median(values):+.3f}", *map(str, counts), *ends, f"{seconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="candidates with this in their name")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what was measured")
    options = parser.parse_args()
    found = records.read(options.out)
    if not options.table:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        for name in options.sets:
            for candidate in CANDIDATES:
                if options.only in candidate and name not in found.get(candidate, {}):
                    found.setdefault(candidate, {})[name] = measured(candidate, name)
                    print(f"{name}, {candidate}: {found[candidate][name]}", flush=True)
                    records.write(options.out, found)
    print(table(found))


if __name__ == "__main__":
    main()
