"""Location-scale bases: a family is the log-density and the sampler of its standard form; the rest is shared here.

Parameters are constants, trained, or made by a network from a context. Family: Numbers."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit
from scipy.special import stdtrit

from flows.bijections.engine import conditioned
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import running
from flows.core import (
    Array,
    Cdf,
    ConditionerLike,
    FlowsError,
    Shape,
    as_context,
    distribution,
    naming,
    positive,
    size,
    soft_clip,
    soft_clip_inverse,
)

BOUND = 10.0  # nats: no scale overflows, however far training or a network goes
TAIL_BOUND = 5.0
ROWS_A_SLOPE = 5  # rows for each entry of a context, from which a regression starts at least squares; with fewer at 0


def conditional(
    name: str, net: Any, outputs: Callable[[Shape], int], as_theta: Callable, log_density: Callable, draw: Callable
) -> Callable:
    """The init_fun of a base whose parameters a network makes from the context alone. `outputs(shape)` is the number of outputs
    of the network, `as_theta(raw, shape)` makes theta of outputs (rows, outputs), `log_density(theta, x)` is (rows,), and
    `draw(theta, rng, n, shape)` is (n, *shape)."""

    def make(key, shape, context, args):
        if context is None:
            raise FlowsError(f"{name}: its conditioner makes parameters of a context; give init_fun context_dim=")
        args = args._replace(init_inputs=args.init_context)  # the context is all that the network sees
        start, network = running(net, key, (0,), (outputs(shape),), context, args)

        def theta_of(params, context, **call):
            nothing = jnp.zeros((0, context.shape[0]), context.dtype)
            return as_theta(network.run(params, nothing, context, **call).T, shape)

        def log_pdf(params, x, **call):
            return log_density(theta_of(params, **call), x)

        def sample(rng, params, num_samples, context):
            return draw(theta_of(params, context), rng, num_samples, shape)

        def joint_draw(rng, params, num_samples, dtype, context):
            """The network runs once, and its gradient is one pass."""
            theta = theta_of(params, context)
            x = draw(theta, rng, num_samples, shape).astype(dtype)
            return x, log_density(theta, x)

        sample.joint_draw = joint_draw  # type: ignore[attr-defined]
        return start, naming(log_pdf, {"context", *network.keywords}), sample

    return conditioned(net, make)


def unconditional(trainable: bool, shapes_of: Callable, density: Callable, draws: Callable) -> Callable:
    """The init_fun of a base whose parameters, of these shapes for an event, are 0, or start there and train."""

    def init_fun(rng, shape):
        shapes = shapes_of(shape)
        params = {leaf: jnp.zeros(leaf_shape) for leaf, leaf_shape in shapes.items()} if trainable else {}

        def theta_of(params, dtype):
            standard = {leaf: jnp.zeros((1, size(leaf_shape)), dtype) for leaf, leaf_shape in shapes.items()}
            return standard | {leaf: value.reshape(1, size(shapes[leaf])) for leaf, value in params.items()}

        def log_pdf(params, x):
            return density(theta_of(params, x.dtype), x)

        def sample(rng, params, num_samples):
            return draws(theta_of(params, None), rng, num_samples, shape)

        return params, log_pdf, sample

    return init_fun


class Family(NamedTuple):
    """The standard form of a family: location 0 and scale 1.

    `log_density(z, **further)` of z (batch, d) is (batch,) in nats; `draw(rng, (n, d), **further)` is (n, d). `further` are
    more parameters of the family, (batch, count), or (1, count) where all rows share them; `further_shapes(event)` are their
    shapes for one event, and they start at 0. `measured(x)` of rows (n, d) is where training starts: the location, the scale,
    and the parameters of `further` that it estimates.
    """

    log_density: Callable[..., Array]
    draw: Callable[..., Array]
    measured: Callable[[Array], tuple[Array, Array, dict[str, Array]]]
    further_shapes: Callable[[Shape], dict[str, Shape]] = lambda event: {}


def location_scale(
    name: str,
    family: Family,
    trainable: bool,
    conditioner: Callable | None,
    temperature: float = 1.0,
    regression: bool = False,
) -> Callable:
    """The init_fun of a base: log p(x) = log p_family(z) - sum(s), z = (x - loc) e^-s, s = soft_clip(log_scale) + log of the
    temperature. With a regression the location is linear in the context."""
    wider = math.log(temperature)
    net: Any = None if conditioner is None else check_conditioner(conditioner, name)

    def shapes_of(event: Shape) -> dict[str, Shape]:
        return {"loc": event, "log_scale": event, **family.further_shapes(event)}

    def scale_of(theta: dict[str, Array]) -> Array:
        """s, from "log_scale", which is removed from theta."""
        s = soft_clip(theta.pop("log_scale"), BOUND)
        return s + wider if wider else s

    def density(theta: dict[str, Array], x: Array) -> Array:
        theta, x = dict(theta), x.reshape(x.shape[0], size(x.shape[1:]))
        loc, s = theta.pop("loc"), scale_of(theta)
        # An infinite x or z would make NaN of gradients, also where a mixture gives this density the weight 0.
        infinite, largest = jnp.isinf(x), float(jnp.finfo(x.dtype).max)
        z = (jnp.where(infinite, 0.0, x) - loc) * jnp.exp(-s)
        z = jnp.where(jnp.isinf(z), jnp.sign(z) * largest, z)
        log_p = family.log_density(z, **theta) - s.sum(1)
        return jnp.where(infinite.any(1), log_p - jnp.inf, log_p)  # NaN stays NaN

    def draws(theta: dict[str, Array], rng: Array, n: int, event: Shape) -> Array:
        theta = dict(theta)
        loc, s = theta.pop("loc"), scale_of(theta)
        z = family.draw(rng, (n, size(event)), **theta).astype(loc.dtype)
        return (loc + jnp.exp(s) * z).reshape(n, *event)

    def trained(rng, shape, init_inputs=None):
        shapes = shapes_of(shape)
        params, *functions = init_fun(rng, shape)
        if init_inputs is not None:
            loc, scale, start = family.measured(init_inputs.reshape(init_inputs.shape[0], size(shape)))
            start |= {"loc": loc, "log_scale": soft_clip_inverse(jnp.log(scale) - wider, BOUND)}
            params |= {leaf: value.reshape(shapes[leaf]) for leaf, value in start.items()}
        return params, *functions

    init_fun = unconditional(trainable, shapes_of, density, draws)

    def as_theta(raw: Array, shape: Shape) -> dict[str, Array]:
        sizes = {leaf: size(leaf_shape) for leaf, leaf_shape in shapes_of(shape).items()}
        pieces = jnp.split(raw, np.cumsum(list(sizes.values()))[:-1].tolist(), axis=1)
        return dict(zip(sizes, pieces, strict=True))

    def linear_in_context(rng, shape, context_dim=0, init_inputs=None, init_context=None):
        context_shape = as_context(context_dim)
        if context_shape is None:
            raise FlowsError(f"{name}: its mean is to be linear in a context; give init_fun context_dim=")
        slope, x = jnp.zeros((size(context_shape), size(shape))), init_inputs
        if x is not None and init_context is not None and x.shape[0] >= ROWS_A_SLOPE * (1 + slope.shape[0]):
            x, context = x.reshape(x.shape[0], -1), init_context.reshape(x.shape[0], -1).astype(x.dtype)
            slope = jnp.linalg.lstsq(context - context.mean(0)[None], x - x.mean(0)[None])[0]
            x = (x - regressed(context, slope)).reshape(init_inputs.shape)
        params = trained(rng, shape, x)[0]

        def theta_of(params, context):
            theta = {leaf: value.reshape(1, size(shapes_of(shape)[leaf])) for leaf, value in params.items() if leaf != "slope"}
            return theta | {"loc": theta["loc"] + regressed(context, params["slope"])}

        def log_pdf(params, x, context):
            return density(theta_of(params, context), x)

        def sample(rng, params, num_samples, context):
            return draws(theta_of(params, context), rng, num_samples, shape)

        return {**params, "slope": slope}, log_pdf, sample

    if net is None:
        return linear_in_context if regression else trained if trainable else init_fun
    return conditional(name, net, lambda shape: sum(map(size, shapes_of(shape).values())), as_theta, density, draws)


def regressed(context: Array, slope: Array) -> Array:
    """slope' context of each row, (batch, d)."""
    return jnp.matmul(context.reshape(context.shape[0], -1).astype(slope.dtype), slope, precision="highest")


