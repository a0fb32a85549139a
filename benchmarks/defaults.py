"""Which NSF, MAF and RealNVP do best on many tables by `flows.fit` without options: what their defaults are measured by.

    python benchmarks/defaults.py                                # everything; hours
    python benchmarks/defaults.py --only "NSF" --sets galaxies   # some

Each candidate differs from the first of its kind in one or two arguments. Scores are nats a row of test rows, and seconds of the
CPU, compiling included. What is in benchmarks/results/defaults.json already is not measured again; `--table` prints it.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import numpy as np
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


CANDIDATES: dict[str, Callable] = {
    "NSF": spline,
    "NSF 64": lambda: spline(hidden=PLAIN),
    "NSF 32": lambda: spline(hidden=(32, 32)),
    "NSF 64, 3 layers": lambda: spline(3, hidden=PLAIN),
    "NSF 64, 2 layers": lambda: spline(2, hidden=PLAIN),
    "NSF 64, bound 5": lambda: spline(hidden=PLAIN, bound=5.0),
    "NSF 64, bound 8": lambda: spline(hidden=PLAIN, bound=8.0),
    "NSF 64, bound 5, dropout 0.1": lambda: spline(hidden=PLAIN, bound=5.0, dropout=0.1),
    "NSF 64, bound 5, 3 layers, MLP": lambda: spline(3, hidden=PLAIN, bound=5.0, residual=False),
    "NSF 64, bound 5, no linear maps": lambda: spline(hidden=PLAIN, bound=5.0, linear=False),
    "NSF 64, bound 5, AR": lambda: spline(3, hidden=PLAIN, bound=5.0, ar=True),
    "NSF 64, bound 5, AR, no linear maps": lambda: spline(3, hidden=PLAIN, bound=5.0, ar=True, linear=False),
    "NSF 64, bound 5, AR, MLP": lambda: spline(3, hidden=PLAIN, bound=5.0, ar=True, residual=False),
    "NSF 64, bound 5, AR, MLP, no linear maps": lambda: spline(3, PLAIN, bound=5.0, ar=True, residual=False, linear=False),
    "MAF": flows.MAF,
    "MAF plain": lambda: flows.MAF(plain=True),
    "MAF 64": lambda: flows.MAF(hidden=PLAIN),
    "MAF plain 64": lambda: flows.MAF(hidden=PLAIN, plain=True),
    "MAF plain, 10 layers": lambda: flows.MAF(10, plain=True),
    "RealNVP": flows.RealNVP,
    "RealNVP plain": lambda: flows.RealNVP(plain=True),
    "RealNVP plain 64": lambda: flows.RealNVP(hidden=PLAIN, plain=True),
}


@cache
def rows_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    return SETS[name]()


def measured(candidate: str, name: str, **options) -> dict:
    rows, test = rows_of(name)
    jax.clear_caches()
    flows.clear_caches()
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = flows.fit(0, flows.Flow(CANDIDATES[candidate]()), rows, verbose=0, **options)
    seconds = time.process_time() - start
    pieces = [result.log_pdf(result.params, test[i : i + 5000]) for i in range(0, len(test), 5000)]
    scores = np.concatenate([np.asarray(each, float) for each in pieces])
    history = result.history
    return {
        "nats": float(scores.mean()),
        "median": float(np.median(scores)),
        "seconds": seconds,
        "epochs": [int(history["best_epoch"]), len(history["train"]), int(history["max_epochs"])],
        "behind": float(history["validation"].min() - history["gaussian"]),
    }


def table(found: dict) -> str:
    names = list(SETS)
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
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        for name in options.sets:
            for candidate in CANDIDATES:
                if options.only in candidate and name not in found.get(candidate, {}):
                    found.setdefault(candidate, {})[name] = measured(candidate, name)
                    print(f"{name}, {candidate}: {found[candidate][name]}", flush=True)
                    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
