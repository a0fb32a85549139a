"""A mixture of any distributions. Family: Mixtures and kernels."""

import itertools
import math
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.noise import trains_noise
from flows.core import (
    COLUMN,
    Array,
    Composite,
    DistributionInit,
    DistributionLike,
    DistributionPart,
    FlowsError,
    Given,
    ModelValue,
    Numbers,
    Piece,
    Place,
    Region,
    Shape,
    check_layers,
    check_structure,
    combinator,
    distribution_part,
    numbers,
    positive_int,
    refuse_closures,
    repeated,
    shapes_of,
    shared,
    size,
    split_key,
    stacked,
    unstacked,
)
from flows.distributions.cdf import mixture_cdf
from flows.distributions.draws import in_blocks, size_of_blocks
from flows.distributions.seeding import spread_rows

JITTER = 0.01  # of the data's standard deviation: two components that start at equal rows would stay equal
OWN_KEYWORDS = frozenset({"init_inputs"})  # the start of the components


@combinator(DistributionInit, draws=False)
def Mixture(
    *components: DistributionLike, num_components: int | None = None, weights: Numbers | None = None, trainable: bool = True
):
    """A mixture: log p(x) = logsumexp_k(log w_k + log p_k(x)), in nats. Each sample is drawn from one component.

    Draws are made in blocks of one component, so that a component draws little more than its share of the rows. Fewer than 512
    draws, and draws whose rows may depend on each other, are chosen among n draws of every component.

    Equal components get equal gradients and would stay equal. So every trained leaf called "loc" in the params of a component
    is moved by a standard normal draw from rng. With `init_inputs`, the loc of a base (`Normal`, `Laplace`, ...) starts at one
    of these rows instead, drawn in proportion to its squared distance from the rows drawn before, and moved by a hundredth of
    the standard deviation; its scales start smaller than the scales of all data, by the factor components^(1/d). Conditional
    components differ by their networks' weights.

    Components whose log-det is 'unbiased' get no `rng`, as the log of a sum of estimates would be biased: the mixture is
    'exact', at the cost of their exact log-dets, in training too.

    Args:
        components: distributions of the same event. A single one with `num_components` stands for this many copies with
            separate params, computed together: compile time does not grow with their number.
        num_components: how many copies of the one component.
        weights: positive, with sum 1; equal ones by default.
        trainable: train the weights, from these values; otherwise they stay. Components have their own `trainable`.

    Params:
        `{"components": a tuple of their params, "logits": (components,)}`, weights = softmax(logits); `{"fixed": {"logits":
        ...}}` unless trainable. Copies of one component have its params with a leading axis of num_components.

    Support:
        The smallest box that holds the supports of all components, which are all of the line, or all of the same angles, unit
        vectors or codes.

    Errors:
        TypeError: no components, an argument that is not a distribution, or num_components with several components.
        FlowsError: weights that do not fit or do not sum to 1; a component that adds noise to data (`Dequantize`) and has an
            unbiased log-det; copies that run uncompiled.

    Source:
        The start: Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007, section 2.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Mixture(flows.Normal(), flows.Laplace(), weights=[0.25, 0.75], trainable=False)
        >>> params, log_pdf, sample = init_fun(0, 1)
        >>> log_pdf(params, jnp.zeros((1, 1))).round(4).tolist()                  # log(0.25 * 0.3989 + 0.75 * 0.5)
        [-0.745...]
        >>> flows.Mixture(flows.Normal(trainable=True), num_components=5)(0, 2).params["components"]["loc"].shape
        (5, 2)
    """
    check_layers("Mixture", components, DistributionInit, "a distribution")
    if not components:
        raise TypeError("Mixture: no components were given; expected distributions, Mixture(Normal(trainable=True), ...)")
    if num_components is not None and len(components) > 1:
        raise TypeError(f"Mixture: num_components repeats one component, but {len(components)} were given; leave it out")
    for component in components:
        if isinstance(component, ModelValue) and component.estimates and component.likelihood != "unbiased":
            raise FlowsError(
                f"Mixture: {component!r:.80} needs rng for its noise, but a component gets no rng and an exact log-det. "
                "Put Dequantize before the mixture: Flow(Dequantize(), Mixture(...))"
            )
        if trains_noise(component):
            raise FlowsError(
                f"Mixture: the noise of Dequantize in {component!r:.80} trains, and is of the data, not of a component. Put it "
                "before the mixture: Flow(Dequantize(noise=...), Mixture(...)), or leave noise= out, for uniform noise"
            )
    copies = num_components is not None
    count = positive_int(num_components, "Mixture: num_components", most=10_000) if copies else len(components)
    w = np.full(count, 1 / count) if weights is None else numbers(weights, "Mixture: weights")
    if w.shape != (count,) or not (w > 0).all() or abs(w.sum() - 1) > 1e-4:
        raise FlowsError(f"Mixture: weights are {weights}; expected {count} positive numbers with sum 1")

    def compose(event: Shape, context: Shape | None) -> DistributionPart:
        places = [Place(f"component {i} of Mixture", component, event) for i, component in enumerate(components)]
        parts = []
        for place in places:
            with place, repeated(count if copies else 1):
                parts.append(distribution_part(place.layer, event, context))
        if copies and count > 1:
            refuse_closures(parts[0], f"Mixture: {count} copies of one component are to run as one")
        if copies and not parts[0].compiled:
            raise FlowsError(f"Mixture: {parts[0].name} runs uncompiled; use Mixture(*[component] * {count})")

        def init(key: Array, args: Given) -> dict[str, Any]:
            old = _old_components(args.params, count, copies, trainable)
            keys = split_key(key, count + 1)
            start: Any = ()
            for i, (component_key, params) in enumerate(zip(keys[1:], old, strict=True)):
                with places[0 if copies else i]:
                    start += (parts[0 if copies else i].init(component_key, args._replace(params=params)),)
            if copies:
                start = stacked(start)
            if args.params is not None:
                return {**args.params, "components": start}
            logits = jnp.log(jnp.asarray(w, float))
            rest = {"logits": logits} if trainable else {"fixed": {"logits": logits}}
            return {"components": _apart(keys[0], start, args.init_inputs, count, copies), **rest}

        return _part(init, parts, places, count if copies else None, event, context)

    separate = [Piece(component, ("components", i)) for i, component in enumerate(components)]
    pieces = (Piece(components[0], ("components",), copies=count),) if copies else tuple(separate)
    return Composite(compose, components, OWN_KEYWORDS, order="mixture", pieces=pieces)


