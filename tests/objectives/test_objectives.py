"""Objectives: values and gradients worked out by hand, and what each is for."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import error_of, stirred
from scipy import stats
from scipy.special import logsumexp, softmax
from targets import ESTIMATORS, GAUSSIAN, LOG_Z, evaluated, objective, standard

import flows
from flows import objectives
from flows.diagnostics import enable_x64

CASES = [(name, estimator) for name, estimators in ESTIMATORS.items() for estimator in estimators]
LOC, SCALE = np.array([0.5, -0.3]), np.array([1.3, 0.8])


def moved():
    return {"loc": jnp.asarray(LOC, float), "scale": jnp.asarray(SCALE, float)}


def by_hand(name, estimator, params, key, n, inner):
    """The value and the gradient to loc and scale, from nothing but the draws."""
    keys = jax.random.split(key, inner) if name == "importance_weighted_bound" else [key]
    x = np.stack([GAUSSIAN[2](each, params, n) for each in keys])  # (inner or 1, n, 2)
    s = SCALE
    e = (x - LOC) / s
    log_w = LOG_Z - (0.5 * x**2).sum(2) + (0.5 * e**2 + np.log(s)).sum(2)
    score = {"loc": e / s, "scale": (e**2 - 1) / s}  # of log q
    total = {"loc": x, "scale": x * e - 1 / s}  # of -log w as it is
    path = {"loc": x - e / s, "scale": (x - e / s) * e}  # of -log w through x
    if name == "reverse_kl":
        value, all_equal = -log_w.mean(), np.full(log_w.shape, 1 / n)
        weights, gradient = {
            "total": (all_equal, total),
            "sticking_the_landing": (all_equal, path),
            "path": (all_equal, path),
            "score": (-(log_w - log_w.mean()) / (n - 1), score),
        }[estimator]
    elif name == "forward_kl":
        v = softmax(log_w, 1)
        value = (v * log_w).sum() - logsumexp(log_w) + np.log(n)
        weights, gradient = {"score": (-v, score), "path": (v * (1 - v), path)}[estimator]
    else:
        v = softmax(log_w, 0)
        value = -(logsumexp(log_w, 0) - np.log(inner)).mean()
        weights, gradient = {"total": (v / n, total), "doubly_reparameterized": (v**2 / n, path)}[estimator]
    return value, {leaf: (weights[..., None] * each).sum((0, 1)) for leaf, each in gradient.items()}


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_values_and_gradients_are_those_worked_out_by_hand(name, estimator):
    with enable_x64():
        value, gradient = evaluated(objective(name, 5, 4, estimator=estimator), moved(), 3)
        expected, expected_gradient = by_hand(name, estimator, moved(), jax.random.key(3), 5, 4)
    assert value.dtype == jnp.float64 and value == pytest.approx(expected, abs=1e-12)
    for leaf, each in gradient.items():
        np.testing.assert_allclose(each, expected_gradient[leaf], atol=1e-12)
        assert np.abs(each).min() > 1e-3


@functools.cache
def gradients(name, estimator, n, inner, repeats):
    """Gradients to loc and scale with many keys, (repeats, 4)."""

    def gradient(key):
        each = jax.grad(objective(name, n, inner, estimator=estimator))(moved(), key)
        return jnp.concatenate([each["loc"], each["scale"]])

    return np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(1), repeats)), float)


def assert_equal_means(a, b):
    """Columns of a and of b, or the numbers b, within 5 standard errors."""
    errors = [each.std(0) / len(each) ** 0.5 if np.ndim(each) == 2 else 0 for each in (a, b)]
    means = [each.mean(0) if np.ndim(each) == 2 else each for each in (a, b)]
    assert (np.abs(means[0] - means[1]) < 5 * np.hypot(*errors)).all(), (means, errors)


@pytest.mark.parametrize("estimator", ["total", "sticking_the_landing", "score"])
def test_gradients_of_the_reverse_kl_have_the_mean_of_its_closed_form(estimator):
    """KL = sum(-log s + (s^2 + m^2 - 1) / 2)."""
    each = gradients("reverse_kl", estimator, 4, 1, 20_000)
    assert_equal_means(each, np.concatenate([LOC, SCALE - 1 / SCALE]))
    assert (each.std(0) / 20_000**0.5).max() < 0.02


def test_estimators_have_the_same_mean_at_few_draws_where_weights_are_far_from_even():
    score, path = (gradients("forward_kl", estimator, 3, 1, 40_000) for estimator in ESTIMATORS["forward_kl"])
    assert_equal_means(score, path)
    estimators = ESTIMATORS["importance_weighted_bound"]
    total, doubly = (gradients("importance_weighted_bound", estimator, 1, 3, 40_000) for estimator in estimators)
    assert_equal_means(total, doubly)
    assert (doubly.std(0) < total.std(0)).all()
    for each in (score, path, total, doubly):  # small enough errors to tell v (1 - v) from v, and v^2 from v
        assert (each.std(0) / 200 < 0.1 * np.abs(each.mean(0)).max()).all()


def test_values_are_the_divergences():
    m, s = LOC, SCALE
    of = {
        "reverse_kl": (-np.log(s) + (s**2 + m**2 - 1) / 2).sum() - LOG_Z,
        "forward_kl": (np.log(s) + (1 + m**2) / (2 * s**2) - 0.5).sum(),
        "importance_weighted_bound": -LOG_Z,
    }
    for name, expected in of.items():
        loss = jax.jit(objective(name, 20_000, 100))(moved(), jax.random.key(0))
        assert loss == pytest.approx(expected, abs=0.02), name


def test_a_proposal_changes_the_draws_and_not_the_divergence():
    wide = {"loc": np.ones(2, np.float32), "scale": np.full(2, 2.0, np.float32)}
    loss = objective("forward_kl", 100_000, proposal=(wide, *GAUSSIAN[1:]))
    value, gradient = evaluated(loss, moved())
    m, s = LOC, SCALE
    assert value == pytest.approx((np.log(s) + (1 + m**2) / (2 * s**2) - 0.5).sum(), abs=0.02)
    np.testing.assert_allclose(gradient["loc"], m / s**2, atol=0.03)
    np.testing.assert_allclose(gradient["scale"], 1 / s - (1 + m**2) / s**3, atol=0.05)
    x = np.asarray(GAUSSIAN[2](jax.random.key(0), wide, 100_000), float)
    log_p = stats.norm.logpdf(x).sum(1) + LOG_Z
    log_w = log_p - stats.norm.logpdf(x, 1, 2).sum(1)
    expected = softmax(log_w) @ (log_p - stats.norm.logpdf(x, m, s).sum(1)) - logsumexp(log_w) + np.log(100_000)
    assert value == pytest.approx(expected, abs=1e-5)


@functools.cache
def small_flow():
    distribution = flows.Flow(flows.AffineCoupling(flows.MLP(4)))(0, 2)
    return distribution._replace(params=stirred(distribution.params, by=0.3))


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_at_the_target_all_draws_say_the_same(name, estimator):
    distribution = small_flow()

    def loss(params, key):
        held = jax.lax.stop_gradient(params)
        target = lambda x: distribution.log_pdf(held, x) + LOG_Z  # noqa: E731
        return objective(name, 6, 3, distribution, target, estimator=estimator)(params, key)

    value, gradient = evaluated(loss, distribution.params)
    assert value == pytest.approx(0 if name == "forward_kl" else -LOG_Z, abs=1e-5)
    trained = zip(jax.tree.leaves(gradient), jax.tree.leaves(flows.trainable(gradient)), strict=True)
    sizes = [float(jnp.abs(leaf).max()) for leaf, train in trained if train]
    if (name, estimator) == ("reverse_kl", "score"):
        assert max(sizes) < 1e-4
    elif estimator in ("total", "score"):
        assert min(sizes) > 1e-3
    else:
        assert max(sizes) == 0


def test_what_the_target_depends_on_is_trained_along():
    """As a decoder is: its gradient is that of the value, whatever the estimator of q's."""

    def gradient(name, estimator):
        def loss(shift, key):
            target = lambda x: standard(x - shift[None])  # noqa: E731
            return objective(name, 6, 3, target=target, estimator=estimator)(moved(), key)

        return evaluated(loss, jnp.array([0.3, -0.2]))[1]

    for name in ("reverse_kl", "importance_weighted_bound"):
        total, *others = [gradient(name, estimator) for estimator in ESTIMATORS[name]]
        assert float(jnp.abs(total).min()) > 1e-2
        for other in others:
            np.testing.assert_allclose(other, total, rtol=1e-5)


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_a_context_has_the_gradient_of_what_it_moves(name, estimator):
    """The draws are around loc + context, so that both have the same gradient: an encoder that makes the context learns."""

    def loss(centre, key):
        params = dict(moved(), loc=centre["loc"])
        return objective(name, 6, 3, estimator=estimator, context=centre["context"])(params, key)

    gradient = evaluated(loss, {"loc": jnp.array([0.4, 0.1]), "context": jnp.array([0.2, -0.5])})[1]
    to_loc, to_context = gradient["loc"], gradient["context"]
    np.testing.assert_allclose(to_context, to_loc, rtol=1e-5)
    assert float(jnp.abs(to_loc).min()) > 1e-3