def symmetric(tail: Callable, point: Callable) -> Callable[[Any, Shape | None], Cdf | None]:
    """The `cdf` of a distribution around its location: P(X > x) is P(X <= -x) of the standard form."""

    def cdf(arguments: Any, context: Shape | None) -> Cdf | None:
        if arguments["conditioner"] is not None:
            return None
        wider = arguments.get("temperature", 1.0)

        def theta(params: Any, context: Any) -> tuple[Any, Any]:
            if not params:
                return 0.0, wider
            loc, scale = params["loc"], wider * jnp.exp(soft_clip(params["log_scale"], BOUND))
            return (loc + regressed(context, params["slope"])[:, 0] if "slope" in params else loc), scale

        def scaled_tail(params: Any, x: Array, context: Any, upper: Array) -> Array:
            loc, scale = theta(params, context)
            z = (x - loc) / scale
            return tail(jnp.where(upper, -z, z))

        def scaled_point(params: Any, u: Array, context: Any, upper: Array) -> Array:
            loc, scale = theta(params, context)
            z = point(u)
            return loc + scale * jnp.where(upper, -z, z)

        return Cdf(scaled_tail, scaled_point)

    return cdf


def _laplace_tail(z: Array) -> Array:
    half = jnp.exp(-jnp.abs(z)) / 2
    return jnp.where(z > 0, 1 - half, half)


