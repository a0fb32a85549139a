"""Invertible linear maps of the last axis: features of a vector, channels of an image (a 1x1 convolution).
Family: Linear maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from flows.core import HIGHEST, Array, FlowsError, Support, bijection, size, spend


@bijection(support=Support(rotates=True))
def FixedInvertibleLinear():
    """A random orthogonal matrix, not trained: y = x W, log|det J| = places * log|det W|, from the stored W.

    `places` is the number of entries that share a channel (1 for vectors). The inverse solves with W itself, so it is right
    even after the stored numbers were rounded or moved.

    Params:
        fixed: weight: (channels, channels).

    Cost:
        Direct: O(d^2), and a determinant in O(d^3) for a batch. Inverse: O(d^2), and a solve in O(d^3) for a batch.

    Source:
        Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, section 3.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.FixedInvertibleLinear()(0, 3)
        >>> bool(abs(direct_fun(params, jnp.ones((1, 3)))[1][0]) < 1e-6)
        True
    """

    def init_fun(rng, shape):
        return {"fixed": {"weight": jax.random.orthogonal(rng, shape[-1])}}, direct_fun, inverse_fun

    def direct_fun(params, x):
        weight = params["fixed"]["weight"]
        log_det = jnp.linalg.slogdet(weight)[1] * size(x.shape[:-1])
        return jnp.matmul(x, weight, precision=HIGHEST), log_det

    def inverse_fun(params, y):
        weight = params["fixed"]["weight"]
        columns = y.reshape(-1, y.shape[-1]).T
        return jnp.linalg.solve(weight.T, columns).T.reshape(y.shape)

    return init_fun


@bijection
def InvertibleLinear(init: str = "orthogonal", dense: bool = False):
    """A trained matrix, in LU form: y = x W, log|det J| = places * sum(log|s|).

    W = P L (U + diag(s)) with P a fixed permutation, L unit lower triangular, U strictly upper triangular; it is stored in
    this form, with s = sign * exp(log_s), and can never become singular. Both directions are one product, with W or with W^-1.

    Args:
        init: "orthogonal", a random orthogonal matrix, or "identity".
        dense: train the entries of W themselves, with log|det J| = places * log|det W|. Nothing keeps such a W from becoming
            singular.

    Params:
        lower, upper: (channels (channels - 1) / 2,), the strict triangles row by row; log_s: (channels,).
        fixed: ranks: (channels,), the permutation as floats; sign: (channels,), the signs of s.
        If dense, weight: (channels, channels).

    Cost:
        Direct: O(d^2), and a product in O(d^3) for a batch. Inverse: O(d^2), and an inverse in O(d^3) for a batch.

    Errors:
        FlowsError: an unknown init.

    Source:
        Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039,
        equations 10-11.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.InvertibleLinear()(0, 3)
        >>> y, log_det = direct_fun(params, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun(params, y)[0] - 1).max() < 1e-5)
        True
    """

    if init not in ("orthogonal", "identity"):
        raise FlowsError(f"InvertibleLinear: init is {init!r:.60}; expected 'orthogonal' or 'identity'")

    def init_fun(rng, shape):
        start = jax.random.orthogonal(rng, shape[-1]) if init == "orthogonal" else jnp.eye(shape[-1])
        if dense:
            return {"weight": start}, dense_direct, dense_inverse
        packed, _, order = jax.lax.linalg.lu(start)
        s = jnp.diag(packed)
        fixed = {"ranks": jnp.argsort(order).astype(s.dtype), "sign": jnp.sign(s)}
        below, above = places(len(s), True), places(len(s), False)
        params = {"lower": packed[below], "upper": packed[above], "log_s": jnp.log(jnp.abs(s)), "fixed": fixed}
        return params, direct_fun, inverse_fun

    # Row i of P has its 1 in column ranks[i]: x P moves entry i to place ranks[i], so row i of P L is row ranks[i] of L.
    def direct_fun(params, x):
        order, (lower, upper) = jnp.argsort(params["fixed"]["ranks"]), triangles(params)
        y = product(x, product(lower[jnp.argsort(order)], upper))
        return y, params["log_s"].sum() * size(x.shape[:-1])

    def inverse_fun(params, y):
        back, (lower, upper) = jnp.argsort(jnp.argsort(params["fixed"]["ranks"])), triangles(params)
        # W^-1 = U^-1 L^-1 P^T, from the right: by solving for the rows of 1. Solving for the rows of y takes twice as long
        # on a CPU, is not more precise, and leaves y in a layout that slows down the next layer.
        inverse = solve_triangular(upper, jnp.eye(len(back), dtype=y.dtype), trans=1)
        inverse = solve_triangular(lower, inverse, trans=1, lower=True, unit_diagonal=True).T
        return product(y, inverse[:, back])

    def dense_direct(params, x):
        log_det = jnp.linalg.slogdet(params["weight"])[1] * size(x.shape[:-1])
        return product(x, params["weight"]), log_det

    def dense_inverse(params, y):
        return product(y, jnp.linalg.inv(params["weight"]))

    product = partial(jnp.matmul, precision=HIGHEST)

    def triangles(params) -> tuple[Array, Array]:
        s = params["fixed"]["sign"] * jnp.exp(params["log_s"])
        return triangle(params["lower"], jnp.ones_like(s), lower=True), triangle(params["upper"], s, lower=False)

    return init_fun


def places(n: int, lower: bool) -> tuple[np.ndarray, np.ndarray]:
    """Places of the entries of a strict triangle of n x n, row by row."""
    spend(size=8 * n**2)  # of the places, in int64
    return np.tril_indices(n, -1) if lower else np.triu_indices(n, 1)


def triangle(entries: Array, diagonal: Array, lower: bool) -> Array:
    """The triangular matrix with this diagonal and these entries of its strict triangle, row by row."""
    return jnp.diag(diagonal).at[places(len(diagonal), lower)].set(entries)
