"""Fully connected networks. Family: Of vectors."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp

from flows.conditioners.base import OF_IMAGES, Leading, conditioner
from flows.conditioners.dense import affine, as_activation, check_dropout, check_floating, dense_layers, dropped, need_rng
from flows.core import Array, FlowsError, finite, naming, positive_int


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
