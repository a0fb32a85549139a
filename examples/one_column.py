"""The density of one column of numbers: a histogram, a kernel density, a mixture and a flow, by rows that none of them saw.

    python examples/one_column.py [--out out] [--quick]

The power that a house drew in 20,000 minutes lies above 0, with a peak for each set of devices that run together. Each method
sees 16,000 minutes; the number of bins, the bandwidth and the number of normals are chosen by a fifth of these. A flow is a map
from noise to data, here one increasing curve: a normal number goes in, a power comes out. The slope of the curve gives the
density, and its values the quantiles. Values were recorded in steps of 2 W; every method sees them spread over their steps.

Pictures:
    one_column.png: On the left, four estimates of the density of power, which has a high peak near 0.3 kW, a second one near
        1.4 kW, and a long tail. On the right, an increasing curve from noise to power, with some draws that go up to the curve
        and over to the axis of power.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from style import BLUE, GREEN, GREY, ORANGE, plt

import flows

DATA = Path(__file__).parent / "data" / "household_power.csv"
STEP = 0.002  # kW
BINS, WIDTHS, NORMALS = (50, 100, 200, 400), (0.01, 0.02, 0.03, 0.05), (3, 5, 10, 20)


def histogram(rows, bins):
    """The log-density by counts; a bin without rows counts as half a row."""
    counts, edges = np.histogram(rows, bins, (0, 1.01 * rows.max()))
    log_p = np.log(np.maximum(counts, 0.5) / len(rows) / np.diff(edges))
    return lambda x: log_p[np.clip(np.digitize(x, edges) - 1, 0, bins - 1)]


def kernel_density(rows, width):
    model = KernelDensity(bandwidth=width).fit(rows[:, None])
    return lambda x: model.score_samples(x[:, None])


def mixture(rows, normals):
    model = GaussianMixture(normals, random_state=0).fit(rows[:, None])
    return lambda x: model.score_samples(x[:, None])


def chosen(make, settings, rows):
    """The setting that is best on a fifth of the rows, fitted again to all."""
    kept = len(rows) - len(rows) // 5
    best = max(settings, key=lambda setting: make(rows[:kept], setting)(rows[kept:]).mean())
    return make(rows, best), best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="few epochs: shows that all runs, not how well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    power, rng = np.genfromtxt(DATA, delimiter=",", skip_header=1)[:, 1], np.random.default_rng(0)
    power = rng.permutation(power) + STEP * rng.uniform(-0.5, 0.5, len(power))
    rows, test = power[:16_000], power[16_000:]

    found = {}
    for name, make, settings in (
        ("histogram, {} bins", histogram, BINS),
        ("kernel density, width {} kW", kernel_density, WIDTHS),
        ("mixture of {} normals", mixture, NORMALS),
    ):
        log_p, best = chosen(make, settings, rows)
        found[name.format(best)] = log_p
    epochs = {"max_epochs": 2} if options.quick else {}
    result = flows.fit(0, flows.Flow(flows.NSF()), rows[:, None], support=(0, np.inf), verbose=0, **epochs)
    found["flow"] = lambda x: result.log_prob(x[:, None])
    for name, log_p in found.items():
        scores = np.asarray(log_p(test), float)
        print(f"{name:32}{scores.mean():8.3f} +- {scores.std() / len(test) ** 0.5:.3f} nats a row")
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    print(f"{'quantiles':12}" + "".join(f"{level:8.0%}" for level in levels))
    for name, values in (("counted", np.quantile(test, levels)), ("of the flow", np.asarray(result.quantile(levels)).ravel())):
        print(f"{name:12}" + "".join(f"{value:8.3f}" for value in values))

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    x = np.geomspace(0.08, 8, 2_000)
    for (name, log_p), colour in zip(found.items(), (GREY, GREEN, ORANGE, BLUE), strict=True):
        left.plot(x, np.exp(np.asarray(log_p(x))), color=colour, label=name, linewidth=1.8 if name == "flow" else 1.0)
    left.set(xscale="log", xlabel="power, kW", ylabel="density, 1 / kW", title="One column, four densities", ylim=(0, None))
    left.legend()
    z = np.linspace(-3, 3, 400)
    right.plot(z, np.asarray(result.quantile(norm.cdf(z))).ravel(), color=BLUE)
    for draw in np.random.default_rng(1).normal(size=25):
        at = float(np.asarray(result.quantile(norm.cdf(draw))).ravel()[0])
        right.plot([draw, draw, -3], [0.08, at, at], color=ORANGE, linewidth=0.6, alpha=0.7)
    right.set(yscale="log", xlim=(-3, 3), ylim=(0.08, 8), xlabel="noise", ylabel="power, kW", title="From noise to power")
    figure.savefig(options.out / "one_column.png", dpi=130)
    print(f"wrote {options.out / 'one_column.png'}")


if __name__ == "__main__":
    flows.keep_programs()
    main()
