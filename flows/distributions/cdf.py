"""Distribution functions and quantiles of one column, of compositions: by their own map, or by the weights of components.

A bijection of the line is monotone: where it takes x to y and the base has the distribution function F, that of the model is
F(y), or 1 - F(y) where the map falls. Both tails are computed as such, as 1 - F has no digits where F is nearly 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.composition import layers_of, support_of
from flows.core import COLUMN, Array, BijectionPart, Cdf, DistributionPart, FlowsError, inside

HALVINGS = 2_000  # at most, of the interval in which the quantile of a mixture lies: float64 has as many powers of 2
PROBES = (-2.0, -0.5, 0.5, 2.0)  # where it is looked at whether a map rises


def of_flow(bijection: Any, part: BijectionPart, of_base: DistributionPart) -> Cdf | None:
    """That of points whose images under the bijection follow the base; None where the map does not give it."""
    base = None if of_base.cdf is None else of_base.cdf()
    if base is None or part.output != COLUMN or part.noisy or not part.compiled:
        return None
    try:
        region, outputs, _ = support_of(layers_of(bijection), COLUMN, part.context)
    except FlowsError:  # it cannot be told
        return None
    if outputs.low[0] > base.support[0] or outputs.high[0] < base.support[1]:
        return None  # some of the base's mass comes from nowhere
    low, high = (float(end[0]) for end in region)

    def direct(params: Any, x: Array, context: Any) -> Array:
        return part.direct(params["bijection"], x[:, None], context, None, False)[0][:, 0]

    def back(params: Any, y: Array, context: Any) -> Array:
        return part.inverse(params["bijection"], y[:, None], context, None, False)[:, 0]

    def falls(params: Any, n: int, context: Any, dtype: Any) -> tuple[Array, Array]:
        """Of each row whether its map falls, by the sign of its slope at a few points, and whether that could be told."""
        middle = base.point(params["prior"], jnp.full(n, 0.5, dtype), context, jnp.zeros(n, bool))
        probes = [inside(region, jnp.full((n, 1), probe, dtype))[:, 0] for probe in PROBES]
        x = jnp.concatenate([back(params, middle, context), *probes])  # one program of the map, not one for each
        if context is not None:
            context = jnp.concatenate([context] * (1 + len(PROBES)))
        slope = jax.vjp(lambda x: direct(params, x, context), x)[1](jnp.ones_like(x))[0]
        signs = jnp.nan_to_num(jnp.sign(slope)).reshape(-1, n).sum(0)
        return signs < 0, signs != 0

    def tail(params: Any, x: Array, context: Any, upper: Array) -> Array:
        down, known = falls(params, x.shape[0], context, x.dtype)
        within = (x > low) & (x < high)
        y = direct(params, jnp.where(within, x, inside(region, jnp.zeros((1, 1), x.dtype))[0]), context)
        u = base.tail(params["prior"], y, context, upper ^ down)
        u = jnp.where(within, u, jnp.where((x >= high) ^ upper, 1.0, 0.0))  # at its ends a map may be infinite, or NaN
        return jnp.where(known & ~jnp.isnan(x), u, jnp.nan)

    def point(params: Any, u: Array, context: Any, upper: Array) -> Array:
        down, known = falls(params, u.shape[0], context, u.dtype)
        y = base.point(params["prior"], u, context, upper ^ down)
        x = back(params, y, context)
        # An inverse that is found by steps finds none of infinity, which comes from an end.
        x = jnp.where(jnp.isnan(x) & jnp.isinf(y), jnp.where((y > 0) ^ down, high, low), x)
        return jnp.where(known, x, jnp.nan)

    return Cdf(tail, point, (low, high))


def of_mixture(parts: Sequence[DistributionPart], copies: int | None) -> Cdf | None:
    """That of weighted components: `copies` of one, whose params are stacked, or each with params of its own."""
    made = [None if part.cdf is None else part.cdf() for part in parts]
    cdfs = [each for each in made if each is not None]
    if len(cdfs) < len(made):
        return None

    def of_each(which: str) -> Callable:
        def function(params: Any, *given: Any) -> Array:
            if copies is not None:
                return jax.vmap(lambda own: getattr(cdfs[0], which)(own, *given), axis_size=copies)(params["components"])
            return jnp.stack([getattr(a, which)(own, *given) for a, own in zip(cdfs, params["components"], strict=True)])

        return function

    def weights(params: Any) -> Array:
        return jax.nn.softmax(params["logits"] if "logits" in params else params["fixed"]["logits"])

    lows, highs = zip(*[each.support for each in cdfs], strict=True)
    return weighted(weights, of_each("tail"), of_each("point"), (min(lows), max(highs)))


def weighted(weights: Callable, tails: Callable, points: Callable, support: tuple[float, float] = (-np.inf, np.inf)) -> Cdf:
    """Of components, of which `tails` and `points` are made together, an axis of them in front: the quantile of a mixture lies
    between theirs, and is found by halving."""

    def tail(params: Any, x: Array, context: Any, upper: Array) -> Array:
        return (weights(params)[:, None] * tails(params, x, context, upper)).sum(0)

    def point(params: Any, u: Array, context: Any, upper: Array) -> Array:
        each, largest = points(params, u, context, upper), jnp.finfo(u.dtype).max
        ends = each.min(0), each.max(0)

        def open_between(state: tuple[Array, ...]) -> Array:
            low, high, count = state
            middle = low / 2 + high / 2
            return ((middle > low) & (middle < high)).any() & (count < HALVINGS)

        def halve(state: tuple[Array, ...]) -> tuple[Array, ...]:
            low, high, count = state
            middle = low / 2 + high / 2
            own = tail(params, middle, context, upper)
            below = jnp.where(upper, own > u, own < u)
            return jnp.where(below, middle, low), jnp.where(below, high, middle), count + 1

        start = (*(jnp.clip(end, -largest, largest) for end in ends), jnp.zeros((), int))
        _, high, _ = jax.lax.while_loop(open_between, halve, start)
        x = jnp.where(u > 0, high, jnp.where(upper, ends[1], ends[0]))
        x = jnp.where(u < 1, x, jnp.where(upper, ends[0], ends[1]))
        return jnp.where(jnp.isnan(each).any(0), jnp.nan, x)

    return Cdf(tail, point, support)
