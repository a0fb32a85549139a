"""Networks of other libraries: as conditioners they compute what they compute at home, and keep the contract."""

import builtins
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import error_of
from jax.example_libraries import stax

import flows
from flows.conditioners import FromEquinox, FromLinen, FromNNX, FromStax
from flows.core.caching import program
from flows.diagnostics import enable_x64
from flows.persistence import load, save

pytestmark = pytest.mark.usefixtures("relaxed")  # none of these libraries is written for strict promotion
X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
C = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
LIBRARIES = ("equinox", "nnx", "linen", "stax")
each = pytest.mark.parametrize("library", LIBRARIES)
# What the core does with any network; the others take their turn in the slow tests.
one = pytest.mark.parametrize(
    "library", ["nnx", *(pytest.param(other, marks=pytest.mark.slow) for other in LIBRARIES if other != "nnx")]
)
WIDTH = 4


def imported(library):
    """The library itself: it is an extra, and some of its releases warn when they are imported."""
    name = {"nnx": "flax.nnx", "linen": "flax.linen", "stax": "jax.example_libraries.stax"}.get(library, library)
    return pytest.importorskip(name)


def two_layers(library, width=WIDTH):
    """The same small network in each library."""
    if library == "equinox":
        eqx = imported(library)
        return FromEquinox(lambda key, inputs, outputs: eqx.nn.MLP(inputs, outputs, width, 1, key=key))
    if library == "nnx":
        nnx = imported(library)

        def make(rngs, inputs, outputs):
            return nnx.Sequential(nnx.Linear(inputs, width, rngs=rngs), nnx.relu, nnx.Linear(width, outputs, rngs=rngs))

        return FromNNX(make)
    if library == "linen":
        nn = imported(library)
        return FromLinen(lambda outputs: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(outputs)]))
    return FromStax(lambda outputs: stax.serial(stax.Dense(width), stax.Relu, stax.Dense(outputs)))


@flows.conditioner
def Wide(library: str, width: int = WIDTH):
    """The way to a network that can be saved: a constructor around the adapter."""
    return two_layers(library, width)


def at_home(library, params, x, outputs):
    """The library's own forward pass, with the weights of `params`."""
    make = two_layers(library).arguments["make"]
    if library == "equinox":
        eqx = imported(library)
        layers = [params["layers"][i] for i in ("0", "1")]
        module = make(jax.random.key(7), x.shape[1], outputs)
        for i, layer in enumerate(layers):
            module = eqx.tree_at(
                lambda m, i=i: (m.layers[i].weight, m.layers[i].bias), module, (layer["weight"], layer["bias"])
            )
        return jnp.stack([module(row) for row in x])
    if library == "nnx":
        nnx = imported(library)
        module = make(nnx.Rngs(7), x.shape[1], outputs)
        for i in (0, 2):
            module.layers[i].kernel[...] = params["layers"][i]["kernel"]
            module.layers[i].bias[...] = params["layers"][i]["bias"]
        return module(x)
    if library == "linen":
        return make(outputs).apply({"params": params}, x)
    return make(outputs)[1](params, x)


def plain(tree):
    """Whether a pytree is made of dicts, lists and tuples alone, with floats at its leaves."""
    if type(tree) is dict:
        return all(type(key) in (str, int) and plain(value) for key, value in tree.items())
    return all(map(plain, tree)) if type(tree) in (list, tuple) else jnp.issubdtype(jnp.asarray(tree).dtype, jnp.floating)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, two)


# What holds for every library


