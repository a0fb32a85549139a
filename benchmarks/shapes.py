"""Six shapes in the plane at equal time: `flows.fit` against flowjax's `fit_to_data`, and against the truth.

    python benchmarks/shapes.py [--seconds 60] [--rows 20000] [--out out]

Both train a coupling spline flow of the same sizes on the same rows for the same time on one core, compiling included, and
keep the params that were best on the same validation rows. Each reports its losses by time, so that it can also be told when
it came to the nats at which the other ended. Writes shapes.json and shapes.md.
"""

import argparse
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ("TwoMoons", "EightGaussians", "Checkerboard", "Rings", "Spirals", "Pinwheel")
ENVIRONMENTS = {"flows": ".venv", "flowjax": ".venv-peers"}


def train(library: str, shape: str, options: argparse.Namespace) -> dict:
    python, script = ROOT / ENVIRONMENTS[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / "shape.py"
    data = options.out / "shapes" / f"{shape}.npz"
    command = [python, script, library, data, str(options.seconds)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


def draw(shape: str, options: argparse.Namespace) -> None:
    """Training, validation and test rows, and the mean log-density of the last."""
    script = f"""
import numpy as np, flows
params, log_pdf, sample = flows.datasets.{shape}()(0, 2)
rows = [np.asarray(sample(seed, params, n)) for seed, n in enumerate(({options.rows}, {options.rows // 10}, 20_000))]
np.savez({str(options.out / "shapes" / f"{shape}.npz")!r}, train=rows[0], validation=rows[1], test=rows[2],
         truth=float(np.mean([log_pdf(params, part).mean() for part in np.array_split(rows[2], 20)])))
"""
    subprocess.run([ROOT / ".venv" / "bin" / "python", "-c", script], check=True)


def reached(trace: list, nats: float) -> float | None:
    """Seconds until the best validation loss so far is as good as that."""
    return next((seconds for seconds, loss in trace if loss <= nats), None)


def table(results: dict) -> str:
    lines = [
        "| | truth | flows | flowjax | flows came to flowjax's best after | flowjax itself after | |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape, found in results.items():
        ours, theirs = found["flows"], found["flowjax"]
        target = min(loss for _, loss in theirs["trace"])
        here, there = reached(ours["trace"], target), reached(theirs["trace"], target)
        ratio = "" if here is None else f"{there / here:.1f} times"
        when = "never" if here is None else f"{here:.1f} s"
        figures = [f"{found['truth']:.3f}", *(f"{each['test']:.3f} +- {each['error']:.3f}" for each in (ours, theirs))]
        lines.append(f"| {shape} | {' | '.join(figures)} | {when} | {there:.1f} s | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES)
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    (options.out / "shapes").mkdir(parents=True, exist_ok=True)
    results = {}
    for shape in options.shapes:
        draw(shape, options)
        results[shape] = {library: train(library, shape, options) for library in ENVIRONMENTS}
        results[shape]["truth"] = results[shape]["flows"]["truth"]
        print(
            f"{shape}: flows {results[shape]['flows']['test']:.3f}, flowjax {results[shape]['flowjax']['test']:.3f}", flush=True
        )
    (options.out / "shapes.json").write_text(json.dumps(results, indent=1))
    (options.out / "shapes.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
