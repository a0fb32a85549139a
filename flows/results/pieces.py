"""Functions of rows in pieces of few sizes: any number of rows, such as a memory map, in little memory and by few programs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np

from flows.core import Array, ModelValue, as_array, as_context, as_event, distribution_part, pieces_of, size

FEW = 8_256  # rows that are taken together, at most, as `filled` has few sizes of them
# Rows of a piece: `filled` leaves all of these as they are. The first is for accelerators alone.
SIZES = 132_096, 16_512, 2_064, 256, 32, 4
NUMBERS = 2**23  # in a piece, at most

_few_programs: ContextVar[bool] = ContextVar("few_programs", default=False)


@contextmanager
def few_programs() -> Iterator[None]:
    """Score few rows by the two sizes of many within the context, so that tables of all lengths share two programs."""
    token = _few_programs.set(True)
    try:
        yield
    finally:
        _few_programs.reset(token)


def by_pieces(function: Callable, *rows: Any, sizes: Sequence[int] = ()) -> np.ndarray:
    """Return function(*rows), (..., rows), in pieces; None among the rows is passed on.

    Args:
        function: of arrays (length of a piece, ...).
        rows: arrays (rows, ...), read a piece at a time.
        sizes: lengths of pieces, the largest first. The last piece is filled up with other rows, so that no row may depend on
            others. By default pieces fit memory, and none is filled up.
    """
    rows = tuple(np.asarray(array) if isinstance(array, jax.Array) else array for array in rows)
    n, start, parts = len(rows[0]), 0, list[np.ndarray]()
    while start < n:
        lengths = sizes or [pieces_of(n, rows[0].shape[1:])[0].stop]
        length = next((length for length in lengths if length <= n - start), lengths[-1])
        index: Any = np.arange(start, start + length) % n if sizes and start + length > n else slice(start, start + length)
        outputs = function(*(None if array is None else array[index] for array in rows))
        parts.append(np.asarray(outputs)[..., : n - start])
        start += length
    return np.concatenate(parts, -1) if parts else np.zeros(0)


def scored(result: Any, log_pdf: Callable, params: Any, x: Any, context: Any) -> Array | None:
    """Return log_pdf(params, x, context=context), (..., rows), of many rows, by the model of a result in pieces of two sizes.

    None where rows are taken together, as they are few, may depend on each other, are traced or placed, or have a fault.
    """
    if not (isinstance(x, np.ndarray | jax.Array) and x.ndim and isinstance(result.init_fun, ModelValue)):
        return None
    event, context_shape = as_event(result.input_dim), as_context(result.context_dim)
    lengths = SIZES[jax.default_backend() == "cpu" :]
    sizes = [length for length in lengths if length * size(event) <= NUMBERS][:2] or lengths[-1:]
    shape = None if context is None else context.shape
    fits = x.shape[1:] == event and shape in (context_shape, context_shape and (len(x), *context_shape))
    leaves = jax.tree.leaves((params, x, context))
    placed = any(isinstance(leaf, jax.core.Tracer) or getattr(leaf, "committed", False) for leaf in leaves)
    few = 0 if _few_programs.get() else min(FEW, sizes[0])
    if len(x) <= few or placed or not fits:
        return None
    part = distribution_part(result.init_fun, event, context_shape)
    if not (part.independent and part.compiled):
        return None
    if x.dtype.kind in "iu" and x.dtype.itemsize > 2:  # the dtype depends on all of them
        x = as_array(x, "inputs")

    def piece(x: np.ndarray, condition: np.ndarray | None) -> Any:
        keywords = {} if context is None else {"context": context if condition is None else condition}
        return log_pdf(params, x, **keywords)

    return jax.device_put(by_pieces(piece, x, None if shape == context_shape else context, sizes=sizes))
