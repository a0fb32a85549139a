"""Where a fit to a density starts: inside its support, at the Gaussian nearest to it, or at Gaussians at its modes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.whiten import MOST_COLUMNS, Whiten
from flows.compose import joined
from flows.core import (
    MOST,
    Array,
    FlowsError,
    Shape,
    as_array,
    bijection_part,
    distribution_part,
    is_flow,
    leading,
    on_device,
    positive_int,
)
from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.results.parameters import Parameters
from flows.training.data.region import box_layer, ends_of
from flows.training.density.checks import check_rows_apart
from flows.training.density.gaussian import DRAWS, ENDLESS, Start, cholesky_of, nearest_gaussian, whitened
from flows.training.density.modes import Modes, modes_of, wide_normal_is_better
from flows.training.density.target import Target
from flows.training.model_view import with_base

MOST_STARTS = 10_000
WIDE = 10.0  # a standard deviation, on the line that stands for a support, from which its ends are looked at
EDGE = 80.0  # on the line that stands for a support, where float32 nearly ends
FALL = 1.0  # nats by which a density has to have fallen there
NEAR = 3.0  # standard deviations of a Gaussian, within which a mode is its own


class Box(NamedTuple):
    """The support of a density, as the layer that takes it to the whole line; None is the line itself."""

    layer: Any
    event: Shape

    @property
    def has_end(self) -> np.ndarray:
        """Tells which columns of a vector end somewhere, (d,)."""
        ends = (-np.inf, np.inf) if self.layer is None else (self.layer.arguments["low"], self.layer.arguments["high"])
        return np.broadcast_to(np.isfinite(ends[0]) | np.isfinite(ends[1]), self.event)

    def inside(self, log_density: Callable) -> Callable:
        """The density on the line."""
        if self.layer is None:
            return log_density
        part = bijection_part(self.layer, self.event, None)

        def unbounded(y: Array) -> Array:
            x, log_det = part.invert({}, y, None, None, False)
            return log_density(x) + log_det

        return unbounded

    def outside(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the support on the line, and log|det| of that map."""
        if self.layer is None:
            return np.asarray(x, float), np.zeros(len(x))
        part = bijection_part(self.layer, self.event, None)
        y, log_det = part.direct({}, on_device(x), None, None, False)
        return np.asarray(y, float), np.asarray(log_det, float)

    def back(self, y: Array) -> Array:
        """Points of the line in the support."""
        return y if self.layer is None else bijection_part(self.layer, self.event, None).inverse({}, y, None, None, False)


class Beginning(NamedTuple):
    """The model with the layers in front of it, the numbers at which these and its base start, the modes that were found, on
    the line, None where none were looked for, or found, and whether the Gaussian it starts at is near the largest."""

    init_fun: Any
    layers: tuple[dict, ...]
    base: Modes | None
    modes: Modes | None
    at_mode: bool

    def set(self, params: Any, event: Shape, dtype: Any) -> Any:
        """The params with those of the layers, and of the base."""
        if self.layers:
            params = {**params, "bijection": self.layers[0] if len(self.layers) == 1 else self.layers}
        return params if self.base is None else _with_modes(self.init_fun, params, self.base, event, dtype)

    def weighed(self, params: Any, lacking: np.ndarray) -> Any:
        """The params with other weights of the components of the base, which path gradients do not train."""
        *_, base = leading(self.init_fun, params, opening=False)
        logits = base.params["logits"] + jnp.asarray(np.log(np.maximum(lacking, 1e-3)), base.params["logits"].dtype)
        return _with(params, base.at, {**base.params, "logits": logits})


def box_of(support: Any, parameters: Parameters | None, event: Shape) -> Box:
    """Read `support=`: a pair, a dict by column, or by the names of parameters."""
    if parameters is not None and support is not None:
        support = _by_name(support, parameters)
    ends = ends_of(support, event[-1])
    return Box(None if ends is None else box_layer(ends, None), event)


