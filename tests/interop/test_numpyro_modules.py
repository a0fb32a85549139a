"""Models that train within a program: what is declared, what stays, and how often it is traced."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from common import stirred
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO

import flows
from flows.interop.numpyro import distribution, module
from flows.interop.numpyro.svi import split, with_fixed

pytestmark = pytest.mark.usefixtures("relaxed")
# Fixed permutations and signs beside what trains: of a matrix, of its factors; and a fixed order of features.
MIXED = flows.Flow(flows.Serial(flows.InvertibleLinear(), flows.Shuffle(), flows.AffineCoupling(flows.MLP(4))))
GIVEN = flows.Flow(flows.Serial(flows.Coupling(flows.MLP(4)), flows.Coupling(flows.MLP(4), flip=True)))
MIXING = np.array([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]])
X = jnp.asarray(np.random.default_rng(0).normal(size=(40, 3)) @ MIXING + 2, jnp.float32)


def prior(x):
    site = module("p", MIXED, 3)()
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", site, obs=x)


def params_of(seed, init_fun=MIXED):
    """What a call declares, and the distribution that it makes."""
    with handlers.trace() as trace, handlers.seed(rng_seed=seed):
        site = module("p", init_fun, 3)()
    return trace["p$params"]["value"], site


def test_what_trains_is_declared_and_what_is_fixed_stays():
    (first, site), (second, other) = params_of(0), params_of(1)
    trained, fixed = split(site.params)
    assert jax.tree.structure(first) == jax.tree.structure(trained) and len(jax.tree.leaves(fixed)) == 3
    jax.tree.map(np.testing.assert_array_equal, fixed, split(other.params)[1])
    network = [each["bijection"][2]["conditioner"] for each in (first, second)]
    assert not np.allclose(*[jax.tree.leaves(each)[1] for each in network])  # drawn with the handler's key
    jax.tree.map(np.testing.assert_array_equal, with_fixed(site.model, trained), site.params)
    # The factors of a matrix are those of one rotation: with the signs of another it may be all but singular.
    of_linear = flows.InvertibleLinear()(0, 3).direct_fun
    sites = [site, other, *(params_of(seed)[1] for seed in range(2, 6))]
    weights = [of_linear(each.params["bijection"][0], jnp.eye(3))[0] for each in sites]
    assert max(map(np.linalg.cond, weights)) < 1.001
    with handlers.substitute(data={"p$params": first}):  # no key is asked for
        again = module("p", MIXED, 3)()
    jax.tree.map(np.testing.assert_array_equal, again.params, site.params)


def test_a_hundred_updates_are_one_trace_and_densities_are_those_of_the_jacobian():
    traces = []

    def model(x):
        traces.append(1)
        prior(x)

    svi = SVI(model, lambda x: None, numpyro.optim.Adam(1e-2), Trace_ELBO())
    state, update = svi.init(jax.random.key(0), X), jax.jit(svi.update)
    traces.clear()
    losses = []
    for _ in range(100):
        state, loss = update(state, X)
        losses.append(float(loss))
    assert len(traces) == 1 and losses[-1] < losses[0] - 20
    with handlers.substitute(data=svi.get_params(state)):
        site = module("p", MIXED, 3)()
    bijection = MIXED.arguments["bijection"](0, 3)
    jacobians = jax.vmap(jax.jacfwd(lambda x: bijection.direct_fun(site.params["bijection"], x[None])[0][0]))(X[:5])
    noise = bijection.direct_fun(site.params["bijection"], X[:5])[0]
    log_p = dist.Normal(0.0, 1.0).log_prob(noise).sum(1) + jnp.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(site.log_prob(X[:5]), log_p, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_amortised_guide_and_predictive():
    """z ~ N(0, 1), x ~ N(z, 1): the posterior of each row is N(x / 2, 1 / 2)."""

    def guide(x):
        posterior = module("q", GIVEN, 2, context_dim=2)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", posterior(x))

    def model(x=None):
        with numpyro.plate("rows", 3 if x is None else len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    svi = SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO())
    x = jnp.asarray(np.random.default_rng(1).normal(size=(64, 2)), jnp.float32)
    params = svi.run(jax.random.key(0), 800, x, progress_bar=False).params
    draws = Predictive(guide, params=params, num_samples=400)(jax.random.key(1), x)["z"]
    assert draws.shape == (400, 64, 2)
    assert abs(draws.mean(0) - x / 2).mean() < 0.15 and abs(float(draws.std(0).mean()) - 0.5**0.5) < 0.1


@pytest.mark.slow
def test_mcmc_with_a_trained_prior_is_traced_once():
    params, site = params_of(0)
    traces = []

    def model(y):
        traces.append(1)
        z = numpyro.sample("z", module("p", MIXED, 3)())
        numpyro.sample("y", dist.Normal(z.sum(), 0.5), obs=y)

    model_of = handlers.substitute(model, data={"p$params": params})
    mcmc = MCMC(NUTS(model_of), num_warmup=100, num_samples=200, progress_bar=False)
    mcmc.warmup(jax.random.key(0), 1.0)
    at_first = len(traces)
    mcmc.run(jax.random.key(0), 1.0)
    assert at_first < 10 and len(traces) == at_first  # as often as NumPyro looks at a model before it starts
    z = site.sample(jax.random.key(1), (20_000,))
    weights = jnp.exp(dist.Normal(z.sum(1), 0.5).log_prob(1.0))
    expected = (weights[:, None] * z).sum(0) / weights.sum()
    np.testing.assert_allclose(mcmc.get_samples()["z"].mean(0), expected, atol=0.3)


PRIORS = {"line": (-math.inf, math.inf), "box": (0.0, 1.0), "half-line": (0.0, math.inf)}
COUPLING, Y = flows.Coupling(flows.MLP(8)), jnp.array([0.0, 0.5])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "box")) for name in PRIORS])
def test_nuts_with_a_flow_as_prior_and_as_likelihood(name):
    """Against importance sampling: draws of the prior, weighted by the likelihood."""

    def fitted(bijection, by, context_dim=0):
        init_fun = flows.Flow(bijection)
        params, *functions = init_fun(0, 2, context_dim=context_dim)
        return flows.FitResult(stirred(params, by), *functions, init_fun, 2, context_dim)

    ends = [] if name == "line" else [flows.Unconstrain(*PRIORS[name])]
    prior, seen = distribution(fitted(flows.Serial(*ends, COUPLING), 0.3)), fitted(COUPLING, 0.5, 2)

    def model(y):
        numpyro.sample("y", distribution(seen, context=numpyro.sample("z", prior)), obs=y)

    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=1_000, num_chains=4, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    found, z = mcmc.get_samples()["z"], prior.sample(jax.random.key(1), (100_000,))
    weights = np.exp(distribution(seen, context=z).log_prob(Y), dtype=float)
    mean = np.average(z, axis=0, weights=weights)
    deviation = np.sqrt(np.average((z - mean) ** 2, axis=0, weights=weights))
    assert abs(z.mean(0) - mean)[0] > 0.4 * deviation[0], "the likelihood says nothing"
    assert (abs(found.mean(0) - mean) < 0.1 * deviation).all()
    np.testing.assert_allclose(found.std(0), deviation, rtol=0.1)


def test_bad_input_names_the_remedy():
    with handlers.seed(rng_seed=0):
        for call, kind, words in (
            (lambda: module("a", flows.NSF(), 2), TypeError, "the bijection NSF.*expected a distribution"),
            (lambda: module("b", flows.Flow(flows.BatchNorm()), 2), flows.FlowsError, "running statistics.*ActNorm"),
            (lambda: module("c", flows.Flow(flows.Dequantize()), 2), flows.FlowsError, "lower bound"),
            (lambda: module("d", flows.Categorical(3), 1)(), flows.FlowsError, "codes"),
            (lambda: module("e", GIVEN, 2, context_dim=2)(), flows.FlowsError, "module 'e': context is missing"),
            (lambda: module("f", GIVEN, 2)(jnp.ones(2)), TypeError, "made without"),
        ):
            with pytest.raises(kind, match=words):
                call()
    with handlers.substitute(data={"p$params": {"w": jnp.ones(2)}}), pytest.raises(flows.FlowsError, match="params of 'p'"):
        module("p", MIXED, 3)
