"""How a result reads what it is handed: rows in the order of the columns it was fitted to, and a context for each row."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Region, as_array, as_context, as_event, distribution_part, on_device, on_turn, wrapped
from flows.results.columns import Arrays, Column, Columns, columns_of
from flows.results.frames import in_order
from flows.results.pieces import scored


class Inputs:
    """Reads for a result what it is handed, and draws."""

    def __init__(self, result: Any):
        self.result = result
        self.context_shape = as_context(result.context_dim)

    @property
    def columns(self) -> Columns:
        """The names that data had."""
        return getattr(self.result, "named", None) or self.result.table or Arrays()

    def rows(self, x: Any) -> Any:
        """Return rows as numbers."""
        return self.columns.numbers(x, "x")

    def context(self, context: Any) -> dict[str, Any]:
        """Return a context as a keyword of log_pdf and sample; {} for None."""
        if context is None:
            return {}
        if self.context_shape is None:
            raise TypeError("context was given, but this model was fitted without one; leave it out")
        return {"context": as_array(in_order(context, self.result.context_table, "context"), "context")}

    def scored(self, log_pdf: Callable, params: Any, x: Any, context: Any) -> Any:
        """Return log_pdf(params, x, context=context), in pieces where there are many rows."""
        given = context if isinstance(context, np.ndarray) else self.context(context).get("context")
        found = scored(self.result, log_pdf, params, x, given)
        return log_pdf(params, x, **self.context(given)) if found is None else found

    def drawn(self, key: Any, n: int, keywords: dict[str, Any]) -> Array:
        """Return draws by the fitted params, with angles on their turn."""
        drawn = self.result.sample(key, self.result.params, n, **keywords)
        return drawn if self.result.turn is None else wrapped(self.region, drawn, self.result.turn)

    def on_turn(self, x: Any) -> Any:
        """Return rows with their angles on the turn of the data, or around 0."""
        region, turn = self.region, self.result.turn
        if region is None or not region.period.any():
            return x
        return on_turn(region, on_device(x), -region.period / 2 if turn is None else turn)

    @property
    def region(self) -> Region | None:
        """The region where the points of the model live, as far as it is told."""
        if not callable(self.result.init_fun):
            return None
        return distribution_part(self.result.init_fun, as_event(self.result.input_dim), self.context_shape).region

    def described(self) -> list[Column]:
        """Return the columns of a vector."""
        return columns_of(self.columns.entries(*as_event(self.result.input_dim)), self.region, self.result.turn)

    def batched(self, keywords: dict[str, Any]) -> bool:
        """Tell whether each row has a context of its own."""
        return bool(keywords) and keywords["context"].ndim == 1 + len(self.context_shape or ())

    def of_each(self, keywords: dict[str, Any], rows: int) -> Any:
        """Return a context for each row, or None where the model takes none."""
        if (shape := self.context_shape) is None:
            return None
        one = f"{shape}, one for all rows"
        if not keywords:
            raise FlowsError(f"context is missing; expected {(rows, *shape)}, a row for each of {rows}, or {one}")
        context = keywords["context"]
        if context.shape == shape:
            context = jnp.broadcast_to(context, (rows, *shape))
        if context.shape != (rows, *shape):
            raise FlowsError(
                f"context has shape {context.shape}; expected {(rows, *shape)}, a row for each of {rows}, or {one}"
            )
        return context.astype(jnp.result_type(jnp.float32, *jax.tree.leaves(self.result.params)))
