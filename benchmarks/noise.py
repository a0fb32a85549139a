"""Noise of rounded columns: learned (`Dequantize(noise=)`) beside uniform, and the bound of each beside the mass of a row.

    python benchmarks/noise.py [--sets counts household] [--seeds 2]

Sets: `counts`, five columns of negative binomial counts with a common factor, 8,000 rows; `household`, the seven columns of
`examples/data/household_power.csv` in their steps. `NSF()` is fitted with each noise by `flows.fit`; test rows are scored by
the mean of log p over one draw, a bound, and over 256 draws, near the mass. Learned noise is two couplings that see the
values. Writes benchmarks/results/noise.json; what is there already is not measured again.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import records

import flows

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "noise.json"
STEPS = (1.0, 0.002, 0.002, 0.01, 1.0, 1.0, 1.0)  # of household
TEST, DRAWS, PIECE = 1_000, 256, 16


def rows_of(name: str) -> tuple[np.ndarray, tuple[float, ...]]:
    rng = np.random.default_rng(0)
    if name == "household":
        return rng.permutation(np.genfromtxt(ROOT / "examples/data/household_power.csv", delimiter=",", skip_header=1)), STEPS
    common = rng.gamma(2.0, size=(8_000 + TEST, 1))
    return rng.poisson(common * np.array([0.5, 1.0, 2.0, 4.0, 8.0])).astype(float), (1.0,) * 5


def learned() -> flows.core.DistributionInit:
    """u = sigmoid(g(e)), two couplings given the recorded values; it starts uniform."""
    couplings = [flows.Coupling(flows.MLP(64, 64), flip=flip) for flip in (False, True)]
    return flows.Flow(flows.Serial(flows.Logit(), flows.Invert(flows.Serial(*couplings))), flows.Logistic())


def measure(name: str, noise: str, seed: int) -> dict:
    rows, steps = rows_of(name)
    test, train = rows[:TEST], rows[TEST:]
    layer = flows.Dequantize(steps, noise=learned() if noise == "learned" else None)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = flows.fit(seed, flows.Flow(flows.Serial(layer, flows.NSF())), train, folds=1, verbose=0)
    seconds = time.process_time() - began
    score = jax.jit(jax.vmap(lambda key: fitted.log_pdf(fitted.params, test.astype(np.float32), rng=key)))
    keys = jax.random.split(jax.random.key(1), DRAWS).reshape(-1, PIECE)
    log_p = np.concatenate([np.asarray(score(some), float) for some in keys])
    mass = np.logaddexp.reduce(log_p) - np.log(DRAWS)
    error = mass.std() / TEST**0.5
    return {"bound": float(log_p.mean()), "mass": float(mass.mean()), "error": float(error), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=("counts", "household"), default=["counts", "household"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = records.read(options.out)
    for seed in map(str, range(options.seeds)):
        for name in options.sets:
            for noise in ("uniform", "learned"):
                runs = found.setdefault(name, {}).setdefault(noise, {})
                if seed not in runs:
                    runs[seed] = measure(name, noise, int(seed))
                    print(f"{name}, {noise}, seed {seed}: {runs[seed]}", flush=True)
                    records.write(options.out, found)
                    flows.clear_caches()


if __name__ == "__main__":
    main()
