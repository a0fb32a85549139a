"""The trained linear map: its inverse, a product with the inverse matrix, is as precise as solving would be."""

import jax
import jax.numpy as jnp
import numpy as np
from common import stirred

import flows
from flows.diagnostics import enable_x64

D = 6


def test_the_inverse_is_as_precise_as_solves():
    params, direct_fun, inverse_fun = flows.InvertibleLinear()(0, D)
    params = stirred(params, 0.5)
    params["log_s"] = jnp.linspace(-4.0, 4.0, D)
    with enable_x64():
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        matrix = np.asarray(direct_fun(wide, jnp.eye(D))[0])
    condition = np.linalg.cond(matrix)
    assert 1e3 < condition < 1e7
    y = np.random.default_rng(0).normal(size=(50, D)).astype(np.float32)
    x, log_det = inverse_fun(params, y)
    exact = np.linalg.solve(matrix.T, y.T.astype(float)).T
    assert np.abs(x - exact).max() < 1e-6 * condition * np.abs(exact).max()
    again = np.abs(np.asarray(x, float) @ matrix - y).max()
    assert again < 3e-7 * np.abs(x).max() * np.abs(matrix).max(), "the point found has the image that was asked for"
    np.testing.assert_allclose(log_det, -np.linalg.slogdet(matrix)[1], rtol=1e-5, atol=1e-5)
