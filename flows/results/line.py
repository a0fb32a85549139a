"""Distribution functions and quantiles of one column, where a model's own map gives them.

A bijection of the line is monotone: where it takes x to y and the base has the distribution function F, that of the model is
F(y), or 1 - F(y) where the map falls. Both tails are computed as such, as 1 - F has no digits where F is nearly 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit, ndtr, ndtri

from flows.bijections.composition import layers_of, support_of
from flows.core import Array, DistributionInit, FlowsError, bijection_part
from flows.core.caching import Memo
from flows.core.contract import Shape
from flows.core.numerics import soft_clip
from flows.core.support import inside
from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.distributions.location_scale import BOUND, Laplace, Logistic, regressed
from flows.distributions.mixture import Mixture
from flows.distributions.normal import Normal
from flows.distributions.standardized_context import StandardizedContext, standardized
from flows.distributions.uniform import Uniform

HALVINGS = 2_000  # at most, of the interval in which the quantile of a mixture lies: float64 has as many powers of 2
PROBES = (-2.0, -0.5, 0.5, 2.0)  # where it is looked at whether a map rises
COLUMN = (1,)  # the event of one column
_lines = Memo(size=64)


class Line(NamedTuple):
    """`tail(params, x, context, upper)` is P(X <= x), or P(X > x) where upper, of rows (n,), with a context of each or None.
    `point(params, u, context, upper)` is the x whose tail is u. The model lives within `support`."""

    tail: Callable[[Any, Array, Any, Array], Array]
    point: Callable[[Any, Array, Any, Array], Array]
    support: tuple[float, float] = (-np.inf, np.inf)


def line_of(init_fun: Any, context: Shape | None) -> Line | None:
    """Those of a model of one column, compiled; None where its own map does not give them."""

    def make() -> Line | None:
        line = _line(init_fun, context)
        return None if line is None else line._replace(tail=jax.jit(line.tail), point=jax.jit(line.point))

    return _lines((init_fun, context), make)


def _line(init_fun: Any, context: Shape | None) -> Line | None:
    if not isinstance(init_fun, DistributionInit):
        return None
    make = MAKERS.get(init_fun.constructor)
    if make is not None:
        return make(init_fun.arguments, context)
    return _line(init_fun.inner, context) if isinstance(init_fun.inner, DistributionInit) else None


def _flow(arguments: Any, context: Shape | None) -> Line | None:
    part = bijection_part(arguments["bijection"], COLUMN, context)
    base = _line(arguments["prior"], context)
    if base is None or part.output != COLUMN or part.noisy or not part.compiled:
        return None
    try:
        region, outputs, _ = support_of(layers_of(arguments["bijection"]), COLUMN, context)
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

    return Line(tail, point, (low, high))


def _standardized_context(arguments: Any, context: Shape | None) -> Line | None:
    line = _line(arguments["distribution"], context)
    if line is None:
        return None

    def seen(function: Callable) -> Callable:
        return lambda params, x, context, upper: function(
            params["distribution"], x, standardized(params["fixed"], context), upper
        )

    return Line(seen(line.tail), seen(line.point), line.support)


def _mixture(arguments: Any, context: Shape | None) -> Line | None:
    found = [_line(each, context) for each in arguments["components"]]
    lines = [line for line in found if line is not None]
    if len(lines) < len(found):
        return None
    copies = arguments["num_components"] is not None

    def of_each(which: str) -> Callable:
        def function(params: Any, *given: Any) -> Array:
            if copies:
                return jax.vmap(lambda own: getattr(lines[0], which)(own, *given))(params["components"])
            return jnp.stack([getattr(a, which)(own, *given) for a, own in zip(lines, params["components"], strict=True)])

        return function

    def weights(params: Any) -> Array:
        return jax.nn.softmax(params["logits"] if "logits" in params else params["fixed"]["logits"])

    lows, highs = zip(*[line.support for line in lines], strict=True)
    return _weighted(weights, of_each("tail"), of_each("point"), (min(lows), max(highs)))


def _gmm(arguments: Any, context: Shape | None) -> Line:
    def normals(params: Any) -> tuple[Array, Array]:
        own = params.get("fixed", params)
        log_scale = own["log_scale"] if "log_scale" in own else own["tril"][:, 0]
        return own["mean"], jnp.exp(log_scale)

    def tails(params: Any, x: Array, context: Any, upper: Array) -> Array:
        mean, scale = normals(params)
        return ndtr(jnp.where(upper, -1, 1)[None] * (x[None] - mean) / scale)

    def points(params: Any, u: Array, context: Any, upper: Array) -> Array:
        mean, scale = normals(params)
        return mean + scale * (jnp.where(upper, -1, 1) * ndtri(u))[None]

    return _weighted(lambda params: jax.nn.softmax(params.get("fixed", params)["logits"]), tails, points, (-np.inf, np.inf))


def _weighted(weights: Callable, tails: Callable, points: Callable, support: tuple[float, float]) -> Line:
    """Of a mixture: its quantile lies between those of its components, and is found by halving."""

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

    return Line(tail, point, support)


def _symmetric(tail: Callable, point: Callable) -> Callable:
    """A base around its location: P(X > x) is P(X <= -x) of the standard form."""

    def make(arguments: Any, context: Shape | None) -> Line | None:
        if arguments["conditioner"] is not None:
            return None

        wider = arguments.get("temperature", 1.0)

        def theta(params: Any, context: Any) -> tuple[Any, Any]:
            if not params:
                return 0.0, wider
            loc, scale = params["loc"], wider * jnp.exp(soft_clip(params["log_scale"], BOUND))
            return (loc + regressed(context, params["slope"])[:, 0] if "slope" in params else loc), scale

        def own_tail(params: Any, x: Array, context: Any, upper: Array) -> Array:
            loc, scale = theta(params, context)
            z = (x - loc) / scale
            return tail(jnp.where(upper, -z, z))

        def own_point(params: Any, u: Array, context: Any, upper: Array) -> Array:
            loc, scale = theta(params, context)
            z = point(u)
            return loc + scale * jnp.where(upper, -z, z)

        return Line(own_tail, own_point)

    return make


def _uniform(arguments: Any, context: Shape | None) -> Line:
    low, high = (float(np.ravel(arguments[name])[0]) for name in ("low", "high"))

    def tail(params: Any, x: Array, context: Any, upper: Array) -> Array:
        return jnp.clip(jnp.where(upper, high - x, x - low) / (high - low), 0, 1)

    def point(params: Any, u: Array, context: Any, upper: Array) -> Array:
        return jnp.where(upper, high - u * (high - low), low + u * (high - low))

    return Line(tail, point, (low, high))


def _laplace_tail(z: Array) -> Array:
    half = jnp.exp(-jnp.abs(z)) / 2
    return jnp.where(z > 0, 1 - half, half)


def _laplace_point(u: Array) -> Array:
    far = jnp.log(2 * jnp.minimum(u, 1 - u))
    return jnp.where(u > 0.5, -far, far)


MAKERS: dict[Any, Callable[[Any, Shape | None], Line | None]] = {
    Flow: _flow,
    StandardizedContext: _standardized_context,
    Mixture: _mixture,
    GMM: _gmm,
    Uniform: _uniform,
    Normal: _symmetric(ndtr, ndtri),
    Logistic: _symmetric(jax.nn.sigmoid, logit),
    Laplace: _symmetric(_laplace_tail, _laplace_point),
}
