"""Planar, radial and Sylvester maps: formulas by hand, extreme parameters, draws that solve once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred

import flows
from flows.bijections.planar import slope_of
from flows.diagnostics import enable_x64
from flows.transformers import solve

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
MAPS = (flows.Planar(), flows.Radial(), flows.Sylvester(3), flows.Sylvester(2, "householder"), flows.Sylvester(4, "triangular"))


def test_a_planar_map_is_that_of_its_paper():
    params = {"w": jnp.array([1.0, -2.0, 0.5, 0.0]), "u": jnp.array([-0.5, 0.7, 0.0, 2.0]), "b": jnp.array(0.3)}
    w, u = np.asarray(params["w"]), np.asarray(params["u"])
    m = 1e-3 + 0.999 * np.log1p((np.e - 1) * np.exp(w @ u)) - 1
    u = u + (m - w @ u) * w / (w @ w)
    y, log_det = flows.Planar()(0, 4).direct_fun(params, X)
    close(y, X + np.tanh(X @ w + 0.3)[:, None] * u, 1e-5)
    close(log_det, np.log(1 + w @ u * (1 - np.tanh(X @ w + 0.3) ** 2)), 1e-5)
    assert abs(w @ u - m) < 1e-5 and float(slope_of(jnp.zeros(()))) == pytest.approx(1.0, abs=1e-6)


def test_a_sylvester_map_of_one_direction_is_planar():
    params = {"r": jnp.zeros(0), "s": jnp.zeros(0), "p": jnp.array([0.7]), "log_s": jnp.array([0.4]), "b": jnp.array([0.3])}
    direction = jnp.array([[1.0], [2.0], [-1.0], [0.5]])
    q = np.asarray(jnp.linalg.qr(direction)[0])[:, 0]
    s = np.exp(5 * np.tanh(0.4 / 5))
    ridge = float((slope_of(params["p"]) - 1)[0] / s)
    h = np.tanh(s * X @ q + 0.3)
    y, log_det = flows.Sylvester(1)(0, 4).direct_fun({**params, "basis": direction}, X)
    close(y, X + ridge * h[:, None] * q, 1e-5)
    close(log_det, np.log(1 + ridge * s * (1 - h**2)), 1e-5)


@pytest.mark.parametrize("layer", MAPS, ids=repr)
def test_each_starts_at_the_identity_and_comes_back_at_extreme_parameters(layer):
    params, direct_fun, inverse_fun = layer(0, 4)
    close(direct_fun(params, X)[0], X, 1e-6)
    close(direct_fun(params, X)[1], np.zeros(len(X)), 1e-6)
    moves = []
    for size in (1.5, -2.0) if isinstance(params, dict) and "log_s" in params else (3.0, -8.0):
        moved = stirred(params, size)
        y, log_det = direct_fun(moved, X)
        moves.append(np.abs(y - X).max())
        assert np.isfinite(log_det).all()
        # A slope of at least 1e-3 makes of a rounding at most a thousand.
        assert np.abs(inverse_fun(moved, y)[0] - X).max() < 1e-3 * (1 + np.abs(X).max() + moves[-1])
    assert max(moves) > 0.5
    far = 1e6 * X
    close(inverse_fun(params, direct_fun(params, far)[0])[0], far, 1e-5)


def test_a_planar_map_without_a_direction_moves_all_points_alike():
    params = {"w": np.zeros(4, np.float32), "u": np.float32([1.0, -2.0, 0.5, 3.0]), "b": np.float32(0.3)}
    y, log_det = flows.Planar()(0, 4).direct_fun(params, X)
    close(y, X + np.tanh(0.3) * params["u"], 1e-6)
    close(log_det, np.zeros(len(X)), 1e-6)


def test_what_has_no_direction_is_finite():
    """w = 0, a point at the centre, u far beyond what is invertible: values and gradients stay numbers."""
    zero = jax.tree.map(jnp.zeros_like, flows.Planar()(0, 4).params)
    tiny = {**zero, "w": jnp.full(4, 5e-7), "u": jnp.full(4, -1e6)}
    for params, layer in (
        (zero, flows.Planar()),
        ({**zero, "u": -1e3 * jnp.ones(4), "w": jnp.ones(4)}, flows.Planar()),
        (tiny, flows.Planar()),
        ({**zero, "w": jnp.full(4, 1e20)}, flows.Planar()),
        ({**jax.tree.map(jnp.zeros_like, flows.Radial()(0, 4).params), "log_alpha": jnp.array(100.0)}, flows.Radial()),
        (jax.tree.map(jnp.zeros_like, flows.Radial()(0, 4).params), flows.Radial()),
    ):
        _, direct_fun, inverse_fun = layer(0, 4)
        at = np.concatenate([np.zeros((1, 4), np.float32), X])
        for function in (direct_fun, inverse_fun):
            values, pull = jax.vjp(function, params, jnp.asarray(at))
            gradients = pull(jax.tree.map(jnp.ones_like, values))
            assert all(np.isfinite(each).all() for each in jax.tree.leaves((values, gradients)))
    _, direct_fun, inverse_fun = flows.Planar()(0, 4)
    close(inverse_fun(tiny, direct_fun(tiny, X)[0])[0], X, 5.0)  # moved by 1e6


@pytest.mark.parametrize("layer", MAPS[2:], ids=str)
def test_sylvester_maps_are_numbers_at_the_ends_of_float32(layer):
    params = jax.tree.map(lambda x: x + 0.5, layer(0, 4).params)
    x = 3e38 * jnp.array([[1.0, 1, 1, 1], [1, -1, 1, -1]])
    _, direct_fun, inverse_fun = layer(0, 4)
    y, log_det = direct_fun(params, x)
    close(y / x, 1, 1e-6)
    close(log_det, 0, 1e-6)
    close(inverse_fun(params, y)[0] / x, 1, 1e-6)


def test_a_draw_with_its_density_solves_once(monkeypatch):
    calls: list = []
    monkeypatch.setattr("flows.bijections.planar.solve", lambda *args: calls.append(1) or solve.solve(*args))
    with flows.core.caching.fresh_caches():
        distribution = flows.Flow(flows.Planar())(0, 4)
        calls.clear()
        flows.sample_with_log_pdf(0, distribution.params, distribution, 5)
        assert len(calls) == 1
        backwards = flows.Flow(flows.Invert(flows.Planar()))(0, 4)
        calls.clear()
        x, log_p = flows.sample_with_log_pdf(0, backwards.params, backwards, 5)
        assert not calls, "noise to data is the direction without a root"
        close(log_p, backwards.log_pdf(backwards.params, x), 1e-4)


def test_contexts_move_all_parameters():
    with enable_x64():
        for layer in (flows.Planar(flows.MLP()), flows.Radial(flows.MLP()), flows.Sylvester(2, conditioner=flows.MLP())):
            plain = layer.constructor(**{**layer.arguments, "conditioner": None})
            params, direct_fun, _ = layer(0, 3, context_dim=2)
            params["conditioner"] = stirred(params["conditioner"], 0.5)
            context = np.array([0.5, -1.0])
            own = {key: each for key, each in params.items() if key != "conditioner"}
            ends = np.cumsum([own[key].size for key in sorted(own)])
            moves = np.split(context @ params["conditioner"][0]["w"] + params["conditioner"][0]["b"], ends[:-1])
            moved = {key: own[key] + move.reshape(own[key].shape) for key, move in zip(sorted(own), moves, strict=True)}
            x = np.random.default_rng(1).normal(size=(5, 3))
            for ours, expected in zip(direct_fun(params, x, context=context), plain(0, 3).direct_fun(moved, x), strict=True):
                close(ours, expected, 1e-12)
        assert np.abs(np.concatenate(moves)).min() > 1e-4


def test_errors_say_what_was_expected():
    assert "expected one of 'orthogonal'" in error_of(lambda: flows.Sylvester(2, "random"))
    assert "expected at most 2" in error_of(lambda: flows.Sylvester(3)(0, 2))
    assert "rank is 0" in error_of(lambda: flows.Sylvester(0))
    assert "expected a vector" in error_of(lambda: flows.Planar()(0, (2, 2, 3)))
    assert "give context_dim" in error_of(lambda: flows.Radial(flows.MLP(4))(0, 3))
    with pytest.raises(TypeError, match="conditioner"):
        flows.Planar(3)
    with pytest.raises(TypeError, match="context_dim was given"):
        flows.Planar()(0, 3, context_dim=2)
