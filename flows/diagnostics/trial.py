"""Facts of a bijection at a few points, from which `verify` and the tests read its properties."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, Region, tangents
from flows.core import enable_x64 as enable_x64


class Trial:
    """A bijection in both directions at the points x, y = direct(x).

    Each fact is computed at its first use and shared from then on, so that a function that returns several facts compiles to
    one program, which runs each network as rarely as possible. Rows are assumed to be independent: where they are not, log-dets
    differ from the log-det of the Jacobian.

    Args:
        direct, inverse: functions (params, points) -> (points, log_det), keywords bound.
        params: params of both.
        x: points, (batch, *event).
        derive_inverse: whether derivatives of the inverse are needed.
        regions: regions of inputs and of outputs, if some of them are unit vectors.
    """

    def __init__(
        self,
        direct: Callable,
        inverse: Callable,
        params: Any,
        x: Array,
        derive_inverse: bool = True,
        regions: tuple[Region | None, Region | None] = (None, None),
    ):
        self.direct, self.inverse, self.params, self.x, self.derive_inverse = direct, inverse, params, x, derive_inverse
        self.regions = regions

    @cached_property
    def _forward(self) -> tuple:
        return jax.vjp(self.direct, self.params, self.x)

    @cached_property
    def _backward(self) -> tuple:
        if not self.derive_inverse:
            return (self.inverse(self.params, self.y),)
        return jax.vjp(self.inverse, self.params, self.y)

    @property
    def y(self) -> Array:
        return self._forward[0][0]

    @property
    def log_det(self) -> Array:
        return self._forward[0][1]

    @property
    def back(self) -> Array:
        """inverse(y)."""
        return self._backward[0][0]

    @property
    def back_log_det(self) -> Array:
        return self._backward[0][1]

    @cached_property
    def again(self) -> tuple[Array, Array]:
        """Outputs and log-dets of the direct function at `back`."""
        return self.direct(self.params, self.back)

    @cached_property
    def _slopes(self) -> tuple[Array, Any, Array]:
        return _slopes(*self._forward)

    @cached_property
    def _back_slopes(self) -> tuple[Array, Any, Array]:
        return _slopes(*self._backward)

    @property
    def jacobian(self) -> Array:
        """The Jacobian d y / d x of each row by autodiff, (batch, size, size)."""
        return self._slopes[0]

    @property
    def back_jacobian(self) -> Array:
        return self._back_slopes[0]

    @property
    def log_volume(self) -> Array:
        """The log-det of direct by its Jacobian."""
        return log_volume(self.jacobian, self.regions[0], self.x)

    @property
    def back_log_volume(self) -> Array:
        return log_volume(self.back_jacobian, self.regions[1], self.y)

    @property
    def gradients(self) -> tuple[Any, Array]:
        """Return gradients by params and points, of a sum of all outputs and log-dets with different weights."""
        return self._slopes[1:]

    @property
    def back_gradients(self) -> tuple[Any, Array]:
        return self._back_slopes[1:]


class RowByRow(Trial):
    """A trial in plain Python, differentiated a row at a time: it also serves functions that cannot be traced."""

    @cached_property
    def _forward(self) -> tuple:
        return self.direct(self.params, self.x), self.direct

    @cached_property
    def _backward(self) -> tuple:
        return self.inverse(self.params, self.y), self.inverse

    @property
    def jacobian(self) -> Array:
        return self._rows(self.direct, self.x)

    @property
    def back_jacobian(self) -> Array:
        return self._rows(self.inverse, self.y)

    @property
    def gradients(self) -> tuple[Any, Array]:
        y, pull = jax.vjp(self.direct, self.params, self.x)
        return pull(tuple(map(_waves, y)))

    def _rows(self, fun: Callable, points: Array) -> Array:
        jacobian = jax.jacrev(lambda row: jnp.ravel(fun(self.params, row[None])[0][0]))
        return jnp.stack([jacobian(row).reshape(row.size, row.size) for row in points])


def log_volume(jacobian: Array, region: Region | None = None, points: Array | None = None) -> Array:
    """Return log|det J| of rows of square matrices; or, where points live on spheres, log sqrt det((J B)' (J B)), with an
    orthonormal basis B of the directions in which they can move."""
    if region is None or points is None or not np.any(region.sphere):
        return jnp.linalg.slogdet(jacobian)[1]
    factor: Any = jnp.linalg.qr(jacobian @ tangents(region, points), mode="r")
    return jnp.log(jnp.abs(jnp.diagonal(factor, axis1=1, axis2=2))).sum(1)


def _slopes(values: tuple[Array, Array], pull: Callable) -> tuple[Array, Any, Array]:
    """Return Jacobians of the rows, and gradients in params and points, from one backward pass."""
    y, log_det = values
    rows, size = y.shape[0], y[0].size
    unit = jnp.broadcast_to(jnp.eye(size, dtype=y.dtype)[:, None], (size, rows, size))
    y_bar = jnp.concatenate([unit, _waves(y).reshape(1, rows, size)]).reshape(size + 1, *y.shape)
    log_det_bar = jnp.concatenate([jnp.zeros((size, rows), log_det.dtype), _waves(log_det)[None]])
    params, points = jax.vmap(pull)((y_bar, log_det_bar))
    jacobian = jnp.moveaxis(points[:-1].reshape(size, rows, size), 1, 0)
    return jacobian, jax.tree.map(lambda leaf: leaf[-1], params), points[-1]


def _waves(like: Array) -> Array:
    return jnp.cos(jnp.arange(like.size, dtype=like.dtype)).reshape(like.shape)
