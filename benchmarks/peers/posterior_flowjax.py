"""flowjax's variational loop: `ElboLoss` of an affine masked autoregressive flow that draws in one pass, by
`fit_to_key_based_loss`: 2,000 steps of 256 draws at a rate of 3e-3."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import Normal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_key_based_loss
from flowjax.train.losses import ElboLoss

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from densities import known

name, seed, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
target = known(name)
start = time.process_time()
of_flow, of_training, of_draws = jax.random.split(jax.random.key(seed), 3)
flow = masked_autoregressive_flow(of_flow, base_dist=Normal(jnp.zeros(target.dim)), invert=False)
loss = ElboLoss(lambda x: target.log_density(x[None])[0], num_samples=256)
flow, _ = fit_to_key_based_loss(of_training, flow, loss_fn=loss, steps=2_000, learning_rate=3e-3, show_progress=False)
x, log_q = flow.sample_and_log_prob(of_draws, (50_000,))
x = np.asarray(x)
taken = time.process_time() - start
log_p = np.asarray(jax.jit(target.log_density)(x), float)
np.savez(out, x=x, log_w=log_p - np.asarray(log_q, float), seconds=taken)
