"""A neural spline flow of 20,000 real minutes of one household's electricity use, against two classical densities.

    python examples/household_power.py [--out out] [--quick]

Every column was recorded in steps, and a density is unbounded on repeated values; so each value gets uniform noise of its
own step, once, with a fixed seed, and all models are scored on the same noisy rows. The 2,000 test rows are seen neither by
training nor by the choice of anything. Writes model.flows, samples.csv, pairs.png and loss.png.

Pictures:
    pairs.png: Margins and pairs of minute of day, active power, voltage, and the meters of kitchen and heating: the draws of
        the flow lie where the test rows do.
    loss.png: The losses of training and validation rows by epoch, which fall below those of a Gaussian and of a mixture within
        the first epochs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from style import GREY, plt

import flows
from flows.conditioners import MaskedMLP
from flows.transformers import RationalQuadratic

DATA = Path(__file__).parent / "data" / "household_power.csv"
STEP = np.array([1, 0.002, 0.002, 0.01, 1, 1, 1])
LABELS = ["minute of day", "active power, kW", "reactive power, kW", "voltage, V", "kitchen, Wh", "laundry, Wh", "heating, Wh"]
TEST_ROWS, VALIDATION_ROWS = 2000, 1800
PAIRS = [0, 1, 3, 4, 6]  # columns of the picture


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


def plot_pairs(path, result, rows):
    """Draws beside rows; the result knows numbers of columns, and not their names."""
    figure = result.plot(rows, columns=PAIRS)
    names = {f"column {j}": LABELS[j] for j in PAIRS}
    for axis in figure.axes:
        axis.set(xlabel=names.get(axis.get_xlabel()), ylabel=names.get(axis.get_ylabel()))
    figure.savefig(path)
    plt.close(figure)


def plot_loss(path, history, references):
    figure, axis = plt.subplots(figsize=(7, 4.2))
    history.plot(axis)
    for name, loss in references.items():
        axis.axhline(loss, color=GREY, lw=1, ls=":")
        axis.text(len(history["train_loss"]) - 1, loss, name, ha="right", va="bottom")
    low, high = history.best, max(references.values())
    axis.set_ylim(low - 0.1 * (high - low), high + 0.15 * (high - low))
    axis.legend(loc="center right")
    figure.savefig(path)
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
    rows, day = np.concatenate([train, validation]), {0: (0, 1440)}  # minutes end with the day
    result, seconds["flow"] = timed(flows.fit, 0, make_model(), rows, max_epochs=epochs, support=day)
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
    recorded = np.maximum(np.floor(samples / STEP) * STEP, 0)  # the meters' steps again, none below 0
    np.savetxt(options.out / "samples.csv", recorded, delimiter=",", header=",".join(names), comments="", fmt="%.6g")
    plot_pairs(options.out / "pairs.png", result, test)
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
