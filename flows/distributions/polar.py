"""The angle t between a point of the sphere S^n and a mean direction: its mass by quadrature, draws by the inverse of its
distribution function. Up to a constant its density is f(t) = e^(k (cos t - 1)) sin(t)^(n - 1). Last, the regression of points
on a context."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from scipy.special import gammaln

from flows.core import Array, FlowsError, as_context, rows_within, size, soft_clip, soft_clip_inverse
from flows.transformers.solve import solve

BOUND = 14.0  # nats: trained concentrations lie between e^-14 and e^14
LEAST = 1e-5  # the least concentration of a regression
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
FAR = 12.0  # standard deviations from the mode; the mass beyond is negligible

ROWS_A_SLOPE = 5  # rows for each entry of a context, from which a regression does not start at 0
MOST_ROWS, MOST_NUMBERS = 4096, 2**22  # rows of a regression, and numbers in its design
NEWTON_STEPS, STEPS = 30, 2.0 ** -np.arange(8)
RANK = 1e-5  # the least singular value of a design, in units of the largest
SOLVED = 1e-6  # nats a row that a step gains


def log_area(n: int) -> float:
    """log of the surface of S^n, 2 pi^((n+1)/2) / Gamma((n+1)/2): log 2 for n = 0."""
    return math.log(2) + (n + 1) / 2 * math.log(math.pi) - float(gammaln((n + 1) / 2))


def log_mass(k: Array, n: int) -> Array:
    """log of the integral of e^(k (mu'x - 1)) over S^n."""
    if n == 2:
        return math.log(2 * math.pi) + jnp.log(-jnp.expm1(-2 * k)) - jnp.log(k)
    bulk = _bulk(k, n)
    return log_area(n - 1) + _log_density(k, bulk.mode, n) + jnp.log(_mass(k, bulk, bulk.high, n))


def draw_angle(rng: Array, k: Array, n: int) -> Array:
    """An angle in [0, pi] for each k."""
    u = jax.random.uniform(rng, k.shape, k.dtype, minval=jnp.finfo(k.dtype).tiny)
    if n == 2:  # 1 - cos t = -log(u + (1 - u) e^-2k) / k
        below = -jnp.log(u + (1 - u) * jnp.exp(-2 * k)) / k
        return 2 * jnp.arcsin(jnp.sqrt(jnp.clip(below / 2, jnp.finfo(k.dtype).tiny, 1 - jnp.finfo(k.dtype).eps)))
    bulk = _bulk(k, n)
    total = _mass(k, bulk, bulk.high, n)

    def share(t: Array) -> tuple[Array, Array]:
        density = _density(k, bulk.mode, t, n) / total
        return _mass(k, bulk, t, n) / total, jnp.log(jnp.where(density > 0, density, jnp.finfo(k.dtype).tiny))

    return solve(share, u, bulk.low, bulk.high, bulk.mode)


class Bulk(NamedTuple):
    """The angle at which f is largest, and two angles between which nearly all of its mass lies."""

    mode: Array
    low: Array
    high: Array


def _bulk(k: Array, n: int) -> Bulk:
    """The mode has k sin^2 t = (n - 1) cos t, and -d^2 log f / dt^2 = k (cos t + 1 / cos t) there."""
    k, ratio = stop_gradient(k), (n - 1) / stop_gradient(k)
    root = jnp.sqrt(ratio * ratio + 4)
    cos = 2 / (ratio + root)
    mode = jnp.arctan2(jnp.sqrt(jnp.clip(1 - cos, 0.0, 1.0) * (1 + cos)), cos) if n > 1 else jnp.zeros_like(k)
    reach = FAR / jnp.sqrt(k * (cos + 1 / cos) if n > 1 else k)
    return Bulk(mode, jnp.maximum(mode - reach, 0.0), jnp.minimum(mode + reach, math.pi))


def _mass(k: Array, bulk: Bulk, t: Array, n: int) -> Array:
    """The integral of f, in units of its largest value, up to t."""
    nodes, weights = (jnp.asarray(rule, k.dtype).reshape(-1, *(1,) * k.ndim) for rule in (NODES, WEIGHTS))
    half = (t - bulk.low) / 2
    return half * (weights * _density(k[None], bulk.mode[None], bulk.low[None] + half[None] * (1 + nodes), n)).sum(0)


def _density(k: Array, mode: Array, t: Array, n: int) -> Array:
    """f(t) / f(mode)."""
    return jnp.exp(_log_density(k, t, n) - _log_density(k, mode, n))


def _log_density(k: Array, t: Array, n: int) -> Array:
    """log f(t)."""
    half = jnp.sin(t / 2)
    if n == 1:
        return -2 * k * half * half
    sin = jnp.sin(t)
    return -2 * k * half * half + (n - 1) * jnp.log(jnp.where(sin > 0, sin, jnp.finfo(k.dtype).tiny))


def likeliest(resultant: Any, p: int, xp: Any = jnp) -> Any:
    """k by the norm of the mean of unit vectors of p entries: near the maximum of the likelihood."""
    r = xp.clip(resultant, 1e-3, 1 - 1e-6)
    if p > 2:
        return r * (p - r * r) / (1 - r * r)
    far = xp.where(r < 0.85, -0.4 + 1.39 * r + 0.43 / (1 - r), 1 / (r * (1 - r) * (3 - r)))
    return xp.where(r < 0.53, 2 * r + r**3 + 5 / 6 * r**5, far)


def concentration_of(theta: dict[str, Array]) -> Array:
    """k of theta."""
    return jnp.exp(soft_clip(theta["log_concentration"], BOUND))


def linear_in_context(name: str, form: Any, trained: Callable) -> Callable:
    """The init_fun of a directional distribution, a `Form`, whose k mu is linear in the context; `trained` is the init_fun of
    the same distribution without a context."""

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None):
        context_shape = as_context(context_dim)
        if context_shape is None:
            raise FlowsError(f"{name}: its k mu is to be linear in a context; give init_fun context_dim=")
        params = trained(rng, shape, init_inputs)[0]

        def vectors_of(params):
            theta = {leaf: params[leaf][None] for leaf in ("loc", "log_concentration")}
            mu = form.points(theta["loc"])
            return mu * concentration_of(theta).reshape(*mu.shape[:2], 1)

        def theta_of_vectors(v):
            squared = jnp.square(v).sum(-1, keepdims=True)
            v = jnp.where(squared > LEAST**2, v, LEAST)
            log_k = jnp.log(jnp.square(v).sum(-1)).reshape(-1, *params["log_concentration"].shape) / 2
            return {"loc": form.of_points(v, shape), "log_concentration": soft_clip_inverse(log_k, BOUND)}

        v = vectors_of(params)
        slope = jnp.zeros((size(context_shape), *v.shape[1:]))
        if init_inputs is not None and init_context is not None:
            context = init_context.reshape(init_context.shape[0], -1).astype(v.dtype)
            v, slope = regression_of(form.points(init_inputs), context, v[0])
            params = {leaf: value[0] for leaf, value in theta_of_vectors(v[None]).items()}

        def theta_of(params, context):
            context = context.reshape(context.shape[0], -1).astype(params["slope"].dtype)
            moved = jnp.einsum("nf,fij->nij", context, params["slope"], precision="highest")
            return theta_of_vectors(vectors_of(params) + moved)

        def log_pdf(params, x, context):
            return form.log_density(theta_of(params, context), x)

        def sample(rng, params, num_samples, context):
            return form.draw(theta_of(params, context), rng, num_samples, shape)

        return {**params, "slope": slope}, log_pdf, sample

    return init_fun


def regression_of(u: Array, context: Array, alone: Array) -> tuple[Array, Array]:
    """The likeliest a (points, p) and slope (f, points, p) of unit vectors u (rows, points, p), each von Mises-Fisher around
    v = a + slope' context, with k = |v|. Where the slope gains less, in nats over all rows, than its number of entries, it is
    0, and a is `alone`, the likeliest without a context.
    """
    rows, (n, f) = rows_within(MOST_ROWS, MOST_NUMBERS, context.shape[1:]), context.shape
    if n < ROWS_A_SLOPE * (1 + f):
        return alone, jnp.zeros((f, *alone.shape), alone.dtype)
    few = slice(None, None, -(-n // rows))
    return jax.vmap(partial(_regression, context[few]), (1, 0), (0, 1))(u[few], alone)


def _least_squares(design: Array, u: Array) -> tuple[Array, Array, Array]:
    """Coefficients (m, p), directions (rows, p) and leverage (rows,) of the regression of unit vectors on a design."""
    left, sizes, _ = jnp.linalg.svd(design, full_matrices=False)
    leverage = jnp.where((sizes > RANK * sizes[0])[None], jnp.square(left), 0).sum(1)
    coefficients = jnp.linalg.lstsq(design, u, rcond=RANK)[0]
    fitted = jnp.matmul(design, coefficients, precision="highest")
    return coefficients, fitted / jnp.sqrt(jnp.square(fitted).sum(1, keepdims=True) + jnp.finfo(u.dtype).eps), leverage


def _newton_step(design: Array, pull: Array, weighted: Array) -> Array:
    """The step (m, p) of Newton's method, by the gradient (rows, p) and the curvature (rows, p, p) of each row."""
    m, p = design.shape[1], pull.shape[1]
    product = partial(jnp.matmul, precision="highest")
    hessian = jnp.stack([jnp.stack([product(design.T, design * weighted[:, i, j, None]) for j in range(p)]) for i in range(p)])
    hessian = jnp.moveaxis(hessian, 2, 1).reshape(p * m, p * m)
    unit = jnp.sqrt(jnp.diagonal(hessian))
    unit = jnp.where(unit > 0, unit, 1.0)
    hessian = hessian / unit[None] / unit[:, None] + RANK * jnp.eye(p * m, dtype=pull.dtype)
    return (jnp.linalg.solve(hessian, product(design.T, pull).T.ravel() / unit) / unit).reshape(p, m).T


def _regression(context: Array, u: Array, alone: Array) -> tuple[Array, Array]:
    """Newton's method, with the best of several steps: the log-likelihood is concave in w, whose first row is a.

    With one point for each row, log p = v'u - k - log_mass(k) = -k |u - v / k|^2 / 2 - log_mass(k), in which no large numbers
    cancel, and neither do they in its derivatives. Each row counts once more by its leverage, as a point in the direction of
    least squares, as concentrated as all rows are: so a category of one row is not a point to the model.
    """
    n, p = u.shape
    design = jnp.concatenate([jnp.ones((n, 1), u.dtype), context.astype(u.dtype)], 1)
    m, product = design.shape[1], partial(jnp.matmul, precision="highest")
    least_squares, guess, leverage = _least_squares(design, u)
    apart = jnp.square(u - guess).sum(1).mean() / 2  # 1 - the mean cosine

    def mass(k: Array) -> Array:
        return log_mass(k, p - 1)

    def slope_of(k: Array) -> Array:
        return jax.jvp(mass, (k,), (jnp.ones_like(k),))[1]

    def split(w: Array) -> tuple[Array, Array]:
        v = product(design, w)
        k = jnp.sqrt(jnp.square(v).sum(1) + jnp.finfo(u.dtype).eps)
        return k, v / k[:, None]

    def log_p(w: Array, leverage: Any = 0.0) -> Array:
        k, mu = split(w)
        further = apart + (1 - apart) * jnp.square(guess - mu).sum(1) / 2
        return (-k * (jnp.square(u - mu).sum(1) / 2 + leverage * further) - (1 + leverage) * mass(k)).mean()

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        w, best, _, i = state
        k, mu = split(w)
        away, along = jax.jvp(slope_of, (k,), (jnp.ones_like(k),))  # the mean cosine, minus 1, and its derivative
        across, more = (1 + away) / k, leverage[:, None]
        pull = u - mu + more * ((1 - apart) * guess - mu) - (1 + more) * away[:, None] * mu
        along_mu = (along - across)[:, None, None] * mu[:, :, None] * mu[:, None]
        weighted = (1 + more)[:, None] * (along_mu + across[:, None, None] * jnp.eye(p, dtype=u.dtype)[None])
        tried = w[None] + STEPS.astype(w.dtype)[:, None, None] * _newton_step(design, pull, weighted)[None]
        values = jax.lax.map(lambda w: log_p(w, leverage), tried)
        values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
        better = values.max() > best
        new = jnp.where(better, tried[values.argmax()], w)
        return new, jnp.where(better, values.max(), best), values.max() - best, i + 1

    without = jnp.zeros((m, p), u.dtype).at[0].set(alone)
    starts = jnp.stack([without, (p - 1) / 2 / jnp.clip(apart, 1e-6) * least_squares])
    values = jax.lax.map(lambda w: log_p(w, leverage), starts)
    state = starts[values.argmax()], values.max(), jnp.asarray(jnp.inf, u.dtype), jnp.asarray(0)
    w = jax.lax.while_loop(lambda state: (state[2] > SOLVED) & (state[3] < NEWTON_STEPS), step, state)[0]
    w = jnp.where(n * (log_p(w) - log_p(without)) > p * (m - 1), w, without)
    return w[0], w[1:]
