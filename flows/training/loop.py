"""The training loop: it runs epochs, stops early, goes back where a fit diverges, and tells what happened."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flows.core import FitError, FlowsError
from flows.core.errors import warn_user
from flows.results.history import Epoch, History
from flows.training.checkpoint import Checkpoint
from flows.training.gaussian import Yardstick
from flows.training.losses import HeldOut
from flows.training.options import Options
from flows.training.reading import DataFailed
from flows.training.step import Report, State, Trainer

DIVERGED = 10.0  # nats a number of the event by which an epoch may be worse than the best, or the start, before a fit goes back
UNJUDGED = Yardstick()
DECIDING, WORTH, FEWEST_HELD_OUT = 0.8, 0.5, 20  # share of squared deviations, nats, rows: from which one row decides the mean
MANY_EPOCHS, FALLING = 40, 3.0  # from which a fit can be said to have been too short, and times chance from which it was
TOLD = {  # in a history, and what a course calls it
    "train_loss": "train",
    "validation_loss": "validation",
    "skipped": "skipped",
    "best_epoch": "best_epoch",
    "start_loss": "initial",
}
TIMES_BACK = 8  # each time with a tenth of the learning rate


class Course:
    """What happened to one member so far, epoch by epoch, in nats and the units of the data."""

    def __init__(
        self,
        train=(),
        validation=(),
        skipped=(),
        best_epoch=-1,
        start=math.inf,
        taken=0,
        times_back=0,
        waited=0,
        initial=math.inf,
        usable=0,
        carried=None,
        effective=(),
    ):
        self.train, self.validation, self.skipped = list[float](train), list[float](validation), list[int](skipped)
        self.best_epoch, self.start = best_epoch, start  # start: the first finite loss
        self.taken, self.times_back = taken, times_back
        self.waited = waited  # epochs since the best, but for those that were undone
        self.initial = initial  # the validation loss before the first epoch
        self.usable = usable  # epochs that were not lost
        self.effective = list[float](effective)  # sample sizes of the start, and after each epoch; NaN of one that was lost
        self.carried: Any = carried  # what `_carried` says of the best epoch

    @property
    def best(self) -> float:
        """The least validation loss, perhaps that of the start; inf where none is finite."""
        return self.validation[self.best_epoch] if self.best_epoch >= 0 else self.initial

    def begin(self, held_out: HeldOut) -> None:
        """Note what the start is worth."""
        self.effective = [float(held_out.effective)]
        if math.isfinite(float(held_out.mean)):
            self.initial, self.carried = float(held_out.mean), [float(each) for each in held_out]

    def add(self, report: Report, margin: float, judged: bool = True) -> bool:
        """Note an epoch, and return whether the fit is lost, so that it has to go back: `margin` nats above the best, or, where
        an epoch is not judged, without a step that was taken."""
        taken, validation = report.taken, float(report.validation.mean)
        finite = report.losses[np.isfinite(report.losses)]
        self.train.append(float(finite.mean()) if len(finite) else math.nan)
        self.skipped.append(int((~taken).sum()))
        self.taken += int(taken.sum())
        self.validation.append(validation if judged else math.nan)
        if not judged:
            self.effective.append(math.nan)
            self.usable += bool(taken.any())
            self.start = min(self.start, self.initial)  # those of the training are of another density
            return not taken.any()
        if len(finite) and self.start == math.inf:
            self.start = float(finite[0])
        limit = min(self.start, self.best) + margin
        # Under a base with edges the validation loss may be inf for some epochs, without any harm.
        harmless = validation == math.inf and self.best_epoch < 0 and taken.all() and self.train[-1] < limit
        above = float(report.validation.rest) > limit  # but for a single row, which may be an outlier
        lost = not taken.any() or math.isnan(validation) or validation == -math.inf or (above and not harmless)
        self.usable += not lost
        self.effective.append(math.nan if lost else float(report.validation.effective))
        if report.better and not lost:
            self.best_epoch, self.waited = len(self.validation) - 1, 0
            self.carried = [float(each) for each in report.validation]
        elif not lost:
            self.waited += 1
        return lost

    def over(self, options: Options) -> bool:
        stands = options.stands is not None and options.stands(self.effective)
        return len(self.train) >= options.max_epochs or self.waited >= options.patience or stands

    def beyond_help(self, options: Options) -> bool:
        return self.times_back > TIMES_BACK or self.start == math.inf or (self.over(options) and not self.taken)


def train(
    trainer: Trainer,
    params: Any,
    run: Callable[[State, int], tuple[State, Report]],
    score: Callable[[State], tuple[State, Report]],
    options: Options,
    checkpoint: Checkpoint | None,
    why: Callable[[Any, int, int | None, int], str],
    outer: Callable[[Any], Any],
    event_size: int,
    yardstick: Yardstick,
) -> tuple[Any, History]:
    """Train, and return the best params and the history. Params of an ensemble are stacked.

    Args:
        run: of a state and the number of an epoch, runs it.
        score: of the state at the start, gives it with its params as the best so far, and their validation loss.
        why: of params, the number of an epoch, a step and a member, tells what is not finite in that step, or in the validation
            if the step is None.
        outer: of params, gives those of the model that a user sees.
        event_size: numbers of an event.
        yardstick: what the losses are told and judged by.
    """
    margin, count = DIVERGED * event_size, options.members or 1
    state, courses, start = trainer.start(params), [Course() for _ in range(count)], time.monotonic()
    end = start + options.max_seconds
    saved = None if checkpoint is None else checkpoint.load(state)
    if saved is not None:
        state, courses = saved[0], [Course(**each) for each in saved[1]]
    done_before, number, stopped = len(courses[0].train), len(courses[0].train) - 1, False
    bar = tqdm(total=options.max_epochs, initial=done_before, desc="compiling", unit="epoch", disable=not options.verbose)
    with bar, _interrupts() as interrupts:
        if saved is None:
            state, report = score(state)
            for course, own in zip(courses, _of_each(report, options.members, yardstick.log_dets), strict=True):
                course.begin(own.validation)
        while (
            not all(course.over(options) for course in courses)
            and (not courses[0].train or time.monotonic() < end)
            and not (interrupts or stopped)
        ):
            number, lr_scales = len(courses[0].train), np.array(state.lr_scale)
            try:
                state, report = run(state, number)
            except DataFailed as failure:
                kept = outer(_kept(trainer, failure.state, params, courses, options))
                raise _of_stream(failure.error, kept, courses, options) from failure.error
            reports = _of_each(report, options.members, yardstick.log_dets)
            done = [course.over(options) for course in courses]  # these members train on with the others, but keep their best
            judged = number >= options.tempered
            lost = [course.add(own, margin, judged) for course, own in zip(courses, reports, strict=True)]
            _tell(bar, courses, yardstick)
            if any(lost):
                for i in map(int, np.flatnonzero(lost)):
                    courses[i].times_back += not done[i]
                    if courses[i].beyond_help(options) and not done[i]:
                        step = None if reports[i].taken.all() else int(np.argmin(reports[i].taken))
                        cause = why(_own(trainer, state, options, i), number, step, i)
                        raise _error(courses, i, cause, outer(_kept(trainer, state, params, courses, options)), options)
                restart = np.array([course.best == math.inf for course in courses]).reshape(lr_scales.shape)
                state = trainer.back(state, np.reshape(lost, lr_scales.shape), lr_scales / 10, restart, params)
            if checkpoint is not None:
                over = all(course.over(options) for course in courses)
                checkpoint.save(state, [vars(course) for course in courses], at_once=over)
            if options.callbacks:
                told = _epoch(
                    courses, lr_scales, options, time.monotonic() - start, lambda best=state.best: outer(trainer.params(best))
                )
                stopped = any([_says_stop(callback(told)) for callback in options.callbacks])
        if checkpoint is not None and not all(course.over(options) for course in courses):  # by time, or on request
            checkpoint.save(state, [vars(course) for course in courses], at_once=True)
    history = _history(courses, options, yardstick, bool(interrupts))
    kept = partial(_kept, trainer, state, params, courses, options)
    _after(courses, history, kept, outer, options, margin, lambda i: why(_own(trainer, state, options, i), number, None, i))
    if options.judged:
        _compare(courses, yardstick, options)
    return trainer.params(state.best), history


def _own(trainer: Trainer, state: State, options: Options, i: int) -> Any:
    """The params of member i as they are."""
    current = trainer.params(state.params)
    return current if options.members is None else jax.tree.map(itemgetter(i), current)


def _says_stop(answer: Any) -> bool:
    return np.asarray(answer).dtype == bool and np.ndim(answer) == 0 and bool(answer)


def _kept(trainer: Trainer, state: State, start: Any, courses: list[Course], options: Options) -> Any:
    """The best params, and those of the start for members that have none."""
    best, without = trainer.params(state.best), np.array([course.best == math.inf for course in courses])
    if options.members is None:
        return start if without[0] else best
    return jax.tree.map(lambda a, b: jnp.where(without.reshape(-1, *[1] * (b.ndim - 1)), a, b), start, best)


def _after(
    courses: list[Course], history: History, kept: Callable, outer: Callable, options: Options, margin: float, cause: Callable
) -> None:
    """Warn of what happened, or raise an error where no epoch was good."""
    who = options.caller
    without = [course for course in courses if course.best == math.inf or not course.usable]
    if history.interrupted and without:
        raise KeyboardInterrupt
    if history.interrupted:
        epochs = ", ".join(dict.fromkeys(_named(course) for course in courses))
        warn_user(f"{who}: interrupted; these are the params of {epochs}")
    if without:
        course = without[0]
        validation = course.validation
        if not course.train[-1] < course.start + margin or (
            math.isfinite(course.initial) and not math.isfinite(validation[-1])
        ):
            why = "it diverged, and was over before the rate had fallen enough. Lower the learning rate, or allow more epochs"
        elif math.isfinite(validation[-1]):
            why = "far above that of training: what is held out is unlike what is trained on. Compare their columns"
        else:
            what = {math.inf: "density 0", -math.inf: "a density without bound"}.get(
                validation[-1], "a log-density that is NaN"
            )
            why = f"some of what is held out has {what} under this model: {cause(courses.index(course))}. {options.remedy}"
        message = f"{who}: the validation loss was {validation[-1]} in the last of {len(validation)} epochs: {why}"
        raise FitError(message, outer(kept()), history, why)
    if skipped := sum(sum(course.skipped) for course in courses):
        warn_user(
            f"{who}: {skipped} steps were skipped, as their loss, gradient or update was not finite; history['skipped'] has "
            "how many in each epoch"
        )


def _compare(courses: list[Course], yardstick: Yardstick, options: Options) -> None:
    """Warn where the start, or the closed-form Gaussian, is better than what came of it, beyond chance."""
    who, gaussian = options.caller, yardstick.gaussian
    best = float(np.mean([course.best for course in courses]))
    of_members = np.broadcast_to(yardstick.held_out, (len(courses), yardstick.held_out.shape[-1]))
    for course, numbers in zip(courses, of_members, strict=True):
        if course.carried is not None and (told := _carried(course.carried, numbers, yardstick.given)):
            warn_user(f"{who}: {told}")
            break
    if len(courses[0].validation) <= options.tempered:
        warn_user(f"{who}: it ended while the density was tempered, so these are the params of the start; allow it more time")
        return
    for course in courses:
        least = float(np.nan_to_num(course.validation, nan=np.inf).min())
        if course.best_epoch < 0 and least > course.initial + yardstick.by_chance:
            warn_user(
                f"{who}: no epoch was better on what is held out than the start, whose params these are: the loss was "
                f"{course.initial:.6g} there and {least:.6g} at best afterwards. Lower the learning rate, or "
                "give a smaller model"
            )
            break
    epochs = len(courses[0].validation)
    falling = float(np.mean([_falling(course.validation) for course in courses])) if epochs >= MANY_EPOCHS else 0.0
    if falling > FALLING * yardstick.by_chance:
        warn_user(
            f"{who}: the loss on what is held out was still falling, by {falling:.3g} nats from half to three quarters of the "
            f"{epochs} epochs; more of them, such as max_epochs={2 * options.max_epochs}, may gain as much"
        )
    if gaussian is not None and best > gaussian + yardstick.by_chance:
        warn_user(
            f"{who}: the closed-form Gaussian is {best - gaussian:.3g} nats a row better on what is held out than this model: "
            f"{-gaussian:.4g} against {-best:.4g}. Train longer or at another learning rate, or give a model that suits the "
            "data: flows.select compares some, Gaussians among them"
        )


def _falling(losses: list[float]) -> float:
    """By how many nats the best loss fell from half to three quarters of the epochs, where the rate has hardly been lowered.

    Over 33 default fits it was above three times what chance explains in 6: 5 of these gained from twice the epochs, by 5 to 15
    standard errors. Of the 21 fits that gained less than one, it was so in one.
    """
    best = np.minimum.accumulate(np.nan_to_num(losses, nan=np.inf, posinf=np.inf))
    early, late = best[len(best) // 2 - 1], best[3 * len(best) // 4 - 1]
    return float(early - late) if math.isfinite(early) else 0.0


def _carried(held_out: list[float], numbers: np.ndarray, given: str) -> str:
    """What is said where one row held out decides the mean of all."""
    (mean, row, rest, share, *_), count = held_out, len(numbers)
    if share < DECIDING or mean - rest < WORTH or count < FEWEST_HELD_OUT:
        return ""
    return (
        f"row {numbers[int(row)]} of {given}, one of {count} held out, has log-density "
        f"{-(count * mean - (count - 1) * rest):.4g} where the mean of the others is {-rest:.4g}, and decides the score. The "
        "model is not to be trusted that far out: look at the row, or give a base with tails, such as "
        "StudentT(trainable=True)"
    )


def _named(course: Course) -> str:
    return f"epoch {course.best_epoch}" if course.best_epoch >= 0 else "the start"


def _history(courses: list[Course], options: Options, yardstick: Yardstick = UNJUDGED, interrupted: bool = False) -> History:
    arrays = {name: np.array([getattr(course, of) for course in courses]) for name, of in TOLD.items()}
    arrays["error"] = np.array([math.nan if course.carried is None else course.carried[-1] for course in courses])
    if options.members is None:
        arrays = {name: np.asarray(array[0]) for name, array in arrays.items()}
        arrays["best_epoch"] = courses[0].best_epoch
    for name in ("batch_size", "max_epochs", "patience"):
        if getattr(options, name) is not None:
            arrays[name] = np.array(getattr(options, name))
    if yardstick.gaussian is not None:
        arrays["gaussian_loss"] = np.array(yardstick.gaussian)
    return History(arrays, interrupted=interrupted)


def _of_each(report: Report, members: int | None, log_dets: tuple[float, float]) -> list[Report]:
    """The report of each member as arrays of NumPy, with its losses in the units of the data."""
    losses, taken, held_out, better = jax.tree.map(np.asarray, report)
    mean, rest = (each.astype(float) - log_dets[1] for each in (held_out.mean, held_out.rest))
    arrays = Report(
        losses.astype(float) - np.asarray(log_dets[0])[..., None], taken, held_out._replace(mean=mean, rest=rest), better
    )
    return [arrays] if members is None else [jax.tree.map(itemgetter(i), arrays) for i in range(members)]


def _tell(bar: tqdm, courses: list[Course], yardstick: Yardstick) -> None:
    train, validation = (np.mean([getattr(course, name)[-1] for course in courses]) for name in ("train", "validation"))
    best = sorted({course.best_epoch for course in courses})
    of_gaussian = {} if yardstick.gaussian is None else {"gaussian_loss": f"{yardstick.gaussian:.3f}"}
    bar.set_description("fit", refresh=False)
    bar.set_postfix(
        train_loss=f"{train:.3f}",
        validation_loss=f"{validation:.3f}",
        best_epoch="-".join(map(str, best[:1] + best[1:][-1:])),
        **of_gaussian,
    )
    bar.update()


def _epoch(courses: list[Course], lr_scales: np.ndarray, options: Options, seconds: float, best_params: Callable) -> Epoch:
    values: dict[str, list] = {
        name: [getattr(course, TOLD[name])[-1] for course in courses] for name in ("train_loss", "validation_loss", "skipped")
    }
    values |= {"best_epoch": [course.best_epoch for course in courses], "rate": np.ravel(lr_scales).tolist()}
    told = {name: each[0] if options.members is None else np.array(each) for name, each in values.items()}
    number = len(courses[0].train) - 1
    return Epoch(number=number, max_epochs=options.max_epochs, seconds=seconds, best_params=best_params, **told)


def _error(courses: list[Course], i: int, cause: str, params: Any, options: Options) -> FitError:
    course, whose = courses[i], "" if options.members is None else f" of member {i}"
    if course.start == math.inf:
        message = f"{options.caller}: no loss{whose} is finite at the initial params: {cause}. Expected {options.expected}"
    else:
        message = (
            f"{options.caller}: epoch {len(course.train) - 1}{whose} had to be undone, the last of {course.times_back}, though "
            f"each time the learning rate was lowered to a tenth: {cause}. Clip gradients, lower the rate further, or look "
            "there"
        )
    return FitError(message, params, _history(courses, options), cause)


def _of_stream(error: Exception, params: Any, courses: list[Course], options: Options) -> FitError:
    cause = f"{type(error).__name__}: {error}" if not isinstance(error, FlowsError) else str(error)
    message = (
        f"{options.caller}: the data failed in epoch {len(courses[0].train)}: {cause}. The error has the best params before it "
        "in .params, and .history"
    )
    return FitError(message, params, _history(courses, options), cause)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts so far (Ctrl-C): the first waits for the end of an epoch, a second one does not."""
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
