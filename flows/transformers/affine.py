"""The affine transformer, and the inverse of any transformer."""

import jax.numpy as jnp

from flows.core import Array, Transformer, check_transformer, positive, transformer


@transformer
def Affine(bound: float = 10.0):
    """A scale and a shift with the scale bounded by construction.

    y = x exp(s) + t with s = bound tanh(theta[0] / bound) and t = theta[1]; log dy/dx = s. For |theta[0]| well below `bound`
    s is theta[0]; it can never overflow.

    Args:
        bound: the largest |s|, in nats.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, equations 4-5.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> y, log_det = flows.transformers.Affine().direct(jnp.zeros((2, 3)), jnp.ones(3))
        >>> y.tolist(), log_det.tolist()
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    bound = positive(bound, "Affine: bound")

    def log_scale(theta: Array) -> Array:
        return bound * jnp.tanh(theta[0] / bound)

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        s = log_scale(theta)
        return x * jnp.exp(s) + theta[1], s

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        s = log_scale(theta)
        return (y - theta[1]) * jnp.exp(-s), -s

    return 2, direct, inverse


@transformer
def Inverse(of: Transformer):
    """The inverse of a transformer as a transformer: its direct is the other's inverse.

    Example:
        >>> import flows
        >>> flows.transformers.Inverse(flows.transformers.Affine())
        transformers.Inverse(transformers.Affine())
    """
    of = check_transformer(of, "Inverse")
    functions = of.num_params, of.inverse, of.direct
    return (*functions, of.init) if of.has_weights else functions
