"""NPE of sbijax by its defaults, on simulations in a folder: draws at observations, and CPU seconds."""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from sbijax import npe, sample, train
from sbijax.nn import make_maf


def main() -> None:
    folder = Path(sys.argv[1])
    with np.load(folder / "in.npz") as data:
        theta, x, observations, low, high = (
            np.asarray(data[name], np.float32) for name in ("theta", "x", "observations", "low", "high")
        )
        seed, draws = int(data["seed"]), int(data["draws"])
    x, observations = x.reshape(len(x), -1), observations.reshape(len(observations), -1)  # its networks take vectors
    began = time.process_time()
    estimator, keys = npe(make_maf(theta.shape[1])), jax.random.split(jax.random.key(seed), 2)
    params, _ = train(keys[0], estimator, {"theta": theta, "y": x})
    drawn = []
    for row in observations:
        posterior, _ = sample(keys[1], estimator, params, row, n_samples=draws)
        drawn.append(np.asarray(jax.tree.leaves(posterior)[0]).reshape(-1, theta.shape[1]))
    cpu = time.process_time() - began
    outside = np.mean([((rows < low) | (rows > high)).any(1).mean() for rows in drawn])
    np.savez(folder / "out.npz", draws=np.stack(drawn), cpu=cpu, outside=outside)


if __name__ == "__main__":
    main()
