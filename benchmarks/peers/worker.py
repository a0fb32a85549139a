"""One library with one flow, in a process of its own: `worker.py LIBRARY WORKLOAD THREADS LAYERS`.

It says how long the first step took, then for each line "what times" of its standard input how long that took, in seconds of
the clock and of the CPU.
"""

import importlib
import json
import os
import resource
import sys
import time

library, name, threads, layers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # before a library starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)

import numpy as np  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

work = WORKLOADS[name]
if layers:
    work = work._replace(layers=layers)
rng = np.random.default_rng(0)
mixing = np.linalg.cholesky(0.5 * np.eye(work.d) + 0.5)
batch, rows = ((rng.normal(size=(n, work.d)) @ mixing.T).astype(np.float32) for n in (512, 10_000))
# As in any process that has held data: glibc learns from the largest array freed, up to 32 MB, how much freed memory to keep.
# Without it, some steps pay for new pages, by chance (speed.md).
np.ones(31 * 2**20, np.uint8).sum()


def tell(**answer):
    print(json.dumps(answer), flush=True)


def timed(run, times=1):
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        run()
    return {"clock": (time.perf_counter() - clock) / times, "cpu": (time.process_time() - cpu) / times}


def first():
    global model
    model = peer.build(work)
    model.step(batch)


try:
    peer = importlib.import_module(f"peer_{library}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tell(first=timed(first), num_params=model.num_params, expected=work.num_params)
except NotImplementedError as error:
    tell(missing=str(error))
    sys.exit()

RUNS = {
    "step": lambda: model.step(batch),
    "log_prob": lambda: model.log_prob(rows),
    "sample": lambda: model.sample(10_000),
}
for line in sys.stdin:
    what, times = line.split()
    if what == "memory":  # what the process has taken at most since its library was imported, in MiB
        tell(memory=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    else:
        tell(**timed(RUNS[what], int(times)))
