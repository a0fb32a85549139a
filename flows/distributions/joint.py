"""Different distributions for different features."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    Composite,
    DistributionInit,
    DistributionLike,
    DistributionPart,
    FlowsError,
    Given,
    Place,
    Region,
    Shape,
    check_layers,
    combinator,
    distribution_part,
    everywhere,
    positive_int,
    shared,
)


@combinator(DistributionInit)
def Joint(*bases: DistributionLike, sizes: Sequence[int] | None = None):
    """Independent blocks of features, each with a distribution of its own: log p(x) = sum_i log p_i(x_i), in nats.

    Args:
        bases: distributions; the first is that of the first block of features, and so on.
        sizes: how many features each has; one each by default.

    Params:
        A tuple with those of each; a context reaches all that take one.

    Errors:
        TypeError: no bases, or something that is not a distribution.
        FlowsError: sizes that are not one whole number for each base, or that do not add up to the event.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Joint(flows.Normal(trainable=True), flows.Uniform(), sizes=(2, 1))
        >>> params, log_pdf, sample = init_fun(0, 3)
        >>> log_pdf(params, jnp.array([[0.0, 0.0, 0.5], [0.0, 0.0, 2.0]])).round(4).tolist()
        [-1.837..., -inf]
    """
    check_layers("Joint", bases, DistributionInit, "a distribution")
    if not bases:
        raise TypeError("Joint: no bases were given; expected distributions, Joint(Normal(), Uniform())")
    blocks = [1] * len(bases) if sizes is None else list(sizes) if isinstance(sizes, tuple) else [sizes]
    if len(blocks) != len(bases):
        raise FlowsError(f"Joint: sizes are {sizes} for {len(bases)} bases; expected one size for each")
    blocks = [positive_int(each, "Joint: a size") for each in blocks]
    edges = list(pairwise([0, *np.cumsum(blocks).tolist()]))

    def compose(event: Shape, context: Shape | None) -> DistributionPart:
        if event != (sum(blocks),):
            raise FlowsError(f"Joint: the sizes {tuple(blocks)} add up to {sum(blocks)}, but the event is {event}; give sizes=")
        places = [Place(f"base {i} of Joint", *each) for i, each in enumerate(zip(bases, [(n,) for n in blocks], strict=True))]
        parts = []
        for place in places:
            with place:
                parts.append(distribution_part(place.layer, place.event, context))

        def init(key: Array, given: Given) -> tuple:
            old, x = given.params, given.init_inputs
            if old is not None and (not isinstance(old, tuple | list) or len(old) != len(bases)):
                raise FlowsError(f"Joint: params are not a tuple of {len(bases)}, one for each base")
            params = []
            for i, (part, own_key, (a, b)) in enumerate(zip(parts, jax.random.split(key, len(parts)), edges, strict=True)):
                block = None if x is None else x[:, a:b]
                with places[i]:
                    params.append(part.init(own_key, given._replace(init_inputs=block, params=None if old is None else old[i])))
            return tuple(params)

        def split(rng: Any) -> Any:
            return [None] * len(parts) if rng is None else jax.random.split(rng, len(parts))

        def log_pdf(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            total = jnp.zeros(x.shape[0], x.dtype)
            for part, place, own, (a, b), key in zip(parts, places, params, edges, split(rng), strict=True):
                with place:
                    total += part.log_pdf(own, x[:, a:b], context, key, train)
            return total

        def sample(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> Array:
            draws = []
            for part, place, own, key in zip(parts, places, params, split(rng), strict=True):
                with place:
                    draws.append(part.sample(key, own, n, dtype, context))
            return jnp.concatenate(draws, axis=1)

        def joint_draw(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> tuple[Array, Array]:
            draws, total = [], jnp.zeros(n, dtype)
            for part, place, own, key in zip(parts, places, params, split(rng), strict=True):
                with place:
                    x, log_p = part.draw(key, own, n, dtype, context)
                draws.append(x)
                total += log_p
            return jnp.concatenate(draws, axis=1), total

        own: Any = {"log_pdf": log_pdf, "sample": sample, "joint_draw": joint_draw, "region": _beside(parts)}
        return DistributionPart("Joint", init, event, context, **shared(parts), **own)

    return Composite(compose, bases, order="joint")


def _beside(parts: Sequence[DistributionPart]) -> Region:
    """The regions of blocks one after the other; unit vectors are numbered anew."""
    regions = [everywhere(part.event) if part.region is None else part.region for part in parts]
    before = np.cumsum([0, *[region.sphere.max(initial=0) for region in regions]])
    spheres = [np.where(region.sphere > 0, region.sphere + n, 0) for region, n in zip(regions, before, strict=False)]
    low, high, period, classes = (
        np.concatenate([getattr(region, name) for region in regions]) for name in ("low", "high", "period", "classes")
    )
    return Region(low, high, period, np.concatenate(spheres), classes)
