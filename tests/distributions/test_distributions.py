"""Every public distribution: samples follow the density, the density integrates to 1, Gaussian cases equal SciPy's."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import stirred
from registry import DISTRIBUTIONS, mixture, small
from scipy import stats

import flows
from flows.core.caching import fresh_caches
from flows.diagnostics import enable_x64

CONTEXT = 2
# What is published is made by the core, alike for all: a flow, leaves that train, copies, a context, a base of its own.
REPRESENTATIVES = ("Flow", "GMM trainable", "Mixture of copies", "Normal conditional", "MixtureMADE")


def cases(quick=lambda name, event, context: True):
    """One parameter for each case, event and presence of a context; what is not quick is slow."""
    for name, case in DISTRIBUTIONS.items():
        for event in case.events:
            for context in (True,) if case.needs_context else (False, True) if case.conditional else (False,):
                marks = [pytest.mark.slow] * (not quick(name, event, context))
                yield pytest.param(name, event, context, id=f"{name}-{event}{'-context' * context}", marks=marks)


def representative(name, event, context):
    case = DISTRIBUTIONS[name]
    return name in REPRESENTATIVES and event == case.events[-1] and context == (case.conditional or case.needs_context)


@functools.cache
def of_case(name, event, with_context):
    """What the tests below compare, from one compiled call: compile time is most of their time."""
    case, made = DISTRIBUTIONS[name], []
    given = {"context": np.array([0.5, -1.0])} if with_context else {}
    side = np.linspace(-1, 1, 401) * case.reach
    grid = np.stack(np.meshgrid(*[side] * event, indexing="ij"), axis=-1).reshape(-1, event)

    @jax.jit
    def program(key, grid, given):
        made[:] = case.init_fun(key, event, context_dim=CONTEXT if with_context else 0)
        params, log_pdf, sample = stirred(made[0], by=0.1), *made[1:]
        samples = sample(1, params, 2048, **given)
        few = samples[:7]  # odd, so that signs do not add up to 0
        gradient = jax.grad(lambda params: log_pdf(params, few, **given).sum())(params)
        return params, jnp.exp(log_pdf(params, grid, **given)), samples, gradient

    with enable_x64():
        params, values, samples, gradient = program(jax.random.key(0), grid, given)
    return SimpleNamespace(
        distribution=flows.Distribution(params, *made[1:]),
        given=given,
        side=side,
        values=np.asarray(values).reshape([len(side)] * event),
        samples=np.asarray(samples),
        gradient=jax.tree.map(np.asarray, gradient),
    )


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_the_density_integrates_to_one(name, event, with_context):
    of = of_case(name, event, with_context)
    assert of.values.sum() * (of.side[1] - of.side[0]) ** event == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_samples_follow_the_density(name, event, with_context):
    of = of_case(name, event, with_context)
    side, samples = of.side, of.samples
    assert samples.shape == (2048, event) and samples.dtype == np.float64
    for axis in range(event):
        others = tuple(i for i in range(event) if i != axis)
        marginal = of.values.sum(others)
        cdf = np.concatenate([[0.0], np.cumsum((marginal[1:] + marginal[:-1]) / 2)])
        result = stats.kstest(samples[:, axis], lambda x, cdf=cdf / cdf[-1]: np.interp(x, side, cdf))
        assert result.pvalue > 1e-3, f"column {axis}: {result}"


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_draws_and_density_lie_where_it_says(name, event, with_context):
    of = of_case(name, event, with_context)
    low, high = flows.support(DISTRIBUTIONS[name].init_fun, event, CONTEXT if with_context else 0).inputs
    assert ((of.samples >= low) & (of.samples <= high)).all()
    grid = np.stack(np.meshgrid(*[of.side] * event, indexing="ij"), axis=-1)
    assert (of.values[((grid < low) | (grid > high)).any(-1)] == 0).all()


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_every_trained_leaf_has_a_finite_gradient_that_is_not_zero(name, event, with_context):
    of = of_case(name, event, with_context)
    trained = jax.tree.leaves(flows.trainable(of.distribution.params))
    for (path, leaf), train in zip(jax.tree_util.tree_leaves_with_path(of.gradient), trained, strict=True):
        unmeasured = "['normal']" in jax.tree_util.keystr(
            path
        )  # a weight of correlations, of which there are none without data
        assert np.isfinite(leaf).all() and ((leaf != 0).any() == train or unmeasured)


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases(representative)))
def test_the_contract_of_a_distribution(name, event, with_context):
    of = of_case(name, event, with_context)
    (params, log_pdf, sample), given = of.distribution, of.given
    init_fun = DISTRIBUTIONS[name].init_fun
    keywords = {"context_dim": CONTEXT} if with_context else {}
    x = of.samples[:6]
    with enable_x64():
        values = log_pdf(params, x, **given)
        np.testing.assert_allclose(jax.jit(log_pdf)(params, x, **given), values, rtol=1e-12)
        rows = jax.jit(jax.vmap(lambda row: log_pdf(params, row[None], **given)[0]))(x)
        np.testing.assert_allclose(rows, values, rtol=1e-12)
        with fresh_caches():
            other = init_fun(9, event, **keywords)
        np.testing.assert_allclose(other.log_pdf(params, x, **given), values, rtol=1e-12)
    many = jax.eval_shape(jax.vmap(lambda key: init_fun(key, event, **keywords).params), jax.random.split(jax.random.key(0), 2))
    assert jax.tree.structure(many) == jax.tree.structure(params)
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    assert sample(0, low, 3, **given).dtype == log_pdf(low, x.astype(jnp.bfloat16), **given).dtype == jnp.float32
    assert log_pdf(low, np.zeros((0, event), np.float32), **given).shape == (0,)


def test_gaussian_cases_equal_scipy():
    x = np.random.default_rng(0).normal(size=(20, 2))
    means, covariances, weights = [np.array(mixture(False).arguments[name]) for name in ("means", "covariances", "weights")]
    expected = sum(w * stats.multivariate_normal(m, c).pdf(x) for m, c, w in zip(means, covariances, weights, strict=True))
    with enable_x64():
        for trainable in (False, True):
            params, log_pdf, _ = mixture(trainable)(0, 2)
            np.testing.assert_allclose(log_pdf(params, x), np.log(expected), rtol=1e-10)
        params, log_pdf, _ = flows.Normal(trainable=True)(0, 2)
        params = {"loc": jnp.array([1.0, -2.0]), "log_scale": 10 * jnp.arctanh(jnp.log(jnp.array([0.5, 3.0])) / 10)}
        np.testing.assert_allclose(log_pdf(params, x), stats.norm([1.0, -2.0], [0.5, 3.0]).logpdf(x).sum(1), rtol=1e-12)
        np.testing.assert_allclose(flows.Normal()(0, 2).log_pdf({}, x), stats.norm.logpdf(x).sum(1), rtol=1e-12)
        # A linear flow is a Gaussian with the covariance of the map.
        params, log_pdf, _ = flows.Flow(flows.InvertibleLinear())(0, 2)
        params = stirred(params, by=0.3)
        linear = flows.InvertibleLinear()(0, 2)
        w = linear.direct_fun(params["bijection"], np.eye(2))[0]
        covariance = np.linalg.inv(np.asarray(w @ w.T))
        np.testing.assert_allclose(log_pdf(params, x), stats.multivariate_normal([0, 0], covariance).logpdf(x), rtol=1e-9)


def test_a_context_reaches_the_prior_and_one_row_each():
    @flows.distribution
    def Shifted():
        def init_fun(rng, shape, context_dim=0):
            def sample(rng, params, context=None):
                return jax.random.normal(rng, shape) + context

            return {}, log_pdf, sample

        def log_pdf(params, x, context=None):
            return jax.scipy.stats.norm.logpdf(x - context).sum()

        return init_fun

    params, log_pdf, sample = flows.Flow(flows.ActNorm(), Shifted())(0, 2, context_dim=2)
    context = jnp.arange(8.0).reshape(4, 2) * 100
    rows = sample(0, params, 4, context=context)
    assert float(jnp.abs(rows - context).max()) < 10
    np.testing.assert_allclose(log_pdf(params, context, context=context), -np.log(2 * np.pi), rtol=1e-5)


def test_a_plain_closure_can_be_a_prior():
    def exponential(rng, input_dim):
        def sample(rng, params, num_samples=1):
            return jax.random.exponential(rng, (num_samples, input_dim))

        return {}, lambda params, inputs: -inputs.sum(1), sample

    params, log_pdf, sample = flows.Flow(flows.Serial(flows.Reverse(), flows.AffineCoupling(small)), exponential)(0, 3)
    assert sample(0, params, 5).shape == (5, 3) and log_pdf(params, jnp.ones((2, 3))).shape == (2,)
