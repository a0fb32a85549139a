"""Rows held out, and their scores, which p-values rank others among."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.conditionals.layout import ASKED, GIVEN


class Kept(NamedTuple):
    """Rows held out, (rows, *event), their context and their weights, (rows,), None where all count equally; after folds with
    a leading axis of members, which have different rows."""

    x: np.ndarray
    context: np.ndarray | None = None
    weights: np.ndarray | None = None


class Scored(NamedTuple):
    """Params, scores of rows held out by these params, the weights of the rows, and what a table has of them by columns."""

    params: Any
    scores: np.ndarray
    weights: np.ndarray | None = None
    by_columns: np.ndarray | None = None

    def by(self, params: Any) -> bool:
        """Return whether these params are equal to the params of the scores."""
        leaves, others = jax.tree.leaves(self.params), jax.tree.leaves(params)
        return len(leaves) == len(others) and all(a is b or np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))


def of_columns(rows: Kept | None, asked: Sequence[int], known: Sequence[int]) -> Kept | None:
    """Return rows held out as rows of some columns with others as their context; without the rows that lack one of these."""
    if rows is None:
        return None
    x, weights, at = rows.x, rows.weights, [*asked, *known]
    if rows.context is not None and rows.context.shape[-2:] == (2, x.shape[-1]):
        values, role = rows.context[..., 0, :], rows.context[..., 1, :]
        x, there = np.where(role == GIVEN, values, x), np.isin(role[..., at], (ASKED, GIVEN)).all(-1)
        if not there.all():
            if x.ndim > 2 or not there.any():  # members have equally many rows
                return None
            x, weights = x[there], None if weights is None else weights[there]
    return Kept(x[..., list(asked)], x[..., list(known)] if known else None, weights)
