"""Bijections one after the other; and `FactorOut`, where half of the channels leave before them. Family: Compositions."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from flows.core import (
    Array,
    BijectionInit,
    BijectionLike,
    BijectionPart,
    Composite,
    FlowsError,
    Given,
    Place,
    Shape,
    assigned,
    bijection_part,
    check_layers,
    combinator,
    holds_tracer,
    precision,
    shared,
    size,
    split_key,
    trainable,
)

_nonfinite: ContextVar[list[str] | None] = ContextVar("nonfinite", default=None)


@combinator(BijectionInit)
def Serial(*layers: BijectionLike):
    """Bijections one after the other, from data to noise: y = f_n(... f_1(x)), log|det J| = the sum of the layers'.

    Args:
        layers: bijections: constructors' values, or plain functions that honour the contract.

    Params:
        A tuple with the params of each layer.

    Cost:
        Direct: the cost of its layers. Inverse: the cost of its layers.

    Errors:
        TypeError: no layers, or something that is not a bijection.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Serial(flows.ActNorm(), flows.Reverse())
        >>> params, direct_fun, inverse_fun = init_fun(0, 3)
        >>> direct_fun(params, jnp.array([[1.0, 2.0, 3.0]]))[0].tolist()
        [[3.0, 2.0, 1.0]]
    """
    if not layers:
        raise TypeError("Serial: no layers were given; expected at least one bijection, Serial(ActNorm(), ...)")
    check_layers("Serial", layers, BijectionInit, "a bijection")

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        return chain(*parts_of("Serial", layers, event, context), context)

    return Composite(part, layers, order="chain")


@combinator(BijectionInit)
def FactorOut(*layers: BijectionLike):
    """Half of the channels leave for the base; the rest go on through `layers`; the output is flat.

    y = (x_out, f(x_rest)), log|det J| = log|det df/dx_rest|. Of C channels (the last axis) the first C // 2 leave. Nested, it
    is the multi-scale architecture: at each scale half of the numbers are done, so depth is spent on the rest.

    Args:
        layers: bijections of the channels that stay, one after the other, as in `Serial`.

    Params:
        A tuple with the params of each layer.

    Cost:
        Direct: the cost of its layers. Inverse: the cost of its layers.

    Errors:
        TypeError: no layers. FlowsError: an event with fewer than two channels.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.6.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> last = flows.Serial(flows.Squeeze(), flows.ActNorm())
        >>> init_fun = flows.Serial(flows.Squeeze(), flows.ActNorm(), flows.FactorOut(last))      # two scales
        >>> params, direct_fun, inverse_fun = init_fun(0, (8, 8, 3))
        >>> direct_fun(params, jnp.ones((1, 8, 8, 3)))[0].shape
        (1, 192)
    """
    rest = Serial(*layers)

    def compose(event: Shape, context: Shape | None) -> BijectionPart:
        out = event[-1] // 2
        if not out:
            raise FlowsError(f"FactorOut: the event {event} has one channel, so no half can leave; put Squeeze() before")
        part = rest.part((*event[:-1], event[-1] - out), context)
        left = size(event[:-1]) * out

        def init(key: Array, args: Given) -> Any:
            x = args.init_inputs
            return part.init(key, args._replace(init_inputs=None if x is None else x[..., out:]))

        def direct(params: Any, x: Array, *call: Any) -> tuple[Array, Array]:
            y, log_det = part.direct(params, x[..., out:], *call)
            both = x[..., :out].reshape(x.shape[0], left), y.reshape(x.shape[0], size(part.output))
            return jnp.concatenate(both, axis=1), log_det

        def join(y: Array, x: Array) -> Array:
            return jnp.concatenate([y[:, :left].reshape(y.shape[0], *event[:-1], out), x], axis=-1)

        def stayed(y: Array) -> Array:
            return y[:, left:].reshape(y.shape[0], *part.output)

        def inverse(params: Any, y: Array, *call: Any) -> Array:
            return join(y, part.inverse(params, stayed(y), *call))

        def native_inverse(params: Any, y: Array, *call: Any) -> tuple[Array, Array]:
            x, log_det = part.invert(params, stayed(y), *call)
            return join(y, x), log_det

        return replace(
            part,
            path=None,
            name="FactorOut",
            init=init,
            direct=direct,
            inverse=inverse,
            event=event,
            output=(size(event),),
            native_inverse=part.native_inverse and native_inverse,
        )

    return Composite(compose, layers)


def parts_of(
    name: str, layers: Sequence[BijectionLike], event: Shape, context: Shape | None
) -> tuple[tuple[BijectionPart, ...], tuple[Place, ...]]:
    """The parts of layers, each at the event that the one before makes, and where they are."""
    parts, places = list[BijectionPart](), list[Place]()
    for i, layer in enumerate(layers):
        places.append(Place(f"layer {i} of {name}", layer, event))
        with places[i]:
            parts.append(bijection_part(layer, event, context))
        event = parts[i].output
    return tuple(parts), tuple(places)


def joined(layers: Sequence[BijectionLike]) -> BijectionLike:
    """Layers as one bijection: a single one is itself."""
    return layers[0] if len(layers) == 1 else Serial(*layers)


def chain(parts: tuple[BijectionPart, ...], places: tuple[Place, ...], context: Shape | None) -> BijectionPart:
    """The part that runs `parts` one after the other, on a tuple of their params."""

    def init(key: Array, args: Given) -> tuple:
        all_old, n = args.params, len(parts)
        if all_old is not None and (not isinstance(all_old, tuple | list) or len(all_old) != n):
            got = f"a {type(all_old).__name__} of {len(all_old)}" if hasattr(all_old, "__len__") else repr(all_old)
            raise FlowsError(f"Serial: params is {got}, expected a tuple of {n}, one for each layer")
        params, x = [], args.init_inputs
        for i, (part, layer_key) in enumerate(zip(parts, split_key(key, n), strict=True)):
            old = None if all_old is None else all_old[i]
            with places[i]:
                params.append(part.init(layer_key, args._replace(init_inputs=x, params=old)))
                if x is not None and any([later.measures for later in parts[i + 1 :]]):
                    x = part.measured_output(params[-1], x, args.init_context, layer_key)
        return tuple(params)

    def backwards(params: Any, rng: Any) -> list:
        return list(zip(parts, places, params, keys_of(rng, len(parts)), strict=True))[::-1]

    def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        total = jnp.zeros(x.shape[0], x.dtype)
        for i, (part, layer_params, key) in enumerate(zip(parts, params, keys_of(rng, len(parts)), strict=True)):
            run = _remat(part.direct) if precision().remat else part.direct
            with places[i]:
                x, log_det = run(layer_params, x, context, key, train)
            note_nonfinite(f"{part.name} (layer {i} of Serial)", x, log_det)
            total += log_det
        return x, total

    def inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> Array:
        for part, place, layer_params, key in backwards(params, rng):
            with place:
                y = part.inverse(layer_params, y, context, key, train)
        return y

    def native_inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        total = jnp.zeros(y.shape[0], y.dtype)
        for part, place, layer_params, key in backwards(params, rng):
            with place:
                y, log_det = part.invert(layer_params, y, context, key, train)
            total += log_det
        return y, total

    return BijectionPart(
        "Serial",
        init,
        parts[0].event,
        context,
        **shared(parts),
        direct=direct,
        inverse=inverse,
        output=parts[-1].output,
        native_inverse=native_inverse if any(part.native_inverse for part in parts) else None,
        path=path_of(parts) if any(part.path for part in parts) else None,
    )


def keys_of(rng: Any, n: int) -> Any:
    """A key for each layer; None without `rng`."""
    return [None] * n if rng is None else jax.random.split(rng, n)


def _remat(direct: Callable) -> Callable:
    """A new function each time: what jax.checkpoint traced it keeps by the function, whatever the precision was then."""
    return jax.checkpoint(lambda *arguments: direct(*arguments), static_argnums=4)


def path_of(parts: tuple[BijectionPart, ...]) -> Callable:
    """The path of the last part, from data that go through the others first."""
    *before, last = parts

    def path(params: Any, x: Array, context: Any, rng: Array) -> tuple[Array, Callable]:
        if last.path is None or any(part.path for part in before):
            names = ", ".join(part.name for part in parts)
            raise FlowsError(f"flow_matching: {names}: expected one continuous layer, and that the last")
        keys = jax.random.split(rng, len(parts))
        for part, layer_params, key in zip(before, params, keys, strict=False):
            x = still(part, layer_params, x, context, key)
        return last.path(params[-1], x, context, keys[-1])

    return path


def still(part: BijectionPart, params: Any, x: Array, context: Any, key: Array) -> Array:
    """Return the output of a layer that does not train, before a path."""
    if any(jax.tree.leaves(trainable(params))):
        raise FlowsError(
            f"flow_matching: {part.name} comes before the continuous layer and trains, which regression on the velocity cannot "
            "do; expected layers such as Standardize, Whiten, Dequantize or Logit there"
        )
    return jax.lax.stop_gradient(part.direct(params, x, context, key if "rng" in part.keywords else None, False)[0])


# The layer that returned NaN


def note_nonfinite(name: str, *arrays: Array) -> None:
    """Note a layer whose output is not finite; compositions call it after each layer."""
    layers = _nonfinite.get()
    if layers is None or holds_tracer(arrays):
        return
    if not all(bool(jnp.isfinite(array).all()) for array in arrays):
        layers.append(name)


def first_nonfinite_layer(run: Callable[[], Any]) -> str | None:
    """The name of the first layer with such an output, or None; `run` is done step by step, outside jit."""
    layers = list[str]()
    with assigned(_nonfinite, layers), jax.disable_jit():
        run()
    return layers[0] if layers else None
