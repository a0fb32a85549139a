"""Columns that are normal one by one, by a monotone spline through quantiles measured from data. Family: Scales and norms."""

from collections.abc import Sequence
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from flows.bijections.arcsinh import touching
from flows.bijections.scaling import check_features, named
from flows.core import Array, FlowsError, bijection, positive_int
from flows.transformers.rational_quadratic import backward, forward

REACH = 2.4  # standard deviations of a normal, up to which quantiles are taken: 0.8% of it lies beyond, on each side
BEYOND = 2.5  # rows on each side, at least, beyond an outer quantile
LEAST_GAP = 0.01  # of the distance between the outer quantiles over the number of knots: the least gap of two knots


@bijection(support=touching)
def NormalScores(num_knots: int = 16, features: Sequence[int] | None = None):
    """Each feature made normal by itself, by a monotone spline through quantiles of data, which is not trained.

    The knots are (x_k, y_k), y_k equally spaced in [-2.4, 2.4], or in less where fewer than 2.5 rows would lie beyond, and x_k
    the quantile of the feature at the share Phi(y_k), Phi the standard normal's distribution function. Between two knots y is
    the rational-quadratic spline with slopes d0 and d1:
    with s = (y1 - y0) / (x1 - x0), xi = (x - x0) / (x1 - x0), c = 1 - xi, p = s c + d1 xi and q = s xi + d0 c,

        y         = y0 + (y1 - y0) xi q / (xi q + c p)
        log dy/dx = log(s^2 (xi p + c q) / (xi q + c p)^2)

    and log|det J| is the sum of these over the features. The slope at an inner knot is the harmonic mean of the slopes of
    both chords next to it; beyond the outer knots the map goes straight on, with the slope of the last chord or of the last
    quarter of the knots, whichever is less: rows beyond an edge of the data have a density too. Where values of a feature
    repeat, its knots are moved apart. Without `init_inputs` it is the identity. `flows.remeasure` does not measure it again.

    A flow behind it only models how columns depend on each other (a copula). This pays where they are skewed, bounded or
    heavy-tailed one by one, and costs where a bend of one column follows from others.

    Args:
        num_knots: quantiles of each feature, at least 2.
        features: numbers of the features; None for all.

    Params:
        fixed: scores: (num_knots,), the y_k; knots, slopes: (num_knots, features), of all features.

    Cost:
        Direct: O(num_knots d). Inverse: O(num_knots d).

    Errors:
        FlowsError: an event of several axes; features that do not exist; fewer than 2 knots.

    Source:
        The spline: Gregory and Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic Data", 1982, equation 6. The
        scores: van der Waerden, "Order Tests for the Two-Sample Problem and Their Power", 1952.

    Example:
        >>> import flows, jax
        >>> x = jax.numpy.exp(jax.random.normal(jax.random.key(0), (2000, 1)))
        >>> params, direct_fun, inverse_fun = flows.NormalScores()(0, 1, init_inputs=x)
        >>> outputs, log_det = direct_fun(params, x)
        >>> abs(float(outputs.mean())) < 0.05, abs(float(outputs.std()) - 1) < 0.05
        (True, True)
    """
    if positive_int(num_knots, "NormalScores: num_knots", most=1_000) < 2:
        raise FlowsError(f"NormalScores: num_knots is {num_knots}; expected 2 or more")
    checked = () if features is None else check_features(features, "NormalScores", "features")

    def chosen(count: int) -> np.ndarray:
        return np.full(count, True) if features is None else named(checked, count, "NormalScores", "features")

    def init_fun(rng, shape, init_inputs=None):
        if len(shape) != 1:
            raise FlowsError(f"NormalScores: the event is {shape}; expected a vector")
        which = chosen(*shape)
        share = 1 - ndtr(REACH) if init_inputs is None else max(1 - ndtr(REACH), min(BEYOND / init_inputs.shape[0], 0.25))
        scores = np.linspace(ndtri(share), -ndtri(share), num_knots)
        knots = jnp.broadcast_to(jnp.asarray(scores, float)[:, None], (num_knots, *shape))
        slopes = jnp.ones((num_knots, *shape))
        if init_inputs is not None:
            knots = jnp.where(which[None], _quantiles(init_inputs, scores), knots)
            slopes = jnp.where(which[None], _slopes(knots, scores), slopes)
        fixed = {"scores": jnp.asarray(scores, float), "knots": knots, "slopes": slopes}
        return {"fixed": fixed}, direct_fun, inverse_fun

    def bin_of(fixed: dict[str, Array], value: Array, ends: Array) -> tuple[Array, ...]:
        """Both ends, x0, x1, y0, y1, and slopes of the bin that holds a value, or of the nearest bin; `ends` (num_knots, d) are
        the knots on the axis of the values."""
        y = jnp.broadcast_to(fixed["scores"][:, None], ends.shape)
        axes = fixed["knots"], y, fixed["slopes"]
        at = [knots[i] for knots in axes for i in (0, 1)]
        for k in range(1, num_knots - 1):  # selects, as XLA is slow to gather
            past = value >= ends[k]
            at = [jnp.where(past, knots[k + i], old) for old, (knots, i) in zip(at, product(axes, (0, 1)), strict=True)]
        return tuple(at)

    def direct_fun(params, x):
        fixed, which = params["fixed"], chosen(len(x))
        low, high = fixed["knots"][0], fixed["knots"][-1]
        within = jnp.clip(jnp.where(which, x, low), low, high)
        y, log_slope = forward(within, *bin_of(fixed, within, fixed["knots"]))
        slope = jnp.where(x < low, fixed["slopes"][0], fixed["slopes"][-1])
        beyond = (x < low) | (x > high)
        y = jnp.where(
            beyond, jnp.where(x < low, fixed["scores"][0], fixed["scores"][-1]) + slope * (x - jnp.where(x < low, low, high)), y
        )
        log_slope = jnp.where(beyond, jnp.log(slope), log_slope)
        return jnp.where(which, y, x), jnp.where(which, log_slope, 0.0).sum()

    def inverse_fun(params, y):
        fixed, which = params["fixed"], chosen(len(y))
        low, high = fixed["knots"][0], fixed["knots"][-1]
        least, most = fixed["scores"][0], fixed["scores"][-1]
        within = jnp.clip(jnp.where(which, y, 0.0), least, most)
        x = backward(within, *bin_of(fixed, within, jnp.broadcast_to(fixed["scores"][:, None], fixed["knots"].shape)))
        x = jnp.where(y < least, low + (y - least) / fixed["slopes"][0], x)
        x = jnp.where(y > most, high + (y - most) / fixed["slopes"][-1], x)
        return jnp.where(which, x, y)

    return init_fun


