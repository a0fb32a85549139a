"""Derivatives of scalar maps: of a theta that rows share, and of second order in both modes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import TRANSFORMERS
from test_splines import SPLINES

import flows
from flows.diagnostics import enable_x64

SHARED = [name for name in TRANSFORMERS if TRANSFORMERS[name].transformer.shared]
FEW = ("RationalQuadratic", "LinearSpline", "MixtureCDF")  # the others are in make test-all


def loss_of(transformer, weights):
    """The sum of y and of log dy/dx, each entry with a weight of its own."""

    def loss(direction, theta, x):
        return sum((w * each).sum() for w, each in zip(weights, transformer.apply(direction, theta, x), strict=True))

    return loss


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in SHARED])
def test_a_theta_that_rows_share_is_the_repeated_one(name):
    """Values and gradients, of features (2,) and rows (5,); of a spline in both directions, and of an image."""
    transformer, rng = TRANSFORMERS[name].transformer, np.random.default_rng(3)
    with enable_x64():
        for rows in ((5,), (3, 2, 2)) if name == "RationalQuadratic" else ((5,),):
            theta = rng.normal(size=(transformer.num_params, 2, *(1 for _ in rows)))
            x = rng.uniform(-2.5, 2.5, (2, *rows))
            loss = loss_of(transformer, rng.normal(size=(2, *x.shape)))

            @jax.jit
            def both(theta, x, loss=loss):
                whole = jnp.broadcast_to(theta, (len(theta), *x.shape))
                found = []
                for direction in ("direct", "inverse") if name in SPLINES else ("direct",):
                    shared = jax.value_and_grad(functools.partial(loss, direction), (0, 1))(theta, x)
                    value, (of_theta, of_x) = jax.value_and_grad(functools.partial(loss, direction), (0, 1))(whole, x)
                    found.append((shared, (value, (of_theta.sum(range(2, theta.ndim), keepdims=True), of_x))))
                return found

            for shared, repeated in both(theta, x):
                for got, expected in zip(jax.tree.leaves(shared), jax.tree.leaves(repeated), strict=True):
                    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
            assert np.abs(shared[1][0]).max() > 1e-3


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in SPLINES])
def test_a_spline_is_differentiated_twice_in_both_modes(name):
    """The gradient by differences of values; Hessians, forwards over either mode, by differences of gradients."""
    transformer, rng = TRANSFORMERS[name].transformer, np.random.default_rng(5)
    with enable_x64():
        theta, x = 0.7 * rng.normal(size=(transformer.num_params, 2)), np.array([-1.3, 0.4])
        loss, point = functools.partial(loss_of(transformer, rng.normal(size=(2, 2))), "direct"), np.append(theta, x)

        def of_vector(v):
            return loss(v[:-2].reshape(theta.shape), v[-2:])

        @jax.jit
        def program(v):
            steps, gradient = 1e-5 * jnp.eye(len(v)), jax.grad(of_vector)
            near = jnp.concatenate([v[None] + steps, v[None] - steps])
            hessians = [jax.jacfwd(gradient)(v)] + [jax.jacfwd(jax.jacfwd(of_vector))(v)] * (name == "RationalQuadratic")
            return gradient(v), jax.vmap(of_vector)(near), jax.vmap(gradient)(near), hessians

        gradient, values, gradients, hessians = program(point)
    first, second = ((a - b) / 2e-5 for a, b in (np.split(np.asarray(each), 2) for each in (values, gradients)))
    assert np.abs(first).max() > 0.1
    np.testing.assert_allclose(gradient, first, rtol=1e-6, atol=1e-7)
    for hessian in hessians:
        np.testing.assert_allclose(hessian, second, rtol=1e-5, atol=1e-6)


def test_free_ends_go_straight_on_with_the_slopes_at_the_bounds():
    transformer, rng = TRANSFORMERS["RationalQuadratic, free ends"].transformer, np.random.default_rng(7)
    with enable_x64():
        theta, bound = rng.normal(size=(transformer.num_params, 8)), transformer.bound
        ends = bound * np.repeat([-1.0, 1.0], 4)
        at = ends * np.tile([1 - 1e-9, 1 + 1e-9, 1.5, 4.0], 2)
        theta = np.repeat(theta[:, :1], 8, axis=1)
        y, log_slope = map(np.asarray, jax.jit(transformer.direct)(theta, at))
    np.testing.assert_allclose(log_slope.reshape(2, 4), np.repeat(log_slope[[1, 5], None], 4, axis=1), atol=1e-7)
    np.testing.assert_allclose(y, ends + np.exp(log_slope) * (at - ends), atol=1e-7)
    assert np.abs(log_slope).min() > 0.1


def test_a_spline_of_one_bin_has_gradients_where_rows_share_it():
    params, log_pdf, _ = flows.Flow(flows.Elementwise(flows.transformers.RationalQuadratic(1)))(0, 2)
    gradients = jax.tree.leaves(jax.grad(lambda params: log_pdf(params, jnp.ones((5, 2))).sum())(params))
    assert all(np.isfinite(each).all() for each in gradients)
