"""The angle t between a point of the sphere S^n and a mean direction: its mass by quadrature, draws by the inverse of its
distribution function. Up to a constant its density is f(t) = e^(k (cos t - 1)) sin(t)^(n - 1)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from scipy.special import gammaln

from flows.core import Array
from flows.transformers.solve import solve

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
FAR = 12.0  # standard deviations, beyond which there is no mass


def log_area(n: int) -> float:
    """log of the surface of S^n, 2 pi^((n+1)/2) / Gamma((n+1)/2): log 2 for n = 0."""
    return math.log(2) + (n + 1) / 2 * math.log(math.pi) - float(gammaln((n + 1) / 2))


def log_mass(k: Array, n: int) -> Array:
    """log of the integral of e^(k (mu'x - 1)) over S^n."""
    if n == 2:
        return math.log(2 * math.pi) + jnp.log(-jnp.expm1(-2 * k)) - jnp.log(k)
    return log_area(n - 1) + jnp.log(_mass(k, _end(k, n), n))


def draw_angle(rng: Array, k: Array, n: int) -> Array:
    """An angle in [0, pi] for each k."""
    u = jax.random.uniform(rng, k.shape, k.dtype, minval=jnp.finfo(k.dtype).tiny)
    if n == 2:  # 1 - cos t = -log(u + (1 - u) e^-2k) / k
        below = -jnp.log(u + (1 - u) * jnp.exp(-2 * k)) / k
        return 2 * jnp.arcsin(jnp.sqrt(jnp.clip(below / 2, jnp.finfo(k.dtype).tiny, 1 - jnp.finfo(k.dtype).eps)))
    end = _end(k, n)
    total = _mass(k, end, n)

    def share(t: Array) -> tuple[Array, Array]:
        density = _density(k, t, n) / total
        return _mass(k, t, n) / total, jnp.log(jnp.where(density > 0, density, jnp.finfo(k.dtype).tiny))

    return solve(share, u, jnp.zeros_like(k), end)


def _end(k: Array, n: int) -> Array:
    """An angle beyond which there is no mass to speak of."""
    return stop_gradient(jnp.minimum(math.pi, (FAR + math.sqrt(n)) / jnp.sqrt(k)))


def _mass(k: Array, t: Array, n: int) -> Array:
    """The integral of f from 0 to t."""
    nodes, weights = (jnp.asarray(each, k.dtype).reshape(-1, *(1,) * k.ndim) for each in (NODES, WEIGHTS))
    return t / 2 * (weights * _density(k[None], t[None] * (1 + nodes) / 2, n)).sum(0)


def _density(k: Array, t: Array, n: int) -> Array:
    """f(t)."""
    half = jnp.sin(t / 2)
    return jnp.exp(-2 * k * half * half) * jnp.sin(t) ** (n - 1)