def _laplace_point(u: Array) -> Array:
    far = jnp.log(2 * jnp.minimum(u, 1 - u))
    return jnp.where(u > 0.5, -far, far)


@distribution(batched=True, cdf=symmetric(_laplace_tail, _laplace_point))
def Laplace(trainable: bool = False, conditioner: ConditionerLike | None = None):
    """Independent Laplace distributions, one for each entry of the event: sharper at the centre than a normal, heavier outside.

    log p(x) = -sum(|z| + log 2) - sum(s), z = (x - loc) e^-s, s = 10 tanh(log_scale / 10), in nats. The scale e^s is the mean
    of |x - loc|.

    Args:
        trainable: train loc and log_scale, which start at estimates from `init_inputs`, or at 0; otherwise they are 0.
        conditioner: a network that makes loc and log_scale from the context, and trains; see `Normal`.

    Params:
        `{"loc": event, "log_scale": event}` if trainable, the params of the conditioner if there is one, else `{}`.

    Errors:
        FlowsError: a conditioner without a context.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Laplace()(0, 1)
        >>> log_pdf(params, jnp.array([[0.0], [2.0]])).round(4).tolist()
        [-0.693..., -2.693...]
    """

    def log_density(z: Array) -> Array:
        return -(jnp.abs(z) + math.log(2)).sum(1)

    def measured(x: Array) -> tuple[Array, Array, dict[str, Array]]:
        median = jnp.median(x, 0)
        return median, jnp.abs(x - median[None]).mean(0), {}

    return location_scale("Laplace", Family(log_density, jax.random.laplace, measured), trainable, conditioner)


@distribution(batched=True, cdf=symmetric(jax.nn.sigmoid, logit))
def Logistic(trainable: bool = False, conditioner: ConditionerLike | None = None, temperature: float = 1.0):
    """Independent logistic distributions, one for each entry of the event; `Sigmoid` makes the standard one uniform.

    log p(x) = -sum(|z| + 2 log(1 + e^-|z|)) - sum(s), z = (x - loc) e^-s, s = 10 tanh(log_scale / 10) + log(temperature), in
    nats.

    Args:
        trainable: train loc and log_scale, which start at estimates from `init_inputs`, or at 0; otherwise they are 0.
        conditioner: a network that makes loc and log_scale from the context, and trains; see `Normal`.
        temperature: a factor on the scale, above 0, as in `Normal`.

    Params:
        `{"loc": event, "log_scale": event}` if trainable, the params of the conditioner if there is one, else `{}`.

    Errors:
        FlowsError: a conditioner without a context.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Logistic()(0, 1)
        >>> log_pdf(params, jnp.array([[0.0], [100.0]])).round(4).tolist()
        [-1.386..., -100.0]
    """

    def log_density(z: Array) -> Array:
        return -(jnp.abs(z) + 2 * jnp.log1p(jnp.exp(-jnp.abs(z)))).sum(1)

    def measured(x: Array) -> tuple[Array, Array, dict[str, Array]]:
        return x.mean(0), x.std(0) * (math.sqrt(3) / math.pi), {}

    family = Family(log_density, jax.random.logistic, measured)
    return location_scale("Logistic", family, trainable, conditioner, positive(temperature, "Logistic: temperature", 1e-6, 1e6))


