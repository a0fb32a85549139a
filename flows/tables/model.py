"""The model of a table: one distribution for the codes, one for the angles, one for the numbers, joined by the chain rule."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from flows.bijections.autoregressive import Autoregressive
from flows.core import DistributionInit, DistributionLike, FlowsError
from flows.distributions.categorical import Categorical
from flows.distributions.chain_rule import ChainRule
from flows.distributions.directional import CircularUniform
from flows.distributions.flow import Flow
from flows.distributions.joint import Joint
from flows.tables.schema import Schema
from flows.training.candidates import mostly_whole, suggested
from flows.transformers import CircularRationalQuadratic

WIDTHS: tuple[tuple[int, ...], ...] = ((), (64, 64))  # of networks of codes alone, which are compared
Models = DistributionLike | Sequence[DistributionLike] | Mapping[str, DistributionLike] | Literal["auto"]


def models_of(schema: Schema, model: Any, numbers: np.ndarray, conditional: bool) -> DistributionInit | dict[str, Any]:
    """The model of all columns; several by name, where there are several to choose from.

    Args:
        model: of the numbers, as `tables.fit` takes it.
        numbers: their rows, encoded.
        conditional: whether there is a condition.
    """
    if not schema.numbers:
        return _without_numbers(schema, model)
    if isinstance(model, str) and model == "auto":
        rows, columns = numbers.shape
        known = conditional or bool(schema.codes or schema.angles)
        model = suggested(rows, (columns,), known, mostly_whole(numbers))
    if isinstance(model, Mapping):
        return {str(name): joined(schema, of_numbers) for name, of_numbers in model.items()}
    if isinstance(model, str) or not (callable(model) or isinstance(model, Sequence)):
        raise TypeError(f'tables.fit: model is {model!r:.80}; expected a distribution of the numbers, several, or "auto"')
    if isinstance(model, Sequence):
        return _named([(repr(of_numbers), joined(schema, of_numbers)) for of_numbers in model])
    return joined(schema, model)


def joined(schema: Schema, of_numbers: DistributionLike | None = None, hidden: tuple[int, ...] = (64, 64)) -> DistributionInit:
    """The distribution of all columns: of the codes, of the angles given these, and of the numbers given both."""
    blocks = list[tuple[Any, int]]()
    if schema.codes:
        blocks.append((Categorical(*schema.classes, hidden=hidden), len(schema.codes)))
    if schema.angles:
        blocks.append((angles(schema.periods), len(schema.angles)))
    if of_numbers is not None:
        blocks.append((of_numbers, len(schema.numbers)))
    distributions, sizes = zip(*blocks, strict=True)
    return distributions[0] if len(blocks) == 1 else ChainRule(*distributions, sizes=sizes)


def angles(periods: Sequence[float]) -> DistributionInit:
    """Angles of these periods: an autoregressive layer of circular splines on uniform angles."""
    splines = [CircularRationalQuadratic(bound=period / 2) for period in periods]
    uniform = [CircularUniform(period) for period in periods]
    base = uniform[0] if len(set(periods)) == 1 else Joint(*uniform)
    return Flow(Autoregressive(transformer=splines), base)


def _without_numbers(schema: Schema, model: Models) -> DistributionInit | dict[str, Any]:
    """The model of codes and angles alone: of codes alone a linear one and a network are compared."""
    if model != "auto":
        kinds = "categories and angles" if schema.angles else "categories"
        raise FlowsError(
            f"tables.fit: model is {model!r:.80}, a distribution of the numbers, and all columns are {kinds}. Leave it out"
        )
    if schema.angles:
        return joined(schema)
    return _named([(repr(each := joined(schema, hidden=hidden)), each) for hidden in WIDTHS])


def _named(models: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Models by name; equal ones are told apart by their number."""
    named = dict[str, Any]()
    for name, model in models:
        named[name if name not in named else f"{name} ({len(named)})"] = model
    return named
