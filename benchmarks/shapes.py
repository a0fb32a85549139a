"""Six shapes in the plane at equal time, and at a third of it: `flows.fit` against flowjax's `fit_to_data`, and the truth.

    python benchmarks/shapes.py [--seconds 60] [--rows 20000] [--out out]

Both train a coupling spline flow of the same sizes on the same rows on one core and keep the params that were best on rows held
out; compiling counts. flowjax, whose rate is constant, trains once with each of two rates, and the one that is better on the
validation rows counts; flows trains with the higher of them, from which it comes down, and an average of the params. Writes
shapes.json and shapes.md.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ("TwoMoons", "EightGaussians", "Checkerboard", "Rings", "Spirals", "Pinwheel")
RATES = (1e-3, 4e-3)
ENVIRONMENTS = {"flows": ".venv", "flowjax": ".venv-peers"}


def train(library: str, shape: str, options: argparse.Namespace) -> tuple[list[dict], np.ndarray]:
    python, script = ROOT / ENVIRONMENTS[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / "shape.py"
    data, out = options.out / "shapes" / f"{shape}.npz", options.out / "shapes" / f"{shape}-{library}.npy"
    runs = {"flows": [(options.seconds, max(RATES)), (options.seconds / 3, max(RATES))],
            "flowjax": [(options.seconds, rate) for rate in RATES]}[library]  # fmt: skip
    command = [python, script, library, data, out, *(f"{seconds}:{rate}" for seconds, rate in runs)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1]), np.load(out)


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


def compare(shape: str, options: argparse.Namespace) -> dict:
    """What each came to, and by how much flows is better, with the standard error of that difference, row by row."""
    draw(shape, options)
    (ours, of_ours), (theirs, of_theirs) = (train(library, shape, options) for library in ENVIRONMENTS)
    best = int(np.argmax([each["validation"] for each in theirs]))
    for each, values in zip(ours, of_ours, strict=True):
        better = values - of_theirs[best]
        each["better"], each["error"] = float(better.mean()), float(better.std() / len(better) ** 0.5)
    truth = float(np.load(options.out / "shapes" / f"{shape}.npz")["truth"])
    return {"truth": truth, "flowjax": theirs[best], "flows": ours[0], "flows, a third": ours[1], "flowjax, all": theirs}


def table(results: dict) -> str:
    lines = [
        "| | truth | flowjax | flows | flows, in a third of the time | better than flowjax by |",
        "|---|---|---|---|---|---|",
    ]
    for shape, found in results.items():
        three = [f"{each['test']:.3f} ({each['seconds']:.0f} s)" for each in list(found.values())[1:4]]
        better = ", ".join(f"{found[name]['better']:.3f} +- {found[name]['error']:.3f}" for name in ("flows", "flows, a third"))
        lines.append(f"| {shape} | {found['truth']:.3f} | {' | '.join(three)} | {better} |")
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
        results[shape] = compare(shape, options)
        print(table({shape: results[shape]}).splitlines()[-1], flush=True)
    (options.out / "shapes.json").write_text(json.dumps(results, indent=1))
    (options.out / "shapes.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
