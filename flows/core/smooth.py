"""Numbers bent into a range."""

from functools import partial

import jax
import jax.numpy as jnp

from flows.core.arrays import Array


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def softly(raw: Array, bound: float) -> Array:
    """bound tanh(raw / bound): `raw` where that is small, and always within +-bound."""
    return bound * jnp.tanh(raw / bound)


@softly.defjvp
def _(bound: float, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # The derivative as one factor: multiplied by the bound first, a large cotangent would overflow.
    bent = softly(primals[0], bound)
    return bent, (1 - jnp.square(bent / bound)) * tangents[0]
