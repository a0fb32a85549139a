"""A variational autoencoder of handwritten digits, whose posterior is any flow that takes a context.

    python examples/vae.py --posterior diagonal iaf --seeds 0 1 2 [--epochs 800] [--out out]

An encoder makes a context h of an image x, and a bijection that sees h makes a latent z of noise. `direct` runs from data to
noise, so z = inverse_fun(noise), and log q(z|x) = log N(noise; 0, I) - log_det comes in the same pass. Each posterior starts
as the diagonal one, z0 = mu(h) + sigma(h) noise, and a flow takes z0 on to z. The inverse autoregressive one, its gates,
orders and free bits: Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016, arXiv:1606.04934;
Sylvester flows: van den Berg et al., 2018, arXiv:1803.05649.

Data are scikit-learn's 1,797 digits of 8 x 8 pixels, 397 of them for the test. Pixels are drawn black or white with the
probability that their grey says: for training anew each epoch, for the test once. Writes vae.png, vae_losses.png and
vae_bounds.png.

Pictures:
    vae.png: Four sheets of handwritten digits of 8 x 8 pixels: those of the test, the same in black and white, reconstructions
        of these, and new ones made of noise.
    vae_losses.png: Minus the ELBO of training and test digits by epoch, for each posterior: all fall, and level off.
    vae_bounds.png: The ELBO and the importance-weighted bound of the test digits, a mark for each seed of each posterior; the
        flow is above the diagonal posterior.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from style import plt

import flows
from flows.transformers import Affine, Inverse

SIDE, CONTEXT, LATENT = 8, 64, 16
PIXELS = SIDE * SIDE
ENCODER = flows.MLP(200, 200, activation="elu", last_scale=1.0)
DECODER = flows.MLP(200, 200, activation="elu", last_scale=1.0)
FREE_BITS = 0.1  # nats for each latent dimension that cost nothing
BATCH_SIZE, LEARNING_RATE, TEST_IMAGES = 100, 2e-3, 397


LINEAR = flows.MLP()  # of the context, as the amortised layers of the papers have it
DIAGONAL = flows.Elementwise(Inverse(Affine()), flows.MLP())
POSTERIORS = {
    "diagonal": DIAGONAL,
    "planar": flows.Serial(flows.Repeat(flows.Invert(flows.Planar(LINEAR)), 4), DIAGONAL),
    "sylvester": flows.Serial(flows.Repeat(flows.Invert(flows.Sylvester(8, "householder", LINEAR)), 4), DIAGONAL),
    "iaf": flows.Serial(flows.IAF(4, hidden=(100,)), DIAGONAL),
    "maf": flows.Serial(flows.MAF(4, hidden=(100,), activation="elu", plain=True), DIAGONAL),
    "nsf": flows.Serial(flows.NSF(2, (64,), "elu", num_bins=5, bound=4.0, autoregressive=False, linear=True), DIAGONAL),
}


class VAE(NamedTuple):
    init: Callable  # init(key) -> params
    draw: Callable  # draw(params, key, images) -> a latent for each image, and log q there
    decode: Callable  # decode(params, latents) -> the logit of each pixel


def make_vae(bijection):
    def parts(key):
        keys = jax.random.split(key, 3)
        posterior = flows.Flow(bijection)(keys[1], LATENT, context_dim=CONTEXT)
        encoder, decoder = ENCODER(keys[0], PIXELS, CONTEXT), DECODER(keys[2], LATENT, PIXELS)
        return {"encoder": encoder, "posterior": posterior, "decoder": decoder}

    (_, encode), posterior, (_, decode) = parts(jax.random.key(0)).values()

    def draw(params, key, images):
        context = encode(params["encoder"], images)
        return flows.sample_with_log_pdf(key, params["posterior"], posterior, len(images), context=context)

    return VAE(
        init=lambda key: {name: part[0] for name, part in parts(key).items()},
        draw=draw,
        decode=lambda params, latents: decode(params["decoder"], latents),
    )


def log_normal(z):
    params, log_pdf, _ = flows.Normal()(0, LATENT)
    return log_pdf(params, z)


def terms(vae, params, key, images):
    """log p(x|z) and log q(z|x) - log p(z), at one z for each image; the mean of their difference is the ELBO."""
    latents, log_q = vae.draw(params, key, images)
    logits = vae.decode(params, latents)
    return (images * logits - jax.nn.softplus(logits)).sum(1), log_q - log_normal(latents)


@partial(jax.jit, static_argnames=("vae", "epochs"))
def train(vae, params, key, greys, test, epochs):
    """The params after training, and minus the ELBO of each epoch: of its steps, and of the test after it."""
    steps = len(greys) // BATCH_SIZE
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, epochs * steps))

    def loss(params, key, images):
        """Minus the ELBO, but that the divergence of all latents together gains nothing below their free bits; and without."""
        log_likelihood, divergence = (each.mean() for each in terms(vae, params, key, images))
        return jnp.maximum(divergence, FREE_BITS * LATENT) - log_likelihood, divergence - log_likelihood

    def step(state, batch):
        params, opt_state = state
        gradient, minus_elbo = jax.grad(loss, has_aux=True)(params, *batch)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), minus_elbo

    def epoch(state, key):
        keys = jax.random.split(key, 4)
        images = jax.random.bernoulli(keys[0], jax.random.permutation(keys[1], greys)).astype(greys.dtype)
        batches = images[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE, PIXELS)
        state, losses = jax.lax.scan(step, state, (jax.random.split(keys[2], steps), batches))
        return state, (losses.mean(), loss(state[0], keys[3], test)[1])

    (params, _), curves = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, epochs))
    return params, curves


@partial(jax.jit, static_argnames=("vae", "draws"))
def bounds(vae, params, key, images, draws):
    """The ELBO and the importance-weighted bound on log p(x) of each image, both from the same draws of its latent."""

    def of_one(at):
        key, image = at
        log_likelihood, divergence = terms(vae, params, key, jnp.broadcast_to(image, (draws, PIXELS)))
        weights = log_likelihood - divergence
        return weights.mean(), jax.nn.logsumexp(weights) - jnp.log(draws)

    return jax.lax.map(of_one, (jax.random.split(key, len(images)), images))


def read_digits():
    """Greys in [0, 1] of the training and of the test images, and the test images in black and white."""
    draw = np.random.default_rng(0)
    greys = draw.permutation(load_digits().data.astype(np.float32) / 16)
    test = greys[:TEST_IMAGES]
    return greys[TEST_IMAGES:], test, (draw.uniform(size=test.shape) < test).astype(np.float32)


def mosaic(images, across=8):
    """Images in lines, (height, width, 4), clear between them."""
    grid = np.asarray(images).reshape(-1, across, SIDE, SIDE)
    grey = np.pad(grid, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=-1).swapaxes(1, 2).reshape(len(grid) * (SIDE + 1), -1)
    return np.stack([grey.clip(0)] * 3 + [grey >= 0], -1)[:-1, :-1]


def sheets(path, panels):
    """Images under their titles."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 4.7))
    for axis, (title, images) in zip(axes.flat, panels.items(), strict=True):
        axis.imshow(mosaic(images))
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(path)
    plt.close(figure)


