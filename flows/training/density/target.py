"""An unnormalised density as the host asks for it: values of many points by one program, and its maxima by L-BFGS."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from flows.core import Shape, grown, on_device

TOGETHER = 1_024  # points of one call, and so of one program


class Target:
    """A log_density of points (n, *event), at points in NumPy."""

    def __init__(self, log_density: Callable, event: Shape, dtype: Any):
        self.log_density, self.event, self.dtype = log_density, event, dtype
        self._values = jax.jit(log_density)
        self._downhill = jax.jit(jax.value_and_grad(lambda x: -log_density(x[None])[0]))
        self._hessian = jax.jit(jax.hessian(lambda x: log_density(x[None])[0]))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The log-density of points (..., *event); -inf where it is no number."""
        values = self.raw(x)
        return np.where(np.isnan(values) | (values == np.inf), -np.inf, values)

    def raw(self, x: np.ndarray) -> np.ndarray:
        """The log-density of points (..., *event), as it is."""
        flat = x.reshape(-1, *self.event)
        values = np.empty(len(flat))
        for i in range(0, len(flat), TOGETHER):
            piece = on_device(flat[i : i + TOGETHER], self.dtype)
            values[i : i + len(piece)] = np.asarray(self._values(grown(piece, TOGETHER)))[: len(piece)]
        return values.reshape(x.shape[: x.ndim - len(self.event)])

    def climbed(self, points: np.ndarray, iterations: int, settled: float) -> tuple[np.ndarray, np.ndarray]:
        """Where L-BFGS ends from each of the points, and the log-density there."""
        ends = [lbfgs(self._downhill, point, self.dtype, iterations, settled) for point in points]
        return np.stack([end for end, _ in ends]), -np.array([least for _, least in ends])

    def hessians(self, points: np.ndarray) -> np.ndarray:
        """The second derivatives at points (k, d), (k, d, d)."""
        return np.stack([np.asarray(self._hessian(on_device(point, self.dtype)), float) for point in points])


def lbfgs(value_and_grad: Callable, start: np.ndarray, dtype: Any, iterations: int, settled: float) -> tuple[np.ndarray, float]:
    """Where a function of a vector is least, and its value there.

    Args:
        value_and_grad: of a vector, compiled: all that a run on the host has to compile.
        settled: the largest entry of the gradient at which it has arrived.
    """

    from scipy.optimize import minimize  # which takes a tenth of a second to import

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = value_and_grad(on_device(x, dtype))
        slope = np.asarray(slope, float)
        # An infinite value makes the step shorter.
        usable = np.isfinite(slope).all() and not math.isnan(value)
        return (float(value), slope) if usable else (math.inf, np.zeros_like(slope))

    with np.errstate(over="ignore"):  # of steps too long for float32
        optimum = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "gtol": settled})
    return optimum.x, float(optimum.fun)
