"""A distribution and a target: what the estimators of divergences share."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from flows.core import Array, FlowsError, as_array, check_function, named_by, select
from flows.distributions.draws import functions, sample_with_log_pdf
from flows.distributions.infinities import logsumexp


class Problem:
    """A distribution, a target and a context, and the numbers that objectives are made of."""

    def __init__(self, name: str, distribution: Any, log_density: Callable, context: Any):
        self.log_pdf, self.sample = functions(name, distribution)
        self.distribution = distribution
        check_function(log_density, f"{name}: log_density", "a function of points (n, *event)")
        self.name, self.log_density = name, log_density
        self.names = named_by(log_density, ("context",))
        self.context = None if context is None else as_array(context, f"{name}: context")

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

    def paths(self, params: Any, key: Array, n: int) -> tuple[Array, Array, Array]:
        """Draws as functions of params; log w, with a gradient to what the target alone depends on; and d log w / dx."""
        x = self.draw(params, key, n)
        held, keywords = stop_gradient(params), _keywords(stop_gradient(self.context))
        log_w, pull = jax.vjp(lambda x: self.log_p(x) - self.log_pdf(held, x, **keywords), stop_gradient(x))
        return x, log_w, pull(jnp.ones_like(log_w))[0]


def _keywords(context: Any) -> dict[str, Any]:
    return {} if context is None else {"context": context}


def mean_of_rows(name: str, values: Array, weights: Any) -> Array:
    """The mean over rows, by their weights if there are any."""
    if weights is None:
        return values.mean()
    w = as_array(weights, "weights").astype(values.dtype)
    if w.shape != values.shape:
        raise FlowsError(f"{name}: weights have shape {w.shape}, expected {values.shape}, one for each row")
    if not isinstance(w, jax.core.Tracer) and not (0 < np.sum(w) < np.inf and np.min(w) >= 0):
        raise FlowsError(f"{name}: weights are to be finite and not negative, with at least one above 0")
    return weighted_sum(w, values) / w.sum()


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
