"""Angles, by a spline of the circle. Family: Kinds of columns for `AnySubset`."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from flows.conditionals.base import Group, kind, mean_of_draws
from flows.conditionals.ends import OFF_GRID
from flows.conditionals.number import NARROW, check_step
from flows.core import Array, Region, positive
from flows.transformers import CircularRationalQuadratic


class Turn(NamedTuple):
    """The numbers of `Angle`."""

    period: float
    step: float

    @staticmethod
    def together(columns: Sequence["Turn"], num_bins: int) -> "TurnGroup":
        return TurnGroup(columns, num_bins)


@kind
def Angle(period: float = 2 * math.pi, step: float = 0.0):
    """Angles: any real number modulo a period. With T a spline of the circle, which the network makes of the other columns, and
    y = T(2 pi x / period),

        log p(x) = log(dy/dx / (2 pi))                                    without a step
        log p(x) = log((y(x + step / 2) - y(x - step / 2)) / (2 pi step)) with one: the mass of a recorded value is exact

    Args:
        period: the length of the circle.
        step: the distance of neighbouring values, which begin at 0; 0 for angles that are not rounded.

    Errors:
        FlowsError: period is not above 0; a step that is negative, or does not divide the period.
    """
    period = positive(period, "Angle: period")
    return Turn(period, check_step(step, "Angle", period))


class TurnGroup(Group):
    """Columns of angles."""

    def __init__(self, columns: Sequence[Turn], num_bins: int):
        self.widths, self.spline = (2,) * len(columns), CircularRationalQuadratic(num_bins)
        self.num_params = self.spline.num_params
        period, step = (np.asarray(numbers, float)[:, None] for numbers in zip(*columns, strict=True))
        self.constants, self.stepped = {"period": period, "step": step}, bool(step.any())

    def regions(self) -> Region:
        return Region(period=self.constants["period"][:, 0])

    def init(self, x: Array, there: Array) -> tuple[Any, Array]:
        return {}, jnp.zeros((self.num_params, len(x)), x.dtype)

    def inside(self, c: Any, x: Array) -> Array:
        step = c["step"]
        cells = x / jnp.where(step > 0, step, 1)
        off = jnp.abs(cells - jnp.round(cells)) * step > OFF_GRID * step + 4 * jnp.finfo(x.dtype).eps * jnp.abs(x)
        return jnp.isfinite(x) & ~(off & (step > 0))

    def safe(self, c: Any) -> Array:
        return jnp.zeros_like(c["step"])

    def shown(self, c: Any, x: Array) -> Array:
        turned = self._turned(c, x)
        return jnp.stack([jnp.cos(turned), jnp.sin(turned)], 1).reshape(-1, x.shape[1])

    def log_p(self, c: Any, theta: Array, x: Array) -> Array:
        step, unit = c["step"], 2 * math.pi / c["period"]
        turned = self._turned(c, x)
        log_density = self.spline.apply("direct", theta, turned)[1] + jnp.log(unit / (2 * math.pi))
        if not self.stepped:
            return log_density
        half = jnp.where(step > 0, step * unit / 2, 0.0)
        width = self.spline.apply("direct", theta, turned + half)[0] - self.spline.apply("direct", theta, turned - half)[0]
        massive = (step > 0) & (width > NARROW)
        log_mass = jnp.log(jnp.where(massive, width, 1.0) / (2 * math.pi)) - jnp.log(jnp.where(step > 0, step, 1))
        return jnp.where(massive, log_mass, log_density)

    def draw(self, c: Any, theta: Array, u: Array) -> Array:
        step, period = c["step"], c["period"]
        x = self.spline.apply("inverse", theta, math.pi * (2 * u - 1))[0] * (period / (2 * math.pi))
        on_grid = jnp.round(x / jnp.where(step > 0, step, 1)) * step
        return jnp.where(step > 0, on_grid, x)

    def expected(self, c: Any, theta: Array) -> Array:
        return mean_of_draws(lambda u: self.shown(c, self.draw(c, theta, u)), theta.shape[1:], theta.dtype)

    def _turned(self, c: Any, x: Array) -> Array:
        """Angles in radians within half a turn of 0."""
        period = c["period"]
        return (x - period * jnp.round(x / period)) * (2 * math.pi / period)
