"""Chains of many layers: the compile time of `Repeat` and the memory of `Reversible` do not grow with their number.

Family: Compositions.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flows.compose.serial import Serial, keys_of, parts_of
from flows.core import (
    KEY,
    Array,
    BijectionInit,
    BijectionLike,
    BijectionPart,
    Composite,
    FlowsError,
    Given,
    Piece,
    Place,
    Shape,
    bijection_part,
    check_bijective,
    check_copies,
    check_layers,
    combinator,
    computed_with,
    default_dtype,
    iteration,
    opened,
    positive_int,
    precision,
    refuse_closures,
    repeated,
    saves_products,
    size,
    split_key,
    stacked,
    stop_fixed,
    unstacked,
    varying,
)

MISSED = 1e-3  # of the spread of an entry: by how much inputs that are found again may be off


@combinator(BijectionInit)
def Repeat(layer: BijectionLike, num_layers: int, reversible: bool = False):
    """`Serial(*[layer] * n)` as one loop: the same params, stacked, and a compile time that does not grow with num_layers.

    y = f_n(... f_1(x)), each f_i the same layer with separate params; log|det J| is their sum. The loop is
    `jax.lax.scan` with rematerialisation: only the results of matrix products with weights, and of convolutions, are kept for
    the gradient.

    Args:
        layer: a bijection that keeps the shape of its event.
        num_layers: how many times.
        reversible: keep the last output alone, as `Reversible` does, so that memory does not grow with them. Inputs are found
            again by the inverse, and there are no derivatives in forward mode.

    Params:
        The layer's params with a leading axis of num_layers.

    Cost:
        Direct: num_layers times its layer. Inverse: num_layers times its layer.

    Errors:
        FlowsError: the layer changes the shape of the event, or num_layers is below 1; as in `Reversible`.

    Example:
        >>> import flows
        >>> init_fun = flows.Repeat(flows.Serial(flows.AffineCoupling(), flows.Reverse()), 8)
        >>> init_fun(0, 3).params[1]["fixed"]["ranks"].shape
        (8, 3)
    """
    check_layers("Repeat", (layer,), BijectionInit, "a bijection")
    n = positive_int(num_layers, "Repeat: num_layers", most=10_000)

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        with Place("the layer of Repeat", layer, event) as place, repeated(n):
            layer_part = bijection_part(layer, event, context)
            whole = loop(layer_part, place, n)
            if not reversible:
                return whole
            check_reversible("Repeat", (layer,), (layer_part,), (place,))
            return replace(whole, direct=direct_of(layer_part.direct, turn_of(layer, event, context, layer_part, place), n))

    return Composite(part, (layer,), order="loop", pieces=(Piece(layer, argument="layer", copies=n),))


def loop(part: BijectionPart, place: Place, n: int) -> BijectionPart:
    """The part that runs `part` n times, on its stacked params."""
    if part.output != part.event:
        raise FlowsError(f"Repeat: {part.name} turns events {part.event} into {part.output}; use Serial instead")
    if not part.compiled:
        raise FlowsError(f"Repeat: {part.name} runs row by row and cannot be scanned; use Serial(*[layer] * n)")

    refuse_closures(part, f"Repeat: {n} layers are to run as one loop (Serial(*[layer] * {n}) runs them one by one)")
    measured_params = _measuring(part, place)

    def init(key: Array, args: Given) -> Any:
        if args.init_inputs is not None and part.measures:
            if args.params is not None:
                check_copies(args.params, n, "Repeat")
            return measured_params(jax.random.split(key, n), args)
        all_old = [None] * n if args.params is None else unstacked(args.params, n, "Repeat")
        params = list[Any]()
        for layer_key, old in zip(split_key(key, n), all_old, strict=True):
            with place:
                params.append(part.init(layer_key, args._replace(params=old)))
        return stacked(params)

    def scanned(run: Callable, reverse: bool) -> Callable:
        """`run`, of one layer, in a loop that carries the event with the batch trailing: the engine's transposes then cancel
        inside the body."""

        def run_all(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            keys = None if rng is None else jax.random.split(rng, n)

            def body(carry: Any, inputs: Any) -> Any:
                (x, total), (i, layer_params, key) = carry, inputs
                with iteration(i), place:
                    y, log_det = run(layer_params, jnp.moveaxis(x, -1, 0), context, key, train)
                return (jnp.moveaxis(y, 0, -1), total + log_det), None

            body = jax.checkpoint(body, prevent_cse=False, policy=None if precision().remat else saves_products)
            start = varying((jnp.moveaxis(x, 0, -1), jnp.zeros(x.shape[0], x.dtype)), (x, params, context, keys))
            (x, total), _ = jax.lax.scan(body, start, (jnp.arange(n), params, keys), reverse=reverse)
            return jnp.moveaxis(x, -1, 0), total

        return run_all

    def point(params: Any, y: Array, *call: Any) -> tuple[Array, Array]:
        return part.inverse(params, y, *call), jnp.zeros(y.shape[0], y.dtype)

    return replace(
        part,
        name="Repeat",
        init=init,
        direct=scanned(part.direct, reverse=False),
        inverse=lambda *call: scanned(point, reverse=True)(*call)[0],
        native_inverse=scanned(part.invert, reverse=True) if part.native_inverse else None,
        path=None,
    )


def _measuring(part: BijectionPart, place: Place) -> Callable[[Array, Given], Any]:
    """The stacked params of layers that each measure the output of the layers before: one program for any number of layers."""

    @jax.jit
    def measured(keys: Array, args: Given) -> Any:
        def body(x: Any, inputs: Any) -> tuple[Any, Any]:
            key, old = inputs
            with place:
                params = part.init(key, args._replace(init_inputs=x, params=old))
                layer_key = key if "rng" in part.keywords else None
                return part.direct(params, x, args.init_context, layer_key, False)[0], params

        x = jnp.asarray(args.init_inputs)
        x = x.astype(jnp.promote_types(x.dtype, default_dtype()))  # the dtype of params, so that layers return what they take
        return jax.lax.scan(body, x, (keys, args.params))[1]

    return measured


@combinator(BijectionInit)
def Reversible(*layers: BijectionLike):
    """`Serial(*layers)`, whose gradient keeps the last output alone: memory does not grow with the number of layers.

    y = f_n(... f_1(x)), log|det J| = the sum of the layers'. On the way back each layer's input is found by its inverse, from
    the same context, rng and train, and the gradient is taken of this one layer. A step of training computes each network
    once more than with `Serial`. The first input is kept as a witness: where its inverse misses it by more than a thousandth
    of the standard deviation of a column, or channel, or in one row of its largest entry, the gradient is NaN, a step that
    `fit` does not take. There are no derivatives in forward mode, and gradients through the inverse keep its inputs.

    Args:
        layers: bijections, as in `Serial`.

    Params:
        A tuple with the params of each layer, as in `Serial`.

    Cost:
        Direct: the cost of its layers. Inverse: the cost of its layers.

    Errors:
        TypeError: no layers, or something that is not a bijection. FlowsError: a layer whose log-det is an estimate or a bound,
            or that has no inverse with `train=True` (`BatchNorm`).

    Source:
        Gomez, Ren, Urtasun and Grosse, "The Reversible Residual Network: Backpropagation Without Storing Activations", 2017,
        arXiv:1707.04585.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> layers = [flows.ActNorm(), flows.Coupling(), flows.Reverse()] * 3
        >>> params, direct_fun, inverse_fun = flows.Reversible(*layers)(0, 4)
        >>> jax.grad(lambda x: direct_fun(params, x)[1].sum())(jnp.ones((2, 4))).shape
        (2, 4)
    """
    whole = Serial(*layers)

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        parts, places = parts_of("Reversible", layers, event, context)
        check_reversible("Reversible", layers, parts, places)
        serial_part = whole.part(event, context)
        direct = direct_of(serial_part.direct, Turn(parts, places, several=True), None)
        return replace(serial_part, name="Reversible", direct=direct, path=None)

    return Composite(part, layers, order="chain")


class Turn(NamedTuple):
    """The layers of one turn of a loop. Where they are `several`, params are a tuple and keys are split, as in `Serial`."""

    parts: tuple[BijectionPart, ...]
    places: tuple[Place, ...]
    several: bool

    def layers(self, params: Any, key: Any) -> list[tuple[BijectionPart, Place, Any, Any]]:
        if not self.several:
            return [(self.parts[0], self.places[0], params, key)]
        return list(zip(self.parts, self.places, params, keys_of(key, len(self.parts)), strict=True))

    def back(self, params: Any, y: Array, ct_y: Any, context: Any, key: Any, train: bool) -> tuple[Array, tuple[Any, Any, Any]]:
        """The input of an output, and the cotangents of params, input and context by the cotangents of output and log-det."""
        ct_params, ct_context, (ct_x, ct_log_det) = list[Any](), None, ct_y
        for part, place, layer_params, layer_key in self.layers(params, key)[::-1]:

            def run(layer_params: Any, x: Array, context: Any, part: Any = part, key: Any = layer_key) -> tuple[Array, Array]:
                return part.direct(layer_params, x, context, key, train)

            with place:
                y = part.inverse(layer_params, y, context, layer_key, train)
                ct_layer, ct_x, more = jax.vjp(run, layer_params, y, context)[1]((ct_x, ct_log_det))
            ct_params.append(ct_layer)
            ct_context = more if ct_context is None else jax.tree.map(jnp.add, ct_context, more)
        return y, (tuple(ct_params[::-1]) if self.several else ct_params[0], ct_x, ct_context)


def turn_of(layer: BijectionLike, event: Shape, context: Shape | None, whole: BijectionPart, place: Place) -> Turn:
    """The layers of which one in a loop is composed, each of whose gradients is taken by itself."""
    value = opened(layer)
    if getattr(value, "constructor", None) is Serial:
        parts, places = parts_of("Serial", value.arguments["layers"], event, context)
        return Turn(parts, places, several=True)
    return Turn((whole,), (place,), several=False)


def direct_of(whole: Callable, turn: Turn, n: int | None) -> Callable:
    """A direct function whose gradient keeps no inputs: `whole`, of one turn, or n of them as a loop on stacked params."""

    def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        how = precision()  # the gradient is traced later

        def trailing(x: Array) -> Array:
            """Vectors are carried with the batch trailing, as `Repeat` does it."""
            return jnp.moveaxis(x, 0, -1) if x.ndim == 2 else x

        @jax.custom_vjp
        def forwards(params: Any, x: Array, context: Any, rng: Any) -> tuple[Array, Array]:
            if n is None:
                return whole(params, x, context, rng, train)

            def body(carry: Any, inputs: Any) -> Any:
                (x, total), (i, turn_params, key) = carry, inputs
                with iteration(i):
                    y, log_det = whole(turn_params, trailing(x), context, key, train)
                return (trailing(y), total + log_det), None

            start = trailing(x), jnp.zeros(x.shape[0], x.dtype)
            keys = None if rng is None else jax.random.split(rng, n)
            start = varying(start, (x, params, context))
            (y, total), _ = lax.scan(body, start, (jnp.arange(n), params, keys))
            return trailing(y), total

        def saving(params: Any, x: Array, context: Any, rng: Any) -> tuple[Any, Any]:
            y, total = forwards(params, x, context, rng)
            return (y, total), (params, x, y, context, rng)

        def backwards(residuals: Any, ct_outputs: tuple[Array, Array]) -> tuple[Any, Any, Any, None]:
            params, x, y, context, rng = residuals
            with computed_with(how):
                recomputed, (ct_params, ct_x, ct_context) = all_turns(params, y, ct_outputs, context, rng)
            wrong = jnp.where(_missed(x, recomputed), jnp.nan, 0.0).astype(x.dtype)

            def witnessed(cotangent: Any) -> Any:
                return jax.tree.map(lambda leaf: leaf + wrong.astype(leaf.dtype), cotangent)

            return witnessed(ct_params), witnessed(ct_x), witnessed(ct_context), None

        def all_turns(params: Any, y: Array, ct_outputs: tuple[Array, Array], context: Any, rng: Any) -> tuple[Array, Any]:
            if n is None:
                return turn.back(params, y, ct_outputs, context, rng, train)
            ct_y, ct_log_det = ct_outputs

            def body(carry: Any, inputs: Any) -> Any:
                (y, ct_y, ct_context), (i, turn_params, key) = carry, inputs
                with iteration(i):
                    cotangents = trailing(ct_y), ct_log_det
                    x, (ct_turn, ct_x, more) = turn.back(turn_params, trailing(y), cotangents, context, key, train)
                return (trailing(x), trailing(ct_x), jax.tree.map(jnp.add, ct_context, more)), ct_turn

            keys = None if rng is None else jax.random.split(rng, n)
            start = trailing(y), trailing(ct_y), jax.tree.map(jnp.zeros_like, context)
            start = varying(start, (y, ct_y, ct_log_det, params, context))
            (x, ct_x, ct_context), ct_params = lax.scan(body, start, (jnp.arange(n), params, keys), reverse=True)
            return trailing(x), (ct_params, trailing(ct_x), ct_context)

        forwards.defvjp(saving, backwards)
        return forwards(*varying((params, x, context), (params, x, context)), rng)

    return direct


def _missed(x: Array, recomputed: Array) -> Array:
    """Tell whether other inputs were found, by the spread of each column or channel; a constant has but roundings. One row has
    no spread, so that its largest entry counts."""
    if not x.size:
        return jnp.asarray(False)
    rows, roundings = tuple(range(x.ndim - 1)), 64 * jnp.finfo(x.dtype).eps
    largest = jnp.abs(x).max(rows)
    one = isinstance(n := size(x.shape[:-1]), int) and n == 1  # a batch may be a symbol
    spread = largest.max() if one else jnp.std(x, rows)
    tolerance = MISSED * spread + roundings * jnp.where(spread > roundings * largest, largest, largest.max())
    return ~(jnp.abs(recomputed - x).max(rows) <= tolerance).all()


def check_reversible(name: str, layers: tuple, parts: tuple[BijectionPart, ...], places: tuple[Place, ...]) -> None:
    """Refuse layers whose inputs cannot be found again in training."""
    for layer, part, place in zip(layers, parts, places, strict=True):
        label = getattr(layer, "likelihood", "exact")
        if label != "exact":
            raise FlowsError(f"{name}: the log-det of {layer!r:.80} is {label}; expected layers whose log-det is exact")
        check_bijective(name, layer)
        if not part.compiled:
            raise FlowsError(f"{name}: {layer!r:.80} runs row by row and has no such gradient; use Serial or Repeat")
        if "train" not in part.keywords:
            continue
        try:
            with place:
                _undone_in_training(part)
        except FlowsError as error:
            raise FlowsError(f"{name}: {layer!r:.80} has no inverse in training: {error}") from None


def _undone_in_training(part: BijectionPart) -> None:
    def run(key: Array, y: Array, context: Any) -> Array:
        return part.inverse(stop_fixed(part.init(key, Given())), y, context, key, True)

    rows = jnp.zeros((2, *part.output))
    context = None if part.context is None else jnp.zeros((2, *part.context))
    jax.eval_shape(run, KEY(), rows, context)
