"""Checks of arguments, whose errors say what was expected; and limits of a model from a file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from flows.core.caching import assigned
from flows.core.contract import Array, Shape
from flows.core.errors import FlowsError
from flows.core.inputs import as_dim

LEAST = 1e-37  # what float32 holds above 0, with room for a factor
MOST = 1e37  # what float32 holds, with room for a factor
TO_VECTORS = "latitude and longitude in degrees become unit vectors (n, 3) by flows.from_degrees(latitude, longitude)"


def check_widths(x: Any, name: str) -> tuple[int, ...]:
    """`x`, if it is a sequence of the widths of hidden layers."""
    if isinstance(x, str | bytes | bytearray) or not isinstance(x, Sequence):
        raise FlowsError(f"{name} is {x!r:.60}; expected the widths of the hidden layers, such as (64, 64)")
    return tuple(positive_int(width, f"{name}: a width") for width in x)


def positive_int(x: Any, name: str, most: int = 10**9) -> int:
    """`x`, if it is a whole number from 1 to `most`: a number that cannot be meant should not exhaust the memory."""
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or not 1 <= x <= most:
        raise FlowsError(f"{name} is {x!r:.60}; expected a whole number from 1 to {most}")
    n, budget = int(x), _budget.get()
    if budget is not None and 4 * n > budget.max_bytes:  # as many numbers of float32
        raise FlowsError(TOO_MUCH.format(4 * n, budget.max_bytes))
    return n


def boolean(x: Any, name: str) -> bool:
    """`x`, if it is True or False."""
    if not isinstance(x, bool):
        raise FlowsError(f"{name} is {x!r:.60}; expected True or False")
    return x


def number(x: Any, name: str, allowed: Callable[[Any], bool], expected: str) -> float:
    """`x`, if it is a real number that is allowed; True and False are not numbers."""
    if isinstance(x, bool) or not isinstance(x, Real) or not allowed(x):
        raise FlowsError(f"{name} is {x!r:.60}; expected {expected}")
    return float(x)


def positive(x: Any, name: str, least: float = LEAST, most: float = MOST) -> float:
    """`x`, if it is a number from `least` to `most`."""
    return number(x, name, lambda x: least <= x <= most, f"a number above 0, from {least:g} to {most:g}")


def share(x: Any, name: str) -> float:
    """`x`, if it is a number from 0 to 1."""
    return number(x, name, lambda x: 0 <= x <= 1, "a number from 0 to 1")


def finite(x: Any, name: str) -> float:
    """`x`, if it is a number that float32 holds."""
    return number(x, name, lambda x: -MOST <= x <= MOST, f"a finite number, of size up to {MOST:g}")


def not_negative(x: Any, name: str) -> float:
    """`x`, if it is a finite number, 0 or more."""
    return number(x, name, lambda x: 0 <= x < np.inf, "a number, 0 or more")


def numbers(x: Any, name: str) -> np.ndarray:
    """`x`, a number or an array of numbers that float32 holds, in float64."""
    try:
        array = np.asarray(x)
    except ValueError:
        raise FlowsError(f"{name} is {x!r:.60}; expected numbers in rows of equal length") from None
    if array.dtype.kind not in "iuf" or not (np.abs(array.astype(float)) <= MOST).all():
        raise FlowsError(f"{name} is {x!r:.60}; expected finite numbers, of size up to {MOST:g}")
    return array.astype(float)


def check_fits(x: np.ndarray, event: Shape, name: str) -> None:
    """Refuse constants that are neither one number, nor one for each entry of the event or of its last axis."""
    allowed = dict.fromkeys((event[-1:], event))
    if x.shape not in ((), *allowed):
        raise FlowsError(f"{name} has shape {x.shape}; expected a number, or the shape {' or '.join(map(str, allowed))}")


def check_rows(x: Array, event: Shape, name: str, what: str = "inputs", unit_vectors: bool = False) -> None:
    """Refuse anything but (batch, *event); in place of `unit_vectors` two columns may be meant as degrees."""
    if x.ndim == len(event) + 1 and x.shape[1:] == event:
        return
    expected = f"(batch, {', '.join(map(str, event))})"
    if x.shape == event:
        remedy = f"a single row needs its batch axis: {what}[None]"
    elif x.ndim == 1 and event == (1,):
        remedy = f"one column still needs its axis: {what}[:, None]"
    elif unit_vectors and event == (3,) and x.shape[1:] == (2,):
        remedy = f"points are unit vectors: {TO_VECTORS}"
    elif x.ndim > len(event) + 1 and x.shape[x.ndim - len(event) :] == event:
        remedy = f"exactly one batch axis is allowed: {what}.reshape(-1, {', '.join(map(str, event))})"
    else:
        remedy = f"init_fun was called with input_dim={as_dim(event)!r}; give it the shape of one row of your data"
    raise FlowsError(f"{name}: {what} have shape {x.shape}, expected {expected}; {remedy}")


def check_finite(x: np.ndarray, dtype: Any, what: str, names: tuple[str, ...] | None = None) -> None:
    """Refuse rows of data with NaN, inf, or numbers that overflow in `dtype`; columns may have names."""
    if x.dtype.kind in "iu" and x.dtype.itemsize <= 2:  # images: no copy of them is made
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(x.astype(dtype))
    if finite.all():
        return
    row, *place = (int(i) for i in np.argwhere(~finite)[0])
    bad = int((~finite.reshape(len(x), -1).all(1)).sum())
    where = f"column {names[place[0]]!r:.60}" if names else f"column {place[0]}" if len(place) == 1 else f"entry {tuple(place)}"
    raise FlowsError(
        f"{what} has {x[row, *place]!s} in row {row}, {where} ({bad} of {len(x)} rows are so); expected finite numbers "
        f"within the range of {np.dtype(dtype).name}. Drop these rows, fill or rescale the values, or give a frame with gaps "
        "to flows.tables.fit; flows.AnySubset takes rows with gaps, by flows.gaps"
    )


def check_result(x: Any, shape: Shape, name: str, what: str) -> None:
    """Refuse a wrong result of an author's function, before it can broadcast."""
    if not hasattr(x, "shape") or tuple(x.shape) != shape:
        got = f"shape {tuple(x.shape)}" if hasattr(x, "shape") else f"type {type(x).__name__}"
        raise FlowsError(f"{name}: {what} of the layer's function have {got}, expected shape {shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise FlowsError(f"{name}: {what} of the layer's function have dtype {x.dtype}, expected a floating one")


MOST_PARTS = 10_000  # constructors, and the layers and components within them ...
BYTES_A_PART = 500  # ... or more, if this many bytes are allowed for each
MADE = 20  # parts, for each `Part` that is made, which takes milliseconds
LAYER = 10  # parts, for each layer of a network, for the same reason

TOO_MUCH = "it asks for {:,} bytes or more, of which {:,} are allowed. If you trust the file, give max_bytes="
TOO_MANY = "it has more than {:,} layers and components. If you trust the file, give max_bytes="


class Budget:
    """Limits for the bytes of arrays and the number of parts, and the amounts spent so far."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.max_parts = max_bytes, max(MOST_PARTS, max_bytes // BYTES_A_PART)
        self.bytes, self.parts, self.copies = 0, 0, 1


_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)


def within(max_bytes: int) -> AbstractContextManager[None]:
    """Count bytes and parts that are made inside a `with`, and refuse more than `max_bytes` allow."""
    return assigned(_budget, Budget(max_bytes))


@contextmanager
def repeated(n: int) -> Iterator[None]:
    """Count n copies of what is made inside a `with`: copies of copies multiply."""
    budget = _budget.get()
    if budget is None:
        yield
        return
    budget.copies *= n
    try:
        if budget.copies > budget.max_parts:
            raise FlowsError(TOO_MANY.format(budget.max_parts))
        yield
    finally:
        budget.copies //= n


def spend(*, size: int = 0, parts: int = 0) -> None:
    """Count bytes or parts that are about to be made; outside of `within` nothing is counted."""
    budget = _budget.get()
    if budget is None:
        return
    budget.bytes, budget.parts = budget.bytes + size, budget.parts + parts
    if budget.bytes > budget.max_bytes:
        raise FlowsError(TOO_MUCH.format(budget.bytes, budget.max_bytes))
    if budget.parts > budget.max_parts:
        raise FlowsError(TOO_MANY.format(budget.max_parts))
