"""Trained linear maps of the last axis, as products of factors, which cannot become singular; all are the identity at init.

The axis holds features of a vector, or channels of an image; `places` entries of an event share a channel: 1 in vectors.
Family: Linear maps.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import expm, solve_triangular

from flows.bijections.linear import pairs_that_cancel, product, reflections, triangle
from flows.core import Array, FlowsError, along, bijection, positive_int, size


@bijection
def Triangular(lower: bool = True):
    """A trained triangular matrix of positive diagonal: y = W x, log|det J| = places * sum(log_diagonal).

    y_i = exp(log_diagonal_i) x_i + sum_{j < i} W_ij x_j, so that y_i depends on x_i and the features before it (with
    lower=False, after it). The inverse solves for one feature after the other.

    Args:
        lower: True for entries below the diagonal, False for entries above it.

    Params:
        entries: (channels (channels - 1) / 2,), the strict triangle row by row; log_diagonal: (channels,).

    Cost:
        Direct: O(d^2). Inverse: O(d^2).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> _, direct_fun, inverse_fun = flows.Triangular()(0, 2)
        >>> params = {"entries": jnp.array([3.0]), "log_diagonal": jnp.log(jnp.array([1.0, 2.0]))}
        >>> y, log_det = direct_fun(params, jnp.array([[1.0, 1.0]]))
        >>> y.round(4).tolist(), log_det.round(4).tolist()
        ([[1.0, 5.0]], [0.693...])
    """

    def init_fun(rng, shape):
        d = shape[-1]
        return {"entries": jnp.zeros(d * (d - 1) // 2), "log_diagonal": jnp.zeros(d)}, direct_fun, inverse_fun

    def matrix(params) -> Array:
        return triangle(params["entries"], jnp.exp(params["log_diagonal"]), lower)

    def direct_fun(params, x):
        return product(x, matrix(params).T), params["log_diagonal"].sum() * size(x.shape[:-1])

    def inverse_fun(params, y):
        return solved(matrix(params), y, lower)

    return init_fun


@bijection
def LinearQR():
    """A trained matrix as a rotation and a triangle: y = R Q x, log|det J| = places * sum(log_diagonal).

    Q is a product of d or d - 1 reflections, an even number, which makes any rotation; R is upper triangular with the diagonal
    exp(log_diagonal). So W = R Q is any matrix of positive determinant. The inverse solves with R, and multiplies by Q'.

    Params:
        vectors: (2 (channels // 2), channels), of the reflections, as in `Householder`; at init each stands twice, so Q = 1.
        entries: (channels (channels - 1) / 2,), the strict triangle row by row; log_diagonal: (channels,).

    Cost:
        Direct: O(d^2), and the rotation in O(d^3) for a batch. Inverse: the same.

    Source:
        Hoogeboom, van den Berg and Welling, "Emerging Convolutions for Generative Normalizing Flows", 2019, arXiv:1901.11137.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.LinearQR()(0, 3)
        >>> direct_fun(params, jnp.array([[1.0, 2.0, 3.0]]))[0].round(4).tolist()
        [[1.0, 2.0, 3.0]]
    """

    def init_fun(rng, shape):
        d = shape[-1]
        entries, log_diagonal = jnp.zeros(d * (d - 1) // 2), jnp.zeros(d)
        vectors = pairs_that_cancel(rng, d)
        return {"vectors": vectors, "entries": entries, "log_diagonal": log_diagonal}, direct_fun, inverse_fun

    def right(params) -> Array:
        return triangle(params["entries"], jnp.exp(params["log_diagonal"]), lower=False)

    def direct_fun(params, x):
        y = product(product(x, reflections(params["vectors"]).T), right(params).T)
        return y, params["log_diagonal"].sum() * size(x.shape[:-1])

    def inverse_fun(params, y):
        return product(solved(right(params), y, lower=False), reflections(params["vectors"]))

    return init_fun


@bijection
def LinearSVD():
    """A trained matrix by its singular values: y = V diag(exp(log_s)) U x, log|det J| = places * sum(log_s).

    U and V are rotations, each a product of an even number of reflections, d or d - 1. The inverse is
    U' diag(exp(-log_s)) V' y: singular values can be read, and bounded, from log_s.

    Params:
        first, last: (2 (channels // 2), channels), the vectors of the reflections of U and V, as in `Householder`; at init each
        stands twice, so U = V = 1; log_s: (channels,).

    Cost:
        Direct: O(d^2), and two rotations in O(d^3) for a batch. Inverse: the same.

    Source:
        Zhang, Lei and Dhillon, "Stabilizing Gradients for Deep Neural Networks via Efficient SVD Parameterization", 2018,
        arXiv:1803.09327.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.LinearSVD()(0, 3)
        >>> direct_fun(params, jnp.array([[1.0, 2.0, 3.0]]))[0].round(4).tolist()
        [[1.0, 2.0, 3.0]]
    """

    def init_fun(rng, shape):
        keys, d = jax.random.split(rng), shape[-1]
        params = {"first": pairs_that_cancel(keys[0], d), "log_s": jnp.zeros(d), "last": pairs_that_cancel(keys[1], d)}
        return params, direct_fun, inverse_fun

    def direct_fun(params, x):
        turned = product(x, reflections(params["first"]).T) * along(jnp.exp(params["log_s"]), x)
        return product(turned, reflections(params["last"]).T), params["log_s"].sum() * size(x.shape[:-1])

    def inverse_fun(params, y):
        turned = product(y, reflections(params["last"])) * along(jnp.exp(-params["log_s"]), y)
        return product(turned, reflections(params["first"]))

    return init_fun


@bijection
def LinearExponential():
    """The exponential of a trained matrix: y = exp(A) x, log|det J| = places * trace(A).

    The inverse is exp(-A) y. exp(A) is never singular; its determinant is positive. Scaling and squaring takes about 10
    products of matrices, in each direction.

    Params:
        matrix: (channels, channels), A; 0 at init.

    Cost:
        Direct: O(d^2), and the exponential in O(d^3) for a batch. Inverse: the same.

    Source:
        Golinski, Rainforth and Kuehn, "Improving Normalizing Flows via Better Orthogonal Parameterizations", 2019; Hoogeboom,
        Garcia Satorras, Tomczak and Welling, "The Convolution Exponential and Generalized Sylvester Flows", 2020,
        arXiv:2006.01910.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> _, direct_fun, inverse_fun = flows.LinearExponential()(0, 2)
        >>> y, log_det = direct_fun({"matrix": jnp.array([[0.5, 1.0], [0.0, 0.5]])}, jnp.array([[0.0, 1.0]]))
        >>> y.round(4).tolist(), log_det.tolist()                               # e^0.5 = 1.6487
        ([[1.648..., 1.648...]], [1.0])
    """

    def init_fun(rng, shape):
        return {"matrix": jnp.zeros((shape[-1], shape[-1]))}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return product(x, expm(params["matrix"]).T), jnp.trace(params["matrix"]) * size(x.shape[:-1])

    def inverse_fun(params, y):
        return product(y, expm(-params["matrix"]).T)

    return init_fun


@bijection
def LinearLowRank(rank: int = 1):
    """A scale and a trained matrix of low rank: y = (1 + B Q') diag(exp(log_scale)) x.

    log|det J| = places * (sum(log_scale) + sum(log_diagonal)) by the determinant lemma, det(1 + B Q') = det(1 + Q'B): Q has
    `rank` orthonormal columns, products of as many reflections, and B = (1 - Q Q') V + Q (M - 1) with M = L U, so that
    1 + Q'B = M, a unit lower triangle times an upper one of diagonal exp(log_diagonal), never singular. The inverse is
    Woodbury's, x = exp(-log_scale) (y - B M^-1 Q'y): all of it takes O(channels rank) for each event.

    Args:
        rank: of the matrix B Q', at most the number of channels.

    Params:
        log_scale: (channels,); vectors: (rank, channels), of the reflections; outer: (channels, rank), V; lower, upper:
        (rank (rank - 1) / 2,), the strict triangles of L and U row by row; log_diagonal: (rank,). All but the vectors are 0 at
        init.

    Cost:
        Direct: O(d rank). Inverse: O(d rank).

    Errors:
        FlowsError: a rank that is not a whole number above 0, or above the number of channels.

    Source:
        Lu and Huang, "Woodbury Transformations for Deep Generative Flows", 2020, arXiv:2002.12229; in the
        paper 1 + Q'B may become singular.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.LinearLowRank(2)(0, 5)
        >>> direct_fun(params, jnp.ones((1, 5)))[0].tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0]]
    """
    rank = positive_int(rank, "LinearLowRank: rank")

    def init_fun(rng, shape):
        d, strict = shape[-1], jnp.zeros(rank * (rank - 1) // 2)
        if rank > d:
            raise FlowsError(f"LinearLowRank: rank is {rank}, but the event {shape} has {d} channels; expected at most {d}")
        params = {"log_scale": jnp.zeros(d), "vectors": jax.random.normal(rng, (rank, d)), "outer": jnp.zeros((d, rank))}
        return {**params, "lower": strict, "upper": strict, "log_diagonal": jnp.zeros(rank)}, direct_fun, inverse_fun

    def factors(params) -> tuple[Array, Array, Array, Array]:
        """Q' and B', (rank, channels), and L and U, (rank, rank)."""
        q, outer = reflections(params["vectors"], rank), params["outer"].T
        lower = triangle(params["lower"], jnp.ones(rank, q.dtype), lower=True)
        upper = triangle(params["upper"], jnp.exp(params["log_diagonal"]), lower=False)
        inside = product(lower, upper) - jnp.eye(rank, dtype=q.dtype)
        b = outer - product(product(outer, q.T), q) + product(inside.T, q)
        return q, b, lower, upper

    def direct_fun(params, x):
        q, b, _, _ = factors(params)
        x = x * along(jnp.exp(params["log_scale"]), x)
        log_det = params["log_scale"].sum() + params["log_diagonal"].sum()
        return x + product(product(x, q.T), b), log_det * size(x.shape[:-1])

    def inverse_fun(params, y):
        q, b, lower, upper = factors(params)
        inside = solved(upper, solved(lower, product(y, q.T), lower=True), lower=False)
        return (y - product(inside, b)) * along(jnp.exp(-params["log_scale"]), y)

    return init_fun


def solved(matrix: Array, y: Array, lower: bool) -> Array:
    """The x (*places, channels) with matrix x = y in each place."""
    return solve_triangular(matrix, y.reshape(-1, y.shape[-1]).T, lower=lower).T.reshape(y.shape)
