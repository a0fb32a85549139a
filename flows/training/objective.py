"""An objective of the user's in place of the likelihood: what a step and a validation minimise over rows."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flows.core import Array, Distribution, DistributionPart, FlowsError, Given
from flows.core.params import stop_fixed
from flows.core.precision import Precision, computed_with
from flows.core.publish import publish
from flows.training.losses import HeldOut
from flows.training.options import keywords_of_objective, name_of_objective
from flows.training.preprocess import measured_of
from flows.training.reading import Rows, floating, take


class Function:
    """A function that is equal to another made of the same function with the same arguments bound."""

    key: Any

    def __init__(self, function: Callable):
        self.function, self.key = function, function
        if type(function) is partial:
            try:
                self.key = (function.func, function.args, tuple(sorted(function.keywords.items())))
                hash(self.key)
            except TypeError:
                self.key = function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Objective(NamedTuple):
    """`objective(params, distribution, x, *, context, weights, rng, train)` of rows; weights have mean 1."""

    part: DistributionPart
    function: Function
    batch_size: int
    precision: Precision
    measures: bool  # whether some layer is to be remeasured after an epoch

    @property
    def draws(self) -> bool:
        return "rng" in keywords_of_objective(self.function.function)

    def loss(self, params: Any, rows: Rows, index: Array, key: Array | None) -> Array:
        with computed_with(self.precision):
            return self._of(params, floating(take(rows, index)), key, True)

    def held_out(self, params: Any, rows: Rows, key: Array | None) -> HeldOut:
        """The mean over rows held out, in chunks of a batch; the last may be smaller. No single row is told of."""
        n = len(rows.x)
        size = min(n, self.batch_size)
        whole = n // size

        def chunk(at: Array) -> tuple[Array, Array]:
            few = floating(take(rows, at))
            own = None if key is None else jax.random.fold_in(key, at[0])
            weight = jnp.asarray(len(few.x), few.x.dtype) if few.weights is None else few.weights.sum()
            return weight * self._of(params, few, own, False), weight

        totals, weights = jax.lax.map(chunk, jnp.arange(whole * size).reshape(whole, size))
        total, weight = totals.sum(), weights.sum()
        if n > whole * size:
            rest = chunk(jnp.arange(whole * size, n))
            total, weight = total + rest[0], weight + rest[1]
        mean = total / weight
        zero = jnp.zeros_like(mean)
        return HeldOut(mean, jnp.zeros((), int), mean, zero, jnp.ones_like(mean), jnp.full_like(mean, jnp.nan))

    def measured(self, params: Any, rows: Rows, key: Array) -> Any:
        """The params, with running statistics measured on these rows."""
        few = measured_of(rows)
        return self.part.init(key, Given(few.x, few.context, params))

    def _of(self, params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        params, function = stop_fixed(params), self.function.function
        named = {"context": rows.context, "weights": rows.weights, "rng": key, "train": train}
        given = {name: named[name] for name in keywords_of_objective(function)}
        value = function(params, Distribution(params, *publish(self.part, params)), rows.x, **given)
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", int)
        if shape != () or not jnp.issubdtype(dtype, jnp.floating):
            got = f"a {type(value).__name__}" if shape is None else f"an array of dtype {dtype} and shape {shape}"
            raise FlowsError(
                f"the objective {name_of_objective(function)} returned {got}; expected a floating scalar of JAX, computed from "
                "params: the mean over rows, .mean()"
            )
        return value.astype(rows.x.dtype)


def check_keywords(function: Callable, rows: Rows, caller: str) -> None:
    """Refuse an objective that cannot take what the rows have."""
    names = keywords_of_objective(function)
    for name in ("context", "weights"):
        if getattr(rows, name) is not None and name not in names:
            raise TypeError(
                f"{caller}: {name} was given, but the objective {name_of_objective(function)} does not name it; add {name}= to "
                "its keywords, or leave it out"
            )
