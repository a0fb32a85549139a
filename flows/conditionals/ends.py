"""Ends and grids of numbers: the logarithm and the logit of distances to ends, and what lies between them."""

from typing import Any

import jax
import jax.numpy as jnp

from flows.core import Array, softplus

OFF_GRID = 1e-3  # of a step
NEAREST = 2.0**-100  # of the reach: how near to an end draws lie


def centred(c: Any, x: Array, offset: Any = 0.0) -> tuple[Array, Array]:
    """g(x + offset) less the middle, and the log of its slope. Small offsets keep their digits, as they meet differences."""
    if "reach" not in c:
        return (x - c["middle"]) + offset, jnp.zeros_like(x)
    has_low, has_high = c["has_low"] > 0, c["has_high"] > 0
    above = jnp.where(has_low, (x - c["low"]) + offset, 1.0)
    below = jnp.where(has_high, (c["high"] - x) - offset, 1.0)
    far = jnp.maximum(jnp.where(has_low, above, below) / c["reach"], jnp.finfo(x.dtype).tiny)
    log_slope = jnp.log(-jnp.expm1(-far))
    one = jnp.where(has_low, far + log_slope, -far - log_slope), -log_slope - jnp.log(c["reach"])
    log_above, log_below = jnp.log(above), jnp.log(below)
    span = jnp.log(jnp.where(has_low & has_high, c["high"] - c["low"], 1.0))
    both = log_above - log_below, span - log_above - log_below
    y, log_slope = (jnp.where(has_low & has_high, *pair) for pair in zip(both, one, strict=True))
    ended = has_low | has_high
    return jnp.where(ended, y - c["middle"], (x - c["middle"]) + offset), jnp.where(ended, log_slope, 0.0)


def bounded(c: Any, y: Array) -> Array:
    """The inverse of `centred`, with the middle in y."""
    if "reach" not in c:
        return y
    has_low, has_high = c["has_low"] > 0, c["has_high"] > 0
    both = c["low"] + (c["high"] - c["low"]) * jax.nn.sigmoid(y)
    far = c["reach"] * softplus(jnp.where(has_low, y, -y))
    one = jnp.where(has_low, c["low"] + far, c["high"] - far)
    return jnp.where(has_low & has_high, both, jnp.where(has_low | has_high, one, y))


def inside(c: Any, x: Array, stepped: bool) -> Array:
    """Tell which numbers lie between the ends, and on the grid where some column is `stepped`."""
    above = jnp.where(c["has_low"] > 0, x > c["low"], x > -jnp.inf)
    below = jnp.where(c["has_high"] > 0, x < c["high"], x < jnp.inf)
    if not stepped:
        return above & below
    cells = (x - c["origin"]) / jnp.where(c["step"] > 0, c["step"], 1)
    rounding = 4 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(x), jnp.abs(c["origin"]))
    off = jnp.abs(cells - jnp.round(cells)) * c["step"] > OFF_GRID * c["step"] + rounding
    return above & below & ~(off & (c["step"] > 0))


def safe(c: Any) -> Array:
    """Return a number between the ends of each column."""
    between = (c["low"] + c["high"]) / 2
    by = jnp.maximum(1, 8 * jnp.finfo(c["low"].dtype).eps * jnp.abs(c["low"] + c["high"]))  # one of the two is 0
    one = jnp.where(c["has_low"] > 0, c["low"] + by, jnp.where(c["has_high"] > 0, c["high"] - by, 0))
    return jnp.where((c["has_low"] > 0) & (c["has_high"] > 0), between, one)


def nearest(c: Any, x: Array) -> Array:
    """Return the numbers on the grid that are next to x, or between the ends."""
    step = jnp.where(c["step"] > 0, c["step"], 1)
    on_grid = c["origin"] + jnp.round((x - c["origin"]) / step) * step
    x = jnp.where(c["step"] > 0, on_grid, x)
    after, before = (jnp.nextafter(c[end], jnp.full_like(c[end], to)) for end, to in (("low", jnp.inf), ("high", -jnp.inf)))
    near = jnp.maximum(NEAREST * c.get("reach", 1.0), jnp.finfo(x.dtype).tiny)  # smaller numbers may count as 0
    low = jnp.where(c["step"] > 0, c["low"] + c["step"] / 2, jnp.maximum(after, c["low"] + near))
    high = jnp.where(c["step"] > 0, c["high"] - c["step"] / 2, jnp.minimum(before, c["high"] - near))
    x = jnp.where(c["has_low"] > 0, jnp.maximum(x, low), x)
    return jnp.where(c["has_high"] > 0, jnp.minimum(x, high), x)
