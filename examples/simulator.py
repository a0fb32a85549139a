"""From a simulator to a posterior that has been checked: births and deaths, in two rounds, and data of another process.

    python examples/simulator.py [--out out] [--quick]

A population starts with 20. Each member gives birth and dies at rates that are not known; only the counts at eight times are
seen. Neural posterior estimation learns the posterior from simulations alone, which run in two processes. A second round
simulates where the first posterior at the observation is dense, the cut of the prior (Deistler et al., 2022,
arXiv:2210.04815). The exact posterior, from the matrix exponential of the process, is drawn next to it. Then counts of a
population that an epidemic strikes, which constant rates hardly ever make: `check_observation` says so.

Pictures:
    simulator.png: Left, the box of the prior, the cut in it, and draws of the posterior in birth rate and death rate, which
        follow lines of the exact density along a diagonal. Middle, the observed counts within the bands of simulations of the
        posterior. Right, counts with a sudden fall, which leave them.
"""

import argparse
import functools
import time
from pathlib import Path

import numpy as np
from scipy.linalg import expm
from style import BLUE, GREEN, GREY, ORANGE, plt

import flows
from flows import sbi

START, TIMES, STEP, MOST = 20, 8, 0.5, 120
TRUTH = {"birth": 0.9, "death": 0.6}
LOW, HIGH = 0.1, 2.0
ENDS = STEP * np.arange(1, TIMES + 1)


def population(rng, theta, survive=1.0):
    """Counts at equal times, event by event (Gillespie, 1977); half-way only a share of the members survives."""
    n, now, counts = START, 0.0, []
    for i, end in enumerate(ENDS):
        n = int(n * survive) if i == TIMES // 2 else n
        while 0 < n < MOST:
            birth, death = n * theta["birth"], n * theta["death"]
            wait = rng.exponential(1 / (birth + death))
            if now + wait > end:
                break
            now += wait
            n += 1 if rng.random() * (birth + death) < birth else -1
        now = end
        counts.append(n)
    return np.array(counts, float)


def exact(x, count=50):
    """The posterior on a grid of both rates."""
    rates, n = np.linspace(LOW, HIGH, count), np.arange(MOST)
    log_p = np.empty((count, count))
    steps = np.concatenate([[START], x]).astype(int)
    for i, birth in enumerate(rates):
        for j, death in enumerate(rates):
            if abs(birth - death) > 0.7:  # no such population is near these counts
                log_p[i, j] = -np.inf
                continue
            flow = np.diag(birth * n[:-1], 1) + np.diag(death * n[1:], -1)
            moves = expm(STEP * (flow - np.diag(flow.sum(1))))
            log_p[i, j] = np.log(np.maximum(moves[steps[:-1], steps[1:]], 1e-300)).sum()
    p = np.exp(log_p - log_p.max())
    return rates, p / p.sum()


def bands(axis, predicted, x, title):
    """Simulations of a posterior as bands of 50% and 95%, and the observation."""
    times = np.concatenate([[0.0], ENDS])
    rows = np.concatenate([np.full((len(predicted), 1), START), predicted], 1)
    for level, alpha in ((0.95, 0.25), (0.5, 0.4)):
        low, high = np.quantile(rows, [(1 - level) / 2, (1 + level) / 2], axis=0)
        axis.fill_between(times, low, high, color=ORANGE, alpha=alpha, linewidth=0, label=f"{level:.0%} of simulations")
    axis.plot(times, np.concatenate([[START], x]), "o-", color=BLUE, markersize=4, label="observed")
    axis.set(title=title, xlabel="time", ylim=(0, None))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="few simulations: shows that all runs, not how well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begin, n = time.perf_counter(), 300 if options.quick else 2000
    fit = functools.partial(flows.fit, verbose=0, max_epochs=2 if options.quick else None)

    prior = sbi.Prior({name: flows.Uniform(LOW, HIGH) for name in TRUTH})
    x = population(np.random.default_rng(4), TRUTH)
    sims = sbi.simulate(0, prior, population, n, workers=2, verbose=0)
    posterior = sbi.fit_posterior(1, prior, sims, fit=fit)
    new = sbi.simulate(2, prior, population, 300, workers=2, verbose=0)
    print(flows.check(posterior, new.theta, context=new.x, only=["coverage", "ranks", "tarp"]))

    cut = sbi.truncated(3, prior, posterior, x)
    print(f"the cut holds {cut.share:.1%} of the prior")
    nearer = sbi.simulate(4, cut, population, n, workers=2, verbose=0)
    second = sbi.fit_posterior(5, cut, nearer, fit=fit)
    draws = second.draw(6, 2000, context=x)
    rates, density = exact(x, 12 if options.quick else 50)
    for name, weights in (("birth", density.sum(1)), ("death", density.sum(0))):
        mean = float(weights @ rates)
        error = float(np.sqrt(weights @ (rates - mean) ** 2))
        by_flow = np.asarray(draws[name])
        print(f"{name}: {by_flow.mean():.3f} +- {by_flow.std():.3f} by the flow, {mean:.3f} +- {error:.3f} exactly")
    fits = sbi.check_observation(7, posterior, sims, x, population)
    print(f"the observation:\n{fits}")

    struck = population(np.random.default_rng(5), {"birth": 1.6, "death": 0.2}, survive=0.1)
    misfit = sbi.check_observation(8, posterior, sims, struck, population)
    print(f"counts with an epidemic:\n{misfit}")

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.9))
    axes[0].contour(rates, rates, density.T, levels=density.max() * np.array([0.02, 0.2, 0.7]), colors=GREY, linewidths=1.2)
    inside = cut.draw(9, 1500)
    axes[0].scatter(inside["birth"], inside["death"], s=3, color=GREEN, alpha=0.35, linewidths=0, label="the cut of the prior")
    axes[0].scatter(draws["birth"][:600], draws["death"][:600], s=5, color=ORANGE, linewidths=0, label="the posterior")
    axes[0].plot(TRUTH["birth"], TRUTH["death"], "*", color=BLUE, markersize=11, label="the truth")
    axes[0].plot([], [], color=GREY, label="exact density")
    axes[0].set(xlim=(0, HIGH + 0.1), ylim=(0, HIGH + 0.1), xlabel="birth rate", ylabel="death rate", title="two rounds")
    axes[0].legend(fontsize=8, loc="upper left")
    bands(axes[1], fits.arrays["predicted"], x, f"outside: {fits['outside'].verdict}, predictive: {fits['predictive'].verdict}")
    axes[1].legend(fontsize=8, loc="upper left")
    axes[1].set_ylabel("population")
    verdicts = f"outside: {misfit['outside'].verdict}, predictive: {misfit['predictive'].verdict}"
    bands(axes[2], misfit.arrays["predicted"], struck, f"an epidemic at time 2\n{verdicts}")
    figure.savefig(options.out / "simulator.png")
    plt.close(figure)
    print(f"wrote simulator.png to {options.out}/; {time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    flows.keep_programs()
    main()
