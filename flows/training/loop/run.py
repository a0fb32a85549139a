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

from flows.core import Distribution, advice, seconds_of_compiling
from flows.results.history import Epoch, History
from flows.training.data.gaussian import Yardstick
from flows.training.data.streams import DataFailed
from flows.training.loop.checkpoint import Checkpoint
from flows.training.loop.messages import TOLD, after, compare, error_of, error_of_stream, history_of
from flows.training.loop.progress import Course
from flows.training.loop.step import Report, State
from flows.training.loop.trainer import Trainer
from flows.training.options import Options

DIVERGED = 10.0  # nats a number of the event by which an epoch may be worse than the best, or the start, before a fit goes back
COMES_BACK = 0.3  # of the rate at which a fit fell apart: what it grows to again


def train(
    trainer: Trainer,
    params: Any,
    run: Callable[[State, int], tuple[State, Report]],
    score: Callable[[State], tuple[State, Report]],
    options: Options,
    checkpoint: Checkpoint | None,
    why: Callable[[Any, int, int | None, int], str],
    published: Callable[[Any], Distribution],
    event_size: int,
    yardstick: Yardstick,
) -> tuple[Any, History]:
    """Train, and return the best params and the history. Params of an ensemble are stacked.

    Args:
        run: of a state and the number of an epoch, runs it.
        score: of the state at the start, gives it with its params as the best so far, and their validation loss.
        why: of params, the number of an epoch, a step and a member, tells what is not finite in that step, or in the validation
            if the step is None.
        published: of params, gives the triple of the model that a user sees.
        event_size: numbers of an event.
        yardstick: what the losses are told and judged by.
    """
    count = options.members or 1
    state, courses, start = trainer.start(params), [Course() for _ in range(count)], time.monotonic()
    end = start + options.max_seconds
    saved = None if checkpoint is None else checkpoint.load(state)
    if saved is not None:
        state, courses = saved[0], [Course(**each) for each in saved[1]]
    done_before, number, stopped = len(courses[0].train), len(courses[0].train) - 1, False
    bar = tqdm(total=options.max_epochs, initial=done_before, desc="compiling", unit="epoch", disable=not options.verbose)
    compiled = seconds_of_compiling() if options.verbose else 0.0
    with bar, _interrupts() as interrupts:
        if saved is None:
            state, report = score(state)
            for course, own in zip(courses, _of_each(report, options.members, yardstick.log_dets), strict=True):
                course.begin(own.validation)
        margin = _margin(event_size, courses, options)
        while (
            not all(course.over(options) for course in courses)
            and (not courses[0].train or time.monotonic() < end)
            and not (interrupts or stopped)
        ):
            number, lr_scales, lr_mosts = len(courses[0].train), np.array(state.lr_scale), np.array(state.lr_most)
            try:
                state, report = run(state, number)
            except DataFailed as failure:
                kept = published(_kept(trainer, failure.state, params, courses, options)).params
                raise error_of_stream(failure.error, kept, courses, options) from failure.error
            reports = _of_each(report, options.members, yardstick.log_dets)
            done = [course.over(options) for course in courses]  # these members train on with the others, but keep their best
            judged = number >= options.tempered
            lost = [course.add(own, margin, judged) for course, own in zip(courses, reports, strict=True)]
            _tell(bar, courses, yardstick, options)
            said = advice(seconds_of_compiling() - compiled) if options.verbose else None
            if said is not None:
                bar.write(said, file=bar.fp)
            apart = [
                not over and course.falls_apart(options, yardstick.by_chance)
                for course, over in zip(courses, done, strict=True)
            ]
            if any(lost) or any(apart):
                for i in map(int, np.flatnonzero(lost)):
                    courses[i].times_back += not done[i]
                    if courses[i].beyond_help(options) and not done[i]:
                        step = None if reports[i].taken.all() else int(np.argmin(reports[i].taken))
                        cause = why(_own(trainer, state, options, i), number, step, i)
                        kept = published(_kept(trainer, state, params, courses, options)).params
                        raise error_of(courses, i, cause, kept, options)
                for i in map(int, np.flatnonzero(apart)):
                    courses[i].go_back()
                lr_mosts = np.where(np.reshape(apart, lr_scales.shape), lr_mosts * COMES_BACK, lr_mosts)
                restart = np.array([course.best == math.inf for course in courses]).reshape(lr_scales.shape)
                gone = np.logical_or(lost, apart).reshape(lr_scales.shape)
                state = trainer.back(state, gone, np.minimum(lr_scales / 10, lr_mosts), lr_mosts, restart, params)
            if checkpoint is not None:
                over = all(course.over(options) for course in courses)
                checkpoint.save(state, [vars(course) for course in courses], at_once=over)
            if options.callbacks:
                best = partial(lambda best: published(trainer.params(best)), state.best)
                told = _epoch(courses, lr_scales, options, time.monotonic() - start, best)
                stopped = any([_says_stop(callback(told)) for callback in options.callbacks])
        if checkpoint is not None and not all(course.over(options) for course in courses):  # by time, or on request
            checkpoint.save(state, [vars(course) for course in courses], at_once=True)
    history = history_of(courses, options, yardstick, bool(interrupts))
    kept = partial(_kept, trainer, state, params, courses, options)
    after(
        courses,
        history,
        lambda: published(kept()).params,
        options,
        margin,
        lambda i: why(_own(trainer, state, options, i), number, None, i),
    )
    if options.judged:
        compare(courses, yardstick, options)
    return trainer.params(state.best), history


