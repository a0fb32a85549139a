"""flowjax as a guide in NumPyro: an affine masked autoregressive flow that draws in one pass, of the widths of `AutoIAFNormal`,
over the unconstrained latents of one of the programs of programs.py. Answers "start SEED", "advance 1", "elbo 1", "last 1"."""

import json
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from flowjax.distributions import Normal
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from flowjax.flows import masked_autoregressive_flow
from numpyro.infer.autoguide import AutoContinuous

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from programs import PROGRAMS, Trained


class AutoFlowjax(AutoContinuous):
    """What its documentation does with a distribution of known size, over all latents."""

    def _get_posterior(self):
        d = self.latent_dim
        flow = masked_autoregressive_flow(
            jax.random.key(0),
            base_dist=Normal(jnp.zeros(d)),
            invert=False,
            flow_layers=3,
            nn_width=d,
            nn_depth=2,
            nn_activation=jax.nn.elu,
        )
        return distribution_to_numpyro(register_params("flow", flow))


os.sched_setaffinity(0, {int(sys.argv[3])})
model = PROGRAMS[sys.argv[1]](Path(sys.argv[2]))
trained = Trained(model, AutoFlowjax(model))
print(json.dumps({"first call": trained.first_call, "bytes": trained.bytes}), flush=True)
answers = {
    "start": lambda seed: trained.start(seed),
    "advance": lambda _: trained.advance(),
    "step": lambda _: trained.step(),
    "elbo": lambda _: trained.elbo(),
    "last": lambda _: trained.last(),
}
for line in sys.stdin:
    what, argument = line.split()
    print(json.dumps(answers[what](int(argument))), flush=True)
