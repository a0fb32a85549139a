"""Reports of a fit: to callbacks after each epoch; as the history of losses at the end; and as a result in words, the lines of
its repr, and the same as HTML in a notebook, with the curve of its losses, without any library."""

import html
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.bijections.whiten import Whiten
from flows.core import Distribution, DistributionInit, ModelValue, Shape, as_event, lacking
from flows.results.pictures.axes import colours, styled

GREY = "#a0a0a0"  # of losses by which a fit is not judged
ROW_COUNTS = "rows", "held_out", "groups", "order", "unscored"  # numbers of a fit; the last three with `groups=` or `order=`
# summary
OF_LABELS = {
    "unbiased": "exact without rng, an unbiased estimate with rng",
    "lower bound": "a lower bound with rng; without, by one draw for all rows, or at the recorded value",
}
REGRESSED = "a linear regression on earlier columns is subtracted from"
SHOWN = 6  # columns that are named
BY_HEART = 0.7  # nats a row; at a gap of 2.5, 62% of draws were nearer to a training row than to a row held out, and not 50%
WIDTH = 420  # of the picture, in pixels
HEIGHT = 160  # of the picture, in pixels
ROOM = 6  # around the curves, in pixels
COLORS = {"train_loss": "#b0b0b0", "validation_loss": "#2166ac"}
MARK = "display:inline-block; width:1em; height:3px; vertical-align:middle; background:"  # next to a name, which stays legible


class Epoch(NamedTuple):
    """The report that a callback of `flows.fit` gets after each epoch. Losses are in nats a row, in the units of the data; with
    another objective they are its values.

    Attributes:
        number: the number of the epoch, from 0.
        max_epochs: the argument of `fit`.
        train_loss, validation_loss: losses of this epoch; for an ensemble one for each member, as in the next three fields.
        skipped: the number of steps that were not taken.
        best_epoch: the epoch with the best validation loss so far, -1 while the start is the best.
        rate: the share of the learning rate in use, below 1 after skipped steps.
        seconds: the time since the fit began.
        best_params: a function without arguments that returns the params of best_epoch, as the fitted model has them; call it
            before the callback returns.
        best: a function like best_params that returns the fitted triple so far, `params, log_pdf, sample = epoch.best()`, to
            draw from or to score with while training continues.
    """

    number: int
    max_epochs: int
    train_loss: Any
    validation_loss: Any
    skipped: Any
    best_epoch: Any
    rate: Any
    seconds: float
    best_params: Callable[[], Any]
    best: Callable[[], Distribution]


class History(dict):
    """The losses of a fit, a dict of arrays, and their picture. A loss is minus the mean log-likelihood, in nats a row, unless
    the fit minimised another objective.

    Attributes:
        interrupted: whether Ctrl-C ended the fit.
        objective: the name of the objective, None for the likelihood.
    """

    def __init__(self, arrays: Any = (), *, interrupted: bool = False, objective: str | None = None):
        super().__init__(arrays)
        self.interrupted, self.objective = interrupted, objective

    def __missing__(self, name: str) -> Any:
        raise KeyError(f"the history has no {name!r}; it has {', '.join(self) or 'nothing'}")

    @property
    def unit(self) -> str:
        """The unit of the losses."""
        return "nats a row" if self.objective is None else self.objective

    @property
    def _label(self) -> str:
        """The label of the losses; a fit to a density validates in nats whatever it minimises."""
        if self.objective is None:
            return "loss, nats a row"
        return self.objective if "held_out" in self else f"{self.objective} (train), nats (validation)"

    @property
    def best(self) -> float:
        """The validation loss of the best epoch, or of the start; for an ensemble the mean over members."""
        return self.at_best("validation_loss", self.get("start_loss", np.nan))

    def at_best(self, name: str, start: Any = np.nan) -> float:
        """The loss of this name at the best epoch, `start` where that is the start; the mean over members."""
        best = np.atleast_1d(self["best_epoch"])
        losses = zip(np.atleast_2d(self[name]), best, np.broadcast_to(start, best.shape), strict=True)
        return float(np.mean([curve[i] if i >= 0 else loss for curve, i, loss in losses]))

    def plot(self, axes: Any = None) -> Any:
        """Draw the losses by epoch, with the best one marked; needs matplotlib.

        Args:
            axes: matplotlib Axes to draw on; by default new ones.

        Returns:
            The Axes.

        Errors:
            ImportError: matplotlib is not installed.
        """
        if axes is None:
            with styled() as plt:
                return self.plot(plt.subplots(figsize=(6, 4))[1])
        validation = np.atleast_2d(self["validation_loss"])
        train = np.atleast_2d(self.get("train_loss", np.full_like(validation, np.nan)))  # a stack has none
        best = np.atleast_1d(self["best_epoch"])
        many, shown = len(train) > 1, colours()
        for i in range(len(train)):
            label = [None] * 3 if i else ["train", "validation", "best"]
            axes.plot(train[i], color=GREY, linewidth=0.8 if many else 1.5, label=label[0])
            axes.plot(validation[i], color=shown.rows, linewidth=0.8 if many else 1.5, label=label[1])
            if best[i] >= 0:
                axes.plot(best[i], validation[i, best[i]], "o", color=shown.draws, markersize=4 if many else 6, label=label[2])
        if "gaussian_loss" in self:
            at = float(self["gaussian_loss"])  # often far above the curves
            axes.axhline(at, color=shown.third, linewidth=1.0, linestyle="--", label=f"closed-form Gaussian, {at:.2f}")
        if (ends := ends_of_curves(train, validation)) is not None:
            low, high = ends
            room = 0.05 * (high - low) or 0.05
            axes.set_ylim(low - room, high + 2 * room)
        if axes.get_xscale() == "linear":
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel=self._label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        return axes


