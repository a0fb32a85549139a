"""The first fit without options, beside a Gaussian, a mixture, a kernel density, and the loops of other libraries' READMEs.

    python benchmarks/first_fit.py                                   # everything; hours
    python benchmarks/first_fit.py --sets galaxies wine --seeds 1    # some
    python benchmarks/first_fit.py --sets wine --seeds 1 --draws     # and how good draws are, of fits made anew where it lacks
    python benchmarks/first_fit.py --table                           # what was measured

Each method sees the same training rows and is scored on the same others. The Gaussian is in closed form; the components of
scikit-learn's mixture and the bandwidth of its kernel density are chosen by a fifth of the training rows, and fitted again to
all; flowjax's and zuko's loops are those of their READMEs, on columns that are standardised, for as much CPU time as
`flows.fit(0, flows.Flow(flows.NSF()), rows)` took at most, its compilation included. One core, five seeds, which draw the rows
or split them. Written to benchmarks/results/first_fit.json; what is there already is not measured again.

"pzflow" is its `Flow` by its defaults; a row beyond its support has no density, and the share of them is told. "tables" is
`flows.tables.fit` of a frame of the rows as they were recorded. Others see rounded columns with noise over their cells, and so
its score of a row is the mean of log p over points of the cell, which is what they have on average.

`--draws`: 10,000 draws, the first call, which may compile, and the second, in seconds of the CPU; and how well boosted trees
tell draws from test rows: 0.5 where they have to guess. Those of "tables" are compared with rows as they were recorded.
"""

import argparse
import multiprocessing
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import records
from scipy.stats import qmc
from sets import SETS, recorded
from two_samples import told_apart

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OTHERS = {"flowjax": ".venv-peers", "zuko": ".venv-torch", "pzflow": ".venv-peers"}
DRAWS, ENOUGH = 10_000, 500  # test rows; fewer do not tell trees much
OURS = {
    "NSF()": lambda flows: flows.Flow(flows.NSF()),
    "MAF()": lambda flows: flows.Flow(flows.MAF()),
    "RealNVP()": lambda flows: flows.Flow(flows.RealNVP()),
    "GMM(8)": lambda flows: flows.GMM(num_components=8),
}


class Fitted(NamedTuple):
    scores: np.ndarray  # of the test rows
    draw: Callable[[int, int], Any]  # of a seed and how many


def gaussian(rows, test):
    mean, covariance = rows.mean(0), np.atleast_2d(np.cov(rows.T))
    factor = np.linalg.cholesky(covariance)
    z = np.linalg.solve(factor, (test - mean).T)
    scores = -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * test.shape[1] * np.log(2 * np.pi)
    return Fitted(scores, lambda seed, n: np.random.default_rng(seed).multivariate_normal(mean, covariance, n))


def chosen(make, settings, rows, test):
    """Of the best setting by a fifth of the rows, fitted again to all, the scores in the units of the rows."""
    mean, std = rows.mean(0), rows.std(0)
    z, kept = (rows - mean) / std, len(rows) - len(rows) // 5
    scores = {setting: make(setting).fit(z[:kept]).score_samples(z[kept:]).mean() for setting in settings}
    best = make(max(scores, key=scores.get)).fit(z)

    def draw(seed, n):
        if hasattr(best, "means_"):  # a mixture, which draws in the order of its components
            return np.random.default_rng(seed).permutation(best.set_params(random_state=seed).sample(n)[0]) * std + mean
        return best.sample(n, random_state=seed) * std + mean

    return Fitted(best.score_samples((test - mean) / std) - np.log(std).sum(), draw)


def mixture(rows, test):
    from sklearn.mixture import GaussianMixture

    floors = (1e-6, 1e-3, 1e-2, 1e-1) if len(rows) < 2_000 else (1e-6, 1e-3)
    settings = [(k, c, r) for k in (1, 2, 3, 5, 10, 20, 40) for c in ("full", "diag") for r in floors]
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

    if name == "select":
        result = flows.select(seed, None, rows, verbose=0).best
    else:
        result = flows.fit(seed, OURS[name](flows), rows, verbose=0)
    return Fitted(in_pieces(result.log_prob, test), lambda seed, n: np.asarray(result.draw(seed, n)))


