import tempfile

import equinox as eqx
import jax
import numpy as np
from flowjax import bijections as bij
from flowjax.distributions import StandardNormal, Transformed
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_data
from paramax import non_trainable

table = np.loadtxt("examples/data/galaxies.csv", delimiter=",", skiprows=1)[:6000]
x, c = table[:, [0, 4]], table[:, 1:4]  # redshift and i, given u, g, r
c = (c - c[:4000].mean(0)) / c[:4000].std(0)
logs = np.stack([np.log(x[:4000, 0]), x[:4000, 1]], 1)
exp = bij.Stack([bij.Exp(), bij.Identity()])  # a redshift is positive
units = non_trainable(bij.Chain([bij.Affine(logs.mean(0), logs.std(0)), exp]))
sizes = {"cond_dim": 3, "flow_layers": 3, "nn_width": 64, "nn_depth": 2}
sizes |= {"transformer": bij.RationalQuadraticSpline(knots=10, interval=5)}
key, base = jax.random.key(0), StandardNormal((2,))
start = Transformed(masked_autoregressive_flow(key, base_dist=base, **sizes), units)
steps = {"learning_rate": 1e-3, "batch_size": 256, "max_patience": 20}
steps |= {"max_epochs": 300, "val_prop": 0.2, "show_progress": False}
flow, losses = fit_to_data(key, start, (x[:5000], c[:5000]), **steps)
print(f"{flow.log_prob(x[5000:], c[5000:]).mean():.3f} nats a row,", end=" ")
print("draws", flow.sample(key, (1000,), condition=c[5000]).shape)
with tempfile.TemporaryFile() as file:
    eqx.tree_serialise_leaves(file, flow)
    file.seek(0)
    again = eqx.tree_deserialise_leaves(file, start)  # of the same model
