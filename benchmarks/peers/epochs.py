"""A library's own training loop on one of the workloads: `epochs.py LIBRARY WORKLOAD THREADS`.

What a step takes of the CPU (of the clock on several threads) within an epoch of 40 steps of 512 rows, then 2,276 rows of
validation: the difference between fits of 6 and of 2 epochs, divided by the steps between them.
"""

import json
import os
import sys
import time

library, name, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # before a library starts its threads

import jax  # noqa: E402
import numpy as np  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

STEPS, BATCH, SHARE = 40, 512, 0.1
work = WORKLOADS[name]
rng = np.random.default_rng(0)
mixing = np.linalg.cholesky(0.5 * np.eye(work.d) + 0.5)
x = (rng.normal(size=(round(STEPS * BATCH / (1 - SHARE)) + 1, work.d)) @ mixing.T).astype(np.float32)


def with_flows():
    from peer_flows import flow

    import flows

    init_fun = flow(work)
    return lambda epochs: flows.fit(
        0, init_fun, x, validation=SHARE, batch_size=BATCH, max_epochs=epochs, patience=epochs, verbose=0
    ).history["train_loss"]


def with_flowjax():
    from flowjax.train import fit_to_data
    from peer_flowjax import flow

    return lambda epochs: fit_to_data(
        jax.random.key(1), flow(work), x, learning_rate=1e-3, max_epochs=epochs, max_patience=epochs, batch_size=BATCH,
        val_prop=SHARE, show_progress=False,
    )[1]["train"]  # fmt: skip


fit = {"flows": with_flows, "flowjax": with_flowjax}[library]()
clock, found = (time.process_time if threads == 1 else time.perf_counter), {2: [], 6: []}
for turn in range(4):
    for epochs, times in found.items():
        start = clock()
        if len(fit(epochs)) != epochs:
            raise SystemExit(f"{library} did not train for {epochs} epochs")
        if turn:  # the first compiles
            times.append(clock() - start)
print(json.dumps({"step": 1000 * (min(found[6]) - min(found[2])) / (4 * STEPS)}))
