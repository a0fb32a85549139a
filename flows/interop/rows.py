"""Values that other programs hand over: rows of any leading axes, and params of which some train and some are "fixed"."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

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


class Batch:
    """Functions of rows by one model, for events of any leading axes, `shape`, along some of which params differ.

    `of_params` are the leading axes of the params, which broadcast with `shape`. Where they have none, events are rows, and a
    function runs once; else it runs once for each of the params, mapped by vmap, on the rows that these are for.
    """

    def __init__(self, shape: Shape, of_params: Shape):
        padded = (1,) * (len(shape) - len(of_params)) + tuple(of_params)
        self.shape, self.several = shape, bool(of_params)
        self.first = [i for i, length in enumerate(padded) if length != 1]  # the axes along which params differ
        self.order = [*self.first, *(i for i in range(len(shape)) if i not in self.first)]

    @cached_property
    def rows(self) -> int:
        """How many there are for each of the params."""
        return size(tuple(self.shape[i] for i in self.order[len(self.first) :]))

    @cached_property
    def _copies(self) -> int:
        return size(tuple(self.shape[i] for i in self.first))

    def folded(self, x: Array, event: Shape, shared: bool = False) -> Array:
        """Events of leading axes as (rows, *event), or (params, rows, *event); with `shared`, a single one stays as it is."""
        cut = x.ndim - len(event)
        if not self.several:
            if shared and not cut:
                return x
            if x.shape[:cut] != self.shape:
                x = jnp.broadcast_to(x, self.shape + event)
            return x if len(self.shape) == 1 else x.reshape(self.rows, *event)
        x = jnp.broadcast_to(x, self.shape + event)
        tail = range(len(self.shape), x.ndim)
        return x.transpose(*self.order, *tail).reshape(self._copies, self.rows, *event)

    def params(self, params: Any, expected: Any) -> Any:
        """Return the params of one model, or of several along one axis."""
        if not self.several:
            return params
        return jax.tree.map(lambda leaf, like: jnp.reshape(leaf, (self._copies, *like.shape)), params, expected)

    def keys(self, key: Array) -> Array:
        return jax.random.split(key, self._copies) if self.several else key

    def mapped(self, function: Callable, params: Any, arguments: tuple, keywords: dict[str, Any]) -> Any:
        """function(params, *arguments, **keywords), whose results have a leading axis of rows, with the axes of `shape`."""
        if not self.several:
            return jax.tree.map(self._unfolded, function(params, *arguments, **keywords))
        run = jax.vmap(lambda params, arguments, keywords: function(params, *arguments, **keywords))
        return jax.tree.map(self._unfolded, run(params, arguments, keywords))

    def _unfolded(self, y: Array) -> Array:
        if not self.several:
            return y if len(self.shape) == 1 else y.reshape(*self.shape, *y.shape[1:])
        y = y.reshape(*(self.shape[i] for i in self.order), *y.shape[2:])
        back = sorted(range(len(self.shape)), key=self.order.__getitem__)
        return y.transpose(*back, *range(len(self.shape), y.ndim))