@each
@pytest.mark.parametrize("context_dim", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_coupling_computes_what_the_library_computes(library, context_dim):
    given = {"context": C} if context_dim else {}
    params, direct_fun, inverse_fun = flows.Coupling(two_layers(library))(0, 5, context_dim=context_dim)
    assert plain(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == (2 + context_dim + 1) * WIDTH + (WIDTH + 1) * 6
    y, log_det = direct_fun(params, X, **given)
    seen = np.concatenate([X[:, :2], C], axis=1) if context_dim else X[:, :2]
    theta = jnp.asarray(at_home(library, params["conditioner"], jnp.asarray(seen), 6)).T.reshape(2, 3, 40)
    expected, slopes = flows.transformers.Affine().direct(theta, jnp.asarray(X[:, 2:].T))
    np.testing.assert_allclose(y[:, 2:], expected.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_det, slopes.sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y[:, :2], X[:, :2])
    np.testing.assert_allclose(inverse_fun(params, y, **given)[0], X, atol=1e-4)


@one
def test_gradients_reach_every_leaf_and_training_lowers_the_loss(library):
    params, log_pdf, sample = flows.Flow(flows.Coupling(two_layers(library)))(0, 5)
    data = jnp.asarray(X * 2 + 1)

    def loss(params):
        return -log_pdf(params, data).mean()

    gradients = jax.grad(loss)(params)
    assert all(bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradients))
    assert all(jax.tree.leaves(flows.trainable(params)))
    optimizer = optax.adam(1e-2)
    state, first = optimizer.init(params), loss(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(20):
        params, state = step(params, state)
    assert float(loss(params)) < float(first) - 0.1
    assert sample(0, params, 3).shape == (3, 5)


@each
def test_functions_are_made_once_and_never_remember_a_key(library):
    layer = flows.Coupling(two_layers(library))
    first, second = layer(1, 3), layer(2, 3)
    assert first.direct_fun is second.direct_fun and first.inverse_fun is second.inverse_fun
    assert any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (first.params, second.params)), strict=True))
    # Made anew, past every cache, they are equal still: what was compiled for one serves the other.
    net = two_layers(library)
    (params, one), (_, other) = (net(key, 2, 4) for key in (1, 2))
    assert program(one, params, jnp.ones((3, 2))) == program(other, params, jnp.ones((3, 2))) is not None
    np.testing.assert_array_equal(one(params, jnp.ones((3, 2))), other(params, jnp.ones((3, 2))))


@one
def test_verify_finds_a_bijection(library):
    report = flows.verify(flows.Coupling(two_layers(library)), 3, context_dim=1)
    assert report.passed, str(report)


@each
def test_init_is_traceable(library):
    layer = flows.Coupling(two_layers(library))
    params = layer(3, 3).params
    ensemble = jax.vmap(lambda key: layer(key, 3).params)(jax.random.split(jax.random.key(0), 4))
    same(jax.jit(lambda key: layer(key, 3).params)(jax.random.key(3)), params)
    assert jax.tree.structure(ensemble) == jax.tree.structure(params)
    for stacked, leaf in zip(*map(jax.tree.leaves, (ensemble, params)), strict=True):
        assert stacked.shape == (4, *leaf.shape) and (leaf.ndim < 2 or bool((stacked[0] != stacked[1]).any()))


@one
def test_an_ensemble_and_a_loop_call_the_network(library):
    layer = flows.Coupling(two_layers(library))
    ensemble = jax.vmap(lambda key: layer(key, 3).params)(jax.random.split(jax.random.key(0), 4))
    log_dets = jax.vmap(lambda params: layer(0, 3).direct_fun(params, X[:, :3])[1])(ensemble)
    assert log_dets.shape == (4, 40) and float(log_dets.std(0).min()) > 0
    deep = flows.Repeat(flows.Serial(layer, flows.Reverse()), 3)
    params, direct_fun, inverse_fun = deep(0, 3)
    x = 0.3 * X[:, :3]  # initial weights of these libraries are not small
    np.testing.assert_allclose(inverse_fun(params, direct_fun(params, x)[0])[0], x, atol=1e-3)


@each
def test_a_constructor_of_ones_own_is_saved_and_loaded(library, path):
    init_fun = flows.Coupling(Wide(library, 4))
    assert init_fun == flows.Coupling(Wide(library, 4)) != flows.Coupling(Wide(library, 5))
    params, direct_fun, _ = init_fun(0, 5)
    save(path, init_fun, params, 5)
    again = load(path, constructors=[Wide])
    same(again.params, params)
    assert again.direct_fun is direct_fun
    same(again.direct_fun(again.params, X), direct_fun(params, X))
    unnamed = flows.Coupling(two_layers(library))
    assert "make is the function" in error_of(lambda: save(path, unnamed, unnamed(0, 5).params, 5))


def test_a_network_without_masks_is_not_autoregressive():
    report = flows.verify(flows.Autoregressive(two_layers("stax")), 2)
    assert not report.passed and "NOT a bijection" in str(report)


