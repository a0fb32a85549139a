"""Numbers given other numbers by a normal distribution, where the network starts: few rows tell a covariance more than a
network."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from flows.core import HIGHEST, Array, varying

MOST = 64  # columns, as a row takes their number to the power of 3
NUMBERS = 2**22  # of all swept matrices, by which rows are measured
STEPS = 5  # of EM; more of them fit the gaps of few rows too well
FLOOR = 1e-2  # of eigenvalues of the correlations of pairs, where EM begins
LEAST = 1e-4  # of the variance given others
SPIKE = 0.1  # the share of rows with one value from which a column does not start at a normal distribution


class Swept(NamedTuple):
    """Rows which know some columns, and what these tell of others: their covariance, swept by these (Little and Rubin 2002,
    section 7.4). For j unknown and k known, (j, k) has the coefficient of k in the regression of j, (j, j) its variance, and
    `errors` mean_j less the regression; the known part is minus the inverse of their covariance, plus 2 on the diagonal, and
    `errors` this inverse times y - mean."""

    matrix: Array  # (d, d, batch), or (d, d, 1) where all rows know the same columns
    errors: Array  # (d, batch)


def learnt(rows: Swept, k: Any, centred: Array, now: Array) -> Swept:
    """Return the state of rows which know column k too, y - mean (batch,), where `now` is true; they did not before.

    It changes by products of two vectors, one after the other: in one expression XLA would look the vectors up in the state
    for each number, which takes 20 times as long."""
    errors = rows.errors.at[k].add(jnp.where(now, centred, 0))
    row, here = rows.matrix[k], (jnp.arange(len(errors), dtype=jnp.int32) == k)[:, None]
    pivot = jnp.where(now, row[k], 1)[None]
    row = jnp.where(here, pivot - 1, row)
    left, right, error = jnp.where(now[None], row, 0), row / pivot, jnp.where(now, errors[k], 0)
    errors = lax.fori_loop(0, len(errors), lambda i, errors: errors.at[i].add(-error * right[i]), errors)
    count = jnp.where(now.any(), len(errors), 0)
    return Swept(lax.fori_loop(0, count, lambda i, matrix: matrix.at[i].add(-left[i][None] * right), rows.matrix), errors)


def swept(mean: Array, covariance: Array, y: Array, known: Array) -> Swept:
    """Return the state of rows (d, batch) which know some columns, (d, batch), or (d, 1) if all know the same."""
    centred, whole = jnp.where(known, y - mean, 0), (*covariance.shape, known.shape[1])

    def of(known: Array) -> Swept:
        start = varying(jnp.broadcast_to(covariance[:, :, None], (*covariance.shape, known.shape[1])), (y, known))
        rows = Swept(start, jnp.zeros_like(y))
        rows = lax.fori_loop(0, len(y), lambda k, rows: learnt(rows, k, centred[k], known[k]), rows)
        return Swept(jnp.broadcast_to(rows.matrix, whole), rows.errors)

    shared = known[:, :1]
    return lax.cond((known == shared).all(), lambda: of(shared), lambda: of(known))


def regressed(mean: Array, rows: Swept, known: Array) -> tuple[Array, Array, Array]:
    """Return means and variances of the columns given the known ones, and how far each known one is from its regression on
    the others, in deviations; each (d, batch). The first two say nothing of known columns, the last nothing of the others."""
    diagonal = jnp.broadcast_to(jnp.diagonal(rows.matrix).T, rows.errors.shape)
    residuals = rows.errors / jnp.sqrt(jnp.maximum(jnp.where(known, 2 - diagonal, 1), LEAST))
    return mean - rows.errors, jnp.maximum(diagonal, LEAST), residuals


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
        filled, lost = jnp.where(there, y, state[0] - rows.errors), 1 - mask
        extra = (rows.matrix * lost[None] * lost[:, None]).mean(-1)
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
