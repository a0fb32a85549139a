"""Posteriors of simulators against exact ones, their checks, and checks of an observation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of

import flows
from flows import sbi
from flows.conditioners import DeepSet

A = np.random.default_rng(7).normal(size=(2, 3)).astype(np.float32)
SHORT = functools.partial(flows.fit, verbose=0, folds=1, max_epochs=4)
SMALL = flows.Flow(flows.MAF(1, hidden=(8,)))


def linear(key, theta):
    return theta["mean"] @ A + 0.5 * jax.random.normal(key, (3,))


def exact(x):
    precision = np.eye(2) + 4 * A @ A.T
    return np.linalg.solve(precision, 4 * A @ x.T).T, np.linalg.inv(precision)


@pytest.fixture(scope="module")
def prior():
    return sbi.Prior({"mean": (flows.Normal(), 2)})


@pytest.fixture(scope="module")
def sims(prior):
    return sbi.simulate(0, prior, linear, 3_000, verbose=0)


@pytest.fixture(scope="module")
def posterior(prior, sims):
    model = flows.Normal(trainable=True, covariance="full", regression=True)  # which the answer is
    return sbi.fit_posterior(1, prior, sims, model=model, fit=SHORT)


def test_a_linear_posterior_is_exact(posterior, prior):
    x = sbi.simulate(5, prior, linear, 20, verbose=0).x
    means, covariance = exact(x)
    drawn = np.asarray(posterior.draw(0, 2_000, context=x)["mean"])
    close(drawn.mean(1), means, 0.06)
    close(np.cov((drawn - drawn.mean(1, keepdims=True)).reshape(-1, 2), rowvar=False), covariance, 0.03)
    new = sbi.simulate(6, prior, linear, 300, verbose=0)
    checks = flows.check(posterior, {"mean": new.theta}, context=new.x, only=["ranks", "coverage", "tarp"])
    assert checks.passed, checks


def test_a_likelihood_of_several_rows_narrows(prior, sims):
    model = flows.Normal(trainable=True, covariance="full", regression=True)
    likelihood = flows.fit(0, model, sims.x, context=sims.theta, folds=1, max_epochs=4, verbose=0)
    rows = np.stack([linear(jax.random.key(i), {"mean": jnp.ones(2)}) for i in range(4)])
    density = sbi.log_density(prior, likelihood, rows)
    theta = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32) + 1
    of_rows = -2 * np.square(rows - (theta @ A)[:, None]).sum((1, 2))
    expected = of_rows - np.square(theta).sum(1) / 2
    values = np.asarray(density({"mean": theta}))
    slope, _ = np.polyfit(expected, values, 1)
    assert 0.9 < slope < 1.1 and np.corrcoef(expected, values)[0, 1] > 0.99
    close(density(theta), values, 1e-5)
    close(sbi.log_density(prior, likelihood, rows[0])(theta), sbi.log_density(prior, likelihood, rows[:1])(theta), 0)
    grads = jax.grad(lambda theta: density(theta).sum())(jnp.asarray(theta))
    assert np.isfinite(grads).all()


def test_rows_that_are_not_finite_are_left_out_and_counted(prior, sims):
    x = np.array(sims.x)
    x[7, 1] = np.nan
    broken = sbi.Simulations(sims.theta, x)
    with pytest.warns(UserWarning, match=r"1 of 3,000 rows are not finite \(row 7"):
        result = sbi.fit_posterior(1, prior, broken, model=flows.Normal(trainable=True, regression=True), fit=SHORT)
    assert result.history["rows"] + result.history["held_out"] == 2_999
    x[50:] = np.inf
    assert "expected at least 100 that are" in error_of(lambda: sbi.fit_posterior(1, prior, sbi.Simulations(sims.theta, x)))


def test_an_embedding_sees_an_image_or_a_set(prior, sims):
    sets = sbi.as_sets([row[: 1 + i % 3, None] for i, row in enumerate(sims.x[:400])])
    few = sbi.Simulations(sims.theta[:400], sets)
    network = DeepSet(hidden=(8,), after=(), mask=True)
    result = sbi.fit_posterior(0, prior, few, model=SMALL, embedding=(network, 2), fit=SHORT)
    assert result.parameters == {"mean": (2,)} and result.draw(0, 3, context=sets[:4])["mean"].shape == (4, 3, 2)
    # it starts as a flow without an embedding does: folds and a Gaussian start look through the context
    assert "EmbeddedContext(Flow(" in repr(result.init_fun) and "regression=True" in repr(result.init_fun)
    again = flows.check(result, few.theta, context=few.x, only=["ranks", "tarp", "classifier", "coverage"])
    assert len(again) == 4
    assert "expected embedding=, a network" in error_of(lambda: sbi.fit_posterior(0, prior, few))


def test_an_embedding_that_ignores_x_fails(prior, sims):
    @flows.conditioner
    def Blind():
        def net(rng, input_dim, output_dim):
            return {"w": jnp.zeros(output_dim)}, lambda params, x: jnp.broadcast_to(params["w"], (x.shape[0], output_dim))

        return net

    few = sims[:600]
    result = sbi.fit_posterior(0, prior, few, model=SMALL, embedding=(Blind(), 2), fit=SHORT)
    checks = flows.check(result, few.theta, context=few.x, only=["ranks", "tarp"])
    assert {check.verdict for check in checks.values()} == {"FAIL"}, checks
    assert "context column" in checks["ranks"].detail


def test_ends_and_angles_of_a_prior_stay():
    prior = sbi.Prior({"rate": flows.Uniform(0.5, 2.0), "phase": flows.CircularUniform(), "shift": flows.Normal()})

    def simulator(key, theta):
        wave = jnp.stack([jnp.cos(theta["phase"]), jnp.sin(theta["phase"]), theta["rate"], theta["shift"]])
        return wave + 0.3 * jax.random.normal(key, (4,))

    sims = sbi.simulate(0, prior, simulator, 400, verbose=0)
    fit = functools.partial(flows.fit, verbose=0, folds=1, max_epochs=1)
    result = sbi.fit_posterior(0, prior, sims, fit=fit)
    drawn = result.draw(0, 500, context=sims.x[0])
    assert float(drawn["rate"].min()) >= 0.5 and float(drawn["rate"].max()) <= 2
    assert [column.period > 0 for column in flows.checks.model.result_model(result).columns] == [True, False, False]


def test_an_observation_is_checked(posterior, prior, sims):
    held = sbi.simulate(9, prior, linear, 1_000, verbose=0)
    x = held.x[0]
    checks = sbi.check_observation(0, posterior, sims, x, linear)
    assert checks.passed and [check.verdict for check in checks.values()] == ["pass", "pass"], checks
    text = str(checks)
    assert "an observation of shape (3,), next to 3,000 simulations" in text and "log-likelihood" not in text
    far = sbi.check_observation(0, posterior, sims, x + 20, linear)
    assert [check.verdict for check in far.values()] == ["FAIL", "FAIL"] and "times as far" in far["outside"].detail
    alone = sbi.check_observation(0, posterior, sims, x)
    assert alone["predictive"].verdict == "cannot tell" and alone.arrays["distances"].shape[1] == 1_001
    by_numpy = sbi.check_observation(0, posterior, sims, x, lambda rng, theta: theta["mean"] @ A + 0.5 * rng.normal(size=3))
    assert by_numpy["predictive"].verdict == "pass"


def test_p_values_of_observations_are_right(posterior, prior, sims):
    held = sbi.simulate(9, prior, linear, 100, verbose=0)
    p = [sbi.check_observation(i, posterior, sims, x)["outside"].p for i, x in enumerate(held.x)]
    assert 0.35 < np.mean(p) < 0.65 and min(p) > 1e-3


def test_errors_of_posteriors(posterior, prior, sims):
    box = sbi.Prior({"mean": (flows.Uniform(-1.0, 1.0), 2)})
    row = int((np.abs(sims.theta) > 1).any(1).argmax())
    assert (
        f"theta of row {row}" in (message := error_of(lambda: sbi.fit_posterior(0, box, sims)))
        and "outside the prior" in message
    )
    assert "expected (n, 1)" in error_of(lambda: sbi.fit_posterior(0, sbi.Prior({"a": flows.Normal()}), sims))
    assert len(sims[:0] + sims[:2]) == 2
    assert "0 of 50 rows are not finite; expected at least 100" in error_of(lambda: sbi.fit_posterior(0, prior, sims[:50]))
    with pytest.raises(TypeError, match="a Prior and Simulations"):
        sbi.fit_posterior(0, prior, (sims.theta, sims.x))
    with pytest.raises(TypeError, match="no embed="):
        sbi.fit_posterior(0, prior, sims, embed=1)
    assert "x has shape (2,)" in error_of(lambda: sbi.check_observation(0, posterior, sims, [1.0, 2.0]))
    assert "not finite" in error_of(lambda: sbi.check_observation(0, posterior, sims, [1.0, 2.0, np.nan]))
    other = lambda key, theta: theta["mean"]  # noqa: E731
    assert "makes rows of shape (2,)" in error_of(lambda: sbi.check_observation(0, posterior, sims, sims.x[0], other))
    assert "expected at least 200" in error_of(lambda: sbi.check_observation(0, posterior, sims[:20], sims.x[0]))
    assert "expected (2,), theta" in error_of(lambda: sbi.log_density(prior, posterior, np.zeros((1, 2))))
    assert "set 1 has shape (2, 2)" in error_of(lambda: sbi.as_sets([np.zeros((2, 1)), np.zeros((2, 2))]))
    assert "of 1 to 2 elements" in error_of(lambda: sbi.as_sets([np.zeros(3)], most=2))
    assert "there are no sets" in error_of(lambda: sbi.as_sets([]))


def test_rows_on_the_disk_are_streamed_without_what_is_not_finite(prior, tmp_path):
    rows = 9_000  # of which blocks of 1,024 are held out

    def simulator(key, theta):
        x = linear(key, theta)
        return jnp.where(x[0] > 2.5, jnp.nan, x)

    sims = sbi.simulate(0, prior, simulator, rows, path=tmp_path, verbose=0)
    mapped = sbi.Simulations(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("theta", "x")))
    assert isinstance(mapped[:10].x, np.memmap) and mapped.valid.sum() == sims.valid.sum() < rows
    model = flows.Normal(trainable=True, covariance="full", regression=True)
    with pytest.warns(UserWarning, match="are left out"):
        result = sbi.fit_posterior(1, prior, mapped, model=model, fit=functools.partial(SHORT, max_epochs=2))
    assert result.history["rows"] + result.history["held_out"] == sims.valid.sum()