def ends_of_curves(*curves: np.ndarray) -> tuple[float, float] | None:
    """Return the least loss, and a loss that few exceed: the first epochs are far above all others, which would be a flat line.
    None where no loss is finite."""
    losses = np.concatenate([curve.ravel() for curve in curves]) if curves else np.zeros(0)
    losses = losses[np.isfinite(losses)]
    return (float(losses.min()), float(np.quantile(losses, 0.95))) if len(losses) else None


class TensorBoard:
    """A callback of `flows.fit` that writes losses, skipped steps and Epoch.rate for TensorBoard; needs tensorboardX.

    It writes every few seconds, and at `close()` or the end of the process.

    Args:
        folder: the folder for the event file.

    Errors:
        ImportError: tensorboardX is not installed.

    Example:
        >>> import flows
        >>> callbacks = [flows.training.TensorBoard("runs/first")]  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(lacking("TensorBoard", "tensorboardX", "tensorboard")) from error
        self.writer = SummaryWriter(os.fspath(folder), flush_secs=5)

    def __call__(self, epoch: Epoch) -> None:
        for name in ("train_loss", "validation_loss", "skipped", "rate"):
            values = np.atleast_1d(getattr(epoch, name))
            for i, value in enumerate(values):
                member = f"/member {i}" if len(values) > 1 else ""
                self.writer.add_scalar(f"{name}{member}", float(value), epoch.number)

    def close(self) -> None:
        """Write the rest of the losses, as the end of the process also does."""
        self.writer.close()


def summary(result: Any) -> list[tuple[str, str]]:
    """Return the lines of a result's repr: names and texts."""
    history, shape = result.history, as_event(result.input_dim)
    names = "" if result.columns is None else f" ({', '.join(result.columns[:4])}{', ...' * (len(result.columns) > 4)})"
    event = f"{shape[0]} column{'s' * (shape[0] != 1)}{names}" if len(shape) == 1 else f"events {shape}"
    lines = [(type(result).__name__, f"{int(history['rows']):,} rows of {event}" if "rows" in history else event)]
    lines.append(("  model", f"{result.init_fun!r:.100}{'...' * (len(repr(result.init_fun)) > 100)}"))
    if freed := freed_columns(result.init_fun, shape, result.columns):
        lines.append(("  columns", freed))
    if isinstance(result.init_fun, ModelValue) and result.init_fun.likelihood != "exact":
        lines.append(("  likelihood", OF_LABELS[result.init_fun.likelihood]))
    if "orders" in history:
        differs = f"log p by two orders of the columns differs by {float(history['orders']):.3f} nats on average"
        lines.append(("  orders", f"{differs}; gaps are taken to be at random"))
    if "validation_loss" in history:
        lines.append(("  fit", judged(history)))
        if "gaussian_loss" in history:
            lines.append(("  Gaussian", f"log-likelihood {-float(history['gaussian_loss']):.3f}, of the same rows"))
        lines += [("  by heart", text) for text in by_heart(history)]
        lasted = "" if result.seconds is None else f", {result.seconds:.1f} s"
        if "stacked" in history:
            together = " together" if lasted else ""
            return [*lines, ("  training", f"a stack of {int(history['stacked'])} models{lasted}{together}")]
        epochs, which = np.shape(history["validation_loss"])[-1], sorted(set(np.ravel(history["best_epoch"]).tolist()))
        number = " to ".join(map(str, which[:1] + which[1:][-1:]))
        outcome = f"best epoch {number} of {epochs}" if which[-1] >= 0 else f"kept the start, of {epochs} epochs"
        lines.append(("  training", outcome + lasted))
    return lines


