"""`flows.support`: where the points of a model live."""

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
    """Where the inputs and outputs of a bijection, or the points of a distribution, live: entries between low and high.

    It is composed of what layers declare, entry by entry: `Logit` takes (0, 1), the logarithm what is above 0; a layer that
    declares nothing, plain functions among them, is taken to be defined on the whole line and to reach all of it. At the
    ends of these intervals results may be infinite, outside they are NaN, or clipped by `Sigmoid` and `Logit`; a `Flow` has
    the log-density -inf there.

    A base may live in a box, as `Uniform` does. Through layers without params that are entrywise or move entries, and past
    features that a layer leaves as they are, that is taken back to the inputs of a `Flow`; through others it cannot be told.

    Args:
        init_fun: a constructor's value, or a plain closure.
        input_dim, context_dim: as init_fun takes them.

    Returns:
        A `Support`, whose `.inputs` and `.outputs` are pairs (low, high) of arrays of the shape of the event. Their `.period`
        tells which entries are angles, and modulo what (0 of the others); their `.sphere` is k for the coordinates of the k-th
        unit vector (0 of the others). The outputs of a distribution are those of its bijection; where it is no flow they are
        the same as the inputs.

    Errors:
        FlowsError: a layer with a support comes after one that trains or mixes entries; a circle or sphere meets the line.
        TypeError: a constructor that was not called.

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
        raise TypeError(f"support: {init_fun!r:.80} is no model; expected a bijection or a distribution, such as flows.Logit()")
    layers, base = chain_of(init_fun)
    if base is None:
        return Support(*support_of(layers, event, context)[:2])
    of_base = cache(lambda event: distribution_part(base, event, context).region or everywhere(event))
    if not layers:
        return Support(of_base(event), of_base(event))
    inputs, outputs, _ = support_of(layers, event, context, of_base)
    return Support(narrowed(inputs, layers, event, of_base), outputs)


def chain_of(init_fun: Any) -> tuple[list[PlacedStep], Any]:
    """The bijections that a distribution's points go through, and its base; or those of a bijection, and None."""
    if not isinstance(init_fun, DistributionInit):
        return layers_of(init_fun), None
    *first, base = leading(init_fun)
    return [layer for stage in first if stage.kind == "bijection" for layer in layers_of(stage.value)], base.value
