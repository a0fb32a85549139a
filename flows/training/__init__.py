"""Training: `fit` and its relatives `fit_ensemble`, `select` and `fit_to_density`."""

from flows.results import DensityFitResult, Diagnostics, EnsembleResult, Epoch, FitResult, History, TensorBoard
from flows.training.comparison import Candidate
from flows.training.data.table import DataWarning
from flows.training.density.variational import fit_to_density
from flows.training.evidence import Evidence, evidence
from flows.training.fit import fit, fit_ensemble
from flows.training.select import Selection, select

__all__ = [
    "Candidate",
    "DataWarning",
    "DensityFitResult",
    "Diagnostics",
    "EnsembleResult",
    "Evidence",
    "Epoch",
    "FitResult",
    "History",
    "Selection",
    "TensorBoard",
    "evidence",
    "fit",
    "fit_ensemble",
    "fit_to_density",
    "select",
]
