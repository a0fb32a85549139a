"""The Glow of normflows or of nflows, in a process of its own: see glow_worker.py."""

import json
import os
import sys

library, core, sizes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.sched_setaffinity(0, {core})  # before a library starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # noqa: E402
from glow_of_torch import of_nflows, of_normflows  # noqa: E402
from glow_worker import serve  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(0)
side, layers, width, levels = (sizes[name] for name in ("side", "layers", "width", "levels"))


def build():
    model, loss_of = {"normflows": of_normflows, "nflows": of_nflows}[library](3, side, layers, width, levels)
    x = torch.randn(sizes["batch"], 3, side, side)
    with torch.no_grad():
        loss_of(x)  # sets the norms
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()
        optimizer.step()
        if not torch.isfinite(loss):
            raise SystemExit(f"{library}: a step came to a loss of {loss}")

    return step, sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


serve(build)