@each
def test_a_network_of_the_wrong_form_is_refused(library):
    adapter = {"equinox": FromEquinox, "nnx": FromNNX, "linen": FromLinen, "stax": FromStax}[library]
    imported(library)
    finished = {
        "equinox": lambda: imported(library).nn.Identity(),
        "nnx": lambda: imported(library).Linear(1, 1, rngs=imported(library).Rngs(0)),
        "linen": lambda: imported(library).Dense(1),
        "stax": lambda: stax.Dense(1),
    }[library]()
    for make in (finished, None):
        with pytest.raises(TypeError, match="expected a function that makes the network"):
            adapter(make)
    with pytest.raises(TypeError, match="make returned 3; expected a"):
        flows.Coupling(adapter(lambda *sizes: 3))(0, 3)
    with pytest.raises(flows.FlowsError, match=r"the network returned \(7, 5\), expected \(7, 4\)"):
        flows.Coupling(flows.conditioner(lambda: lambda rng, i, o: two_layers(library)(rng, i, o + 1))())(0, 4)


# What is special to one


class Images:
    """Convolutions on (batch, height, width, channels), or on one event where the library has it so."""

    @staticmethod
    def equinox():
        eqx = imported("equinox")

        class ChannelsFirst(eqx.Module):
            conv: eqx.nn.Conv2d

            def __call__(self, x):
                return jnp.moveaxis(self.conv(jnp.moveaxis(x, -1, 0)), 0, -1)

        return FromEquinox(lambda key, i, o: ChannelsFirst(eqx.nn.Conv2d(i[-1], o[-1], 3, padding=1, key=key)))

    @staticmethod
    def nnx():
        nnx = imported("nnx")
        return FromNNX(lambda rngs, i, o: nnx.Conv(i[-1], o[-1], (3, 3), rngs=rngs))

    @staticmethod
    def linen():
        nn = imported("linen")
        return FromLinen(lambda o: nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(o[-1], (1, 1))]))

    @staticmethod
    def stax():
        return FromStax(lambda o: stax.serial(stax.Conv(4, (3, 3), padding="SAME"), stax.Relu, stax.Conv(o[-1], (1, 1))))


@each
def test_convolutions_see_images(library):
    x = jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
    params, direct_fun, inverse_fun = flows.Coupling(getattr(Images, library)())(0, (4, 4, 3), context_dim=2)
    assert plain(params)
    y, log_det = direct_fun(params, x, context=jnp.ones(2))
    assert log_det.shape == (6,)
    np.testing.assert_allclose(inverse_fun(params, y, context=jnp.ones(2))[0], x, atol=1e-4)


def with_dropout(library):
    if library == "equinox":
        eqx = imported(library)

        def make(key, inputs, outputs):
            first, second = jax.random.split(key)
            layers = [eqx.nn.Linear(inputs, 32, key=first), eqx.nn.Dropout(0.5), eqx.nn.Linear(32, outputs, key=second)]
            return eqx.nn.Sequential(layers)

        return FromEquinox(make)
    if library == "nnx":
        nnx = imported(library)

        def make(rngs, inputs, outputs):
            layers = nnx.Linear(inputs, 32, rngs=rngs), nnx.Dropout(0.5, rngs=rngs), nnx.Linear(32, outputs, rngs=rngs)
            return nnx.Sequential(*layers)

        return FromNNX(make)
    nn = imported("linen")

    class Dropping(nn.Module):
        outputs: int

        @nn.compact
        def __call__(self, x, deterministic):
            return nn.Dense(self.outputs)(nn.Dropout(0.5)(nn.Dense(32)(x), deterministic=deterministic))

    class Training(Dropping):
        @nn.compact
        def __call__(self, x, train=True):
            return super().__call__(x, not train)

    return FromLinen(Dropping if library == "linen" else Training)


