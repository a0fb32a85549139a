"""A library's own training loop on a shape in the plane: `shape.py LIBRARY FILE OUT LENGTH:RATE:SEED...`.

Short fits tell what compiling and an epoch take. Then comes one fit for each LENGTH:RATE:SEED, where LENGTH is "150e" for so
many epochs, or "60s" for as many as so many seconds have room for, compiling included. OUT gets the log-densities of the test
rows by each, in nats.
"""

import json
import os
import sys
import time

library, file, out, *runs = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # before a library starts its threads

import jax  # noqa: E402
import numpy as np  # noqa: E402
from workloads import Work  # noqa: E402

WORK = Work("coupling", "spline", 2, 6, (64, 64))
BATCH, FEW, MORE = 256, 3, 30
data = np.load(file)
mean, std = data["train"].mean(0), data["train"].std(0)
volume = float(np.log(std).sum())


def with_flows(epochs, rate, seed):
    from peer_flows import flow

    import flows

    result = flows.fit(
        seed, flow(WORK), data["train"], validation=data["validation"], batch_size=BATCH, learning_rate=rate, max_epochs=epochs,
        patience=epochs, ema=0.999, verbose=0,
    )  # fmt: skip
    return lambda x: result.log_pdf(result.params, x)


def with_flowjax(epochs, rate, seed):
    """Which standardises nothing itself."""
    import equinox as eqx
    from flowjax.train import fit_to_data
    from peer_flowjax import flow

    train, validation = ((data[name] - mean) / std for name in ("train", "validation"))
    # It holds out a share of what it is given, drawn at random: as many rows as are held out here.
    rows = np.concatenate([train, validation]).astype(np.float32)
    fitted, _ = fit_to_data(
        jax.random.key(seed), flow(WORK), rows, learning_rate=rate, max_epochs=epochs, max_patience=epochs, batch_size=BATCH,
        val_prop=len(validation) / len(rows), show_progress=False,
    )  # fmt: skip
    return eqx.filter_jit(lambda x: fitted.log_prob((x - mean.astype(np.float32)) / std.astype(np.float32)) - volume)


fit = {"flows": with_flows, "flowjax": with_flowjax}[library]


def timed(epochs, rate=1e-3, seed=0):
    start = time.perf_counter()
    log_pdf = fit(epochs, rate, seed)
    return time.perf_counter() - start, log_pdf


# Cold, warm, and warm for longer: a library may compile again at every call, and that belongs to no epoch.
cold, warm, longer = (timed(epochs)[0] for epochs in (FEW, FEW, MORE))
epoch = (longer - warm) / (MORE - FEW)
compiling, again = cold - FEW * epoch, warm - FEW * epoch
found, values = [], []
for length, rate, seed in (run.split(":") for run in runs):
    epochs = int(length[:-1]) if length.endswith("e") else max(int((float(length[:-1]) - compiling) / epoch), FEW)
    took, log_pdf = timed(epochs, float(rate), int(seed))
    rows = {name: np.concatenate([np.asarray(log_pdf(part)) for part in np.array_split(data[name], 20)])
            for name in ("validation", "test")}  # fmt: skip
    values.append(rows["test"])
    found.append({
        "rate": float(rate), "seed": int(seed), "epochs": epochs, "seconds": took - again + compiling, "compiling": compiling,
        "validation": float(rows["validation"].mean()), "test": float(rows["test"].mean()),
    })  # fmt: skip
np.save(out, values)
print(json.dumps(found))
