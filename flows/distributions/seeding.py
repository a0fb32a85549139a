"""Starts of mixtures: rows far from each other, and normals fitted to the rows near them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flows.core import LOG_2PI, Array

STARTS = 4  # of which the likeliest is continued
ROUNDS = 10  # of k-means
ITERATIONS = 60  # of expectation-maximisation
SHORT = 10  # of these, before starts are compared
ENOUGH = 10  # rows for each column of a component: with fewer, the likeliest start is the one that overfits its rows
FEW, EACH = 4_000, 10  # rows on which starts are compared: in all, or for each component if these are more
LEAST = 1e-6  # of the data's variance: the least variance of a component
POOLED = 0.25  # the weight of the pooled covariance in each covariance, in rows for each column


def spread_rows(key: Array, data: Array, count: int) -> Array:
    """`count` rows of the data (rows, *event), each drawn in proportion to its squared distance from the nearest one before.

    Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007, section 2.2.
    """
    flat = data.reshape(data.shape[0], -1)

    def squared_distance(chosen: Array) -> Array:
        return jnp.square(flat - flat[chosen][None]).sum(1)

    def draw(nearest: Array, key: Array) -> tuple[Array, Array]:
        chosen = jax.random.categorical(key, jnp.log(nearest + jnp.finfo(flat.dtype).tiny))
        return jnp.minimum(nearest, squared_distance(chosen)), chosen

    keys = jax.random.split(key, count)
    first = jax.random.randint(keys[0], (), 0, len(flat))
    others = jax.lax.scan(draw, squared_distance(first), keys[1:])[1]
    return data[jnp.concatenate([first[None], others])]


@partial(jax.jit, static_argnames=("count", "diagonal"))
def fitted_normals(key: Array, x: Array, count: int, diagonal: bool = False) -> tuple[Array, Array, Array]:
    """Weights (k,), means (k, d) and Cholesky factors (k, d, d) of a mixture of normals fitted to rows x (n, d).

    k-means from spread rows, then expectation-maximisation. Each covariance is shrunk towards the pooled one of all components,
    by the weight of one row for every four columns, so that no component shrinks onto a few rows (Friedman, "Regularized
    Discriminant Analysis", 1989, equation 6). With enough rows there are several starts, and the likeliest one after a few
    iterations on some of the rows is continued (Biernacki, Celeux and Govaert, "Choosing Starting Values for the EM Algorithm
    for Getting the Highest Likelihood in Multivariate Gaussian Mixture Models", 2003).
    """
    mean, std = x.mean(0), x.std(0)
    std = jnp.where(std > 0, std, 1.0)
    z = (x - mean[None]) / std[None]
    few, (few_key, starts_key) = z, jax.random.split(key)
    number = STARTS if count > 1 and len(z) >= ENOUGH * count * z.shape[1] else 1
    if len(z) > (most := max(FEW, EACH * count)):
        few = z[jax.random.choice(few_key, len(z), (most,), replace=False)]

    def improved(z: Array) -> Callable:
        return lambda _, mixture: _maximised(z, jax.nn.softmax(_log_joint(z, *mixture), axis=0), diagonal)

    def start(key: Array) -> tuple[tuple, Array]:
        """A mixture after a few iterations, and its log-likelihood; if a covariance has no factor, the least one."""
        means = jax.lax.fori_loop(0, ROUNDS, partial(_moved, few), spread_rows(key, few, count))
        mixture = jax.lax.fori_loop(0, SHORT, improved(few), _maximised(few, _nearest(few, means), diagonal))
        return mixture, jnp.nan_to_num(jax.nn.logsumexp(_log_joint(few, *mixture), axis=0).mean(), nan=-jnp.inf)

    starts, log_likelihoods = jax.lax.map(start, jax.random.split(starts_key, number))
    likeliest = jax.tree.map(lambda leaf: leaf[log_likelihoods.argmax()], starts)
    weights, means, factors = jax.lax.fori_loop(SHORT, ITERATIONS, improved(z), likeliest)
    return weights / weights.sum(), means * std[None] + mean[None], factors * std[None, :, None]


def _nearest(z: Array, means: Array) -> Array:
    """Return a one-hot mask of the nearest mean of each row, (k, n)."""
    distance = jnp.square(means).sum(1)[:, None] - 2 * jnp.matmul(means, z.T, precision="highest")
    return jax.nn.one_hot(distance.argmin(0), len(means), axis=0, dtype=z.dtype)


def _moved(z: Array, _: int, means: Array) -> Array:
    """An iteration of k-means; a mean to which no row is nearest stays."""
    mask = _nearest(z, means)
    sizes = mask.sum(1)[:, None]
    return jnp.where(sizes > 0, jnp.matmul(mask, z, precision="highest") / jnp.maximum(sizes, 1), means)


def _maximised(z: Array, shares: Array, diagonal: bool) -> tuple[Array, Array, Array]:
    """Weights, means and factors of components that have these shares (k, n) of rows."""
    (n, d), sizes = z.shape, shares.sum(1)
    means = jnp.matmul(shares, z, precision="highest") / jnp.maximum(sizes, 1e-3)[:, None]

    def scatter(component: tuple[Array, Array]) -> Array:
        share, m = component
        centred = z - m[None]
        if diagonal:
            return jnp.diag((share[:, None] * jnp.square(centred)).sum(0))
        return jnp.matmul(centred.T * share[None], centred, precision="highest")

    scatters = jax.lax.map(scatter, (shares, means))
    pooled, least = scatters.sum(0) / n, LEAST * jnp.eye(d, dtype=z.dtype)
    covariances = (scatters + POOLED * d * pooled[None]) / (sizes + POOLED * d)[:, None, None]
    factors = jnp.linalg.cholesky(covariances + least[None])  # columns may be linearly dependent
    return (sizes + 1) / (n + len(sizes)), means, factors


def _log_joint(z: Array, weights: Array, means: Array, factors: Array) -> Array:
    """log w_k + log N(z; m_k, C_k), (k, n)."""

    def log_joint(component: tuple) -> Array:
        weight, m, factor = component
        y = solve_triangular(factor, (z - m[None]).T, lower=True)
        log_det = jnp.log(jnp.diagonal(factor)).sum()
        return jnp.log(weight) - 0.5 * (jnp.square(y) + LOG_2PI).sum(0) - log_det

    return jax.lax.map(log_joint, (weights, means, factors))
