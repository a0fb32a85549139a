"""Arrays, frames and streams become a `Split` of NumPy rows: those to train on and those held out, copies kept together. An
array or frame is read whole; of a stream only the rows that the checks need are read here. Folds divide the rows again later.
"""

from typing import Any

import numpy as np

from flows.core import Array, FlowsError, check_finite
from flows.results.frames import in_order, named_apart, numbers_of
from flows.training.data.copies import groups_of
from flows.training.data.table import LEAST_ROWS, Rows, Split, Table, counted, dtype_of, split_numbers
from flows.training.options import Options


def read(data: Any, options: Options, key: Array) -> Split:
    """Read what a fit is given: arrays and frames whole, of a stream the rows that a first look needs."""
    from flows.training.data.streams import iterated, mapped  # which read their rows as arrays are read

    if isinstance(data, np.memmap):
        return mapped(data, options, key)
    if hasattr(data, "__iter__") and not (
        isinstance(data, list | tuple | str | bytes | dict | set) or hasattr(data, "__array__") or hasattr(data, "to_numpy")
    ):
        return iterated(data, options)
    return read_arrays(data, options, key)


def read_arrays(data: Any, options: Options, key: Array) -> Split:
    """Read arrays or frames, and split them."""
    headers = named_apart(data, "fit: data"), named_apart(options.context, "fit: context")
    whole = Table.of(read_rows(data, options.context, weights=options.weights), headers)
    numbers = whole.numbers
    if whole.weights is not None:  # a row of weight 0 is as if it were not there
        numbers = np.flatnonzero(whole.weights)
    groups = groups_of((whole.x, whole.context))
    if options.share is None:
        held_out = read_validation(options.validation, whole)
    else:
        of_train, of_others = split_numbers(len(numbers), options.share, key, None if groups is None else groups[numbers])
        numbers, held_out = numbers[of_train], whole.take(numbers[of_others])
    return Split.of(whole, numbers, held_out, options, groups)


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
    pair, its_context = isinstance(validation, tuple) and len(validation) == 2, "the context of validation"
    event, of_context = table.event, table.context_event
    if of_context is not None and (not pair or validation[1] is None):
        raise FlowsError("fit: validation is rows alone; expected a pair (data, context), as there is a context")
    if of_context is None and pair and any(np.ndim(array) != len(event) for array in validation):
        raise FlowsError("fit: validation is a pair (data, context); expected rows alone, as there is no context")
    x, c = validation if of_context is not None else (validation, None)
    x, c = in_order(x, table.header, "fit: validation"), in_order(c, table.context_header, f"fit: {its_context}")
    if np.ndim(x) < 2:
        raise FlowsError(f"fit: validation has shape {np.shape(x)}, expected (rows, {_listed(event)})")
    held_out = Table.of(read_rows(x, c, "validation", its_context), table.headers, source="validation")
    for name, array, shape in (("validation", held_out.x, event), (its_context, held_out.context, of_context or ())):
        if array is not None and (array.shape[1:] != shape or not len(array)):
            raise FlowsError(f"fit: {name} has shape {array.shape}, expected (rows, {_listed(shape)})")
    if len(table) < LEAST_ROWS:
        raise FlowsError(f"fit: data has {counted(len(table))}; expected at least {LEAST_ROWS}")
    return held_out


def _listed(shape: tuple[int, ...]) -> str:
    return str(shape)[1:-1].strip(",")
