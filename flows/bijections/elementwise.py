"""Sigmoid and logit."""

import jax
import jax.numpy as jnp

from flows.core import Array, bijection

EDGE = 1e-5


@bijection
def Sigmoid(clip_before_logit: bool = True):
    """The real line to the unit interval: y = 1 / (1 + e^-x), log|det J| = -sum(softplus(x) + softplus(-x)).

    Args:
        clip_before_logit: clip the inputs of the inverse to [1e-5, 1 - 1e-5], so that values rounded to 0 or 1 come back
            finite. Otherwise they come back as -inf and inf.

    Params:
        None.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Sigmoid()(0, 1)
        >>> direct_fun(params, jnp.zeros((1, 1)))[0].tolist()
        [[0.5]]
    """

    def init_fun(rng, shape):
        return {}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return jax.nn.sigmoid(x), sigmoid_log_det(x).sum()

    def inverse_fun(params, y):
        return logit(y, clip_before_logit)

    return init_fun


@bijection
def Logit(clip_before_logit: bool = True):
    """The unit interval to the real line: y = log(x / (1 - x)), log|det J| = sum(softplus(y) + softplus(-y)).

    Args:
        clip_before_logit: clip inputs to [1e-5, 1 - 1e-5], so that 0 and 1 have finite images. Otherwise these are -inf, inf.

    Params:
        None.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Logit()(0, 1)
        >>> direct_fun(params, jnp.array([[0.5]]))[0].tolist()
        [[0.0]]
    """

    def init_fun(rng, shape):
        return {}, direct_fun, inverse_fun

    def direct_fun(params, x):
        y = logit(x, clip_before_logit)
        return y, -sigmoid_log_det(y).sum()

    def inverse_fun(params, y):
        return jax.nn.sigmoid(y)

    return init_fun


def logit(x: Array, clip: bool) -> Array:
    x = jnp.clip(x, EDGE, 1 - EDGE) if clip else x
    return jnp.log(x) - jnp.log1p(-x)


def sigmoid_log_det(x: Array) -> Array:
    """log of the sigmoid's derivative, elementwise; finite wherever x is."""
    return -jax.nn.softplus(x) - jax.nn.softplus(-x)
