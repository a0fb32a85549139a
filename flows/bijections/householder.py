"""A trained rotation, as a product of reflections."""

import jax
import jax.numpy as jnp

from flows.core import Array, bijection, positive_int
from flows.core.precision import HIGHEST


@bijection
def Householder(num_reflections: int | None = None):
    """A trained orthogonal matrix, as a product of reflections: y = x H_1 ... H_k, log|det J| = 0.

    H_i = I - 2 v_i v_i' / |v_i|^2 acts on the last axis: the features of a vector, or the channels of each place.

    Args:
        num_reflections: k; by default as many as there are channels, which make any orthogonal matrix of determinant (-1)^k.

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
    """H_1 ... H_k, built once for the whole batch, (channels, channels); or its first rows, which are orthonormal."""
    largest = jax.lax.stop_gradient(jnp.abs(vectors).max(1, keepdims=True))
    vectors = vectors / jnp.where(largest > 0, largest, 1.0)  # only directions matter, and squares would over- or underflow

    def reflect(product, v):
        square = jnp.square(v).sum()
        square = jnp.where(square > 0, square, 1.0)  # a vector of 0 reflects nothing
        return product - 2 * jnp.outer(jnp.matmul(product, v, precision=HIGHEST), v) / square, None

    channels = vectors.shape[1]
    return jax.lax.scan(reflect, jnp.eye(rows or channels, channels, dtype=vectors.dtype), vectors)[0]


def pairs_that_cancel(key: Array, channels: int) -> Array:
    """Vectors of as many reflections as any rotation needs, which undo each other two by two: their product is 1."""
    return jnp.repeat(jax.random.normal(key, (channels // 2, channels)), 2, axis=0)
