"""What several test files use."""

import jax.numpy as jnp
import numpy as np
import pytest

import flows

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)


def scale_closure(rng, input_dim, **kwargs):
    """A plain closure in the style of the original."""
    params = {"w": jnp.ones(input_dim)}

    def direct_fun(params, inputs, **kwargs):
        return inputs * jnp.exp(params["w"])[None], jnp.broadcast_to(params["w"].sum(), inputs.shape[:1])

    def inverse_fun(params, inputs, **kwargs):
        return inputs * jnp.exp(-params["w"])[None], jnp.broadcast_to(-params["w"].sum(), inputs.shape[:1])

    return params, direct_fun, inverse_fun


def error_of(call):
    with pytest.raises(flows.FlowsError) as caught:
        call()
    return str(caught.value)
