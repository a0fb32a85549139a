"""An imputer at its defaults, in a process of its own: `imputer.py METHOD FOLDER DRAWS SEED`.

METHOD is miceforest, ForestDiffusion, or arfpy. FOLDER has train.csv and test.csv, numbers in standard deviations with gaps;
draws.npy (draws, rows, columns) and told.json, CPU seconds, are written beside them.

What miceforest 6.0.5 fills in rows that it was not fitted to does not correlate with them, so the rows to fill are among those
that it is fitted to, each draw by models of its own. ForestDiffusion (`diffusion_type="vp"`, the one that imputes) sees each
row with 10 noises in place of 100. arfpy takes no rows with gaps, so it is fitted to complete.csv, the rows of train.csv before
cells were removed; it draws rows alone, so the density of its forests, a mixture of truncated normals of all leaves, is
computed here, and conditioned on what is there; told.json has its mean for truth.csv, which says nothing where values repeat,
as a leaf with one value has an unbounded density. One thread of the CPU.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

NOISES = 10


def miceforest(train: pd.DataFrame, test: pd.DataFrame, draws: int, seed: int) -> tuple:
    import miceforest

    kernel = miceforest.ImputationKernel(pd.concat([train, test], ignore_index=True), num_datasets=draws, random_state=seed)
    kernel.mice(5, num_threads=1)
    fitted = time.process_time()
    return np.stack([kernel.complete_data(i).to_numpy(float)[len(train) :] for i in range(draws)]), fitted, {}


def diffusion(train: pd.DataFrame, test: pd.DataFrame, draws: int, seed: int) -> tuple:
    from ForestDiffusion import ForestDiffusionModel

    model = ForestDiffusionModel(
        train.to_numpy(), n_t=50, duplicate_K=NOISES, diffusion_type="vp", n_jobs=1, seed=seed, nthread=1
    )
    fitted = time.process_time()
    return model.impute(k=draws, X=test.to_numpy()), fitted, {}


def forests(complete: pd.DataFrame, test: pd.DataFrame, draws: int, seed: int, truth: pd.DataFrame) -> tuple:
    from arfpy.arf import arf
    from scipy.stats import truncnorm

    np.random.seed(seed)
    model = arf(complete, verbose=False, random_state=seed)
    params = model.forde()["cnt"]
    fitted = time.process_time()
    leaves = model.bnds[["tree", "nodeid", "cvg"]].drop_duplicates().set_index(["tree", "nodeid"])["cvg"]
    table = {
        name: params.pivot(index=["tree", "nodeid"], columns="variable", values=name)
        .loc[leaves.index, list(complete)]
        .to_numpy()
        for name in ("mean", "sd", "min", "max")
    }
    mean, low, high = table["mean"], table["min"], table["max"]
    sd = np.where(table["sd"] > 0, table["sd"], 1e-6)
    weights = np.log(leaves.to_numpy()) - np.log(model.num_trees)

    def log_p(row: np.ndarray) -> np.ndarray:
        """The log of the weight of each leaf times its density of what is there."""
        there = ~np.isnan(row)
        a, b = ((end - mean) / sd for end in (low, high))
        each = truncnorm.logpdf(row[there], a[:, there], b[:, there], mean[:, there], sd[:, there])
        return weights + each.sum(1)

    rng, rows = np.random.default_rng(seed), test.to_numpy()
    drawn = np.broadcast_to(rows, (draws, *rows.shape)).copy()
    a, b = (low - mean) / sd, (high - mean) / sd
    for i, row in enumerate(rows):
        of_leaves = log_p(row)
        if not np.isfinite(of_leaves.max()):
            of_leaves = weights  # nothing is known of such a row
        share = np.exp(of_leaves - of_leaves.max())
        leaf, gap = rng.choice(len(share), draws, p=share / share.sum()), np.isnan(row)
        ends = a[leaf][:, gap], b[leaf][:, gap]
        drawn[:, i, gap] = truncnorm.rvs(*ends, mean[leaf][:, gap], sd[leaf][:, gap], random_state=rng)
    scored = np.array([np.logaddexp.reduce(log_p(row)) for row in truth.to_numpy()])
    inside = np.isfinite(scored)
    return drawn, fitted, {"rows": float(scored[inside].mean()), "outside": float(1 - inside.mean())}


def main() -> None:
    method, folder, draws, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    warnings.simplefilter("ignore")
    train, test = (pd.read_csv(folder / f"{name}.csv") for name in ("train", "test"))
    begin = time.process_time()
    if method == "arfpy":
        complete, truth = (pd.read_csv(folder / f"{name}.csv") for name in ("complete", "truth"))
        drawn, fitted, told = forests(complete.dropna(), test, draws, seed, truth.dropna())
    else:
        drawn, fitted, told = {"miceforest": miceforest, "ForestDiffusion": diffusion}[method](train, test, draws, seed)
    told |= {"fit": fitted - begin, "fill": time.process_time() - fitted}
    np.save(folder / "draws.npy", drawn)
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
