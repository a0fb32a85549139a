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
    assert "arXiv:" in own.source
    if name in ("glow-cifar10", "nice-mnist", "nsf-cifar10-5bit", "realnvp-cifar10"):  # the others are as these
        region = flows.support(own.distribution, own.input_dim)
        assert region.inputs.low.max() == 0 and region.inputs.high.min() == (31 if "5bit" in name else 255)
    assert flows.core.from_json(flows.core.to_json(own.distribution)) == own.distribution


def glow_of(num_layers, num_scales, additive=False):
    return flows.GlowImage(num_layers, 512, num_scales, additive, False, True, False, None, False, None)


def spline_of(width, num_scales, num_bins, multi_scale, affine, dropout):
    return flows.NSFImage(7, width, 3, num_scales, num_bins, 3.0, multi_scale, affine, dropout, None, False, None)


def realnvp_of(width, blocks, num_scales, *before):
    return flows.Logit(False), *before, flows.RealNVPImage(3, width, blocks, num_scales, "both", None)


def nice_of(*hidden):
    return flows.NICEImage(4, hidden, "relu", None)


# The ends of pixels, the layers behind them with all their arguments, rows a step, epochs.
CENTRED, SIGNED, POSITIVE, WITHIN = (-0.5, 0.5), (-1.0, 1.0), (0.0, 1.0), (0.05, 0.95)
LEARNED = {
    "flow++-cifar10": flows.FlowPlusPlusNoise(96, 2, 32, 4, 4, 32),
    "flow++-imagenet32": flows.FlowPlusPlusNoise(128, 8, 32, 4, 8, 32),
}
SETTINGS = {
    "flow++-cifar10": (WITHIN, (flows.Logit(False), flows.FlowPlusPlus(96, 10, 32, 4, (4, 2, 3), 0.2, None)), 64, 1_000),
    "flow++-imagenet32": (WITHIN, (flows.Logit(False), flows.FlowPlusPlus(128, 20, 32, 4, (4, 2, 3), 0.0, None)), 32, 100),
    "glow-cifar10": (CENTRED, (glow_of(32, 3),), 512, 1_000),
    "glow-cifar10-additive": (CENTRED, (glow_of(32, 3, True),), 512, 1_000),
    "glow-cifar10-5bit": (CENTRED, (glow_of(32, 3),), 512, 1_000),
    "glow-celebahq256-5bit": (CENTRED, (glow_of(32, 6, True),), 8, 1_000),
    "glow-imagenet32": (CENTRED, (glow_of(48, 3),), 512, 1_000),
    "glow-imagenet32-5bit": (CENTRED, (glow_of(48, 3),), 512, 1_000),
    "glow-imagenet64": (CENTRED, (glow_of(48, 4),), 128, 1_000),
    "glow-imagenet64-5bit": (CENTRED, (glow_of(48, 4),), 128, 1_000),
    "nice-cifar10": (SIGNED, (nice_of(2000, 2000, 2000, 2000),), 200, 1_500),
    "nice-mnist": (POSITIVE, (nice_of(1000, 1000, 1000, 1000, 1000),), 200, 1_500),
    "nsf-cifar10": (CENTRED, (spline_of(96, 3, 4, False, False, 0.2),), 512, 2_084),
    "nsf-cifar10-5bit": (CENTRED, (spline_of(64, 3, 2, False, False, 0.2),), 512, 1_042),
    "nsf-cifar10-affine": (CENTRED, (spline_of(96, 3, 8, False, True, 0.2),), 512, 2_084),
    "nsf-imagenet64": (CENTRED, (spline_of(96, 4, 8, True, False, 0.0),), 256, 41),
    "nsf-imagenet64-5bit": (CENTRED, (spline_of(96, 4, 8, True, False, 0.1),), 256, 21),
    "nsf-imagenet64-affine": (CENTRED, (spline_of(96, 4, 8, True, True, 0.0),), 256, 41),
    "realnvp-cifar10": (WITHIN, realnvp_of(64, 8, 2, flows.RandomFlip()), 64, 1_000),
    "realnvp-imagenet32": (WITHIN, realnvp_of(32, 4, 4), 64, 100),
    "realnvp-imagenet64": (WITHIN, realnvp_of(32, 2, 5), 64, 100),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_published_settings(name):
    own, ((low, high), layers, batch_size, epochs) = preset(name), SETTINGS[name]
    side = next((side for ends, side in (("mnist", 28), ("64", 64), ("256", 256)) if ends in name), 32)
    assert own.input_dim == (side, side, 1 if "mnist" in name else 3)
    noise, scaled, *rest = own.distribution.arguments["bijection"].arguments["layers"]
    levels = 32 if "5bit" in name else 256
    width = (high - low) / levels
    assert noise == flows.Dequantize(1.0, levels, LEARNED.get(name)) and scaled.constructor is flows.FixedAffine
    assert tuple(scaled.arguments.values()) == pytest.approx((width, low + width / 2), rel=1e-9)
    assert tuple(rest) == layers
    assert own.distribution.arguments["prior"] == (flows.Logistic() if name.startswith("nice") else flows.Normal())
    average = {"flow++-cifar10": 0.999, "flow++-imagenet32": 0.999222}.get(name, 1 - 1 / 98 if "glow" in name else None)
    settings = {"standardize": False, "folds": 1, "validation": 0.01, "ema": average, "patience": epochs}
    settings |= {"batch_size": batch_size, "max_epochs": epochs, "optimizer": own.fit["optimizer"]}
    assert own.fit == settings


# The rates at some steps; what is left of the last after 20 gradients of 0, which tells the averages; the largest gradient.
COSINE = {0: 5e-4, 50_000: 4.26777e-4, 100_000: 2.5e-4, 150_000: 7.3223e-5, 200_000: 0.0}
OPTIMIZERS = {
    "flow++-cifar10": ({0: 0.0, 1_000: 1.5e-4, 2_000: 3e-4, 5_000: 3e-4}, 0.1228, 1.0),
    "flow++-imagenet32": ({0: 1e-3, 5_000: 9.991258e-4}, 0.1228, 1.0),
    "glow": ({0: 0.0, 98: 1e-4, 490: 5e-4, 980: 1e-3, 5_000: 1e-3}, 0.14925, np.inf),
    "nice": ({0: 9.999e-4, 5_000: 9.999e-4}, 0.13443, np.inf),  # by 1e-3 / (1 + 1e-4)
    "nsf": (COSINE, None, np.inf),
    "realnvp": ({0: 1e-3, 5_000: 1e-3}, 0.1228, 100.0),
}


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", PRESETS)
def test_optimizers_of_presets_are_the_published_ones(name):
    rates, left, clip = OPTIMIZERS[name if name in OPTIMIZERS else name.split("-")[0]]
    if name.startswith("nsf") and "5bit" in name:
        rates = {step // 2: rate for step, rate in rates.items()}
    optimizer, zero, steps = preset(name).fit["optimizer"], jnp.zeros(()), [*rates]

    def step(state, gradient):
        update, state = optimizer.update(gradient, state, zero)
        return state, -update

    gradients = np.ones(steps[-1] + 21, np.float32)
    gradients[-20:] = 0.0
    found = jax.jit(lambda state: jax.lax.scan(step, state, gradients)[1])(optimizer.init(zero))
    assert found[np.array(steps)] == pytest.approx(np.array([*rates.values()]), rel=5e-5, abs=1e-9)
    if left is not None:
        assert found[-1] / found[-21] == pytest.approx(left, rel=1e-3)
    large = {"a": jnp.float32(3e4), "b": jnp.float32(4e4)}
    mean = optax.tree_utils.tree_get(optimizer.update(large, optimizer.init(large), large)[1], "mu")
    assert np.hypot(mean["a"], mean["b"]) == pytest.approx(0.1 * min(5e4, clip), rel=1e-5)


@pytest.mark.usefixtures("relaxed")
def test_the_penalty_of_realnvp_is_of_norms_and_learned_scales():
    """5e-5 times the sum of squares, whose gradient is 1e-4 times each: a tenth of it is the first mean of Adam."""
    optimizer = preset("realnvp-imagenet64").fit["optimizer"]
    params = {"b": jnp.ones(1), "conditioner": {"gain": jnp.ones(2), "w": jnp.ones(2)}, "transformer": (jnp.ones(()),)}
    _, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    means = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(optax.tree_utils.tree_get(state, "mu"))]
    assert means == pytest.approx([0.0, 1e-5, 0.0, 1e-5], rel=1e-5)


def test_presets_that_are_unknown_are_refused():
    assert "expected one of flow++-cifar10" in error_of(lambda: preset("glow"))


def test_sides_have_to_be_divided():
    for model, event, said in (
        (flows.GlowImage(1, 4), (6, 8, 1), "multiples of factor=2"),
        (flows.NSFImage(1, 4, 1), (8, 8), "expected (H, W, C)"),
        (flows.RealNVPImage(1, 4, 1), 4, "expected an image"),
    ):
        assert said in error_of(lambda model=model, event=event: model(0, event))
    params, direct_fun, _ = flows.GlowImage(1, 4)(0, (4, 4, 1))
    for shape in ((2, 4, 4, 2), (2, 8, 4, 1), (4, 4, 1)):
        assert "expected" in error_of(lambda shape=shape: direct_fun(params, np.zeros(shape, np.float32)))


def test_contexts_that_are_not_taken_are_refused():
    of_classes = flows.GlowImage(1, 4, class_prior=True)
    for model, context_dim, said in (
        (of_classes, 0, "give context_dim"),
        (of_classes, (4, 4, 2), "flatten the context, to context_dim=32"),
        (flows.Flow(flows.NICEImage(2, (4,))), (4, 4, 2), "flatten the context, to context_dim=32"),
        (flows.Serial(flows.RandomFlip(), flows.GlowImage(1, 4)), (4, 4, 2), "RandomFlip: context_dim is (4, 4, 2), and it"),
    ):
        told = error_of(lambda model=model, context_dim=context_dim: model(0, (4, 4, 1), context_dim=context_dim))
        assert said in told
    with pytest.raises(TypeError, match="no layer of it takes a context"):
        flows.RandomFlip()(0, (4, 4, 1), context_dim=2)
    flipped = flows.Serial(flows.RandomFlip(), flows.NICEImage(2, (4,)))
    jax.eval_shape(lambda: flipped(0, (4, 4, 1), context_dim=2).params)
    assert flows.support(flows.NICEImage(2, (4,)), (4, 4, 1)).outputs.low.shape == (16,)


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

    result = flows.fit(0, model, train, max_epochs=24, learning_rate=1e-2, folds=1, verbose=0, callbacks=[look])
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
    step, dense = [flows.ActNorm(), flows.InvertibleLinear(), coupling], flows.InvertibleLinear(dense=True)
    split = flows.Coupling(c.Convolution(last_scale=0.0), t.Affine(), flip=True, squash=3.0)
    one = [flows.Squeeze(), flows.Serial(*step)]
    assert flows.GlowImage(1, 4).inner == flows.Serial(*one, split, flows.FactorOut(*one))
    assert flows.GlowImage(1, 4, split_prior=False).inner == flows.Serial(*one, flows.FactorOut(*one))
    of_classes = flows.FactorOut(*one, flows.Elementwise(t.Affine(), flows.MLP()))
    assert flows.GlowImage(1, 4, class_prior=True).inner == flows.Serial(*one, split, of_classes)
    shifts = flows.Coupling(c.ConvNet(4, last_scale=0.0), t.Additive(), squash=3.0)
    for given, other in (({"additive": True}, [*step[:2], shifts]), ({"dense": True}, [step[0], dense, coupling])):
        own = [flows.Squeeze(), flows.Serial(*other)]
        assert flows.GlowImage(1, 4, **given).inner == flows.Serial(*own, split, flows.FactorOut(*own))
    kept = [flows.Squeeze(), flows.Serial(flows.Repeat(flows.Serial(*step), 6, reversible=True))]
    assert flows.GlowImage(6, 4, 1, reversible=True).inner == flows.Serial(*kept, flows.Reshape())
    net = c.ConvResidual(4, 1, norm="batch", first_kernel=1)
    spline = flows.Coupling(net, t.RationalQuadratic(8, 3.0), squash=3.0)
    two = [flows.ActNorm(), flows.InvertibleLinear(), spline] * 2
    level = [flows.Squeeze(), flows.Serial(*two), flows.InvertibleLinear()]
    assert flows.NSFImage(2, 4, 1).inner == flows.Serial(*level, flows.FactorOut(*level))
    assert flows.NSFImage(2, 4, 1, multi_scale=False).inner == flows.Serial(*level, *level, flows.Reshape())

    batch = lambda width: c.ConvResidual(width, 2, norm="batch"), t.Affine(2.0)

    def couplings(width, mask, count, own=batch):
        each = [flows.Coupling(own[0](width), own[1], mask, flip=bool(i % 2)) for i in range(count)]
        return flows.Serial(*[layer for own in each for layer in (own, flows.BatchNorm())])

    first = [couplings(4, "checkerboard", 3), flows.Squeeze(), couplings(4, "halves", 3)]
    assert flows.RealNVPImage(3, 4, 2).inner == flows.Serial(*first, flows.FactorOut(couplings(8, "checkerboard", 4)))
    both = lambda width: c.ConvSkip(width, 2), t.Inverse(t.Affine(2.0, scale="learned"))
    first = [couplings(4, "checkerboard", 1, both), flows.Squeeze(), couplings(4, "halves", 1, both)]
    expected = flows.Serial(*first, flows.FactorOut(couplings(8, "checkerboard", 2, both)))
    assert flows.RealNVPImage(1, 4, 2, norm="both").inner == expected
    pixels = [flows.Coupling(flows.MLP(5, activation="relu"), t.Additive(), "alternating", flip) for flip in (False, True)]
    assert flows.NICEImage(2, (5,)).inner == flows.Serial(flows.Reshape(), flows.Serial(*pixels, flows.Scale()))
