"""`DiscretizedLogistic`: masses of whole numbers, from a logistic distribution cut into cells. Family: Whole numbers."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logit

from flows.conditioners.base import check_conditioner
from flows.core import (
    INTEGERS,
    Array,
    Cdf,
    ConditionerLike,
    FlowsError,
    Region,
    Shape,
    Support,
    distribution,
    size,
    soft_clip,
    soft_clip_inverse,
)
from flows.distributions.location_scale import BOUND, conditional, unconditional

EIGHTHS = 8  # of the range, in which parameters are counted: a standard form is then nearly uniform
LEAST_VARIANCE = 0.01  # of the logistic where training starts: nearly all of its mass is then in one cell


def _region(low: int | None, high: int | None, **_: Any) -> Support:
    region = INTEGERS
    if low is not None or high is not None:
        ends = _ends(low, high)
        codes = low == 0 and high is not None
        region = Region(*ends, classes=int(ends[1]) + 1) if codes else Region(*ends, whole=True)
    return Support(region, region)


def _ends(low: int | None, high: int | None) -> tuple[float, float]:
    for name, end in (("low", low), ("high", high)):
        if end is not None and (isinstance(end, bool) or not isinstance(end, int) or abs(end) > 2**24):
            raise FlowsError(f"DiscretizedLogistic: {name} is {end!r:.60}; expected a whole number within 2**24, or None")
    ends = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if not ends[0] < ends[1]:
        raise FlowsError(f"DiscretizedLogistic: low is {low} and high is {high}; expected low < high")
    return ends


def _standard(ends: tuple[float, float]) -> tuple[float, float]:
    """The location and the scale at params of 0."""
    low, high = ends
    return ((low + high) / 2, (high - low + 1) / EIGHTHS) if math.isfinite(high - low) else (0.0, 1.0)


def _log_mass(loc: Array, s: Array, x: Array, ends: tuple[float, float]) -> Array:
    """log P of rows x (n, d), (n,), for the location and the logarithm of the scale of each entry."""
    low, high = ends
    valid = (x == jnp.floor(x)) & ~jnp.isinf(x) & (x >= low) & (x <= high)
    distance, rate = jnp.where(jnp.isinf(x), 0.0, x) - loc, jnp.exp(-s)
    first = x <= low if math.isfinite(low) else None
    last = x >= high if math.isfinite(high) else None
    (far_below, below), (far_above, above) = _tail((distance - 0.5) * rate, first), _tail(-(distance + 0.5) * rate, last)
    within = jnp.log(-jnp.expm1(-rate))
    for at_end in (first, last):
        within = within if at_end is None else jnp.where(at_end, 0.0, within)
    log_p = within - far_below - far_above - jnp.log1p(below + above + below * above)
    return jnp.where(valid | jnp.isnan(x), log_p, log_p - jnp.inf).sum(1)


def _tail(z: Array, at_end: Array | None) -> tuple[Array, ...]:
    """log(1 + e^z) as max(z, 0) + log(1 + e^-|z|), without its last logarithm; 0 and 0 at an end."""
    parts = jnp.maximum(z, 0.0), jnp.exp(-jnp.abs(z))
    return parts if at_end is None else tuple(jnp.where(at_end, 0.0, part) for part in parts)


def _cdf(arguments: Any, context: Shape | None) -> Cdf | None:
    if arguments["conditioner"] is not None:
        return None
    low, high = ends = _ends(arguments["low"], arguments["high"])
    middle, unit = _standard(ends)

    def of(params: Any) -> tuple[Any, Any]:
        if not params:
            return middle, unit
        return middle + unit * params["loc"].ravel(), unit * jnp.exp(soft_clip(params["log_scale"].ravel(), BOUND))

    def tail(params: Any, x: Array, context: Any, upper: Array) -> Array:
        loc, scale = of(params)
        z = (jnp.floor(x) + 0.5 - loc) / scale
        z = jnp.where(x < low, -jnp.inf, jnp.where(x >= high, jnp.inf, z))
        return jax.nn.sigmoid(jnp.where(upper, -z, z))

    def point(params: Any, u: Array, context: Any, upper: Array) -> Array:
        loc, scale = of(params)
        x = jnp.ceil(loc + scale * jnp.where(upper, -logit(u), logit(u)) - 0.5)
        return jnp.clip(x, low, high)

    return Cdf(tail, point, ends)


@distribution(batched=True, support=_region, cdf=_cdf)
def DiscretizedLogistic(
    trainable: bool = False, conditioner: ConditionerLike | None = None, low: int | None = None, high: int | None = None
):
    """Independent whole numbers: the masses that logistic distributions give to the cells around them.

    log P(x) = log(sigmoid(b) - sigmoid(a)) = log(1 - e^(a - b)) - log(1 + e^-b) - log(1 + e^a), summed over entries, in nats;
    a, b = (x -+ 1/2 - m) / t. The end `low` takes the tail below, a = -inf, and `high` the tail above. m = loc and t = e^s,
    s = 10 tanh(log_scale / 10); with both ends m = (low + high) / 2 + r loc and t = r e^s, r an eighth of their number of
    values, so that all start about as likely as each other. What is not a whole number between the ends has log P = -inf.

    Args:
        trainable: train loc and log_scale, which start at estimates from `init_inputs`, or at 0; otherwise they are 0.
        conditioner: a network that makes loc and log_scale from the context, and trains; see `Normal`. In a `Slice` it is the
            likelihood of a decoder.
        low, high: the least and the largest value; None for no end.

    Params:
        `{"loc": event, "log_scale": event}` if trainable, the params of the conditioner if there is one, else `{}`.

    Support:
        Whole numbers, `INTEGERS`; with low=0 and an end `high` the codes 0 to high.

    Errors:
        FlowsError: ends that are not whole numbers in order; a conditioner without a context.

    Source:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improving Variational Inference with Inverse
        Autoregressive Flow", 2016, arXiv:1606.04934, section 4.1; Salimans, Karpathy, Chen and Kingma, "PixelCNN++", 2017,
        arXiv:1701.05517, equation 2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.DiscretizedLogistic(low=0, high=3)(0, 1)
        >>> jnp.exp(log_pdf(params, jnp.array([[0.0], [1.0], [2.0], [3.0], [4.0], [0.5]]))).round(2).tolist()
        [0.119..., 0.379..., 0.379..., 0.119..., 0.0, 0.0]
    """
    ends = _ends(low, high)
    middle, unit = _standard(ends)

    def located(theta: dict[str, Array]) -> tuple[Array, Array]:
        return middle + unit * theta["loc"], soft_clip(theta["log_scale"], BOUND) + math.log(unit)

    def density(theta: dict[str, Array], x: Array) -> Array:
        return _log_mass(*located(theta), x.reshape(x.shape[0], size(x.shape[1:])), ends)

    def draws(theta: dict[str, Array], rng: Array, n: int, event: Shape) -> Array:
        loc, s = located(theta)
        z = jax.random.logistic(rng, (n, size(event)), loc.dtype)
        return jnp.clip(jnp.round(loc + jnp.exp(s) * z), *ends).reshape(n, *event)

    def trained(rng, shape, init_inputs=None):
        params, *functions = init_fun(rng, shape)
        if init_inputs is not None:
            variance = jnp.maximum(init_inputs.var(0) - 1 / 12, LEAST_VARIANCE)  # without the variance of the rounding
            log_scale = jnp.log(jnp.sqrt(3 * variance) / (math.pi * unit))
            params = {"loc": (init_inputs.mean(0) - middle) / unit, "log_scale": soft_clip_inverse(log_scale, BOUND)}
        return params, *functions

    def as_theta(raw: Array, shape: Shape) -> dict[str, Array]:
        return dict(zip(("loc", "log_scale"), jnp.split(raw, 2, axis=1), strict=True))

    init_fun = unconditional(trainable, lambda event: {"loc": event, "log_scale": event}, density, draws)
    if conditioner is None:
        return trained if trainable else init_fun
    net = check_conditioner(conditioner, "DiscretizedLogistic")
    return conditional("DiscretizedLogistic", net, lambda shape: 2 * size(shape), as_theta, density, draws)
