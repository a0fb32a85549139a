"""Objectives: values and gradients worked out by hand, and what each is for."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import error_of, stirred
from scipy.special import logsumexp, softmax

import flows
from flows import objectives
from flows.diagnostics import enable_x64

LOG_Z = 1.3
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
ESTIMATORS = {
    "reverse_kl": ("total", "sticking_the_landing", "path", "score"),
    "forward_kl": ("score", "path"),
    "importance_weighted_bound": ("total", "doubly_reparameterized"),
}
CASES = [(name, estimator) for name, estimators in ESTIMATORS.items() for estimator in estimators]


def gaussian(d):
    """Independent normals around loc + context, as a plain triple in which all can be worked out by hand."""

    def loc(params, context):
        return params["loc"][None] + (jnp.zeros((1, d)) if context is None else context.reshape(-1, d))

    def log_pdf(params, inputs, context=None):
        z = (inputs - loc(params, context)) / params["scale"][None]
        return -(0.5 * z**2 + jnp.log(params["scale"])[None] + HALF_LOG_2PI).sum(1)

    def sample(rng, params, num_samples=1, context=None):
        noise = jax.random.normal(rng, (num_samples, d), params["scale"].dtype)
        return loc(params, context) + params["scale"][None] * noise

    return {"loc": jnp.zeros(d), "scale": jnp.ones(d)}, log_pdf, sample


GAUSSIAN = gaussian(2)


def moved():
    return {"loc": jnp.array([0.5, -0.3]), "scale": jnp.array([1.3, 0.8])}


def standard(x):
    """The standard normal, times Z."""
    return LOG_Z - (0.5 * x**2 + HALF_LOG_2PI).sum(1)


def arguments(name, n, inner):
    return (n, inner) if name == "importance_weighted_bound" else (n,)


def by_hand(name, estimator, params, key, n, inner):
    """The value and the gradient to loc and scale, from nothing but the draws."""
    keys = jax.random.split(key, inner) if name == "importance_weighted_bound" else [key]
    x = np.stack([GAUSSIAN[2](each, params, n) for each in keys])  # (inner or 1, n, 2)
    loc, s = np.asarray(params["loc"]), np.asarray(params["scale"])
    e = (x - loc) / s
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
        params, key = moved(), jax.random.key(3)

        def loss(params, key):
            numbers = arguments(name, 5, 4)
            return getattr(objectives, name)(params, GAUSSIAN, standard, key, *numbers, estimator=estimator)

        value, gradient = jax.jit(jax.value_and_grad(loss))(params, key)
        expected, expected_gradient = by_hand(name, estimator, params, key, 5, 4)
        assert value.dtype == jnp.float64 and loss(params, key) == pytest.approx(expected, abs=1e-12)
    assert value == pytest.approx(expected, abs=1e-12)
    for leaf, each in gradient.items():
        np.testing.assert_allclose(each, expected_gradient[leaf], atol=1e-12)
        assert np.abs(each).min() > 1e-3


@functools.cache
def gradients(name, estimator, n, inner, repeats):
    """Gradients to loc and scale with many keys, (repeats, 4)."""

    def gradient(key):
        of_loss = jax.grad(getattr(objectives, name))
        each = of_loss(moved(), GAUSSIAN, standard, key, *arguments(name, n, inner), estimator=estimator)
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
    assert_equal_means(each, np.array([0.5, -0.3, 1.3 - 1 / 1.3, 0.8 - 1 / 0.8]))
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
    params = moved()
    m, s = (np.asarray(params[leaf]) for leaf in ("loc", "scale"))
    of = {
        "reverse_kl": (-np.log(s) + (s**2 + m**2 - 1) / 2).sum() - LOG_Z,
        "forward_kl": (np.log(s) + (1 + m**2) / (2 * s**2) - 0.5).sum(),
        "importance_weighted_bound": -LOG_Z,
    }
    for name, expected in of.items():
        loss = getattr(objectives, name)(params, GAUSSIAN, standard, 0, *arguments(name, 20_000, 100))
        assert loss == pytest.approx(expected, abs=0.02), name
    wide = (dict(params, scale=jnp.full(2, 2.0)), *GAUSSIAN[1:])
    loss = objectives.forward_kl(params, GAUSSIAN, standard, 0, 20_000, proposal=wide)
    assert loss == pytest.approx(of["forward_kl"], abs=0.02)


def test_a_proposal_changes_the_draws_and_not_the_gradient():
    params, wide = moved(), ({"loc": jnp.ones(2), "scale": jnp.full(2, 2.0)}, *GAUSSIAN[1:])
    gradient = jax.grad(objectives.forward_kl)(params, GAUSSIAN, standard, 0, 100_000, proposal=wide)
    m, s = (np.asarray(params[leaf]) for leaf in ("loc", "scale"))
    np.testing.assert_allclose(gradient["loc"], m / s**2, atol=0.03)
    np.testing.assert_allclose(gradient["scale"], 1 / s - (1 + m**2) / s**3, atol=0.05)
    x = wide[2](jax.random.key(5), wide[0], 50)
    log_w = np.asarray(standard(x) - wide[1](wide[0], x), float)
    log_ratio = np.asarray(standard(x) - GAUSSIAN[1](params, x), float)
    expected = (softmax(log_w) * log_ratio).sum() - logsumexp(log_w) + np.log(50)
    loss = objectives.forward_kl(params, GAUSSIAN, standard, 5, 50, proposal=wide)
    assert loss == pytest.approx(expected, abs=1e-5)


@functools.cache
def small_flow():
    distribution = flows.Flow(flows.AffineCoupling(flows.MLP(8)), flows.Normal(trainable=True))(0, 2)
    return distribution._replace(params=stirred(distribution.params, by=0.3))


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_at_the_target_all_draws_say_the_same(name, estimator):
    distribution = small_flow()
    held = distribution.params

    def target(x):
        return distribution.log_pdf(held, x) + LOG_Z

    of_loss = jax.value_and_grad(getattr(objectives, name))
    value, gradient = of_loss(held, distribution, target, 0, *arguments(name, 6, 3), estimator=estimator)
    assert value == pytest.approx(0 if name == "forward_kl" else -LOG_Z, abs=1e-5)
    trained = zip(jax.tree.leaves(gradient), jax.tree.leaves(flows.trainable(held)), strict=True)
    sizes = [float(jnp.abs(leaf).max()) for leaf, train in trained if train]
    if (name, estimator) == ("reverse_kl", "score"):
        assert max(sizes) < 1e-4
    elif estimator in ("total", "score"):
        assert min(sizes) > 1e-3
    else:
        assert max(sizes) == 0


def test_what_the_target_depends_on_is_trained_along():
    """As a decoder is: its gradient is that of the value, whatever the estimator of q's."""

    def of_target(shift, name, estimator):
        return getattr(objectives, name)(
            moved(), GAUSSIAN, lambda x: standard(x - shift[None]), 0, *arguments(name, 6, 3), estimator=estimator
        )

    shift = jnp.array([0.3, -0.2])
    for name in ("reverse_kl", "importance_weighted_bound"):
        total, *others = [jax.grad(of_target)(shift, name, estimator) for estimator in ESTIMATORS[name]]
        assert float(jnp.abs(total).min()) > 1e-2
        for other in others:
            np.testing.assert_allclose(other, total, rtol=1e-5)


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_a_context_has_the_gradient_of_what_it_moves(name, estimator):
    """The draws are around loc + context, so that both have the same gradient: an encoder that makes the context learns."""

    def loss(loc, context):
        params = dict(moved(), loc=loc)
        numbers = arguments(name, 6, 3)
        return getattr(objectives, name)(params, GAUSSIAN, standard, 0, *numbers, estimator=estimator, context=context)

    to_loc, to_context = jax.grad(loss, argnums=(0, 1))(jnp.array([0.4, 0.1]), jnp.array([0.2, -0.5]))
    np.testing.assert_allclose(to_context, to_loc, rtol=1e-5)
    assert float(jnp.abs(to_loc).min()) > 1e-3