def _margin(event_size: int, courses: list[Course], options: Options) -> float:
    """By how much an epoch may be worse before a fit goes back: of an objective, whose unit is not known, by its start too."""
    starts = [abs(course.initial) for course in courses if math.isfinite(course.initial)]
    return DIVERGED * (event_size + (max(starts, default=0.0) if options.objective is not None else 0.0))


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


def _of_each(report: Report, members: int | None, log_dets: tuple[float, float]) -> list[Report]:
    """The report of each member as arrays of NumPy, with its losses in the units of the data."""
    losses, taken, held_out, better = jax.tree.map(np.asarray, report)
    mean, rest = (each.astype(float) - log_dets[1] for each in (held_out.mean, held_out.rest))
    arrays = Report(
        losses.astype(float) - np.asarray(log_dets[0])[..., None], taken, held_out._replace(mean=mean, rest=rest), better
    )
    return [arrays] if members is None else [jax.tree.map(itemgetter(i), arrays) for i in range(members)]


def _tell(bar: tqdm, courses: list[Course], yardstick: Yardstick, options: Options) -> None:
    train, validation = (np.mean([getattr(course, name)[-1] for course in courses]) for name in ("train", "validation"))
    best = sorted({course.best_epoch for course in courses})
    of_gaussian = {} if yardstick.gaussian is None else {"gaussian_loss": f"{yardstick.gaussian:.3f}"}
    bar.set_description("fit" if options.objective is None else f"fit by {options.objective_name}", refresh=False)
    bar.set_postfix(
        train_loss=f"{train:.3f}",
        validation_loss=f"{validation:.3f}",
        best_epoch="-".join(map(str, best[:1] + best[1:][-1:])),
        **of_gaussian,
    )
    bar.update()


def _epoch(courses: list[Course], lr_scales: np.ndarray, options: Options, seconds: float, best: Callable) -> Epoch:
    values: dict[str, list] = {
        name: [getattr(course, TOLD[name])[-1] for course in courses] for name in ("train_loss", "validation_loss", "skipped")
    }
    values |= {"best_epoch": [course.best_epoch for course in courses], "rate": np.ravel(lr_scales).tolist()}
    told = {name: each[0] if options.members is None else np.array(each) for name, each in values.items()}
    number = len(courses[0].train) - 1
    return Epoch(
        number=number, max_epochs=options.max_epochs, seconds=seconds, best_params=lambda: best().params, best=best, **told
    )


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
