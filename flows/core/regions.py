"""Regions at one event: points taken into them, outside them, modulo periods, and the directions in which they can move."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.contract import REAL, Array, Region, Shape
from flows.core.errors import FlowsError

OFF_SPHERE = 1e-4  # by how much |x|^2 may differ from 1
NEAR_END = 1e-6  # of a period: by how much rounding may move what is recorded at an end of a turn
MOST_TURNS = 1e4  # from 0, beyond which float32 has no digits of an angle


def resolved(declared: Any, event: Shape, whose: str = "a layer") -> Region:
    """What was declared, as arrays of the event, which are not to be written to: one number may stand for all."""
    declared = declared(event) if callable(declared) else declared
    period, sphere = getattr(declared, "period", 0.0), getattr(declared, "sphere", 0)
    try:
        low, high, period = (np.broadcast_to(np.asarray(each, float), event) for each in (*declared, period))
        sphere = np.broadcast_to(np.asarray(sphere, int), event)
    except ValueError:
        raise FlowsError(f"{whose}: its support does not fit the event {event}") from None
    if sphere.any() and len(event) != 1:
        raise FlowsError(f"{whose}: a point of a sphere is a unit vector, and the event is {event}; expected one axis")
    return Region(low, high, period, sphere)


def everywhere(event: Shape) -> Region:
    """The whole line for each entry."""
    return resolved(REAL, event)


def same_kind(a: Region | None, b: Region | None) -> bool:
    """Whether the same entries are angles, of the same period, and coordinates of the same unit vectors."""
    if a is None or b is None:
        return (a is None or a.flat) and (b is None or b.flat)
    return np.allclose(a.period, b.period) and np.array_equal(a.sphere, b.sphere)


def blocks_of(sphere: np.ndarray) -> list[np.ndarray]:
    """The entries of each unit vector."""
    return [np.flatnonzero(sphere == each) for each in np.unique(sphere[sphere > 0])]


def inside(region: Any, x: Array) -> Array:
    """Points of the line, an event or rows of them, taken into a region: the same where it is the whole line."""
    low, high = region
    shape = (1,) * (x.ndim - low.ndim) + low.shape
    sphere = np.broadcast_to(getattr(region, "sphere", 0), low.shape)
    of_sphere = (sphere > 0).reshape(shape)
    from_low, to_high = (np.isfinite(end).reshape(shape) & ~of_sphere for end in (low, high))
    ends = (jnp.asarray(np.where(np.isfinite(end), end, 0.0).reshape(shape), x.dtype) for end in (low, high))
    low, high = ends
    between = low + (high - low) * jax.nn.sigmoid(x)
    one_sided = jnp.where(from_low, low + jnp.exp(x), jnp.where(to_high, high - jnp.exp(-x), x))
    x = jnp.where(from_low & to_high, between, one_sided)
    for block in blocks_of(sphere):
        v = x[..., block]
        squared = jnp.square(v).sum(-1, keepdims=True)
        first = jnp.zeros_like(v).at[..., 0].set(1.0)
        x = x.at[..., block].set(jnp.where(squared > 0, v / jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), first))
    return x


def beyond(region: Any, x: Array) -> Array:
    """Which entries of rows x lie outside a region, whose ends belong to it; NaN does not."""
    low, high = region
    sphere = np.broadcast_to(getattr(region, "sphere", 0), low.shape)
    low, high = (jnp.asarray(np.where(sphere > 0, far, end), x.dtype)[None] for end, far in ((low, -np.inf), (high, np.inf)))
    outside = (x < low) | (x > high)
    for block in blocks_of(sphere):
        outside = outside.at[:, block].set(off_sphere(x[:, block])[:, None])
    return outside


def off_sphere(x: Array) -> Array:
    """Whether points (..., n + 1) are no unit vectors; False where they are NaN."""
    return jnp.abs(jnp.square(x).sum(-1) - 1) > OFF_SPHERE


def wrapped(region: Region | None, x: Array, low: np.ndarray | None = None) -> Array:
    """Rows x with their angles within half a period of 0: in [-period / 2, period / 2); or in [low, low + period)."""
    if region is None or not np.any(region.period):
        return x
    turn = np.where(region.period > 0, region.period, 1.0)
    low = -turn / 2 if low is None else low
    period, first, start = (jnp.asarray(each, x.dtype)[None] for each in (turn, low, low / turn))
    turned = x - period * jnp.floor(x / period - start)
    turned = jnp.maximum(jnp.where(turned >= first + period, turned - period, turned), first)  # of a rounding
    return jnp.where((region.period > 0)[None] & jnp.isfinite(x), turned, x)


def on_turn(region: Region | None, x: Array, low: np.ndarray) -> Array:
    """Rows x with their angles on the turn that begins at low, both of whose ends stay: in [low, low + period]."""
    if region is None or not np.any(region.period):
        return x
    slack = NEAR_END * region.period
    first, last, least, most = (
        jnp.asarray(each, x.dtype)[None] for each in (low, low + region.period, low - slack, low + region.period + slack)
    )
    there = (region.period > 0)[None] & (x >= least) & (x <= most)
    return jnp.where(there, jnp.clip(x, first, last), wrapped(region, x, low))


def tangents(region: Region, x: Array) -> Array:
    """An orthonormal basis of the directions in which rows x (batch, d) can move within a region: (batch, d, dimensions)."""
    batch, d = x.shape
    free = np.flatnonzero(region.sphere == 0)
    columns = [jnp.broadcast_to(jnp.eye(d, dtype=x.dtype)[:, free], (batch, d, len(free)))]
    for block in blocks_of(region.sphere):
        columns.append(jnp.zeros((batch, d, len(block) - 1), x.dtype).at[:, block].set(_beside(x[:, block])))
    return jnp.concatenate(columns, axis=2)


def _beside(v: Array) -> Array:
    """An orthonormal basis (batch, m, m - 1) of what is orthogonal to unit vectors v (batch, m)."""
    # The reflection that exchanges v and the last unit vector, away from which its sign is chosen.
    sign = jnp.where(v[:, -1:] > 0, 1.0, -1.0)
    w = v.at[:, -1].add(sign[:, 0])
    m = v.shape[1]
    reflection = jnp.eye(m, dtype=v.dtype)[None] - 2 * w[:, :, None] * w[:, None] / jnp.square(w).sum(1)[:, None, None]
    return reflection[:, :, :-1]
