"""Whole epochs on the device: every step, calibration and validation in one compiled call."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, trainable
from flows.core.caching import Memo, program
from flows.core.lifting import abstract
from flows.training.layout import Layout, Tree, Vector

SMALL = 20_000  # trained numbers up to which compiling less well saves more time than it costs
CLIP = 5.0  # the largest norm of a gradient
RECOVERY = 1.01  # by which steps grow again after some that were skipped

# Its rate is the pace of each step: as that is no part of what is compiled, one program serves every rate and length.
DEFAULT_OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(1.0))

Pace = Callable[[int, int], np.ndarray]  # (first, count): what the updates of each of these steps are multiplied by


class State(NamedTuple):
    """All that training is at the end of an epoch. Params are two parts, (moved, still), as a `Layout` has them."""

    params: tuple[Any, Any]
    opt_state: Any
    average: Any  # of what moved, and of how many steps; () where the params are used as they are
    best: tuple[Any, Any]
    best_loss: Array
    epoch: Array
    rate: Array  # what updates are multiplied by: 1, less after steps that were skipped


class Report(NamedTuple):
    """What an epoch found: of each step the loss, and whether it was taken; the validation loss: is it the best so far?"""

    losses: Any
    taken: Any
    validation: Any
    better: Any


class Trainer(NamedTuple):
    """The compiled functions of a training. Those of an ensemble have a leading axis of members in all but the rows.

    `start(params) -> State`; `run(state, key, order, pace, rows, held_out) -> (State, Report)`, an epoch; the same in pieces:
    `advance(state, key, piece, order, pace, rows) -> (State, losses, taken)` and `finish(state, key, rows, held_out) ->
    (State, validation, better)`; `back(state, lost, rate, restart, params) -> State`, where lost to these params, or to the
    best, with the optimizer as at the start but for its counts; `params(state.params or state.best)`.

    `order` (steps, batch_size) are the rows of each step, `pace` (steps,) is what its updates are multiplied by.
    """

    start: Callable
    run: Callable
    advance: Callable
    finish: Callable
    back: Callable
    params: Callable


class Steps(NamedTuple):
    """How steps are made of gradients."""

    accumulate: int = 1  # parts of a batch whose gradients are averaged
    average: float | None = None  # the decay of an exponential moving average of the params
    by_leaf: bool = False  # the optimizer tells one leaf from another
    members: int | None = None  # of an ensemble


_trainers = Memo(size=64)


def orders(key: Array, n: int, batch_size: int, steps: int) -> Callable[[int], np.ndarray]:
    """The rows of each step of an epoch; those that fill no batch are left out, others in each epoch.

    On the host: a sort on the device takes longer, and half a second to compile.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()

    def of_epoch(epoch: int) -> np.ndarray:
        order = np.random.default_rng([*seed, epoch]).permutation(n)[: steps * batch_size]
        return order.astype(np.int32).reshape(steps, batch_size)

    return of_epoch


def warmup_cosine(peak: float, steps: int) -> Pace:
    """It rises for a twentieth of the steps and falls to 0 along a cosine."""
    warm = steps // 20

    def of_steps(first: int, count: int) -> np.ndarray:
        t = np.arange(first, first + count)
        falling = (1 + np.cos(np.pi * (t - warm) / (steps - warm))) / 2
        return (peak * np.where(t < warm, t / max(warm, 1), falling)).astype(np.float32)

    return of_steps


def even(first: int, count: int) -> np.ndarray:
    return np.ones(count, np.float32)


def trainer(problem: Any, params: Any, optimizer: Any, how: Steps, dtype: Any) -> Trainer:
    """The compiled functions of a training; an equal problem with equal settings shares them. `params` are of one member."""
    known = None if optimizer is DEFAULT_OPTIMIZER else program(_whole(optimizer), abstract(params))
    layout = Tree() if how.by_leaf else Vector(params)
    small = sum(np.size(leaf) for leaf in jax.tree.leaves(params)) * (how.members or 1) <= SMALL
    options = {"xla_backend_optimization_level": 1} if small else None
    key = (problem, how, str(dtype), layout.key, known)
    unknown = known is None and optimizer is not DEFAULT_OPTIMIZER
    return _trainers(None if unknown else key, lambda: _make_trainer(problem, optimizer, layout, how, dtype, options))


