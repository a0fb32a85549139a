"""zuko's README: an NSF of 3 transforms, Adam at 1e-3, on standardised rows, for so many seconds of the CPU."""

import sys
import time
from pathlib import Path

import numpy as np
import torch
import zuko

file, seed, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(seed)
with np.load(file) as given:
    rows, test = given["rows"], given["test"]
mean, std = rows.mean(0), rows.std(0)
x = torch.tensor((rows - mean) / std, dtype=torch.float32)
start = time.process_time()
flow = zuko.flows.NSF(features=x.shape[1], transforms=3, hidden_features=(128, 128))
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
while time.process_time() - start < seconds:
    for batch in x[torch.randperm(len(x))].split(256):
        loss = -flow().log_prob(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if time.process_time() - start > seconds:
            break
taken = time.process_time() - start
z = torch.tensor((test - mean) / std, dtype=torch.float32)
with torch.no_grad():
    scores = torch.cat([flow().log_prob(piece) for piece in z.split(5000)]).double().numpy()
np.savez(file.parent / "scores.npz", scores=scores - np.log(std).sum(), seconds=taken)
