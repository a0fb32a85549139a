"""The last step before training: `standardize.py` prepares the rows, and this file gives a flow the base that fits them. It
warns where values lie outside the range of the model's splines.
"""

from typing import Any

import numpy as np

from flows.core import Array, warn_user
from flows.diagnostics.rows import spline_bound
from flows.training.data.angles import turn_of
from flows.training.data.base import from_gaussian
from flows.training.data.facts import Facts
from flows.training.data.standardize import Prepared, prepare_folds
from flows.training.data.table import Split
from flows.training.options import Options

OUTSIDE = 0.01  # of the values: what may lie outside the splines' range


def prepare(split: Split, facts: Facts, options: Options, key: Array) -> Prepared:
    """Rows that were checked, as they are trained on; what lies outside the range of splines is told."""
    rows = with_model(prepare_folds(split, facts, options, key), split, facts, options)
    if options.standardize is not False or not facts.view.leading:  # else these are pixels, which layers bring to the line
        warn_of_range(rows.model, rows, ~facts.columns.curved)
    return rows


def with_model(rows: Prepared, split: Split, facts: Facts, options: Options) -> Prepared:
    """The rows with the model that is trained on them, whose base may start at what was measured, and the turn of angles."""
    return rows._replace(turn=turn_of(facts.view.region, split), model=from_gaussian(facts.view.rest, rows, options))


def warn_of_range(model: Any, rows: Prepared, columns: np.ndarray) -> None:
    """Say where more than a hundredth of the values lie outside the splines' range, where they are the identity."""
    bound = float("inf") if rows.trained_with_layers or not columns.any() else spline_bound(model)
    values = np.abs(np.asarray(rows.train.x))[..., columns] if bound < float("inf") else np.zeros(1)
    outside = float((values > bound).mean())
    if outside > OUTSIDE:
        wide = float(np.quantile(values, 1 - OUTSIDE / 10))
        warn_user(
            f"fit: {outside:.1%} of the standardised values lie beyond +-{bound:g}, outside the range of the splines, "
            f"where these are the identity. Give a larger bound, such as {wide:.2g}, or a base with tails, such as "
            "StudentT(trainable=True)"
        )
