"""Flow matching: a velocity that carries noise to data, by regression, with and without pairs.

    python examples/matching.py [--rows 100000] [--epochs 60] [--out out]

A continuous flow moves points along dx/dt = v(x, t), from noise at t = 0 to data at t = 1. Matching trains v without solving
anything: it is what the straight ways from noise to data do on average, where they meet. Drawn at random they cross, and their
average bends; where noise is first assigned to the data near it, by optimal transport in groups of 64, few cross, the ways are
nearly straight, and a few equal steps draw what otherwise takes many. The density is exact either way. Lipman, Chen, Ben-Hamu,
Nickel and Le, "Flow Matching for Generative Modeling", 2023, arXiv:2210.02747; Tong et al., "Improving and Generalizing
Flow-Based Generative Models with Minibatch Optimal Transport", 2024, arXiv:2302.00482. Prints scores; writes matching.png.

Pictures:
    matching.png: Ways from a cloud of noise to eight Gaussians and to two moons, above with noise at random, where they bend,
        below with optimal pairs, where they are straight; beside each its density, and draws by three steps.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from style import BLUE, DENSITY, ORANGE, plt

import flows
from flows.objectives import flow_matching

TARGETS = {"eight Gaussians": flows.datasets.EightGaussians(), "two moons": flows.datasets.TwoMoons()}
PAIRINGS = {"at random": flow_matching, "optimal transport": partial(flow_matching, pairing="optimal transport")}
NETWORK = flows.MLP(64, 64, 64, activation="gelu")
TEST = 10_000
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
SHOWN = (1, 2, 4, 8, 16)
AS_GOOD = 1.25  # times the distance of what adaptive steps draw
REACH = 2.5  # standard deviations, of the picture
DRAWN = 3  # equal steps of the draws in the picture
WAY = LinearSegmentedColormap.from_list("noise to data", [BLUE, "#9a7fa8", ORANGE])


class Fit(NamedTuple):
    target: object
    result: object
    ways: np.ndarray
    behind: float
    length: float
    few: np.ndarray


def solved(result, **solver):
    """The triple of a fitted model that is solved in another way; params are the same for all solvers."""
    return flows.revise(result.init_fun, **solver)(0, 2) if solver else result


def draws(result, **solver):
    """Of the same noise, whatever the solver."""
    return np.asarray(solved(result, **solver).sample(4, result.params, TEST))


def ways(params, noise, steps=100):
    """Where noise is at times 0, 1 / steps, ..., 1, by Runge-Kutta steps, (steps + 1, rows, 2), and its velocity there but at
    the end, by the network's params; both in the units of the network."""
    _, network = NETWORK(0, 3, 2)

    def velocity(x, t):
        return network(params, jnp.concatenate([x, jnp.full_like(x[:, :1], t)], 1))

    def step(x, t):
        h = 1 / steps
        first = velocity(x, t)
        second = velocity(x + h / 2 * first, t + h / 2)
        third = velocity(x + h / 2 * second, t + h / 2)
        fourth = velocity(x + h * third, t + h)
        return x + h / 6 * (first + 2 * second + 2 * third + fourth), (x, first)

    end, (places, velocities) = jax.lax.scan(step, noise, jnp.arange(steps) / steps)
    return np.concatenate([places, end[None]]), np.asarray(velocities)


def in_units(result, places):
    """Places of the network in the units of the data."""
    scale = result.init_fun.arguments["bijection"](0, 2)
    return np.stack([scale.inverse_fun(result.params["bijection"], each)[0] for each in places])


def straightness(places, velocities):
    """The mean length of the ways over the mean distance of their ends, and the mean along them of |v - (x_1 - x_0)|^2 over
    that of |x_1 - x_0|^2."""
    across = places[-1] - places[0]
    lengths = np.linalg.norm(np.diff(places, axis=0), axis=2).sum(0)
    bend = np.square(velocities - across).sum(2).mean() / np.square(across).sum(1).mean()
    return lengths.mean() / np.linalg.norm(across, axis=1).mean(), bend


def distance(a, b, directions=50):
    """The sliced Wasserstein distance: that of sorted projections, in the mean over directions."""
    angle = np.arange(directions) * np.pi / directions
    across = np.stack([np.cos(angle), np.sin(angle)])
    return np.abs(np.sort(a @ across, 0) - np.sort(b @ across, 0)).mean()


def fitted(target, rows, test, objective, epochs):
    """The fit, and the figures of its line of the table."""
    start = time.process_time()
    flow = flows.Flow(flows.Continuous(NETWORK))
    result = flows.fit(0, flow, rows, objective=objective, batch_size=512, max_epochs=epochs, verbose=0)
    seconds = time.process_time() - start
    behind = np.asarray(target.log_pdf(target.params, test)) - np.asarray(result.log_pdf(result.params, test))
    places, velocities = ways(result.params["prior"]["bijection"], jax.random.normal(jax.random.key(3), (2_000, 2)))
    length, bend = straightness(places, velocities)
    by_steps = {steps: distance(draws(result, solver="euler", steps=steps), test) for steps in STEPS}
    best = distance(draws(result), test)
    enough = next((str(steps) for steps, each in by_steps.items() if each <= AS_GOOD * best), f"> {STEPS[-1]}")
    cells = f"{f'{behind.mean():.3f} +- {behind.std() / TEST**0.5:.3f}':>17}{length:9.3f}{bend:9.3f}"
    cells += "".join(f"{by_steps[steps]:8.3f}" for steps in SHOWN) + f"{best:10.3f}{enough:>8}{seconds:9.0f}"
    return Fit(
        target, result, in_units(result, places), behind.mean(), length, draws(result, solver="euler", steps=DRAWN)
    ), cells


