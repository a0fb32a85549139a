"""Numbers given other numbers by a normal distribution, where the network starts: few rows tell a covariance more than a
network."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from flows.core import HIGHEST, Array

MOST = 64  # columns, as a row takes their number to the power of 3, and a chain rule of 4
NUMBERS = 2**22  # of all swept matrices, by which rows are measured
STEPS = 5  # of EM; more of them fit the gaps of few rows too well
FLOOR = 1e-2  # of eigenvalues of the correlations of pairs, where EM begins
LEAST = 1e-4  # of the variance given others
SPIKE = 0.1  # the share of rows with one value from which a column does not start at a normal distribution


def swept(covariance: Array, known: Array) -> Array:
    """Return the covariance (d, d) swept by the known columns of each row, (d, d, batch): for j unknown and k known, (j, k) has
    the coefficient of k in the regression of j, and (j, j) its variance (Little and Rubin 2002, section 7.4)."""

    def sweep(k: Array, matrix: Array) -> Array:
        row = lax.dynamic_index_in_dim(matrix, k, 0, keepdims=False)
        pivot = lax.dynamic_index_in_dim(row, k, 0, keepdims=False)
        ratio = row / pivot[None]
        new = matrix - row[:, None] * ratio[None]
        new = new.at[k].set(ratio).at[:, k].set(ratio).at[k, k].set(-1 / pivot)
        return jnp.where(known[k][None, None], new, matrix)

    start = jnp.broadcast_to(covariance[:, :, None], (*covariance.shape, known.shape[1]))
    return lax.fori_loop(0, len(covariance), sweep, start)


def residuals(matrix: Array, mean: Array, y: Array, known: Array) -> Array:
    """Return how far each known column is from its regression on the other known ones, in deviations, (d, batch); 0 for the
    others. The known part of a swept matrix is minus the inverse of their covariance."""
    inverse = jnp.where(known[None] & known[:, None], -matrix, 0)
    scale = jnp.sqrt(jnp.where(known, jnp.maximum(jnp.diagonal(inverse).T, LEAST), 1))
    return (inverse * jnp.where(known, y - mean, 0)[None]).sum(1) / scale


def regressed(mean: Array, covariance: Array, y: Array, known: Array) -> tuple[Array, Array, Array]:
    """Return means and variances of the columns given the known ones, (d, batch), and the swept matrices."""
    matrix = swept(covariance, known)
    weights = jnp.where(known[None], matrix, 0)
    means = mean + (weights * jnp.where(known, y - mean, 0)[None]).sum(1)
    return means, jnp.maximum(jnp.diagonal(matrix).T, LEAST), matrix


def measured(y: Array, there: Array) -> dict[str, Any]:
    """Return mean and covariance of standardised rows with gaps, (d, rows), by EM that begins at correlations of pairs."""
    d, rows = y.shape
    if not rows:
        return {"mean": jnp.zeros((d, 1), y.dtype), "covariance": jnp.eye(d, dtype=y.dtype)}
    every = max(-(-d * d * rows // NUMBERS), 1)
    y, there = y[:, ::every], there[:, ::every]
    y = jnp.where(there, y, 0)
    mask = there.astype(y.dtype)
    squares = jnp.matmul(jnp.square(y), mask.T, precision=HIGHEST)
    pairs = jnp.matmul(y, y.T, precision=HIGHEST) / jnp.sqrt(jnp.maximum(squares * squares.T, 1e-9))
    values, vectors = jnp.linalg.eigh(pairs + (1 - jnp.diagonal(pairs))[None] * jnp.eye(d, dtype=y.dtype))
    covariance = jnp.matmul(vectors * jnp.maximum(values, FLOOR)[None], vectors.T, precision=HIGHEST)

    def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        means, _, matrix = regressed(*state, y, there)
        filled, lost = jnp.where(there, y, means), 1 - mask
        extra = (matrix * lost[None] * lost[:, None]).mean(-1)
        mean = filled.mean(1, keepdims=True)
        centred = filled - mean
        noise = LEAST * jnp.eye(d, dtype=y.dtype)
        return mean, jnp.matmul(centred, centred.T, precision=HIGHEST) / y.shape[1] + extra + noise

    mean, covariance = lax.fori_loop(0, STEPS, step, (jnp.zeros((d, 1), y.dtype), covariance))
    return {"mean": mean, "covariance": covariance}


def has_spike(y: Array, there: Array) -> Array:
    """Tell which columns, (d, 1), have one value in a tenth of their rows."""
    if not y.shape[1]:
        return jnp.zeros((len(y), 1), bool)
    ranked = jnp.sort(jnp.where(there, y, jnp.inf), 1)
    apart = max(int(SPIKE * y.shape[1]), 1)
    return ((ranked[:, apart:] == ranked[:, :-apart]) & (ranked[:, apart:] < jnp.inf)).any(1, keepdims=True)
