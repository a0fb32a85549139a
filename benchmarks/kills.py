"""A fit that is killed a hundred times, at any instant, and ends with the same bits as one that was not.

    python benchmarks/kills.py [--kills 100] [--out out]

Each process is killed (SIGKILL) a random while after it began to train; a third of the kills come while a file is written or
just after. Before each restart the file has to load. Prints what was lost, and at the end whether params and history are the
same, bit for bit. Writes kills.json.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

import flows
from flows.persistence.container import read

EVERY = 0.05  # seconds between two saves
EPOCHS = 20_000


def fit(folder):
    draw = np.random.default_rng(0)
    model = flows.Flow(flows.Serial(flows.BatchNorm(), flows.Coupling(flows.conditioners.Residual(8, 1, dropout=0.2))))
    return flows.fit(
        0, model, draw.normal(size=(2_000, 2)) * [1.0, 3.0],
        batch_size=32, max_epochs=EPOCHS, patience=EPOCHS, checkpoint=folder, checkpoint_every=EVERY, verbose=0,
    )  # fmt: skip


def killed(folder, rng):
    """Starts the fit and kills it; returns the epochs that its file holds, and whether another was being written; or None if
    it had ended."""
    file, left = folder / "fit.flows", set(folder.iterdir())
    before = file.stat().st_mtime_ns if file.exists() else 0
    with subprocess.Popen([sys.executable, __file__, "--child", str(folder)]) as process:
        while process.poll() is None and not (file.exists() and file.stat().st_mtime_ns > before):
            time.sleep(0.001)
        if rng.random() < 1 / 3:  # as it begins to write again
            names = set(folder.iterdir())
            while process.poll() is None and set(folder.iterdir()) == names:
                time.sleep(0.0002)
        else:
            time.sleep(rng.uniform(0, 0.5))
        if process.poll() is not None:
            return None
        process.send_signal(signal.SIGKILL)
    written = set(folder.iterdir()) - left - {file}  # those of earlier kills stay for a minute
    return len(read(str(file))[0]["record"][0]["train"]), bool(written)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        fit(options.child)
        return
    folder = options.out / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng, epochs, torn = np.random.default_rng(), [], 0
    for i in range(options.kills):
        found = killed(folder, rng)
        if found is None:
            raise SystemExit(f"it ended before kill {i}: the fit is too short for so many")
        held, written = found
        torn += written
        if epochs and held < epochs[-1]:
            raise SystemExit(f"kill {i}: the file holds {held} epochs, and held {epochs[-1]} before")
        epochs.append(held)
    print(
        f"{options.kills} kills, {torn} of them while a file was written; the file always loaded; it held {epochs[-1]} epochs"
    )
    resumed, whole = fit(folder), fit(None)
    leaves = [jax.tree.leaves((each.params, dict(each.history))) for each in (resumed, whole)]
    same = all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    print("resumed and uninterrupted are the same, bit for bit" if same else "THE TWO DIFFER")
    (options.out / "kills.json").write_text(json.dumps({"kills": options.kills, "while writing": torn, "same bits": same}))
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
