"""What a fit returns."""

from typing import Any

from flows.core import Distribution
from flows.core.contract import DistributionLike
from flows.training.history import History


class FitResult(Distribution):
    """A fitted distribution, `params, log_pdf, sample = result`, and the history of its fit.

    Attributes:
        init_fun: the fitted model as a constructor's value, with its standardisation inside.
        input_dim, context_dim: what init_fun was called with.
        history: "train" and "validation", the loss after each epoch (minus the mean log_pdf, nats a row, original units), and
            "best_epoch", counted from 0, whose params these are; "skipped", how many steps of each epoch were not taken. A
            dict that draws itself: `history.plot()`. `history.interrupted` is whether Ctrl-C ended the fit.
    """

    init_fun: DistributionLike
    input_dim: Any
    context_dim: Any
    history: History

    def __new__(cls, params, log_pdf, sample, init_fun=None, input_dim=None, context_dim=0, history=None):
        self = super().__new__(cls, params, log_pdf, sample)
        self.init_fun, self.input_dim, self.context_dim, self.history = (
            init_fun,
            input_dim,
            context_dim,
            History() if history is None else history,
        )
        return self

    def __repr__(self) -> str:
        best = self.history.get("best_epoch")
        epochs = "" if best is None else f", epoch {best}: {self.history['validation'][best]:.4f} nats"
        return f"{type(self).__name__}({self.init_fun!r}{epochs})"

    def save(self, path: Any, metadata: dict | None = None) -> None:
        """Write the model to one file, for `flows.load(path)`."""
        from flows.persistence import save

        save(path, self.init_fun, self.params, self.input_dim, self.context_dim, metadata)
