"""Posteriors of simulators whose answer is known, at the sizes that users have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import flows
from flows import sbi

pytestmark = pytest.mark.slow
FIT = functools.partial(flows.fit, verbose=0)
A = np.random.default_rng(7).normal(size=(5, 8)).astype(np.float32) / 2
B = np.random.default_rng(3).normal(size=(3, 100)).astype(np.float32) / 2


def linear(key, theta):
    return theta["theta"] @ A + jax.random.normal(key, (8,))


def wide(key, theta, scale=1.0, shift=0.0):
    return theta["mean"] @ B + np.float32(scale) * jax.random.normal(key, (100,)) + np.float32(shift)


@pytest.fixture(scope="module")
def of_linear():
    prior = sbi.Prior({"theta": (flows.Normal(), 5)})
    return prior, sbi.simulate(0, prior, linear, 10_000, verbose=0)


def test_a_linear_posterior_is_within_a_tenth_of_a_nat(of_linear):
    prior, sims = of_linear
    posterior = sbi.fit_posterior(1, prior, sims, fit=FIT)
    covariance = np.linalg.inv(np.eye(5) + A @ A.T)
    root, rng, behind = np.linalg.cholesky(covariance), np.random.default_rng(0), []
    for x in sbi.simulate(9, prior, linear, 100, verbose=0).x:
        z = rng.normal(size=(500, 5))
        theta = covariance @ (A @ x) + z @ root.T
        exact = -0.5 * np.square(z).sum(1) - 2.5 * np.log(2 * np.pi) - np.log(np.diag(root)).sum()
        behind.append(np.mean(exact - np.asarray(posterior.log_prob(theta.astype(np.float32), context=x))))
    assert np.mean(behind) < 0.1


def test_a_likelihood_of_ten_rows_has_the_means_of_the_posterior(of_linear):
    prior, sims = of_linear
    likelihood = flows.fit(0, flows.Flow(flows.NSF()), sims.x, context=sims.theta, verbose=0)
    truth = prior.draw(5, 1)["theta"][0]
    rows = np.stack([linear(jax.random.key(i), {"theta": truth}) for i in range(10)])
    density = sbi.log_density(prior, likelihood, rows)
    drawn = flows.fit_to_density(2, None, density, prior.input_dim, support=prior.support, verbose=0).draw(0, 4_000)["theta"]
    covariance = np.linalg.inv(np.eye(5) + 10 * A @ A.T)
    deviations = np.sqrt(np.diag(covariance))
    close((np.asarray(drawn).mean(0) - covariance @ (A @ rows.sum(0))) / deviations, np.zeros(5), 0.2)


def test_observations_of_another_process_are_told():
    prior = sbi.Prior({"mean": (flows.Normal(), 3)})
    sims = sbi.simulate(0, prior, wide, 10_000, verbose=0)
    posterior = sbi.fit_posterior(1, prior, sims, fit=functools.partial(FIT, max_epochs=15, folds=1))
    processes = {"itself": ({}, 50), "noise": ({"scale": 1.5}, 10), "shift": ({"shift": 1.0}, 10)}
    passed = {}
    for name, (settings, n) in processes.items():
        rows = sbi.simulate(100, prior, functools.partial(wide, **settings), n, verbose=0).x
        passed[name] = sum(sbi.check_observation(i, posterior, sims, x, wide).passed for i, x in enumerate(rows))
    assert passed["itself"] >= 49 and passed["noise"] == passed["shift"] == 0, passed


def test_a_curved_posterior_is_near_the_exact_one_on_a_grid():
    def means(a, b, xp):
        return xp.stack([a + b**2 / 2, b - a**2 / 2], -1)

    prior = sbi.Prior({"a": flows.Uniform(-2.0, 2.0), "b": flows.Uniform(-2.0, 2.0)})

    def curved(key, theta):
        return means(theta["a"], theta["b"], jnp) + 0.3 * jax.random.normal(key, (2,))

    posterior = sbi.fit_posterior(1, prior, sbi.simulate(0, prior, curved, 10_000, verbose=0), fit=FIT)
    middles, cell = np.linspace(-1.995, 1.995, 400), 0.01**2
    grid, behind = np.stack(np.meshgrid(middles, middles, indexing="ij"), -1).reshape(-1, 2), []
    for x in sbi.simulate(9, prior, curved, 20, verbose=0).x:
        log_p = -0.5 * np.square((x - means(*grid.T, np)) / 0.3).sum(1)
        log_p -= np.log(np.exp(log_p).sum() * cell)
        log_q = np.asarray(posterior.log_prob(grid.astype(np.float32), context=x))
        behind.append((np.exp(log_p) * cell * (log_p - log_q)).sum())
    assert 0 < np.mean(behind) < 0.15


def test_sets_of_5_to_50_have_conjugate_means_and_deviations():
    prior = sbi.Prior({"mean": flows.Normal()})

    def draws(key, theta):
        keys = jax.random.split(key)
        here = (jnp.arange(50) < jax.random.randint(keys[0], (), 5, 51)).astype(jnp.float32)
        return jnp.stack([(theta["mean"] + jax.random.normal(keys[1], (50,))) * here, here], 1)

    sims = sbi.simulate(0, prior, draws, 10_000, verbose=0)
    posterior = sbi.fit_posterior(1, prior, sims, embedding=flows.conditioners.DeepSet(mask=True), fit=FIT)
    sets = sbi.simulate(5, prior, draws, 200, verbose=0).x
    counts = sets[..., 1].sum(1)
    drawn = np.asarray(posterior.draw(3, 1_000, context=sets)["mean"])
    errors = drawn.mean(1) - sets[..., 0].sum(1) / (counts + 1)  # the deviation of the prior is 1
    assert np.sqrt(np.square(errors).mean()) < 0.05 and np.abs(np.mean(errors * np.sqrt(counts + 1))) < 0.05
    ratios = drawn.std(1) * np.sqrt(counts + 1)
    for least, most in ((5, 15), (16, 30), (31, 50)):
        close(ratios[(counts >= least) & (counts <= most)].mean(), 1, 0.05)


@pytest.mark.filterwarnings("ignore:fit")  # of 50 rows held out, one is far out in a few of the 100 fits
def test_the_truth_lies_in_99_of_100_cuts():
    prior = sbi.Prior({"mean": (flows.Uniform(-10.0, 10.0), 2)})

    def noisy(key, theta):
        return theta["mean"] + 0.5 * jax.random.normal(key, (2,))

    sims, new = (sbi.simulate(seed, prior, noisy, n, verbose=0) for seed, n in ((0, 50_000), (1, 100)))
    model, short = flows.Flow(flows.NSF(1, hidden=(16,))), functools.partial(FIT, folds=1, max_epochs=30)
    inside = []
    for i, x in enumerate(new.x):
        posterior = sbi.fit_posterior(i, prior, sims[500 * i : 500 * (i + 1)], model=model, fit=short)
        cut = sbi.truncated(i, prior, posterior, x)
        inside.append(cut.share < 0.1 and np.isfinite(cut.log_prob(new.theta[i : i + 1]))[0])
    assert sum(inside) >= 99