def _part(
    init: Any, parts: list[DistributionPart], places: list[Place], copies: int | None, event: Shape, context: Shape | None
) -> DistributionPart:
    """The part of a mixture: of `copies` of parts[0] with stacked params, or of all parts with a tuple of params."""
    count = copies or len(parts)
    exact = [part for part, place in zip(parts, places, strict=True) if getattr(place.layer, "estimates", False)]

    def key_for(part: DistributionPart, key: Any) -> Any:
        return None if part in exact else key

    def on_all(run: Any, params: Any, rng: Any) -> Array:
        """`run(part, params, key)` for every component, stacked."""

        def on_one(i: int, params: Any, key: Any) -> Array:
            with places[i]:
                return run(parts[i], params, key)

        keys = None if rng is None else jax.random.split(rng, count)
        if copies:
            return jax.vmap(partial(on_one, 0), axis_size=count)(params["components"], keys)
        all_keys = [None] * count if keys is None else keys
        return jnp.stack([on_one(i, *pair) for i, pair in enumerate(zip(params["components"], all_keys, strict=True))])

    def logits(params: Any) -> Array:
        return params["logits"] if "logits" in params else params["fixed"]["logits"]

    def log_pdf(params: Any, x: Array, context: Any, rng: Any, train: bool) -> Array:
        log_p = on_all(lambda part, params, key: part.log_pdf(params, x, context, key_for(part, key), train), params, rng)
        return logsumexp(log_p + jax.nn.log_softmax(logits(params))[:, None])

    def sample(rng: Array, params: Any, n: int, dtype: Any, context: Any) -> Array:
        which, noise = jax.random.split(rng)
        component = jax.random.categorical(which, logits(params), shape=(n,))
        size = size_of_blocks(n, count, event) if common["compiled"] and common["independent"] else None
        if size is not None:
            like = jax.ShapeDtypeStruct(event, dtype)

            def draw(i: int, params: Any, key: Array, n: int, context: Any) -> Array:
                with places[i]:
                    return parts[i].sample(key, params, n, dtype, context)

            return in_blocks(draw, params["components"], bool(copies), noise, component, count, size, like, context)
        draws = on_all(lambda part, params, key: part.sample(key, params, n, dtype, context), params, noise)
        return draws[component, jnp.arange(n)]

    common = shared(parts)
    common["keywords"] |= OWN_KEYWORDS
    region = _around(parts)
    cdf = partial(mixture_cdf, parts, copies) if event == COLUMN else None
    return DistributionPart("Mixture", init, event, context, **common, log_pdf=log_pdf, sample=sample, region=region, cdf=cdf)


