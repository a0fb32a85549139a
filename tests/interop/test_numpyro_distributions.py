"""Every distribution as one of NumPyro's: theirs equal ours, under jit, vmap, plates and a batch of contexts."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from common import stirred
from numpyro.distributions import constraints
from numpyro.distributions.batch_util import vmap_over
from numpyro.infer.util import log_density
from registry import CODES, DIRECTIONAL, DISTRIBUTIONS

import flows
from flows.diagnostics import enable_x64
from flows.interop.models import model_of
from flows.interop.numpyro import distribution

ALL = DISTRIBUTIONS | DIRECTIONAL
CONTEXT = 2
BATCH = (2, 3)
REPRESENTATIVES = ("Flow-2-context", "Laplace trainable-1", "VonMises trainable-1", "VonMisesFisher-3", "Uniform-1")


@functools.cache
def fitted(init_fun, event, context_dim=0, seed=0):
    """A model as the result of a fit, with its params moved from their start."""
    params, *functions = init_fun(seed, event, context_dim=context_dim)
    return flows.FitResult(stirred(params, by=0.1), *functions, init_fun, event, context_dim)


def cases(quick=REPRESENTATIVES):
    for name, case in ALL.items():
        for event in case.events:
            for context in (True,) if case.needs_context else (False, True) if case.conditional else (False,):
                label = f"{name}-{event}{'-context' * context}"
                marks = [pytest.mark.slow] * (label not in quick)
                yield pytest.param(name, event, context, id=label, marks=marks)


def in_plate(site, value):
    """The log-density of a value of a plate of rows."""

    def model():
        with numpyro.plate("rows", value.shape[0]):
            numpyro.sample("x", site, obs=value)

    return log_density(model, (), {}, {})[0]


def compare(name, event, with_context, tolerance):
    result = fitted.__wrapped__(ALL[name].init_fun, event, CONTEXT if with_context else 0)
    dtype = jnp.result_type(*jax.tree.leaves(result.params), float)
    context = jnp.asarray(np.random.default_rng(1).normal(size=(*BATCH, CONTEXT)), dtype) if with_context else None
    site, batch = distribution(result, context=context), BATCH if with_context else ()
    assert (site.batch_shape, site.event_shape, site.is_discrete) == (batch, (event,), False)
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), result.params)

    def anew(params, x):
        return distribution(result._replace(params=params), context=context).log_prob(x)

    @jax.jit
    def program(site, copies):
        """One program of all, as compiling takes most of the time."""
        x, intermediates = site.sample_with_intermediates(jax.random.key(1), (4,))
        found = {"drawn": site.log_prob(x, intermediates), "jit": site.log_prob(x)}
        found |= {"vmap": jax.vmap(site.log_prob)(x), "anew": jax.vmap(anew, axis_size=4)(copies, x)}
        if with_context:
            axes = vmap_over(site, context=0)
            found["contexts"] = jax.vmap(lambda site, x: site.log_prob(x), in_axes=(axes, 1), out_axes=1)(site, x)
        else:
            found["plate"] = in_plate(site, x)
        if not with_context and jax.tree.leaves(copies):  # each of the events by params of its own
            stacked = jax.vmap(lambda params: distribution(result._replace(params=params)))(copies)
            found["stacked"] = stacked.log_prob(x)
            assert stacked.sample(jax.random.key(2), (5,)).shape == (5, 4, event)
        return x, found

    with jax.numpy_rank_promotion("allow"):
        x, found = program(site, copies)
    contexts = {} if context is None else {"context": jnp.broadcast_to(context, (4, *context.shape)).reshape(-1, CONTEXT)}
    ours = np.asarray(result.log_pdf(result.params, x.reshape(-1, event), **contexts)).reshape(4, *batch)
    assert x.shape == (4, *batch, event)
    np.testing.assert_array_equal(site.log_prob(x), ours)
    for how, theirs in found.items():
        # Densities of draws are those of the inverse, whose rounding is another.
        near = tolerance * {"drawn": 1e4, "plate": 4}.get(how, 1)
        np.testing.assert_allclose(theirs, ours.sum() if how == "plate" else ours, rtol=near, atol=near, err_msg=how)


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_theirs_equal_ours(name, event, with_context):
    compare(name, event, with_context, 1e-6)


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases(REPRESENTATIVES[:1])))
def test_in_float64(name, event, with_context):
    with enable_x64():
        compare(name, event, with_context, 1e-12)


def test_draws_of_one_context_are_those_of_the_result():
    result = fitted(ALL["Flow"].init_fun, 2, CONTEXT)
    site = distribution(result, context=np.ones(CONTEXT))
    np.testing.assert_array_equal(
        site.sample(jax.random.key(3), (6,)), result.sample(jax.random.key(3), result.params, 6, context=np.ones(CONTEXT))
    )


def test_where_points_live_is_one_constraint():
    line = flows.Flow(flows.ActNorm())
    assert distribution(fitted(line, 2)).support is constraints.real_vector
    assert distribution(fitted(line, 1), scalar=True).support is constraints.real
    assert distribution(fitted(flows.VonMises(), 2)).support == constraints.independent(constraints.circular, 1)
    assert distribution(fitted(flows.SphereUniform(), 3)).support is constraints.sphere
    day = distribution(fitted(flows.VonMises(period=24.0), 2)).support  # one turn around 0
    assert day(np.array([[-12.0, 12.0], [-12.1, 0.0]])).tolist() == [True, False]
    box = flows.Unconstrain(low=(0.0, -np.inf, 1.0), high=(np.inf, 5.0, 2.0))
    site = distribution(fitted(flows.Flow(box), 3))
    to_box = dist.biject_to(site.support)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)), jnp.float32)
    x = to_box(y)
    assert site.support(x).all() and site.support == distribution(fitted(flows.Flow(box), 3, seed=1)).support
    np.testing.assert_allclose(box(0, 3).direct_fun({}, x.reshape(-1, 3))[0].reshape(y.shape), y, rtol=2e-5, atol=2e-5)
    assert to_box.codomain == site.support and to_box.domain is constraints.real_vector
    assert bool(site.support(site.support.feasible_like(x)).all())
    column = dist.biject_to(distribution(fitted(flows.Flow(flows.Logit()), 1), scalar=True).support)
    assert column(jnp.zeros((2, 3))).tolist() == [[0.5] * 3] * 2 and column.log_abs_det_jacobian(0.0, 0.5) == np.log(0.25)


def test_numbers_of_one_column_are_scalars():
    result = fitted(flows.Flow(flows.ActNorm()), 1)
    site = distribution(result, scalar=True)
    x, intermediates = site.sample_with_intermediates(jax.random.key(0), (2, 3))
    assert (site.event_shape, x.shape) == ((), (2, 3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(site)).log_prob(x), site.log_prob(x))
    np.testing.assert_array_equal(site.log_prob(x).ravel(), result.log_prob(x.reshape(-1, 1)))
    np.testing.assert_allclose(site.log_prob(x, intermediates), site.log_prob(x), rtol=1e-5)


def test_it_is_expanded_masked_and_taken_for_one_event():
    site = distribution(fitted(ALL["Flow"].init_fun, 2))
    many = site.expand((3, 4)).to_event(1)
    x, intermediates = many.sample_with_intermediates(jax.random.key(0), (5,))
    assert x.shape == (5, 3, 4, 2)
    np.testing.assert_allclose(many.log_prob(x, intermediates), site.log_prob(x).sum(-1), rtol=1e-4)
    masked = site.mask(jnp.array([True, False]))
    assert masked.log_prob(x[0, 0, :2]).tolist() == [float(site.log_prob(x[0, 0, 0])), 0.0]


def test_gradients_flow_through_draws_but_not_where_they_pick():
    site = distribution(fitted(ALL["Flow"].init_fun, 2))
    gradient = jax.grad(lambda site: site.rsample(jax.random.key(0), (3,)).sum(), allow_int=True)(site)
    assert site.has_rsample and max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient.params)) > 0
    pairs = flows.Mixture(flows.Normal(), flows.Laplace()), flows.GMM(num_components=2)
    for base in (*pairs, flows.MixtureMADE(2, hidden=(4,)), flows.KernelDensity(5)):
        assert not distribution(fitted(flows.Flow(flows.ActNorm(), base), 2)).has_rsample, base


def test_ten_distributions_with_other_params_are_traced_once():
    init_fun, traces = flows.Flow(flows.Coupling(flows.MLP(3, last_scale=0.3))), []  # of this test alone: still kept
    result = fitted(init_fun, 2)

    @jax.jit
    def score(site, x):
        traces.append(1)
        return site.log_prob(x)

    found = [score(distribution(fitted(init_fun, 2, seed=i)), jnp.ones((3, 2))) for i in range(10)]
    assert len(traces) == 1 and len({float(each[0]) for each in found}) == 10
    assert distribution(result).model.known.first is result.log_pdf


def test_events_by_params_of_their_own():
    result = fitted(flows.Laplace(trainable=True), 2)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf + i / 3 for i in range(4)]), result.params)
    sites = jax.vmap(lambda params: distribution(result._replace(params=params)))(params)
    x = sites.sample(jax.random.key(0), (2, 3))
    assert x.shape == (2, 3, 4, 2)
    ours = [result.log_pdf(jax.tree.map(lambda leaf, i=i: leaf[i], params), x[:, :, i].reshape(6, 2)) for i in range(4)]
    np.testing.assert_allclose(sites.log_prob(x), jnp.stack(ours, 1).reshape(2, 3, 4), rtol=1e-6)
    np.testing.assert_allclose(sites.sample_with_intermediates(jax.random.key(0), (2, 3))[1][0], sites.log_prob(x), rtol=1e-5)


def error(kind, call, *words):
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_bad_input_names_the_remedy(relaxed):
    given = fitted(flows.Flow(ALL["Flow"].init_fun.arguments["bijection"]), 2, CONTEXT)
    plain = fitted(flows.Flow(flows.ActNorm()), 2)
    error(flows.FlowsError, lambda: distribution(given), "context is missing", "batch_shape")
    error(flows.FlowsError, lambda: distribution(given, context=np.ones(3)), "(3,)", "(..., 2)")
    error(TypeError, lambda: distribution(plain, context=np.ones(2)), "leave it out")
    error(flows.FlowsError, lambda: distribution(plain, scalar=True), "one column")
    wide = distribution(given, context=np.ones((3, CONTEXT)))
    error(flows.FlowsError, lambda: wide.log_prob(np.ones((4, 2))), "(4,)", "batch_shape (3,)")
    error(flows.FlowsError, lambda: distribution(plain).log_prob(np.ones(3)), "(..., 2)")
    error(flows.FlowsError, lambda: distribution(plain._replace(params={})), "params")
    error(TypeError, lambda: distribution(flows.Flow(flows.ActNorm())(0, 2)), "a triple", "flows.fit")
    error(TypeError, lambda: distribution(flows.NSF()), "expected the result of flows.fit")
    error(TypeError, lambda: distribution(plain._replace(init_fun=flows.ActNorm())), "bijection", "expected a distribution")
    bound = fitted(flows.Flow(flows.Serial(flows.Dequantize(), flows.ActNorm())), 2)
    error(flows.FlowsError, lambda: distribution(bound), "lower bound", "Dequantize")
    error(
        flows.FlowsError, lambda: distribution(fitted(CODES["Joint of Categorical"].init_fun, 3)), "codes", "dist.Categorical"
    )
    closure = plain._replace(init_fun=lambda rng, input_dim: flows.Flow(flows.ActNorm())(rng, input_dim))
    error(TypeError, lambda: distribution(closure), "plain closure")
    unbiased = flows.Flow(flows.ResidualBlock(flows.conditioners.Lipschitz(4), "unbiased"))
    assert model_of(unbiased, flows.core.DistributionInit, 1, 0, "taken").event == (1,)
    with pytest.raises(NotImplementedError, match="no bijection from the line to unit vectors"):
        dist.biject_to(distribution(fitted(flows.Joint(flows.SphereUniform(), flows.Normal(), sizes=(3, 1)), 4)).support)
