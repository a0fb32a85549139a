"""Distribution functions and quantiles of flows and mixtures of one column.

A bijection of the line is monotone: if it maps x to y and the base has the distribution function F, the flow has the
distribution function F(y), or 1 - F(y) where the map falls. Each tail is computed directly: 1 - F has no digits for F near 1.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from flows.bijections.composition import layers_of, support_of
from flows.core import COLUMN, Array, BijectionPart, Cdf, DistributionPart, FlowsError, inside

STEPS = 4_000  # at most, to the quantile of a mixture: halving alone takes 2,000, as float64 has as many powers of 2
PROBE = 0.5  # images of this point and of its negative show whether a map rises


def flow_cdf(bijection: Any, part: BijectionPart, base_part: DistributionPart) -> Cdf | None:
    """Return the distribution function of a flow; None where the bijection or the base does not give it."""
    base = None if base_part.cdf is None else base_part.cdf()
    if base is None or part.output != COLUMN or part.draws or not part.compiled:
        return None
    try:
        region, outputs, _ = support_of(layers_of(bijection), COLUMN, part.context)
    except FlowsError:  # the support is unknown
        return None
    if outputs.low[0] > base.support[0] or outputs.high[0] < base.support[1]:
        return None  # no point is mapped to some of the base's mass
    low, high = (float(end[0]) for end in region)

    def direct(params: Any, x: Array, context: Any) -> Array:
        return part.direct(params["bijection"], x[:, None], context, None, False)[0][:, 0]

    def back(params: Any, y: Array, context: Any) -> Array:
        return part.inverse(params["bijection"], y[:, None], context, None, False)[:, 0]

    def falls(params: Any, rows: Array, context: Any) -> tuple:
        """Return for each row whether its map falls, by the order of two images or else by its slope, whether this is certain,
        and the base's `known`."""
        params, context = jax.lax.stop_gradient((params, context))
        n, dtype = len(rows), rows.dtype
        y = inside(outputs, jnp.repeat(jnp.array([-PROBE, PROBE], dtype), n)[:, None])[:, 0]
        low, high = jnp.split(back(params, y, None if context is None else jnp.concatenate([context] * 2)), 2)
        probe = inside(region, jnp.full((n, 1), PROBE, dtype))[:, 0]

        def by_slope(state: tuple) -> tuple:
            (slope,) = jax.vjp(lambda x: direct(params, x, context), probe)[1](jnp.ones_like(probe))
            return jnp.where(state[0] == 0, jnp.nan_to_num(jnp.sign(slope)), state[0]), True

        start = jnp.nan_to_num(jnp.sign(high - low)), False
        # A loop of at most one turn: vmapped over components, a branch would compute both sides.
        sign = jax.lax.while_loop(lambda state: (state[0] == 0).any() & ~state[1], by_slope, start)[0]
        return sign < 0, sign != 0, () if base.known is None else (base.known(params["prior"], rows, context),)

    def tail(params: Any, x: Array, context: Any, upper: Array, known: Any = None) -> Array:
        down, certain, base_known = falls(params, x, context) if known is None else known
        within = (x > low) & (x < high)
        y = direct(params, jnp.where(within, x, inside(region, jnp.zeros((1, 1), x.dtype))[0]), context)
        u = base.tail(params["prior"], y, context, upper ^ down, *base_known)
        u = jnp.where(within, u, jnp.where((x >= high) ^ upper, 1.0, 0.0))  # at its ends a map may be infinite, or NaN
        return jnp.where(certain & ~jnp.isnan(x), u, jnp.nan)

    def point(params: Any, u: Array, context: Any, upper: Array, known: Any = None) -> Array:
        down, certain, base_known = falls(params, u, context) if known is None else known
        y = base.point(params["prior"], u, context, upper ^ down, *base_known)
        x = back(params, y, context)
        # A numerical inverse gives NaN for infinity, the image of an end.
        x = jnp.where(jnp.isnan(x) & jnp.isinf(y), jnp.where((y > 0) ^ down, high, low), x)
        return jnp.where(certain, x, jnp.nan)

    return Cdf(tail, point, (low, high), falls)


