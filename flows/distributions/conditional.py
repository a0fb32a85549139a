"""Bases whose parameters are made by a network from the context alone."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from flows.bijections.engine import conditioned
from flows.conditioners.network import running
from flows.core import FlowsError, Shape, naming


def conditional(
    name: str, net: Any, outputs: Callable[[Shape], int], as_theta: Callable, log_density: Callable, draw: Callable
) -> Callable:
    """The init_fun of a base. `outputs(shape)` is the number of outputs of the network, `as_theta(raw, shape)` makes theta of
    outputs (rows, outputs), `log_density(theta, x)` is (rows,), and `draw(theta, rng, n, shape)` is (n, *shape)."""

    def make(key, shape, context, args):
        if context is None:
            raise FlowsError(f"{name}: its conditioner makes parameters of a context; give init_fun context_dim=")
        args = args._replace(init_inputs=args.init_context)  # the context is all that the network sees
        start, network = running(net, key, (0,), (outputs(shape),), context, args)

        def theta_of(params, context, **call):
            nothing = jnp.zeros((0, context.shape[0]), context.dtype)
            return as_theta(network.run(params, nothing, context, **call).T, shape)

        def log_pdf(params, x, **call):
            return log_density(theta_of(params, **call), x)

        def sample(rng, params, num_samples, context):
            return draw(theta_of(params, context), rng, num_samples, shape)

        return start, naming(log_pdf, {"context", *network.keywords}), sample

    return conditioned(net, make)
