"""The posterior of a linear regression whose answer is known: what a flow makes of its density alone.

    python examples/posterior.py [--out out] [--quick]

442 diabetes patients: the progress of the disease from body mass index, blood pressure and a lipid, with unknown noise. Under
the conjugate prior (normal times inverse gamma) posterior and evidence are known in closed form. The flow is given the
unnormalised log-density of (weights, log variance) and nothing else. Writes posterior.png.

Pictures:
    posterior.png: Margins and pairs of the four weights and the log variance: the contours and histograms of the flow lie on
        those of the exact posterior.
"""

import argparse
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_diabetes
from style import BLUE, ORANGE, plt

import flows

COLUMNS = {"intercept": None, "body mass": 2, "blood pressure": 3, "lipid s5": 8}
WIDTH, SHAPE, RATE = 1.0, 2.0, 1.0  # prior: weights ~ N(0, WIDTH^2 v), v ~ inverse gamma(SHAPE, RATE)
SHARES = (0.95, 0.5)  # of the mass, within contours


def problem():
    """Design (patients, 4) and answers (patients,), each of unit spread."""
    data = load_diabetes()
    x = np.column_stack([np.ones(len(data.target))] + [data.data[:, j] for j in COLUMNS.values() if j is not None])
    x[:, 1:] /= x[:, 1:].std(0)
    return x, (data.target - data.target.mean()) / data.target.std()


def log_density(theta):
    """log p(answers, weights, log v), for points (n, 5)."""
    weights, log_v = theta[:, :-1], theta[:, -1]
    squares = jnp.square(Y[None] - weights @ X.T).sum(1)
    likelihood = -0.5 * len(Y) * (math.log(2 * math.pi) + log_v) - 0.5 * squares * jnp.exp(-log_v)
    d = X.shape[1]
    of_weights = -0.5 * d * (math.log(2 * math.pi * WIDTH**2) + log_v)
    of_weights -= 0.5 * jnp.square(weights).sum(1) / WIDTH**2 * jnp.exp(-log_v)
    of_v = SHAPE * math.log(RATE) - math.lgamma(SHAPE) - SHAPE * log_v - RATE * jnp.exp(-log_v)  # with dv = v dlog v
    return likelihood + of_weights + of_v


def known():
    """Log evidence, and 100,000 exact draws."""
    x, y = (np.asarray(each, float) for each in (X, Y))
    n, d = x.shape
    precision = x.T @ x + np.eye(d) / WIDTH**2
    mean = np.linalg.solve(precision, x.T @ y)
    shape, rate = SHAPE + n / 2, RATE + 0.5 * (y @ y - mean @ precision @ mean)
    evidence = (
        -0.5 * n * math.log(2 * math.pi) - 0.5 * np.linalg.slogdet(precision)[1] - d * math.log(WIDTH)
        + SHAPE * math.log(RATE) - shape * math.log(rate) + float(gammaln(shape)) - math.lgamma(SHAPE)
    )  # fmt: skip
    rng = np.random.default_rng(0)
    v = rate / rng.gamma(shape, size=100_000)
    noise = np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=(d, len(v))))
    return evidence, np.column_stack([mean + (noise * np.sqrt(v)).T, np.log(v)])


def contours(axis, x, y, limits, **style):
    """Around shares of the mass of draws, of their histogram, which is smoothed by less than its features are wide."""
    edges = [np.linspace(*each, 81) for each in limits]
    heights = gaussian_filter(np.histogram2d(x, y, edges)[0], 2.5)
    down = np.sort(heights.ravel())[::-1]
    levels = [down[np.searchsorted(np.cumsum(down), share * down.sum())] for share in SHARES]
    axis.contour(*((each[1:] + each[:-1]) / 2 for each in edges), heights.T, levels, **style)


def picture(path, names, exact, found):
    d = len(names)
    figure, axes = plt.subplots(d, d, figsize=(9, 8.6), sharex="col")
    limits = np.quantile(exact, [0.0005, 0.9995], axis=0).T
    for i, j in np.ndindex(d, d):
        axis = axes[i, j]
        if i < j:
            axis.axis("off")
            continue
        if i == j:
            bins = np.linspace(*limits[i], 60)
            filled = axis.hist(exact[:, i], bins, density=True, color=BLUE, alpha=0.4)[2][0]
            (line,) = axis.hist(found[:, i], bins, density=True, color=ORANGE, histtype="step", lw=1.6)[2]
            axis.spines["left"].set_visible(False)
            axis.set(yticks=[])
        else:
            contours(axis, exact[:, j], exact[:, i], limits[[j, i]], colors=BLUE, linewidths=4, alpha=0.5)
            contours(axis, found[:, j], found[:, i], limits[[j, i]], colors=ORANGE, linewidths=1.2)
            axis.set(ylim=limits[i])
            axis.yaxis.get_major_locator().set_params(nbins=3)
            axis.tick_params(labelleft=j == 0)
        axis.set(xlim=limits[j])
        axis.xaxis.get_major_locator().set_params(nbins=3)
        axis.set_xlabel(names[j] if i == d - 1 else "")
        axis.set_ylabel(names[i] if j == 0 and i else "")
    figure.align_labels()
    within = " and ".join(f"{share:.0%}" for share in SHARES[::-1])
    figure.legend(
        [filled, line],
        [f"exact: {len(exact):,} draws", f"flow, which saw the density alone: {len(found):,} draws"],
        title=f"Posterior of a regression\ncontours hold {within} of the draws; weights in standard deviations",
        loc="upper right",
        alignment="left",
    )
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    evidence, exact = known()
    result = flows.fit_to_density(0, None, log_density, 5, max_epochs=2 if options.quick else 30, verbose=0)
    found = np.asarray(result.sample(1, result.params, len(exact)))
    of = result.diagnostics
    estimate, error = of.log_normalizer
    print(f"log evidence: {evidence:.4f} exactly, {estimate:.4f} +- {error:.4f} by weights of {of.num_samples:,} draws")
    print(f"ELBO {-result.history.best:.4f}; effective sample size {of.effective_sample_size:.1%} of the draws")
    print(f"Pareto k {of.pareto_k:.2f}: up to 0.7 the weights can be trusted")
    names = [*COLUMNS, "log variance"]
    print(f"{'':15} {'exact mean':>11} {'flow':>8} {'exact std':>11} {'flow':>8}")
    for j, name in enumerate(names):
        a, b = exact[:, j], found[:, j]
        print(f"{name:15} {a.mean():11.4f} {b.mean():8.4f} {a.std():11.4f} {b.std():8.4f}")
    picture(options.out / "posterior.png", names, exact, found)


X, Y = (jnp.asarray(each, jnp.float32) for each in problem())
jax.config.update("jax_default_matmul_precision", "highest")

if __name__ == "__main__":
    flows.keep_programs()
    main()
