"""Networks of a point and a time. Family: Of vectors."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp

from flows.conditioners.base import Leading, conditioner
from flows.conditioners.dense import affine, as_activation, dense_layers, product
from flows.core import Array, FlowsError, finite, naming, positive_int


@conditioner
def ConcatSquash(*hidden: int, activation: str | Callable = "softplus", last_scale: float = 0.01):
    """The network of FFJORD, of a point and a time. Each layer is (W h + b) sigmoid(G s + g) + S s, s the time and the context.

    The last input is the time.

    Args:
        hidden: units of each hidden layer.
        activation: as in `MLP`, but smooth, as the log-det is made of derivatives of the network.
        last_scale: factor on the last layer's initial weights.

    Params:
        A tuple over layers of `{"w", "b", "gate", "gate_b", "shift"}`: W, b, G, g and S, as (inputs, outputs) or (outputs,).

    Errors:
        FlowsError: a width that is not a whole number above 0, an unknown activation, an event of several axes, no inputs.

    Source:
        Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD: Free-form Continuous Dynamics for Scalable Reversible
        Generative Models", 2019, arXiv:1810.01367, and its code (concatsquash).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.ConcatSquash(16)(0, 3, 2)                   # two numbers and the time
        >>> apply_fun(params, jnp.ones((10, 3))).shape
        (10, 2)
    """
    act = as_activation(activation)
    hidden = tuple(positive_int(units, "ConcatSquash: a hidden width") for units in hidden)
    last_scale = finite(last_scale, "ConcatSquash: last_scale")

    def net(rng, input_dim: int, output_dim: int, context_dim: int = 0):
        if not isinstance(input_dim, int) or not isinstance(context_dim, int) or input_dim < 1:
            raise FlowsError(
                f"ConcatSquash: input_dim is {input_dim} and context_dim {context_dim}; expected a vector: the "
                "last entry is the time"
            )
        sizes, scales = (input_dim - 1, *hidden, output_dim), [1.0] * len(hidden) + [last_scale]
        points_key, times_key = jax.random.split(rng)
        points = dense_layers(points_key, pairwise(sizes), scales)
        widths = [(1 + context_dim, width) for width in sizes[1:] for _ in range(2)]
        times = dense_layers(times_key, widths, [1.0] * len(widths))
        params = tuple(
            {**layer, "gate": times[2 * i]["w"], "gate_b": times[2 * i]["b"], "shift": scales[i] * times[2 * i + 1]["w"]}
            for i, layer in enumerate(points)
        )
        return params, Leading(naming(leading, {"context"}))

    def leading(params, x: Array, context: Array | None = None) -> Array:
        h, s = x[:-1], x[-1:]
        s = s if context is None else jnp.concatenate([s, context])
        for i, layer in enumerate(params):
            h = act(h) if i else h
            gate = jax.nn.sigmoid(affine(layer["gate"], layer["gate_b"], s))
            h = affine(layer["w"], layer["b"], h) * gate + product(layer["shift"], s)
        return h

    return net
