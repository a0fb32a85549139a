"""Attention, and the network of Flow++ that has it: gated convolutions of images. Family: Of images."""

from typing import Any

import jax
import jax.numpy as jnp

from flows.conditioners.base import conditioner
from flows.conditioners.convolution import Images, conv_layers, convolved
from flows.conditioners.dense import check_dropout, dropped, need_rng
from flows.core import HIGHEST, Array, FlowsError, along, iteration, naming, positive_int, precision, saves_products, unfused

EPSILON = 1e-6  # added to the variance of a layer norm
LAST_SCALE = 0.01  # factor on the initial weights of the last layer
POSITION_SCALE = 0.01  # standard deviation of positions at the start


def attend(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    """The means of values, weighted by how well their keys match each query: softmax(q k' / sqrt(features)) v.

    Every attention of the library is this one. Its two products have all the bits of float32, unless `fit(matmul_dtype=)` asks
    for fewer; the softmax is computed in the dtype of q.

    Args:
        q: queries, (*batch, queries, features).
        k: keys, (*batch, keys, features).
        v: values, (*batch, keys, outputs).
        mask: booleans that broadcast to (*batch, queries, keys), True where a query sees a key; None for all. A query that sees
            no key gets zeros.

    Returns:
        (*batch, queries, outputs).

    Errors:
        FlowsError: shapes that do not fit.

    Source:
        Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, equation 1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> q, k = jnp.zeros((1, 2)), jnp.ones((3, 2))
        >>> flows.conditioners.attend(q, k, jnp.array([[0.0], [3.0], [6.0]])).tolist()
        [[3.0]]
    """
    fits = q.ndim == k.ndim == v.ndim >= 2 and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    if not fits or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise FlowsError(
            f"attend: q is {q.shape}, k {k.shape} and v {v.shape}; expected (*batch, queries, features), (*batch, keys, "
            "features) and (*batch, keys, outputs)"
        )
    logits = _product("...qd,...kd->...qk", q * q.shape[-1] ** -0.5, k)
    if mask is not None:
        try:
            visible = jnp.broadcast_to(jnp.asarray(mask, bool), logits.shape)
        except ValueError:
            message = f"attend: mask is {jnp.shape(mask)}; expected booleans that broadcast to {logits.shape}"
            raise FlowsError(message) from None
        logits = jnp.where(visible, logits, -jnp.inf)
    most = jax.lax.stop_gradient(jnp.maximum(logits.max(-1, keepdims=True), jnp.finfo(logits.dtype).min))
    weights = jnp.exp(logits - most)
    total = weights.sum(-1, keepdims=True)
    return _product("...qk,...kd->...qd", weights, v) / jnp.where(total > 0, total, 1)


def _product(form: str, a: Array, b: Array) -> Array:
    """A product in the dtype that the fit asks for, returned in the dtype of a."""
    dtype = jnp.dtype(precision().matmul_dtype or a.dtype)
    digits = HIGHEST if dtype.itemsize >= 4 else None
    y = jnp.einsum(form, a.astype(dtype), b.astype(dtype), precision=digits, preferred_element_type=a.dtype)
    return y.astype(a.dtype)


@conditioner
def GatedConv(width: int = 96, blocks: int = 10, heads: int = 4, dropout: float = 0.0):
    """The network of Flow++ for images: blocks of a gated convolution and of gated attention over all pixels.

    h = W x + b, a 3x3 convolution to `width` channels. With E(h) = elu([h, -h]), each block is
    h' = N(h + a sigmoid(g)), where (a, g) = V E(W' E(h) + U E(c)), and then N'(h' + a' sigmoid(g')), where (a', g') =
    V' attend(Q (h' + p), K (h' + p), Z (h' + p)). W' is a 3x3 convolution, U, V, V', Q, K and Z are 1x1, p are trained
    positions, the same for all blocks, and N normalises the channels of each pixel, then scales and shifts them. c is a
    context: a vector, the same at every pixel, or images as in `ConvNet`. The outputs are a 3x3 convolution of h.

    Args:
        width: channels of the hidden layers.
        blocks: the number of blocks; they are a loop, so that compile time does not grow with it.
        heads: the attention heads, each of width / heads channels.
        dropout: the share of units dropped before V with `train=True`, which needs `rng`; in [0, 1).

    Params:
        "positions": (H, W, width); "first" and "last": {"w": (3, 3, inputs, outputs), "b": (outputs,)}; "blocks": with a
        leading axis of blocks, such layers "conv", "gate", "attention" (Q, K and Z), "mixed" and, with a context, "context",
        and "norms": {"gain", "shift"}, (2, width).

    Errors:
        FlowsError: heads that do not divide the width, or another argument outside its range; inputs that are not images; a
            context of images not k times as large; dropout with `train=True` and no `rng`.

    Source:
        Ho, Chen, Srinivas, Duan and Abbeel, "Flow++: Improving Flow-Based Generative Models with Variational Dequantization and
        Architecture Design", 2019, arXiv:1902.00275, section 3.3, and its code.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.GatedConv(16, blocks=2)(0, (4, 4, 3), (4, 4, 6))
        >>> apply_fun(params, jnp.ones((10, 4, 4, 3))).shape
        (10, 4, 4, 6)
    """
    width, blocks = positive_int(width, "GatedConv: width"), positive_int(blocks, "GatedConv: blocks", most=10_000)
    heads, dropout = positive_int(heads, "GatedConv: heads"), check_dropout(dropout, "GatedConv")
    if width % heads:
        raise FlowsError(f"GatedConv: heads is {heads}, which does not divide the width, {width}; expected a divisor of it")

    def net(rng, input_dim, output_dim, context_dim=0):
        shown = {"context", *(("rng", "train") if dropout else ())}
        images = Images("GatedConv", input_dim, output_dim, context_dim, naming(formula, shown), joins=False)
        keys = jax.random.split(rng, 3)
        first, last = conv_layers(keys[0], [(3, images.channels, width), (3, width, output_dim[-1])], [1.0, LAST_SCALE])
        positions = POSITION_SCALE * jax.random.normal(keys[1], (*input_dim[:2], width))
        stacked = jax.vmap(lambda key: block(key, images.of_context))(jax.random.split(keys[2], blocks))
        return {"positions": positions, "first": first, "last": last, "blocks": stacked}, images

    def block(key: Array, of_context: int) -> dict[str, Any]:
        sizes = {"conv": (3, 2 * width, width), "gate": (1, 2 * width, 2 * width)}
        sizes |= {"attention": (1, width, 3 * width), "mixed": (1, width, 2 * width)}
        sizes |= {"context": (1, 2 * of_context, width)} if of_context else {}
        layers = dict(zip(sizes, conv_layers(key, sizes.values(), [1.0] * len(sizes)), strict=True))
        return {**layers, "norms": {"gain": jnp.ones((2, width)), "shift": jnp.zeros((2, width))}}

    def formula(params, x: Array, context: Array | None = None, rng=None, train: bool = False) -> Array:
        key = need_rng(rng, "GatedConv") if dropout and train else None
        c = None if context is None else concat_elu(context if context.ndim == 4 else context[:, None, None])

        def step(h: Array, numbered: tuple[Array, Any, Any]) -> tuple[Array, None]:
            number, params_of, key = numbered
            with iteration(number):  # biases are small, and kernels that read a slice of many are slow
                params_of = jax.tree.map(lambda leaf: unfused(leaf) if leaf.ndim < 3 else leaf, params_of)
            a = convolved(params_of["conv"], concat_elu(h))
            a = concat_elu(a if c is None else a + convolved(params_of["context"], c))
            a = a if key is None else dropped(a, dropout, key)
            h = normalised(gated(h, convolved(params_of["gate"], a)), params_of["norms"], 0)
            a = convolved(params_of["mixed"], mixed_by_heads(convolved(params_of["attention"], h + params["positions"][None])))
            return normalised(gated(h, a), params_of["norms"], 1), None

        h = convolved(params["first"], x)
        lean = jax.checkpoint(step, prevent_cse=False, policy=saves_products)
        keys = None if key is None else jax.random.split(key, blocks)
        h, _ = jax.lax.scan(lean, h, (jnp.arange(blocks), params["blocks"], keys))
        return convolved(params["last"], h)

    def mixed_by_heads(qkv: Array) -> Array:
        rows, h, w, _ = qkv.shape
        q, k, v = qkv.reshape(rows, h * w, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
        return attend(q, k, v).transpose(0, 2, 1, 3).reshape(rows, h, w, width)

    return net


def concat_elu(x: Array) -> Array:
    """elu(x) and elu(-x), as twice as many channels."""
    below = jnp.exp(-jnp.abs(x)) - 1  # one exponential for both
    return jnp.concatenate([jnp.where(x >= 0, x, below), jnp.where(x <= 0, -x, below)], axis=-1)


def gated(h: Array, value_and_gate: Array) -> Array:
    """h, and a value that a gate lets through."""
    value, gate = jnp.split(value_and_gate, 2, axis=-1)
    return h + value * jax.nn.sigmoid(gate)


def normalised(h: Array, norms: dict[str, Array], i: int) -> Array:
    """The channels of each pixel with mean 0 and variance 1, scaled and shifted by the i-th of the norms."""
    h = h - h.mean(-1, keepdims=True)
    h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + EPSILON)
    return h * along(norms["gain"][i], h) + along(norms["shift"][i], h)
