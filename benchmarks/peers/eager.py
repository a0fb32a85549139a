"""Calls outside jit against the same calls inside: times in turns, and the memory of 1,000 further calls."""

import json
import os
import statistics
import time
from functools import partial

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax  # noqa: E402
import numpy as np  # noqa: E402
from peer_flows import flow  # noqa: E402
from resident import resident  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

CALLS = 1000
found = {}
x = np.random.default_rng(0).normal(size=(512, 21)).astype(np.float32)
x = jax.block_until_ready(jax.numpy.asarray(x))
key = jax.random.key(0)
for name in ("MAF d21", "NSF coupling d21"):
    params, log_pdf, sample = flow(WORKLOADS[name])(0, 21)
    draw = partial(sample, num_samples=512)
    pairs = {
        "log_pdf": (partial(log_pdf, params, x), partial(jax.jit(log_pdf), params, x)),
        "sample": (partial(draw, key, params), partial(jax.jit(draw), key, params)),
    }
    for what, (eager, compiled) in pairs.items():
        jax.block_until_ready((eager(), compiled()))
        times = ([], [])
        for _ in range(100):
            for run, of in zip((eager, compiled), times, strict=True):
                start = time.process_time()
                jax.block_until_ready(run())
                of.append(1000 * (time.process_time() - start))
        before = resident()
        for _ in range(CALLS):
            jax.block_until_ready(eager())
        e, c = map(statistics.median, times)
        found[f"{name}, {what} of 512"] = {
            "eager, ms": e, "jitted, ms": c, "ratio": e / c, f"growth in {CALLS} calls, MiB": resident() - before,
        }  # fmt: skip
print(json.dumps(found))
