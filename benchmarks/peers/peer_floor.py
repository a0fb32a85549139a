"""The floor: the bare matrix products of the conditioners, forwards and backwards, and nothing else."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from workloads import Model, Work


def build(work: Work) -> Model:
    shapes = list(pairwise(work.widths)) * work.layers
    keys = jax.random.split(jax.random.key(0), len(shapes))
    weights = [jax.random.normal(key, shape) / shape[0] ** 0.5 for key, shape in zip(keys, shapes, strict=True)]
    depth = len(work.widths) - 1

    def products(weights, x):
        """Half the squares of all outputs, so that what comes back to the last product is its own result."""
        total = 0.0
        for i in range(work.layers):
            h = x[:, : work.widths[0]]
            for w in weights[depth * i : depth * (i + 1)]:
                h = h @ w
            total += 0.5 * jnp.square(h).sum()
        return total

    forwards, both = jax.jit(products), jax.jit(jax.grad(products, argnums=(0, 1)))

    def step(x):
        jax.block_until_ready(both(weights, x))

    return Model(
        step, lambda x: jax.block_until_ready(forwards(weights, x)), lambda n: None, sum(weight.size for weight in weights)
    )
