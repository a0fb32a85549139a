"""Draws of several components, each of about as many as fall to it.

How many rows fall to a component is drawn, so no program can have a shape for them. Rows are put in order of their components
and filled up to blocks of a fixed size, each of one component: of n rows and K components there are at most n / size + K
blocks, and a loop runs the component of each. What is left over is thrown away.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flows.core import Array, Shape, iteration, off_strides, rows_within

# Rows of a block: per row, draws of a spline flow cost the most in small ones, and in those that leave the cache.
# [us a row of NSF in 6 columns: 38 of 64, 30 of 128, 24 of 256, 20 of 512 and of 784, 27 of 2,064.]
FEWEST, MOST, NUMBERS = 128, 784, 2**18
FULL = 3  # blocks of each component, where these are alike, of which one half is thrown away
TOGETHER = 16  # rows that a processor computes at once
LEAST = 512  # rows, below which a loop costs more than it saves
OVERHEAD = 1.3  # by which a row in a block is dearer, at most, where its rows are few


def size_of_blocks(n: int, count: int, event: Shape) -> int | None:
    """Rows of a block, for n rows of so many components; None where it costs as little to draw n of each of them."""
    most = rows_within(MOST, NUMBERS, event)
    if jax.default_backend() != "cpu":
        most = max(most, n)  # a loop of small blocks leaves a GPU idle
    size = max(min(n // (FULL * count), most), min(FEWEST, most))
    size = off_strides(-(-size // TOGETHER) * TOGETHER if most > TOGETHER else size)
    return size if n >= LEAST and OVERHEAD * (n + count * size / 2) < n * count else None


def in_blocks(
    draw: Callable, components: Any, copies: bool, key: Array, component: Array, count: int, size: int, like: Any, context: Any
) -> Array:
    """Return for each row a draw of its component, `draw(i, params, key, size, context)` in blocks.

    Args:
        components: the params of each, a tuple, or stacked where they are copies of one, which is then number 0.
        component: (n,), from 0 to count - 1.
        size: rows of a block.
        like: the shape and dtype of a draw.
        context: (n, *context), or None.
    """
    n, component = component.shape[0], component.astype(jnp.int32)
    blocks = (n + count * (size - 1)) // size  # at most: a component may leave all but one row of its last block empty
    rows, order = jnp.arange(n, dtype=jnp.int32), jnp.argsort(component).astype(jnp.int32)
    of_each = jnp.zeros(count, jnp.int32).at[component].add(1)
    needed = (of_each + size - 1) // size
    last_block, last_row = (jnp.cumsum(each).astype(jnp.int32) for each in (needed, of_each))
    own = component[order]
    slots = jnp.zeros(n, jnp.int32).at[order].set((last_block - needed)[own] * size + rows - (last_row - of_each)[own])
    # Blocks to which nothing falls come last, and have the number `count`.
    of_block = jnp.searchsorted(last_block, jnp.arange(blocks, dtype=jnp.int32), side="right").astype(jnp.int32)
    if context is not None:
        row_of = jnp.zeros(blocks * size, jnp.int32).at[slots].set(rows)
        context = context[row_of].reshape(blocks, size, *context.shape[1:])

    def of(j: int, at: int | None) -> Callable:
        def drawn(i: Array, params: Any, key: Array, context: Any) -> Array:
            with iteration(i):
                return draw(j, params if at is None else params[at], key, size, context).astype(like.dtype)

        return drawn

    def nothing(*given: Any) -> Array:
        return jnp.zeros((size, *like.shape), like.dtype)

    def block(i: Array, given: Any) -> tuple[Array, Array]:
        j, key, context = given
        if copies:
            own = jax.tree.map(lambda leaf: leaf[jnp.minimum(j, count - 1)], components)
            return i + 1, jax.lax.cond(j < count, of(0, None), nothing, i, own, key, context)
        return i + 1, jax.lax.switch(j, [*(of(each, each) for each in range(count)), nothing], i, components, key, context)

    made = jax.lax.scan(block, jnp.int32(0), (of_block, jax.random.split(key, blocks), context))[1]
    return made.reshape(blocks * size, *like.shape)[slots]
