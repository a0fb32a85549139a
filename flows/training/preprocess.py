"""Rows from the units of the data to those of the model and onto the device, and the fitted params back again."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.dequantize import Dequantize
from flows.bijections.scaling import Standardize
from flows.compose import Serial
from flows.core import Array, Given
from flows.core.contract import Shape
from flows.distributions.flow import Flow
from flows.distributions.standardized_context import StandardizedContext
from flows.training.data_checks import Columns, Scale
from flows.training.diagnose import Suspects
from flows.training.reading import Data, Rows, Source, take

MEASURED_ROWS = 10_000  # at most, where layers measure data


class Prepared(NamedTuple):
    """Rows on the device in the units of the model, and how to come back to those of the data.

    The model is trained without its standardisation, as `inner`; a user gets it with it, as `outer`.
    """

    source: Source
    columns: Columns
    offset: np.ndarray  # the least value of each column
    event: Shape
    context: Shape | None
    log_det: float  # of the standardisation, in nats a row
    train: Rows
    held_out: Rows

    def ready(self, rows: Rows) -> Rows:
        """Rows in the units of the data as the model's, not yet on the device."""
        scale, of_context, _ = self.columns
        w = None if rows.weights is None else rows.weights / rows.weights.mean()
        scaled = Rows(_standardized(rows.x, scale), _standardized(rows.context, of_context), w)
        return jax.tree.map(partial(np.asarray, dtype=self.source.dtype), scaled)

    @property
    def given(self) -> Given:
        """What the model's init is given."""
        few = take(self.train, slice(MEASURED_ROWS))
        return Given(few.x, few.context)

    def suspects(self) -> Suspects:
        """The rows held out."""
        if self.source.others is None:
            return Suspects(self.held_out, np.arange(len(self.held_out.x)), "validation", train=False)
        return Suspects(self.held_out, self.source.others, train=False)

    def inner(self, init_fun: Any) -> Any:
        """The model of the rows here."""
        scale, _, steps = self.columns
        if steps is None:
            return init_fun
        std = 1.0 if scale is None else scale.std
        return Flow(Dequantize(tuple(steps / std)), init_fun)

    def outer(self, init_fun: Any) -> Any:
        """The model of the data given."""
        scale, of_context, steps = self.columns
        layers = [] if steps is None else [Dequantize(tuple(steps))]
        layers += [] if scale is None else [Standardize()]
        base = init_fun if of_context is None else StandardizedContext(init_fun)
        return base if not layers else Flow(layers[0] if len(layers) == 1 else Serial(*layers), base)

    @property
    def path(self) -> tuple[str, ...]:
        """Where params of the model itself are in those of `outer`."""
        scale, of_context, steps = self.columns
        return ("prior",) * (steps is not None or scale is not None) + ("distribution",) * (of_context is not None)

    def outer_params(self, params: Any, changed: Callable[[Any], Any] = lambda params: params) -> Any:
        """Params of `outer` from those of `inner`; those of the model itself are `changed`."""
        scale, of_context, steps = self.columns
        layers = []
        if steps is not None:
            params = params["prior"]
        params = changed(params)
        if steps is not None:
            layers.append({"fixed": {"offset": jnp.asarray(self.offset, self.source.dtype)}})
        if scale is not None:
            layers.append({"fixed": self._fixed(scale)})
        if of_context is not None:
            params = {"distribution": params, "fixed": self._fixed(of_context)}
        return params if not layers else {"bijection": layers[0] if len(layers) == 1 else tuple(layers), "prior": params}

    def _fixed(self, scale: Scale) -> dict[str, Array]:
        return {name: jnp.asarray(each, self.source.dtype) for name, each in scale._asdict().items()}


def prepare(data: Data, columns: Columns) -> Prepared:
    """Rows that were read and checked, for a training."""
    (x, context, _), scale = data.train, columns.scale
    event = x.shape[1:]
    offset = x.min(tuple(range(x.ndim - 1)))
    log_det = 0.0 if scale is None else -float(np.log(scale.std).sum()) * math.prod(event[:-1])
    context_shape = None if context is None else context.shape[1:]
    found = Prepared(data.source, columns, offset, event, context_shape, log_det, data.train, data.held_out)
    train, held_out = [jax.tree.map(jnp.asarray, found.ready(rows)) for rows in (data.train, data.held_out)]
    return found._replace(train=train, held_out=held_out)


def _standardized(x: Any, scale: Scale | None) -> Any:
    return x if scale is None else (x - scale.mean) / scale.std
