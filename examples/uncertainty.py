"""What a density does not know: eight flows of the same 300 points, and where they differ.

    python examples/uncertainty.py [--out out] [--quick]

All members of an ensemble train at once, in one compiled program. Where there were points they agree; elsewhere each has made
up something of its own, and the spread of their log-densities says so. Writes uncertainty.png.

Pictures:
    uncertainty.png: Two moons and 300 points of them; the density of eight flows together, which follows the points; and
        how far apart the flows are: little at the points, several nats away from them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from style import BLUE, DENSITY, plt

import flows

MEMBERS, POINTS = 8, 300


def picture(path, points, x, y, true, mean, spread):
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharex=True, sharey=True)
    for axis, log_p in zip(axes, (true, mean), strict=False):
        shown = axis.pcolormesh(x, y, np.exp(log_p), cmap=DENSITY, vmin=0, vmax=np.exp(true.max()), rasterized=True)
    figure.colorbar(shown, ax=axes[:2], location="bottom", shrink=0.6, extend="max", label="density")
    shown = axes[2].pcolormesh(x, y, spread, cmap=DENSITY, vmin=0, vmax=10, rasterized=True)
    figure.colorbar(shown, ax=axes[2], location="bottom", extend="max", label="spread of log p, nats")
    titles = (
        f"the truth, and {len(points)} points of it",
        f"{MEMBERS} flows of these points, mixed",
        "how far the flows are apart",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()), aspect="equal", xlabel="$x_1$", title=title)
    for axis in axes[::2]:
        axis.plot(*points.T, ".", color=BLUE, markersize=3)
    axes[0].set(ylabel="$x_2$")
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="a few epochs, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    truth = flows.datasets.TwoMoons()(0, 2)
    points, test = (np.asarray(truth.sample(seed, truth.params, n)) for seed, n in ((1, POINTS), (2, 5000)))

    start = time.perf_counter()
    model = flows.Flow(flows.NSF(3, hidden=(32, 32), num_bins=8))
    ensemble = flows.fit_ensemble(
        0, model, points, members=MEMBERS, max_epochs=5 if options.quick else 300, patience=40, batch_size=64, verbose=0
    )
    print(f"{MEMBERS} members in {time.perf_counter() - start:.0f} s")
    each = ensemble.log_pdfs(ensemble.params, test)
    by_member, whole = np.asarray(each.mean(1)), ensemble.log_pdf(ensemble.params, test).mean()
    true = truth.log_pdf(truth.params, test).mean()
    print(f"the truth             {float(true):7.3f} nats a point, on {len(test):,} new ones")
    print(f"members, one by one   {by_member.mean():7.3f} (from {by_member.min():.3f} to {by_member.max():.3f})")
    print(f"the ensemble          {float(whole):7.3f}")

    x, y = np.meshgrid(np.linspace(-2, 3, 220), np.linspace(-1.5, 2, 154))
    grid = np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)
    log_p = np.asarray(ensemble.log_pdfs(ensemble.params, grid))
    mean = np.asarray(ensemble.log_pdf(ensemble.params, grid))
    true_log_p = np.asarray(truth.log_pdf(truth.params, grid))
    near = np.asarray(ensemble.log_pdfs(ensemble.params, points)).std(0)
    far = log_p.std(0)[mean < np.log(1e-4)]
    print(f"members differ by {np.median(near):.2f} nats at the points, by {np.median(far):.2f} where p < 1e-4")
    picture(
        options.out / "uncertainty.png", points, x, y, *(each.reshape(x.shape) for each in (true_log_p, mean, log_p.std(0)))
    )


if __name__ == "__main__":
    flows.keep_programs()
    main()
