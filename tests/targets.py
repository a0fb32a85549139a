"""Densities to sample from, and objectives on a distribution in which all can be worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

from flows import objectives

LOG_Z = 1.3
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
ESTIMATORS = {
    "reverse_kl": ("total", "sticking_the_landing", "path", "score"),
    "forward_kl": ("score", "path"),
    "importance_weighted_bound": ("total", "doubly_reparameterized"),
}


def gaussian(d):
    """Independent normals around loc + context, as a plain triple in which all can be worked out by hand."""

    def loc(params, context):
        return params["loc"][None] + (jnp.zeros((1, d)) if context is None else context.reshape(-1, d))

    def log_pdf(params, inputs, context=None):
        z = (inputs - loc(params, context)) / params["scale"][None]
        return -(0.5 * z**2 + jnp.log(params["scale"])[None] + HALF_LOG_2PI).sum(1)

    def sample(rng, params, num_samples=1, context=None):
        noise = jax.random.normal(rng, (num_samples, d), params["scale"].dtype)
        return loc(params, context) + params["scale"][None] * noise

    params = {"loc": np.zeros(d, np.float32), "scale": np.ones(d, np.float32)}
    return params, jax.jit(log_pdf), jax.jit(sample, static_argnums=2)


GAUSSIAN = gaussian(2)


def standard(x):
    """The standard normal, times Z."""
    return LOG_Z - (0.5 * x**2 + HALF_LOG_2PI).sum(1)


def objective(name, n, inner=None, distribution=GAUSSIAN, target=standard, **given):
    """`loss(params, key)` with n draws, and inner ones where the objective takes them."""
    numbers = (n, inner) if name == "importance_weighted_bound" else (n,)
    return lambda params, key: getattr(objectives, name)(params, distribution, target, key, *numbers, **given)


def evaluated(loss, params, key=0):
    return jax.jit(jax.value_and_grad(loss))(params, jax.random.key(key))


def mixture(x):
    return jnp.logaddexp(standard(x - 2) + math.log(0.3), standard(x + 1) + math.log(0.7))


def normal(x, mean, scale):
    return -0.5 * ((x - mean) / scale) ** 2 - jnp.log(scale) - HALF_LOG_2PI


def funnel(x):
    """Neal's, with a neck half as long."""
    return normal(x[:, 0], 0.0, 1.5) + normal(x[:, 1], 0.0, jnp.exp(x[:, 0] / 2)) - 2


def banana(x):
    return normal(x[:, 0], 0.0, 1.5) + normal(x[:, 1], 0.5 * x[:, 0] ** 2, 0.7) + 3


def wells(x):
    return (-(x**4) + 6 * x**2 + 0.5 * x).sum(1)


def well(x):
    return np.exp(-(x**4) + 6 * x**2 + 0.5 * x)


TARGETS = {
    "mixture": (mixture, LOG_Z),
    "funnel": (funnel, -2.0),
    "banana": (banana, 3.0),
    "many-well": (wells, 2 * math.log(integrate.quad(well, -5, 5, points=[-1.7, 1.7])[0])),
}
