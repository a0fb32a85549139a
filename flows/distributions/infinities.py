"""Log-densities at infinite points and of sums of densities that are 0: -inf, and never NaN."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flows.core import Array


def honest_far_out(log_density: Callable[[Array], Array], x: Array) -> Array:
    """`log_density(x)` of x (batch, d), and -inf for rows so far out that linear algebra could give inf - inf = NaN.

    Squares of such entries overflow by far: at scales up to a million the density of a normal is 0 there.
    """
    far = jnp.abs(x) > float(jnp.finfo(x.dtype).max) ** (2 / 3)
    near = log_density(jnp.where(far, 0.0, x))
    return jnp.where(far.any(1), near - jnp.inf, near)  # NaN stays NaN


def logsumexp(x: Array) -> Array:
    """log(sum(exp(x))) over the first axis, with gradients 0 instead of NaN where all terms are -inf."""
    nothing = (x == -jnp.inf).all(0)
    return jnp.where(nothing, -jnp.inf, jax.nn.logsumexp(jnp.where(nothing[None], 0.0, x), axis=0))
