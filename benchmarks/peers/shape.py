"""A library's own training loop on a shape in the plane, for so many seconds: `shape.py LIBRARY FILE SECONDS`.

Short fits tell what compiling and an epoch take; the last is as many epochs as the time then has room for. Its losses are
told by the time at which each was known, the compiling of a first call included.
"""

import json
import os
import sys
import time

library, file, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # before a library starts its threads

import jax  # noqa: E402
import numpy as np  # noqa: E402
from workloads import Work  # noqa: E402

WORK = Work("coupling", "spline", 2, 6, (64, 64))
BATCH, RATE, FIRST = 256, 1e-3, 3
data = np.load(file)
mean, std = data["train"].mean(0), data["train"].std(0)
volume = float(np.log(std).sum())


def with_flows(epochs):
    from peer_flows import flow

    import flows

    result = flows.fit(
        0, flow(WORK), data["train"], validation=data["validation"], batch_size=BATCH, learning_rate=RATE, max_epochs=epochs,
        patience=epochs, verbose=0,
    )  # fmt: skip
    return result.history["validation"].tolist(), lambda x: result.log_pdf(result.params, x)


def with_flowjax(epochs):
    """Which standardises nothing itself."""
    import equinox as eqx
    from flowjax.train import fit_to_data
    from peer_flowjax import flow

    train, validation = ((data[name] - mean) / std for name in ("train", "validation"))
    # It holds out a share of what it is given, drawn at random: as many rows as are held out here.
    rows = np.concatenate([train, validation]).astype(np.float32)
    fitted, losses = fit_to_data(
        jax.random.key(1), flow(WORK), rows, learning_rate=RATE, max_epochs=epochs, max_patience=epochs, batch_size=BATCH,
        val_prop=len(validation) / len(rows), show_progress=False,
    )  # fmt: skip
    log_prob = eqx.filter_jit(lambda x: fitted.log_prob((x - mean.astype(np.float32)) / std.astype(np.float32)) - volume)
    return [loss + volume for loss in losses["val"]], log_prob


fit = {"flows": with_flows, "flowjax": with_flowjax}[library]


def timed(epochs):
    start = time.perf_counter()
    found = fit(epochs)
    return time.perf_counter() - start, found


# Cold, warm, and warm for longer: a library may compile again at every call, and that belongs to no epoch.
cold, warm, longer = (timed(epochs)[0] for epochs in (FIRST, FIRST, 3 * FIRST))
epoch = (longer - warm) / (2 * FIRST)
epochs = max(int((seconds - cold) / epoch) + FIRST, FIRST)
total, (losses, log_pdf) = timed(epochs)
epoch = (total - (warm - FIRST * epoch)) / epochs
compiling = cold - FIRST * epoch
values = np.concatenate([np.asarray(log_pdf(part)) for part in np.array_split(data["test"], 20)])
print(json.dumps({
    "epochs": epochs, "compiling": compiling, "epoch": epoch,
    "trace": [(compiling + (i + 1) * epoch, float(loss)) for i, loss in enumerate(losses)],
    "test": float(values.mean()), "error": float(values.std() / len(values) ** 0.5), "truth": float(data["truth"]),
}))  # fmt: skip
