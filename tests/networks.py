"""Small networks for tests: the same in other libraries, for their adapters, and one for images."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import stax

import flows
from flows.conditioners import FromEquinox, FromLinen, FromNNX, FromStax

X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
C = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
LIBRARIES = ("equinox", "nnx", "linen", "stax")
WIDTH = 4


def imported(library):
    """The library itself: it is an extra, and some of its releases warn when they are imported."""
    import pytest  # here: the documentation imports this file by way of the registry, where pytest is not installed

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


@flows.conditioner
def SmallConv():
    """A 3x3 convolution, a nonlinearity and a 1x1 one: enough to test events of several axes."""

    def net(rng, input_dim, output_dim):
        keys = jax.random.split(rng)
        w1 = jax.random.normal(keys[0], (3, 3, input_dim[-1], 8)) / 6
        w2 = jax.random.normal(keys[1], (1, 1, 8, output_dim[-1])) / 6

        def apply_fun(params, inputs):
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.elu(jax.lax.conv_general_dilated(inputs, params[0], (1, 1), "SAME", dimension_numbers=layout))
            return jax.lax.conv_general_dilated(x, params[1], (1, 1), "SAME", dimension_numbers=layout)

        return (w1, w2), apply_fun

    return net
