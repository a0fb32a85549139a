"""Draws of a distribution together with their log-density, and of several components in blocks.
Family: Draws with their density."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flows.core import Array, Bijection, Params, Shape, iteration, joint_draw_of, off_strides, rows_within

# Rows of a block: per row, draws of a spline flow cost the most in small blocks, and in blocks larger than the cache.
# [us a row of NSF in 6 columns: 38 of 64, 30 of 128, 24 of 256, 20 of 512 and of 784, 27 of 2,064.]
FEWEST, MOST, NUMBERS = 128, 784, 2**18
FULL = 3  # blocks of a component, where all have equal weights; half a block of them is thrown away
TOGETHER = 16  # rows that a processor computes at once
LEAST = 512  # rows; with fewer a loop costs more than it saves
OVERHEAD = 1.3  # at most, the cost of a row in a small block relative to a row in a large one


def sample_with_log_pdf(
    rng: Any, params: Params, distribution: Any, num_samples: int = 1, *, context: Any = None
) -> tuple[Array, Array]:
    """Draws x and log p(x), in one pass: the same draws as `sample` with the same rng.

    The density of a flow's draw comes from the noise y that it is made of, log p(x) = log p_base(y) - log|det dx/dy|, so f(x)
    is not computed again: an inverse autoregressive flow never runs its slow direction. Functions that do not come from a
    constructor's value are called one after the other, sample, then log_pdf.

    Where `likelihood` is 'lower bound', the density is the weight of the path on which a point was made, with the numbers that
    were rounded away or left out: exact for importance weights, and not what log_pdf gives.

    Args:
        rng: key or seed.
        params: of the distribution.
        distribution: its triple `(params, log_pdf, sample)`; the params in it are ignored.
        num_samples: number of draws.
        context: as sample takes it.

    Returns:
        Draws (num_samples, *event), and their log-density (num_samples,), in nats.

    Errors:
        TypeError: an argument that is not the triple of a distribution. Else the errors of sample and log_pdf.

    Example:
        >>> import flows, numpy as np
        >>> distribution = params, log_pdf, sample = flows.Flow(flows.IAF(2, hidden=(16,)))(0, 3)
        >>> x, log_p = flows.sample_with_log_pdf(1, params, distribution, 5)
        >>> np.allclose(log_p, log_pdf(params, x), atol=1e-4)
        True
    """
    log_pdf, sample = functions("sample_with_log_pdf", distribution)
    keywords = {} if context is None else {"context": context}
    joint = joint_draw_of(sample)
    if joint is not None and joint.log_pdf is log_pdf:
        return joint.draw(rng, params, num_samples, **keywords)
    x = sample(rng, params, num_samples, **keywords)
    return x, log_pdf(params, x, **keywords)


def functions(name: str, distribution: Any) -> tuple[Callable, Callable]:
    """log_pdf and sample of a triple."""
    if isinstance(distribution, Bijection):
        raise TypeError(f"{name}: got a bijection's triple; expected a distribution's triple, flows.Flow(bijection)(rng, d)")
    if not isinstance(distribution, tuple) or len(distribution) != 3 or not all(map(callable, distribution[1:])):
        raise TypeError(
            f"{name}: distribution is {distribution!r:.60}; expected the triple (params, log_pdf, sample) that "
            "init_fun(rng, input_dim) returns"
        )
    return distribution[1], distribution[2]


def size_of_blocks(n: int, count: int, event: Shape) -> int | None:
    """Rows of a block, for n rows of `count` components; None where n draws of every component cost as little."""
    most = rows_within(MOST, NUMBERS, event)
    if jax.default_backend() != "cpu":
        most = max(most, n)  # a loop of small blocks leaves a GPU idle
    size = max(min(n // (FULL * count), most), min(FEWEST, most))
    size = off_strides(-(-size // TOGETHER) * TOGETHER if most > TOGETHER else size)
    return size if n >= LEAST and OVERHEAD * (n + count * size / 2) < n * count else None


def in_blocks(
    draw: Callable, components: Any, copies: bool, key: Array, component: Array, count: int, size: int, like: Any, context: Any
) -> Array:
    """Return for each row a draw of its component, made by `draw(i, params, key, size, context)` for one block at a time.

    The number of rows of a component is random, so no program can have a shape for them. Rows are sorted by component and
    filled up to blocks of a fixed size, each of one component: n rows of K components need at most n / size + K blocks, and a
    loop draws one block after the other. The draws that only fill up a block are thrown away.

    Args:
        components: the params of each, a tuple, or stacked for copies of one component, whose number i is 0.
        component: (n,), from 0 to count - 1.
        size: rows of a block.
        like: the shape and dtype of a draw.
        context: (n, *context), or None.
    """
    n, component = component.shape[0], component.astype(jnp.int32)
    blocks = (n + count * (size - 1)) // size  # at most: a component may leave all but one row of its last block empty
    rows, order = jnp.arange(n, dtype=jnp.int32), jnp.argsort(component).astype(jnp.int32)
    totals = jnp.zeros(count, jnp.int32).at[component].add(1)
    needed = (totals + size - 1) // size
    last_block, last_row = (jnp.cumsum(numbers).astype(jnp.int32) for numbers in (needed, totals))
    in_order = component[order]
    slots = jnp.zeros(n, jnp.int32).at[order].set((last_block - needed)[in_order] * size + rows - (last_row - totals)[in_order])
    # Blocks without rows come last, and have the component number `count`.
    block_component = jnp.searchsorted(last_block, jnp.arange(blocks, dtype=jnp.int32), side="right").astype(jnp.int32)
    if context is not None:
        row_in_slot = jnp.zeros(blocks * size, jnp.int32).at[slots].set(rows)
        context = context[row_in_slot].reshape(blocks, size, *context.shape[1:])

    def component_draw(j: int, place: int | None) -> Callable:
        def drawn(i: Array, params: Any, key: Array, context: Any) -> Array:
            with iteration(i):
                return draw(j, params if place is None else params[place], key, size, context).astype(like.dtype)

        return drawn

    def nothing(*inputs: Any) -> Array:
        return jnp.zeros((size, *like.shape), like.dtype)

    def block(i: Array, inputs: Any) -> tuple[Array, Array]:
        j, key, context = inputs
        if copies:
            params = jax.tree.map(lambda leaf: leaf[jnp.minimum(j, count - 1)], components)
            return i + 1, jax.lax.cond(j < count, component_draw(0, None), nothing, i, params, key, context)
        branches = [*(component_draw(k, k) for k in range(count)), nothing]
        return i + 1, jax.lax.switch(j, branches, i, components, key, context)

    draws = jax.lax.scan(block, jnp.int32(0), (block_component, jax.random.split(key, blocks), context))[1]
    return draws.reshape(blocks * size, *like.shape)[slots]
