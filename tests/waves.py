"""A map without a closed-form inverse, for `FromFunction`; the documentation reads it, where no pytest is."""

import jax.numpy as jnp


def wave(params, x):
    y = x + 0.3 * jnp.sin(x) * jnp.exp(params["a"])
    return y + params["b"] * jnp.concatenate([jnp.ones(1, y.dtype), y[:-1]])


def shifted_wave(params, x, context):
    return wave(params, x) + context.sum()


def wave_params(rng, shape):
    return {"a": 0.1 * jnp.ones(()), "b": 0.5 * jnp.ones(())}
