"""A fit that is killed, three times, and ends with the same bits as one that was not.

    python examples/resume.py [--out out]

The fit runs in a process of its own, with `checkpoint=`. It is killed without warning at random moments (SIGKILL, as a
cluster does that wants its machine back), started again, and goes on from its last save.
"""

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

import flows

KILLS = 3


def fit(folder, epochs):
    """The same call, whether it is the first or goes on."""
    truth = flows.datasets.Spirals()(0, 2)
    points = np.asarray(truth.sample(1, truth.params, 5000))
    return flows.fit(
        0, flows.Flow(flows.NSF(2, hidden=(32, 32), num_bins=8)), points,
        max_epochs=epochs, patience=epochs, checkpoint=folder, checkpoint_every=0.5, verbose=0,
    )  # fmt: skip


def digest(params):
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params))).hexdigest()[:16]


def killed(folder, epochs, rng):
    """Runs the fit in a process, which is killed some time after it has saved again."""
    file = folder / "fit.flows"
    before = file.stat().st_mtime if file.exists() else 0.0
    with subprocess.Popen([sys.executable, __file__, "--child", str(folder), "--epochs", str(epochs)]) as process:
        while process.poll() is None and not (file.exists() and file.stat().st_mtime > before):
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        if process.poll() is not None:
            print("it had ended before it could be killed")
            return
        process.send_signal(signal.SIGKILL)
    print(f"killed; its file has {file.stat().st_size:,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        fit(options.child, options.epochs)
        return
    folder = options.out / "resume"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng()
    for _ in range(KILLS):
        killed(folder, options.epochs, rng)
    resumed, whole = fit(folder, options.epochs), fit(None, options.epochs)
    print(f"killed {KILLS} times: {digest(resumed.params)}")
    print(f"never killed:   {digest(whole.params)}", resumed, sep="\n\n")
    if digest(resumed.params) != digest(whole.params) or not np.array_equal(
        resumed.history["validation_loss"], whole.history["validation_loss"]
    ):
        raise SystemExit("the two differ")


if __name__ == "__main__":
    flows.keep_programs()
    main()
