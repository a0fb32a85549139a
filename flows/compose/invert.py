"""A bijection backwards. Family: Compositions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
    check_layers,
    combinator,
)


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
        )

    piece = Piece(bijection, argument="bijection", inverted=True, event=inner_event)
    return Composite(compose, (bijection,), order="chain", pieces=(piece,))
