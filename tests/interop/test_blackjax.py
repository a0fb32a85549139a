"""A flow as a proposal of BlackJAX, and densities in the noise of one: formulas, chains, and what is refused."""

import math

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows.diagnostics import enable_x64
from flows.objectives import Estimate
from flows.results.density import DensityFitResult, Diagnostics, Parameters

pytestmark = pytest.mark.usefixtures("relaxed")  # BlackJAX adds arrays of any ranks and dtypes
blackjax = pytest.importorskip("blackjax", exc_type=Exception)  # what it raises under a jax that it is not for
from flows.interop.blackjax import preconditioned, proposal  # noqa: E402

NET = flows.MLP(4)
COUPLING = flows.Flow(flows.Serial(flows.Whiten(), flows.Coupling(NET), flows.Reverse()), flows.Flow(flows.ActNorm()))
BOX = flows.Unconstrain((0.0, -math.inf, -1.0), (math.inf, math.inf, 1.0))
POSITIVE = flows.Flow(BOX, flows.Flow(flows.IAF(1, hidden=(4,))))
EMBEDDED = flows.EmbeddedContext(flows.Flow(flows.Coupling(NET)), NET, 2)
GIVEN = flows.Flow(flows.Standardize(), flows.StandardizedContext(EMBEDDED))
SPLINES = flows.Flow(flows.Coupling(NET, transformer=flows.transformers.RationalQuadratic(num_bins=3)))
FLOWS = {"coupling": (COUPLING, 0), "bounds": (POSITIVE, 0), "context": (GIVEN, 2), "splines": (SPLINES, 0)}
NAMED = {"mean": (), "weights": (2,)}


def fitted(init_fun, d, context_dim=0, stirred=0.3, **attributes):
    """What a fit returns, of params that are none of a fit; a context is not of mean 0 and deviation 1."""
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(2, 20, 5)).astype(np.float32)
    given = {"init_inputs": rows[0, :, :d], "init_context": rows[1, :, :context_dim]}
    params, log_pdf, sample = init_fun(0, d, **({"context_dim": context_dim, **given} if context_dim else {}))
    kind = DensityFitResult if attributes else flows.FitResult
    params = common.stirred(params, stirred)
    return kind(params, log_pdf, sample, init_fun, d, context_dim, **attributes)


def fitted_to_names(init_fun):
    diagnostics = Diagnostics(1.0, Estimate(0.0, 0.0), 0.0, 100)
    return fitted(init_fun, 3, named=Parameters.of(NAMED, "test"), diagnostics=diagnostics, log_weights=None)


def target(x):
    """Of rows; no normalising constant."""
    return -0.5 * jnp.square(x - 1).sum(1) - jnp.cosh(x[:, 0])


def of_one(log_density):
    return lambda x: log_density(x[None])[0]


def chain(kernel, start, key, n):
    def step(state, key):
        state, info = kernel.step(key, state)
        return state, (state.position, info)

    return jax.lax.scan(step, kernel.init(start), jax.random.split(key, n))[1]


# Proposals


def test_a_chain_has_the_moments_of_its_target_only_if_what_is_proposed_is_scored():
    """Exchanged, the sampler runs on, and is wrong."""
    normal = flows.Normal(trainable=True)
    result = fitted(normal, 1)
    result = result._replace(params={**result.params, "loc": jnp.full(1, 0.5), "log_scale": jnp.full(1, math.log(1.5))})
    right = proposal(result)

    @jax.jit
    def moments(key):
        def of(log_q):
            kernel = blackjax.irmh(lambda x: -0.5 * x[0] ** 2, right.distribution, log_q)
            x, info = jax.vmap(lambda key: chain(kernel, jnp.zeros(1), key, 4_000))(jax.random.split(key, 16))
            return jnp.stack([x.mean(), x.std(), info.acceptance_rate.mean()])

        return of(right.log_density), of(lambda a, b: right.log_density(b, a))

    given, exchanged = moments(jax.random.key(0))
    np.testing.assert_allclose(given[:2], [0.0, 1.0], atol=0.03)
    np.testing.assert_allclose(exchanged, [0.23, 0.73, 0.57], atol=0.03)


def test_positions_are_dicts_where_parameters_were_named():
    result = fitted_to_names(COUPLING)
    kernel = blackjax.irmh(lambda p: -jnp.square(p["weights"]).sum() - jnp.abs(p["mean"]), *proposal(result))
    x, _ = jax.jit(lambda key: chain(kernel, {"mean": 0.0, "weights": jnp.zeros(2)}, key, 5))(jax.random.key(0))
    assert {name: array.shape for name, array in x.items()} == {"mean": (5,), "weights": (5, 2)}
    at = jax.tree.map(lambda array: array[-1], x)
    state = blackjax.irmh(lambda p: 0.0, *proposal(result)).init(at)
    expected = result.log_prob(jax.tree.map(lambda array: array[-1:], x))[0]
    np.testing.assert_allclose(proposal(result).log_density(None, state), expected, rtol=1e-6)


