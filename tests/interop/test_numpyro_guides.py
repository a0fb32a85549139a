"""Bijections as guides of NumPyro's: known answers, what is traced, what takes a guide, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from common import error_of, scale_closure
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, autoguide
from numpyro.infer.reparam import NeuTraReparam
from test_numpyro_models import LOG_Z, MEAN, Y, conjugate, discrete, negative_scale, not_a_number, observed, right

import flows
from flows.interop.numpyro import AutoFlow

pytestmark = pytest.mark.usefixtures("relaxed")
SMALL = flows.IAF(1, hidden=(4,), plain=True)
Y = jnp.asarray(Y, jnp.float32)
EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools():
    mu, tau = numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)


def trained(model, guide, steps, *args, particles=16):
    rate = optax.cosine_decay_schedule(1e-2, steps)
    svi = SVI(model, guide, optax.adam(rate), Trace_ELBO(num_particles=particles))
    return svi.run(jax.random.key(0), steps, *args, progress_bar=False).params


@pytest.fixture(scope="module")
def conjugate_guide():
    guide = AutoFlow(conjugate, SMALL)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return guide, trained(conjugate, guide, 1_500, Y)


def test_conjugate_posterior(conjugate_guide):
    guide, params = conjugate_guide
    draws = jax.jit(lambda params: guide.sample_posterior(jax.random.key(1), params, sample_shape=(10_000,)))(params)
    right(np.asarray(draws["x"]))
    assert set(draws) == {"x", "norm"}
    elbo = -jax.jit(lambda params: Trace_ELBO(num_particles=4_000).loss(jax.random.key(2), params, conjugate, guide, Y))(params)
    assert abs(elbo - LOG_Z) < 0.02


def test_what_is_declared(conjugate_guide):
    _, params = conjugate_guide
    assert set(params) == {"auto_params", "auto_loc", "auto_scale"}
    trains = flows.trainable(SMALL(0, 2).params)
    assert len(jax.tree.leaves(params["auto_params"])) == sum(jax.tree.leaves(trains)) < len(jax.tree.leaves(trains))
    assert params["auto_loc"].shape == params["auto_scale"].shape == (2,) and (params["auto_scale"] > 0).all()


def test_a_guide_of_another_prefix_and_scale():
    other = AutoFlow(conjugate, SMALL, prefix="q", init_scale=0.3)
    sites = handlers.trace(handlers.seed(other, 0)).get_trace(Y)
    assert {"q_params", "q_loc", "q_scale", "_q_latent"} < set(sites)
    np.testing.assert_allclose(sites["q_scale"]["value"], 0.3)
    with pytest.raises(NotImplementedError):  # the median of a mapped normal is not the map of 0
        other.median({})


def test_its_density_is_that_of_its_draws(conjugate_guide):
    guide, params = conjugate_guide
    z = jnp.array([0.3, -1.2])

    @jax.jit
    def found(params):
        posterior, transform = guide.get_posterior(params), guide.get_transform(params)
        x, intermediates = transform.call_with_intermediates(z)
        log_dets = [transform.log_abs_det_jacobian(z, x, given) for given in (intermediates, None)]
        return jax.jacfwd(transform)(z), log_dets, transform.inv(x), posterior.log_prob(x), guide.get_base_dist().log_prob(z)

    jacobian, log_dets, back, log_q, log_p = found(params)
    log_det = np.linalg.slogdet(np.asarray(jacobian, float))[1]
    np.testing.assert_allclose(log_dets, [log_det] * 2, atol=1e-5)
    np.testing.assert_allclose(back, z, atol=1e-5)
    np.testing.assert_allclose(log_q, log_p - log_det, atol=1e-5)


def test_an_elbo_inverts_nothing_and_100_updates_trace_once():
    traced = []

    def model():
        traced.append(1)
        numpyro.sample("x", dist.Normal(jnp.zeros(3), 1.0).to_event(1))

    guide = AutoFlow(model, SMALL)
    svi = SVI(model, guide, optax.adam(1e-2), Trace_ELBO(num_particles=2))
    state = svi.init(jax.random.key(0))
    # An inverse autoregressive flow finds the noise of a point feature by feature, in a loop, and draws without.
    assert "scan[" not in str(jax.make_jaxpr(svi.update)(state))
    params = svi.get_params(state)
    assert "scan[" in str(jax.make_jaxpr(lambda x: guide.get_posterior(params).log_prob(x))(jnp.zeros(3)))
    transform = guide.get_transform(params)
    assert "scan[" not in str(jax.make_jaxpr(lambda z: transform.log_abs_det_jacobian(z, transform(z)))(jnp.zeros(3)))
    update = jax.jit(svi.update)
    traced.clear()
    for _ in range(100):
        state, _ = update(state)
    assert len(traced) == 1


@pytest.mark.slow
def test_a_single_latent():
    def model():
        numpyro.sample("x", dist.Normal(3.0, 0.5))

    guide = AutoFlow(model, SMALL)
    draws = guide.sample_posterior(jax.random.key(1), trained(model, guide, 1_000), sample_shape=(5_000,))["x"]
    assert draws.shape == (5_000,) and abs(draws.mean() - 3) < 0.05 and abs(draws.std() - 0.5) < 0.05


def test_neutra_and_predictive_take_it(conjugate_guide):
    guide, params = conjugate_guide
    neutra = NeuTraReparam(guide, params)
    mcmc = MCMC(NUTS(neutra.reparam(conjugate)), num_warmup=100, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    samples = mcmc.get_samples()
    draws = neutra.transform_sample(samples["auto_shared_latent"])
    assert draws["norm"].shape == (500,) and np.abs(np.asarray(draws["x"]).mean(0) - MEAN).max() < 0.1
    predicted = Predictive(conjugate, guide=guide, params=params, num_samples=7)(jax.random.key(3), None)
    assert predicted["y"].shape == (7, 3)


def test_models_with_params_and_some_rows_a_step():
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 1.0, 50), jnp.float32)

    def model(x):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        sigma = numpyro.param("sigma", 3.0, constraint=dist.constraints.positive)
        with numpyro.plate("rows", len(x), subsample_size=10):
            numpyro.sample("x", dist.Normal(mean, sigma), obs=numpyro.subsample(x, event_dim=0))

    guide = AutoFlow(model, SMALL)
    params = trained(model, guide, 1_000, x, particles=4)
    draws = guide.sample_posterior(jax.random.key(1), params, sample_shape=(500,))
    assert abs(params["sigma"] - x.std()) < 0.2 and abs(draws["mean"].mean() - x.mean()) < 0.2


BIJECTIONS = [
    (flows.IAF, TypeError, "call it: IAF"),
    (flows.Normal(), TypeError, "expected a bijection"),
    (scale_closure, TypeError, "closure"),
    (flows.Serial(flows.ActNorm(), scale_closure), flows.FlowsError, "plain closure"),
    (flows.Dequantize(), flows.FlowsError, "lower bound"),
    (flows.RealNVP(2, hidden=(4,)), flows.FlowsError, "plain=True"),
    (flows.Serial(flows.Standardize(), SMALL), flows.FlowsError, "sees no data"),
    (flows.Logit(), flows.FlowsError, "part of the line"),
    (flows.Sigmoid(), flows.FlowsError, "part of the line"),
]


@pytest.mark.parametrize(("bijection", "kind", "part"), BIJECTIONS, ids=range(len(BIJECTIONS)))
def test_bijections_that_are_no_guide(bijection, kind, part):
    with pytest.raises(kind, match=part):
        handlers.seed(AutoFlow(conjugate, bijection), 0)(Y)


@pytest.mark.parametrize(
    "model, part", [(observed, "no latents"), (discrete, "'k' is discrete"), (not_a_number, "'y'"), (negative_scale, "'y'")]
)
def test_models_without_a_guide(model, part):
    message = error_of(lambda: handlers.seed(AutoFlow(model, SMALL), 0)())
    assert message.startswith("AutoFlow: ") and part in message


def test_a_start_without_density_and_scales_below_0():
    def model():
        numpyro.factor("nowhere", numpyro.sample("x", dist.Normal(0.0, 1.0)) * 0 - jnp.inf)

    message = error_of(lambda: handlers.seed(AutoFlow(model, SMALL), 0)())
    assert "'nowhere' (observed) is -inf at the start, x = " in message and "init_to_value" in message
    for call, words in ((lambda: AutoFlow(3), "the model is 3"), (lambda: AutoFlow(model, init_loc_fn=3), "init_loc_fn is 3")):
        with pytest.raises(TypeError, match=words):
            call()
    assert "init_scale" in error_of(lambda: AutoFlow(model, SMALL, init_scale=0.0))


@pytest.mark.slow
def test_eight_schools_beside_numpyros_guides():
    def elbo(guide):
        params = trained(schools, guide, 3_000)
        scores = [
            -float(Trace_ELBO(num_particles=1_000).loss(jax.random.key(100 + i), params, schools, guide)) for i in range(10)
        ]
        return np.mean(scores), np.std(scores, ddof=1) / 10**0.5

    ours, error = elbo(AutoFlow(schools))
    for name in ("AutoNormal", "AutoDiagonalNormal", "AutoMultivariateNormal", "AutoIAFNormal", "AutoBNAFNormal"):
        value, its_error = elbo(getattr(autoguide, name)(schools))
        assert ours >= value - np.hypot(error, its_error), (name, ours, value)


@pytest.mark.slow
def test_nuts_on_the_neutra_model_has_fewer_divergences():
    guide = AutoFlow(schools)
    params = trained(schools, guide, 3_000)

    def divergences(model):
        chains = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}  # of one, chance has too large a part
        mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=1_000, **chains)
        mcmc.run(jax.random.key(0), extra_fields=("diverging",))
        return int(mcmc.get_extra_fields()["diverging"].sum())

    assert divergences(NeuTraReparam(guide, params).reparam(schools)) < divergences(schools)
