"""Convolutional networks for images: the network of Glow, and residual ones. Family: Of images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flows.conditioners.base import conditioner
from flows.conditioners.convolution import Images, conv, conv_layers, convolved, with_gain
from flows.conditioners.dense import as_activation, check_dropout, dense_layers, dropped, need_rng, product
from flows.conditioners.network import appended
from flows.conditioners.residual import SMALL, Blocks
from flows.core import Array, FlowsError, along, finite, naming, positive_int

EPSILON = 1e-6  # added to a variance, so that the scale of a unit that is constant in the data stays bounded
SKIP_EPSILON = 1e-4  # the same of `ConvSkip`, by RealNVP's code
NORMS = (None, "weight", "batch")


@conditioner
def ConvNet(
    width: int = 64,
    activation: str | Callable = "relu",
    last_scale: float = 0.01,
    dropout: float = 0.0,
    act_norm: bool = True,
):
    """The network of Glow, for images: convolutions of 3x3, 1x1 and 3x3, with a norm and an activation between them.

    h = act(N(W x + V c)), then h' = act(N'(W' h + V' c)), where W and W' convolve and c is a context that is a vector. The
    outputs are (W'' h' + b) exp(3 s), with b and s for each channel. N(h) = (h - shift) exp(log_scale) for each channel: with
    `init_inputs` all channels start with mean 0 and variance 1. A context of images (H, W, channels) joins x as channels; a
    context with sides k times as long joins in blocks of k x k pixels.

    Args:
        width: channels of both hidden layers; 512 in the paper.
        activation: as in `MLP`.
        last_scale: factor on the last layer's initial weights; 0, as published, starts exactly at constant outputs.
        dropout: the share of hidden units dropped with `train=True`, which needs `rng`; in [0, 1).
        act_norm: use the norms N; without them, hidden layers have biases.

    Params:
        A tuple of three layers, each with "w": (k, k, inputs, outputs), normal with variance 1 / (k^2 inputs). Hidden layers
        have "shift" and "log_scale", or without norms "b": (width,); with a context "context": (context_dim, width). The last
        has "b" and "log_scale": (outputs,), which is s.

    Errors:
        FlowsError: an argument outside its range; inputs that are not images; a context of images not k times as large; dropout
            with `train=True` and no `rng`.

    Source:
        Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, sections 3.3
        and 5, and its code (the norms, and the factor 3).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.ConvNet(32)(0, (8, 8, 3), (8, 8, 6), context_dim=2)
        >>> apply_fun(params, jnp.ones((10, 8, 8, 3)), context=jnp.ones((10, 2))).shape
        (10, 8, 8, 6)
    """
    act, width = as_activation(activation), positive_int(width, "ConvNet: width")
    last_scale, dropout = finite(last_scale, "ConvNet: last_scale"), check_dropout(dropout, "ConvNet")

    def net(rng, input_dim, output_dim, context_dim=0, init_inputs=None, init_context=None, params=None):
        shown = {"context", *(("rng", "train") if dropout else ())}
        images = Images("ConvNet", input_dim, output_dim, context_dim, naming(formula, shown))
        if params is None:
            params = init(rng, images, output_dim[-1])
            params = params if init_inputs is None else measured(params, *images.formula_inputs(init_inputs, init_context))
        return params, images

    def init(key, images: Images, outputs: int) -> tuple:
        keys = jax.random.split(key)
        sizes = [(3, images.channels, width), (1, width, width), (3, width, outputs)]
        *hidden, last = conv_layers(keys[0], sizes, [1.0, 1.0, last_scale])
        zeros = jnp.zeros(width)
        if act_norm:
            hidden = [{"w": layer["w"], "shift": zeros, "log_scale": zeros} for layer in hidden]
        if images.vector:
            context = dense_layers(keys[1], [(images.vector, width)] * 2, [1.0] * 2)
            hidden = [{**layer, "context": v["w"]} for layer, v in zip(hidden, context, strict=True)]
        return *hidden, {**last, "log_scale": jnp.zeros(outputs)}

    def mixed(layer, x: Array, context: Array | None) -> Array:
        h = conv(layer["w"], x)
        return h if context is None else h + product(layer["context"], context.T).T[:, None, None]

    def hidden_units(layer, x: Array, context: Array | None) -> Array:
        """Hidden units, with the norm in kernels and biases: scaling weights costs little compared to scaling hidden units."""
        if not act_norm:
            h = mixed(layer, x, context)
            return act(h + along(layer["b"], h))
        scale = jnp.exp(layer["log_scale"])
        scaled = {name: layer[name] * along(scale, layer[name]) for name in ("w", "context", "shift") if name in layer}
        h = mixed(scaled, x, context)
        return act(h - along(scaled["shift"], h))

    def formula(params, x: Array, context: Array | None = None, rng=None, train: bool = False) -> Array:
        key = need_rng(rng, "ConvNet") if dropout and train else None
        *hidden, last = params
        for i, layer in enumerate(hidden):
            x = hidden_units(layer, x, context)
            x = x if key is None else dropped(x, dropout, jax.random.fold_in(key, i))
        return convolved(_rescaled(last), x)

    def measured(params, x: Array, context: Array | None) -> tuple:
        """The params with norms that give the hidden units of these data mean 0 and variance 1."""
        *hidden, last = params
        for i, layer in enumerate(hidden):
            h = mixed(layer, x, context)
            log_scale = -0.5 * jnp.log(h.var((0, 1, 2)) + EPSILON)
            hidden[i] = {**layer, "shift": h.mean((0, 1, 2)), "log_scale": log_scale}
            x = act((h - along(hidden[i]["shift"], h)) * jnp.exp(along(log_scale, h)))
        return *hidden, last

    return naming(net, {"context_dim", *(("init_inputs", "init_context", "params") if act_norm else ())})


@conditioner
def Convolution(kernel: int = 3, last_scale: float = 0.01):
    """A single convolution of images, as in the split prior of Glow: outputs (W x + V c + b) exp(3 s).

    W convolves, c is a context that is a vector, and each channel has b and s. A context of images joins x as channels.

    Args:
        kernel: the side of the kernels.
        last_scale: factor on their initial weights; 0, as published, starts exactly at constant outputs.

    Params:
        "w": (kernel, kernel, inputs, outputs), "b" and "log_scale": (outputs,); with a context "context": (context_dim,
        outputs).

    Errors:
        FlowsError: an argument outside its range; inputs that are not images; a context of images not k times as large.

    Source:
        Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, and its code.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.Convolution()(0, (8, 8, 3), (8, 8, 6))
        >>> apply_fun(params, jnp.ones((10, 8, 8, 3))).shape
        (10, 8, 8, 6)
    """
    kernel, last_scale = positive_int(kernel, "Convolution: kernel", most=99), finite(last_scale, "Convolution: last_scale")

    def net(rng, input_dim, output_dim, context_dim=0):
        images = Images("Convolution", input_dim, output_dim, context_dim, formula)
        keys = jax.random.split(rng)
        (layer,) = conv_layers(keys[0], [(kernel, images.channels, output_dim[-1])], [last_scale])
        layer = {**layer, "log_scale": jnp.zeros(output_dim[-1])}
        if images.vector:
            (v,) = dense_layers(keys[1], [(images.vector, output_dim[-1])], [last_scale])
            layer = {**layer, "context": v["w"]}
        return layer, images

    def formula(params, x: Array, context: Array | None = None) -> Array:
        params = _rescaled(params)
        h = convolved(params, x)
        return h if context is None else h + product(params["context"], context.T).T[:, None, None]

    return net


def _rescaled(layer: dict[str, Array]) -> dict[str, Array]:
    """The layer with its outputs multiplied by exp(3 s)."""
    scale = jnp.exp(3 * layer["log_scale"])
    return {name: leaf * along(scale, leaf) for name, leaf in layer.items() if name != "log_scale"}


@conditioner(running=lambda norm, **_: norm == "batch")
def ConvResidual(
    width: int = 64,
    num_blocks: int = 2,
    activation: str | Callable = "relu",
    last_scale: float = 0.01,
    dropout: float = 0.0,
    norm: str | None = None,
    first_kernel: int = 3,
):
    """The convolutional residual network of RealNVP and of neural spline flows for images; a context gates every block.

    h = W x + V c + b, where c is a context that is a vector. Each block adds to h the output of two 3x3 convolutions with an
    activation before each, times sigmoid(V' c) where there is such a context. The outputs are W' h + b', a 1x1 convolution.
    The second layer of a block starts small, so that each block starts near the identity. A context of images (H, W, channels)
    joins x as channels.

    Args:
        width: channels of every hidden layer.
        num_blocks: residual blocks.
        activation: as in `MLP`.
        last_scale: factor on the last layer's initial weights; 0 starts exactly at constant outputs.
        dropout: the share of units dropped before the second layer of a block with `train=True`, which needs `rng`; in [0, 1).
        norm: "weight" for kernels g v / |v| for each output, with g trained; "batch" to normalise each channel before each
            activation: by the batch with `train=True`, else by statistics in params, which are measured from `init_inputs` and
            by `flows.remeasure`.
        first_kernel: the side of the first convolution; 1 in neural spline flows.

    Params:
        `{"layers": ({"w": (k, k, inputs, outputs), "b": (outputs,)}, ...)}`; with weight norm also "gain", g: (outputs,), and
        "w" is v. With a context "context": (context_dim, width) and "gates", a dense layer for each block. With
        batch norm "norms": {"log_gamma", "beta"} and "fixed": {"mean", "var"}, each (2 num_blocks, width).

    Errors:
        FlowsError: an argument outside its range; inputs that are not images; a context of images not k times as large; dropout
            with `train=True` and no `rng`.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.7; Durkan,
        Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, section 5.3. Weight norm:
        Salimans and Kingma, "Weight Normalization", 2016, arXiv:1602.07868, equation 2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.ConvResidual(32, num_blocks=1, norm="weight")(0, (8, 8, 3), (8, 8, 6))
        >>> apply_fun(params, jnp.ones((10, 8, 8, 3))).shape
        (10, 8, 8, 6)
    """
    if norm not in NORMS:
        raise FlowsError(f"ConvResidual: norm is {norm!r:.60}; expected 'weight', 'batch' or None")
    first_kernel = positive_int(first_kernel, "ConvResidual: first_kernel", most=99)
    body = _ImageBlocks("ConvResidual", width, num_blocks, activation, last_scale, dropout, norm == "batch")

    def net(rng, input_dim, output_dim, context_dim=0, init_inputs=None, init_context=None, params=None):
        images = Images("ConvResidual", input_dim, output_dim, context_dim, naming(formula, body.call_keywords))
        keys = jax.random.split(rng, 3)
        sizes = [(first_kernel, images.channels, width), *[(3, width, width)] * (2 * num_blocks), (1, width, output_dim[-1])]
        if norm == "weight":  # from kernels with scale 1, as zeros have no direction
            layers = conv_layers(keys[0], sizes, [1.0] * len(sizes))
            layers = tuple(with_gain(layer, scale) for layer, scale in zip(layers, body.scales, strict=True))
        else:
            layers = conv_layers(keys[0], sizes, body.scales)
        start = body.init(keys[1], layers, images.vector, params)
        if images.vector and params is None:
            (v,) = dense_layers(keys[2], [(images.vector, width)], [1.0])
            start = {**start, "context": v["w"]}
        if init_inputs is not None:
            x, context = images.formula_inputs(init_inputs, init_context)
            start = body.with_moments(start, apply(start, context), x, None if context is None else context.T)
        return start, images

    def apply(params, context: Array | None) -> Callable:
        def dense(i: int, h: Array) -> Array:
            y = convolved(params["layers"][i], h)
            return y if i or context is None else y + product(params["context"], context.T).T[:, None, None]

        return dense

    def formula(params, x: Array, context: Array | None = None, rng=None, train: bool = False) -> Array:
        units = body.per_unit(params, None if context is None else context.T)
        return body.formula(apply(params, context), units, x, rng, train)

    return naming(net, body.init_keywords)


class _ImageBlocks(Blocks):
    """The blocks for images, with h (batch, H, W, width)."""

    axes = (0, 1, 2)

    def aligned(self, unit: Array) -> Array:
        return unit.T[:, None, None]


@conditioner(running=True)
def ConvSkip(width: int = 64, num_blocks: int = 4, last_scale: float = 0.01):
    """The network of RealNVP for images, as its code has it: residual blocks with batch norm, of which each adds to the output.

    h = W relu(2 r, -2 r), where r = N(x) are all channels of the inputs, and out = V h + b. Each block adds to h
    W'' relu(N(W' relu(N(h)))) + b'', and then V' h + b' to out. The outputs are U relu(N(out)) + b. W, W' and W'' are 3x3
    convolutions, V, V' and U are 1x1. N(h) = (h - mean) / sqrt(var + 1e-4) + beta for each channel, by the batch with
    `train=True`, else by statistics in params, which are measured from `init_inputs` and by `flows.remeasure`. Kernels are
    g v / |v| for each output; the norm g is trained in W'', V, V' and U, and 1 in W and W'. A context joins x as channels: a
    vector the same at every pixel, images as in `ConvNet`.

    Args:
        width: channels of every hidden layer.
        num_blocks: residual blocks.
        last_scale: factor on the last layer's initial "gain".

    Params:
        "layers": one of "w" (k, k, inputs, outputs), which is v, and where it has them "b" and "gain", (outputs,), for each
        convolution, in the order of use; "beta" and "fixed": {"mean", "var"}: for each N, in the order of use, (channels,).

    Errors:
        FlowsError: an argument outside its range; inputs that are not images; a context of images not k times as large.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.7, and its code.
        There the channel of the mask has no N.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.ConvSkip(32, num_blocks=1)(0, (8, 8, 3), (8, 8, 6))
        >>> apply_fun(params, jnp.ones((10, 8, 8, 3))).shape
        (10, 8, 8, 6)
    """
    body = _ImageBlocks("ConvSkip", width, num_blocks, "relu", last_scale, 0.0, True)
    body.epsilon = SKIP_EPSILON

    def net(rng, input_dim, output_dim, context_dim=0, init_inputs=None, init_context=None, params=None):
        images = Images("ConvSkip", input_dim, output_dim, context_dim, naming(formula, body.call_keywords))
        if params is None:
            channels = images.channels + images.vector
            params = _skip_params(rng, channels, body.width, num_blocks, output_dim[-1], body.scales[-1])
        if init_inputs is not None:
            moments = list[tuple[Array, Array]]()
            network(params, norms(params, True, moments), *images.formula_inputs(init_inputs, init_context))
            mean, var = zip(*moments, strict=True)
            params = {**params, "fixed": {"mean": mean, "var": var}}
        return params, images

    def norms(params, train: bool, record: list | None = None) -> Callable:
        """N, the first of them when it is called first, and so on."""
        leaves = zip(params["beta"], params["fixed"]["mean"], params["fixed"]["var"], strict=True)
        return lambda h: body.normalised(h, (0.0, *[along(leaf, h) for leaf in next(leaves)]), train, record)

    def formula(params, x: Array, context: Array | None = None, train: bool = False) -> Array:
        return network(params, norms(params, train), x, context)

    def network(params, normed: Callable, x: Array, context: Array | None) -> Array:
        layers = iter(params["layers"])

        def convolve(h: Array) -> Array:
            layer = next(layers)
            ones = jnp.ones(layer["w"].shape[-1], h.dtype)
            return convolved({"gain": ones, "b": 0 * ones, **layer}, h)

        r = 2 * normed(x if context is None else appended(x, context))
        h = convolve(jax.nn.relu(jnp.concatenate([r, -r], axis=-1)))
        out = convolve(h)
        for _ in range(num_blocks):
            h = h + convolve(jax.nn.relu(normed(convolve(jax.nn.relu(normed(h))))))
            out = out + convolve(h)
        return convolve(jax.nn.relu(normed(out)))

    return naming(net, body.init_keywords)


def _skip_params(key: Array, channels: int, width: int, num_blocks: int, outputs: int, last_scale: float) -> dict:
    block = [(3, width, width), (3, width, width), (1, width, width)]
    sizes = [(3, 2 * channels, width), (1, width, width), *block * num_blocks, (1, width, outputs)]
    first, skip, *blocks, last = conv_layers(key, sizes, [1.0] * len(sizes))
    layers = [first, with_gain(skip, 1.0)]
    for i, layer in enumerate(blocks):  # the first of a block has no bias, as a norm follows
        layers.append({"w": layer["w"]} if i % 3 == 0 else with_gain(layer, SMALL if i % 3 == 1 else 1.0))
    zeros = jnp.zeros(channels), *[jnp.zeros(width)] * (2 * num_blocks + 1)
    moments = {"mean": zeros, "var": tuple(zero + 1 for zero in zeros)}
    return {"layers": (*layers, with_gain(last, last_scale)), "beta": zeros, "fixed": moments}
