"""Distributions on circles and spheres: uniform, von Mises and von Mises-Fisher. Family: Circles and spheres."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    SPHERE,
    Array,
    ConditionerLike,
    FlowsError,
    Numbers,
    Region,
    Shape,
    Support,
    Traits,
    distribution,
    numbers,
    off_sphere,
    positive,
    size,
    soft_clip,
)
from flows.distributions.polar import BOUND, LEAST, Form, directional, draw_angle, log_area, log_mass


def _check_sphere(shape: Shape, name: str) -> int:
    """The n of S^n, from its event (n + 1,)."""
    if len(shape) != 1 or shape[0] < 2:
        raise FlowsError(f"{name}: the event is {shape}; expected a vector of two entries or more, as points are unit vectors")
    return shape[0] - 1


def _circles(period: Any, **_: Any) -> Support:
    region = Region(period=np.asarray(period, float) if isinstance(period, tuple) else float(period))
    return Support(region, region)


@distribution(batched=True, support=_circles)
def CircularUniform(period: float = 2 * math.pi):
    """Uniform angles, one for each entry of the event: log p(x) = -d log(period), in nats.

    Any real number is an angle, modulo the period; samples lie in [-period / 2, period / 2).

    Args:
        period: the length of the circle.

    Params:
        None.

    Errors:
        FlowsError: a period that is not above 0.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.CircularUniform()(0, 2)
        >>> log_pdf(params, jnp.array([[0.0, 100.0]])).round(4).tolist()                   # -2 log(2 pi)
        [-3.675...]
    """
    half = positive(period, "CircularUniform: period") / 2

    def init_fun(rng, shape):
        constant = -size(shape) * math.log(2 * half)

        def log_pdf(params, x):
            return on_circles(jnp.full(x.shape[0], constant, x.dtype), x)

        def sample(rng, params, num_samples):
            return jax.random.uniform(rng, (num_samples, *shape), minval=-half, maxval=half)

        return {}, log_pdf, sample

    return init_fun


@distribution(batched=True, support=Support(SPHERE, SPHERE))
def SphereUniform():
    """Uniform on the sphere S^n, whose points are unit vectors (n + 1,): log p(x) = -log area, in nats per unit of surface.

    The area is 2 pi^((n+1)/2) / Gamma((n+1)/2): 4 pi on S^2. A point that is not a unit vector has log p = -inf.

    Params:
        None.

    Errors:
        FlowsError: an event that is not a vector of two entries or more.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.SphereUniform()(0, 3)
        >>> log_pdf(params, jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]])).round(4).tolist()     # -log(4 pi)
        [-2.53..., -inf]
    """

    def init_fun(rng, shape):
        constant = -log_area(_check_sphere(shape, "SphereUniform"))

        def log_pdf(params, x):
            return on_sphere(jnp.full(x.shape[0], constant, x.dtype), x)

        def sample(rng, params, num_samples):
            return directions(jax.random.normal(rng, (num_samples, *shape)))

        return {}, log_pdf, sample

    return init_fun


def on_sphere(log_p: Array, x: Array) -> Array:
    """log p of rows x, -inf for a row that is not a unit vector and NaN for a row with a NaN."""
    return jnp.where(jnp.isnan(x).any(1), jnp.nan, jnp.where(off_sphere(x), -jnp.inf, log_p))


def on_circles(log_p: Array, x: Array) -> Array:
    """log p of rows x, -inf for a row with an infinite angle and NaN for a row with a NaN."""
    axes = tuple(range(1, x.ndim))
    return jnp.where(jnp.isnan(x).any(axes), jnp.nan, jnp.where(jnp.isinf(x).any(axes), -jnp.inf, log_p))


def directions(v: Array) -> Array:
    """v / |v| along the last axis; the last unit vector where v is 0."""
    squared = jnp.square(v).sum(-1, keepdims=True)
    there = squared > 0
    pole = jnp.zeros_like(v).at[..., -1].set(1.0)
    return jnp.where(there, v / jnp.sqrt(jnp.where(there, squared, 1.0)), pole)


def _log_concentration(concentration: Any, name: str) -> np.ndarray:
    k = numbers(concentration, f"{name}: concentration")
    if not ((k >= 1e-5) & (k <= 1e5)).all():
        raise FlowsError(f"{name}: concentration is {concentration!r:.60}; expected numbers from 0.00001 to 100,000")
    return BOUND * np.arctanh(np.log(k) / BOUND)


def _traits(trainable: bool, conditioner: Any, **_: Any) -> Traits:
    return Traits(in_numpy=trainable and conditioner is None)


def check_lengths(lengths: int, shape: Shape) -> None:
    """Refuse periods that are neither one nor one for each entry."""
    if lengths not in (1, *shape[-1:]):
        raise FlowsError(f"VonMises: period has {lengths} lengths, and the event is {shape}; expected one for each entry")


@distribution(batched=True, support=_circles, traits=_traits)
def VonMises(
    loc: Numbers = 0.0,
    concentration: Numbers = 1.0,
    trainable: bool = False,
    conditioner: ConditionerLike | None = None,
    period: Numbers = 2 * math.pi,
    regression: bool | str = False,
):
    """Independent von Mises distributions of angles, one for each entry of the event: the normal of the circle.

    log p(x) = sum_i k_i (cos(r (x_i - loc_i)) - 1) - log Z(k_i) + log r, in nats, r = 2 pi / period, Z(k) = 2 pi I_0(k) e^-k.
    Any real number is an angle, modulo the period; samples lie in [-period / 2, period / 2). Samples have gradients in loc and
    k, through the inverse distribution function.

    Args:
        loc, concentration: numbers, or arrays of the event; loc is in units of x; k, above 0, is for angles in radians, and
            about 1 / variance where it is large.
        trainable: train loc and k, which start at these values, or at the mean direction and concentration of `init_inputs`.
        conditioner: a network that makes both from the context, and trains; see `Normal`. Two outputs make the angle.
        period: the length of the circle, such as 360 for degrees, or 24 for hours; or a length for each entry of the last axis.
        regression: with trainable=True, make the vector k (cos(r loc), sin(r loc)) of each angle linear in the context: slope'
            features is added to it. With "chain", the features of each of up to 8 angles are also cos and sin of the angles
            before it, and no context is needed. It starts at the likeliest slope of `init_inputs`, if there are five rows or
            more for each feature and the slope gains more than its number of entries, in nats over all rows; otherwise at 0.

    Params:
        `{"loc": event, "log_concentration": event}` if trainable, k = exp(14 tanh(log_concentration / 14)), and "slope"
        (features, d, 2) for a regression; the params of the conditioner if there is one; else `{}`.

    Errors:
        FlowsError: a concentration outside its range; a period that is not above 0; a conditioner or a regression without a
            context.

    Source:
        Mardia and Jupp, "Directional Statistics", 2000, section 3.5.4. The start: Best and Fisher, "The Bias of the Maximum
        Likelihood Estimators of the von Mises-Fisher Concentration Parameters", 1981. The regression is the generalized linear
        model of this exponential family: McCullagh and Nelder, "Generalized Linear Models", 1989, section 2.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.VonMises(loc=3.0, concentration=4.0)(0, 1)
        >>> bool(jnp.allclose(*log_pdf(params, jnp.array([[3.5], [3.5 - 2 * jnp.pi]])))), sample(1, params, 5).shape
        (True, (5, 1))
    """
    where, log_k = numbers(loc, "VonMises: loc"), _log_concentration(concentration, "VonMises")
    periods = np.array([positive(one, "VonMises: period") for one in (period if isinstance(period, tuple) else (period,))])
    radian = periods / (2 * math.pi)
    if conditioner is not None and (np.any(where) or np.any(log_k)):
        raise FlowsError("VonMises: loc or concentration was given with a conditioner, which makes both; leave them out")

    def along(values, x, xp):
        return xp.asarray(values, x.dtype).reshape(*(1,) * (x.ndim - 1), -1)  # the last axis

    def inner(x, xp):
        return x / along(radian, x, xp)

    def outer(turned, xp):
        x, turn = turned * along(radian, turned, xp), along(periods, turned, xp)
        x = x - turn * xp.floor(x / turn + 0.5)
        return xp.where(x >= turn / 2, x - turn, x)

    def constants(shape):
        check_lengths(len(periods), shape)
        try:
            loc, raw = (np.broadcast_to(value, shape).copy() for value in (where, log_k))
        except ValueError:
            got = f"loc has shape {where.shape}, concentration {log_k.shape}"
            raise FlowsError(f"VonMises: {got}; expected numbers, or arrays of the event, {shape}") from None
        return {"loc": loc, "log_concentration": raw}

    def as_theta(raw, shape):
        across, along, log_k = (part.reshape(-1, *shape) for part in jnp.split(raw, 3, axis=1))
        return jnp.arctan2(across, 1 + along), jnp.exp(soft_clip(log_k, BOUND))

    def away(loc, x):
        return 2 * jnp.square(jnp.sin((x - loc) / 2))

    def log_density(away, k, x):
        log_p = -k * away - log_mass(k, 1) - jnp.log(along(radian, x, jnp))
        return on_circles(log_p.sum(tuple(range(1, x.ndim))), x)

    def draw(theta, rng, n, shape):
        angle_key, side_key = jax.random.split(rng)
        k = jnp.broadcast_to(theta[1], (n, *shape))
        side = jnp.where(jax.random.bernoulli(side_key, shape=k.shape), 1.0, -1.0).astype(k.dtype)
        return theta[0] + side * draw_angle(angle_key, k, 1)

    def points(x, xp):
        return xp.stack([xp.cos(x), xp.sin(x)], -1).reshape(x.shape[0], size(x.shape[1:]), 2)

    def of_points(v, xp):
        return xp.arctan2(v[..., 1], v[..., 0])

    form = Form(inner, outer, constants, lambda shape: 3 * size(shape), as_theta, away, log_density, draw, points, of_points)
    return directional("VonMises", form, trainable, conditioner, regression)


@distribution(batched=True, support=Support(SPHERE, SPHERE), traits=_traits)
def VonMisesFisher(
    loc: Numbers | None = None,
    concentration: float = 1.0,
    trainable: bool = False,
    conditioner: ConditionerLike | None = None,
    regression: bool = False,
):
    """The von Mises-Fisher distribution of unit vectors (n + 1,) on the sphere S^n: the round normal of the sphere.

    log p(x) = k (mu'x - 1) - log Z(k), mu = loc / |loc|, in nats per unit of surface, with Z(k) = 2 pi (1 - e^-2k) / k on S^2,
    and by quadrature elsewhere. A point that is not a unit vector has log p = -inf. Samples have gradients in loc and k,
    through the inverse distribution function of the angle to mu.

    Args:
        loc: the mean direction, of any length but 0; by default the last axis.
        concentration: k, above 0: about 1 / variance of each direction where it is large.
        trainable: train loc and k, which start at these values, or at the mean direction and concentration of `init_inputs`.
        conditioner: a network that makes both from the context, and trains; see `Normal`. loc starts near the last axis.
        regression: with trainable=True, make the vector k mu linear in the context, as in `VonMises`.

    Params:
        `{"loc": (n + 1,), "log_concentration": ()}` if trainable, k = exp(14 tanh(log_concentration / 14)), and "slope"
        (context entries, 1, n + 1) for a regression; the params of the conditioner if there is one; else `{}`.

    Errors:
        FlowsError: an event that is not a vector of two entries or more; a loc that does not fit it, or is 0; a concentration
            outside its range; a conditioner or a regression without a context.

    Source:
        Fisher, "Dispersion on a Sphere", 1953; Mardia and Jupp, "Directional Statistics", 2000, section 9.3.2. The start:
        Banerjee, Dhillon, Ghosh and Sra, "Clustering on the Unit Hypersphere using von Mises-Fisher Distributions", 2005.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.VonMisesFisher(loc=(0.0, 1.0, 0.0), concentration=10.0)(0, 3)
        >>> round(float(sample(1, params, 1000).mean(0)[1]), 1)
        0.9
    """
    log_k = _log_concentration(concentration, "VonMisesFisher")
    where = None if loc is None else numbers(loc, "VonMisesFisher: loc")
    if conditioner is not None and (where is not None or np.any(log_k)):
        raise FlowsError("VonMisesFisher: loc or concentration was given with a conditioner, which makes both; leave them out")
    if log_k.shape or (where is not None and not np.any(where)):
        raise FlowsError(f"VonMisesFisher: loc is {loc} and concentration {concentration}; expected a direction and one number")

    def as_it_is(x, xp):
        return x

    def constants(shape):
        _check_sphere(shape, "VonMisesFisher")
        if where is not None and where.shape != shape:
            raise FlowsError(f"VonMisesFisher: loc has shape {where.shape}, expected the shape of the event, {shape}")
        return {"loc": np.eye(shape[0])[-1] if where is None else where / np.linalg.norm(where), "log_concentration": log_k}

    def as_theta(raw, shape):
        return raw[:, :-1].at[:, -1].add(1.0), jnp.exp(soft_clip(raw[:, -1], BOUND))

    def away(loc, x):
        # For unit vectors 1 - mu'x = |x - mu|^2 / 2, which has no large rounding error where they are close.
        return jnp.square(x - directions(loc)).sum(1) / 2

    def log_density(away, k, x):
        return on_sphere(-k * away - log_mass(k, x.shape[1] - 1), x)

    def draw(theta, rng, n, shape):
        angle_key, direction_key = jax.random.split(rng)
        mu = jnp.broadcast_to(directions(theta[0]), (n, *shape))
        angle = draw_angle(angle_key, jnp.broadcast_to(theta[1], (n,)), shape[0] - 1)[:, None]
        g = jax.random.normal(direction_key, mu.shape, mu.dtype)
        tangent = directions(g - (g * mu).sum(1, keepdims=True) * mu)
        return directions(jnp.cos(angle) * mu + jnp.sin(angle) * tangent)

    def points(x, xp):
        return (directions(x) if xp is jnp else x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), LEAST))[:, None]

    def of_points(v, xp):
        return v

    form = Form(as_it_is, as_it_is, constants, lambda shape: shape[0] + 1, as_theta, away, log_density, draw, points, of_points)
    return directional("VonMisesFisher", form, trainable, conditioner, regression)
