"""Results of fits and of files: `result.py` has their methods, `frames.py` keeps names of columns."""

from flows.results.density import DensityFitResult, Diagnostics
from flows.results.ensemble import EnsembleResult
from flows.results.files import load
from flows.results.history import Epoch, History, TensorBoard
from flows.results.result import FitResult

__all__ = ["DensityFitResult", "Diagnostics", "EnsembleResult", "Epoch", "FitResult", "History", "TensorBoard", "load"]
