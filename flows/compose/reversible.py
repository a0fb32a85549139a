"""Gradients that keep no inputs: each layer finds its inputs again by its inverse, on the way back. Family: Compositions."""

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
    Place,
    Shape,
    combinator,
    computed_with,
    iteration,
    opened,
    precision,
    stop_fixed,
    varying,
)

MISSED = 1e-3  # of the spread of an entry: by how much inputs that are found again may be off


@combinator(BijectionInit)
def Reversible(*layers: BijectionLike):
    """`Serial(*layers)`, whose gradient keeps the last output alone: memory does not grow with the number of layers.

    y = f_n(... f_1(x)), log|det J| = the sum of the layers'. On the way back each layer's input is found by its inverse, from
    the same context, rng and train, and the gradient is taken of this one layer. A step of training computes each network
    once more than with `Serial`. The first input is kept as a witness: where its inverse misses it by more than a thousandth
    of the standard deviation of a column, or channel, the gradient is NaN, a step that `fit` does not take. There are no
    derivatives in forward mode, and gradients through the inverse keep its inputs.

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
    """Tell whether other inputs were found, by the spread of each column or channel; a constant has but roundings."""
    if not x.size:
        return jnp.asarray(False)
    rows, roundings = tuple(range(x.ndim - 1)), 64 * jnp.finfo(x.dtype).eps
    spread, largest = jnp.std(x, rows), jnp.abs(x).max(rows)
    tolerance = MISSED * spread + roundings * jnp.where(spread > roundings * largest, largest, largest.max())
    return ~(jnp.abs(recomputed - x).max(rows) <= tolerance).all()


def check_reversible(name: str, layers: tuple, parts: tuple[BijectionPart, ...], places: tuple[Place, ...]) -> None:
    """Refuse layers whose inputs cannot be found again in training."""
    for layer, part, place in zip(layers, parts, places, strict=True):
        label = getattr(layer, "likelihood", "exact")
        if label != "exact":
            raise FlowsError(f"{name}: the log-det of {layer!r:.80} is {label}; expected layers whose log-det is exact")
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
