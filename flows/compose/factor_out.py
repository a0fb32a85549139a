"""The multi-scale architecture: half of the channels leave early. Family: Compositions."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from flows.compose.serial import Serial
from flows.core import Array, BijectionInit, BijectionLike, BijectionPart, Composite, FlowsError, Given, Shape, combinator, size


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
