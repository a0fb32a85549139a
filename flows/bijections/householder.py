"""A trained rotation, as a product of reflections. Family: Linear maps."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flows.core import HIGHEST, Array, Support, bijection, positive_int


@bijection(support=Support(rotates=True))
def Householder(num_reflections: int | None = None):
    """A trained orthogonal matrix, as a product of reflections: y = x H_1 ... H_k, log|det J| = 0.

    H_i = I - 2 v_i v_i' / |v_i|^2 acts on the last axis: the features of a vector, or the channels of each place.

    Args:
        num_reflections: k; by default the number of channels, which can make any orthogonal matrix of determinant (-1)^k.

    Params:
        vectors: (k, channels), the v_i; normal at init, so that the matrix is a random one.

    Cost:
        Direct: O(d^2), and the matrix in O(k d^2) for a batch. Inverse: the same.

    Errors:
        FlowsError: num_reflections is not a whole number above 0.

    Source:
        Tomczak and Welling, "Improving Variational Auto-Encoders using Householder Flow", 2016, arXiv:1611.09630, equation 9.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Householder()(0, 3)
        >>> y, log_det = direct_fun(params, jnp.array([[0.0, 3.0, 4.0]]))
        >>> bool(abs(jnp.linalg.norm(y) - 5) < 1e-5), log_det.tolist()
        (True, [0.0])
    """
    if num_reflections is not None:
        positive_int(num_reflections, "Householder: num_reflections", most=10_000)

    def init_fun(rng, shape):
        return {"vectors": jax.random.normal(rng, (num_reflections or shape[-1], shape[-1]))}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return jnp.matmul(x, reflections(params["vectors"]), precision=HIGHEST), jnp.zeros((), x.dtype)

    def inverse_fun(params, y):
        return jnp.matmul(y, reflections(params["vectors"]).T, precision=HIGHEST)

    return init_fun


def reflections(vectors: Array, rows: int | None = None) -> Array:
    """H_1 ... H_k, built once for the whole batch, (channels, channels); or its first rows, which are orthonormal.

    With unit vectors as the rows of U, it is 1 - U'T U, where 1 / T is half the identity plus the part of U U' above the
    diagonal: two products and a solve, in place of k steps one after the other (the compact WY form, Schreiber and Van Loan
    1989).
    """
    largest = jax.lax.stop_gradient(jnp.abs(vectors).max(1, keepdims=True))
    vectors = vectors / jnp.where(largest > 0, largest, 1.0)  # only directions matter, and squares would over- or underflow
    square = jnp.square(vectors).sum(1, keepdims=True)
    unit = vectors / jnp.sqrt(jnp.where(square > 0, square, 1.0))  # a vector of 0 reflects nothing
    k, channels = vectors.shape
    inverse = jnp.triu(jnp.matmul(unit, unit.T, precision=HIGHEST), 1) + 0.5 * jnp.eye(k, dtype=unit.dtype)
    turned = solve_triangular(inverse, unit)
    rows = rows or channels
    return jnp.eye(rows, channels, dtype=unit.dtype) - jnp.matmul(unit[:, :rows].T, turned, precision=HIGHEST)


def pairs_that_cancel(key: Array, channels: int) -> Array:
    """Vectors of as many reflections as any rotation needs, in equal pairs that cancel: their product is 1."""
    return jnp.repeat(jax.random.normal(key, (channels // 2, channels)), 2, axis=0)
