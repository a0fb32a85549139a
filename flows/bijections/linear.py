"""Invertible linear maps of the last axis: features of a vector, channels of an image (a 1x1 convolution).
Family: Linear maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from flows.core import HIGHEST, Array, FlowsError, Support, bijection, positive_int, size, spend

product = partial(jnp.matmul, precision=HIGHEST)


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
def InvertibleLinear(init: str = "orthogonal", dense: bool = False, groups: int = 1):
    """A trained matrix, in LU form: y = x W, log|det J| = places * sum(log|s|).

    W = P L (U + diag(s)) with P a fixed permutation, L unit lower triangular, U strictly upper triangular; it is stored in
    this form, with s = sign * exp(log_s), and can never become singular. Both directions are one product, with W or with W^-1.

    Args:
        init: "orthogonal", a random orthogonal matrix, or "identity".
        dense: train the entries of W themselves, with log|det J| = places * log|det W|. Nothing keeps such a W from becoming
            singular.
        groups: of a dense W, the number of blocks of channels, one after the other, each with its own matrix.

    Params:
        lower, upper: (channels (channels - 1) / 2,), the strict triangles row by row; log_s: (channels,).
        fixed: ranks: (channels,), the permutation as floats; sign: (channels,), the signs of s.
        If dense, weight: (channels, channels); with groups (groups, channels / groups, channels / groups).

    Cost:
        Direct: O(d^2), and a product in O(d^3) for a batch. Inverse: O(d^2), and an inverse in O(d^3) for a batch.

    Errors:
        FlowsError: an unknown init; groups that do not divide the channels, or of a W that is not dense.

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
    if positive_int(groups, "InvertibleLinear: groups") > 1 and not dense:
        raise FlowsError(f"InvertibleLinear: groups is {groups} of a W in LU form; give dense=True, or leave groups out")

    def init_fun(rng, shape):
        if shape[-1] % groups:
            raise FlowsError(f"InvertibleLinear: groups is {groups}, and there are {shape[-1]} channels; expected a divisor")
        side, several = shape[-1] // groups, (groups,) * (groups > 1)
        start = jax.random.orthogonal(rng, side, several) if init == "orthogonal" else jnp.tile(jnp.eye(side), (*several, 1, 1))
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
        log_det = jnp.linalg.slogdet(params["weight"])[1].sum() * size(x.shape[:-1])
        return by_group(x, params["weight"]), log_det

    def dense_inverse(params, y):
        return by_group(y, jnp.linalg.inv(params["weight"]))

    def triangles(params) -> tuple[Array, Array]:
        s = params["fixed"]["sign"] * jnp.exp(params["log_s"])
        return triangle(params["lower"], jnp.ones_like(s), lower=True), triangle(params["upper"], s, lower=False)

    return init_fun


def by_group(x: Array, weight: Array) -> Array:
    """x W; with a W for each group of channels, (groups, channels, channels), each group by its W."""
    if weight.ndim == 2:
        return product(x, weight)
    blocks = x.reshape(size(x.shape[:-1]), len(weight), -1)
    return jnp.einsum("ngi,gij->ngj", blocks, weight, precision=HIGHEST).reshape(x.shape)


def places(n: int, lower: bool) -> tuple[np.ndarray, np.ndarray]:
    """Places of the entries of a strict triangle of n x n, row by row."""
    spend(size=8 * n**2)  # of the places, in int64
    return np.tril_indices(n, -1) if lower else np.triu_indices(n, 1)


def triangle(entries: Array, diagonal: Array, lower: bool) -> Array:
    """The triangular matrix with this diagonal and these entries of its strict triangle, row by row."""
    return jnp.diag(diagonal).at[places(len(diagonal), lower)].set(entries)


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
