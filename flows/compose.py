"""Combinators, bijections of bijections: `Serial`, `Repeat`, `Invert`, `FactorOut`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from flows.core import (
    Array,
    BijectionInit,
    BijectionPart,
    Composite,
    FlowsError,
    Given,
    bijection_part,
    check_layers,
    combinator,
    iteration,
    positive_int,
    shared,
    stacked,
    unstacked,
)
from flows.core.budget import repeated
from flows.core.closures import check_equal_functions
from flows.core.contract import BijectionLike, Shape
from flows.core.errors import Place
from flows.core.inputs import as_dim, as_event, size
from flows.core.nonfinite import note_nonfinite
from flows.core.numerics import varying
from flows.core.paths import path_of
from flows.core.precision import precision


@combinator(BijectionInit)
def Serial(*layers: BijectionLike):
    """Bijections one after the other, from data to noise: y = f_n(... f_1(x)), log|det J| = the sum of the layers'.

    Args:
        layers: bijections: constructors' values, or plain functions that honour the contract.

    Params:
        A tuple with the params of each layer.

    Cost:
        Direct: that of its layers. Inverse: that of its layers.

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
        parts, places = [], []
        for i, layer in enumerate(layers):
            places.append(Place(f"layer {i} of Serial", layer, event))
            with places[i]:
                parts.append(bijection_part(layer, event, context))
            event = parts[i].output
        return chain("Serial", tuple(parts), tuple(places), context)

    return Composite(part, layers)


def joined(layers: Sequence[BijectionLike]) -> BijectionLike:
    """Layers as one bijection: a single one is itself."""
    return layers[0] if len(layers) == 1 else Serial(*layers)


