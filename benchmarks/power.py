"""Test nats on the POWER set after equal times: this library, flowjax and zuko, the same models on one core each.

    python benchmarks/power.py                     # 10 minutes for each of nine; two at a time, 50 minutes in all
    python benchmarks/power.py --seconds 60 --models NSF
    python benchmarks/power.py --paper             # this library with the published settings; goes on where it stopped
    python benchmarks/power.py --paper "NSF autoregressive"

Writes power.json, power.md and power.png; or paper.json and paper.md.
"""

import argparse
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import records
from peers.workloads import POWER
from power_data import GAUSSIAN, load

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = {"flows": ".venv", "flowjax": ".venv-peers", "zuko": ".venv-torch"}
COLORS = {"flows": "#0b5394", "flowjax": "#e69138", "zuko": "#a64d79"}


def train(model, library, seconds, cores, folder):
    """What the trainer says, on the first free core."""
    core = cores.get()
    try:
        script = ROOT / "benchmarks" / "peers" / "trainer.py"
        command = [ROOT / LIBRARIES[library] / "bin" / "python", script, library, model, str(seconds), str(core), folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        cores.put(core)
    found = json.loads(done.stdout.splitlines()[-1])
    told = f"{found['nats']:.4f} +- {found['standard error']:.4f} nats after {found['steps']:,} steps"
    print(f"{model}, {library}: {told}, {found['num_params']:,} parameters", flush=True)
    return found


def picture(results, path, seconds):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(results)
    figure, axes = plt.subplots(1, len(models), figsize=(4.6 * len(models), 4), layout="constrained", squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        for library, found in results[model].items():
            time, _, nats = np.array(found["history"]).T
            axis.plot(time / 60, nats, color=COLORS[library], label=f"{library}: {found['nats']:.3f} on test rows")
        low = min(np.median([row[2] for row in found["history"]]) for found in results[model].values())
        axis.set(title=f"{model}, POWER", xlabel="minutes on one core", ylabel="validation nats", ylim=(low - 0.3, None))
        axis.legend(frameon=False, loc="lower right")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--models", nargs="+", default=list(POWER), choices=list(POWER))
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument("--paper", nargs="*", metavar="MODEL", help="the published settings, of all models or of these")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()

    split = load(options.out)
    if options.paper is not None:
        import power_paper

        if unknown := set(options.paper) - set(power_paper.SETTINGS):
            parser.error(f"--paper has no {sorted(unknown)}; expected some of {list(power_paper.SETTINGS)}")
        return power_paper.run_all(options.paper or list(power_paper.SETTINGS), split, options.out)
    np.savez(options.out / "power.npz", **split._asdict())
    cores = SimpleQueue()
    for core in range(len(os.sched_getaffinity(0))):
        cores.put(core)
    with ThreadPoolExecutor(cores.qsize()) as pool:
        jobs = {
            (model, library): pool.submit(train, model, library, options.seconds, cores, options.out)
            for model in options.models
            for library in options.libraries
        }
    results = {model: {library: jobs[model, library].result() for library in options.libraries} for model in options.models}
    lines = ["| | " + " | ".join(options.libraries) + " |", "|---" * (len(options.libraries) + 1) + "|"]
    for model, of in results.items():
        cells = (f"{found['nats']:.3f} +- {found['standard error']:.3f} ({found['steps']:,} steps)" for found in of.values())
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    print(table, f"\na full-covariance normal: {GAUSSIAN}")
    records.write(options.out / "power.json", {"seconds": options.seconds, "results": results})
    (options.out / "power.md").write_text(table + "\n")
    picture(results, options.out / "power.png", options.seconds)


if __name__ == "__main__":
    main()
