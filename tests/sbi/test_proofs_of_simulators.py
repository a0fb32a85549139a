"""Posteriors of simulators whose answer is known, at the sizes that users have."""

import functools

import jax
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
