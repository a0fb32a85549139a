"""Epoch after epoch: early stopping, going back where a fit diverges, and what is told of it."""

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from flows.core import Array, FitError, FlowsError
from flows.training.checkpoint import Checkpoint
from flows.training.data import Rows
from flows.training.epochs import Report, Trainer

DIVERGED = 10.0  # nats a number of the event by which an epoch may be worse than the best, or the start, before a fit goes back
TIMES_BACK = 8  # each time with a tenth of the rate


class Settings(NamedTuple):
    max_epochs: int
    patience: int
    max_seconds: float
    log_det: float  # of the standardisation, without which losses are told
    size: int  # numbers of an event
    progress: bool


class Course:
    """What happened so far, epoch by epoch, in nats and the units of the data."""

    def __init__(self, train=(), validation=(), skipped=(), best_epoch=-1, start=math.inf, taken=0, times_back=0):
        self.train, self.validation, self.skipped = list[float](train), list[float](validation), list[int](skipped)
        self.best_epoch, self.start = best_epoch, start  # start: the first finite loss
        self.taken, self.times_back = taken, times_back

    @property
    def best(self) -> float:
        return self.validation[self.best_epoch] if self.best_epoch >= 0 else math.inf

    def history(self) -> dict[str, Any]:
        arrays = {name: np.array(getattr(self, name)) for name in ("train", "validation", "skipped")}
        return arrays | {"best_epoch": self.best_epoch}

    def add(self, report: Report, settings: Settings) -> bool:
        """Notes an epoch; is the fit lost, so that it has to go back?"""
        losses, taken = np.asarray(report.losses, float) - settings.log_det, np.asarray(report.taken)
        finite, validation = losses[np.isfinite(losses)], float(report.validation) - settings.log_det
        if len(finite) and self.start == math.inf:
            self.start = float(finite[0])
        limit = min(self.start, self.best) + DIVERGED * settings.size
        self.train.append(float(finite.mean()) if len(finite) else math.nan)
        self.validation.append(validation)
        self.skipped.append(int((~taken).sum()))
        self.taken += int(taken.sum())
        # Under a prior with edges the validation loss may be inf for some epochs, without any harm.
        harmless = validation == math.inf and self.best_epoch < 0 and taken.all() and self.train[-1] < limit
        lost = not taken.any() or math.isnan(validation) or (validation > limit and not harmless)
        if report.better and not lost:
            self.best_epoch = len(self.validation) - 1
        return lost

    def over(self, settings: Settings) -> bool:
        epochs = len(self.train)
        return epochs >= settings.max_epochs or epochs - self.best_epoch > settings.patience


def train(
    trainer: Trainer,
    params: Any,
    key: Array,
    order: Callable[[int], np.ndarray],
    rows: Rows,
    held_out: Rows,
    settings: Settings,
    checkpoint: Checkpoint | None,
    why: Callable[[Any, np.ndarray], str],
) -> tuple[Any, dict[str, Any]]:
    """The best params and the history. `why(params, index)` tells what is not finite at `params`, on these training rows."""
    state, course, end = trainer.start(params), Course(), time.monotonic() + settings.max_seconds
    if checkpoint is not None and (saved := checkpoint.load(state)) is not None:
        state, course = saved[0], Course(**saved[1])
    bar = tqdm(total=settings.max_epochs, initial=len(course.train), desc="fit", unit="epoch", disable=not settings.progress)
    with bar, _interrupts() as interrupts:
        while not course.over(settings) and time.monotonic() < end and not interrupts:
            rate, batches = float(state.rate), order(len(course.train))
            state, report = trainer.run(state, key, batches, rows, held_out)
            lost = course.add(report, settings)
            told = {"train": f"{course.train[-1]:.3f}", "validation": f"{course.validation[-1]:.3f}"}
            bar.set_postfix(**told, best_epoch=course.best_epoch)
            bar.update()
            if lost:
                course.times_back += 1
                if course.times_back > TIMES_BACK or course.start == math.inf or (course.over(settings) and not course.taken):
                    cause = why(trainer.params(state.params), batches[int(np.argmin(np.asarray(report.taken)))])
                    raise _error(course, cause, params if course.best_epoch < 0 else trainer.params(state.best))
                state = trainer.back(state, rate / 10, params if course.best_epoch < 0 else None)
            if checkpoint is not None:
                checkpoint.save(state, vars(course), at_once=course.over(settings))
    if interrupts and course.best_epoch < 0:
        raise KeyboardInterrupt
    if interrupts:
        warnings.warn(f"fit: interrupted; these are the params of epoch {course.best_epoch}", stacklevel=3)
    if course.best_epoch < 0:
        raise FlowsError(
            f"fit: the validation loss was {course.validation[-1]} in each of {len(course.train)} epochs: some held-out rows "
            "have density 0 under this model. Give it a prior without edges, or data within its support"
        )
    if skipped := sum(course.skipped):
        warnings.warn(
            f"fit: {skipped} steps were skipped, as their loss, gradient or update was not finite; history['skipped'] has "
            "how many in each epoch",
            stacklevel=3,
        )
    return trainer.params(state.best), course.history()


def _error(course: Course, cause: str, params: Any) -> FitError:
    if course.start == math.inf:
        message = (
            f"fit: no loss is finite at the initial params: {cause}. Expected data in the domain of the model (Logit takes "
            "only (0, 1), and standardize=True moves the data to mean 0) and finite values from its layers"
        )
    else:
        message = (
            f"fit: epoch {len(course.train) - 1} had to be undone, the last of {course.times_back}, though each time the "
            f"learning rate was lowered to a tenth: {cause}. Clip gradients, lower the rate further, or look at that row"
        )
    return FitError(message, params, course.history(), cause)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts so far (Ctrl-C), which wait for the end of an epoch; a second one does not."""
    found: list[int] = []

    def note(number: int, frame: Any) -> None:
        if found:
            raise KeyboardInterrupt
        found.append(number)

    if threading.current_thread() is not threading.main_thread():  # which alone may set signals
        yield found
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)