@distribution(batched=True)
def StudentT(df: float = 4.0, trainable: bool = False, conditioner: ConditionerLike | None = None):
    """Independent Student t distributions, one for each entry of the event, with tails that can be trained.

    log p(x) = sum(log c(v) - (v + 1) / 2 log(1 + z^2 / v)) - sum(s), with c(v) = G((v + 1) / 2) / (G(v / 2) sqrt(v pi)), G the
    gamma function, z = (x - loc) e^-s, s = 10 tanh(log_scale / 10) and v = df e^(5 tanh(log_df / 5)), in nats. A flow whose
    maps have bounded slopes has the tails of its base, so heavy-tailed data need a base such as this one.

    Args:
        df: degrees of freedom, at the start if they train. Moments of an order below df are finite.
        trainable: train loc and log_scale, which start at estimates from `init_inputs`, and log_df, which starts at 0;
            otherwise they are 0.
        conditioner: a network that makes all three from the context, and trains; see `Normal`.

    Params:
        `{"loc": event, "log_scale": event, "log_df": event}` if trainable, the conditioner's if there is one, else `{}`.

    Errors:
        FlowsError: df that is not a number from 1e-6 to 1e30, or a conditioner without a context.

    Source:
        Jaini, Kobyzev, Yu and Brubaker, "Tails of Lipschitz Triangular Flows", 2020, arXiv:1907.04481.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.StudentT(df=1.0)(0, 1)
        >>> log_pdf(params, jnp.array([[0.0], [1e30]])).round(3).tolist()
        [-1.145..., -139.3...]
    """
    df = positive(df, "StudentT: df", 1e-6, 1e30)

    def freedom(log_df: Array) -> Array:
        return df * jnp.exp(soft_clip(log_df, TAIL_BOUND))

    def log_density(z: Array, log_df: Array) -> Array:
        v = freedom(log_df)
        u = jnp.abs(z) / jnp.sqrt(v)
        small, large = jnp.minimum(u, 1), jnp.maximum(u, 1)  # u^2 would overflow where the density does not vanish
        tail = jnp.log1p(jnp.square(small / large)) + 2 * jnp.log(large)
        return (log_normaliser(v) - (v + 1) / 2 * tail).sum(1)

    def draw(rng: Array, shape: Shape, log_df: Array) -> Array:
        v = freedom(log_df)
        return jax.random.t(rng, v, shape, v.dtype)

    def measured(x: Array) -> tuple[Array, Array, dict[str, Array]]:
        median = jnp.median(x, 0)  # mean and variance may not exist
        return median, jnp.median(jnp.abs(x - median[None]), 0) / float(stdtrit(df, 0.75)), {}

    family = Family(log_density, draw, measured, lambda event: {"log_df": event})
    return location_scale("StudentT", family, trainable, conditioner)


SHIFT = 12  # from here on the series below is exact to float64


def log_normaliser(v: Array) -> Array:
    """log(G((v + 1) / 2) / (G(v / 2) sqrt(v pi))), elementwise: a difference of log-gammas that keeps its digits for large v.

    With a = v / 2, log G(a + 1/2) - log G(a) is computed at a + 12 by its series in 1 / a, and moved to a by the recurrence
    G(a + 1) = a G(a).
    """
    a = v / 2
    b = a + SHIFT
    series = sum(c / b**k for k, c in ((1, -1 / 8), (3, 1 / 192), (5, -1 / 640), (7, 17 / 14336), (9, -31 / 18432)))
    back = sum(jnp.log1p(0.5 / (a + k)) for k in range(SHIFT))
    return series - back + 0.5 * jnp.log1p(SHIFT / a) - 0.5 * math.log(2 * math.pi)
