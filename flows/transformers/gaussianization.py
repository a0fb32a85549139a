"""Gaussianization: the distribution function of a mixture, then the inverse of the normal one, in log space.
Family: Mixtures and networks."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, positive, positive_int, soft_clip, softplus
from flows.transformers.base import transformer
from flows.transformers.bins import fold
from flows.transformers.mixture import Mixture, along, apart, log_odds, quantile

LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)
SPLIT, TERMS = 4.0, 24  # from 4 on these terms of the continued fraction are exact to 2e-15
FAR, ROOT_FAR = 1e30, 1e17
WIDTH = 0.31  # scale of logistic components whose mixture is nearest to a normal distribution


@transformer(shared=True)
def Gaussianization(num_components: int = 8, bound: float = 7.0):
    """The distribution function of a mixture of logistic distributions, then the inverse of the normal one.

    F(x) = sum_k w_k sigmoid((x - m_k) / s_k), Phi the normal distribution function, phi its density, and

        y         = Phi^-1(F(x))
        log dy/dx = log F'(x) - log phi(y)

    If F is the distribution of x, y is normal. All is computed in log space, from the log-odds of F: both tails are exact. A
    logistic distribution has heavier tails than a normal one, so far out y grows like the square root of x. The inverse is
    numerical, in a bracket that is known in closed form.

    `theta` is (3 num_components, *x.shape): raw weights (a softmax), the m_k and raw log s_k, num_components of each. They are
    offset such that at theta = 0 F is close to the normal distribution, made of components that stand apart: from 4 of them on,
    y is within 0.2 of x on [-4, 4].

    Args:
        num_components: the number of components, at least 1.
        bound: the largest distance of log s_k from its start, in nats: bound tanh(raw / bound).

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Meng, Song, Song and Ermon, "Gaussianization Flows", 2020, arXiv:2003.01941, section 3.1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> gaussianization = flows.transformers.Gaussianization(num_components=4)
        >>> theta, x = jnp.linspace(-2, 2, 12 * 3).reshape(12, 3), jnp.array([-1.0, 2.5, 70.0])
        >>> y, log_det = gaussianization.direct(theta, x)
        >>> bool(abs(gaussianization.inverse(theta, y)[0] - x).max() < 1e-3)
        True
    """
    num = positive_int(num_components, "Gaussianization: num_components", most=10_000)
    bound = positive(bound, "Gaussianization: bound")
    locations = apart(num, 2 * (num - 1) / (num + 0.5))
    weights = [-0.5 * m * m for m in locations]

    def parts(theta: Array) -> Mixture:
        log_weight = jax.nn.log_softmax(theta[:num] + along(weights, theta), axis=0)
        log_rate = -math.log(WIDTH) - soft_clip(theta[2 * num :], bound)
        return Mixture(log_weight, log_rate, -jnp.exp(log_rate) * (theta[num : 2 * num] + along(locations, theta)))

    # Far out y^2 is 2 |v|, and v the slowest rate times x, to the last digit; v itself may overflow.
    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        mixture, far = parts(theta), jnp.abs(x) > FAR
        v, log_slope = log_odds(mixture, jnp.where(far, 0.0, x))
        y = normal_of_logistic(v)
        size, log_rate = jnp.where(far, jnp.abs(x), 1.0), slowest(mixture)
        root = jnp.sign(x) * jnp.sqrt(size) * jnp.exp(0.5 * (log_rate + math.log(2)))
        log_root_slope = 0.5 * (log_rate - math.log(2) - jnp.log(size))
        return jnp.where(far, root, y), jnp.where(far, log_root_slope, log_slope + log_normal_slope(v, y))

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        mixture, far = parts(theta), jnp.abs(y) > ROOT_FAR
        near = quantile(mixture, logistic_of_normal(jnp.where(far, 0.0, y)))
        size = jnp.where(far, y, 1.0)
        square = size * jnp.abs(0.5 * size * jnp.exp(-slowest(mixture)))
        x = jnp.where(far, square, near)
        return x, -direct(theta, x)[1]

    return 3 * num, direct, inverse


def slowest(mixture: Mixture) -> Array:
    """The least log-rate."""
    # Not .min(0): its gradient looks for the equal entries. If both are computed apart, rounding may leave none: 0 / 0 is NaN.
    return fold(jnp.minimum, mixture.log_rate, jnp.inf)[0]


@jax.custom_jvp
def excess(t: Array) -> Array:
    """e(t) = phi(t) / Phi(-t) - t for t >= 0: the hazard of the normal distribution, over its asymptote.

    The derivative of log(t + e) is e itself, so no other function is needed: -log Phi(-t) is
    t^2 / 2 + log sqrt(2 pi) + log(t + e), without cancellation, however large t is.
    """
    near, far = jnp.minimum(t, SPLIT), jnp.maximum(t, SPLIT)
    direct = jnp.exp(-0.5 * near * near - LOG_ROOT_2_PI) / (0.5 * lax.erfc(near * math.sqrt(0.5))) - near
    fraction = 0.5 * (far + jnp.sqrt(far * far + (4 * TERMS + 2)))  # 1 / (t + 2 / (t + 3 / (t + ...)))
    for k in range(TERMS, 1, -1):
        fraction = far + k / fraction
    return jnp.where(t < SPLIT, direct, 1 / fraction)


@excess.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (t,), e = primals, excess(*primals)
    return e, (e * (t + e) - 1) * tangents[0]


def minus_log_tail(t: Array) -> Array:
    """-log Phi(-t) for t >= 0."""
    return t * (0.5 * t) + LOG_ROOT_2_PI + jnp.log(t + excess(t))


@jax.custom_jvp
def normal_of_logistic(v: Array) -> Array:
    """The y with Phi(y) = sigmoid(v)."""
    size = jnp.abs(v)
    target = softplus(size)
    above_half = size + jnp.log1p(0.5 * jnp.expm1(-size))  # target - log 2
    slope = math.sqrt(2 / math.pi)  # of -log Phi(-t) at 0; t^2 / 2 + slope t is close enough everywhere to start
    largest = float(jnp.finfo(v.dtype).max) / 8
    start = jnp.minimum(above_half, largest)
    t = start / (slope / 2 + jnp.sqrt(slope * slope / 4 + 0.5 * start))
    for _ in range(3):  # Halley's steps: the derivatives are h = t + e and h e
        h, change = t + excess(t), minus_log_tail(t) - target
        t = jnp.maximum(t - change / (h - 0.5 * change * (h - t)), 0.0)
    t = jnp.where(size < largest, t, math.sqrt(2) * jnp.sqrt(size))
    return jnp.where(v < 0, -t, t)


@normal_of_logistic.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (v,), y = primals, normal_of_logistic(*primals)
    return y, jnp.exp(log_normal_slope(v, y)) * tangents[0]


def log_normal_slope(v: Array, y: Array) -> Array:
    """log dy/dv where Phi(y) = sigmoid(v)."""
    return -softplus(-jnp.abs(v)) - jnp.log(jnp.abs(y) + excess(jnp.abs(y)))


def logistic_of_normal(y: Array) -> Array:
    """The v with sigmoid(v) = Phi(y): log Phi(y) - log Phi(-y)."""
    t = jnp.where(y < 0, -y, y)
    tail = minus_log_tail(t)
    v = tail + jnp.log1p(-jnp.exp(-tail))
    return jnp.where(y < 0, -v, v)
