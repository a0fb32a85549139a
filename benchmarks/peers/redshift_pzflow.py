"""pzflow's conditional flow of the redshift by its defaults, and its posterior on a grid: `redshift_pzflow.py FILE SEED`.

Writes, of each test row, log p and the probability below the true redshift. Rows out of its support are -inf, which it writes
as the least float32.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from pzflow import Flow

file, seed = Path(sys.argv[1]), int(sys.argv[2])
with np.load(file) as given:
    names, grid = list(map(str, given["names"])), given["grid"]
    train, test = (pd.DataFrame(given[part], columns=names) for part in ("train", "test"))
target, bands = names[0], names[1:]
start = time.process_time()
flow = Flow([target], conditional_columns=bands)
flow.train(train, seed=seed)
taken = time.process_time() - start
scores = np.asarray(flow.log_prob(test), float)
scores[scores < -1e30] = -np.inf
found = np.asarray(flow.posterior(test, target, grid, batch_size=200), float)
steps = np.diff(grid) * (found[:, 1:] + found[:, :-1]) / 2
below = np.concatenate([np.zeros((len(found), 1)), np.cumsum(steps, 1)], 1)
ranks = [np.interp(true, grid, each / each[-1]) for true, each in zip(test[target], below, strict=True)]
np.savez(file.parent / "found.npz", scores=scores, ranks=ranks, seconds=taken)
