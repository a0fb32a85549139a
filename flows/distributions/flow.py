"""A normalizing flow: the distribution that a bijection makes of a base. Family: Flows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.composition import flow_regions
from flows.compose import still
from flows.core import (
    COLUMN,
    Array,
    BijectionInit,
    BijectionLike,
    Composite,
    DistributionInit,
    DistributionLike,
    DistributionPart,
    FlowsError,
    Given,
    Piece,
    Place,
    Shape,
    beyond,
    bijection_part,
    check_layers,
    combinator,
    distribution_part,
    exact_log_dets,
    in_pieces,
    inside,
    shared,
    split_key,
    trainable,
    wrapped,
)
from flows.distributions.cdf import flow_cdf
from flows.distributions.normal import Normal

STANDARD = Normal()  # the default, a value like any other


@combinator(DistributionInit)
def Flow(bijection: BijectionLike, prior: DistributionLike = STANDARD):
    """The distribution of x when y = f(x) follows the base: log p(x) = log p_base(f(x)) + log|det df/dx|, in nats.

    A sample is f^-1 of a sample of the base. A flow is a distribution like any other, so it can be the base of another flow.
    Where f is not defined, outside `flows.support(f, input_dim).inputs`, log p is -inf.

    Args:
        bijection: f, from data to noise.
        prior: the base, a distribution; by default the standard `Normal()`.

    Params:
        `{"bijection": ..., "prior": ...}`, both trained; a context reaches both.

    Support:
        The support of the base, mapped back to x entry by entry. This works through layers without params that act entrywise or
        move entries, and for features that a layer leaves unchanged; otherwise the support is where f is defined.

    Errors:
        FlowsError: params= that are not params of a flow. TypeError: an argument is not a bijection, or not a distribution.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, equation 5.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Flow(flows.AffineCoupling(), flows.Normal())(0, 2)
        >>> log_pdf(params, jnp.zeros((4, 2))).shape, sample(1, params, 3).shape
        ((4,), (3, 2))
    """
    check_layers("Flow", (bijection,), BijectionInit, "a bijection")
    check_layers("Flow: prior", (prior,), DistributionInit, "a distribution")

    def compose(event: Shape, context: Shape | None) -> DistributionPart:
        with Place("the bijection of Flow", bijection, event) as part_place:
            part = bijection_part(bijection, event, context)
        with Place("the prior of Flow", prior, part.output) as base_place:
            base = distribution_part(prior, part.output, context)
        region, lives = flow_regions(bijection, event, context, base.region)
        both = shared((part, base))
        one_context = base.one_context and "context" not in part.keywords

        def init(key: Array, args: Given) -> Any:
            old, keys = args.params, split_key(key)
            if old is not None and (not isinstance(old, dict) or set(old) != {"bijection", "prior"}):
                raise FlowsError('Flow: params are not the params of a flow, {"bijection": ..., "prior": ...}')
            x = args.init_inputs if base.measures else None
            with part_place:
                start = part.init(keys[0], args._replace(params=old and old["bijection"]))
                noise = None if x is None else part.measured_output(start, x, args.init_context, keys[0])
            with base_place:
                base_start = base.init(keys[1], args._replace(init_inputs=noise, params=old and old["prior"]))
            return {"bijection": start, "prior": base_start}

        def everywhere(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            keys = (None, None) if rng is None else jax.random.split(rng)
            with part_place:
                y, log_det = part.direct(params["bijection"], x, None if one_context else context, keys[0], train)
            with base_place:
                return base.log_pdf(params["prior"], y, context, keys[1], train) + log_det

        def whole(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            if region is None:
                return everywhere(params, x, context, rng, train)
            axes = tuple(range(1, x.ndim))
            outside, ends = beyond(region, x), [np.where(region.sphere > 0, np.nan, end)[None] for end in region]
            at_ends = (x == ends[0]) | (x == ends[1])
            # Points outside are replaced by one inside, as f is not defined there and gradients would be NaN.
            within = jnp.where(outside, inside(region, jnp.zeros(event, x.dtype))[None], x)
            log_p = everywhere(params, within, context, rng, train)
            nothing = outside.any(axes) | (at_ends.any(axes) & jnp.isnan(log_p))  # an infinite slope at an end, without mass
            return jnp.where(nothing & ~jnp.isnan(x).any(axes), -jnp.inf, log_p)

        def log_pdf(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            if train or rng is not None or not (both["compiled"] and both["independent"]):
                return whole(params, x, context, rng, train)
            if one_context and context is not None and len(context) == 1:  # for all rows, so for all pieces
                return in_pieces(lambda params, x, _: whole(params, x, context, None, False), params, x, None)
            return in_pieces(lambda params, x, context: whole(params, x, context, None, False), params, x, context)

        def backwards(function: Callable, key: Array, params: Any, y: Array, context: Any) -> Any:
            """`part.inverse` or `part.invert` of noise, row by row unless the part draws. Densities of draws are exact: the key
            does not turn a log-det into an estimate."""
            context = None if one_context else context
            if not (part.compiled and part.independent) or "inverse" in part.draws:
                with exact_log_dets():
                    return function(params, y, context, key, False)

            def without_key(params: Any, y: Array, context: Any) -> Any:
                return function(params, y, context, None, False)

            return in_pieces(without_key, params, y, context, event=event)  # y may be flat where x are images

        def sample(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> Array:
            keys = jax.random.split(rng)
            with base_place:
                y = base.sample(keys[0], params["prior"], n, dtype, context)
            with part_place:
                return wrapped(region, backwards(part.inverse, keys[1], params["bijection"], y, context))

        def joint_draw(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> tuple[Array, Array]:
            keys = jax.random.split(rng)
            with base_place:
                y, log_p = base.draw(keys[0], params["prior"], n, dtype, context)
            with part_place:
                x, log_det = backwards(part.invert, keys[1], params["bijection"], y, context)
            return wrapped(region, x), log_p - log_det

        def path(params: Any, x: Array, context: Any, rng: Array) -> tuple:
            keys = jax.random.split(rng)
            if part.path is None:
                y = still(part, params["bijection"], x, context, keys[0])
                return base.path(params["prior"], y, context, keys[1])  # type: ignore[misc]
            if any(jax.tree.leaves(trainable(params["prior"]))):
                raise FlowsError(f"flow_matching: the base {prior!r:.60} trains; expected one that stays, such as Normal()")
            y, velocity = part.path(params["bijection"], x, context, keys[0])
            return y, velocity, lambda key: base.sample(key, params["prior"], y.shape[0], y.dtype, context)

        functions: Any = {"log_pdf": log_pdf, "sample": sample, "joint_draw": joint_draw, "region": lives}
        functions["one_context"] = one_context
        functions["path"] = path if part.path or base.path else None
        functions["cdf"] = partial(flow_cdf, bijection, part, base) if event == COLUMN else None
        return DistributionPart("Flow", init, event, context, **both, **functions)

    pieces = Piece(bijection, ("bijection",), "bijection"), Piece(prior, ("prior",), "prior")
    return Composite(compose, (bijection, prior), order="flow", pieces=pieces)
