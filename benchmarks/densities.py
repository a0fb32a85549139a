"""Densities whose log Z is known: in closed form, by quadrature, or by millions of draws of a wide mixture or a Student t,
whose standard error is below 0.001. Of those with several modes the share of the mass of each is known, too.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, special

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])  # of coaching in eight schools (Rubin, 1981), in points
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
COUNTS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])  # of the hierarchical Poisson model


FUNNEL = (1.5, *[math.exp(9 / 16)] * 4)  # standard deviations


class Target(NamedTuple):
    """A density, the numbers of a point, log Z, of several modes which one a point (n, d) belongs to and their masses, and
    standard deviations, where they are known."""

    log_density: Callable
    dim: int
    log_z: float
    which: Callable | None = None
    masses: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()


def normal(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - jnp.log(std) - 0.5 * math.log(2 * math.pi)


def logistic_regression() -> Target:
    """200 rows, an intercept and five coefficients, whose prior is normal with a standard deviation of 2.5."""
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(200), rng.normal(size=(200, 5))])
    y = rng.random(200) < 1 / (1 + np.exp(-x @ np.array([-1.0, 2.0, -1.0, 0.5, 0.0, 1.0])))
    signed = jnp.asarray(x * np.where(y, 1, -1)[:, None], jnp.float32)

    def log_density(beta):
        logits = jnp.matmul(beta, signed.T, precision="highest")
        return jax.nn.log_sigmoid(logits).sum(-1) + normal(beta, 0.0, 2.5).sum(-1)

    return Target(log_density, 6, _by_student_t(log_density, 6))


def _by_student_t(log_density: Callable, d: int) -> float:
    """log Z by four million draws of a Student t with 20 degrees of freedom, at the mode; its standard error is 1e-4."""
    one, many = jax.jit(lambda x: log_density(x[None])[0]), jax.jit(log_density)
    mode = jnp.zeros(d)
    for _ in range(50):
        mode -= jnp.linalg.solve(jax.hessian(one)(mode), jax.grad(one)(mode))
    factor = np.linalg.cholesky(np.linalg.inv(-np.asarray(jax.hessian(one)(mode), float)))
    rng, pieces, n, df = np.random.default_rng(1), 80, 50_000, 20.0
    constant = math.lgamma((df + d) / 2) - math.lgamma(df / 2) - d / 2 * math.log(df * math.pi)
    log_w = np.empty((pieces, n))
    for piece in log_w:
        z = rng.normal(size=(n, d)) / np.sqrt(rng.chisquare(df, size=(n, 1)) / df)
        log_q = constant - np.log(np.diag(factor)).sum() - (df + d) / 2 * np.log1p((z**2).sum(1) / df)
        piece[:] = np.asarray(many(jnp.asarray(np.asarray(mode) + z @ factor.T, jnp.float32)), float) - log_q
    return float(np.logaddexp.reduce(log_w, axis=None) - math.log(log_w.size))


def hierarchical() -> Target:
    """Effects in eight schools: theta_i ~ N(mu, tau), mu ~ N(0, 5), log tau ~ N(log 5, 1)."""

    def log_density(x):
        mu, log_tau, theta = x[:, 0], x[:, 1], x[:, 2:]
        prior = normal(mu, 0.0, 5.0) + normal(log_tau, math.log(5.0), 1.0)
        return (
            prior
            + normal(theta, mu[:, None], jnp.exp(log_tau)[:, None]).sum(1)
            + normal(jnp.asarray(EFFECTS, x.dtype), theta, jnp.asarray(ERRORS, x.dtype)).sum(1)
        )

    grid = np.linspace(math.log(5.0) - 8, math.log(5.0) + 8, 4_001)
    inner = np.empty_like(grid)
    for i, log_tau in enumerate(grid):
        covariance = np.diag(ERRORS**2 + np.exp(2 * log_tau)) + 25.0
        _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
        inner[i] = -0.5 * (log_det + EFFECTS @ np.linalg.solve(covariance, EFFECTS)) - 0.5 * (log_tau - math.log(5.0)) ** 2
    log_z = np.logaddexp.reduce(inner) + math.log(grid[1] - grid[0]) - 0.5 * math.log(2 * math.pi)
    return Target(log_density, 10, float(log_z))


def banana() -> Target:
    """x_1 ~ N(0, 2), x_2 ~ N(x_1^2 / 2, 1) (after Haario, Saksman and Tamminen, 1999), without its constant."""
    return Target(
        lambda x: -(x[:, 0] ** 2) / 8 - 0.5 * (x[:, 1] - x[:, 0] ** 2 / 2) ** 2, 2, math.log(4 * math.pi), stds=(2, 3)
    )


def gaussian() -> Target:
    """Five columns, each correlated by 0.9 with the next."""
    covariance = 0.9 ** np.abs(np.subtract.outer(range(5), range(5)))
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    log_z = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    return Target(
        lambda x: -0.5 * jnp.einsum("ni,ij,nj->n", x, precision, x, precision="highest"), 5, float(log_z), stds=(1.0,) * 5
    )


def funnel() -> Target:
    """x_1 ~ N(0, 1.5), four more ~ N(0, exp(x_1 / 2)) (after Neal, 2003, with a neck half as long)."""
    return Target(
        lambda x: normal(x[:, 0], 0.0, 1.5) + normal(x[:, 1:], 0.0, jnp.exp(x[:, :1] / 2)).sum(1), 5, 0.0, stds=FUNNEL
    )


def student_t() -> Target:
    """Five columns that share their tails, with 3 degrees of freedom."""
    log_z = math.lgamma(1.5) + 2.5 * math.log(3 * math.pi) - math.lgamma(4.0)
    return Target(lambda x: -4 * jnp.log1p(jnp.square(x).sum(1) / 3), 5, log_z, stds=(math.sqrt(3),) * 5)


def poisson() -> Target:
    """Counts y_i ~ Poisson(exp(mu + tau z_i)), z_i ~ N(0, 1), mu ~ N(1, 1), log tau ~ N(-1, 0.5)."""
    y = jnp.asarray(COUNTS, jnp.float32)

    def log_density(x):
        mu, log_tau, z = x[:, 0], x[:, 1], x[:, 2:]
        rate = mu[:, None] + jnp.exp(log_tau)[:, None] * z
        likelihood = y[None] * rate - jnp.exp(rate) - special.gammaln(COUNTS + 1).astype(np.float32)[None]
        return normal(mu, 1.0, 1.0) + normal(log_tau, -1.0, 0.5) + (normal(z, 0.0, 1.0) + likelihood).sum(1)

    mu, log_tau = np.linspace(-3, 5, 161), np.linspace(-5, 2, 141)
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    rate = mu[:, None, None] + np.exp(log_tau)[None, :, None] * z
    inner = np.zeros((len(mu), len(log_tau)))
    for count in COUNTS:
        of_each = count * rate - np.exp(rate) - special.gammaln(count + 1)
        inner += special.logsumexp(of_each, b=weight / math.sqrt(2 * math.pi), axis=2)
    prior = -0.5 * (mu[:, None] - 1) ** 2 - 0.5 * ((log_tau + 1) / 0.5) ** 2 - math.log(2 * math.pi * 0.5)
    cell = (mu[1] - mu[0]) * (log_tau[1] - log_tau[0])
    return Target(log_density, 14, float(special.logsumexp(inner + prior) + math.log(cell)))


def robust_regression() -> Target:
    """Half of 40 rows follow one line in three columns, half another, and each may be an outlier: 0.6 N(0, 0.3) + 0.4 N(0, 5)
    of what is left, under a prior N(0, 5) of four weights."""
    rng = np.random.default_rng(9)
    x = np.concatenate([np.ones((40, 1)), rng.normal(size=(40, 3))], 1)
    lines = np.array([[1.0, 2.0, -1.0, 0.5], [-2.0, -1.0, 2.0, 1.0]])
    y = np.where(np.arange(40) < 20, x @ lines[0], x @ lines[1]) + 0.3 * rng.normal(size=40)
    of_x, of_y = jnp.asarray(x.T, jnp.float32), jnp.asarray(y, jnp.float32)

    def log_density(w):
        rest = of_y[None] - jnp.matmul(w, of_x, precision="highest")
        clean, outlier = math.log(0.6) + normal(rest, 0.0, 0.3), math.log(0.4) + normal(rest, 0.0, 5.0)
        return jnp.logaddexp(clean, outlier).sum(1) + normal(w, 0.0, 5.0).sum(1)

    log_z, first = by_wide_mixture(log_density, lines, 0.15, lambda w: w[:, 0] > 0)
    return Target(log_density, 4, log_z, lambda w: (w[:, 0] < 0).astype(int), (first, 1 - first))


def by_wide_mixture(log_density: Callable, means: np.ndarray, width: float, first: Callable) -> tuple[float, float]:
    """log Z, and the share of the mass in a region, by two million draws of t-like mixtures of normals around these means."""
    rng, d = np.random.default_rng(1), means.shape[1]
    widths, shares = width * np.array([0.7, 1.0, 2.0, 6.0]), np.array([0.4, 0.4, 0.15, 0.05])
    compiled, log_w, inside = jax.jit(log_density), [], []
    for _ in range(40):
        own = means[rng.integers(len(means), size=50_000)]
        x = own + rng.choice(widths, 50_000, p=shares)[:, None] * rng.normal(size=(50_000, d))
        squares = np.square(x[:, None] - means[None]).sum(2)[:, :, None] / widths**2
        log_q = special.logsumexp(-0.5 * squares - d * np.log(widths), b=shares / len(means), axis=(1, 2))
        log_w.append(np.asarray(compiled(jnp.asarray(x, jnp.float32)), float) - log_q + 0.5 * d * math.log(2 * math.pi))
        inside.append(first(x))
    log_w, inside = np.concatenate(log_w), np.concatenate(inside)
    return float(special.logsumexp(log_w) - math.log(len(log_w))), float(special.softmax(log_w)[inside].sum())


def wells(d: int, count: int) -> Target:
    """Normals of unlike widths, 8 from 0, of mass 1, 2, .. by their sum."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(count, d))
    means *= 8 / np.linalg.norm(means, axis=1, keepdims=True)
    scales, masses = np.exp(0.3 * rng.normal(size=count)), np.arange(1, count + 1) / sum(range(1, count + 1))

    def log_density(x):
        each = normal(x[:, None], jnp.asarray(means, x.dtype)[None], jnp.asarray(scales, x.dtype)[None, :, None]).sum(2)
        return jax.nn.logsumexp(jnp.log(jnp.asarray(masses, x.dtype))[None] + each, axis=1)

    def which(x):
        z = np.square((x[:, None] - means[None]) / scales[None, :, None]).sum(2)
        return (0.5 * z + d * np.log(scales) - np.log(masses)).argmin(1)

    return Target(log_density, d, 0.0, which, tuple(masses))


