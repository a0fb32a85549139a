"""The losses of a step and of a validation over rows: minus the log-likelihood, or an objective of the user."""

import math
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import ismethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    Distribution,
    DistributionPart,
    FlowsError,
    Given,
    Precision,
    by_device,
    check_result,
    computed_with,
    functions_of,
    num_devices,
    rows_within,
    spread,
    stop_fixed,
    traits_by,
)
from flows.training.data.prepare import MEASURED, measured_of
from flows.training.data.table import Rows, floating, take
from flows.training.model_view import values_of
from flows.training.options import keywords_of_objective, name_of_objective

FEW = 500  # held-out rows that compare two epochs


class HeldOut(NamedTuple):
    """The validation of an epoch. A fit to a density has no rows; a fit to rows has no importance weights and no tail."""

    mean: Array  # loss
    row: Array  # number of the held-out row with the largest loss
    rest: Array  # the mean without it
    share: Array  # of that row in the sum of all squared deviations from the mean
    effective: Any = 1.0  # the effective sample size of draws, as a share
    tail: Any = -math.inf  # the Pareto k of the weights of draws
    error: Any = 0.0  # the standard error of the mean, in the units of the data
    few: Any = ()  # losses of a few rows, the same in every epoch, NaN where there is no row

    @classmethod
    def of(cls, losses: Array, n: int | None = None, number: Any = None, log_dets: Array | None = None) -> "HeldOut":
        """Make the validation from losses of rows with these numbers; only numbers below n count, by default all. Losses may be
        spread over devices: only sums and maxima go from one to another. `log_dets` is the part that the losses lack in the
        units of the data, with mean 0."""
        n = losses.size if n is None else n
        number = spread(jnp.arange(n) if number is None else jnp.asarray(number), losses.ndim - 1)
        known = number < n
        mean = jnp.where(known, losses, 0.0).sum() / n
        most = jnp.where(known, losses, -math.inf).max()
        row = jnp.where(known & ((losses == most) | jnp.isnan(losses)), number, n - 1).min()
        far = most - mean
        deviations = jnp.where(known, losses - mean, 0.0)
        relative = deviations / jnp.where(far > 0, far, 1.0)  # squares of these do not overflow
        share = 1 / jnp.maximum(jnp.square(relative).sum(), 1.0)
        # A difference of two sums may be inf.
        others = jnp.where(known & (number != row), losses, 0.0).sum() / max(n - 1, 1)
        finite = jnp.where(known, jnp.isfinite(losses), True).all()
        if log_dets is not None:
            deviations = deviations - jnp.where(known, log_dets, 0.0)
        spread_of_rows = jnp.sqrt(jnp.square(jnp.where(finite, deviations, 0.0)).sum() / n)
        few = jnp.where(known, losses, jnp.nan).ravel()[:: -(-losses.size // FEW)] if num_devices() == 1 else ()
        rest, one, no_tail = others if n > 1 else mean, jnp.ones_like(mean), jnp.full_like(mean, -math.inf)
        return cls(mean, row, rest, share, one, no_tail, jnp.where(finite, spread_of_rows / math.sqrt(n), jnp.nan), few)


@dataclass(frozen=True)
class RowsProblem:
    """The loss that is minimised over rows, `of(params, rows, key, train)` of a batch; weights have mean 1."""

    part: DistributionPart
    batch_size: int
    precision: Precision
    measures: bool  # whether some layer is measured again after an epoch
    dealt: bool = False  # whether each device has only the rows of its part of a batch
    split: int = 0  # the number of held-out rows if these are split over devices, else 0
    has_rows = True

    def of(self, params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        raise NotImplementedError

    def loss(self, params: Any, rows: Rows, index: Array, key: Array | None) -> Array:
        with computed_with(self.precision):
            return self.of(params, taken(rows, index, self.dealt), key, True)

    def measured(self, params: Any, rows: Rows, key: Array) -> Any:
        """The params, with running statistics measured on these rows; if rows are split, on equally many of each device."""
        if self.split:
            most = rows_within(*MEASURED, rows.x.shape[1:]) // num_devices()
            few = floating(by_device(lambda _, rows: take(rows, slice(most)), None, rows))
        else:
            few = measured_of(rows)
        return self.part.init(key, Given(few.x, few.context, params))

    def in_chunks(self, fun: Callable[[Rows, Array], Any], rows: Rows, index: np.ndarray) -> Any:
        """fun(rows, index) for each chunk (chunks, rows) of held-out rows, one after the other, in the memory of a step."""
        return jax.lax.map(lambda at: fun(taken(rows, at, bool(self.split)), at), spread(jnp.asarray(index), 1))


@dataclass(frozen=True, kw_only=True)
class Likelihood(RowsProblem):
    """Minus the mean of log_pdf over rows, each with its weight."""

    exact: bool = False  # whether held-out rows are scored without rng, as rng would turn exact densities into estimates

    @property
    def divisible(self) -> bool:
        """True if the loss is the mean of losses of parts of a batch. With keys, a row in a part would get another key."""
        part = self.part
        return part.compiled and part.independent and part.divisible and not self.draws

    @property
    def draws(self) -> bool:
        return "rng" in self.part.keywords

    def of(self, params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        return -self._weighted(params, rows, key, train).mean()

    def held_out(self, params: Any, rows: Rows, key: Array | None) -> HeldOut:
        """The loss of held-out rows, in chunks of at most a batch."""

        def one(rows: Rows, at: Any = None) -> tuple[Array, Array | None]:
            losses = -self._weighted(params, rows, None if self.exact else key, False)
            # These losses lack the log-dets of the layers before.
            return losses, rows.log_det if rows.log_det is None or rows.weights is None else rows.weights * rows.log_det

        n = self.split or len(rows.x)
        if num_devices() == 1 and n <= self.batch_size:
            losses, log_dets = one(rows)
            return HeldOut.of(losses, log_dets=log_dets)
        index, number = chunks_of(n, self.batch_size, bool(self.split))
        losses, log_dets = self.in_chunks(one, rows, index)
        return HeldOut.of(losses, n, number, log_dets)

    def _weighted(self, params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        result = self.part.log_pdf(stop_fixed(params), floating(rows).x, rows.context, key, train)
        check_result(result, (len(rows.x),), self.part.name, "log_pdf")
        return result if rows.weights is None else rows.weights * result


@dataclass(frozen=True, kw_only=True)
class Objective(RowsProblem):
    """The user's `objective(params, distribution, x, *, context, weights, rng, train)` of rows; problems are equal if theirs
    bind the same arguments to the same function."""

    function: Callable = field(compare=False)
    key: Any
    divisible = False  # it may be any function of a batch

    @property
    def draws(self) -> bool:
        return "rng" in keywords_of_objective(self.function)

    def held_out(self, params: Any, rows: Rows, key: Array | None) -> HeldOut:
        """The mean over held-out rows, in chunks of a batch; the last may be smaller. It names no single row."""
        shares, n = (num_devices(), self.split) if self.split else (1, len(rows.x))
        n -= n % shares  # equally many on each device
        size = min(n, self.batch_size)
        whole = n // size

        def chunk(rows: Rows, at: Array) -> tuple[Array, Array]:
            rows = floating(rows)
            chunk_key = None if key is None else jax.random.fold_in(key, at[0])
            weight = jnp.asarray(len(rows.x), rows.x.dtype) if rows.weights is None else rows.weights.sum()
            return weight * self.of(params, rows, chunk_key, False), weight

        first, last = np.split(np.tile(np.arange(n // shares), (shares, 1)), [whole * size // shares], axis=1)
        totals, weights = self.in_chunks(chunk, rows, dealt_out(first, whole))
        total, weight = totals.sum(), weights.sum()
        if n > whole * size:
            at = jnp.asarray(last.ravel())
            rest = chunk(taken(rows, at, bool(self.split)), at)
            total, weight = total + rest[0], weight + rest[1]
        mean = total / weight
        zero = jnp.zeros_like(mean)
        return HeldOut(mean, jnp.zeros((), int), mean, zero, jnp.ones_like(mean), jnp.full_like(mean, jnp.nan))

    def of(self, params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        params, rows, function = stop_fixed(params), floating(rows), self.function
        named = {"context": rows.context, "weights": rows.weights, "rng": key, "train": train}
        keywords = {name: named[name] for name in keywords_of_objective(function)}
        value = function(params, Distribution(params, *functions_of(self.part, params)), rows.x, **keywords)
        return scalar(value, function).astype(rows.x.dtype)


def scalar(value: Any, function: Callable) -> Array:
    """Return the value of an objective, if it is a floating scalar."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", int)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        got = f"a {type(value).__name__}" if shape is None else f"an array of dtype {dtype} and shape {shape}"
        raise FlowsError(
            f"the objective {name_of_objective(function)} returned {got}; expected a floating scalar of JAX, computed from "
            "params: the mean over rows, .mean()"
        )
    return value


def key_of(function: Callable) -> Any:
    """Return a key that is equal for functions which bind the same arguments to the same function."""
    if type(function) is partial:
        key = (function.func, function.args, tuple(sorted(function.keywords.items())))
        with suppress(TypeError):  # of an argument without a hash
            hash(key)
            return key
    plain = isinstance(function, Hashable) and not ismethod(function)  # the object of a method may change
    return function if plain else object()


def check_keywords(function: Callable, rows: Rows, caller: str) -> None:
    """Refuse an objective that cannot take the context or the weights of the rows."""
    names = keywords_of_objective(function)
    for name in ("context", "weights"):
        if getattr(rows, name) is not None and name not in names:
            raise TypeError(
                f"{caller}: {name} was given, but the objective {name_of_objective(function)} does not name it; add {name}= to "
                "its keywords, or leave it out"
            )


def chunks_of(n: int, batch_size: int, split: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of each chunk of at most a batch, (chunks, rows), of n held-out rows, and their numbers; the number is n
    for a row that only fills a chunk. If rows are split, they count within blocks of devices; a chunk has as many of each."""
    devices = num_devices()
    part, shares = -(-min(n, batch_size) // devices), devices if split else 1
    block = -(-n // shares)
    chunks = -(-block // (part * devices // shares))
    index = np.arange(chunks * part * devices // shares)
    number = np.where(index < block, np.arange(shares)[:, None] * block + index, n)
    return dealt_out(np.tile(index % block, (shares, 1)), chunks), dealt_out(np.minimum(number, n), chunks)


def dealt_out(blocks: np.ndarray, chunks: int) -> np.ndarray:
    """Rows of each block, (blocks, rows), as a number of chunks with equal parts of all blocks, (chunks, rows)."""
    return blocks.reshape(len(blocks), chunks, -1).swapaxes(0, 1).reshape(chunks, -1)


def taken(rows: Rows, index: Array, split: bool) -> Rows:
    """The rows with these numbers; if rows are split over devices, numbers are within each device, so that no row travels."""
    return by_device(lambda _, both: take(*both), None, (rows, index)) if split else take(rows, index)


def has_running_statistics(model: Any) -> bool:
    """Return whether a layer or a network in the model is measured again after an epoch, such as batch norm."""
    return any(traits_by(value).running or getattr(value, "running", False) for value in values_of(model))
