"""A conditional distribution that sees features of its context, which a network makes. Family: Given a context."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from flows.bijections.scaling import channel_scale
from flows.conditioners.base import as_network, check_conditioner
from flows.conditioners.network import measured_by
from flows.core import (
    CALL,
    Array,
    Composite,
    ConditionerLike,
    DistributionInit,
    DistributionLike,
    DistributionPart,
    FlowsError,
    Given,
    Piece,
    Place,
    Shape,
    Value,
    as_dim,
    as_event,
    check_layers,
    check_result,
    check_structure,
    combinator,
    default_dtype,
    distribution_part,
    named_by,
    select,
    shapes_of,
)
from flows.distributions.standardized_context import OWN_KEYWORDS, given_mapped, standardized

PARAMS = {"distribution", "network", "fixed"}


@combinator(DistributionInit)
def EmbeddedContext(distribution: DistributionLike, network: ConditionerLike, size: int | Sequence[int]):
    """The distribution, given features of the context: log p(x | c) = log q(x | (h(c) - mean) / std), in nats.

    h is a network, trained with q: it makes a summary of a context of any shape, such as an image or a series, for all layers
    of q at once. Mean and standard deviation of each feature of h (its last axis) are measured at the start, and stay: they are
    not trained, and `remeasure` leaves them.

    Args:
        distribution: a conditional distribution, q.
        network: h, `net(rng, context_dim, size) -> (params, apply_fun)`, any conditioner.
        size: the shape of h(c), an int for a vector.

    Params:
        `{"distribution": ..., "network": ..., "fixed": {"mean": (features,), "std": (features,)}}`; 0 and 1 without
        `init_context`.

    Errors:
        FlowsError: no context_dim, params= of another model, or a network whose result has another shape. TypeError: an
            argument that is not a distribution, or not a network.

    Source:
        Radev, Mertens, Voss, Ardizzone and Köthe, "BayesFlow: Learning Complex Stochastic Models With Invertible Neural
        Networks", 2020, arXiv:2003.06281, section 3.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.EmbeddedContext(flows.Flow(flows.MAF(1)), flows.MLP(16), size=2)
        >>> params, log_pdf, sample = init_fun(0, 3, context_dim=100)
        >>> sample(1, params, 5, context=jnp.ones(100)).shape
        (5, 3)
    """
    check_layers("EmbeddedContext", (distribution,), DistributionInit, "a distribution")
    net, features = check_conditioner(network, "EmbeddedContext: network"), as_event(size, "EmbeddedContext: size")

    def compose(event: Shape, context: Shape | None) -> DistributionPart:
        if context is None:
            raise FlowsError("EmbeddedContext: there is no context; give context_dim to init_fun")
        with Place("the distribution of EmbeddedContext", distribution, event) as place:
            part = distribution_part(distribution, event, features)
        embedding = Embedding(net, context, features)

        def init(key: Array, args: Given) -> Any:
            keys, old = jax.random.split(key), args.params
            if old is not None and (not isinstance(old, dict) or set(old) != PARAMS):
                raise FlowsError(f"EmbeddedContext: params are not its params, of {', '.join(sorted(PARAMS))}")
            params = embedding.init(keys[0], args.init_context, old)
            h = None if args.init_context is None else embedding(params, args.init_context)
            with place:
                inner = part.init(keys[1], args._replace(params=old and old["distribution"], init_context=h))
            return {"distribution": inner, **params}

        draws, measures = (name in embedding.names for name in ("rng", "train"))
        facts: dict[str, Any] = {
            "draws": part.draws | frozenset({"direct"} if draws else ()),
            "divisible": part.divisible and not measures,
        }
        facts |= {"independent": part.independent and isinstance(net, Value), "names": embedding.names & {"rng", "train"}}
        return given_mapped(part, "EmbeddedContext", place, init, embedding, context, **facts)

    pieces = (Piece(distribution, ("distribution",), "distribution"),)
    keywords = OWN_KEYWORDS | {"params"} if measured_by(net) else OWN_KEYWORDS
    return Composite(compose, (distribution,), keywords, "context", pieces, features)


class Embedding:
    """A network of contexts: its init, and its features, standardised, of (batch, *context)."""

    def __init__(self, net: Callable, context: Shape, features: Shape):
        self.net, self.dims, self.features, self.measures = net, (as_dim(context), as_dim(features)), features, measured_by(net)
        with jax.ensure_compile_time_eval():  # its functions must not hold values of a trace
            start, self.apply = as_network(net(jax.random.key(0), *self.dims), repr(net))
        self.names, self.like = named_by(self.apply, CALL), shapes_of(start)
        h = jax.eval_shape(self.apply, start, jax.ShapeDtypeStruct((1, *context), default_dtype()))
        check_result(h, (1, *features), "EmbeddedContext", "the features that the network made")

    def __call__(self, params: Any, context: Array, rng: Any = None, train: bool = False) -> Array:
        h = self.apply(params["network"], context, **select(self.names, rng=rng, train=train))
        return standardized(params["fixed"], h)

    def init(self, key: Array, contexts: Array | None, old: Any) -> dict[str, Any]:
        """Params by which features of these contexts have mean 0 and standard deviation 1; old ones but for measured ones."""
        zeros = jnp.zeros(self.features[-1:])
        fixed = {"mean": zeros, "std": zeros + 1}
        if old is not None:
            check_structure(old["fixed"], shapes_of(fixed), "EmbeddedContext: fixed")
            fixed = old["fixed"]
        network = self.start(key, contexts, old and old["network"])
        if contexts is not None and old is None:
            fixed = channel_scale(self({"network": network, "fixed": fixed}, contexts))
        return {"network": network, "fixed": fixed}

    def start(self, key: Array, contexts: Array | None, old: Any) -> Any:
        if old is not None:
            check_structure(old, self.like, "EmbeddedContext: network")
        if old is not None and not self.measures:
            return old
        data = {"init_inputs": contexts, "params": old}
        data = {name: data[name] for name in self.measures & data.keys() if data[name] is not None}
        return jax.jit(lambda key, data: self.net(key, *self.dims, **data)[0])(key, data)