def logsumexp(x: Array) -> Array:
    """log(sum(exp(x))) over the first axis, with gradients 0 instead of NaN where all terms are -inf."""
    nothing = (x == -jnp.inf).all(0)
    return jnp.where(nothing, -jnp.inf, jax.nn.logsumexp(jnp.where(nothing[None], 0.0, x), axis=0))


def _around(parts: list[DistributionPart]) -> Region | None:
    """The smallest box that holds the regions of all parts; None where a part on the line has no bounds."""
    region = parts[0].region
    if any(part.region is not None and not part.region.same_kind(region) for part in parts):
        raise FlowsError(
            "Mixture: some components live on a circle or a sphere, or are codes or whole numbers, and others are not; "
            "expected the same for all"
        )
    regions = [part.region for part in parts if part.region is not None]
    if region is None or (region.flat and len(regions) < len(parts)):
        return None
    low, high = reduce(np.minimum, [one.low for one in regions]), reduce(np.maximum, [one.high for one in regions])
    return replace(region, low=low, high=high)


def _old_components(params: Any, count: int, copies: bool, trainable: bool) -> list:
    """The params of every component in the params of a mixture; None for each where there are none yet."""
    if params is None:
        return [None] * count
    leaf = "logits" if trainable else "fixed"
    if not isinstance(params, dict) or set(params) != {"components", leaf}:
        raise FlowsError(f'Mixture: params are not the params of this mixture, {{"components": ..., "{leaf}": ...}}')
    if not copies and len(params["components"]) != count:
        raise FlowsError(f"Mixture: params have {len(params['components'])} components, expected {count}")
    components = unstacked(params["components"], count, "Mixture") if copies else list(params["components"])
    logits = jnp.zeros(count)
    check_structure(params[leaf], shapes_of(logits if trainable else {"logits": logits}), "Mixture: the weights")
    return components


@partial(jax.jit, static_argnames=("count", "copies"))
def _apart(key: Array, components: Any, data: Array | None, count: int, copies: bool) -> Any:
    """The components' params with every trained "loc" moved, so that no two are equal."""
    rows_key, jitter_key, *keys = jax.random.split(key, 3 if copies else count + 2)
    rows = None
    if data is not None:
        rows = spread_rows(rows_key, data, count)
        rows += JITTER * jnp.std(data, 0)[None] * jax.random.normal(jitter_key, rows.shape, rows.dtype)
    narrower = 0.0 if data is None else math.log(count) / size(data.shape[1:])
    if copies:
        return _moved(keys[0], components, rows, narrower)
    starts = [None] * count if rows is None else list(rows)
    return tuple(_moved(*one, narrower) for one in zip(keys, components, starts, strict=True))


def _moved(key: Array, params: Any, start: Array | None, narrower: float) -> Any:
    """`params` with the "loc" of a base at `start`, if the shapes agree, and smaller scales, as its share of the data takes
    less room; every other loc in it is moved by a draw."""

    def moved(path: tuple, loc: Array) -> Array:
        names = [getattr(step, "key", None) for step in path]
        if names == ["log_scale"]:
            return loc - narrower
        if names[-1:] != ["loc"] or "fixed" in names:
            return loc
        if start is not None and len(path) == 1 and start.shape == loc.shape:
            return start.astype(loc.dtype)
        return loc + jax.random.normal(jax.random.fold_in(key, next(number)), loc.shape, loc.dtype)

    number = itertools.count()
    return jax.tree_util.tree_map_with_path(moved, params)
