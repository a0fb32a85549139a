"""Densities at infinite points and sums of densities that are 0: -inf, and never NaN."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flows.core import Array


def honest_at_infinity(log_density: Callable[[Array], Array], z: Array) -> Array:
    """`log_density(z)` of z (d, batch), and -inf for rows that hold an infinite entry, where linear algebra would give NaN."""
    infinite = jnp.isinf(z)
    finite = log_density(jnp.where(infinite, 0.0, z))
    return jnp.where(infinite.any(0), finite - jnp.inf, finite)  # NaN stays NaN


def logsumexp(x: Array) -> Array:
    """log(sum(exp(x))) over the first axis, with gradients 0 instead of NaN where all terms are -inf."""
    nothing = (x == -jnp.inf).all(0)
    return jnp.where(nothing, -jnp.inf, jax.nn.logsumexp(jnp.where(nothing[None], 0.0, x), axis=0))