def test_one_draw_or_several_for_each_row_of_context():
    rows = jnp.arange(8.0).reshape(4, 2)

    def target(x, context):
        return GAUSSIAN[1](GAUSSIAN[0], x, context) + context.sum(1)

    expected = -float(rows.sum(1).mean())
    assert objectives.reverse_kl(GAUSSIAN[0], GAUSSIAN, target, 0, 4, context=rows) == pytest.approx(expected, abs=1e-5)
    bound = objectives.importance_weighted_bound(GAUSSIAN[0], GAUSSIAN, target, 0, 4, 3, context=rows)
    assert bound == pytest.approx(expected, abs=1e-5)
    assert "jax.vmap" in error_of(lambda: objectives.forward_kl(GAUSSIAN[0], GAUSSIAN, target, 0, 4, context=rows))

    distribution = flows.Normal(conditioner=flows.MLP(4))(0, 2, context_dim=2)
    params, log_pdf, sample = distribution
    x, log_w = objectives.importance_samples(params, distribution, standard, 1, 4, context=rows)
    np.testing.assert_array_equal(x, sample(1, params, 4, context=rows))
    np.testing.assert_allclose(log_w, standard(x) - log_pdf(params, x, context=rows), rtol=1e-6)
    several = jax.vmap(lambda c: objectives.forward_kl(params, distribution, standard, 0, 16, context=c))(rows)
    assert several.shape == (4,) and several[1] == pytest.approx(
        float(objectives.forward_kl(params, distribution, standard, 0, 16, context=rows[1])), abs=1e-5
    )
    plain, older = flows.Normal()(0, 2), distribution._replace(params=jax.tree.map(lambda leaf: leaf + 0.1, params))
    for proposal in (plain, older):  # the first takes no context, the second needs it
        loss = objectives.forward_kl(params, distribution, standard, 0, 16, proposal=proposal, context=rows[0])
        assert np.isfinite(loss)


