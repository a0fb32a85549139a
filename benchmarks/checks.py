"""`flows.check`: what it costs, what it finds in models that are wrong, and what it says of real fits.

    python benchmarks/checks.py                                        # all of it, one core: an hour
    python benchmarks/checks.py --only found --rows 500 --seeds 2      # a part of it
    python benchmarks/checks.py --table                                # what was measured

"cost": household power, `flows.fit(0, Flow(NSF()), rows)` of 10,000 rows, and checks of others that it did not see, each check
alone and all of them, in processes of their own that find nothing compiled: CPU time of the first call and of the second, and
the most memory before and after them. "found": in how many seeds the models of wrong_models.py FAIL, and by which check; right
ones are among them. "quality": scores of SDMetrics' QualityReport for draws of these models and of the right ones, as many as
rows, by `make .venv-tables/.stamp`. "fits": verdicts about default fits of household power and galaxies, about the posterior of
examples/redshift.py, and about the flow of `make demo`, each in a process of its own.

Written to benchmarks/results/checks.json, one record after the other: what is there already is not measured again, and so the
program goes on where it was stopped.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

import check_tables
import numpy as np
import pandas as pd
import records
from sets import SETS, of_household, split
from wrong_models import MODELS

import flows
from flows.checks.check import QUESTIONS

ROOT = Path(__file__).resolve().parents[1]
RESULTS, MODEL = ROOT / "benchmarks" / "results" / "checks.json", ROOT / "out" / "checks" / "household.flows"
PYTHON = ROOT / ".venv-tables" / "bin" / "python"
ROWS, SEEDS, TRAIN = (500, 2_000, 10_000), 20, 10_000
DRAWS = 2**21  # beside the seed of rows, that of draws for SDMetrics
QUIET = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}  # keeps no programs


def spent() -> float:
    """CPU time until now, in seconds, of children too."""
    return sum(os.times()[:4])


def most_memory() -> float:
    """The most that this process has held, in MiB. That of `resource` begins at what its parent held."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


# Cost


