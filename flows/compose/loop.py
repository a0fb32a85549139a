"""A bijection many times, as one compiled loop. Family: Compositions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from flows.compose.reversible import check_reversible, direct_of, turn_of
from flows.core import (
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
    check_copies,
    check_layers,
    combinator,
    default_dtype,
    iteration,
    positive_int,
    precision,
    refuse_closures,
    repeated,
    split_key,
    stacked,
    unstacked,
    varying,
)


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

            body = jax.checkpoint(body, prevent_cse=False, policy=None if precision().remat else _saved)
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


def _saved(primitive: Any, *operands: Any, **params: Any) -> bool:
    """Tell which operations a loop keeps for its gradient: products with weights, and convolutions."""
    products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return primitive is jax.lax.conv_general_dilated_p or products(primitive, *operands, **params)