def losses(path, curves):
    """Minus the ELBO by epoch, in the mean over seeds."""
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for i, (name, runs) in enumerate(curves.items()):
        train, test = runs.mean(0)
        width = max(1, len(test) // 40)  # epochs, whose mean is a point
        middles = width * (np.arange(len(test) // width) + 0.5)
        for each, what, style in ((train, "training", ":"), (test, "test", "-")):
            points = each[: len(middles) * width].reshape(-1, width).mean(1)
            axis.plot(middles, points, style, color=f"C{i}", label=f"{name}, {what}")
    ends = [runs[:, 1, -1].mean() for runs in curves.values()]
    axis.set(xlabel="epoch", ylabel="minus ELBO, nats an image", ylim=(min(ends) - 0.3, max(ends) + 1))
    axis.legend()
    figure.savefig(path)
    plt.close(figure)


def marks(path, scores):
    """Both bounds of the test, a mark for each seed."""
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for i, each in enumerate(scores.values()):
        labels = (None, None) if i else ("ELBO", "importance-weighted bound on log p(x)")
        for values, shape, fill, label in zip(each.mean(2).T, "os", (None, "none"), labels, strict=True):
            axis.plot(np.full(len(values), i), values, shape, color=f"C{i}", fillstyle=fill, markersize=8, label=label)
    axis.set(ylabel="test digits, nats an image", xlabel="posterior", xlim=(-0.5, len(scores) - 0.5))
    axis.set_xticks(range(len(scores)), list(scores))
    axis.legend()
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posterior", nargs="+", default=["diagonal", "iaf"], choices=list(POSTERIORS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=800)
    parser.add_argument("--draws", type=int, default=500, help="latents for each image of the test")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    train_greys, test_greys, test = read_digits()
    curves, scores = {}, {}
    print(f"{len(train_greys)} digits to train on, {len(test)} for the test; nats an image\n")
    print(f"{'posterior':12}{'seed':>6}{'ELBO':>10}{'log p(x)':>10}{'seconds':>9}")
    for name in options.posterior:
        vae, runs, rows = make_vae(POSTERIORS[name]), [], []
        for seed in options.seeds:
            start = time.perf_counter()
            keys = jax.random.split(jax.random.key(seed), 3)
            params, curve = jax.block_until_ready(train(vae, vae.init(keys[0]), keys[1], train_greys, test, options.epochs))
            seconds = time.perf_counter() - start
            runs.append(curve)
            rows.append(np.array(bounds(vae, params, keys[2], test, options.draws)))
            print(f"{name:12}{seed:6}{rows[-1][0].mean():10.3f}{rows[-1][1].mean():10.3f}{seconds:9.0f}", flush=True)
        curves[name], scores[name] = np.array(runs), np.array(rows)
        elbo, log_p = scores[name].mean(0)  # of the seeds, for each image
        print(f"{name:12}{'mean':>6}{elbo.mean():10.3f}{log_p.mean():10.3f}")
        if name != (first := options.posterior[0]):
            gain = elbo - scores[first][:, 0].mean(0)
            error = gain.std() / len(gain) ** 0.5
            print(f"ELBO above that of {first}, image by image: {gain.mean():.3f} +- {error:.3f} (standard error)")
        print(flush=True)

    keys, shown = jax.random.split(jax.random.key(0)), 24
    latents, _ = vae.draw(params, keys[0], test[:shown])
    noise = jax.random.normal(keys[1], (shown, LATENT))
    panels = {
        "digits of the test": test_greys[:shown],
        "drawn in black and white: what the model sees": test[:shown],
        f"reconstructed, with the posterior {name!r}": jax.nn.sigmoid(vae.decode(params, latents)),
        "new digits, made of noise": jax.nn.sigmoid(vae.decode(params, noise)),
    }
    sheets(options.out / "vae.png", panels)
    losses(options.out / "vae_losses.png", curves)
    marks(options.out / "vae_bounds.png", scores)
    print(f"wrote vae.png, vae_losses.png and vae_bounds.png to {options.out}/")


if __name__ == "__main__":
    flows.keep_programs()
    main()
