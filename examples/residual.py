"""Residual flows: layers y = x + g(x), whose networks contract, trained by a log-det that is a draw of a series.

    python examples/residual.py [--layers 10] [--rows 10000] [--log-det unbiased] [--out out]

No part of x is kept and no order is given: every layer moves all features at once. What makes it a bijection is a bound on each
weight matrix; what makes it trainable is Russian roulette on the power series of log det(1 + dg/dx), unbiased in its value and
in its gradient. Without rng the same log_pdf is exact: that is what is scored here, on new rows, beside the truth, which is
known. Chen, Behrmann, Duvenaud and Jacobsen, "Residual Flows for Invertible Generative Modeling", 2019, arXiv:1906.02735.
Prints scores; writes residual.png.

Pictures:
    residual.png: A checkerboard and two spirals: their densities, those of a residual flow, which has the same shape with
        softer edges, and draws of it.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from style import DENSITY, ORANGE, plt

import flows

TARGETS = {"checkerboard": flows.datasets.Checkerboard(), "spirals": flows.datasets.Spirals()}
TEST = 10_000


def spread_of_draws(result, rows, draws=64):
    """The standard deviation of log_pdf of one row over draws of its log-det, in the mean."""
    drawn = jax.jit(jax.vmap(lambda key: result.log_pdf(result.params, rows, rng=key)))(
        jax.random.split(jax.random.key(0), draws)
    )
    return float(drawn.std(0).mean())


def picture(path, fits):
    """The truth, the fit and draws of it, a row for each target."""
    figure, axes = plt.subplots(len(fits), 3, figsize=(10, 3.2 * len(fits)), sharex="row", sharey="row")
    for row, (name, (target, result, draws)) in zip(axes, fits.items(), strict=True):
        reach = 1.05 * np.abs(draws).max(initial=0.0, where=np.abs(draws) < np.quantile(np.abs(draws), 0.999))
        axis = np.linspace(-reach, reach, 250, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        truth = np.exp(np.asarray(target.log_pdf(target.params, grid)))
        model = np.exp(np.asarray(result.log_pdf(result.params, grid)))
        top = np.quantile(truth, 0.999)
        titles = (f"{name}: the truth", "the residual flow", "draws of it")
        for panel, values, title in zip(row, (truth, model, None), titles, strict=True):
            if values is None:
                panel.scatter(*draws[:8_000].T, s=1, color=ORANGE, linewidths=0)
            else:
                image = values.reshape(len(axis), -1)
                shown = panel.imshow(image, origin="lower", extent=(-reach, reach) * 2, cmap=DENSITY, vmin=0, vmax=top)
            panel.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$x_1$")
        row[0].set_ylabel("$x_2$")
        figure.colorbar(shown, ax=row, shrink=0.8, pad=0.01, extend="max", label="density")
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--log-det", default="unbiased", choices=["unbiased", "exact"])
    parser.add_argument("--epochs", type=int, default=None, help="by default as many as flows.fit takes")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = flows.Flow(flows.ResidualFlow(options.layers, log_det=options.log_det))
    print(f"{model!r}: its log-density is {model.likelihood} with rng, and exact without\n")
    print(f"{'':14}{'truth':>9}{'fit':>9}{'standard error':>16}{'spread of a draw':>18}{'seconds':>9}")
    fits = {}
    for name, init_fun in TARGETS.items():
        target = init_fun(0, 2)
        rows, test = (np.asarray(target.sample(seed, target.params, n)) for seed, n in ((1, options.rows), (2, TEST)))
        start = time.process_time()
        result = flows.fit(0, model, rows, max_epochs=options.epochs, verbose=0)
        seconds = time.process_time() - start
        truth, scores = (np.asarray(each.log_pdf(each.params, test)) for each in (target, result))
        behind = (truth - scores).std() / TEST**0.5
        spread = spread_of_draws(result, test[:200])
        print(f"{name:14}{truth.mean():9.3f}{scores.mean():9.3f}{behind:16.3f}{spread:18.3f}{seconds:9.0f}", flush=True)
        fits[name] = target, result, np.asarray(result.draw(3, 20_000))
    picture(options.out / "residual.png", fits)
    print(f"\nwrote residual.png to {options.out}/")


if __name__ == "__main__":
    flows.keep_programs()
    main()
