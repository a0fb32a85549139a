"""Importance sampling: a distribution and a target, the weights of draws, and how far they can be trusted."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from flows.core import (
    Array,
    FlowsError,
    as_array,
    as_key,
    check_function,
    holds_tracer,
    joint_draw_of,
    named_by,
    positive_int,
    select,
)
from flows.distributions.draws import functions, sample_with_log_pdf
from flows.distributions.mixture import logsumexp

LEAST_FOR_TAIL = 25  # weights, of which the 5 largest are then the tail
ROUNDING = float(np.sqrt(np.finfo(np.float32).eps))


class Problem:
    """A distribution, a target and a context, and the numbers that objectives are made of."""

    def __init__(self, name: str, distribution: Any, log_density: Callable, context: Any):
        self.log_pdf, self.sample = functions(name, distribution)
        self.distribution = distribution
        check_function(log_density, f"{name}: log_density", "a function of points (n, *event)")
        self.name, self.log_density = name, log_density
        self.names = named_by(log_density, ("context",))
        self.context = None if context is None else as_array(context, f"{name}: context")

    def has_rows(self, n: int) -> bool:
        """Return whether each of n draws has a row of the context."""
        return self.context is not None and self.context.ndim > 1 and len(self.context) == n

    def check_shared(self, n: int) -> None:
        if self.has_rows(n):
            raise FlowsError(
                f"{self.name}: context has a row for each draw, but weights are normalised over the draws of one target; share "
                "one context, and take several with jax.vmap"
            )

    def first_rows(self, m: int, n: int) -> "Problem":
        """The problem of m draws where there were n."""
        context = self.context[jnp.arange(m) % n] if self.context is not None and self.has_rows(n) else self.context
        return Problem(self.name, self.distribution, self.log_density, context)

    def draw(self, params: Any, key: Array, n: int) -> Array:
        return self.sample(key, params, n, **_keywords(self.context))

    def log_q(self, params: Any, x: Array) -> Array:
        return self.log_pdf(params, x, **_keywords(self.context))

    def log_p(self, x: Array) -> Array:
        try:
            log_p = self.log_density(x, **select(self.names, context=self.context))
        except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
            raise TypeError(
                f"{self.name}: log_density cannot be traced by JAX, as gradients and compiling need: write it with jax.numpy, "
                "in place of NumPy, SciPy, or float() and if on its points"
            ) from error
        shape, dtype = getattr(log_p, "shape", None), getattr(log_p, "dtype", float)
        if shape != x.shape[:1] or not jnp.issubdtype(dtype, jnp.floating):
            got = f"{log_p!r:.60}" if shape is None else f"an array of dtype {dtype} and shape {shape}"
            raise FlowsError(
                f"{self.name}: log_density of points of shape {x.shape} is {got}; expected floating numbers of shape "
                f"({len(x)},), one for each point. One that is written for a single point: jax.vmap(log_density)"
            )
        return jnp.asarray(log_p, x.dtype)

    def weighted_draws(self, params: Any, key: Array, n: int) -> tuple[Array, Array]:
        """Draws and log w, both as functions of params."""
        x, log_q = sample_with_log_pdf(key, params, self.distribution, n, context=self.context)
        return x, self.log_p(x) - log_q

    def check_scores(self, estimator: str) -> None:
        """Refuse an estimator that scores a draw again where the distribution bounds its log-density by other draws."""
        joint = joint_draw_of(self.sample)
        if joint is not None and joint.likelihood == "lower bound":
            raise FlowsError(
                f"{self.name}: {estimator} scores each draw again, and the log-density of the distribution is a 'lower bound', "
                'by other draws of its layers; expected reverse_kl with estimator="total", which weighs the path of each draw'
            )

    def paths(self, params: Any, key: Array, n: int) -> tuple[Array, Array, Array]:
        """Draws as functions of params; log w, with a gradient to what the target alone depends on; and d log w / dx."""
        x = self.draw(params, key, n)
        held, keywords = stop_gradient(params), _keywords(stop_gradient(self.context))
        log_w, pull = jax.vjp(lambda x: self.log_p(x) - self.log_pdf(held, x, **keywords), stop_gradient(x))
        return x, log_w, pull(jnp.ones_like(log_w))[0]


def _keywords(context: Any) -> dict[str, Any]:
    return {} if context is None else {"context": context}


def importance_samples(
    params: Any, distribution: Any, log_density: Callable, rng: Any, num_samples: int, *, context: Any = None
) -> tuple[Array, Array]:
    """Draws x of q and log w(x) = log_density(x) - log q(x), in nats: means under p are means under q with weights w.

    Args:
        params: of the distribution.
        distribution: its triple `(params, log_pdf, sample)`.
        log_density: the target.
        rng: key or seed.
        num_samples: draws.
        context: as sample takes it.

    Returns:
        x (num_samples, *event) and log_weights (num_samples,).

    Errors:
        FlowsError and TypeError: as `reverse_kl`.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> distribution = flows.StudentT(trainable=True)(0, 1)
        >>> log_density = lambda x: -0.5 * jnp.square(x[:, 0])
        >>> x, log_w = flows.objectives.importance_samples(distribution.params, distribution, log_density, 0, 10_000)
        >>> round(float((jax.nn.softmax(log_w) * x[:, 0] ** 2).sum()), 1)                       # the variance under p
        1.0
        >>> estimate = flows.objectives.log_normalizer(log_w)                                   # log(2 pi) / 2 = 0.919
        >>> abs(estimate.value - 0.919) < 4 * estimate.standard_error < 0.1
        True
    """
    problem = Problem("importance_samples", distribution, log_density, context)
    return problem.weighted_draws(params, as_key(rng), positive_int(num_samples, "importance_samples: num_samples"))


def importance_weighted_log_pdf(
    params: Any, distribution: Any, x: Any, *, rng: Any, num_inner: int, context: Any = None
) -> Array:
    """log(mean over draws of exp(log_pdf(x, rng))), in nats: log p(x) of a model whose likelihood is a 'lower bound'.

    Its mean rises with the number of draws, towards log p(x). The draws are made one after the other, in the memory of one.

    Args:
        params: of the distribution.
        distribution: its triple `(params, log_pdf, sample)`.
        x: points, (batch, *event).
        rng: key or seed.
        num_inner: draws for each point.
        context: as log_pdf takes it.

    Returns:
        (batch,), in nats.

    Errors:
        FlowsError: num_inner below 1. TypeError: not the triple of a distribution.

    Source:
        Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, arXiv:1509.00519, equation 8.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> model = flows.Flow(flows.Augment(1))
        >>> distribution = model(0, 1)
        >>> x = jnp.array([[0.0]])
        >>> flows.objectives.importance_weighted_log_pdf(distribution.params, distribution, x, rng=1, num_inner=100).shape
        (1,)
    """
    log_pdf, _ = functions("importance_weighted_log_pdf", distribution)
    count = positive_int(num_inner, "importance_weighted_log_pdf: num_inner")
    x, keys = as_array(x, "x"), jax.random.split(as_key(rng), count)
    keywords = {} if context is None else {"context": context}

    def step(total: Array, key: Array) -> tuple[Array, None]:
        return jnp.logaddexp(total, log_pdf(params, x, rng=key, **keywords)), None

    total = log_pdf(params, x, rng=keys[0], **keywords)
    if holds_tracer((params, x, keys, keywords)):
        total, _ = jax.lax.scan(jax.checkpoint(step), total, keys[1:])
    else:  # a loop of a compiled function: a scan would be compiled at every call
        for key in keys[1:]:
            total, _ = step(total, key)
    return total - math.log(count)


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    standard_error: float


def log_normalizer(log_weights: Any) -> Estimate:
    """log(mean(w)), an estimate of log Z in nats, with the standard error std(w) / (sqrt(n) mean(w)).

    Unlike the mean of w it is low in the mean, by half the square of that error. If `pareto_k` is above 0.7, believe neither.

    Args:
        log_weights: (n,), concrete numbers; -inf where p is 0.

    Returns:
        `Estimate(value, standard_error)`; of a single weight the error is inf.

    Errors:
        FlowsError: another shape, NaN, inf, or nothing but -inf. TypeError: weights that are being traced.

    Example:
        >>> import flows, numpy as np
        >>> round(flows.objectives.log_normalizer(np.log([1.0, 3.0])).value, 6)                   # log 2
        0.693147
    """
    log_w = numbers_of(log_weights, "log_normalizer")
    w = np.exp(log_w - log_w.max())
    error = w.std(ddof=1) / (math.sqrt(len(w)) * w.mean()) if len(w) > 1 else math.inf
    return Estimate(float(log_w.max() + np.log(w.mean())), float(error))


def effective_sample_size(log_weights: Any) -> float:
    """(sum w)^2 / sum(w^2): how many draws of p itself would do as well, from 1 to n.

    Draws that never came cannot lower it: see `pareto_k`.

    Args:
        log_weights: (n,), concrete numbers; -inf where p is 0.

    Errors:
        As `log_normalizer`.

    Source:
        Kong, "A Note on Importance Sampling using Standardized Weights", 1992.

    Example:
        >>> import flows, numpy as np
        >>> flows.objectives.effective_sample_size([0.0, 0.0, -np.inf])
        2.0
    """
    log_w = numbers_of(log_weights, "effective_sample_size")
    w = np.exp(log_w - log_w.max())
    return float(w.sum() ** 2 / np.square(w).sum())


def pareto_k(log_weights: Any) -> float:
    """The shape k of the generalized Pareto distribution that the largest weights follow: of w, moments below 1 / k exist.

    Estimates from these weights are reliable below min(1 - 1 / log10(n), 0.7); from 0.5 on the variance of w is infinite, and
    from 1 on so is the mean. The fit is to w - u, for the ceil(min(n / 5, 3 sqrt(n))) = m weights above the next one, u. With
    b = -k / scale for short, the likelihood is largest in k at k(b) = mean(log(1 - b (w - u))); the estimate of b is its mean
    under that likelihood and a prior, on a grid; and k(b) is drawn towards 0.5 with the weight of 10 in m + 10.

    Args:
        log_weights: (n,), 25 or more concrete numbers; -inf where p is 0.

    Returns:
        k; -inf where the largest weights are equal but for rounding, so that there is no tail, and inf where fewer than 5 stand
        out above all others, so that it is too thin to fit.

    Errors:
        As `log_normalizer`, and fewer than 25 weights.

    Source:
        Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto Smoothed Importance Sampling", 2024, arXiv:1507.02646. The fit: Zhang
        and Stephens, "A New and Efficient Estimation Method for the Generalized Pareto Distribution", 2009.

    Example:
        >>> import flows, numpy as np
        >>> u = np.random.default_rng(0).uniform(size=100_000)
        >>> round(flows.objectives.pareto_k(-0.8 * np.log(u)), 1)                               # P(w > t) = t^(-1 / 0.8)
        0.8
    """
    log_w = np.sort(numbers_of(log_weights, "pareto_k"))
    n = len(log_w)
    if n < LEAST_FOR_TAIL:
        raise FlowsError(f"pareto_k: there are {n} weights; expected at least {LEAST_FOR_TAIL}, to have a tail to fit")
    w = np.exp(log_w[-math.ceil(min(n / 5, 3 * math.sqrt(n))) - 1 :] - log_w[-1])
    tail = w[w > w[0]] - w[0]
    if 1 - w[0] < ROUNDING:  # densities in float32 would leave it nothing but their last digits
        return -math.inf
    if len(tail) < 5:
        return math.inf
    m, grid = len(tail), 30 + math.isqrt(len(tail))
    quartile = tail[int(m / 4 + 0.5) - 1]
    b = 1 / tail[-1] + (1 - np.sqrt(grid / (np.arange(grid) + 0.5))) / (3 * quartile)
    b = b[b != 0]

    def k_at(b: Any) -> Any:
        return np.log1p(-np.multiply.outer(b, tail)).mean(-1)

    log_likelihood = m * (np.log(-b / k_at(b)) - k_at(b) - 1)
    posterior = np.exp(log_likelihood - log_likelihood.max())
    k = k_at((b * posterior).sum() / posterior.sum())
    return float((m * k + 10 * 0.5) / (m + 10))


def numbers_of(log_weights: Any, name: str) -> np.ndarray:
    """Log weights in float64."""
    if isinstance(log_weights, jax.core.Tracer):
        raise TypeError(f"{name}: log_weights are being traced; expected numbers: call it outside jit, grad and vmap")
    try:
        log_w = np.asarray(log_weights)
    except ValueError as error:
        raise TypeError(f"{name}: log_weights cannot be read as one array ({error}); expected floating ones, (n,)") from None
    if log_w.ndim != 1 or not len(log_w) or not jnp.issubdtype(log_w.dtype, jnp.floating):
        raise FlowsError(f"{name}: log_weights have dtype {log_w.dtype} and shape {log_w.shape}; expected floating ones, (n,)")
    log_w = log_w.astype(np.float64)
    bad = np.flatnonzero(np.isnan(log_w) | (log_w == np.inf))
    if len(bad):
        raise FlowsError(
            f"{name}: log_weights[{bad[0]}] is {log_w[bad[0]]} ({len(bad)} of {len(log_w)} are NaN or inf); expected numbers, "
            "or -inf where the target has no density"
        )
    if (log_w == -np.inf).all():
        raise FlowsError(f"{name}: all log_weights are -inf: no draw is where the target has density; use a wider proposal")
    return log_w


# Formulas of objectives


def weighted_sum(w: Array, x: Array) -> Array:
    """The sum of w x, in which x may be infinite where w is 0."""
    return jnp.where(w == 0, 0.0, w * x).sum()


def log_mean(log_w: Array) -> Array:
    """log(mean(w)) over the first axis."""
    return logsumexp(log_w) - math.log(len(log_w))


def along(x: Array, slope: Array, c: Array) -> Array:
    """0, with the gradient of sum(c slope x) through x alone."""
    c = c.reshape(c.shape + (1,) * (x.ndim - c.ndim))
    return (stop_gradient(jnp.where(c == 0, 0.0, c * slope)) * (x - stop_gradient(x))).sum()
