"""What is known of the rows and of the model before anything is prepared. What is wrong is refused here, in this order: the
model's own first layers, folds, where its points live, the columns, noise that would be added twice, ends of a support.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, BijectionInit, DistributionInit, FlowsError, Given, Region, part_of, structure_of, trainable
from flows.distributions.gmm import GMM
from flows.distributions.mixture import Mixture
from flows.training.data.columns import Columns, check_data
from flows.training.data.support import (
    check_degrees,
    check_ends_are_near,
    check_noise_once,
    curved_columns,
    own_noise,
    region_of,
    split_off,
    tell_of_curved,
)
from flows.training.data.table import Data, all_rows, unsplit
from flows.training.options import FEW, FOLDS, Options

MIXTURES = (GMM, Mixture)


class Facts(NamedTuple):
    """What is known of the rows and of the model.

    Attributes:
        model: what is left of it behind its first layers.
        first: the layers of the model that rows go through before they are standardised.
        leading: the same layers, also where nothing is standardised, so that rows do not go through them.
        columns: what the checks found.
        curved: which columns are angles or coordinates of unit vectors.
        region: where points of the model live, as far as that is told.
        folds: over how many models are averaged.
        mixing: whether each column is freed of all before it.
    """

    model: Any
    first: tuple[BijectionInit, ...]
    leading: tuple[BijectionInit, ...]
    columns: Columns
    curved: np.ndarray
    region: Region | None
    folds: int
    mixing: bool


def check(init_fun: Any, found: Data, options: Options, key: Array) -> Facts:
    """Check what was read, for a model."""
    first, model = own_layers(init_fun, found, options)
    clusters = isinstance(model, DistributionInit) and any(
        each.constructor in MIXTURES for each in (model, *model.values_within())
    )
    folds = folds_of(model, found, options, key)
    region = region_of(init_fun, found)
    curved = curved_columns(region, found)
    leading = first if options.standardize is not False else _first_layers(init_fun, found)
    noisy = own_noise(init_fun, found.train.x.shape[-1])
    whole = found if folds == 1 else unsplit(found, options)
    columns = check_data(whole, options, leading, clusters, curved, noisy)
    check_noise_once(init_fun, options, found, columns.steps)
    check_ends_are_near(found, first, options.support)
    tell_of_curved(curved, region, found, options)
    return Facts(model, first, leading, columns, curved, region, folds, mixing_of(model, options))


def facts_of_candidate(init_fun: Any, found: Data, columns: Columns, options: Options, folds: int) -> Facts:
    """Those of one model among several, for rows that were checked without any."""
    first, model = own_layers(init_fun, found, options)
    region = region_of(init_fun, found)
    curved = curved_columns(region, found)
    check_noise_once(init_fun, options, found, columns.steps)
    columns = columns.left_curved(curved) if curved.any() else columns
    return Facts(model, first, first, columns, curved, region, folds, mixing_of(model, options))


def folds_of(model: Any, found: Data, options: Options, key: Array) -> int:
    """Over how many folds models are averaged: by default where few rows have to train more numbers than they are."""
    if options.folds is not None or options.validation is not None or found.source.chunks is not None:
        return options.folds or 1
    x, context, _ = found.train
    rows = len(all_rows(found))
    if rows >= FEW or rows < 2 * FOLDS or not is_flow(model) or model.likelihood == "lower bound":
        return 1
    part = part_of(model, key, x.shape[1:], None if context is None else context.shape[1:])
    return FOLDS if num_trained(jax.eval_shape(lambda: part.init(key, Given()))) > rows else 1


def num_trained(params: Any) -> int:
    """How many numbers are trained."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trainable(params)), strict=True)
    return sum(int(leaf.size) for leaf, trains in pairs if trains)


def own_layers(init_fun: Any, data: Data, options: Options) -> tuple[tuple[BijectionInit, ...], Any]:
    """The layers of a model that the rows go through before they are standardised, and the model that is left."""
    check_degrees(init_fun, data, options.caller)
    if options.standardize is False:
        return (), init_fun
    x, context, _ = data.train
    return split_off(init_fun, x.shape[1:], None if context is None else context.shape[1:])


def _first_layers(init_fun: Any, data: Data) -> tuple[BijectionInit, ...]:
    """Those that the rows would go through before they were standardised, which they are not; none where that cannot be."""
    x, context, _ = data.train
    try:
        return split_off(init_fun, x.shape[1:], None if context is None else context.shape[1:])[0]
    except FlowsError:
        return ()


def is_flow(model: Any) -> bool:
    return structure_of(model).order == "flow"


def mixing_of(model: Any, options: Options) -> bool:
    """Whether each column is freed of all before it, however little these tell: where it was asked for, and for densities
    without a network, to which that does no harm. A mixture of diagonal Gaussians would no longer see clusters along columns.
    """
    diagonal = isinstance(model, DistributionInit) and model.constructor is GMM and model.arguments["covariance"] == "diagonal"
    return options.standardize == "whiten" or not (is_flow(model) or diagonal)
