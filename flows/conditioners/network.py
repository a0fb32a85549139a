"""Conditioners as engines run them: a network of ours, a user's function, or constants where a network would have no input."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flows.conditioners.base import Leading, as_network
from flows.conditioners.masked import Masked
from flows.core import (
    CALL,
    INIT,
    Array,
    FlowsError,
    Given,
    Shape,
    as_dim,
    named_by,
    positive,
    saturated,
    select,
    size,
    soft_clip,
)

FAR = 1e18
Squash = float | tuple[str, float] | None
NOTHING = Given()
MEASURED = ("init_inputs", "init_context", "params")


class Running(NamedTuple):
    """The functions of a conditioner, without its params, which functions must not close over.

    `run(params, x, context=None, rng=None, train=False)` returns the outputs; features lead in x and in the outputs, and the
    context is (batch, *context).
    """

    run: Callable[..., Array]
    keywords: frozenset[str] = frozenset()  # of rng and train, the ones that the network names
    solve: Callable[..., Any] | None = None  # `solve(params, context, y, find)` of `Masked`, for a masked network of ours
    sees_all: bool = False  # a network of ours without masks: each output depends on all inputs
    constant: bool = False  # constants instead of a network: every row gets the same


def measured_by(net: Any) -> frozenset[str]:
    """Return which of init_inputs, init_context and params an engine's init has to name for its conditioner."""
    names = named_by(net, MEASURED)
    return names | {"init_context"} if "init_inputs" in names else names


def running(
    net: Callable,
    key: Array,
    inputs: Shape,
    outputs: Shape,
    context: Shape | None = None,
    args: Given = NOTHING,
    squash: Squash = None,
) -> tuple[Any, Running]:
    """The params of a conditioner, and its functions: on vectors, or on events of several axes.

    With `squash` the network sees x unchanged within this bound, and at most 1 beyond it.
    """
    if len(inputs) == 1:
        return build_leading(net, key, inputs[0], outputs[0], context, args, squash)
    return build_events(net, key, inputs, outputs, context, args, squash)


def build_leading(
    net: Callable, key: Array, input_dim: int, output_dim: int, context: Shape | None, args: Given, squash: Squash
) -> tuple[Any, Running]:
    """A conditioner on vectors: `run` maps (input_dim, batch) to (output_dim, batch).

    If a network does not name `context_dim`, the context is appended to its inputs. With an `input_dim` of 0 it sees the
    context alone, and x gives only the number of rows. A network without any input is replaced by constants, params that start
    at 0.
    """
    takes_context = "context_dim" in named_by(net, INIT)
    extra = 0 if context is None else size(context) if takes_context else _vector(net, context)
    if input_dim + extra == 0 or (input_dim == 0 and takes_context and not extra):
        return _or_old(args, {"theta": jnp.zeros(output_dim)}), Running(_constant, constant=True)

    shown = partial(_shown, squash)
    inputs = input_dim if takes_context else input_dim + extra
    keywords = {"context_dim": as_dim(context)} if takes_context and extra else {}
    data = args.init_inputs
    if data is not None:
        data = data if input_dim else jnp.zeros((data.shape[0], 0), data.dtype)
        data = shown(data) if takes_context or args.init_context is None else _appended(shown(data), args.init_context, 1)
    keywords |= _data_of(net, args, data)
    params, apply_fun = as_network(net(key, inputs, output_dim, **keywords), _name(net))
    names = named_by(apply_fun, CALL)
    ours = isinstance(apply_fun, Leading)

    def run(params: Any, x: Array, context: Array | None = None, rng: Any = None, train: bool = False) -> Array:
        x = shown(x if input_dim else x[:0])
        if context is not None and not takes_context:
            x = _appended(x, context.T, 0)
        context = context if takes_context else None
        if ours:
            y = apply_fun.leading(params, x, **select(names, context=_leading(context), rng=rng, train=train))
            return _checked(y, (output_dim, x.shape[1]), net, x.dtype, output_dim)
        y = apply_fun(params, x.T, **select(names, context=context, rng=rng, train=train))
        return _checked(y, (x.shape[1], output_dim), net, x.dtype, output_dim).T

    def solve(params: Any, context: Array | None, y: Array, find: Callable) -> Any:
        return apply_fun.solve(params, _leading(context), y, find, shown)

    params = params if measured_by(net) else _or_old(args, params)
    masked = isinstance(apply_fun, Masked)
    sees_all = getattr(apply_fun, "sees_all", False)
    return params, Running(run, names & {"rng", "train"}, solve if masked else None, sees_all)


