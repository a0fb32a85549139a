"""Maps of the unit interval and of boxes: distribution functions, their inverses, and the map of a box to the whole line.
Family: Bounds and scalar maps."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from flows.bijections.elementwise import scalar_map
from flows.core import (
    LOG_2PI,
    REAL,
    UNIT,
    Array,
    FlowsError,
    Numbers,
    Support,
    bijection,
    check_fits,
    finite,
    next_float,
    positive,
)

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


def _ends(low: Numbers, high: Numbers) -> tuple[np.ndarray, np.ndarray]:
    ends = []
    for name, end in (("low", low), ("high", high)):
        try:
            ends.append(np.asarray(end, float))
        except (TypeError, ValueError):
            raise FlowsError(f"Unconstrain: {name} is {end!r:.80}; expected numbers, infinite where there is no end") from None
    if any(np.asarray(end).dtype == bool for end in (low, high)):
        raise FlowsError(f"Unconstrain: low is {low!r:.60} and high is {high!r:.60}; expected numbers, not True or False")
    if any(np.isnan(end).any() for end in ends):
        raise FlowsError(f"Unconstrain: low is {low!r:.60} and high is {high!r:.60}; expected no NaN: an open side is infinite")
    try:
        a, b = np.broadcast_arrays(*ends)
    except ValueError:
        raise FlowsError(
            f"Unconstrain: low has shape {ends[0].shape} and high {ends[1].shape}; expected the same, or a number"
        ) from None
    with np.errstate(over="ignore"):
        if not (a.astype(np.float32) < b.astype(np.float32)).all() or np.isposinf(a).any() or np.isneginf(b).any():
            raise FlowsError(f"Unconstrain: low is {low!r:.60} and high is {high!r:.60}; expected low < high, also in float32")
    return a, b


def _support(low: Numbers, high: Numbers) -> Support:
    ends = _ends(low, high)
    open_sides = np.isinf(ends[0]) & np.isinf(ends[1])
    leaves = tuple(np.flatnonzero(open_sides).tolist()) if open_sides.ndim == 1 else ()
    return Support(ends, REAL, entrywise=True, leaves=leaves)


@bijection(support=_support)
def Unconstrain(low: Numbers = -np.inf, high: Numbers = np.inf):
    """The inside of a box to the whole line, by an increasing map of each entry.

    y = log(x - low) where there is a low end alone, -log(high - x) where there is a high end alone, log((x - low) / (high - x))
    where there are both, and x where there is none; log|det J| = the sum of -y, y, log((high - low) / ((x - low) (high - x)))
    and 0. The inverse returns points inside, whatever the rounding.

    Args:
        low, high: numbers, or arrays of the shape of the event or of its last axis; -inf and inf where a side is open.

    Params:
        None.

    Support:
        Inputs: (low, high); the ends are mapped to -inf and inf, and values outside to NaN. Outputs: the real line.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: ends that are not in order, also in float32, or NaN, or whose shape does not fit.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Unconstrain(low=(0.0, -1.0), high=(jnp.inf, 1.0))(0, 2)
        >>> direct_fun(params, jnp.array([[1.0, 0.0]]))[0].tolist()
        [[0.0, 0.0]]
    """
    a, b = _ends(low, high)

    def init_fun(rng, shape):
        for end, name in ((a, "low"), (b, "high")):
            if end.ndim:
                check_fits(end, shape, f"Unconstrain: {name}")
        from_low, to_high = (np.broadcast_to(np.isfinite(end), shape) for end in (a, b))
        both = from_low & to_high

        def ends(dtype) -> tuple[Array, Array]:
            """The ends, and 0 in place of an end at infinity."""
            left, right = (np.broadcast_to(np.where(np.isfinite(end), end, 0.0), shape) for end in (a, b))
            return jnp.asarray(left, dtype), jnp.asarray(right, dtype)

        def direct_fun(params, x):
            left, right = ends(x.dtype)
            # Logarithms of 1 where a side is open: the branch that is not taken has a gradient, too.
            log_left = jnp.log(jnp.where(from_low, x - left, 1.0))
            log_right = jnp.log(jnp.where(to_high, right - x, 1.0))
            y = log_left - log_right + jnp.where(from_low | to_high, 0.0, x)
            slope = -log_left - log_right + jnp.where(both, jnp.log(jnp.where(both, right - left, 1.0)), 0.0)
            return y, slope.sum()

        def inverse_fun(params, y):
            left, right = ends(y.dtype)
            within = jnp.where(both, (right - left) * jax.nn.sigmoid(y), 0.0)
            x = jnp.where(
                both, left + within, jnp.where(from_low, left + jnp.exp(y), jnp.where(to_high, right - jnp.exp(-y), y))
            )
            least = jnp.where(from_low, next_float(left, 1.0), -jnp.inf)
            most = jnp.where(to_high, next_float(right, -1.0), jnp.inf)
            return jnp.clip(x, least, most)

        return {}, direct_fun, inverse_fun

    return init_fun
