"""Gaps of tables filled: `flows.AnySubset` beside scikit-learn's imputers, and a Gaussian, on real rows with cells removed.

    python benchmarks/imputation.py                        # three tables, an hour of one core
    python benchmarks/imputation.py --sets household --shares 0.3
    python benchmarks/imputation.py --table                # what was measured

Of 4,000 rows a share of the cells is removed at random, or where another column is large; models are fitted to these rows,
and fill the removed cells of 1,000 other rows, with cells removed in the same way. Gaps that the table has stay gaps. Measured
are the log score of a removed cell, log p(removed | there) / cells, for densities, and the mean log p of complete rows; the
CRPS of 50 draws of a number, in standard deviations of its column; rmse of the mean, in the same; the share of removed numbers
in central intervals of 90% of draws; the log loss of removed categories; CPU seconds of a fit, and of filling the other rows. A
Gaussian has its mean and covariance by EM; on numbers alone. Written to benchmarks/results/imputation.json.
"""

import argparse
import time
import warnings
from pathlib import Path

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


def measured(name: str, share: float, depends: bool, seed: int, epochs: int | None) -> dict:
    frame, rng = SETS[name](), np.random.default_rng(seed)
    order = rng.permutation(len(frame))
    train, test = (frame.iloc[places].reset_index(drop=True) for places in (order[:TRAIN], order[TRAIN : TRAIN + TEST]))
    gaps = [removed(rows, share, depends, rng) for rows in (train, test)]
    train_gappy, test_gappy = (rows.mask(gap) for rows, gap in zip((train, test), gaps, strict=True))
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
    told["Gaussian"]["fit"] = fitted - began
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
    return told


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
    heads = ["log score", "crps", "rmse", "held", "fit", "fill"]
    lines = [["cells removed", "method", *heads], ["---"] * (2 + len(heads))]
    for name, told in found.items():
        for i, method in enumerate(METHODS):
            cells = [f"{told[method][head]:.3g}" if head in told[method] else "" for head in heads]
            lines.append([name * (i == 0), method, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=[*SETS], choices=SETS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--ways", nargs="+", default=["random", "depending"], choices=["random", "depending"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)
    if not options.table:
        warnings.simplefilter("ignore")
        for name in options.sets:
            for way in options.ways:
                for share in options.shares:
                    one = f"{name}, {share:.0%} {way}"
                    found[one] = measured(name, share, way == "depending", options.seed, options.epochs)
                    print(one, found[one], flush=True)
                    records.write(options.out, found)
    print(table(found))


if __name__ == "__main__":
    main()
