"""Facts of the rows and the model before anything is prepared. Most faults are refused here, in this order: points that the
model does not take, folds, columns, noise that would be added twice, ends of a support.
"""

from typing import NamedTuple

import jax

from flows.bijections.dequantize import Dequantize
from flows.core import Array, Given, refuse_closures, warn_user
from flows.training.data.angles import check_points, check_turns
from flows.training.data.box import box_layer, check_ends_are_near, check_noise_once
from flows.training.data.columns import ColumnFacts, check_data
from flows.training.data.table import Split
from flows.training.model_view import Layers, ModelView, has_flow, num_trained
from flows.training.options import FEW, FOLDS, Options


class Facts(NamedTuple):
    """Facts of the rows and of the model."""

    view: ModelView
    columns: ColumnFacts  # what the checks found
    folds: int = 1  # over how many models are averaged

    @property
    def first(self) -> Layers:
        """The layers that rows go through before they are standardised: noise and a box that were asked for, then the model's
        own."""
        steps, ends = self.columns.steps, self.columns.ends
        noise = () if steps is None else (Dequantize(tuple(steps)),)
        box = () if ends is None else (box_layer(ends, steps),)
        return (*noise, *box, *self.view.first)


def check(view: ModelView, split: Split, options: Options, key: Array) -> Facts:
    """Check what was read, for a model."""
    check_points(view, split, options.caller)
    folds, table = folds_of(view, split, options, key), split.train
    if folds > 1:
        split.check_folds(folds)
    columns = check_data(split if folds == 1 else split.unsplit(options), options, view)
    check_noise_once(view, table.labels, columns.ends, columns.steps, options.caller)
    check_ends_are_near(table, view.first, columns.ends)
    check_turns(view.region, table, options.caller)
    return Facts(view, columns, folds)


def of_candidate(view: ModelView, split: Split, columns: ColumnFacts, options: Options, folds: int) -> Facts:
    """Check a model of several, for rows that were checked without any."""
    check_points(view, split, options.caller)
    if (curved := view.curved).any():
        columns = columns._replace(as_is=columns.as_is | curved, judged=columns.judged & ~curved, curved=curved)
    check_noise_once(view, split.train.labels, columns.ends, columns.steps, options.caller)
    if folds > 1:
        one = "(give rows as validation= for one model)"
        refuse_closures(view.rest_part, f"{folds} models of folds are to be trained as one {one}")
    return Facts(view, columns, folds)


def folds_of(view: ModelView, split: Split, options: Options, key: Array) -> int:
    """Over how many folds models are averaged: by default where few rows have to train more numbers than they are."""
    if options.folds is not None or options.validation is not None or split.stream is not None:
        return options.folds or 1
    rows = len(split.numbers())
    if rows >= FEW or rows < 2 * FOLDS or not has_flow(view.rest) or view.rest.likelihood == "lower bound":
        return 1
    part = view.rest_part
    if closures := part.closures:
        warn_user(
            f"{options.caller}: on {rows} rows {FOLDS} models are better than one, but {view.rest!r:.80} has "
            f"{closures[0].kind} in it, so one is trained. {closures[0].remedy.partition(',')[0]}"
        )
        return 1
    return FOLDS if num_trained(jax.eval_shape(lambda: part.init(key, Given()))) > rows else 1
