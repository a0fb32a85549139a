"""Whole epochs on the device: every step, calibration and validation in one compiled call."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, DistributionPart, Given, build_distribution, trainable
from flows.core.arrays import Shape
from flows.core.errors import TRACING_ERRORS
from flows.core.fingerprint import Memo, fingerprint
from flows.core.params import stop_fixed
from flows.core.parts import check_result, compiled_once
from flows.core.values import Identity
from flows.training.data import Rows, take

MEASURED_ROWS = 10_000  # at most, where layers measure data
SMALL = 20_000  # trained numbers up to which compiling less well saves more time than it costs
CLIP = 5.0  # the largest norm of a gradient
RECOVERY = 1.01  # by which steps grow again after some that were skipped


class State(NamedTuple):
    """All that training is at the end of an epoch. Params are two parts, (moved, still), as a `Layout` has them."""

    params: tuple[Any, Any]
    opt_state: Any
    best: tuple[Any, Any]
    best_loss: Array
    epoch: Array
    rate: Array  # what updates are multiplied by: 1, less after steps that were skipped


class Report(NamedTuple):
    """What an epoch found: of each step the loss, and whether it was taken; the validation loss: is it the best so far?"""

    losses: Array
    taken: Array
    validation: Array
    better: Array


class Trainer(NamedTuple):
    """`start(params) -> State`, `run(state, key, order, train, validation) -> (State, Report)`, `back(state, rate, params)
    -> State` to these params or, if they are None, the best, with the optimizer as at the start but for its counts, and
    `params(state.params or state.best)`.

    `order` (steps, batch_size) are the rows of each step.
    """

    start: Callable
    run: Callable
    back: Callable
    params: Callable


class Layout(Protocol):
    """Which part of params the optimizer moves, and in what form."""

    def split(self, params: Any) -> tuple[Any, Any]: ...
    def join(self, moved: Any, still: Any) -> Any: ...


class Vector:
    """All that trains as one vector: the optimizer is then a few kernels, instead of some for each leaf.

    For small models it saves a third of the time of compiling, and half of that of a step.
    """

    def __init__(self, params: Any):
        leaves, self.tree = jax.tree.flatten(params)
        self.trains = jax.tree.leaves(trainable(params))
        self.shapes = [jnp.shape(leaf) for leaf, train in zip(leaves, self.trains, strict=True) if train]

    def split(self, params: Any) -> tuple[Array, list[Array]]:
        leaves = list(zip(jax.tree.leaves(params), self.trains, strict=True))
        moved = [jnp.ravel(leaf) for leaf, train in leaves if train]
        return jnp.concatenate(moved) if moved else jnp.zeros(0), [leaf for leaf, train in leaves if not train]

    def join(self, moved: Array, still: list[Array]) -> Any:
        sizes = [math.prod(shape) for shape in self.shapes]
        pieces: Any = []
        if isinstance(moved, np.ndarray):
            pieces = np.split(moved, np.cumsum(sizes))[:-1]
        elif sizes:  # the gradient of a split is one concatenation
            pieces = jax.lax.split(moved, sizes)
        leaves = iter([piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]), iter(still)
        return jax.tree.unflatten(self.tree, [next(leaves[not train]) for train in self.trains])


class Tree:
    """Params as they are, for optimizers that tell one leaf from another."""

    def split(self, params: Any) -> tuple[Any, tuple]:
        return params, ()

    def join(self, moved: Any, still: tuple) -> Any:
        return moved


_inits = Memo(size=64)
_optimizers = Memo(size=64)
_trainers = Memo(size=64)


def initialize(init_fun: Any, key: Array, event: Shape, given: Given) -> tuple[Any, DistributionPart]:
    """Params and part, in one compiled call: what no layer measures is never computed."""
    built = _built(init_fun, event, given.context)
    try:
        params = built.compiled(key, given._replace(context=None))
    except TRACING_ERRORS:  # an init that needs numbers, such as NumPy's
        params = built.run(key, given._replace(context=None))
    return params, built.part


def part_of(init_fun: Any, key: Array, event: Shape, context: Shape | None) -> DistributionPart:
    """The part alone, for which nothing is compiled."""
    built = _built(init_fun, event, context)
    if built.part is None:
        try:
            jax.eval_shape(built.run, key, Given())
        except TRACING_ERRORS:
            built.run(key, Given())
    return built.part


def _built(init_fun: Any, event: Shape, context: Shape | None) -> "_Init":
    return _inits(fingerprint((init_fun, event, context)), lambda: _Init(init_fun, event, context))


class _Init:
    def __init__(self, init_fun: Any, event: Shape, context: Shape | None):
        self.init_fun, self.event, self.context = init_fun, event, context
        self.compiled: Any = compiled_once(self.run)
        self.part: Any = None

    def run(self, key: Array, given: Given) -> Any:
        params, self.part = build_distribution(self.init_fun, key, self.event, given._replace(context=self.context))
        return params


def orders(key: Array, n: int, batch_size: int) -> Callable[[int], np.ndarray]:
    """The rows of each step of an epoch; those that fill no batch are left out, others in each epoch.

    On the host: a sort on the device takes longer, and half a second to compile.
    """
    seed, steps = np.asarray(jax.random.key_data(key)).tolist(), n // batch_size

    def of_epoch(epoch: int) -> np.ndarray:
        order = np.random.default_rng([*seed, epoch]).permutation(n)[: steps * batch_size]
        return order.astype(np.int32).reshape(steps, batch_size)

    return of_epoch


def trainer(
    init_fun: Any, part: DistributionPart, params: Any, optimizer: Any, batch_size: int, dtype: Any, by_leaf: bool
) -> Trainer:
    """The compiled functions of a training; an equal model with equal settings shares them."""
    # Some of optax's schedules change their own closure when they first run: an optimizer is looked at before that.
    seen = _optimizers(Identity(optimizer), lambda: fingerprint(optimizer))
    settings = (init_fun, part, batch_size, dtype, _has_running_statistics(params))
    key = (fingerprint((settings, by_leaf)), seen)
    layout = Tree() if by_leaf else Vector(params)
    small = sum(np.size(leaf) for leaf in jax.tree.leaves(params)) <= SMALL
    options = {"xla_backend_optimization_level": 1} if small else None
    return _trainers(None if None in key else key, lambda: _make_trainer(optimizer, layout, options, *settings))


@functools.lru_cache(maxsize=64)
def default_optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with clipped gradients; the rate warms up for a twentieth of the steps and falls to 0 along a cosine."""
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps=steps // 20, decay_steps=steps)
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate))


