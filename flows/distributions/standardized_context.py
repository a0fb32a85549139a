"""A conditional distribution whose context comes in any units."""

from typing import Any

import jax.numpy as jnp

from flows.bijections.scaling import channel_scale
from flows.core import (
    Array,
    Composite,
    DistributionInit,
    DistributionPart,
    FlowsError,
    Given,
    Shape,
    build_distribution,
    check_layers,
    combinator,
)
from flows.core.numerics import along


@combinator(DistributionInit)
def StandardizedContext(distribution):
    """The distribution, given (context - mean) / std: log p(x | c) = log q(x | (c - mean) / std), in nats.

    Mean and standard deviation of each column of the context (its last axis) are measured from data and not trained.

    Args:
        distribution: a conditional distribution, q.

    Params:
        `{"distribution": ..., "fixed": {"mean": (columns,), "std": (columns,)}}`; 0 and 1 without `init_context`. A column that
        never changes keeps std 1.

    Errors:
        FlowsError: no context_dim, or params= of something else. TypeError: an argument that is not a distribution.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.StandardizedContext(flows.Flow(flows.AffineCoupling()))
        >>> context = jnp.array([[1000.0], [3000.0]])
        >>> params, log_pdf, sample = init_fun(0, 2, context_dim=1, init_context=context, init_inputs=jnp.zeros((2, 2)))
        >>> params["fixed"]["std"].tolist()
        [1000.0]
    """
    check_layers("StandardizedContext", (distribution,), DistributionInit, "a distribution")

    def build(key: Array, event: Shape, given: Given) -> tuple[Any, DistributionPart]:
        if given.context is None:
            raise FlowsError("StandardizedContext: there is no context; give context_dim to init_fun")
        old = given.params
        if old is not None and (not isinstance(old, dict) or set(old) != {"distribution", "fixed"}):
            raise FlowsError('StandardizedContext: params are not its own, {"distribution": ..., "fixed": ...}')
        if given.init_context is not None:
            fixed = channel_scale(given.init_context)
        else:
            columns = given.context[-1:]
            fixed = {"mean": jnp.zeros(columns), "std": jnp.ones(columns)} if old is None else old["fixed"]
        seen = None if given.init_context is None else standardized(fixed, given.init_context)
        inner = given._replace(params=old and old["distribution"], init_context=seen)
        params, part = build_distribution(distribution, key, event, inner)

        def log_pdf(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            return part.log_pdf(params["distribution"], x, standardized(params["fixed"], context), rng, train)

        def sample(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> Array:
            return part.sample(rng, params["distribution"], n, dtype, standardized(params["fixed"], context))

        own = {"distribution": params, "fixed": fixed}
        return own, DistributionPart(
            "StandardizedContext", log_pdf, sample, event, given.context, part.keywords | {"context"}, part.compiled
        )

    return Composite(build, (distribution,), keywords=frozenset({"context_dim", "init_context"}))


def standardized(fixed: dict[str, Array], context: Array) -> Array:
    return (context - along(fixed["mean"], context)) / along(fixed["std"], context)
