"""Workarounds for XLA on CPUs: loop bodies as fast as unrolled code, and large batches in pieces that fit the cache."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from jax import lax

from flows.core.contract import Array, Shape
from flows.core.inputs import rows_within

# Rows; what a layer of splines makes of them about fits the cache of a core. Not a multiple of 512: features that lie so far
# apart share few lines of the cache, and a spline flow takes a sixth longer, a triangular solve twice as long.
PIECE = 2064
# Numbers of vectors, and of images, of which networks make many more. [1,024 densities of GlowImage(4), (32, 32, 3): 641 ms
# whole, 319 so; 10,000 of RealNVP in 512 columns: 96 ms, 144 with the budget of images.]
NUMBERS, NUMBERS_OF_IMAGES = 2**20, 2**17

_iteration: ContextVar[tuple[Array, Any] | None] = ContextVar("iteration", default=None)
# Equal where the same function is being traced; jax 0.7 has it elsewhere.
_tracing = getattr(jax.extend.core, "get_opaque_trace_state", None) or jax.core.get_opaque_trace_state


@contextmanager
def iteration(i: Array | None) -> Iterator[None]:
    """What is traced within is the body of a loop, in its iteration `i`; None for what is none, or has loops of its own."""
    token = _iteration.set(None if i is None else (i, _tracing()))
    try:
        yield
    finally:
        _iteration.reset(token)


def current_iteration() -> Array | None:
    """The iteration of the body that is being traced; None within a function traced inside it, whose program jit may keep."""
    of_body = _iteration.get()
    return None if of_body is None or of_body[1] != _tracing() else of_body[0]


def unfused(x: Array) -> Array:
    """x; in the body of a loop on a CPU an array of its own, which is computed before anything reads it.

    XLA fuses a slice of what a loop has stacked into every kernel that reads it. Their addresses then depend on the iteration,
    and a CPU's kernels are no longer vectorised: exp takes 8 times as long, a spline flow 3 times. No fusion reaches into a
    branch.
    """
    i = current_iteration()
    return x if i is None else lax.platform_dependent(i, x, cpu=_branch, default=lambda i, x: x)


@jax.custom_jvp
def _branch(i: Array, x: Array) -> Array:
    return lax.cond(i >= 0, lambda x: x, jnp.zeros_like, x)


@_branch.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return _branch(*primals), tangents[1]


def off_strides(rows: int) -> int:
    """`rows`, or a few more where so many would share lines of the cache (PIECE)."""
    return rows + 16 if rows > 512 and rows % 256 == 0 else rows


def in_pieces(fun: Callable, params: Any, *rows: Any, event: Shape | None = None) -> Any:
    """fun(params, *rows), a function of each row by itself; on a CPU many rows are taken in pieces that fit its cache.

    How many fit goes by the size of `event`, by default that of the first of `rows`. What is differentiated is taken whole: its
    gradient would be slower in pieces, as they keep what it needs. So are rows whose number is a symbol of `jax.export`.
    """
    n, *own = jax.tree.leaves(rows)[0].shape
    event = tuple(own) if event is None else event
    piece = rows_within(PIECE, NUMBERS if len(event) == 1 else NUMBERS_OF_IMAGES, event)
    if not isinstance(n, int) or n < 2 * piece or jax.default_backend() != "cpu":
        return fun(params, *rows)
    if jax.closure_convert(lambda params, rows: fun(params, *rows), params, rows)[1]:
        return fun(params, *rows)  # it closes over a tracer, for which custom_jvp has no rule
    count = -(-n // piece)
    size = off_strides(-(-n // count))

    def split(x: Array) -> Array:
        padding = jnp.broadcast_to(x[:1], (count * size - n, *x.shape[1:]))
        return jnp.concatenate([x, padding]).reshape(count, size, *x.shape[1:])

    @jax.custom_jvp
    def pieces(params: Any, rows: Any) -> Any:
        def body(i: Array, piece: Any) -> tuple[Array, Any]:
            with iteration(i):
                return i + 1, fun(params, *piece)

        results = lax.scan(body, jnp.int32(0), jax.tree.map(split, rows))[1]
        return jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:])[:n], results)

    @pieces.defjvp
    def _(primals: tuple, tangents: tuple) -> Any:
        return jax.jvp(lambda params, rows: fun(params, *rows), primals, tangents)

    return pieces(params, rows)
