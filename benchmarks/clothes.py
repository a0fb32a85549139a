"""Fashion-MNIST for an hour: `GlowImage` beside the Glow of normflows of equal size, on the same cores, one after the other.

    python benchmarks/clothes.py --path FOLDER                   # four hours of two cores
    python benchmarks/clothes.py --path FOLDER --part flows --minutes 10 --out out/clothes.json
    python benchmarks/clothes.py --table                         # what was measured

flows                `examples/images.py`, all of it: the hour has a trial that makes its plan, compiling and its pictures
normflows            as its documentation trains its Glow, on pixels in (0, 1)
normflows, logits    the same on logits by its own transform, with the margin of the example
normflows, our settings
                     logits, and the optimiser, rate, batches and average of the example

All train on the 60,000 images for it (ours holds out 1,000 of them) and are scored by the 10,000 images of the test, once, with
noise within a level. The networks have the same convolutions; ours have norms in them and make the mean and scale of the
channels that leave, theirs train the mean and scale of every number of the noise. FOLDER has the four idx files, by default
Debian's of the package dataset-fashion-mnist. Times are of the clock, so nothing else should run. Written to
benchmarks/results/clothes.json, samples of all to clothes.png beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import records

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import image_data  # noqa: E402
import images as example  # noqa: E402
from image_pictures import Block, grid, sheet  # noqa: E402

import flows  # noqa: E402
from flows.training.model_view import num_trained  # noqa: E402

LAYERS, WIDTH, LEVELS, SAMPLES = 16, 64, 2, 60
PARTS = {
    "flows": None,
    "normflows": {"alpha": None, "rate": None},
    "normflows, logits": {"alpha": example.MARGIN, "rate": None},
    "normflows, our settings": {"alpha": example.MARGIN, "rate": example.RATES["glow"]},
}
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
parser.add_argument("--minutes", type=float, default=60.0, help="of each")
parser.add_argument("--path", type=Path, help="folder of the images")
parser.add_argument("--torch", type=Path, default=ROOT / ".venv-torch", help="the environment with normflows")
parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "clothes.json")
parser.add_argument("--table", action="store_true")


def of_flows(images, options, folder: Path) -> tuple[dict, np.ndarray]:
    sizes = ["--layers", LAYERS, "--width", WIDTH]
    place = ["--path", options.path] if options.path else []
    command = [sys.executable, ROOT / "examples" / "images.py", "--data", "fashion-mnist", "--model", "glow", *place, *sizes]
    began = time.monotonic()
    subprocess.run([*map(str, command), "--minutes", str(options.minutes), "--out", str(folder), "--verbose", "0"], check=True)
    seconds = time.monotonic() - began
    folder = folder / "images" / "fashion-mnist-glow"
    result = flows.load(folder / "model.safetensors")
    bits = flows.bits_per_dim(result, images.test)
    epochs = len(result.history["train_loss"])
    drawn = np.asarray(result.sample(0, result.params, SAMPLES)).astype(np.uint8)
    return {
        "seconds": seconds, "steps": epochs * example.STEPS, "batch": example.BATCH, "num_params": num_trained(result.params),
        "bits": float(bits.mean), "error": float(bits.error), "not finite": int((~np.isfinite(bits.each)).sum()),
    }, drawn  # fmt: skip


def of_normflows(images, options, folder: Path, **settings: float | None) -> tuple[dict, np.ndarray]:
    data, out = folder / "data.npz", folder / "out.npz"
    np.savez(data, train=images.train, test=images.test)
    given = {"data": data, "out": out, "minutes": options.minutes, "layers": LAYERS, "width": WIDTH, "levels": LEVELS}
    script = ROOT / "benchmarks" / "peers" / "clothes_normflows.py"
    command = [options.torch / "bin" / "python", script, json.dumps({**given, **settings}, default=str)]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    with np.load(out) as file:
        return json.loads(done.stdout), file["samples"]


def table(found: dict) -> str:
    lines = ["| | bits | images in steps | minutes | trained numbers |", "|---" * 5 + "|"]
    for part, own in found.items():
        seen, minutes = own["steps"] * own["batch"], own["seconds"] / 60
        bad = f", {own['not finite']} images without a finite density" if own["not finite"] else ""
        bits = f"{own['bits']:.3f} +- {own['error']:.3f}{bad}"
        lines.append(f"| {part} | {bits} | {seen:,} | {minutes:.0f} | {own['num_params']:,} |")
    return "\n".join(lines)


def main() -> None:
    options = parser.parse_args()
    found = records.read(options.out)
    kept = ROOT / "out" / "clothes.npz"  # samples, for a picture of all
    drawn = dict(np.load(kept)) if kept.exists() else {}
    if not options.table and any(own["asked"] != options.minutes for own in found.values()):
        parser.error(f"{options.out} has runs of other minutes; give another --out")
    if not options.table:
        images = image_data.load("fashion-mnist", options.path)
        kept.parent.mkdir(exist_ok=True)
        for part in options.part:
            with tempfile.TemporaryDirectory() as folder:
                run = of_flows if PARTS[part] is None else of_normflows
                found[part], drawn[part] = run(images, options, Path(folder), **(PARTS[part] or {}))
            found[part] |= {"asked": options.minutes, "cores": len(os.sched_getaffinity(0))}
            records.write(options.out, found)
            np.savez(kept, **drawn)
        blocks = [Block(grid(drawn[part], 10), part) for part in PARTS if part in drawn]
        note = "Samples after the same time, not chosen, at temperature 1"
        sheet(options.out.with_suffix(".png"), "Fashion-MNIST", note, blocks, images.levels, cell=0.4)
    print(table(found))


if __name__ == "__main__":
    main()