def build_events(
    net: Callable, key: Array, input_dim: Shape, output_dim: Shape, context: Shape | None, args: Given, squash: Squash
) -> tuple[Any, Running]:
    """A conditioner on events of several axes: `run` maps (channels, batch, *space) to (outputs, batch, *space).

    If a network does not name `context_dim`, a vector context joins its inputs as further channels, the same at every place.
    """
    takes_context = "context_dim" in named_by(net, INIT)
    extra = 0 if context is None or takes_context else _vector(net, context)
    if input_dim[-1] + extra == 0:
        raise FlowsError(f"a coupling of events {input_dim} has no channel for its network; give it at least two channels")

    def with_context(x: Array, context: Array | None) -> Array:
        return x if context is None or takes_context else appended(x, context)

    keywords = {"context_dim": as_dim(context)} if takes_context and context is not None else {}
    data = None if args.init_inputs is None else with_context(_shown(squash, args.init_inputs), args.init_context)
    keywords |= _data_of(net, args, data)
    inputs = (*input_dim[:-1], input_dim[-1] + extra)
    params, apply_fun = as_network(net(key, inputs, output_dim, **keywords), _name(net))
    names = named_by(apply_fun, CALL)

    def run(params: Any, x: Array, context: Array | None = None, rng: Any = None, train: bool = False) -> Array:
        # Squashed, then transposed: else XLA does not see that an inverse and its gradient share a network, and runs it twice.
        x = jnp.moveaxis(_shown(squash, x), 0, -1)
        keywords = select(names, context=context if takes_context else None, rng=rng, train=train)
        y = apply_fun(params, with_context(x, context), **keywords)
        return jnp.moveaxis(_checked(y, (x.shape[0], *output_dim), net, x.dtype, output_dim), -1, 0)

    return params if measured_by(net) else _or_old(args, params), Running(run, names & {"rng", "train"})


def check_squash(squash: Any, name: str) -> Squash:
    """`squash`, if it is None, a number above 0, or ("tanh", such a number)."""
    if squash is None:
        return None
    if isinstance(squash, tuple | list):
        if len(squash) != 2 or squash[0] != "tanh":
            raise FlowsError(f"{name} is {squash!r:.60}; expected a number, ('tanh', number) or None")
        return "tanh", positive(squash[1], name)
    return positive(squash, name)


def _shown(squash: Squash, x: Array) -> Array:
    """Return x as a network sees it. An entry beyond FAR would overflow, and a masked weight of 0 times inf is NaN."""
    if isinstance(squash, tuple):
        return soft_clip(x, squash[1])
    return jnp.clip(x, -FAR, FAR) if squash is None else saturated(x, squash)


def _data_of(net: Callable, args: Given, data: Array | None) -> dict[str, Any]:
    values = {"init_inputs": data, "init_context": args.init_context, "params": args.params}
    return {name: values[name] for name in named_by(net, MEASURED) if values[name] is not None}


def _or_old(args: Given, params: Any) -> Any:
    """Params of a conditioner that measures nothing: they stay when measured params are refreshed."""
    return params if args.params is None else args.params


def appended(inputs: Array, context: Array) -> Array:
    """Inputs, with a context that is a vector as further features, or channels."""
    rows = context.reshape(*context.shape[:-1], *(1,) * (inputs.ndim - context.ndim), context.shape[-1])
    return jnp.concatenate([inputs, jnp.broadcast_to(rows, (*inputs.shape[:-1], rows.shape[-1])).astype(inputs.dtype)], axis=-1)


def _appended(x: Array, context: Array, axis: int) -> Array:
    return jnp.concatenate([x, context.astype(x.dtype)], axis=axis)


def _leading(context: Array | None) -> Array | None:
    return None if context is None else jnp.moveaxis(context, 0, -1)


def _constant(params: Any, x: Array, context: Any = None, rng: Any = None, train: bool = False) -> Array:
    return jnp.broadcast_to(params["theta"][:, None], (params["theta"].shape[0], x.shape[1]))


def _vector(net: Callable, context: Shape) -> int:
    if len(context) != 1:
        raise FlowsError(
            f"{_name(net)}: context_dim is {context}, and only a vector can be appended to a network's inputs; flatten the "
            f"context, to context_dim={size(context)}, or use a conditioner that names context_dim"
        )
    return size(context)


def _checked(y: Any, shape: Shape, net: Callable, dtype: Any, output_dim: Any) -> Array:
    if not isinstance(y, jax.Array) or y.shape != shape:
        got = getattr(y, "shape", type(y).__name__)
        raise FlowsError(f"{_name(net)}: the network returned {got}, expected {shape}; its output_dim is {output_dim}")
    return y.astype(dtype)


def _name(net: Callable) -> str:
    return getattr(net, "__name__", repr(net))
