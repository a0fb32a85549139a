"""Is a layer really a bijection? `verify` checks it property by property. What does a model say of images? Are rows like draws
of a model? Statistics of arrays answer this without the model."""

from flows.diagnostics.calibration import Coverage, Sbc, coverage, crps, sbc, tarp
from flows.diagnostics.chains import effective_draws, rhat
from flows.diagnostics.classifier import Classified, classifier_two_sample
from flows.diagnostics.images import Bits, bits_per_dim, typicality
from flows.diagnostics.trial import Trial, enable_x64
from flows.diagnostics.two_samples import (
    Correlations,
    Counts,
    Energy,
    Nearest,
    code_counts,
    correlations,
    energy_distance,
    holm,
    nearest_rows,
)
from flows.diagnostics.uniformity import Band, Uniformity, ecdf_band, ranks, uniformity
from flows.diagnostics.verify import Property, VerifyReport, verify

__all__ = [
    "Band",
    "Bits",
    "Classified",
    "Correlations",
    "Counts",
    "Coverage",
    "Energy",
    "Nearest",
    "Property",
    "Sbc",
    "Trial",
    "Uniformity",
    "VerifyReport",
    "bits_per_dim",
    "classifier_two_sample",
    "code_counts",
    "correlations",
    "coverage",
    "crps",
    "ecdf_band",
    "effective_draws",
    "enable_x64",
    "energy_distance",
    "holm",
    "nearest_rows",
    "ranks",
    "rhat",
    "sbc",
    "tarp",
    "typicality",
    "uniformity",
    "verify",
]