def judged(history: Any) -> str:
    """Return the validation loss of the best epoch in words, with the number of its rows."""
    best, error = history.best, float(np.mean(history.get("error", np.nan)))
    if "held_out" not in history:  # a fit to a density
        by = "" if history.objective is None else f" by {history.objective}"
        return f"loss {best:.3f} nats{by}"
    spread = f" +- {error:.3f}" if np.isfinite(error) else ""
    value = f"log-likelihood {-best:.3f}{spread} nats" if history.objective is None else f"{history.objective} {best:.4g}"
    weighed = f", as good as {float(history['effective']):,.0f} of equal weight" if "effective" in history else ""
    last, groups = "the last " * ("order" in history), f" of {int(history.get('groups', 0)):,} groups" * ("groups" in history)
    others = f", {int(history.get('unscored', 0)):,} others unscored, as folds are of one size" * bool(history.get("unscored"))
    return f"{value}, of {last}{int(history['held_out']):,} rows{groups} held out{others}{weighed}"


def by_heart(history: Any) -> list[str]:
    """Return a warning in words where rows of the training score far above rows held out; nothing elsewhere."""
    trained = history.get("trained_loss")
    if trained is None and history.objective is None and {"held_out", "train_loss"} <= history.keys():
        trained = history.at_best("train_loss")  # before the steps of the epoch were taken, so rather too high
    gap = 0.0 if trained is None else history.best - float(trained)
    text = f"training rows score {gap:.1f} nats above rows held out: draws may repeat them; flows.check(train=) tells"
    return [text] if gap > BY_HEART and "order" not in history else []  # the last rows may be others


def freed_columns(init_fun: Any, event: Shape, names: Sequence[str] | None) -> str:
    """Return in words the columns from which a model subtracts their regression on earlier columns, or ""."""
    within = [init_fun, *init_fun.values_within()] if isinstance(init_fun, DistributionInit) else []
    layers = [value.arguments for value in within if value.constructor is Whiten]
    if not layers or len(event) != 1:
        return ""
    stay = {0}.union(set.intersection(*({*arguments["unmixed"], *arguments["as_is"]} for arguments in layers)))
    freed = [repr(names[j]) if names else str(j) for j in range(event[0]) if j not in stay]
    few = f"column{'s' * (len(freed) > 1)} {', '.join(freed)}" if len(freed) <= SHOWN else f"{len(freed)} columns"
    return f"{REGRESSED} {'each' if len(freed) == event[0] - 1 else few}" if freed else ""


def page_of(lines: Sequence[tuple[str, str]], history: Any) -> str:
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name.strip())}</th>'
        f'<td style="text-align:left">{html.escape(text)}</td></tr>'
        for name, text in lines
    )
    return f"<div><table>{rows}</table>{_curve(history)}</div>"


def _curve(history: Any) -> str:
    """Return the losses by epoch as an SVG, cut where the first epochs are far above all others; "" without losses."""
    losses = {name: np.atleast_2d(np.asarray(history[name], float)) for name in COLORS if name in history}
    ends = ends_of_curves(*losses.values())
    epochs = max((array.shape[1] for array in losses.values()), default=0)
    if epochs < 2 or ends is None:
        return ""
    low, high = ends
    high += (high - low) / 10 or 0.1

    def line(values: np.ndarray, color: str) -> str:
        wide, tall = (WIDTH - 2 * ROOM) / (epochs - 1), (HEIGHT - 2 * ROOM) / (high - low)
        points = [
            f"{ROOM + wide * i:.1f},{ROOM + tall * (high - value):.1f}"
            for i, value in enumerate(np.minimum(values, high))
            if math.isfinite(value)
        ]
        return f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="1.5"/>'

    curves = "".join(line(values, COLORS[name]) for name, array in losses.items() for values in array)
    key = ", ".join(f'<span style="{MARK}{COLORS[name]}"></span> {name.replace("_", " ")}' for name in losses)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%" role="img" '
        f'aria-label="losses by epoch">{curves}</svg>'
        f"<div>{key}: {history.unit} by epoch, from {low:.3f} to {high:.3f}</div>"
    )
