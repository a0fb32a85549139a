"""This library and its peers side by side: training steps, densities, samples, first calls, memory, small models.

    python benchmarks/speed.py                                  # everything; about two hours
    python benchmarks/speed.py --guard COMMIT                   # what takes longer than it did at a commit; four minutes
    python benchmarks/speed.py --parts throughput --threads 1 --only "NSF coupling" --libraries floor flows flowjax --out out

Every library runs in a process of its own, pinned to one core or two; they take turns, and each figure is the median over
the turns: CPU time on one core, the clock's on two. Floor: the bare matrix products of the conditioners.

Writes speed.json and speed.png. Those in benchmarks/results are the figures of benchmarks/speed.md and peers.md: what is
measured again goes there, and `tables.py` writes the tables anew.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import records
from guard import guard
from peers.workloads import WORKLOADS
from processes import Peer
from tables import RESULTS, picture, rewrite

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
PARTS = ("throughput", "first", "fit", "sizes", "loops", "small", "eager", "kernels")
DEPTHS = (2, 5, 10, 20, 40)
# For glibc: freed memory is never given back to the system.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
SLOW = 5.0  # seconds from which a run is not repeated


def worker_of(library: str, workload: str, threads: int, layers: int = 0) -> Peer:
    """A library with one flow, in a process of its own."""
    python, script = ROOT / LIBRARIES[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / "worker.py"
    return Peer(library, [python, script, library, workload, threads, layers])


def throughput(workload: str, libraries: list[str], threads: int, rounds: int) -> dict:
    """Medians over the turns, of each library, in milliseconds."""
    unit = "cpu" if threads == 1 else "clock"
    with ExitStack() as stack:
        workers = [stack.enter_context(worker_of(library, workload, threads)) for library in libraries]
        workers = [worker for worker in workers if "missing" not in worker.start]
        found = {worker.name: {"step": [], "log_prob": [], "sample": []} for worker in workers}
        for worker in workers:
            worker.ask("step", 3), worker.ask("log_prob")
        for _ in range(rounds):
            for worker in workers:
                found[worker.name]["step"].append(worker.ask("step", 5)[unit])
                found[worker.name]["log_prob"].append(worker.ask("log_prob")[unit])
        sampling = [worker for worker in workers if worker.name != "floor"]
        for worker in sampling:
            worker.ask("sample")
        for _ in range(max(1, rounds // 2)):
            for worker in sampling:
                of = found[worker.name]["sample"]
                if not (of and of[-1] > SLOW):
                    of.append(worker.ask("sample")[unit])
        return {
            worker.name: {
                **{what: 1000 * statistics.median(each) for what, each in found[worker.name].items() if each},
                "first step": 1000 * worker.start["first"][unit],
                "memory": worker.ask("memory")["memory"],
                "num_params": worker.start["num_params"],
            }
            for worker in workers
        }


def first_calls(libraries: list[str], repeats: int = 2) -> dict:
    """The first step (build, trace, compile and run), then the first 10,000 densities and samples, in seconds of one core's
    time, and the memory that all three took, in MiB; by depth, the least of some repeats."""
    found: dict = {}
    for layers in DEPTHS:
        for library in libraries:
            turns = []
            for _ in range(repeats):
                with worker_of(library, "NSF coupling d21", 1, layers) as worker:
                    calls = {what: worker.ask(what)["cpu"] for what in ("log_prob", "sample")}
                    turns.append({"step": worker.start["first"]["cpu"], **calls, **worker.ask("memory")})
            least = {what: min(turn[what] for turn in turns) for what in turns[0]}
            found.setdefault(library, {})[str(layers)] = least
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


def by_turns(name: str, repeats: int = 3) -> dict:
    """The medians of what peers/<name>_flows.py and peers/<name>_flowjax.py print, in turns."""
    turns = [
        {"flows": script(f"{name}_flows.py", ".venv"), "flowjax": script(f"{name}_flowjax.py", JAX)} for _ in range(repeats)
    ]
    return {
        library: {what: statistics.median(turn[library][what] for turn in turns) for what in turns[0][library]}
        for library in turns[0]
    }


def machine() -> dict:
    """What the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processors = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    versions = [script("versions.py", environment) for environment in (".venv", JAX, TORCH) if (ROOT / environment).exists()]
    return {"processor": ", ".join(sorted(processors)), "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument("--only", default="", help="workloads with this in their name")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--keep-memory", action="store_true", help="let no process give back what it frees")
    parser.add_argument("--guard", metavar="COMMIT", help="compare this checkout with a commit, and nothing else")
    options = parser.parse_args()
    if options.guard:
        slower = guard(options.guard)
        sys.exit(f"slower than at {options.guard}: {', '.join(slower)}" if slower else 0)
    if options.keep_memory:
        if options.out.resolve() == RESULTS.parent:
            parser.error("--keep-memory needs --out FOLDER: the figures of speed.md are of processes that give memory back")
        os.environ.update(KEEPING)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "speed.json"
    results = records.read(file)

    def keep(name: str, found: dict) -> None:
        """Beside what earlier runs measured, if it was not measured again."""
        results[name] = {**results.get(name, {}), **found}
        records.write(file, results)
        print(name, json.dumps(found), flush=True)

    keep("machine", machine())
    if "throughput" in options.parts:
        for threads in options.threads:
            for workload in WORKLOADS:
                if options.only in workload:
                    found = throughput(workload, options.libraries, threads, options.rounds)
                    keep(f"throughput {workload}, {threads} thread{'s' * (threads > 1)}", found)
    if "first" in options.parts:
        compared = ("flows", "flows_repeat", "flows_unrolled", "flowjax", "distrax", "bijx")
        keep("first calls", first_calls([name for name in options.libraries if name in compared]))
    if "fit" in options.parts:
        keep("first fit", by_turns("first_fit"))
    if "sizes" in options.parts:
        keep("sizes", script("sizes.py", ".venv"))
    if "loops" in options.parts:
        for threads in options.threads:
            keep(f"loops {threads}", {name: own_loops(name, threads) for name in WORKLOADS if name != "MAF d63"})
    if "small" in options.parts:
        keep("small", by_turns("small"))
    if "eager" in options.parts:
        keep("eager", script("eager.py", ".venv"))
    if "kernels" in options.parts:
        keep("kernels", {name: script("kernels.py", ".venv", name) for name in WORKLOADS if name != "MAF d63"})
    picture(results, options.out / "speed.png")
    if options.out.resolve() == RESULTS.parent:
        rewrite(results)


if __name__ == "__main__":
    main()
