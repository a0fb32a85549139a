"""A fitted table as `flows.check` sees it: rows of a frame, and draws as users get them."""

from dataclasses import replace
from typing import Any

import numpy as np

from flows.checks.model import Model, of_result
from flows.core import FlowsError


def model_of_table(table: Any) -> Model:
    """The model of a `TableResult`, which reads frames, and whose draws lie on their steps and within their bounds."""
    schema = table.schema

    def read(frame: Any, context: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        if context is not None:
            raise FlowsError(
                "check: context is given, and a table has its condition among its columns; leave context out"
                if schema.condition
                else "check: context is given, and the table was fitted without a condition; leave it out"
            )
        try:
            rows = schema.rows(frame)
        except (FlowsError, TypeError) as error:
            error.args = (f"check: {name}: {error}",)
            raise
        return rows.x, rows.context

    def draw(key: Any, n: int, contexts: np.ndarray | None) -> np.ndarray:
        if contexts is None:
            drawn = table._finite(key, n)
        elif contexts.ndim > 1:
            drawn = table._finite(key, 1, contexts)
        else:  # one for all
            drawn = table._finite(key, n, np.broadcast_to(contexts, (n, len(contexts))))
        finite = np.isfinite(drawn).all(1)
        drawn[finite] = schema.encode(schema.decode(drawn[finite])) if finite.any() else drawn[finite]
        return np.asarray(drawn)

    categories = {name: _known(schema._complete(name).kind) for name in schema.codes}
    return replace(of_result(table.result), names=schema.columns, read=read, draw=draw, categories=categories)


def _known(kind: Any) -> tuple[str, ...]:
    return tuple("none" if value is None else str(value) for value in kind.known)
