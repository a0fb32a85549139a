"""A neural spline flow of 20,000 real minutes of one household's electricity use, against two classical densities.

    python examples/household_power.py [--out out] [--quick]

Every column was recorded in steps, and a density is unbounded on repeated values; so each value gets uniform noise of its
own step, once, with a fixed seed, and all models are scored on the same noisy rows. The 2,000 test rows are seen neither by
training nor by the choice of anything. Writes model.flows, samples.csv, pairs.png and loss.png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

import flows
from flows.conditioners import MaskedMLP
from flows.transformers import RationalQuadratic

DATA = Path(__file__).parent / "data" / "household_power.csv"
STEP = np.array([1, 0.002, 0.002, 0.01, 1, 1, 1])
LABELS = ["minute of day", "active power, kW", "reactive power, kW", "voltage, V", "kitchen, Wh", "laundry, Wh", "heating, Wh"]
TEST_ROWS, VALIDATION_ROWS = 2000, 1800
BLUE, ORANGE, INK = "#2166ac", "#d6604d", "#333333"


def spline_layer(num_bins, bound):
    """Each feature through a monotone spline that a masked network makes of the features before it."""
    return flows.Autoregressive(MaskedMLP(64, 64), RationalQuadratic(num_bins, bound, min_bin=1e-4, min_slope=1e-4))


def make_model():
    """The first layer reaches to 14 standard deviations, where the sub-meters' peaks are; the others refine its result."""
    refine = flows.Repeat(flows.Serial(spline_layer(16, 5.0), flows.Reverse()), 2)
    return flows.Flow(flows.Serial(spline_layer(16, 14.0), flows.Reverse(), refine))


def read_rows():
    """The names of the columns, and rows with uniform noise of a step each, in random order."""
    with DATA.open() as file:
        names = file.readline().strip().split(",")
        values = np.loadtxt(file, delimiter=",")
    draw = np.random.default_rng(2026)
    return names, draw.permutation(values + STEP * draw.uniform(size=values.shape))


def fit_gaussian(train):
    return multivariate_normal(train.mean(0), np.cov(train.T)).logpdf


def fit_mixture(train, validation, candidates):
    """Full covariances; the number of components is chosen on the validation rows."""
    scale = train.std(0)
    mixtures = [GaussianMixture(n, random_state=0).fit(train / scale) for n in candidates]
    best = max(mixtures, key=lambda mixture: mixture.score(validation / scale))
    return best.n_components, lambda rows: best.score_samples(rows / scale) - np.log(scale).sum()


def mean_and_error(values):
    return f"{values.mean():8.3f} +- {values.std(ddof=1) / len(values) ** 0.5:.3f}"


SCORE = """
import json, sys, numpy as np, flows
flows.keep_programs()
params, log_pdf, sample = flows.load(sys.argv[1])
print(json.dumps(log_pdf(params, np.load(sys.argv[2])).tolist()))
"""


