"""The loop over epochs on the host: it runs each compiled epoch and asks `Progress` whether the fit goes on or goes back. It
also ends on time, a callback or Ctrl-C, saves checkpoints, and returns the best params.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flows.core import Distribution, FlowsError
from flows.persistence.programs import advice, seconds_of_compiling
from flows.results.history import Epoch, History
from flows.training.agreement import agreed
from flows.training.data.gaussian import Yardstick
from flows.training.data.streams import DataFailed
from flows.training.loop.checkpoint import Checkpoint
from flows.training.loop.messages import TOLD, after, compare, error_of, error_of_stream, history_of
from flows.training.loop.progress import Progress
from flows.training.loop.step import Report, State
from flows.training.loop.trainer import Trainer
from flows.training.options import Options

DIVERGED = 10.0  # nats a number of the event by which an epoch may be worse than the best, or the start, before a fit goes back
COMES_BACK = 0.3  # of the rate at which a fit fell apart: what it grows to again


class Training(NamedTuple):
    """What is trained, and what the loop asks of it. Params of an ensemble are stacked.

    Attributes:
        trainer: the compiled functions.
        params: those of the start.
        run: of a state and the number of an epoch, runs it.
        score: of the state at the start, gives it with its params as the best so far, and their validation loss.
        cause: of params, the number of an epoch, a step and a member, tells what is not finite in that step, or in the
            validation if the step is None.
        published: of params, gives the triple of the model that a user sees.
        event_size: numbers of an event.
        yardstick: what the losses are told and judged by.
        checkpoint: where it is saved.
        ready: of the state at the start, compiles what an epoch runs.
        stream: of rows that are not on the device, how it goes on.
    """

    trainer: Trainer
    params: Any
    run: Callable[[State, int], tuple[State, Report]]
    score: Callable[[State], tuple[State, Report]]
    cause: Callable[[Any, int, int | None, int], str]
    published: Callable[[Any], Distribution]
    event_size: int
    yardstick: Yardstick
    checkpoint: Checkpoint | None = None
    ready: Callable[[State], None] = lambda state: None
    stream: "Going | None" = None


class Going(NamedTuple):
    """How a stream goes on: `state()` after what was trained on, and `restore(state)`, None where it cannot."""

    state: Callable[[], Any]
    restore: Callable[[Any], None] | None


def run_epochs(training: Training, options: Options) -> tuple[Any, History]:
    """Train, and return the best params and the history."""
    loop = Loop(training, options)
    with loop.bar, _interrupts() as interrupts:
        loop.begin()
        while loop.goes_on(bool(interrupts)):
            loop.epoch()
        loop.end()
    return loop.ended()


class Loop:
    """A training while it runs: its state on the device, and the progress of each member."""

    def __init__(self, training: Training, options: Options):
        self.training, self.options, self.began, self.together = training, options, time.monotonic(), agreed()
        self.state = training.trainer.start(training.params)
        self.members = [Progress() for _ in range(options.members or 1)]
        self.placement = training.trainer.placement
        saved = None if training.checkpoint is None else training.checkpoint.load(self.state)
        if saved is not None:
            self._go_on_from(saved)
        self.resumed, self.stopped, self.interrupted, self.margin = saved is not None, False, False, 0.0
        done, quiet = len(self.members[0].train), not (options.verbose and self.together.first)
        self._agree_on_start()
        self.calls_back = self.together.any(bool(options.callbacks or options.run.callback))
        self.bar = tqdm(total=options.max_epochs, initial=done, desc="compiling", unit="epoch", disable=quiet)
        self.compiled = 0.0 if quiet else seconds_of_compiling()

    @property
    def over(self) -> bool:
        return all(member.over(self.options) for member in self.members)

    def goes_on(self, interrupted: bool) -> bool:
        """Whether there is another epoch, as all processes see it."""
        late = bool(self.members[0].train) and time.monotonic() >= self.began + self.options.max_seconds
        told = self.together.meet(interrupted=interrupted, stops=bool(self.stopped or late))
        self.interrupted = any(answer["interrupted"] for answer in told)
        return not (self.over or self.interrupted or any(answer["stops"] for answer in told))

    def _agree_on_start(self) -> None:
        """All processes begin where process 0 does, with their programs compiled: they wait for each other but a short time."""
        if self.together.processes > 1:
            self.training.ready(self.state)
            epochs = len(self.members[0].train)
            folder = f"checkpoint={os.fsdecode(self.options.checkpoint)!r}" if self.options.checkpoint else "no checkpoint"
            self.together.same(
                {"epoch to go on from": str(epochs)}, f"give {folder} as a folder that all processes share, or none"
            )

    def begin(self) -> None:
        if not self.resumed:
            self.state, report = self.training.score(self.state)
            for member, member_report in zip(self.members, self._of_each(report), strict=True):
                member.begin(member_report.validation)
        # Of an objective, whose unit is not known, by its start too.
        starts = [abs(member.initial) for member in self.members if math.isfinite(member.initial)]
        of_start = 0.0 if self.options.objective is None else max(starts, default=0.0)
        self.margin = DIVERGED * (self.training.event_size + of_start)

    def epoch(self) -> None:
        """Run an epoch; go back where a member is lost, save and call back."""
        number = len(self.members[0].train)
        scales, most = map(np.array, self.placement.fetched((self.state.lr_scale, self.state.lr_most)))
        try:
            self.state, report = self.training.run(self.state, number)
        except DataFailed as failure:
            # Members in the memory of other processes are out of reach, as those do not know yet.
            alone = self.together.processes > 1 and self.placement.members
            best_params = None if alone else self._published(failure.state).params
            raise error_of_stream(failure.error, best_params, self.members, self.options) from failure.error
        reports = self._of_each(report)
        done = [member.over(self.options) for member in self.members]  # these train on with the others, but keep their best
        judged = number >= self.options.run.tempered
        lost = [
            member.add(member_report, self.margin, judged) for member, member_report in zip(self.members, reports, strict=True)
        ]
        for member in self.members:
            member.compare(self.options.max_epochs)
        self._show()
        by_chance = self.training.yardstick.by_chance
        apart = [
            not over and member.falls_apart(self.options, by_chance) for member, over in zip(self.members, done, strict=True)
        ]
        for i in map(int, np.flatnonzero(lost)):
            self.members[i].times_back += not done[i]
            if self.members[i].beyond_help(self.options) and not done[i]:
                self._give_up(i, number, reports[i])
        for i in map(int, np.flatnonzero(apart)):
            self.members[i].go_back()
        if any(lost) or any(apart):
            self._go_back(np.array(lost), np.array(apart), scales, most)
        if self.training.checkpoint is not None:
            self._save(self.training.checkpoint, at_once=self.over)
        if self.calls_back:
            self._call_back(scales)

    def end(self) -> None:
        if self.training.checkpoint is not None and not self.over:  # by time, or on request
            self._save(self.training.checkpoint, at_once=True)

    def ended(self) -> tuple[Any, History]:
        """The best params and the history, with what there is to be said."""
        training, options, members = self.training, self.options, self.members
        history = history_of(members, options, training.yardstick, self.interrupted)
        last = len(members[0].train) - 1
        after(
            members,
            history,
            lambda: self._published(self.state).params,
            options,
            self.margin,
            lambda i: training.cause(self._params_of(i), last, None, i),
        )
        if options.run.judged:
            compare(members, training.yardstick, options)
        return training.trainer.params(self.state.best), history

    def _give_up(self, i: int, number: int, report: Report) -> None:
        step = None if report.taken.all() else int(np.argmin(report.taken))
        cause = self.training.cause(self._params_of(i), number, step, i)
        raise error_of(self.members, i, cause, self._published(self.state).params, self.options)

    def _go_back(self, lost: np.ndarray, apart: np.ndarray, scales: np.ndarray, most: np.ndarray) -> None:
        """Members that are lost, or fell apart, start again from their best params at a lower rate."""
        lost, apart = (flags.reshape(scales.shape) for flags in (lost, apart))
        most = np.where(apart, most * COMES_BACK, most)
        restart = np.array([member.best == math.inf for member in self.members]).reshape(scales.shape)
        scale = np.minimum(scales / 10, most)
        self.state = self.training.trainer.back(self.state, lost | apart, scale, most, restart, self.training.params)

    def _save(self, checkpoint: Checkpoint, at_once: bool) -> None:
        if not self.together.any(at_once or checkpoint.due):
            return
        state, stream = self.placement.fetched(self.state), self.training.stream
        states = None
        if stream is not None and stream.restore is not None:
            states = [answer["state"] for answer in self.together.meet(state=stream.state())]
        if self.together.first:
            checkpoint.save(state, [vars(member) for member in self.members], states)

    def _go_on_from(self, saved: tuple) -> None:
        """Take up what a checkpoint holds."""
        state, record, states = saved
        self.state = self.placement.copied(state, by_member=True)
        self.members = [Progress(**fields) for fields in record]
        stream, processes = self.training.stream, self.together.processes
        if stream is None or stream.restore is None or states is None:
            return
        if len(states) != processes:
            raise FlowsError(
                f"fit: the checkpoint is of iterables in {len(states)} processes, and this fit has {processes}; their rows are "
                "dealt otherwise. Start as many processes, or give another folder"
            )
        stream.restore(states[self.together.here])

    def _call_back(self, scales: np.ndarray) -> None:
        best = self.state.best
        if self.together.processes > 1:  # by all of them, as process 0 alone has the callbacks that may ask for it
            best = self.placement.fetched(best)
        best = partial(lambda best: self.training.published(self.training.trainer.params(best)), best)
        epoch = _epoch(self.members, scales, self.options, time.monotonic() - self.began, best)
        own, callbacks = self.options.run.callback, self.options.callbacks if self.together.first else ()
        self.stopped = any([_says_stop(callback(epoch)) for callback in (*callbacks, *([] if own is None else [own]))])

    def _params_of(self, i: int) -> Any:
        """The params of member i as they are."""
        current = self.training.trainer.params(self.state.params)
        return current if self.options.members is None else jax.tree.map(itemgetter(i), current)

    def _published(self, state: State) -> Distribution:
        """The best so far as a user sees it; of members that have none, the start."""
        best, start = self.training.trainer.params(state.best), self.training.params
        return self.training.published(best_or_start(best, start, self.members, self.options.members))

    def _of_each(self, report: Report) -> list[Report]:
        """The report of each member as arrays of NumPy, with its losses in the units of the data."""
        losses, taken, held_out, better = self.placement.fetched(report)
        of_train, of_held_out = self.training.yardstick.log_dets
        mean, rest = (loss.astype(float) - of_held_out for loss in (held_out.mean, held_out.rest))
        losses = losses.astype(float) - np.asarray(of_train)[..., None]
        arrays = Report(losses, taken, held_out._replace(mean=mean, rest=rest), better)
        members = self.options.members
        return [arrays] if members is None else [jax.tree.map(itemgetter(i), arrays) for i in range(members)]

    def _show(self) -> None:
        """Tell the bar."""
        options, gaussian = self.options, self.training.yardstick.gaussian
        train, validation = (
            np.mean([getattr(member, name)[-1] for member in self.members]) for name in ("train", "validation")
        )
        best = sorted({member.best_epoch for member in self.members})
        of_gaussian = {} if gaussian is None else {"gaussian_loss": f"{gaussian:.3f}"}
        self.bar.set_description("fit" if options.objective is None else f"fit by {options.objective_name}", refresh=False)
        self.bar.set_postfix(
            train_loss=f"{train:.3f}",
            validation_loss=f"{validation:.3f}",
            best_epoch="-".join(map(str, best[:1] + best[1:][-1:])),
            **of_gaussian,
        )
        self.bar.update()
        said = advice(seconds_of_compiling() - self.compiled) if options.verbose else None
        if said is not None:
            self.bar.write(said, file=self.bar.fp)


def best_or_start(best: Any, start: Any, progress: list[Progress], members: int | None) -> Any:
    """The best params, and those of the start for members that have none."""
    without = np.array([member.best == math.inf for member in progress])
    if members is None:
        return start if without[0] else best
    return jax.tree.map(lambda a, b: jnp.where(without.reshape(-1, *[1] * (b.ndim - 1)), a, b), start, best)


def _says_stop(answer: Any) -> bool:
    return np.asarray(answer).dtype == bool and np.ndim(answer) == 0 and bool(answer)


def _epoch(progress: list[Progress], scales: np.ndarray, options: Options, seconds: float, best: Callable) -> Epoch:
    values: dict[str, list] = {
        name: [getattr(member, TOLD[name])[-1] for member in progress] for name in ("train_loss", "validation_loss", "skipped")
    }
    values |= {"best_epoch": [member.best_epoch for member in progress], "rate": np.ravel(scales).tolist()}
    fields = {name: of_members[0] if options.members is None else np.array(of_members) for name, of_members in values.items()}
    number = len(progress[0].train) - 1
    return Epoch(
        number=number, max_epochs=options.max_epochs, seconds=seconds, best_params=lambda: best().params, best=best, **fields
    )


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts so far (Ctrl-C): the first waits for the end of an epoch, a second one does not."""
    interrupts: list[int] = []

    def note(number: int, frame: Any) -> None:
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(number)

    if threading.current_thread() is not threading.main_thread():  # which alone may set signals
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
