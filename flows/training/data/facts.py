"""What the rows and the model tell before anything is prepared: first layers, number of folds, where points live, columns.
Most of what is wrong is refused here, in this order; noise that would be added twice and ends of a support come last.
"""

from typing import Any, NamedTuple

import jax

from flows.bijections.dequantize import Dequantize
from flows.core import (
    OF_BLOCKS,
    Array,
    BijectionInit,
    DistributionInit,
    FlowsError,
    Given,
    Region,
    distribution_part,
    is_flow,
    refuse_closures,
    structure_of,
    trainable,
    traits_by,
    warn_user,
)
from flows.training.data.columns import ColumnFacts, check_data
from flows.training.data.support import (
    box_layer,
    check_degrees,
    check_ends_are_near,
    check_noise_once,
    coded_columns,
    curved_columns,
    own_noise,
    region_of,
    split_off,
    tell_of_curved,
)
from flows.training.data.table import Split, Table
from flows.training.options import FEW, FOLDS, Options


class Facts(NamedTuple):
    """What is known of the rows and of the model.

    Attributes:
        model: what is left of it behind its first layers.
        first: the layers that rows go through before they are standardised: noise and a box that were asked for, and first
            layers of the model.
        leading: the model's first layers, also where nothing is standardised, so that rows do not go through them.
        columns: what the checks found.
        region: where points of the model live, as far as that is told.
        folds: over how many models are averaged.
        mixing: whether each column is freed of all before it.
    """

    model: Any
    first: tuple[BijectionInit, ...]
    leading: tuple[BijectionInit, ...]
    columns: ColumnFacts
    region: Region | None
    folds: int
    mixing: bool


def check(init_fun: Any, split: Split, options: Options, key: Array) -> Facts:
    """Check what was read, for a model."""
    table = split.train
    layers, model = own_layers(init_fun, table, options)
    within = [model, *model.values_within()] if isinstance(model, DistributionInit) else []
    clusters = any(structure_of(value).order == "mixture" or traits_by(value).clusters for value in within)
    folds = folds_of(model, split, options, key)
    region = region_of(init_fun, table)
    curved = curved_columns(region, split)
    leading = layers if options.standardize is not False else _leading_layers(init_fun, table)
    noisy = own_noise(init_fun, len(table.labels))
    if folds > 1:
        split.check_folds(folds)
    whole = split if folds == 1 else split.unsplit(options)
    columns = check_data(whole, options, leading, clusters, curved, noisy, coded_columns(region, len(table.labels)))
    check_noise_once(init_fun, table.labels, columns.ends, columns.steps, options.caller)
    check_ends_are_near(table, layers, columns.ends)
    tell_of_curved(curved, region, table, options.caller)
    return Facts(model, _first_layers(columns, layers), leading, columns, region, folds, mixing_of(model, options))


def facts_of_candidate(init_fun: Any, split: Split, columns: ColumnFacts, options: Options, folds: int) -> Facts:
    """Those of one model among several, for rows that were checked without any."""
    table = split.train
    layers, model = own_layers(init_fun, table, options)
    region = region_of(init_fun, table)
    curved = curved_columns(region, split)
    check_noise_once(init_fun, table.labels, columns.ends, columns.steps, options.caller)
    columns = columns.left_curved(curved) if curved.any() else columns
    if folds > 1:
        what = f"{folds} models of folds are to be trained as one (give rows as validation= for one model)"
        refuse_closures(distribution_part(model, table.event, table.context_event), what)
    return Facts(model, _first_layers(columns, layers), layers, columns, region, folds, mixing_of(model, options))


def _first_layers(columns: ColumnFacts, layers: tuple[BijectionInit, ...]) -> tuple[BijectionInit, ...]:
    """Those that rows go through: noise and a box that were asked for, then the model's own."""
    noise = () if columns.steps is None else (Dequantize(tuple(columns.steps)),)
    box = () if columns.ends is None else (box_layer(columns.ends, columns.steps),)
    return (*noise, *box, *layers)


def folds_of(model: Any, split: Split, options: Options, key: Array) -> int:
    """Over how many folds models are averaged: by default where few rows have to train more numbers than they are."""
    if options.folds is not None or options.validation is not None or split.stream is not None:
        return options.folds or 1
    rows, table = len(split.numbers()), split.train
    if rows >= FEW or rows < 2 * FOLDS or not has_flow(model) or model.likelihood == "lower bound":
        return 1
    part = distribution_part(model, table.event, table.context_event)
    if part.closures:
        warn_user(
            f"{options.caller}: on {rows} rows {FOLDS} models are better than one, but {model!r:.80} has a plain closure in "
            "it, so one is trained. Make it a constructor with @flows.bijection"
        )
        return 1
    return FOLDS if num_trained(jax.eval_shape(lambda: part.init(key, Given()))) > rows else 1


def num_trained(params: Any) -> int:
    """How many numbers are trained."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trainable(params)), strict=True)
    return sum(int(leaf.size) for leaf, trains in pairs if trains)


def own_layers(init_fun: Any, table: Table, options: Options) -> tuple[tuple[BijectionInit, ...], Any]:
    """The layers of a model that the rows go through before they are standardised, and the model that is left."""
    check_degrees(init_fun, table, options.caller)
    if options.standardize is False:
        return (), init_fun
    return split_off(init_fun, table.event, table.context_event)


def _leading_layers(init_fun: Any, table: Table) -> tuple[BijectionInit, ...]:
    """Those that the rows would go through before they were standardised, which they are not; none where that cannot be."""
    try:
        return split_off(init_fun, table.event, table.context_event)[0]
    except FlowsError:
        return ()


def has_flow(model: Any) -> bool:
    """Whether it is a flow, or has a block of features that is one."""
    order, pieces = structure_of(model)
    return is_flow(model) or (order in OF_BLOCKS and any(has_flow(piece.value) for piece in pieces))


def mixing_of(model: Any, options: Options) -> bool:
    """Whether each column is freed of all before it, however little these tell: where it was asked for, and for densities
    without a network, to which that does no harm. A mixture of diagonal Gaussians would no longer see clusters along columns,
    and what is given columns as a context has a network for them.
    """
    networks = has_flow(model) or structure_of(model).order == "chain rule"
    return options.standardize == "whiten" or not (networks or traits_by(model).clusters == "along columns")
