"""flowMC's `RQSpline_MALA_Bundle`: 16 chains from N(0, 3^2), 20 loops of 50 local and 50 global steps that train, and 20 that
draw. Its draws, and the seconds of a core, go to a file."""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from flowMC.resource_strategy_bundle.RQSpline_MALA import RQSpline_MALA_Bundle
from flowMC.Sampler import Sampler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from densities import known

name, seed, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
target, chains = known(name), 16
began = time.process_time()
of_model, of_start, of_chains = jax.random.split(jax.random.key(seed), 3)
bundle = RQSpline_MALA_Bundle(
    of_model,
    chains,
    target.dim,
    lambda x, data: target.log_density(x[None])[0],
    n_local_steps=50,
    n_global_steps=50,
    n_training_loops=20,
    n_production_loops=20,
    n_epochs=5,
)
sampler = Sampler(n_dim=target.dim, n_chains=chains, rng_key=of_chains, resource_strategy_bundles=bundle)
sampler.sample(3 * jax.random.normal(of_start, (chains, target.dim)), {})
x = np.asarray(sampler.resources["positions_production"].data)
far = np.asarray(sampler.resources["global_accs_production"].data)
np.savez(out, x=x, seconds=time.process_time() - began, accepted=np.nanmean(np.where(np.isfinite(far), far, np.nan)))