def typed(rows, test, seed):
    """Of frames; numbers of which all are whole are integers."""
    from flows import tables

    result = tables.fit(seed, rows, verbose=0)
    schema = result.schema
    steps = np.array([*[0.0] * len(schema.codes), *schema.angle_steps, *schema.steps])
    outside = ~np.isfinite(result.log_prob(test, errors="coerce"))  # a value out of bounds, or unknown
    x, points = schema.encode(test[~outside]), np.zeros((16, len(steps)))
    if steps.any():
        points[:, steps > 0] = (qmc.Halton(int((steps > 0).sum()), seed=0).random(16) - 0.5) * steps[steps > 0]
    scores = np.full(len(test), -np.inf)
    scores[~outside] = np.mean([in_pieces(result.result.log_prob, x + point) for point in points], 0)
    return Fitted(scores, result.draw)


def in_pieces(score, x):
    return np.concatenate([np.asarray(score(x[i : i + 5000]), float) for i in range(0, len(x), 5000)])


def as_frames(*parts):
    """Of arrays, frames of the same dtypes."""
    whole = (np.concatenate(parts) == np.round(np.concatenate(parts))).all(0)
    kinds = {f"x{i}": int if of_column else float for i, of_column in enumerate(whole)}
    return [pd.DataFrame(part, columns=list(kinds)).astype(kinds) for part in parts]