def test_mixtures_contexts_and_angles_are_proposed():
    mixture = fitted(flows.Mixture(flows.Normal(trainable=True), num_components=2), 2)
    assert jax.eval_shape(proposal(mixture).distribution, jax.random.key(0)).shape == (2,)
    angles = fitted(flows.VonMises(), 2, stirred=0.0)
    angles.turn = np.full(2, 10.0)
    drawn = jax.jit(jax.vmap(proposal(angles).distribution))(jax.random.split(jax.random.key(0), 50))
    assert ((drawn >= 10) & (drawn < 10 + 2 * np.pi + 1e-5)).all(), "not on the turn of the data"
    given, c = fitted(GIVEN, 3, 2), jnp.array([1.0, -2.0])
    draw, score = proposal(given, context=c)
    state = blackjax.irmh(lambda x: 0.0, draw, score).init(draw(3))
    np.testing.assert_allclose(state.position, given.draw(3, 1, context=c)[0], rtol=1e-6)
    np.testing.assert_allclose(score(None, state), given.log_prob(state.position[None], context=c)[0], rtol=1e-5)


# Densities in the noise


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "splines")) for name in FLOWS])
def test_the_density_of_the_noise_is_that_of_the_data_times_the_jacobian(name):
    init_fun, context_dim = FLOWS[name]
    rows, z = np.random.default_rng(0).normal(size=(2, 4, 3)), np.array([0.3, -0.7, 1.1])

    @jax.jit
    def found(result, rows, z):
        keywords = {"context": jnp.array([0.5, -1.5])} if context_dim else {}
        noise = preconditioned(target, result, **keywords)
        exact = preconditioned(lambda x: result.log_prob(x, **keywords), result, **keywords)  # whose noise is its base's
        x = noise.to_data(rows)
        there = noise.log_density(z), target(noise.to_data(z)[None])[0], jax.jacfwd(noise.to_data)(z)
        return there, x, noise.to_noise(x), noise.to_noise(noise.to_data(z)), exact.log_density(z)

    with enable_x64():
        result = fitted(init_fun, 3, context_dim)
        result = result._replace(params=jax.tree.map(lambda leaf: leaf.astype(float), result.params))
        (value, log_p, jacobian), x, back, back_alone, of_base = jax.device_get(found(result, rows, z))
    np.testing.assert_allclose(value, log_p + np.linalg.slogdet(jacobian)[1], rtol=1e-12)
    assert x.shape == (2, 4, 3)
    np.testing.assert_allclose(back, rows, atol=1e-9)
    np.testing.assert_allclose(back_alone, z, atol=1e-9)
    np.testing.assert_allclose(of_base, -0.5 * (z**2 + np.log(2 * np.pi)).sum(), rtol=1e-9)


def test_densities_of_named_parameters_and_dicts_of_draws():
    noise = preconditioned(lambda p: -jnp.square(p["weights"]).sum(1) - jnp.abs(p["mean"]), fitted_to_names(COUPLING))
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)), jnp.float32)
    x = noise.to_data(z)
    assert {name: array.shape for name, array in x.items()} == {"mean": (2, 4), "weights": (2, 4, 2)}
    np.testing.assert_allclose(noise.to_noise(x), z, atol=1e-5)
    np.testing.assert_allclose(noise.to_noise(noise.to_data(z[0, 0])), z[0, 0], atol=1e-5)
    assert noise.log_density(z[0, 0]).shape == ()
    with pytest.raises(flows.FlowsError, match="the leading axes"):
        noise.to_noise({**x, "mean": x["mean"][0]})
    with pytest.raises(flows.FlowsError, match="expected a dict of arrays"):
        noise.to_noise({"mean": x["mean"]})


def test_a_run_is_traced_once_for_all_params_of_a_model():
    traces = []

    def density(x):
        traces.append(x.shape)
        return target(x)

    @jax.jit
    def run(result, key):
        noise = preconditioned(density, result)
        z, _ = chain(blackjax.nuts(noise.log_density, 0.3, jnp.ones(3)), jnp.zeros(3), key, 20)
        return noise.to_data(z)

    first = run(fitted(COUPLING, 3), jax.random.key(0))
    once = len(traces)
    again = flows.Flow(flows.Serial(flows.Whiten(), flows.Coupling(NET), flows.Reverse()), flows.Flow(flows.ActNorm()))
    other = run(fitted(again, 3, stirred=0.1), jax.random.key(0))
    assert len(traces) == once < 20 and not np.allclose(first, other) and np.isfinite(other).all()


# What is refused


def refused(call, error=flows.FlowsError):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("function", [proposal, lambda *given, **more: preconditioned(target, *given, **more)])
def test_results_that_are_refused(function):
    assert "expected the result of flows.fit" in refused(lambda: function(COUPLING), TypeError)
    assert "got a triple" in refused(lambda: function(COUPLING(0, 3)), TypeError)
    rounded = fitted(flows.Flow(flows.Serial(flows.Dequantize(256), flows.Coupling(NET))), 3)
    assert "lower bound" in (message := refused(lambda: function(rounded))) and "Leave the layer" in message
    codes = fitted(flows.Categorical(3), 1)
    assert "codes of categories" in (message := refused(lambda: function(codes))) and "one_hot" in message
    closure = flows.FitResult(None, None, None, flows.Flow(common.scale_closure), 3)
    assert "plain closure" in (message := refused(lambda: function(closure))) and "@flows.bijection" in message
    given = fitted(GIVEN, 3, 2)
    assert "context is missing" in refused(lambda: function(given))
    assert "context has shape (5, 2), expected (2,)" in refused(lambda: function(given, context=jnp.zeros((5, 2))))
    assert "leave it out" in refused(lambda: function(fitted(COUPLING, 3), context=jnp.zeros(2)), TypeError)


