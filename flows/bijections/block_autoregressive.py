"""The block neural autoregressive layer: a network that is monotone in each feature, and so a bijection by itself.
Family: Couplings and autoregressive layers."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flows.conditioners.dense import affine, dense_layers
from flows.core import HIGHEST, Array, FlowsError, as_context, bijection, positive_int, size, soft_clip, spend
from flows.transformers.solve import solve

LEAST = 1e-3  # of the gate, and of 1 - gate
BOUND, FAR = 10.0, 1e18  # of log_norm, and of the inputs to the network


@bijection(batched=True)
def BlockAutoregressive(*hidden: int):
    """A layer of a block neural autoregressive flow (BNAF).

    y = g x + (1 - g) F(x), where F is a network with layers of tanh units, some for each feature. Block (i, j) of a weight
    matrix joins the units of feature j to the units of feature i: positive for i = j, free for i > j, 0 for i < j, so that F_i
    increases in x_i and depends on x_0 .. x_i alone. log|det J| = sum_i log(g_i + (1 - g_i) dF_i/dx_i), with dF_i/dx_i
    the product of the diagonal blocks and the slopes of tanh, computed in logarithms. Rows of weights are normalised and scaled
    by e^s, s = 10 tanh(log_norm / 10).

    As F is bounded and the gate g = sigmoid(gate) is at least 0.001, every y has an x; the inverse finds one feature after the
    other by safeguarded Newton steps. A context, a vector, is added to the units of the first layer and to F.

    Args:
        hidden: units for each feature, of each hidden layer; (8,) by default.

    Params:
        layers: a tuple of {"raw": (outputs, inputs), "log_norm": (outputs,), "b": (outputs,)}, the diagonal blocks of raw as
        logarithms; gate: (d,). With a context "context": {"first", "last"}, dense layers {"w", "b"}.

    Cost:
        Direct: a pass of the network. Inverse: a root for each feature in turn, about 10 passes each.

    Errors:
        FlowsError: an event or a context of several axes; a width that is not a whole number above 0.

    Source:
        De Cao, Titov and Aziz, "Block Neural Autoregressive Flow", 2019, arXiv:1904.04676, equations 6-12; gated residuals as
        in its section 4.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.BlockAutoregressive()(0, 3)
        >>> y, log_det = direct_fun(params, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun(params, y)[0] - 1).max() < 1e-4)
        True
    """
    hidden = tuple(positive_int(width, "BlockAutoregressive: a width") for width in (hidden or (8,)))
    widths = (1, *hidden, 1)

    def init_fun(rng, shape, context_dim=0):
        context = as_context(context_dim)
        if len(shape) != 1 or len(context or (1,)) != 1:
            raise FlowsError(f"BlockAutoregressive: the event is {shape}, the context {context or ()}; expected vectors")
        (d,) = shape
        *keys, context_key = jax.random.split(rng, len(widths))
        layers = tuple(start(key, a, b, d) for key, a, b in zip(keys, widths, widths[1:], strict=False))
        params = {"layers": layers, "gate": jnp.zeros(d)}
        if context is not None:
            inputs = size(context)
            layers = dense_layers(context_key, [(inputs, d * hidden[0]), (inputs, d)], [0.1, 0.1])
            params["context"] = dict(zip(("first", "last"), layers, strict=True))
        return params, direct_fun, inverse_fun

    def start(key, a: int, b: int, d: int) -> dict[str, Array]:
        spend(size=4 * a * b * d**2)
        raw = jax.random.normal(key, (d * b, d * a)) / (d * a) ** 0.5
        raw = jnp.where(jnp.kron(jnp.eye(d), jnp.ones((b, a))) > 0, 0.3 * raw, raw)  # diagonal blocks near 1
        return {"raw": raw, "log_norm": jnp.zeros(d * b), "b": jnp.zeros(d * b)}

    def shifts(params, context) -> tuple:
        if context is None:
            return 0.0, 0.0
        layers = (params["context"][name] for name in ("first", "last"))
        return tuple(affine(layer["w"], layer["b"], context.T) for layer in layers)

    def forward(params, x: Array, shifts: tuple) -> tuple[Array, Array]:
        """y and the logs of the Jacobian's diagonal, (d, batch)."""
        d, batch = x.shape
        h, log_slope = jnp.clip(x, -FAR, FAR), jnp.zeros((d, 1, batch), x.dtype)  # 0 times inf would be NaN
        for i, layer in enumerate(params["layers"]):
            if i:
                # log(1 - tanh(h)^2), without its cancellation
                slope_of_tanh = 2 * (math.log(2) - h - jax.nn.softplus(-2 * h))
                log_slope, h = log_slope + slope_of_tanh.reshape(log_slope.shape), jnp.tanh(h)
            w, log_diagonal = weights(layer, d)
            h = affine(w.T, layer["b"], h) + (shifts[0] if i == 0 else 0.0)
            log_slope = log_product(log_diagonal, log_slope)
        gate = LEAST + (1 - 2 * LEAST) * jax.nn.sigmoid(params["gate"])[:, None]
        y = gate * x + (1 - gate) * (h + shifts[1])
        return y, jnp.logaddexp(jnp.log(gate), jnp.log1p(-gate) + log_slope[:, 0])

    def direct_fun(params, x, context=None):
        y, log_slope = forward(params, x.T, shifts(params, context))
        return y.T, log_slope.sum(0)

    def inverse_fun(params, y, context=None):
        return root(params, y, context)

    @jax.custom_jvp
    def root(params, y, context):
        return search(params, y.T, shifts(params, context)).T

    @root.defjvp
    def _(primals, tangents):
        """The tangent of the implicit function: J dx = dy - df, where f is the direct function at constant x."""
        x, (params, _, context) = root(*primals), primals
        finite = jnp.isfinite(x)
        at = jnp.where(finite, x, 0.0)

        def run(params, context, x):
            return forward(params, x.T, shifts(params, context))[0].T

        def row_jacobian(x, context):
            context = None if context is None else context[None]
            return jax.jacfwd(lambda x: run(params, context, x[None])[0])(x)

        change = jax.jvp(lambda params, context: run(params, context, at), (params, context), (tangents[0], tangents[2]))[1]
        jacobian = jnp.tril(jax.vmap(row_jacobian)(at, context))
        moved = jax.vmap(partial(solve_triangular, lower=True))(jacobian, tangents[1] - change)
        return x, jnp.where(finite, moved, 0.0)

    def search(params, y: Array, shifts: tuple) -> Array:
        w, _ = weights(params["layers"][-1], y.shape[0])
        most = jnp.abs(w).sum(1)[:, None]  # the largest |F - bias|, as |tanh| is at most 1
        gate = LEAST + (1 - 2 * LEAST) * jax.nn.sigmoid(params["gate"])[:, None]
        centre = y - (1 - gate) * (params["layers"][-1]["b"][:, None] + shifts[1])
        low, high = (centre - (1 - gate) * most) / gate, (centre + (1 - gate) * most) / gate

        def find(i, x):
            def at(t):
                value, log_slope = forward(params, jax.lax.dynamic_update_slice_in_dim(x, t[None], i, 0), shifts)
                return value[i], log_slope[i]

            return jax.lax.dynamic_update_slice_in_dim(x, solve(at, y[i], low[i], high[i])[None], i, 0)

        return jax.lax.fori_loop(0, y.shape[0], find, jnp.zeros_like(y))

    return init_fun


