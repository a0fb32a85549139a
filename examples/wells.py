"""A ring of ten wells: which of them a flow holds, and what annealed weights can and cannot mend.

    python examples/wells.py [--out out] [--minutes 1]

The wells lie around 0 with masses 1 to 10 of 55, and the fit looks for modes from a single point. By reverse KL the flow
stays at four wells. Draws of this flow that are annealed hardly cross to the others, and neither their weights nor the
standard error of log Z tell of it. Draws of a wide normal that are annealed reach all of them. So does a flow whose training
anneals its draws, the bootstrap of Midgley et al. (2023, arXiv:2208.01893). Prints log Z, which is 0, and the effective
sample size of each; writes wells.png.

Pictures:
    wells.png: Draws at ten wells on a ring in four ways, and bars of the share of each well: four wells by reverse KL from one
        start, hardly more after annealing, all of them by an annealed wide normal and by the bootstrap.
"""

import argparse
import functools
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from style import BLUE, GREEN, GREY, ORANGE, plt

import flows
from flows.objectives import (
    alpha_divergence,
    annealed_importance_samples,
    effective_sample_size,
    importance_samples,
    log_normalizer,
)

WELLS, RADIUS, WIDTH, DRAWS = 10, 5.0, 0.4, 10_000
MASSES = np.arange(1, WELLS + 1) / sum(range(1, WELLS + 1))
ANGLES = 2 * np.pi * np.arange(WELLS) * 3 / WELLS  # neighbours differ in mass
CENTRES = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


def log_density(x):
    z = (x[:, None] - jnp.asarray(CENTRES, x.dtype)[None]) / WIDTH
    return jax.nn.logsumexp(jnp.log(MASSES)[None] - 0.5 * jnp.square(z).sum(2) - np.log(2 * np.pi * WIDTH**2), axis=1)


def fitted(minutes, **settings):
    model = flows.Flow(flows.NSF(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is said of a mode that is missing
        most = {"max_minutes": minutes, "starts": 1, "verbose": 0}
        return flows.fit_to_density(0, model, log_density, 2, **most, **settings)


def shares(x, w):
    """The mass of the draws at each well, which is nearest."""
    nearest = np.linalg.norm(x[:, None] - CENTRES[None], axis=2).argmin(1)
    return np.bincount(nearest, w, WELLS)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--minutes", type=float, default=1.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    wide = flows.Normal(trainable=True)(0, 2)
    wide = wide._replace(params={**wide.params, "log_scale": 10 * np.arctanh(np.log(np.full(2, RADIUS)) / 10)})
    lost = fitted(arguments.minutes)
    covering = functools.partial(alpha_divergence, alpha=2.0, num_temperatures=8)
    found = fitted(arguments.minutes, objective=covering, standardize=False)
    anneal = functools.partial(annealed_importance_samples, log_density=log_density, rng=1, num_samples=DRAWS)
    ways = {
        "reverse KL": (importance_samples(lost.params, lost, log_density, 1, DRAWS), ORANGE),
        "the same, annealed": (anneal(lost.params, lost), ORANGE),
        "a wide normal, annealed": (anneal(wide.params, wide), BLUE),
        "bootstrap": (importance_samples(found.params, found, log_density, 1, DRAWS), GREEN),
    }
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), height_ratios=(3, 1.3), sharex="row", sharey="row")
    for (name, ((x, log_w), colour)), above, below in zip(ways.items(), *axes, strict=True):
        x, w, log_z = np.asarray(x), np.asarray(jax.nn.softmax(log_w), float), log_normalizer(log_w)
        size = effective_sample_size(log_w) / DRAWS
        print(f"{name}: log Z {log_z.value:.3f} +- {log_z.standard_error:.3f}, effective sample size {size:.3f}")
        drawn = x[np.random.default_rng(0).choice(DRAWS, 2_000, p=w / w.sum())]
        above.scatter(*drawn.T, s=2, color=colour, alpha=0.5, linewidths=0)
        above.set(title=name, aspect="equal", xlim=(-7, 7), ylim=(-7, 7), xticks=[], yticks=[])
        below.bar(np.arange(WELLS), shares(x, w), color=colour)
        below.step(np.arange(-0.5, WELLS), [*MASSES, MASSES[-1]], where="post", color=GREY, linewidth=1.5)
        below.set(xticks=[], ylim=(0, 0.35), xlabel=f"log Z {log_z.value:.2f} ± {log_z.standard_error:.2f}")
    axes[1][0].set_ylabel("share of each well;\nline: the truth")
    figure.savefig(arguments.out / "wells.png")


if __name__ == "__main__":
    main()
