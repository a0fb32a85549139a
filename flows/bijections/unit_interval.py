"""Maps between the real line and the unit interval, entry by entry: distribution functions and their inverses.
Family: Bounds and scalar maps."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from flows.bijections.scalar_maps import scalar_map
from flows.core import LOG_2PI, REAL, UNIT, Array, Support, bijection, finite, positive

EDGE = 1e-5


@bijection(support=Support(REAL, UNIT, entrywise=True))
def Sigmoid(clip_before_logit: bool = True):
    """The real line to the unit interval: y = 1 / (1 + e^-x), log|det J| = -sum(softplus(x) + softplus(-x)).

    Args:
        clip_before_logit: clip the inputs of the inverse to [1e-5, 1 - 1e-5], so that values rounded to 0 or 1 come back
            finite. Otherwise they come back as -inf and inf, and values outside [0, 1] as NaN.

    Params:
        None.

    Support:
        Inputs: the real line. Outputs: (0, 1).

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: clip_before_logit is not True or False.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Sigmoid()(0, 1)
        >>> direct_fun(params, jnp.zeros((1, 1)))[0].tolist()
        [[0.5]]
    """
    return scalar_map(jax.nn.sigmoid, sigmoid_log_slope, lambda y: logit(y, clip_before_logit))


@bijection(support=Support(UNIT, REAL, entrywise=True))
def Logit(clip_before_logit: bool = True):
    """The unit interval to the real line: y = log(x / (1 - x)), log|det J| = sum(softplus(y) + softplus(-y)).

    Args:
        clip_before_logit: clip inputs to [1e-5, 1 - 1e-5], so that 0 and 1 have finite images. Otherwise these are -inf and
            inf, and inputs outside [0, 1] give NaN.

    Params:
        None.

    Support:
        Inputs: (0, 1). Outputs: the real line.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: clip_before_logit is not True or False.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Logit()(0, 1)
        >>> direct_fun(params, jnp.array([[0.5]]))[0].tolist()
        [[0.0]]
    """

    def direct(x: Array) -> Array:
        return logit(x, clip_before_logit)

    return scalar_map(direct, lambda x: -sigmoid_log_slope(direct(x)), jax.nn.sigmoid)


@bijection(support=Support(REAL, UNIT, entrywise=True))
def NormalCDF(loc: float = 0.0, scale: float = 1.0):
    """The distribution function of a normal, from the real line to the unit interval.

    y = Phi(z) with z = (x - loc) / scale, log|det J| = -sum(z^2 + log(2 pi)) / 2 - d log(scale). It makes draws of
    N(loc, scale^2) uniform. In float32 y rounds to 1 above z = 5.4, with inverse inf, and to 0 below z = -12.9.

    Args:
        loc, scale: numbers, the same for every feature.

    Params:
        None.

    Support:
        Inputs: the real line. Outputs: (0, 1); the ends come back as -inf and inf, and numbers outside as NaN.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: loc is not finite, or scale is not above 0.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.NormalCDF(loc=1.0, scale=2.0)(0, 1)
        >>> direct_fun(params, jnp.array([[1.0], [3.0]]))[0].round(4).tolist()
        [[0.5], [0.841...]]
    """
    return distribution_function("NormalCDF", ndtr, lambda z: -0.5 * (jnp.square(z) + LOG_2PI), ndtri, loc, scale)


@bijection(support=Support(REAL, UNIT, entrywise=True))
def LogisticCDF(loc: float = 0.0, scale: float = 1.0):
    """The distribution function of a logistic, from the real line to the unit interval.

    y = 1 / (1 + e^-z) with z = (x - loc) / scale, log|det J| = -sum(softplus(z) + softplus(-z)) - d log(scale). `Sigmoid` is
    the standard one, whose inverse clips by default; this inverse never clips.

    Args:
        loc, scale: numbers, the same for every feature.

    Params:
        None.

    Support:
        Inputs: the real line. Outputs: (0, 1); the ends come back as -inf and inf, and numbers outside as NaN.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: loc is not finite, or scale is not above 0.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.LogisticCDF(loc=1.0, scale=2.0)(0, 1)
        >>> inverse_fun(params, jnp.array([[0.5], [1.0], [1.5]]))[0].tolist()
        [[1.0], [inf], [nan]]
    """
    quantile = partial(logit, clip=False)
    return distribution_function("LogisticCDF", jax.nn.sigmoid, sigmoid_log_slope, quantile, loc, scale)


def distribution_function(name, cdf, log_density, quantile, loc, scale):
    """The init_fun of y = cdf((x - loc) / scale)."""
    scale = positive(scale, f"{name}: scale")
    loc = finite(loc, f"{name}: loc")

    def standard(x: Array) -> Array:
        return (x - loc) / scale

    def log_slope(x: Array) -> Array:
        return log_density(standard(x)) - math.log(scale)

    return scalar_map(lambda x: cdf(standard(x)), log_slope, lambda y: loc + scale * quantile(y))


def logit(x: Array, clip: bool) -> Array:
    x = jnp.clip(x, EDGE, 1 - EDGE) if clip else x
    return jnp.log(x) - jnp.log1p(-x)


def sigmoid_log_slope(x: Array) -> Array:
    """log of the sigmoid's derivative, elementwise; finite wherever x is."""
    return -jax.nn.softplus(x) - jax.nn.softplus(-x)
