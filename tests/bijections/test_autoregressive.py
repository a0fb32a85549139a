"""The autoregressive inverse that computes each hidden unit once equals the plain loop of d passes, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of, stirred

import flows
from flows import transformers as t
from flows.bijections.autoregressive import one_by_one
from flows.conditioners import MaskedMLP, MaskedResidual, masked
from flows.conditioners.network import running as running_of
from flows.diagnostics import enable_x64

D, BATCH, CONTEXT = 5, 11, 3
ORDER = (3, 0, 4, 1, 2)
NETWORKS = {
    "plain": MaskedMLP(9, 7, last_scale=1.0),
    "fewer units than features": MaskedMLP(3, last_scale=1.0),
    "no hidden layer": MaskedMLP(last_scale=1.0),
    "ordered": MaskedMLP(9, 7, last_scale=1.0, order=ORDER),
    "residual": MaskedResidual(8, num_blocks=2, last_scale=1.0),
    "residual, ordered, normalised": MaskedResidual(8, num_blocks=1, last_scale=1.0, order=ORDER, batch_norm=True),
}
TRANSFORMERS = {"affine": t.Affine(), "spline": t.RationalQuadratic(num_bins=3)}


def solved(net, transformer, with_context, rows=BATCH):
    """Both inverses as functions of (params, y, context), with arguments for them."""
    with enable_x64():
        context = (CONTEXT,) if with_context else None
        params, running = running_of(net, jax.random.key(0), (D,), (transformer.num_params * D,), context, squash=4.0)
        params = stirred(params, 0.2)
        y = jnp.asarray(np.random.default_rng(1).normal(size=(D, rows)))
        context = jnp.asarray(np.random.default_rng(2).normal(size=(rows, CONTEXT))) if with_context else None

    def theta_of(params, x, context):
        return running.run(params, x, context).reshape(transformer.num_params, D, x.shape[1])

    def find(feature, theta, y):
        x = transformer.inverse(theta, y)[0]
        return x, transformer.direct(theta, x)[1]

    def once(params, y, context):
        return running.solve(params, context, y, find)

    def loop(params, y, context):
        if net.arguments["order"] is None:
            return one_by_one(lambda x: theta_of(params, x, context), find, y)
        x = jnp.zeros_like(y)
        for _ in range(D):  # whatever the order, each pass finds one feature more
            x = transformer.inverse(theta_of(params, x, context), y)[0]
        return x, transformer.direct(theta_of(params, x, context), x)[1]

    def again(params, x, context):
        return transformer.direct(theta_of(params, x, context), x)[0]

    return once, loop, again, (params, y, context)


def pairs():
    """Every network with and without a context, and with each transformer once; the rest is among the slow tests."""
    for i, network in enumerate(NETWORKS):
        for j, transformer in enumerate(TRANSFORMERS):
            for k, with_context in enumerate((False, True)):
                marks = [pytest.mark.slow] * ((i + j + k + 1) % 2)
                yield pytest.param(network, transformer, with_context, marks=marks)


@pytest.mark.parametrize(("network", "transformer", "with_context"), list(pairs()))
def test_each_unit_once_equals_a_pass_for_each_feature(network, transformer, with_context):
    @jax.jit
    def program():
        once, loop, again, (params, y, context) = solved(NETWORKS[network], TRANSFORMERS[transformer], with_context)
        x, log_slope = once(params, y, context)
        return (x, log_slope), loop(params, y, context), again(params, x, context), y

    with enable_x64():
        (x, log_slope), (of_loop, slope_of_loop), there, y = jax.tree.map(np.asarray, program())
    np.testing.assert_allclose(x, of_loop, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_slope, slope_of_loop, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(there, y, rtol=1e-9, atol=1e-9)
    assert np.abs(x - y).max() > 0.1


@pytest.mark.parametrize(
    ("network", "with_context"),
    [
        ("plain", True),
        ("residual, ordered, normalised", False),
        pytest.param("plain", False, marks=pytest.mark.slow),
        pytest.param("residual, ordered, normalised", True, marks=pytest.mark.slow),
    ],
)
def test_segments_and_pieces_change_nothing(network, with_context, monkeypatch):
    """A big network runs in segments, a big batch in pieces; gradients in both modes are those of the loop."""
    monkeypatch.setattr(masked, "HEAVY", 0)
    monkeypatch.setattr(masked, "CACHE", 64)  # pieces of 64 rows, the least there are

    @jax.jit
    def program():
        once, loop, _, arguments = solved(NETWORKS[network], t.Affine(), with_context, rows=150)

        def measured(function):
            x, change = jax.linearize(lambda *given: function(*given)[0], *arguments)
            weights = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
            return x, change(*jax.tree.map(jnp.ones_like, arguments)), jax.linear_transpose(change, *arguments)(weights)

        return measured(once), measured(loop)

    with enable_x64():
        (x, change, gradients), (x_of_loop, change_of_loop, gradients_of_loop) = jax.tree.map(np.asarray, program())
    np.testing.assert_allclose(x, x_of_loop, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(change, change_of_loop, rtol=1e-8, atol=1e-8)
    for a, b in zip(*map(jax.tree.leaves, (gradients, gradients_of_loop)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_the_inverse_runs_each_product_once_not_d_times():
    """Counted, not timed: the work of the inverse is that of one pass, whatever d is."""
    d = 16
    params, direct_fun, _ = flows.Autoregressive(MaskedMLP(64, 64))(0, d)
    inverse = flows.Flow(flows.Autoregressive(MaskedMLP(64, 64)))(0, d).sample
    flow_params = {"bijection": params, "prior": {}}

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    forward = flops(lambda x: direct_fun(params, x)[0], jnp.ones((32, d)))
    # What is counted of a loop is one step of it, of which there are d.
    step = flops(lambda: inverse(0, flow_params, 32))
    assert step < 0.5 * forward


def test_a_network_of_the_users_own_takes_the_loop():
    def net(rng, input_dim, output_dim):
        params, apply_fun = MaskedMLP(9, last_scale=1.0)(rng, input_dim, output_dim)
        return params, lambda params, inputs: apply_fun(params, inputs)

    mine, ours = flows.Autoregressive(net)(0, D), flows.Autoregressive(MaskedMLP(9, last_scale=1.0))(0, D)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(4, D)), jnp.float32)
    for a, b in zip(mine.inverse_fun(mine.params, y), ours.inverse_fun(ours.params, y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [None, ORDER])
@pytest.mark.parametrize("random_order", [False, True])
def test_the_jacobian_is_triangular_in_the_order_of_the_features(order, random_order):
    init_fun = flows.Autoregressive(MaskedResidual(12, num_blocks=1, last_scale=1.0, order=order), random_order=random_order)
    params, direct_fun, _ = init_fun(4, D)
    at = jnp.asarray(np.random.default_rng(0).normal(size=D), jnp.float32)
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda x: direct_fun(params, x[None])[0][0]))(at))
    places = np.arange(D) if order is None else np.asarray(order)
    if random_order:
        drawn = np.argsort(np.asarray(params["fixed"]["ranks"]))
        assert (drawn != np.arange(D)).any()
        places = drawn[places]
    sorted_by_place = jacobian[np.ix_(places, places)]
    assert (np.triu(sorted_by_place, 1) == 0).all() and (np.diag(sorted_by_place) > 0).all()
    assert (np.abs(np.tril(sorted_by_place, -1)).sum(1)[1:] > 1e-3).all(), "a feature that depends on nothing before it"


def test_the_first_feature_depends_on_the_context_and_a_later_infinity_harms_no_earlier_feature():
    params, direct_fun, _ = flows.Autoregressive(MaskedMLP(9, last_scale=1.0), squash=5.0)(0, D, context_dim=2)
    x = jnp.zeros((1, D)).at[0, 3].set(jnp.inf)
    y, _ = direct_fun(params, x, context=jnp.ones(2))
    other, _ = direct_fun(params, x, context=jnp.zeros(2))
    assert bool((jnp.isfinite(y[0]) == jnp.array([True, True, True, False, True])).all())
    assert float(jnp.abs(y - other)[0, 0]) > 1e-4
    np.testing.assert_array_equal(y[0, :3], direct_fun(params, x.at[0, 3].set(0.0), context=jnp.ones(2))[0][0, :3])


@pytest.mark.parametrize("value", [3e38, -3e38, np.inf])
def test_what_overflows_in_a_network_harms_no_earlier_feature(value):
    params, direct_fun, inverse_fun = flows.Autoregressive(MaskedMLP(9, last_scale=1.0))(0, D)
    x = jnp.zeros((1, D)).at[0, 3].set(value)
    for function in (direct_fun, inverse_fun):
        y, _ = function(params, x)
        np.testing.assert_array_equal(y[0, :3], function(params, x.at[0, 3].set(0.0))[0][0, :3])
        assert not bool(jnp.isnan(y).any())


def test_the_gated_update_is_that_of_its_paper():
    init_fun = flows.InverseAutoregressive(MaskedMLP(9, last_scale=1.0))
    params, _, inverse_fun = init_fun(0, 3)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    theta = MaskedMLP(9, last_scale=1.0)(0, 3, 6).apply_fun(params["conditioner"], z).reshape(4, 2, 3)
    sigma = jax.nn.sigmoid(theta[:, 0] + 2)
    np.testing.assert_allclose(inverse_fun(params, z)[0], sigma * z + (1 - sigma) * theta[:, 1], rtol=2e-3, atol=2e-3)


def test_errors_say_what_to_do():
    assert "expected the features 0 to 2" in error_of(lambda: flows.Autoregressive(MaskedMLP(4, order=(0, 1)))(0, 3))
    assert "multiple of input_dim" in error_of(lambda: MaskedMLP(4)(0, 3, 4))
    assert "expected a vector" in error_of(lambda: flows.Autoregressive()(0, (2, 2)))
    kinds = (t.Affine(), t.Additive())
    assert "2 transformers for 3 features" in error_of(lambda: flows.Autoregressive(transformer=kinds)(0, 3))
    assert "give one for all" in error_of(lambda: flows.Autoregressive(transformer=kinds, random_order=True))
    with pytest.raises(TypeError, match=r"expected one of flows\.transformers"):
        flows.Autoregressive(transformer=flows.MLP(4))


def test_there_may_be_no_rows_of_angles():
    params, direct_fun, inverse_fun = flows.Autoregressive(MaskedMLP(4), (t.Moebius(1), t.Affine()))(0, 2)
    for function in (direct_fun, inverse_fun):
        y, log_det = jax.eval_shape(function, params, np.ones((0, 2), np.float32))
        assert (y.shape, log_det.shape) == ((0, 2), (0,))
