"""The base from which a flow starts: the normal that its rows have, as layers without a network would leave them."""

import math
from typing import Any

from flows.bijections.whiten import MOST_COLUMNS
from flows.core import DistributionInit, replaced, structure_of
from flows.distributions.flow import STANDARD
from flows.distributions.normal import Normal
from flows.training.data.facts import is_flow
from flows.training.data.standardize import Prepared
from flows.training.options import Options


def from_gaussian(model: Any, rows: Prepared, options: Options) -> Any:
    """A flow whose base is the standard normal, with a base that starts at the covariance of the rows."""
    pipeline = rows.pipeline
    if pipeline is None or options.standardize is not True or not is_flow(model) or options.objective is not None:
        return model
    conditional = rows.context is not None and math.prod(rows.context) <= MOST_COLUMNS
    if len(rows.event) != 1 or rows.event[0] > MOST_COLUMNS or (rows.event == (1,) and not conditional):
        return model
    base = Normal(trainable=True, regression=conditional)
    if rows.event[0] > 1:
        shrinkage = pipeline.shrinkage or None
        base = Normal(trainable=True, covariance="full", shrinkage=shrinkage, regression=conditional)
    return with_base(model, base)


def with_base(model: Any, base: DistributionInit) -> Any:
    """A flow whose base is the standard normal, with another one; any other model as it is."""
    if not is_flow(model):
        return base if model == STANDARD else model
    prior = structure_of(model).pieces[1]
    return replaced(model, prior.params_at, with_base(prior.value, base))
