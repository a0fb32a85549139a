"""The integral of a positive network: unconstrained monotonic neural networks. Family: Mixtures and networks."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.core import Array, FlowsError, positive, positive_int, soft_clip
from flows.transformers.base import transformer
from flows.transformers.solve import solve


@transformer
def MonotonicNetwork(
    hidden: tuple[int, ...] = (32, 32),
    embedding: int = 8,
    num_nodes: int = 50,
    bound: float = 5.0,
    max_log_slope: float = 4.0,
):
    """The integral of a positive network: an unconstrained monotonic neural network.

    It integrates a network n of t and an embedding h; all entries share the weights of n:

        y         = beta + integral from 0 to x of g(t) dt,     g(t) = exp(M tanh(n(t, h) / M)),     M = max_log_slope
        log dy/dx = log g(x)

    Beyond +-bound n stays at its value there, so y is linear, the density is continuous, and the integral is as accurate
    everywhere as it is inside. Slopes lie within e^-M .. e^M, so it is a bijection of the real line. The inverse is
    numerical, in the bracket that the slopes give.

    The integral is computed by Gauss's rule: log dy/dx and all derivatives in x are exact, y has the error of the rule.
    Measured with 50 nodes, two hidden layers of 32 and |x| <= 4: below 1e-12 for weights of variance 1 / inputs, 1e-9 for
    weights twice as large, and 1e-3 after training on modes 0.1 wide (1e-5 where the data are), which 100 nodes bring down to
    2e-6. The nodes are visited one after the other, and again for gradients, in the memory of one pass.

    `theta` is (embedding + 1, *x.shape): h, then beta. The last layer starts at 0: at its initial weights y = x + beta.

    Args:
        hidden: units of each hidden layer (tanh, smooth as the integral needs it).
        embedding: the number of entries of h, at least 1.
        num_nodes: nodes of the integral.
        bound: where y becomes linear, in the units of x.
        max_log_slope: the largest |log dy/dx|, in nats.

    Weights:
        A tuple of `{"w": (inputs, outputs), "b": (outputs,)}`; the inputs of the first layer are t, then h.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Wehenkel and Louppe, "Unconstrained Monotonic Neural Networks", 2019, arXiv:1908.05164, equation 1. They use the
        rule of Clenshaw and Curtis.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> network = flows.transformers.MonotonicNetwork(hidden=(16,), embedding=2)
        >>> weights = network.init(0)
        >>> network.direct(jnp.zeros((3, 2)), jnp.array([-1.0, 50.0]), weights)[0].round(5).tolist()
        [-1.0, 50.0]
    """
    if not isinstance(hidden, tuple):
        raise FlowsError(f"MonotonicNetwork: hidden is {hidden!r}; expected a tuple of widths, such as (32, 32)")
    hidden = tuple(positive_int(units, "MonotonicNetwork: a hidden width") for units in hidden)
    embedding = positive_int(embedding, "MonotonicNetwork: embedding")
    num_nodes = positive_int(num_nodes, "MonotonicNetwork: num_nodes", 1000)
    bound, most = positive(bound, "MonotonicNetwork: bound"), positive(max_log_slope, "MonotonicNetwork: max_log_slope")
    nodes, shares = (0.5 * rule for rule in np.polynomial.legendre.leggauss(num_nodes))

    def init(rng: Array) -> tuple[dict[str, Array], ...]:
        sizes = (1 + embedding, *hidden, 1)
        keys = jax.random.split(rng, len(sizes) - 1)
        scales = [*(n**-0.5 for n in sizes[:-2]), 0.0]
        return tuple(
            {"w": scale * jax.random.normal(key, pair), "b": jnp.zeros(pair[1])}
            for key, scale, pair in zip(keys, scales, pairwise(sizes), strict=True)
        )

    def affine(w: Array, b: Array, x: Array) -> Array:
        return jnp.tensordot(w, x, ((0,), (0,)), precision="highest") + b.reshape(-1, *[1] * (x.ndim - 1))

    def log_slope(weights: Any, h: Array, t: Array) -> Array:
        first, *rest = weights
        size = first["w"].shape[1:] + (1,) * t.ndim
        x = affine(first["w"][1:], first["b"], h) + first["w"][0].reshape(size) * t[None]
        for layer in rest:
            x = affine(layer["w"], layer["b"], jnp.tanh(x))
        return soft_clip(x[0], most)

    @jax.custom_jvp
    def integral(weights: Any, h: Array, x: Array) -> Array:
        """Integrate g from 0 to x, for |x| <= bound."""

        @jax.checkpoint
        def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
            place, share = node
            return total + share * jnp.exp(log_slope(weights, h, place * x)), None

        places = jnp.asarray(nodes + 0.5, x.dtype), jnp.asarray(shares, x.dtype)
        return x * lax.scan(add, jnp.zeros_like(x), places)[0]

    @integral.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        # The derivative in x is the integrand itself, not the derivative of the rule.
        weights, h, x = primals
        y, change = jax.jvp(lambda weights, h: integral.fun(weights, h, x), (weights, h), tangents[:2])
        return y, change + jnp.exp(log_slope(weights, h, x)) * tangents[2]

    def evaluate(weights: Any, h: Array, x: Array) -> tuple[Array, Array]:
        inside = jnp.where(jnp.abs(x) > bound, jnp.sign(x) * bound, x)  # in a clip, an overflow far out would become NaN
        log_g = log_slope(weights, h, inside)
        return integral(weights, h, inside) + jnp.exp(log_g) * (x - inside), log_g

    def direct(theta: Array, x: Array, weights: Any) -> tuple[Array, Array]:
        y, log_g = evaluate(weights, theta[:-1], x)
        return y + theta[-1], log_g

    def inverse(theta: Array, y: Array, weights: Any) -> tuple[Array, Array]:
        rest, h = y - theta[-1], theta[:-1]
        ends = rest * (1.001 * np.exp(-most)), rest * (1.001 * np.exp(most))
        x = solve(lambda x: evaluate(weights, h, x), rest, jnp.minimum(*ends), jnp.maximum(*ends), guess=rest)
        return x, -evaluate(weights, h, x)[1]

    return embedding + 1, direct, inverse, init
