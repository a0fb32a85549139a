"""What several test files use."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows.training import loop

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


def stirred(params, by, seed=4):
    """Trained leaves moved away from their start, where many layers are the identity."""
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)

    def moved(leaf):
        noise = rng.normal(size=leaf.shape)
        return leaf + jnp.asarray(by * (0.5 + np.abs(noise) if leaf.ndim < 2 else noise), leaf.dtype)  # scales all to one side

    noisy = [moved(leaf) for leaf in leaves]
    keep = jax.tree.leaves(flows.trainable(params))
    return treedef.unflatten([b if train else a for a, b, train in zip(leaves, noisy, keep, strict=True)])


def held_out_first(seed, n):
    """The order of the rows in which `fit` splits them."""
    return np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(seed)))).permutation(n)


def interrupting(monkeypatch, after, times=1):
    """Sends the signal of Ctrl-C while the epoch `after` runs."""
    real, epochs = loop.Course.add, []

    def add(self, report, margin):
        epochs.append(1)
        if len(epochs) == after:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return real(self, report, margin)

    monkeypatch.setattr(loop.Course, "add", add)
