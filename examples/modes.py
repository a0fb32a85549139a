"""A posterior of two modes: a regression on rows of which half follow another line.

    python examples/modes.py [--out out] [--quick]

40 rows with three columns, half of them on one line, half on another; the model believes in one line, and that each row may be
an outlier. Both lines explain the rows, so the posterior of the four weights has two modes, 30 standard deviations apart, and
small ones between. A fit that starts at one point finds one of these; none of its own draws would tell that there is more, and
draws of the Gaussian at that mode, half of them twice as wide, do. Chains that start at both lines find both: the fit at one
line proposes their jumps, and is fitted further to what they find.

Prints shares of the mass by two million draws of a wide mixture, by a fit from one start, by the default, which looks from 32,
and by chains; writes modes.png.

Pictures:
    modes.png: Intercept and first slope of draws, four times: at both lines where importance sampling knows them; at one
        alone, where the fit starts once; at both again, by the default, and by chains that begin with the fit at one line.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from scipy import special
from style import BLUE, GREEN, ORANGE, plt

import flows
from flows.interop.blackjax import sample

ROWS, NOISE, WIDE, CLEAN = 40, 0.3, 5.0, 0.6  # rows; deviations of a row on the line and of an outlier; the share of the former
LINES = np.array([[1.0, 2.0, -1.0, 0.5], [-2.0, -1.0, 2.0, 1.0]])  # each an intercept and three slopes
PARAMETERS = {"intercept": (), "slopes": (3,)}


def rows():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(ROWS, 3))
    lines = LINES[(np.arange(ROWS) >= ROWS // 2).astype(int)]
    return x, lines[:, 0] + (lines[:, 1:] * x).sum(1) + NOISE * rng.normal(size=ROWS)


X, Y = (jnp.asarray(each, jnp.float32) for each in rows())


def log_density(weights):
    """log p(answers, weights), for a dict of arrays: "intercept" (n,), "slopes" (n, 3)."""
    intercept, slopes = weights["intercept"], weights["slopes"]
    line = intercept[:, None] + jnp.matmul(slopes, X.T, precision="highest")
    clean = jnp.log(CLEAN) + norm.logpdf(Y[None], line, NOISE)
    outlier = jnp.log(1 - CLEAN) + norm.logpdf(Y[None], line, WIDE)
    return jnp.logaddexp(clean, outlier).sum(1) + norm.logpdf(intercept, 0, 5) + norm.logpdf(slopes, 0, 5).sum(1)


def by_wide_mixture(pieces):
    """log Z, and 20,000 draws, by importance sampling from normals around both lines, which takes knowing them."""
    rng, widths, shares = np.random.default_rng(1), 0.15 * np.array([0.7, 1, 2, 6]), np.array([0.4, 0.4, 0.15, 0.05])
    compiled, points, log_w = jax.jit(log_density), [], []
    for _ in range(pieces):
        w = LINES[rng.integers(2, size=50_000)] + rng.choice(widths, 50_000, p=shares)[:, None] * rng.normal(size=(50_000, 4))
        squares = np.square(w[:, None] - LINES[None]).sum(2)[:, :, None] / widths**2
        log_q = special.logsumexp(-0.5 * squares - 4 * np.log(widths * np.sqrt(2 * np.pi)), b=shares / 2, axis=(1, 2))
        points.append(w.astype(np.float32))
        log_w.append(np.asarray(compiled({"intercept": points[-1][:, 0], "slopes": points[-1][:, 1:]}), float) - log_q)
    points, log_w = np.concatenate(points), np.concatenate(log_w)
    chosen = rng.choice(len(points), 20_000, p=special.softmax(log_w))
    return special.logsumexp(log_w) - np.log(len(log_w)), points[chosen, 0], points[chosen, 1]


def shares(intercept, slope):
    """Of points, how many are at each line."""
    return [float((np.hypot(intercept - line[0], slope - line[1]) < 1).mean()) for line in LINES]


def fitted(starts, quick):
    began = time.process_time()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        epochs = 2 if quick else 50
        result = flows.fit_to_density(0, None, log_density, PARAMETERS, starts=starts, max_epochs=epochs, verbose=0)
    drawn = result.draw(1, 20_000)
    of, log_z = result.diagnostics, result.diagnostics.log_normalizer
    intercept, slope = np.asarray(drawn["intercept"]), np.asarray(drawn["slopes"][:, 0])
    at = " and ".join(f"{share:.3f}" for share in shares(intercept, slope))
    print(
        f"{starts:2} start{'s' * (starts > 1)}: {at} of the draws at the two lines; log Z {log_z.value:.3f} +- "
        f"{log_z.standard_error:.3f}, effective sample size {of.effective_sample_size:.3f}, Pareto k {of.pareto_k:.2f}, "
        f"{of.modes} mode{'s' * (of.modes > 1)}; {time.process_time() - began:.0f} s of a core"
    )
    for each in told:
        print(f"          {each.message}")
    return result, intercept, slope


def sampled(result, quick):
    """Draws of chains, half of which start at each line."""
    starts = {"intercept": np.repeat(LINES[:, 0], 8), "slopes": np.repeat(LINES[:, 1:], 8, 0)}
    began = time.process_time()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        size = {"draws": 100, "rounds": 0} if quick else {"draws": 2_000, "rounds": 8}
        chains = sample(1, log_density, result, start=starts, **size)
    intercept, slope = chains.draws["intercept"].ravel(), chains.draws["slopes"][..., 0].ravel()
    at = " and ".join(f"{share:.3f}" for share in shares(intercept, slope))
    print(f"chains:    {at} of the draws at the two lines; {time.process_time() - began:.0f} s of a core\n{chains}")
    for each in told:
        print(f"          {each.message}")
    return intercept, slope


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log_z, *reference = by_wide_mixture(4 if options.quick else 40)
    at = " and ".join(f"{share:.3f}" for share in shares(*reference))
    print(f"a wide mixture: {at} of the mass at the two lines; log Z {log_z:.3f}")
    (one, *of_one), (_, *of_all) = fitted(1, options.quick), fitted(32, options.quick)
    shown = {
        "importance sampling around both\nlines, which takes knowing them": reference,
        "fit_to_density(starts=1)": of_one,
        "fit_to_density, as it is": of_all,
        "chains from both lines, with\nthe fit of one for proposals": sampled(one, options.quick),
    }
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.9), sharex=True, sharey=True)
    for axis, colour, (title, (intercept, slope)) in zip(axes, (BLUE, ORANGE, ORANGE, ORANGE), shown.items(), strict=True):
        axis.plot(intercept, slope, ".", color=colour, markersize=2, alpha=0.3)
        for line, share in zip(LINES, shares(intercept, slope), strict=True):
            axis.plot(*line[:2], "+", color=GREEN, markersize=16, label=None if line[0] < 0 else "the two lines")
            axis.annotate(f"{share:.0%}", line[:2], xytext=(0, 40), textcoords="offset points", ha="center", fontsize=12)
        axis.set(title=title, xlabel="intercept")
    axes[0].set(ylabel="first slope", xlim=(-3, 2), ylim=(-2, 3.4))
    axes[0].legend(loc="lower right")
    figure.savefig(options.out / "modes.png")
    plt.close(figure)


if __name__ == "__main__":
    flows.keep_programs()
    main()
