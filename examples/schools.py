"""Eight schools, a posterior with a neck, by six ways of a probabilistic program, beside the exact one.

    python examples/schools.py [--out out] [--quick]

Effects of coaching in eight schools (Rubin, 1981), in NumPyro: theta ~ N(mu, tau), centred, so that the posterior narrows
where the spread tau between schools is small. Three guides of SVI (mean field, a full covariance, `AutoFlow`), `fit_model`,
NUTS as it is, and NUTS in the noise of the trained guide (NeuTra). Given mu and tau all is normal, so that a grid of these has
the exact posterior. Prints what the draws of each are worth; writes schools.png.

Pictures:
    schools.png: Draws of one school's effect and the spread between schools, six times on the contours of the exact posterior:
        mean field and a full covariance miss most of it, AutoFlow and plain NUTS its narrow neck; fit_model and NeuTra fill it.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from matplotlib.lines import Line2D
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from numpyro.infer.reparam import NeuTraReparam
from scipy import special, stats
from scipy.ndimage import gaussian_filter
from style import BLUE, GREEN, ORANGE, plt

import flows
from flows.interop.numpyro import AutoFlow, fit_model

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])  # in points of a test
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
DRAWS, CHAINS, PARTICLES, RATE = 10_000, 4, 16, 1e-2
SHARES = (0.95, 0.8, 0.5)  # of the mass, within contours
NECK = 1.0  # points: the spread between schools below which the posterior is narrow


def model():
    mu, tau = numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(EFFECTS)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, jnp.asarray(ERRORS, jnp.float32)), obs=jnp.asarray(EFFECTS, jnp.float32))


class Found(NamedTuple):
    """Draws of a way: theta of the first school and tau, (n,) each, and what is told of them."""

    theta: np.ndarray
    tau: np.ndarray
    log_weights: np.ndarray | None = None  # log p(latents, y) - log q(latents) of as many draws
    diverged: np.ndarray | None = None
    gradients: int = 0
    effective: float = 0.0  # draws of log tau

    @property
    def k(self):
        return None if self.log_weights is None else flows.objectives.pareto_k(self.log_weights)


def known(rng, n):
    """log p(y), and n exact draws: of mu and log tau by their density on a grid, of theta given these."""
    mu, log_tau = np.linspace(-30, 40, 701), np.linspace(-12, 6, 1801)
    tau = np.exp(log_tau)
    log_p = stats.norm.logpdf(mu, 0, 5)[:, None] + stats.halfcauchy.logpdf(tau, 0, 5) + log_tau
    for effect, error in zip(EFFECTS, ERRORS, strict=True):
        log_p += stats.norm.logpdf(effect, mu[:, None], np.hypot(tau, error))
    steps = mu[1] - mu[0], log_tau[1] - log_tau[0]
    at = rng.choice(log_p.size, n, p=special.softmax(log_p, axis=None).ravel())
    i, j = np.unravel_index(at, log_p.shape)
    mu, tau = (each + step * rng.uniform(-0.5, 0.5, n) for each, step in zip((mu[i], log_tau[j]), steps, strict=True))
    tau = np.exp(tau)
    precision = 1 / ERRORS[0] ** 2 + 1 / tau**2
    mean = (EFFECTS[0] / ERRORS[0] ** 2 + mu / tau**2) / precision
    return special.logsumexp(log_p) + np.log(steps[0] * steps[1]), Found(mean + rng.normal(size=n) / np.sqrt(precision), tau)


def of_sites(sites, **told):
    return Found(np.asarray(sites["theta"])[..., 0].ravel(), np.asarray(sites["tau"]).ravel(), **told)


def trained(guide, steps):
    """Params of a guide, by SVI with Adam, whose rate falls to 0 along a cosine."""
    svi = SVI(model, guide, optax.adam(optax.cosine_decay_schedule(RATE, steps)), Trace_ELBO(num_particles=PARTICLES))
    return svi.run(jax.random.key(0), steps, progress_bar=False).params


def by_guide(guide, params):
    """Draws of a guide. A loss of one draw is minus its log-weight."""
    loss = jax.jit(jax.vmap(lambda key: Trace_ELBO().loss(key, params, model, guide)))
    log_weights = -np.asarray(loss(jax.random.split(jax.random.key(1), DRAWS)), float)
    sites = guide.sample_posterior(jax.random.key(2), params, sample_shape=(DRAWS,))
    return of_sites(sites, log_weights=log_weights)


def by_fit_model(epochs):
    fitted = fit_model(0, model, fit=partial(flows.fit_to_density, max_epochs=epochs, verbose=0))
    result, (log_z, error) = fitted.result, fitted.result.diagnostics.log_normalizer
    _, log_weights = flows.objectives.importance_samples(result.params, result, fitted.density.log_density, 1, DRAWS)
    print(f"fit_model: log Z {log_z:.3f} +- {error:.3f}")
    return of_sites(fitted.draw(2, DRAWS), log_weights=np.asarray(log_weights, float))


def by_nuts(model, warmup, sites=lambda samples: samples):
    """Four chains, of as many draws in all as guides give; `sites` makes sites of the model of what was sampled."""
    settings = {"num_warmup": warmup, "num_samples": DRAWS // CHAINS, "num_chains": CHAINS}
    mcmc = MCMC(NUTS(model), **settings, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(0), extra_fields=("diverging", "num_steps"))
    found, extra = sites(mcmc.get_samples()), mcmc.get_extra_fields()
    log_tau = np.log(np.asarray(found["tau"], float)).reshape(CHAINS, -1)
    told = {"diverged": np.asarray(extra["diverging"]).ravel(), "gradients": int(extra["num_steps"].sum())}
    return of_sites(found, **told, effective=float(effective_sample_size(log_tau)))


def line(name, found, log_z, seconds):
    """A row of the table: of a guide KL(q || p) and its weights; the neck; of chains what they are worth."""
    of_weights, of_chains = [""] * 3, [""] * 2
    if found.log_weights is not None:
        share = flows.objectives.effective_sample_size(found.log_weights) / len(found.log_weights)
        of_weights = [f"{log_z - found.log_weights.mean():.3f}", f"{found.k:.2f}", f"{share:.1%}"]
    if found.diverged is not None:
        of_chains = [str(found.diverged.sum()), f"{1e3 * found.effective / found.gradients:.1f}"]
    told = [*of_weights, f"{(found.tau < NECK).mean():.1%}", f"{np.log(found.tau).mean():.2f}", *of_chains, seconds]
    return f"{name:16}" + "".join(f"{each:>{width}}" for each, width in zip(told, WIDTHS, strict=True))


COLUMNS = "KL, nats", "Pareto k", "effective", "tau < 1", "log tau", "diverged", "draws/1,000 gradients", "seconds"
WIDTHS = [len(each) + 2 for each in COLUMNS]


def picture(path, exact, found):
    figure, axes = plt.subplots(2, 3, figsize=(10, 7), sharex=True, sharey=True)
    edges = np.linspace(-15, 35, 101), np.linspace(-3, 3.6, 101)
    heights = gaussian_filter(np.histogram2d(exact.theta, np.log(exact.tau), edges)[0], 2.5)
    down = np.sort(heights.ravel())[::-1]
    levels = [down[np.searchsorted(np.cumsum(down), share * len(exact.tau))] for share in SHARES]
    x, y = ((each[1:] + each[:-1]) / 2 for each in edges)
    for axis, (name, of) in zip(axes.flat, found.items(), strict=True):
        shown = slice(None, None, max(len(of.tau) // 3_000, 1))
        axis.plot(of.theta[shown], of.tau[shown], ".", color=ORANGE, markersize=2, alpha=0.4)
        axis.contour(x, np.exp(y), heights.T, levels, colors=BLUE, linewidths=1.6)
        told = f"Pareto k {of.k:.2f}" if of.diverged is None else f"{of.diverged.sum():,} of {len(of.tau):,} diverged"
        if of.diverged is not None:
            axis.plot(of.theta[of.diverged], of.tau[of.diverged], "x", color=GREEN, markersize=5)
        axis.set(title=f"{name}: {told}", yscale="log", xlim=edges[0][[0, -1]], ylim=np.exp(edges[1][[0, -1]]))
        axis.text(-14, 0.065, f"{(of.tau < NECK).mean():.0%} below\n{NECK:g} point", fontsize=9)
        axis.set_xlabel("effect in school A, points" if axis in axes[1] else "")
        axis.yaxis.set_major_formatter("{x:g}")
    for axis in axes[:, 0]:
        axis.set_ylabel("spread between schools, points")
    within = ", ".join(f"{share:.0%}" for share in SHARES[::-1])
    contour = f"exact: contours hold {within}; {(exact.tau < NECK).mean():.0%} below {NECK:g} point"
    marks = [Line2D([], [], ls="", marker=mark, color=colour) for mark, colour in (("o", ORANGE), ("x", GREEN))]
    names = [contour, "draws", "where NUTS diverged"]
    figure.legend([Line2D([], [], color=BLUE), *marks], names, loc="outside upper left", ncols=3)
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="few steps, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    steps, epochs, warmup = (50, 2, 20) if options.quick else (3_000, 50, 1_000)
    log_z, exact = known(np.random.default_rng(0), 1_000_000)
    print(f"exact: log Z {log_z:.3f}, mass at tau < 1 {(exact.tau < NECK).mean():.1%}, log tau {np.log(exact.tau).mean():.2f}")
    guides = {"mean field": AutoNormal(model), "full covariance": AutoMultivariateNormal(model), "AutoFlow": AutoFlow(model)}
    params = {}

    def by_svi(name):
        params[name] = trained(guides[name], steps)
        return by_guide(guides[name], params[name])

    def by_neutra():
        neutra = NeuTraReparam(guides["AutoFlow"], params["AutoFlow"])
        return by_nuts(neutra.reparam(model), warmup, lambda samples: neutra.transform_sample(samples["auto_shared_latent"]))

    ways = {name: partial(by_svi, name) for name in guides} | {"fit_model": partial(by_fit_model, epochs)}
    ways |= {"NeuTra": by_neutra, "NUTS": partial(by_nuts, model, warmup)}
    found, lines = {}, []
    for name, way in ways.items():
        began = time.process_time()
        found[name] = way()
        lines.append(line(name, found[name], log_z, f"{time.process_time() - began:.0f}"))
    print(f"{'':16}" + "".join(f"{each:>{width}}" for each, width in zip(COLUMNS, WIDTHS, strict=True)), *lines, sep="\n")
    picture(options.out / "schools.png", exact, found)


if __name__ == "__main__":
    flows.keep_programs()
    main()