def weights(layer: dict[str, Array], d: int) -> tuple[Array, Array]:
    """The weight matrix (outputs, inputs), and the logs of its diagonal blocks (d, outputs / d, inputs / d)."""
    rows, columns = layer["raw"].shape
    row, column = jnp.arange(rows)[:, None] // (rows // d), jnp.arange(columns)[None] // (columns // d)
    diagonal, free = row == column, jnp.where(row > column, layer["raw"], 0.0)
    # Rows are normalised below, so that any factor may be taken out: with this one no entry overflows, and one is 1.
    logs = jnp.where(diagonal, layer["raw"], -jnp.inf)
    most = jnp.maximum(logs.max(1), jnp.log(jnp.maximum(jnp.abs(free).max(1), jnp.finfo(free.dtype).tiny)))
    most = jax.lax.stop_gradient(most)[:, None]
    w = jnp.where(diagonal, jnp.exp(jnp.where(diagonal, layer["raw"] - most, 0.0)), free * jnp.exp(-most))
    log_scale = (soft_clip(layer["log_norm"], BOUND) - 0.5 * jnp.log(jnp.square(w).sum(1)))[:, None]
    blocks = (layer["raw"] - most + log_scale).reshape(d, rows // d, d, columns // d)
    return w * jnp.exp(log_scale), jnp.stack([blocks[i, :, i] for i in range(d)])


def log_product(log_blocks: Array, log_slope: Array) -> Array:
    """log(exp(log_blocks) exp(log_slope)) for each feature: (d, b, a) and (d, a, batch) to (d, b, batch).

    The largest slope is taken out; terms that then underflow are negligible next to the slope of the gate.
    """
    most = jax.lax.stop_gradient(log_slope.max(1, keepdims=True))
    most = jnp.where(jnp.isfinite(most), most, 0.0)
    total = jnp.matmul(jnp.exp(log_blocks), jnp.exp(log_slope - most), precision=HIGHEST)
    positive = ~(total <= 0)  # NaN stays NaN
    return jnp.where(positive, jnp.log(jnp.where(positive, total, 1.0)) + most, -jnp.inf)