def test_one_draw_or_several_for_each_row_of_context():
    rows = jnp.arange(8.0).reshape(4, 2)

    def target(x, context):
        return standard(x - context) + context.sum(1)

    for name in ("reverse_kl", "importance_weighted_bound"):
        loss = jax.jit(objective(name, 4, 3, target=target, context=rows))(GAUSSIAN[0], jax.random.key(0))
        assert loss == pytest.approx(-LOG_Z - float(rows.sum(1).mean()), abs=1e-5)
    assert "jax.vmap" in error_of(lambda: objective("forward_kl", 4, context=rows)(GAUSSIAN[0], 0))


def test_the_library_s_own_conditional_distributions():
    rows = jnp.arange(8.0).reshape(4, 2)
    distribution = flows.Normal(conditioner=flows.MLP(4))(0, 2, context_dim=2)
    params, log_pdf, sample = distribution
    key = jax.random.key(1)

    @jax.jit
    def draws(params, rows):
        x, log_w = objectives.importance_samples(params, distribution, standard, key, 4, context=rows)
        return x, log_w, sample(key, params, 4, context=rows), standard(x) - log_pdf(params, x, context=rows)

    x, log_w, same_x, same_log_w = draws(params, rows)
    np.testing.assert_array_equal(x, same_x)
    np.testing.assert_allclose(log_w, same_log_w, rtol=1e-6)
    older = distribution._replace(params=jax.tree.map(lambda leaf: leaf + 0.1, params))

    def of_context(row, **given):
        return objective("forward_kl", 16, None, distribution, context=row, **given)(params, key)

    for proposal in (None, GAUSSIAN, flows.Normal()(0, 2), older):  # the third takes no context, the last needs it
        loss = jax.jit(jax.vmap(lambda row, r=proposal: of_context(row, proposal=r)))
        assert bool(jnp.isfinite(loss(rows)).all())


