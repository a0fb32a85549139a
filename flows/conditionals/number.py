"""Numbers of the line, also between ends or on a grid, by a spline of the logistic distribution. Family: Kinds of columns for
`AnySubset`."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditionals import ends, gaussian
from flows.conditionals.base import Group, kind, mean_of_draws
from flows.core import Array, FlowsError, Region, number, saturated, softplus
from flows.transformers import Affine, RationalQuadratic

UNIT = math.sqrt(3) / math.pi  # a standard deviation of data in the units in which the logistic distribution has its own
BOUND = 8.0  # of splines, in these units: 4.4 standard deviations
SQUASHED = 5.0  # standard deviations beyond which networks see less and less of how far a number is
NARROW = 2e-3  # the width of a cell in the logistic distribution's units below which its mass is a density


class Line(NamedTuple):
    """The numbers of `Number`; an end that is missing is infinite, and a step of 0 is none."""

    low: float
    high: float
    step: float

    @staticmethod
    def together(columns: Sequence["Line"], num_bins: int) -> "LineGroup":
        return LineGroup(columns, num_bins)


@kind
def Number(low: float | None = None, high: float | None = None, step: float = 0.0):
    """Numbers of the line, or between ends, or on a grid.

    With g = log(e^(t / r) - 1) of the distance t to one end, where r is the largest t of the training rows, beyond which the
    logarithm becomes a line, as draws would have no mean; g the logit between two ends, the identity without; m and s the
    middle and scale of g(x), S a trained spline of the column, mu and sigma the mean and deviation given the numbers that are
    known, in the normal distribution of all numbers of the training rows, w a trained weight, A and T the affine map and the
    spline that the network makes of the other columns,

        z        = T(A((S((g(x) - m) / s) - w mu) / sigma^w))
        log p(x) = z - 2 log(1 + e^z) + log dz/dx                       without a step
        log p(x) = log((F(b) - F(a)) / step),  F(z) = 1 / (1 + e^-z)    with one: a and b are z at x -+ step / 2

    so that with a step the mass of a recorded value is exact. Ends are then half a step wider, and the grid begins at low, or
    at high, or at 0. w starts at 1; at 0 where a tenth of the rows has one value. With more than 64 numbers there is no mu.

    Args:
        low, high: ends; None for none. Without a step values lie strictly between them.
        step: the distance of neighbouring values; 0 for numbers that are not rounded.

    Errors:
        FlowsError: low is not below high; a step that is negative, or does not divide the distance of the ends.
    """
    low, high = (
        infinite if end is None else number(end, f"Number: {name}", math.isfinite, "a finite number, or None")
        for end, infinite, name in ((low, -math.inf, "low"), (high, math.inf, "high"))
    )
    if not low < high:
        raise FlowsError(f"Number: low is {low}, and high is {high}; expected low < high")
    step = check_step(step, "Number", high - low)
    return Line(low, high, step)


def check_step(step: Any, name: str, span: float) -> float:
    """Return a step, if it is 0 or divides the span of values."""
    step = number(step, f"{name}: step", lambda s: math.isfinite(s) and s >= 0, "a finite number from 0 on")
    if step and math.isfinite(span) and (step > span or abs(span / step - round(span / step)) > ends.OFF_GRID):
        raise FlowsError(f"{name}: step is {step}, and values span {span}; expected a step that divides this")
    return step


class LineGroup(Group):
    """Columns of numbers."""

    def __init__(self, columns: Sequence[Line], num_bins: int):
        self.columns, self.widths = columns, (1,) * len(columns)
        self.spline, self.affine = RationalQuadratic(num_bins, BOUND), Affine()
        self.num_params = 2 + self.spline.num_params
        low, high, step = (np.asarray(numbers, float)[:, None] for numbers in zip(*columns, strict=True))
        self.low, self.high, self.stepped = low, high, bool(step.any())
        self.normal = 1 < len(columns) <= gaussian.MOST
        self.extra = len(columns) if self.normal else 0
        finite = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0.0))
        self.constants = {
            "has_low": np.isfinite(low), "has_high": np.isfinite(high), "step": step, "origin": finite,
            "low": np.where(np.isfinite(low), low - step / 2, 0.0), "high": np.where(np.isfinite(high), high + step / 2, 0.0),
        }  # fmt: skip

    def regions(self) -> Region:
        return Region(self.low[:, 0], self.high[:, 0])

    def init(self, x: Array, there: Array) -> tuple[Any, Array]:
        constants = self.constants | {"middle": np.zeros((len(x), 1))}
        c = {name: jnp.asarray(entry, x.dtype) for name, entry in constants.items()}
        there, fixed = there & self.inside(c, x), {}
        if np.isfinite([self.low, self.high]).any():
            far = jnp.where(there, jnp.where(c["has_low"] > 0, x - c["low"], c["high"] - x), 0).max(1, keepdims=True, initial=0)
            far = jnp.where(c["has_low"] * c["has_high"] > 0, c["high"] - c["low"], far)
            fixed["reach"] = c["reach"] = jnp.where((c["has_low"] + c["has_high"] > 0) & (far > 0), far, 1)
        y = ends.centred(c, jnp.where(there, x, self.safe(c)))[0]
        count = jnp.maximum(there.sum(1, keepdims=True, dtype=x.dtype), 1)
        middle = jnp.where(there, y, 0).sum(1, keepdims=True) / count
        deviation = jnp.sqrt(jnp.where(there, jnp.square(y - middle), 0).sum(1, keepdims=True) / count)
        varies = deviation > 8 * jnp.finfo(x.dtype).eps * jnp.abs(middle)
        scale = jnp.where(varies, deviation, 1.0)
        fixed |= {"middle": middle, "scale": scale}
        params: dict[str, Any] = {"fixed": fixed, "margin": jnp.zeros((len(x), self.spline.num_params), x.dtype)}
        if self.normal:
            y = jnp.where(there, saturated((y - middle) / scale, SQUASHED), 0)
            fixed |= gaussian.measured(y, there)
            params["normal"] = jnp.where(gaussian.has_spike(y, there), 0.0, 1.0).astype(x.dtype)
        return params, jnp.zeros((self.num_params, len(x)), x.dtype)

    def inside(self, c: Any, x: Array) -> Array:
        return ends.inside(c, x, self.stepped)

    def safe(self, c: Any) -> Array:
        return ends.safe(c)

    def shown(self, c: Any, x: Array) -> Array:
        return saturated(ends.centred(c, x)[0] / c["scale"], SQUASHED)

    def begun(self, c: Any, x: Array, known: Array) -> Any:
        return gaussian.swept(c["mean"], c["covariance"], self.shown(c, x), known) if self.normal else ()

    def learnt(self, c: Any, state: Any, place: Any, x: Array, now: Array) -> Any:
        return gaussian.learnt(state, place, (self.shown(c, x[None]) - c["mean"])[0], now) if self.normal else state

    def started(self, c: Any, state: Any, known: Array) -> Any:
        """Return the constants and params with the normal distribution of each column given the known ones; and what the
        network sees of it: the means of others, and how far known ones are from theirs, as directions of little variance
        are lost among columns."""
        if not self.normal:
            return c
        means, variances, residuals = gaussian.regressed(c["mean"], state, known)
        both = jnp.where(known, saturated(residuals, SQUASHED), means)
        return c | {"shift": c["normal"] * means, "log_spread": c["normal"] * jnp.log(variances) / 2, "seen": both}

    def log_p(self, c: Any, theta: Array, x: Array) -> Array:
        z, log_slope = self._map(c, theta, x)
        log_density = z - 2 * softplus(z) + log_slope
        if not self.stepped:
            return log_density
        step = jnp.where(c["step"] > 0, c["step"], 1)
        first = (c["has_low"] > 0) & (x - step < c["low"])  # no cell is before it
        last = (c["has_high"] > 0) & (x + step > c["high"])
        a = self._map(c, theta, x, jnp.where(first, 0, -step / 2))[0]
        b = self._map(c, theta, x, jnp.where(last, 0, step / 2))[0]
        wide = b - a >= NARROW
        width = jnp.where(wide | first | last, jnp.where(first | last, 1.0, b - a), 1.0)
        between = b + jnp.log(-jnp.expm1(-width)) - softplus(a) - softplus(b)
        log_mass = jnp.where(first & last, 0.0, jnp.where(first, -softplus(-b), jnp.where(last, -softplus(a), between)))
        massive = (c["step"] > 0) & (wide | first | last)
        return jnp.where(massive, log_mass - jnp.log(step), log_density)

    def draw(self, c: Any, theta: Array, u: Array) -> Array:
        return self.quantile(c, theta, u, jnp.zeros(u.shape, bool))

    def expected(self, c: Any, theta: Array) -> Array:
        return mean_of_draws(lambda u: self.draw(c, theta, u), theta.shape[1:], theta.dtype)

    def tail(self, c: Any, theta: Array, x: Array, upper: Array) -> Array:
        """Return P(X <= x), or P(X > x) where upper; of rounded values to the end of the cell."""
        if self.stepped:  # to the end of the last cell up to x
            step = jnp.where(c["step"] > 0, c["step"], 1)
            snapped = c["origin"] + (jnp.floor((x - c["origin"]) / step + ends.OFF_GRID) + 0.5) * step
            x = jnp.where(c["step"] > 0, snapped, x)
        low, high = (c["has_low"] > 0) & (x <= c["low"]), (c["has_high"] > 0) & (x >= c["high"])
        z = self._map(c, theta, jnp.where(low | high, self.safe(c), x))[0]
        u = jax.nn.sigmoid(jnp.where(upper, -z, z))
        return jnp.where(low | high, jnp.where(upper ^ high, 1.0, 0.0).astype(u.dtype), u)

    def quantile(self, c: Any, theta: Array, u: Array, upper: Array) -> Array:
        """Return the entries whose tail is u."""
        u = jnp.maximum(u, jnp.finfo(u.dtype).tiny)
        z = (jnp.log(u) - jnp.log1p(-u)) * jnp.where(upper, -1, 1).astype(u.dtype)
        y = self.spline.apply("inverse", theta[2:], z)[0]
        y = self.affine.apply("inverse", theta[:2], y)[0]
        if self.normal:
            y = c["shift"] / UNIT + jnp.exp(c["log_spread"]) * y
        y = self.spline.apply("inverse", c["margin"].T[:, :, None], y)[0]
        return ends.nearest(c, ends.bounded(c, c["middle"] + c["scale"] * UNIT * y))

    def _map(self, c: Any, theta: Array, x: Array, offset: Any = 0.0) -> tuple[Array, Array]:
        """z and log dz/dx, at x + offset."""
        y, log_slope = ends.centred(c, x, offset)
        y, log_slope = y / (c["scale"] * UNIT), log_slope - jnp.log(c["scale"] * UNIT)
        y, more = self.spline.apply("direct", c["margin"].T[:, :, None], y)
        log_slope = log_slope + more
        if self.normal:
            y, log_slope = (y - c["shift"] / UNIT) * jnp.exp(-c["log_spread"]), log_slope - c["log_spread"]
        for transformer, raw in ((self.affine, theta[:2]), (self.spline, theta[2:])):
            y, more = transformer.apply("direct", raw, y)
            log_slope = log_slope + more
        return y, log_slope
