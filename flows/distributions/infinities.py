"""Densities at infinite points and sums of densities that are 0: -inf, and never NaN."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flows.core import Array


def honest_at_infinity(log_density: Callable[[Array], Array], x: Array) -> Array:
    """`log_density(x)` of x (batch, d), and -inf for rows with an infinite entry, where linear algebra would give NaN."""
    infinite = jnp.isinf(x)
    finite = log_density(jnp.where(infinite, 0.0, x))
    return jnp.where(infinite.any(1), finite - jnp.inf, finite)  # NaN stays NaN


def logsumexp(x: Array) -> Array:
    """log(sum(exp(x))) over the first axis, with gradients 0 instead of NaN where all terms are -inf."""
    nothing = (x == -jnp.inf).all(0)
    return jnp.where(nothing, -jnp.inf, jax.nn.logsumexp(jnp.where(nothing[None], 0.0, x), axis=0))
