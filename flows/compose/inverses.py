"""Bijections that are undone: `Invert`, and `Through`, which undoes the layout of its layers. Family: Compositions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from flows.compose.serial import Serial, keys_of
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
    as_dim,
    as_event,
    bijection_part,
    check_bijective,
    check_layers,
    combinator,
    moves_entries,
    shared,
    split_key,
)

SWAPPED = {"direct": "inverse", "inverse": "direct"}


@combinator(BijectionInit)
def Invert(bijection: BijectionLike, input_dim: int | Sequence[int] | None = None):
    """A bijection backwards: its direct function is the inverse of `bijection`, and the other way round.

    y = f^-1(x), log|det J| = -log|det df/dy| at y. Data given to init are not handed on, as they are on the other side.

    Args:
        bijection: the bijection f.
        input_dim: the event of f, where f changes the shape of the event.

    Params:
        The params of `bijection`.

    Cost:
        Direct: the cost of the inverse of `bijection`. Inverse: the cost of its direct function.

    Errors:
        FlowsError: `bijection` changes the shape of the event and input_dim does not say from what.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Invert(flows.Sigmoid())(0, 1)
        >>> direct_fun(params, jnp.array([[0.5]]))[0].tolist()
        [[0.0]]
    """
    check_layers("Invert", (bijection,), BijectionInit, "a bijection")
    check_bijective("Invert", bijection)
    inner_event = None if input_dim is None else as_event(input_dim)

    def compose(event: Shape, context: Shape | None) -> BijectionPart:
        with Place("the bijection of Invert", bijection, inner_event or event) as place:
            part = bijection_part(bijection, inner_event or event, context)
        if part.output != event:
            raise FlowsError(
                f"Invert: {part.name} turns events {part.event} into {part.output}, but the event given is {event}; say "
                f"Invert(..., input_dim={as_dim(event)!r}) with the event that becomes {event}"
            )

        def init(key: Array, args: Given) -> Any:
            with place:
                return part.init(key, args._replace(init_inputs=None))

        native_inverse = place(part.direct)
        return replace(
            part,
            path=None,
            name="Invert",
            init=init,
            direct=place(part.invert),
            inverse=lambda *call: native_inverse(*call)[0],
            event=part.output,
            output=part.event,
            native_inverse=native_inverse,
            draws=frozenset(SWAPPED[way] for way in part.draws),
        )

    piece = Piece(bijection, argument="bijection", inverted=True, event=inner_event)
    return Composite(compose, (bijection,), order="chain", pieces=(piece,))


@combinator(BijectionInit)
def Through(layout: BijectionLike, *layers: BijectionLike):
    """Layers in another layout of the event, and back: y = g^-1(f(g(x))), where g is the layout and f the layers.

    log|det J| = log|det df| at g(x) + log|det dg| at x - log|det dg| at y. Any bijection may be the layout; of one that only
    moves entries, as `Checkerboard`, `Stripes`, `Patchify`, `Squeeze`, `Reshape`, `Reverse` and compositions of these, the last
    two are 0. Such a layout takes an image context along: one with the sides of the event, and any number of channels, is laid
    out as the event is before the layers see it. Every other context, and any context of another layout, stays as it is.

    Args:
        layout: the bijection g. It sees a context as it is.
        layers: bijections of its output, one after the other, as in `Serial`; together they keep the event. Data given to init
            reach them through the layout.

    Params:
        `{"layout": ..., "layers": (...)}`, the params of the layout and a tuple with the params of each layer.

    Cost:
        Direct: the cost of its layers. Inverse: the cost of its layers.

    Errors:
        TypeError: no layers, or something that is not a bijection. FlowsError: layers that do not keep the event; an image
            context of other sides than the event, or one that the layout does not fit.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Through(flows.Reshape(48), flows.Coupling(flows.MLP(32), mask="alternating"))
        >>> params, direct_fun, inverse_fun = init_fun(0, (4, 4, 3))
        >>> direct_fun(params, jnp.ones((1, 4, 4, 3)))[0].shape
        (1, 4, 4, 3)
    """
    check_layers("Through", (layout, *layers), BijectionInit, "a bijection")
    check_bijective("Through: the layout", layout)
    if not layers:
        raise TypeError("Through: no layers were given after the layout; expected at least one, Through(Reverse(), ActNorm())")
    inner = Serial(*layers)

    def compose(event: Shape, context: Shape | None) -> BijectionPart:
        with Place("the layout of Through", layout, event) as place:
            there = bijection_part(layout, event, context)
        context_part = _context_part(layout, event, context)
        part = inner.part(there.output, context if context_part is None else context_part.output)
        if part.output != there.output:
            raise FlowsError(
                f"Through: the layers turn events {there.output}, as the layout makes them, into {part.output}; expected "
                "layers that keep the event, for the layout to be undone. Use Serial(layout, *layers) where it is not to be"
            )

        def laid_out(context: Any) -> Any:
            if context_part is None or context is None:
                return context
            key = jax.random.key(0)  # not the key of an init, on which functions may not depend
            return context_part.measured_output(context_part.init(key, Given()), context, None, key)

        def init(key: Array, args: Given) -> Any:
            old, keys = args.params, split_key(key)
            if old is not None and (not isinstance(old, dict) or set(old) != {"layout", "layers"}):
                raise FlowsError('Through: params are not {"layout": ..., "layers": ...}')
            x = args.init_inputs if part.measures else None
            with place:
                layout_params = there.init(keys[0], args._replace(params=old and old["layout"]))
                x = None if x is None else there.measured_output(layout_params, x, args.init_context, keys[0])
            data = Given(x, laid_out(args.init_context), old and old["layers"])
            return {"layout": layout_params, "layers": part.init(keys[1], data)}

        def passing(run: Any) -> Any:
            """`run`, of the layers, between the layout and its inverse."""

            def passed(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
                keys = keys_of(rng, 2)
                with place:
                    x, before = there.direct(params["layout"], x, context, keys[0], train)
                x, log_det = run(params["layers"], x, laid_out(context), keys[1], train)
                with place:
                    x, after = there.invert(params["layout"], x, context, keys[0], train)
                return x, before + log_det + after

            return passed

        def point(*call: Any) -> tuple[Array, Array]:
            return part.inverse(*call), jnp.zeros((), call[1].dtype)

        return replace(
            part,
            name="Through",
            init=init,
            event=event,
            context=context,
            **shared((there, part)),
            direct=passing(part.direct),
            inverse=lambda *call: passing(point)(*call)[0],
            output=event,
            native_inverse=passing(part.invert) if part.native_inverse else None,
            path=None,
        )

    pieces = Piece(layout, ("layout",), "layout"), *(Piece(layer, ("layers", i)) for i, layer in enumerate(layers))
    return Composite(compose, (layout, *layers), order="between", pieces=pieces)


def _context_part(layout: Any, event: Shape, context: Shape | None) -> BijectionPart | None:
    """Return the layout for a context that has the sides of the event; None where a context stays as it is."""
    if context is None or len(context) != len(event) or len(event) < 2 or not moves_entries(layout):
        return None
    channels = f"({', '.join(map(str, event[:-1]))}, channels)"
    if context[:-1] != event[:-1]:
        if len(event) < 3:
            return None  # a sequence of another length
        raise FlowsError(
            f"Through: context_dim is {context}, an image of other sides than the event {event}, and cannot be laid out as "
            f"that is; expected {channels}, or a vector"
        )
    try:
        return bijection_part(layout, context, None)
    except FlowsError as error:
        raise FlowsError(
            f"Through: the layout {layout!r:.80} of events {event} does not fit the context {context}: {error}. Give a layout "
            "of any number of channels, such as Checkerboard(), or a vector"
        ) from None
