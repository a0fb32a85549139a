"""One epoch on the device, in one compiled call: every step of the optimizer, calibration, validation, the best params."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, Memo, abstract, program, shapes_of, trainable
from flows.training.loop.losses import HeldOut
from flows.training.loop.params_vector import Layout, Tree, Vector
from flows.training.options import Options

SMALL = 20_000  # trained numbers up to which compiling less well saves more time than it costs
CLIP = 5.0  # the largest norm of a gradient
RECOVERY = 1.01  # by which steps grow again after some that were skipped

# The learning rate of each step is an argument of the compiled program, so that one program serves every rate and length.
DEFAULT_OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(1.0))


def default_optimizer(weight_decay: float) -> optax.GradientTransformation:
    if not weight_decay:
        return DEFAULT_OPTIMIZER
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(1.0, weight_decay=weight_decay))


Schedule = Callable[[int, int], np.ndarray]  # (first, count) -> what the updates of each of these steps are multiplied by


class State(NamedTuple):
    """The whole state of a training at the end of an epoch. Params are in two parts, (moved, still), see `Layout`."""

    params: tuple[Any, Any]
    opt_state: Any
    average: Any  # (steps, mean of what moved); () where the params are used as they are
    best: tuple[Any, Any]
    best_loss: Array
    epoch: Array
    lr_scale: Array  # what updates are multiplied by: 1, and less after steps that were skipped
    lr_most: Array  # what that grows to again: 1, and less after a fit fell apart


class Report(NamedTuple):
    """What an epoch found: the loss of each step, whether it was taken; the validation loss, whether it is the best so far."""

    losses: Any
    taken: Any
    validation: Any  # a `losses.HeldOut`
    better: Any


class Trainer(NamedTuple):
    """The compiled functions of a training. Those of an ensemble have a leading axis of members in all but the rows.

    `start(params) -> State`; `run(state, key, steps, order, schedule, rows, held_out) -> (State, Report)`, an epoch of so many
    steps, all or none: without any the params are scored as they are; the same in pieces: `advance(state, key, piece, order,
    schedule, rows) -> (State, losses, taken)` and `finish(state, key, rows, held_out) -> (State, validation, better)`;
    `back(state, lost, lr_scale, lr_most, restart, params) -> State`: members that are lost go back to their best params, or to
    `params` where they restart, with the optimizer as at the start but for its counts; `params(state.params or state.best)`.

    `order` (steps, batch_size) are the rows of each step, and `schedule` (steps,) is what its updates are multiplied by.
    """

    start: Callable
    run: Callable
    advance: Callable
    finish: Callable
    back: Callable
    params: Callable


_trainers = Memo(size=64)


def warmup_cosine(peak: float, steps: int) -> Schedule:
    """A learning rate that rises for a twentieth of the steps and falls to 0 along a cosine."""
    warm = steps // 20

    def of_steps(first: int, count: int) -> np.ndarray:
        t = np.arange(first, first + count)
        falling = (1 + np.cos(np.pi * (t - warm) / (steps - warm))) / 2
        return (peak * np.where(t < warm, t / max(warm, 1), falling)).astype(np.float32)

    return of_steps


def schedule_of(options: Options, steps: int) -> Schedule:
    """The learning-rate schedule of so many steps; an optimizer that was given has its own."""
    if options.optimizer is not None:
        return lambda first, count: np.ones(count, np.float32)
    return warmup_cosine(float(options.learning_rate), steps)


def trainer(problem: Any, params: Any, options: Options, dtype: Any, folds: bool = False) -> Trainer:
    """The compiled functions of a training; equal problems with equal options share them. `params` are those of one member;
    with folds each member has rows of its own."""
    default = options.optimizer is None
    optimizer = default_optimizer(options.weight_decay) if default else options.optimizer
    layout: Layout = Vector(params) if default else Tree()  # another optimizer may tell one leaf from another
    known = f"default {options.weight_decay}" if default else _program_of(optimizer, params)
    how = options.accumulate, options.ema, options.members, dtype, folds
    small = sum(np.size(leaf) for leaf in jax.tree.leaves(params)) <= SMALL
    compiler = {"xla_backend_optimization_level": 1} if small else None
    key = None if known is None else (problem, shapes_of(params), known, how)
    return _trainers(key, lambda: _make_trainer(problem, optimizer, layout, compiler, *how))


def _program_of(optimizer: Any, params: Any) -> str | None:
    """All that an optimizer computes: one that is made anew and equal has the same."""
    optimizer = optax.with_extra_args_support(optimizer)

    def run(params: Any, state: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.init(params), _updates(optimizer, params, state, params, jnp.zeros(()))

    params = abstract(params)
    with jax.numpy_dtype_promotion("standard"):
        state = jax.eval_shape(optimizer.init, params)
    return program(run, params, state)


def _make_trainer(
    problem: Any, optimizer: Any, layout: "Layout", compiler: dict[str, Any] | None,
    accumulate: int, decay: float | None, members: int | None, dtype: Any, folds: bool,
) -> Trainer:  # fmt: skip
    """`problem` has `loss(params, rows, index, key)`, `held_out(params, rows, key)`, `draws`, whether these need keys, and
    `measures`, whether `measured(params, rows, key)` is to be called after each epoch."""
    optimizer = optax.with_extra_args_support(optimizer)
    if isinstance(layout, Tree):
        # optax.masked would hand on the updates of fixed leaves as they are, which for a masked leaf is its gradient.
        optimizer = optax.partition({True: optimizer, False: optax.set_to_zero()}, trainable)
    draws, measures = problem.draws, problem.measures

    def loss(leaves: Any, still: Any, rows: Any, index: Array, key: Array | None) -> Array:
        return problem.loss(layout.join(leaves, still), rows, index, key)

    def gradient(leaves: Any, still: Any, rows: Any, index: Array, key: Array | None) -> tuple[Array, Any]:
        """Loss and gradient of a batch, in parts whose mean it is."""
        of_part = jax.value_and_grad(loss)
        if accumulate == 1:
            return of_part(leaves, still, rows, index, key)

        def add(total: Any, part: tuple[Array, Array | None]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_part(leaves, still, rows, *part)), None

        keys = None if key is None else jax.random.split(key, accumulate)
        zero = (jnp.zeros((), dtype), jax.tree.map(jnp.zeros_like, leaves))
        total, _ = jax.lax.scan(add, zero, (index.reshape(accumulate, -1), keys))
        return jax.tree.map(lambda each: each / accumulate, total)

    def step(rows: Any, still: Any, carry: tuple, this: tuple[Array, Array | None, Array]) -> tuple[Any, Any]:
        """A step is taken if all it makes is finite; if not, the steps after it are half as long, and slowly grow again."""
        (moved, opt_state, average, lr_scale, lr_most), (index, key, rate) = carry, this
        value, gradients = gradient(layout.leaves(moved, rate >= 0), still, rows, index, key)
        gradients = layout.moved(gradients)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, new_state = _updates(optimizer, gradients, opt_state, moved, value)
            updates = jax.tree.map(lambda update: update * (lr_scale * rate).astype(update.dtype), updates)
            new = optax.apply_updates(moved, updates)
        taken = _all_finite((value, gradients, new))
        moved, opt_state, average = _where(taken, (new, new_state, _averaged(average, new, decay)), (moved, opt_state, average))
        lr_scale = jnp.where(taken, jnp.minimum(RECOVERY * lr_scale, lr_most), lr_scale / 2)
        return (moved, opt_state, average, lr_scale, lr_most), (value, taken)

    def begin(parts: tuple[Any, Any]) -> State:
        with jax.numpy_dtype_promotion("standard"):
            opt_state = optimizer.init(parts[0])
        average = () if decay is None else (jnp.zeros((), dtype), parts[0])
        worst = jnp.full((), jnp.inf, dtype)
        return State(parts, opt_state, average, parts, worst, jnp.zeros((), int), jnp.ones(()), jnp.ones(()))

    def start(params: Any) -> State:
        return jax.tree.map(jnp.copy, begin(layout.split(params)))  # buffers of its own, as `run` gives them away

    def keys_of(state: State, key: Array) -> tuple[Any, Any, Any]:
        """Keys for the steps, the measuring and the validation, which draws the same numbers in every epoch."""
        if not (draws or measures):
            return None, None, None
        key, validate = jax.random.split(key)
        measure, steps = jax.random.split(jax.random.fold_in(key, state.epoch))
        return steps, measure, validate

    def advance(
        state: State, key: Array, piece: Array | None, order: Array, schedule: Array, rows: Any, steps: Any = None
    ) -> tuple[State, Array, Array]:
        of_steps = keys_of(state, key)[0] if draws else None
        if of_steps is not None:
            of_steps = jax.random.split(of_steps if piece is None else jax.random.fold_in(of_steps, piece), len(order))
        moved, still = state.params
        carry = moved, state.opt_state, state.average, state.lr_scale, state.lr_most

        def one(i: Array, so_far: tuple) -> tuple:
            carry, losses, taken = so_far
            this = jax.tree.map(lambda each: each[i], (order, of_steps, schedule))
            carry, (loss, was_taken) = step(rows, still, carry, this)
            return carry, losses.at[i].set(loss), taken.at[i].set(was_taken)

        found = carry, jnp.full(len(order), jnp.nan, dtype), jnp.ones(len(order), bool)
        carry, losses, taken = jax.lax.fori_loop(0, len(order) if steps is None else steps, one, found)
        moved, opt_state, average, lr_scale, _ = carry
        state = state._replace(params=(moved, still), opt_state=opt_state, average=average, lr_scale=lr_scale)
        return state, losses, taken

    def finish(state: State, key: Array, rows: Any, held_out: Any) -> tuple[State, HeldOut, Array]:
        _, measure, validate = keys_of(state, key)
        moved, still = state.params
        used = moved if decay is None else state.average[1]
        leaves = layout.leaves(used, state.epoch >= 0)
        if measures:
            used, still = layout.split(problem.measured(layout.join(leaves, still), rows, measure))
            leaves = layout.leaves(used, state.epoch >= 0)
        value = problem.held_out(layout.join(leaves, still), held_out, validate if draws else None)
        changed, best = ((used, still), state.best) if measures else (used, state.best[0])
        better = (value.mean < state.best_loss) & _all_finite((value.mean, changed))
        best = _where(better, changed, best)
        state = state._replace(
            params=(used if decay is None else moved, still),
            best=best if measures else (best, state.best[1]),
            best_loss=jnp.where(better, value.mean, state.best_loss),
            epoch=state.epoch + 1,
        )
        return state, value, better

    def run(
        state: State, key: Array, steps: Array, order: Array, schedule: Array, rows: Any, held_out: Any
    ) -> tuple[State, Report]:
        state, losses, taken = advance(state, key, None, order, schedule, rows, steps)
        state, value, better = finish(state, key, rows, held_out)
        return state, Report(losses, taken, value, better)

    def back(state: State, lost: Array, lr_scale: Array, lr_most: Array, restart: Array, params: Any) -> State:
        fresh = begin(_where(restart, layout.split(params), state.best))
        opt_state = jax.tree.map(
            lambda new, old: old if jnp.issubdtype(old.dtype, jnp.integer) else new, fresh.opt_state, state.opt_state
        )
        best_loss = jnp.where(restart, fresh.best_loss, state.best_loss)
        lr_scale, lr_most = (each.astype(fresh.lr_scale.dtype) for each in (lr_scale, lr_most))
        fresh = fresh._replace(opt_state=opt_state, best_loss=best_loss, epoch=state.epoch, lr_scale=lr_scale, lr_most=lr_most)
        return _where(lost, fresh, state)

    def of_members(function: Callable, *axes: int | None) -> Callable:
        if members is None:
            return function
        if jax.default_backend() != "cpu":
            return jax.vmap(function, axes, axis_size=members)
        return one_after_another(function, axes, members)

    def params_of(parts: tuple[Any, Any]) -> Any:
        moved, still = jax.device_get(parts)
        if members is None:
            return jax.tree.map(jnp.asarray, layout.join(layout.leaves(moved), still))
        of_members = [jax.tree.map(lambda leaf, i=i: leaf[i], (moved, still)) for i in range(members)]
        each = [layout.join(layout.leaves(moved), still) for moved, still in of_members]
        return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *each)

    def compiled(function: Callable, donate: bool) -> Callable:
        return jax.jit(function, donate_argnums=0 if donate else (), compiler_options=compiler if donate else None)

    own = 0 if folds else None
    return Trainer(
        compiled(of_members(start, 0), False),
        compiled(of_members(run, 0, 0, None, 0, None, own, own), True),
        compiled(of_members(advance, 0, 0, None, 0, None, None), True),
        compiled(of_members(finish, 0, 0, None, None), True),
        compiled(of_members(back, 0, 0, 0, 0, 0, 0), False),
        params_of,
    )


def one_after_another(function: Callable, axes: tuple[int | None, ...], members: int) -> Callable:
    """What `jax.vmap(function, axes)` returns, where a processor is as fast with one member at a time: batches of products are
    slow on CPUs."""

    def of_each(*arguments: Any) -> Any:
        own = [argument for argument, axis in zip(arguments, axes, strict=True) if axis is not None]

        def of_one(carry: None, given: list) -> tuple[None, Any]:
            rest = iter(given)
            return carry, function(*(each if axis is None else next(rest) for each, axis in zip(arguments, axes, strict=True)))

        return jax.lax.scan(of_one, None, own, length=members)[1]

    return of_each


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


def before_epochs(state: State) -> State:
    """A state that was scored before its first epoch."""
    return state._replace(epoch=jnp.zeros_like(state.epoch))
