"""Trained linear maps: where they start, that they stay invertible, and how precise their inverses are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred

import flows
from flows.diagnostics import enable_x64

D = 6
FACTORS = (
    flows.Triangular(),
    flows.Triangular(lower=False),
    flows.LinearQR(),
    flows.LinearSVD(),
    flows.LinearExponential(),
    flows.LinearLowRank(2),
    flows.InvertibleLinear(init="identity"),
)


@pytest.mark.parametrize("layer", FACTORS, ids=repr)
def test_factored_maps_start_at_the_identity_and_stay_invertible(layer):
    params, direct_fun, _ = layer(0, D)
    close(direct_fun(params, np.eye(D, dtype=np.float32))[0], np.eye(D), 1e-6)
    with enable_x64():
        far = stirred(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params), 2.0)
        far = {**params, **far, **({"fixed": params["fixed"]} if "fixed" in params else {})}
        matrix, log_det = direct_fun(far, np.eye(D))
        sign, expected = np.linalg.slogdet(np.asarray(matrix))
        assert sign == 1 and np.abs(log_det).max() > 1
        close(log_det, np.full(D, expected), 1e-9)


def test_triangles_are_on_the_side_that_was_asked_for():
    for lower, zeros in ((True, np.triu_indices(D, 1)), (False, np.tril_indices(D, -1))):
        params, direct_fun, _ = flows.Triangular(lower)(0, D)
        matrix = np.asarray(direct_fun(stirred(params, 1.0), np.eye(D, dtype=np.float32))[0]).T  # y = W x
        assert (matrix[zeros] == 0).all() and np.abs(matrix).min(initial=1, where=matrix != 0) < 10
        assert (matrix.T[zeros] != 0).all()


def test_a_low_rank_is_one():
    params, direct_fun, _ = flows.LinearLowRank(2)(0, D)
    moved = {**stirred(params, 1.0), "log_scale": jnp.zeros(D)}
    added = np.asarray(direct_fun(moved, np.eye(D, dtype=np.float32))[0]) - np.eye(D)
    assert (np.linalg.svd(added)[1] > 1e-4).sum() == 2


def test_errors_of_linear_maps_say_what_was_expected():
    assert "'orthogonal' or 'identity'" in error_of(lambda: flows.InvertibleLinear("random"))
    assert "expected at most 3" in error_of(lambda: flows.LinearLowRank(4)(0, 3))
    assert "rank is 0" in error_of(lambda: flows.LinearLowRank(0))
    for order in ((0, 0, 1), (1, 2, 3), (), ((0, 1),)):
        assert "each once" in error_of(lambda order=order: flows.Permute(order))
    assert "order has 3 features" in error_of(lambda: flows.Permute((2, 0, 1))(0, 4))


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


def test_permute_puts_features_in_the_given_order():
    params, direct_fun, _ = flows.Permute((2, 0, 1))(0, 3)
    assert direct_fun(params, jnp.array([[10.0, 11.0, 12.0]]))[0].tolist() == [[12.0, 10.0, 11.0]]
