"""Networks of other libraries: what is special to one of them."""

import builtins
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of
from jax.example_libraries import stax
from networks import LIBRARIES, X, imported, plain, two_layers

import flows
from flows.conditioners import FromEquinox, FromLinen, FromNNX, FromStax
from flows.core.extras import installs
from flows.diagnostics import enable_x64

pytestmark = pytest.mark.usefixtures("relaxed")  # none of these libraries is written for strict promotion
each = pytest.mark.parametrize("library", LIBRARIES)


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
        assert f"keeps state other than its params: {kind}" in message and "expected" in message


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
    with pytest.raises(
        ModuleNotFoundError,
        match=re.escape(f"{adapter.__name__} needs the package {missing}: {installs('networks')}"),
    ):
        adapter(lambda *sizes: None)
