"""What the models of old files have in common: a case, sizes, and constructors that users wrote themselves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import flows


class Case(NamedTuple):
    init_fun: Any
    event: Any = 3
    context: Any = 0
    unit: bool = False  # whether the rows are in the unit interval
    stir: float = 0.2  # how far trained leaves are moved
    spread: float = 1.0  # of rows


# Constructors as a user writes them, around what cannot be written to a file: functions, and networks of other libraries.


@flows.conditioner
def Convolution(width: int = 4):
    """For events of several axes, which the library has no network for."""

    def net(rng, input_dim, output_dim):
        keys = jax.random.split(rng)
        w1 = jax.random.normal(keys[0], (3, 3, input_dim[-1], width)) / 6
        w2 = jax.random.normal(keys[1], (1, 1, width, output_dim[-1])) / 6

        def apply_fun(params, inputs):
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(inputs, params["first"], (1, 1), "SAME", dimension_numbers=layout)
            return jax.lax.conv_general_dilated(jnp.tanh(x), params["last"], (1, 1), "SAME", dimension_numbers=layout)

        return {"first": w1, "last": w2}, apply_fun

    return net


@flows.bijection
def Wave(steepness: float = 0.3):
    """`FromFunction`: each entry is moved by the one before it."""

    def fun(params, x):
        y = x + steepness * jnp.sin(x) * jnp.exp(params["a"])
        return y + params["b"] * jnp.concatenate([jnp.ones(1, y.dtype), y[:-1]])

    return flows.FromFunction(fun, lambda rng, shape: {"a": -jnp.ones(()), "b": 0.5 * jnp.ones(())})


@flows.bijection
def Kept(options=None):
    """Leaves of every dtype that a file keeps, an empty one and one without axes; `options` are only there to be written."""

    def init_fun(rng, shape):
        params = {
            "half": jnp.full(shape, 0.5, jnp.float16),
            "brain": (jnp.full(shape, 1.5, jnp.bfloat16), jnp.zeros((0, 2))),
            "scale": jnp.asarray(2.0),
        }
        return params, direct_fun, inverse_fun

    def factor(params, x):
        return (params["scale"] * params["half"].astype(float) * params["brain"][0].astype(float)).astype(x.dtype)

    def direct_fun(params, x):
        return x * factor(params, x), jnp.log(jnp.abs(factor(params, x))).sum()

    def inverse_fun(params, y):
        return y / factor(params, y)

    return init_fun


@flows.bijection
def Original():
    """The calls of the original jax-flows: networks of two and of three arguments, masks of the user's own."""
    from jax.example_libraries import stax

    def transform(rng, input_dim, output_dim):
        init_fun, apply_fun = stax.serial(stax.Dense(4), stax.Tanh, stax.Dense(output_dim))
        return init_fun(rng, (input_dim,))[1], apply_fun

    def masked_transform(rng, input_dim):
        hidden, outputs = np.arange(4) % (input_dim - 1), np.tile(np.arange(input_dim), 2)
        masks = hidden[None] >= np.arange(input_dim)[:, None], outputs[None] > hidden[:, None]
        first, last = (flows.MaskedDense(mask.astype(np.float32)) for mask in masks)
        init_fun, apply_fun = stax.serial(first, stax.Tanh, last)
        return init_fun(rng, (input_dim,))[1], apply_fun

    return flows.Serial(flows.AffineCoupling(transform), flows.Reverse(), flows.MADE(masked_transform))


@flows.conditioner
def Adapted(library: str, width: int = 4):
    """A network of another library, which is imported when it is asked for."""
    from flows.conditioners import FromEquinox, FromLinen, FromNNX, FromStax

    if library == "equinox":
        import equinox as eqx

        return FromEquinox(lambda key, inputs, outputs: eqx.nn.MLP(inputs, outputs, width, 1, key=key))
    if library == "linen":
        from flax import linen

        return FromLinen(lambda outputs: linen.Sequential([linen.Dense(width), linen.relu, linen.Dense(outputs)]))
    if library == "nnx":
        from flax import nnx

        def make(rngs, inputs, outputs):
            return nnx.Sequential(nnx.Linear(inputs, width, rngs=rngs), nnx.relu, nnx.Linear(width, outputs, rngs=rngs))

        return FromNNX(make)
    from jax.example_libraries import stax

    return FromStax(lambda outputs: stax.serial(stax.Dense(width), stax.Relu, stax.Dense(outputs)))


OWN = [Convolution, Wave, Kept, Original, Adapted]  # what flows.load has to be given


few = {"hidden": (8,)}
deep = {"hidden": (4,)}
tiny = {"hidden": (4,), "num_bins": 3}
integral = {"integrand": (4,), "embedding": 2, "num_nodes": 10}
squares = {"num_polynomials": 2, "degree": 1}