def household() -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit, and others."""
    return split(of_household(), TRAIN)


def cost_of_fit() -> dict[str, Any]:
    train, before, start = household()[0], most_memory(), spent()
    result = flows.fit(0, flows.Flow(flows.NSF()), train, verbose=0)
    found = {"cpu": spent() - start, "MiB": [before, most_memory()]}
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    result.save(MODEL)
    return found


def cost_of_check(name: str, count: int) -> dict[str, Any]:
    """Of a check alone, of "all", or of a "page" of all: its CPU time, and its share of the CPU time of its check."""
    (train, rows), result = household(), flows.load(MODEL)
    seconds, shares, memory = list[float](), list[float](), [most_memory()]
    for seed in range(2):
        start = spent()
        checks = flows.check(result, rows[:count], train=train, rng=seed, only=None if name in ("all", "page") else name)
        seconds.append(spent() - start)
        if name == "page":
            start, checked = spent(), seconds.pop()
            checks.write_html(MODEL.with_suffix(".html"))
            seconds.append(spent() - start)
            shares.append(seconds[-1] / checked)
        memory.append(most_memory())
    return {"cpu": seconds, "MiB": memory, **({"share": shares} if shares else {})}


# What is found


def verdicts(name: str, count: int, seed: int) -> dict[str, Any]:
    """Of a model: which checks FAIL, which are small and would FAIL at tolerance 0, and the sizes by those meant for it."""
    made, start = MODELS[name].make(seed, count), spent()
    checks = flows.check(made.wrong, made.rows, rng=seed, **made.keywords)
    of = {verdict: [each.name for each in checks.values() if each.verdict == verdict] for verdict in ("FAIL", "small")}
    return {**of, "meant": [(each, checks[each].size) for each in MODELS[name].meant], "seconds": spent() - start}


def quality(name: str, count: int, seeds: list[int]) -> dict[str, Any]:
    """By seed, what SDMetrics says of draws of the model, and of the right one: all, columns, pairs."""
    with tempfile.TemporaryDirectory() as folder:
        file, arrays = Path(folder) / "tables.npz", dict[str, np.ndarray]()
        for seed in seeds:
            made = MODELS[name].make(seed, count)
            arrays[f"{seed} rows"] = made.rows
            for which, (params, _, sample) in {"wrong": made.wrong, "right": made.right}.items():
                arrays[f"{seed} {which}"] = sample(DRAWS + seed, params, count)
        np.savez(file, allow_pickle=False, **arrays)
        subprocess.run([PYTHON, ROOT / "benchmarks" / "peers" / "quality_report.py", file], check=True)
        return json.loads(file.with_suffix(".json").read_text())


# Real fits


def default(name: str, file: str) -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    """`fit` without options, of a set of `first_fit.py` whose columns are named as in a file."""
    names = pd.read_csv(ROOT / "examples" / "data" / file, nrows=0).columns
    train, test = (pd.DataFrame(rows, columns=names) for rows in SETS[name]())
    return flows.fit(0, flows.Flow(flows.NSF()), train, verbose=0), test, {"train": train}


def redshift() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    """The flow of examples/redshift.py, by its settings and of its rows."""
    from redshift import TARGET, galaxies

    train, test = ((part[[TARGET]], part.drop(columns=TARGET)) for part in galaxies(0))  # rows, and contexts
    model = flows.Flow(flows.NSF(3, hidden=(64, 64), num_bins=8))
    result = flows.fit(0, model, train[0], context=train[1], max_epochs=240, batch_size=128, verbose=0)
    return result, test[0], {"context": test[1], "train": train}


def demo() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    """The flow of examples/household_power.py."""
    sys.path.append(str(ROOT / "examples"))
    import household_power as program

    names, rows = program.read_rows()
    test, validation, train = np.split(rows, [program.TEST_ROWS, program.TEST_ROWS + program.VALIDATION_ROWS])
    train, test = (pd.DataFrame(each, columns=names) for each in (np.concatenate([train, validation]), test))
    return flows.fit(0, program.make_model(), train, max_epochs=40, verbose=0), test, {"train": train}


FITS: dict[str, Callable[[], tuple[Any, pd.DataFrame, dict[str, Any]]]] = {
    "household": lambda: default("household", "household_power.csv"),
    "galaxies": lambda: default("galaxies", "galaxies.csv"),
    "redshift": redshift,
    "demo": demo,
}


def verdicts_of_fit(name: str) -> dict[str, Any]:
    start = spent()
    result, rows, keywords = FITS[name]()
    fitted = spent()
    checks = flows.check(result, rows, **keywords)
    print(checks, file=sys.stderr, flush=True)
    return {"figures": checks.figures, "cpu": {"fit": fitted - start, "check": spent() - fitted}}


# The program


def in_a_process_of_its_own(*arguments: Any, environment: dict[str, str] | None = None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def one(what: str, *of: str) -> dict[str, Any]:
    """What such a process is asked."""
    if what == "fit":
        return cost_of_fit()
    return cost_of_check(of[0], int(of[1])) if what == "check" else verdicts_of_fit(of[0])


def missing(found: dict[str, Any], options: argparse.Namespace) -> Iterator[tuple[tuple[str, ...], Callable[[], Any]]]:
    """The places of records that are not there yet, and how each is measured."""

    def known(*place: str) -> dict[str, Any]:
        return reduce(lambda at, key: at.get(key, {}), place, found)

    sizes = {str(count): count for count in options.rows}
    if "cost" in options.only:
        names = ["all", "page", *(name for name, each in QUESTIONS.items() if not each.conditional)]
        wanted = [(size, name) for size in sizes for name in names if name not in known("cost", size)]
        if "fit" not in known("cost") or (wanted and not MODEL.exists()):
            yield ("cost", "fit"), partial(in_a_process_of_its_own, "fit", environment=QUIET)
        for size, name in wanted:
            yield ("cost", size, name), partial(in_a_process_of_its_own, "check", name, size, environment=QUIET)
    if "fits" in options.only:
        for name in [name for name in FITS if name not in known("fits")]:
            yield ("fits", name), partial(in_a_process_of_its_own, "verdicts", name)
    for (size, count), name in itertools.product(sizes.items(), MODELS):
        seeds = [seed for seed in range(options.seeds) if str(seed) not in known("found", name, size)]
        for seed in seeds if "found" in options.only else ():
            yield ("found", name, size, str(seed)), partial(verdicts, name, count, seed)
    for (size, count), (name, model) in itertools.product(sizes.items(), MODELS.items()):
        of = known("quality", name, size)
        seeds = [seed for seed in range(options.seeds) if str(seed) not in of]
        if seeds and "quality" in options.only and model.meant and not model.conditional:
            yield ("quality", name, size), lambda name=name, count=count, seeds=seeds, of=of: of | quality(name, count, seeds)


def keep(file: Path, place: tuple[str, ...], record: Any) -> None:
    """Beside what is in the file; also what another run may have written meanwhile."""
    found = records.read(file)
    at = found
    for key in place[:-1]:
        at = at.setdefault(key, {})
    at[place[-1]] = record
    records.write(file, found)


def main() -> None:
    parts = ("cost", "found", "quality", "fits")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=parts, choices=parts)
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what was measured")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    if not options.table:
        if "quality" in options.only and not PYTHON.exists():
            parser.error(f"{PYTHON} is not there: make .venv-tables/.stamp, or --only cost found fits")
        os.sched_setaffinity(0, {options.core})
        for place, measure in missing(records.read(options.out), options):
            start, record = time.perf_counter(), measure()
            keep(options.out, place, record)
            print(f"{', '.join(place)}, {time.perf_counter() - start:.1f} s: {json.dumps(record):.200}", flush=True)
    print(check_tables.everything(records.read(options.out)))


if __name__ == "__main__":
    main()
