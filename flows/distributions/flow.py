"""A normalizing flow: the distribution that a bijection makes of a prior."""

from typing import Any

import jax

from flows.core import (
    Array,
    BijectionInit,
    Composite,
    DistributionInit,
    DistributionPart,
    FlowsError,
    Given,
    Shape,
    build_bijection,
    build_distribution,
    check_layers,
    combinator,
    in_pieces,
    init_keywords,
    measured_output,
)
from flows.distributions.normal import Normal


@combinator(DistributionInit)
def Flow(bijection, prior=None):
    """The distribution of x when y = f(x) follows the prior: log p(x) = log p_prior(f(x)) + log|det df/dx|, in nats.

    A sample is f^-1 of a sample of the prior. A flow is a distribution like any other, and so can be the prior of a flow.

    Args:
        bijection: f, from data to noise.
        prior: a distribution; by default `Normal()`.

    Params:
        `{"bijection": ..., "prior": ...}`, both trained; a context reaches both.

    Errors:
        FlowsError: params= are not those of a flow. TypeError: an argument is not a bijection, or not a distribution.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, equation 5.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Flow(flows.AffineCoupling(), flows.Normal())(0, 2)
        >>> log_pdf(params, jnp.zeros((4, 2))).shape, sample(1, params, 3).shape
        ((4,), (3, 2))
    """
    prior = Normal() if prior is None else prior
    check_layers("Flow", (bijection,), BijectionInit, "a bijection")
    check_layers("Flow: prior", (prior,), DistributionInit, "a distribution")

    def build(key: Array, event: Shape, given: Given) -> tuple[Any, DistributionPart]:
        old = given.params
        if old is not None and (not isinstance(old, dict) or set(old) != {"bijection", "prior"}):
            raise FlowsError('Flow: params are not those of a flow, {"bijection": ..., "prior": ...}')
        keys = jax.random.split(key)
        params, part = build_bijection(bijection, keys[0], event, given._replace(params=old and old["bijection"]))
        x = given.init_inputs if "init_inputs" in init_keywords(prior) else None
        noise = None if x is None else measured_output(part, params, x, given.init_context, keys[0])
        of_prior = given._replace(init_inputs=noise, params=old and old["prior"])
        prior_params, prior_part = build_distribution(prior, keys[1], part.output, of_prior)

        compiled = part.compiled and prior_part.compiled

        def whole(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            keys = (None, None) if rng is None else jax.random.split(rng)
            y, log_det = part.direct(params["bijection"], x, context, keys[0], train)
            return prior_part.log_pdf(params["prior"], y, context, keys[1], train) + log_det

        def log_pdf(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            if train or rng is not None or not compiled:  # then rows may depend on each other, or are not traced
                return whole(params, x, context, rng, train)
            return in_pieces(lambda params, x, context: whole(params, x, context, None, False), params, x, context)

        def sample(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> Array:
            keys = jax.random.split(rng)
            y = prior_part.sample(keys[0], params["prior"], n, dtype, context)
            return part.inverse(params["bijection"], y, context, keys[1], False)

        return {"bijection": params, "prior": prior_params}, DistributionPart(
            "Flow",
            log_pdf,
            sample,
            event,
            given.context,
            part.keywords | prior_part.keywords,
            compiled,
        )

    return Composite(build, (bijection, prior))
