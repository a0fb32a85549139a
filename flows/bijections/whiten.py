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

LEAST = 8  # units of rounding: the least entry on the diagonal of L
SINGULAR = 1e-5  # of a standard deviation: a column that adds less to the columns before it is lost in a product of float64
MOST_COLUMNS = 512  # the map has a number for every pair of columns


@bijection(support=lambda as_is, **_: scaling_support(as_is, "Whiten"), traits=MEASURED)
def Whiten(shrinkage: float = 0.0, as_is: Sequence[int] = (), unmixed: Sequence[int] = ()):
    """Mean 0, variance 1 and no correlation for each feature, by a triangular map measured from data and not trained.

    y = L^-1 z with z = (x - mean) / std and L L' = (1 - shrinkage) R + shrinkage I, where R is the correlation of the features
    and L lower triangular; log|det J| = -sum(log std) - sum(log diag L). y_1 is z_1, and y_i is the part of z_i that no
    linear map of z_1 .. z_i-1 predicts, divided by its standard deviation. Without `init_inputs` it is the identity.
    `flows.remeasure` does not measure it again, as layers trained behind it would no longer fit. An infinite entry stays
    infinite, and the other entries of its row are computed as if it were at its mean.

    Args:
        shrinkage: from 0 to 1, by how much correlations are shrunk towards 0: more than 0 where there are few rows. With
            fewer rows than features, or a feature that is a combination of others, R is singular, and diagonal entries of L
            below 8 units of rounding are raised to that.
        as_is: numbers of the features that stay as they are.
        unmixed: numbers of the features that are scaled alone: y_i is z_i. Edges and spikes of such a feature stay in place;
            the features after it still lose their correlation with it.

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
        alone, apart = (named(which, size(shape), "Whiten", name) for which, name in ((as_is, "as_is"), (unmixed, "unmixed")))
        if init_inputs is not None:
            scale = left_as_is(channel_scale(init_inputs), alone)
            z = jnp.where(alone[None], 0.0, (init_inputs - scale["mean"][None]) / scale["std"][None])
            factor = correlation_factor(z, shrinkage, alone)
            fixed = {**scale, "factor": left_unmixed(factor, apart)}
        return {"fixed": fixed}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return whitened(params["fixed"], x)

    def inverse_fun(params, y):
        return unwhitened(params["fixed"], y)

    return init_fun


def whitened(fixed: Any, x: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """An event, or rows, where no feature is correlated with the features before it, and log|det J|; `xp` is jax.numpy or
    NumPy."""
    factor = xp.tril(fixed["factor"])
    # The inverse of L, and a product: solving for each row is slow on CPUs.
    y = _product(_inverse(factor, xp), (x - fixed["mean"]) / fixed["std"], xp)
    return y, -xp.log(fixed["std"]).sum() - xp.log(xp.abs(xp.diagonal(factor))).sum()


def unwhitened(fixed: Any, y: Any, xp: Any = jnp) -> Any:
    """The inverse of `whitened`."""
    return _product(xp.tril(fixed["factor"]), y, xp) * fixed["std"] + fixed["mean"]


def correlation_factor(z: Any, shrinkage: float = 0.0, alone: Any = False, weights: Any = None, xp: Any = jnp) -> Any:
    """L, lower triangular, with L L' = (1 - shrinkage) R + shrinkage I, R the mean of z z' over rows z (n, d). Columns that are
    `alone` have to be 0, and get columns of the identity.

    It comes from a QR of the rows, as their product would lose half of the digits; its diagonal is at least 8 units of
    rounding. NumPy, in float64, takes the product where that keeps enough digits.
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
    """The product matrix z, of an event or of each row z. An infinite entry stays as it is, and others count it as 0: in the
    plain product it would make them NaN, even where the matrix is 0."""
    infinite = xp.isinf(z)
    multiply = partial(jnp.matmul, precision=HIGHEST) if xp is jnp else np.matmul
    return xp.where(infinite, z, multiply(matrix, xp.where(infinite, 0.0, z).T).T)
