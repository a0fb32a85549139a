"""The first fit without options, beside a Gaussian, a mixture, a kernel density, and the loops of other libraries' READMEs.

    python benchmarks/first_fit.py                                   # everything; hours
    python benchmarks/first_fit.py --sets galaxies wine --seeds 1    # some
    python benchmarks/first_fit.py --table                           # what was measured

Each method sees the same training rows and is scored on the same others. The Gaussian is in closed form; the components of
scikit-learn's mixture and the bandwidth of its kernel density are chosen by a fifth of the training rows, and fitted again to
all; flowjax's and zuko's loops are those of their READMEs, on columns that are standardised, for as much CPU time as
`flows.fit(0, flows.Flow(flows.NSF()), rows)` took. One core, five seeds, which draw the rows or split them. Written to
benchmarks/results/first_fit.json, which is not there yet: it was never run to its end.
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
from sets import SETS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OTHERS = {"flowjax": ".venv-peers", "zuko": ".venv-torch"}
OURS = {
    "NSF()": lambda flows: flows.Flow(flows.NSF()),
    "MAF()": lambda flows: flows.Flow(flows.MAF()),
    "RealNVP()": lambda flows: flows.Flow(flows.RealNVP()),
}


def gaussian(rows, test):
    mean, covariance = rows.mean(0), np.cov(rows.T)
    factor = np.linalg.cholesky(np.atleast_2d(covariance))
    z = np.linalg.solve(factor, (test - mean).T)
    return -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * test.shape[1] * np.log(2 * np.pi)


def chosen(make, settings, rows, test):
    """Of the best setting by a fifth of the rows, fitted again to all, the scores in the units of the rows."""
    mean, std = rows.mean(0), rows.std(0)
    z, kept = (rows - mean) / std, len(rows) - len(rows) // 5
    scores = {setting: make(setting).fit(z[:kept]).score_samples(z[kept:]).mean() for setting in settings}
    best = max(scores, key=scores.get)
    return make(best).fit(z).score_samples((test - mean) / std) - np.log(std).sum()


def mixture(rows, test):
    from sklearn.mixture import GaussianMixture

    settings = [(k, c, r) for k in (1, 2, 3, 5, 10, 20, 40) for c in ("full", "diag") for r in (1e-6, 1e-3, 1e-2, 1e-1)]
    settings = [each for each in settings if each[0] * 10 <= len(rows)]

    def make(setting):
        return GaussianMixture(setting[0], covariance_type=setting[1], reg_covar=setting[2], random_state=0)

    return chosen(make, settings, rows, test)


def kernel_density(rows, test):
    from sklearn.neighbors import KernelDensity

    few = rows[:4_000]  # its scores take as long as there are rows
    return chosen(lambda h: KernelDensity(bandwidth=h), tuple(np.geomspace(0.03, 1.5, 12)), few, test)


def ours(name, rows, test, seed):
    import flows

    result = flows.fit(seed, OURS[name](flows), rows, verbose=0)
    pieces = [result.log_pdf(result.params, test[i : i + 5000]) for i in range(0, len(test), 5000)]
    return np.concatenate([np.asarray(each, float) for each in pieces])


def selected(rows, test, seed):
    import flows

    best = flows.select(seed, None, rows, verbose=0).best
    pieces = [best.log_pdf(best.params, test[i : i + 5000]) for i in range(0, len(test), 5000)]
    return np.concatenate([np.asarray(each, float) for each in pieces])


def measured(method: str, name: str, seed: int, seconds: float) -> dict:
    """Scores of the test rows, and seconds of the CPU; another library's loop has as many as were given."""
    rows, test = SETS[name](seed)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method in OTHERS:
            return of_peer(method, rows, test, seed, seconds)
        simple = {"Gaussian": gaussian, "mixture": mixture, "kernel density": kernel_density}
        if method in simple:
            scores = simple[method](rows, test)
        else:
            scores = selected(rows, test, seed) if method == "select" else ours(method, rows, test, seed)
    return {"scores": scores, "seconds": time.process_time() - start}


def of_peer(library: str, rows, test, seed: int, seconds: float) -> dict:
    """In a process of its own, which reads rows from a file and writes its scores beside them."""
    python, script = ROOT / OTHERS[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / f"readme_{library}.py"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        np.savez(file, rows=rows, test=test)
        subprocess.run([python, script, file, str(seed), str(seconds)], check=True)
        with np.load(Path(folder) / "scores.npz") as found:
            return {"scores": found["scores"], "seconds": float(found["seconds"])}


METHODS = ("Gaussian", "mixture", "kernel density", *OURS, "select", *OTHERS)


def table(found: dict) -> str:
    """Mean nats over seeds, how far ours are ahead of the best of the others, and the standard error, row by row."""
    lines = [
        "| nats a row (seconds) | " + " | ".join([*METHODS, "NSF() ahead of the best other", "select ahead of it"]) + " |",
        "|" + "---|" * (len(METHODS) + 3),
    ]
    for name, of in found.items():
        cells = []
        for method in METHODS:
            told = of.get(method)
            cells.append("" if told is None else f"{np.mean(told['nats']):.2f} ({np.mean(told['seconds']):.0f})")
        for mine in ("NSF()", "select"):
            pairs = np.array(of.get("ahead", {}).get(mine, []))
            cells.append("" if not len(pairs) else f"{pairs[:, 0].mean():+.2f} +- {pairs[:, 1].mean():.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compared(scores: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """How far ours are ahead of the best other in the mean, and the standard error of that, row by row."""
    others = {name: each for name, each in scores.items() if name not in OURS and name != "select"}
    best = max(others.values(), key=lambda each: each.mean())
    found = {}
    for name, each in scores.items():
        if name not in others:
            difference = each - best
            found[name] = float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "first_fit.json")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        for seed in range(options.seeds):
            for name in options.sets:
                of_set = found.setdefault(name, {})
                if seed < len(of_set.get(options.methods[0], {"nats": []})["nats"]):
                    continue
                scores, seconds = {}, 60.0
                for method in (each for each in METHODS if each in options.methods):
                    one = measured(method, name, seed, seconds)
                    seconds = one["seconds"] if method == "NSF()" else seconds
                    scores[method] = one["scores"]
                    of = of_set.setdefault(method, {"nats": [], "seconds": []})
                    of["nats"].append(float(one["scores"].mean()))
                    of["seconds"].append(one["seconds"])
                    print(f"{name}, seed {seed}, {method}: {of['nats'][-1]:.3f} in {of['seconds'][-1]:.0f} s", flush=True)
                for mine, pair in compared(scores).items():
                    of_set.setdefault("ahead", {}).setdefault(mine, []).append(pair)
                options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
