"""The compiled functions of a training. They are made here and kept for equal problems; JAX compiles each at its first call,
for most fits when the start is scored. A digest shows whether two optimizers from equal calls compute the same.
"""

import hashlib
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import jaxpr_as_fun

from flows.core import Memo, abstract, holds_tracer, on_device, shapes_of, trainable
from flows.training.devices import Placement
from flows.training.loop.step import Layout, Program, Vector, updates_of
from flows.training.options import Options

SMALL = 20_000  # trained numbers up to which compiling less well saves more time than it costs
CLIP = 5.0  # the largest norm of a gradient

# The learning rate of each step is an argument of the compiled program, so that one program serves every rate and length.
DEFAULT_OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(1.0))
Schedule = Callable[[int, int], np.ndarray]  # (first, count) -> a factor for the updates of each of these steps
_trainers = Memo(size=64)


class Trainer:
    """The compiled functions of a training. With an ensemble all arguments but the rows have a leading axis of members.

    `start(params) -> State`; `run(state, key, steps, order, schedule, rows, held_out) -> (State, Report)`, an epoch of all
    steps, or of none, which only scores the params; an epoch in pieces: `advance(state, key, piece, order,
    schedule, rows) -> (State, losses, taken)` and `finish(state, key, rows, held_out) -> (State, validation, better)`;
    `back(state, lost, lr_scale, lr_most, restart, params) -> State`: members that are lost go back to their best params, or to
    `params` if they restart, with the optimizer as at the start except for its counts; `params(state.params or state.best)`.

    `order` (steps, parts, rows) has the rows of each step, in parts whose gradients are accumulated, and `schedule` (steps,) a
    factor for its updates. `placement` says on which devices all this lies.
    """

    def __init__(self, program: Program, members: int | None, folds: bool, small: bool, placement: Placement):
        self.program, self.members, self.small, self.placement = program, members, small, placement
        problem, rows_axis = program.problem, 0 if folds else None
        order, train, held_out = 3 if problem.has_rows else None, (5,) * problem.dealt, (6,) * bool(problem.split)
        both = (2, 3) if problem.split else ()
        axes = 0, 0, None, 0, None
        self.start = self._compiled(program.start, 0, donate=False)
        self.run: Any = self._compiled(program.run, *axes, rows_axis, rows_axis, order=order, rows=(*train, *held_out))
        self.advance: Any = self._compiled(program.advance, *axes, None, order=order, rows=train)
        self.finish: Any = self._compiled(program.finish, 0, 0, None, None, rows=both)
        self.back = self._compiled(program.back, 0, 0, 0, 0, 0, 0, donate=False)

    def _compiled(
        self, function: Callable, *axes: int | None, donate: bool = True, order: int | None = None, rows: tuple[int, ...] = ()
    ) -> Callable:
        """A function of the program, compiled; with an axis of members in front if there are members."""
        if self.members is None:
            axes = (None,) * len(axes)
        else:
            here, on_cpu = self.placement.members_here(self.members), jax.default_backend() == "cpu"
            function = one_after_another(function, axes, here) if on_cpu else jax.vmap(function, axes, axis_size=here)
        options = {"xla_backend_optimization_level": 1} if self.small and donate else None
        return self.placement.compiled(
            function, axes, order, rows, donate_argnums=0 if donate else (), compiler_options=options
        )

    def params(self, parts: tuple[Any, Any]) -> Any:
        """Params in the form of the model."""

        def joined(moved: Any, still: Any) -> Any:
            return self.program.layout.params_of(self.program.layout.unpacked(moved), still)

        parts = self.placement.fetched(parts)
        by_member = [joined(*self.member(parts, i)) for i in range(self.members or 1)]
        return jax.tree.map(lambda *leaves: on_device(leaves[0] if self.members is None else np.stack(leaves)), *by_member)

    def member(self, tree: Any, i: int) -> Any:
        """The arrays of one member; without members all arrays."""
        return tree if self.members is None else jax.tree.map(itemgetter(i), tree)

    def parts(self, batch_size: int) -> tuple[int, int]:
        """The numbers of parts of a step, and of rows in a part."""
        return self.program.accumulate, batch_size // self.program.accumulate

    @property
    def shares(self) -> int:
        """The number of shares of the rows; 1 if each device has all rows."""
        return self.placement.shares if self.program.problem.dealt else 1