def _quantiles(x: Array, scores: np.ndarray) -> Array:
    """The quantiles of each column at the shares of these scores, (num_knots, d), apart from each other."""
    quantiles = jnp.quantile(x, jnp.asarray(ndtr(scores), x.dtype), axis=0)
    spread = quantiles[-1] - quantiles[0]
    gap = jnp.where(spread > 0, spread, 1.0) * (LEAST_GAP / len(scores))
    steps = jnp.arange(len(scores), dtype=x.dtype)[:, None] * gap[None]
    return jax.lax.cummax(quantiles - steps, axis=0) + steps


def _slopes(knots: Array, scores: np.ndarray) -> Array:
    """Slopes at the knots: inside the harmonic mean of the slopes of both chords; at an outer knot the slope of its chord, or
    of the chord of a quarter of the knots, if it is less."""
    chords = (scores[1] - scores[0]) / jnp.diff(knots, axis=0)
    inner = 2 / (1 / chords[1:] + 1 / chords[:-1])
    few = max(len(scores) // 4, 1)
    wide = (scores[few] - scores[0]) / jnp.stack([knots[few] - knots[0], knots[-1] - knots[-1 - few]])
    return jnp.concatenate([jnp.minimum(chords[:1], wide[:1]), inner, jnp.minimum(chords[-1:], wide[1:])])
