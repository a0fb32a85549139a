"""Models of images: their sizes as published, presets, classes, a fit to digits, files, and memory."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import close, error_of
from sklearn.datasets import load_digits

import flows
from flows.models import preset
from flows.models.presets import PRESETS

MILLIONS = {
    "glow-cifar10": 44.05,
    "nsf-cifar10": 11.83,
    "nsf-cifar10-affine": 11.06,
    "nsf-imagenet64": 15.55,
    "nsf-imagenet64-affine": 14.27,
}
DIGITS = load_digits().images.astype(np.uint8)[..., None]
MARGIN = 1e-3


def millions(init_fun, event):
    shapes = jax.eval_shape(lambda key: init_fun(key, event).params, jax.random.key(0))
    pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(flows.trainable(shapes)), strict=True)
    return sum(leaf.size for leaf, trains in pairs if trains) / 1e6


def behind_logits(*layers, levels=17):
    """Pixels as they are brought to the line: a margin, the logit, and a scale for each."""
    width = (1 - 2 * MARGIN) / levels
    to_unit = flows.FixedAffine(width, MARGIN + width / 2)
    return flows.Serial(flows.Dequantize(1.0, levels=levels), to_unit, flows.Logit(False), flows.ActNorm(per="entry"), *layers)


@pytest.mark.parametrize("name", MILLIONS)
def test_models_have_the_published_sizes(name):
    own = preset(name)
    assert round(millions(own.distribution, own.input_dim), 2) == pytest.approx(MILLIONS[name], abs=0.011)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_fit_takes(name):
    own = preset(name)
    assert set(own.fit) <= set(inspect.signature(flows.fit).parameters) and isinstance(own.fit["optimizer"], tuple)
    assert "arXiv:" in own.source and own.fit["standardize"] is False and own.fit["batch_size"] >= 64
    dequantize = own.distribution.arguments["bijection"].arguments["layers"][0]
    assert dequantize.arguments["levels"] in (32, 256)
    region = flows.support(own.distribution, own.input_dim)
    assert region.inputs[0].max() == 0 and region.inputs[1].min() == dequantize.arguments["levels"] - 1
    optax.with_extra_args_support(own.fit["optimizer"]).init(jnp.zeros(2))
    assert flows.core.from_json(flows.core.to_json(own.distribution)) == own.distribution
    assert (own.fit["ema"] is None) != name.startswith("glow")


def test_presets_that_are_unknown_are_refused():
    assert "expected one of glow-cifar10" in error_of(lambda: preset("glow"))


def test_sides_have_to_be_divided():
    for model, event, said in (
        (flows.GlowImage(1, 4), (6, 8, 1), "multiples of factor=2"),
        (flows.NSFImage(1, 4, 1), (8, 8), "expected (H, W, C)"),
        (flows.RealNVPImage(1, 4, 1), 4, "expected an image"),
        (flows.GlowImage(1, 4, class_prior=True), (4, 4, 1), "give context_dim"),
    ):
        assert said in error_of(lambda model=model, event=event: model(0, event))
    params, direct_fun, _ = flows.GlowImage(1, 4)(0, (4, 4, 1))
    for shape in ((2, 4, 4, 2), (2, 8, 4, 1), (4, 4, 1)):
        assert "expected" in error_of(lambda shape=shape: direct_fun(params, np.zeros(shape, np.float32)))


@pytest.mark.parametrize("model", [flows.GlowImage(1, 4), flows.RealNVPImage(1, 4, 1, norm="weight")])
def test_every_scale_sees_a_context_of_images(model):
    params, direct_fun, inverse_fun = model(0, (4, 4, 1), context_dim=(4, 4, 2))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf, trains: leaf + trains * np.float32(0.1 * rng.normal(size=leaf.shape)), params, flows.trainable(params)
    )
    x, context = (rng.normal(size=(3, 4, 4, channels)).astype(np.float32) for channels in (1, 2))
    y, log_det = direct_fun(params, x, context=context)
    back, of_inverse = inverse_fun(params, y, context=context)
    close(back, x, 1e-3)
    close(of_inverse, -log_det, 1e-3)
    slopes = jax.grad(lambda context: direct_fun(params, x, context=context)[0].sum())(context)
    assert (jnp.abs(slopes) > 1e-6).all()


@pytest.mark.filterwarnings("ignore:fit")
def test_a_class_has_a_prior_and_its_samples():
    """Two classes, of dark and of bright images; a few steps tell them apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = np.clip(rng.normal(4 + 8 * labels, 1.5, size=(4, 4, 1, 400)).round(), 0, 16).transpose(3, 0, 1, 2)
    model = flows.Flow(behind_logits(flows.GlowImage(1, 8, class_prior=True)))
    context = flows.one_hot(labels, 2)
    given = {"standardize_context": False, "max_epochs": 30, "learning_rate": 1e-2, "verbose": 0, "folds": 1}
    result = flows.fit(0, model, images.astype(np.uint8), context=context, **given)
    draws = [np.asarray(result.draw(0, 50, context=each)).mean() for each in context[:2]]
    assert draws[0] < 7 and draws[1] > 9
    right, wrong = (flows.bits_per_dim(result, images, each).mean for each in (context, context[::-1]))
    assert right < wrong - 0.3
    warm = flows.revise(result.init_fun, temperature=0.5)
    assert jax.tree.structure(warm(0, (4, 4, 1), context_dim=2).params) == jax.tree.structure(result.params)


