"""Finds the layer of a composition that is the first to return something that is not finite."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from flows.core.contract import Array

_seen: ContextVar[list[str] | None] = ContextVar("seen", default=None)


def note_nonfinite(name: str, *arrays: Array) -> None:
    """Called by compositions with what each of their layers returned."""
    found = _seen.get()
    if found is None or any(isinstance(array, jax.core.Tracer) for array in arrays):
        return
    if not all(bool(jnp.isfinite(array).all()) for array in arrays):
        found.append(name)


def first_nonfinite_layer(run: Callable[[], Any]) -> str | None:
    """The name of the layer that was the first, or None if none was seen; `run` is done step by step, outside jit."""
    token = _seen.set([])
    try:
        with jax.disable_jit():
            run()
        found = _seen.get()
        return found[0] if found else None
    finally:
        _seen.reset(token)
