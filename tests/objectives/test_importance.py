"""Importance weights: constants of known targets, and what the weights say of themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of, stirred
from scipy import stats
from targets import (
    ESTIMATORS,
    GAUSSIAN,
    HALF_LOG_2PI,
    LOG_Z,
    TARGETS,
    evaluated,
    gaussian,
    objective,
    standard,
)

import flows
from flows import objectives


@functools.cache
def logistic():
    distribution = flows.Logistic(trainable=True)(0, 2)
    return distribution._replace(params=stirred(distribution.params, by=0.1))


@pytest.mark.parametrize("name", TARGETS)
def test_the_constants_of_known_targets(name):
    target, log_z = TARGETS[name]
    distribution = logistic()

    def samples(params, key):
        return objectives.importance_samples(params, distribution, target, key, 40_000)

    def bounds(params, key):
        bound = functools.partial(objectives.importance_weighted_bound, params, distribution, target, key)
        return jnp.stack([-bound(512, inner) for inner in (1, 8, 128)])

    params, key = distribution.params, jax.random.key(2)
    x, log_w = jax.jit(samples)(params, key)
    assert x.shape == (40_000, 2) and log_w.shape == (40_000,)
    estimate = objectives.log_normalizer(log_w)
    assert abs(estimate.value - log_z) < 4 * estimate.standard_error < 0.2
    assert objectives.pareto_k(log_w) < 0.7
    low, middle, high = jax.jit(bounds)(params, key).tolist()
    assert low < middle < high < log_z + 0.01
    assert low < log_z - 0.1 and high > log_z - 0.5


def test_weights_tell_of_too_narrow_a_proposal():
    """q = N(0, s^2) has weights whose tail is that of k = 1 - s^2 against N(0, 1)."""
    distribution = gaussian(1)

    def weights(s, n):
        params = dict(distribution[0], scale=jnp.array([s]))
        return jax.jit(lambda params: objectives.importance_samples(params, distribution, standard, 0, n)[1])(params)

    narrow, wide = weights(0.3, 50_000), weights(1.4, 50_000)
    assert 0.7 < objectives.pareto_k(narrow) < 1 and objectives.pareto_k(wide) < 0.1
    # ESS / n of a wide one tends to 1 / E[w^2] = sqrt(2 s^2 - 1) / s^2.
    assert objectives.effective_sample_size(wide) / 50_000 == pytest.approx((2 * 1.4**2 - 1) ** 0.5 / 1.4**2, rel=0.01)
    value, error = objectives.log_normalizer(wide)
    assert abs(value - LOG_Z) < 4 * error
    w = np.exp(np.asarray(wide, float) - 1)
    assert value == pytest.approx(1 + np.log(w.mean())) and error == pytest.approx(w.std(ddof=1) / w.mean() / 50_000**0.5)


@pytest.mark.parametrize("k", [-0.4, 0.0, 0.3, 0.7, 1.0, 1.6])
def test_pareto_k_is_the_shape_that_the_weights_were_drawn_with(k):
    w = stats.genpareto.rvs(k, scale=3.0, size=40_000, random_state=np.random.default_rng(1))
    found = objectives.pareto_k(np.log(w) + 900)
    m = 600
    assert found == pytest.approx((m * k + 5) / (m + 10), abs=3.5 * (1 + k) / m**0.5)
    assert found == pytest.approx(objectives.pareto_k(np.log(w)), abs=1e-6)
    tail = np.sort(w)[-m - 1 :]
    most_likely = stats.genpareto.fit(tail[1:] - tail[0], k, floc=0)[0]
    assert found == pytest.approx((m * most_likely + 5) / (m + 10), abs=0.03)


def test_a_short_tail_is_drawn_towards_a_half():
    """20 of 100 weights, against a prior that counts as 10: without it the mean over many sets would be about 1."""
    w = stats.genpareto.rvs(1.0, size=(400, 100), random_state=np.random.default_rng(2))
    assert np.mean([objectives.pareto_k(np.log(row)) for row in w]) == pytest.approx((20 * 1.0 + 5) / 30, abs=0.06)


def test_weights_without_a_tail_and_with_too_thin_a_one():
    rounding = 1e-6 * np.random.default_rng(0).normal(size=100)
    for even in (np.zeros(100), np.full(100, -1e4), rounding):
        assert objectives.pareto_k(even) == -np.inf
        assert objectives.effective_sample_size(even) == pytest.approx(100)
        assert objectives.log_normalizer(even).standard_error == pytest.approx(0, abs=1e-6)
    one = np.where(np.arange(100) == 7, 0.0, -2000.0)
    assert objectives.pareto_k(one) == np.inf and objectives.effective_sample_size(one) == 1
    assert objectives.log_normalizer([3.0]) == (3.0, np.inf)
    absent = np.concatenate([np.zeros(50), np.full(50, -np.inf)])
    assert objectives.effective_sample_size(absent) == pytest.approx(50)
    assert objectives.log_normalizer(absent).value == pytest.approx(-np.log(2))


@pytest.mark.parametrize("summary", ["log_normalizer", "effective_sample_size", "pareto_k"])
def test_weights_that_are_no_weights_are_refused(summary):
    summary = getattr(objectives, summary)
    bad = np.zeros(100)
    bad[17] = np.nan
    assert "log_weights[17] is nan (1 of 100" in error_of(lambda: summary(bad))
    bad[3] = np.inf
    assert "log_weights[3] is inf (2 of 100" in error_of(lambda: summary(jnp.asarray(bad)))
    assert "all log_weights are -inf" in error_of(lambda: summary(np.full(100, -np.inf)))
    for shape in ((0,), (), (100, 1)):
        assert f"shape {shape}" in error_of(lambda shape=shape: summary(np.zeros(shape)))
    assert "dtype int64" in error_of(lambda: summary(np.arange(100)))
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(summary)(jnp.zeros(100))


def test_a_short_tail_is_refused():
    assert "at least 25" in error_of(lambda: objectives.pareto_k(np.zeros(24)))
    assert np.isfinite(objectives.pareto_k(np.random.default_rng(0).normal(size=25)))


def test_points_without_density_carry_no_weight():
    def box(x):
        return jnp.where((jnp.abs(x) < 1).all(1), 0.0, -jnp.inf)

    params = dict(GAUSSIAN[0], scale=np.full(2, 0.7, np.float32))
    log_w = jax.jit(lambda params: objectives.importance_samples(params, GAUSSIAN, box, 0, 20_000)[1])(params)
    assert bool((log_w == -jnp.inf).any())
    estimate = objectives.log_normalizer(log_w)
    assert abs(estimate.value - np.log(4)) < 4 * estimate.standard_error < 0.1
    for estimator in ESTIMATORS["forward_kl"]:
        value, gradient = evaluated(objective("forward_kl", 20_000, target=box, estimator=estimator), params)
        # KL = -log 4 - E[log q] with E[x^2] = 1/3.
        assert value == pytest.approx(-np.log(4) + 2 * (HALF_LOG_2PI + np.log(0.7) + 1 / (6 * 0.49)), abs=0.02)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in gradient.values())
        if estimator == "score":
            np.testing.assert_allclose(gradient["scale"], 1 / 0.7 - 1 / (3 * 0.343), atol=0.03)
    assert objective("reverse_kl", 1000, target=box)(params, 0) == np.inf
    assert np.isnan(objective("forward_kl", 10, target=lambda x: jnp.full(len(x), -jnp.inf))(params, 0))
