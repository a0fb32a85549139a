"""Distribution functions and quantiles of one column, where a model's own map gives them.

A bijection of the line is monotone: where it takes x to y and the base has the distribution function F, that of the model is
F(y), or 1 - F(y) where the map falls.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import laplace, logistic

from flows.bijections.supports import bounded_region
from flows.core import Array, DistributionInit, bijection_part
from flows.core.caching import Memo
from flows.core.contract import Shape
from flows.core.numerics import soft_clip
from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.distributions.location_scale import BOUND, Laplace, Logistic
from flows.distributions.mixture import Mixture
from flows.distributions.normal import Normal
from flows.distributions.standardized_context import StandardizedContext, standardized
from flows.distributions.uniform import Uniform

HALVINGS = 60  # of the interval in which the quantile of a mixture lies: all digits of float32, and nearly those of float64
COLUMN = (1,)  # the event of one column
_lines = Memo(size=64)


class Line(NamedTuple):
    """`cdf(params, x, context)` and `quantile(params, u, context)` of rows (n,), with a context of each or None."""

    cdf: Callable[[Any, Array, Any], Array]
    quantile: Callable[[Any, Array, Any], Array]


def line_of(init_fun: Any, context: Shape | None) -> Line | None:
    """Those of a model of one column, compiled; None where its own map does not give them."""

    def make() -> Line | None:
        line = _line(init_fun, context)
        return None if line is None else Line(jax.jit(line.cdf), jax.jit(line.quantile))

    return _lines((init_fun, context), make)


def _line(init_fun: Any, context: Shape | None) -> Line | None:
    if not isinstance(init_fun, DistributionInit):
        return None
    make = MAKERS.get(init_fun.constructor)
    if make is not None:
        return make(init_fun.arguments, context)
    return _line(init_fun.inner, context) if isinstance(init_fun.inner, DistributionInit) else None


def _flow(arguments: Any, context: Shape | None) -> Line | None:
    part, region = (
        bijection_part(arguments["bijection"], COLUMN, context),
        bounded_region(arguments["bijection"], COLUMN, context),
    )
    base = _line(Normal() if arguments["prior"] is None else arguments["prior"], context)
    if base is None or part.output != COLUMN or "rng" in part.keywords or not part.compiled:
        return None

    def back(params: Any, y: Array, context: Any) -> Array:
        return part.inverse(params["bijection"], y[:, None], context, None, False)[:, 0]

    def rises(params: Any, n: int, context: Any, dtype: Any) -> Array:
        """Of each row, whether its map rises."""
        low, high = (base.quantile(params["prior"], jnp.full(n, share, dtype), context) for share in (0.25, 0.75))
        return back(params, high, context) > back(params, low, context)

    def cdf(params: Any, x: Array, context: Any) -> Array:
        within = x if region is None else jnp.clip(x, region[0][0], region[1][0])
        y = part.direct(params["bijection"], within[:, None], context, None, False)[0][:, 0]
        u = base.cdf(params["prior"], y, context)
        u = jnp.where(rises(params, len(x), context, x.dtype), u, 1 - u)
        if region is not None:  # at its ends maps may be infinite, or NaN
            u = jnp.where(x <= region[0][0], 0.0, jnp.where(x >= region[1][0], 1.0, u))
        return u

    def quantile(params: Any, u: Array, context: Any) -> Array:
        u = jnp.where(rises(params, len(u), context, u.dtype), u, 1 - u)
        return back(params, base.quantile(params["prior"], u, context), context)

    return Line(cdf, quantile)


def _standardized_context(arguments: Any, context: Shape | None) -> Line | None:
    line = _line(arguments["distribution"], context)
    if line is None:
        return None

    def seen(function: Callable) -> Callable:
        return lambda params, x, context: function(params["distribution"], x, standardized(params["fixed"], context))

    return Line(*map(seen, line))


def _mixture(arguments: Any, context: Shape | None) -> Line | None:
    lines = [_line(each, context) for each in arguments["components"]]
    if any(line is None for line in lines):
        return None
    copies = arguments["num_components"] is not None

    def each(which: str, params: Any, x: Array, context: Any) -> Array:
        if copies:
            return jax.vmap(lambda own: getattr(lines[0], which)(own, x, context))(params["components"])
        return jnp.stack([getattr(line, which)(own, x, context) for line, own in zip(lines, params["components"], strict=True)])

    def weights(params: Any) -> Array:
        return jax.nn.softmax(params["logits"] if "logits" in params else params["fixed"]["logits"])

    return _weighted(weights, lambda *given: each("cdf", *given), lambda *given: each("quantile", *given))


def _gmm(arguments: Any, context: Shape | None) -> Line:
    def normals(params: Any) -> tuple[Array, Array]:
        own = params.get("fixed", params)
        log_scale = own["log_scale"] if "log_scale" in own else own["tril"][:, 0]
        return own["mean"], jnp.exp(log_scale)

    def cdfs(params: Any, x: Array, context: Any) -> Array:
        mean, scale = normals(params)
        return ndtr((x[None] - mean) / scale)

    def quantiles(params: Any, u: Array, context: Any) -> Array:
        mean, scale = normals(params)
        return mean + scale * ndtri(u)[None]

    return _weighted(lambda params: jax.nn.softmax(params.get("fixed", params)["logits"]), cdfs, quantiles)


def _weighted(weights: Callable, cdfs: Callable, quantiles: Callable) -> Line:
    """Of a mixture: its quantile lies between those of its components, and is found by halving."""

    def cdf(params: Any, x: Array, context: Any) -> Array:
        return (weights(params)[:, None] * cdfs(params, x, context)).sum(0)

    def quantile(params: Any, u: Array, context: Any) -> Array:
        each = quantiles(params, u, context)

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = ends[0] / 2 + ends[1] / 2
            below = cdf(params, middle, context) < u
            return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

        low, high = jax.lax.fori_loop(0, HALVINGS, halve, (each.min(0), each.max(0)))
        return jnp.where(jnp.isfinite(each).all(0), low / 2 + high / 2, each[0])  # at 0 and 1, and of NaN

    return Line(cdf, quantile)


def _location_scale(cdf: Callable, quantile: Callable) -> Callable:
    def make(arguments: Any, context: Shape | None) -> Line | None:
        if arguments["conditioner"] is not None:
            return None

        def theta(params: Any) -> tuple[Any, Any]:
            return (params["loc"], jnp.exp(soft_clip(params["log_scale"], BOUND))) if params else (0.0, 1.0)

        def own_cdf(params: Any, x: Array, context: Any) -> Array:
            loc, scale = theta(params)
            return cdf((x - loc) / scale)

        def own_quantile(params: Any, u: Array, context: Any) -> Array:
            loc, scale = theta(params)
            return loc + scale * quantile(u)

        return Line(own_cdf, own_quantile)

    return make


def _uniform(arguments: Any, context: Shape | None) -> Line:
    low, high = (jnp.asarray(arguments[name], float).reshape(-1)[0] for name in ("low", "high"))
    return Line(
        lambda params, x, context: jnp.clip((x - low) / (high - low), 0, 1),
        lambda params, u, context: low + u * (high - low),
    )


MAKERS: dict[Any, Callable[[Any, Shape | None], Line | None]] = {
    Flow: _flow,
    StandardizedContext: _standardized_context,
    Mixture: _mixture,
    GMM: _gmm,
    Uniform: _uniform,
    Normal: _location_scale(ndtr, ndtri),
    Logistic: _location_scale(logistic.cdf, logistic.ppf),
    Laplace: _location_scale(laplace.cdf, lambda u: -jnp.sign(u - 0.5) * jnp.log1p(-2 * jnp.abs(u - 0.5))),
}
