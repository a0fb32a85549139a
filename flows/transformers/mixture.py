"""Mixtures of sigmoids in log space: the transformers of Flow++, of neural autoregressive flows and of Gaussianization flows.
Family: Mixtures and networks."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, positive, positive_int, soft_clip, softplus
from flows.transformers.base import transformer
from flows.transformers.bins import fold
from flows.transformers.solve import solve

LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)
SPLIT, TERMS = 4.0, 24  # from 4 on these terms of the continued fraction are exact to 2e-15
FAR, ROOT_FAR = 1e30, 1e17
WIDTH = 0.31  # scale of logistic components whose mixture is nearest to a normal distribution


class Mixture(NamedTuple):
    """F(x) = sum_k w_k sigmoid(rate_k x + shift_k); each entry is (K, *x.shape), and the weights w_k sum to 1."""

    log_weight: Array
    log_rate: Array
    shift: Array


def log_odds(mixture: Mixture, x: Array) -> tuple[Array, Array]:
    """v = logit F(x) and log dv/dx, without cancellation however far out x is.

    Split off u = min_k rate_k x, the argument of the slowest component, linear in x. The rest is logarithms of sums of moderate
    terms: for x > 0, log F = log sum_k w_k e^-h_k and log(1 - F) = -u + log sum_k w_k e^(-h_k - d_k) with
    d_k = rate_k x + shift_k - u and h_k = softplus(-u - d_k); for x < 0 mirrored. The slope of v is the slope of log F times
    1 + e^v, or the slope of -log(1 - F) times 1 + e^-v.
    """
    largest = float(jnp.finfo(x.dtype).max)
    at, side, rate = jnp.clip(x, -largest, largest), jnp.where(x > 0, 1.0, -1.0), jnp.exp(mixture.log_rate)
    slowest = lax.stop_gradient(rate.min(0))  # v does not depend on what is split off, so its derivative is not needed
    u, d = slowest * at, (rate - slowest[None]) * at[None] + mixture.shift
    h = softplus(-side[None] * (u[None] + d))
    full, empty = mixture.log_weight - h, mixture.log_weight - h - side[None] * d  # the terms of the tails behind and ahead
    log_full, log_empty = log_sum_exp(full), log_sum_exp(empty)
    v = u + side * (log_full - log_empty)
    log_slope = log_sum_exp(empty - h + mixture.log_rate) - log_empty + softplus(-side * v)
    return jnp.where(jnp.isinf(x), x, v), log_slope


def quantile(mixture: Mixture, v: Array) -> Array:
    """The x with logit F(x) = v. It lies between the x of single components, (v - shift_k) / rate_k."""
    largest = float(jnp.finfo(v.dtype).max)
    single = jnp.clip((v[None] - mixture.shift) * jnp.exp(-mixture.log_rate), -largest, largest)  # 0 times inf would be NaN
    slack = 8 * jnp.finfo(v.dtype).eps * (jnp.abs(v)[None] + jnp.abs(mixture.shift)) * jnp.exp(-mixture.log_rate)
    start = (jnp.exp(mixture.log_weight) * single).sum(0)
    return solve(lambda x: log_odds(mixture, x), v, (single - slack).min(0), (single + slack).max(0), start)


def log_sum_exp(terms: Array) -> Array:
    """log sum_k exp(terms_k) along the first axis."""
    most = lax.stop_gradient(terms.max(0))
    return jnp.log(jnp.exp(terms - most[None]).sum(0)) + most


def apart(num: int, most: float) -> list[float]:
    """Offsets from -most to most. Components that start equal would get equal gradients, and stay equal."""
    return [most * (2 * k + 1 - num) / max(num - 1, 1) for k in range(num)]


def along(values: list[float], x: Array) -> Array:
    return jnp.asarray(values, x.dtype).reshape(-1, *[1] * (x.ndim - 1))


@transformer(shared=True)
def MixtureCDF(num_components: int = 8, bound: float = 7.0):
    """The log-odds of a mixture of logistic distributions, then a scale and a shift: the transformer of Flow++.

    F(x) = sum_k w_k sigmoid((x - m_k) / s_k) and

        y         = logit(F(x)) exp(a) + b
        log dy/dx = log F'(x) - log F(x) - log(1 - F(x)) + a

    All is computed in log space: both tails are exact, and y is linear in x far out. The inverse is numerical, in a bracket
    that is known in closed form.

    `theta` is (3 num_components + 2, *x.shape): raw weights (a softmax), the m_k and raw log s_k, num_components of each,
    then raw a, and b. The m_k are offset by -1 .. 1, so that the components start apart: at
    theta = 0 y is within 0.21 of x for 8 components, and 0.44 for 2.

    Args:
        num_components: the number of components, at least 1.
        bound: the largest |log s_k| and |a|, in nats: bound tanh(raw / bound). At 7, |x| and |y| up to 1e30 fit float32.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Ho, Chen, Srinivas, Duan and Abbeel, "Flow++: Improving Flow-Based Generative Models with Variational Dequantization
        and Architecture Design", 2019, arXiv:1902.00275, section 3.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> mixture = flows.transformers.MixtureCDF(num_components=4)
        >>> theta, x = jnp.linspace(-2, 2, 14 * 3).reshape(14, 3), jnp.array([-1.0, 2.5, 70.0])
        >>> y, log_det = mixture.direct(theta, x)
        >>> bool(abs(mixture.inverse(theta, y)[0] - x).max() < 1e-4)
        True
    """
    num, bound = positive_int(num_components, "MixtureCDF: num_components", most=10_000), positive(bound, "MixtureCDF: bound")
    offsets = apart(num, 1.0)

    def parts(theta: Array) -> tuple[Mixture, Array, Array]:
        log_rate = -soft_clip(theta[2 * num : 3 * num], bound)
        shift = -jnp.exp(log_rate) * (theta[num : 2 * num] + along(offsets, theta))
        mixture = Mixture(jax.nn.log_softmax(theta[:num], axis=0), log_rate, shift)
        return mixture, soft_clip(theta[3 * num], bound), theta[3 * num + 1]

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        mixture, a, b = parts(theta)
        v, log_slope = log_odds(mixture, x)
        return v * jnp.exp(a) + b, log_slope + a

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        mixture, a, b = parts(theta)
        x = quantile(mixture, (y - b) * jnp.exp(-a))
        return x, -direct(theta, x)[1]

    return 3 * num + 2, direct, inverse


@transformer
def DeepSigmoidal(num_units: int = 8, bound: float = 7.0):
    """The log-odds of a layer of sigmoids: the deep sigmoidal transformer of neural autoregressive flows.

    F(x) = sum_k w_k sigmoid(a_k x + b_k) with a_k > 0, w_k > 0 and sum_k w_k = 1:

        y         = logit(F(x))
        log dy/dx = log F'(x) - log F(x) - log(1 - F(x))

    Layers of them make the deep flow of the paper. It is computed in log space, as `MixtureCDF`; the inverse is numerical.

    `theta` is (3 num_units, *x.shape): raw weights (a softmax), raw log a_k and the b_k, num_units of each. The b_k are offset
    by -1 .. 1, so that the units start apart: at theta = 0 y is within 0.21 of x for 8 units, and 0.44 for 2.

    Args:
        num_units: the number of sigmoids, at least 1.
        bound: the largest |log a_k|, in nats: bound tanh(raw / bound).

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Huang, Krueger, Lacoste and Courville, "Neural Autoregressive Flows", 2018, arXiv:1804.00779, equation 8.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> units = flows.transformers.DeepSigmoidal(num_units=4)
        >>> theta, x = jnp.linspace(-2, 2, 12 * 3).reshape(12, 3), jnp.array([-1.0, 2.5, 70.0])
        >>> y, log_det = units.direct(theta, x)
        >>> bool(abs(units.inverse(theta, y)[0] - x).max() < 1e-4)
        True
    """
    num, bound = positive_int(num_units, "DeepSigmoidal: num_units"), positive(bound, "DeepSigmoidal: bound")
    offsets = apart(num, 1.0)

    def parts(theta: Array) -> Mixture:
        log_weight, shift = jax.nn.log_softmax(theta[:num], axis=0), theta[2 * num :] + along(offsets, theta)
        return Mixture(log_weight, soft_clip(theta[num : 2 * num], bound), shift)

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        return log_odds(parts(theta), x)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        mixture = parts(theta)
        x = quantile(mixture, y)
        return x, -log_odds(mixture, x)[1]

    return 3 * num, direct, inverse


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
