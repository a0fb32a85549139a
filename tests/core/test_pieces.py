"""Densities of many rows are taken in pieces, and nobody can tell but by the time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows.core import numerics as loops

MODEL = flows.Flow(flows.MAF(2, hidden=(8,)))
ROWS = 103  # in pieces of 7 and a last one that is filled up


@pytest.fixture
def pieces(monkeypatch):
    """Pieces small enough for a test."""
    flows.clear_caches()
    monkeypatch.setattr(loops, "PIECE", 7)
    yield
    flows.clear_caches()


def scans(function, *args):
    return str(jax.make_jaxpr(function)(*args)).count(" scan[")


def test_pieces_are_the_whole(pieces, monkeypatch):
    x = jax.random.normal(jax.random.key(1), (ROWS, 3))
    context = jax.random.normal(jax.random.key(2), (ROWS, 2))
    init_fun = flows.Flow(flows.MAF(5, hidden=(8,), scan=True, plain=True), flows.Normal(conditioner=flows.MLP(4)))
    params, log_pdf, _ = init_fun(0, 3, context_dim=2)
    found = log_pdf(params, x, context=context), log_pdf(params, x, context=context[0])
    assert scans(lambda: log_pdf(params, x, context=context)) == 2, "the pieces, and the layers in them"
    monkeypatch.setattr(loops, "PIECE", 10**6)
    flows.clear_caches()
    log_pdf = init_fun(0, 3, context_dim=2).log_pdf
    assert scans(lambda: log_pdf(params, x, context=context)) == 1
    for one, shared in zip(found, (context, context[0]), strict=True):
        assert one.shape == (ROWS,) and float(jnp.std(one)) > 0.1
        np.testing.assert_allclose(one, log_pdf(params, x, context=shared), rtol=2e-5, atol=2e-5)


def test_what_is_differentiated_or_trained_is_taken_whole(pieces):
    x = jax.random.normal(jax.random.key(1), (ROWS, 3))
    params, log_pdf, _ = MODEL(0, 3)
    assert scans(log_pdf, params, x) == 1 and scans(log_pdf, params, x[:13]) == 0
    assert scans(lambda params: log_pdf(params, x, train=True), params) == 0
    assert scans(jax.grad(lambda params: log_pdf(params, x).mean()), params) == 0
    gradient = jax.grad(lambda x: log_pdf(params, x).sum())(x)
    by_rows = jax.vmap(jax.grad(lambda row: log_pdf(params, row[None])[0]))(x)
    np.testing.assert_allclose(gradient, by_rows, rtol=1e-4, atol=1e-5)
    value, slope = jax.jvp(lambda x: log_pdf(params, x), (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(slope, by_rows.sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, log_pdf(params, x), rtol=2e-5, atol=2e-5)
    assert jax.vmap(lambda by: log_pdf(params, x + by))(jnp.arange(2.0)).shape == (2, ROWS)


def test_one_bad_row_stays_alone(pieces):
    """The rows that fill the last piece are copies of the first, whatever it holds."""
    x = jax.random.normal(jax.random.key(1), (ROWS, 3)).at[0].set(jnp.nan)
    found = MODEL(0, 3).log_pdf(MODEL(0, 3).params, x)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()


def test_a_closure_over_a_tracer_is_differentiated(pieces):
    def layer(k):
        def init_fun(rng, input_dim, **kwargs):
            def direct_fun(params, x, **kwargs):
                return x * k + params, jnp.full(len(x), 3 * jnp.log(k))

            return jnp.ones(()), direct_fun, lambda params, y, **kwargs: ((y - params) / k, jnp.full(len(y), -3 * jnp.log(k)))

        return init_fun

    def mean(k, x):
        params, log_pdf, _ = flows.Flow(layer(k))(0, 3)
        return log_pdf(params, x).mean()

    x = jax.random.normal(jax.random.key(1), (ROWS, 3))
    exact = jax.grad(lambda k: -0.5 * jnp.square(x * k + 1).sum(1).mean() + 3 * jnp.log(k))(2.0)
    np.testing.assert_allclose(jax.grad(mean)(2.0, x), exact, rtol=1e-5)


def test_samples_are_made_in_pieces(pieces, monkeypatch):
    conditional = flows.Flow(flows.Coupling(flows.MLP(4, last_scale=1.0)))
    context = jax.random.normal(jax.random.key(2), (ROWS, 2))
    params = conditional(0, 3, context_dim=2).params
    found = []
    for piece in (7, 10**6):
        monkeypatch.setattr(loops, "PIECE", piece)
        flows.clear_caches()
        distribution = conditional(0, 3, context_dim=2)
        draws = distribution.sample(1, params, ROWS, context=context)
        both = flows.sample_with_log_pdf(1, params, distribution, ROWS, context=context)
        found.append((draws, *both))
        assert scans(lambda sample=distribution.sample: sample(1, params, ROWS, context=context)) == (piece == 7)
    for one, other in zip(*found, strict=True):
        assert len(one) == ROWS and float(jnp.std(one)) > 0.1
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
    drawing = flows.Flow(flows.Coupling(flows.conditioners.Residual(4, 1, dropout=0.5)))(0, 3)
    monkeypatch.setattr(loops, "PIECE", 7)
    assert scans(lambda: drawing.sample(1, drawing.params, ROWS)) == 0, "what draws is taken whole"
