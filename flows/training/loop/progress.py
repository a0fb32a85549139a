"""The history of each member, epoch by epoch. `Progress.over` decides early stopping, by patience; `step.py` decides
on the device whether an epoch is better.
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
FAR = 0.1  # nats: if both losses rise by at least this, a fit fell apart
BEYOND_CHANCE = 3.0  # times chance: the same, if this is more
NEAR_PEAK = 0.5  # of the highest learning rate: above this the rate may be the reason that a fit fell apart


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
    waited: int = 0  # epochs since the best, without undone epochs
    initial: float = math.inf  # the validation loss before the first epoch
    usable: int = 0  # epochs that were not lost
    carried: Any = None  # the validation of the best epoch
    effective: list[float] = field(default_factory=list)  # sample sizes at the start, and after each epoch; NaN if it was lost
    fell_apart: int = 0  # the times back at which patience would have ended the fit
    tails: list[float] = field(default_factory=list)  # Pareto k, as `effective`
    few: list[float] = field(default_factory=list)  # losses of a few held-out rows in the best epoch
    compared: list[list[float]] = field(default_factory=list)  # `few` after half and three quarters of the epochs

    @property
    def best(self) -> float:
        """The least validation loss, including the start; inf if none is finite."""
        return self.validation[self.best_epoch] if self.best_epoch >= 0 else self.initial

    def begin(self, held_out: HeldOut) -> None:
        """Note the validation of the start."""
        self.effective, self.tails = [float(held_out.effective)], [float(held_out.tail)]
        if math.isfinite(float(held_out.mean)):
            self.initial = float(held_out.mean)
            self._carry(held_out)

    def add(self, report: Report, margin: float, judged: bool = True) -> bool:
        """Note an epoch, and return whether the fit is lost and has to go back: it is `margin` nats above the best, or, if an
        epoch is not judged, no step was taken."""
        finite = report.losses[np.isfinite(report.losses)]
        self.train.append(float(finite.mean()) if len(finite) else math.nan)
        self.skipped.append(int((~report.taken).sum()))
        self.taken += int(report.taken.sum())
        if not judged:
            for record in (self.validation, self.effective, self.tails):
                record.append(math.nan)
            self.usable += bool(report.taken.any())
            self.start = min(self.start, self.initial)  # the training losses are of another density
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
        # Under a base with edges the validation loss may be inf for some epochs without harm.
        harmless = validation == math.inf and self.best_epoch < 0 and report.taken.all() and self.train[-1] < limit
        above = float(report.validation.rest) > limit  # without the worst row, which may be an outlier
        nothing = not report.taken.any() or math.isnan(validation) or validation == -math.inf
        return bool(nothing or (above and not harmless))

    def over(self, options: Options) -> bool:
        stands = options.run.stands is not None and options.run.stands(self.effective, self.tails)
        return len(self.train) >= options.max_epochs or self.waited >= options.patience or stands

    def falls_apart(self, options: Options, by_chance: float) -> bool:
        """Return whether patience would end a fit that became worse at too high a rate, and that has to go back instead.

        Both losses are far above the losses before, in most epochs since the best (the training loss without the first of these
        epochs, which has steps before the rise). If a model only overfits, its training loss goes on falling. Only true
        if the rate is known, and still near its peak.
        """
        number, waited = len(self.train), self.waited
        known = options.optimizer is None and options.objective is None and options.run.stands is None
        if not known or waited < options.patience or number >= options.max_epochs or self.times_back >= TIMES_BACK:
            return False
        still_ahead = warmup_cosine(1.0, options.max_epochs)(number - 1, options.max_epochs - number + 1)
        trained = min([*self.train[: self.best_epoch + 1], *[self.initial] * (self.best_epoch < 0)], default=math.nan)
        far = max(FAR, BEYOND_CHANCE * by_chance)
        validation, train = np.median(self.validation[-waited:]), np.median(self.train[1 - waited or -1 :])  # NaN if one is NaN
        return bool(validation > self.best + far and train > trained + far and still_ahead.max() > NEAR_PEAK)

    def go_back(self) -> None:
        """Note that the fit fell apart, and let patience begin again."""
        self.times_back, self.fell_apart, self.waited = self.times_back + 1, self.fell_apart + 1, 0

    def beyond_help(self, options: Options) -> bool:
        return self.times_back > TIMES_BACK or self.start == math.inf or (self.over(options) and not self.taken)
