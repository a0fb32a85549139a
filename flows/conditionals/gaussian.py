"""Numbers given other numbers by a normal distribution, where the network starts: few rows tell a covariance more than a
network."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from flows.core import HIGHEST, Array

MOST = 64  # columns, as a row takes their number to the power of 3
NUMBERS = 2**22  # of all swept matrices, by which rows are measured
STEPS = 5  # of EM; more of them fit the gaps of few rows too well
FLOOR = 1e-2  # of eigenvalues of the correlations of pairs, where EM begins
LEAST = 1e-4  # of the variance given others
SPIKE = 0.1  # the share of rows with one value from which a column does not start at a normal distribution


def learnt(state: Array, k: Any, centred: Array, now: Array) -> Array:
    """Return the state of rows (`swept`) which know column k too, y - mean (batch,), where `now` is true; they did not before.

    The state changes by the product of two vectors. It does so row by row: in one expression XLA would look the vectors up in
    the state for each number, which takes 20 times as long."""
    centred = jnp.where(now, centred, 0)
    state = state.at[-1, k].add(centred)
    row, here = state[k], (jnp.arange(state.shape[1], dtype=jnp.int32) == k)[:, None]
    pivot = jnp.where(now, row[k], 1)[None]
    row = jnp.where(here, pivot - 1, row)
    left, right = jnp.where(now[None], jnp.concatenate([row, state[-1, k][None]]), 0), row / pivot
    return lax.fori_loop(0, len(state), lambda i, state: state.at[i].add(-left[i][None] * right), state)


def swept(mean: Array, covariance: Array, y: Array, known: Array) -> Array:
    """Return the state of rows (d, batch) which know some columns, (d + 1, d, batch): the covariance swept by these (Little and
    Rubin 2002, section 7.4), and y - mean. For j unknown and k known, (j, k) has the coefficient of k in the regression of j,
    (j, j) its variance, (d, j) mean_j less the regression. The known part is minus the inverse of their covariance, plus 2 on
    the diagonal, and the last row this inverse times y - mean."""
    start = jnp.concatenate([covariance, jnp.zeros_like(covariance[:1])])[:, :, None]
    start = jnp.broadcast_to(start, (*start.shape[:2], known.shape[1]))
    centred = jnp.where(known, y - mean, 0)
    return lax.fori_loop(0, len(covariance), lambda k, state: learnt(state, k, centred[k], known[k]), start)


def regressed(mean: Array, state: Array, known: Array) -> tuple[Array, Array, Array]:
    """Return means and variances of the columns given the known ones, and how far each known one is from its regression on
    the others, in deviations; each (d, batch). The first two say nothing of known columns, the last nothing of the others."""
    diagonal, errors = jnp.diagonal(state[:-1]).T, state[-1]
    residuals = errors / jnp.sqrt(jnp.maximum(jnp.where(known, 2 - diagonal, 1), LEAST))
    return mean - errors, jnp.maximum(diagonal, LEAST), residuals


def measured(y: Array, there: Array) -> dict[str, Any]:
    """Return mean and covariance of standardised rows with gaps, (d, rows), by EM that begins at correlations of pairs."""
    d, n = y.shape
    if not n:
        return {"mean": jnp.zeros((d, 1), y.dtype), "covariance": jnp.eye(d, dtype=y.dtype)}
    every = max(-(-d * d * n // NUMBERS), 1)
    y, there = y[:, ::every], there[:, ::every]
    y = jnp.where(there, y, 0)
    mask = there.astype(y.dtype)
    squares = jnp.matmul(jnp.square(y), mask.T, precision=HIGHEST)
    pairs = jnp.matmul(y, y.T, precision=HIGHEST) / jnp.sqrt(jnp.maximum(squares * squares.T, 1e-9))
    values, vectors = jnp.linalg.eigh(pairs + (1 - jnp.diagonal(pairs))[None] * jnp.eye(d, dtype=y.dtype))
    covariance = jnp.matmul(vectors * jnp.maximum(values, FLOOR)[None], vectors.T, precision=HIGHEST)

    def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows = swept(*state, y, there)
        filled, lost = jnp.where(there, y, state[0] - rows[-1]), 1 - mask
        extra = (rows[:-1] * lost[None] * lost[:, None]).mean(-1)
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
