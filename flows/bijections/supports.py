"""Which bijections are not defined on the whole line, in a form that a program can read."""

from collections.abc import Callable
from typing import NamedTuple

from flows.bijections.elementwise import Exp, Power, Softplus, Tanh
from flows.bijections.unit_interval import LogisticCDF, Logit, NormalCDF, Sigmoid
from flows.compose import Invert
from flows.core import BijectionInit, Composite, FlowsError, check_layers

Interval = tuple[float, float]
REAL: Interval = (-float("inf"), float("inf"))
POSITIVE: Interval = (0.0, float("inf"))
UNIT: Interval = (0.0, 1.0)


class Support(NamedTuple):
    """The open intervals in which every entry of the inputs, and of the outputs, of a bijection lies."""

    inputs: Interval = REAL
    outputs: Interval = REAL


SUPPORTS: dict[Callable, Support] = {
    Exp: Support(REAL, POSITIVE),
    LogisticCDF: Support(REAL, UNIT),
    Logit: Support(UNIT, REAL),
    NormalCDF: Support(REAL, UNIT),
    Power: Support(POSITIVE, POSITIVE),
    Sigmoid: Support(REAL, UNIT),
    Softplus: Support(REAL, POSITIVE),
    Tanh: Support(REAL, (-1.0, 1.0)),
}


def support(bijection: BijectionInit) -> Support:
    """Where a bijection is defined: at the ends of these intervals results may be infinite, outside they are NaN.

    (`Sigmoid` and `Logit` clip instead, unless told not to.) A layer that declares nothing, plain functions among them, is
    taken to be defined on the whole line; `Invert` exchanges the two.

    Args:
        bijection: the value of a constructor: a layer, or `Invert` of one.

    Errors:
        TypeError: it is not a bijection. FlowsError: it is made of several layers, which have to be asked one by one.

    Example:
        >>> import flows
        >>> flows.bijections.support(flows.Invert(flows.Exp()))
        Support(inputs=(0.0, inf), outputs=(-inf, inf))
    """
    check_layers("support", (bijection,), BijectionInit, "a bijection")
    if not isinstance(bijection, BijectionInit):  # a plain function
        return Support()
    if bijection.constructor is Invert:
        return Support(*reversed(support(bijection.arguments["bijection"])))
    if isinstance(bijection.inner, BijectionInit | Composite):
        raise FlowsError(f"support: {bijection!r:.60} is made of layers; ask for the support of each")
    return SUPPORTS.get(bijection.constructor, Support())