def test_maximum_likelihood_weighs_rows():
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    log_p = stats.norm.logpdf(x, LOC, SCALE).sum(1)
    w = np.array([2.0, 0.0, 1.0, 0.5, 3.0])

    def loss(params, w):
        return objectives.maximum_likelihood(params, GAUSSIAN, x, weights=w)

    compiled = jax.jit(jax.value_and_grad(loss))
    assert loss(moved(), None) == pytest.approx(-log_p.mean(), rel=1e-6)
    for value in (loss(moved(), w), loss(moved(), 7 * w), compiled(moved(), w)[0]):
        assert value == pytest.approx(-np.average(log_p, weights=w), rel=1e-6)
    gradient = compiled(moved(), w)[1]
    np.testing.assert_allclose(gradient["loc"], -np.average((x - LOC) / SCALE**2, axis=0, weights=w), rtol=1e-5)
    assert np.isnan(compiled(moved(), w * np.nan)[0])


def test_rows_without_weight_may_have_any_density():
    distribution = {}, lambda params, x: jnp.where(x[:, 0] < 1, -2.0, -jnp.inf), GAUSSIAN[2]
    x = np.array([[0.5], [7.0]], np.float32)
    assert objectives.maximum_likelihood({}, distribution, x) == np.inf
    assert objectives.maximum_likelihood({}, distribution, x, weights=[1, 0]) == 2


def test_maximum_likelihood_hands_on_keywords():
    distribution = params, log_pdf, _ = flows.Flow(flows.BatchNorm())(0, 2)
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(20, 2)).astype(np.float32)
    at_test, in_training = (objectives.maximum_likelihood(params, distribution, x, train=train) for train in (False, True))
    assert in_training == pytest.approx(-float(log_pdf(params, x, train=True).mean()))
    assert abs(float(at_test - in_training)) > 1
    seen = {}

    def log_pdf(params, x, context=None, rng=None):
        seen.update(context=context, rng=rng)
        return x[:, 0]

    objectives.maximum_likelihood({}, ({}, log_pdf, GAUSSIAN[2]), x, context=5, rng=3)
    assert seen == {"context": 5, "rng": 3}


def test_the_weights_of_a_mixture_learn_from_the_score():
    """KL = sum(pi log(pi / rho)) of components far apart: its gradient to logit k is pi_k (log(pi_k / rho_k) - KL)."""
    distribution = flows.Mixture(flows.Normal(trainable=True), num_components=2)(0, 1)
    params = dict(distribution.params, components={"loc": jnp.array([[-9.0], [9.0]]), "log_scale": jnp.zeros((2, 1))})

    def target(x):
        return jnp.logaddexp(standard(x - 9) + math.log(0.2), standard(x + 9) + math.log(0.8))

    def gradient(estimator):
        return evaluated(objective("reverse_kl", 4096, None, distribution, target, estimator=estimator), params)[1]["logits"]

    kl = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    np.testing.assert_allclose(gradient("score"), 0.5 * (np.log([0.5 / 0.8, 0.5 / 0.2]) - kl), atol=0.03)
    np.testing.assert_allclose(gradient("path"), 0, atol=1e-6)


