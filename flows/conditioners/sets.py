"""`DeepSet`: a network of sets, whose order means nothing. Family: Of sets."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from flows.conditioners.base import conditioner
from flows.conditioners.dense import as_activation, dense_layers, product
from flows.core import Array, FlowsError, as_event, boolean, check_widths, finite, size


@conditioner
def DeepSet(
    hidden: Sequence[int] = (64, 64),
    after: Sequence[int] = (64,),
    mask: bool = False,
    activation: str = "relu",
    last_scale: float = 1.0,
):
    """A network of sets of vectors, such as independent rows of one experiment, in any order and, with a mask, of any number.

    h_i = f(x_i) for each element; the output is g(mean h_i, max h_i), with a mask g(mean h_i, max h_i, log n), n the number of
    elements, without which no posterior could narrow as rows are added. f and g are dense layers. Order and padding change
    nothing but rounding.

    Args:
        hidden: units of the layers of f.
        after: units of the hidden layers of g.
        mask: the last feature of an element is 1, or 0 where there is none, as padding.
        activation: as in `MLP`.
        last_scale: factor on the last layer's initial weights. It is 1, as `EmbeddedContext` divides features by their
            standard deviation, and with the small start of `MLP` a step of training would move features of sets too far.

    Params:
        {"each": layers of f, "all": layers of g}, each a tuple of {"w": (inputs, outputs), "b": (outputs,)}.

    Errors:
        FlowsError: inputs that are not (elements, features), an argument outside its range, no layer of f.

    Source:
        Zaheer, Kottur, Ravanbakhsh, Poczos, Salakhutdinov and Smola, "Deep Sets", 2017, arXiv:1703.06114, theorem 2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.DeepSet()(0, (10, 3), 4)
        >>> x = jnp.arange(60.0).reshape(2, 10, 3)
        >>> y = apply_fun(params, x)
        >>> y.shape, bool(jnp.allclose(y, apply_fun(params, x[:, ::-1]), atol=1e-5))
        ((2, 4), True)
    """
    act, masked = as_activation(activation), boolean(mask, "DeepSet: mask")
    hidden, after = check_widths(hidden, "DeepSet: hidden"), check_widths(after, "DeepSet: after")
    last_scale = finite(last_scale, "DeepSet: last_scale")
    if not hidden:
        raise FlowsError("DeepSet: hidden is empty; expected at least one width, as elements are summarised by these units")

    def net(rng: Any, input_dim: Any, output_dim: Any) -> Any:
        if not isinstance(input_dim, tuple) or len(input_dim) != 2 or input_dim[1] <= masked:
            raise FlowsError(f"DeepSet: the inputs are {input_dim}; expected (elements, features), and the mask with mask=True")
        keys = jax.random.split(rng)
        widths = input_dim[1] - masked, *hidden
        each = dense_layers(keys[0], pairwise(widths), [1.0] * len(hidden))
        widths = 2 * hidden[-1] + masked, *after, size(as_event(output_dim))
        together = dense_layers(keys[1], pairwise(widths), [1.0] * len(after) + [last_scale])
        return {"each": each, "all": together}, lambda params, x: features(params, x).reshape(-1, *as_event(output_dim))

    def features(params: Any, x: Array) -> Array:
        h, there = jnp.moveaxis(x, -1, 0), jnp.ones((1, *x.shape[:-1]), x.dtype)  # features, sets, elements
        if masked:
            h, there = h[:-1], (h[-1:] > 0.5).astype(x.dtype)
        for layer in params["each"]:
            h = act(product(layer["w"], h) + layer["b"][:, None, None])
        count = there.sum(2)
        mean = (h * there).sum(2) / jnp.maximum(count, 1)
        largest = jnp.where(count > 0, jnp.where(there > 0, h, -jnp.inf).max(2), 0.0)
        y = jnp.concatenate([mean, largest, *([jnp.log(jnp.maximum(count, 1))] if masked else [])])
        *middle, last = params["all"]
        for layer in middle:
            y = act(product(layer["w"], y) + layer["b"][:, None])
        return (product(last["w"], y) + last["b"][:, None]).T

    return net
