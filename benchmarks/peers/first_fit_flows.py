"""The first fit of a process, imports included: the default spline flow, 2,000 rows of 5 columns, 20 epochs; in seconds."""

import time

start = time.perf_counter()

import numpy as np  # noqa: E402
from spent import Spent  # noqa: E402

import flows  # noqa: E402

spent = Spent(start)
x = np.random.default_rng(0).normal(size=(2000, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
result = flows.fit(0, flows.Flow(flows.NSF()), x, max_epochs=20, verbose=0)
spent.tell(float(max(-np.asarray(result.history["validation_loss"]))))
