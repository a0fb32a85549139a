"""`flows.support`: where the points of a model live."""

from typing import Any

from flows.bijections.supports import Layer, layers_of, support_of
from flows.core import DistributionInit, InitFun
from flows.core.constructors import Value, is_constructor
from flows.core.contract import Support
from flows.core.inputs import as_context, as_event
from flows.distributions.flow import Flow
from flows.distributions.standardized_context import StandardizedContext


def support(init_fun: Any, input_dim: Any, context_dim: Any = 0) -> Support:
    """Where the inputs and outputs of a bijection, or the points of a distribution, live: entries between low and high.

    It is composed of what layers declare, entry by entry: `Logit` takes (0, 1), the logarithm what is above 0; a layer that
    declares nothing, plain functions among them, is taken to be defined on the whole line and to reach all of it. At the
    ends of these intervals results may be infinite, outside they are NaN, or clipped by `Sigmoid` and `Logit`; a `Flow` has
    the log-density -inf there.

    Args:
        init_fun: a constructor's value, or a plain closure.
        input_dim, context_dim: as init_fun takes them.

    Returns:
        A `Support`, whose `.inputs` and `.outputs` are pairs (low, high) of arrays of the shape of the event. The outputs of a
        distribution are those of its bijection; where it is no flow they are the same as the inputs.

    Errors:
        FlowsError: a layer with a support comes after one that trains or mixes entries. TypeError: a constructor that was not
            called.

    Example:
        >>> import flows
        >>> model = flows.Serial(flows.FixedAffine(scale=(1.0, 0.1)), flows.Logit(), flows.NSF())
        >>> low, high = flows.support(model, 2).inputs
        >>> low.tolist(), high.tolist()
        ([0.0, 0.0], [1.0, 10.0])
    """
    event, context = as_event(input_dim), as_context(context_dim)
    if is_constructor(init_fun):
        raise TypeError(f"support: {init_fun.__name__} is a constructor; call it: {init_fun.__name__}(...)")
    if not callable(init_fun) or (isinstance(init_fun, Value) and not isinstance(init_fun, InitFun)):
        raise TypeError(f"support: {init_fun!r:.80} is no model; expected a bijection or a distribution, such as flows.Logit()")
    inputs, outputs, _ = support_of(chain_of(init_fun), event, context)
    return Support(inputs, outputs)


def chain_of(init_fun: Any) -> list[Layer]:
    """The bijections that a distribution's points go through, or those of a bijection; of a base, itself."""
    if isinstance(init_fun, DistributionInit):
        if init_fun.constructor is StandardizedContext:
            return chain_of(init_fun.arguments["distribution"])
        if init_fun.constructor is Flow:
            of_prior = [
                each for each in chain_of(init_fun.arguments["prior"]) if not isinstance(each.init_fun, DistributionInit)
            ]
            return [*layers_of(init_fun.arguments["bijection"]), *of_prior]
        if isinstance(init_fun.inner, DistributionInit):
            return chain_of(init_fun.inner)
        return [Layer(init_fun)]
    return layers_of(init_fun)
