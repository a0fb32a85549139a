"""Rows held out, and their scores, which p-values rank others among."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.conditionals.roles import ABSENT, ASKED, GIVEN


class Kept(NamedTuple):
    """Rows held out, (rows, *event), their context and their weights, (rows,), None where all count equally; after folds with
    a leading axis of members, which have different rows."""

    x: np.ndarray
    context: np.ndarray | None = None
    weights: np.ndarray | None = None


class Scored(NamedTuple):
    """Params, scores of rows held out by these params, the weights of the rows, and what a table has of them by columns and
    with gaps."""

    params: Any
    scores: np.ndarray
    weights: np.ndarray | None = None
    by_columns: np.ndarray | None = None
    by_gaps: np.ndarray | None = None

    def by(self, params: Any) -> bool:
        """Return whether these params are equal to the params of the scores."""
        leaves, others = jax.tree.leaves(self.params), jax.tree.leaves(params)
        return len(leaves) == len(others) and all(a is b or np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))


def of_columns(rows: Kept | None, asked: Sequence[int], known: Sequence[int], gaps: bool) -> Kept | None:
    """Return rows held out as rows of some columns with others as their context, which has roles if there may be gaps; without
    the rows that lack one of these."""
    if rows is None:
        return None
    x, weights, at, there = rows.x, rows.weights, [*asked] if gaps else [*asked, *known], np.ones(rows.x.shape, bool)
    if rows.context is not None and rows.context.shape[-2:] == (2, x.shape[-1]):
        values, role = rows.context[..., 0, :], rows.context[..., 1, :]
        x, there = np.where(role == GIVEN, values, x), np.isin(role, (ASKED, GIVEN))
        if not (whole := there[..., at].all(-1)).all():
            if x.ndim > 2 or not whole.any():  # members have equally many rows
                return None
            x, there, weights = x[whole], there[whole], None if weights is None else weights[whole]
    context = x[..., list(known)]
    if gaps:
        context = np.stack([context, np.where(there[..., list(known)], GIVEN, ABSENT)], -2).astype(x.dtype)
    return Kept(x[..., list(asked)], context if known else None, weights)
