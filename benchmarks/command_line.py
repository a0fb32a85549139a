"""The command line: `flows fit` in two minutes beside mixtures of Gaussians, and what files cost `score` and `sample`.

    python benchmarks/command_line.py                       # all of it: ten minutes
    python benchmarks/command_line.py --only ratios         # a million rows scored and drawn
    python benchmarks/command_line.py --only fit --minutes 1
    python benchmarks/command_line.py --table

"fit" holds back 2,000 rows of household power, runs `flows fit rows.csv -o m.flows --minutes 2`, and tells the mean of
`TableResult.log_prob(draws=16)` of the rows held back; beside it the best of scikit-learn's mixtures of 3, 10, 30 and 100
Gaussians of the same rows with noise as wide as their steps, by rows held out from these. "ratios" runs `flows score` on a
million rows and `flows sample -n 1000000`, by the model of "fit" and by `flows.NSF()`, twice each: the first compiles, the
second finds what the first kept. The CPU time of the second, with its imports and files, is divided by that of
`TableResult.log_prob` and `draw` of as many rows in Python, compiled and in memory ("call"), and by that of a program of four
lines in Python that does the same ("program"). Written to benchmarks/results/command_line.json.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import records
from sklearn.mixture import GaussianMixture

from flows import tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DATA = ROOT / "benchmarks" / "results" / "command_line.json", ROOT / "examples" / "data" / "household_power.csv"
STEP = np.array([1, 0.002, 0.002, 0.01, 1, 1, 1])
TEST, MILLION = 2_000, 1_000_000


def split():
    """The rows to fit, and those held back."""
    frame = pl.read_csv(DATA)
    order = np.random.default_rng(0).permutation(len(frame))
    return frame[order[TEST:]], frame[order[:TEST]]


PROGRAMS = {
    "score": """
frame = polars.read_csv("million.csv")
frame.with_columns(log_prob=tables.load(model).log_prob(frame)).write_csv("by_program.csv")
""",
    "sample": """
tables.load(model).draw(0, 1_000_000).write_csv("by_program.csv")
""",
}


CACHE = tempfile.TemporaryDirectory()  # of programs, where none are at the beginning


def process(*arguments):
    """Runs Python; what it took by the clock, and of the processor, in seconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": CACHE.name}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *map(str, arguments)], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - start, "cpu": cpu}


def command(*arguments):
    """Runs a command."""
    return process("-m", "flows", *arguments)


def call(run):
    """The same of a call in this process, the second of two."""
    run()
    start, spent = time.perf_counter(), time.process_time()
    run()
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - spent}


def mixture(train, test):
    """The mean score of rows with noise, by the mixture that is best on a tenth of the rows to fit."""
    rng = np.random.default_rng(1)
    noisy, tests = (frame.to_numpy() + STEP * (rng.uniform(size=frame.shape) - 0.5) for frame in (train, test))
    scale, held = noisy.std(0), len(noisy) // 10
    mixtures = [GaussianMixture(n, random_state=0).fit(noisy[held:] / scale) for n in (3, 10, 30, 100)]
    best = max(mixtures, key=lambda each: each.score(noisy[:held] / scale))
    return {"components": best.n_components, "nats": float(best.score(tests / scale) - np.log(scale).sum())}


def of_fit(folder, minutes):
    train, test = split()
    train.write_csv(folder / "rows.csv")
    spent = command("fit", folder / "rows.csv", "-o", folder / "m.flows", "--minutes", minutes, "--quiet", "--force")
    scores = tables.load(folder / "m.flows").log_prob(test, draws=16)
    error = float(scores.std() / np.sqrt(len(scores)))
    return {"minutes": minutes, "nats": float(scores.mean()), "error": error, **spent}, mixture(train, test)


def of_ratios(folder):
    """By the model of "fit", where it is there, and by `flows.NSF()` after a few epochs."""
    train, _ = split()
    train.write_csv(folder / "rows.csv")
    few = ("--model", "NSF", "--max-epochs", 3, "--quiet")
    command("fit", folder / "rows.csv", "-o", folder / "nsf.flows", *few)
    frame = train[np.random.default_rng(2).integers(0, len(train), MILLION)]
    frame.write_csv(folder / "million.csv")
    found = {}
    for model in ("m", "nsf"):
        path = folder / f"{model}.flows"
        if path.exists():
            result = tables.load(path)
            score = ratio(folder, model, "score", folder / "million.csv", lambda table=result: table.log_prob(frame))
            sample = ratio(folder, model, "sample", f"-n{MILLION}", lambda table=result: table.draw(0, MILLION))
            found |= {f"score by {model}": score, f"sample by {model}": sample}
    return found


def ratio(folder, model, name, argument, run):
    path = folder / f"{model}.flows"
    first, second = (command(name, path, argument, "-o", folder / "out.csv", "--quiet", "--force") for _ in range(2))
    text = f"import os, polars, flows; from flows import tables; os.chdir({str(folder)!r}); flows.keep_programs()\n"
    text += f"model = {str(path)!r}{PROGRAMS[name]}"
    process("-c", text)
    program, of_call = process("-c", text), call(run)
    found = {"ratio": second["cpu"] / of_call["cpu"], "of_program": second["cpu"] / program["cpu"]}
    for each, spent in {"first": first, "second": second, "program": program, "call": of_call}.items():
        found[each] = [round(spent["cpu"], 2), round(spent["seconds"], 2)]
    print(name, model, found, flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("fit", "ratios"))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--table", action="store_true", help="print what was measured")
    options = parser.parse_args()
    found = records.read(RESULTS)
    if options.table:
        print(records.as_text(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "ratios":
            found["fit"], found["mixture"] = of_fit(folder, options.minutes)
            print(found["fit"], found["mixture"], flush=True)
        if options.only != "fit":
            found |= of_ratios(folder)
    records.write(RESULTS, found)


if __name__ == "__main__":
    main()
