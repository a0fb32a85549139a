"""Has the model learnt its training rows by heart, and are rows among them?"""

from typing import Any

import numpy as np

from flows.checks.features import features
from flows.checks.sample import Sample, flat
from flows.checks.verdicts import Finding
from flows.diagnostics import nearest_rows
from flows.diagnostics.arrays import LEAST, chosen

MOST = 2_000  # rows, and draws, whose nearest training row is found
NAMED = 5  # rows that are named


def copies(sample: Sample) -> Finding:
    """Distances to the nearest training row: of draws, beside those of rows."""
    if sample.train is None:
        return Finding("train= was not given")
    train, context = sample.train
    if len(train) < LEAST:
        return Finding(f"{len(train)} training rows; at least {LEAST} are enough to be near to")
    random = sample.random(15)
    there = [chosen(np.arange(len(each)), MOST, random) for each in (sample.rows, sample.ones)]
    samples = sample.rows[there[0]], sample.ones[there[1]], train
    _, seen = features(sample.columns, *samples)
    if sample.conditional:
        contexts = flat(sample.contexts)
        seen = [np.concatenate(each, 1) for each in zip(seen, (contexts[there[0]], contexts[there[1]], context), strict=True)]
    if not seen[0].shape[1]:
        return Finding("no column that varies")
    told = nearest_rows(*seen)
    copied = int(np.isin(_keys(samples[1]), _keys(train)).sum())
    equal = f"; {copied:,} of {len(samples[1]):,} draws are training rows" if copied else ""
    return Finding(
        f"draws are nearer to a training row than rows are in {told.size + 0.5:.1%} of pairs{equal}",
        max(told.size, 0.0),
        told.p,
    )


def known(sample: Sample) -> tuple[np.ndarray, float]:
    """Tell which of all rows are in the training rows, their contexts too; and the share of draws that are, as codes and
    rounded numbers may be by chance."""
    if sample.train is None:
        return np.zeros(0, int), 0.0
    (train, context), rows, draws = sample.train, flat(sample.all_rows), sample.ones
    if sample.conditional:
        rows, train = np.concatenate([rows, flat(sample.all_contexts)], 1), np.concatenate([train, context], 1)
        draws = np.concatenate([draws, flat(sample.contexts)], 1)
    seen = _keys(train)
    return np.flatnonzero(np.isin(_keys(rows), seen)), float(np.isin(_keys(draws), seen).mean()) if len(draws) else 0.0


def _keys(rows: Any) -> np.ndarray:
    """Rows as values that are equal where rows are, in float32."""
    plain = np.ascontiguousarray(rows, np.float32) + np.float32(0)  # -0 is 0
    return plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()
