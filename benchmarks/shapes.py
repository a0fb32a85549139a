"""Six shapes in the plane: `flows.fit` against flowjax's `fit_to_data` with several times its time, and against the truth.

    python benchmarks/shapes.py [--seconds 60] [--rows 20000] [--out out]

Both train a coupling spline flow of the same sizes on the same rows on one core and keep the params that were best on rows
held out; compiling counts. flowjax, whose rate is constant, has so many seconds with each of two rates, and the fit that is
better on the validation rows counts. flows trains with the higher rate, from which it comes down, and an average of the params:
once for as long as that fit took, and for 150 epochs with each of three seeds. At the end comes `flows.fit` as it is, with the
default model, on all cores, for the first two shapes. Writes shapes.json and shapes.md.
"""

import argparse
import ast
import json
import subprocess
from pathlib import Path

import numpy as np
import records

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ("TwoMoons", "EightGaussians", "Checkerboard", "Rings", "Spirals", "Pinwheel")
RATES = (1e-3, 4e-3)
EPOCHS, SEEDS = 150, 3  # of flows
ENVIRONMENTS = {"flows": ".venv", "flowjax": ".venv-peers"}


def train(library: str, shape: str, runs: list[str], options: argparse.Namespace) -> tuple[list[dict], np.ndarray]:
    """What came of each length:rate:seed, and its log-densities of the test rows."""
    python, script = ROOT / ENVIRONMENTS[library] / "bin" / "python", ROOT / "benchmarks" / "peers" / "shape.py"
    data, out = options.out / "shapes" / f"{shape}.npz", options.out / "shapes" / f"{shape}-{library}.npy"
    said = subprocess.run([python, script, library, data, out, *runs], stdout=subprocess.PIPE, text=True, check=True).stdout
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
    theirs, of_theirs = train("flowjax", shape, [f"{options.seconds}s:{rate}:0" for rate in RATES], options)
    best = int(np.argmax([each["validation"] for each in theirs]))
    runs = [f"{theirs[best]['seconds']}s:{max(RATES)}:0", *(f"{EPOCHS}e:{max(RATES)}:{seed}" for seed in range(SEEDS))]
    ours, of_ours = train("flows", shape, runs, options)
    for each, values in zip(ours, of_ours, strict=True):
        better = values - of_theirs[best]
        each["better"], each["error"] = float(better.mean()), float(better.std() / len(better) ** 0.5)
    truth = float(np.load(options.out / "shapes" / f"{shape}.npz")["truth"])
    return {"truth": truth, "flowjax": theirs[best], "flowjax, all": theirs, "as long": ours[0], "flows": ours[1:]}


def default(shape: str, options: argparse.Namespace) -> dict:
    script = f"""
import time, numpy as np, flows
data = np.load({str(options.out / "shapes" / f"{shape}.npz")!r})
start = time.perf_counter()
result = flows.fit(0, flows.Flow(flows.NSF()), np.concatenate([data["train"], data["validation"]]), verbose=0)
seconds = time.perf_counter() - start
test = float(np.mean([result.log_pdf(result.params, part).mean() for part in np.array_split(data["test"], 20)]))
print(dict(test=test, truth=float(data["truth"]), seconds=seconds))
"""
    command = [ROOT / ".venv" / "bin" / "python", "-c", script]
    return ast.literal_eval(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def table(results: dict) -> str:
    lines = [
        "| | truth | flowjax | flows, as long | better by | flows, 150 epochs, three seeds | better by | in less time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shape, found in results.items():
        ours, theirs, long = found["flows"], found["flowjax"], found["as long"]
        nats, better = (", ".join(f"{each[what]:.3f}" for each in ours) for what in ("test", "better"))
        seconds, error = np.mean([each["seconds"] for each in ours]), max(each["error"] for each in ours)
        cells = [
            shape, f"{found['truth']:.3f}", f"{theirs['test']:.3f} ({theirs['seconds']:.0f} s)",
            f"{long['test']:.3f}", f"{long['better']:.3f} +- {long['error']:.3f}",
            f"{nats} ({seconds:.0f} s)", f"{better} +- {error:.3f}", f"{theirs['seconds'] / seconds:.1f} times",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
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
    defaults = {shape: default(shape, options) for shape in options.shapes if shape in SHAPES[:2]}
    lines = [f"| {shape} | {d['truth']:.3f} | {d['test']:.3f} | {d['seconds']:.0f} s |" for shape, d in defaults.items()]
    tables = table(results) + "\n\n| the defaults | truth | flows | |\n|---|---|---|---|\n" + "\n".join(lines)
    records.write(options.out / "shapes.json", {"six": results, "defaults": defaults})
    (options.out / "shapes.md").write_text(tables + "\n")
    print(tables)


if __name__ == "__main__":
    main()
