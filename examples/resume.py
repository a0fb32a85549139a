"""A fit that is killed, three times, and ends with the same bits as one that was not.

    python examples/resume.py [--out out]

The fit runs in a process of its own, with `checkpoint=`. It is killed without warning at random moments (SIGKILL, as a
cluster does that wants its machine back), started again, and goes on from its last save. Writes resume.png.

Pictures:
    resume.png: The loss by epoch of a fit that was killed three times, on which lies that of a fit that was not; below, which
        process ran which epochs.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from style import BLUE, ORANGE, plt

import flows

KILLS = 3


def fit(folder, epochs):
    """The same call, whether it is the first or goes on."""
    truth = flows.datasets.Spirals()(0, 2)
    points = np.asarray(truth.sample(1, truth.params, 5000))

    def tell(epoch):
        with (folder / "epochs.txt").open("a") as file:
            print(os.getpid(), epoch.number, file=file)

    return flows.fit(
        0, flows.Flow(flows.NSF(2, hidden=(32, 32), num_bins=8)), points,
        max_epochs=epochs, patience=epochs, checkpoint=folder, checkpoint_every=0.1, verbose=0,
        callbacks=[] if folder is None else [tell],
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


def picture(path, folder, resumed, whole):
    """The losses, and the epochs of each process: what had not been saved was run again."""
    lines = [line.split() for line in (folder / "epochs.txt").read_text().splitlines()]
    runs = {process: [int(number) for each, number in lines if each == process] for process, _ in lines}
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, height_ratios=(2.2, 1))
    above.plot(resumed.history["validation_loss"], color=BLUE, lw=5, alpha=0.5, label=f"killed {len(runs) - 1} times")
    above.plot(whole.history["validation_loss"], color=ORANGE, lw=1.2, label="never killed")
    above.set(ylabel="validation loss, nats a row")
    above.legend()
    for i, epochs in enumerate(runs.values(), 1):
        below.barh(i, epochs[-1] + 1 - epochs[0], left=epochs[0], height=0.5, color=BLUE, alpha=0.5)
        if i < len(runs):
            below.annotate("killed", (epochs[-1] + 1, i), (5, 0), textcoords="offset points", va="center")
    below.set(xlabel="epoch", ylabel="process", yticks=range(1, len(runs) + 1), ylim=(len(runs) + 0.6, 0.4))
    figure.savefig(path)
    plt.close(figure)


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
    picture(options.out / "resume.png", folder, resumed, whole)
    if digest(resumed.params) != digest(whole.params) or not np.array_equal(
        resumed.history["validation_loss"], whole.history["validation_loss"]
    ):
        raise SystemExit("the two differ")


if __name__ == "__main__":
    flows.keep_programs()
    main()
