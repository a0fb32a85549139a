"""Training: `fit`, which people would otherwise write themselves."""

from flows.training.fit import FitResult, fit

__all__ = ["FitResult", "fit"]
