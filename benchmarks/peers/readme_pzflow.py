"""pzflow's defaults: `Flow(columns)` trained by `train(rows)`, which are 100 epochs, on rows as they are.

It shifts columns into bounds itself. Rows further out than its support have no density: -inf, which it writes as the least
float32.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from pzflow import Flow

file, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
with np.load(file) as given:
    rows, test = (pd.DataFrame(given[name]).add_prefix("x") for name in ("rows", "test"))
start = time.process_time()
flow = Flow(list(rows.columns))
flow.train(rows, seed=seed)
taken = time.process_time() - start
scores = np.concatenate([np.asarray(flow.log_prob(test.iloc[i : i + 5000]), float) for i in range(0, len(test), 5000)])
found = {"scores": scores, "seconds": taken}
if count:
    draws, drawing = None, []
    for again in range(2):
        start = time.process_time()
        draws = flow.sample(count, seed=seed + again).to_numpy()
        drawing.append(time.process_time() - start)
    found |= {"draws": draws, "drawing": drawing}
found["scores"][scores < -1e30] = -np.inf
np.savez(file.parent / "scores.npz", **found)
