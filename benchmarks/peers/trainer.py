"""One library trained on POWER for a time: `trainer.py LIBRARY MODEL SECONDS CORE FOLDER`, pinned to a core.

The same for each: Adam with gradients clipped at norm 5, a rate that falls from 1e-3 along a cosine of the time gone, random
batches of 512. The clock runs from the building of the flow, so compiling counts. Every twentieth of the time 20,000 validation
rows are scored; what scored best there is scored on all test rows once, after the time.
"""

import importlib
import json
import math
import os
import sys
import time
from pathlib import Path

library, name, seconds, core, folder = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})  # before a library starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
from workloads import POWER  # noqa: E402

peer = importlib.import_module(f"peer_{library}")
with np.load(folder / "power.npz") as arrays:
    train, validation, test = (arrays[part] for part in ("train", "validation", "test"))
draw, work = np.random.default_rng(0), POWER[name]
BATCH, CHUNK, RATE = 512, 10_000, 1e-3


def score(rows):
    """The densities of all rows; those that fill no chunk are scored with some of the others again."""
    values = [np.asarray(model.log_prob(rows[i : i + CHUNK])) for i in range(0, len(rows) - CHUNK + 1, CHUNK)]
    if left := len(rows) % CHUNK:
        values.append(np.asarray(model.log_prob(rows[-CHUNK:]))[-left:])
    return np.concatenate(values).astype(float)


start = time.monotonic()
model = peer.build(work)
steps, history, best, kept = 0, [], -math.inf, model.snapshot()
while (gone := (time.monotonic() - start) / seconds) < 1:
    model.train(train[draw.integers(len(train), size=BATCH)], 0.5 * RATE * (1 + math.cos(math.pi * gone)))
    steps += 1
    if gone * 20 > len(history) + 1:
        nats = score(validation[:20_000]).mean()
        history.append([gone * seconds, steps, float(nats)])
        if nats > best:
            best, kept = nats, model.snapshot()
nats = score(validation[:20_000]).mean()
if not nats >= best:  # worse, or NaN
    model.restore(kept)
values = score(test)
print(json.dumps({
    "nats": values.mean(), "standard error": values.std() / math.sqrt(len(values)), "steps": steps,
    "num_params": model.num_params, "history": history,
}))  # fmt: skip
