"""The angle t between a point of the sphere S^n and a mean direction: its mass by quadrature, draws by the inverse of its
distribution function. Up to a constant its density is f(t) = e^(k (cos t - 1)) sin(t)^(n - 1). Then, in NumPy, the likeliest
means and regressions; and the init_fun of a directional distribution."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jax.scipy.special import i0e
from scipy import special

from flows.conditioners.base import check_conditioner
from flows.core import Array, FlowsError, Shape, as_context, rows_within, size, soft_clip
from flows.distributions.location_scale import conditional
from flows.transformers.solve import solve

BOUND = 14.0  # nats: trained concentrations lie between e^-14 and e^14
LEAST = 1e-5  # the least concentration of a regression
MOST_CHAINED = 8  # points of which each is regressed on the points before it
# Of a polynomial P: log I_0(k) = y - log(y) / 2 + P(3 / y) - log(2 pi), y = sqrt(k^2 + 9).
POWERS = -0.13499238, 0.37626026, -0.45590046, 0.26113557, -0.37958009, 0.25975912, -1.4584381, 0.91893916
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
FAR = 12.0  # standard deviations from the mode; the mass beyond is negligible

ROWS_A_SLOPE = 5  # rows for each entry of a context, from which a regression does not start at 0
MOST_ROWS, MOST_NUMBERS = 4096, 2**22  # rows of a regression, and numbers in its design
NEWTON_STEPS, STEPS = 30, 2.0 ** -np.arange(8)
RANK = 1e-5  # the least singular value of a design, in units of the largest
SOLVED = 1e-6  # nats a row that a step gains


def log_area(n: int) -> float:
    """log of the surface of S^n, 2 pi^((n+1)/2) / Gamma((n+1)/2): log 2 for n = 0."""
    return math.log(2) + (n + 1) / 2 * math.log(math.pi) - float(special.gammaln((n + 1) / 2))


def log_mass(k: Array, n: int) -> Array:
    """log of the integral of e^(k (mu'x - 1)) over S^n."""
    if n == 1 and k.dtype == jnp.float64:
        return jnp.log(2 * math.pi * i0e(k))
    if n == 1:  # to 8e-7, the rounding of float32, in a fifth of the operations of a compiled Bessel function
        y = jnp.sqrt(k * k + 9)
        return 9 / (y + k) - jnp.log(y) / 2 + reduce(lambda total, power: total * (3 / y) + power, POWERS, jnp.zeros_like(y))
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


def likeliest(resultant: Any, p: int) -> np.ndarray:
    """k by the norm of the mean of unit vectors of p entries: near the maximum of the likelihood."""
    r = np.clip(resultant, 1e-3, 1 - 1e-6)
    if p > 2:
        return r * (p - r * r) / (1 - r * r)
    far = np.where(r < 0.85, -0.4 + 1.39 * r + 0.43 / (1 - r), 1 / (r * (1 - r) * (3 - r)))
    return np.where(r < 0.53, 2 * r + r**3 + 5 / 6 * r**5, far)


def likeliest_vectors(u: np.ndarray) -> np.ndarray:
    """k mu (points, p) of unit vectors u (rows, points, p)."""
    mean = u.mean(0)
    resultant = np.linalg.norm(mean, axis=1, keepdims=True)
    return likeliest(resultant, u.shape[2]) * mean / np.maximum(resultant, LEAST)


def regression_of(u: np.ndarray, context: np.ndarray, chained: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest a (points, p) and slope (features, points, p) of unit vectors u (rows, points, p), each von Mises-Fisher
    around v = a + slope' features, with k = |v|. The features are the context, and the points before it, of `chained` points.
    Where the slope gains less, in nats over all rows, than its number of entries, it is 0, and a the likeliest without it.
    """
    n, points, p = u.shape
    features = np.concatenate([context, u[:, : chained - 1].reshape(n, -1)], 1)
    few = slice(None, None, -(-n // rows_within(MOST_ROWS, MOST_NUMBERS, features.shape[1:])))
    a, slope = likeliest_vectors(u), np.zeros((features.shape[1], points, p))
    for i in range(points):
        known = context.shape[1] + min(i, chained - 1) * p
        if known and n >= ROWS_A_SLOPE * (1 + known):
            a[i], slope[:known, i] = _regression(features[few, :known], u[few, i], a[i])
    return a, slope


def mass_and_mean(k: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray]:
    """log of the integral of e^(k (mu'x - 1)) over unit vectors x of p entries, and the mean of mu'x."""
    if p == 2:
        bessel = special.i0e(k)
        return np.log(2 * np.pi * bessel), special.i1e(k) / bessel
    bessel = np.maximum(special.ive(p / 2 - 1, k), 1e-290)
    there = bessel > 1e-290  # elsewhere k is far below p
    log_mass = p / 2 * math.log(2 * math.pi) - (p / 2 - 1) * np.log(k) + np.log(bessel)
    near = log_area(p - 1) - k + k * k / (2 * p), k / p
    return np.where(there, log_mass, near[0]), np.where(there, special.ive(p / 2, k) / bessel, near[1])


def _least_squares(design: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (m, p) and the leverage of rows, (rows,), of the regression of u on a design."""
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    large = sizes > RANK * sizes[0]
    left = left[:, large]
    return right[large].T @ (left.T @ u / sizes[large, None]), np.square(left).sum(1)


def _solved(design: np.ndarray, curved: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """The step (m, p) of Newton's method, by the curvature (rows, p, p) and the gradient (rows, p) of rows."""
    (_, m), p = design.shape, pull.shape[1]
    hessian = np.einsum("nij,na,nb->iajb", curved, design, design, optimize=True).reshape(p * m, p * m)
    hessian += np.diag(RANK * np.diagonal(hessian) + 1e-12)
    return np.linalg.solve(hessian, (design.T @ pull).T.ravel()).reshape(p, m).T


def _regression(context: np.ndarray, u: np.ndarray, alone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method, with the first of several steps that gains: the log-likelihood is concave in w, whose first row is a.

    With one point for each row, log p = v'u - k - log_mass(k) = -k |u - v / k|^2 / 2 - log_mass(k), in which no large numbers
    cancel. Each row counts once more by its leverage, as a point in the direction of least squares, as concentrated as all rows
    are: so a category of one row is not a point to the model.
    """
    n, p = u.shape
    design = np.concatenate([np.ones((n, 1)), context], 1)
    m = design.shape[1]
    least_squares, leverage = _least_squares(design, u)
    guess = design @ least_squares
    guess /= np.maximum(np.linalg.norm(guess, axis=1, keepdims=True), LEAST)
    apart = np.square(u - guess).sum(1).mean() / 2  # 1 - the mean cosine

    def split(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v = design @ w
        k = np.maximum(np.linalg.norm(v, axis=1), LEAST)
        return k, v / k[:, None]

    def log_p(w: np.ndarray, leverage: Any = leverage) -> float:
        k, mu = split(w)
        further = apart + (1 - apart) * np.square(guess - mu).sum(1) / 2
        away = np.square(u - mu).sum(1) / 2 + leverage * further
        return float((-k * away - (1 + leverage) * mass_and_mean(k, p)[0]).mean())

    def newton(w: np.ndarray) -> np.ndarray:
        k, mu = split(w)
        cos, more = mass_and_mean(k, p)[1], leverage[:, None]
        across = cos / k
        along = 1 - cos * cos - (p - 1) * across  # the derivative of the mean cosine
        pull = u + more * (1 - apart) * guess - (1 + more) * cos[:, None] * mu
        curved = (along - across)[:, None, None] * mu[:, :, None] * mu[:, None] + across[:, None, None] * np.eye(p)
        return _solved(design, (1 + leverage)[:, None, None] * curved, pull)

    without = np.zeros((m, p))
    without[0] = alone
    w = max(without, (p - 1) / 2 / max(apart, 1e-6) * least_squares, key=log_p)
    best = log_p(w)
    for _ in range(NEWTON_STEPS):
        step = newton(w)
        tried = ((log_p(w + share * step), share) for share in STEPS)
        value, share = next((pair for pair in tried if pair[0] > best), (best, 0.0))
        w, gain, best = w + share * step, value - best, value
        if gain <= SOLVED:
            break
    w = w if n * (log_p(w, 0.0) - log_p(without, 0.0)) > p * (m - 1) else without
    return w[0], w[1:]


class Form(NamedTuple):
    """A directional distribution: theta is loc (rows, ...) and the concentration k, of any rank; one row may serve all.

    `inner(x, xp)` are rows in its coordinates, angles in radians, and `outer` the way back; loc, x and draws below are in them.
    `constants(shape)` are params, `outputs(shape)` is the number of outputs of a network, `as_theta(raw, shape)` makes theta of
    these (rows, outputs), `away(loc, x)` is 1 minus the cosine between them, `log_density(away, k, x)` is (rows,), and
    `draw(theta, rng, n, shape)` is (n, *shape). `points(x, xp)` are the unit vectors of rows, (rows, points, p), and
    `of_points(v, xp)` the locs of such vectors of any length. `xp` is jax.numpy or NumPy.
    """

    inner: Callable
    outer: Callable
    constants: Callable
    outputs: Callable
    as_theta: Callable
    away: Callable
    log_density: Callable
    draw: Callable
    points: Callable
    of_points: Callable

    def density(self, theta: Any, x: Array) -> Array:
        x, (loc, k) = self.inner(x, jnp), theta
        return self.log_density(self.away(loc, x), k, x)

    def drawn(self, theta: Any, rng: Array, n: int, shape: Shape) -> Array:
        return self.outer(self.draw(theta, rng, n, shape), jnp)

    def points_of(self, x: Any) -> np.ndarray:
        """The unit vectors of rows."""
        return self.points(self.inner(np.asarray(x, float), np), np)

    def theta_of(self, params: Any) -> tuple[Array, Array]:
        return self.inner(params["loc"][None], jnp), jnp.exp(soft_clip(params["log_concentration"], BOUND))[None]

    def params_of(self, v: np.ndarray, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Params by k mu (points, p)."""
        k = np.maximum(np.linalg.norm(v, axis=1), LEAST)
        loc = self.outer(self.of_points(v / k[:, None], np).reshape(1, *like["loc"].shape), np)[0]
        log_k = BOUND * np.arctanh(np.clip(np.log(k) / BOUND, -0.9, 0.9))
        return {"loc": loc, "log_concentration": log_k.reshape(like["log_concentration"].shape)}


def directional(name: str, form: Form, trainable: bool, conditioner: Any, regression: bool | str) -> Callable:
    """The init_fun of a form: with constants, with trained params, a regression, or a network of the context."""
    if not isinstance(regression, bool) and regression != "chain":
        raise FlowsError(f'{name}: regression is {regression!r:.60}; expected True, False or "chain"')
    if regression and (not trainable or conditioner is not None):
        raise FlowsError(
            f"{name}: regression=True trains k loc that is linear in the context: give trainable=True, and no conditioner"
        )
    net: Any = None if conditioner is None else check_conditioner(conditioner, name)

    def functions(theta_of, shape):
        def log_pdf(params, x):
            return form.density(theta_of(params, x.dtype), x)

        def sample(rng, params, num_samples):
            return form.drawn(theta_of(params, float), rng, num_samples, shape)

        return log_pdf, sample

    def fixed(rng, shape):
        start = form.constants(shape)
        return {}, *functions(lambda _, dtype: form.theta_of({at: jnp.asarray(x, dtype) for at, x in start.items()}), shape)

    def trained(rng, shape, init_inputs=None):
        params = form.constants(shape)
        if init_inputs is not None:
            params = form.params_of(likeliest_vectors(form.points_of(init_inputs)), params)
        return params, *functions(lambda params, dtype: form.theta_of(params), shape)

    def outputs(shape: Shape) -> int:
        form.constants(shape)  # refuses an event that does not fit
        return form.outputs(shape)

    if net is None:
        return linear(name, form, regression == "chain") if regression else trained if trainable else fixed
    return conditional(name, net, outputs, form.as_theta, form.density, form.drawn)


def linear(name: str, form: Form, chain: bool) -> Callable:
    """The init_fun of a form whose k mu is linear in the context, and on a chain in the points before."""

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None):
        params, context = form.constants(shape), as_context(context_dim)
        _, points, p = form.points_of(params["loc"][None]).shape
        chained, columns = points if chain and points <= MOST_CHAINED else 1, 0 if context is None else size(context)
        slope = np.zeros((columns + (chained - 1) * p, points, p))
        if not len(slope):
            raise FlowsError(f"{name}: its k mu is to be linear in a context; give init_fun context_dim=")
        if init_inputs is not None:
            known = np.zeros((len(init_inputs), 0)) if context is None else np.asarray(init_context, float)
            v, slope = regression_of(form.points_of(init_inputs), known.reshape(len(known), -1), chained)
            params = form.params_of(v, params)
        of_k = -1, *params["log_concentration"].shape

        def theta_of(params, x, context):
            v, k = vectors_of(form, params, x.reshape(-1, *shape), context)
            return form.of_points(v, jnp).reshape(-1, *shape), k.reshape(of_k)

        def log_pdf(params, x, context=None):
            x = form.inner(x, jnp)
            v, k = vectors_of(form, params, x, context)
            away = jnp.square(form.points(x, jnp) - v / k[..., None]).sum(-1) / 2
            return form.log_density(away.reshape(of_k), k.reshape(of_k), x)

        def sample(rng, params, num_samples, context=None):
            def one(i, x):
                theta = (part.reshape(num_samples, -1) for part in theta_of(params, x, context))
                of_point = tuple(jax.lax.dynamic_slice_in_dim(part, i, 1, 1) for part in theta)
                return jax.lax.dynamic_update_slice_in_dim(x, form.draw(of_point, keys[i], num_samples, (1,)), i, 1)

            x, keys = jnp.zeros((num_samples, size(shape)), params["slope"].dtype), jax.random.split(rng, points)
            if chained == 1:
                return form.drawn(theta_of(params, x, context), rng, num_samples, shape)
            return form.outer(jax.lax.fori_loop(0, points, one, x).reshape(num_samples, *shape), jnp)

        return {**params, "slope": slope}, log_pdf, sample

    return init_fun


def vectors_of(form: Form, params: Any, x: Array, context: Array | None) -> tuple[Array, Array]:
    """k mu (rows, points, p) of rows x in the coordinates of the form, linear in the context and the points before; and k."""
    slope, n = params["slope"], x.shape[0]
    features = [] if context is None else [context.reshape(context.shape[0], -1).astype(x.dtype)]
    columns = sum(part.shape[1] for part in features)
    before = (slope.shape[0] - columns) // slope.shape[2]
    features += [form.points(x, jnp)[:, :before].reshape(n, -1)] if before else []
    visible = np.repeat(np.arange(before), slope.shape[2])[:, None] < np.arange(slope.shape[1])
    mask = np.concatenate([np.ones((columns, slope.shape[1])), visible])[..., None]
    moved = jnp.einsum("nf,fij->nij", jnp.concatenate(features, 1), slope * jnp.asarray(mask, x.dtype), precision="highest")
    loc, k = form.theta_of(params)
    v = form.points(loc, jnp) * k.reshape(1, -1, 1) + moved
    return v, jnp.sqrt(jnp.square(v).sum(-1) + LEAST**2)
