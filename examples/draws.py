"""Layers that draw: two rings by a bijection and by infinitely many, and counts whose masses a flow computes exactly.

    python examples/draws.py [--out out] [--quick]

A bijection on a normal base keeps a blob in one piece, so between rings it leaves threads of density. A continuously indexed
flow (Cornish et al., 2020, arXiv:1909.13833) draws an index for each point, and each index has its own bijection. Counts, here
of two columns that depend on each other, need no noise: an integer discrete flow (Hoogeboom et al., 2019, arXiv:1905.07376)
moves whole numbers by whole numbers. Prints nats a row of new rows, and the share of draws where the truth has nearly no
density; writes draws.png.

Pictures:
    draws.png: Above, two rings, and draws of two flows: one has threads of points between the rings, the other whole rings and
        fewer points between them. Below, a grid of counts as shares of rows, the masses that a flow computes, which look the
        same, and draws of it.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from style import BLUE, DENSITY, ORANGE, plt

import flows
from flows.transformers import Integer

ROWS, SHOWN, EDGE, MOST = 8000, 5000, 2.0, 32
PATIENCE = 100
LEAST = 1e-4  # of the peak of the density
NET = flows.MLP(32, 32)


def rings(epochs):
    """Rows of two rings, and draws of a bijection and of a continuously indexed flow with their names."""
    truth = flows.datasets.Rings(num_rings=2)(0, 2)
    train, test = (np.asarray(truth.sample(key, {}, ROWS)) for key in (1, 2))
    index = flows.Normal(conditioner=NET)
    models = {
        "a bijection": flows.RealNVP(6, hidden=(36, 36)),
        "a continuously indexed flow": flows.ContinuouslyIndexed(flows.RealNVP(6, hidden=(32, 32)), 1, index, index),
    }
    print(f"two rings: {truth.log_pdf({}, test).mean():.3f} nats a row by the truth")
    panels = [("two rings", train[:SHOWN])]
    for name, layers in models.items():
        result = flows.fit(0, flows.Flow(layers), train, max_epochs=epochs, patience=PATIENCE, verbose=0)
        draws = 1 if result.init_fun.likelihood == "exact" else 100
        weighted = flows.objectives.importance_weighted_log_pdf
        nats = weighted(result.params, result, test, rng=3, num_inner=draws).mean()
        drawn = np.asarray(result.sample(4, result.params, ROWS))
        least = truth.log_pdf({}, test).max() + np.log(LEAST)
        between = float((truth.log_pdf({}, drawn) < least).mean())
        size = sum(leaf.size for leaf in jax.tree.leaves(result.params))
        print(f"{name}, {size:,} numbers: {nats:.3f} nats a row; {between:.1%} of draws where no rows are")
        panels.append((name, drawn[:SHOWN]))
    return panels


def counts(rng, rows):
    """Visits of a day, and purchases: more of them on days of many visits."""
    busy = rng.random(rows) < 0.4
    visits = rng.poisson(np.where(busy, 16.0, 5.0))
    return np.stack([visits, rng.binomial(visits, np.where(busy, 0.3, 0.7))], 1).astype(np.float32)


def whole(epochs):
    """Shares of rows, the masses of an integer discrete flow, and shares of its draws, each (MOST, MOST)."""
    rng = np.random.default_rng(0)
    train, test = counts(rng, ROWS), counts(rng, ROWS)
    layers = [flows.Coupling(NET, Integer(scale=2.0), flip=bool(i % 2)) for i in range(4)]
    model = flows.Flow(flows.Serial(*layers), flows.Mixture(flows.DiscretizedLogistic(True), num_components=5))
    result = flows.fit(0, model, train, max_epochs=epochs, patience=PATIENCE, verbose=0)
    every = np.stack(np.meshgrid(np.arange(MOST), np.arange(MOST), indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(result.log_prob(jnp.asarray(every, jnp.float32))).reshape(MOST, MOST)
    print(f"counts: {result.log_prob(test).mean():.3f} nats a row; masses of the grid sum to {mass.sum():.4f}")
    drawn = np.asarray(result.sample(4, result.params, ROWS))
    return [("counts: shares of rows", share(train)), ("masses of an integer flow", mass), ("draws of it", share(drawn))]


def share(rows):
    return np.histogram2d(*rows.T, bins=np.arange(MOST + 1) - 0.5)[0] / len(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="few epochs: shows that all runs, not how well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    epochs = 1 if options.quick else 1500

    figure, axes = plt.subplots(2, 3, figsize=(10, 7.2))
    for axis, (name, points) in zip(axes[0], rings(epochs), strict=True):
        axis.scatter(*points.T, s=2, color=BLUE if name == "two rings" else ORANGE, linewidths=0)
        axis.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal", title=name, xlabel="$x_1$")
    axes[0, 0].set_ylabel("$x_2$")
    panels = whole(epochs)
    most = max(values.max() for _, values in panels)
    for axis, (name, values) in zip(axes[1], panels, strict=True):
        shown = axis.imshow(values.T, origin="lower", cmap=DENSITY, vmin=0, vmax=most)
        axis.set(title=name, xlabel="visits of a day", ylim=(-0.5, 14.5), aspect="auto")
    axes[1, 0].set_ylabel("purchases")
    figure.colorbar(shown, ax=axes[1], shrink=0.9, pad=0.015, label="share")
    figure.savefig(options.out / "draws.png")
    plt.close(figure)
    print(f"wrote draws.png to {options.out}/; {time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    flows.keep_programs()
    main()
