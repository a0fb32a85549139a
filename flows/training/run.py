"""One training by maximum likelihood from end to end, of a model or of the members of an ensemble."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, Given, stacked
from flows.core.inputs import as_key, cast
from flows.training.checkpoint import Checkpoint, settings_of
from flows.training.diagnose import Suspects, cause
from flows.training.history import History, check_callbacks
from flows.training.inits import initialize
from flows.training.loop import Settings, Words, train
from flows.training.losses import MEASURED_ROWS, Likelihood, has_running_statistics
from flows.training.options import Options, check_distribution
from flows.training.preprocess import Prepared, prepare
from flows.training.reading import take
from flows.training.step import Pace, Report, State, Steps, Trainer, orders, trainer
from flows.training.stream import Stream, is_streamed, open_source, prepare_stream


class Fitted(NamedTuple):
    params: Any  # of `rows.inner`
    rows: Prepared
    key: Array
    history: History


def train_members(
    rng: Any,
    init_fun: Any,
    data: Any,
    options: Options,
    members: int | None = None,
    changed: Callable[[Any], Any] = lambda params: params,
) -> Fitted:
    """Params of members have a leading axis, and each has an init and an order of rows of its own. A user sees those of the
    model itself `changed`."""
    check_distribution(init_fun, options.caller)
    key, source = as_key(rng), None
    if is_streamed(data):
        source = open_source(
            data, options.context, options.weights, options.validation, options.batch_size, options.steps_per_epoch, key
        )
        rows = prepare_stream(source, options.standardize, options.dequantize)
    else:
        rows = prepare(
            data, options.context, options.weights, options.validation, key, options.standardize, options.dequantize,
        )  # fmt: skip
    inner, few, n = rows.inner(init_fun), take(rows.train, slice(MEASURED_ROWS)), len(rows.train.x)
    keys = [key] if members is None else list(jax.random.split(key, members))
    starts, parts = zip(
        *(initialize(inner, each, rows.event, Given(rows.context, few.x, few.context)) for each in keys), strict=True
    )
    part, start = parts[0], cast(starts[0], rows.dtype)
    if rows.context is not None and "context" not in part.keywords:
        raise TypeError(f"{options.caller}: context was given, but no layer of {init_fun!r} takes one; leave it out")
    params = start if members is None else cast(stacked(starts), rows.dtype)

    batch_size, saved = options.rows_a_step(n if source is None else math.inf), None
    steps = options.steps_in_epoch(n, batch_size) if source is None else source.steps
    if options.checkpoint is not None:
        settings = settings_of(inner, key, rows.given, members=members, **options.shown(batch_size))
        saved = Checkpoint(options.checkpoint, settings, float(options.checkpoint_every))
    optimizer, pace = options.how_to_step(options.max_epochs * steps)
    compiled = trainer(
        Likelihood(inner, part, batch_size // options.accumulate, options.precision, has_running_statistics(start)),
        start,
        optimizer,
        Steps(options.accumulate, options.ema, options.optimizer is not None, members),
        rows.dtype,
    )
    all_keys = key if members is None else jnp.stack(keys)
    if source is None:
        epochs: Any = InMemory(rows, compiled, pace, all_keys, [orders(each, n, batch_size, steps) for each in keys], members)
    else:
        epochs = Stream(source, rows, compiled, pace, all_keys, batch_size, members)

    def why(params: Any, number: int, step: int | None, member: int) -> str:
        suspects = rows.suspects() if step is None else epochs.suspects(number, step, member)
        return cause(part, params, suspects, keys[member])

    settings_of_loop = Settings(
        options.max_epochs, options.patience, options.max_seconds, rows.log_det, math.prod(rows.event),
        bool(options.verbose), check_callbacks(options.callbacks), members,
        words=Words(options.caller),
    )  # fmt: skip
    with contextlib.nullcontext() if part.compiled else jax.disable_jit():  # what runs row by row is never traced
        params, history = train(
            compiled, params, epochs.epoch, settings_of_loop, saved, why, lambda params: rows.outer_params(params, changed)
        )
    return Fitted(params, rows, key, history)


class InMemory:
    """The epochs of rows that are on the device, each one compiled call."""

    def __init__(self, rows: Prepared, compiled: Trainer, pace: Pace, keys: Any, orders: list[Callable], members: int | None):
        self.rows, self.compiled, self.pace, self.keys = rows, compiled, pace, keys
        self.orders, self.members = orders, members

    def epoch(self, state: State, number: int) -> tuple[State, Report]:
        order = [of_epoch(number) for of_epoch in self.orders]
        of_all = order[0] if self.members is None else np.stack(order)
        pace = self.pace(number * len(order[0]), len(order[0]))
        return self.compiled.run(state, self.keys, of_all, pace, self.rows.train, self.rows.held_out)

    def suspects(self, number: int, step: int, member: int) -> Suspects:
        index = self.orders[member](number)[step]
        return Suspects(take(self.rows.train, index), self.rows.numbers[index])
