"""Dense networks, fully connected or of a point and a time, and their parts: layers and activations. Family: Of vectors."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners.base import OF_IMAGES, Leading, conditioner
from flows.core import HIGHEST, LAYER, Array, FlowsError, finite, naming, number, positive_int, precision, spend

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
            result = jax.eval_shape(lambda x: activation(x), like)  # on np.sin itself a second call would crash
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


@conditioner
def MLP(
    *hidden: int,
    activation: str | Callable = "relu",
    last_scale: float = 0.01,
    dtype: str | None = None,
    dropout: float = 0.0,
):
    """A fully connected network: dense layers with an activation between them.

    Args:
        hidden: units of each hidden layer; none makes a linear map.
        activation: the name of one of `jax.nn` (relu, tanh, elu, gelu, silu, softplus, sigmoid, leaky_relu), or a function.
        last_scale: factor on the last layer's initial weights. A small one lets a flow start near the identity; 0 starts
            exactly there, but then the other layers get their first gradient one step later.
        dtype: compute the layers in this dtype, such as "bfloat16"; params and outputs keep the dtypes that they have.
        dropout: the share of hidden units dropped with `train=True`, which needs `rng`; in [0, 1).

    Params:
        A tuple of `{"w": (inputs, outputs), "b": (outputs,)}`. Weights are normal with variance 1 / inputs, biases 0.

    Errors:
        FlowsError: a width that is not a whole number above 0, an unknown activation or dtype, an event of several axes, a
            dropout outside its range, or one with `train=True` and no `rng`.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.MLP(64, 64)(0, 3, 4)
        >>> apply_fun(params, jnp.ones((10, 3))).shape
        (10, 4)
    """
    act = as_activation(activation)
    hidden = tuple(positive_int(units, "MLP: a hidden width") for units in hidden)
    last_scale, dropout = finite(last_scale, "MLP: last_scale"), check_dropout(dropout, "MLP")
    if dtype is not None and not _is_floating(dtype):
        raise FlowsError(f"MLP: dtype is {dtype!r}; expected a floating one, such as 'bfloat16'")

    def net(rng, input_dim: int, output_dim: int):
        if not isinstance(input_dim, int):
            raise FlowsError(f"MLP: the inputs are events {input_dim}, expected vectors. {OF_IMAGES}")
        if input_dim < 0 or output_dim < 0:
            raise FlowsError(f"MLP: input_dim is {input_dim} and output_dim {output_dim}; expected 0 or more")
        sizes = (input_dim, *hidden, output_dim)
        return dense_layers(rng, pairwise(sizes), [1.0] * len(hidden) + [last_scale]), Leading(
            naming(leading, {"rng", "train"} if dropout else ())
        )

    def leading(params, x: Array, rng=None, train: bool = False) -> Array:
        check_floating(x, "MLP")
        dtype_in, key = x.dtype, need_rng(rng, "MLP") if dropout and train else None
        compute = dtype_in if dtype is None else jnp.dtype(dtype)
        for i, layer in enumerate(params):
            x = act(x) if i else x
            x = dropped(x, dropout, jax.random.fold_in(key, i)) if i and key is not None else x
            x = affine(layer["w"].astype(compute), layer["b"].astype(compute), x.astype(compute))
        return x.astype(dtype_in)

    return net


def _is_floating(dtype: str) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        return False


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
