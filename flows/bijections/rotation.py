"""Rotations of circles. Family: Circles and spheres."""

import math

import jax.numpy as jnp

from flows.core import Region, Support, bijection, positive


def _circle(period: float) -> Support:
    region = Region(period=float(period))
    return Support(region, region)


@bijection(support=_circle)
def Rotation(period: float = 2 * math.pi):
    """Angles turned by trained angles: y = x + angle, log|det J| = 0.

    Between circular splines it moves the point that they leave in place.

    Args:
        period: the length of the circles on which inputs and outputs lie.

    Params:
        `{"angle": event}`, which starts at 0.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: a period that is not above 0.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Rotation()(0, 2)
        >>> direct_fun({"angle": jnp.array([0.5, -1.0])}, jnp.zeros((1, 2)))[0].tolist()
        [[0.5, -1.0]]
    """
    positive(period, "Rotation: period")

    def init_fun(rng, shape):
        return {"angle": jnp.zeros(shape)}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return x + params["angle"], jnp.zeros((), x.dtype)

    def inverse_fun(params, y):
        return y - params["angle"]

    return init_fun
