"""The Gaussian nearest to an unnormalised density: where a fit to the density starts."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular

from flows.core import LOG_2PI, Array, on_device
from flows.objectives import log_normalizer
from flows.training.density.target import Target, lbfgs

ITERATIONS = 100  # of L-BFGS
DRAWS = 256  # at least, and four for each column
SETTLED = 1e-3  # the largest entry of the gradient at which it has arrived, and the gain, in nats
AGAIN = 5  # times that it runs, at most
WEIGHED = 4_096  # draws by which two starts are compared
ENDLESS = 1e12  # the mean or the standard deviation of a Gaussian, or more, that finds no end of a density
MISSED = 0.1  # nats of log Z beyond two standard errors, from which the Gaussian has missed a part


class Start(NamedTuple):
    """A Gaussian: its mean (d,), the standard deviations of its columns (d,), and the factor (d, d) of its correlation."""

    mean: np.ndarray
    std: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, factor: np.ndarray) -> "Start":
        """Make a Gaussian of the Cholesky factor of its covariance."""
        std = np.sqrt(np.square(factor).sum(1))
        return cls(mean, std, factor / std[:, None])


def nearest_gaussian(rng: np.random.Generator, target: Target) -> Start | None:
    """The Gaussian q of least KL(q || p), or None where the standard normal sees more of p than q does.

    KL(q || p) is the mean over fixed draws z of -log_density(m + L z), minus log det L; m and L are found by L-BFGS. The draws
    have mean 0 and covariance I exactly, so that a Gaussian target is found exactly. As q may have settled on one of several
    modes, both are weighed: where the constant of p is larger as seen by draws of the standard normal, q has missed a part.
    """
    (d,) = target.event
    mean_and_factor = _minimized(target, whitened(rng.standard_normal((max(DRAWS, 4 * d), d))))
    if mean_and_factor is None:
        return None
    seen = list[tuple[float, float]]()
    for mean, factor in (mean_and_factor, (np.zeros(d), np.eye(d))):
        noise = rng.standard_normal((WEIGHED, d))
        log_q = -0.5 * (np.square(noise) + LOG_2PI).sum(1) - np.log(np.diag(factor)).sum()
        log_w = target(mean + noise @ factor.T) - log_q
        seen.append(log_normalizer(log_w) if np.isfinite(log_w).any() else (-math.inf, 0.0))
    (nearest, _), (standard, error) = seen
    missed = not math.isfinite(nearest) or standard - 2 * error > nearest + MISSED
    return None if missed else Start.of(*mean_and_factor)


def whitened(z: np.ndarray) -> np.ndarray:
    """Rows moved and mixed so that their mean is 0 and their covariance I."""
    z = z - z.mean(0)
    white: np.ndarray = solve_triangular(np.linalg.cholesky(z.T @ z / len(z)), z.T, lower=True).T
    return white


def cholesky_of(a: np.ndarray) -> np.ndarray:
    """The Cholesky factor of a a', for a (d, n), which need not be well-conditioned."""
    factor: np.ndarray = np.transpose(np.linalg.qr(a.T, mode="r"))
    signed: np.ndarray = factor * np.where(np.diag(factor) < 0, -1.0, 1.0)
    return signed


def _minimized(target: Target, z: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """m and L, unless they are not finite, or no better than the standard normal.

    Where L-BFGS ends it starts again, in units of the Gaussian found so far: from 0 a parameter of millions hardly has a slope.
    """
    (d,), noise = target.event, on_device(z, target.dtype)
    below = np.tril_indices(d, -1)

    def loss(at: Array, unit: Array, params: Array) -> Array:
        mean, log_scale, rest = params[:d], params[d : 2 * d], params[2 * d :]
        factor = jnp.eye(d, dtype=noise.dtype).at[below].set(rest) * jnp.exp(log_scale)[:, None]
        x = at[None] + unit[None] * (mean[None] + jnp.matmul(noise, factor.T, precision="highest"))
        return -target.log_density(x).mean() - log_scale.sum() - jnp.log(unit).sum()

    downhill, mean, std, rest, moved = (
        jax.jit(jax.value_and_grad(loss, argnums=2)),
        np.zeros(d),
        np.ones(d),
        np.zeros(len(below[0])),
        False,
    )
    for _ in range(AGAIN):
        of_units = partial(downhill, on_device(mean, target.dtype), on_device(std, target.dtype))
        start = np.concatenate([np.zeros(2 * d), rest])
        before = float(of_units(on_device(start, target.dtype))[0])
        end, least = lbfgs(of_units, start, target.dtype, ITERATIONS, SETTLED)
        if not np.isfinite(end).all() or not least <= before:
            break
        moved, mean, std, rest = True, mean + std * end[:d], std * np.exp(end[d : 2 * d]), end[2 * d :]
        if before - least < SETTLED or max(std.max(), np.abs(mean).max()) > ENDLESS:
            break
    factor = np.eye(d)
    factor[below] = rest
    return (mean, factor * std[:, None]) if moved else None