def mixture_cdf(parts: Sequence[DistributionPart], copies: int | None) -> Cdf | None:
    """Return the distribution function of a mixture: of `copies` of one component, with stacked params, or of all parts."""
    known_cdfs = [None if part.cdf is None else part.cdf() for part in parts]
    cdfs = [cdf for cdf in known_cdfs if cdf is not None]
    if len(cdfs) < len(parts):
        return None

    def over(one: Callable, params: Any, *known: Any) -> Any:
        """Results of `one(cdf, params, *known)` for all components."""
        if copies is None:
            return [one(*args) for args in zip(cdfs, params["components"], *known, strict=True)]
        return jax.vmap(partial(one, cdfs[0]), axis_size=copies)(params["components"], *known)

    def together(which: str) -> Callable:
        def function(params: Any, x: Array, context: Any, upper: Array, known: Any) -> Array:
            def one(cdf: Cdf, component: Any, known: Any) -> Array:
                return getattr(cdf, which)(component, x, context, upper, *known)

            return jnp.asarray(over(one, params, known))

        return function

    def known(params: Any, rows: Array, context: Any) -> Any:
        return over(lambda cdf, component: () if cdf.known is None else (cdf.known(component, rows, context),), params)

    def weights(params: Any) -> Array:
        return jax.nn.softmax(params["logits"] if "logits" in params else params["fixed"]["logits"])

    lows, highs = zip(*[cdf.support for cdf in cdfs], strict=True)
    mixed = weighted(weights, together("tail"), together("point"), (min(lows), max(highs)), known)
    if not all(part.region is not None and part.region.discrete.all() for part in parts):
        return mixed
    # The root is where the function jumps, up to rounding.
    return mixed._replace(point=lambda *call: jnp.round(mixed.point(*call)))


def weighted(
    weights: Callable,
    tails: Callable,
    points: Callable,
    support: tuple[float, float] = (-np.inf, np.inf),
    known: Callable = lambda params, rows, context: (),
) -> Cdf:
    """Return the distribution function of a mixture, from `tails` and `points` of its components, (components, n). The
    quantile lies between the quantiles of the components, and is solved for by secants of its normal score and by halving.

    The secants: Anderson and Björck, "A new high order method of regula falsi type for computing a root of an equation", 1973:
    ten steps where halving takes fifty.
    """

    def tail(params: Any, x: Array, context: Any, upper: Array, facts: Any = None) -> Array:
        facts = known(params, x, context) if facts is None else facts
        return (weights(params)[:, None] * tails(params, x, context, upper, facts)).sum(0)

    def point(params: Any, u: Array, context: Any, upper: Array, facts: Any = None) -> Array:
        facts = known(params, u, context) if facts is None else facts
        quantiles, largest = points(params, u, context, upper, facts), jnp.finfo(u.dtype).max
        ends = quantiles.min(0), quantiles.max(0)
        goal, eps = ndtri(u), jnp.finfo(u.dtype).eps

        def excess(x: Array) -> Array:
            above = ndtri(tail(params, x, context, upper, facts)) - goal
            return jnp.where(upper, -above, above)  # it rises, through 0 at the quantile

        def middle(low: Array, high: Array) -> Array:
            return low / 2 + high / 2

        def is_open(low: Array, high: Array) -> Array:
            return (middle(low, high) > low) & (middle(low, high) < high)

        def narrow(state: Any) -> Any:
            low, high, at_low, at_high, last, count = state
            least = 2 * eps * jnp.maximum(jnp.abs(low), jnp.abs(high))  # a step from an end, which closes in from both sides
            x = jnp.clip(low + (high - low) * (at_low / (at_low - at_high)), low + least, high - least)
            x = jnp.where((x > low) & (x < high) & (count % 10 < 9), x, middle(low, high))
            f = excess(x)
            below, exact, moves = f < 0, jnp.abs(f) <= 4 * eps * (1 + jnp.abs(goal)), is_open(low, high)
            low, high = jnp.where(moves & (below | exact), x, low), jnp.where(moves & (~below | exact), x, high)
            # The value at an end that stays a second time is reduced, so that the next secant falls beyond the quantile.
            share = 1 - f / jnp.where(below, at_low, at_high)
            share = jnp.where(below == last, jnp.where(share > 0, share, 0.5), 1.0)
            at_low, at_high = jnp.where(below, f, share * at_low), jnp.where(below, share * at_high, f)
            return low, high, at_low, at_high, below, count + 1

        low, high = (jnp.clip(end, -largest, largest) for end in ends)
        low = jnp.where((u > 0) & (u < 1), low, high)
        start = low, high, -jnp.ones_like(u), jnp.ones_like(u), jnp.zeros(u.shape, bool), jnp.zeros((), int)
        high = jax.lax.while_loop(lambda state: is_open(*state[:2]).any() & (state[-1] < STEPS), narrow, start)[1]
        x = jnp.where(u > 0, high, jnp.where(upper, ends[1], ends[0]))
        x = jnp.where(u < 1, x, jnp.where(upper, ends[0], ends[1]))
        return jnp.where(jnp.isnan(quantiles).any(0), jnp.nan, x)

    return Cdf(tail, point, support, known)
