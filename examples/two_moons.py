"""Two moons: the density that a flow learns, and how its layers turn noise into data.

    python examples/two_moons.py [--out out] [--quick]

Training is any JAX loop; here is one, in plain sight. Writes two_moons.png, and layers.webp, which moves.

Pictures:
    two_moons.png: Rows in two moons, the density of the flow, and samples of it, which make the same two moons.
    layers.webp: An animation: the points of a round cloud glide, layer by layer, into two moons; each point keeps the colour of
        the direction in which it lay as noise.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image
from sklearn.datasets import make_moons
from style import BLUE, DENSITY, ORANGE, plt, wheel

import flows

LAYERS, EDGE, SHOWN = 6, 2.4, 4000


def make_layers():
    """Spline couplings that take turns: each moves one coordinate, given the other."""
    spline = flows.transformers.RationalQuadratic(num_bins=8, bound=4.0)
    return [flows.Coupling(flows.MLP(64, 64, activation="silu"), spline, flip=bool(i % 2)) for i in range(LAYERS)]


def train(init_fun, data, steps, batch_size=500):
    params, log_pdf, sample = init_fun(0, input_dim=2)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, batch):
        loss, gradient = jax.value_and_grad(lambda params: -log_pdf(params, batch).mean())(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    draw = np.random.default_rng(0)
    for i in range(steps):
        params, opt_state, loss = step(params, opt_state, data[draw.integers(len(data), size=batch_size)])
        if (i + 1) % (steps // 4) == 0:
            print(f"step {i + 1:5}: {-loss:.3f} nats")
    return params, log_pdf, sample


def stages_of(layers, params, noise):
    """The points before and after each layer, on their way from noise to data: the last layer is undone first."""
    stages = [noise]
    for layer, own in reversed(list(zip(layers, params["bijection"], strict=True))):
        inverse_fun = layer(0, 2).inverse_fun
        stages.append(inverse_fun(own, stages[-1])[0])
    return np.array(stages)


def plot_density(path, data, samples, params, log_pdf):
    side = np.linspace(-EDGE, EDGE, 400)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(log_pdf(params, jnp.asarray(grid, jnp.float32))).reshape(400, 400)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), sharex=True, sharey=True)
    axes[0].scatter(*data[:SHOWN].T, s=2, color=BLUE, linewidths=0)
    shown = axes[1].imshow(density, extent=(-EDGE, EDGE) * 2, origin="lower", cmap=DENSITY, vmin=0)
    axes[2].scatter(*np.asarray(samples)[:SHOWN].T, s=2, color=ORANGE, linewidths=0)
    titles = f"{SHOWN:,} rows", "the density of the flow", f"{len(samples):,} samples of it"
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal", title=title, xlabel="$x_1$, standard deviations")
    axes[0].set_ylabel("$x_2$, standard deviations")
    figure.colorbar(shown, ax=axes, shrink=0.75, pad=0.015, label="density")
    figure.savefig(path)
    plt.close(figure)


def animate(path, stages, frames_a_layer=5, pause=1500, frame=80):
    """Points glide from stage to stage; a colour stays with its point, so that neighbours in noise can be followed.

    Pauses, at both ends, and frames are milliseconds.
    """
    figure, axis = plt.subplots(figsize=(7, 5.2), dpi=100)
    points = axis.scatter(
        *stages[0].T, c=wheel(np.arctan2(stages[0, :, 1], stages[0, :, 0])), s=24, linewidths=0, clip_on=False
    )
    axis.set(xlim=(-2.9, 2.9), ylim=(-2.15, 2.15), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    last, frames = len(stages) - 1, []
    for moment in np.linspace(0, last, last * frames_a_layer + 1):
        i = min(int(moment), last - 1)
        t = moment - i
        t = t * t * (3 - 2 * t)  # starts and ends gently
        points.set_offsets((1 - t) * stages[i] + t * stages[i + 1])
        axis.set_title(
            "noise" if moment == 0 else "data" if moment == last else f"layer {i + 1} of {last}", fontsize=16, loc="left"
        )
        figure.canvas.draw()
        frames.append(Image.fromarray(np.array(figure.canvas.buffer_rgba())))
    plt.close(figure)
    times = [pause, *[frame] * (len(frames) - 2), 2 * pause]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, quality=20, alpha_quality=0, method=6)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    parser.add_argument("--quick", action="store_true", help="few steps and points: shows that all runs, not how well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()

    data = make_moons(10_000, noise=0.05, random_state=0)[0]
    data = ((data - data.mean(0)) / data.std(0)).astype(np.float32)
    test, data = data[:1000], data[1000:]

    layers = make_layers()
    params, log_pdf, sample = train(flows.Flow(flows.Serial(*layers)), data, steps=40 if options.quick else 4000)
    print(f"test log-likelihood: {log_pdf(params, test).mean():.3f} nats")

    plot_density(options.out / "two_moons.png", data, sample(1, params, SHOWN), params, log_pdf)
    noise = jax.random.normal(jax.random.key(2), (100 if options.quick else 300, 2))
    animate(options.out / "layers.webp", stages_of(layers, params, noise), frames_a_layer=1 if options.quick else 5)
    print(f"wrote two_moons.png and layers.webp to {options.out}/; {time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    flows.keep_programs()
    main()
