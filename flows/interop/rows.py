"""What other programs hand over: rows of any leading axes, and params of which some train and some are "fixed"."""

from typing import Any

import jax

from flows.core import Array, FlowsError, Shape, as_array, size, trainable


def as_rows(x: Any, event: Shape, what: str) -> tuple[Array, Shape]:
    """Events of any leading axes as rows (n, *event), and these axes."""
    x = as_array(x, what)
    lead = leading(x.shape, event, what)
    return (x if len(lead) == 1 else x.reshape(size(lead), *event)), lead


def leading(shape: Shape, event: Shape, what: str) -> Shape:
    """The axes of a shape before those of the event."""
    cut = len(shape) - len(event)
    if cut < 0 or tuple(shape[cut:]) != event:
        axes = ", ".join(map(str, event))
        raise FlowsError(f"{what} has shape {tuple(shape)}; expected (..., {axes}), events {event} behind any leading axes")
    return tuple(shape[:cut])


def split(params: Any) -> tuple[Any, Any]:
    """The leaves that train and those that are "fixed", each with None in the places of the others."""
    trains = trainable(params)

    def those(wanted: bool) -> Any:
        return jax.tree.map(lambda leaf, train: leaf if train is wanted else None, params, trains)

    return those(True), those(False)


def joined(trained: Any, fixed: Any) -> Any:
    """The params that `split` has split."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, fixed, is_leaf=lambda leaf: leaf is None)
