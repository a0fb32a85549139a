"""Checks of a log_density before a fit to it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import DistributionInit, FlowsError, Shape, functions_of, initialize
from flows.objectives import reverse_kl
from flows.results.parameters import Parameters
from flows.training.density.target import TOGETHER, Target

SAME = 1e-3  # of a log-density, and of a nat: what the rows beside a row may change of it


def check_density(init_fun: Any, log_density: Callable, key: jax.Array, event: Shape, named: Parameters | None) -> None:
    """Refuse what is no density of the model's draws, or is one of a single point."""
    params, part = initialize(init_fun, key, event, None)
    if part.region is not None and np.any(part.region.classes):
        raise FlowsError(
            f"fit_to_density: {init_fun!r:.80} draws codes of categories, through which there is no gradient; expected a "
            "distribution of numbers or angles"
        )
    n = max(event) + 2  # unlike any axis of a point

    def loss(params: Any) -> jax.Array:
        return reverse_kl(params, (params, *functions_of(part, params)), log_density, key, n)

    try:
        jax.eval_shape(loss, params)
        jax.eval_shape(log_density, jax.ShapeDtypeStruct((n + 1, *event), jnp.zeros(()).dtype))  # which data may be as many as
    except Exception as error:
        if named is not None and isinstance(error, KeyError) and not set(error.args) <= set(named.names):
            asked = f"log_density asks for {error}; the parameters are {', '.join(named.names)}"
            raise FlowsError(f"fit_to_density: {asked}") from error
        if callable(log_density) and _of_one_point(log_density, event):
            point = f"{event}" if named is None else "a dict of single parameters"
            raise FlowsError(f"fit_to_density: log_density is of a single point, {point}; {_of_points(named)}") from error
        raise


def _of_one_point(log_density: Callable, event: Shape) -> bool:
    try:
        result = jax.eval_shape(log_density, jax.ShapeDtypeStruct(event, jnp.zeros(()).dtype))
    except Exception:
        return False
    return getattr(result, "shape", None) == ()


def _of_points(named: Parameters | None) -> str:
    points = "(n, ...)" if named is None else "a dict of arrays (n, ...)"
    return f"expected one of points, {points}, that returns (n,): give jax.vmap(log_density)"


def check_rows_apart(target: Target, named: Parameters | None) -> None:
    """Refuse a density whose value at a point depends on the points beside it, as where one of a single point broadcasts."""
    x, half = np.random.default_rng(0).standard_normal((TOGETHER, *target.event)), TOGETHER // 2
    before, x[half:] = target.raw(x)[:half], 2 * x[half:] + 1
    after = target.raw(x)[:half]
    known = np.isfinite(before) & np.isfinite(after)
    if (np.abs(after - before)[known] > SAME * (1 + np.abs(before[known]))).any():
        row = int(np.flatnonzero(known)[np.argmax(np.abs(after - before)[known])])
        raise FlowsError(
            f"fit_to_density: log_density of a point is {before[row]:.6g} beside some points and {after[row]:.6g} beside "
            f"others, as if it were one of a single point, or of all together; {_of_points(named)}"
        )


def check_order(init_fun: Any, log_density: Any) -> None:
    """Refuse the density in place of the model."""
    if isinstance(log_density, DistributionInit):
        raise TypeError(
            f"fit_to_density: log_density is the model {log_density!r:.60}, and init_fun is {init_fun!r:.60}; expected "
            "flows.fit_to_density(rng, flow, log_density, input_dim)"
        )


def by_names(log_density: Callable, named: Parameters) -> Callable:
    """A density of a dict of parameters as one of vectors."""
    if not callable(log_density):
        raise TypeError(f"fit_to_density: log_density is {log_density!r:.60}; expected a function of a dict of arrays")
    return lambda x: log_density(named.natural(x))
