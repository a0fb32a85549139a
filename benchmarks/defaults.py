"""Which NSF, MAF and RealNVP do best on many tables by `flows.fit` without options: what their defaults are measured by.

    python benchmarks/defaults.py                                # everything; hours
    python benchmarks/defaults.py --only "NSF" --sets galaxies   # some

Each candidate differs from the first of its kind in one or two arguments. Scores are nats a row of test rows, and seconds of
the CPU, compiling included. What is in benchmarks/results/defaults.json already is not measured again; `--table` prints it.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import numpy as np
import records
from sets import SETS

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "defaults.json"
PLAIN, WIDE = (64, 64), (128, 128)


def spline(layers=5, hidden=WIDE, bins=8, bound=3.0, ar=False, linear=True, residual=True, kept=True, dropout=0.0):
    """A neural spline flow of any of the parts that `flows.NSF` chooses among."""
    if residual:
        network = flows.conditioners.MaskedResidual if ar else flows.conditioners.Residual
        net = network(hidden[0], len(hidden), dropout=dropout)
    else:
        net = (flows.conditioners.MaskedMLP if ar else flows.MLP)(*hidden, dropout=dropout)
    transformer = flows.transformers.RationalQuadratic(num_bins=bins, bound=bound)
    if ar:
        layer = flows.Autoregressive(net, transformer)
    else:
        layer = flows.Coupling(net, transformer, unconditional=transformer if kept else None)
    step = [flows.InvertibleLinear(), layer] if linear else [layer, flows.Reverse()]
    return flows.Repeat(flows.Serial(*step), layers) if layers > 3 else flows.Serial(*step * layers)


AR = {"layers": 5, "hidden": PLAIN, "bound": 5.0, "ar": True, "linear": False}


def of(base: dict, **changes) -> Callable:
    return lambda: spline(**{**base, **changes})


CP = {"layers": 5, "hidden": WIDE, "bound": 5.0}
MEAN = {"ema": 0.998}
CANDIDATES: dict[str, tuple[Callable, dict]] = {
    "AR, bound 8, 10 bins, average": (of(AR, bound=8.0, bins=10), MEAN),
    "AR, bound 10, 10 bins, average": (of(AR, bound=10.0, bins=10), MEAN),
    "AR, bound 12, 12 bins, average": (of(AR, bound=12.0, bins=12), MEAN),
    "AR, bound 10, 10 bins, rate 5e-3, average": (of(AR, bound=10.0, bins=10), {**MEAN, "learning_rate": 5e-3}),
    "AR": (of(AR), {}),
    "AR, rate 6e-3": (of(AR), {"learning_rate": 6e-3}),
    "AR, dropout 0.1": (of(AR, dropout=0.1), {}),
    "AR, 3 layers": (of(AR, layers=3), {}),
    "AR, 128": (of(AR, hidden=WIDE), {}),
    "AR, bound 8": (of(AR, bound=8.0), {}),
    "AR, MLP": (of(AR, residual=False), {}),
    "AR, linear maps": (of(AR, linear=True), {}),
    "AR, average": (of(AR), {"ema": 0.998}),
    "AR, 128, average": (of(AR, hidden=WIDE), {"ema": 0.998}),
    "AR, bound 8, average": (of(AR, bound=8.0), {"ema": 0.998}),
    "AR, rate 6e-3, average": (of(AR), {"learning_rate": 6e-3, "ema": 0.998}),
    "AR, dropout 0.1, average": (of(AR, dropout=0.1), {"ema": 0.998}),
    "AR, longer average": (of(AR), {"ema": 0.9995}),
    "AR, decay": (of(AR), {"weight_decay": 0.1}),
    "coupling": (of(CP), {}),
    "coupling, average": (of(CP), {"ema": 0.998}),
    "coupling, no linear maps, 64": (of(CP, linear=False, hidden=PLAIN), {}),
    "MAF": (flows.MAF, {}),
    "MAF, plain": (lambda: flows.MAF(plain=True), {}),
    "MAF, average": (flows.MAF, {"ema": 0.998}),
    "RealNVP": (flows.RealNVP, {}),
    "RealNVP, average": (flows.RealNVP, {"ema": 0.998}),
    "RealNVP, plain": (lambda: flows.RealNVP(plain=True), {}),
    "NSF as it was": (spline, {"learning_rate": 1e-3, "ema": None}),
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
        result = flows.fit(0, flows.Flow(make()), rows, verbose=0, **{"learning_rate": 3e-3, "ema": None, **options})
    seconds = time.process_time() - start
    pieces = [result.log_pdf(result.params, test[i : i + 5000]) for i in range(0, len(test), 5000)]
    scores = np.concatenate([np.asarray(each, float) for each in pieces])
    history = result.history
    return {
        "nats": float(scores.mean()),
        "median": float(np.median(scores)),
        "seconds": seconds,
        "epochs": [int(history["best_epoch"]), len(history["train_loss"]), int(history["max_epochs"])],
        "gaussian": float(history["gaussian_loss"]),
        "validation": [round(float(each), 4) for each in (history["start_loss"], *history["validation_loss"])],
    }


def table(found: dict) -> str:
    names = [name for name in SETS if any(name in of for of in found.values())]  # measured, by some candidate
    lines = ["| " + " | ".join(["nats above the Gaussian", *names, "mean", "seconds"]) + " |", "|---" * (len(names) + 3) + "|"]
    for candidate, of in found.items():
        gains = [of[name]["nats"] if name in of else np.nan for name in names]
        best = [max(each[name]["nats"] for each in found.values() if name in each) for name in names]
        lost = np.nanmean(np.array(best) - np.array(gains))
        seconds = sum(of[name]["seconds"] for name in names if name in of)
        cells = ["" if np.isnan(gain) else f"{gain:.2f}" for gain in gains]
        lines.append("| " + " | ".join([candidate, *cells, f"-{lost:.3f}", f"{seconds:.0f}"]) + " |")
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
