"""Priors of simulators: names, ends, angles, cuts, and rows that depend on their number alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from scipy import stats

import flows
from flows import sbi

X = np.array([0.3, -0.2], np.float32)
QUIET = functools.partial(flows.fit, verbose=0, folds=1, max_epochs=3)


def wrong_type(call):
    with pytest.raises(TypeError) as caught:
        call()
    return str(caught.value)


@pytest.fixture(scope="module")
def prior():
    return sbi.Prior({"rate": flows.Uniform(0.5, 2.0), "shift": (flows.Normal(), 2), "phase": flows.CircularUniform()})


@pytest.fixture(scope="module")
def posterior():
    """The posterior of a mean of two columns, of which the closed-form start is exact."""
    wide = sbi.Prior({"mean": (flows.Normal(), 2)})
    sims = sbi.simulate(0, wide, lambda key, theta: theta["mean"] + 0.1 * jax.random.normal(key, (2,)), 2_000, verbose=0)
    return wide, sbi.fit_posterior(1, wide, sims, model=flows.Normal(trainable=True, regression=True), fit=QUIET)


def test_draws_densities_and_ends_are_by_name(prior):
    drawn = prior.draw(0, 50)
    assert {name: array.shape for name, array in drawn.items()} == {"phase": (50,), "rate": (50,), "shift": (50, 2)}
    expected = stats.norm.logpdf(np.asarray(drawn["shift"])).sum(1) - np.log(1.5) - np.log(2 * np.pi)
    close(prior.log_prob(drawn), expected, 1e-5)
    close(prior.log_prob(prior.vectors(drawn)), expected, 1e-5)
    assert prior.input_dim == {"phase": (), "rate": (), "shift": (2,)}
    assert prior.support["rate"] == (0.5, 2.0) and prior.support["phase"] == (-np.inf, np.inf)
    assert prior.periods.tolist() == pytest.approx([2 * np.pi, 0, 0, 0])
    assert float(prior.log_prob({**drawn, "rate": drawn["rate"] + 2})[0]) == -np.inf
    assert sbi.Prior(flows.Normal(), 2).support is None
    low, high = sbi.Prior(flows.Uniform(-1.0, 1.0), 2).support
    assert (low.tolist(), high.tolist()) == ([-1.0, -1.0], [1.0, 1.0])


def test_a_row_depends_on_its_number_alone(prior):
    few, many = prior.draw(3, 5), prior.draw(3, 1_200)
    jax.tree.map(lambda a, b: close(a, b[:5], 0), few, many)
    assert len(np.unique(many["rate"])) > 1_190
    close(prior.rows(jax.random.key(3), np.array([1_100])), np.asarray(prior.vectors(many))[1_100:1_101], 0)


def test_a_posterior_is_a_prior_and_a_cut_of_one(posterior):
    wide, result = posterior
    at = sbi.Prior(result, context=X)
    close(at.draw(0, 4_000)["mean"].mean(0), X / 1.01, 0.02)
    cut = sbi.truncated(0, wide, result, X, mass=0.99)
    drawn = cut.draw(1, 500)["mean"]
    assert (
        np.isfinite(cut.log_prob({"mean": drawn})).all() and float(cut.log_prob({"mean": jnp.zeros((1, 2)) + 3})[0]) == -np.inf
    )
    # the highest-density region of 99% of a normal of deviation 0.0995 is a disc
    radius = 0.0995 * np.sqrt(stats.chi2(2).ppf(0.99))
    assert np.linalg.norm(np.asarray(drawn) - X / 1.01, axis=1).max() == pytest.approx(radius, rel=0.15)
    share = np.pi * radius**2 * np.exp(-0.5 * np.square(X).sum()) / (2 * np.pi)
    assert cut.share == pytest.approx(share, rel=0.25)
    close(cut.log_prob({"mean": drawn}), wide.log_prob({"mean": drawn}) - np.float32(np.log(cut.share)), 1e-4)
    close(cut.draw(1, 20)["mean"], drawn[:20], 0)
    again = sbi.truncated(2, cut, result, X, mass=0.9)
    inner = np.asarray(again.draw(3, 200)["mean"])
    assert again.share < cut.share and np.linalg.norm(inner - X / 1.01, axis=1).max() < radius


def test_cuts_of_cuts_end(posterior):
    wide, result = posterior
    cut = wide
    for i, mass in enumerate((0.9, 0.8, 0.7)):
        cut = sbi.truncated(i, cut, result, X, mass=mass)
    drawn = np.asarray(cut.draw(9, 30)["mean"])
    assert np.isfinite(cut.log_prob(drawn)).all() and len(np.unique(drawn, axis=0)) == 30


def test_draws_of_a_thin_cut_follow_the_prior(posterior):
    """Where the cut is too thin for rejection, draws of the posterior are weighed: uniform on a disc, as the prior is there."""
    _, result = posterior
    wide = sbi.Prior({"mean": (flows.Normal(temperature=20.0), 2)})
    cut = sbi.truncated(0, wide, result, X, mass=0.9)
    assert cut.share < 1e-3
    far = np.linalg.norm(np.asarray(cut.draw(1, 2_000)["mean"]) - X / 1.01, axis=1)
    assert stats.kstest(np.square(far / far.max()), "uniform").statistic < 0.15  # without weights 0.27


def test_a_distribution_of_numpyro_is_a_prior():
    numpyro = pytest.importorskip("numpyro.distributions")
    from flows.interop.numpyro import FromDistribution

    rate, shift = FromDistribution(lambda: numpyro.Uniform(1.0, 3.0)), FromDistribution(lambda: numpyro.Gumbel(0.5))
    prior = sbi.Prior({"rate": rate, "shift": shift})
    drawn = prior.draw(0, 1_000)
    expected = stats.gumbel_r(0.5).logpdf(drawn["shift"]) - np.log(2)
    close(prior.log_prob(drawn), expected, 1e-4)
    close(drawn["rate"].mean(), 2.0, 0.1)
    assert prior.support["rate"] == (1.0, 3.0)


def test_errors_of_priors(posterior):
    wide, result = posterior
    assert "expected numbers and angles" in error_of(lambda: sbi.Prior({"code": flows.Categorical(3)}))
    assert "the marginal of 'a' is 1.0" in wrong_type(lambda: sbi.Prior({"a": 1.0}))
    assert "dim is missing" in wrong_type(lambda: sbi.Prior(flows.Normal()))
    assert "expected a dict by name" in wrong_type(lambda: sbi.Prior(3))
    assert "expected parameters in a vector" in error_of(lambda: sbi.Prior(flows.Normal(), (2, 2)))
    assert "expected context=, one observation of shape (2,)" in error_of(lambda: sbi.Prior(result))
    assert "'mean': (n, 2)" in error_of(lambda: wide.log_prob({"other": np.zeros((3, 2))}))
    assert "expected (n, 2)" in error_of(lambda: wide.log_prob(np.zeros((3, 1))))
    assert "mass is 2" in error_of(lambda: sbi.truncated(0, wide, result, X, mass=2))
    nowhere = sbi.Prior({"mean": (flows.Uniform(50.0, 51.0), 2)})
    assert "the cut holds nothing of the prior" in error_of(lambda: sbi.truncated(0, nowhere, result, X))

    assert "the observation in context= is not finite" in error_of(lambda: sbi.Prior(result, context=X * np.nan))
    assert "leave dim out" in wrong_type(lambda: sbi.Prior({"a": flows.Normal()}, 1))
    assert "leave it out" in wrong_type(lambda: sbi.Prior(flows.Normal(), 2, context=X))
    assert "expected truncated(rng, prior, posterior, x)" in wrong_type(lambda: sbi.truncated(0, flows.Normal(), result, X))

    @flows.distribution
    def Improper():
        return lambda rng, shape: ({}, lambda params, x: jnp.full((), jnp.inf), lambda rng, params: jnp.zeros(shape))

    assert "is it improper?" in error_of(lambda: sbi.Prior(Improper(), 2))
