"""A conditional distribution whose context may have any units. Family: Given a context."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from flows.bijections.scaling import channel_scale
from flows.core import (
    Array,
    Cdf,
    Composite,
    DistributionInit,
    DistributionLike,
    DistributionPart,
    FlowsError,
    Given,
    Piece,
    Place,
    Shape,
    along,
    check_layers,
    check_structure,
    combinator,
    distribution_part,
    shapes_of,
)

OWN_KEYWORDS = frozenset({"context", "context_dim", "init_context"})  # whatever keywords the distribution names


@combinator(DistributionInit)
def StandardizedContext(distribution: DistributionLike):
    """The distribution, given (context - mean) / std: log p(x | c) = log q(x | (c - mean) / std), in nats.

    Mean and standard deviation of each column of the context (its last axis) are measured from data and not trained. A column
    of zeros and ones stays as it is, so that a context of zeros, which stands for no class (see `flows.one_hot`), stays zeros.

    Args:
        distribution: a conditional distribution, q.

    Params:
        `{"distribution": ..., "fixed": {"mean": (columns,), "std": (columns,)}}`; 0 and 1 without `init_context`. A column that
        never changes keeps std 1.

    Errors:
        FlowsError: no context_dim, or params= of another model. TypeError: an argument that is not a distribution.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.StandardizedContext(flows.Flow(flows.AffineCoupling()))
        >>> context = jnp.array([[1000.0], [3000.0]])
        >>> params, log_pdf, sample = init_fun(0, 2, context_dim=1, init_context=context, init_inputs=jnp.zeros((2, 2)))
        >>> params["fixed"]["std"].tolist()
        [1000.0]
    """
    check_layers("StandardizedContext", (distribution,), DistributionInit, "a distribution")

    def compose(event: Shape, context: Shape | None) -> DistributionPart:
        if context is None:
            raise FlowsError("StandardizedContext: there is no context; give context_dim to init_fun")
        with Place("the distribution of StandardizedContext", distribution, event) as place:
            part, columns = distribution_part(distribution, event, context), context[-1:]

        def init(key: Array, args: Given) -> Any:
            old, rows = args.params, args.init_context
            if old is not None and (not isinstance(old, dict) or set(old) != {"distribution", "fixed"}):
                raise FlowsError('StandardizedContext: params are not its params, {"distribution": ..., "fixed": ...}')
            start = {"mean": jnp.zeros(columns), "std": jnp.ones(columns)}
            if old is not None:
                check_structure(old["fixed"], shapes_of(start), "StandardizedContext: fixed")
            if rows is not None:
                classes = ((rows == 0) | (rows == 1)).all(tuple(range(rows.ndim - 1)))
                fixed = jax.tree.map(partial(jnp.where, classes), start, channel_scale(rows))
                rows = standardized(fixed, rows)
            else:
                fixed = start if old is None else old["fixed"]
            with place:
                params = part.init(key, args._replace(params=old and old["distribution"], init_context=rows))
            return {"distribution": params, "fixed": fixed}

        return given_mapped(part, "StandardizedContext", place, init, by_scale, context)

    pieces = (Piece(distribution, ("distribution",), "distribution"),)
    return Composite(compose, (distribution,), OWN_KEYWORDS, order="context", pieces=pieces)


def standardized(fixed: dict[str, Array], context: Array) -> Array:
    return (context - along(fixed["mean"], context)) / along(fixed["std"], context)


def by_scale(params: Any, context: Array, rng: Any = None, train: bool = False) -> Array:
    return standardized(params["fixed"], context)


def given_mapped(
    part: DistributionPart,
    name: str,
    place: Place,
    init: Callable,
    mapped: Callable,
    context: Shape,
    names: frozenset[str] = frozenset(),
    **fields: Any,
) -> DistributionPart:
    """The part of a distribution, within params["distribution"], that sees `mapped(params, context, rng, train)`, of which
    rng and train are among `names` if it takes them. A context that all rows share is mapped once, unless it draws."""

    def for_rows(context: Array, rows: int) -> Array:
        return context if part.one_context else jnp.broadcast_to(context, (rows, *context.shape[1:]))

    def within(function: Callable) -> Callable:
        def call(params: Any, x: Any, context: Any, *others: Any) -> Any:
            with place:
                return function(params["distribution"], x, for_rows(mapped(params, context), len(x)), *others)

        return call

    def log_pdf(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
        keys = jax.random.split(rng) if rng is not None and "rng" in names else (None, rng)
        with place:
            context = for_rows(mapped(params, context, keys[0], train), len(x))
            return part.log_pdf(params["distribution"], x, context, keys[1], train)

    def drawn(draw: Callable) -> Callable:
        def call(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> Any:
            with place:
                return draw(rng, params["distribution"], n, dtype, for_rows(mapped(params, context), n))

        return call

    def cdf() -> Cdf | None:
        known = None if part.cdf is None else part.cdf()
        if known is None:
            return None
        return Cdf(within(known.tail), within(known.point), known.support, known.known and within(known.known))

    return replace(
        part,
        name=name,
        init=init,
        context=context,
        log_pdf=log_pdf,
        sample=drawn(part.sample),
        joint_draw=drawn(part.draw),
        path=part.path and within(part.path),
        cdf=None if part.cdf is None else cdf,
        embed=mapped,
        one_context=not names & {"rng", "train"},
        keywords=part.keywords | OWN_KEYWORDS | names,
        **fields,
    )
