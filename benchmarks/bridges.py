"""Bridges between pieces of a density: the share of draws that lie where there are no data, and nats behind the density.

    python benchmarks/bridges.py [--sets "eight Gaussians" ...] [--models NSF ...] [--seeds 1]

Three densities of the plane in pieces or with holes: `EightGaussians`, `Rings(2)`, and two normals 8 standard deviations apart.
Each model is fitted by `flows.fit` to 10,000 rows, for at most five minutes. A draw is on a bridge where the density of the
data is below 1e-4 of its peak. Continuous flows are scored by adaptive steps. Writes benchmarks/results/bridges.json, a table
of the page on topology; what is there already is not measured again.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import records

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "bridges.json"
ROWS, TEST, DRAWS, MINUTES = 10_000, 10_000, 20_000, 5.0
RARE = 1e-4  # of the peak


def apart() -> flows.Distribution:
    """Two standard normals in the plane, whose means are 8 apart."""
    two = flows.GMM(num_components=2, covariance="diagonal")(0, 2)
    return two._replace(params={**two.params, "mean": jnp.array([[-4.0, 0.0], [4.0, 0.0]])})


SETS: dict[str, Callable[[], Any]] = {
    "eight Gaussians": lambda: flows.datasets.EightGaussians()(0, 2),
    "two rings": lambda: flows.datasets.Rings(2)(0, 2),
    "two normals": apart,
}
MATCHING = flows.Flow(flows.Continuous(flows.MLP(128, 128, 128, activation="gelu"), solver="dopri5", steps=12))
MODELS: dict[str, tuple[Any, dict]] = {
    "NSF": (flows.Flow(flows.NSF()), {}),
    "MAF": (flows.Flow(flows.MAF()), {}),
    "ResidualFlow": (flows.Flow(flows.ResidualFlow()), {}),
    "flow matching": (MATCHING, {"objective": flows.objectives.flow_matching, "max_epochs": 200, "batch_size": 512}),
    "NSF, GMM of 8 as base": (flows.Flow(flows.NSF(), flows.GMM(num_components=8)), {}),
    "mixture of two NSF": (flows.Mixture(flows.Flow(flows.NSF()), num_components=2), {}),
    "select": (None, {}),
}


def measure(name: str, model: str, seed: int) -> dict:
    params, log_pdf, sample = SETS[name]()
    rows, test = np.asarray(sample(seed, params, ROWS)), np.asarray(sample(100 + seed, params, TEST))
    init_fun, settings = MODELS[model]
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if init_fun is None:
            fitted = flows.select(seed, None, rows, total_minutes=MINUTES, verbose=0).best
        else:
            fitted = flows.fit(seed, init_fun, rows, max_minutes=MINUTES, verbose=0, **settings)
    seconds = time.process_time() - began
    scored = flows.revise(fitted.init_fun, steps=None)(0, 2) if model == "flow matching" else fitted
    behind = np.asarray(log_pdf(params, test)) - np.asarray(scored.log_pdf(fitted.params, test))
    at_draws, peak = np.asarray(log_pdf(params, fitted.draw(1, DRAWS))), log_pdf(params, test).max()
    bridges = float((at_draws < peak + np.log(RARE)).mean())
    return {"bridges": bridges, "behind": float(behind.mean()), "error": float(behind.std() / TEST**0.5), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = records.read(options.out)
    for seed in map(str, range(options.seeds)):
        for model in options.models:
            for name in options.sets:
                runs = found.setdefault(name, {}).setdefault(model, {})
                if seed not in runs:
                    runs[seed] = measure(name, model, int(seed))
                    print(f"{name}, {model}, seed {seed}: {runs[seed]}", flush=True)
                    records.write(options.out, found)
                    flows.clear_caches()


if __name__ == "__main__":
    main()
