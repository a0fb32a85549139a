"""Where tails are heavy: what `fit` makes of them, beside columns each by itself, and beside nothing.

    python benchmarks/tails.py                                   # a dozen sets, three models; one core, forty minutes
    python benchmarks/tails.py --sets "t3 20" --models NSF --seeds 0 1
    python benchmarks/tails.py --table                           # what was measured

"fit": no option is given. "columns": `Arcsinh` of each column with heavy tails by itself. "none": no `Arcsinh`. The last two
change what `fit` finds in the rows and nothing else. Nats a row of up to 4,000 test rows. Patches are squares of grey pixels of
a photograph that scikit-learn ships, with uniform noise, less their mean. Written to benchmarks/results/tails.json.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import records
from sets import SETS, drawn

import flows
from flows.training.data import standardization

RESULTS = Path(__file__).resolve().parent / "results" / "tails.json"
MODELS = {"NSF": flows.NSF, "MAF": flows.MAF, "RealNVP": flows.RealNVP}
TAILS = {"fit": standardization._tails, "columns": standardization.heavy_tails, "none": lambda rows: ()}


def student(df: float, d: int, correlation: float) -> Callable:
    """A multivariate t: the scale of a row is that of all its columns."""

    def make(rng):
        factor = np.linalg.cholesky(correlation ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))))
        return lambda n: rng.normal(size=(n, d)) @ factor.T / np.sqrt(rng.chisquare(df, size=(n, 1)) / df)

    return make


def alone(rng):
    """Forty columns that are independent, with the tails of a t of 3 degrees."""
    return lambda n: rng.standard_t(3, size=(n, 40))


def returns(rng):
    """Thirty assets with a factor and one volatility, whose logarithm is a persistent walk."""
    beta, own = rng.uniform(0.5, 1.5, size=(2, 30))

    def draw(n):
        log_variance = np.zeros(n)
        for i in range(1, n):
            log_variance[i] = 0.97 * log_variance[i - 1] + 0.2 * rng.normal()
        return 0.01 * np.exp(log_variance / 2)[:, None] * (rng.normal(size=(n, 1)) * beta + own * rng.normal(size=(n, 30)))

    return draw


def garch(rng):
    """Five values in a row of a GARCH(1, 1) series."""

    def draw(n):
        series, variance = np.zeros(n + 5), 1.0
        for i in range(1, n + 5):
            variance = 0.05 + 0.15 * series[i - 1] ** 2 + 0.8 * variance
            series[i] = np.sqrt(variance * 4 / 6) * rng.standard_t(6)
        return np.lib.stride_tricks.sliding_window_view(series, 5)[-n:].copy()

    return draw


def patches(side: int, rows: int, seed: int) -> tuple:
    from sklearn.datasets import load_sample_image

    grey, rng = load_sample_image("china.jpg").mean(2), np.random.default_rng(seed)
    down, across = (rng.integers(length - side, size=24_000 + 4_000) for length in grey.shape)
    found = np.stack([grey[i : i + side, j : j + side] for i, j in zip(down, across, strict=True)]).reshape(len(down), -1)
    found = (found + rng.uniform(size=found.shape)) / 256
    found = (found - found.mean(1, keepdims=True))[:, :-1]
    return found[:rows], found[24_000:]


OURS = {
    "patches, 63 columns": lambda seed: patches(8, 24_000, seed),
    "patches, 4,000 rows": lambda seed: patches(8, 4_000, seed),
    "patches, 255 columns": lambda seed: patches(16, 8_000, seed),
    "returns": lambda seed: drawn(returns, 4_000, seed),
    "GARCH": lambda seed: drawn(garch, 4_000, seed),
    "40 independent t3": lambda seed: drawn(alone, 4_000, seed),
    **{
        f"t{df} {d}, {correlation}": lambda seed, df=df, d=d, correlation=correlation: drawn(
            student(df, d, correlation), 8_000 if d == 20 else 4_000, seed
        )
        for df, d, correlation in (
            (3, 5, 0.5), (3, 5, 0.95), (3, 20, 0.0), (3, 20, 0.9), (3, 60, 0.5), (3, 60, 0.95),
            (5, 5, 0.5), (5, 20, 0.5), (5, 60, 0.95),
        )
    },
}  # fmt: skip
FROM = ("t2 5", "Cauchy 3", "tails 40", "household", "breast cancer", "digits")  # sets.py
ALL = OURS | {name: SETS[name] for name in FROM}


def measured(name: str, seed: int, model: str, known: dict) -> dict:
    rows, test = (np.asarray(each, float) for each in ALL[name](seed))
    varies = rows.std(0) > 0
    rows, test = rows[:, varies], test[:4_000, varies]
    found, layers = dict(known), dict[str, str]()
    for how, tails in TAILS.items():
        chosen = tails(standardization.Vectors(rows, None, np.zeros(rows.shape[1], bool)).some)
        layers[how] = ", ".join(repr(step.measured(rows, None).layer) for step in chosen)
        same = next((other for other in found if other != how and layers.get(other) == layers[how]), None)
        if same is not None:
            found[how] = {**found[same], "as": same}
            continue
        standardization._tails = tails
        began = time.process_time()
        result = flows.fit(seed, flows.Flow(MODELS[model]()), rows, verbose=0)
        seconds, scores = time.process_time() - began, np.asarray(result.log_prob(test), float)
        standardization._tails = TAILS["fit"]
        error = float(scores.std() / np.sqrt(len(scores)))
        found[how] = {"nats": round(float(scores.mean()), 4), "error": round(error, 4), "seconds": round(seconds, 1)}
        print(name, seed, model, how, found[how], flush=True)
    return found


def as_table(found: dict) -> str:
    lines = ["| set | model | fit | columns | none |", "|---|---|---|---|---|"]
    for name, of_models in found.items():
        for model, of_seeds in of_models.items():
            cells = [" and ".join(f"{one[how]['nats']:.2f}" for one in of_seeds.values() if how in one) for how in TAILS]
            lines.append(f"| {name} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(ALL), choices=list(ALL))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(RESULTS)
    if not options.table:
        os.sched_setaffinity(0, {options.core})
        warnings.simplefilter("ignore")
        for name in options.sets:
            for model in options.models:
                of_seeds = found.setdefault(name, {}).setdefault(model, {})
                for seed in options.seeds:
                    of_seeds[str(seed)] = measured(name, seed, model, {})
                    records.write(RESULTS, found)
    print(as_table(found))


if __name__ == "__main__":
    main()
