"""Circles and spheres: rotations of angles, the map to the cylinder around a sphere, and couplings of heights and longitude.
Family: Circles and spheres."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import conditioned
from flows.conditioners import MLP
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import running
from flows.core import (
    OFF_SPHERE,
    SPHERE,
    TO_VECTORS,
    Array,
    ConditionerLike,
    FlowsError,
    Layer,
    Region,
    Shape,
    Support,
    bijection,
    positive,
)
from flows.transformers import CircularRationalQuadratic, RationalQuadratic
from flows.transformers.base import Transformer, check_transformer


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


def check_sphere(shape: Shape, name: str) -> int:
    """The n of S^n, from its event (n + 1,)."""
    if len(shape) != 1 or shape[0] < 3:
        raise FlowsError(
            f"{name}: the event is {shape}; expected (3,) for the sphere in space, or more: points are unit vectors. An angle "
            "is a circle, for which there are circular transformers" + f"; {TO_VECTORS}" * (shape == (2,))
        )
    return shape[0] - 1


def astray(x: Array) -> Array:
    """True for points (..., n + 1) that are not unit vectors, or are NaN."""
    return ~(jnp.abs(jnp.square(x).sum(-1) - 1) <= OFF_SPHERE)


def _cylinder(event: Shape) -> Region:
    return Region(-1.0, 1.0, sphere=np.array([1] * (event[-1] - 1) + [0]))


@bijection(support=Support(SPHERE, _cylinder))
def Cylinder():
    """The sphere S^n to the cylinder S^(n-1) x [-1, 1], along rays from its axis: y = (x_0 .. x_{n-1}) / r and the height x_n.

    r = sqrt(1 - x_n^2), and log|det J| = -(n - 2) log r, per unit of surface: 0 on S^2 (Archimedes). The poles have no image;
    they get the direction (1, 0, ...). A point that is not a unit vector gives NaN.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event of fewer than three entries.

    Source:
        Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, "Normalizing Flows on Tori and Spheres", 2020,
        arXiv:2002.02428, the recursive flow.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Cylinder()(0, 3)
        >>> outputs, log_det = direct_fun(params, jnp.array([[0.0, 0.6, 0.8]]))
        >>> outputs.round(4).tolist(), log_det.tolist()
        ([[0.0, 1.0, 0.7999...]], [0.0])
    """

    def init_fun(rng, shape):
        check_sphere(shape, "Cylinder")
        return {}, direct_fun, inverse_fun

    def direct_fun(params, x):
        flat, height, n = x[:-1], x[-1:], len(x) - 1
        squared = jnp.square(flat).sum()
        there = squared > jnp.finfo(x.dtype).eps ** 2  # closer to a pole, by less than rounding, derivatives overflow
        root = jnp.sqrt(jnp.where(there, squared, 1.0))
        first = jnp.zeros_like(flat).at[0].set(1.0)
        outside = astray(x)
        y = jnp.concatenate([jnp.where(there, flat / root, first), jnp.clip(height, -1, 1)])
        log_det = jnp.zeros((), x.dtype)
        if n > 2:
            log_det = jnp.where(there, -(n - 2) * jnp.log(root), jnp.inf)
        return jnp.where(outside, jnp.nan, y), jnp.where(outside, jnp.nan, log_det)

    def inverse_fun(params, y):
        flat, height = y[:-1], y[-1:]
        outside = astray(flat) | ~(jnp.abs(height) <= 1).all()
        return jnp.where(outside, jnp.nan, jnp.concatenate([flat * _radius(height), height]))

    return init_fun


def _radius(height: Array) -> Array:
    """sqrt(1 - z^2), of z within [-1, 1]; its derivative is 0 at the ends."""
    squared = (1 - height) * (1 + height)
    inner = squared > 0
    return jnp.where(inner, jnp.sqrt(jnp.where(inner, squared, 1.0)), 0.0)


@bijection(batched=True, support=Support(SPHERE, SPHERE))
def SphereCoupling(
    conditioner: ConditionerLike | None = None, circle: Transformer | None = None, interval: Transformer | None = None
):
    """A coupling layer of the sphere S^n: each height is mapped by itself, and the longitude conditioned on the heights.

    A point has a longitude a on the circle and heights z_2 .. z_n in [-1, 1]: z_n = x_n, and the others are the heights of
    the remaining entries divided by their norm, a point of S^(n-1). With q_k = 1 - z_k^2,

        z_k' = g(z_k; q_{k+1} ... q_n theta_k),    a' = f(a; q_2 ... q_n theta(z_2 .. z_n)),
        log|det J| = sum_k (log g' + (k - 2) / 2 log(q_k' / q_k)) + log f',

    per unit of surface. The factors in front of theta fade each map to the identity at the poles, where its coordinate is not
    defined, so that the density is continuous there too: transformers have to be the identity at theta = 0. A context changes
    both kinds of theta. A point that is not a unit vector gives NaN.

    Args:
        conditioner: a network, by default `MLP(64, 64)`, that makes the circle's theta from the heights. theta_k is a
            trained param or, with a context, made from it by a second such network.
        circle: f, a transformer of period 2 pi, by default `CircularRationalQuadratic()`.
        interval: g, a transformer of [-1, 1] onto itself, by default `RationalQuadratic(bound=1.0, ends="free")`.

    Params:
        `{"circle": params of the network, "interval": params of the second, or {"theta": (num_params (n - 1),)}}`.

    Cost:
        Direct: a pass of the network. Inverse: the same, unless a transformer's inverse is a root.

    Errors:
        FlowsError: an event of fewer than three entries; a transformer of another period or bound, or with trained weights.

    Source:
        Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, "Normalizing Flows on Tori and Spheres", 2020,
        arXiv:2002.02428, the recursive flow; the fading is ours.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.SphereCoupling(flows.MLP(8))(0, 3)
        >>> outputs, log_det = direct_fun(params, jnp.array([[0.0, 0.6, 0.8]]))
        >>> round(float(jnp.square(outputs).sum()), 4)
        1.0
    """
    net = MLP(64, 64) if conditioner is None else check_conditioner(conditioner, "SphereCoupling")
    f = CircularRationalQuadratic() if circle is None else check_transformer(circle, "SphereCoupling: circle")
    g = (
        RationalQuadratic(bound=1.0, ends="free")
        if interval is None
        else check_transformer(interval, "SphereCoupling: interval")
    )
    if f.period is None or abs(f.period - 2 * np.pi) > 1e-6 or f.has_weights:
        raise FlowsError(f"SphereCoupling: circle is {f!r}; expected a transformer of period 2 pi, such as Moebius()")
    if g.bound != 1 or g.has_weights:
        raise FlowsError(
            f"SphereCoupling: interval is {g!r}; expected a transformer that takes [-1, 1] onto itself, such as "
            'RationalQuadratic(bound=1.0, ends="free")'
        )

    def make(key, shape, context, args):
        n, keys, old = check_sphere(shape, "SphereCoupling"), jax.random.split(key), args.params or {}
        heights = None if args.init_inputs is None else _heights(args.init_inputs.T)[1].T
        circle_args = args._replace(init_inputs=heights, params=old.get("circle"))
        interval_args = args._replace(params=old.get("interval"))
        circle_params, on_circle = running(net, keys[0], (n - 1,), (f.num_params,), context, circle_args)
        interval_params, on_interval = running(net, keys[1], (0,), (g.num_params * (n - 1),), context, interval_args)

        def thetas(params: Any, like: Array, **call: Any) -> tuple[Array, Any]:
            """theta of the heights, and a function of the heights that makes theta of the longitude."""
            theta = on_interval.run(params["interval"], like, **call).reshape(g.num_params, n - 1, -1)
            return theta, lambda z: on_circle.run(params["circle"], z, **call)

        def direct(params, x, **call):
            a, z, q = _heights(x.T)
            theta, longitude_theta = thetas(params, z, **call)
            fade = _fading(q)
            new_z, log_g = g.direct(theta * fade[None, 1:], z)
            new_a, log_f = f.direct(longitude_theta(z) * fade[:1], a)
            outside = astray(x)
            y = jnp.where(outside[:, None], jnp.nan, _point(new_a, new_z).T)
            return y, jnp.where(outside, jnp.nan, log_f + _log_det(log_g, new_z, q))

        def inverse(params, y, **call):
            new_a, new_z, _ = _heights(y.T)
            theta, longitude_theta = thetas(params, new_z, **call)
            heights, fade = list[Array](), jnp.ones_like(new_a)
            for k in reversed(range(n - 1)):  # from the last height, whose map nothing fades
                heights.append(g.inverse(theta[:, k] * fade[None], new_z[k])[0])
                fade = fade * (1 - heights[-1]) * (1 + heights[-1])
            z = jnp.stack(heights[::-1])
            a = f.inverse(longitude_theta(z) * fade[None], new_a)[0]
            return jnp.where(astray(y)[:, None], jnp.nan, _point(a, z).T)

        params = {"circle": circle_params, "interval": interval_params}
        return Layer(params, direct, inverse, keywords={"context", *on_circle.keywords})

    return conditioned(net, make)


def _heights(x: Array) -> tuple[Array, Array, Array]:
    """Longitude (batch,), heights z_2 .. z_n (n - 1, batch) and their 1 - z^2, of points (n + 1, batch)."""
    squared = jnp.cumsum(jnp.square(x), axis=0)[1:]  # of the first two entries, the first three, ...
    there = squared > jnp.finfo(x.dtype).eps ** 2  # closer to a pole, by less than rounding, derivatives overflow
    safe = jnp.where(there, squared, 1.0)
    z = jnp.where(there[1:], x[2:] / jnp.sqrt(safe[1:]), 0.0)
    # At a pole the other entries may all be 0: any longitude serves.
    q = jnp.where(there[1:], jnp.where(there[:-1], squared[:-1], 0.0) / safe[1:], 1.0)
    a = jnp.arctan2(jnp.where(there[0], x[1], 0.0), jnp.where(there[0], x[0], 1.0))
    return a, jnp.clip(z, -1, 1), q


def _fading(q: Array) -> Array:
    """Factors of theta of the longitude and of z_2 .. z_n: the products of all later q."""
    later = [jnp.ones_like(q[0])]
    for q_k in q[::-1]:
        later.append(later[-1] * q_k)
    return jnp.stack(later[::-1])


def _point(a: Array, z: Array) -> Array:
    """The point (n + 1, batch) of a longitude and heights."""
    radius, entries = jnp.ones_like(a), []
    for height in z[::-1]:
        entries.append(radius * height)
        radius = radius * _radius(height)
    return jnp.stack([radius * jnp.cos(a), radius * jnp.sin(a), *entries[::-1]])


def _log_det(log_slope: Array, new_z: Array, q: Array) -> Array:
    """Return the log-det of the heights: sum of log g' + (k - 2) / 2 log(q_k' / q_k), whose ratio is g' at the poles."""
    total = log_slope.sum(0)
    for i in range(1, len(q)):
        new_q = (1 - new_z[i]) * (1 + new_z[i])
        inner = (q[i] > 64 * jnp.finfo(q.dtype).eps) & (new_q > 0)
        ratio = jnp.log(jnp.where(inner, new_q, 1.0)) - jnp.log(jnp.where(inner, q[i], 1.0))
        total = total + i / 2 * jnp.where(inner, ratio, log_slope[i])
    return total