def many_well(d: int) -> Target:
    """Pairs of columns of density exp(-x1^4 + 6 x1^2 + x1 / 2 - x2^2 / 2), 2^(d / 2) modes [Noe et al., 2019]."""

    def log_density(x):
        first, second = x[:, ::2], x[:, 1::2]
        return (-(first**4) + 6 * first**2 + 0.5 * first - 0.5 * second**2).sum(1)

    def mass(low, high):
        return integrate.quad(lambda x: math.exp(-(x**4) + 6 * x**2 + 0.5 * x), low, high)[0]

    left, right = mass(-6, 0), mass(0, 6)
    z = (left + right) * math.sqrt(2 * math.pi)
    return Target(
        log_density,
        d,
        d / 2 * math.log(z),
        lambda x: (x[:, 0] > 0).astype(int),
        (left / (left + right), right / (left + right)),
    )


def ring() -> Target:
    """A distance from 0 ~ N(3, 0.3), at all angles alike."""
    log_z = math.log(2 * math.pi * integrate.quad(lambda r: r * math.exp(-0.5 * ((r - 3) / 0.3) ** 2), 0, 6, points=[3.0])[0])
    return Target(lambda x: -0.5 * ((jnp.sqrt(jnp.square(x).sum(1) + 1e-12) - 3) / 0.3) ** 2, 2, log_z)


TARGETS = {
    "Gaussian": gaussian,
    "banana": banana,
    "funnel": funnel,
    "logistic regression": logistic_regression,
    "eight schools": hierarchical,
    "hierarchical Poisson": poisson,
    "robust regression": robust_regression,
    "two wells in 5": lambda: wells(5, 2),
    "four wells in 10": lambda: wells(10, 4),
    "ring": ring,
    "many well, 8": partial(many_well, 8),
    "many well, 32": partial(many_well, 32),
    "t": student_t,
}
known = cache(lambda name: TARGETS[name]())
