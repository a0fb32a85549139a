"""Mixtures of sigmoids in log space: the transformers of Flow++ and of neural autoregressive flows.
Family: Mixtures and networks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flows.core import Array, positive, positive_int, soft_clip, softplus
from flows.transformers.base import transformer
from flows.transformers.solve import solve


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
