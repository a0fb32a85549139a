"""Scalar monotone maps: exact, invertible at any parameters, the identity at theta = 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import flows
from flows import transformers as t
from flows.diagnostics import enable_x64

SPLINE = t.RationalQuadratic(num_bins=4, bound=2.0)
ALL = {"Affine": t.Affine(), "Inverse": t.Inverse(t.Affine()), "RationalQuadratic": SPLINE}
FUNCTIONS = {name: (jax.jit(each.direct), jax.jit(each.inverse)) for name, each in ALL.items()}


@pytest.mark.parametrize("name", ALL)
def test_zero_is_the_identity(name):
    x = jnp.linspace(-4, 4, 50)
    y, log_det = FUNCTIONS[name][0](jnp.zeros((ALL[name].num_params, 50)), x)
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_log_dets_are_the_derivatives_in_both_directions(name):
    rng = np.random.default_rng(0)
    with enable_x64():
        theta = jnp.asarray(2 * rng.normal(size=(ALL[name].num_params, 200)))
        x = jnp.asarray(rng.uniform(-2.2, 2.2, size=200))
        for function in (ALL[name].direct, ALL[name].inverse):
            derivative = jax.jit(jax.vmap(jax.grad(lambda x, th, f=function: f(th, x)[0]), in_axes=(0, 1)))(x, theta)
            log_det = jax.jit(function)(theta, x)[1]
            np.testing.assert_allclose(log_det, np.log(derivative), rtol=1e-9, atol=1e-9)
            assert np.abs(log_det).max() > 0.1 and (np.asarray(derivative) > 0).all()


@settings(max_examples=100, deadline=None)
@given(
    theta=arrays(np.float32, (SPLINE.num_params, 3), elements=st.floats(-50, 50, width=32)),
    y=arrays(np.float32, (3,), elements=st.floats(-10, 10, width=32)),
)
def test_a_spline_inverts_at_any_parameters(theta, y):
    direct, inverse = FUNCTIONS["RationalQuadratic"]
    x, minus = inverse(theta, y)
    again, log_det = direct(theta, x)
    assert np.isfinite(x).all() and np.isfinite(log_det).all()
    np.testing.assert_array_equal(minus, -log_det)
    eps, slope = np.finfo(np.float32).eps, np.exp(np.asarray(log_det, float))
    assert (np.abs(again - y) <= 4 * eps * (np.abs(y) + 2 + (np.abs(x) + 2) * slope)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1.0, 3.0, 10.0, 30.0])
def test_the_inverse_of_random_splines_is_a_few_roundings_from_exact(dtype, spread):
    rng = np.random.default_rng(1)
    with enable_x64():
        theta = jnp.asarray((spread * rng.normal(size=(SPLINE.num_params, 20_000))).astype(dtype))
        y = jnp.asarray(rng.uniform(-2, 2, size=20_000).astype(dtype))
        direct, inverse = FUNCTIONS["RationalQuadratic"]
        x = inverse(theta, y)[0]
        again, log_det = direct(theta, x)
        scale = jnp.finfo(dtype).eps * (jnp.abs(y) + 2 + (jnp.abs(x) + 2) * jnp.exp(log_det))
        assert float((jnp.abs(again - y) / scale).max()) <= 4


def test_a_spline_at_the_edges():
    rng = np.random.default_rng(2)
    theta = jnp.asarray((3 * rng.normal(size=(SPLINE.num_params, 64))).astype(np.float32))
    for value in (0.0, 1e-38, -1e-38, 2.0, -2.0, np.nextafter(np.float32(2), np.float32(0)), 1e30, 3e38, np.inf, -np.inf):
        at = jnp.full(64, value, jnp.float32)
        for function in FUNCTIONS["RationalQuadratic"]:
            out, log_det = function(theta, at)
            assert not bool(jnp.isnan(out).any() | jnp.isnan(log_det).any())
            if abs(value) >= 2:
                assert bool((out == at).all() & (log_det == 0).all())
        if np.isfinite(value):
            gradients = jax.grad(lambda th, v: sum(each.sum() for each in SPLINE.direct(th, v)), argnums=(0, 1))(theta, at)
            assert all(bool(jnp.isfinite(each).all()) for each in gradients)
    assert all(bool(jnp.isnan(each).all()) for each in FUNCTIONS["RationalQuadratic"][0](theta, jnp.full(64, jnp.nan)))


def test_a_spline_is_monotone_and_its_density_continuous_at_knots_and_bounds():
    with enable_x64():
        theta = np.random.default_rng(3).normal(size=SPLINE.num_params)
        widths = 1e-3 + (1 - 4e-3) * np.exp(theta[:4]) / np.exp(theta[:4]).sum()
        knots = np.concatenate([[-2.0], 4 * np.cumsum(widths) - 2])
        x = np.sort(np.concatenate([np.linspace(-2.5, 2.5, 1000), knots - 1e-10, knots + 1e-10]))
        y, log_det = FUNCTIONS["RationalQuadratic"][0](np.tile(theta[:, None], (1, x.size)), x)
        assert (np.diff(y) > 0).all()
        near = np.diff(x) < 3e-10
        assert near.sum() == 5 and np.abs(np.diff(log_det))[near].max() < 1e-5
        assert np.abs(log_det).max() > 0.1


def test_the_affine_scale_is_bounded():
    theta = jnp.asarray([[1e30, -1e30, 2.0], [1.0, 1.0, 1.0]])
    y, log_det = t.Affine(bound=3.0).direct(theta, jnp.ones(3))
    np.testing.assert_allclose(log_det, [3.0, -3.0, 3 * np.tanh(2 / 3)], rtol=1e-6)
    np.testing.assert_allclose(y, np.exp(log_det) + 1, rtol=1e-6)


@pytest.mark.parametrize("call", [
    lambda: t.Affine(bound=0.0), lambda: t.Affine(bound="wide"), lambda: t.RationalQuadratic(num_bins=0),
    lambda: t.RationalQuadratic(bound=float("inf")), lambda: t.RationalQuadratic(num_bins=8, min_bin=0.2),
    lambda: t.RationalQuadratic(min_slope=1.0), lambda: flows.NSF(num_layers=0), lambda: flows.NSF(num_bins=2.5),
])  # fmt: skip
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(flows.FlowsError, match="expected"):
        call()