def score_in_new_process(model, rows):
    """What a process that knows nothing but the model file makes of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/rows.npy", rows)
        command = [sys.executable, "-c", SCORE, str(model), f"{folder}/rows.npy"]
        return np.array(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def plot_pairs(path, data, samples):
    """Data below the diagonal, samples above, and both on it, in the same bins and colours."""
    d = data.shape[1]
    ranges = [(low, high + 1e-9) for low, high in np.percentile(data, [0, 99.9], axis=0).T]
    bins = [np.linspace(*each, 49) for each in ranges]
    figure, axes = plt.subplots(d, d, figsize=(14, 14), sharex="col", gridspec_kw={"wspace": 0.06, "hspace": 0.06})
    samples = samples[: len(data)]
    for i, row in enumerate(axes):
        for j, axis in enumerate(row):
            axis.set_xlim(ranges[j])
            axis.tick_params(labelsize=7, colors=INK, length=2)
            if i == j:
                axis.hist(data[:, i], bins[i], color=BLUE, alpha=0.35)
                axis.hist(data[:, i], bins[i], color=BLUE, histtype="step", lw=1.2)
                axis.hist(samples[:, i], bins[i], color=ORANGE, histtype="step", lw=1.2)
                axis.set_yscale("log")
                axis.set_ylim(1, 2 * len(data))
                axis.set_yticks([])
                axis.minorticks_off()
            else:
                rows, colours = (data, "Blues") if i > j else (samples, "Oranges")
                axis.hist2d(rows[:, j], rows[:, i], (bins[j], bins[i]), cmap=colours, norm=LogNorm(0.5, 300), rasterized=True)
                axis.set_ylim(ranges[i])
            if j or i == j:
                axis.tick_params(labelleft=False)
            if i == d - 1:
                axis.set_xlabel(LABELS[j], fontsize=9, color=INK)
            if j == 0:
                axis.set_ylabel(LABELS[i], fontsize=9, color=INK)
            for spine in axis.spines.values():
                spine.set_color("#bbbbbb")
    figure.align_labels()
    figure.suptitle("One household's electricity, minute by minute", y=0.935, fontsize=17, color=INK)
    note = f"{len(data):,} recorded minutes (blue, below) and {len(samples):,} samples of the flow (orange, above); log counts"
    figure.text(0.5, 0.897, note, ha="center", fontsize=11, color=INK)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def plot_loss(path, history, references):
    figure, axis = plt.subplots(figsize=(8, 4.8))
    axis.plot(history["train_loss"], color=BLUE, label="flow, training rows")
    axis.plot(history["validation_loss"], color=ORANGE, label="flow, validation rows")
    best = history["best_epoch"]
    axis.plot(best, history["validation_loss"][best], "o", color=ORANGE, label=f"kept: epoch {best}")
    for name, loss in references.items():
        axis.axhline(loss, color="#888888", lw=1, ls="--")
        axis.text(len(history["train_loss"]) - 1, loss + 0.06, name, ha="right", va="bottom", fontsize=9, color="#666666")
    axis.set(xlabel="epoch", ylabel="minus log-likelihood, nats a row", title="Household power: what training gained")
    low, high = history["validation_loss"][best], max(references.values())
    axis.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="center right")
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the files")
    parser.add_argument("--quick", action="store_true", help="few rows and epochs: shows that all runs, not how well")
    # The sub-meters' peaks are 147 interquartile ranges out, where the first layer still reaches.
    warnings.simplefilter("ignore", flows.training.DataWarning)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()

    names, rows = read_rows()
    rows = rows[:6000] if options.quick else rows
    test, validation, train = np.split(rows, [TEST_ROWS, TEST_ROWS + VALIDATION_ROWS])
    print(f"{len(rows):,} minutes, {len(names)} columns; {len(test):,} rows are for the test alone\n")

    scores, seconds = {}, {}

    def timed(fun, *args, **settings):
        start = time.perf_counter()
        return fun(*args, **settings), time.perf_counter() - start

    log_pdf, seconds["Gaussian"] = timed(fit_gaussian, train)
    scores["Gaussian"] = log_pdf(test)
    (components, log_pdf), seconds["mixture"] = timed(fit_mixture, train, validation, (3,) if options.quick else (10, 30, 100))
    scores["mixture"] = log_pdf(test)

    epochs = 2 if options.quick else 40
    result, seconds["flow"] = timed(flows.fit, 0, make_model(), np.concatenate([train, validation]), max_epochs=epochs)
    params, log_pdf, sample = result
    scores["flow"] = np.asarray(log_pdf(params, test), float)

    print(f"\n{'test log-likelihood, nats a row':34}{'mean +- standard error':>24}{'fitted in':>13}")
    titles = ("Gaussian, full covariance", f"mixture of {components} Gaussians", "neural spline flow")
    for title, name in zip(titles, scores, strict=True):
        print(f"{title:34}{mean_and_error(scores[name]):>24}{seconds[name]:11.1f} s")
    for name in ("Gaussian", "mixture"):
        print(f"{f'flow - {name}, row by row':34}{mean_and_error(scores['flow'] - scores[name]):>24}")

    samples = np.asarray(sample(1, params, 10_000))
    model = options.out / "model.flows"
    result.save(model, metadata={"columns": names, "steps": STEP.tolist(), "data": DATA.name})
    recorded = np.clip(np.floor(samples / STEP) * STEP, 0, [1439] + [np.inf] * 6)  # the meters' steps again, none below 0
    np.savetxt(options.out / "samples.csv", recorded, delimiter=",", header=",".join(names), comments="", fmt="%.6g")
    plot_pairs(options.out / "pairs.png", rows[: len(samples)], samples)
    references = {f"{title} (test rows)": -scores[name].mean() for title, name in zip(titles[:2], scores, strict=False)}
    plot_loss(options.out / "loss.png", result.history, references)
    print(f"\nwrote model.flows ({model.stat().st_size / 1000:.0f} kB), samples.csv, pairs.png, loss.png to {options.out}/")

    again = score_in_new_process(model, test)
    difference = np.abs(again - scores["flow"]).max()
    print(f"loaded in a new process: {mean_and_error(again).strip()} nats; largest difference of a row: {difference:.1g}")
    if difference > 1e-3:
        raise SystemExit("the loaded model disagrees with the fitted one")
    print(f"{time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    flows.keep_programs()
    main()
