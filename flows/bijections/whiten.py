"""Columns of mean 0 and variance 1 that are not correlated, by a triangular map measured from data."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from flows.bijections.scaling import channel_scale, check_features, left_as_is, named
from flows.core import HIGHEST, Array, FlowsError, Support, bijection, share, size

MOST_COLUMNS = 512  # the map has a number for every pair of columns


@bijection(support=lambda as_is, **_: Support(leaves=check_features(as_is, "Whiten", "as_is")))
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
        fixed = params["fixed"]
        factor = jnp.tril(fixed["factor"])
        # The inverse of L, and a product: to solve for each row is slow on CPUs.
        inverse = solve_triangular(factor, jnp.eye(len(x), dtype=x.dtype), lower=True)
        y = _product(inverse, (x - fixed["mean"]) / fixed["std"])
        return y, -jnp.log(fixed["std"]).sum() - jnp.log(jnp.abs(jnp.diagonal(factor))).sum()

    def inverse_fun(params, y):
        fixed = params["fixed"]
        return _product(jnp.tril(fixed["factor"]), y) * fixed["std"] + fixed["mean"]

    return init_fun


def correlation_factor(z: Array, shrinkage: float = 0.0, alone: np.ndarray | bool = False) -> Array:
    """L, lower triangular, with L L' = (1 - shrinkage) z'z / n + shrinkage I, of rows z (n, d). Columns that are `alone` have
    to be 0, and get those of the identity.

    By QR of the rows, as a product z'z would lose half of the digits; its diagonal is at least 8 units of rounding.
    """
    n, d = z.shape
    added = jnp.diag(jnp.where(alone, 1.0, jnp.full(d, shrinkage**0.5, z.dtype)))
    rows = jnp.concatenate([z * ((1 - shrinkage) / n) ** 0.5, added])
    upper = jnp.linalg.qr(rows, mode="r")
    diagonal = jnp.diagonal(upper)
    factor = (upper * jnp.where(diagonal < 0, -1.0, 1.0)[:, None]).T
    short = jnp.maximum(8 * jnp.finfo(z.dtype).eps - jnp.abs(diagonal), 0)
    return factor + jnp.diag(short)


def left_unmixed(factor: Array, unmixed: np.ndarray) -> Array:
    """The map from y to z = L w where y_i is z_i if that feature is unmixed, and w_i otherwise."""
    if not unmixed.any():
        return factor
    identity = jnp.eye(len(factor), dtype=factor.dtype)
    inverse = solve_triangular(factor, identity, lower=True)
    return solve_triangular(jnp.where(unmixed[:, None], identity, inverse), identity, lower=True)


def _product(matrix: Array, z: Array) -> Array:
    """matrix z; an infinite entry would make NaN of others, also of those it does not reach."""
    infinite = jnp.isinf(z)
    y = jnp.matmul(matrix, jnp.where(infinite, 0.0, z), precision=HIGHEST)
    return jnp.where(infinite, z, y)
