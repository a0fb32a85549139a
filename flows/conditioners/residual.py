"""Residual networks, plain and masked. Family: Residual, masked or not."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from flows.conditioners.base import OF_IMAGES, Leading, conditioner
from flows.conditioners.dense import affine, as_activation, check_dropout, dense_layers, dropped, need_rng
from flows.conditioners.masked import Masked, degrees_of
from flows.core import Array, FlowsError, finite, naming, positive_int

EPSILON = 1e-3
SMALL = 0.01  # scale of the second layer of each block at the start


@conditioner(running=lambda batch_norm, **_: batch_norm)
def Residual(
    width: int = 64,
    num_blocks: int = 2,
    activation: str | Callable = "relu",
    last_scale: float = 0.01,
    dropout: float = 0.0,
    batch_norm: bool = False,
):
    """The residual network of neural spline flows; a context gates every block.

    h = W x + b, where x is the inputs, then the context. Each block adds to h the output of two dense layers with an activation
    before each, times sigmoid(V c) if there is a context c. The outputs are W' h + b'. The second layer of a block starts
    small, so that each block starts near the identity.

    Args:
        width: units of every hidden layer.
        num_blocks: residual blocks.
        activation: as in `MLP`.
        last_scale: factor on the last layer's initial weights; 0 starts exactly at constant outputs.
        dropout: the share of units dropped before the second layer of a block with `train=True`, which needs `rng`; in [0, 1).
        batch_norm: normalise before each activation: by the batch with `train=True`, else by statistics in params, which are
            measured from `init_inputs` and by `flows.remeasure`.

    Params:
        `{"layers": ({"w": (inputs, outputs), "b": (outputs,)}, ...)}`; with a context "gates", a dense layer for each block;
        with batch_norm "norms": {"log_gamma", "beta"} and "fixed": {"mean", "var"}, each (2 num_blocks, width).

    Errors:
        FlowsError: an argument outside its range; dropout with `train=True` and no `rng`.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, section 5.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, apply_fun = flows.conditioners.Residual(32, num_blocks=1)(0, 3, 4, context_dim=2)
        >>> apply_fun(params, jnp.ones((10, 3)), context=jnp.ones((10, 2))).shape
        (10, 4)
    """
    body = Blocks("Residual", width, num_blocks, activation, last_scale, dropout, batch_norm)

    def net(rng, input_dim, output_dim, context_dim=0, init_inputs=None, init_context=None, params=None):
        if not isinstance(input_dim, int) or not isinstance(context_dim, int):
            raise FlowsError(
                f"Residual: the inputs are events {input_dim}, the context {context_dim or 'none'}; expected vectors. "
                f"{OF_IMAGES}"
            )
        sizes = [input_dim + context_dim, *[width] * (2 * num_blocks + 1), output_dim]
        keys = jax.random.split(rng)
        layers = dense_layers(keys[0], pairwise(sizes), body.scales)
        start = body.init(keys[1], layers, context_dim, params)
        start = body.measured(start, apply(start), init_inputs, init_context)
        return start, Leading(naming(leading, body.call_keywords))

    def apply(params):
        return lambda i, h: affine(params["layers"][i]["w"], params["layers"][i]["b"], h)

    def leading(params, x, context=None, rng=None, train=False):
        inputs = x if context is None else jnp.concatenate([x, context])
        return body.formula(apply(params), body.per_unit(params, context), inputs, rng, train)

    return naming(net, body.init_keywords)


@conditioner(running=lambda batch_norm, **_: batch_norm)
def MaskedResidual(
    width: int = 64,
    num_blocks: int = 2,
    activation: str | Callable = "relu",
    last_scale: float = 0.01,
    dropout: float = 0.0,
    batch_norm: bool = False,
    order: Sequence[int] | None = None,
):
    """The network of ResMADE: `Residual` with masks, so that output i depends on the inputs before i and on the context alone.

    Outputs are `(num_params, input_dim)` flattened, as in `MaskedMLP`; every hidden layer has units of the same degrees.

    Args:
        width, num_blocks, activation, last_scale, dropout, batch_norm: as in `Residual`.
        order: as in `MaskedMLP`.

    Params:
        The same as in `Residual`; masked weights are multiplied by 0 at use.

    Errors:
        FlowsError: as in `Residual` and `MaskedMLP`.

    Source:
        Nash and Durkan, "Autoregressive Energy Machines", 2019, arXiv:1904.05626, section 4.1; Durkan, Bekasov, Murray and
        Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, section 5.

    Example:
        >>> import flows, jax
        >>> params, apply_fun = flows.conditioners.MaskedResidual(16, last_scale=1.0)(0, 3, 3)
        >>> jax.jacobian(lambda x: apply_fun(params, x))(jax.numpy.ones(3))[0].tolist()  # the first depends on no input
        [0.0, 0.0, 0.0]
    """
    body = Blocks("MaskedResidual", width, num_blocks, activation, last_scale, dropout, batch_norm)

    def net(rng, input_dim, output_dim, context_dim=0, init_inputs=None, init_context=None, params=None):
        hidden = [width] * (2 * num_blocks + 1)
        degrees = degrees_of("MaskedResidual", input_dim, output_dim, hidden, context_dim, order)
        keys = jax.random.split(rng)
        masked = Masked(degrees, body.formula, lambda params: params["layers"], body.per_unit, body.call_keywords)
        layers = dense_layers(keys[0], pairwise(map(len, degrees)), body.scales)
        start = body.init(keys[1], layers, context_dim, params)
        return body.measured(start, masked.dense(start), init_inputs, init_context), masked

    return naming(net, body.init_keywords)


class Blocks:
    """The common part of residual networks: the formula, with features leading, and all params except the layers."""

    epsilon = EPSILON
    axes: tuple[int, ...] = (1,)  # of h, over which the moments of a unit are taken

    def __init__(
        self, name: str, width: int, num_blocks: int, activation: Any, last_scale: float, dropout: float, batch_norm: bool
    ):
        self.name, self.act = name, as_activation(activation)
        self.width = positive_int(width, f"{name}: width")
        self.num_blocks = positive_int(num_blocks, f"{name}: num_blocks", most=1000)
        self.dropout, self.batch_norm = check_dropout(dropout, name), batch_norm
        self.scales = [1.0, *[1.0, SMALL] * self.num_blocks, finite(last_scale, f"{name}: last_scale")]
        measured = {"init_inputs", "init_context", "params"} if batch_norm else set[str]()
        self.init_keywords = {"context_dim"} | measured
        self.call_keywords = {"context"} | ({"rng"} if dropout else set()) | ({"train"} if dropout or batch_norm else set())

    def init(self, key: Array, layers: tuple, context_dim: int, old: Any) -> dict[str, Any]:
        if old is not None:
            return old
        params: dict[str, Any] = {"layers": layers}
        if context_dim:
            params["gates"] = dense_layers(key, [(context_dim, self.width)] * self.num_blocks, [1.0] * self.num_blocks)
        if self.batch_norm:
            zeros = jnp.zeros((2 * self.num_blocks, self.width))
            params |= {"norms": {"log_gamma": zeros, "beta": zeros}, "fixed": {"mean": zeros, "var": zeros + 1}}
        return params

    def per_unit(self, params: Any, context: Array | None) -> dict[str, Any]:
        """Return the gates and norms of all blocks, which act on single units."""
        units: dict[str, Any] = {}
        if "gates" in params and context is not None:
            units["gates"] = tuple(jax.nn.sigmoid(affine(gate["w"], gate["b"], context)) for gate in params["gates"])
        if self.batch_norm:
            norms = (*params["norms"].values(), *params["fixed"].values())
            units["norms"] = tuple(tuple(leaf[i][:, None] for leaf in norms) for i in range(2 * self.num_blocks))
        return jax.tree.map(self.aligned, units)

    def aligned(self, unit: Array) -> Array:
        """Return numbers of single units, (width, batch or 1), with the axes of h."""
        return unit

    def normalised(self, h: Array, norm: tuple, train: bool, record: list | None) -> Array:
        log_gamma, beta, mean, var = norm
        if train:
            mean = h.mean(self.axes, keepdims=True)
            var = jnp.square(h - mean).mean(self.axes, keepdims=True)
        if record is not None:
            record.append((mean.ravel(), var.ravel()))
        return (h - mean) * jnp.exp(log_gamma) * jax.lax.rsqrt(var + self.epsilon) + beta

    def formula(self, dense: Callable, units: Any, x: Array, rng: Any, train: bool, record: list | None = None) -> Array:
        """The network; moments of units before they are normalised are appended to `record`, if there is one."""
        drops = self.dropout > 0 and train and record is None
        key = need_rng(rng, self.name) if drops else None

        h = dense(0, x)
        for block in range(self.num_blocks):
            change = h
            for i in (2 * block, 2 * block + 1):
                change = self.normalised(change, units["norms"][i], train, record) if self.batch_norm else change
                change = self.act(change)
                if i % 2 and key is not None:
                    change = dropped(change, self.dropout, jax.random.fold_in(key, block))
                change = dense(i + 1, change)
            h = h + (change * units["gates"][block] if "gates" in units else change)
        return dense(2 * self.num_blocks + 1, h)

    def measured(self, params: Any, dense: Callable, inputs: Array | None, context: Array | None) -> Any:
        """The params with the statistics of data, rows leading."""
        if inputs is None:
            return params
        context = None if context is None else context.T
        x = inputs.T if context is None else jnp.concatenate([inputs.T, context])
        return self.with_moments(params, dense, x, context)

    def with_moments(self, params: Any, dense: Callable, x: Array, context: Array | None) -> Any:
        """The params with the statistics of x, which is laid out as the formula takes it."""
        if not self.batch_norm:
            return params
        moments = list[tuple[Array, Array]]()
        self.formula(dense, self.per_unit(params, context), x, None, True, moments)
        mean, var = map(jnp.stack, zip(*moments, strict=True))
        return {**params, "fixed": {"mean": mean, "var": var}}
