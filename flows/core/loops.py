"""How the body of a loop stays as fast as straight code."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax import lax

from flows.core.arrays import Array

_turn: ContextVar[Array | None] = ContextVar("turn", default=None)


@contextmanager
def turn(i: Array | None) -> Iterator[None]:
    """What is traced within is the body of a loop, in its turn `i`; None for what is none, or has loops of its own."""
    token = _turn.set(i)
    try:
        yield
    finally:
        _turn.reset(token)


def unfused(x: Array) -> Array:
    """x; in the body of a loop on a CPU an array of its own, which is computed before anything reads it.

    XLA fuses a slice of what a loop has stacked into every kernel that reads it. Their addresses then depend on the turn, and a
    CPU's kernels are no longer vectorised: exp takes 8 times as long, a spline flow 3 times. No fusion reaches into a branch.
    """
    i = _turn.get()
    return x if i is None else lax.platform_dependent(i, x, cpu=_branch, default=lambda i, x: x)


@jax.custom_jvp
def _branch(i: Array, x: Array) -> Array:
    return lax.cond(i >= 0, lambda x: x, jnp.zeros_like, x)


@_branch.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return _branch(*primals), tangents[1]
