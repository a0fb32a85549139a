"""This library and its peers side by side: training steps, densities, samples, first steps, memory, small models.

    python benchmarks/speed.py                                  # everything; about an hour
    python benchmarks/speed.py --parts throughput --threads 1 --only "NSF coupling" --libraries floor flows flowjax

Every library runs in a process of its own, pinned to one core or two; they take turns, and each figure is the median over
the turns: CPU time on one core, the clock's on two. Floor: the bare matrix products of the conditioners. Writes speed.json,
speed.md and speed.png.
"""

import argparse
import json
import os
import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path

from peers.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
JAX, TORCH = ".venv-peers", ".venv-torch"
LIBRARIES = {
    "floor": ".venv",
    "flows": ".venv",
    "flows_repeat": ".venv",
    "flows_unrolled": ".venv",
    "flowjax": JAX,
    "distrax": JAX,
    "bijx": JAX,
    "zuko": TORCH,
    "nflows": TORCH,
}
NAMES = {"flows_repeat": "flows, as a loop", "flows_unrolled": "flows, unrolled"}
DEPTHS = (5, 10, 20, 40)
# For glibc: freed memory is never given back to the system.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
SLOW = 5.0  # seconds from which a run is not repeated
SAMPLED = ("NSF autoregressive d21", "MAF d63", "NSF coupling d21")


