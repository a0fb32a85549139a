"""The angle t between a point of the sphere S^n and a mean direction: its mass by quadrature, draws by the inverse of its
distribution function. Up to a constant its density is f(t) = e^(k (cos t - 1)) sin(t)^(n - 1)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from scipy.special import gammaln

from flows.core import Array
from flows.transformers.solve import solve

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
FAR = 12.0  # standard deviations from the mode; the mass beyond is negligible


def log_area(n: int) -> float:
    """log of the surface of S^n, 2 pi^((n+1)/2) / Gamma((n+1)/2): log 2 for n = 0."""
    return math.log(2) + (n + 1) / 2 * math.log(math.pi) - float(gammaln((n + 1) / 2))


def log_mass(k: Array, n: int) -> Array:
    """log of the integral of e^(k (mu'x - 1)) over S^n."""
    if n == 2:
        return math.log(2 * math.pi) + jnp.log(-jnp.expm1(-2 * k)) - jnp.log(k)
    bulk = _bulk(k, n)
    return log_area(n - 1) + _log_density(k, bulk.mode, n) + jnp.log(_mass(k, bulk, bulk.high, n))


def draw_angle(rng: Array, k: Array, n: int) -> Array:
    """An angle in [0, pi] for each k."""
    u = jax.random.uniform(rng, k.shape, k.dtype, minval=jnp.finfo(k.dtype).tiny)
    if n == 2:  # 1 - cos t = -log(u + (1 - u) e^-2k) / k
        below = -jnp.log(u + (1 - u) * jnp.exp(-2 * k)) / k
        return 2 * jnp.arcsin(jnp.sqrt(jnp.clip(below / 2, jnp.finfo(k.dtype).tiny, 1 - jnp.finfo(k.dtype).eps)))
    bulk = _bulk(k, n)
    total = _mass(k, bulk, bulk.high, n)

    def share(t: Array) -> tuple[Array, Array]:
        density = _density(k, bulk.mode, t, n) / total
        return _mass(k, bulk, t, n) / total, jnp.log(jnp.where(density > 0, density, jnp.finfo(k.dtype).tiny))

    return solve(share, u, bulk.low, bulk.high, bulk.mode)


class Bulk(NamedTuple):
    """The angle at which f is largest, and two angles between which nearly all of its mass lies."""

    mode: Array
    low: Array
    high: Array


def _bulk(k: Array, n: int) -> Bulk:
    """The mode has k sin^2 t = (n - 1) cos t, and -d^2 log f / dt^2 = k (cos t + 1 / cos t) there."""
    k, ratio = stop_gradient(k), (n - 1) / stop_gradient(k)
    root = jnp.sqrt(ratio * ratio + 4)
    cos = 2 / (ratio + root)
    mode = jnp.arctan2(jnp.sqrt(jnp.clip(1 - cos, 0.0, 1.0) * (1 + cos)), cos) if n > 1 else jnp.zeros_like(k)
    reach = FAR / jnp.sqrt(k * (cos + 1 / cos) if n > 1 else k)
    return Bulk(mode, jnp.maximum(mode - reach, 0.0), jnp.minimum(mode + reach, math.pi))


def _mass(k: Array, bulk: Bulk, t: Array, n: int) -> Array:
    """The integral of f, in units of its largest value, up to t."""
    nodes, weights = (jnp.asarray(rule, k.dtype).reshape(-1, *(1,) * k.ndim) for rule in (NODES, WEIGHTS))
    half = (t - bulk.low) / 2
    return half * (weights * _density(k[None], bulk.mode[None], bulk.low[None] + half[None] * (1 + nodes), n)).sum(0)


def _density(k: Array, mode: Array, t: Array, n: int) -> Array:
    """f(t) / f(mode)."""
    return jnp.exp(_log_density(k, t, n) - _log_density(k, mode, n))


def _log_density(k: Array, t: Array, n: int) -> Array:
    """log f(t)."""
    half = jnp.sin(t / 2)
    if n == 1:
        return -2 * k * half * half
    sin = jnp.sin(t)
    return -2 * k * half * half + (n - 1) * jnp.log(jnp.where(sin > 0, sin, jnp.finfo(k.dtype).tiny))
