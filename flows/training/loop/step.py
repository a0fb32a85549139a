"""The work of one epoch on the device: optimizer steps, running statistics, and validation of the averaged params. It keeps
the best params in its state.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, current_mesh, mean_over_devices, rows_on, trainable
from flows.training.loop.losses import HeldOut

RECOVERY = 1.01  # the factor by which steps grow again after skipped steps


class Layout:
    """The part of params that the optimizer moves, and its form; here all params, unchanged, for optimizers that treat leaves
    differently. Params are `params_of(unpacked(moved), still)`, and `moved(leaves)` brings leaves, such as a gradient, into
    the form of the moved part. `true` is a condition that always holds and that the compiler cannot know; with it leaves may
    be cut out in a branch.
    """

    def split(self, params: Any) -> tuple[Any, Any]:
        return params, ()

    def unpacked(self, moved: Any, true: Array | None = None) -> Any:
        return moved

    def params_of(self, leaves: Any, still: Any) -> Any:
        return leaves

    def moved(self, leaves: Any) -> Any:
        return leaves


class Vector(Layout):
    """All trainable leaves as one vector: the optimizer is then a few kernels, instead of some for each leaf.

    For small models it saves a third of the time to compile, and half of the time of a step.
    """

    def __init__(self, params: Any):
        leaves, self.tree = jax.tree.flatten(params)
        self.trains = jax.tree.leaves(trainable(params))
        self.shapes = [jnp.shape(leaf) for leaf, train in zip(leaves, self.trains, strict=True) if train]

    def split(self, params: Any) -> tuple[Array, list[Array]]:
        leaves = list(zip(jax.tree.leaves(params), self.trains, strict=True))
        moved = [leaf for leaf, train in leaves if train]
        return self.moved(moved), [leaf for leaf, train in leaves if not train]

    def unpacked(self, moved: Array, true: Array | None = None) -> list[Array]:
        """The leaves, on a CPU cut out in a branch: fused with the operations that read them, they compile a third longer."""
        if isinstance(moved, np.ndarray) or true is None:
            return self._cut(moved)

        def branch(true: Array, moved: Array) -> list[Array]:
            return jax.lax.cond(true, self._cut, lambda moved: self._cut(jnp.zeros_like(moved)), moved)

        return jax.lax.platform_dependent(true, moved, cpu=branch, default=lambda _, moved: self._cut(moved))

    def _cut(self, moved: Any) -> list[Any]:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        return [moved[end - math.prod(shape) : end].reshape(shape) for end, shape in zip(ends, self.shapes, strict=True)]

    def params_of(self, leaves: list[Array], still: list[Array]) -> Any:
        both = iter(still), iter(leaves)
        return jax.tree.unflatten(self.tree, [next(both[train]) for train in self.trains])

    def moved(self, leaves: list[Array]) -> Array:
        return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]) if leaves else jnp.zeros(0)


class State(NamedTuple):
    """The whole state of a training at the end of an epoch. Params are in two parts, (moved, still), see `Layout`."""

    params: tuple[Any, Any]
    opt_state: Any
    average: Any  # (steps, mean of the moved part); () without an average
    best: tuple[Any, Any]
    best_loss: Array
    epoch: Array
    lr_scale: Array  # a factor of updates: 1, and less after skipped steps
    lr_most: Array  # the largest lr_scale: 1, and less after a fit fell apart


class Report(NamedTuple):
    """Results of an epoch: the loss of each step, whether it was taken; the validation, whether it is the best so far."""

    losses: Any
    taken: Any
    validation: Any  # a `losses.HeldOut`
    better: Any


@dataclass(frozen=True, eq=False)
class Program:
    """The functions of one member's training that are compiled (`trainer.py`).

    `problem` has `loss(params, rows, index, key)` and `held_out(params, rows, key)`. It says whether index has the numbers of
    rows (`has_rows`), or numbers within the rows of each device (`dealt`); the number of held-out rows if these are divided,
    else 0 (`split`); whether the loss is the mean of the losses of parts of a batch (`divisible`); whether it needs keys
    (`draws`); and whether `measured(params, rows, key)` follows each epoch (`measures`). A step averages gradients of
    `accumulate` parts of a batch; `decay` is the decay of the moving average of params, None without an average.
    """

    problem: Any
    optimizer: Any
    layout: Layout
    accumulate: int
    decay: float | None
    dtype: Any

    def start(self, params: Any) -> State:
        return jax.tree.map(jnp.copy, self.begin(self.layout.split(params)))  # separate buffers, as `run` gives them away

    def begin(self, parts: tuple[Any, Any]) -> State:
        with jax.numpy_dtype_promotion("standard"):
            opt_state = self.optimizer.init(parts[0])
        average = () if self.decay is None else (jnp.zeros((), self.dtype), parts[0])
        worst = jnp.full((), jnp.inf, self.dtype)
        return State(parts, opt_state, average, parts, worst, jnp.zeros((), int), jnp.ones(()), jnp.ones(()))

    def run(
        self, state: State, key: Array, steps: Array, order: Array, schedule: Array, rows: Any, held_out: Any
    ) -> tuple[State, Report]:
        state, losses, taken = self.advance(state, key, None, order, schedule, rows, steps)
        state, value, better = self.finish(state, key, rows, held_out)
        return state, Report(losses, taken, value, better)

    def advance(
        self, state: State, key: Array, piece: Array | None, order: Array, schedule: Array, rows: Any, steps: Any = None
    ) -> tuple[State, Array, Array]:
        """The steps of an epoch, or of a piece of one."""
        step_keys = self.keys_of(state, key)[0] if self.problem.draws else None
        if step_keys is not None:
            step_keys = jax.random.split(step_keys if piece is None else jax.random.fold_in(step_keys, piece), len(order))
        moved, still = state.params
        carry = moved, state.opt_state, state.average, state.lr_scale, state.lr_most

        def one(i: Array, so_far: tuple) -> tuple:
            carry, losses, taken = so_far
            this = jax.tree.map(lambda array: array[i], (order, step_keys, schedule))
            carry, (loss, was_taken) = self.step(rows, still, carry, this)
            return carry, losses.at[i].set(loss), taken.at[i].set(was_taken)

        start = carry, jnp.full(len(order), jnp.nan, self.dtype), jnp.ones(len(order), bool)
        carry, losses, taken = jax.lax.fori_loop(0, len(order) if steps is None else steps, one, start)
        moved, opt_state, average, lr_scale, _ = carry
        state = state._replace(params=(moved, still), opt_state=opt_state, average=average, lr_scale=lr_scale)
        return state, losses, taken

    def step(self, rows: Any, still: Any, carry: tuple, this: tuple[Array, Array | None, Array]) -> tuple[Any, Any]:
        """Take a step if all its results are finite; if not, the steps after it are half as long, and slowly grow again."""
        (moved, opt_state, average, lr_scale, lr_most), (index, key, rate) = carry, this
        value, gradients = self.gradient(self.layout.unpacked(moved, rate >= 0), still, rows, index, key)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, new_state = updates_of(self.optimizer, gradients, opt_state, moved, value)
            updates = jax.tree.map(lambda update: update * (lr_scale * rate).astype(update.dtype), updates)
            new = optax.apply_updates(moved, updates)
        taken, old = _all_finite((value, gradients, new)), (moved, opt_state, average)
        moved, opt_state, average = _where(taken, (new, new_state, _averaged(average, new, self.decay)), old)
        lr_scale = jnp.where(taken, jnp.minimum(RECOVERY * lr_scale, lr_most), lr_scale / 2)
        return (moved, opt_state, average, lr_scale, lr_most), (value, taken)

    def gradient(self, leaves: Any, still: Any, rows: Any, index: Array, key: Array | None) -> tuple[Array, Any]:
        """Loss and gradient of a batch, in the form of the moved part: the mean over its parts, index (parts, rows)."""
        if current_mesh() is None or not self.problem.divisible:
            return self._accumulated(leaves, still, rows, index, key)
        # Left to the compiler, each layer of a loop would bring its own arrays together.
        rows_axis = 0 if self.problem.dealt else None
        return mean_over_devices(self._accumulated, (None, None, rows_axis, 1, None), leaves, still, rows, index, None)

    def _accumulated(self, leaves: Any, still: Any, rows: Any, index: Array, key: Array | None) -> tuple[Array, Any]:
        """Return the loss and gradient of the rows here: all rows, or the rows of one device."""

        def loss(leaves: Any, index: Array, key: Array | None) -> Array:
            return self.problem.loss(self.layout.params_of(leaves, still), rows, index, key)

        part_gradient = jax.value_and_grad(loss)
        if self.accumulate == 1:
            value, gradients = part_gradient(leaves, index[0], key)
            return value, self.layout.moved(gradients)

        def add(total: Any, part: tuple[Array, Array | None]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, part_gradient(leaves, *part)), None

        keys = None if key is None else jax.random.split(key, self.accumulate)
        zero = (jnp.zeros((), self.dtype), jax.tree.map(jnp.zeros_like, leaves))
        total, _ = jax.lax.scan(add, zero, (index, keys))
        value, gradients = jax.tree.map(lambda leaf: leaf / self.accumulate, total)
        return value, self.layout.moved(gradients)

    def finish(self, state: State, key: Array, rows: Any, held_out: Any) -> tuple[State, HeldOut, Array]:
        """The end of an epoch: running statistics, the validation, and whether the params are the best so far."""
        measures, (_, measure, validate) = self.problem.measures, self.keys_of(state, key)
        moved, still = state.params
        used = moved if self.decay is None else state.average[1]
        leaves = self.layout.unpacked(used, state.epoch >= 0)
        if measures:
            # Each device measures the rows that all have, which takes less time than to bring results together.
            with rows_on(current_mesh() if self.problem.split else None):
                measured = self.problem.measured(self.layout.params_of(leaves, still), rows, measure)
            used, still = self.layout.split(measured)
            leaves = self.layout.unpacked(used, state.epoch >= 0)
        value = self.problem.held_out(self.layout.params_of(leaves, still), held_out, validate if self.problem.draws else None)
        changed, best = ((used, still), state.best) if measures else (used, state.best[0])
        better = (value.mean < state.best_loss) & _all_finite((value.mean, changed))
        best = _where(better, changed, best)
        state = state._replace(
            params=(used if self.decay is None else moved, still),
            best=best if measures else (best, state.best[1]),
            best_loss=jnp.where(better, value.mean, state.best_loss),
            epoch=state.epoch + 1,
        )
        return state, value, better

    def back(self, state: State, lost: Array, lr_scale: Array, lr_most: Array, restart: Array, params: Any) -> State:
        """The state, which goes back to its best params, or to `params`, if it is lost."""
        fresh = self.begin(_where(restart, self.layout.split(params), state.best))
        opt_state = jax.tree.map(
            lambda new, old: old if jnp.issubdtype(old.dtype, jnp.integer) else new, fresh.opt_state, state.opt_state
        )
        best_loss = jnp.where(restart, fresh.best_loss, state.best_loss)
        lr_scale, lr_most = (scale.astype(fresh.lr_scale.dtype) for scale in (lr_scale, lr_most))
        fresh = fresh._replace(opt_state=opt_state, best_loss=best_loss, epoch=state.epoch, lr_scale=lr_scale, lr_most=lr_most)
        return _where(lost, fresh, state)

    def keys_of(self, state: State, key: Array) -> tuple[Any, Any, Any]:
        """Keys for the steps, the measuring and the validation; the validation draws the same numbers in every epoch."""
        if not (self.problem.draws or self.problem.measures):
            return None, None, None
        key, validate = jax.random.split(key)
        measure, steps = jax.random.split(jax.random.fold_in(key, state.epoch))
        return steps, measure, validate


def updates_of(optimizer: Any, gradients: Any, state: Any, params: Any, value: Array) -> tuple[Any, Any]:
    """Updates and state of an optimizer; some optimizers need the loss, too."""
    try:
        return optimizer.update(gradients, state, params, value=value)
    except TypeError as error:
        raise TypeError(
            f"fit: the optimizer cannot be used ({error}); expected one that needs gradients, params and the loss alone"
        ) from error


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _averaged(average: Any, new: Any, decay: float | None) -> Any:
    """The moving average with one more step; at first it forgets faster, so that the start is soon gone."""
    if decay is None:
        return average
    count, mean = average
    weight = jnp.minimum(decay, (1 + count) / (10 + count))
    return count + 1, jax.tree.map(lambda old, new: (weight * old + (1 - weight) * new).astype(old.dtype), mean, new)


def _all_finite(tree: Any) -> Array:
    return jax.tree.reduce(lambda so_far, leaf: so_far & jnp.isfinite(leaf).all(), tree, jnp.asarray(True))
