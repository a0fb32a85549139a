"""An unnormalised density on the host: its support, its values at many points by one program, its maxima by L-BFGS, and the
checks before a fit."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    MOST,
    Array,
    FlowsError,
    Shape,
    as_array,
    bijection_part,
    functions_of,
    initialize,
    on_device,
    positive_int,
)
from flows.distributions.flow import Flow
from flows.objectives import reverse_kl
from flows.results.density import Parameters
from flows.results.pieces import by_pieces
from flows.training.data.region import box_layer, ends_of

TOGETHER = 1_024  # points of one call, and so of one program
ITERATIONS = 100  # of L-BFGS at most
SETTLED = 1e-3  # the largest entry of the gradient at which L-BFGS has arrived
SAME = 1e-3  # of a log-density plus a nat: how much it may change with the other rows
MOST_STARTS = 10_000


class Target:
    """A log_density of points (n, *event), at points in NumPy."""

    def __init__(self, log_density: Callable, event: Shape, dtype: Any):
        self.log_density, self.event, self.dtype = log_density, event, dtype
        self._values = jax.jit(lambda x: log_density(x))
        self._downhill = jax.jit(jax.value_and_grad(lambda x: -log_density(x[None])[0]))
        self._hessian = jax.jit(jax.hessian(lambda x: log_density(x[None])[0]))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The log-density of points (..., *event); -inf where it is NaN or inf."""
        values = self.raw(x)
        return np.where(np.isnan(values) | (values == np.inf), -np.inf, values)

    def raw(self, x: np.ndarray) -> np.ndarray:
        """The log-density of points (..., *event), not corrected."""
        points = x.reshape(-1, *self.event)
        values = by_pieces(lambda piece: self._values(on_device(piece, self.dtype)), points, sizes=(TOGETHER,))
        return values.astype(float).reshape(x.shape[: x.ndim - len(self.event)])

    def climbed(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ends of L-BFGS from each of the points, and the log-density there."""
        ends = [self.lowest(self._downhill, point) for point in points]
        return np.stack([end for end, _ in ends]), -np.array([least for _, least in ends])

    def lowest(self, value_and_grad: Callable, start: np.ndarray) -> tuple[np.ndarray, float]:
        """The minimum of a function of a vector by L-BFGS, and the value there. Only `value_and_grad` is compiled."""

        from scipy.optimize import minimize  # here, as the import takes a tenth of a second

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = value_and_grad(on_device(x, self.dtype))
            slope = np.asarray(slope, float)
            # An infinite value makes the step shorter.
            usable = np.isfinite(slope).all() and not math.isnan(value)
            return (float(value), slope) if usable else (math.inf, np.zeros_like(slope))

        with np.errstate(over="ignore"):  # of steps too long for float32
            optimum = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "gtol": SETTLED})
        return optimum.x, float(optimum.fun)

    def hessians(self, points: np.ndarray) -> np.ndarray:
        """The second derivatives at points (k, d), (k, d, d)."""
        return np.stack([np.asarray(self._hessian(on_device(point, self.dtype)), float) for point in points])


class Box(NamedTuple):
    """The points of a density: their support, as the layer that maps it to the whole line (None for the line itself), and the
    names of the parameters (None if points are arrays)."""

    layer: Any
    event: Shape
    named: Parameters | None = None

    @property
    def has_end(self) -> np.ndarray:
        """The columns of a vector that have an end, (d,)."""
        ends = (-np.inf, np.inf) if self.layer is None else (self.layer.arguments["low"], self.layer.arguments["high"])
        return np.broadcast_to(np.isfinite(ends[0]) | np.isfinite(ends[1]), self.event)

    @property
    def _part(self) -> Any:
        return bijection_part(self.layer, self.event, None)

    def inside(self, log_density: Callable) -> Callable:
        """The density on the line."""
        if self.layer is None:
            return log_density

        def unbounded(y: Array) -> Array:
            x, log_det = self._part.invert({}, y, None, None, False)
            return log_density(x) + log_det

        return unbounded

    def outside(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the support on the line, and log|det| of that map."""
        if self.layer is None:
            return np.asarray(x, float), np.zeros(len(x))
        y, log_det = self._part.direct({}, on_device(x), None, None, False)
        return np.asarray(y, float), np.asarray(log_det, float)

    def back(self, y: Array) -> Array:
        """Points of the line in the support."""
        return y if self.layer is None else self._part.inverse({}, y, None, None, False)


def box_of(support: Any, named: Parameters | None, event: Shape) -> Box:
    """Read `support=`: a pair, a dict by column, or by the names of parameters."""
    ends = ends_of(support if support is None or named is None else _by_name(support, named), event[-1])
    return Box(None if ends is None else box_layer(ends, None), event, named)


def _by_name(support: Any, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(support, Mapping):
        raise FlowsError(f"fit_to_density: support is {support!r:.60}; expected a dict by parameter, {{'scale': (0, inf)}}")
    if unknown := [name for name in support if name not in parameters.names]:
        raise FlowsError(f"fit_to_density: support has {unknown[0]!r}; the parameters are {', '.join(parameters.names)}")
    ends = np.full(parameters.size, -np.inf), np.full(parameters.size, np.inf)
    for name, shape in zip(parameters.names, parameters.shapes, strict=True):
        place, pair = parameters.slices[name], support.get(name, (-np.inf, np.inf))
        expected = f"a pair (low, high), of numbers or arrays {shape}, low < high, -inf or inf where a side is open"
        refusal = FlowsError(f"fit_to_density: the support of {name!r} is {pair!r:.60}; expected {expected}")
        if not isinstance(pair, tuple | list | np.ndarray) or len(pair) != 2:
            raise refusal
        for all_ends, end, missing in zip(ends, pair, (-np.inf, np.inf), strict=True):
            value = np.asarray(missing if end is None else end)
            numbers = value.dtype.kind in "iuf" and value.shape in {(), shape}
            if not numbers or (np.isfinite(value) & (np.abs(value) > MOST)).any():
                raise refusal
            all_ends[place] = np.broadcast_to(value, shape).ravel()
        if not (ends[0][place] < ends[1][place]).all():
            raise refusal
    return ends


def starts_of(starts: Any, box: Box) -> int | np.ndarray:
    """Read `starts=`: a number, or points of the density, which are mapped to the line."""
    if not isinstance(starts, Mapping | list | tuple) and np.ndim(starts) == 0:
        return positive_int(starts, "fit_to_density: starts", most=MOST_STARTS)
    if box.named is not None and isinstance(starts, Mapping):
        starts = box.named.packed(starts, "fit_to_density: starts")
    points = np.asarray(as_array(starts, "fit_to_density: starts"), float)
    if points.ndim != 1 + len(box.event) or points.shape[1:] != box.event or not 0 < len(points) <= MOST_STARTS:
        raise FlowsError(
            f"fit_to_density: starts have shape {points.shape}; expected a number, or 1 to {MOST_STARTS:,} points "
            f"(n, {', '.join(map(str, box.event))})"
        )
    on_line = box.outside(points)[0]
    if (bad := ~np.isfinite(on_line).reshape(len(points), -1).all(1)).any():
        raise FlowsError(f"fit_to_density: starts[{int(bad.argmax())}] is {points[bad][0]!s:.100}, outside the support")
    return on_line


def check_density(init_fun: Any, log_density: Callable, key: Array, box: Box) -> None:
    """Refuse a function that is not a density of the model's draws, or takes a single point."""
    event, named = box.event, box.named
    init_fun = init_fun if box.layer is None else Flow(box.layer, init_fun)
    params, part = initialize(init_fun, key, event, None)
    if part.region is not None and np.any(part.region.discrete):
        raise FlowsError(
            f"fit_to_density: {init_fun!r:.80} draws {part.region.words.noun}, through which there is no gradient; expected a "
            "distribution of numbers or angles"
        )
    n = max(event) + 2  # unlike any axis of a point

    def loss(params: Any) -> Array:
        return reverse_kl(params, (params, *functions_of(part, params)), log_density, key, n)

    try:
        jax.eval_shape(loss, params)
        jax.eval_shape(lambda x: log_density(x), jax.ShapeDtypeStruct((n + 1, *event), jnp.zeros(()).dtype))  # data may have n
    except Exception as error:
        if named is not None and isinstance(error, KeyError) and not set(error.args) <= set(named.names):
            asked = f"log_density asks for {error}; the parameters are {', '.join(named.names)}"
            raise FlowsError(f"fit_to_density: {asked}") from error
        if callable(log_density) and _takes_one_point(log_density, event):
            point = f"{event}" if named is None else "a dict of single parameters"
            raise FlowsError(f"fit_to_density: log_density takes a single point, {point}; {_expected_points(named)}") from error
        raise


def _takes_one_point(log_density: Callable, event: Shape) -> bool:
    try:
        result = jax.eval_shape(lambda x: log_density(x), jax.ShapeDtypeStruct(event, jnp.zeros(()).dtype))
    except Exception:
        return False
    return getattr(result, "shape", None) == ()


def _expected_points(named: Parameters | None) -> str:
    points = "(n, ...)" if named is None else "a dict of arrays (n, ...)"
    return f"expected a function of points, {points}, that returns (n,): give jax.vmap(log_density)"


def check_rows_apart(target: Target, named: Parameters | None) -> None:
    """Refuse a density whose value at a point depends on the other points, such as a function of one point that broadcasts."""
    x, half = np.random.default_rng(0).standard_normal((TOGETHER, *target.event)), TOGETHER // 2
    before, x[half:] = target.raw(x)[:half], 2 * x[half:] + 1
    after = target.raw(x)[:half]
    known = np.isfinite(before) & np.isfinite(after)
    if (np.abs(after - before)[known] > SAME * (1 + np.abs(before[known]))).any():
        row = int(np.flatnonzero(known)[np.argmax(np.abs(after - before)[known])])
        raise FlowsError(
            f"fit_to_density: log_density of a point is {before[row]:.6g} next to some points and {after[row]:.6g} next "
            f"to others, as if it took a single point, or all points together; {_expected_points(named)}"
        )
