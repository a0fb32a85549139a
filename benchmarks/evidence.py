"""Does the standard error of log Z that `flows.fit_to_density` reports cover, and how long does a fit take?

    python benchmarks/evidence.py                       # three targets, ten seeds each, one core
    python benchmarks/evidence.py --table               # what was measured

The targets' log Z are known: a logistic regression's from four million draws of a Student t at its mode, a hierarchical
model's by quadrature over its one scale (everything else is Gaussian), a banana's in closed form. Written to
benchmarks/results/evidence.json.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import records
from densities import Target, known

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "evidence.json"
TARGETS = "logistic regression", "eight schools", "banana"


def measured(target: Target, seed: int) -> dict[str, float]:
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = flows.fit_to_density(seed, None, target.log_density, target.dim, verbose=0)
    found = result.diagnostics
    return {
        "error": found.log_normalizer.value - target.log_z,
        "standard error": found.log_normalizer.standard_error,
        "effective sample size": found.effective_sample_size,
        "pareto k": found.pareto_k,
        "epochs": len(result.history["train_loss"]),
        "seconds": time.process_time() - start,
    }


def table(found: dict) -> str:
    lines = [
        "| target | effective sample size | standard error | error, root mean square | runs within 2 standard errors | epochs "
        "| seconds of one core: first run, later |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        error, claimed = (np.array([run[key] for run in runs]) for key in ("error", "standard error"))
        seconds = [run["seconds"] for run in runs]
        within = int((np.abs(error) <= 2 * claimed).sum())
        lines.append(
            f"| {name} | {min(run['effective sample size'] for run in runs):.3f} or more | {claimed.mean():.5f} "
            f"| {np.sqrt((error**2).mean()):.5f} | {within} of {len(runs)} "
            f"| {np.median([run['epochs'] for run in runs]):.0f} | {seconds[0]:.0f}, {np.median(seconds[1:]):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)
    if not options.table:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        for name in options.targets:
            found[name] = []
            for seed in range(options.seeds):
                found[name].append(measured(known(name), seed))
                print(name, seed, {key: round(value, 5) for key, value in found[name][-1].items()}, flush=True)
            records.write(options.out, found)
    print(table(found))


if __name__ == "__main__":
    main()
