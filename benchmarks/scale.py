"""Rows a second of one fit on several devices, and in two processes.

    python benchmarks/scale.py                    # a spline flow and an image flow, five rounds; half an hour
    python benchmarks/scale.py --models spline --rounds 1
    python benchmarks/scale.py --table            # what was measured

Devices are those that JAX makes of one processor, each with a thread of its own, so that a machine of two cores has at most two
that run side by side. "none" is a fit without a mesh on one device of one thread, and "apart" two of these side by side, each
with half of a batch, which know nothing of each other: their rows a second together are the most that the machine's two cores
can do. Of each run the fastest epoch after the first counts, and the time for which the loop waits for rows that a thread reads
from a file. "1" takes turns with fits without a mesh in its own process, and is compared with those. Rounds are interleaved.
Written to benchmarks/results/scale.json.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import records

RESULTS = Path(__file__).resolve().parent / "results" / "scale.json"
PLACES = {  # devices, processes
    "none": (1, 1), "apart": (1, 2), "1": (1, 1), "2": (2, 1), "4": (4, 1), "8": (8, 1), "2 processes": (1, 2),
}  # fmt: skip
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
EPOCHS = 6
TURNS = 3  # of a fit on a mesh of one device and one without, in one process
MODELS = {  # event, rows, rows a step
    "spline": ((6,), 32_768, 1_024),
    "images": ((16, 16, 1), 1_024, 64),
}


def model_of(name):
    import flows

    return flows.Flow(flows.NSF(5)) if name == "spline" else flows.Flow(flows.GlowImage(4, width=32))


def rows_of(name):
    event, rows, _ = MODELS[name]
    return np.random.default_rng(0).normal(size=(rows, *event)).astype(np.float32)


def work(name, place, source, process, port):
    """One run: rows a second, the share of time that the loop waited, and the last loss."""
    devices, processes = PLACES[place]
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} {ONE_THREAD}"
    import jax

    together = processes > 1 and place != "apart"
    if together:
        jax.distributed.initialize(f"localhost:{port}", num_processes=processes, process_id=process)
    waited = count_waiting()
    mesh = None if place in ("none", "apart") else "all"
    found = [fitted(name, source, waited, mesh, 2 if place == "apart" else 1)]
    if place == "1":
        others = [fitted(name, source, waited, None)]
        for _ in range(TURNS - 1):
            others.append(fitted(name, source, waited, None))
            found.append(fitted(name, source, waited, mesh))
        fastest = [max(each["rows a second"] for each in of) for of in (found, others)]
        found = [{**max(found, key=lambda each: each["rows a second"]), "of none": fastest[0] / fastest[1]}]
    if process == 0 or not together:
        print(json.dumps(found[0]))


def count_waiting():
    """How long the loop has waited for rows so far, as the one entry of a list."""
    from flows.training.loop import epochs

    waited, take = [0.0], epochs._drained

    def timed(items):
        drained = take(items)
        while True:
            start = time.perf_counter()
            item = next(drained, None)
            waited[0] += time.perf_counter() - start
            if item is None:
                return
            yield item

    epochs._drained = timed
    return waited


def fitted(name, source, waited, mesh, shares=1):
    """Of one fit with a share of each batch."""
    import flows

    ends = list[tuple[float, float]]()
    data, (_, rows, batch) = np.load(source, mmap_mode="r" if source.endswith("mapped.npy") else None), MODELS[name]
    rows, batch = rows // shares, batch // shares
    result = flows.fit(
        0, model_of(name), data[:rows], validation=np.array(data[: max(rows // 64, batch)]), batch_size=batch,
        max_epochs=EPOCHS, patience=EPOCHS, mesh=mesh, standardize=False, verbose=0,
        callbacks=[lambda epoch: ends.append((epoch.seconds, waited[0]))],
    )  # fmt: skip
    if not ends:  # only the first process has callbacks
        return {}
    seconds = np.diff(np.array(ends), axis=0)
    loss = float(np.asarray(result.history["validation_loss"])[-1])
    waiting = seconds[:, 1].sum() / seconds[:, 0].sum()
    return {"rows a second": rows // batch * batch / seconds[:, 0].min(), "waiting": waiting, "loss": loss}


def run(name, place, source):
    processes = PLACES[place][1]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", __file__, "--work", name, place, source]
    started = [
        subprocess.Popen([*command, str(i), str(port)], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        for i in range(processes)
    ]
    outputs = [process.communicate()[0] for process in started]
    found = json.loads(outputs[0].splitlines()[-1])
    if place == "apart":
        found["rows a second"] += json.loads(outputs[1].splitlines()[-1])["rows a second"]
    return found


def table(found):
    lines = ["| rows a second (waiting for data) | " + " | ".join(PLACES) + " |", "|" + "---|" * (len(PLACES) + 1)]
    for name, of in found.items():
        cells = [
            f"{np.median([each['rows a second'] for each in of[place]]):,.0f}"
            f" ({np.mean([each['waiting'] for each in of[place]]):.0%})"
            for place in PLACES
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| times a fit without a mesh | " + " | ".join(PLACES) + " |", "|" + "---|" * (len(PLACES) + 1)]
    for name, of in found.items():
        ratios = [
            np.median([
                a.get("of none", a["rows a second"] / b["rows a second"]) for a, b in zip(of[place], of["none"], strict=True)
            ])
            for place in PLACES
        ]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--work", nargs=5)
    options = parser.parse_args()
    if options.work:
        name, place, source, process, port = options.work
        return work(name, place, source, int(process), port)
    found = records.read(RESULTS)
    if not options.table:
        with tempfile.TemporaryDirectory() as folder:
            for name in options.models:
                for kind in ("memory", "mapped"):
                    source = str(Path(folder) / f"{name} {kind}.npy")
                    np.save(source, rows_of(name))
                    of = found[f"{name}, {kind}"] = {}
                    for _ in range(options.rounds):
                        for place in PLACES:
                            of.setdefault(place, []).append(run(name, place, source))
                            print(name, kind, place, of[place][-1], flush=True)
                    records.write(RESULTS, found)
    print(table(found))
    return None


if __name__ == "__main__":
    main()
