"""How engines run any conditioner: a network of ours, a user's function, or none where there is nothing to look at."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flows.core import Array, FlowsError, Leading, Shape, vocabulary
from flows.core.arrays import as_dim, size


def build_leading(net: Callable, key: Array, input_dim: int, output_dim: int, context: Shape | None) -> tuple[Any, Callable]:
    """Params and `run(params, x, context, rng, train)` on vectors, features leading: (input_dim, batch) -> (output_dim, batch).

    A network that does not name `context_dim` has the context appended to its inputs. One without any input is replaced by
    params of its own: constants, near 0.
    """
    takes_context = "context_dim" in vocabulary.named_by(net, vocabulary.INIT)
    extra = 0 if context is None else size(context) if takes_context else _vector(net, context)
    if input_dim + extra == 0 or (input_dim == 0 and takes_context and not extra):
        return {"theta": jnp.zeros(output_dim)}, _constant
    inputs = input_dim if takes_context else input_dim + extra
    keywords = {"context_dim": as_dim(context)} if takes_context and extra else {}
    params, apply_fun = net(key, inputs, output_dim, **keywords)
    names = vocabulary.named_by(apply_fun, vocabulary.CALL)
    leading = apply_fun.leading if isinstance(apply_fun, Leading) else _transposed(apply_fun)

    def run(params: Any, x: Array, context: Array | None, rng: Any, train: bool) -> Array:
        if context is not None and not takes_context:
            x = jnp.concatenate([x, context])
        given = context if takes_context else None
        y = leading(params, x, **vocabulary.select(names, context=given, rng=rng, train=train))
        return _checked(y, (output_dim, x.shape[1]), net, x.dtype, output_dim)

    return params, run


def build_events(net: Callable, key: Array, input_dim: Shape, output_dim: Shape, context: Shape | None) -> tuple[Any, Callable]:
    """As `build_leading` for events of several axes, batch first: (batch, *input_dim) -> (batch, *output_dim).

    A network that does not name `context_dim` sees a vector context as further channels, the same at every place.
    """
    takes_context = "context_dim" in vocabulary.named_by(net, vocabulary.INIT)
    extra = 0 if context is None or takes_context else _vector(net, context)
    if input_dim[-1] + extra == 0:
        raise FlowsError(f"a coupling of events {input_dim} has no channel to look at; give it at least two channels")
    keywords = {"context_dim": as_dim(context)} if takes_context and context is not None else {}
    params, apply_fun = net(key, (*input_dim[:-1], input_dim[-1] + extra), output_dim, **keywords)
    names = vocabulary.named_by(apply_fun, vocabulary.CALL)

    def run(params: Any, x: Array, context: Array | None, rng: Any, train: bool) -> Array:
        if context is not None and not takes_context:
            places = context.reshape(len(x), *(1,) * (x.ndim - 2), extra)
            x = jnp.concatenate([x, jnp.broadcast_to(places, (*x.shape[:-1], extra))], axis=-1)
        given = context if takes_context else None
        y = apply_fun(params, x, **vocabulary.select(names, context=given, rng=rng, train=train))
        return _checked(y, (len(x), *output_dim), net, x.dtype, output_dim)

    return params, run


def _constant(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
    return jnp.broadcast_to(params["theta"][:, None], (params["theta"].shape[0], x.shape[1]))


def _transposed(apply_fun: Callable) -> Callable:
    return lambda params, x, **keywords: jnp.swapaxes(apply_fun(params, jnp.swapaxes(x, 0, 1), **keywords), 0, 1)


def _vector(net: Callable, context: Shape) -> int:
    if len(context) != 1:
        raise FlowsError(
            f"{_name(net)}: context_dim is {context}, and only a vector can be appended to a network's inputs; use a "
            "conditioner that names context_dim, or flatten the context"
        )
    return size(context)


def _checked(y: Any, shape: Shape, net: Callable, dtype: Any, output_dim: Any) -> Array:
    if not isinstance(y, jax.Array) or y.shape != shape:
        got = getattr(y, "shape", type(y).__name__)
        raise FlowsError(f"{_name(net)}: the network returned {got}, expected {shape}; its output_dim is {output_dim}")
    return y.astype(dtype)


def _name(net: Callable) -> str:
    return getattr(net, "__name__", repr(net))
