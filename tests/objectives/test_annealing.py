"""Annealed weights and the divergence that covers, on densities whose constants are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of
from targets import GAUSSIAN, HALF_LOG_2PI, gaussian

import flows
from flows.objectives import alpha_divergence, annealed_importance_samples, effective_sample_size, forward_kl, log_normalizer

TRIPLE = gaussian(1)
WIDE = {"loc": np.zeros(1, np.float32), "scale": np.full(1, 3, np.float32)}
SEEDS = jax.random.split(jax.random.key(0), 20)


def apart(x, right=1.0):
    """Two normals eight deviations apart, of masses 2 and `right`."""
    return jnp.logaddexp(np.log(right) - 0.5 * (x[:, 0] - 4) ** 2, np.log(2) - 0.5 * (x[:, 0] + 4) ** 2)


def reflected(key, x, log_density):
    """A kernel that keeps any density that is even."""
    return -x, jnp.ones(len(x))


@pytest.mark.parametrize("kernel", [None, flows.mcmc.metropolis(1.0, 2), reflected], ids=["default", "metropolis", "own"])
def test_the_constant_is_right_and_its_error_honest(kernel):
    right = 2.0 if kernel is reflected else 1.0
    target, log_z = partial(apart, right=right), np.log(2 + right) + HALF_LOG_2PI

    def run(key):
        return annealed_importance_samples(WIDE, TRIPLE, target, key, 1_000, num_temperatures=8, kernel=kernel)

    x, log_w = jax.jit(jax.vmap(run))(SEEDS)
    estimates = [log_normalizer(weights) for weights in log_w]
    z = np.array([(estimate.value - log_z) / estimate.standard_error for estimate in estimates])
    assert np.abs(z).max() < 4 and 0.5 < np.mean(z**2) < 2
    if kernel is not reflected:  # the share of the mass on the left
        left = (np.asarray(jax.nn.softmax(log_w, 1)) * (np.asarray(x)[:, :, 0] < 0)).sum(1)
        assert np.mean(left) == pytest.approx(2 / 3, abs=0.03)
        plain = flows.objectives.importance_samples(WIDE, TRIPLE, apart, 0, 20_000)[1]
        assert np.mean([effective_sample_size(w) for w in log_w]) / 1_000 > 1.3 * effective_sample_size(plain) / 20_000


def test_draws_that_are_drawn_again_have_the_same_constant_and_more_effect():
    def run(key, resample):
        return annealed_importance_samples(WIDE, TRIPLE, far, key, 500, num_temperatures=8, resample=resample)[1]

    def far(x):
        return -0.5 * jnp.square((x[:, 0] - 7) / 0.5)

    log_z, found = np.log(0.5) + HALF_LOG_2PI, {}
    for resample in (False, True):
        log_w = np.asarray(jax.jit(jax.vmap(partial(run, resample=resample)))(SEEDS))
        z_hats = np.exp(np.logaddexp.reduce(log_w, 1) - np.log(500) - log_z)
        assert abs(z_hats.mean() - 1) < 4 * z_hats.std() / np.sqrt(20) < 1
        found[resample] = np.mean([effective_sample_size(w) for w in log_w])
    assert found[True] > 1.5 * found[False]


def test_a_result_with_named_parameters_gives_and_takes_dicts():
    def density(p):
        return -0.5 * jnp.square(p["a"] - 1) - 0.5 * jnp.square(p["b"]).sum(1)

    result = flows.fit_to_density(0, flows.Normal(trainable=True), density, {"a": (), "b": (2,)}, verbose=0, num_weights=500)
    x, log_w = annealed_importance_samples(result.params, result, density, 0, 50, num_temperatures=2)
    assert {name: part.shape for name, part in x.items()} == {"a": (50,), "b": (50, 2)}
    assert log_normalizer(log_w).value == pytest.approx(3 * HALF_LOG_2PI, abs=1e-3)


@pytest.mark.parametrize("temperatures", [0, 4])
def test_the_divergence_and_its_gradient_are_those_of_the_closed_form(temperatures):
    """Between N(0, 1) with the constant e and N(0, s): log(s^2 / sqrt(2 s^2 - 1)) + 2."""

    def closed(s):
        return jnp.log(s**2 / jnp.sqrt(2 * s**2 - 1)) + 2.0

    def loss(params, key):
        target = lambda x: 1.0 - 0.5 * x[:, 0] ** 2 - HALF_LOG_2PI  # noqa: E731
        return alpha_divergence(params, TRIPLE, target, key, 4_000, alpha=2.0, num_temperatures=temperatures)

    params = {"loc": jnp.zeros(1), "scale": jnp.full(1, 1.3)}
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, SEEDS)
    gradients = np.asarray(gradients["scale"])[:, 0]
    for found, exact in ((values, closed(1.3)), (gradients, jax.grad(closed)(1.3))):
        found = np.asarray(found)
        assert abs(found.mean() - exact) < 4 * found.std() / np.sqrt(20) < 0.1 * abs(exact)


def test_the_divergence_of_a_distribution_from_itself_is_0():
    target = lambda x: TRIPLE[1](WIDE, x)  # noqa: E731
    assert float(alpha_divergence(WIDE, TRIPLE, target, 0, 100, alpha=0.5)) == pytest.approx(0, abs=1e-5)


def test_bad_input_is_refused():
    run = partial(annealed_importance_samples, WIDE, TRIPLE)
    assert "NaN" in error_of(lambda: run(lambda x: jnp.where(x[:, 0] > 0, jnp.nan, 0.0), 0, 20)).replace("nan", "NaN")
    assert "num_temperatures" in error_of(lambda: run(apart, 0, 20, num_temperatures=0))
    short = error_of(lambda: run(apart, 0, 20, kernel=lambda key, x, log_density: (x[:1], jnp.ones(1))))
    assert "(1, 1)" in short and "(20, 1)" in short
    assert "expected (x, accepted)" in error_of(lambda: run(apart, 0, 20, kernel=lambda key, x, log_density: x))
    with pytest.raises(TypeError, match="a kernel"):
        run(apart, 0, 20, kernel=flows.Normal())
    rows = np.zeros((20, 2), np.float32)
    plane = partial(annealed_importance_samples, GAUSSIAN[0], GAUSSIAN, lambda x: -(x**2).sum(1), 0, 20, context=rows)
    assert "resample=False" in error_of(lambda: plane(resample=True))
    rounded = flows.Flow(flows.Dequantize(), flows.Normal())(0, 1)
    assert "lower bound" in error_of(lambda: annealed_importance_samples(rounded.params, rounded, apart, 0, 20))
    codes = flows.Categorical(3)(0, 1)
    assert "codes" in error_of(lambda: annealed_importance_samples(codes.params, codes, apart, 0, 20))
    sphere = flows.SphereUniform()(0, 3)
    assert "points of a sphere" in error_of(lambda: annealed_importance_samples(sphere.params, sphere, apart, 0, 20))
    assert "codes" in error_of(lambda: alpha_divergence(codes.params, codes, apart, 0, 20, num_temperatures=2))
    assert "forward_kl" in error_of(lambda: alpha_divergence(WIDE, TRIPLE, apart, 0, 20, alpha=1))
    assert "alpha" in error_of(lambda: alpha_divergence(WIDE, TRIPLE, apart, 0, 20, alpha=-1.0))
    assert "jax.vmap" in error_of(lambda: alpha_divergence(GAUSSIAN[0], GAUSSIAN, apart, 0, 20, context=rows))


def test_an_edge_of_the_target_does_not_stop_the_chains():
    """Where p is 0 nothing moves, whatever the size of steps, and the pilot run is not to shrink it for that."""

    def edge(x):
        return jnp.where(x[:, 0] > 1, -0.5 * jnp.square((x[:, 0] - 3) / 0.5), -jnp.inf)

    standard = {**WIDE, "scale": np.ones(1, np.float32)}
    log_w = annealed_importance_samples(standard, TRIPLE, edge, 0, 4_000, num_temperatures=8)[1]
    assert effective_sample_size(log_w) > 60  # 16 by plain weights, and with sizes that shrink


def test_a_unit_of_the_objective_far_from_nats_loses_no_epoch():
    def lowered(*arguments):
        return forward_kl(*arguments) - 1_000

    quick = {"max_epochs": 3, "steps_per_epoch": 5, "num_held_out": 100, "num_weights": 100, "starts": 1, "verbose": 0}
    target = lambda x: -0.5 * jnp.square(x[:, 0] - 1)  # noqa: E731
    result = flows.fit_to_density(0, flows.Normal(trainable=True), target, 1, objective=lowered, standardize=False, **quick)
    assert result.history["train_loss"].max() < -900 and result.history["best_epoch"] >= 0


def test_an_objective_that_is_not_a_number_is_named():
    def lost(*arguments):
        return forward_kl(*arguments) * jnp.nan

    quick = {"max_epochs": 1, "steps_per_epoch": 2, "num_held_out": 100, "num_weights": 100, "starts": 1, "verbose": 0}
    with pytest.raises(flows.FitError, match="the objective lost is nan"):
        flows.fit_to_density(0, flows.Normal(trainable=True), apart, 1, objective=lost, standardize=False, **quick)


def test_chains_that_stand_still_are_named():
    with pytest.warns(UserWarning, match=r"no proposal .* at 16 of 16 temperatures.*step_size=1000"):
        annealed_importance_samples(WIDE, TRIPLE, apart, 0, 20, kernel=flows.mcmc.hamiltonian(1e3))


def test_a_fit_minimises_an_objective_of_draws(tmp_path):
    normal, quick = flows.Normal(trainable=True), {"max_epochs": 4, "steps_per_epoch": 25, "num_held_out": 200, "verbose": 0}
    quick |= {"num_weights": 500, "standardize": False, "learning_rate": 0.03, "starts": 1, "checkpoint": tmp_path}
    covering = partial(alpha_divergence, alpha=2.0)
    result = flows.fit_to_density(0, normal, lambda x: apart(x * 2), 1, objective=covering, **quick)
    assert result.history.objective == "alpha_divergence" and "alpha_divergence" in repr(result)
    assert result.history["validation_loss"][-1] < result.history["start_loss"]
    assert np.exp(10 * np.tanh(result.params["log_scale"] / 10)) > 1.5  # it grows to cover both
    with pytest.raises(flows.FlowsError, match="objective"):
        flows.fit_to_density(0, normal, lambda x: apart(x * 2), 1, objective=forward_kl, **quick)


def test_an_objective_of_draws_has_a_form():
    fit = partial(flows.fit_to_density, 0, flows.Normal(trainable=True), apart, 1, verbose=0)
    with pytest.raises(TypeError, match=r"objective.*num_samples"):
        fit(objective=flows.objectives.maximum_likelihood)
    with pytest.raises(TypeError, match=r"functools\.partial"):
        fit(objective=forward_kl, estimator="score")
    vector = lambda params, distribution, log_density, rng, num_samples: jnp.ones(3)  # noqa: E731
    assert "scalar" in error_of(lambda: fit(objective=vector))
