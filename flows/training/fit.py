"""`flows.fit`: the training loop that people would otherwise write themselves."""

import contextlib
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.bijections import Standardize
from flows.core import (
    BijectionInit,
    Distribution,
    DistributionInit,
    FitError,
    Given,
    positive,
    positive_int,
)
from flows.core.arrays import as_dim, as_key, cast
from flows.core.parts import publish
from flows.core.values import Value, is_constructor
from flows.distributions import Flow
from flows.training.causes import cause
from flows.training.checkpoint import Checkpoint, settings_of
from flows.training.data import Scale, as_share, measure, read, read_validation, split, take
from flows.training.epochs import MEASURED_ROWS, default_optimizer, initialize, orders, part_of, trainer
from flows.training.loop import Settings
from flows.training.loop import train as run_epochs

LEARNING_RATE = 1e-3


class FitResult(Distribution):
    """A fitted distribution, `params, log_pdf, sample = result`, and how it came about.

    Attributes:
        init_fun: the fitted model as a constructor's value, with its standardisation inside.
        input_dim, context_dim: what init_fun was called with.
        history: "train" and "validation", the loss after each epoch (minus the mean log_pdf, nats a row, original units), and
            "best_epoch", counted from 0, whose params these are; "skipped", how many steps of each epoch were not taken.
    """

    init_fun: Any
    input_dim: Any
    context_dim: Any
    history: dict[str, Any]

    def __new__(cls, params, log_pdf, sample, init_fun=None, input_dim=None, context_dim=0, history=None):
        self = super().__new__(cls, params, log_pdf, sample)
        self.init_fun, self.input_dim, self.context_dim, self.history = init_fun, input_dim, context_dim, history or {}
        return self

    def __repr__(self) -> str:
        best = self.history.get("best_epoch")
        epochs = "" if best is None else f", epoch {best}: {self.history['validation'][best]:.4f} nats"
        return f"FitResult({self.init_fun!r}{epochs})"

    def save(self, path: Any, metadata: dict | None = None) -> None:
        """Write the model to one file, for `flows.load(path)`."""
        from flows.persistence import save

        save(path, self.init_fun, self.params, self.input_dim, self.context_dim, metadata)


