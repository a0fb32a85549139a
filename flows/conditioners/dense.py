"""Parts of networks: dense layers on features-leading arrays, and activations by name."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import HIGHEST, LAYER, Array, FlowsError, number, precision, spend

ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "softplus", "sigmoid", "leaky_relu")


def affine(w: Array, b: Array, x: Array) -> Array:
    """w'x + b for x (inputs, *batch), features leading."""
    return product(w, x) + b.reshape(b.shape + (1,) * (x.ndim - 1))


def check_floating(x: Array, name: str) -> None:
    """Refuse whole numbers: weights would be rounded to their dtype."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise FlowsError(f"{name}: x has dtype {x.dtype}; expected floating, as of x.astype(float)")


def product(w: Array, x: Array) -> Array:
    """w'x for x (inputs, *batch), features leading, with all the bits of float32.

    On an accelerator that rounds a product's inputs, two inputs one ulp apart would get outputs a thousandth apart, and no
    inverse could be trusted. Training may ask for fewer bits.
    """
    if precision().matmul_dtype is not None:
        low = jnp.dtype(precision().matmul_dtype)
        return jnp.tensordot(w.astype(low), x.astype(low), ((0,), (0,))).astype(x.dtype)
    if x.shape[1:] == (1,):  # x'w: an axis that vmap adds in front then stays there, and is not moved back and forth
        return jnp.matmul(x.reshape(-1), w, precision=HIGHEST).reshape(-1, 1)
    return jnp.tensordot(w, x, ((0,), (0,)), precision=HIGHEST)


def dense_layers(key: Array, sizes: Iterable[tuple[int, int]], scales: Sequence[float]) -> tuple[dict[str, Array], ...]:
    """Layers of these sizes: weights (inputs, outputs), normal with variance scale^2 / inputs, and biases 0.

    They come from one draw, as a separate draw for each would take a tenth of a second more to compile.
    """
    sizes = list(sizes)
    spend(parts=LAYER * len(sizes))
    ends = np.cumsum([a * b for a, b in sizes])
    draw = jax.random.normal(key, (int(ends[-1]),))
    pieces = jax.lax.split(draw, np.diff(ends, prepend=0).tolist())
    return tuple(
        {"w": piece.reshape(a, b) * (scale / max(a, 1) ** 0.5), "b": jnp.zeros(b)}
        for piece, (a, b), scale in zip(pieces, sizes, scales, strict=True)
    )


def check_dropout(share: Any, name: str) -> float:
    return number(share, f"{name}: dropout", lambda x: 0 <= x < 1, "a number in [0, 1)")


def need_rng(rng: Any, name: str) -> Array:
    if rng is None:
        raise FlowsError(f"{name}: dropout with train=True draws random numbers; give rng=")
    return rng


def dropped(h: Array, share: float, key: Array) -> Array:
    """h with this share of its units set to 0, and the others divided by 1 - share."""
    return jnp.where(jax.random.bernoulli(key, 1 - share, h.shape), h / (1 - share), 0.0)


def as_activation(activation: Any) -> Callable:
    if callable(activation):
        like = jax.ShapeDtypeStruct((2, 3), jnp.float32)
        try:
            result = jax.eval_shape(activation, like)
        except Exception as error:
            result = f"raises {type(error).__name__}: {error!s:.100}"
        if getattr(result, "shape", None) != like.shape:
            raise FlowsError(
                f"activation is {activation!r:.80}, and for (2, 3) numbers it gives {result!r:.120}; expected this shape"
            )
        return activation
    if activation not in ACTIVATIONS:
        raise FlowsError(f"activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}, or a function")
    return getattr(jax.nn, activation)
