"""Layers that draw: numbers that join or leave, signs and orders that are lost. Family: Surjections."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners import MLP
from flows.conditioners.base import as_network, check_conditioner
from flows.core import (
    POSITIVE,
    REAL,
    Array,
    BijectionInit,
    BijectionPart,
    Composite,
    ConditionerLike,
    DistributionInit,
    DistributionLike,
    DistributionPart,
    FlowsError,
    Given,
    Place,
    Region,
    Shape,
    Support,
    as_dim,
    as_surjection,
    check_layers,
    combinator,
    distribution_part,
    everywhere,
    joined_context,
    positive_int,
    shared,
    split_key,
    structure_of,
    support_by,
    surjection,
)
from flows.distributions.normal import Normal

BY_NETWORK = Normal(conditioner=MLP(64, 64))  # of the numbers that join or leave, by default


@combinator(
    BijectionInit,
    likelihood="lower bound",
    ways=frozenset({"direct"}),
    support=lambda size, noise: Support(places=lambda d: [-1] * size + [*range(d)]),
)
def Augment(size: int, noise: DistributionLike = BY_NETWORK):
    """Numbers that join in front: z = (u, x), u drawn from q(u | x); log_weight = -log q(u | x), in nats.

    A flow of z then has more room than a flow of x. log p(x) is at least the mean of log p(u, x) - log q(u | x), and its gap is
    KL(q(u | x) || p(u | x)). The inverse leaves u out.

    Args:
        size: how many numbers join.
        noise: q, a distribution of `size` numbers, given x, and the context where there is one.

    Params:
        {"noise": ...}, the params of q.

    Cost:
        Direct: a draw of q with its density. Inverse: O(d); with its log-weight, a density of q.

    Errors:
        FlowsError: size below 1, an event that is not a vector, params of another model. TypeError: noise is not a
            distribution.

    Source:
        Huang, Dinh and Courville, "Augmented Normalizing Flows", 2020, arXiv:2002.07101, section 3; Chen, Lu, Chenli, Zhu and
        Tian, "VFlow", 2020, arXiv:2002.09741, section 3.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Augment(2, flows.Normal())(0, 3)
        >>> z, log_weight = direct_fun(params, jnp.ones((4, 3)), rng=1)
        >>> z.shape, inverse_fun(params, z)[0].shape
        ((4, 5), (4, 3))
    """
    count = positive_int(size, "Augment: size")
    check_layers("Augment: noise", (noise,), DistributionInit, "a distribution")

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        q, place, init = conditional_part("Augment", "noise", noise, count, event, event[-1], context, lambda x: (None, x))

        def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            with place:
                u, log_q = q.draw(rng, params["noise"], x.shape[0], x.dtype, joined_context([x], context))
            return jnp.concatenate([u, x], 1), -log_q

        def inverse(params: Any, z: Array, context: Any, rng: Any, train: bool) -> Array:
            return z[:, count:]

        def pair(params: Any, z: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            x = z[:, count:]
            with place:
                return x, q.log_pdf(params["noise"], z[:, :count], joined_context([x], context), None, train)

        return drawing("Augment", q, init, event, context, {"direct"}, direct, inverse, (event[0] + count,), pair)

    return Composite(part, (noise,))


def _places(keep: int, rest: Any, first: bool) -> Support:
    """Where numbers that leave have to live: in the region of their distribution."""

    def stays(count: int) -> range:
        return range(keep) if first else range(count - keep, count)

    if not isinstance(rest, DistributionInit) or (support_by(rest) == Support() and not structure_of(rest).pieces):
        return Support(places=stays)

    def region(event: Shape) -> Region:
        leaves, line = (event[-1] - keep,), everywhere((keep,))
        there = distribution_part(rest, leaves, (keep,)).region or everywhere(leaves)
        pair = (line, there) if first else (there, line)
        return Region(*(np.concatenate(fields) for fields in zip(*(part.values() for part in pair), strict=True)))

    return Support(region, places=stays)


@combinator(BijectionInit, ways=frozenset({"inverse"}), support=_places)
def Slice(keep: int, rest: DistributionLike = BY_NETWORK, first: bool = True):
    """Numbers that leave: z = x[:keep]; log_weight = log r(x[keep:] | z), in nats, exact.

    The numbers that leave follow the distribution r, given those that stay; the inverse draws them.

    Args:
        keep: how many numbers stay.
        rest: r, a distribution of the others, given those that stay, and the context where there is one.
        first: the first numbers stay; otherwise the last.

    Params:
        {"rest": ...}, the params of r.

    Cost:
        Direct: a density of r. Inverse: a draw of r.

    Errors:
        FlowsError: an event that is not a vector of more than `keep` numbers, params of another model. TypeError: rest is
            not a distribution.

    Source:
        Nielsen, Jaini, Hoogeboom, Winther and Welling, "SurVAE Flows", 2020, arXiv:2007.02731, table 1 and section 3.1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Slice(1, flows.Normal())(0, 3)
        >>> z, log_weight = direct_fun(params, jnp.zeros((1, 3)))
        >>> z.shape, log_weight.round(3).tolist(), inverse_fun(params, z, rng=1)[0].shape
        ((1, 1), [-1.838...], (1, 3))
    """
    count = positive_int(keep, "Slice: keep")
    check_layers("Slice: rest", (rest,), DistributionInit, "a distribution")

    def divided(x: Array) -> tuple[Array, Array]:
        """The numbers that leave, and those that stay."""
        return (x[:, count:], x[:, :count]) if first else (x[:, :-count], x[:, -count:])

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        if len(event) == 1 and event[0] <= count:
            raise FlowsError(f"Slice: keep is {count}, of an event of {event[0]}; expected fewer, so that numbers leave")
        left = event[-1] - count
        r, place, init = conditional_part("Slice", "rest", rest, left, event, count, context, divided)

        def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            leaves, z = divided(x)
            with place:
                return z, r.log_pdf(params["rest"], leaves, joined_context([z], context), rng, train)

        def whole(z: Array, leaves: Array) -> Array:
            return jnp.concatenate([z, leaves] if first else [leaves, z], 1)

        def inverse(params: Any, z: Array, context: Any, rng: Any, train: bool) -> Array:
            with place:
                return whole(z, r.sample(rng, params["rest"], z.shape[0], z.dtype, joined_context([z], context)))

        def pair(params: Any, z: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            with place:
                leaves, log_r = r.draw(rng, params["rest"], z.shape[0], z.dtype, joined_context([z], context))
            return whole(z, leaves), -log_r

        return drawing("Slice", r, init, event, context, {"inverse"}, direct, inverse, (count,), pair)

    return Composite(part, (rest,))


def conditional_part(
    name: str, at: str, value: Any, count: int, event: Shape, known: int, context: Shape | None, divided: Callable
) -> tuple[DistributionPart, Place, Callable]:
    """The part of a distribution of `count` numbers given `known` others, its place, and the init of the layer."""
    if len(event) != 1:
        raise FlowsError(f"{name}: the event is {event}; expected a vector: put Reshape() first")
    if context is not None and len(context) != 1:
        raise FlowsError(f"{name}: context_dim is {context}; expected a vector, or EmbeddedContext around the model")
    with Place(f"the {at} of {name}", value, (count,)) as place:
        q = distribution_part(value, (count,), (known + (context or (0,))[0],))

    def init(key: Array, args: Given) -> Any:
        x, c, old = args
        if old is not None and (not isinstance(old, dict) or set(old) != {at}):
            raise FlowsError(f'{name}: params are not its params, {{"{at}": ...}}')
        keys, data = split_key(key), Given(params=old and old[at])
        if x is not None:
            points, others = divided(x)
            points = jax.random.normal(keys[0], (len(x), count), x.dtype) if points is None else points
            data = data._replace(init_inputs=points, init_context=joined_context([others], c))
        with place:
            return {at: q.init(keys[1], data)}

    return q, place, init


def drawing(
    name: str, q: DistributionPart, init: Callable, event: Shape, context: Shape | None, ways: set[str], *functions: Any
) -> BijectionPart:
    facts = shared((q,))
    facts |= {"draws": q.draws & {"direct"} | ways, "keywords": facts["keywords"] | {"rng"}}
    return as_surjection(BijectionPart(name, init, event, context, **facts, **dict(zip(FUNCTIONS, functions, strict=True))))


FUNCTIONS = "direct", "inverse", "output", "native_inverse"


@surjection(draws="inverse", support=Support(REAL, POSITIVE))
def Abs(sign: ConditionerLike | None = None):
    """Absolute values: z = |x|; log_weight = sum(log P(sign of x | z)), in nats, exact.

    Signs follow a fair coin, log_weight = -d log 2, or P(x > 0 | z) = sigmoid(h(z)) by a network h. The inverse draws
    them. A flow of symmetric data needs to learn but a half of it.

    Args:
        sign: h, a conditioner `net(rng, input_dim, output_dim)`; None for a coin.

    Params:
        The params of h; none with a coin.

    Support:
        Outputs: (0, inf) each; an x of 0 has an output at its end.

    Cost:
        Direct and inverse: O(d), and the network.

    Errors:
        TypeError: sign is not a conditioner.

    Source:
        Nielsen, Jaini, Hoogeboom, Winther and Welling, "SurVAE Flows", 2020, arXiv:2007.02731, section 3.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Abs()(0, 2)
        >>> z, log_weight = direct_fun(params, jnp.array([[-3.0, 2.0]]))
        >>> z.tolist(), log_weight.round(3).tolist()
        ([[3.0, 2.0]], [-1.386...])
    """
    net = None if sign is None else check_conditioner(sign, "Abs: sign")

    def init_fun(rng, shape):
        params, h = ({}, None) if net is None else as_network(net(rng, as_dim(shape), as_dim(shape)), f"{sign!r:.80}")

        def logits(params, z):
            return jnp.zeros_like(z) if h is None else h(params, z[None])[0]

        def direct_fun(params, x):
            z, signs = jnp.abs(x), jnp.where(x < 0, -1.0, 1.0).astype(x.dtype)
            return z, jax.nn.log_sigmoid(signs * logits(params, z)).sum()

        def inverse_fun(params, z, rng):
            above = jax.random.uniform(rng, z.shape, z.dtype) < jax.nn.sigmoid(logits(params, z))
            return jnp.where(above, z, -z)

        return params, direct_fun, inverse_fun

    return init_fun


@surjection(draws="inverse")
def Sort():
    """The least entry, then logarithms of gaps: z_1 = x_(1), z_k = log(x_(k) - x_(k-1)), x_(1) < ... < x_(d) the sorted x.

    log_weight = -sum(z_2 .. z_d) - log d!, in nats, exact: each order of the entries is as likely as another, and the inverse
    draws it. It serves rows whose order means nothing, such as particles on a line. Equal entries have no finite output.

    Params:
        None.

    Cost:
        Direct and inverse: O(d log d).

    Errors:
        FlowsError: an event that is not a vector.

    Source:
        Nielsen, Jaini, Hoogeboom, Winther and Welling, "SurVAE Flows", 2020, arXiv:2007.02731, section 3.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Sort()(0, 3)
        >>> z, log_weight = direct_fun(params, jnp.array([[3.0, 1.0, 2.0]]))
        >>> z.tolist(), log_weight.round(3).tolist()
        ([[1.0, 0.0, 0.0]], [-1.792...])
    """

    def init_fun(rng, shape):
        if len(shape) != 1:
            raise FlowsError(f"Sort: the event is {shape}; expected a vector: put Reshape() first")
        log_orders = math.lgamma(shape[0] + 1)

        def direct_fun(params, x):
            x = jnp.sort(x)
            gaps = jnp.log(jnp.diff(x))
            return jnp.concatenate([x[:1], gaps]), -gaps.sum() - log_orders

        def inverse_fun(params, z, rng):
            return jax.random.permutation(rng, jnp.cumsum(jnp.concatenate([z[:1], jnp.exp(z[1:])])))

        return {}, direct_fun, inverse_fun

    return init_fun