def draw_ways(axis, places, lines=300):
    """The ways of some of the noise, from one colour to the other, and where more of it starts and ends."""
    axis.scatter(*places[0].T, s=3, color=WAY(0.0), alpha=0.6, linewidths=0, zorder=1)
    axis.scatter(*places[-1].T, s=3, color=WAY(1.0), alpha=0.9, linewidths=0, zorder=3)
    some = places[:, :lines]
    pieces = np.stack([some[:-1], some[1:]], 2)  # (times, lines, ends of a piece, 2)
    times = np.repeat(np.linspace(0, 1, len(pieces)), lines)
    colours = WAY(times)
    colours[:, 3] = 0.25 + 0.55 * times
    axis.add_collection(LineCollection(pieces.reshape(-1, 2, 2), colors=colours, linewidths=0.9, zorder=2, capstyle="butt"))


def draw_density(axis, target, result, sides, pixels=250):
    x, y = (np.linspace(*side, pixels, dtype=np.float32) for side in sides)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    top = np.exp(np.asarray(target.log_pdf(target.params, grid))).max()
    log_pdf = solved(result, steps=32).log_pdf  # equal steps, which are enough for a picture
    image = np.exp(np.asarray(log_pdf(result.params, grid))).reshape(pixels, -1)
    axis.imshow(image, origin="lower", extent=(*sides[0], *sides[1]), cmap=DENSITY, vmin=0, vmax=top, aspect="auto")


def picture(path, fits):
    """A row for each pairing; of each target the ways, and beside them the density and draws by few steps."""
    names, pairings = list(fits), list(PAIRINGS)
    figure = plt.figure(figsize=(5 * len(names), 3.75 * len(pairings)))
    grid = figure.add_gridspec(2 * len(pairings), 2 * len(names), width_ratios=(2.25, 1) * len(names))
    for i, pairing in enumerate(pairings):
        for j, name in enumerate(names):
            target, result, places, behind, length, few = fits[name][pairing]
            middle, reach = places[-1].mean(0), REACH * places[-1].std(0)
            sides = np.stack([middle - reach, middle + reach], 1)
            panels = [grid[2 * i : 2 * i + 2, 2 * j], grid[2 * i, 2 * j + 1], grid[2 * i + 1, 2 * j + 1]]
            of_ways, of_density, of_draws = axes = [figure.add_subplot(panel) for panel in panels]
            draw_ways(of_ways, places)
            draw_density(of_density, target, result, sides)
            of_draws.scatter(*few[:4_000].T, s=1.2, color=WAY(1.0), alpha=0.9, linewidths=0)
            for at, word, end in ((0.03, "noise", 0.0), (0.17, "to data", 1.0)):
                of_ways.text(at, 0.03, word, transform=of_ways.transAxes, color=WAY(end), fontsize=11, zorder=4)
            how = f"{name}, {'noise at random' if pairing == 'at random' else f'pairs by {pairing}'}"
            of_ways.set_title(f"{how}\nways {length:.2f} times as long as straight")
            of_density.set_title(f"density: {behind:.3f} nats\nbehind the truth", fontsize=9.5)
            of_draws.set_title(f"draws by {DRAWN} equal steps", fontsize=9.5)
            for axis in axes:
                axis.set(xlim=sides[0], ylim=sides[1], box_aspect=1, xticks=[], yticks=[])
                axis.spines[:].set_visible(True)
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{'':60}   how far draws are from new rows, after equal steps")
    print(f"{'target, noise paired':34}{'nats behind':>17}{'length':>9}{'bend':>9}", end="")
    print("".join(f"{steps:8}" for steps in SHOWN) + f"{'adaptive':>10}{'enough':>8}{'seconds':>9}")
    fits = {name: {} for name in TARGETS}
    for name, init_fun in TARGETS.items():
        target = init_fun(0, 2)
        rows, test = (np.asarray(target.sample(seed, target.params, n)) for seed, n in ((1, options.rows), (2, TEST)))
        for pairing, objective in PAIRINGS.items():
            fits[name][pairing], cells = fitted(target, rows, test, objective, options.epochs)
            print(f"{f'{name}, {pairing}':34}{cells}", flush=True)
    print(
        "\nlength: of the ways, over the distance of their ends; bend: of |v - (x_1 - x_0)|^2 along them, over that of "
        f"|x_1 - x_0|^2\nenough: how many Euler steps, of those tried, bring draws within {AS_GOOD - 1:.0%} of the distance of "
        "adaptive ones"
    )
    picture(options.out / "matching.png", fits)
    print(f"\nwrote matching.png to {options.out}/")


if __name__ == "__main__":
    flows.keep_programs()
    main()
