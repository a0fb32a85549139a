"""Arrays, frames and streams become a `Split` of NumPy rows: rows to train on and rows held out, copies kept together. An array
or a frame is read whole. From a stream, a memory-mapped file or an iterable of batches, the rows for the checks are read here,
and all rows, in chunks, while the fit runs. Folds divide the rows again later.
"""

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError, check_finite, rows_within
from flows.results.frames import collected, header_of, in_order, named_apart, numbers_of, without_column
from flows.results.result import FitResult
from flows.training.data.copies import groups_of
from flows.training.data.table import (
    LEAST_ROWS,
    LOOKED_AT,
    Chunk,
    Headers,
    Rows,
    Split,
    Stream,
    Table,
    counted,
    dtype_of,
    seed_of,
    split_numbers,
    take,
)
from flows.training.devices import devices
from flows.training.options import Options

CHUNK_BYTES = 64 * 2**20  # of a stream, read at once
# Neighbouring rows are read together, which is fast on disks; a chunk mixes blocks from all over, and their rows. Blocks of
# large rows have fewer rows, so that at least this many blocks can be held out.
BLOCK = 1024  # rows, at most
BLOCKS_HELD_OUT = 4  # blocks, at least
HELD_OUT = 100_000, 2**24  # rows, and numbers, at most, of a share of a stream
GAPS = "None", "nan", "NaT", "<NA>"  # as text
IN_MEMORY = "fit: groups, order and weights are for data in memory; give validation rows, and draw rows by their weights"


def read(data: Any, options: Options, key: Array, result: FitResult | None = None) -> Split:
    """Read the data of a fit: arrays and frames whole, of a stream the rows for a first look. Where a fit goes on from a
    result, frames get its columns in their order, and as many rows as it had are divided as they were."""
    if isinstance(data, np.memmap):
        return mapped(data, options, key, result)
    return iterated(data, options, result) if is_iterable(data) else read_arrays(data, options, key, result)


def is_iterable(data: Any) -> bool:
    """Return whether data are batches, one after the other, and not rows in memory."""
    in_memory = isinstance(data, list | tuple | str | bytes | dict | set) or hasattr(data, "__array__")
    return hasattr(data, "__iter__") and not in_memory and not hasattr(data, "to_numpy")


def read_arrays(data: Any, options: Options, key: Array, result: FitResult | None = None) -> Split:
    """Read arrays or frames, and split them."""
    data, context = collected(data, "fit: data"), collected(options.context, "fit: context")
    holding, values = options.holding, getattr(options, options.holding, None)
    if isinstance(values, str):
        data, values = without_column(data, values, f"fit: {holding}")
    headers = named_apart(data, "fit: data"), named_apart(context, "fit: context")
    if result is not None:
        data, context = in_order(data, result.table, "fit: data"), in_order(context, result.context_table, "fit: context")
        headers = result.table or headers[0], result.context_table or headers[1]
    whole = Table.of(read_rows(data, context, weights=options.weights), headers)
    # Rows of weight 0 are left out.
    numbers = whole.numbers if whole.weights is None else np.flatnonzero(whole.weights)
    groups = places_of(values, holding, len(whole)) if holding else groups_of((whole.x, whole.context))
    if options.share is None:
        held_out = read_validation(options.validation, whole)
    else:
        chosen = None if groups is None else groups[numbers]
        train, others = split_numbers(len(numbers), options.share, key, chosen, holding, portions_of(result))
        numbers, held_out = numbers[train], whole.take(numbers[others])
    return Split.of(whole, numbers, held_out, options, groups)


def portions_of(result: FitResult | None) -> tuple[int, ...]:
    """Return the numbers of rows of the fits that led to a result."""
    if result is None:
        return ()
    whole = int(result.history.get("rows", 0) + result.history.get("held_out", 0))
    return tuple(np.atleast_1d(result.history.get("portions", whole)).tolist())


def read_rows(data: Any, context: Any, name: str = "data", context_name: str = "context", weights: Any = None) -> Rows:
    """Return data, context and weights as finite NumPy arrays, with all their digits."""
    x = numbers_of(data, f"fit: {name}")
    if x.ndim < 2:
        raise FlowsError(
            f"fit: {name} has shape {x.shape}, expected (rows, *event) with at least two axes. One column is "
            f"np.asarray({name})[:, None]; a single row, {name}[None], is too little to learn from"
        )
    if 0 in x.shape[1:]:
        raise FlowsError(f"fit: {name} has shape {x.shape}: rows without entries; expected at least one column")
    w = None if weights is None else _weights(weights, len(x))
    c = None if context is None else numbers_of(context, f"fit: {context_name}")
    if c is not None and (c.ndim < 2 or len(c) != len(x)):
        raise FlowsError(
            f"fit: {context_name} has shape {c.shape}, expected ({len(x)}, *context): one row for each row of {name}. One "
            f"column is np.asarray({context_name})[:, None]"
        )
    for numbers, what, table in ((x, name, data), (c, context_name, context)):
        if numbers is not None:
            check_finite(numbers, dtype_of(x), f"fit: {what}", getattr(header_of(table), "names", None))
    return Rows(x, c, w)


