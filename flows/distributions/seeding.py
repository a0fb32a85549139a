"""Where mixtures start: rows far from each other, and normals fitted to what is near them."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flows.core import LOG_2PI, Array

ROUNDS = 10  # of k-means
ITERATIONS = 60  # of expectation-maximisation
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
    as of Friedman, "Regularized Discriminant Analysis", 1989, equation 6.)
    """
    n, d = x.shape
    mean, std = x.mean(0), x.std(0)
    std = jnp.where(std > 0, std, 1.0)
    z = (x - mean[None]) / std[None]

    def nearest(means: Array) -> Array:
        distance = jnp.square(means).sum(1)[:, None] - 2 * jnp.matmul(means, z.T, precision="highest")
        return jax.nn.one_hot(distance.argmin(0), count, axis=0, dtype=z.dtype)

    def moved(_: int, means: Array) -> Array:
        of = nearest(means)
        sizes = of.sum(1)[:, None]
        return jnp.where(sizes > 0, jnp.matmul(of, z, precision="highest") / jnp.maximum(sizes, 1), means)

    def maximised(of: Array) -> tuple[Array, Array, Array]:
        sizes = of.sum(1)
        means = jnp.matmul(of, z, precision="highest") / jnp.maximum(sizes, 1e-3)[:, None]

        def scatter(each: tuple[Array, Array]) -> Array:
            own, m = each
            centred = z - m[None]
            if diagonal:
                return jnp.diag((own[:, None] * jnp.square(centred)).sum(0))
            return jnp.matmul(centred.T * own[None], centred, precision="highest")

        scatters = jax.lax.map(scatter, (of, means))
        pooled = scatters.sum(0) / n + LEAST * jnp.eye(d, dtype=z.dtype)
        factors = jnp.linalg.cholesky((scatters + POOLED * d * pooled[None]) / (sizes + POOLED * d)[:, None, None])
        return (sizes + 1) / (n + count), means, factors

    def expected(weights: Array, means: Array, factors: Array) -> Array:
        def of_one(each: tuple) -> Array:
            weight, m, factor = each
            y = solve_triangular(factor, (z - m[None]).T, lower=True)
            log_det = jnp.log(jnp.diagonal(factor)).sum()
            return jnp.log(weight) - 0.5 * (jnp.square(y) + LOG_2PI).sum(0) - log_det

        return jax.nn.softmax(jax.lax.map(of_one, (weights, means, factors)), axis=0)

    def improved(_: int, found: tuple) -> tuple:
        return maximised(expected(*found))

    means = jax.lax.fori_loop(0, ROUNDS, moved, spread_rows(key, z, count))
    weights, means, factors = jax.lax.fori_loop(0, ITERATIONS, improved, maximised(nearest(means)))
    return weights / weights.sum(), means * std[None] + mean[None], factors * std[None, :, None]