@pytest.mark.parametrize("estimator", ["total", "sticking_the_landing"])
def test_a_compiled_training_lands_where_its_estimator_can(estimator, relaxed):
    """At a constant rate the noise of "total" keeps it away from the optimum, where sticking the landing has none."""
    covariance = np.array([[1.0, 0.7], [0.7, 2.0]])
    tril = np.linalg.cholesky(covariance)
    inverse = jnp.asarray(np.linalg.inv(tril), float)
    distribution = flows.Normal(trainable=True, covariance="full")(0, 2)
    optimizer = optax.adam(0.03)

    def log_density(x):
        return standard((x - jnp.array([[1.0, -1.0]])) @ inverse.T) - math.log(np.linalg.det(tril))

    @jax.jit
    def train(params, key):
        def step(carry, key):
            params, state = carry
            gradient = jax.grad(objective("reverse_kl", 8, None, distribution, log_density, estimator=estimator))(params, key)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, 1000))[0][0]

    params = train(distribution.params, jax.random.key(0))
    log_w = objectives.importance_samples(params, distribution, log_density, 1, 2000)[1]
    missing = 1 - objectives.effective_sample_size(log_w) / 2000
    if estimator == "total":
        assert 1e-4 < missing < 0.2
    else:
        assert missing < 1e-6
        assert objectives.log_normalizer(log_w).value == pytest.approx(LOG_Z, abs=1e-4)


def test_wrong_arguments_are_refused():
    params = GAUSSIAN[0]
    for name in ESTIMATORS:
        call = functools.partial(getattr(objectives, name), params)
        numbers = (8, 2)[: 1 + (name == "importance_weighted_bound")]
        assert "estimator is 'pathwise'; expected one of" in error_of(
            lambda call=call, numbers=numbers: call(GAUSSIAN, standard, 0, *numbers, estimator="pathwise")
        )
        for wrong in (
            lambda x: standard(x).sum(),
            lambda x: standard(x)[:, None],
            lambda x: 0.0,
            lambda x: jnp.zeros(len(x), int),
            lambda x: standard(x)[:-1],
        ):
            message = error_of(lambda call=call, numbers=numbers, wrong=wrong: call(GAUSSIAN, wrong, 0, *numbers))
            assert name in message and "(8, 2) is" in message and "jax.vmap(log_density)" in message
        with pytest.raises(TypeError, match="log_density is 3"):
            call(GAUSSIAN, 3, 0, *numbers)
        with pytest.raises(TypeError, match="got a bijection's triple"):
            call(flows.ActNorm()(0, 2), standard, 0, *numbers)
        for triple in (flows.Normal(), GAUSSIAN[1], GAUSSIAN[:2]):
            with pytest.raises(TypeError, match="expected the triple"):
                call(triple, standard, 0, *numbers)
        assert f"{name}: num_samples" in error_of(
            lambda call=call, numbers=numbers: call(GAUSSIAN, standard, 0, 0, *numbers[1:])
        )
    assert "num_inner" in error_of(lambda: objectives.importance_weighted_bound(params, GAUSSIAN, standard, 0, 4, 0))
    assert "num_samples" in error_of(lambda: objectives.importance_samples(params, GAUSSIAN, standard, 0, 0))
    assert "needs 2" in error_of(lambda: objectives.reverse_kl(params, GAUSSIAN, standard, 0, 1, estimator="score"))
    assert "leave out proposal" in error_of(
        lambda: objectives.forward_kl(params, GAUSSIAN, standard, 0, 8, estimator="path", proposal=GAUSSIAN)
    )
    with pytest.raises(TypeError, match="forward_kl: proposal"):
        objectives.forward_kl(params, GAUSSIAN, standard, 0, 8, proposal=GAUSSIAN[2])
    x = jnp.zeros((3, 2))
    likelihood = functools.partial(objectives.maximum_likelihood, params, GAUSSIAN)
    assert "no rows" in error_of(lambda: likelihood(x[:0]))
    assert "shape (2,), expected (3,)" in error_of(lambda: likelihood(x, weights=[1.0, 2.0]))
    for bad in ([1, -1, 2], [0, 0, 0], [1, np.nan, 1], [1, np.inf, 1]):
        assert "not negative" in error_of(lambda bad=bad: likelihood(x, weights=bad))
