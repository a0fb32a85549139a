"""Four densities with two modes, ridges and bends, known up to a constant, by 32 planar maps.

    python examples/energies.py [--layers 32] [--model planar] [--out out]

Each layer adds one ridge, z + u tanh(w.z + b); draws cost one pass, and `fit_to_density` learns from them. With annealing the
density is flat at first, so that draws spread over both modes before these part. The energies are those of table 1 of Rezende
and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, on the square [-4, 4]^2. Prints the KL
divergence of the fit from each, whose constant is known by quadrature, beside a fit without annealing; writes energies.png.

Pictures:
    energies.png: Four densities on a square, a ring of two modes, a snake, a fork and a split, above; below the fits of planar
        maps, which look nearly the same.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from style import DENSITY, plt

import flows

SIDE, DRAWS = 4.0, 50_000
LAYERS = {"planar": flows.Planar(), "radial": flows.Radial(), "sylvester": flows.Sylvester(2)}


def wave(z):
    return jnp.sin(np.pi * z[:, 0] / 2)


def ring(z):
    """Two modes on a ring."""
    sides = [-0.5 * ((z[:, 0] - at) / 0.6) ** 2 for at in (2.0, -2.0)]
    return jnp.logaddexp(*sides) - 0.5 * ((jnp.hypot(z[:, 0], z[:, 1]) - 2) / 0.4) ** 2


def snake(z):
    return -0.5 * ((z[:, 1] - wave(z)) / 0.4) ** 2


def _ridges(z, away, widths):
    from_wave = z[:, 1] - wave(z)
    return jnp.logaddexp(-0.5 * (from_wave / widths[0]) ** 2, -0.5 * ((from_wave + away) / widths[1]) ** 2)


def fork(z):
    """A ridge that parts in two for a while."""
    return _ridges(z, 3 * jnp.exp(-0.5 * ((z[:, 0] - 1) / 0.6) ** 2), (0.35, 0.35))


def split(z):
    """A ridge that parts in two for good."""
    return _ridges(z, 3 * jax.nn.sigmoid((z[:, 0] - 1) / 0.3), (0.4, 0.35))


ENERGIES = {"1: a ring": ring, "2: a snake": snake, "3: a fork": fork, "4: a split": split}


def log_constant(log_density, points=801):
    """log of the integral over the square, by the midpoint rule."""
    step = 2 * SIDE / points
    axis = np.linspace(-SIDE + step / 2, SIDE - step / 2, points, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    return float(jax.nn.logsumexp(log_density(grid)) + 2 * np.log(step))


def fitted(log_density, layer, layers, anneal, seed=0):
    """The fit, its KL divergence from the density with a standard error, and the seconds it took."""
    model = flows.Flow(flows.Repeat(flows.Invert(layer), layers))
    start = time.process_time()
    result = flows.fit_to_density(
        seed,
        model,
        log_density,
        2,
        anneal=anneal,
        starts=1,  # from 0 alone: what annealing finds by itself
        estimator="total",
        support=(-SIDE, SIDE),
        max_epochs=400,
        patience=100,
        verbose=0,
    )
    seconds = time.process_time() - start
    x, log_q = flows.sample_with_log_pdf(1, result.params, result, DRAWS)
    excess = np.asarray(log_q - log_density(x), float)
    return result, excess.mean() + log_constant(log_density), excess.std() / DRAWS**0.5, seconds


def picture(path, fits):
    """The densities above, the fits below."""
    axis = np.linspace(-SIDE, SIDE, 202)[1:-1].astype(np.float32)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    figure, axes = plt.subplots(2, len(fits), figsize=(2.5 * len(fits), 5.4), sharex=True, sharey=True)
    for column, (name, (log_density, result, divergence)) in zip(axes.T, fits.items(), strict=True):
        log_p = log_density(grid) - log_constant(log_density)
        top = float(jnp.exp(log_p).max())
        titles = (f"energy {name}", f"the fit, KL {divergence:.3f} nats")
        for panel, values, title in zip(column, (log_p, result.log_pdf(result.params, grid)), titles, strict=True):
            image = np.exp(np.asarray(values)).reshape(len(axis), -1)
            shown = panel.imshow(image, origin="lower", extent=(-SIDE, SIDE) * 2, cmap=DENSITY, vmin=0, vmax=top)
            panel.set_title(title)
        figure.colorbar(shown, ax=column, location="bottom", shrink=0.9, label="density")
        column[1].set_xlabel("$z_1$")
    for panel in axes[:, 0]:
        panel.set_ylabel("$z_2$")
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--model", default="planar", choices=list(LAYERS))
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{options.layers} {options.model} maps; KL(fit || density) in nats, with its standard error\n")
    print(f"{'energy':14}{'annealed':>18}{'seconds':>9}{'at once':>18}{'seconds':>9}")
    fits = {}
    for name, log_density in ENERGIES.items():
        cells, layer = "", LAYERS[options.model]
        for anneal in (0.6, None):
            result, divergence, error, seconds = fitted(log_density, layer, options.layers, anneal)
            if anneal:
                fits[name] = log_density, result, divergence
            cells += f"{f'{divergence:.3f} +- {error:.3f}':>18}{seconds:9.1f}"
        print(f"{name:14}{cells}", flush=True)
    picture(options.out / "energies.png", fits)
    print(f"\nwrote energies.png to {options.out}/")


if __name__ == "__main__":
    flows.keep_programs()
    main()
