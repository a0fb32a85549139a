"""Distribution functions and quantiles of one column, of compositions: by their own map, or by the weights of components.

A bijection of the line is monotone: where it takes x to y and the base has the distribution function F, that of the model is
F(y), or 1 - F(y) where the map falls. Both tails are computed as such, as 1 - F has no digits where F is nearly 1.
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
PROBE = 0.5  # where, and less it, it is looked at whether a map rises


def of_flow(bijection: Any, part: BijectionPart, base_part: DistributionPart) -> Cdf | None:
    """Return the function of points whose images under the bijection follow the base; None where the map does not give it."""
    base = None if base_part.cdf is None else base_part.cdf()
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

    def falls(params: Any, rows: Array, context: Any) -> tuple:
        """Tell for each row whether its map falls, by the order of two images or else by its slope, and whether that was told;
        and what the base knows."""
        params, context = jax.lax.stop_gradient((params, context))
        n, dtype = len(rows), rows.dtype
        y = inside(outputs, jnp.repeat(jnp.array([-PROBE, PROBE], dtype), n)[:, None])[:, 0]
        low, high = jnp.split(back(params, y, None if context is None else jnp.concatenate([context] * 2)), 2)
        probe = inside(region, jnp.full((n, 1), PROBE, dtype))[:, 0]

        def by_slope(state: tuple) -> tuple:
            (slope,) = jax.vjp(lambda x: direct(params, x, context), probe)[1](jnp.ones_like(probe))
            return jnp.where(state[0] == 0, jnp.nan_to_num(jnp.sign(slope)), state[0]), True

        start = jnp.nan_to_num(jnp.sign(high - low)), False
        # A loop of at most one turn: of several components, a branch would take both ways.
        sign = jax.lax.while_loop(lambda state: (state[0] == 0).any() & ~state[1], by_slope, start)[0]
        return sign < 0, sign != 0, () if base.known is None else (base.known(params["prior"], rows, context),)

    def tail(params: Any, x: Array, context: Any, upper: Array, told: Any = None) -> Array:
        down, known, base_known = falls(params, x, context) if told is None else told
        within = (x > low) & (x < high)
        y = direct(params, jnp.where(within, x, inside(region, jnp.zeros((1, 1), x.dtype))[0]), context)
        u = base.tail(params["prior"], y, context, upper ^ down, *base_known)
        u = jnp.where(within, u, jnp.where((x >= high) ^ upper, 1.0, 0.0))  # at its ends a map may be infinite, or NaN
        return jnp.where(known & ~jnp.isnan(x), u, jnp.nan)

    def point(params: Any, u: Array, context: Any, upper: Array, told: Any = None) -> Array:
        down, known, base_known = falls(params, u, context) if told is None else told
        y = base.point(params["prior"], u, context, upper ^ down, *base_known)
        x = back(params, y, context)
        # An inverse that is found by steps finds none of infinity, which comes from an end.
        x = jnp.where(jnp.isnan(x) & jnp.isinf(y), jnp.where((y > 0) ^ down, high, low), x)
        return jnp.where(known, x, jnp.nan)

    return Cdf(tail, point, (low, high), falls)


def of_mixture(parts: Sequence[DistributionPart], copies: int | None) -> Cdf | None:
    """Return the function of weighted components: `copies` of one, whose params are stacked, or each with its own params."""
    made = [None if part.cdf is None else part.cdf() for part in parts]
    cdfs = [each for each in made if each is not None]
    if len(cdfs) < len(made):
        return None

    def over(one: Callable, params: Any, *known: Any) -> Any:
        """A function of the cdf of a component, its params and what it knows, for all components."""
        if copies is None:
            return [one(*each) for each in zip(cdfs, params["components"], *known, strict=True)]
        return jax.vmap(partial(one, cdfs[0]), axis_size=copies)(params["components"], *known)

    def of_each(which: str) -> Callable:
        def function(params: Any, x: Array, context: Any, upper: Array, known: Any) -> Array:
            def one(cdf: Cdf, own: Any, told: Any) -> Array:
                return getattr(cdf, which)(own, x, context, upper, *told)

            return jnp.asarray(over(one, params, known))

        return function

    def known(params: Any, rows: Array, context: Any) -> Any:
        return over(lambda cdf, own: () if cdf.known is None else (cdf.known(own, rows, context),), params)

    def weights(params: Any) -> Array:
        return jax.nn.softmax(params["logits"] if "logits" in params else params["fixed"]["logits"])

    lows, highs = zip(*[each.support for each in cdfs], strict=True)
    return weighted(weights, of_each("tail"), of_each("point"), (min(lows), max(highs)), known)


def weighted(
    weights: Callable,
    tails: Callable,
    points: Callable,
    support: tuple[float, float] = (-np.inf, np.inf),
    known: Callable = lambda params, rows, context: (),
) -> Cdf:
    """Mix components, whose `tails` and `points` are made together, with an axis of components in front: the quantile of a
    mixture lies between theirs, and is found by secants of its normal score and by halving.

    The secants are those of Anderson and Björck, "A new high order method of regula falsi type for computing a root of an
    equation", 1973: ten steps where halving takes fifty.
    """

    def tail(params: Any, x: Array, context: Any, upper: Array, told: Any = None) -> Array:
        told = known(params, x, context) if told is None else told
        return (weights(params)[:, None] * tails(params, x, context, upper, told)).sum(0)

    def point(params: Any, u: Array, context: Any, upper: Array, told: Any = None) -> Array:
        told = known(params, u, context) if told is None else told
        each, largest = points(params, u, context, upper, told), jnp.finfo(u.dtype).max
        ends = each.min(0), each.max(0)
        goal, eps = ndtri(u), jnp.finfo(u.dtype).eps

        def excess(x: Array) -> Array:
            above = ndtri(tail(params, x, context, upper, told)) - goal
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
            # Of an end that stays a second time counts less, so that the next secant falls beyond the quantile.
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
        return jnp.where(jnp.isnan(each).any(0), jnp.nan, x)

    return Cdf(tail, point, support, known)
