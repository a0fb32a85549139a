"""`flows.support`: the set where the points of a model live."""

from functools import cache
from typing import Any

from flows.bijections.composition import PlacedStep, layers_of, narrowed, support_of
from flows.core import (
    DistributionInit,
    ModelValue,
    Support,
    Value,
    as_context,
    as_event,
    distribution_part,
    everywhere,
    is_constructor,
    leading,
)


def support(init_fun: Any, input_dim: Any, context_dim: Any = 0) -> Support:
    """The support of a bijection's inputs and outputs, or of a distribution: bounds low and high for each entry.

    It is composed, entry by entry, of the supports that layers declare: `Logit` takes (0, 1), the logarithm numbers above 0. A
    layer that declares nothing, such as a plain function, counts as defined on the whole line and onto it. At the ends of these
    intervals results may be infinite; outside they are NaN, or clipped by `Sigmoid` and `Logit`; a `Flow` has the log-density
    -inf there.

    A base may live in a box, as `Uniform` does. The box is mapped back to the inputs of a `Flow` through layers without params
    that act entrywise or move entries, and for features that a layer leaves unchanged; through other layers it is unknown.

    Args:
        init_fun: a constructor's value, or a plain closure.
        input_dim, context_dim: as init_fun takes them.

    Returns:
        A `Support`, whose `.inputs` and `.outputs` are pairs (low, high) of arrays of the shape of the event. Their `.period`
        is the period of entries that are angles (0 for others); their `.sphere` is k for the coordinates of the k-th unit
        vector (0 for others). The outputs of a flow are the outputs of its bijection; the outputs of another distribution are
        the same as its inputs.

    Errors:
        FlowsError: a layer with a support after one that trains or mixes entries; an angle or unit vector next to a layer for
            the line, or the reverse. TypeError: a constructor that was not called.

    Example:
        >>> import flows
        >>> model = flows.Serial(flows.FixedAffine(scale=(1.0, 0.1)), flows.Logit(), flows.NSF())
        >>> low, high = flows.support(model, 2).inputs
        >>> low.tolist(), high.tolist()
        ([0.0, 0.0], [1.0, 10.0])
        >>> flows.support(flows.Flow(flows.Rotation(), flows.VonMises()), 2).inputs.period.round(2).tolist()
        [6.28, 6.28]
        >>> flows.support(flows.Flow(flows.FixedAffine(scale=-2.0), flows.Uniform(0.0, 3.0)), 2).inputs
        Region(low=[-1.5, -1.5], high=[0.0, 0.0])
    """
    event, context = as_event(input_dim), as_context(context_dim)
    if is_constructor(init_fun):
        raise TypeError(f"support: {init_fun.__name__} is a constructor; call it: {init_fun.__name__}(...)")
    if not callable(init_fun) or (isinstance(init_fun, Value) and not isinstance(init_fun, ModelValue)):
        raise TypeError(
            f"support: {init_fun!r:.80} is not a model; expected a bijection or a distribution, such as flows.Logit()"
        )
    layers, base = chain_of(init_fun)
    if base is None:
        return Support(*support_of(layers, event, context)[:2])
    base_region = cache(lambda event: distribution_part(base, event, context).region or everywhere(event))
    if not layers:
        return Support(base_region(event), base_region(event))
    inputs, outputs, _ = support_of(layers, event, context, base_region)
    return Support(narrowed(inputs, layers, event, base_region), outputs)


def chain_of(init_fun: Any) -> tuple[list[PlacedStep], Any]:
    """The bijections that a distribution applies to its points, and its base; for a bijection its layers, and None."""
    if not isinstance(init_fun, DistributionInit):
        return layers_of(init_fun), None
    *first, base = leading(init_fun)
    return [layer for stage in first if stage.kind == "bijection" for layer in layers_of(stage.value)], base.value
