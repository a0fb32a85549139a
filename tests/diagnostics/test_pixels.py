"""Pixels: levels, labels, bits, what is typical, and what changes images in training alone."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from scipy import stats

import flows
from flows.diagnostics import typicality
from flows.diagnostics.images import contexts
from flows.training.model_view import split_off

IMAGES = np.random.default_rng(0).integers(0, 17, size=(300, 4, 4, 1))
STANDARD = flows.Normal()
UNIFORM = flows.Flow(flows.Dequantize(1.0), flows.Uniform(-0.5, 16.5))


def fitted(init_fun, images=IMAGES, **given):
    return flows.fit(0, init_fun, images, **{"verbose": 0, "folds": 1, "max_epochs": 1, "standardize": False, **given})


def test_samples_stay_within_the_levels():
    wide = flows.Flow(flows.Dequantize(1.0, levels=17), flows.Normal(temperature=40.0))
    params, log_pdf, sample = wide(0, (4, 4, 1))
    samples = np.asarray(sample(1, params, 200))
    assert samples.min() == 0 and samples.max() == 16 and np.array_equal(samples, np.round(samples))
    beyond = np.asarray(flows.revise(wide, levels=None)(0, (4, 4, 1)).sample(1, params, 200))
    assert beyond.min() < 0 and beyond.max() > 16
    assert np.isneginf(log_pdf(params, IMAGES[:2] + np.reshape([17, 0], (2, 1, 1, 1)))).tolist() == [True, False]


def test_noise_stays_within_its_cell():
    x = np.full((1_000, 1_000), 255.0, np.float32)  # near which half a step is 2^15 roundings
    params, direct_fun, inverse_fun = flows.Dequantize(1.0)(0, 1_000)
    y = direct_fun(params, x, rng=0)[0]
    mixed = flows.Dequantize((1.0, 0.0))(0, 2)
    slopes = jax.grad(lambda x: mixed.direct_fun(mixed.params, x, rng=0)[0].sum())
    assert (slopes(jnp.full((50, 2), 255.0)) == 1).all()
    assert 254.5 < y.min() < 254.51 and 255.49 < y.max() < 255.5 and (inverse_fun(params, y)[0] == x).all()
    region = flows.support(flows.Dequantize(0.5, levels=3), 2)
    assert region.inputs.high.tolist() == [1.0, 1.0] and region.outputs.low.tolist() == [-0.25, -0.25]
    mixed = flows.Dequantize((1.0, 0.0), levels=4)(0, 2, init_inputs=np.float32([[2.0, 5.0], [3.0, 7.0]]))
    assert mixed.params["fixed"]["offset"].tolist() == [0.0, 0.0]
    close(mixed.inverse_fun(mixed.params, np.float32([[9.0, 9.0], [-3.0, 0.3]]))[0], [[3.0, 9.0], [0.0, 0.3]], 1e-6)


def test_levels_that_data_do_not_fit_are_told():
    assert "levels is 1" in error_of(lambda: flows.Dequantize(1.0, levels=1))
    few = flows.Flow(flows.Dequantize(1.0, levels=16), flows.Normal(trainable=True))
    assert "is 16 in row" in error_of(lambda: fitted(few, standardize=True))
    assert "log_pdf is -inf at row" in error_of(lambda: fitted(few))


def test_images_are_standardised_behind_what_dequantises_them():
    """Or not at all: noise a standard deviation wide would be added to what was scaled first."""
    to_unit = flows.FixedAffine(1 / 17, 0.5 / 17)
    model = flows.Flow(flows.Serial(flows.Dequantize(1.0, levels=17), to_unit, flows.Logit()), flows.Normal(trainable=True))
    result = fitted(model, standardize=True)
    names = [each.constructor.__name__ for each in result.init_fun.arguments["bijection"].arguments["layers"]]
    assert names == ["Dequantize", "FixedAffine", "Logit", "Standardize"]
    samples = np.asarray(result.draw(0, 100))
    assert samples.min() >= 0 and samples.max() <= 16 and np.array_equal(samples, np.round(samples))
    mixed = flows.Flow(flows.Serial(flows.ActNorm(), flows.Dequantize(1.0)))
    assert "trains, mixes or moves" in error_of(lambda: fitted(mixed, standardize=True))


def test_what_takes_dequantised_pixels_to_the_line_is_not_left_behind_standardised_values():
    to_line = (flows.Dequantize(1.0, levels=17), flows.Unconstrain(-0.5, 16.5))
    assert split_off(flows.Flow(flows.Serial(*to_line), STANDARD), (4, 4, 1), None) == (to_line, STANDARD)


def test_bits_are_those_of_the_cells():
    bits = flows.bits_per_dim(fitted(UNIFORM), IMAGES)
    assert bits.mean == pytest.approx(math.log2(17), abs=1e-5) and bits.error < 1e-5 and bits.each.shape == (300,)
    # A normal of 3 steps: the mass of a cell by its distribution function, which many draws come close to.
    normal = fitted(flows.Flow(flows.Serial(flows.Dequantize(1.0), flows.FixedAffine(1 / 3, -8 / 3))))
    mass = np.log2(stats.norm(8, 3).cdf(IMAGES + 0.5) - stats.norm(8, 3).cdf(IMAGES - 0.5)).reshape(300, -1).mean(1)
    one, many = (flows.bits_per_dim(normal, IMAGES, rng=1, samples=n, batch_size=128) for n in (1, 50))
    close(many.each, -mass, 0.02)
    assert one.mean > many.mean > -mass.mean() - 1e-3
    assert one.error == pytest.approx(one.each.std(ddof=1) / 300**0.5)
    assert flows.bits_per_dim(normal, IMAGES, rng=1, batch_size=128).mean == one.mean


def test_bits_of_models_averaged_over_folds():
    model = flows.Flow(flows.Serial(flows.Dequantize(1.0, levels=17), flows.ActNorm(), flows.Coupling(flows.MLP(64))), STANDARD)
    result = fitted(model, IMAGES[:200].reshape(200, 16), folds=2, standardize=True)
    assert result.init_fun.constructor is flows.Mixture
    bits = flows.bits_per_dim(result, IMAGES[200:].reshape(100, 16))
    assert 3.5 < bits.mean < 5 and "0 .. 16" in error_of(lambda: flows.bits_per_dim(result, IMAGES[:2].reshape(2, 16) + 1))


def test_each_image_has_a_context_or_all_have_one():
    fit, rows = SimpleNamespace(context_dim=3), np.arange(12.0).reshape(4, 3)
    assert contexts(fit, rows, 4, "bits")([2, 0])["context"].tolist() == [[6, 7, 8], [0, 1, 2]]
    assert contexts(fit, rows[1], 4, "bits")([2, 0])["context"].tolist() == [3, 4, 5]
    assert contexts(fit, None, 4, "bits")([2, 0]) == {}
    for number in (3, 5):
        said = f"bits: context has shape (4, 3), expected ({number}, 3), a row for each"
        assert said in error_of(lambda number=number: contexts(fit, rows, number, "bits"))


def test_bits_of_classes():
    labels = np.arange(300) % 3
    context = flows.one_hot(labels, 3)
    model = flows.Flow(flows.Dequantize(1.0), flows.Normal(conditioner=flows.MLP(4)))
    result = fitted(model, context=context, standardize_context=False)
    each = flows.bits_per_dim(result, IMAGES, context, batch_size=70)
    shared = flows.bits_per_dim(result, IMAGES[:1], context[0])
    assert np.isfinite(each.each).all() and shared.each.shape == (1,)
    first, second = (flows.bits_per_dim(result, IMAGES, context[i]).each for i in (0, 1))
    tiled = flows.bits_per_dim(result, IMAGES, np.tile(context[0], (300, 1))).each
    assert (first == tiled).all() and np.abs(first - second).max() > 1e-6
    for given in (context[:299], np.concatenate([context, context])):
        assert "expected (300, 3)" in error_of(lambda given=given: flows.bits_per_dim(result, IMAGES, given))


@pytest.mark.filterwarnings("ignore:fit. channel 0 is rounded to 0.5")
def test_what_has_no_bits():
    result = fitted(UNIFORM)
    assert "not floats in [0, 1]" in error_of(lambda: flows.bits_per_dim(result, IMAGES / 16))
    assert "reach from -1" in error_of(lambda: flows.bits_per_dim(result, IMAGES - 1))
    few = fitted(flows.Flow(flows.Dequantize(1.0, levels=17), flows.Normal(trainable=True)))
    assert "expected whole numbers 0 .. 16" in error_of(lambda: flows.bits_per_dim(few, IMAGES + 1))
    bounded, beyond = (
        fitted(flows.Flow(flows.ActNorm()), dequantize=1.0, support=(0, 16)),
        np.concatenate([IMAGES[4:5], IMAGES[:1] + 17]),
    )
    assert "image 1 has a pixel of" in error_of(lambda: flows.bits_per_dim(bounded, beyond))
    assert "not whole numbers" in error_of(lambda: flows.bits_per_dim(result, np.where(beyond > 16, np.inf, beyond)))
    assert np.isinf(flows.bits_per_dim(result, beyond).mean)
    assert flows.bits_per_dim(result, IMAGES[:50] > 8).mean == pytest.approx(math.log2(17), abs=1e-5)
    for init_fun in (flows.Normal(trainable=True), flows.Flow(flows.Dequantize(0.5), flows.Normal(trainable=True))):
        own = fitted(init_fun, IMAGES / 2)
        assert "has no Dequantize(1.0)" in error_of(lambda own=own: flows.bits_per_dim(own, IMAGES))
    scaled = fitted(flows.Flow(flows.Serial(flows.FixedAffine(1 / 4), flows.Dequantize(1.0), flows.ActNorm())), 4 * IMAGES)
    assert "put that layer first" in error_of(lambda: flows.bits_per_dim(scaled, 4 * IMAGES))
    flipped = fitted(flows.Flow(flows.Serial(flows.RandomFlip(), flows.Dequantize(1.0)), flows.Uniform(-0.5, 16.5)))
    assert flows.bits_per_dim(flipped, IMAGES).mean == pytest.approx(math.log2(17), abs=1e-5)
    with pytest.raises(TypeError, match=r"expected a result of flows\.fit"):
        flows.bits_per_dim(UNIFORM(0, (4, 4, 1)), IMAGES)


def test_floats_are_not_taken_for_pixels():
    model = flows.Flow(flows.ActNorm())
    for x, said in (
        (IMAGES / 16, "give 0.0625"),
        (IMAGES + np.random.default_rng(0).normal(size=IMAGES.shape), "leave it out"),
    ):
        told = error_of(lambda x=x: fitted(model, x, dequantize=1.0))
        assert "channel 0 of data is to be dequantised in steps of 1, but" in told and said in told
    assert "not floats in [0, 1]" in error_of(lambda: fitted(UNIFORM, IMAGES / 16))
    fitted(model, IMAGES / 16, dequantize=1 / 16)
    fitted(model, IMAGES + 0.5, dequantize=1.0)


def test_labels_become_contexts_or_are_refused():
    assert flows.one_hot(np.array([1, 0]), 2).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert flows.one_hot(np.float32([1.0]), 2).dtype == jnp.float32
    wrong = [([0, 10], "the label of row 1 is 10"), ([-1], "is -1"), ([0.5], "whole numbers"), ([np.inf], "whole numbers")]
    for labels, said in [*wrong, ([[0]], "give labels[:, 0]"), ([[0, 1]], "expected (rows,)")]:
        assert said in error_of(lambda labels=labels: flows.one_hot(labels, 10))
    assert "traced" in error_of(lambda: jax.jit(lambda labels: flows.one_hot(labels, 3))(jnp.array([1])))


def test_typical_rows_have_uniform_p_values_and_the_likeliest_are_not_typical():
    normal, rng = flows.Normal()(0, 20), np.random.default_rng(0)
    reference, rows = rng.normal(size=(2000, 20)), rng.normal(size=(1000, 20))
    p = typicality(normal, rows, reference)
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert typicality(normal, np.zeros((1, 20)), reference)[0] < 0.01
    narrow = rows[:400] * 0.9
    groups = typicality(normal, narrow, reference, group=50)
    assert groups.shape == (8,) and np.median(groups) < 0.01 < np.median(typicality(normal, narrow, reference))
    assert stats.kstest(typicality(normal, rows, reference, group=5), "uniform").pvalue > 1e-3
    assert "expected at least 5" in error_of(lambda: typicality(normal, rows[:4], reference, group=5))
    unknown = np.where(np.arange(len(reference))[:, None] == 3, np.nan, reference)
    assert "row 3 of the reference is nan" in error_of(lambda: typicality(normal, rows, unknown))
    assert np.isnan(typicality(normal, unknown[2:5], reference)).tolist() == [False, True, False]
    conditional = flows.Normal(conditioner=flows.MLP(4))(0, 1, context_dim=3)
    many, one = rng.normal(size=(10_100, 1)), np.eye(3)[0]  # more than a piece
    shared = typicality(conditional, many, many[:50], context=one, reference_context=one)
    each = typicality(conditional, many, many[:50], context=np.tile(one, (len(many), 1)), reference_context=one)
    close(shared, each, 1e-6)


def test_flips_and_noise_are_of_training_alone():
    x = np.arange(2 * 40, dtype=np.float32).reshape(20, 1, 2, 2)
    params, direct_fun, inverse_fun = flows.RandomFlip()(0, (1, 2, 2))
    y, log_det = direct_fun(params, x, rng=jax.random.key(0), train=True)
    flipped = (np.asarray(y) == x[:, :, ::-1]).all((1, 2, 3))
    assert 4 < flipped.sum() < 16 and (np.asarray(y)[~flipped] == x[~flipped]).all() and not log_det.any()
    close(inverse_fun(params, y, rng=jax.random.key(0), train=True)[0], x, 0)
    close(direct_fun(params, x, rng=jax.random.key(0))[0], x, 0)
    params, direct_fun, inverse_fun = flows.Noise(0.5)(0, 2)
    rows = np.zeros((5_000, 2), np.float32)
    y, _ = direct_fun(params, rows, rng=jax.random.key(0), train=True)
    assert np.std(y) == pytest.approx(0.5, rel=0.05)
    close(inverse_fun(params, y, rng=jax.random.key(0), train=True)[0], rows, 1e-6)
    close(direct_fun(params, rows)[0], rows, 0)
    for layer, event in ((flows.RandomFlip(), (1, 2, 2)), (flows.Noise(0.5), 2)):
        assert "give rng=" in error_of(lambda layer=layer, event=event: layer(0, event).direct_fun(
            {}, np.zeros((1, *np.atleast_1d(event)), np.float32), train=True
        ))  # fmt: skip
    assert "expected an image" in error_of(lambda: flows.RandomFlip()(0, 3))
    region = flows.support(flows.Serial(flows.RandomFlip(), flows.Dequantize(1.0, levels=17)), (4, 4, 1))
    assert region.inputs.low.min() == 0 and region.inputs.high.max() == 16
    assert "std" in error_of(lambda: flows.Noise(0.0))


def test_no_class_stays_zeros_where_contexts_are_standardised():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 40 + [1] * 10)
    context = np.concatenate([flows.one_hot(labels, 2), rng.normal(5, 2, (50, 1))], 1)
    rows = rng.normal(size=(50, 2))
    result = flows.fit(0, flows.Normal(conditioner=flows.MLP(3)), rows, context=context, max_epochs=1, folds=1, verbose=0)
    fixed = result.params["prior"]["fixed"]
    assert fixed["mean"][:2].tolist() == [0.0, 0.0] and fixed["std"][:2].tolist() == [1.0, 1.0] and fixed["std"][2] > 1.5
    own = flows.StandardizedContext(flows.Normal(conditioner=flows.MLP(3)))
    measured = own(0, 2, context_dim=3, init_inputs=rows, init_context=context).params["fixed"]
    assert jax.tree.map(lambda each: each[:2].tolist(), measured) == {"mean": [0.0, 0.0], "std": [1.0, 1.0]}
    assert measured["mean"][2] > 3
