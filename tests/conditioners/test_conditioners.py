"""Networks: their formulas, what they name, what they measure."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of

import flows
from flows.conditioners import MLP, MaskedMLP, MaskedResidual, Pair, Residual

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
C = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)


def relu(x):
    return np.maximum(x, 0)


def layer(params, x):
    return x @ np.asarray(params["w"]) + np.asarray(params["b"])


def test_a_residual_network_is_its_formula():
    params, apply_fun = Residual(8, num_blocks=2, last_scale=1.0)(0, 3, 4, context_dim=2)
    layers, gates = params["layers"], params["gates"]
    h = layer(layers[0], np.concatenate([X, C], axis=1))
    for block in range(2):
        change = layer(layers[2 * block + 2], relu(layer(layers[2 * block + 1], relu(h))))
        h = h + change / (1 + np.exp(-layer(gates[block], C)))
    np.testing.assert_allclose(
        apply_fun(params, jnp.asarray(X), context=jnp.asarray(C)), layer(layers[-1], h), rtol=2e-5, atol=2e-5
    )


def test_a_normalised_residual_network_is_its_formula():
    params, apply_fun = Residual(6, num_blocks=1, last_scale=1.0, batch_norm=True)(0, 3, 4, init_inputs=X)
    norms = {name: np.asarray(leaf) + 0.2 for name, leaf in params["norms"].items()}
    h = layer(params["layers"][0], X)
    change = h
    for i in range(2):
        mean, var = (np.asarray(params["fixed"][name][i]) for name in ("mean", "var"))
        np.testing.assert_allclose(mean, change.mean(0), rtol=1e-4, atol=1e-5) if i == 0 else None
        change = (change - mean) / np.sqrt(var + 1e-3) * np.exp(norms["log_gamma"][i]) + norms["beta"][i]
        change = layer(params["layers"][i + 1], relu(change))
    expected = layer(params["layers"][2 + 1], h + change)
    np.testing.assert_allclose(apply_fun({**params, "norms": norms}, jnp.asarray(X)), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("make", [Residual, MaskedResidual])
def test_what_dropout_keeps_makes_up_for_what_it_drops(make):
    """One unit, dropped half the time: the outputs are two numbers, whose mean is that without dropout."""
    params, apply_fun = make(1, num_blocks=1, activation="softplus", dropout=0.5, last_scale=1.0)(0, 2, 2)
    params = jax.tree.map(lambda leaf: leaf + 1, params)
    x = jnp.ones((64, 2))
    outputs = np.unique(np.round(apply_fun(params, x, rng=jax.random.key(1), train=True)[:, 1], 4))
    assert outputs.size == 2
    np.testing.assert_allclose(outputs.mean(), apply_fun(params, x)[0, 1], rtol=1e-4)


def test_networks_take_any_leading_axes():
    for net in (MLP(4), Residual(4), MaskedMLP(4), MaskedResidual(4)):
        params, apply_fun = net(0, 3, 6)
        rows = apply_fun(params, jnp.asarray(X))
        np.testing.assert_allclose(
            apply_fun(params, jnp.asarray(X.reshape(5, 8, 3))).reshape(40, 6), rows, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(apply_fun(params, jnp.asarray(X[0])), rows[0], rtol=1e-5, atol=1e-6)
        assert apply_fun(params, jnp.zeros((0, 3))).shape == (0, 6)


@pytest.mark.parametrize("make", [MLP, Residual, MaskedMLP, MaskedResidual])
def test_the_last_layer_may_be_zero(make):
    params, apply_fun = make(6, last_scale=0.0)(0, 3, 6)
    assert bool((apply_fun(params, jnp.asarray(X)) == 0).all())
    params, apply_fun = make(6)(0, 3, 6)
    assert 0 < float(jnp.abs(apply_fun(params, jnp.asarray(X))).max()) < 0.3


@pytest.mark.parametrize("make", [Residual, MaskedResidual])
def test_batch_norm_measures_its_data_and_train_uses_the_batch(make):
    init_fun = (
        flows.Coupling(make(6, batch_norm=True, last_scale=1.0))
        if make is Residual
        else flows.Autoregressive(make(6, batch_norm=True, last_scale=1.0))
    )
    params, direct_fun, _ = init_fun(0, 3, init_inputs=X)
    fresh = init_fun(0, 3).params
    before, after = (each["conditioner"]["fixed"]["mean"] for each in (fresh, params))
    assert bool((before == 0).all()) and bool((after != 0).any())
    measured = direct_fun(params, X)
    for a, b in zip(direct_fun(params, X, train=True), measured, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # the statistics are those of the batch
    assert float(jnp.abs(direct_fun(fresh, X)[0] - measured[0]).max()) > 1e-2
    remeasured = flows.remeasure(init_fun, fresh, X)
    for a, b in zip(jax.tree.leaves(remeasured), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    own = fresh["conditioner"]
    trained = {**fresh, "conditioner": {**own, "layers": jax.tree.map(lambda leaf: leaf + 0.1, own["layers"])}}
    layers = (each["conditioner"]["layers"] for each in (flows.remeasure(init_fun, trained, X), trained))
    assert all(bool((a == b).all()) for a, b in zip(*map(jax.tree.leaves, layers), strict=True))


def test_what_a_network_measures_goes_through_models_and_contexts():
    step = flows.Coupling(
        Residual(6, batch_norm=True, last_scale=1.0), mask="random", unconditional=flows.transformers.Affine()
    )
    init_fun = flows.Serial(flows.ActNorm(), step, step)
    params, direct_fun, inverse_fun = init_fun(0, 3, context_dim=2, init_inputs=X, init_context=C)
    means = [params[i]["conditioner"]["fixed"]["mean"] for i in (1, 2)]
    assert all(bool((mean != 0).any()) for mean in means) and bool((means[0] != means[1]).any())
    for a, b in zip(direct_fun(params, X, context=C, train=True), direct_fun(params, X, context=C), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(inverse_fun(params, direct_fun(params, X, context=C)[0], context=C)[0], X, atol=1e-4)
    moved = flows.remeasure(init_fun, params, X + 1, context=C)
    assert bool((moved[1]["conditioner"]["fixed"]["mean"] != means[0]).any())
    np.testing.assert_array_equal(moved[1]["fixed"]["ranks"], params[1]["fixed"]["ranks"])


@pytest.mark.parametrize("init_fun", [
    flows.Coupling(Residual(16, dropout=0.5, last_scale=1.0)),
    flows.Autoregressive(MaskedResidual(16, dropout=0.5, last_scale=1.0)),
])  # fmt: skip
def test_dropout_is_for_training_and_needs_rng(init_fun):
    params, direct_fun, inverse_fun = init_fun(0, 3)
    plain = direct_fun(params, X)[0]
    np.testing.assert_array_equal(plain, direct_fun(params, X, rng=1)[0])
    first, again, other = (direct_fun(params, X, rng=key, train=True)[0] for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3 and float(jnp.abs(first - plain).max()) > 1e-3
    # With the same key the inverse drops the same units.
    np.testing.assert_allclose(inverse_fun(params, first, rng=1, train=True)[0], X, atol=2e-4)
    assert "give rng=" in error_of(lambda: direct_fun(params, X, train=True))


def test_functions_show_the_keywords_of_their_network():
    import inspect

    def shown(net):
        return list(inspect.signature(flows.Coupling(net)(0, 3, context_dim=2).direct_fun).parameters)[2:]

    assert shown(MLP(4)) == ["context"]
    assert shown(Residual(4, batch_norm=True)) == ["context", "train"]
    assert shown(Residual(4, dropout=0.1)) == ["context", "rng", "train"]
    assert "init_inputs" in flows.Coupling(Residual(4, batch_norm=True)).keywords
    assert "init_inputs" not in flows.Coupling(Residual(4)).keywords


@pytest.mark.parametrize("call", [
    lambda: Residual(0), lambda: Residual(4, num_blocks=0), lambda: Residual(4, dropout=1.0), lambda: Residual(4, dropout=True),
    lambda: MaskedResidual(4, activation="swoosh"), lambda: MLP(4, dtype="int32"), lambda: MLP(2.5),
    lambda: Residual(4)(0, (2, 2), 4), lambda: MaskedResidual(4, order=(1, 1, 0))(0, 3, 3),
])  # fmt: skip
def test_arguments_out_of_range_are_refused(call):
    assert "expected" in error_of(call)


def test_a_function_of_numpy_is_no_activation():
    """JAX ends the process where it compiles one a second time."""
    for _ in range(3):
        assert "<ufunc 'sin'>, and for (2, 3) numbers it gives" in error_of(lambda: MLP(4, activation=np.sin))


@pytest.mark.parametrize("net", [flows.MLP(64, last_scale=1.0, dropout=0.5), MaskedMLP(64, last_scale=1.0, dropout=0.5)])
def test_networks_without_residuals_drop_units_too(net):
    params, apply_fun = net(0, 3, 3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    whole = apply_fun(params, x)
    assert (apply_fun(params, x, rng=jax.random.key(1)) == whole).all(), "only while it trains"
    draws = jax.vmap(lambda key: apply_fun(params, x, rng=key, train=True))(jax.random.split(jax.random.key(2), 4000))
    spread = draws.std(0)
    np.testing.assert_allclose(draws.mean(0), whole, atol=5 * float(spread.max()) / 4000**0.5)
    assert (np.asarray(spread)[:, -1] > 0.05).all()
    assert "dropout with train=True draws random numbers; give rng=" in error_of(lambda: apply_fun(params, x, train=True))
    assert "dropout is 1; expected a number in [0, 1)" in error_of(lambda: flows.MLP(4, dropout=1))
    for model in (flows.MAF(1, (4,), dropout=0.2), flows.RealNVP(1, (4,), dropout=0.2), flows.NSF(1, (4,), dropout=0.2)):
        assert "rng" in str(inspect.signature(model(0, 2).direct_fun)), model


def test_a_pair_joins_the_outputs_of_two_networks():
    nets = Residual(4, 1, activation="tanh", last_scale=1.0), Residual(5, 1, last_scale=1.0)
    params, apply_fun = Pair(*nets)(0, 3, 4, context_dim=2)
    halves = [net(0, 3, 2, context_dim=2).apply_fun(own, X, context=C) for net, own in zip(nets, params, strict=True)]
    np.testing.assert_array_equal(apply_fun(params, X, context=C), np.concatenate(halves, axis=1))
    assert isinstance(params, tuple) and np.abs(halves[0] - halves[1]).min() > 1e-4

    mixed = Pair(MLP(4, last_scale=1.0), nets[1])  # MLP does not name context_dim: the context is appended to its inputs
    (plain, gated), apply_fun = mixed(0, 3, 4, context_dim=2)
    assert plain[0]["w"].shape == (3 + 2, 4) and "gates" in gated
    halves = [
        MLP(4, last_scale=1.0)(0, 5, 2).apply_fun(plain, np.concatenate([X, C], 1)),
        nets[1](0, 3, 2, context_dim=2).apply_fun(gated, X, context=C),
    ]
    np.testing.assert_allclose(apply_fun((plain, gated), X, context=C), np.concatenate(halves, axis=1), rtol=1e-5, atol=1e-6)
    assert list(inspect.signature(Pair(MLP(4), MLP(4)).inner).parameters)[-1] == "output_dim"  # engines append the context


def test_a_masked_network_and_a_function_stay_triangular_with_a_context():
    def constant(rng, input_dim, output_dim):
        return jnp.ones((1, output_dim)), lambda params, inputs: jnp.tile(params, (len(inputs), 1))

    layer = flows.Autoregressive(Pair(MaskedMLP(8, last_scale=1.0), constant))
    params, direct_fun, _ = layer(0, 3, context_dim=2)
    x, context = X[:1], jnp.ones(2)
    jacobian = jax.jacobian(lambda row: direct_fun(params, row[None], context=context)[0][0])(x[0])
    np.testing.assert_allclose(np.triu(jacobian, 1), 0, atol=1e-7)
    log_det = direct_fun(params, x, context=context)[1][0]
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-4, atol=1e-5)


def test_a_pair_measures_what_its_networks_measure():
    pair = Pair(MLP(4, dropout=0.5, last_scale=1.0), Residual(4, 1, batch_norm=True))
    assert pair.running and not Pair(MLP(4), MLP(4)).running
    params, apply_fun = pair(0, 3, 4, init_inputs=X)
    alone = Residual(4, 1, batch_norm=True)(jax.random.split(jax.random.key(0))[1], 3, 2, init_inputs=X).params
    np.testing.assert_array_equal(params[1]["fixed"]["mean"], alone["fixed"]["mean"])
    again = pair(1, 3, 4, init_inputs=X + 1, params=params).params
    assert again[0] is params[0] and np.abs(again[1]["fixed"]["mean"] - alone["fixed"]["mean"]).max() > 0.1
    np.testing.assert_array_equal(again[1]["layers"][0]["w"], alone["layers"][0]["w"])
    assert list(inspect.signature(apply_fun).parameters)[1:] == ["context", "rng", "train"]
    first, other = (apply_fun(params, X, rng=jax.random.key(i), train=True) for i in range(2))
    assert np.abs(first - other)[:, :2].max() > 1e-3 and np.abs(first - other)[:, 2:].max() == 0


def test_networks_of_a_pair_drop_other_units():
    params, apply_fun = Pair(*[MLP(8, dropout=0.5, last_scale=1.0)] * 2)(0, 3, 4)
    y = apply_fun((params[0], params[0]), X, rng=jax.random.key(0), train=True)
    assert np.abs(y[:, :2] - y[:, 2:]).max() > 1e-2


@pytest.mark.parametrize(("call", "said"), [
    (lambda: flows.Autoregressive(Pair(MLP(4), MLP(4)))(0, 3), "Pair(MLP(4), MLP(4)) depends on all inputs"),
    (lambda: flows.Autoregressive(Pair(MaskedMLP(4), Pair(MLP(4), MLP(4))))(0, 2), "depends on all inputs"),
    (lambda: flows.Coupling(Pair(MLP(4), MLP(4)), flows.transformers.Additive())(0, 5), "output_dim is 3; expected an even"),
    (lambda: flows.Autoregressive(Pair(MaskedMLP(4, order=(1, 0)), MaskedMLP(4)))(0, 2), "has another order than 0, 1, 2"),
    (lambda: Pair(MLP(4)), "missing a required argument: 'second'"),
    (lambda: Pair(MLP(4), 3), "Pair: the conditioner is 3; expected a network"),
    (lambda: Pair(MLP(4), lambda rng, a, b: None)(0, 2, 2), "returned None; expected (params, apply_fun)"),
])  # fmt: skip
def test_pairs_that_cannot_be_are_refused(call, said):
    with pytest.raises((flows.FlowsError, TypeError)) as caught:
        call()
    assert said in str(caught.value)
