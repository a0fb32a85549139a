"""Blocks of features with a separate distribution for each: independent, or each given the blocks before it.

Then the context of a block is the features of the blocks before it as networks see them, block by block, and the context of
the whole. Family: Codes, and blocks of columns."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    Block,
    Composite,
    DistributionInit,
    DistributionLike,
    DistributionPart,
    FlowsError,
    Given,
    Piece,
    Place,
    Region,
    Shape,
    Structure,
    check_layers,
    combinator,
    joined_context,
    laid_out,
    positive_int,
    seen,
    shared,
    size,
    split_key,
)


def side_by_side(
    name: str, values: Sequence[DistributionLike], sizes: Any, order: str, argument: str, example: str
) -> Composite:
    """Return the value of `Joint` or of `ChainRule`.

    Args:
        name, argument, example: the name of the constructor, the name of its argument, and an example of it, for errors.
        values, sizes: the distributions, and how many features each has.
        order: "joint", or "chain rule" where each block depends on the blocks before it.
    """
    check_layers(name, values, DistributionInit, "a distribution")
    word = argument.removesuffix("s")
    if not values:
        raise TypeError(f"{name}: no {argument} were given; expected distributions, {example}")
    widths = [1] * len(values) if sizes is None else list(sizes) if isinstance(sizes, tuple) else [sizes]
    if len(widths) != len(values):
        raise FlowsError(f"{name}: sizes are {sizes} for {len(values)} {argument}; expected one size for each")
    widths = [positive_int(width, f"{name}: a size") for width in widths]
    edges = list(pairwise([0, *np.cumsum(widths).tolist()]))
    places_of_values = enumerate(zip(values, edges, strict=True))
    pieces = tuple(Piece(value, (i,), argument, place=i, features=ends) for i, (value, ends) in places_of_values)
    structure = Structure(order, pieces)

    def compose(event: Shape, context: Shape | None) -> DistributionPart:
        if event != (sum(widths),):
            raise FlowsError(
                f"{name}: the sizes {tuple(widths)} add up to {sum(widths)}, but the event is {event}; give sizes="
            )
        if structure.dependent and len(values) > 1 and context is not None and len(context) > 1:
            raise FlowsError(
                f"{name}: context_dim is {context}, and only a vector can be joined to the features before a block; flatten "
                f"the context, to context_dim={size(context)}"
            )
        places = [Place(f"{word} {i} of {name}", value, (n,)) for i, (value, n) in enumerate(zip(values, widths, strict=True))]
        blocks = laid_out(structure, context, places)
        parts = [block.part for block in blocks]
        for i, block in enumerate(blocks):
            if block.before and "context" not in block.part.keywords:
                raise TypeError(
                    f"{name}: {values[i]!r:.80} takes no context, so {word} {i} cannot depend on the features before it; give "
                    "a conditional one, such as Flow(NSF()) or Normal(conditioner=MLP(32)), or put it next to them with Joint"
                )
        run_each = list(zip(parts, places, edges, strict=True))

        def contexts(x: Array, context: Any) -> list[Any]:
            """Return the context of each block."""
            return [block.context(x, context) for block in blocks]

        data_contexts = jax.jit(contexts)

        def init(key: Array, args: Given) -> tuple:
            old, x = args.params, args.init_inputs
            if old is not None and (not isinstance(old, tuple | list) or len(old) != len(values)):
                raise FlowsError(f"{name}: params are not a tuple of {len(values)}, one for each {word}")
            init_contexts = [None if block.before else args.init_context for block in blocks]
            if structure.dependent and x is not None:
                init_contexts = data_contexts(x, args.init_context)
            params = []
            for i, (part_key, (part, place, (a, b))) in enumerate(zip(split_key(key, len(parts)), run_each, strict=True)):
                block = None if x is None else x[:, a:b]
                with place:
                    part_args = Given(block, init_contexts[i], None if old is None else old[i])
                    params.append(part.init(part_key, part_args))
            return tuple(params)

        def split(rng: Any) -> Any:
            return [None] * len(parts) if rng is None else jax.random.split(rng, len(parts))

        def log_pdf(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
            total = jnp.zeros(x.shape[0], x.dtype)
            runs = zip(run_each, params, contexts(x, context), split(rng), strict=True)
            for (part, place, (a, b)), part_params, block_context, key in runs:
                with place:
                    log_p = part.log_pdf(part_params, x[:, a:b], block_context, key, train)
                if structure.dependent and a:  # an impossible row stays so, whatever a network makes of its first features
                    log_p = jnp.where(jnp.isneginf(total) & ~jnp.isnan(x[:, a:b]).any(1), -jnp.inf, log_p)
                total += log_p
            return total

        def drawn(draw: Callable, rng: Array, params: Any, context: Any) -> list[Any]:
            """`draw(part, key, params, context) -> (x, ...)` of each block, given the draws of the blocks before it."""
            before, draws = list[Array](), list[Any]()
            for i, ((part, place, _), part_params, key) in enumerate(zip(run_each, params, split(rng), strict=True)):
                with place:
                    draws.append(draw(part, key, part_params, joined_context(before, context)))
                if structure.dependent and i + 1 < len(blocks):
                    before.append(seen(blocks[i].region, draws[-1][0]))
            return draws

        def sample(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> Array:
            def draw(part: DistributionPart, key: Array, params: Any, context: Any) -> tuple[Array]:
                return (part.sample(key, params, n, dtype, context),)

            return jnp.concatenate([x for (x,) in drawn(draw, rng, params, context)], axis=1)

        def joint_draw(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> tuple[Array, Array]:
            draws = drawn(lambda part, key, params, context: part.draw(key, params, n, dtype, context), rng, params, context)
            return jnp.concatenate([x for x, _ in draws], axis=1), sum((log_p for _, log_p in draws), jnp.zeros(n, dtype))

        common = shared(parts)
        if structure.dependent and any("init_context" in part.keywords for part in parts[1:]):
            common["keywords"] |= {"init_inputs"}  # features are the context of the blocks after them
        functions: Any = {"log_pdf": log_pdf, "sample": sample, "joint_draw": joint_draw, "region": _joined(blocks)}
        return DistributionPart(name, init, event, context, **common, **functions)

    keywords = frozenset({"init_inputs"}) if structure.dependent else frozenset[str]()
    return Composite(compose, tuple(values), keywords, order=order, pieces=pieces)


def _joined(blocks: Sequence[Block]) -> Region:
    """The regions of blocks one after the other; unit vectors are numbered through."""
    regions = [block.region for block in blocks]
    before = np.cumsum([0, *[region.sphere.max(initial=0) for region in regions]])
    spheres = [np.where(region.sphere > 0, region.sphere + n, 0) for region, n in zip(regions, before, strict=False)]
    joined = Region(*(np.concatenate(fields) for fields in zip(*(region.values() for region in regions), strict=True)))
    return replace(joined, sphere=np.concatenate(spheres))


@combinator(DistributionInit)
def Joint(*bases: DistributionLike, sizes: Sequence[int] | None = None):
    """Independent blocks of features with a separate distribution for each: log p(x) = sum_i log p_i(x_i), in nats.

    For blocks that depend on the blocks before them use `ChainRule`.

    Args:
        bases: distributions; the first is for the first block of features, and so on.
        sizes: how many features each has; one each by default.

    Params:
        A tuple of the params of each; a context reaches all bases that take one.

    Errors:
        TypeError: no bases, or an argument that is not a distribution.
        FlowsError: sizes that are not one whole number for each base, or that do not add up to the event.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Joint(flows.Normal(trainable=True), flows.Uniform(), sizes=(2, 1))
        >>> params, log_pdf, sample = init_fun(0, 3)
        >>> log_pdf(params, jnp.array([[0.0, 0.0, 0.5], [0.0, 0.0, 2.0]])).round(4).tolist()
        [-1.837..., -inf]
    """
    return side_by_side("Joint", bases, sizes, "joint", "bases", "Joint(Normal(), Uniform())")


@combinator(DistributionInit)
def ChainRule(*distributions: DistributionLike, sizes: Sequence[int] | None = None):
    """Blocks of features, each given the blocks before it: log p(x) = sum_k log p_k(x_k | x_<k, context), in nats.

    The context of a block is all features before it, block by block, as networks see them (numbers and coordinates of spheres
    as they are, then angles as cos and sin of 2 pi x / period, then codes one-hot), followed by the context of the call. So
    features of different kinds have one density: for example codes of categories first, then angles, then numbers. Noise that
    an earlier block adds to its features is not shown. The first block sees the context of the call alone. For independent
    blocks use `Joint`.

    Args:
        distributions: the first is for the first block of features, and so on. All but the first take a context:
            `Flow(NSF())`, `MixtureMADE()`, `Normal(conditioner=MLP(32))`.
        sizes: how many features each has; one each by default.

    Params:
        A tuple of the params of each. With `init_inputs`, each starts at its block of features, given the blocks before it.

    Support:
        The supports of the blocks, side by side.

    Errors:
        TypeError: no distributions, an argument that is not one, or one after the first that takes no context.
        FlowsError: sizes that are not one whole number for each, or that do not add up to the event; a context that is not a
            vector.

    Source:
        The chain rule of probability; with blocks of one feature: Larochelle and Murray, "The Neural Autoregressive
        Distribution Estimator", 2011, equation 1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> hours = flows.VonMises(concentration=2.0, period=24.0)
        >>> init_fun = flows.ChainRule(hours, flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4)), sizes=(1, 2))
        >>> params, log_pdf, sample = init_fun(0, 3)
        >>> sample(1, params, 5).shape
        (5, 3)
        >>> x = jnp.array([[1.0, 0.5, -0.5], [25.0, 0.5, -0.5]])         # hours of different days
        >>> bool(jnp.allclose(*log_pdf(params, x), rtol=1e-4))
        True
    """
    return side_by_side(
        "ChainRule", distributions, sizes, "chain rule", "distributions", "ChainRule(Categorical(3), Flow(NSF()))"
    )
