"""Arguments of constructors: each is refused with what was got and what was expected."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.core.arrays import Shape
from flows.core.errors import FlowsError

LEAST, MOST = 1e-37, 1e37  # what float32 holds, with room for a factor


def check_widths(x: Any, name: str) -> tuple[int, ...]:
    """`x`, if it is a sequence of the widths of hidden layers."""
    if isinstance(x, str) or not isinstance(x, Sequence):
        raise FlowsError(f"{name} is {x!r:.60}; expected the widths of the hidden layers, such as (64, 64)")
    return tuple(positive_int(width, f"{name}: a width") for width in x)


def positive_int(x: Any, name: str, most: int = 10**9) -> int:
    """`x`, if it is a whole number from 1 to `most`: what cannot be meant should not exhaust the memory."""
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or not 1 <= x <= most:
        raise FlowsError(f"{name} is {x!r:.60}; expected a whole number from 1 to {most}")
    return int(x)


def positive(x: Any, name: str, least: float = LEAST, most: float = MOST) -> float:
    """`x`, if it is a number from `least` to `most`."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not least <= x <= most:
        raise FlowsError(f"{name} is {x!r:.60}; expected a number above 0, from {least:g} to {most:g}")
    return float(x)


def finite(x: Any, name: str) -> float:
    """`x`, if it is a number that float32 holds."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not -MOST <= x <= MOST:
        raise FlowsError(f"{name} is {x!r:.60}; expected a finite number, of size up to {MOST:g}")
    return float(x)


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
