"""Whole epochs on the device: shuffle, every step, calibration and validation in one compiled call."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from flows.core import Array, DistributionPart, Given, build_distribution, trainable
from flows.core.arrays import Shape
from flows.core.errors import TRACING_ERRORS
from flows.core.fingerprint import Memo, fingerprint
from flows.core.params import stop_fixed
from flows.core.parts import check_result
from flows.core.values import Identity
from flows.training.data import Rows, take

MEASURED_ROWS = 10_000  # at most, where layers measure data
CLIP = 5.0  # the largest norm of a gradient


class State(NamedTuple):
    """All that training is at the end of an epoch."""

    params: Any
    opt_state: Any
    best: Any
    best_loss: Array
    epoch: Array


class Report(NamedTuple):
    """What an epoch found: the loss of each step, and the validation loss: is it the best so far?"""

    losses: Array
    validation: Array
    better: Array


class Trainer(NamedTuple):
    """`start(params) -> State` and `run(state, key, train, validation) -> (State, Report)`."""

    start: Callable
    run: Callable


_inits = Memo(size=64)
_optimizers = Memo(size=64)
_trainers = Memo(size=64)


def initialize(init_fun: Any, key: Array, event: Shape, given: Given) -> tuple[Any, DistributionPart]:
    """Params and part, in one compiled call: what no layer measures is never computed."""
    built = _inits(fingerprint((init_fun, event, given.context)), lambda: _Init(init_fun, event, given.context))
    try:
        params = built.compiled(key, given._replace(context=None))
    except TRACING_ERRORS:  # an init that needs numbers, such as NumPy's
        params = built.run(key, given._replace(context=None))
    return params, built.part


class _Init:
    def __init__(self, init_fun: Any, event: Shape, context: Shape | None):
        self.init_fun, self.event, self.context = init_fun, event, context
        self.compiled: Any = jax.jit(self.run)
        self.part: Any = None

    def run(self, key: Array, given: Given) -> Any:
        params, self.part = build_distribution(self.init_fun, key, self.event, given._replace(context=self.context))
        return params


def trainer(init_fun: Any, part: DistributionPart, params: Any, optimizer: Any, batch_size: int, dtype: Any) -> Trainer:
    """The compiled functions of a training; an equal model with equal settings shares them."""
    # Some of optax's schedules change their own closure when they first run: an optimizer is looked at before that.
    seen = _optimizers(Identity(optimizer), lambda: fingerprint(optimizer))
    settings = (init_fun, part, batch_size, dtype, _has_running_statistics(params))
    key = (fingerprint(settings), seen)
    return _trainers(None if None in key else key, lambda: _make_trainer(optimizer, *settings))


@functools.lru_cache(maxsize=64)
def default_optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with clipped gradients; the rate warms up for a twentieth of the steps and falls to 0 along a cosine."""
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps=steps // 20, decay_steps=steps)
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate))


def _make_trainer(
    optimizer: Any, init_fun: Any, part: DistributionPart, batch_size: int, dtype: Any, measures: bool
) -> Trainer:
    # optax.masked would hand on the updates of fixed leaves as they are, which for a masked leaf is its gradient.
    optimizer = optax.partition({True: optimizer, False: optax.set_to_zero()}, trainable)

    def log_pdf(params: Any, rows: Rows, key: Array, train: bool) -> Array:
        rng = key if "rng" in part.keywords else None
        result = part.log_pdf(stop_fixed(params), rows.x, rows.context, rng, train)
        check_result(result, (len(rows.x),), part.name, "log_pdf")
        return result

    def loss(params: Any, rows: Rows, key: Array) -> Array:
        return -log_pdf(params, rows, key, True).mean()

    def step(train: Rows, carry: tuple[Any, Any], batch: tuple[Array, Array]) -> tuple[tuple[Any, Any], Array]:
        params, opt_state = carry
        index, key = batch
        value, gradient = jax.value_and_grad(loss)(params, take(train, index), key)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

    def mean_loss(params: Any, rows: Rows, key: Array) -> Array:
        """In chunks of at most a batch, so that validation needs no more memory than a step; the last is filled up."""
        n = len(rows.x)
        size = min(n, batch_size)
        index = jnp.arange(-(-n // size) * size).reshape(-1, size)

        def one(chunk: Array) -> Array:
            return jnp.where(chunk < n, log_pdf(params, take(rows, chunk % n), key, False), 0).sum()

        return -jax.lax.map(one, index).sum() / n

    @jax.jit
    def start(params: Any) -> State:
        with jax.numpy_dtype_promotion("standard"):
            opt_state = optimizer.init(params)
        state = State(params, opt_state, params, jnp.full((), jnp.inf, dtype), jnp.zeros((), int))
        return jax.tree.map(jnp.copy, state)  # buffers of its own, as `run` gives them away

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: State, key: Array, train: Rows, validation: Rows) -> tuple[State, Report]:
        key, validate = jax.random.split(key)  # validation draws the same numbers in every epoch
        shuffle, steps, measure = jax.random.split(jax.random.fold_in(key, state.epoch), 3)
        n = len(train.x) // batch_size
        order = jax.random.permutation(shuffle, len(train.x))[: n * batch_size].reshape(n, batch_size)
        (params, opt_state), losses = jax.lax.scan(
            functools.partial(step, train), (state.params, state.opt_state), (order, jax.random.split(steps, n))
        )
        if measures:
            rows = take(train, slice(0, MEASURED_ROWS))
            params = build_distribution(init_fun, measure, part.event, Given(part.context, *rows, params))[0]
        value = mean_loss(params, validation, validate)
        better = value < state.best_loss  # false for NaN
        better = jax.tree.reduce(lambda all_finite, leaf: all_finite & jnp.isfinite(leaf).all(), params, better)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, state.best)
        best_loss = jnp.where(better, value, state.best_loss)
        return State(params, opt_state, best, best_loss, state.epoch + 1), Report(losses, value, better)

    return Trainer(start, run)


def _has_running_statistics(params: Any) -> bool:
    """Whether some layer is to be calibrated after an epoch: it keeps a "momentum" under "fixed" (batch norm)."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return any(path.endswith("['fixed']['momentum']") for path in paths)