@pytest.mark.parametrize("library", ["equinox", "nnx", "linen", "linen, by train"])
def test_dropout_is_for_training_and_needs_rng(library):
    params, direct_fun, inverse_fun = flows.Coupling(with_dropout(library))(0, 5)
    assert plain(params) and list(inspect.signature(direct_fun).parameters)[2:] == ["context", "rng", "train"]
    still = direct_fun(params, X)[0]
    np.testing.assert_array_equal(still, direct_fun(params, X, rng=1)[0])
    first, again, other = (direct_fun(params, X, rng=key, train=True)[0] for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3 and float(jnp.abs(first - still).max()) > 1e-3
    ones = direct_fun(params, jnp.ones_like(X), rng=1, train=True)[0]
    assert bool((ones[0] != ones[1]).any())  # each row drops units of its own
    np.testing.assert_allclose(inverse_fun(params, first, rng=1, train=True)[0], X, atol=1e-3)
    assert "give rng=" in error_of(lambda: direct_fun(params, X, train=True))


def test_state_besides_params_is_refused():
    eqx, nnx, nn = map(imported, ("equinox", "nnx", "linen"))

    class Normalised(eqx.Module):
        norm: eqx.nn.BatchNorm

        def __call__(self, x):
            return x

    def normalised(key, inputs, outputs):
        return Normalised(eqx.nn.BatchNorm(inputs, "batch", mode="batch"))

    def with_state(key, inputs, outputs):
        return eqx.nn.make_with_state(Normalised)(eqx.nn.BatchNorm(inputs, "batch", mode="batch"))

    stateful = {
        "StateIndex": FromEquinox(normalised),
        "State": FromEquinox(with_state),
        "BatchStat": FromNNX(lambda rngs, inputs, outputs: nnx.BatchNorm(inputs, rngs=rngs)),
        "batch_stats": FromLinen(lambda outputs: nn.BatchNorm(use_running_average=True)),
    }
    for kind, net in stateful.items():
        message = error_of(lambda net=net: flows.Coupling(net)(0, 4))
        assert f"keeps state besides its params: {kind}" in message and "expected" in message


def test_leaves_that_are_not_floating_are_refused():
    eqx, nnx = map(imported, ("equinox", "nnx"))

    class Holding(eqx.Module):
        array: jax.Array
        constant: np.ndarray
        weight: jax.Array

        def __call__(self, x):
            return jnp.broadcast_to(self.weight * self.constant, (4,)) + x.sum()

    def holding(array):
        return FromEquinox(lambda key, i, o: Holding(array(key), np.arange(o) > 0, jax.random.normal(key, ())))

    for array in (lambda key: key, lambda key: jnp.arange(3), lambda key: jnp.ones(2) > 0):
        assert "the network's array has dtype" in error_of(lambda array=array: flows.Coupling(holding(array))(0, 4))
    floating = holding(lambda key: jnp.ones(()))  # a NumPy array is a constant
    assert set(flows.Coupling(floating)(0, 4).params["conditioner"]) == {"array", "weight"}

    class Counting(nnx.Module):
        def __init__(self):
            self.count = nnx.Param(jnp.arange(3))

    assert "the network's count has dtype int32" in error_of(lambda: flows.Coupling(FromNNX(lambda *_: Counting()))(0, 4))


def test_a_field_named_fixed_does_not_train():
    eqx = imported("equinox")

    class Scaled(eqx.Module):
        fixed: jax.Array
        linear: eqx.nn.Linear

        def __call__(self, x):
            return self.fixed * self.linear(x)

    net = FromEquinox(lambda key, i, o: Scaled(jnp.ones(o), eqx.nn.Linear(i, o, key=key)))
    params, direct_fun, _ = flows.Coupling(net)(0, 4)
    gradients = jax.grad(lambda params: direct_fun(params, X[:, :4])[0].sum())(params)
    own = gradients["conditioner"]
    assert bool((own["fixed"] == 0).all()) and bool((own["linear"]["weight"] != 0).any())
    assert not flows.trainable(params)["conditioner"]["fixed"]


@each
def test_double_precision_inputs_are_computed_in_double_precision(library):
    with enable_x64():
        params, direct_fun, inverse_fun = flows.Coupling(two_layers(library))(0, 4)
        x = np.asarray(X[:, :4], np.float64)
        y, log_det = direct_fun(params, x)
        assert y.dtype == log_det.dtype == np.float64
        np.testing.assert_allclose(inverse_fun(params, y)[0], x, atol=1e-12)


@pytest.mark.parametrize(("adapter", "missing"), [(FromEquinox, "equinox"), (FromNNX, "flax"), (FromLinen, "flax")])
def test_a_missing_library_is_named(adapter, missing, monkeypatch):
    usual = builtins.__import__

    def without(name, *args, **keywords):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return usual(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=rf"{adapter.__name__} needs {missing}; .*jax-flows\[networks\]"):
        adapter(lambda *sizes: None)