def test_flows_without_one_bijection_to_the_line_are_refused():
    mixture = fitted(flows.Mixture(COUPLING, num_components=2), 3)
    message = refused(lambda: preconditioned(target, mixture))
    assert "a mixture" in message and "single flow" in message and "`proposal`" in message
    averaged = fitted(flows.Flow(flows.Standardize(), flows.Mixture(COUPLING, num_components=2)), 3)  # as an ensemble is
    assert "is a mixture" in refused(lambda: preconditioned(target, averaged))
    side_by_side = fitted(flows.Flow(flows.Standardize(), flows.Joint(COUPLING, flows.Normal(), sizes=(2, 1))), 3)
    assert "several blocks" in refused(lambda: preconditioned(target, side_by_side))
    assert "is not a flow" in refused(lambda: preconditioned(target, fitted(flows.Normal(trainable=True), 3)))
    on_circles = fitted(flows.Flow(flows.Rotation(), flows.VonMises()), 3)
    assert "whole line" in (message := refused(lambda: preconditioned(target, on_circles))) and "`proposal`" in message
    in_a_box = fitted(flows.Flow(flows.Serial(flows.ActNorm(), flows.Sigmoid()), flows.Uniform()), 3)
    assert "whole line" in refused(lambda: preconditioned(target, in_a_box))


def test_densities_that_are_refused():
    result = fitted(COUPLING, 3)
    with_density = {
        "takes a single point; expected a function of points": lambda x: -jnp.square(x).sum(),
        "give jax.vmap(log_density)": lambda x: -(x[0] ** 2) - x[1] ** 2 - x[2] ** 2,
        "returns the shape (5, 3), expected (5,)": lambda x: -jnp.square(x),
        "log_density is nan at": lambda x: jnp.where(x[:, 0] > -jnp.inf, jnp.nan, 0.0),
        "log_density is inf at": lambda x: jnp.full(x.shape[:1], jnp.inf),
        "with other points, as if log_density": lambda x: target(x) - x.mean(),
    }
    for message, density in with_density.items():
        assert message in refused(lambda density=density: preconditioned(density, result))
    assert "expected a function of points" in refused(lambda: preconditioned(result, result), TypeError)
    with pytest.raises(ZeroDivisionError):  # a user's own error is the user's
        preconditioned(lambda x: 1 / 0, result)
    noise = preconditioned(target, result)
    assert "takes one position of shape (3,), and z has shape (4, 3)" in refused(lambda: noise.log_density(jnp.zeros((4, 3))))
    assert "z has shape (4, 2); expected (..., 3)" in refused(lambda: noise.to_data(jnp.zeros((4, 2))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*was still falling", "ignore:.*is too narrow")
def test_nuts_sees_the_neck_of_a_funnel_ten_times_as_well():
    """Effective draws of the neck a gradient, and how often draws of the flow are accepted as they are."""

    def funnel(x):
        v, rest = x[:, 0], x[:, 1:]
        return -0.5 * jnp.square(v / 3) - 0.5 * (jnp.square(rest).sum(1) * jnp.exp(-v) + 9 * v)

    def neck(density, to_data, start):
        def run(key):
            of_warm_up, of_draws = jax.random.split(key)
            (state, settings), _ = blackjax.window_adaptation(blackjax.nuts, density).run(of_warm_up, start, 500)
            x, info = chain(blackjax.nuts(density, **settings), state.position, of_draws, 2_000)
            return to_data(x)[:, 0], info.num_integration_steps

        v, steps = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2))
        return v, float(blackjax.diagnostics.effective_sample_size(v) / steps.sum())

    network = flows.conditioners.MaskedMLP(16, activation="elu")
    flow = flows.Flow(flows.InverseAutoregressive(network, flows.transformers.Affine()))
    result = flows.fit_to_density(0, flow, funnel, 10, standardize=False, starts=1, max_epochs=40, verbose=0)
    noise = preconditioned(funnel, result)
    _, plain = neck(of_one(funnel), lambda x: x, jnp.zeros(10))
    v, straight = neck(noise.log_density, noise.to_data, jnp.zeros(10))
    assert straight > 10 * plain
    np.testing.assert_allclose([v.mean(), v.std()], [0.0, 3.0], atol=0.25)
    _, info = jax.jit(lambda key: chain(blackjax.irmh(of_one(funnel), *proposal(result)), result.draw(1, 1)[0], key, 2_000))(
        jax.random.key(1)
    )
    assert info.acceptance_rate.mean() > 0.8
