"""zuko's continuous flow, in a process of its own: `continuous_zuko.py CORE FILE`.

FILE has the weights of a network, "w0", "b0" and so on, the tolerance, and rows: "rows" for densities, "few" for a step by
likelihood and "more" for one of flow matching. For each line "what times" of its standard input it says how long that took, in
seconds of the clock and of the CPU; for "values PATH" it saves the log-densities of the rows there.
"""

import json
import os
import sys
import time

core, file = int(sys.argv[1]), sys.argv[2]
os.sched_setaffinity(0, {core})  # before a library starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
import zuko  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(0)
np.ones(31 * 2**20, np.uint8).sum()  # worker.py says why
with np.load(file) as arrays:
    given = {name: arrays[name] for name in arrays.files}
rows, few, more = (torch.as_tensor(given[name]) for name in ("rows", "few", "more"))
weights = [given[name] for i in range(4) for name in (f"w{i}", f"b{i}")]
tolerance, d = float(given["tolerance"]), rows.shape[1]
hidden = [len(bias) for bias in weights[1::2]][:-1]
flow = zuko.flows.CNF(
    d, freqs=3, hidden_features=hidden, activation=getattr(torch.nn, str(given["activation"])), atol=tolerance, rtol=tolerance
)
with torch.no_grad():
    for parameter, value in zip(flow.transform.ode.parameters(), weights, strict=True):
        parameter.copy_(torch.as_tensor(np.ascontiguousarray(value.T)))
velocity = flow.transform.f
optimizer = torch.optim.Adam(flow.parameters(), lr=0.0, fused=True)  # so that every step finds the same network


def descend(loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def densities():
    return flow.eval()().log_prob(rows)


@torch.no_grad()
def samples():
    return flow.eval()().sample((int(given["samples"]),))


def likelihood():
    descend(-flow.train()().log_prob(few).mean())


def matching():
    """By hand: its way is from data at time 0 to noise at time 1."""
    noise, t = torch.randn_like(more), torch.rand(len(more))
    at = (1 - t[:, None]) * more + t[:, None] * noise
    descend((velocity(t, at) - (noise - more)).square().sum(1).mean())


RUNS = {"densities": densities, "samples": samples, "likelihood": likelihood, "matching": matching}
print(json.dumps({"zuko": zuko.__version__, "torch": torch.__version__}), flush=True)
for line in sys.stdin:
    what, argument = line.split(maxsplit=1)
    if what == "values":
        np.save(argument.strip(), densities().numpy())
        answer = {}
    else:
        times, clock, cpu = int(argument), time.perf_counter(), time.process_time()
        for _ in range(times):
            RUNS[what]()
        answer = {"clock": (time.perf_counter() - clock) / times, "cpu": (time.process_time() - cpu) / times}
    print(json.dumps(answer), flush=True)