def _weights(weights: Any, rows: int) -> np.ndarray:
    w = numbers_of(weights, "fit: weights")
    if w.shape != (rows,):
        raise FlowsError(f"fit: weights have shape {w.shape}, expected ({rows},): one for each row of data")
    w = w.astype(float)
    with np.errstate(invalid="ignore"):
        w = w / w.max() if w.size and 0 < w.max() < np.inf else w  # only their ratios matter
    if not np.isfinite(w).all() or (w < 0).any() or not w.any():
        wrong = f"the weight of row {np.flatnonzero(~np.isfinite(w) | (w < 0))[0]} is not" if w.any() else "all are 0"
        raise FlowsError(f"fit: weights have to be finite and 0 or more, some above 0; {wrong}")
    return w


def places_of(values: Any, name: str, rows: int) -> np.ndarray:
    """Return the place of each row's value among the sorted values of `groups=` or `order=`."""
    values = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if values.shape != (rows,):
        raise FlowsError(f"fit: {name} has shape {values.shape}, expected ({rows},): one for each row of data")
    as_text = values.astype(str) if values.dtype.kind in "OU" else values
    gaps = (values != values) if as_text is values else np.isin(as_text, GAPS)
    if gaps.any():
        raise FlowsError(f"fit: {name} has a gap in row {gaps.argmax()}; expected a value for each row: fill or drop it")
    if name == "order" and any(isinstance(value, str) for value in values[:1]):
        raise FlowsError(f"fit: order is text, such as {as_text[0]:.40}; expected numbers, or a column that is read as a date")
    places: np.ndarray = np.unique(values if name == "order" else as_text, return_inverse=True)[1]
    return places


def read_validation(validation: Any, table: Table) -> Table:
    """Read rows to validate on, or a pair of rows and context, of the shapes of a table; names put columns in order."""
    pair, context_name = isinstance(validation, tuple) and len(validation) == 2, "the context of validation"
    event, context_event = table.event, table.context_event
    if context_event is not None and (not pair or validation[1] is None):
        raise FlowsError("fit: validation is rows alone; expected a pair (data, context), as there is a context")
    if context_event is None and pair and any(np.ndim(array) != len(event) for array in validation):
        raise FlowsError("fit: validation is a pair (data, context); expected rows alone, as there is no context")
    x, c = validation if context_event is not None else (validation, None)
    header, context_header = table.headers
    x, c = in_order(x, header, "fit: validation"), in_order(c, context_header, f"fit: {context_name}")
    if np.ndim(x) < 2:
        raise FlowsError(f"fit: validation has shape {np.shape(x)}, expected (rows, {_listed(event)})")
    held_out = Table.of(read_rows(x, c, "validation", context_name), table.headers, source="validation")
    for name, array, shape in (("validation", held_out.x, event), (context_name, held_out.context, context_event or ())):
        if array is not None and (array.shape[1:] != shape or not len(array)):
            raise FlowsError(f"fit: {name} has shape {array.shape}, expected (rows, {_listed(shape)})")
    if len(table) < LEAST_ROWS:
        raise FlowsError(f"fit: data has {counted(len(table))}; expected at least {LEAST_ROWS}")
    return held_out


def _listed(shape: tuple[int, ...]) -> str:
    return str(shape)[1:-1].strip(",")


@dataclass(eq=False)
class DataFailed(Exception):
    """A stream raised an error during a fit; `state` is the last state of the fit."""

    error: Exception
    state: Any = None


