"""Columns of mean 0 and variance 1 that are not correlated, by a triangular map measured from data.
Family: Scales and norms."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import solve_triangular

from flows.bijections.scaling import MEASURED, channel_scale, check_features, left_as_is, named, scaling_support
from flows.core import HIGHEST, FlowsError, bijection, share, size

LEAST = 8  # units of rounding: of the diagonal of L
SINGULAR = 1e-5  # of a standard deviation: what a column may add to those before it, and be lost in a product of float64
MOST_COLUMNS = 512  # the map has a number for every pair of columns


@bijection(support=lambda as_is, **_: scaling_support(as_is, "Whiten"), traits=MEASURED)
def Whiten(shrinkage: float = 0.0, as_is: Sequence[int] = (), unmixed: Sequence[int] = ()):
    """Mean 0, variance 1 and no correlation for each feature, by a triangular map measured from data and not trained.

    y = L^-1 z with z = (x - mean) / std and L L' = (1 - shrinkage) R + shrinkage I, where R is the correlation of the features
    and L lower triangular; log|det J| = -sum(log std) - sum(log diag L). y_1 is z_1, and each y_i what z_1 .. z_i-1 do not
    tell of z_i, divided by how much that varies. Without `init_inputs` it is the identity. It keeps what it measured when a
    model is measured again (`flows.remeasure`), as what was trained behind it would no longer fit. An infinite entry stays
    infinite, and its row's other entries are as if it were at its mean.

    Args:
        shrinkage: from 0 to 1, by how much correlations are shrunk towards 0: more than 0 where there are few rows. Where
            there are fewer rows than features, or one feature is a combination of others, R alone is singular, and what a
            diagonal entry of L falls short of 8 units of rounding is added to it.
        as_is: features, by number, that stay as they are.
        unmixed: features, by number, that are scaled alone: y_i is z_i. Edges and spikes of a feature's own stay in place so;
            those after it are still freed of what it tells of them.

    Params:
        fixed: mean, std: (features,); factor: (features, features), L, or the map from y to z where features are unmixed.

    Cost:
        Direct: O(d^2). Inverse: O(d^2).

    Errors:
        FlowsError: an event of several axes, or of more than 512 features; an argument outside its range.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> x = jnp.array([[-1.0, -3.0], [1.0, 1.0], [-1.0, -1.0], [1.0, 3.0]])
        >>> params, direct_fun, inverse_fun = flows.Whiten()(0, 2, init_inputs=x)
        >>> direct_fun(params, x)[0].round(3).tolist()
        [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    """
    shrinkage = share(shrinkage, "Whiten: shrinkage")
    as_is, unmixed = check_features(as_is, "Whiten", "as_is"), check_features(unmixed, "Whiten", "unmixed")

    def init_fun(rng, shape, init_inputs=None):
        if len(shape) != 1 or size(shape) > MOST_COLUMNS:
            raise FlowsError(
                f"Whiten: the event is {shape}; expected a vector of at most {MOST_COLUMNS} features: use Standardize()"
            )
        fixed = {"mean": jnp.zeros(shape), "std": jnp.ones(shape), "factor": jnp.eye(*shape)}
        alone, own = (named(each, size(shape), "Whiten", name) for each, name in ((as_is, "as_is"), (unmixed, "unmixed")))
        if init_inputs is not None:
            scale = left_as_is(channel_scale(init_inputs), alone)
            z = jnp.where(alone[None], 0.0, (init_inputs - scale["mean"][None]) / scale["std"][None])
            factor = correlation_factor(z, shrinkage, alone)
            fixed = {**scale, "factor": left_unmixed(factor, own)}
        return {"fixed": fixed}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return whitened(params["fixed"], x)

    def inverse_fun(params, y):
        return unwhitened(params["fixed"], y)

    return init_fun


def whitened(fixed: Any, x: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """An event, or rows, of which each feature is freed of those before it, and log|det J|; `xp` is what computes it, JAX or
    NumPy."""
    factor = xp.tril(fixed["factor"])
    # The inverse of L, and a product: to solve for each row is slow on CPUs.
    y = _product(_inverse(factor, xp), (x - fixed["mean"]) / fixed["std"], xp)
    return y, -xp.log(fixed["std"]).sum() - xp.log(xp.abs(xp.diagonal(factor))).sum()


def unwhitened(fixed: Any, y: Any, xp: Any = jnp) -> Any:
    """The inverse of `whitened`."""
    return _product(xp.tril(fixed["factor"]), y, xp) * fixed["std"] + fixed["mean"]


def correlation_factor(z: Any, shrinkage: float = 0.0, alone: Any = False, weights: Any = None, xp: Any = jnp) -> Any:
    """L, lower triangular, with L L' = (1 - shrinkage) R + shrinkage I, R the mean of z z' over rows z (n, d). Columns that are
    `alone` have to be 0, and get those of the identity.

    By QR of the rows, as their product would lose half of the digits; its diagonal is at least 8 units of rounding. NumPy, in
    float64, takes the product where that keeps enough.
    """
    n, d = z.shape
    if weights is not None:
        z = z * xp.sqrt(weights / weights.mean())[:, None]
    if xp is np and (factor := _by_product(z, shrinkage)) is not None:
        return factor
    added = xp.diag(xp.where(alone, 1.0, xp.full(d, shrinkage**0.5, z.dtype)))
    rows = xp.concatenate([z * ((1 - shrinkage) / n) ** 0.5, added])
    upper = xp.linalg.qr(rows, mode="r")
    diagonal = xp.diagonal(upper)
    factor = (upper * xp.where(diagonal < 0, -1.0, 1.0)[:, None]).T
    short = xp.maximum(LEAST * xp.finfo(z.dtype).eps - xp.abs(diagonal), 0)
    return factor + xp.diag(short)


def _by_product(z: np.ndarray, shrinkage: float) -> np.ndarray | None:
    try:
        factor: np.ndarray = np.linalg.cholesky((1 - shrinkage) / len(z) * (z.T @ z) + shrinkage * np.eye(z.shape[1]))
    except np.linalg.LinAlgError:
        return None
    return factor if np.diagonal(factor).min() >= SINGULAR else None


def left_unmixed(factor: Any, unmixed: np.ndarray, xp: Any = jnp) -> Any:
    """The map from y to z = L w where y_i is z_i if that feature is unmixed, and w_i otherwise."""
    if not unmixed.any():
        return factor
    return _inverse(xp.where(unmixed[:, None], xp.eye(len(factor), dtype=factor.dtype), _inverse(factor, xp)), xp)


def _inverse(factor: Any, xp: Any) -> Any:
    solve = solve_triangular if xp is jnp else scipy.linalg.solve_triangular
    return solve(factor, xp.eye(len(factor), dtype=factor.dtype), lower=True)


def _product(matrix: Any, z: Any, xp: Any) -> Any:
    """matrix z of an event, or of each of the rows z; an infinite entry would make NaN of others, also of those it does not
    reach."""
    infinite = xp.isinf(z)
    multiply = partial(jnp.matmul, precision=HIGHEST) if xp is jnp else np.matmul
    return xp.where(infinite, z, multiply(matrix, xp.where(infinite, 0.0, z).T).T)
