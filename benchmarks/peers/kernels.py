"""What a training step is spent on: `kernels.py WORKLOAD`. Times of kernels, in ms a step, summed by what they are for."""

import glob
import gzip
import json
import os
import re
import sys
import tempfile
from collections import Counter

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from peer_flows import flow  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

STEPS = 30
np.ones(31 * 2**20, np.uint8).sum()  # as in worker.py
work = WORKLOADS[sys.argv[1]]
params, log_pdf, _ = flow(work)(0, work.d)
leaves, tree = jax.tree.flatten(params)
optimizer = optax.adam(1e-3)
state = [leaves, optimizer.init(leaves)]
x = jax.device_put(np.random.default_rng(0).normal(size=(512, work.d)).astype(np.float32))


@jax.jit
def update(leaves, opt_state, x):
    loss, grads = jax.value_and_grad(lambda leaves: -log_pdf(tree.unflatten(leaves), x).mean())(leaves)
    updates, opt_state = optimizer.update(grads, opt_state, leaves)
    return optax.apply_updates(leaves, updates), opt_state, loss


def step() -> None:
    *state[:], loss = update(*state, x)
    jax.block_until_ready((loss, state))


def purposes(program: str) -> dict[str, str]:
    """What each instruction of a compiled program is for, by its name."""
    bodies = {name: body for name, body in re.findall(r"^%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", program, re.DOTALL | re.MULTILINE)}
    found = {}
    for name, opcode, rest in re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = \S+ ([\w\-]+)\((.*)$", program, re.MULTILINE):
        called = re.search(r"calls=%?([\w.\-]+)", rest)
        body = bodies.get(called[1], "") if called else ""
        origin = re.search(r'op_name="([^"]*)"', rest)
        origin = origin[1] if origin else ""
        if opcode in ("dot", "custom-call") or " dot(" in body:
            found[name] = "products"
        elif opcode in ("while", "conditional", "call", "tuple", "parameter"):
            continue  # what is in them is counted by itself
        elif re.search("dynamic-slice|dynamic-update-slice|_broadcast", name) or opcode in ("copy", "broadcast"):
            found[name] = "copies in and out of the loop"
        elif re.search("take|gather|scatter|concatenate|split", origin):
            found[name] = "features cut and reordered"
        elif "relu" in origin:
            found[name] = "activations"
        elif "jvp" in origin:
            found[name] = "transformers, biases, masks"
        else:
            found[name] = "Adam"
    return found


for _ in range(5):
    step()
with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
        for _ in range(STEPS):
            step()
    (file,) = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
    with gzip.open(file) as trace:
        events = json.load(trace)["traceEvents"]
of = purposes(update.lower(*state, x).compile().as_text())
total = Counter()
for event in events:
    name = event.get("args", {}).get("hlo_op")
    if event.get("ph") == "X" and name in of:
        total[of[name]] += event["dur"] / 1000 / STEPS
print(json.dumps(dict(total.most_common())))