def mapped(data: np.memmap, options: Options, key: Array, result: FitResult | None = None) -> Split:
    """Read a memory-mapped file; whole blocks of neighbouring rows are held out and shuffled."""
    n, context, batch_size, seed = len(data), options.context, options.rows_a_step(math.inf), seed_of(key)
    if options.weights is not None or options.holding:
        raise FlowsError(IN_MEMORY)
    headers: Headers = None, named_apart(context, "fit: context")
    if result is not None:
        context = in_order(context, result.context_table, "fit: context")
        headers = result.table, result.context_table or headers[1]
    if context is not None and not isinstance(context, np.memmap):
        context = read_rows(context, None, "context").x
    if context is not None and len(context) != n:
        raise FlowsError(f"fit: context has {len(context)} rows, expected {n}: one for each row of data")
    block = rows_within(BLOCK, HELD_OUT[1] // BLOCKS_HELD_OUT, data.shape[1:])
    blocks, most = np.random.default_rng(seed).permutation(-(-n // block)), rows_within(*HELD_OUT, data.shape[1:]) // block
    others = 0 if options.share is None else min(max(round(len(blocks) * options.share), 1), max(most, 1))

    def rows_of(blocks: np.ndarray) -> np.ndarray:
        rows = (blocks[:, None] * block + np.arange(block)).ravel()
        return rows[rows < n]

    numbers = rows_of(blocks[others:])
    if len(numbers) < max(batch_size, LEAST_ROWS):
        raise FlowsError(
            f"fit: data has {n} rows on disk, of which {n - len(numbers)} are held out, in blocks of {block}; too few are "
            f"left for batch_size={batch_size}. Give them as an array in memory, np.array(data)"
        )

    def table_at(numbers: np.ndarray, name: str = "data") -> Table:
        return Table.of(read_rows(data[numbers], None if context is None else context[numbers], name), headers, numbers)

    looked_at = np.sort(numbers[:: -(-len(numbers) // rows_within(*LOOKED_AT, data.shape[1:]))])
    first = table_at(looked_at)
    held_out = table_at(np.sort(rows_of(blocks[:others]))) if others else read_validation(options.validation, first)
    chunk, steps = _chunk_of(data[:1], batch_size), options.steps_an_epoch(len(numbers), batch_size)

    def chunks(epoch: int) -> Iterator[Chunk]:
        rng = np.random.default_rng([*seed, epoch])
        order = rows_of(rng.permutation(blocks[others:]))[: steps * batch_size]
        for start in range(0, len(order), chunk):
            numbers = np.sort(order[start : start + chunk])
            yield Chunk(len(numbers), partial(rows_of_chunk, numbers))

    def rows_of_chunk(numbers: np.ndarray, index: Any) -> Table:
        """Read rows in their order on the disk."""
        wanted, name = numbers[index], f"a chunk of data from row {numbers[0]} on"
        order = np.argsort(wanted, kind="stable")
        return table_at(wanted[order], name).take(np.argsort(order, kind="stable"))

    return Split(first, held_out, first, held_out.rows, batch_size, steps, stream=Stream(chunks), total=len(numbers))


def iterated(data: Any, options: Options, result: FitResult | None = None) -> Split:
    """Read an iterable of batches, which starts again at its end if it can."""
    if options.weights is not None or options.holding:
        raise FlowsError(IN_MEMORY)
    if options.context is not None:
        raise FlowsError("fit: data is an iterable, so it has to yield the context in pairs (rows, context)")
    if options.steps_per_epoch is None:
        raise FlowsError("fit: data is an iterable, which may be of any length: give steps_per_epoch")
    if options.share is not None:
        raise FlowsError("fit: data is an iterable, of which no share can be held out: give validation rows")
    steps, batch_size, batches = options.steps_per_epoch, options.rows_a_step(math.inf), Batches(data, result)
    together = devices()
    if options.members is not None and not together.alone:
        raise FlowsError(
            f"fit: data is an iterable, which yields separate rows in each process, but "
            f"members={options.members} train on the same rows; fit them one after the other"
        )
    looked_at = together.part_of(min(max(rows_within(*LOOKED_AT, batches.event), batch_size), steps * batch_size))
    first = batches.gathered(looked_at, again=True)  # to train on them, too
    if first is None:
        raise FlowsError(
            f"fit: data ended before the {looked_at} rows of an epoch of {steps} steps; give fewer steps_per_epoch"
        )
    chunk = together.part_of(_chunk_of(first.x[:1], batch_size))
    rows = together.joined(first.rows)
    first = Table.of(rows, first.headers, np.arange(len(rows.x)))

    def chunks(epoch: int) -> Iterator[Chunk]:
        left = together.part_of(steps * batch_size)
        while left:
            table = batches.gathered(min(chunk, left))
            if table is None:
                raise FlowsError(
                    f"fit: data ended in epoch {epoch}; an iterator cannot start again. Give max_epochs and steps_per_epoch "
                    "that it has rows for, or an iterable that starts again with each iter()"
                )
            yield Chunk(len(table), table.take, batches.state())
            left -= len(table)

    held_out = read_validation(options.validation, first)
    stream = Stream(chunks, separate=not together.alone, restore=batches.restore if batches.has_state else None)
    return Split(first, held_out, first, held_out.rows, batch_size, steps, stream=stream, total=steps * batch_size)


def _chunk_of(row: np.ndarray, batch_size: int) -> int:
    """Return the number of rows of a chunk, in whole batches."""
    return max(CHUNK_BYTES // max(row.nbytes, 1) // batch_size, 1) * batch_size


class Piece(NamedTuple):
    """A batch of an iterable, the number of its rows that are used, and the state of the iterator before it."""

    rows: Rows
    used: int
    state: Any

    @property
    def left(self) -> int:
        """The number of rows that are not used."""
        return len(self.rows.x) - self.used


class Batches:
    """The rows of an iterable of batches, one after the other; it starts again at its end, if it can.

    An iterator with `get_state` and `set_state`, such as an iterator of Grain, can continue later at the same place.
    """

    def __init__(self, data: Any, result: FitResult | None = None):
        self.data, self.iterator, self.once = data, iter(data), iter(data) is data
        self.has_state = hasattr(self.iterator, "get_state") and hasattr(self.iterator, "set_state")
        self.count = 0  # rows so far
        self.like: Any = None  # the shapes of a row and of its context
        self.headers: Headers = (None, None) if result is None else (result.table, result.context_table)
        self.pieces = self._next()
        self.event = self.pieces[0].rows.x.shape[1:] if self.pieces else ()

    def gathered(self, count: int, again: bool = False) -> Table | None:
        """Take n rows, or with `again` leave them to be taken again; None where fewer are left."""
        while sum(piece.left for piece in self.pieces) < count:
            if not (more := self._next()):
                return None
            self.pieces = self.pieces + more
        pieces, taken, left = self.pieces, list[Rows](), count
        while left:
            piece, *rest = pieces
            used = piece.used + min(left, piece.left)
            taken.append(take(piece.rows, slice(piece.used, used)))
            left -= used - piece.used
            pieces = [*([piece._replace(used=used)] if used < len(piece.rows.x) else []), *rest]
        if not again:
            self.pieces = pieces
        first = self.count - sum(piece.left for piece in pieces) - count
        rows = jax.tree.map(lambda *arrays: np.concatenate(arrays), *taken)
        return Table.of(rows, self.headers, np.arange(first, first + count))

    def state(self) -> Any:
        """Return the state after the rows so far: the state of the iterator, and how many rows of its next batch are used."""
        if not self.has_state:
            return None
        state, used = (self.pieces[0].state, self.pieces[0].used) if self.pieces else (self.iterator.get_state(), 0)
        if isinstance(state, bytes):
            return {"iterator": {"bytes": base64.b64encode(state).decode()}, "used": used}
        try:
            return {"iterator": {"json": json.loads(json.dumps(state))}, "used": used}
        except TypeError:
            raise FlowsError(
                f"fit: get_state() of data is {state!r:.60}, which a checkpoint cannot hold; expected bytes, or values "
                "that JSON can hold"
            ) from None

    def restore(self, state: Any) -> None:
        """Continue from a state of a checkpoint."""
        self.iterator = self.iterator if self.once else iter(self.data)
        try:
            saved = state["iterator"]
            self.iterator.set_state(base64.b64decode(saved["bytes"]) if "bytes" in saved else saved["json"])
        except Exception as error:
            raise FlowsError(
                f"fit: data cannot continue from the state in the checkpoint ({type(error).__name__}: {error!s:.300}). Give "
                "the iterable with which the fit began, or another folder"
            ) from error
        self.pieces = [piece._replace(used=state["used"]) for piece in (self._next() if state["used"] else [])]

    def _next(self) -> list[Piece]:
        """Return the next batch, or an empty list at the end."""
        before = self.iterator.get_state() if self.has_state else None
        batch = next(self.iterator, None)
        if batch is None and not self.once:
            self.iterator = iter(self.data)
            before = self.iterator.get_state() if self.has_state else None
            batch = next(self.iterator, None)
        if batch is None:
            return []
        x, context = batch if isinstance(batch, tuple) and len(batch) == 2 else (batch, None)
        name = f"a batch after row {self.count} of data"
        if self.like is None:
            now = named_apart(x, f"fit: {name}"), named_apart(context, "fit: context")
            self.headers = self.headers[0] or now[0], self.headers[1] or now[1]
        header, context_header = self.headers
        context = in_order(context, context_header, f"fit: the context of {name}")
        rows = read_rows(in_order(x, header, f"fit: {name}"), context, name)
        if not len(rows.x):
            raise FlowsError(f"fit: {name} has no rows; expected at least one in each batch")
        like = jax.tree.map(lambda array: array.shape[1:], rows)
        self.like = like if self.like is None else self.like
        if self.like != like:
            raise FlowsError(f"fit: {name} has rows of shape {like[:2]}, but earlier batches {self.like[:2]}")
        self.count += len(rows.x)
        return [Piece(rows, 0, before)]
