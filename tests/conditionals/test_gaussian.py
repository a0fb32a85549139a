"""The normal distribution where numbers given others start."""

import jax
import jax.numpy as jnp
import numpy as np

import flows
from flows.conditionals import Number, gaussian

rng = np.random.default_rng(0)
D, N = 5, 400
MIXED = rng.normal(size=(D, D)) @ rng.normal(size=(D, N))
Y = np.float32((MIXED - MIXED.mean(1, keepdims=True)) / MIXED.std(1, keepdims=True))
Y[4] = Y[3]  # a copy
KNOWN = rng.uniform(size=(D, N)) < 0.5


def closed_form(mean, cov, y, known):
    """Mean and variance of one row's unknown columns."""
    k, u = np.flatnonzero(known), np.flatnonzero(~known)
    weights = np.linalg.solve(cov[np.ix_(k, k)], cov[np.ix_(k, u)])
    return u, mean[u] + (y[k] - mean[k]) @ weights, np.diag(cov[np.ix_(u, u)] - cov[np.ix_(u, k)] @ weights)


@jax.jit
def regressed(mean, cov, y, known):
    return gaussian.regressed(mean, gaussian.swept(mean, cov, y, known), known)


def test_columns_are_learnt_one_by_one_as_at_once():
    mean, cov, y = (jnp.asarray(array, jnp.float32) for array in (rng.normal(size=(D, 1)), np.cov(Y) + 1e-2 * np.eye(D), Y))
    at_once, state = (
        gaussian.swept(mean, cov, y, jnp.asarray(KNOWN)),
        gaussian.swept(mean, cov, y, jnp.zeros(KNOWN.shape, bool)),
    )
    for k in (3, 0, 4, 2, 1):
        state = gaussian.learnt(state, k, y[k] - mean[k], jnp.asarray(KNOWN[k]))
    for some, all_of_them in zip(state, at_once, strict=True):
        np.testing.assert_allclose(some, all_of_them, atol=2e-3)
        assert np.ptp(some) > 10


def test_sweeps_are_regressions():
    cov = np.cov(Y) + 1e-3 * np.eye(D)
    mean = rng.normal(size=(D, 1))
    arrays = [jnp.asarray(array, jnp.float32) for array in (mean, cov, Y)]
    means, variances, _ = regressed(*arrays, jnp.asarray(KNOWN))
    for i in range(20):
        u, expected, variance = closed_form(mean[:, 0], cov, Y[:, i].astype(float), KNOWN[:, i])
        np.testing.assert_allclose(means[u, i], expected, atol=2e-4)
        np.testing.assert_allclose(variances[u, i], variance, rtol=1e-2)


def test_residuals_are_of_the_other_known_columns():
    cov = np.cov(Y) + 1e-2 * np.eye(D)
    arrays = [jnp.asarray(array, jnp.float32) for array in (np.zeros((D, 1)), cov, Y)]
    got = np.where(KNOWN, regressed(*arrays, jnp.asarray(KNOWN))[2], 0)
    for i in range(20):
        for j in range(D):
            others = KNOWN[:, i] & (np.arange(D) != j)
            u, mean, variance = closed_form(np.zeros(D), cov, Y[:, i].astype(float), others)
            at = u.tolist().index(j)
            expected = (Y[j, i] - mean[at]) / np.sqrt(variance[at]) if KNOWN[j, i] else 0
            np.testing.assert_allclose(got[j, i], expected, atol=1e-3)


def test_a_covariance_is_measured_with_gaps():
    """As by EM from the covariance of whole rows; without gaps it is that covariance."""
    whole = jax.jit(gaussian.measured)(jnp.asarray(Y), jnp.ones(Y.shape, bool))
    np.testing.assert_allclose(whole["covariance"], np.cov(Y, bias=True) + gaussian.LEAST * np.eye(D), atol=1e-4)
    np.testing.assert_allclose(whole["mean"], 0, atol=1e-5)
    there = rng.uniform(size=Y.shape) < 0.8
    gappy = jax.jit(gaussian.measured)(jnp.asarray(np.where(there, Y, np.nan)), jnp.asarray(there))
    assert np.abs(gappy["covariance"] - np.cov(Y, bias=True)).max() < 0.1
    assert np.linalg.eigvalsh(np.asarray(gappy["covariance"], float)).min() > 0


def test_columns_with_a_spike_do_not_start_there():
    y = np.stack([np.where(np.arange(N) < N // 5, 0.3, Y[0]), np.round(Y[1], 2), Y[2]]).astype(np.float32)
    there = np.ones(y.shape, bool)
    assert gaussian.has_spike(jnp.asarray(y), jnp.asarray(there))[:, 0].tolist() == [True, False, False]
    there[0, : N // 5] = False
    assert not gaussian.has_spike(jnp.asarray(y), jnp.asarray(there)).any()


def test_a_model_starts_at_the_regression_on_what_is_known():
    rows = np.stack([Y[0], 3 * Y[0] + Y[1], 10 + Y[2]], 1)
    model = flows.AnySubset(Number(), Number(step=0.01), Number(), hidden=(4,), num_bins=2)
    params = model(0, 3, init_inputs=np.round(rows, 2)).params
    asked = flows.Conditional(model, 3, [1], [0])
    median = flows.FitResult(params, *asked(0, 1, context_dim=1)[1:], asked, 1, 1).quantile(0.5, context=rows[:50, :1])
    slope, start = np.polyfit(rows[:, 0], rows[:, 1], 1)
    np.testing.assert_allclose(median, start + slope * rows[:50, 0], atol=0.1)
    assert np.ptp(median) > 5


def test_more_numbers_than_a_row_can_sweep_have_no_start():
    assert "covariance" not in flows.AnySubset(hidden=(2,))(0, gaussian.MOST + 1).params["columns"][0]["fixed"]
    assert "covariance" in flows.AnySubset(hidden=(2,))(0, 2).params["columns"][0]["fixed"]


def test_gradients_in_entries_reach_the_means_of_the_columns_after_them():
    model = flows.AnySubset(Number(), Number(low=-30), Number(), hidden=(4,), num_bins=2)
    with jax.enable_x64(True):
        rows = Y[:3, :200].T.astype(float)
        params, log_pdf, _ = model(0, 3, init_inputs=rows)
        gradient, by = jax.grad(lambda x: log_pdf(params, x).sum())(jnp.asarray(rows[:9])), 1e-5 * np.eye(3)
        for j in range(3):
            differences = (log_pdf(params, rows[:9] + by[j]) - log_pdf(params, rows[:9] - by[j])) / 2e-5
            np.testing.assert_allclose(gradient[:, j], differences, rtol=1e-4, atol=1e-4)
