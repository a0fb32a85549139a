"""Networks that contract by construction: their Lipschitz constant is below 1 at any params. Family: Of vectors."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners.base import OF_IMAGES, Leading, conditioner
from flows.conditioners.dense import affine, dense_layers, product
from flows.core import HIGHEST, Array, FlowsError, finite, positive_int

STEEPEST = 10.0  # the largest |log beta|
PRODUCTS = 6  # of a Gram matrix with itself, for the bound on a norm
ROUNDINGS = 1e-5  # by which the bound is increased, so that it holds in spite of rounding


def lipswish(x: Array, log_beta: Array | float = 0.0) -> Array:
    """x sigmoid(beta x) / 1.1, whose slope is at most 1 at any beta."""
    return x * jax.nn.sigmoid(jnp.exp(jnp.clip(log_beta, -STEEPEST, STEEPEST)) * x) / 1.1


CONTRACTING: dict[str, Callable] = {  # activations whose slope is at most 1
    "lipswish": lipswish,
    "elu": jax.nn.elu,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}


@conditioner(lipschitz=lambda hidden, coefficient, **_: float(coefficient) ** (len(hidden) + 1))
def Lipschitz(*hidden: int, coefficient: float = 0.97, activation: str = "lipswish", last_scale: float = 0.1):
    """A fully connected network that contracts: |g(x) - g(x')| <= coefficient^layers |x - x'| in Euclidean distance.

    Every weight matrix is divided by max(1, bound / coefficient) in every call, and gradients take this into account. The bound
    on its norm is an upper bound: |W| <= |G|_F^(1 / 64) for G = W'W multiplied by itself five more times (6 products; a power
    iteration would give a lower bound). It is at most n^(1 / 128) too large for n columns: 3.9% for 128, 0.01% for a random
    matrix. The effect of a context is not bounded: it enters the first layer together with the inputs.

    The attribute `.lipschitz`, as in `Lipschitz(64, 64).lipschitz`, is coefficient^layers, which `ResidualBlock` checks. A
    network that you write can declare one too: `flows.conditioner(lipschitz=0.9)`.

    Args:
        hidden: units of each hidden layer; none makes a linear map.
        coefficient: the largest norm of each matrix, in (0, 1).
        activation: one with slopes up to 1: "lipswish", x sigmoid(beta x) / 1.1 with beta trained for each layer; "elu",
            "relu", "sigmoid", "softplus" or "tanh".
        last_scale: factor on the last layer's initial weights, so that a residual block starts near the identity.

    Params:
        A tuple of `{"w": (inputs, outputs), "b": (outputs,)}`, before the division; with a context the first layer also has
        "context": (context_dim, outputs). A layer behind a lipswish has "log_beta": (), which starts at half the logarithm of
        the number of its inputs, as the vector of all of them has a norm of about 1.

    Errors:
        FlowsError: a width that is not a whole number above 0, a coefficient outside (0, 1), another activation, an event of
            several axes.

    Source:
        Behrmann, Grathwohl, Chen, Duvenaud and Jacobsen, "Invertible Residual Networks", 2019, arXiv:1811.00995; Chen,
        Behrmann, Duvenaud and Jacobsen, "Residual Flows for Invertible Generative Modeling", 2019, arXiv:1906.02735, section
        3.3 (lipswish). The bound: Delattre, Barthelemy, Araujo and Allauzen, "Efficient Bound of Lipschitz Constant for
        Convolutional Layers by Gram Iteration", 2023, arXiv:2305.16173.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> net = flows.conditioners.Lipschitz(64, 64)
        >>> params, apply_fun = net(0, 3, 3)
        >>> a, b = apply_fun(params, jnp.eye(3)[:2])
        >>> round(net.lipschitz, 3), bool(jnp.linalg.norm(a - b) <= net.lipschitz * 2**0.5)
        (0.913, True)
    """
    hidden = tuple(positive_int(units, "Lipschitz: a hidden width") for units in hidden)
    coefficient, last_scale = finite(coefficient, "Lipschitz: coefficient"), finite(last_scale, "Lipschitz: last_scale")
    if not 0 < coefficient < 1:
        raise FlowsError(f"Lipschitz: coefficient is {coefficient}; expected a number between 0 and 1, such as 0.97")
    if not isinstance(activation, str) or activation not in CONTRACTING:
        raise FlowsError(
            f"Lipschitz: activation is {activation!r:.60}; expected one whose slope is at most 1: {', '.join(CONTRACTING)}"
        )
    act = CONTRACTING[activation]

    def net(rng, input_dim: int, output_dim: int, context_dim: int = 0):
        if not isinstance(context_dim, int):
            raise FlowsError(f"Lipschitz: context_dim is {context_dim}; expected a vector: flatten the context")
        if not isinstance(input_dim, int):
            raise FlowsError(f"Lipschitz: the inputs are events {input_dim}, expected vectors. {OF_IMAGES}")
        keys, sizes = jax.random.split(rng), (input_dim, *hidden, output_dim)
        params = dense_layers(keys[0], pairwise(sizes), [1.0] * len(hidden) + [last_scale])
        if activation == "lipswish":
            bend = [{"log_beta": jnp.asarray(0.5 * np.log(units), float)} for units in hidden]
            params = (params[0], *({**layer, **beta} for layer, beta in zip(params[1:], bend, strict=True)))
        if context_dim:
            (v,) = dense_layers(keys[1], [(context_dim, sizes[1])], [last_scale if not hidden else 1.0])
            params = ({**params[0], "context": v["w"]}, *params[1:])
        return params, Leading(leading)

    def leading(params, x: Array, context: Array | None = None) -> Array:
        for i, layer in enumerate(params):
            w = contracted(layer["w"], coefficient)
            bent = [layer["log_beta"]] if "log_beta" in layer else []
            x = affine(w, layer["b"], act(x, *bent) if i else x)
            if i == 0 and context is not None:
                x = x + product(layer["context"], context)
        return x

    return net


def contracted(w: Array, coefficient: float) -> Array:
    """A matrix, scaled down to the norm `coefficient` if its norm may be larger."""
    return w / jnp.maximum(1.0, norm_bound(w) / coefficient)


def norm_bound(w: Array) -> Array:
    """An upper bound on the largest singular value of w, by Gram iteration."""
    small = w if w.shape[0] >= w.shape[1] else w.T
    gram, log_norm = _unit(small)
    for i in range(PRODUCTS):
        gram, log_size = _unit(jnp.matmul(gram.T, gram, precision=HIGHEST))
        log_norm = log_norm + log_size / 2 ** (i + 1)
    return jnp.exp(log_norm) * (1 + ROUNDINGS)


def _unit(a: Array) -> tuple[Array, Array]:
    """A matrix divided by its Frobenius norm, and the logarithm of the norm; for zeros, of a tiny one."""
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.abs(a).max(initial=0.0), 1e-30))  # the square of a may overflow
    a = a / largest
    size = jnp.sqrt(jnp.maximum(jnp.square(a).sum(), 1e-30))
    return a / size, jnp.log(size) + jnp.log(largest)