def _make_trainer(
    optimizer: Any,
    layout: Layout,
    options: dict[str, Any] | None,
    init_fun: Any,
    part: DistributionPart,
    batch_size: int,
    dtype: Any,
    measures: bool,
) -> Trainer:
    if isinstance(layout, Tree):
        # optax.masked would hand on the updates of fixed leaves as they are, which for a masked leaf is its gradient.
        optimizer = optax.partition({True: optimizer, False: optax.set_to_zero()}, trainable)
    draws = "rng" in part.keywords

    def log_pdf(params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        result = part.log_pdf(stop_fixed(params), rows.x, rows.context, key, train)
        check_result(result, (len(rows.x),), part.name, "log_pdf")
        return result

    def loss(moved: Any, still: Any, rows: Rows, key: Array | None) -> Array:
        return -log_pdf(layout.join(moved, still), rows, key, True).mean()

    def step(train: Rows, still: Any, carry: tuple[Any, Any, Array], batch: tuple[Array, Array | None]) -> tuple[Any, Any]:
        """A step is taken if all it makes is finite; if not, those after it are half as long, and grow again slowly."""
        moved, opt_state, rate = carry
        index, key = batch
        value, gradient = jax.value_and_grad(loss)(moved, still, take(train, index), key)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, new_state = optimizer.update(gradient, opt_state, moved)
            updates = jax.tree.map(lambda update: update * rate.astype(update.dtype), updates)
            new = optax.apply_updates(moved, updates)
        taken = _all_finite((value, gradient, new))
        moved, opt_state = jax.tree.map(lambda new, old: jnp.where(taken, new, old), (new, new_state), (moved, opt_state))
        rate = jnp.where(taken, jnp.minimum(RECOVERY * rate, 1), rate / 2)
        return (moved, opt_state, rate), (value, taken)

    def mean_loss(params: Any, rows: Rows, key: Array | None) -> Array:
        """In chunks of at most a batch, so that validation needs no more memory than a step; the last is filled up."""
        n = len(rows.x)
        size = min(n, batch_size)
        index = jnp.arange(-(-n // size) * size).reshape(-1, size)

        def one(chunk: Array) -> Array:
            return jnp.where(chunk < n, log_pdf(params, take(rows, chunk % n), key, False), 0).sum()

        return -jax.lax.map(one, index).sum() / n

    @jax.jit
    def start(params: Any) -> State:
        params = layout.split(params)
        with jax.numpy_dtype_promotion("standard"):
            opt_state = optimizer.init(params[0])
        state = State(params, opt_state, params, jnp.full((), jnp.inf, dtype), jnp.zeros((), int), jnp.ones(()))
        return jax.tree.map(jnp.copy, state)  # buffers of its own, as `run` gives them away

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
    def run(state: State, key: Array, order: Array, train: Rows, validation: Rows) -> tuple[State, Report]:
        measure: Any = None
        steps: Any = None
        validate: Any = None
        if draws or measures:
            key, validate = jax.random.split(key)  # validation draws the same numbers in every epoch
            measure, steps = jax.random.split(jax.random.fold_in(key, state.epoch))
        (moved, still), keys = state.params, jax.random.split(steps, len(order)) if draws else None
        (moved, opt_state, rate), (losses, taken) = jax.lax.scan(
            functools.partial(step, train, still), (moved, state.opt_state, state.rate), (order, keys)
        )
        if measures:
            rows, whole = take(train, slice(0, MEASURED_ROWS)), layout.join(moved, still)
            whole = build_distribution(init_fun, measure, part.event, Given(part.context, *rows, whole))[0]
            moved, still = layout.split(whole)
        value = mean_loss(layout.join(moved, still), validation, validate if draws else None)
        changed, best = ((moved, still), state.best) if measures else (moved, state.best[0])
        better = (value < state.best_loss) & _all_finite(changed)  # false for NaN
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), changed, best)
        best_loss = jnp.where(better, value, state.best_loss)
        best = best if measures else (best, state.best[1])
        return State((moved, still), opt_state, best, best_loss, state.epoch + 1, rate), Report(losses, taken, value, better)

    def back(state: State, rate: float, params: Any) -> State:
        fresh = start(layout.join(*state.best) if params is None else params)
        opt_state = jax.tree.map(
            lambda new, old: old if jnp.issubdtype(old.dtype, jnp.integer) else new, fresh.opt_state, state.opt_state
        )
        best_loss = state.best_loss if params is None else fresh.best_loss
        rates = jnp.full_like(fresh.rate, rate)
        return fresh._replace(opt_state=opt_state, best_loss=best_loss, epoch=state.epoch, rate=rates)

    return Trainer(start, run, back, lambda part: jax.tree.map(jnp.asarray, layout.join(*jax.device_get(part))))


def _all_finite(tree: Any) -> Array:
    return jax.tree.reduce(lambda so_far, leaf: so_far & jnp.isfinite(leaf).all(), tree, jnp.asarray(True))


def _has_running_statistics(params: Any) -> bool:
    """Whether some layer is to be calibrated after an epoch: it keeps a "momentum" under "fixed" (batch norm)."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return any(path.endswith("['fixed']['momentum']") for path in paths)
