"""The base from which a flow starts: the normal that its rows have, as layers without a network would leave them."""

import math
from typing import Any

from flows.bijections.whiten import MOST_COLUMNS
from flows.core import DistributionInit, Shape, blocks_within, is_flow, replaced, structure_of
from flows.distributions.flow import STANDARD
from flows.distributions.normal import Normal
from flows.training.data.standardize import Prepared
from flows.training.options import Options


def from_gaussian(model: Any, rows: Prepared, options: Options) -> Any:
    """A flow whose base is the standard normal, or such blocks of features, with a base that starts at the covariance of the
    rows."""
    if rows.pipeline is None or options.standardize is not True or options.objective is not None:
        return model
    return _started(model, rows.event, rows.context, rows.pipeline.shrinkage or None)


def _started(model: Any, event: Shape, context: Shape | None, shrinkage: float | None) -> Any:
    for block in blocks_within(model, event, context):
        started = _started(block.piece.value, block.part.event, block.part.context, shrinkage)
        model = replaced(model, block.piece.params_at, started)
    conditional = context is not None and math.prod(context) <= MOST_COLUMNS
    if not is_flow(model) or len(event) != 1 or event[0] > MOST_COLUMNS or (event == (1,) and not conditional):
        return model
    base = Normal(trainable=True, regression=conditional)
    if event[0] > 1:
        base = Normal(trainable=True, covariance="full", shrinkage=shrinkage, regression=conditional)
    return with_base(model, base)


def with_base(model: Any, base: DistributionInit) -> Any:
    """A flow whose base is the standard normal, with another one; any other model as it is."""
    if not is_flow(model):
        return base if model == STANDARD else model
    prior = structure_of(model).pieces[1]
    return replaced(model, prior.params_at, with_base(prior.value, base))
