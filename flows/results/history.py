"""Reports of a fit: to callbacks after each epoch, and as the history of losses at the end."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flows.core import Distribution
from flows.results.pictures.style import colours, styled

GREY = "#a0a0a0"  # of losses by which a fit is not judged


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

    interrupted: bool
    objective: str | None

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
    def best(self) -> float:
        """The validation loss of the best epoch, or of the start; for an ensemble the mean over members."""
        losses, best = np.atleast_2d(self["validation_loss"]), np.atleast_1d(self["best_epoch"])
        starts = np.broadcast_to(self.get("start_loss", np.nan), best.shape)
        return float(np.mean([curve[i] if i >= 0 else start for curve, i, start in zip(losses, best, starts, strict=True)]))

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
        axes.set(xlabel="epoch", ylabel="loss, nats a row" if self.objective is None else self.objective)
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
            raise ImportError("TensorBoard needs the package tensorboardX: pip install 'jax-flows[tensorboard]'") from error
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
