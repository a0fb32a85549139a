"""What several test files use."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows.bijections.composition import regions_of
from flows.core.support import inside, resolved
from flows.diagnostics import Trial, enable_x64
from flows.training.loop.progress import Progress

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)

# One small model, one number of rows and one batch size in the tests of `fit`: they share its programs. Behind a
# standardisation of the columns alone it has a correlation to learn; behind `Whiten` no epoch is better than the start.
ROWS = np.random.default_rng(0).normal(size=(300, 2))
ROWS[:, 1] += 2 * ROWS[:, 0]
AFFINE = flows.Flow(flows.Serial(flows.ActNorm(), flows.Coupling(flows.MLP(8))))
QUICK = {"max_epochs": 3, "batch_size": 90, "standardize": "columns", "verbose": 0}


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


def close(a, b, tolerance):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def stirred(params, by, seed=4):
    """Trained leaves moved away from their start, where many layers are the identity."""
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)

    def moved(leaf):
        noise = rng.normal(size=leaf.shape)
        noise = by * (0.5 + np.abs(noise) if leaf.ndim < 2 else noise)  # scales all to one side
        leaf = leaf if isinstance(leaf, jax.core.Tracer) else np.asarray(leaf)  # added by NumPy, which compiles nothing
        return jnp.asarray(leaf + noise.astype(leaf.dtype))

    noisy = [moved(leaf) for leaf in leaves]
    keep = jax.tree.leaves(flows.trainable(params))
    return treedef.unflatten([b if train else a for a, b, train in zip(leaves, noisy, keep, strict=True)])


def weights_of(transformer, seed=1):
    """Weights of its own, moved away from their start; () where there are none."""
    leaves, treedef = jax.tree.flatten(transformer.init(0))
    rng = np.random.default_rng(seed)
    return treedef.unflatten([leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


ALL = (
    *("x", "y", "log_det", "back", "back_log_det", "again", "jacobian", "back_jacobian", "log_volume", "back_log_volume"),
    *("gradients", "back_gradients"),
)


def facts(init_fun, x, move, names=ALL, **given):
    """What a bijection does at the points x when its params are moved from their start: a `Trial`'s facts, by name.

    They are float64 arrays of one compiled program, init included; the `bijection` itself and the keywords come with them.
    """
    made, trained = [], {"gradients", "back_gradients"} & {*names}  # else params are constants, quicker to trace

    @jax.jit
    def measured(key, x, given):
        made[:] = init_fun(key, x.shape[1:], context_dim=given["context"].shape[-1] if given else 0)
        params = move(made[0])
        both = (lambda at, x, fun=fun: fun(at if trained else params, x, **given) for fun in made[1:])
        derive_inverse = bool({"back_jacobian", "back_log_volume", "back_gradients"} & {*names})
        regions = regions_of(init_fun, x.shape[1:])
        of = Trial(*both, params if trained else (), x, derive_inverse=derive_inverse, regions=regions)
        return params, {name: getattr(of, name) for name in names}

    with enable_x64():
        params, found = measured(jax.random.key(3), x, given)
    return SimpleNamespace(bijection=flows.Bijection(params, *made[1:]), given=given, **jax.tree.map(np.asarray, found))


def held_out_first(seed, n):
    """The order of the rows in which `fit` splits them."""
    return np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(seed)))).permutation(n)


def interrupting(monkeypatch, after, times=1):
    """Sends the signal of Ctrl-C while the epoch `after` runs."""
    real, epochs = Progress.add, []

    def add(self, report, margin, *judged):
        epochs.append(1)
        if len(epochs) == after:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return real(self, report, margin, *judged)

    monkeypatch.setattr(Progress, "add", add)


def points(case: Any, event: Any, rows: int, seed: int = 0, dtype: Any = np.float64) -> jax.Array:
    """Points in the domain, unlike 0 and unlike each other."""
    shape = event if isinstance(event, tuple) else (event,)
    x = np.random.default_rng(seed).normal(size=(rows, *shape))
    return jnp.asarray(np.asarray(inside(resolved(case.domain, shape), jnp.asarray(x))).astype(dtype))
