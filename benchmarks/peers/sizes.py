"""Calls with a thousand numbers of rows, twice: how many programs they compile, and by what the process grows."""

import json
import time

import jax
import jax.monitoring
import numpy as np
from peer_flows import flow
from resident import resident
from workloads import WORKLOADS

SIZES, COLUMNS = 1000, 21

programs = 0


def count(event: str, seconds: float, **_) -> None:
    global programs
    programs += "backend_compile" in event


jax.monitoring.register_event_duration_secs_listener(count)
x = np.random.default_rng(0).normal(size=(SIZES, COLUMNS)).astype(np.float32)
params, log_pdf, sample = flow(WORKLOADS["NSF coupling d21"])(0, COLUMNS)


def calls(key: int) -> None:
    for n in np.random.default_rng(key).permutation(SIZES) + 1:
        log_pdf(params, x[:n]), sample(key, params, int(n))


jax.random.key(0)
found = {}
for turn, name in enumerate(("first", "again")):
    before, start, clock = (programs, resident(), time.perf_counter())
    calls(turn)
    found[name] = {
        "programs": programs - before, "MiB": resident() - start, "seconds": time.perf_counter() - clock,
    }  # fmt: skip
print(json.dumps(found))
