"""A photograph as a density in the plane: flows fitted to its draws, for 10 seconds up to 2 minutes, beside a mixture.

    python examples/picture.py [--picture my.png] [--dark] [--out out] [--quick]

A pixel has mass by its brightness (`flows.datasets.picture`), so that the density is known, and no model can do better than the
truth. Each flow has two autoregressive layers of splines with 64 bins, and sees 200,000 draws; the mixture has 100 normal
distributions. By default the photograph is the flower that scikit-learn ships. Writes picture.png.

Pictures:
    picture.png: A photograph of a flower in grey, and three densities that were fitted to its draws: a mixture, which is a
        round pattern of blurred dots; a flow after some seconds, a soft disc; and after two minutes, the head of the flower,
        with a sharp edge and no petals.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.mixture import GaussianMixture
from style import plt

import flows

MODEL = flows.NSF(2, hidden=(128, 128), num_bins=64)
EPOCHS = 1, 4, 12, 32
DRAWS, TEST, NORMALS = 200_000, 20_000, 100


def read(path):
    """Pixels of a file, or of the photograph."""
    if path is None:
        return load_sample_image("flower.jpg")
    try:
        pixels = plt.imread(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise SystemExit(f"error: {path} cannot be read: {error}. Give a PNG or JPEG file") from None
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, help="a PNG or JPEG file in place of the flower")
    parser.add_argument("--dark", action="store_true", help="dark pixels have the mass, as of a drawing on paper")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="few draws and epochs: shows that all runs, not how well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pixels = read(options.picture)
    high = np.array([pixels.shape[1] / pixels.shape[0], 1.0])
    try:
        params, log_pdf, sample = flows.datasets.picture(pixels, -high, high, options.dark)
    except flows.FlowsError as error:
        parser.error(str(error))
    rows, test = sample(1, params, 2_000 if options.quick else DRAWS), sample(2, params, TEST)
    truth = np.asarray(log_pdf(params, test), float)
    centres = [np.linspace(-end, end, 2 * n + 1)[1::2] for end, n in zip(high, (450, 300), strict=True)]
    points = np.stack(np.meshgrid(*centres), -1).reshape(-1, 2).astype(np.float32)
    shown = {"The photograph": log_pdf(params, points)}

    def report(name, log_prob, begin):
        behind = truth - np.asarray(log_prob(test), float)
        error = behind.std() / len(test) ** 0.5
        print(
            f"{name:24}{time.perf_counter() - begin:6.0f} s{behind.mean():10.3f} +- {error:.3f} nats behind the truth",
            flush=True,
        )
        return f"{name}: {behind.mean():.3f} nats behind"

    print(f"{len(rows):,} draws of {pixels.shape[0]} x {pixels.shape[1]} pixels; the truth has {truth.mean():.3f} nats a row")
    begin, count = time.perf_counter(), 5 if options.quick else NORMALS
    mixture = GaussianMixture(count, random_state=0).fit(np.asarray(rows))
    shown[report(f"{count} normals", mixture.score_samples, begin)] = mixture.score_samples(points)
    for epochs in EPOCHS[:1] if options.quick else EPOCHS:
        begin = time.perf_counter()
        result = flows.fit(0, flows.Flow(MODEL), rows, max_epochs=epochs, patience=epochs, folds=1, verbose=0)
        name = f"a flow, {epochs} epoch{'s' * (epochs > 1)}"
        title = report(name, result.log_prob, begin)
        if epochs in (EPOCHS[0], EPOCHS[-1]):
            shown[title] = result.log_prob(points)

    figure, axes = plt.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
    limit = np.exp(np.asarray(shown["The photograph"])).max()
    for axis, (title, scores) in zip(axes.ravel(), shown.items(), strict=False):
        density = np.exp(np.asarray(scores)).reshape(300, 450)
        axis.imshow(density, cmap="gray", vmin=0, vmax=limit, origin="lower", extent=[-high[0], high[0], -1, 1])
        axis.set(title=title, xticks=[], yticks=[])
    for axis in axes.ravel()[len(shown) :]:
        axis.axis("off")
    figure.savefig(options.out / "picture.png", dpi=100)
    print(f"wrote {options.out / 'picture.png'}")


if __name__ == "__main__":
    flows.keep_programs()
    main()
