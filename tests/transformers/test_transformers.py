"""Scalar monotone maps: exact, invertible at any parameters, the identity at theta = 0."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import weights_of
from registry import TRANSFORMERS

import flows
from flows import transformers as t
from flows.diagnostics import enable_x64

EDGES = [0.0, 1e-38, -1e-38, 1e-3, 1.0, -1.0, 30.0, -30.0, 1e30, -1e30, 3e35, -3e35, 3e38, -3e38, np.nan]
STEP = 1e-5


def both(name):
    """Direct and inverse, of which a program holds one copy, however often it calls them."""
    transformer = TRANSFORMERS[name].transformer
    return jax.jit(transformer.direct), jax.jit(transformer.inverse)


def draw(name, n, spread=None, seed=0):
    """Random theta and x."""
    case, rng = TRANSFORMERS[name], np.random.default_rng(seed)
    theta = (case.spread if spread is None else spread) * rng.normal(size=(case.transformer.num_params, n))
    return theta, rng.uniform(-3, 3, size=n)


@functools.cache
def of(name):
    """What the tests below compare, from one compiled call: compile time is most of their time."""
    direct, inverse = both(name)

    @jax.jit
    def program(x, where, along):
        def at(x, where, fun=direct):
            return fun(where[0], x, where[1])

        ones, nothing = jnp.ones_like(x), jax.tree.map(jnp.zeros_like, where)
        (y, log_det), slopes = jax.linearize(at, x, where)
        (back, minus), slopes_back = jax.linearize(lambda y, where: at(y, where, inverse), y, where)
        by_y, by_where = jax.linear_transpose(slopes_back, y, where)((ones, 0 * ones))
        above, below = (jax.tree.map(lambda at, to, step=step: at + step * to, where, along) for step in (STEP, -STEP))
        start = jnp.zeros_like(where[0]), TRANSFORMERS[name].transformer.init(0)
        others = jax.vmap(at)(jnp.stack([back, x, x, x]), jax.tree.map(lambda *a: jnp.stack(a), where, above, below, start))
        named = [dict(zip(("again", "above", "below", "zero"), each, strict=True)) for each in others]
        return {
            "y": y, "log_det": log_det, "slope": slopes(ones, nothing)[0], "along": slopes(0 * ones, along),
            "back": back, "minus": minus, "slope_back": by_y, "back_along": slopes_back(0 * ones, along)[0],
            "back_along_reverse": sum((a * b).sum() for a, b in zip(*map(jax.tree.leaves, (by_where, along)), strict=True)),
            **{key: (named[0][key], named[1][key]) for key in named[0]},
        }  # fmt: skip

    with enable_x64():
        theta, x = draw(name, 50)
        where = theta, weights_of(TRANSFORMERS[name].transformer)
        along = jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size)).reshape(leaf.shape), where)
        return SimpleNamespace(x=x, **jax.tree.map(np.asarray, program(x, where, along)))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_zero_is_the_identity_or_near(name):
    y, log_det = of(name).zero
    np.testing.assert_allclose(y, of(name).x, atol=TRANSFORMERS[name].near)
    np.testing.assert_allclose(log_det, 0, atol=TRANSFORMERS[name].near)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_exact_in_both_directions(name):
    """Log-dets are the derivatives; the inverse is one, and its log-det is minus the direct one at the point returned."""
    got, tolerance = of(name), TRANSFORMERS[name].tolerance
    np.testing.assert_allclose(got.back, got.x, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got.again[0], got.y, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got.minus, -got.again[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.log_det, np.log(got.slope), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got.minus, np.log(got.slope_back), rtol=tolerance, atol=tolerance)
    assert (got.slope > 0).all() and (got.slope_back > 0).all()
    assert name == "Additive" or np.abs(got.log_det).max() > 0.1


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_derivatives_in_the_parameters_are_differences_of_values(name):
    got = of(name)
    for derivative, above, below in zip(got.along, got.above, got.below, strict=True):
        np.testing.assert_allclose(derivative, (above - below) / (2 * STEP), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_gradients_of_the_inverse_are_those_of_the_inverse_function(name):
    """d x / d theta = -(d y / d theta) / (d y / d x) at fixed y, in theta, y and the weights, in both modes."""
    got = of(name)
    np.testing.assert_allclose(got.back_along, -got.along[0] * np.exp(-got.log_det), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(got.back_along_reverse, got.back_along.sum(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_finite_at_the_edges_and_never_nan(name):
    """In float32, for moderate theta: finite wherever what float64 says fits, gradients with a margin of 100; never NaN."""
    theta, weights = draw(name, len(EDGES), spread=0.5)[0], weights_of(TRANSFORMERS[name].transformer)
    largest = float(np.finfo(np.float32).max)
    given = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (theta, np.array(EDGES), weights))

    @jax.jit
    def program(theta, x, weights):
        def evaluated(fun):
            values, pull = jax.vjp(lambda theta, x: fun(theta, x, weights), theta, x)
            each = jnp.eye(2, dtype=x.dtype)[..., None] * jnp.ones_like(x)[None, None]
            return values, jax.vmap(pull)(tuple(each))

        return [evaluated(fun) for fun in both(name)]

    found = jax.tree.map(np.asarray, program(*given))
    with enable_x64():
        truth = jax.tree.map(np.asarray, program(*jax.tree.map(lambda leaf: leaf.astype(np.float64), given)))
    for (values, slopes), (exact, exact_slopes) in zip(found, truth, strict=True):
        fits = np.abs(exact[0]) < 0.999 * largest
        assert np.isfinite(values[0][fits]).all() and np.isfinite(values[1][fits]).all() and fits.sum() >= 8
        np.testing.assert_array_equal(values[0][~fits], np.sign(exact[0][~fits]) * np.inf)
        assert np.isnan(values[0][-1]) and not np.isnan(values[0][:-1]).any()
        for slope, true in zip(jax.tree.leaves(slopes), jax.tree.leaves(exact_slopes), strict=True):
            here = fits & (np.abs(true) < 0.01 * largest)
            assert np.isfinite(slope[here]).all() and here.any()


def test_the_affine_scale_is_bounded():
    theta = jnp.asarray([[1e30, -1e30, 2.0], [1.0, 1.0, 1.0]])
    y, log_det = t.Affine(bound=3.0).direct(theta, jnp.ones(3))
    np.testing.assert_allclose(log_det, [3.0, -3.0, 3 * np.tanh(2 / 3)], rtol=1e-6)
    np.testing.assert_allclose(y, np.exp(log_det) + 1, rtol=1e-6)


def test_an_affine_scale_can_have_a_learned_bound():
    affine, theta = t.Affine(2.0, scale="learned"), jnp.asarray([[1e30, -1e30, 0.5], [1.0, 1.0, 1.0]])
    assert affine.has_weights and affine.init(0).tolist() == 0.0
    y, log_det = affine.direct(theta, jnp.ones(3), affine.init(0))
    assert y.tolist() == [2.0, 2.0, 2.0] and log_det.tolist() == [0.0, 0.0, 0.0]
    for gain, largest in ((0.5, 2 * np.tanh(0.25)), (-100.0, -2.0)):
        y, log_det = affine.direct(theta, jnp.ones(3), jnp.asarray(gain))
        np.testing.assert_allclose(log_det, largest * np.tanh([1e30, -1e30, 0.5]), rtol=1e-6)
        np.testing.assert_allclose(y, np.exp(log_det) + 1, rtol=1e-6)
        back, minus = affine.inverse(theta, y, jnp.asarray(gain))
        np.testing.assert_allclose(back, 1.0, rtol=1e-5)
        np.testing.assert_array_equal(minus, -log_det)


@pytest.mark.parametrize("call", [
    lambda: t.Affine(bound=0.0), lambda: t.Affine(bound="wide"),
    lambda: flows.NSF(num_layers=0), lambda: flows.NSF(num_bins=2.5),
])  # fmt: skip
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(flows.FlowsError, match="expected"):
        call()
