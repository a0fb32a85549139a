"""A strip of noise becoming data: the same draws at six times of a continuous flow.

    python examples/strip.py [--out out] [--quick]

It carries normal noise at t = 0 to data at t = 1, here to the arms of a pinwheel. A colour stays with its draw: it
is the direction in which the draw lay as noise, so that one sees where each part of the data comes from. The background is
transparent, and all colours are equally light, so that they show on white pages and on dark ones. Writes strip.webp, the
picture of the first page; `--out docs/static` puts it there.

Pictures:
    strip.webp: Six clouds of points from left to right: a round one of noise in the colours of a wheel, which by and by becomes
        a pinwheel of five arms.
"""

import argparse
import io
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from style import plt, wheel

import flows

NETWORK = flows.MLP(128, 128, 128, activation="gelu")
TIMES = (0.0, 0.5, 0.7, 0.82, 0.92, 1.0)  # most of what is seen to happen is late
STEPS = 100  # of the solver
REACH = 2.5  # standard deviations from the middle of a panel to its side
PANEL, APART = 400, 352  # pixels: the side of a panel, and from one to the next; corners are empty


def train(rows, epochs):
    """The params of the network, which sees the rows at mean 0 and variance 1."""
    flow = flows.Flow(flows.Continuous(NETWORK, solver="dopri5", steps=12))
    matching = flows.objectives.flow_matching
    result = flows.fit(0, flow, rows, objective=matching, batch_size=512, max_epochs=epochs, verbose=0)
    return result, result.params["prior"]["bijection"]


def ways(params, noise):
    """Where noise is at times 0, 1 / STEPS, ..., 1, by Runge-Kutta steps: (STEPS + 1, rows, 2), in the network's units."""
    _, network = NETWORK(0, 3, 2)
    h = 1 / STEPS

    def velocity(x, t):
        return network(params, jnp.concatenate([x, jnp.full_like(x[:, :1], t)], 1))

    @jax.jit
    def solve(noise):
        def step(x, t):
            first = velocity(x, t)
            second = velocity(x + h / 2 * first, t + h / 2)
            third = velocity(x + h / 2 * second, t + h / 2)
            fourth = velocity(x + h * third, t + h)
            return x + h / 6 * (first + 2 * second + 2 * third + fourth), x

        end, places = jax.lax.scan(step, noise, jnp.arange(STEPS) * h)
        return jnp.concatenate([places, end[None]])

    return np.asarray(solve(noise))


def draw(places, path):
    """A panel for each time, of the same draws."""
    width = PANEL + APART * (len(TIMES) - 1)
    figure = plt.figure(figsize=(width / 100, PANEL / 100), dpi=100, layout="none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, PANEL))
    axis.axis("off")
    colour = wheel(np.arctan2(places[0, :, 1], places[0, :, 0]))
    order = np.random.default_rng(0).permutation(len(colour))
    for i, t in enumerate(TIMES):
        x, y = PANEL / 2 * (1 + places[round(t * STEPS)].T / REACH)
        inside = order[(np.hypot(x - PANEL / 2, y - PANEL / 2) < PANEL / 2)[order]]
        axis.scatter(x[inside] + i * APART, y[inside], s=3.2, c=colour[inside], alpha=0.9, linewidths=0)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
    Image.open(file).save(path, quality=72, alpha_quality=70, method=6)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="few epochs and draws: shows that all runs, not how well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()

    pinwheel = flows.datasets.Pinwheel()(0, 2)
    rows, test = pinwheel.sample(1, {}, 50_000), pinwheel.sample(2, {}, 2_000)
    result, params = train(rows, epochs=1 if options.quick else 100)
    truth, own = pinwheel.log_pdf({}, test).mean(), result.log_prob(test).mean()
    print(f"test log-likelihood: truth {truth:.3f}, flow {own:.3f} nats")

    places = ways(params, jax.random.normal(jax.random.key(3), (200 if options.quick else 6_000, 2)))
    draw(places, options.out / "strip.webp")
    print(f"wrote {options.out / 'strip.webp'}; {time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    flows.keep_programs()
    main()
