"""The usual shapes in the plane that density estimators are tested on, as distributions: samples and their exact density.

    params, log_pdf, sample = flows.datasets.TwoMoons()(0, 2)
    x = sample(0, params, 10_000)
    log_pdf(params, x).mean()          # in nats; no model can do better on many rows

They have no params, but for the pixels of a picture. Curves have normal noise; where the density is an integral along a curve,
it is computed by Gauss-Legendre quadrature.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import LOG_2PI, Array, FlowsError, Numbers, check_fits, distribution, numbers, positive, positive_int
from flows.distributions.mixture import logsumexp
from flows.distributions.normal import honest_far_out
from flows.distributions.uniform import box_of

LEAST_NOISE = 0.01
CHUNK = 1024  # rows whose distances from a curve are in memory at once


@distribution(batched=True)
def TwoMoons(noise: float = 0.1):
    """Two interleaved half circles of radius 1, each with half of the rows, and normal noise.

    p(x) = 1/2 sum_k integral_0^pi N(x; c_k(t), noise^2 I) dt / pi, with c_0 = (cos t, sin t), c_1 = (1 - cos t, 1/2 - sin t).

    Args:
        noise: standard deviation, at least 0.01.

    Errors:
        FlowsError: noise outside its range, or an event that is not (2,).

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.datasets.TwoMoons()(0, 2)
        >>> round(float(log_pdf(params, sample(0, params, 100_000)).mean()), 1)
        -1.0
    """

    noise = _noise(noise, "TwoMoons")

    def curves(t, xp):
        above = xp.stack([xp.cos(t), xp.sin(t)])
        return xp.stack([above, xp.stack([1 - above[0], 0.5 - above[1]])])

    return _curves("TwoMoons", curves, math.pi, 1, 1.0, noise)


@distribution(batched=True)
def Spirals(noise: float = 0.1):
    """Two arms that wind one and a half times around the centre, with normal noise.

    p(x) = 1/2 sum_k integral_0^1 N(x; c_k(3 pi sqrt(u)), noise^2 I) du, with c_k(t) = +-t (-cos t, sin t) / 3.

    Args:
        noise: standard deviation, at least 0.01.

    Errors:
        FlowsError: as in `TwoMoons`.

    Source:
        Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD", 2019, arXiv:1810.01367, in its code, where the arms
        have uniform noise too.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.datasets.Spirals()(0, 2)
        >>> sample(0, params, 5).shape
        (5, 2)
    """

    noise = _noise(noise, "Spirals")

    def curves(t, xp):
        arm = xp.stack([-t * xp.cos(t), t * xp.sin(t)]) / 3
        return xp.stack([arm, -arm])

    return _curves("Spirals", curves, 3 * math.pi, 2, math.sqrt(1 + 9 * math.pi**2) / 3, noise)


@distribution(batched=True)
def EightGaussians(radius: float = 4.0, noise: float = 0.5):
    """Eight normal distributions on a circle: p(x) = 1/8 sum_k N(x; radius (cos(k pi / 4), sin(k pi / 4)), noise^2 I).

    Args:
        radius: of the circle.
        noise: standard deviation of each normal.

    Errors:
        FlowsError: an argument that is not above 0, or an event that is not (2,).

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.datasets.EightGaussians()(0, 2)
        >>> round(float(log_pdf(params, sample(0, params, 100_000)).mean()), 1)
        -3.5
    """
    noise = positive(noise, "EightGaussians: noise")
    angle = np.arange(8) * np.pi / 4
    centres = positive(radius, "EightGaussians: radius") * np.stack([np.cos(angle), np.sin(angle)], 1)

    def log_pdf(params, x):
        return honest_far_out(lambda x: _log_mixture(x, centres, np.full(8, 1 / 8), noise), x)

    def sample(rng, params, num_samples):
        which, normal = jax.random.split(rng)
        chosen = jnp.asarray(centres, float)[jax.random.randint(which, (num_samples,), 0, 8)]
        return chosen + noise * jax.random.normal(normal, (num_samples, 2), chosen.dtype)

    return _plane("EightGaussians", log_pdf, sample)


@distribution(batched=True, support=(-2.0, 2.0))
def Checkerboard():
    """Uniform on the 8 unit squares of [-2, 2)^2 whose floor(x_0) + floor(x_1) is even: p(x) = 1/8 there, and 0 elsewhere.

    Errors:
        FlowsError: an event that is not (2,).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.datasets.Checkerboard()(0, 2)
        >>> log_pdf(params, jnp.array([[0.5, 0.5], [0.5, 1.5]])).round(4).tolist()
        [-2.079..., -inf]
    """

    def log_pdf(params, x):
        near = jnp.clip(x, -3.0, 3.0)
        inside = ((x >= -2) & (x < 2)).all(1) & (jnp.floor(near).sum(1) % 2 == 0)
        density = jnp.where(inside, jnp.asarray(-math.log(8), x.dtype), -jnp.inf)
        return jnp.where(jnp.isnan(x).any(1), jnp.nan, density)

    def sample(rng, params, num_samples):
        which, within = jax.random.split(rng)
        first, second = jnp.divmod(jax.random.randint(which, (num_samples,), 0, 8), 2)
        corner = jnp.stack([first - 2, 2 * second - 2 + first % 2], 1)
        u = jax.random.uniform(within, (num_samples, 2), float)
        return corner.astype(u.dtype) + u

    return _plane("Checkerboard", log_pdf, sample)


@distribution(batched=True)
def Rings(num_rings: int = 4, noise: float = 0.08):
    """Circles of radius 3/4, 6/4, ... around the centre, all with equal shares of rows, and normal noise.

    p(x) = mean_k exp(-(|x| - r_k)^2 / (2 noise^2)) I0e(|x| r_k / noise^2) / (2 pi noise^2), with I0e(z) = exp(-z) I_0(z), the
    modified Bessel function of order 0.

    Args:
        num_rings: number of circles.
        noise: standard deviation.

    Errors:
        FlowsError: an argument outside its range, or an event that is not (2,).

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.datasets.Rings()(0, 2)
        >>> sample(0, params, 5).shape
        (5, 2)
    """
    num, noise = positive_int(num_rings, "Rings: num_rings", most=1000), positive(noise, "Rings: noise")
    radii = 0.75 * np.arange(1, num + 1)

    def log_pdf(params, x):
        def near(x: Array) -> Array:
            distance = jnp.sqrt(jnp.square(x).sum(1))[None]
            r = jnp.asarray(radii, x.dtype)[:, None]
            bessel = jnp.log(jax.scipy.special.i0e(distance * r / noise**2))
            log_ring = bessel - 0.5 * jnp.square((distance - r) / noise)
            return logsumexp(log_ring) - math.log(num * noise**2) - LOG_2PI

        return honest_far_out(near, x)

    def sample(rng, params, num_samples):
        ring, angle, normal = jax.random.split(rng, 3)
        t = jax.random.uniform(angle, (num_samples,), float, 0.0, 2 * math.pi)
        r = jnp.asarray(radii, t.dtype)[jax.random.randint(ring, (num_samples,), 0, num)]
        points = r[:, None] * jnp.stack([jnp.cos(t), jnp.sin(t)], 1)
        return points + noise * jax.random.normal(normal, points.shape, points.dtype)

    return _plane("Rings", log_pdf, sample)


@distribution(batched=True)
def Pinwheel(num_arms: int = 5, radial: float = 0.3, tangential: float = 0.1, rate: float = 0.25):
    """Arms: normal distributions around (2, 0) and its rotations, bent by an angle that grows with the distance from 0.

    x = 2 R(2 pi k / num_arms + rate exp(|v|)) v with v = (1 + radial z_0, tangential z_1). A rotation by an angle that depends
    on |v| keeps areas, so p(x) = 1/4 mean_k N(R(-a_k) x / 2; (1, 0), diag(radial^2, tangential^2)) with
    a_k = 2 pi k / num_arms + rate exp(|x| / 2).

    Args:
        num_arms: number of arms.
        radial, tangential: standard deviations along an arm and across it, before it is bent.
        rate: how much an arm is bent.

    Errors:
        FlowsError: an argument that is not above 0, or an event that is not (2,).

    Source:
        Johnson, Duvenaud, Wiltschko, Datta and Adams, "Composing graphical models with neural networks", 2016,
        arXiv:1603.06277. There the angle grows with the first entry of v instead, so that the density has no closed form.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.datasets.Pinwheel()(0, 2)
        >>> sample(0, params, 5).shape
        (5, 2)
    """
    num = positive_int(num_arms, "Pinwheel: num_arms", most=1000)
    spread = np.array([positive(radial, "Pinwheel: radial"), positive(tangential, "Pinwheel: tangential")])
    rate = positive(rate, "Pinwheel: rate")
    constant = math.log(4 * num) + float(np.log(spread).sum()) + LOG_2PI

    def log_pdf(params, x):
        def near(x: Array) -> Array:
            v = x.T / 2
            turned = rate * jnp.exp(jnp.minimum(jnp.sqrt(jnp.square(v).sum(0)), 50.0))
            angle = turned[None] + jnp.asarray(2 * np.pi * np.arange(num) / num, x.dtype)[:, None]
            c, s = jnp.cos(angle), jnp.sin(angle)
            a, b = (c * v[0][None] + s * v[1][None] - 1) / spread[0], (c * v[1][None] - s * v[0][None]) / spread[1]
            return logsumexp(-0.5 * (jnp.square(a) + jnp.square(b))) - constant

        return honest_far_out(near, x)

    def sample(rng, params, num_samples):
        arm, normal = jax.random.split(rng)
        v = jax.random.normal(normal, (2, num_samples), float) * spread[:, None] + jnp.array([[1.0], [0.0]])
        k = jax.random.randint(arm, (num_samples,), 0, num)
        angle = rate * jnp.exp(jnp.sqrt(jnp.square(v).sum(0))) + 2 * math.pi / num * k.astype(v.dtype)
        c, s = jnp.cos(angle), jnp.sin(angle)
        return 2 * jnp.stack([c * v[0] - s * v[1], s * v[0] + c * v[1]], 1)

    return _plane("Pinwheel", log_pdf, sample)


@distribution(batched=True, support=lambda low, high, **_: box_of(low, high))
def Picture(height: int, width: int, low: Numbers = (-1.0, -1.0), high: Numbers = (1.0, 1.0)):
    """A picture as a density: uniform within each pixel, p(x) = mass / area, and 0 outside. Row 0 of the pixels is on top.

    Draws keep as far from the edges of pixels as float32 may round, 4e-7 of the largest corner: at most 1% of a pixel.

    Args:
        height, width: of the picture, in pixels.
        low, high: two corners of the box that it fills, (x, y), edges included.

    Params:
        `{"fixed": {"mass": (height, width)}}`, the probability of each pixel; 1 / (height width) at first. `picture` has the
        masses of an array.

    Errors:
        FlowsError: an argument outside its range, corners that are not in order, or an event that is not (2,).

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, section 5.1, whose densities of
        the plane are pictures.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.datasets.Picture(2, 3)(0, 2)
        >>> log_pdf(params, sample(0, params, 2)).round(3).tolist()
        [-1.386..., -1.386...]
    """
    shape = [positive_int(n, f"Picture: {name}", most=100_000) for n, name in ((height, "height"), (width, "width"))]
    for corner, name in ((low, "low"), (high, "high")):
        check_fits(numbers(corner, f"Picture: {name}"), (2,), f"Picture: {name}")
    ends = np.stack([np.broadcast_to(corner, 2).astype(float) for corner in (low, high)])
    size = (ends[1] - ends[0]) / shape[::-1]  # of a pixel
    rounding = 4e-7 * np.abs(ends).max() / np.maximum(size, 1e-99)  # by which float32 may see a point in the next pixel
    if not ((size > 0) & (rounding < 0.01)).all():
        raise FlowsError(f"Picture: low is {low} and high is {high}; expected low < high, and pixels that float32 tells apart")

    def pixel_of(x):
        """Rows and columns."""
        steps = (x.T - jnp.asarray(ends[0], x.dtype)[:, None]) / jnp.asarray(size, x.dtype)[:, None]
        column, row = (jnp.clip(jnp.floor(step), 0, n - 1).astype(int) for step, n in zip(steps, shape[::-1], strict=True))
        return shape[0] - 1 - row, column

    def log_pdf(params, x):
        inside = ((x >= jnp.asarray(ends[0], x.dtype)[None]) & (x <= jnp.asarray(ends[1], x.dtype)[None])).all(1)
        density = jnp.log(params["fixed"]["mass"].astype(x.dtype)[pixel_of(x)]) - math.log(size.prod())
        return jnp.where(jnp.isnan(x).any(1), jnp.nan, jnp.where(inside, density, -jnp.inf))

    def sample(rng, params, num_samples):
        mass = params["fixed"]["mass"].astype(float)
        which, across, *within = jax.random.uniform(rng, (4, num_samples), mass.dtype)
        row = _place(mass.sum(1)[None], jnp.zeros(num_samples, int), which)
        column = _place(mass, row, across)
        corner = jnp.stack([column, shape[0] - 1 - row]).astype(mass.dtype)
        edge, size_of, low_of = (jnp.asarray(side, mass.dtype)[:, None] for side in (rounding, size, ends[0]))
        return (low_of + (corner + edge + (1 - 2 * edge) * jnp.stack(within)) * size_of).T

    return _plane("Picture", log_pdf, sample, lambda: {"fixed": {"mass": jnp.full(shape, 1 / math.prod(shape))}})


def picture(pixels, low: Numbers = (-1.0, -1.0), high: Numbers = (1.0, 1.0), dark: bool = False):
    """The `Picture` of an array as a triple, with params: the brighter a pixel, the more mass it has.

    Args:
        pixels: numbers from 0, (height, width), or colours (height, width, 3), of which the mean counts.
        low, high: as in `Picture`.
        dark: the darker a pixel, the more mass it has: the largest number less its own.

    Errors:
        FlowsError: pixels of another shape, that are not finite, below 0, or all without mass.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.datasets.picture([[0, 3], [1, 0]])
        >>> log_pdf(params, jnp.array([[0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])).round(3).tolist()
        [-0.288..., -1.386..., -inf]
    """
    x = numbers(pixels, "picture: pixels")
    if not (x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 3)) or not x.size:
        raise FlowsError(f"picture: pixels have shape {x.shape}; expected (height, width), or (height, width, 3) for colours")
    x = x if x.ndim == 2 else x.mean(2)
    if x.min() < 0:
        raise FlowsError(f"picture: the least of the pixels is {x.min():g}; expected numbers from 0")
    x = x.max() - x if dark else x
    if not x.sum() > 0:
        raise FlowsError(f"picture: no pixel has mass; expected some that are {'darker' if dark else 'brighter'} than others")
    height, width = x.shape
    triple = Picture(height, width, low, high)(0, 2)
    return triple._replace(params={"fixed": {"mass": jnp.asarray(x / x.sum(), float)}})


def _place(mass: Array, row: Array, u: Array) -> Array:
    """The column, in these rows of `mass`, up to which a share u of the row's mass lies; by bisection."""
    n = mass.shape[1]
    cumulated = jax.lax.cummax(jnp.where(mass > 0, jnp.cumsum(mass, 1), 0), 1)  # rounding gives no mass where none is
    u, place = u * cumulated[row, -1], jnp.zeros_like(row)
    for step in 2 ** np.arange(int(n - 1).bit_length())[::-1]:
        further = place + int(step)
        place = jnp.where((further < n) & (cumulated[row, jnp.minimum(further, n) - 1] <= u), further, place)
    return place


def _plane(name, log_pdf, sample, params=dict):
    """The init_fun of a distribution in the plane, by default without params."""

    def init_fun(rng, shape):
        if shape != (2,):
            raise FlowsError(f"{name}: the event is {shape}; expected a point in the plane: use input_dim=2")
        return params(), log_pdf, sample

    return init_fun


def _curves(name, curves, end: float, power: int, speed: float, noise: float):
    """Points of `curves(t)`, (curves, 2, *t.shape), at t = end u^(1/power) with u uniform on [0, 1], and normal noise.

    `speed` is the largest |dc/dt|. 16 nodes on each piece of four standard deviations are exact to the digits of float64.
    """
    nodes, weights = np.polynomial.legendre.leggauss(16)
    pieces = 4 + math.ceil(end * speed / (4 * noise))
    t = (end / pieces * (np.arange(pieces)[:, None] + (nodes + 1) / 2)).ravel()
    density = power / end * (t / end) ** (power - 1)  # of t
    centres = np.moveaxis(curves(t, np), 1, 2)
    masses = np.tile(np.tile(weights, pieces) * end / (2 * pieces) * density, len(centres)) / len(centres)

    def log_pdf(params, x):
        return honest_far_out(lambda x: _log_mixture(x, centres.reshape(-1, 2), masses, noise), x)

    def sample(rng, params, num_samples):
        which, along, normal = jax.random.split(rng, 3)
        u = jax.random.uniform(along, (num_samples,), float)
        points = curves(end * u ** (1 / power), jnp)
        chosen = jax.random.randint(which, (num_samples,), 0, len(centres))
        points = jnp.take_along_axis(points, chosen[None, None], axis=0)[0].T
        return points + noise * jax.random.normal(normal, points.shape, points.dtype)

    return _plane(name, log_pdf, sample)


def _log_mixture(x: Array, centres: np.ndarray, masses: np.ndarray, noise: float) -> Array:
    """The logarithm of sum_k mass_k N(x; centre_k, noise^2 I), a few rows at a time."""
    at, log_masses = jnp.asarray(centres, x.dtype), jnp.asarray(np.log(masses), x.dtype)

    def log_density(row: Array) -> Array:
        squares = jnp.square((row[None] - at) / noise).sum(1)
        return logsumexp(log_masses - 0.5 * squares) - 2 * math.log(noise) - LOG_2PI

    return jax.lax.map(log_density, x, batch_size=CHUNK)


def _noise(noise: float, name: str) -> float:
    if positive(noise, f"{name}: noise") < LEAST_NOISE:
        raise FlowsError(f"{name}: noise is {noise}; expected at least {LEAST_NOISE}, below which the density takes too long")
    return float(noise)