def measured(method: str, name: str, seed: int, seconds: float, draws: bool) -> dict:
    """Scores of the test rows, and seconds of the CPU; another library's loop has as many as were given. Of draws, what
    trees say of them, and their seconds."""
    rows, test = SETS[name](seed)
    if method == "tables":
        rows, test = as_frames(*recorded(name, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method in OTHERS:
            found = of_peer(method, rows, test, seed, seconds, DRAWS if draws else 0)
        else:
            simple = {"Gaussian": gaussian, "mixture": mixture, "kernel density": kernel_density}
            start = time.process_time()
            if method in simple:
                fitted = simple[method](rows, test)
            else:
                fitted = typed(rows, test, seed) if method == "tables" else ours(method, rows, test, seed)
            found = {"scores": fitted.scores, "seconds": time.process_time() - start}
            if draws:
                found |= drawn(fitted.draw)
        if "draws" in found:
            draws = found.pop("draws")
            found["C2ST"] = told_apart(draws, test[:5_000])[:2] if len(test) >= ENOUGH else None
    return found


def drawn(draw: Callable[[int, int], Any]) -> dict:
    found, drawing = None, list[float]()
    for again in range(2):
        start = time.process_time()
        found = draw(again, DRAWS)
        drawing.append(time.process_time() - start)
    return {"draws": found, "drawing": drawing}


def of_peer(library: str, rows, test, seed: int, seconds: float, draws: int) -> dict:
    """In a process of its own, which reads rows from a file and writes its scores beside them."""
    python, script = ROOT / OTHERS[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / f"readme_{library}.py"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        np.savez(file, rows=rows, test=test)
        subprocess.run([python, script, file, str(seed), str(seconds), str(draws)], check=True)
        with np.load(Path(folder) / "scores.npz") as found:
            return {key: found[key] for key in found.files} | {"seconds": float(found["seconds"])}


METHODS = ("Gaussian", "mixture", "kernel density", *OURS, "select", "tables", *OTHERS)
MINE = (*OURS, "select", "tables")


def table(found: dict) -> str:
    """Mean nats over seeds, how far ours are ahead of the best of the others, and the standard error, row by row."""
    lines = [
        "| nats a row (seconds) | seeds | "
        + " | ".join([*METHODS, "NSF() ahead of the best other", "select ahead of it"])
        + " |",
        "|" + "---|" * (len(METHODS) + 4),
    ]
    for name in (each for each in SETS if found.get(each, {}).get("NSF()")):
        of = found[name]
        seeds, of_select = len(of["NSF()"]), len(of.get("select", {}))
        cells = [f"{seeds}" if seeds == of_select else f"{seeds}, select {of_select}"]
        for method in METHODS:
            told = list(of.get(method, {}).values())
            cells.append("" if not told else " ({:.0f})".format(np.mean([each["seconds"] for each in told])))
            cells[-1] = cells[-1] and f"{np.mean([each['nats'] for each in told]):.2f}" + cells[-1]
        for mine in ("NSF()", "select"):
            pairs = np.array([each["ahead"] for each in of.get(mine, {}).values() if "ahead" in each])
            cells.append("" if not len(pairs) else "{:+.2f} +- {:.2f}".format(*over_seeds(pairs)))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def over_seeds(pairs: np.ndarray) -> tuple[float, float]:
    """The mean of differences, and its standard error: that of their rows, and no less than that of the seeds."""
    mean, errors = pairs[:, 0].mean(), pairs[:, 1]
    of_rows = np.sqrt(np.square(errors).sum()) / len(pairs)
    of_seeds = pairs[:, 0].std(ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 2 else 0.0
    return float(mean), float(max(of_rows, of_seeds))


def table_of_draws(found: dict, seed: str = "0") -> str:
    """Of one seed, what trees say of draws, and what 10,000 take: the first call, and the second."""
    held = {name: {each: of[each][seed] for each in METHODS if seed in of.get(each, {})} for name, of in found.items()}
    held = {name: held[name] for name in SETS if any("drawing" in each for each in held.get(name, {}).values())}
    methods = [each for each in METHODS if any("drawing" in of.get(each, {}) for of in held.values())]
    tables = []
    for head, tell in (("nats a row (seconds)", nats_told), ("C2ST", c2st_told), ("seconds of 10,000 draws", drawing_told)):
        lines = [f"| {head} | " + " | ".join(methods) + " |", "|" + "---|" * (len(methods) + 1)]
        lines += [f"| {name} | " + " | ".join(tell(of.get(each, {})) for each in methods) + " |" for name, of in held.items()]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def nats_told(one: dict) -> str:
    outside = f", {one['outside']:.1%} of rows" if one.get("outside") else ""
    return f"{one['nats']:.2f}{outside} ({one['seconds']:.0f})" if one else ""


def c2st_told(one: dict) -> str:
    return "{:.3f} +- {:.3f}".format(*one["C2ST"]) if one.get("C2ST") else ""


def drawing_told(one: dict) -> str:
    return "{:.2g}, {:.2g}".format(*one["drawing"]) if "drawing" in one else ""


STYLES = {  # a colour and a marker for each method
    "NSF()": ("#2485c7", "o"),
    "select": ("#009e73", "D"),
    "MAF()": ("#82bfe0", "o"),
    "RealNVP()": ("#82bfe0", "s"),
    "GMM(8)": ("#82bfe0", "x"),
    "Gaussian": ("#a0a0a0", "o"),
    "mixture": ("#7a7a7a", "s"),
    "kernel density": ("#7a7a7a", "x"),
    "flowjax": ("#d55e00", "^"),
    "zuko": ("#e69f00", "v"),
    "tables": ("#56b45e", "D"),
    "pzflow": ("#cc79a7", "<"),
}


def draw(found: dict, path: Path) -> None:
    """Each method's nats a row beside those of the best that is not ours, on an axis that is linear within a tenth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from flows.results.pictures.axes import STYLE as LOOK

    def nats(of: dict, method: str) -> float:
        return float(np.mean([each["nats"] for each in of[method].values()])) if of.get(method) else -np.inf

    def ahead(of: dict, method: str) -> float:
        """Of the best other, over the seeds that both have."""
        best, own = of[max(others, key=lambda method: nats(of, method))], of.get(method, {})
        differences = [own[seed]["nats"] - best[seed]["nats"] for seed in own if seed in best]
        return float(np.mean(differences)) if differences else np.nan

    others = [method for method in METHODS if method not in MINE]
    names = [name for name in SETS if any(map(found.get(name, {}).get, others)) and found[name].get("NSF()")]
    names.sort(key=lambda name: ahead(found[name], "NSF()"))
    plt.style.use(LOOK)
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(names) + 1.6))
    for method, (color, marker) in reversed(STYLES.items()):
        x = [ahead(found[name], method) for name in names]
        if 2 * np.isfinite(x).sum() < len(names):  # measured on few, or without a density of some row
            continue
        axes.plot(x, range(len(names)), marker, color=color, markersize=7 if method == "NSF()" else 5, label=method)
    axes.axvline(0, color="#7a7a7a", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(-30, 30), ylim=(-0.7, len(names) - 0.3))
    axes.set_xlabel("nats a row ahead of the best that is not flows (test rows; linear between -0.1 and 0.1)")
    axes.set_xticks([-10, -1, -0.1, 0, 0.1, 1, 10], ["-10", "-1", "-0.1", "0", "0.1", "1", "10"])
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=5)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def compare(of: dict, seed: str, file: Path) -> None:
    """How far each of ours is ahead of the best other in the mean of the same rows, with a standard error where scores of rows
    are there."""
    others = [method for method in METHODS if method not in MINE and seed in of.get(method, {})]
    best = max(others, key=lambda method: of[method][seed]["nats"], default=None)
    for method in MINE:
        if best is None or seed not in of.get(method, {}):
            continue
        if of_method(file, best).exists() and of_method(file, method).exists():
            difference = np.load(of_method(file, method)) - np.load(of_method(file, best))
            of[method][seed]["ahead"] = float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))
        else:  # of another run: seeds alone tell the error
            of[method][seed].setdefault("ahead", (of[method][seed]["nats"] - of[best][seed]["nats"], 0.0))


def in_a_process_of_its_own(*arguments) -> dict:
    """`measured`, in a process that ends: what hundreds of fits compile is more than one can map."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, *arguments).result()


def of_method(file: Path, method: str) -> Path:
    return file.with_name(f"{file.name} {method}.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "first_fit.json")
    parser.add_argument("--scores", type=Path, default=RESULTS / "scores", help="where scores of single rows are kept")
    parser.add_argument("--draws", action="store_true", help="also how good draws are, and their seconds")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.scores.mkdir(exist_ok=True, parents=True)
    if not options.table:
        os.sched_setaffinity(0, {options.core})
        for seed in map(str, range(options.seeds)):
            for name in options.sets:
                file = options.scores / f"{name} {seed}"
                for method in options.methods:
                    found = records.read(options.out)
                    of = found.setdefault(name, {})
                    known = of.setdefault(method, {}).get(seed)
                    if known and ("drawing" in known or not options.draws or method == "zuko"):
                        continue
                    seconds = max((each["seconds"] for each in of.get("NSF()", {}).values()), default=60.0)
                    one = in_a_process_of_its_own(method, name, int(seed), seconds, options.draws)
                    found = records.read(options.out)  # again, as another run may have written meanwhile
                    of = found.setdefault(name, {})
                    of.setdefault(method, {})
                    if not known:
                        np.save(of_method(file, method), one["scores"])
                        of[method][seed] = {"nats": float(one["scores"].mean()), "seconds": one["seconds"]}
                        if outside := float(np.isneginf(one["scores"]).mean()):
                            of[method][seed]["outside"] = outside
                        compare(of, seed, file)
                    if "drawing" in one:
                        of[method][seed] |= {"C2ST": one["C2ST"], "drawing": [float(each) for each in one["drawing"]]}
                    print(f"{name}, seed {seed}, {method}: {one['scores'].mean():.3f}, {of[method][seed]}", flush=True)
                    records.write(options.out, found)
    found = records.read(options.out)
    for name, of in found.items():
        for seed in map(str, range(options.seeds)):
            compare(of, seed, options.scores / f"{name} {seed}")
    draw(found, options.out.with_suffix(".png"))
    print(table(found))
    print(table_of_draws(found))


if __name__ == "__main__":
    main()
