"""NPE of sbi by its defaults, on simulations in a folder: draws at observations, and CPU seconds."""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from sbi.inference import NPE
from sbi.neural_nets import posterior_nn
from sbi.neural_nets.embedding_nets import FCEmbedding, PermutationInvariantEmbedding
from sbi.utils import BoxUniform


def main() -> None:
    folder = Path(sys.argv[1])
    with np.load(folder / "in.npz") as data:
        theta, x, observations = (torch.tensor(data[name], dtype=torch.float32) for name in ("theta", "x", "observations"))
        low, high = (torch.tensor(data[name], dtype=torch.float32) for name in ("low", "high"))
        seed, draws = int(data["seed"]), int(data["draws"])
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    began = time.process_time()
    bounded = bool(torch.isfinite(low).all() and torch.isfinite(high).all())
    prior = BoxUniform(low, high) if bounded else None
    estimator = "maf"
    if x.ndim > 2:  # sets, as its documentation has them
        trial = FCEmbedding(input_dim=x.shape[-1], output_dim=20)
        estimator = posterior_nn(model="maf", embedding_net=PermutationInvariantEmbedding(trial, trial_net_output_dim=20))
    inference = NPE(prior=prior, density_estimator=estimator, show_progress_bars=False)
    network = inference.append_simulations(theta, x).train()
    drawn, outside = [], 0.0
    for row in observations:
        if bounded:
            raw = network.sample((draws,), condition=row[None]).reshape(-1, theta.shape[1])
            outside += float(((raw < low) | (raw > high)).any(1).float().mean()) / len(observations)
            drawn.append(inference.build_posterior().sample((draws,), x=row[None], show_progress_bars=False))
        else:
            drawn.append(network.sample((draws,), condition=row[None]).reshape(-1, theta.shape[1]))
    cpu = time.process_time() - began
    np.savez(folder / "out.npz", draws=torch.stack(drawn).detach().numpy(), cpu=cpu, outside=outside)


if __name__ == "__main__":
    main()
