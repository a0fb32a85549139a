"""Few sizes: eager calls are filled up with copies of their last row, so that a new number of rows rarely compiles."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.contract import Array, Params, Shape
from flows.core.cpu_loops import PIECE, off_strides


def filled(n: int) -> int:
    """The least size that holds n rows, of few: powers of two up to 128, then four an octave, then whole pieces."""
    octave = 1 << max(n - 1, 0).bit_length()
    if n <= 128:
        return octave
    if n > 4 * PIECE:
        return -(-n // PIECE) * PIECE
    steps = (min(4 * PIECE, off_strides(octave * k // 8)) for k in (4, 5, 6, 7, 8))
    return next(size for size in steps if size >= n)


def call_filled(run: Callable, part: Any, event: Shape, params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
    """run(params, x, context, rng, train) for n rows, of a few more where rows are told to be independent.

    Not under a trace, where the program is the caller's; not with rng or train, nor where a plain closure or a user's network
    is in it, as rows may then depend on each other; not for arrays on several devices; not for what `run` will refuse.
    """
    each = (x,) if context is None or context.shape == part.context else (x, context)  # what has a row for each of n
    traced = any([isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, x, context))])
    if traced or rng is not None or train or not part.independent or not part.compiled:
        return run(params, x, context, rng, train)
    n = len(x) if x.ndim else 0
    size = filled(n)
    fits = all([a.shape == (n, *shape) and _on_one_device(a) for a, shape in zip(each, (event, part.context), strict=False)])
    if not n or size == n or not fits:
        return run(params, x, context, rng, train)
    x, *of_rows = [grown(a, size) for a in each]
    found = run(params, x, *(of_rows or [context]), rng, train)
    return jax.tree.map(lambda a: first(a, n), found)


def grown(x: Array, size: int) -> Array:
    """x with copies of its last row up to `size`. On a CPU without a program of its own for each number of rows."""
    if not on_cpu(x):
        return _grown(x, size)
    rows = np.asarray(x)
    return put(np.concatenate([rows, np.broadcast_to(rows[-1:], (size - len(rows), *rows.shape[1:]))]), x)


def first(x: Array, n: int) -> Array:
    """x[:n], as `grown`."""
    return put(np.asarray(x)[:n], x) if on_cpu(x) else x[:n]


@partial(jax.jit, static_argnums=1)
def _grown(x: Array, size: int) -> Array:
    return jnp.concatenate([x, jnp.broadcast_to(x[-1:], (size - len(x), *x.shape[1:]))])


def put(rows: np.ndarray, like: Array) -> Array:
    """`rows`, where `like` is."""
    return jax.device_put(rows, like.sharding if like.committed else None)


def _on_one_device(x: Array) -> bool:
    return len(x.devices()) == 1


def on_cpu(x: Any) -> bool:
    """Whether it is an array in this process's memory alone; what is traced is nowhere."""
    known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return known and _on_one_device(x) and next(iter(x.devices())).platform == "cpu"
