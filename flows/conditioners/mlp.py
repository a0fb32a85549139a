"""Fully connected networks, plain and masked."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Leading, conditioner, positive_int

ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "softplus", "sigmoid", "leaky_relu")


@conditioner
def MLP(*hidden: int, activation: str | Callable = "relu", last_scale: float = 0.01, dtype: str | None = None):
    """A fully connected network: dense layers with an activation between them.

    Args:
        hidden: units of each hidden layer; none makes a linear map.
        activation: the name of one of `jax.nn` (relu, tanh, elu, gelu, silu, softplus, sigmoid, leaky_relu), or a function.
        last_scale: factor on the last layer's initial weights. Small, so that a flow starts near the identity; 0 starts
            exactly there, but then the other layers wait one step for their first gradient.
        dtype: compute the hidden layers in this dtype, such as "bfloat16"; params and outputs keep theirs.

    Params:
        A tuple of `{"w": (inputs, outputs), "b": (outputs,)}`. Weights are normal with variance 1 / inputs, biases 0.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.MLP(64, 64)(0, 3, 4)
        >>> apply_fun(params, jnp.ones((10, 3))).shape
        (10, 4)
    """
    act = _activation(activation)
    hidden = tuple(positive_int(units, "MLP: a hidden width") for units in hidden)

    def net(rng, input_dim: int, output_dim: int):
        if not isinstance(input_dim, int):
            raise FlowsError(f"MLP: the inputs are events {input_dim}; give the coupling a network for events of several axes")
        sizes = (input_dim, *hidden, output_dim)
        keys = jax.random.split(rng, len(sizes) - 1)
        params = tuple(_dense(key, *pair) for key, pair in zip(keys, pairwise(sizes), strict=True))
        return _scale_last(params, last_scale), Leading(leading)

    def leading(params, x: Array) -> Array:
        given = x.dtype
        compute = given if dtype is None else jnp.dtype(dtype)
        for i, layer in enumerate(params):
            x = act(x) if i else x
            x = affine(layer["w"].astype(compute), layer["b"].astype(compute), x.astype(compute))
        return x.astype(given)

    return net


@conditioner
def MaskedMLP(*hidden: int, activation: str | Callable = "relu", last_scale: float = 0.01):
    """The network of MADE: output i depends on inputs 0 .. i - 1 and on the context alone.

    Outputs are `(num_params, input_dim)` flattened: every parameter of feature 0 .. d - 1, then the next parameter. Hidden
    unit j may see the first `j mod d` inputs, so units of every degree are spread evenly over each layer.

    Args:
        hidden: units of each hidden layer.
        activation: as in `MLP`.
        last_scale: factor on the last layer's initial weights.

    Params:
        A tuple of `{"w": (inputs, outputs), "b": (outputs,)}`; masked weights are multiplied by 0 at use.

    Errors:
        FlowsError: output_dim is not a multiple of input_dim.

    Source:
        Germain, Gregor, Murray and Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", 2015,
        arXiv:1502.03509, equations 8-13.

    Example:
        >>> import flows, jax
        >>> params, apply_fun = flows.conditioners.MaskedMLP(16, last_scale=1.0)(0, 3, 3)
        >>> jax.jacobian(lambda x: apply_fun(params, x))(jax.numpy.ones(3))[0].tolist()  # the first sees nothing
        [0.0, 0.0, 0.0]
    """
    act = _activation(activation)
    hidden = tuple(positive_int(units, "MaskedMLP: a hidden width") for units in hidden)

    def net(rng, input_dim: int, output_dim: int, context_dim: int = 0):
        if output_dim % input_dim:
            raise FlowsError(f"MaskedMLP: output_dim is {output_dim}; expected a multiple of input_dim={input_dim}")
        masks = autoregressive_masks(input_dim, output_dim // input_dim, hidden, context_dim)
        keys = jax.random.split(rng, len(masks))
        params = tuple(_dense(key, *mask.shape) for key, mask in zip(keys, masks, strict=True))

        def leading(params, x: Array, context: Array | None = None) -> Array:
            x = x if context is None else jnp.concatenate([x, context])
            for i, (layer, mask) in enumerate(zip(params, masks, strict=True)):
                x = act(x) if i else x
                x = affine(layer["w"] * mask.astype(x.dtype), layer["b"], x)
            return x

        return _scale_last(params, last_scale), Leading(leading)

    return net


def autoregressive_masks(d: int, num_params: int, hidden: tuple[int, ...], context_dim: int) -> list[np.ndarray]:
    """0-1 masks of shape (inputs, outputs): a unit sees the units whose degree, the number of inputs behind them, allows it."""
    known = np.concatenate([np.arange(1, d + 1), np.zeros(context_dim, int)])
    lowest = 0 if context_dim else min(1, d - 1)  # a unit of degree 0 serves only what the context alone decides
    masks = []
    for units in hidden:
        degrees = lowest + np.arange(units) % (d - lowest) if d > lowest else np.zeros(units, int)
        masks.append((known[:, None] <= degrees).astype(np.float32))
        known = degrees
    return [*masks, (known[:, None] < np.tile(np.arange(1, d + 1), num_params)).astype(np.float32)]


def affine(w: Array, b: Array, x: Array) -> Array:
    """w'x + b on features-leading x (inputs, *batch)."""
    return jnp.tensordot(w, x, ((0,), (0,))) + b.reshape(b.shape + (1,) * (x.ndim - 1))


def _dense(key: Array, inputs: int, outputs: int) -> dict[str, Array]:
    return {"w": jax.random.normal(key, (inputs, outputs)) / max(inputs, 1) ** 0.5, "b": jnp.zeros(outputs)}


def _scale_last(params: tuple, scale: float) -> tuple:
    return (*params[:-1], {**params[-1], "w": params[-1]["w"] * scale})


def _activation(activation: Any) -> Callable:
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise FlowsError(f"activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}, or a function")
    return getattr(jax.nn, activation)
