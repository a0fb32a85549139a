"""How a result reads what it is handed: tables in the order of the columns it was fitted to, and a context for each row."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Region, as_array, as_context, as_event, distribution_part, on_device, on_turn, wrapped
from flows.results.frames import Header, in_order
from flows.results.pieces import scored


class Inputs:
    """The part of a result that reads rows and contexts."""

    init_fun: Any
    input_dim: Any
    params: Any
    sample: Any
    turn: np.ndarray | None
    context_dim: Any
    table: Header | None
    context_table: Header | None

    def _rows(self, x: Any) -> Any:
        return in_order(x, self.table, "x")

    def _context(self, context: Any) -> dict[str, Any]:
        if context is None:
            return {}
        if as_context(self.context_dim) is None:
            raise TypeError("context was given, but this model was fitted without one; leave it out")
        return {"context": as_array(in_order(context, self.context_table, "context"), "context")}

    def _scored(self, log_pdf: Callable, params: Any, x: Any, context: Any) -> Any:
        """log_pdf(params, x, context=context), in pieces where there are many rows."""
        given = context if isinstance(context, np.ndarray) else self._context(context).get("context")
        found = scored(self, log_pdf, params, x, given)
        return log_pdf(params, x, **self._context(given)) if found is None else found

    def _drawn(self, key: Any, n: int, keywords: dict[str, Any]) -> Array:
        """Draws by the fitted params, with angles on their turn."""
        drawn = self.sample(key, self.params, n, **keywords)
        return drawn if self.turn is None else wrapped(self._region, drawn, self.turn)

    def _on_turn(self, x: Any) -> Any:
        """Rows with their angles on the turn of the data, or around 0."""
        region = self._region
        if region is None or not region.period.any():
            return x
        return on_turn(region, on_device(x), -region.period / 2 if self.turn is None else self.turn)

    @property
    def _region(self) -> Region | None:
        """Where the points of the model live, as far as it is told."""
        if not callable(self.init_fun):
            return None
        return distribution_part(self.init_fun, as_event(self.input_dim), as_context(self.context_dim)).region

    def _batched(self, keywords: dict[str, Any]) -> bool:
        return bool(keywords) and keywords["context"].ndim == 1 + len(as_context(self.context_dim) or ())

    def _of_each(self, keywords: dict[str, Any], rows: int) -> Any:
        """A context for each row, or None where the model takes none."""
        shape = as_context(self.context_dim)
        if shape is None:
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
        return context.astype(jnp.result_type(jnp.float32, *jax.tree.leaves(self.params)))
