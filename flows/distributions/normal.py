"""The normal: standard, trained or conditional, with a diagonal or a full covariance. Family: Numbers."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import ndtr, ndtri

from flows.bijections.whiten import correlation_factor
from flows.core import (
    LOG_2PI,
    Array,
    ConditionerLike,
    FlowsError,
    Shape,
    distribution,
    positive,
    share,
    size,
    soft_clip,
    soft_clip_inverse,
    spend,
)
from flows.distributions.location_scale import Family, location_scale, symmetric

TRIL_BOUND = 1e4
ENOUGH = 1.5  # rows for each column, from which a covariance is not shrunk


@distribution(batched=True, cdf=symmetric(ndtr, ndtri))
def Normal(
    trainable: bool = False,
    covariance: str = "diagonal",
    conditioner: ConditionerLike | None = None,
    temperature: float = 1.0,
    shrinkage: float | None = None,
    regression: bool = False,
):
    """Normals, independent for each entry of the event or with a full covariance; standard, trained or conditional.

    log p(x) = -sum(z^2 + log(2 pi)) / 2 - sum(s), in nats, with s = 10 tanh(log_scale / 10) + log(temperature), which is close
    to log_scale where this is small, and cannot overflow. A diagonal covariance has z = (x - loc) e^-s. A full one is C = L L'
    with the Cholesky factor L = diag(e^s) (I + T), T strictly lower triangular with entries 10000 tanh(tril / 10000), and
    z = L^-1 (x - loc).

    Args:
        trainable: train loc and log_scale (and tril, for the entries of T row by row), which start at the mean and covariance
            of `init_inputs`, or at 0; otherwise they are 0.
        covariance: "diagonal" or "full". A full one is over the event flattened.
        conditioner: a network `net(rng, input_dim, output_dim)`, such as `MLP(64)`, that makes loc, log_scale and tril, in
            this order, from the context; it always trains. The init then needs `context_dim`.
        temperature: a factor on the standard deviation, above 0: density and samples of N(loc, temperature^2 C). For a fitted
            flow, `flows.revise(result.init_fun, temperature=0.7)` draws points closer to the most likely ones.
        shrinkage: from 0 to 1, by how much a full covariance that trains shrinks the correlations of `init_inputs` at the
            start; by default d / (n + d) for n rows of d columns if n < 1.5 d, else 0.
        regression: with trainable=True, make the mean linear in the context: loc + slope' context. It starts at the linear
            regression of `init_inputs` on `init_context` if there are five rows or more for each entry of the context;
            otherwise slope starts at 0. The init then needs `context_dim`.

    Params:
        `{"loc": event, "log_scale": event}`, "tril" (d (d - 1) / 2,) for a full covariance, and "slope" (context entries, d)
        for a regression, if trainable; the params of the conditioner if there is one; else `{}`.

    Errors:
        FlowsError: an unknown covariance, a full one without trainable=True or a conditioner, a temperature that is not above
            0, or a conditioner without a context.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Normal()(0, 2)
        >>> log_pdf(params, jnp.zeros((1, 2))).round(4).tolist(), sample(1, params, 3).shape
        ([-1.837...], (3, 2))
        >>> params, log_pdf, sample = flows.Normal(conditioner=flows.MLP(32))(0, 2, context_dim=3)
        >>> sample(1, params, 5, context=jnp.ones(3)).shape
        (5, 2)
    """
    if covariance not in ("diagonal", "full"):
        raise FlowsError(f'Normal: covariance is {covariance!r}; expected "diagonal" or "full"')
    if covariance == "full" and not trainable and conditioner is None:
        raise FlowsError('Normal: covariance="full" would stay the identity; give trainable=True or a conditioner')
    if shrinkage is not None:
        if covariance != "full" or conditioner is not None:
            raise FlowsError(f"Normal: shrinkage is {shrinkage!r:.40}, but no full covariance trains; leave it out")
        shrinkage = share(shrinkage, "Normal: shrinkage")
    if regression and (not trainable or conditioner is not None):
        raise FlowsError(
            "Normal: regression=True trains a mean that is linear in the context: give trainable=True, and no conditioner"
        )
    family = (
        Family(_log_density, jax.random.normal, _moments)
        if covariance == "diagonal"
        else Family(_full_log_density, _full_draw, partial(_full_moments, shrinkage), _tril)
    )
    temperature = positive(temperature, "Normal: temperature", 1e-6, 1e6)
    return location_scale("Normal", family, trainable, conditioner, temperature, regression)


def _log_density(z: Array) -> Array:
    # Not jnp.square: its derivative 2 z may overflow where z does not. The constant, if added to every term, would cost digits.
    return -0.5 * (z * z).sum(1) - 0.5 * LOG_2PI * z.shape[1]


def _moments(x: Array) -> tuple[Array, Array, dict[str, Array]]:
    return x.mean(0), x.std(0), {}


def _full_moments(shrinkage: float | None, x: Array) -> tuple[Array, Array, dict[str, Array]]:
    mean, std = x.mean(0), x.std(0)
    n, d = x.shape
    z = (x - mean[None]) / jnp.where(std > 0, std, 1.0)[None]
    if shrinkage is None:
        shrinkage = 0.0 if n >= ENOUGH * d else d / (n + d)
    factor = correlation_factor(z, shrinkage)
    scale = jnp.diagonal(factor)
    below = np.tril_indices(d, -1)
    # The covariance's factor is diag(std) times the correlation's. I + T is the latter, each row divided by its diagonal entry.
    return mean, std * scale, {"tril": soft_clip_inverse((factor / scale[:, None])[below], TRIL_BOUND)}


def _tril(event: Shape) -> dict[str, Shape]:
    d = size(event)
    return {"tril": (d * (d - 1) // 2,)}


def _full_log_density(z: Array, tril: Array) -> Array:
    factor = _factor(tril, z.shape[1])

    def solved(z: Array) -> Array:
        if factor.shape[0] != 1:
            return jax.vmap(partial(solve_triangular, lower=True, unit_diagonal=True))(factor, z)
        # One small solve and a product: a solve for the whole batch is slow on CPUs.
        inverse = solve_triangular(factor[0], jnp.eye(z.shape[1], dtype=z.dtype), lower=True, unit_diagonal=True)
        return jnp.matmul(z, inverse.T, precision="highest")

    return honest_far_out(lambda z: _log_density(solved(z)), z)


def _full_draw(rng: Array, shape: Shape, tril: Array) -> Array:
    z = jax.random.normal(rng, shape, tril.dtype)
    factor = _factor(tril, shape[1])
    if factor.shape[0] != 1:
        return jnp.einsum("nij,nj->ni", factor, z, precision="highest")
    return jnp.matmul(z, factor[0].T, precision="highest")


def _factor(tril: Array, d: int) -> Array:
    """I + T for each row of tril (batch, d (d - 1) / 2)."""
    spend(size=12 * d**2)  # of the places below, in int64
    below = np.tril_indices(d, -1)
    entries = soft_clip(tril, TRIL_BOUND)
    return jnp.zeros((tril.shape[0], d, d), tril.dtype).at[:, *below].set(entries) + jnp.eye(d, dtype=tril.dtype)[None]


def honest_far_out(log_density: Callable[[Array], Array], x: Array) -> Array:
    """`log_density(x)` of x (batch, d), and -inf for rows so far out that linear algebra could give inf - inf = NaN.

    Squares of such entries overflow by far: at scales up to a million the density of a normal is 0 there.
    """
    far = jnp.abs(x) > float(jnp.finfo(x.dtype).max) ** (2 / 3)
    near = log_density(jnp.where(far, 0.0, x))
    return jnp.where(far.any(1), near - jnp.inf, near)  # NaN stays NaN
