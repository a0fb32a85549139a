"""Half a million galaxies in files: quantiles of the redshift of each, and a p-value, as new columns, by Dask.

    python examples/catalog.py [--out out] [--quick]

A conditional spline flow learns the redshift of 8,000 galaxies given six magnitudes with noise. The catalogue has 250 noisy
copies of each of the other 2,000, in 17 Parquet files. Dask hands its parts to a worker for each core, each of which has the
model, and writes them back with four columns more. One redshift in a hundred belongs to another galaxy; most of these have a
small p-value. Needs the extra dask.

Pictures:
    catalog.png: Half a million galaxies along the diagonal of median against true redshift; and p-values, spread evenly where
        the redshift is right, and near 0 where it belongs to another galaxy.
"""

import argparse
import logging
import os
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster
from style import BLUE, GREY, ORANGE, plt

import flows

DATA = Path(__file__).parent / "data" / "galaxies.csv"
TEST_ROWS, COPIES, FILES = 2_000, 250, 17
NOISE, WRONG = 0.05, 0.01
LOW, MIDDLE, HIGH = 0.05, 0.5, 0.95


def with_noise(galaxies, copies, rng):
    """Copies of galaxies with noise on their magnitudes."""
    rows = galaxies.loc[galaxies.index.repeat(copies)].reset_index(drop=True)
    rows[galaxies.columns[1:]] += NOISE * rng.normal(size=(len(rows), len(galaxies.columns) - 1))
    return rows


def write_catalogue(folder, galaxies, copies, rng):
    """Galaxies with noise, in files; of some the redshift belongs to another, as `wrong` says."""
    rows = with_noise(galaxies, copies, rng)
    rows["wrong"] = rng.random(len(rows)) < WRONG
    rows.loc[rows.wrong, "redshift"] = rng.permutation(galaxies["redshift"])[rng.integers(0, len(galaxies), rows.wrong.sum())]
    rows = rows.iloc[rng.permutation(len(rows))].reset_index(drop=True)
    dd.from_pandas(rows, npartitions=FILES).to_parquet(folder)


def picture(path, rows):
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.9))
    right, end = rows[~rows.wrong], float(rows["redshift"].max()) * 1.02
    axes[0].hexbin(
        right["redshift"], right[f"q{MIDDLE}"], gridsize=70, extent=(0, end, 0, end), bins="log", cmap="Oranges", lw=0
    )
    axes[0].plot([0, end], [0, end], color=GREY, lw=1, label="median = truth")
    axes[0].set(title=f"{len(right):,} galaxies", xlabel="true redshift", ylabel="median given the magnitudes", aspect="equal")
    axes[0].legend(loc="upper left")
    for some, color, label in ((right, BLUE, "right redshift"), (rows[rows.wrong], ORANGE, "of another galaxy")):
        axes[1].hist(some["p_value"], np.linspace(0, 1, 51), density=True, histtype="step", color=color, lw=1.5, label=label)
    axes[1].set(title="p-values", xlabel="p-value", ylabel="density", xlim=(0, 1), yscale="log")
    axes[1].legend(loc="upper right")
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="two epochs and three copies, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    galaxies = pd.read_csv(DATA).sample(frac=1, random_state=0, ignore_index=True)
    test, train = galaxies[:TEST_ROWS], galaxies[TEST_ROWS:]
    rng = np.random.default_rng(0)
    write_catalogue(options.out / "galaxies", test, 3 if options.quick else COPIES, rng)

    model, train = flows.Flow(flows.NSF(2, hidden=(64, 64), num_bins=8)), with_noise(train, 1, rng)
    settings = {"max_epochs": 2 if options.quick else 60, "folds": 1, "verbose": 0}
    result = flows.fit(0, model, train[["redshift"]], context=train.drop(columns="redshift"), **settings)

    # A worker for each core, each with one thread of XLA.
    cores = os.cpu_count() or 1
    settings = {"threads_per_worker": 1, "env": {"NPROC": "1"}, "dashboard_address": None, "silence_logs": logging.ERROR}
    with LocalCluster(n_workers=cores, **settings) as cluster, Client(cluster):
        table = dd.read_parquet(options.out / "galaxies")
        scored = flows.large.score(result, table, add=[LOW, MIDDLE, HIGH, "p_value"])
        scored.to_parquet(options.out / "scored")
        rows = dd.read_parquet(options.out / "scored").compute()
    right = rows[~rows.wrong]
    held = right["redshift"].between(right[f"q{LOW}"], right[f"q{HIGH}"]).mean()
    odd = rows["p_value"] <= 0.01
    print(f"{len(rows):,} galaxies in {table.npartitions} parts; new columns {', '.join(rows.columns[-4:])}")
    print(f"of the intervals from 5% to 95%, {held:.1%} hold the redshift")
    shares = odd[~rows.wrong].mean(), odd[rows.wrong].mean()
    print(f"p-values of at most 0.01: {shares[0]:.1%} of right redshifts, {shares[1]:.1%} of wrong ones")
    picture(options.out / "catalog.png", rows)


if __name__ == "__main__":
    flows.keep_programs()
    main()