def test_maximum_likelihood_weighs_rows():
    distribution = small_flow()
    params, log_pdf, _ = distribution
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    log_p = np.asarray(log_pdf(params, x), float)
    assert objectives.maximum_likelihood(params, distribution, x) == pytest.approx(-log_p.mean(), rel=1e-6)
    w = np.array([2.0, 0.0, 1.0, 0.5, 3.0])
    loss = jax.jit(lambda params, w: objectives.maximum_likelihood(params, distribution, x, weights=w))(params, w)
    assert loss == pytest.approx(-np.average(log_p, weights=w), rel=1e-6)
    assert loss == pytest.approx(float(objectives.maximum_likelihood(params, distribution, x, weights=w * 7)), rel=1e-6)
    repeated = x[[0, 0, 2]]
    gradient = jax.grad(objectives.maximum_likelihood)
    for a, b in zip(
        jax.tree.leaves(gradient(params, distribution, repeated)),
        jax.tree.leaves(gradient(params, distribution, x, weights=[2, 0, 1, 0, 0])),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    outside = flows.Uniform()(0, 1)
    x = np.array([[0.5], [7.0]], np.float32)
    assert objectives.maximum_likelihood(outside.params, outside, x) == np.inf
    assert objectives.maximum_likelihood(outside.params, outside, x, weights=[1, 0]) == pytest.approx(
        -float(outside.log_pdf(outside.params, x[:1])[0])
    )


def test_maximum_likelihood_hands_on_keywords():
    params = flows.Flow(flows.BatchNorm())(0, 2)
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(20, 2)).astype(np.float32)
    at_test, in_training = (objectives.maximum_likelihood(params.params, params, x, train=train) for train in (False, True))
    assert in_training == pytest.approx(-float(params.log_pdf(params.params, x, train=True).mean()))
    assert abs(float(at_test - in_training)) > 1
    conditional = flows.Normal(conditioner=flows.MLP(4))(0, 2, context_dim=1)
    loss = objectives.maximum_likelihood(conditional.params, conditional, x, context=np.ones((20, 1)), rng=3)
    assert loss == pytest.approx(-float(conditional.log_pdf(conditional.params, x, context=np.ones((20, 1))).mean()))


def test_the_weights_of_a_mixture_learn_from_the_score():
    """KL = sum(pi log(pi / rho)) of components far apart: its gradient to logit k is pi_k (log(pi_k / rho_k) - KL)."""
    distribution = flows.GMM([[-9.0], [9.0]], [[[1.0]], [[1.0]]], [0.5, 0.5], trainable=True)(0, 1)
    target = flows.GMM([[-9.0], [9.0]], [[[1.0]], [[1.0]]], [0.8, 0.2])(0, 1)

    def gradient(estimator):
        of_loss = jax.grad(objectives.reverse_kl)
        log_density = functools.partial(target.log_pdf, target.params)
        return of_loss(distribution.params, distribution, log_density, 0, 4096, estimator=estimator)["logits"]

    kl = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    np.testing.assert_allclose(gradient("score"), 0.5 * (np.log([0.5 / 0.8, 0.5 / 0.2]) - kl), atol=0.03)
    np.testing.assert_allclose(gradient("path"), 0, atol=1e-6)


@pytest.mark.parametrize("estimator", ["total", "sticking_the_landing"])
def test_a_compiled_training_lands_where_its_estimator_can(estimator, relaxed):
    """At a constant rate the noise of "total" keeps it away from the optimum, where sticking the landing has none."""
    covariance = np.array([[1.0, 0.7], [0.7, 2.0]])
    target = flows.GMM([[1.0, -1.0]], [covariance], [1.0])(0, 2)
    distribution = flows.Normal(trainable=True, covariance="full")(0, 2)
    optimizer = optax.adam(0.03)

    def log_density(x):
        return target.log_pdf(target.params, x) + LOG_Z

    @jax.jit
    def train(params, key):
        def step(carry, key):
            params, state = carry
            loss, gradient = jax.value_and_grad(objectives.reverse_kl)(
                params, distribution, log_density, key, 8, estimator=estimator
            )
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

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
        numbers = arguments(name, 8, 2)
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