def chain(name: str, parts: tuple[BijectionPart, ...], places: tuple[Place, ...], context: Shape | None) -> BijectionPart:
    """The part that runs `parts` one after the other, on a tuple of their params."""

    def init(key: Array, given: Given) -> tuple:
        _check_params(name, given.params, len(parts))
        params, x = [], given.init_inputs
        for i, (part, own_key) in enumerate(zip(parts, jax.random.split(key, len(parts)), strict=True)):
            old = None if given.params is None else given.params[i]
            with places[i]:
                params.append(part.init(own_key, given._replace(init_inputs=x, params=old)))
                if x is not None and any([later.measures for later in parts[i + 1 :]]):
                    x = part.measured_output(params[-1], x, given.init_context, own_key)
        return tuple(params)

    def split(rng: Any) -> Any:
        return [None] * len(parts) if rng is None else jax.random.split(rng, len(parts))

    def backwards(params: Any, rng: Any) -> list:
        return list(zip(parts, places, params, split(rng), strict=True))[::-1]

    def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        total = jnp.zeros(x.shape[0], x.dtype)
        for i, (part, own, key) in enumerate(zip(parts, params, split(rng), strict=True)):
            run = _remat(part.direct) if precision().remat else part.direct
            with places[i]:
                x, log_det = run(own, x, context, key, train)
            note_nonfinite(f"{part.name} (layer {i} of {name})", x, log_det)
            total += log_det
        return x, total

    def inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> Array:
        for part, place, own, key in backwards(params, rng):
            with place:
                y = part.inverse(own, y, context, key, train)
        return y

    def native_inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        total = jnp.zeros(y.shape[0], y.dtype)
        for part, place, own, key in backwards(params, rng):
            with place:
                y, log_det = part.invert(own, y, context, key, train)
            total += log_det
        return y, total

    return BijectionPart(
        name,
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


@combinator(BijectionInit)
def Repeat(layer: BijectionLike, n: int):
    """`Serial(*[layer] * n)` as one loop: the same params, stacked, and a compile time that does not grow with n.

    y = f_n(... f_1(x)), each f_i the same layer with params of its own; log|det J| is their sum. The loop is
    `jax.lax.scan` with rematerialisation: only the results of matrix products with weights are kept for the gradient.

    Args:
        layer: a bijection that keeps the shape of its event.
        n: how many times.

    Params:
        The layer's params with a leading axis of n.

    Cost:
        Direct: n times its layer. Inverse: n times its layer.

    Errors:
        FlowsError: the layer changes the shape of the event, or n is below 1.

    Example:
        >>> import flows
        >>> init_fun = flows.Repeat(flows.Serial(flows.AffineCoupling(), flows.Reverse()), 8)
        >>> init_fun(0, 3).params[1]["fixed"]["ranks"].shape
        (8, 3)
    """
    check_layers("Repeat", (layer,), BijectionInit, "a bijection")
    n = positive_int(n, "Repeat: n", most=10_000)

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        with Place("the layer of Repeat", layer, event) as place, repeated(n):
            return loop(bijection_part(layer, event, context), place, n)

    return Composite(part, (layer,))


def loop(part: BijectionPart, place: Place, n: int) -> BijectionPart:
    """The part that runs `part` n times, on its stacked params."""
    if part.output != part.event:
        raise FlowsError(f"Repeat: {part.name} turns events {part.event} into {part.output}; use Serial instead")
    if not part.compiled:
        raise FlowsError(f"Repeat: {part.name} runs row by row and cannot be scanned; use Serial(*[layer] * n)")

    def init(key: Array, given: Given) -> Any:
        params, x = [], given.init_inputs
        all_old = [None] * n if given.params is None else unstacked(given.params, n, "Repeat")
        for i, (own_key, old) in enumerate(zip(jax.random.split(key, n), all_old, strict=True)):
            with place:
                params.append(part.init(own_key, given._replace(init_inputs=x, params=old)))
                if x is not None and i + 1 < n and part.measures:
                    x = part.measured_output(params[-1], x, given.init_context, own_key)
        check_equal_functions(f"Repeat: the functions of {part.name}", params)
        return stacked(params)

    def scan(step: Any, params: Any, x: Array, given: Any, rng: Any, reverse: bool) -> tuple[Array, Array]:
        """Carries the event with the batch trailing: the engine's own transposes then cancel inside the body."""
        keys = None if rng is None else jax.random.split(rng, n)

        def body(carry: Any, of_layer: Any) -> Any:
            (x, total), (i, own, key) = carry, of_layer
            with iteration(i), place:
                y, log_det = step(own, jnp.moveaxis(x, -1, 0), key)
            return (jnp.moveaxis(y, 0, -1), total + log_det), None

        kept = None if precision().remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        body = jax.checkpoint(body, prevent_cse=False, policy=kept)
        start = varying((jnp.moveaxis(x, 0, -1), jnp.zeros(x.shape[0], x.dtype)), (x, params, given, keys))
        (x, total), _ = jax.lax.scan(body, start, (jnp.arange(n), params, keys), reverse=reverse)
        return jnp.moveaxis(x, -1, 0), total

    def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        return scan(lambda own, x, key: part.direct(own, x, context, key, train), params, x, context, rng, False)

    def inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> Array:
        def step(own: Any, y: Array, key: Any) -> tuple[Array, Array]:
            return part.inverse(own, y, context, key, train), jnp.zeros(y.shape[0], y.dtype)

        return scan(step, params, y, context, rng, True)[0]

    def native_inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        return scan(lambda own, y, key: part.invert(own, y, context, key, train), params, y, context, rng, True)

    native = None if part.native_inverse is None else native_inverse
    return replace(part, name="Repeat", init=init, direct=direct, inverse=inverse, native_inverse=native, path=None)


@combinator(BijectionInit)
def Invert(bijection: BijectionLike, input_dim: int | Sequence[int] | None = None):
    """A bijection backwards: its direct function is the inverse of `bijection`, and the other way round.

    y = f^-1(x), log|det J| = -log|det df/dy| at y. Data given to init are not handed on, as they are on the other side.

    Args:
        bijection: the bijection f.
        input_dim: the event of f, where f changes the shape of the event.

    Params:
        Those of `bijection`.

    Cost:
        Direct: that of the layer's inverse. Inverse: that of the layer's direct function.

    Errors:
        FlowsError: `bijection` changes the shape of the event and input_dim does not say from what.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Invert(flows.Sigmoid())(0, 1)
        >>> direct_fun(params, jnp.array([[0.5]]))[0].tolist()
        [[0.0]]
    """
    check_layers("Invert", (bijection,), BijectionInit, "a bijection")
    own_event = None if input_dim is None else as_event(input_dim)

    def compose(event: Shape, context: Shape | None) -> BijectionPart:
        with Place("the bijection of Invert", bijection, own_event or event) as place:
            part = bijection_part(bijection, own_event or event, context)
        if part.output != event:
            raise FlowsError(
                f"Invert: {part.name} turns events {part.event} into {part.output}, but the event given is {event}; say "
                f"Invert(..., input_dim={as_dim(event)!r}) with the event that becomes {event}"
            )

        def init(key: Array, given: Given) -> Any:
            with place:
                return part.init(key, given._replace(init_inputs=None))

        def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            with place:
                return part.invert(params, x, context, rng, train)

        def inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> Array:
            return native_inverse(params, y, context, rng, train)[0]

        def native_inverse(params: Any, y: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            with place:
                return part.direct(params, y, context, rng, train)

        return replace(
            part,
            path=None,
            name="Invert",
            init=init,
            direct=direct,
            inverse=inverse,
            event=part.output,
            output=part.event,
            native_inverse=native_inverse,
        )

    return Composite(compose, (bijection,))


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
        Direct: that of its layers. Inverse: that of its layers.

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

        def init(key: Array, given: Given) -> Any:
            x = given.init_inputs
            return part.init(key, given._replace(init_inputs=None if x is None else x[..., out:]))

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


def _remat(direct: Callable) -> Callable:
    """A new function each time: what jax.checkpoint traced it keeps by the function, whatever the precision was then."""
    return jax.checkpoint(lambda *given: direct(*given), static_argnums=4)


def _check_params(name: str, params: Any, n: int) -> None:
    if params is not None and (not isinstance(params, tuple | list) or len(params) != n):
        got = f"a {type(params).__name__} of {len(params)}" if hasattr(params, "__len__") else repr(params)
        raise FlowsError(f"{name}: params is {got}, expected a tuple of {n}, one for each layer")
