"""The last step before training: rows that `standardize.py` prepared get their model; values beyond its splines are told."""

import numpy as np

from flows.core import Array, warn_user
from flows.diagnostics.rows import spline_bound
from flows.training.data.angles import turn_of
from flows.training.data.facts import Facts
from flows.training.data.standardize import Prepared, prepare_folds
from flows.training.data.table import Split
from flows.training.options import Options

OUTSIDE = 0.01  # of the values: what may lie outside the splines' range


def prepare(split: Split, facts: Facts, options: Options, key: Array) -> Prepared:
    """Rows that were checked, as they are trained on; what lies outside the range of splines is told."""
    rows = with_model(prepare_folds(split, facts, options, key), split, facts, options)
    if options.standardize is False and facts.view.leading:  # these are pixels, which layers bring to the line
        return rows
    columns = ~facts.columns.curved
    bound = float("inf") if rows.trained_with_layers or not columns.any() else spline_bound(rows.model)
    values = np.abs(np.asarray(rows.train.x))[..., columns] if bound < float("inf") else np.zeros(1)
    if (outside := float((values > bound).mean())) > OUTSIDE:
        wide = float(np.quantile(values, 1 - OUTSIDE / 10))
        warn_user(
            f"fit: {outside:.1%} of the standardised values lie beyond +-{bound:g}, outside the range of the splines, "
            f"where these are the identity. Give a larger bound, such as {wide:.2g}, or a base with tails, such as "
            "StudentT(trainable=True)"
        )
    return rows


def with_model(rows: Prepared, split: Split, facts: Facts, options: Options) -> Prepared:
    """The rows with the turn of angles, and the model that is trained on them. Unless something else is asked, the base of a
    flow starts at the normal that its rows have, as layers without a network would leave them."""
    model = facts.view.rest
    if rows.pipeline.steps and options.standardize is True and options.objective is None:
        model = facts.view.started(rows.pipeline.shrinkage or None)
    return rows._replace(turn=turn_of(facts.view.region, split), model=model)