def fit(
    rng: Any,
    init_fun: Any,
    data: Any,
    *,
    context: Any = None,
    validation: Any = 0.1,
    batch_size: int = 256,
    max_epochs: int = 100,
    max_minutes: float | None = None,
    patience: int = 10,
    learning_rate: float = LEARNING_RATE,
    optimizer: optax.GradientTransformation | None = None,
    standardize: bool = True,
    checkpoint: Any = None,
    checkpoint_every: float = 10.0,
    progress: bool = True,
) -> FitResult:
    """Fit a distribution to data by maximum likelihood, and return the params that were best on held-out rows.

    Minimises -mean(log_pdf(params, x)). Each epoch shuffles the training rows and runs, with validation, as one compiled call;
    rows that do not fill a last batch are left out, others in each epoch. Leaves under "fixed" never move; running statistics
    (batch norm) are measured anew on up to 10,000 training rows before each validation. A second fit of an equal model
    with equal settings compiles nothing.

    A step whose loss, gradient or update is not finite is not taken, and those after it are smaller. An epoch that diverges is
    undone and the rate falls to a tenth, up to 8 times. Ctrl-C ends the fit after the epoch with the best params so far, a
    second one at once.

    Args:
        rng: key or seed, for the split, the init and the batches.
        init_fun: a distribution, such as `flows.Flow(flows.NSF())`.
        data: (rows, *event), anything `np.asarray` takes.
        context: (rows, *context), for a conditional model.
        validation: the share of rows held out for early stopping, in (0, 1); or rows to validate on, a pair (data, context)
            for a conditional model, and then all of `data` are trained on.
        batch_size: rows a step; all training rows where they are fewer.
        max_epochs: passes over the training rows.
        max_minutes: stop after the epoch in which they have gone, if max_epochs are not through.
        patience: stop after so many epochs without a better validation loss.
        learning_rate: the highest rate of the default optimizer: Adam with gradients clipped at norm 5, whose rate warms up
            over the first twentieth of the steps and then falls to 0 along a cosine, at max_epochs.
        optimizer: any optax optimizer instead.
        standardize: fit `Flow(Standardize(), init_fun)`: mean and standard deviation, of each feature or of each channel
            of an image, are measured on the training rows and kept inside the fitted model, whose log_pdf and samples
            are in the units of the data. The context is taken as it is.
        checkpoint: a folder. The training is saved there in one file, which is replaced whole or not at all; the same call
            again, in a process of its own, goes on from it and ends with the same params, bit for bit. `patience` may be
            another then, and `optimizer` has to be the same. The end is saved too: one more call returns it at once.
        checkpoint_every: seconds between two saves, at the end of an epoch.
        progress: show a bar with the losses in nats.

    Returns:
        A `FitResult`: unpacks as `params, log_pdf, sample`, and has `.init_fun`, `.history` and `.save(path)`.

    Errors:
        TypeError: `init_fun` is no distribution; complex or object data; an unknown optimizer; a context nothing takes.
        FlowsError: NaN or inf in the data, a constant column, too few rows, wrong shapes, settings outside their range, a
            checkpoint that is damaged or of another fit. FitError: no loss is ever finite, or the fit diverges at any rate; it
            carries the best params, the history and the cause.

    Example:
        >>> import flows, jax
        >>> data = 100.0 + 5.0 * jax.random.normal(jax.random.key(0), (200, 2))
        >>> params, log_pdf, sample = flows.fit(0, flows.Flow(flows.ActNorm()), data, max_epochs=3, progress=False)
        >>> sample(1, params, 4).shape
        (4, 2)
    """
    _check_distribution(init_fun)
    batch_size = positive_int(batch_size, "fit: batch_size")
    seconds = math.inf if max_minutes is None else 60 * positive(max_minutes, "fit: max_minutes")
    max_epochs, patience = positive_int(max_epochs, "fit: max_epochs"), positive_int(patience, "fit: patience")
    share = as_share(validation)
    key = as_key(rng)

    rows, dtype = read(data, context)
    numbers, given = np.arange(len(rows.x)), None
    if share is not None:
        numbers, others = split(len(rows.x), share, key)
        train, held_out = take(rows, numbers), take(rows, others)
    else:
        train, held_out = rows, (given := read_validation(validation, rows))
    scale = measure(train.x, dtype)
    if not standardize:
        scale = Scale(np.zeros_like(scale.mean), np.ones_like(scale.std))
    log_det = -float(np.log(scale.std).sum()) * math.prod(train.x.shape[1:-1])
    train, held_out = (jax.tree.map(partial(jnp.asarray, dtype=dtype), scale.apply(each)) for each in (train, held_out))

    event = train.x.shape[1:]
    of_context = None if context is None else train.context.shape[1:]
    params, part = initialize(init_fun, key, event, Given(of_context, *take(train, slice(MEASURED_ROWS))))
    if context is not None and "context" not in part.keywords:
        raise TypeError(f"fit: context was given, but no layer of {init_fun!r} takes one; leave it out")

    batch_size, by_leaf, saved = min(batch_size, len(train.x)), optimizer is not None, None
    if checkpoint is not None:
        names = {
            "validation": "rows" if share is None else share, "batch_size": batch_size, "max_epochs": max_epochs,
            "learning_rate": learning_rate, "optimizer": "given" if by_leaf else "default", "standardize": standardize,
        }  # fmt: skip
        every = positive(checkpoint_every, "fit: checkpoint_every")
        saved = Checkpoint(checkpoint, settings_of(init_fun, key, [rows, given], **names), every)
    optimizer = _optimizer(optimizer, learning_rate, max_epochs * (len(train.x) // batch_size))
    run, order = trainer(init_fun, part, params, optimizer, batch_size, dtype, by_leaf), orders(key, len(train.x), batch_size)
    settings = Settings(max_epochs, patience, seconds, log_det, math.prod(event), progress)

    def whole(params: Any) -> Any:
        if not standardize:
            return params
        fixed = {"mean": jnp.asarray(scale.mean, dtype), "std": jnp.asarray(scale.std, dtype)}
        return {"bijection": {"fixed": fixed}, "prior": params}

    def why(params: Any, index: np.ndarray) -> str:
        return cause(part, params, take(train, index), numbers[index], key)

    try:
        with contextlib.nullcontext() if part.compiled else jax.disable_jit():  # what runs row by row is never traced
            params, history = run_epochs(run, cast(params, dtype), key, order, train, held_out, settings, saved, why)
    except FitError as error:
        error.params = whole(error.params)
        raise
    flow, params = Flow(Standardize(), init_fun) if standardize else init_fun, whole(params)
    return FitResult(
        params, *publish(part_of(flow, key, event, of_context), params), flow, as_dim(event), as_dim(of_context), history
    )


def _check_distribution(init_fun: Any) -> None:
    if isinstance(init_fun, BijectionInit):
        raise TypeError(f"fit: init_fun is the bijection {init_fun!r}; expected a distribution: flows.Flow({init_fun!r})")
    if is_constructor(init_fun):
        raise TypeError(f"fit: init_fun is the constructor {init_fun.__name__}; call it: {init_fun.__name__}(...)")
    if (isinstance(init_fun, Value) and not isinstance(init_fun, DistributionInit)) or not callable(init_fun):
        raise TypeError(f"fit: init_fun is {init_fun!r:.80}; expected a distribution, such as flows.Flow(flows.NSF())")


def _optimizer(optimizer: Any, learning_rate: float, steps: int) -> optax.GradientTransformation:
    if optimizer is None:
        return default_optimizer(positive(learning_rate, "fit: learning_rate"), steps)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"fit: optimizer is {optimizer!r:.60}; expected one of optax, such as optax.adamw(1e-3)")
    if learning_rate != LEARNING_RATE:
        raise TypeError(f"fit: learning_rate={learning_rate} is for the default optimizer; set the rate in optimizer instead")
    return optimizer
