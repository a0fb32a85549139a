"""Where mixtures start: rows far from each other, and normals fitted to what is near them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flows.core import LOG_2PI, Array

STARTS = 4  # of which the likeliest is gone on with
ROUNDS = 10  # of k-means
ITERATIONS = 60  # of expectation-maximisation
SHORT = 10  # of these, before starts are compared
ENOUGH = 10  # rows for each column of a component: of fewer the likeliest start is the one that fits its rows too well
FEW, EACH = 4_000, 10  # rows on which starts are compared: so many, or for each component
LEAST = 1e-6  # of the data's variance: the least of a component
POOLED = 0.25  # rows for each column, as if by which a covariance is shrunk towards the pooled one


def spread_rows(key: Array, data: Array, count: int) -> Array:
    """`count` of the rows (rows, *event), each drawn in proportion to its squared distance from the nearest one before.

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

    k-means from spread rows, then expectation-maximisation in which each covariance is shrunk towards the pooled one of all
    components, as if by a row for every four columns: so none can escape by shrinking onto a few rows. (The pooled covariance
    as of Friedman, "Regularized Discriminant Analysis", 1989, equation 6.) Of several starts the one goes on that is likeliest
    after a few iterations on some of the rows, where these are enough for it to tell. (Biernacki, Celeux and Govaert, "Choosing
    Starting Values for the EM Algorithm for Getting the Highest Likelihood in Multivariate Gaussian Mixture Models", 2003.)
    """
    mean, std = x.mean(0), x.std(0)
    std = jnp.where(std > 0, std, 1.0)
    z = (x - mean[None]) / std[None]
    few, (of_few, of_starts) = z, jax.random.split(key)
    number = STARTS if count > 1 and len(z) >= ENOUGH * count * z.shape[1] else 1
    if len(z) > (most := max(FEW, EACH * count)):
        few = z[jax.random.choice(of_few, len(z), (most,), replace=False)]

    def improved(z: Array) -> Callable:
        return lambda _, found: _maximised(z, jax.nn.softmax(_of_components(z, *found), axis=0), diagonal)

    def start(key: Array) -> tuple[tuple, Array]:
        """A mixture after a few iterations, and its log-likelihood; that of one that cannot be factored is the least."""
        means = jax.lax.fori_loop(0, ROUNDS, partial(_moved, few), spread_rows(key, few, count))
        found = jax.lax.fori_loop(0, SHORT, improved(few), _maximised(few, _nearest(few, means), diagonal))
        return found, jnp.nan_to_num(jax.nn.logsumexp(_of_components(few, *found), axis=0).mean(), nan=-jnp.inf)

    starts, log_likelihoods = jax.lax.map(start, jax.random.split(of_starts, number))
    found = jax.tree.map(lambda leaf: leaf[log_likelihoods.argmax()], starts)
    weights, means, factors = jax.lax.fori_loop(SHORT, ITERATIONS, improved(z), found)
    return weights / weights.sum(), means * std[None] + mean[None], factors * std[None, :, None]


def _nearest(z: Array, means: Array) -> Array:
    """Return the nearest mean of each row, (k, n) of 0 and 1."""
    distance = jnp.square(means).sum(1)[:, None] - 2 * jnp.matmul(means, z.T, precision="highest")
    return jax.nn.one_hot(distance.argmin(0), len(means), axis=0, dtype=z.dtype)


def _moved(z: Array, _: int, means: Array) -> Array:
    """An iteration of k-means; a mean to which no row is nearest stays."""
    of = _nearest(z, means)
    sizes = of.sum(1)[:, None]
    return jnp.where(sizes > 0, jnp.matmul(of, z, precision="highest") / jnp.maximum(sizes, 1), means)


def _maximised(z: Array, of: Array, diagonal: bool) -> tuple[Array, Array, Array]:
    """Weights, means and factors of components that have the shares `of` (k, n) of rows."""
    (n, d), sizes = z.shape, of.sum(1)
    means = jnp.matmul(of, z, precision="highest") / jnp.maximum(sizes, 1e-3)[:, None]

    def scatter(each: tuple[Array, Array]) -> Array:
        own, m = each
        centred = z - m[None]
        if diagonal:
            return jnp.diag((own[:, None] * jnp.square(centred)).sum(0))
        return jnp.matmul(centred.T * own[None], centred, precision="highest")

    scatters = jax.lax.map(scatter, (of, means))
    pooled, least = scatters.sum(0) / n, LEAST * jnp.eye(d, dtype=z.dtype)
    covariances = (scatters + POOLED * d * pooled[None]) / (sizes + POOLED * d)[:, None, None]
    factors = jnp.linalg.cholesky(covariances + least[None])  # columns may tell each other
    return (sizes + 1) / (n + len(sizes)), means, factors


def _of_components(z: Array, weights: Array, means: Array, factors: Array) -> Array:
    """log w_k + log N(z; m_k, C_k), (k, n)."""

    def of_one(each: tuple) -> Array:
        weight, m, factor = each
        y = solve_triangular(factor, (z - m[None]).T, lower=True)
        log_det = jnp.log(jnp.diagonal(factor)).sum()
        return jnp.log(weight) - 0.5 * (jnp.square(y) + LOG_2PI).sum(0) - log_det

    return jax.lax.map(of_one, (weights, means, factors))
