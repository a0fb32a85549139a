"""What the processes of one Glow each have in common: `glow_flows.py` and `glow_torch.py`, called `LIBRARY CORE SIZES`.

SIZES is JSON: "side", "layers", "width", "levels" and "batch". For each line "what times" of its standard input a process says
how long a step took, in seconds of the clock and of the CPU, or what memory it has taken at most since its library was
imported.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def peak() -> float:
    """In MiB. Not `resource.getrusage`, which starts at what the process had that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def serve(build: Callable[[], tuple[Callable[[], object], int]]) -> None:
    """Answer, for what `build` returns: a training step, and the number of trained numbers."""

    def tell(**answer: object) -> None:
        print(json.dumps(answer), flush=True)

    np.ones(31 * 2**20, np.uint8).sum()  # worker.py says why
    before, cpu = peak(), time.process_time()
    step, num_params = build()
    step()
    tell(num_params=num_params, first=time.process_time() - cpu)
    for line in sys.stdin:
        what, times = line.split()
        if what == "memory":
            tell(memory=peak() - before)
            continue
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(times)):
            step()
        tell(clock=(time.perf_counter() - clock) / int(times), cpu=(time.process_time() - cpu) / int(times))
