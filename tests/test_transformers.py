"""Scalar monotone maps: exact, invertible at any parameters, the identity at theta = 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import weights_of
from registry import TRANSFORMERS

import flows
from flows import transformers as t
from flows.diagnostics import enable_x64

EDGES = [0.0, 1e-38, -1e-38, 1e-3, 1.0, -1.0, 30.0, -30.0, 1e30, -1e30, 3e35, -3e35, 3e38, -3e38]


@functools.cache
def functions(name):
    """Jitted direct and inverse."""
    transformer = TRANSFORMERS[name].transformer
    return jax.jit(transformer.direct), jax.jit(transformer.inverse)


def draw(name, n, spread=None, seed=0, dtype=np.float64):
    """Random theta and x."""
    case, rng = TRANSFORMERS[name], np.random.default_rng(seed)
    theta = (case.spread if spread is None else spread) * rng.normal(size=(case.transformer.num_params, n))
    return jnp.asarray(theta.astype(dtype)), jnp.asarray(rng.uniform(-3, 3, size=n).astype(dtype))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_zero_is_the_identity_or_near(name):
    case, x = TRANSFORMERS[name], jnp.linspace(-4, 4, 50)
    theta = jnp.zeros((case.transformer.num_params, 50))
    y, log_det = functions(name)[0](theta, x, case.transformer.init(0))
    np.testing.assert_allclose(y, x, atol=case.near)
    np.testing.assert_allclose(log_det, 0, atol=case.near)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_exact_in_both_directions(name):
    """Log-dets are the derivatives; the inverse is one, and its log-det is minus the direct one at the point returned."""
    case = TRANSFORMERS[name]
    with enable_x64():
        (theta, x), weights = draw(name, 200), weights_of(case.transformer)
        direct, inverse = functions(name)
        y, log_det = direct(theta, x, weights)
        back, minus = inverse(theta, y, weights)
        again, log_det_again = direct(theta, back, weights)
        np.testing.assert_allclose(back, x, rtol=case.tolerance, atol=case.tolerance)
        np.testing.assert_allclose(again, y, rtol=case.tolerance, atol=case.tolerance)
        np.testing.assert_allclose(minus, -log_det_again, rtol=1e-12, atol=1e-12)
        for function, at, expected in ((case.transformer.direct, x, log_det), (case.transformer.inverse, y, minus)):
            slope = jax.jit(jax.vmap(jax.grad(lambda x, th, f=function: f(th, x, weights)[0]), in_axes=(0, 1)))(at, theta)
            np.testing.assert_allclose(expected, np.log(slope), rtol=case.tolerance, atol=case.tolerance)
        assert (np.asarray(slope) > 0).all()
        assert name == "Additive" or np.abs(log_det).max() > 0.1


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_derivatives_in_the_parameters_are_differences_of_values(name):
    case = TRANSFORMERS[name]
    with enable_x64():
        (theta, x), weights = draw(name, 20, seed=5), weights_of(case.transformer)
        tangents = jax.tree.map(
            lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), (theta, weights)
        )

        def at(step):
            moved = jax.tree.map(lambda leaf, tangent: leaf + step * tangent, (theta, weights), tangents)
            return functions(name)[0](moved[0], x, moved[1])

        got = jax.jvp(jax.jit(at), (jnp.zeros(()),), (jnp.ones(()),))[1]
        for derivative, above, below in zip(got, at(1e-5), at(-1e-5), strict=True):
            np.testing.assert_allclose(derivative, (above - below) / 2e-5, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_gradients_of_the_inverse_are_those_of_the_inverse_function(name):
    """d x / d theta = -(d y / d theta) / (d y / d x) at fixed y, in theta, y and the weights, in both modes."""
    case = TRANSFORMERS[name]
    with enable_x64():
        (theta, x), weights = draw(name, 7, seed=3), weights_of(case.transformer)
        y, log_det = functions(name)[0](theta, x, weights)
        tangents = jax.tree.map(
            lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), (theta, weights)
        )
        direct = jax.jvp(lambda theta, weights: case.transformer.direct(theta, x, weights)[0], (theta, weights), tangents)[1]
        forward = jax.jvp(lambda theta, weights: case.transformer.inverse(theta, y, weights)[0], (theta, weights), tangents)[1]
        np.testing.assert_allclose(forward, -direct * np.exp(-log_det), rtol=1e-7, atol=1e-7)
        pull = jax.vjp(lambda theta, weights: case.transformer.inverse(theta, y, weights)[0], theta, weights)[1]
        pairs = zip(jax.tree.leaves(pull(jnp.ones_like(y))), jax.tree.leaves(tangents), strict=True)
        np.testing.assert_allclose(sum((a * b).sum() for a, b in pairs), forward.sum(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_finite_at_the_edges_and_never_nan(name):
    """In float32, for moderate theta: finite wherever what float64 says fits, gradients with a margin of 100; never NaN."""
    transformer = TRANSFORMERS[name].transformer
    theta, _ = draw(name, len(EDGES), spread=0.5, dtype=np.float32)
    weights, largest = weights_of(transformer), float(np.finfo(np.float32).max)

    def evaluated(function, dtype):
        @jax.jit
        def program(theta, x, weights):
            values = function(theta, x, weights)
            slopes = [jax.grad(lambda t, x, i=i: function(t, x, weights)[i].sum(), argnums=(0, 1))(theta, x) for i in (0, 1)]
            return values, slopes

        at = jnp.asarray(np.asarray(EDGES, np.float32), dtype)
        given = theta.astype(dtype), at, jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), program(*given))

    for function in (transformer.direct, transformer.inverse):
        values, slopes = evaluated(function, np.float32)
        with enable_x64():
            exact, exact_slopes = evaluated(function, np.float64)
        fits = np.abs(exact[0]) < 0.999 * largest
        assert np.isfinite(values[0][fits]).all() and np.isfinite(values[1][fits]).all() and fits.sum() >= 8
        np.testing.assert_array_equal(values[0][~fits], np.sign(exact[0][~fits]) * np.inf)
        for slope, true in zip(jax.tree.leaves(slopes), jax.tree.leaves(exact_slopes), strict=True):
            here = fits & (np.abs(true) < 0.01 * largest)
            assert np.isfinite(slope[here]).all() and here.any()
    assert bool(jnp.isnan(functions(name)[0](theta[:, :1], jnp.full(1, jnp.nan, jnp.float32), weights)[0]).all())


def test_the_affine_scale_is_bounded():
    theta = jnp.asarray([[1e30, -1e30, 2.0], [1.0, 1.0, 1.0]])
    y, log_det = t.Affine(bound=3.0).direct(theta, jnp.ones(3))
    np.testing.assert_allclose(log_det, [3.0, -3.0, 3 * np.tanh(2 / 3)], rtol=1e-6)
    np.testing.assert_allclose(y, np.exp(log_det) + 1, rtol=1e-6)


@pytest.mark.parametrize("call", [
    lambda: t.Affine(bound=0.0), lambda: t.Affine(bound="wide"),
    lambda: flows.NSF(num_layers=0), lambda: flows.NSF(num_bins=2.5),
])  # fmt: skip
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(flows.FlowsError, match="expected"):
        call()