@pytest.mark.filterwarnings("ignore:fit")
def test_digits_are_learned_and_kept_in_a_file(tmp_path):
    """In fewer bits than a full Gaussian's 2.28 on logit pixels, after a quarter of a minute."""
    order = np.random.default_rng(0).permutation(len(DIGITS))
    train, test = DIGITS[order[:1437]], DIGITS[order[1437:]]
    model = flows.Flow(behind_logits(flows.GlowImage(2, 24)))
    seen = []

    def look(epoch):
        if epoch.number == 2:
            params, _, sample = epoch.best()
            seen.append(np.asarray(sample(0, params, 8)))

    result = flows.fit(0, model, train, max_epochs=30, learning_rate=1e-2, folds=1, verbose=0, callbacks=[look])
    bits = flows.bits_per_dim(result, test)
    assert bits.mean < 2.28 and bits.error < 0.03
    samples = np.asarray(result.draw(1, 64))
    assert samples.shape == (64, 8, 8, 1) and samples.min() == 0 and 10 < samples.max() <= 16
    assert seen[0].shape == (8, 8, 8, 1)
    result.save(tmp_path / "digits.safetensors")
    again = flows.load(tmp_path / "digits.safetensors")
    close(again.log_pdf(again.params, test[:5]), result.log_pdf(result.params, test[:5]), 1e-6)
    p = flows.diagnostics.typicality(result, np.full((1, 8, 8, 1), 8.0), test)
    assert p[0] < 0.01 < np.median(flows.diagnostics.typicality(result, test[:180], test[180:]))


def test_models_are_built_as_published():
    """By the values they are short for."""
    c, t = flows.conditioners, flows.transformers
    coupling = flows.Coupling(c.ConvNet(4, last_scale=0.0), t.Affine(scale="sigmoid"), squash=3.0)
    step = [flows.ActNorm(), flows.InvertibleLinear(), coupling]
    split = flows.Coupling(c.Convolution(last_scale=0.0), t.Affine(), flip=True, squash=3.0)
    one = [flows.Squeeze(), flows.Serial(*step)]
    assert flows.GlowImage(1, 4).inner == flows.Serial(*one, split, flows.FactorOut(*one))
    kept = [flows.Squeeze(), flows.Serial(flows.Repeat(flows.Serial(*step), 6, reversible=True))]
    assert flows.GlowImage(6, 4, 1, reversible=True).inner == flows.Serial(*kept, flows.Reshape())
    net = c.ConvResidual(4, 1, norm="batch", first_kernel=1)
    spline = flows.Coupling(net, t.RationalQuadratic(8, 3.0), squash=3.0)
    two = [flows.ActNorm(), flows.InvertibleLinear(), spline] * 2
    level = [flows.Squeeze(), flows.Serial(*two), flows.InvertibleLinear()]
    assert flows.NSFImage(2, 4, 1).inner == flows.Serial(*level, flows.FactorOut(*level))
    assert flows.NSFImage(2, 4, 1, multi_scale=False).inner == flows.Serial(*level, *level, flows.Reshape())

    def couplings(width, mask, count):
        nets = c.ConvResidual(width, 2, norm="batch")
        each = [flows.Coupling(nets, t.Affine(2.0), mask, flip=bool(i % 2)) for i in range(count)]
        return flows.Serial(*[layer for own in each for layer in (own, flows.BatchNorm())])

    first = [couplings(4, "checkerboard", 3), flows.Squeeze(), couplings(4, "halves", 3)]
    assert flows.RealNVPImage(3, 4, 2).inner == flows.Serial(*first, flows.FactorOut(couplings(8, "checkerboard", 4)))
    pixels = [flows.Coupling(flows.MLP(5, activation="relu"), t.Additive(), "alternating", flip) for flip in (False, True)]
    assert flows.NICEImage(2, (5,)).inner == flows.Serial(flows.Reshape(), flows.Serial(*pixels, flows.Scale()))
