"""Are the figures of `flows.fit_to_density` to be believed, and what does it cost to look for several modes?

    python benchmarks/posteriors.py                     # eleven targets, three seeds: the default, one start, others; one core
    python benchmarks/posteriors.py --targets ring      # some
    python benchmarks/posteriors.py --table             # what was measured

Each fit is a process of its own, whose seconds of one core include compiling: the default model from 32 starts and from one, a
coupling flow, a small one, and flowjax's loop (peers/posterior_flowjax.py). The targets are those of densities.py. "spread" is
the standard deviation of the model over the one of the target, where it is furthest from 1. Written to
benchmarks/results/posteriors.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import records
from densities import TARGETS, Target, known
from scipy.special import softmax

import flows
from flows.objectives import effective_sample_size, log_normalizer, pareto_k

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "posteriors.json"
SMALL = flows.Flow(flows.RealNVP(4, hidden=(16,)))
WAYS = {"32": (None, 32), "1": (None, 1), "coupling": (flows.Flow(flows.RealNVP()), 32), "small coupling": (SMALL, 32)}
DRAWS = 200_000


def measured(name: str, way: str, seed: int) -> dict:
    """Of `flows.fit_to_density`."""
    target, (model, starts) = known(name), WAYS[way]
    began, told = time.process_time(), []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = flows.fit_to_density(seed, model, target.log_density, target.dim, starts=starts, verbose=0)
    seconds = time.process_time() - began
    told = [str(each.message).partition(": ")[2] for each in said if "fit_to_density" in str(each.message)]
    found = result.diagnostics
    return {
        "effective": found.effective_sample_size, "k": found.pareto_k, "error": found.log_normalizer.value - target.log_z,
        "standard error": found.log_normalizer.standard_error, "modes": found.modes,
        "mass found": mass_found(target, result.draw(seed + 100, 50_000)), "epochs": len(result.history["train_loss"]),
        "seconds": seconds, "warned": told, "spread": spread(target, result, seed),
    }  # fmt: skip


def spread(target: Target, result: Any, seed: int) -> float:
    """Exactly where the target is known, else by weights of 200,000 draws."""
    draws = np.asarray(result.draw(seed + 200, DRAWS), float)
    stds = target.stds
    if not stds:
        x, log_w = flows.objectives.importance_samples(result.params, result, target.log_density, seed + 300, DRAWS)
        x, w = np.asarray(x, float), softmax(np.asarray(log_w, float))
        stds = np.sqrt(w @ np.square(x - w @ x))
    ratios = draws.std(0) / stds
    return float(ratios[np.abs(np.log(ratios)).argmax()])


def mass_found(target: Target, drawn: Any) -> float:
    """One less the mass by which modes have fewer draws than they should."""
    if target.which is None:
        return 1.0
    shares = np.bincount(target.which(np.asarray(drawn, float)), minlength=len(target.masses)) / len(drawn)
    return 1 - float(np.maximum(np.array(target.masses) - shares, 0).sum())


def of_flowjax(name: str, seed: int) -> dict:
    """The same of flowjax's variational loop, by the weights of its draws alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draws.npz"
        python, script = HERE.parent / ".venv-peers" / "bin" / "python", HERE / "peers" / "posterior_flowjax.py"
        subprocess.run([python, script, name, str(seed), file], check=True)
        with np.load(file) as given:
            x, log_w, seconds = given["x"], given["log_w"][:10_000], float(given["seconds"])
    target = known(name)
    if not (log_w < np.inf).all():  # it has diverged
        lost = {"effective": 0.0, "k": np.inf, "error": np.inf, "standard error": np.inf, "modes": 1, "mass found": 0.0}
        return {**lost, "epochs": 20, "seconds": seconds, "warned": []}
    evidence = log_normalizer(log_w)
    return {
        "effective": effective_sample_size(log_w) / len(log_w), "k": pareto_k(log_w), "error": evidence.value - target.log_z,
        "standard error": evidence.standard_error, "modes": 1, "mass found": mass_found(target, x), "epochs": 20,
        "seconds": seconds, "warned": [],
    }  # fmt: skip


def table(found: dict) -> str:
    lines = [
        "| target | starts, or model | effective sample size | Pareto k | error of log Z | standard error | spread | modes "
        "| mass found | hundreds of steps | seconds | warned of |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of_starts in found.items():
        for starts, of_seeds in sorted(of_starts.items(), key=lambda each: [*WAYS, "flowjax"].index(each[0])):
            runs = list(of_seeds.values())
            of = {key: [run[key] for run in runs] for key in runs[0]}
            modes = " to ".join(map(str, sorted({min(of["modes"]), max(of["modes"])})))
            warned = f"{sum(map(bool, of['warned']))} of {len(runs)}"
            spreads = "" if starts == "flowjax" else f"{max(of['spread'], key=lambda ratio: abs(np.log(ratio))):.2f}"
            if starts == "flowjax":
                modes = warned = ""  # it tells neither
            lines.append(
                f"| {name} | {starts} | {min(of['effective']):.3f} or more | {max(of['k']):.2f} or less "
                f"| {max(of['error'], key=abs):+.4f} | {np.median(of['standard error']):.4f} | {spreads} | {modes} "
                f"| {100 * min(of['mass found']):.1f}% | {np.median(of['epochs']):.0f} | {np.median(of['seconds']):.1f} "
                f"| {warned} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--starts", nargs="+", default=[*WAYS, "flowjax"], choices=[*WAYS, "flowjax"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=3, help="a target, a way and a seed; prints JSON")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    if options.one:
        name, starts, seed = options.one
        print(json.dumps(of_flowjax(name, int(seed)) if starts == "flowjax" else measured(name, starts, int(seed))))
        return
    found = records.read(options.out)
    if not options.table:
        for name in options.targets:
            for starts in options.starts:
                for seed in map(str, range(options.seeds)):
                    command = [sys.executable, __file__, "--one", name, starts, seed, "--core", str(options.core)]
                    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    one = json.loads(told.splitlines()[-1])
                    found.setdefault(name, {}).setdefault(starts, {})[seed] = one
                    print(name, starts, seed, {key: value for key, value in one.items() if key != "warned"}, flush=True)
            records.write(options.out, found)
    print(table(found))


if __name__ == "__main__":
    main()
