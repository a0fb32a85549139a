"""The history of each member, epoch by epoch. `Progress.over` decides early stopping, by patience; an epoch is better
or not by what `step.py` found on the device.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flows.training.loop.losses import HeldOut
from flows.training.loop.step import Report
from flows.training.loop.trainer import warmup_cosine
from flows.training.options import Options

TIMES_BACK = 8  # each time with a tenth of the learning rate
FAR = 0.1  # nats by which both losses of a fit that fell apart are above those before, at least
BEYOND_CHANCE = 3.0  # times chance: the same, where this is more
NEAR_PEAK = 0.5  # of the highest learning rate, above which it may be the rate that a fit fell apart by


@dataclass(eq=False)
class Progress:
    """The history of one member, epoch by epoch, in nats and the units of the data."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)  # steps of each epoch
    best_epoch: int = -1
    start: float = math.inf  # the first finite loss
    taken: int = 0  # steps
    times_back: int = 0
    waited: int = 0  # epochs since the best, but for those that were undone
    initial: float = math.inf  # the validation loss before the first epoch
    usable: int = 0  # epochs that were not lost
    carried: Any = None  # what the best epoch found of the rows held out
    effective: list[float] = field(default_factory=list)  # sample sizes of the start, and after each epoch; NaN of one lost
    fell_apart: int = 0  # of these times back, how often patience would have ended it
    tails: list[float] = field(default_factory=list)  # and Pareto k
    few: list[float] = field(default_factory=list)  # losses of a few rows held out in the best epoch
    compared: list[list[float]] = field(default_factory=list)  # the same after half and three quarters of the epochs

    @property
    def best(self) -> float:
        """The least validation loss, perhaps that of the start; inf where none is finite."""
        return self.validation[self.best_epoch] if self.best_epoch >= 0 else self.initial

    def begin(self, held_out: HeldOut) -> None:
        """Note what the start is worth."""
        self.effective, self.tails = [float(held_out.effective)], [float(held_out.tail)]
        if math.isfinite(float(held_out.mean)):
            self.initial = float(held_out.mean)
            self._carry(held_out)

    def add(self, report: Report, margin: float, judged: bool = True) -> bool:
        """Note an epoch, and return whether the fit is lost, so that it has to go back: `margin` nats above the best, or, where
        an epoch is not judged, without a step that was taken."""
        finite = report.losses[np.isfinite(report.losses)]
        self.train.append(float(finite.mean()) if len(finite) else math.nan)
        self.skipped.append(int((~report.taken).sum()))
        self.taken += int(report.taken.sum())
        if not judged:
            for record in (self.validation, self.effective, self.tails):
                record.append(math.nan)
            self.usable += bool(report.taken.any())
            self.start = min(self.start, self.initial)  # losses of the training are of another density
            return not report.taken.any()
        self.validation.append(float(report.validation.mean))
        if len(finite) and self.start == math.inf:
            self.start = float(finite[0])
        lost = self._is_lost(report, margin)
        self.usable += not lost
        self.effective.append(math.nan if lost else float(report.validation.effective))
        self.tails.append(math.nan if lost else float(report.validation.tail))
        if report.better and not lost:
            self.best_epoch, self.waited = len(self.validation) - 1, 0
            self._carry(report.validation)
        elif not lost:
            self.waited += 1
        return lost

    def _carry(self, held_out: HeldOut) -> None:
        *numbers, few = held_out
        self.carried, self.few = list(map(float, numbers)), np.asarray(few, float).tolist()

    def compare(self, max_epochs: int) -> None:
        """Keep the losses of a few rows after half and three quarters of the epochs, for the error of their difference."""
        if len(self.train) in (max_epochs // 2, 3 * max_epochs // 4):
            self.compared.append(self.few)

    def _is_lost(self, report: Report, margin: float) -> bool:
        validation, limit = self.validation[-1], min(self.start, self.best) + margin
        # Under a base with edges the validation loss may be inf for some epochs, without any harm.
        harmless = validation == math.inf and self.best_epoch < 0 and report.taken.all() and self.train[-1] < limit
        above = float(report.validation.rest) > limit  # but for a single row, which may be an outlier
        nothing = not report.taken.any() or math.isnan(validation) or validation == -math.inf
        return bool(nothing or (above and not harmless))

    def over(self, options: Options) -> bool:
        stands = options.run.stands is not None and options.run.stands(self.effective, self.tails)
        return len(self.train) >= options.max_epochs or self.waited >= options.patience or stands

    def falls_apart(self, options: Options, by_chance: float) -> bool:
        """Tell whether patience would end a fit that lost what it had at too high a rate, and that has to go back instead.

        Both losses have been far above those before, in most epochs since the best; the training loss of the first of these
        still has steps before the fall. Where a model only follows its rows too closely, the loss of these goes on falling.
        Only where the rate is known, and still near its peak.
        """
        number, waited = len(self.train), self.waited
        known = options.optimizer is None and options.objective is None and options.run.stands is None
        if not known or waited < options.patience or number >= options.max_epochs or self.times_back >= TIMES_BACK:
            return False
        still_ahead = warmup_cosine(1.0, options.max_epochs)(number - 1, options.max_epochs - number + 1)
        trained = min([*self.train[: self.best_epoch + 1], *[self.initial] * (self.best_epoch < 0)], default=math.nan)
        far = max(FAR, BEYOND_CHANCE * by_chance)
        validation, train = np.median(self.validation[-waited:]), np.median(self.train[1 - waited or -1 :])  # NaN of a NaN
        return bool(validation > self.best + far and train > trained + far and still_ahead.max() > NEAR_PEAK)

    def go_back(self) -> None:
        """Note that it fell apart, and is to wait anew."""
        self.times_back, self.fell_apart, self.waited = self.times_back + 1, self.fell_apart + 1, 0

    def beyond_help(self, options: Options) -> bool:
        return self.times_back > TIMES_BACK or self.start == math.inf or (self.over(options) and not self.taken)
