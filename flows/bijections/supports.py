"""Where the inputs and outputs of a bijection live, as its layers declare it."""

from flows.compose import Invert
from flows.core import BijectionInit, Composite, FlowsError, check_layers
from flows.core.contract import Support


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
    return bijection.own_support
