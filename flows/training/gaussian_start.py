"""The Gaussian nearest to an unnormalised density: where a fit to the density starts."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array
from flows.core.numerics import LOG_2PI
from flows.objectives import log_normalizer

ITERATIONS = 100  # of L-BFGS
DRAWS = 256  # at least, and four for each column
SETTLED = 1e-3  # of the gradient's norm, at which it has arrived
WEIGHED = 4_000  # draws by which two starts are compared
MISSED = 0.1  # nats of log Z beyond two standard errors, from which the Gaussian has missed a part


class Start(NamedTuple):
    """A Gaussian: its mean (d,), the standard deviations of its columns (d,), and the factor (d, d) of its correlation."""

    mean: np.ndarray
    std: np.ndarray
    factor: np.ndarray


def nearest_gaussian(key: Array, log_density: Callable, d: int, dtype: Any) -> Start | None:
    """The Gaussian q of least KL(q || p), or None where the standard normal sees more of p than q does.

    KL(q || p) is the mean over fixed draws z of -log_density(m + L z), minus log det L; m and L are found by L-BFGS. The draws
    have mean 0 and covariance I exactly, so that a Gaussian target is found exactly. As q may have settled on one of several
    modes, both are weighed: where the constant of p is larger as seen by draws of the standard normal, q has missed a part.
    """
    of_draws, of_weights, of_standard = jax.random.split(key, 3)
    z = _whitened(jax.random.normal(of_draws, (max(DRAWS, 4 * d), d), dtype))
    mean, factor, finite = _minimised(log_density, d, z)
    if not bool(finite):
        return None
    found = list[tuple[float, float]]()
    for own_key, m, own in ((of_weights, mean, factor), (of_standard, jnp.zeros_like(mean), jnp.eye(d, dtype=dtype))):
        noise = jax.random.normal(own_key, (WEIGHED, d), dtype)
        log_q = -0.5 * (jnp.square(noise) + LOG_2PI).sum(1) - jnp.log(jnp.diagonal(own)).sum()
        log_w = np.asarray(log_density(m[None] + jnp.matmul(noise, own.T, precision="highest")) - log_q, float)
        if np.isnan(log_w).any() or (log_w == np.inf).any() or not np.isfinite(log_w).any():
            found.append((-math.inf, 0.0))
        else:
            found.append((log_normalizer(log_w).value, log_normalizer(log_w).standard_error))
    (nearest, _), (standard, error) = found
    if not math.isfinite(nearest) or standard - 2 * error > nearest + MISSED:
        return None
    mean, factor = (np.asarray(each, float) for each in (mean, factor))
    std = np.sqrt(np.square(factor).sum(1))
    return Start(mean, std, factor / std[:, None])


def _whitened(z: Array) -> Array:
    z = z - z.mean(0)[None]
    factor = jnp.linalg.cholesky(jnp.matmul(z.T, z, precision="highest") / len(z))
    return jax.scipy.linalg.solve_triangular(factor, z.T, lower=True).T


@partial(jax.jit, static_argnums=(0, 1))
def _minimised(log_density: Callable, d: int, z: Array) -> tuple[Array, Array, Array]:
    """m, L, and whether they are finite and better than the standard normal."""
    below = np.tril_indices(d, -1)
    start = {"mean": jnp.zeros(d, z.dtype), "log_scale": jnp.zeros(d, z.dtype), "below": jnp.zeros(len(below[0]), z.dtype)}

    def factor_of(params: dict[str, Array]) -> Array:
        scale = jnp.exp(params["log_scale"])
        unit = jnp.eye(d, dtype=z.dtype).at[below].set(params["below"])
        return unit * scale[:, None]

    def loss(params: dict[str, Array]) -> Array:
        x = params["mean"][None] + jnp.matmul(z, factor_of(params).T, precision="highest")
        return -log_density(x).mean() - params["log_scale"].sum()

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def going_on(carry: tuple) -> Array:
        i, _, state = carry
        norm = optax.tree_utils.tree_norm(optax.tree_utils.tree_get(state, "grad"))
        return (i == 0) | ((i < ITERATIONS) & (norm > SETTLED) & jnp.isfinite(norm))

    def step(carry: tuple) -> tuple:
        i, params, state = carry
        value, gradient = value_and_grad(params, state=state)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
            return i + 1, optax.apply_updates(params, updates), state

    with jax.numpy_dtype_promotion("standard"):
        found = jax.lax.while_loop(going_on, step, (jnp.zeros((), int), start, optimizer.init(start)))[1]
    finite = jax.tree.reduce(lambda so_far, leaf: so_far & jnp.isfinite(leaf).all(), found, jnp.asarray(True))
    return found["mean"], factor_of(found), finite & ~(loss(found) > loss(start))