def trainer(problem: Any, params: Any, options: Options, dtype: Any, folds: bool = False) -> Trainer:
    """The compiled functions of a training; equal problems with equal options share them. `params` are the params of one
    member; with folds each member has separate rows."""
    default, decay = options.optimizer is None, options.weight_decay
    optimizer = DEFAULT_OPTIMIZER if default else options.optimizer
    if decay:
        optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(1.0, weight_decay=decay))
    known = f"default {decay}" if default else program_of(optimizer, params)
    layout = Vector(params) if default else Layout()  # another optimizer may treat leaves differently
    small = sum(np.size(leaf) for leaf in jax.tree.leaves(params)) <= SMALL
    how, placement = (options.accumulate, options.ema, dtype), options.placement
    key = None if known is None else (problem, shapes_of(params), known, how, options.members, folds, placement)

    def make() -> Trainer:
        whole = optax.with_extra_args_support(optimizer)
        if not default:
            # optax.masked would return the gradients of fixed leaves as their updates.
            whole = optax.partition({True: whole, False: optax.set_to_zero()}, trainable)
        return Trainer(Program(problem, whole, layout, *how), options.members, folds, small, placement)

    return _trainers(key, make)


def one_after_another(function: Callable, axes: tuple[int | None, ...], members: int) -> Callable:
    """Do the same as `jax.vmap(function, axes)`, one member at a time: a CPU is as fast so, as batches of products are slow
    there."""

    def mapped(*arguments: Any) -> Any:
        def member(carry: None, slices: list) -> tuple[None, Any]:
            rest = iter(slices)
            return carry, function(*(next(rest) if axis == 0 else x for x, axis in zip(arguments, axes, strict=True)))

        stacked = [x for x, axis in zip(arguments, axes, strict=True) if axis == 0]
        return jax.lax.scan(member, None, stacked, length=members)[1]  # `lax.map` fails without params

    return mapped


def warmup_cosine(peak: float, steps: int) -> Schedule:
    """A learning rate that rises for a twentieth of the steps and falls to 0 along a cosine."""
    warm = steps // 20

    def rates(first: int, count: int) -> np.ndarray:
        t = np.arange(first, first + count)
        falling = (1 + np.cos(np.pi * (t - warm) / (steps - warm))) / 2
        return (peak * np.where(t < warm, t / max(warm, 1), falling)).astype(np.float32)

    return rates


def schedule_of(options: Options, steps: int) -> Schedule:
    """The learning-rate schedule of a number of steps; an `optimizer=` has a separate schedule."""
    if options.optimizer is not None:
        return lambda first, count: np.ones(count, np.float32)
    return warmup_cosine(float(options.learning_rate), steps)


def program_of(optimizer: Any, params: Any) -> str | None:
    """A digest of all that an optimizer computes, equal for two optimizers from equal calls."""
    optimizer, params = optax.with_extra_args_support(optimizer), abstract(params)

    def run(params: Any, state: Any) -> Any:
        return optimizer.init(params), updates_of(optimizer, params, state, params, jnp.zeros(()))

    with jax.numpy_dtype_promotion("standard"):
        return program(run, params, jax.eval_shape(optimizer.init, params))


def program(function: Callable, *arguments: Any) -> str | None:
    """A digest of the program of a function for arguments of these shapes: equal digests, equal results.

    It is None for a program that has no digest: it holds a tracer or calls Python back, or JAX cannot trace it.
    """
    try:
        jaxpr = jax.make_jaxpr(function)(*arguments)
        if holds_tracer(jaxpr.consts):
            return None
        text = jax.jit(jaxpr_as_fun(jaxpr)).lower(*jax.tree.leaves(arguments)).as_text()
    except (TypeError, ValueError, NotImplementedError, jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError):
        return None
    return None if "callback" in text else hashlib.sha256(text.encode()).hexdigest()  # constants are part of the text
