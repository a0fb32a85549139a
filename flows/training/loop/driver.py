"""The one loop over epochs, on the host, for rows, streams and draws: it runs each compiled epoch and asks `Progress` whether
the fit goes on or goes back. It also ends on time, a callback or Ctrl-C, saves checkpoints, and returns the best params.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flows.core import Distribution, size
from flows.persistence.programs import advice, seconds_of_compiling
from flows.results.history import Epoch, History
from flows.training.data.gaussian import Yardstick
from flows.training.data.read import DataFailed
from flows.training.devices import ONE_FOLDER, devices
from flows.training.loop.checkpoint import Checkpoint
from flows.training.loop.progress import TOLD, Progress, after, compare, error_of, error_of_stream, history_of
from flows.training.loop.step import Report, State
from flows.training.loop.trainer import Trainer, program_of
from flows.training.options import Options

DIVERGED = 10.0  # nats for each number of the event: a fit goes back if an epoch is worse than the best, or the start, by this
COMES_BACK = 0.3  # of the rate at which a fit fell apart: the largest rate afterwards


class Source(Protocol):
    """The source of the training data, an epoch at a time.

    `score` is an epoch without steps, after which the params of the start are the best so far. `cause` says what is not finite
    in a step of a member, or in the validation if the step is None. `state` is the position of a stream after the last steps,
    and `restore` continues from it; it is None if nothing can.
    """

    compiled: Trainer
    options: Options
    yardstick: Yardstick  # the units and the scale of losses
    state: Any = None
    restore: Callable[[Any], None] | None = None
    alike: bool = True  # whether training and validation losses have one unit

    def score(self, state: State) -> tuple[State, Report]: ...
    def run(self, state: State, number: int) -> tuple[State, Report]: ...
    def cause(self, params: Any, number: int, step: int | None, member: int) -> str: ...


def drive(
    source: Source, params: Any, published: Callable[[Any], Distribution], settings: Callable[[], dict[str, Any]]
) -> tuple[Any, History]:
    """Train, and return the best params and the history.

    `params` are the params of the start, stacked for members. `published` makes the triple that a user sees from params, and
    `settings` makes the settings that identify a fit.
    """
    options = source.options

    def shared() -> dict[str, Any]:
        known = {"objective": options.objective_name, "patience": options.patience}
        known |= {} if options.optimizer is None else {"optimizer": program_of(options.optimizer, params)}
        return {**settings(), **known, "checkpoint": options.checkpoint is not None}

    devices().same(shared)
    checkpoint = None if options.checkpoint is None else Checkpoint(options, settings())
    loop = Loop(source, params, published, checkpoint)
    with loop.bar, _interrupts() as interrupts:
        loop.begin()
        while loop.goes_on(bool(interrupts)):
            loop.epoch()
        if not loop.over:  # by time, or on request
            loop.save(at_once=True)
    return loop.ended()


class Loop:
    """A running training: its state on the device, and the progress of each member."""

    def __init__(self, source: Source, params: Any, published: Callable[[Any], Distribution], checkpoint: Checkpoint | None):
        self.source, self.start, self.publish, self.checkpoint = source, params, published, checkpoint
        self.options = options = source.options
        self.trainer, self.placement = source.compiled, source.compiled.placement
        self.began, self.devices = time.monotonic(), devices()
        self.first: tuple[float, int] | None = None  # the time after the first epoch, and the number of epochs then
        self.state = self.trainer.start(params)
        self.members = [Progress() for _ in range(options.members or 1)]
        saved = None if checkpoint is None else checkpoint.load(self.state)
        if saved is not None:
            self.state, record, states = saved
            self.members = [Progress(**fields) for fields in record]
            if source.restore is not None and states is not None:
                source.restore(self.devices.state_of(states))
        self.resumed, self.stopped, self.interrupted, self.margin = saved is not None, False, False, 0.0
        done, quiet = len(self.members[0].train), not (options.verbose and self.devices.first)
        folder = f"checkpoint={os.fsdecode(options.checkpoint)!r}" if options.checkpoint else "no checkpoint"
        # All begin at the epoch of the first.
        self.devices.same(lambda: {"epoch to go on from": done}, ONE_FOLDER.format(folder))
        self.calls_back = self.devices.any(bool(options.callbacks))
        self.bar = tqdm(total=options.max_epochs, initial=done, desc="compiling", unit="epoch", disable=quiet)
        self.compiled = 0.0 if quiet else seconds_of_compiling()

    @property
    def over(self) -> bool:
        return all(member.over(self.options) for member in self.members)

    def goes_on(self, interrupted: bool) -> bool:
        """Return whether there is another epoch; all agree."""
        late = bool(self.members[0].train) and time.monotonic() >= self.began + self.options.max_seconds
        answers = self.devices.meet(interrupted=interrupted, stops=bool(self.stopped or late))
        self.interrupted = any(answer["interrupted"] for answer in answers)
        return not (self.over or self.interrupted or any(answer["stops"] for answer in answers))

    def begin(self) -> None:
        if not self.resumed:
            state, report = self.source.score(self.state)
            self.state = state._replace(epoch=jnp.zeros_like(state.epoch))
            for member, member_report in zip(self.members, self._by_member(report), strict=True):
                member.begin(member_report.validation)
        # The unit of an objective is not known, so its start is a scale, too.
        starts = [abs(member.initial) for member in self.members if math.isfinite(member.initial)]
        scale = 0.0 if self.options.objective is None else max(starts, default=0.0)
        self.margin = DIVERGED * (size(self.trainer.program.problem.part.event) + scale)

    def epoch(self) -> None:
        """Run an epoch; go back where a member is lost, save and call back."""
        number, options = len(self.members[0].train), self.options
        scales, most = map(np.array, self.placement.fetched((self.state.lr_scale, self.state.lr_most)))
        try:
            self.state, report = self.source.run(self.state, number)
        except DataFailed as failure:
            # Members in the memory of others are out of reach, as the others do not know of the failure yet.
            reached = self.placement.whole or not self.placement.members
            best_params = self._published(failure.state).params if reached else None
            raise error_of_stream(failure.error, best_params, self.members, options) from failure.error
        reports, judged = self._by_member(report), number >= options.run.tempered
        done = [member.over(options) for member in self.members]  # these go on with the others, but keep their best
        pairs, alike = zip(self.members, reports, strict=True), self.source.alike
        lost = [member.add(result, self.margin, judged, alike) for member, result in pairs]
        for member in self.members:
            member.compare(options.max_epochs)
        self._show()
        by_chance = self.source.yardstick.by_chance
        apart = [not over and member.falls_apart(options, by_chance) for member, over in zip(self.members, done, strict=True)]
        for i in map(int, np.flatnonzero(lost)):
            self.members[i].times_back += not done[i]
            if self.members[i].beyond_help(options) and not done[i]:
                step = None if reports[i].taken.all() else int(np.argmin(reports[i].taken))
                raise error_of(self.members, i, self._cause(i, step), self._published(self.state).params, options)
        for i in map(int, np.flatnonzero(apart)):
            self.members[i].go_back()
        if any(lost) or any(apart):
            self._go_back(np.array(lost), np.array(apart), scales, most)
        self.save(at_once=self.over)
        if self.calls_back:
            self._call_back(scales)

    def ended(self) -> tuple[Any, History]:
        """The best params and the history, after warnings."""
        members, options, yardstick = self.members, self.options, self.source.yardstick
        history = history_of(members, options, yardstick, self.interrupted)
        after(members, history, lambda: self._published(self.state).params, options, self.margin, self._cause)
        if options.run.judged:
            compare(members, yardstick, options)
        return self.trainer.params(self.state.best), history

    def _go_back(self, lost: np.ndarray, apart: np.ndarray, scales: np.ndarray, most: np.ndarray) -> None:
        """Members that are lost, or fell apart, start again from their best params at a lower rate."""
        lost, apart = (flags.reshape(scales.shape) for flags in (lost, apart))
        most = np.where(apart, most * COMES_BACK, most)
        restart = np.array([member.best == math.inf for member in self.members]).reshape(scales.shape)
        self.state = self.trainer.back(self.state, lost | apart, np.minimum(scales / 10, most), most, restart, self.start)

    def save(self, at_once: bool) -> None:
        if self.checkpoint is None or not self.devices.any(at_once or self.checkpoint.due):
            return
        state, states = self.placement.fetched(self.state), None
        if self.source.restore is not None:
            states = [answer["state"] for answer in self.devices.meet(state=self.source.state)]
        if self.devices.first:
            self.checkpoint.save(state, [vars(member) for member in self.members], states)

    def _call_back(self, scales: np.ndarray) -> None:
        # Fetched by all, as only the first has the callbacks that may ask for it.
        best = self.state.best if self.placement.whole else self.placement.fetched(self.state.best)

        def triple() -> Distribution:
            return self.publish(self.trainer.params(best))

        names, one = ("train_loss", "validation_loss", "skipped"), self.options.members is None
        values = {name: [getattr(member, TOLD[name])[-1] for member in self.members] for name in names}
        values |= {"best_epoch": [member.best_epoch for member in self.members], "rate": np.ravel(scales).tolist()}
        epoch = Epoch(
            number=len(self.members[0].train) - 1,
            max_epochs=self.options.max_epochs,
            seconds=time.monotonic() - self.began,
            best_params=lambda: triple().params,
            best=triple,
            **{name: by_member[0] if one else np.array(by_member) for name, by_member in values.items()},
        )
        callbacks = self.options.callbacks if self.devices.first else ()
        answers = [np.asarray(callback(epoch)) for callback in callbacks]
        self.stopped = any(answer.dtype == bool and answer.ndim == 0 and bool(answer) for answer in answers)

    def _cause(self, i: int, step: int | None = None) -> str:
        """Return what is not finite in a step of member i in the last epoch, or in its validation."""
        params = self.trainer.member(self.trainer.params(self.state.params), i)
        return self.source.cause(params, len(self.members[0].train) - 1, step, i)

    def _published(self, state: State) -> Distribution:
        """The best so far as a user sees it; the start for members without a best."""
        return self.publish(best_or_start(self.trainer.params(state.best), self.start, self.members, self.options.members))

    def _by_member(self, report: Report) -> list[Report]:
        """The report of each member as arrays of NumPy, with its losses in the units of the data."""
        losses, taken, held_out, better = self.placement.fetched(report)
        train_log_det, held_out_log_det = self.source.yardstick.log_dets
        mean, rest = (loss.astype(float) - held_out_log_det for loss in (held_out.mean, held_out.rest))
        losses = losses.astype(float) - np.asarray(train_log_det)[..., None]
        arrays = Report(losses, taken, held_out._replace(mean=mean, rest=rest), better)
        return [self.trainer.member(arrays, i) for i in range(len(self.members))]

    def _show(self) -> None:
        options, gaussian = self.options, self.source.yardstick.gaussian
        names = ("train_loss", "validation_loss")
        losses = {name: np.mean([getattr(member, TOLD[name])[-1] for member in self.members]) for name in names}
        losses |= {} if gaussian is None else {"gaussian_loss": gaussian}
        best = sorted({member.best_epoch for member in self.members})
        what = " by ".join(filter(None, ("fit", options.objective_name)))
        self.bar.set_description(options.run.place or what, refresh=False)
        left = self._left(time.monotonic())
        self.bar.bar_format = f"{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} [{{elapsed}}{left}, {{rate_fmt}}{{postfix}}]"
        texts = {name: f"{loss:.3f}" for name, loss in losses.items()}
        self.bar.set_postfix(best_epoch="-".join(map(str, best[:1] + best[1:][-1:])), **texts)
        self.bar.update()
        message = advice(seconds_of_compiling() - self.compiled) if options.verbose else None
        if message is not None:
            self.bar.write(message, file=self.bar.fp)

    def _left(self, now: float) -> str:
        """Return in words how long the fit takes at most at its pace, or all of several models where their time is limited."""
        options, done = self.options, len(self.members[0].train)
        self.first = self.first or (now, done)
        pace, limited = (now - self.first[0]) / max(done - self.first[1], 1), options.run.end < math.inf
        left = min(pace * (options.max_epochs - done), self.began + options.max_seconds - now)
        seconds = max(options.run.end - now if limited else left, 0.0)
        return f", {'all ' * limited}at most {tqdm.format_interval(seconds)} more" if done > self.first[1] else ""


def best_or_start(best: Any, start: Any, progress: list[Progress], members: int | None) -> Any:
    """The best params, and the params of the start for members without a best."""
    without = np.array([member.best == math.inf for member in progress])
    if members is None:
        return start if without[0] else best
    return jax.tree.map(lambda a, b: jnp.where(without.reshape(-1, *[1] * (b.ndim - 1)), a, b), start, best)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts so far (Ctrl-C): the first waits for the end of an epoch, the second does not."""
    interrupts: list[int] = []

    def note(number: int, frame: Any) -> None:
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signals
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
