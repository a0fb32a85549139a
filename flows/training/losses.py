"""Maximum likelihood: what a step and a validation minimise over rows."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flows.core import Array, DistributionPart, Given
from flows.core.params import stop_fixed
from flows.core.precision import Precision, computed_with
from flows.core.validation import check_result
from flows.training.preprocess import measured_of
from flows.training.reading import Rows, floating, take


class HeldOut(NamedTuple):
    """The mean loss of rows held out; of the row whose loss is the largest its number among them, the mean without it, and its
    share in the sum of all squared deviations from the mean; of draws instead of rows, how many of the target itself would do
    as well, as a share (of rows it is 1), and the Pareto k of their weights (-inf); and the standard error of the mean."""

    mean: Array
    row: Array
    rest: Array
    share: Array
    effective: Any = 1.0
    tail: Any = -math.inf
    error: Any = 0.0

    @classmethod
    def of(cls, losses: Array) -> "HeldOut":
        mean, row = losses.mean(), losses.argmax()
        far = losses[row] - mean
        deviations = (losses - mean) / jnp.where(far > 0, far, 1.0)  # whose squares do not overflow
        share = 1 / jnp.maximum(jnp.square(deviations).sum(), 1.0)
        # Not a difference of two sums, which may be inf.
        others = jnp.where(jnp.arange(len(losses)) == row, 0.0, losses).sum() / max(len(losses) - 1, 1)
        return cls(
            mean,
            row,
            others if len(losses) > 1 else mean,
            share,
            jnp.ones_like(mean),
            jnp.full_like(mean, -math.inf),
            _error(losses),
        )


def _error(losses: Array) -> Array:
    finite = jnp.where(jnp.isfinite(losses), losses, 0.0)
    return jnp.where(jnp.isfinite(losses).all(), finite.std() / math.sqrt(len(losses)), jnp.nan)


class Likelihood(NamedTuple):
    """Minus the mean of log_pdf over rows, each with its weight; weights have mean 1."""

    part: DistributionPart
    batch_size: int
    precision: Precision
    measures: bool  # whether some layer is to be remeasured after an epoch
    exact: bool = False  # whether rows held out are scored without rng, which would make an estimate of what is exact

    @property
    def draws(self) -> bool:
        return "rng" in self.part.keywords

    def loss(self, params: Any, rows: Rows, index: Array, key: Array | None) -> Array:
        with computed_with(self.precision):
            return -self._weighted(params, take(rows, index), key, True).mean()

    def held_out(self, params: Any, rows: Rows, key: Array | None) -> HeldOut:
        """The loss of rows held out, computed in chunks of at most a batch, so that it needs no more memory than a step."""
        key = None if self.exact else key
        n = len(rows.x)
        size = min(n, self.batch_size)
        if n == size:
            return HeldOut.of(-self._weighted(params, rows, key, False))
        index = jnp.arange(-(-n // size) * size).reshape(-1, size)

        def one(chunk: Array) -> Array:
            return -self._weighted(params, take(rows, chunk % n), key, False)

        return HeldOut.of(jax.lax.map(one, index).ravel()[:n])

    def measured(self, params: Any, rows: Rows, key: Array) -> Any:
        """The params, with running statistics measured on these rows."""
        few = measured_of(rows)
        return self.part.init(key, Given(few.x, few.context, params))

    def _weighted(self, params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        result = self.part.log_pdf(stop_fixed(params), floating(rows).x, rows.context, key, train)
        check_result(result, (len(rows.x),), self.part.name, "log_pdf")
        return result if rows.weights is None else rows.weights * result


def has_running_statistics(params: Any) -> bool:
    """Whether something is to be measured again after an epoch: it keeps a "var" under "fixed" (batch norm, in layers and in
    networks)."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return any(path.endswith("['fixed']['var']") for path in paths)
