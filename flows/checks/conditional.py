"""Is each row like draws given its own context? Of posteriors, and of all models with a context."""

import numpy as np

from flows.checks.features import features
from flows.checks.sample import EACH, Sample, flat
from flows.checks.verdicts import Finding
from flows.diagnostics import sbc
from flows.diagnostics import tarp as tarp_of


def ranks(sample: Sample) -> Finding:
    """Ranks of rows among their own draws, of all rows and of slices of each column of the context."""
    if not sample.conditional:
        return Finding("the model has no context, or rows share theirs: see columns")
    names, rows, draws = _numbers(sample)
    told = sbc(rows, draws, context=flat(sample.contexts), rng=sample.key(20))
    where = "all rows" if told.part is None else f"slice {told.part[1]} of context column {told.part[0]}"
    return Finding(f"Kolmogorov distance of the ranks of {names[told.column]}, {where}", told.size, told.p)


def tarp(sample: Sample) -> Finding:
    """Balls around points of reference hold rows as often as draws."""
    if not sample.conditional:
        return Finding("the model has no context, or rows share theirs: see energy and classifier")
    _, rows, draws = _numbers(sample)
    told = tarp_of(rows, draws, context=flat(sample.contexts), rng=sample.key(21))
    return Finding(f"largest error of coverage, of balls around points of reference, {EACH} draws a row", told.size, told.p)


def _numbers(sample: Sample) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Rows and their draws with angles and codes as numbers."""
    names, (rows, draws) = features(sample.columns, sample.rows, sample.draws)
    return names, rows, draws
