"""Bases whose parameters a network makes of the context alone."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from flows.bijections.engine import conditioned
from flows.conditioners.network import running
from flows.core import FlowsError, Shape, naming


def conditional(
    name: str, net: Any, outputs: Callable[[Shape], int], of_network: Callable, log_density: Callable, draw: Callable
) -> Callable:
    """The init_fun of a base: `outputs(shape)` are how many numbers the network makes, of which `of_network(raw, shape)` (rows,
    outputs) makes theta, `log_density(theta, x)` is (rows,) and `draw(theta, rng, n, shape)` (n, *shape)."""

    def make(key, shape, context, given):
        if context is None:
            raise FlowsError(f"{name}: its conditioner makes parameters of a context; give init_fun context_dim=")
        given = given._replace(init_inputs=given.init_context)  # the context is all that its data are
        start, network = running(net, key, (0,), (outputs(shape),), context, given)

        def theta_of(params, context, **call):
            nothing = jnp.zeros((0, context.shape[0]), context.dtype)
            return of_network(network.run(params, nothing, context, **call).T, shape)

        def log_pdf(params, x, **call):
            return log_density(theta_of(params, **call), x)

        def sample(rng, params, num_samples, context):
            return draw(theta_of(params, context), rng, num_samples, shape)

        return start, naming(log_pdf, {"context", *network.keywords}), sample

    return conditioned(net, make)