def _whole(optimizer: Any) -> Callable:
    """All that an optimizer does, as one function of params: made anew, an equal one is the same program."""
    optimizer = optax.with_extra_args_support(optimizer)

    def run(params: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return _updates(optimizer, params, optimizer.init(params), params, jnp.zeros(()))

    return run


def _make_trainer(
    problem: Any, optimizer: Any, layout: Layout, how: Steps, dtype: Any, options: dict[str, Any] | None
) -> Trainer:
    """`problem` has `loss(params, rows, index, key)`, `held_out(params, rows, key)`, `draws`, whether these need keys, and
    `measures`, whether `measured(params, rows, key)` is to be called after each epoch."""
    optimizer = optax.with_extra_args_support(optimizer)
    if how.by_leaf:
        # optax.masked would hand on the updates of fixed leaves as they are, which for a masked leaf is its gradient.
        optimizer = optax.partition({True: optimizer, False: optax.set_to_zero()}, trainable)
    draws, measures = problem.draws, problem.measures

    def loss(moved: Any, still: Any, rows: Any, index: Array, key: Array | None) -> Array:
        return problem.loss(layout.join(moved, still), rows, index, key)

    def gradient(moved: Any, still: Any, rows: Any, index: Array, key: Array | None) -> tuple[Array, Any]:
        """Loss and gradient of a batch, in parts whose mean it is."""
        of_part = jax.value_and_grad(loss)
        if how.accumulate == 1:
            return of_part(moved, still, rows, index, key)

        def add(total: Any, part: tuple[Array, Array | None]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_part(moved, still, rows, *part)), None

        keys = None if key is None else jax.random.split(key, how.accumulate)
        zero = (jnp.zeros((), dtype), jax.tree.map(jnp.zeros_like, moved))
        total, _ = jax.lax.scan(add, zero, (index.reshape(how.accumulate, -1), keys))
        return jax.tree.map(lambda each: each / how.accumulate, total)

    def step(rows: Any, still: Any, carry: tuple, this: tuple[Array, Array | None, Array]) -> tuple[Any, Any]:
        """A step is taken if all it makes is finite; if not, those after it are half as long, and grow again slowly."""
        (moved, opt_state, average, rate), (index, key, pace) = carry, this
        value, gradients = gradient(moved, still, rows, index, key)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, new_state = _updates(optimizer, gradients, opt_state, moved, value)
            updates = jax.tree.map(lambda update: update * (rate * pace).astype(update.dtype), updates)
            new = optax.apply_updates(moved, updates)
        taken = _all_finite((value, gradients, new))
        moved, opt_state, average = _where(
            taken, (new, new_state, _averaged(average, new, how.average)), (moved, opt_state, average)
        )
        rate = jnp.where(taken, jnp.minimum(RECOVERY * rate, 1), rate / 2)
        return (moved, opt_state, average, rate), (value, taken)

    def begin(parts: tuple[Any, Any]) -> State:
        with jax.numpy_dtype_promotion("standard"):
            opt_state = optimizer.init(parts[0])
        average = () if how.average is None else (jnp.zeros((), dtype), parts[0])
        return State(parts, opt_state, average, parts, jnp.full((), jnp.inf, dtype), jnp.zeros((), int), jnp.ones(()))

    def start(params: Any) -> State:
        return jax.tree.map(jnp.copy, begin(layout.split(params)))  # buffers of its own, as `run` gives them away

    def keys_of(state: State, key: Array) -> tuple[Any, Any, Any]:
        """For the steps, the measuring and the validation, which draws the same numbers in every epoch."""
        if not (draws or measures):
            return None, None, None
        key, validate = jax.random.split(key)
        measure, steps = jax.random.split(jax.random.fold_in(key, state.epoch))
        return steps, measure, validate

    def advance(
        state: State, key: Array, piece: Array | None, order: Array, pace: Array, rows: Any
    ) -> tuple[State, Array, Array]:
        of_steps = keys_of(state, key)[0] if draws else None
        if of_steps is not None:
            of_steps = jax.random.split(of_steps if piece is None else jax.random.fold_in(of_steps, piece), len(order))
        (moved, still), carry = state.params, (state.params[0], state.opt_state, state.average, state.rate)
        carry, (losses, taken) = jax.lax.scan(functools.partial(step, rows, still), carry, (order, of_steps, pace))
        moved, opt_state, average, rate = carry
        return state._replace(params=(moved, still), opt_state=opt_state, average=average, rate=rate), losses, taken

    def finish(state: State, key: Array, rows: Any, held_out: Any) -> tuple[State, Array, Array]:
        _, measure, validate = keys_of(state, key)
        moved, still = state.params
        used = moved if how.average is None else state.average[1]
        if measures:
            used, still = layout.split(problem.measured(layout.join(used, still), rows, measure))
        value = problem.held_out(layout.join(used, still), held_out, validate if draws else None)
        changed, best = ((used, still), state.best) if measures else (used, state.best[0])
        better = (value < state.best_loss) & _all_finite((value, changed))
        best = _where(better, changed, best)
        state = state._replace(
            params=(used if how.average is None else moved, still),
            best=best if measures else (best, state.best[1]),
            best_loss=jnp.where(better, value, state.best_loss),
            epoch=state.epoch + 1,
        )
        return state, value, better

    def run(state: State, key: Array, order: Array, pace: Array, rows: Any, held_out: Any) -> tuple[State, Report]:
        state, losses, taken = advance(state, key, None, order, pace, rows)
        state, value, better = finish(state, key, rows, held_out)
        return state, Report(losses, taken, value, better)

    def back(state: State, lost: Array, rate: Array, restart: Array, params: Any) -> State:
        fresh = begin(_where(restart, layout.split(params), state.best))
        opt_state = jax.tree.map(
            lambda new, old: old if jnp.issubdtype(old.dtype, jnp.integer) else new, fresh.opt_state, state.opt_state
        )
        best_loss = jnp.where(restart, fresh.best_loss, state.best_loss)
        rate = rate.astype(fresh.rate.dtype)
        fresh = fresh._replace(opt_state=opt_state, best_loss=best_loss, epoch=state.epoch, rate=rate)
        return _where(lost, fresh, state)

    def of_members(function: Callable, *axes: int | None) -> Callable:
        return function if how.members is None else jax.vmap(function, axes, axis_size=how.members)

    def params_of(parts: tuple[Any, Any]) -> Any:
        moved, still = jax.device_get(parts)
        if how.members is None:
            return jax.tree.map(jnp.asarray, layout.join(moved, still))
        each = [layout.join(*jax.tree.map(lambda leaf, i=i: leaf[i], (moved, still))) for i in range(how.members)]
        return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *each)

    def compiled(function: Callable, donate: bool) -> Callable:
        return jax.jit(function, donate_argnums=0 if donate else (), compiler_options=options if donate else None)

    return Trainer(
        compiled(of_members(start, 0), False),
        compiled(of_members(run, 0, 0, 0, None, None, None), True),
        compiled(of_members(advance, 0, 0, None, 0, None, None), True),
        compiled(of_members(finish, 0, 0, None, None), True),
        compiled(of_members(back, 0, 0, 0, 0, 0), False),
        params_of,
    )


def _updates(optimizer: Any, gradients: Any, state: Any, params: Any, value: Array) -> tuple[Any, Any]:
    """Some optimizers want the loss, too."""
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
