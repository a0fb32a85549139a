"""The start of a fit to a density: inside its support, at the nearest Gaussian, or at Gaussians at its modes."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular

from flows.bijections.whiten import MOST_COLUMNS, Whiten
from flows.compose import joined
from flows.core import Array, FlowsError, bijection_part, distribution_part, is_flow, leading, on_device
from flows.distributions.flow import Flow
from flows.distributions.normal_mixtures import GMM
from flows.objectives import log_normalizer
from flows.training.density.modes import Gaussian, Modes, cholesky_of, log_normal, modes_of, wide_normal_is_better
from flows.training.density.target import Box, Target, check_rows_apart
from flows.training.model_view import with_base

DRAWS = 256  # at least, and at least four for each column
GAIN = 1e-3  # nats: the search for a Gaussian ends when it gains less
AGAIN = 5  # runs of the search at most
WEIGHED = 4_096  # draws that compare two starts
ENDLESS = 1e12  # a mean or a standard deviation this large means that the density has infinite mass
MISSED = 0.1  # nats of log Z beyond two standard errors: the Gaussian has missed a part
WIDE = 10.0  # a standard deviation on the line that stands for a support: its ends are checked
EDGE = 80.0  # a point on this line where float32 nearly ends
FALL = 1.0  # nats by which a density must have fallen there
NEAR = 3.0  # standard deviations of a Gaussian: a mode within belongs to it


class Beginning(NamedTuple):
    """The model with the layers in front of it, the numbers at which these layers and the base start, the modes on the line
    (None if the fit did not search, or none exist), whether the Gaussian at the start is near the largest mode, and the box
    that has the line."""

    init_fun: Any
    layers: tuple[dict, ...]
    base: Modes | None
    modes: Modes | None
    at_mode: bool
    box: Box

    def set(self, params: Any, dtype: Any) -> Any:
        """The params with the numbers of the layers and of the base."""
        if self.layers:
            params = {**params, "bijection": self.layers[0] if len(self.layers) == 1 else self.layers}
        return params if self.base is None else _with_modes(self.init_fun, params, self.base, self.box, dtype)

    def weighed(self, params: Any, lacking: np.ndarray) -> Any:
        """The params with corrected weights of the components of the base, as path gradients do not train these weights."""
        *_, base = leading(self.init_fun, params, opening=False)
        logits = base.params["logits"] + jnp.asarray(np.log(np.maximum(lacking, 1e-3)), base.params["logits"].dtype)
        return _with(params, base.at, {**base.params, "logits": logits})


def begin(
    rng: np.random.Generator,
    init_fun: Any,
    log_density: Callable,
    box: Box,
    starts: Any,
    standardize: bool,
    again: bool = False,
) -> Beginning:
    """Return the start of a fit of init_fun. `starts` is a number, or points on the line. With `again` the model starts as it
    is, and the search is for the figures.

    The search for a Gaussian and modes needs vectors of at most 512 columns, and a model that is not on circles or a sphere.
    """
    layers: tuple = () if box.layer is None else (box.layer,)
    fixed: tuple = () if box.layer is None else ({},)
    region = distribution_part(init_fun, box.event, None).region
    curved = region is not None and not region.flat
    nearest = modes = base = None
    target = Target(box.inside(log_density), box.event, jnp.zeros(()).dtype)
    check_rows_apart(target, box.named)
    if len(box.event) == 1 and box.event[0] <= MOST_COLUMNS and not curved:
        nearest = nearest_gaussian(rng, target) if standardize else None
        if nearest is not None:
            _refuse_improper(nearest, box, target)
        # Of paths alone the density at a mode's own draws is not known.
        modes = None if getattr(init_fun, "likelihood", "") == "lower bound" else modes_of(rng, target, starts, nearest)
    if again:
        return Beginning(init_fun, (), None, modes, False, box)
    if standardize and modes is not None and len(modes.shares) > 1 and is_flow(init_fun):
        mixture = with_base(init_fun, GMM(num_components=len(modes.shares), trainable=True))
        if mixture != init_fun and not wide_normal_is_better(rng, target, modes):
            init_fun, base, nearest = mixture, modes, Gaussian.of(*modes.moments())
    at_mode = False
    if nearest is not None:
        if modes is not None:
            away = np.linalg.solve(nearest.std[:, None] * nearest.factor, modes.means[0] - nearest.mean)
            at_mode = bool(np.square(away).mean() < NEAR**2)
        layers = (*layers, Whiten())
        fixed = (*fixed, {"fixed": {name: on_device(array, float) for name, array in nearest._asdict().items()}})
    if layers:
        init_fun = Flow(joined(layers), init_fun)
    return Beginning(init_fun, fixed, base, modes, at_mode, box)


def _refuse_improper(nearest: Gaussian, box: Box, target: Target) -> None:
    """Refuse a density of infinite mass: its nearest Gaussian grows without end, on a line that stands for a support up to the
    end of float32, where the density has not fallen."""
    endless = ~(np.maximum(np.abs(nearest.mean), nearest.std) < ENDLESS)
    if (wide := np.flatnonzero(box.has_end & (nearest.std > WIDE))).size:
        at = np.repeat(nearest.mean[None], 1 + 2 * len(wide), 0)
        for i, j in enumerate(wide):
            at[1 + 2 * i : 3 + 2 * i, j] = -EDGE, EDGE
        height, *ends = target(at).tolist()
        endless[wide] |= np.reshape(ends, (-1, 2)).max(1) > height - FALL
    if endless.any():
        which = int(endless.argmax())
        parameters = {} if box.named is None else box.named.slices
        names = (repr(name) for name, entries in parameters.items() if entries.start <= which < entries.stop)
        name = next(names, f"number {which} of a point")
        where = "an end of its support" if box.has_end[which] else "infinity"
        raise FlowsError(
            f"fit_to_density: log_density is improper, as far as can be seen: it does not fall where {name} goes to {where}, "
            "so its mass is infinite. Give it a prior, or a support that ends"
        )


def _with_modes(init_fun: Any, params: Any, modes: Modes, box: Box, dtype: Any) -> Any:
    """The params of a flow whose base is a mixture, with the modes, mapped by the layers before it, as its components. Modes
    are on the line, and the first layer takes points of the support.

    Layers start near the identity, or at a linear map, so that a Gaussian stays a Gaussian. Draws with exactly the mean and the
    covariance of a mode pass through the layers, and the component gets the mean and the covariance of the outputs.
    """
    *way, base = leading(init_fun, params, box.event, opening=False)
    for i, stage in enumerate(way):
        part, d = bijection_part(stage.value, stage.event, None), modes.means.shape[1]
        z = whitened(np.random.default_rng(0).standard_normal((max(DRAWS, 4 * d), d)))
        means, factors = [], []
        for mean, factor in zip(modes.means, modes.factors, strict=True):
            x = on_device(mean + z @ factor.T, dtype)
            x = x if i else box.back(x)
            y = np.asarray(part.measured_output(stage.params, x, None, jax.random.key(0)), float).reshape(len(z), -1)
            means.append(y.mean(0))
            factors.append(cholesky_of((y - y.mean(0)).T / math.sqrt(len(y))))
        modes = Modes(np.stack(means), np.stack(factors), modes.shares)
    log_diagonal = np.log(np.diagonal(modes.factors, axis1=1, axis2=2))
    tril = np.tril(modes.factors, -1) + log_diagonal[:, :, None] * np.eye(modes.means.shape[1])
    numbers = {"mean": modes.means, "tril": tril, "logits": np.log(modes.shares)}
    return _with(params, base.at, {name: on_device(array, dtype) for name, array in numbers.items()})


def _with(params: Any, at: Sequence[Any], new: Any) -> Any:
    """Params with new values at a path, where all levels above are dicts."""
    return {**params, at[0]: _with(params[at[0]], at[1:], new)} if at else new


def nearest_gaussian(rng: np.random.Generator, target: Target) -> Gaussian | None:
    """The Gaussian q of least KL(q || p), or None if the standard normal covers more of p than q does.

    KL(q || p) is the mean over fixed draws z of -log_density(m + L z), minus log det L; L-BFGS finds m and L. The draws have
    exactly mean 0 and covariance I, so that a Gaussian target is matched exactly. As q may have settled on one of several
    modes, both estimate the constant of p: if draws of the standard normal find a larger one, q has missed a part.
    """
    (d,) = target.event
    mean_and_factor = _minimized(target, whitened(rng.standard_normal((max(DRAWS, 4 * d), d))))
    if mean_and_factor is None:
        return None
    estimates = list[tuple[float, float]]()
    for mean, factor in (mean_and_factor, (np.zeros(d), np.eye(d))):
        noise = rng.standard_normal((WEIGHED, d))
        log_q = log_normal(noise).sum(1) - np.log(np.diag(factor)).sum()
        log_w = target(mean + noise @ factor.T) - log_q
        estimates.append(log_normalizer(log_w) if np.isfinite(log_w).any() else (-math.inf, 0.0))
    (nearest, _), (standard, error) = estimates
    missed = not math.isfinite(nearest) or standard - 2 * error > nearest + MISSED
    return None if missed else Gaussian.of(*mean_and_factor)


def whitened(z: np.ndarray) -> np.ndarray:
    """Rows shifted and mixed so that their mean is 0 and their covariance I."""
    z = z - z.mean(0)
    white: np.ndarray = solve_triangular(np.linalg.cholesky(z.T @ z / len(z)), z.T, lower=True).T
    return white


def _minimized(target: Target, z: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """m and L; None if they are not finite, or not better than the standard normal.

    Where L-BFGS ends it starts again, in units of the Gaussian so far: from 0 a parameter of millions hardly has a slope.
    """
    (d,), noise = target.event, on_device(z, target.dtype)
    below = np.tril_indices(d, -1)

    def loss(at: Array, unit: Array, params: Array) -> Array:
        mean, log_scale, rest = params[:d], params[d : 2 * d], params[2 * d :]
        factor = jnp.eye(d, dtype=noise.dtype).at[below].set(rest) * jnp.exp(log_scale)[:, None]
        x = at[None] + unit[None] * (mean[None] + jnp.matmul(noise, factor.T, precision="highest"))
        return -target.log_density(x).mean() - log_scale.sum() - jnp.log(unit).sum()

    downhill = jax.jit(jax.value_and_grad(loss, argnums=2))
    mean, std, rest, moved = np.zeros(d), np.ones(d), np.zeros(len(below[0])), False
    for _ in range(AGAIN):
        in_units = partial(downhill, on_device(mean, target.dtype), on_device(std, target.dtype))
        start = np.concatenate([np.zeros(2 * d), rest])
        before = float(in_units(on_device(start, target.dtype))[0])
        end, least = target.lowest(in_units, start)
        if not np.isfinite(end).all() or not least <= before:
            break
        moved, mean, std, rest = True, mean + std * end[:d], std * np.exp(end[d : 2 * d]), end[2 * d :]
        if before - least < GAIN or max(std.max(), np.abs(mean).max()) > ENDLESS:
            break
    factor = np.eye(d)
    factor[below] = rest
    return (mean, factor * std[:, None]) if moved else None