class Worker:
    """A library with one flow, in a process of its own."""

    def __init__(self, library: str, workload: str, threads: int, layers: int = 0):
        python, script = ROOT / LIBRARIES[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / "worker.py"
        self.library = library
        self.process = subprocess.Popen(
            [python, script, library, workload, str(threads), str(layers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.start = self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.library} ended without an answer; its error is above")
        return json.loads(line)

    def ask(self, what: str, times: int = 1) -> dict:
        self.process.stdin.write(f"{what} {times}\n")
        self.process.stdin.flush()
        return self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def throughput(workload: str, libraries: list[str], threads: int, rounds: int) -> dict:
    """Medians over the turns, of each library, in milliseconds."""
    unit = "cpu" if threads == 1 else "clock"
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(library, workload, threads)) for library in libraries]
        workers = [worker for worker in workers if "missing" not in worker.start]
        found = {worker.library: {"step": [], "log_prob": [], "sample": []} for worker in workers}
        for worker in workers:
            worker.ask("step", 3), worker.ask("log_prob")
        for _ in range(rounds):
            for worker in workers:
                found[worker.library]["step"].append(worker.ask("step", 5)[unit])
                found[worker.library]["log_prob"].append(worker.ask("log_prob")[unit])
        for worker in workers if workload in SAMPLED else []:
            if worker.library != "floor":
                worker.ask("sample")
        for _ in range(max(1, rounds // 3) if workload in SAMPLED else 0):
            for worker in workers:
                of = found[worker.library]["sample"]
                if worker.library != "floor" and not (of and of[-1] > SLOW):
                    of.append(worker.ask("sample")[unit])
        return {
            worker.library: {
                **{what: 1000 * statistics.median(each) for what, each in found[worker.library].items() if each},
                "first step": 1000 * worker.start["first"][unit],
                "memory": worker.ask("memory")["memory"],
                "num_params": worker.start["num_params"],
            }
            for worker in workers
        }


def first_steps(libraries: list[str], repeats: int = 2) -> dict:
    """Build, trace, compile and run, in seconds of one core's time, by depth; the least of some repeats."""
    found: dict = {}
    for layers in DEPTHS:
        for library in libraries:
            times = []
            for _ in range(repeats):
                with Worker(library, "NSF coupling d21", 1, layers) as worker:
                    times.append(worker.start["first"]["cpu"])
            found.setdefault(library, {})[layers] = min(times)
    return found


def script(name: str, environment: str, *arguments: object) -> dict:
    """What a script of benchmarks/peers prints."""
    command = [ROOT / environment / "bin" / "python", ROOT / "benchmarks" / "peers" / name, *map(str, arguments)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


def own_loops(workload: str, threads: int, repeats: int = 2) -> dict:
    """A step within an epoch of the loops that libraries bring, in milliseconds, in turns; distrax, bijx, zuko and nflows
    bring none."""
    turns = [
        {library: script("epochs.py", LIBRARIES[library], library, workload, threads) for library in ("flows", "flowjax")}
        for _ in range(repeats)
    ]
    return {library: min(turn[library]["step"] for turn in turns) for library in turns[0]}


def small_models(repeats: int = 3) -> dict:
    """Fits of 1,000 steps, the first call included, in milliseconds a step of the clock; in turns."""
    turns = [{"flows": script("small_flows.py", ".venv"), "flowjax": script("small_flowjax.py", JAX)} for _ in range(repeats)]
    return {
        library: {what: statistics.median(turn[library][what] for turn in turns) for what in turns[0][library]}
        for library in turns[0]
    }


def table(header: list[str], rows: list[list]) -> str:
    def cell(value) -> str:
        return (
            f"{value:.3g}"
            if isinstance(value, float) and value < 1000
            else f"{value:.0f}"
            if isinstance(value, float)
            else str(value)
        )

    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(results: dict) -> str:
    """The Markdown of the results."""
    parts = []
    for key, found in results.items():
        if key.startswith("throughput"):
            parts.append(f"### {key.removeprefix('throughput ')}")
            header = ["", "step, ms", "/ floor", "log_prob, ms", "/ floor", "sample, ms", "memory, MiB", "parameters"]
            rows = []
            floor = found.get("floor")
            for library, of in found.items():
                row = [NAMES.get(library, library)]
                for what in ("step", "log_prob"):
                    row += [of[what], of[what] / floor[what] if floor else ""]
                rows.append([*row, of.get("sample", ""), round(of["memory"]), of["num_params"]])
            parts.append(table(header, rows))
        elif key == "first steps":
            parts += ["### First step by depth, seconds", table(["", *map(str, DEPTHS)], [
                [NAMES.get(library, library), *of.values()] for library, of in found.items()
            ])]  # fmt: skip
        elif key.startswith("loops"):
            libraries = list(next(iter(found.values())))
            rows = [[name, *of.values(), of["flowjax"] / of["flows"]] for name, of in found.items()]
            title = f"### A step of each library's own loop, ms, {key.split()[1]} thread{'s' * (key[-1] != '1')}"
            parts += [title, table(["", *libraries, "ratio"], rows)]
        elif key == "small":
            header = ["", *next(iter(found.values()))]
            parts += ["### A small model, 1,000 steps", table(header, [[name, *of.values()] for name, of in found.items()])]
        elif key == "eager":
            parts += [
                "### Calls outside jit",
                table(["", *next(iter(found.values()))], [[n, *of.values()] for n, of in found.items()]),
            ]
    return "\n\n".join(parts)


def picture(results: dict, path: Path) -> None:
    """Steps and densities in multiples of the floor, on one core, and first steps by depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [name for name in results if name.startswith("throughput") and name.endswith("1 thread")]
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), width_ratios=(2, 2, 1.3), layout="constrained")
    libraries = [name for name in LIBRARIES if name != "floor"]
    colors = dict(
        zip(libraries, ["#0b5394", "#6fa8dc", "#cfe2f3", "#e69138", "#f1c232", "#93c47d", "#a64d79", "#999999"], strict=True)
    )
    for axis, what, title in zip(axes, ("step", "log_prob"), ("A training step", "10,000 densities"), strict=False):
        for place, key in enumerate(shown):
            found = results[key]
            present = [library for library in libraries if library in found]
            for i, library in enumerate(present):
                height = found[library][what] / found["floor"][what] if "floor" in found else found[library][what]
                x = place + (i - (len(present) - 1) / 2) * 0.12
                axis.bar(x, height, 0.11, color=colors[library], label=NAMES.get(library, library) if not place else None)
        labels = [key.removeprefix("throughput ").rsplit(",", 1)[0].replace(" d", "\nd = ") for key in shown]
        axis.set_xticks(range(len(shown)), labels, fontsize=8)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_title(f"{title}, in multiples of its bare matrix products", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    if shown:
        axes[0].legend(frameon=False, fontsize=8)
    for library, of in results.get("first steps", {}).items():
        axes[2].plot(list(map(int, of)), list(of.values()), "o-", color=colors[library], label=NAMES.get(library, library))
    axes[2].set(title="First step by depth, s", xlabel="layers", ylim=(0, None), xticks=DEPTHS)
    axes[2].title.set_fontsize(10)
    axes[2].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["throughput", "first", "loops", "small", "eager"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument("--only", default="", help="workloads with this in their name")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--add", action="store_true", help="keep what earlier runs measured, and is not measured again")
    parser.add_argument("--keep-memory", action="store_true", help="let no process give back what it frees")
    options = parser.parse_args()
    if options.keep_memory:
        os.environ.update(KEEPING)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "speed.json"
    results = json.loads(file.read_text()) if options.add and file.exists() else {}

    def keep(name: str, found: dict) -> None:
        results[name] = found
        file.write_text(json.dumps(results, indent=1))
        print(report({name: found}), "\n", flush=True)

    if "throughput" in options.parts:
        for threads in options.threads:
            for workload in WORKLOADS:
                if options.only in workload:
                    found = throughput(workload, options.libraries, threads, options.rounds)
                    keep(f"throughput {workload}, {threads} thread{'s' * (threads > 1)}", found)
    if "first" in options.parts:
        compared = ("flows", "flows_repeat", "flowjax", "distrax", "bijx")
        keep("first steps", first_steps([name for name in options.libraries if name in compared]))
    if "loops" in options.parts:
        for threads in options.threads:
            keep(f"loops {threads}", {name: own_loops(name, threads) for name in WORKLOADS if name != "MAF d63"})
    if "small" in options.parts:
        keep("small", small_models())
    if "eager" in options.parts:
        keep("eager", script("eager.py", ".venv"))
    (options.out / "speed.md").write_text(report(results) + "\n")
    picture(results, options.out / "speed.png")


if __name__ == "__main__":
    main()
