"""First fit, first scores and first draws of a process that finds the programs of the process before, beside flowjax's.

    python benchmarks/kept.py [--rounds 5]

`flows.keep_programs` against flowjax in a process that has to compile, and against flowjax with JAX's own cache switched on
by hand. Processes take turns, each pinned to the same core; medians over the rounds. Writes benchmarks/results/kept.json and
prints the table of benchmarks/speed.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import records

ROOT = Path(__file__).resolve().parent.parent
PYTHON = {"flows": ".venv", "flowjax": ".venv-peers"}
RESULTS = ROOT / "benchmarks" / "results" / "kept.json"
STEPS = ("imports", "fit", "scores", "draws")


def process(library: str, *folder: str) -> dict:
    """What peers/kept.py prints, where JAX is set up as it comes."""
    command = [ROOT / PYTHON[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / "kept.py", library, *folder]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def one_round() -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as folder:
        names = {library: str(Path(folder, library)) for library in PYTHON}
        found = {}
        for library in PYTHON:
            found[library] = process(library)
        for which in ("first", "second"):
            for library, name in names.items():
                found[f"{library}, {which} process that keeps"] = process(library, name)
        sizes = {library: sum(each.stat().st_size for each in Path(name).glob("*-cache")) for library, name in names.items()}
        for library, size in sizes.items():
            found[f"{library}, second process that keeps"]["MB"] = size / 1e6
        return found


def table(rounds: list[dict[str, dict]]) -> str:
    """Medians of the seconds of the core, and how they compare with flowjax's in a process that compiles."""
    lines = ["| | " + " | ".join(STEPS) + " | of flowjax's | with imports | programs | read |", "|---" * 9 + "|"]
    for name in rounds[0]:
        own = [each[name] for each in rounds]
        cells = [f"{statistics.median(each[step]['cpu'] for each in own):.2f}" for step in STEPS]
        for steps in (STEPS[1:], STEPS):
            shares = [seconds(each[name], steps) / seconds(each["flowjax"], steps) for each in rounds]
            cells.append(f"{statistics.median(shares):.2f}")
        lines.append(f"| {name} | " + " | ".join([*cells, str(own[0]["programs"]), str(own[0]["read"])]) + " |")
    return "\n".join(lines)


def seconds(found: dict, steps: tuple[str, ...]) -> float:
    return sum(found[step]["cpu"] for step in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        rounds.append(one_round())
        records.write(options.out, rounds)
        print(table(rounds), flush=True)


if __name__ == "__main__":
    main()
