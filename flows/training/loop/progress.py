"""The history of each member, epoch by epoch, its warnings at the end, and the errors that carry the best params.
`Progress.over` decides early stopping, by patience; `step.py` decides on the device whether an epoch is better.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flows.core import FitError, FlowsError, warn_user
from flows.results.history import History
from flows.training.data.gaussian import Yardstick
from flows.training.loop.losses import HeldOut
from flows.training.loop.step import Report
from flows.training.loop.trainer import warmup_cosine
from flows.training.options import Options

TIMES_BACK = 8  # each time with a tenth of the learning rate
FAR = 0.1  # nats: if both losses rise by at least this, a fit fell apart
BEYOND_CHANCE = 3.0  # times chance: the same, if this is more
NEAR_PEAK = 0.5  # of the highest learning rate: above this the rate may be the reason that a fit fell apart
UNJUDGED = Yardstick()
DECIDING = 0.8  # of the squared deviations of the held-out rows from their mean: from this share one row decides it
WORTH = 0.5  # nats by which the loss is less without this row, at least
FEWEST_HELD_OUT = 20  # held-out rows, below which one row may well decide
MANY_EPOCHS = 40  # epochs, from which a fit can be said to have been too short
FALLING = 3.0  # times chance: with a larger fall of the loss, the fit was too short
SEEN = 2.0  # standard errors of the loss, below which a gain would not show
TOLD = {  # names in a history, and in the progress of a member
    "train_loss": "train",
    "validation_loss": "validation",
    "skipped": "skipped",
    "best_epoch": "best_epoch",
    "start_loss": "initial",
}


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

    def add(self, report: Report, margin: float, judged: bool = True, alike: bool = True) -> bool:
        """Note an epoch, and return whether the fit is lost and has to go back: it is `margin` nats above the best, or, if an
        epoch is not judged, no step was taken."""
        finite = report.losses[np.isfinite(report.losses)]
        self.train.append(float(finite.mean()) if len(finite) else math.nan)
        self.skipped.append(int((~report.taken).sum()))
        self.taken += int(report.taken.sum())
        self.validation.append(float(report.validation.mean) if judged else math.nan)
        if not (judged and alike):
            self.start = min(self.start, self.initial)  # the training losses are of another density, or in another unit
        elif len(finite) and self.start == math.inf:
            self.start = float(finite[0])
        lost = self._is_lost(report, margin) if judged else not report.taken.any()
        known = judged and not lost
        self.usable += not lost
        self.effective.append(float(report.validation.effective) if known else math.nan)
        self.tails.append(float(report.validation.tail) if known else math.nan)
        if report.better and known:
            self.best_epoch, self.waited = len(self.validation) - 1, 0
            self._carry(report.validation)
        elif known:
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


def history_of(
    members: list[Progress], options: Options, yardstick: Yardstick = UNJUDGED, interrupted: bool = False
) -> History:
    arrays: dict[str, Any] = {name: np.array([getattr(member, field) for member in members]) for name, field in TOLD.items()}
    arrays["error"] = np.array([math.nan if member.carried is None else member.carried[-1] for member in members])
    if options.members is None:
        arrays = {name: np.asarray(array[0]) for name, array in arrays.items()}
        arrays["best_epoch"] = members[0].best_epoch
    others = {name: getattr(options, name) for name in ("batch_size", "max_epochs", "patience")}
    others["gaussian_loss"] = yardstick.gaussian
    arrays |= {name: np.array(value) for name, value in others.items() if value is not None}
    return History(arrays, interrupted=interrupted, objective=options.objective_name)


def after(
    members: list[Progress], history: History, best_params: Callable, options: Options, margin: float, cause: Callable
) -> None:
    """Warn of problems in the training, or raise an error if no epoch was good."""
    who = options.caller
    without = [member for member in members if member.best == math.inf or not member.usable]
    if history.interrupted and without:
        raise KeyboardInterrupt
    if history.interrupted:
        epochs = [f"epoch {member.best_epoch}" if member.best_epoch >= 0 else "the start" for member in members]
        warn_user(f"{who}: interrupted; these are the params of {', '.join(dict.fromkeys(epochs))}")
    if without:
        member, validation = without[0], without[0].validation[-1]
        was_finite = math.isfinite(member.initial) and not math.isfinite(validation)
        if not member.train[-1] < member.start + margin or was_finite:
            why = "it diverged, and was over before the rate had fallen enough. Lower the learning rate, or allow more epochs"
        elif math.isfinite(validation):
            remedy = "Compare their columns" if who != "fit_to_density" else "Give more num_samples, or a lower learning_rate"
            why = f"far above the training loss: the held-out part is unlike the training part. {remedy}"
        else:
            what = {math.inf: "density 0", -math.inf: "a density without bound"}.get(validation, "a log-density that is NaN")
            why = f"some of the held-out part has {what} under this model: {cause(members.index(member))}. {options.run.remedy}"
        message = f"{who}: the validation {options.measure} was {validation} in the last of {len(member.train)} epochs: {why}"
        raise FitError(message, best_params(), history, why)
    if apart := sum(member.fell_apart for member in members):
        warn_user(
            f"{who}: the fit fell apart {apart} time{'s' * (apart > 1)} near the highest learning rate: both losses rose far "
            f"above the losses of the best epoch for {options.patience} epochs. It went back to this epoch, and on at a lower "
            "rate; a lower learning_rate from the start may do better"
        )
    if skipped := sum(sum(member.skipped) for member in members):
        warn_user(
            f"{who}: {skipped} steps were skipped, as their loss, gradient or update was not finite; history['skipped'] has "
            "how many in each epoch"
        )


def compare(members: list[Progress], yardstick: Yardstick, options: Options) -> None:
    """Warn where the start, or the closed-form Gaussian, is better than the result, beyond chance."""
    who, gaussian = options.caller, yardstick.gaussian
    best = float(np.mean([member.best for member in members]))
    numbers_by_member = np.broadcast_to(yardstick.held_out, (len(members), yardstick.held_out.shape[-1]))
    for member, numbers in zip(members, numbers_by_member, strict=True):
        if member.carried is not None and (message := _carried(member.carried, numbers, yardstick.source)):
            warn_user(f"{who}: {message}")
            break
    if len(members[0].validation) <= options.run.tempered:
        warn_user(f"{who}: it ended while the density was tempered, so the params are of the start; allow more time")
        return
    for member in members:
        least = float(np.nan_to_num(member.validation, nan=np.inf).min())
        if member.best_epoch < 0 and least > member.initial + yardstick.by_chance:
            warn_user(
                f"{who}: no epoch was better on the held-out part than the start, which is the result: its "
                f"{options.measure} was {member.initial:.6g}, and {least:.6g} at best afterwards. Lower the learning "
                "rate, or give a smaller model"
            )
            break
    if options.objective is not None:
        return
    epochs = len(members[0].validation)
    used_up = epochs >= MANY_EPOCHS and epochs > options.max_epochs - (options.patience or 0)  # else patience ended it
    falling = float(np.mean([falling_by(member.validation) for member in members])) if used_up else 0.0
    errors = [error_of_fall(member, yardstick.held_out.shape[-1]) for member in members]
    if falling > max(FALLING * yardstick.by_chance, SEEN * float(np.nan_to_num(errors).mean())):
        warn_user(
            f"{who}: the held-out loss was still falling, by {falling:.3g} nats from half to three quarters of the "
            f"{epochs} epochs; more epochs, such as max_epochs={2 * options.max_epochs}, may gain as much"
        )
    if gaussian is not None and best > gaussian + yardstick.by_chance:
        warn_user(
            f"{who}: the closed-form {yardstick.closed_form} is {best - gaussian:.3g} nats a row better on the held-out rows "
            f"than this model: {-gaussian:.4g} against {-best:.4g}. Train longer or at another learning rate, or give a model "
            "that suits the data: flows.select compares some, Gaussians among them"
        )


def falling_by(losses: list[float]) -> float:
    """The fall of the best loss, in nats, from half to three quarters of the epochs, where the rate has hardly been lowered.

    In 6 of 33 default fits it was above three times chance: 5 of these gained from twice the epochs, by 5 to 15 standard
    errors. Of the 21 fits that gained less than one standard error, one had such a fall.
    """
    best = np.minimum.accumulate(np.nan_to_num(losses, nan=np.inf, posinf=np.inf))
    early, late = best[len(best) // 2 - 1], best[3 * len(best) // 4 - 1]
    return float(early - late) if math.isfinite(early) else 0.0


def error_of_fall(member: Progress, rows: int) -> float:
    """The standard error of this fall over a number of rows, by differences of losses of the same rows. NaN if unknown."""
    if len(member.compared) < 2 or not rows:
        return math.nan
    early, late = map(np.array, member.compared[:2])
    change = (early - late)[np.isfinite(early) & np.isfinite(late)]
    return float(change.std() / math.sqrt(rows)) if len(change) else math.nan


def _carried(held_out: list[float], numbers: np.ndarray, source: str) -> str:
    """Return a warning if one held-out row decides the mean of all, else an empty string."""
    (mean, row, rest, share, *_), count = held_out, len(numbers)
    if share < DECIDING or mean - rest < WORTH or count < FEWEST_HELD_OUT:
        return ""
    return (
        f"row {numbers[int(row)]} of {source}, one of {count} held out, has log-density "
        f"{-(count * mean - (count - 1) * rest):.4g} and the mean of the others is {-rest:.4g}, so it decides the score. Do "
        "not trust the model that far out: look at the row, or give a base with tails, such as "
        "StudentT(trainable=True)"
    )


def error_of(members: list[Progress], i: int, cause: str, params: Any, options: Options) -> FitError:
    member, whose = members[i], "" if options.members is None else f" of member {i}"
    if member.start == math.inf:
        what = f"no {options.measure}{whose} is finite at the initial params"
        message = f"{options.caller}: {what}: {cause}. Expected {options.run.expected}"
    else:
        message = (
            f"{options.caller}: epoch {len(member.train) - 1}{whose} had to be undone, the last of {member.times_back}, though "
            f"the learning rate was lowered to a tenth each time: {cause}. Clip gradients, lower the rate further, or look "
            "there"
        )
    return FitError(message, params, history_of(members, options), cause)


def error_of_stream(error: Exception, params: Any, members: list[Progress], options: Options) -> FitError:
    cause = f"{type(error).__name__}: {error}" if not isinstance(error, FlowsError) else str(error)
    message = (
        f"{options.caller}: the data failed in epoch {len(members[0].train)}: {cause}. The error has "
        f"{'' if params is None else 'the best params before it in .params, and '}.history"
    )
    return FitError(message, params, history_of(members, options), cause)
