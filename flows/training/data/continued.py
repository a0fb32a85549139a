"""A fit that goes on from a result: which layers of its model prepare the rows, and these rows behind the layers as they are.
Nothing is measured again, so the rows that the result was fitted to become the same numbers, bit for bit."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.bijections.bounds import Unconstrain
from flows.bijections.composition import layers_of
from flows.bijections.noise import trains_noise
from flows.compose import joined
from flows.core import (
    Array,
    DistributionInit,
    FlowsError,
    as_context,
    as_event,
    bijection_part,
    distribution_part,
    is_flow,
    params_in,
    shapes_of,
    structure_of,
    trainable,
)
from flows.distributions.flow import Flow
from flows.distributions.standardized_context import StandardizedContext
from flows.results.ensemble import EnsembleResult
from flows.results.result import FitResult
from flows.training.data.facts import Facts
from flows.training.data.gaussian import Scale
from flows.training.data.prepare import Prepared, placed, scored_by_gaussian, standardized, through_first
from flows.training.data.read import portions_of
from flows.training.data.standardization import FORMULAS, Measured, Pipeline
from flows.training.data.table import Split
from flows.training.model_view import Layers, ModelView
from flows.training.options import Options

STAYS = "standardize", "standardize_context", "support", "as_is", "dequantize", "members", "folds"  # as it was


class Before(NamedTuple):
    """A result from which a fit goes on: the layers that prepare its rows, and the model behind them."""

    result: FitResult
    first: Layers  # noise, bounds, and layers of the model that need the units of the data
    first_params: tuple[Any, ...]
    pipeline: Pipeline  # the layers that standardise
    context_scale: Scale | None
    model: Any
    params: Any  # of the model

    @classmethod
    def of(cls, result: FitResult, dtype: Any, caller: str = "fit") -> "Before":
        """Take the model of a result apart, to fit it in this dtype.

        The layers of its outermost flow prepare rows if none of them trains, apart from noise, changes the event, or takes the
        context.
        """
        event, context = as_event(result.input_dim), as_context(result.context_dim)
        model, params, layers = result.init_fun, result.params, []
        expected = shapes_of(distribution_part(model, event, context).abstract_params())
        if shapes_of(params) != expected:
            raise FlowsError(
                f"{caller}: the params of the result are not of its model, {model!r:.80}: init_fun or params were changed "
                "since it was fitted; give the result of a fit, or of flows.load"
            )
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise FlowsError(f"{caller}: the params of the result are not all finite; give the result of a fit that ended well")
        if is_flow(model) and _prepares(model, params, event, context):
            bijection, base = structure_of(model).pieces
            inner = params_in(params, bijection.params_at)
            layers = [(step.bijection, params_in(inner, step.params_at)) for step in layers_of(bijection.value)]
        if layers and Flow(joined([layer for layer, _ in layers]), base.value) != model:
            layers = []  # which are nested otherwise than `fit` does
        if layers:
            model, params = base.value, params_in(params, base.params_at)
        scale = None
        inside = [piece.value for piece in structure_of(model).pieces[-1:] if isinstance(piece.value, DistributionInit)]
        if inside and model == StandardizedContext(*inside):
            scale = Scale(**{name: np.asarray(leaf, float) for name, leaf in params["fixed"].items()})
            model, params = inside[0], params["distribution"]
        count = len(layers)
        while count and getattr(layers[count - 1][0], "constructor", None) in FORMULAS:
            count -= 1
        steps = tuple(Measured.of(layer, inner["fixed"], dtype) for layer, inner in layers[count:])
        first, first_params = (tuple(pair[i] for pair in layers[:count]) for i in (0, 1))
        return cls(result, first, first_params, Pipeline(steps, dtype=dtype), scale, model, params)

    def view(self, split: Split) -> ModelView:
        """The view of the model, for rows of its shapes."""
        event, context = as_event(self.result.input_dim), as_context(self.result.context_dim)
        for name, shape, now in (("data", event, split.whole.event), ("context", context, split.whole.context_event)):
            if shape != now:
                there = f"a row of {name} has shape {now}" if now is not None else f"there is no {name}"
                was = f"rows of shape {shape}" if shape is not None else f"data without a {name}"
                raise FlowsError(f"fit: {there}, and the result was fitted to {was}; fit its model from the start instead")
        return ModelView(self.result.init_fun, event, context, known=(self.first, self.model))

    @property
    def bounds(self) -> Any:
        """The layer that maps a box to the whole line, where the rows go through it first; else None."""
        first = self.first[0] if self.first else None
        return first if getattr(first, "constructor", None) is Unconstrain else None

    def options(self, options: Options) -> Options:
        """The options, with the columns that stayed as they were."""
        layers = [step.layer.arguments.get("as_is", ()) for step in self.pipeline.steps]
        standardize = options.standardize and bool(self.pipeline.steps)
        return replace(options, as_is=tuple(sorted(set().union(*layers))), folds=1, standardize=standardize)


def _prepares(model: Any, params: Any, event: Any, context: Any) -> bool:
    """Tell whether the layers of a flow prepare rows."""
    bijection = structure_of(model).pieces[0]
    part = bijection_part(bijection.value, event, context)
    still = not any(jax.tree.leaves(trainable(params_in(params, bijection.params_at))))
    return (still or trains_noise(bijection.value)) and part.output == event and "context" not in part.keywords


def check_result(result: FitResult, options: Options) -> None:
    """Refuse a result that is of several models, and options of a preparation, which stays."""
    if isinstance(result, EnsembleResult) or "stacked" in result.history:
        several = "a stack of models" if "stacked" in result.history else f"{result.members} models, of folds or members"
        raise FlowsError(
            f"{options.caller}: the result is {several}, and a fit goes on from one; give the result of a single model: of "
            "flows.fit(..., folds=1), of a candidate of flows.select, or of `flows fit --model NSF --folds 1`"
        )
    for name in STAYS:
        if repr(value := getattr(options, name)) != repr(getattr(type(options), name)):
            raise TypeError(
                f"{options.caller}: {name} is {value!r:.60}, and the preparation of a result stays as it is; leave it out, or "
                f"fit {result.init_fun!r:.60} from the start"
            )


def prepare_again(split: Split, facts: Facts, before: Before, options: Options, key: Array) -> Prepared:
    """Return checked rows as they are behind the layers of a result, and its model with its params."""
    facts = replace(facts, columns=facts.columns._replace(context_scale=before.context_scale))
    rows = scored_by_gaussian(through_first(split, facts, key, before.first_params), split, facts, options)
    rows = placed(standardized(rows, split, before.pipeline), options)
    turn = before.result.turn if before.result.turn is not None else rows.turn
    return replace(rows, turn=turn, model=before.model, start=before.params, portions=portions_of(before.result))
