"""Gaps of tables filled: `flows.AnySubset` beside scikit-learn's imputers, and a Gaussian, on real rows with cells removed.

    python benchmarks/imputation.py                        # three tables, an hour of one core
    python benchmarks/imputation.py --sets household --shares 0.3
    python benchmarks/imputation.py --others               # arfpy, miceforest, ForestDiffusion: make .venv-tables/.stamp
    python benchmarks/imputation.py --only few freedom ratios
    python benchmarks/imputation.py --table                # what was measured

Of 4,000 rows a share of the cells is removed at random, or where another column is large; models are fitted to these rows,
and fill the removed cells of 1,000 other rows, with cells removed in the same way. Gaps that the table has stay gaps. Measured
are the log score of a removed cell, log p(removed | there) / cells, for densities, and the mean log p of complete rows; the
CRPS of 50 draws of a number, in standard deviations of its column; rmse of the mean, in the same; the share of removed numbers
in central intervals of 90% of draws; the log loss of removed categories; CPU seconds of a fit, and of filling the other rows;
and how well trees that are fitted to the filled rows, one draw each where there are draws, tell the last number of complete
rows from the others: rmse, in standard deviations. A Gaussian has its mean and covariance by EM; on numbers alone.

"few" has fits to 200, 500 and 1,000 rows beside the Gaussian; "freedom" what it costs on complete rows that any columns may be
asked, beside `tables.fit` without a model; "ratios" the time of calls, on one core, by that of the network's bare products, of
each other, and of numbers of rows. Written to benchmarks/results/imputation.json.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import records
from sets import DATA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

import flows
from flows import tables

RESULTS = Path(__file__).resolve().parent / "results" / "imputation.json"
TRAIN, TEST, DRAWS = 4_000, 1_000, 50
SETS = {
    "household": lambda: pd.read_csv(DATA / "household_power.csv"),
    "galaxies": lambda: pd.read_csv(DATA / "galaxies.csv"),
    "weather": lambda: pd.read_csv(DATA / "weather.csv").drop(columns="time"),
}
METHODS = "AnySubset", "Gaussian", "ridge", "boosting", "neighbours"
OTHERS = "miceforest", "arfpy", "ForestDiffusion"
PYTHON = Path(__file__).resolve().parents[1] / ".venv-tables" / "bin" / "python"


def removed(frame: pd.DataFrame, share: float, depends: bool, rng: np.random.Generator) -> np.ndarray:
    """The cells that are removed: at random, or where the next number column, which stays, is large."""
    there = frame.notna().to_numpy()
    if not depends:
        return there & (rng.uniform(size=there.shape) < share)
    ranks = frame.select_dtypes("number").rank(pct=True).fillna(0.5).to_numpy()
    mask = np.zeros(there.shape, bool)
    for j in range(0, there.shape[1], 2):  # every other column, by the rank of a number column that stays
        kept = [k for k, name in enumerate(frame.select_dtypes("number")) if frame.columns.get_loc(name) % 2] or [0]
        mask[:, j] = rng.uniform(size=len(frame)) < np.minimum(2 * share * ranks[:, kept[j % len(kept)]], 0.95)
    return there & mask


class Gaussian:
    """A normal distribution by EM on rows with gaps."""

    def fit(self, x: np.ndarray) -> "Gaussian":
        self.mean, cov = np.nanmean(x, 0), np.diag(np.nanvar(x, 0))
        self.ridge = 1e-6 * np.diag(cov)
        for _ in range(30):
            self.cov = cov + np.diag(self.ridge)
            filled, extra = self.conditional(x)
            self.mean = filled.mean(0)
            cov = np.cov(filled.T, bias=True) + extra.mean(0)
        return self

    def conditional(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means of rows and covariances of their gaps, (rows, d, d)."""
        filled, extra = x.copy(), np.zeros((len(x), *self.cov.shape))
        patterns, which = np.unique(np.isnan(x), axis=0, return_inverse=True)
        for i, gap in enumerate(patterns):
            rows, there = np.flatnonzero(which.ravel() == i), ~gap
            weights = np.linalg.solve(self.cov[np.ix_(there, there)], self.cov[np.ix_(there, gap)]) if there.any() else None
            if gap.any():
                shift = 0 if weights is None else (x[np.ix_(rows, there)] - self.mean[there]) @ weights
                filled[np.ix_(rows, gap)] = self.mean[gap] + shift
                known = 0 if weights is None else self.cov[np.ix_(gap, there)] @ weights
                extra[np.ix_(rows, gap, gap)] = self.cov[np.ix_(gap, gap)] - known
        return filled, extra

    def draws(self, x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        filled, extra = self.conditional(x)
        roots = np.linalg.cholesky(extra + 1e-12 * np.trace(self.cov) * np.eye(x.shape[1]))
        noise = np.einsum("nij,knj->kni", roots, rng.normal(size=(count, *x.shape)))
        return filled + np.where(np.isnan(x), noise, 0.0)

    def log_score(self, x: np.ndarray, truth: np.ndarray, removed: np.ndarray) -> float:
        filled, extra = self.conditional(x)
        total = 0.0
        for i in np.flatnonzero(removed.any(1)):
            at = np.flatnonzero(removed[i])
            cov, error = extra[i][np.ix_(at, at)], truth[i, at] - filled[i, at]
            total -= 0.5 * (error @ np.linalg.solve(cov, error) + np.linalg.slogdet(2 * np.pi * cov)[1])
        return float(total / removed.sum())


def of_numbers(draws: np.ndarray, means: np.ndarray, truth: np.ndarray, mask: np.ndarray, std: np.ndarray) -> dict:
    """CRPS, rmse and coverage of removed numbers; draws (count, rows, columns)."""
    y, x = (truth / std)[mask], (draws / std)[:, mask]
    low, high = np.quantile(x, [0.05, 0.95], axis=0)
    crps = np.abs(x - y).mean(0) - 0.5 * np.abs(x[:, None] - x[None]).mean((0, 1))
    error = (means / std)[mask] - y
    return {
        "crps": float(crps.mean()),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "held": float(((low <= y) & (y <= high)).mean()),
    }


def scikit(name: str, seed: int) -> tuple:
    """An imputer of means, and one of draws, if it has them."""
    if name == "ridge":
        return IterativeImputer(random_state=seed), IterativeImputer(sample_posterior=True, random_state=seed)
    if name == "boosting":
        return IterativeImputer(HistGradientBoostingRegressor(random_state=seed), random_state=seed), None
    return KNNImputer(), None


def by_trees(filled: np.ndarray, test: np.ndarray) -> float:
    """The rmse of the last of these numbers in complete rows, by trees fitted to filled rows."""
    whole = test[~np.isnan(test).any(1)]
    trees = HistGradientBoostingRegressor(random_state=0).fit(filled[:, :-1], filled[:, -1])
    return float(np.sqrt(np.mean((trees.predict(whole[:, :-1]) - whole[:, -1]) ** 2)))


def case(name: str, share: float, depends: bool, seed: int) -> tuple:
    """A table, and rows of it to fit to and to fill, whole, with gaps, and where cells were removed."""
    frame, rng = SETS[name](), np.random.default_rng(seed)
    order = rng.permutation(len(frame))
    whole = [frame.iloc[places].reset_index(drop=True) for places in (order[:TRAIN], order[TRAIN : TRAIN + TEST])]
    gaps = [removed(rows, share, depends, rng) for rows in whole]
    return frame, whole, [rows.mask(gap) for rows, gap in zip(whole, gaps, strict=True)], gaps, rng


def measured(name: str, share: float, depends: bool, seed: int, epochs: int | None) -> dict:
    frame, (train, test), (train_gappy, test_gappy), gaps, rng = case(name, share, depends, seed)
    numbers = list(frame.select_dtypes("number").columns)
    at = [frame.columns.get_loc(column) for column in numbers]
    truth, mask, std = test[numbers].to_numpy(float), gaps[1][:, at], frame[numbers].std().to_numpy()
    told: dict = {"fit": {"rows": len(train), "columns": frame.shape[1], "removed": int(gaps[1].sum())}}

    began = time.process_time()
    settings = {} if epochs is None else {"max_epochs": epochs}
    result = tables.fit(seed, train_gappy, model=flows.AnySubset(), verbose=0, **settings)
    fitted = time.process_time()
    means = result.impute(test_gappy)[numbers].to_numpy(float)
    filled = time.process_time()
    draws = np.stack([result.impute(test_gappy, rng=i)[numbers].to_numpy(float) for i in range(DRAWS)])
    told["AnySubset"] = {**of_numbers(draws, means, truth, mask, std), "fit": fitted - began, "fill": filled - fitted}
    both = result.log_prob(test) - result.log_prob(test_gappy)  # log p(removed | there)
    told["AnySubset"] |= {"log score": float(both.sum() / gaps[1].sum()), "rows": float(result.log_prob(test).mean())}
    whole = ((rows[numbers] - frame[numbers].mean()) / std for rows in (result.impute(train_gappy, rng=0), test))
    told["AnySubset"]["by trees"] = by_trees(*(rows.to_numpy(float) for rows in whole))
    told["AnySubset"]["disagreement"] = float(result.result.history["orders"])
    for column in (set(frame.columns) - set(numbers)) & set(result.schema.codes):
        lost = gaps[1][:, frame.columns.get_loc(column)]
        alone = result.log_prob(test_gappy.where(~lost[:, None] | (frame.columns != column), test)) - result.log_prob(
            test_gappy
        )
        told["AnySubset"]["log loss"] = float(-alone[lost].mean())
        shares = train_gappy[column].value_counts(normalize=True)
        told["fit"]["log loss of shares"] = float(-np.log(test[column][lost].map(shares)).mean())

    x, x_test = ((rows[numbers].to_numpy(float) - frame[numbers].mean().to_numpy()) / std for rows in (train_gappy, test_gappy))
    scaled = (truth - frame[numbers].mean().to_numpy()) / std
    began = time.process_time()
    normal = Gaussian().fit(x)
    fitted = time.process_time()
    unit = np.ones(len(numbers))
    drawn = normal.draws(x_test, DRAWS, rng)
    told["Gaussian"] = of_numbers(drawn, normal.conditional(x_test)[0], scaled, mask, unit)
    told["Gaussian"] |= {
        "log score": normal.log_score(x_test, scaled, mask) - float(np.log(std[None].repeat(len(mask), 0)[mask]).mean())
    }
    told["Gaussian"] |= {"fit": fitted - began, "by trees": by_trees(normal.draws(x, 1, rng)[0], scaled)}
    for method in METHODS[2:]:
        mean, draw = scikit(method, seed)
        began = time.process_time()
        mean.fit(x)
        fitted = time.process_time()
        means = mean.transform(x_test)
        filled = time.process_time()
        drawn = (
            means[None].repeat(2, 0)
            if draw is None
            else np.stack([draw.set_params(random_state=i).fit(x).transform(x_test) for i in range(DRAWS)])
        )
        told[method] = of_numbers(drawn, means, scaled, mask, unit) | {"fit": fitted - began, "fill": filled - fitted}
        told[method]["by trees"] = by_trees((draw or mean).transform(x), scaled)
    return told


def by_others(methods: list[str], name: str, share: float, depends: bool, seed: int) -> dict:
    """The same by other libraries, on numbers alone, each in a process of its own (`peers/imputer.py`)."""
    frame, whole, gappy, gaps, _ = case(name, share, depends, seed)
    numbers = list(frame.select_dtypes("number").columns)
    scaled = [(rows[numbers] - frame[numbers].mean()) / frame[numbers].std() for rows in (*gappy, *whole)]
    mask, told = gaps[1][:, [frame.columns.get_loc(column) for column in numbers]], {}
    with tempfile.TemporaryDirectory() as folder:
        for rows, file in zip(scaled, ("train", "test", "complete", "truth"), strict=True):
            rows.to_csv(Path(folder) / f"{file}.csv", index=False)
        for method in methods:
            script = Path(__file__).resolve().parent / "peers" / "imputer.py"
            one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run([PYTHON, script, method, folder, str(DRAWS), str(seed)], check=True, env=one_thread)
            drawn, seconds = np.load(Path(folder) / "draws.npy"), json.loads((Path(folder) / "told.json").read_text())
            found = of_numbers(drawn, drawn.mean(0), scaled[3].to_numpy(), mask, np.ones(len(numbers)))
            if "rows" in seconds:  # in the units of the table
                seconds["rows"] -= float(np.log(frame[numbers].std()).sum())
            told[method] = found | seconds
            print(name, share, method, told[method], flush=True)
    return told


def freedom(seed: int) -> dict:
    """The mean log p of complete rows of household power by one model of any columns, and by `tables.fit` without a model."""
    _, (train, test), *_ = case("household", 0.0, False, seed)
    told = {}
    for method, settings in (("AnySubset", {"model": flows.AnySubset()}), ("tables.fit", {})):
        began = time.process_time()
        result = tables.fit(seed, train, verbose=0, **settings)
        told[method] = {"fit": time.process_time() - began, "rows": float(result.log_prob(test, draws=16).mean())}
    return told


def microseconds(calls: dict) -> dict:
    """CPU time of a call of each, the least of nine rounds in turn."""
    least = dict.fromkeys(calls, np.inf)
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(9):
        for name, call in calls.items():
            began, count = time.process_time(), 0
            while time.process_time() - began < 0.2:
                jax.block_until_ready(call())
                count += 1
            least[name] = min(least[name], 1e6 * (time.process_time() - began) / count)
    return least


def ratios(d: int, rows: int = 512) -> dict:
    """Times of a model of d numbers by the time of its products, and how memory grows."""
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(8 * rows, d)) @ rng.normal(size=(d, d)))
    context = np.float32(np.stack([x, np.where(rng.uniform(size=x.shape) < 0.3, 2, 0)], 1))
    model = flows.AnySubset()
    params, log_pdf, _ = model(0, d, context_dim=(2, d), init_inputs=x, init_context=context)
    _, joint, sample = model(0, d)
    inputs = np.float32(rng.normal(size=(len(params["layers"][0]["w"]), rows)))
    _, one, _ = flows.Conditional(model, d, [d - 1], [*range(d - 1)])(0, 1, context_dim=d - 1)
    key = jax.random.key(0)

    def trunk(params: dict, h: jax.Array) -> jax.Array:
        for i, layer in enumerate(params["layers"]):
            h = layer["w"].T @ (jax.nn.relu(h) if i else h) + layer["b"][:, None]
        return h

    def products(params: dict, h: jax.Array) -> jax.Array:
        return sum((head["w"].T @ trunk(params, h)).sum() for head in params["heads"])

    def single(params: dict, h: jax.Array) -> jax.Array:
        return (params["heads"][0]["w"][:, ::d].T @ trunk(params, h)).sum()

    def loss(params: dict, x: jax.Array, context: jax.Array) -> jax.Array:
        return -log_pdf(params, x, context=context, rng=key, train=True).mean()

    step, floor = (jax.jit(jax.value_and_grad(f)) for f in (loss, products))
    jitted = {name: jax.jit(f) for name, f in (("single", single), ("joint", joint), ("one", one))}
    draw = jax.jit(lambda params: sample(key, params, rows))
    least = microseconds({
        "step": lambda: step(params, x[:rows], context[:rows]), "products": lambda: floor(params, inputs),
        "single": lambda: jitted["single"](params, inputs), "joint": lambda: jitted["joint"](params, x[:rows]),
        "one": lambda: jitted["one"](params, x[:rows, -1:], context=x[:rows, :-1]), "draw": lambda: draw(params),
    })  # fmt: skip

    def memory(n: int) -> int:
        shapes = [
            jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (np.empty((n, d), np.float32), np.empty((n, 2, d), np.float32))
        ]
        compiled = jax.jit(lambda p, x, c: log_pdf(p, x, context=c)).lower(params, *shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    return {
        "a step / its products": least["step"] / least["products"],
        "a joint score / d trunks and heads": least["joint"] / (d * least["single"]),
        "one column given others / a trunk and a head": least["one"] / least["single"],
        "draws / scores": least["draw"] / least["joint"],
        "MB of a score of 2,048 rows": memory(2048) / 1e6,
        "MB of a score of 65,536 rows, without the rows": memory(65_536) / 1e6,
    }


def of_few_rows(name: str, rows: int, seed: int) -> dict:
    """How far log p of what is there in other rows, with 30% of the cells removed, is ahead of the Gaussian after few rows."""
    frame, rng = SETS[name]().select_dtypes("number"), np.random.default_rng(seed)
    order = rng.permutation(len(frame))
    train, test = (frame.iloc[places].reset_index(drop=True) for places in (order[:rows], order[rows : rows + 2 * TEST]))
    train, test = (rows.mask(removed(rows, 0.3, False, rng)) for rows in (train, test))
    began = time.process_time()
    result = tables.fit(seed, train, model=flows.AnySubset(), verbose=0)
    seconds = time.process_time() - began
    inside = np.isfinite(scores := result.log_prob(test, errors="coerce"))
    mean, std = train.mean().to_numpy(), train.std().to_numpy()
    x, x_test = ((rows.to_numpy(float) - mean) / std for rows in (train, test))
    normal = Gaussian().fit(x)
    log_p = np.zeros(len(x_test))
    for i, row in enumerate(x_test):
        at = np.flatnonzero(~np.isnan(row))
        error, cov = row[at] - normal.mean[at], normal.cov[np.ix_(at, at)]
        log_p[i] = -0.5 * (error @ np.linalg.solve(cov, error) + np.linalg.slogdet(2 * np.pi * cov)[1]) - np.log(std[at]).sum()
    ahead = (scores - log_p)[inside]
    error = float(ahead.std() / np.sqrt(len(ahead)))
    return {"ahead": float(ahead.mean()), "error": error, "outside": float((~inside).mean()), "seconds": seconds}


def table(found: dict) -> str:
    heads = ["log score", "crps", "rmse", "held", "by trees", "rows", "fit", "fill"]
    lines = [["cells removed", "method", *heads], ["---"] * (2 + len(heads))]
    for name, told in found.items():
        for i, method in enumerate(method for method in (*METHODS, *OTHERS) if method in told):
            cells = [f"{told[method][head]:.3g}" if head in told[method] else "" for head in heads]
            lines.append([name * (i == 0), method, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["cases"], choices=["cases", "few", "freedom", "ratios"])
    parser.add_argument("--sets", nargs="+", default=[*SETS], choices=SETS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--ways", nargs="+", default=["random", "depending"], choices=["random", "depending"])
    parser.add_argument("--others", nargs="*", choices=OTHERS, help="these in place of ours and scikit-learn's; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)

    def keep(name: str, told: dict) -> None:
        found[name] = found.get(name, {}) | told
        print(name, told, flush=True)
        records.write(options.out, found)

    if not options.table:
        warnings.simplefilter("ignore")
        for name in options.sets if "cases" in options.only else ():
            for way in options.ways:
                for share in options.shares:
                    settings = name, share, way == "depending", options.seed
                    if options.others is None:
                        keep(f"{name}, {share:.0%} {way}", measured(*settings, options.epochs))
                    else:
                        keep(f"{name}, {share:.0%} {way}", by_others(options.others or [*OTHERS], *settings))
        for name in options.sets if "few" in options.only else ():
            for rows in (200, 500, 1_000):
                keep(f"few, {name}", {f"{rows} rows": of_few_rows(name, rows, options.seed)})
        if "freedom" in options.only:
            keep("freedom", freedom(options.seed))
        for d in (7, 20, 50) if "ratios" in options.only else ():
            keep("ratios", {f"{d} columns": ratios(d)})
    print(table(found))


if __name__ == "__main__":
    main()
