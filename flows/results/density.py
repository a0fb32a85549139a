"""The result of a fit to a density: how far its importance weights can be believed."""

from typing import Any, NamedTuple

import numpy as np

from flows.objectives.importance import Estimate
from flows.results.result import FitResult

DIAGNOSTICS = "diagnostics"  # how their tensor in a file is called


class Diagnostics(NamedTuple):
    """What the importance weights w = p Z / q of draws of the fitted q say about the fit.

    Attributes:
        effective_sample_size: how many draws of p itself would do as well, as a share of those drawn.
        log_normalizer: `value` and `standard_error` of log Z, in nats.
        pareto_k: up to 0.7 these figures can be believed; above, q misses too much of p.
        num_samples: draws.
    """

    effective_sample_size: float
    log_normalizer: Estimate
    pareto_k: float
    num_samples: int


class DensityFitResult(FitResult):
    """A distribution fitted to a density, `params, log_pdf, sample = result`.

    Attributes:
        diagnostics: a `Diagnostics`.
        history: "train_loss" and "validation_loss", KL(q || p) - log Z after each epoch, in nats, and as of `FitResult`.
    """

    diagnostics: Diagnostics

    def _beside(self) -> dict[str, Any]:
        found, log_z = self.diagnostics, self.diagnostics.log_normalizer
        numbers = [found.effective_sample_size, *log_z, found.pareto_k, found.num_samples]
        return {**super()._beside(), DIAGNOSTICS: np.array(numbers, np.float64)}

    def _summary(self) -> list[tuple[str, str]]:
        found, log_z = self.diagnostics, self.diagnostics.log_normalizer
        told = f"effective sample size {found.effective_sample_size:.3f}, log Z {log_z.value:.4f} +- {log_z.standard_error:.4f}"
        return [*super()._summary(), ("  diagnostics", told)]
