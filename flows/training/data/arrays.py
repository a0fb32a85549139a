"""Arrays and tables as rows: finite NumPy arrays that keep their digits, or an error that names what is wrong."""

from typing import Any

import numpy as np

from flows.core import FlowsError, check_finite
from flows.results.frames import in_order, numbers_of
from flows.training.data.splitting import LEAST_ROWS, counted
from flows.training.data.table import Rows, Table, dtype_of


def read_rows(data: Any, context: Any, name: str = "data", of_context: str = "context", weights: Any = None) -> Rows:
    """Data, context and weights as finite NumPy arrays that keep their digits."""
    x = numbers_of(data, f"fit: {name}")
    if x.ndim < 2:
        raise FlowsError(
            f"fit: {name} has shape {x.shape}, expected (rows, *event) with at least two axes. One column is "
            f"np.asarray({name})[:, None]; a single row, {name}[None], is too little to learn from"
        )
    if 0 in x.shape[1:]:
        raise FlowsError(f"fit: {name} has shape {x.shape}: rows without entries; expected at least one column")
    w = None if weights is None else _weights(weights, len(x))
    c = None if context is None else numbers_of(context, f"fit: {of_context}")
    if c is not None and (c.ndim < 2 or len(c) != len(x)):
        raise FlowsError(
            f"fit: {of_context} has shape {c.shape}, expected ({len(x)}, *context): one row for each row of {name}. One column "
            f"is np.asarray({of_context})[:, None]"
        )
    for numbers, what in ((x, name), (c, of_context)):
        if numbers is not None:
            check_finite(numbers, dtype_of(x), f"fit: {what}")
    return Rows(x, c, w)


def _weights(weights: Any, rows: int) -> np.ndarray:
    w = numbers_of(weights, "fit: weights")
    if w.shape != (rows,):
        raise FlowsError(f"fit: weights have shape {w.shape}, expected ({rows},): one for each row of data")
    w = w.astype(float)
    with np.errstate(invalid="ignore"):
        w = w / w.max() if w.size and 0 < w.max() < np.inf else w  # their ratios alone matter
    if not np.isfinite(w).all() or (w < 0).any() or not w.any():
        wrong = f"the one of row {np.flatnonzero(~np.isfinite(w) | (w < 0))[0]} is not so" if w.any() else "all are 0"
        raise FlowsError(f"fit: weights have to be finite and 0 or more, some above 0; {wrong}")
    return w


def read_validation(validation: Any, table: Table) -> Table:
    """Rows to validate on, or a pair of them and their context, like those of a table; columns are put in order by name."""
    pair = isinstance(validation, tuple) and len(validation) == 2
    event, of_context = table.event, table.context_event
    if of_context is not None and (not pair or validation[1] is None):
        raise FlowsError("fit: validation is rows alone; expected a pair (data, context), as there is a context")
    if of_context is None and pair and any(np.ndim(array) != len(event) for array in validation):
        raise FlowsError("fit: validation is a pair (data, context); expected rows alone, as there is no context")
    x, c = validation if of_context is not None else (validation, None)
    x, c = in_order(x, table.header, "fit: validation"), in_order(c, table.context_header, "fit: the context of validation")
    if np.ndim(x) < 2:
        raise FlowsError(f"fit: validation has shape {np.shape(x)}, expected (rows, {_listed(event)})")
    held_out = Table.of(read_rows(x, c, "validation", "the context of validation"), table.headers, source="validation")
    for name, array, shape in (
        ("validation", held_out.x, event),
        ("the context of validation", held_out.context, of_context or ()),
    ):
        if array is not None and (array.shape[1:] != shape or not len(array)):
            raise FlowsError(f"fit: {name} has shape {array.shape}, expected (rows, {_listed(shape)})")
    if len(table) < LEAST_ROWS:
        raise FlowsError(f"fit: data has {counted(len(table))}; expected at least {LEAST_ROWS}")
    return held_out


def _listed(shape: tuple[int, ...]) -> str:
    return str(shape)[1:-1].strip(",")
