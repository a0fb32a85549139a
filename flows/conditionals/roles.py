"""Rows by the roles of their columns: asked, given, or absent."""

import jax.numpy as jnp

from flows.core import Array

ASKED, GIVEN, ABSENT = 0, 1, 2


def by_roles(groups: list, columns: list, x: Array, context: Array | None) -> tuple[Array, ...]:
    """Return values that have a density (d, batch), masks of asked and known columns, (d, 1) without a context, and what to
    add to log p: -inf where an asked value is impossible, NaN where one is NaN, a known one impossible, or a role none."""
    x = x.T
    if context is None:
        asked, known, wrong = jnp.ones((len(x), 1), bool), jnp.zeros((len(x), 1), bool), jnp.zeros(1, bool)
    else:
        values, role = context[:, 0].T, context[:, 1].T
        asked, known = role == ASKED, role == GIVEN
        x, wrong = jnp.where(known, values, x), ~(asked | known | (role == ABSENT)).all(0)
    inside, safe = jnp.zeros(x.shape, bool), jnp.zeros(x.shape, x.dtype)
    for (group, at), c in zip(groups, columns, strict=True):
        inside, safe = inside.at[at].set(group.inside(c, x[at])), safe.at[at].set(group.safe(c))
    there = asked | known
    wrong = wrong | (there & jnp.isnan(x)).any(0) | (known & ~inside).any(0)
    impossible = (asked & ~inside).any(0)
    penalty = jnp.where(wrong, jnp.nan, jnp.where(impossible, -jnp.inf, 0.0)).astype(x.dtype)
    return jnp.where(there & inside, x, safe), asked, known, penalty
