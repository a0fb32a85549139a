"""`ConditionalCoupling`: a bijection of some numbers, given the others. Family: Compositions."""

from dataclasses import replace
from typing import Any

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
    bijection_part,
    check_layers,
    combinator,
    joined_context,
    positive_int,
)


@combinator(BijectionInit)
def ConditionalCoupling(bijection: BijectionLike, size: int):
    """The first numbers stay, and the others go through a bijection given them: y[:size] = x[:size], y[size:] = f(x[size:]; c).

    log|det J| is the log-det of f. f is any bijection whose context c is x[:size], then the context of the whole: the general
    form of a coupling. Nested, it takes more than two blocks.

    Args:
        bijection: f; one that ignores its context is refused.
        size: how many numbers stay.

    Params:
        The params of f.

    Cost:
        Direct: the cost of f. Inverse: the cost of its inverse.

    Errors:
        FlowsError: an event that is not a vector of more than `size` numbers, a context that is not a vector, a bijection that
            ignores its context or changes the shape of its event. TypeError: not a bijection.

    Source:
        Papamakarios, Nalisnick, Rezende, Mohamed and Lakshminarayanan, "Normalizing Flows for Probabilistic Modeling and
        Inference", 2021, arXiv:1912.02762, section 3.1.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.ConditionalCoupling(flows.MAF(1, hidden=(8,)), 2)(0, 5)
        >>> y, log_det = direct_fun(params, jnp.ones((4, 5)))
        >>> y[:, :2].tolist() == [[1.0, 1.0]] * 4
        True
    """
    check_layers("ConditionalCoupling", (bijection,), BijectionInit, "a bijection")
    count = positive_int(size, "ConditionalCoupling: size")

    def compose(event: Shape, context: Shape | None) -> BijectionPart:
        if len(event) != 1 or event[0] <= count or (context is not None and len(context) != 1):
            raise FlowsError(
                f"ConditionalCoupling: the event is {event} and context_dim {context}; expected a vector of more than {count} "
                "numbers, and a vector as context"
            )
        with Place("the bijection of ConditionalCoupling", bijection, (event[0] - count,)) as place:
            part = bijection_part(bijection, (event[0] - count,), (count + (context or (0,))[0],))
        if "context" not in part.keywords or part.output != part.event:
            raise FlowsError(
                f"ConditionalCoupling: {bijection!r:.80} "
                + ("changes the shape of its event" if "context" in part.keywords else "takes no context")
                + "; expected a bijection of the numbers that move, given the numbers that stay, such as MAF()"
            )

        def divided(x: Array, context: Array | None) -> tuple[Array, Array, Array]:
            return x[:, :count], x[:, count:], joined_context([x[:, :count]], context)

        def init(key: Any, args: Given) -> Any:
            _, moves, features = (None,) * 3 if args.init_inputs is None else divided(args.init_inputs, args.init_context)
            with place:
                return part.init(key, args._replace(init_inputs=moves, init_context=features))

        def moved(run: Any) -> Any:
            def call(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Any:
                stays, moves, features = divided(x, context)
                with place:
                    y, log_det = run(params, moves, features, rng, train)
                return jnp.concatenate([stays, y], 1), log_det

            return call

        def point(*call: Any) -> tuple[Array, Any]:
            return part.inverse(*call), None

        functions: dict[str, Any] = {"direct": moved(part.direct), "inverse": lambda *call: moved(point)(*call)[0]}
        functions["native_inverse"] = moved(part.invert) if part.native_inverse else None
        return replace(
            part, name="ConditionalCoupling", init=init, event=event, context=context, output=event, path=None, **functions
        )

    return Composite(compose, (bijection,))
