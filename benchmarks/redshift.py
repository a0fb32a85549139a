"""Photometric redshifts: the density of a galaxy's redshift given six magnitudes, and whether its intervals hold what they say.

    python benchmarks/redshift.py                          # three splits of all methods, one core: half an hour
    python benchmarks/redshift.py --methods tables --seeds 0
    python benchmarks/redshift.py --table

The 10,000 simulated galaxies of examples/redshift.py, of which 2,000 are held out: by seed 0 those of the example. "tables":
`tables.fit(seed, frame, condition=bands)`. "folds": the same with `model=Flow(NSF()), folds=5`. "example": the flow of the
example, by its settings. "pzflow": its conditional flow by its defaults, and its `posterior`. All on a grid of 2,500
redshifts. Of each: nats a galaxy, of the density in units of redshift; the probabilities below the true redshifts (PIT),
their mean and their greatest distance from the uniform distribution (Kolmogorov and Smirnov; noise alone makes it 0.030 in
one of twenty); and how many of the central 50% and 90% intervals hold the true redshift. Written to
benchmarks/results/redshift.json.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import records
from scipy.stats import kstest

import flows
from flows import tables

ROOT = Path(__file__).resolve().parent
RESULTS, DATA = ROOT / "results" / "redshift.json", ROOT.parent / "examples" / "data" / "galaxies.csv"
METHODS, TEST = ("tables", "folds", "example", "pzflow"), 2_000
GRID = np.linspace(-0.3, 2.7, 2_500)  # what has density in any of them
TARGET, LEVELS = "redshift", (0.5, 0.9)


def galaxies(seed):
    """Frames to fit and to test; of seed 0 those of the example."""
    values = pd.read_csv(DATA)
    values = values.iloc[np.random.default_rng(seed).permutation(len(values))].reset_index(drop=True)
    return values.iloc[TEST:].reset_index(drop=True), values.iloc[:TEST].reset_index(drop=True)


def typed(train, test, seed, **options):
    bands = [name for name in train.columns if name != TARGET]
    result = tables.fit(seed, train, condition=bands, verbose=0, **options)
    if result.selection is not None:
        print(result.selection, flush=True)
    schema = result.schema
    grid, truth = (schema.encode(pd.DataFrame({TARGET: values}))[:, 0] for values in (GRID, test[TARGET]))
    return result.log_prob(test), ranks(result.result, grid, schema.context(test), truth)


def ranks(result, grid, contexts, truth):
    """The probabilities below the true redshifts, by trapezoids of densities, as of pzflow."""
    found = []
    for piece in range(0, len(contexts), 100):
        part = contexts[piece : piece + 100]
        z = np.tile(grid, len(part))[:, None]
        log_p = np.asarray(result.log_prob(z, context=np.repeat(part, len(grid), axis=0)), float)
        heights = np.exp(log_p.reshape(len(part), -1))
        steps = np.diff(grid) * (heights[:, 1:] + heights[:, :-1]) / 2
        below = np.concatenate([np.zeros((len(part), 1)), np.cumsum(steps, 1)], 1)
        pairs = zip(truth[piece : piece + 100], below, strict=True)
        found += [np.interp(true, grid, each / each[-1]) for true, each in pairs]
    return np.array(found)


def example(train, test, seed):
    """`flows.fit` as in examples/redshift.py."""
    (z, magnitudes), (z_test, magnitudes_test) = ((part[[TARGET]], part.drop(columns=TARGET)) for part in (train, test))
    model = flows.Flow(flows.NSF(3, hidden=(64, 64), num_bins=8))
    fitted = flows.fit(seed, model, z.to_numpy(), context=magnitudes.to_numpy(), max_epochs=240, batch_size=128, verbose=0)
    context = magnitudes_test.to_numpy()
    scores = np.asarray(fitted.log_prob(z_test.to_numpy(), context=context), float)
    return scores, ranks(fitted, GRID, context, test[TARGET])


def of_pzflow(train, test, seed):
    """Scores, ranks and the seconds of its process."""
    python = ROOT.parent / ".venv-peers" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        np.savez(file, names=list(train.columns), train=train.to_numpy(), test=test.to_numpy(), grid=GRID)
        subprocess.run([python, ROOT / "peers" / "redshift_pzflow.py", file, str(seed)], check=True)
        with np.load(file.with_name("found.npz")) as found:
            return found["scores"], found["ranks"], float(found["seconds"])


def measured(method, seed):
    train, test = galaxies(seed)
    start = time.process_time()
    if method == "pzflow":
        scores, ranks, seconds = of_pzflow(train, test, seed)
    else:
        if method == "example":
            scores, ranks = example(train, test, seed)
        else:
            options = {"model": flows.Flow(flows.NSF()), "folds": 5} if method == "folds" else {}
            scores, ranks = typed(train, test, seed, **options)
        seconds = time.process_time() - start
    held = {f"{level:.0%}": float((np.abs(ranks - 0.5) < level / 2).mean()) for level in LEVELS}
    return {
        "nats": float(scores.mean()),
        "error": float(scores.std() / np.sqrt(len(scores))),
        "PIT": float(ranks.mean()),
        "KS": float(kstest(ranks, "uniform").statistic),
        **held,
        "tenths": np.histogram(ranks, 10, (0, 1))[0].tolist(),
        "seconds": seconds,
    }


def as_table(found):
    """Means over seeds, and the least and the greatest."""
    heads = ("seeds", "nats", "mean PIT", "KS", *(f"{level:.0%} intervals hold" for level in LEVELS), "seconds")
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method in (each for each in METHODS if each in found):
        of = list(found[method].values())
        keys = [
            ("nats", ".3f"),
            ("PIT", ".3f"),
            ("KS", ".3f"),
            *((f"{level:.0%}", ".1%") for level in LEVELS),
            ("seconds", ".0f"),
        ]
        cells = [str(len(of))]
        for key, form in keys:
            values = [one[key] for one in of]
            spread = "" if len(of) < 2 or key == "seconds" else f" ({min(values):{form}} to {max(values):{form}})"
            cells.append(f"{np.mean(values):{form}}{spread}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="of " + ", ".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2", help="of splits and fits")
    parser.add_argument("--table", action="store_true", help="print what was measured")
    options = parser.parse_args()
    if not options.table:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        warnings.simplefilter("ignore")
        for seed in options.seeds.split(","):
            for method in options.methods.split(","):
                one = measured(method, int(seed))
                print(f"seed {seed}, {method}: {json.dumps(one)}", flush=True)
                found = records.read(RESULTS)  # again, as another run may have written meanwhile
                found.setdefault(method, {})[seed] = one
                records.write(RESULTS, found)
    print(as_table(records.read(RESULTS)))


if __name__ == "__main__":
    main()