def _by_name(support: Any, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(support, Mapping):
        raise FlowsError(f"fit_to_density: support is {support!r:.60}; expected a dict by parameter, {{'scale': (0, inf)}}")
    if unknown := [name for name in support if name not in parameters.names]:
        raise FlowsError(f"fit_to_density: support has {unknown[0]!r}; the parameters are {', '.join(parameters.names)}")
    ends = np.full(parameters.size, -np.inf), np.full(parameters.size, np.inf)
    for name, shape in zip(parameters.names, parameters.shapes, strict=True):
        pair = support.get(name, (-np.inf, np.inf))
        expected = f"a pair (low, high), of numbers or arrays {shape}, low < high, -inf or inf where a side is open"
        refusal = FlowsError(f"fit_to_density: the support of {name!r} is {pair!r:.60}; expected {expected}")
        if not isinstance(pair, tuple | list | np.ndarray) or len(pair) != 2:
            raise refusal
        for all_ends, end, missing in zip(ends, pair, (-np.inf, np.inf), strict=True):
            value = np.asarray(missing if end is None else end)
            numbers = value.dtype.kind in "iuf" and value.shape in {(), shape}
            if not numbers or (np.isfinite(value) & (np.abs(value) > MOST)).any():
                raise refusal
            all_ends[parameters.slices[name]] = np.broadcast_to(value, shape).ravel()
        low, high = (end[parameters.slices[name]] for end in ends)
        if not (low < high).all():
            raise refusal
    return ends


def begin(
    rng: np.random.Generator,
    init_fun: Any,
    log_density: Callable,
    box: Box,
    starts: Any,
    standardize: bool,
    dtype: Any,
    named: Parameters | None = None,
) -> Beginning:
    """Return what a fit of init_fun starts with. `starts` are a number, or points on the line.

    A Gaussian and modes are looked for on vectors of at most 512 columns, unless the model lives on circles or a sphere.
    """
    layers: tuple = () if box.layer is None else (box.layer,)
    fixed: tuple = () if box.layer is None else ({},)
    region = distribution_part(init_fun, box.event, None).region
    curved = region is not None and not region.flat
    nearest = modes = base = None
    target = Target(box.inside(log_density), box.event, dtype)
    check_rows_apart(target, named)
    if len(box.event) == 1 and box.event[0] <= MOST_COLUMNS and not curved:
        nearest = nearest_gaussian(rng, target) if standardize else None
        if nearest is not None:
            _refuse_improper(nearest, box, target, named)
        modes = modes_of(rng, target, starts, nearest)
    if standardize and modes is not None and len(modes.shares) > 1 and is_flow(init_fun):
        mixture = with_base(init_fun, GMM(num_components=len(modes.shares), trainable=True))
        if mixture != init_fun and not wide_normal_is_better(rng, target, modes):
            init_fun, base, nearest = mixture, modes, Start.of(*modes.moments())
    at_mode = False
    if nearest is not None:
        if modes is not None:
            away = np.linalg.solve(nearest.std[:, None] * nearest.factor, modes.means[0] - nearest.mean)
            at_mode = bool(np.square(away).mean() < NEAR**2)
        layers = (*layers, Whiten())
        fixed = (*fixed, {"fixed": {name: on_device(array, float) for name, array in nearest._asdict().items()}})
    if layers:
        init_fun = Flow(joined(layers), init_fun)
    return Beginning(init_fun, fixed, base, modes, at_mode)


def _refuse_improper(nearest: Start, box: Box, target: Target, named: Parameters | None) -> None:
    """The Gaussian nearest to a density of infinite mass grows without end; on a line that stands for a support until float32
    ends, where the density has not fallen."""
    endless = ~(np.maximum(np.abs(nearest.mean), nearest.std) < ENDLESS)
    if (wide := np.flatnonzero(box.has_end & (nearest.std > WIDE))).size:
        at = np.repeat(nearest.mean[None], 1 + 2 * len(wide), 0)
        for i, j in enumerate(wide):
            at[1 + 2 * i : 3 + 2 * i, j] = -EDGE, EDGE
        height, *ends = target(at).tolist()
        endless[wide] |= np.reshape(ends, (-1, 2)).max(1) > height - FALL
    if endless.any():
        which = int(endless.argmax())
        name = f"number {which} of a point"
        if named is not None:
            name = next(repr(parameter) for parameter, entries in named.slices.items() if entries.start <= which < entries.stop)
        where = "an end of its support" if box.has_end[which] else "infinity"
        raise FlowsError(
            f"fit_to_density: log_density is improper, as far as can be seen: it does not fall where {name} goes to {where}, "
            "so that its mass has no end. Give it a prior, or a support that ends"
        )


def _with_modes(init_fun: Any, params: Any, modes: Modes, event: Shape, dtype: Any) -> Any:
    """The params of a flow whose base is a mixture, with the modes as its components, as the layers before it see them.

    Layers start near the identity, or at a linear map, so that each Gaussian stays one: draws whose mean and covariance are
    exactly its own are sent through, and the mean and the covariance of what comes out are those of the component.
    """
    *way, base = leading(init_fun, params, event, opening=False)
    for stage in way:
        part, d = bijection_part(stage.value, stage.event, None), modes.means.shape[1]
        z = whitened(np.random.default_rng(0).standard_normal((max(DRAWS, 4 * d), d)))
        means, factors = [], []
        for mean, factor in zip(modes.means, modes.factors, strict=True):
            x = on_device(mean + z @ factor.T, dtype)
            y = np.asarray(part.measured_output(stage.params, x, None, jax.random.key(0)), float).reshape(len(z), -1)
            means.append(y.mean(0))
            factors.append(cholesky_of((y - y.mean(0)).T / math.sqrt(len(y))))
        modes = Modes(np.stack(means), np.stack(factors), modes.shares)
    log_diagonal = np.log(np.diagonal(modes.factors, axis1=1, axis2=2))
    tril = np.tril(modes.factors, -1) + log_diagonal[:, :, None] * np.eye(modes.means.shape[1])
    numbers = {"mean": modes.means, "tril": tril, "logits": np.log(modes.shares)}
    return _with(params, base.at, {name: on_device(array, dtype) for name, array in numbers.items()})


def _with(params: Any, at: Sequence[Any], new: Any) -> Any:
    """Params with others at a place of theirs, where all above it are dicts."""
    return {**params, at[0]: _with(params[at[0]], at[1:], new)} if at else new


def starts_of(starts: Any, parameters: Parameters | None, box: Box) -> int | np.ndarray:
    """Read `starts=`: a number, or points of the density, which are taken to the line."""
    if not isinstance(starts, Mapping | list | tuple) and np.ndim(starts) == 0:
        return positive_int(starts, "fit_to_density: starts", most=MOST_STARTS)
    if parameters is not None and isinstance(starts, Mapping):
        starts = parameters.packed(starts, "fit_to_density: starts")
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
