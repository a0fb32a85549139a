"""Checks of layers that draw, for `verify`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import t

from flows.bijections.bounds import Unconstrain
from flows.bijections.composition import regions_of
from flows.compose import Serial
from flows.core import Array, BijectionInit, Shape, declares, inside
from flows.distributions.draws import sample_with_log_pdf
from flows.distributions.flow import Flow

DRAWS = 20_000  # of the layer, and of a proposal
FREEDOM = 3.0  # degrees, of the proposal, a Student t


class Pairs(NamedTuple):
    """Numbers that have to be equal, and the relative error that is allowed; or, without a tolerance, two means with their
    standard errors, (numbers, 2)."""

    name: str
    tolerance: float | None
    measure: Callable[[], list[tuple[Any, Any]]]


def pairs_of(
    exact: float, layer: BijectionInit, params: Any, functions: tuple[Callable, Callable], x: Array, key: Array, context: Any
) -> Iterator[Pairs]:
    """Properties of a layer that draws, at its params, for rows x and a context, or None."""
    event, keywords = x.shape[1:], {} if context is None else {"context": context}
    draws = layer.part(event, None if context is None else context.shape).draws
    direct, inverse = (partial(function, params, **keywords) for function in functions)
    there, back = jax.random.split(key)
    rounds = any(declares(value, "rounding") for value in (layer, *layer.values_within()))
    if rounds:
        x = inverse(x, rng=back)[0]  # recorded values
    z, _ = direct(x, rng=there)
    if "inverse" not in draws:
        yield Pairs("inverse(direct(x)) = x", exact, lambda: [(inverse(z)[0], x)])
        if "direct" in draws:  # an inverse that draws makes another pair
            yield Pairs("weight of the pair", exact, lambda: [(inverse(z)[1], -direct(x, rng=there)[1])])
    if "direct" not in draws:
        yield Pairs("direct(inverse(z)) = z", exact, lambda: [(direct(inverse(z, rng=back)[0])[0], z)])
        yield Pairs("weight of the pair", exact, lambda: [(w, -direct(y)[1]) for y, w in [inverse(z, rng=back)]])
    yield Pairs("jit agrees", exact, lambda: [*zip(jax.jit(direct)(x, rng=there), direct(x, rng=there), strict=True)])

    def total(params: Any, x: Array) -> Array:
        z, log_weight = functions[0](params, x, rng=there, **keywords)
        return z.sum() + log_weight.sum()

    def finite() -> list[tuple[Any, Any]]:
        """0 times each gradient, which is 0 where it is finite."""
        return [(0 * leaf, np.zeros(leaf.shape)) for leaf in jax.tree.leaves(jax.grad(total, (0, 1))(params, x))]

    yield Pairs("finite gradients", exact, finite)
    yield Pairs("free of the batch without rng", exact, lambda: [*zip(direct(x[:1]), (a[:1] for a in direct(x)), strict=True)])
    if not rounds:
        yield Pairs("weights fit samples", None, lambda: _means(layer, params, event, key, context))


def _means(layer: BijectionInit, params: Any, event: Shape, key: Array, context: Any) -> list[tuple[Any, Any]]:
    """Means of bounded functions over rows of a proposal g with their weights, and over draws with theirs.

    With w = exp(log p(z) + log_weight) / g(x) of a pair, the mean of h(x) w / (1 + w) over rows of g is the mean of
    h(x) / (1 + w) over draws, whose pairs are weighed on their path. All are bounded, so their errors are what they seem."""
    keys, keywords = jax.random.split(key, 4), {} if context is None else {"context": context}
    region, outputs = regions_of(layer, event)
    bounded = outputs is not None and bool(np.isfinite([outputs.low, outputs.high]).any())
    whole = Serial(layer, Unconstrain(outputs.low, outputs.high)) if outputs is not None and bounded else layer
    triple = Flow(whole)(keys[0], event, context_dim=0 if context is None else context.shape)
    start = {**triple.params, "bijection": (params, triple.params["bijection"][1]) if bounded else params}
    draws, log_path = sample_with_log_pdf(keys[1], start, triple, DRAWS, **keywords)
    flat, axes = np.asarray(draws).reshape(DRAWS, -1), tuple(range(1, draws.ndim))
    centre, width = np.median(flat, 0), np.subtract(*np.quantile(flat, (0.84, 0.16), axis=0)) / 2
    centre, width = jnp.asarray(centre.reshape(1, *event)), jnp.asarray(width.reshape(1, *event))

    codes = jnp.asarray((np.zeros(event) if region is None else region.classes)[None], draws.dtype)

    def log_g(x: Array) -> Array:
        numbers = t.logpdf((x - centre) / width, FREEDOM) - jnp.log(width)
        return jnp.where(codes > 0, -jnp.log(jnp.maximum(codes, 1)), numbers).sum(axes)

    x = centre + width * jax.random.t(keys[2], FREEDOM, draws.shape)
    x = x if region is None else inside(region, x)
    x = jnp.where(codes > 0, jnp.floor(jax.random.uniform(keys[2], x.shape) * codes), x)
    log_w = triple.log_pdf(start, x, rng=keys[3], **keywords) - log_g(x)
    ahead, behind = jax.nn.sigmoid(log_w), jax.nn.sigmoid(log_g(draws) - log_path)
    functions = (lambda x: jnp.ones(len(x)), lambda x: jnp.tanh(x).mean(axes), lambda x: jnp.cos(x).mean(axes))
    return [(_mean(ahead * h(x)), _mean(behind * h(draws))) for h in functions]


def _mean(x: Array) -> tuple[float, float]:
    return float(x.mean()), float(x.std() / len(x) ** 0.5)
