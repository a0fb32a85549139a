"""What networks are made of: dense layers on features-leading arrays, and activations by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flows.core import Array, FlowsError, apart

ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "softplus", "sigmoid", "leaky_relu")


def affine(w: Array, b: Array, x: Array) -> Array:
    """w'x + b on features-leading x (inputs, *batch)."""
    return product(w, x) + b.reshape(b.shape + (1,) * (x.ndim - 1))


def product(w: Array, x: Array) -> Array:
    """w'x on features-leading x (inputs, *batch), with all the bits of float32.

    An accelerator that rounds a product's inputs would make of two inputs one ulp apart outputs a thousandth apart, and no
    inverse could be trusted.
    """
    return apart(jnp.tensordot(w, x, ((0,), (0,)), precision=jax.lax.Precision.HIGHEST))


def dense(key: Array, inputs: int, outputs: int, scale: float = 1.0) -> dict[str, Array]:
    """Weights (inputs, outputs), normal with variance scale^2 / inputs, and biases 0."""
    return {"w": jax.random.normal(key, (inputs, outputs)) * (scale / max(inputs, 1) ** 0.5), "b": jnp.zeros(outputs)}


def as_activation(activation: Any) -> Callable:
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise FlowsError(f"activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}, or a function")
    return getattr(jax.nn, activation)
