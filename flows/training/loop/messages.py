"""The end of a training: its history, its warnings, the errors that carry the best params, and the cause of a value that is not
finite: the row and the column, the layer, or the params."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.compose import first_nonfinite_layer
from flows.core import Array, DistributionPart, FitError, FlowsError, pieces_of, stop_fixed, warn_user
from flows.results.history import History
from flows.training.data.gaussian import Yardstick
from flows.training.data.table import Rows, Table, floating, take
from flows.training.loop.progress import Progress
from flows.training.options import Options

UNJUDGED = Yardstick()
DECIDING = 0.8  # of the squared deviations of the held-out rows from their mean: from this share one row decides it
WORTH = 0.5  # nats by which the loss is less without this row, at least
FEWEST_HELD_OUT = 20  # held-out rows, below which one row may well decide
MANY_EPOCHS = 40  # epochs, from which a fit can be said to have been too short
FALLING = 3.0  # times chance: with a larger fall of the loss, the fit was too short
SHOWN = 3  # leaves that are named
TOO_LARGE = "losses and gradients are finite, but the updates of the optimizer are too large"
SEEN = 2.0  # standard errors of the loss, below which a gain would not show
TOLD = {  # names in a history, and in the progress of a member
    "train_loss": "train",
    "validation_loss": "validation",
    "skipped": "skipped",
    "best_epoch": "best_epoch",
    "start_loss": "initial",
}


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


def cause(
    part: DistributionPart, params: Any, table: Table, train: bool, key: Array, deviations: Callable[[Array], Any]
) -> str:
    """Return where log_pdf, or its gradient in training, is not finite among rows; `deviations` gives the columns of rows in
    standard deviations from the means."""
    rows, rng = floating(table.rows), key if "rng" in part.keywords else None

    def log_pdf(params: Any, rows: Rows) -> Array:
        return part.log_pdf(stop_fixed(params), rows.x, rows.context, rng, train)

    pieces = [take(rows, piece) for piece in pieces_of(len(rows.x), rows.x.shape[1:])]
    values = np.concatenate([np.asarray(log_pdf(params, piece), float) for piece in pieces])
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        one = take(rows, bad[:1])
        layer = first_nonfinite_layer(lambda: log_pdf(params, one))
        flat = deviations(one.x).reshape(-1, one.x.shape[-1])
        far = np.unravel_index(np.abs(flat).argmax(), flat.shape)
        where = f", which {layer} is the first to return" if layer else ""
        return (
            f"log_pdf is {values[bad[0]]} at row {table.numbers[bad[0]]} of {table.source}{where}; of the row's columns, "
            f"{far[1]} is farthest out: {flat[far]:.3g} standard deviations from the mean"
        )
    if not train:
        return TOO_LARGE
    gradient = jax.grad(lambda params: -log_pdf(params, rows).mean())(params)
    leaves = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not bool(jnp.isfinite(leaf).all())
    ]
    if leaves:
        more = f" and {len(leaves) - SHOWN} more" if len(leaves) > SHOWN else ""
        return f"the gradient is not finite in {', '.join(leaves[:SHOWN])}{more}"
    return TOO_LARGE
