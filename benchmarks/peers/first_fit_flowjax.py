"""The same first fit in flowjax: a coupling flow of as many layers, as wide, with splines of as many bins; in seconds."""

import time

start = time.perf_counter()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from flowjax.bijections import RationalQuadraticSpline  # noqa: E402
from flowjax.distributions import StandardNormal  # noqa: E402
from flowjax.flows import coupling_flow  # noqa: E402
from flowjax.train import fit_to_data  # noqa: E402
from spent import Spent  # noqa: E402

spent = Spent(start)
x = np.random.default_rng(0).normal(size=(2000, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
scale = x.std(0)
spline = RationalQuadraticSpline(knots=7, interval=3)
flow = coupling_flow(
    jax.random.key(0), base_dist=StandardNormal((5,)), transformer=spline, flow_layers=5, nn_width=128, nn_depth=2
)
rows = ((x - x.mean(0)) / scale).astype(np.float32)
flow, losses = fit_to_data(jax.random.key(1), flow, rows, max_epochs=20, max_patience=20, batch_size=256, show_progress=False)
spent.tell(float(max(-np.asarray(losses["val"]))) - float(np.log(scale).sum()))
