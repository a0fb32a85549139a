"""Streams: memory-mapped files and iterables of batches. Some of their rows are read for the checks, and all rows, in chunks,
while the fit runs.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from flows.core import Array, FlowsError, rows_within
from flows.results.frames import in_order, named_apart
from flows.training.data.arrays import read_rows, read_validation
from flows.training.data.splitting import LEAST_ROWS, seed_of
from flows.training.data.table import LOOKED_AT, Data, Rows, Source, dtype_of, take
from flows.training.options import Options

CHUNK_BYTES = 64 * 2**20  # of a stream, read at once
# Neighbouring rows that are read together, as a disk likes it; chunks mix blocks from all over, and their rows. There are fewer
# in a block where each is large, so that this many blocks at least may be held out.
BLOCK, BLOCKS_HELD_OUT = 1024, 4
HELD_OUT = 100_000, 2**24  # rows, and numbers, at most, of a share of a stream
OF_A_STREAM = "fit: weights are for data in memory; draw the rows of a stream in proportion to theirs instead"


class DataFailed(Exception):
    """A stream raised an error while a fit was running, which had come to `state`."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error
        self.state: Any = None


def mapped(data: np.memmap, options: Options, key: Array) -> Data:
    """A memory-mapped file, of which whole blocks of neighbouring rows are held out and shuffled."""
    n, context, batch_size, seed = len(data), options.context, options.rows_a_step(math.inf), seed_of(key)
    if options.weights is not None:
        raise FlowsError(OF_A_STREAM)
    table = named_apart(context, "fit: context")
    if context is not None and not isinstance(context, np.memmap):
        context = read_rows(context, None, "context").x
    if context is not None and len(context) != n:
        raise FlowsError(f"fit: context has {len(context)} rows, expected {n}: one for each row of data")
    block = rows_within(BLOCK, HELD_OUT[1] // BLOCKS_HELD_OUT, data.shape[1:])
    blocks = np.random.default_rng(seed).permutation(-(-n // block))
    others = 0
    if options.share is not None:
        others = min(max(round(len(blocks) * options.share), 1), max(rows_within(*HELD_OUT, data.shape[1:]) // block, 1))
    numbers = _rows_of(blocks[others:], block, n)
    if len(numbers) < max(batch_size, LEAST_ROWS):
        raise FlowsError(
            f"fit: data has {n} rows on disk, of which {n - len(numbers)} are held out, in blocks of {block}; too few are "
            f"left for batch_size={batch_size}. Give them as an array in memory, np.array(data)"
        )

    def rows_at(numbers: np.ndarray, name: str = "data") -> Rows:
        return read_rows(data[numbers], None if context is None else context[numbers], name)

    looked_at = np.sort(numbers[:: -(-len(numbers) // rows_within(*LOOKED_AT, data.shape[1:]))])
    first = rows_at(looked_at)
    if options.share is None:
        held_out, of_others = read_validation(options.validation, first, None, table), None
    else:
        of_others = np.sort(_rows_of(blocks[:others], block, n))
        held_out = rows_at(of_others)
    chunk, steps = _chunk_of(data[:1], batch_size), options.steps_an_epoch(len(numbers), batch_size)

    def chunks(epoch: int) -> Iterator[tuple[Rows, np.ndarray]]:
        rng = np.random.default_rng([*seed, epoch])
        order = _rows_of(rng.permutation(blocks[others:]), block, n)[: steps * batch_size]
        for start in range(0, len(order), chunk):
            numbers = np.sort(order[start : start + chunk])
            yield rows_at(numbers, f"a chunk of data from row {numbers[0]} on"), numbers

    given = (first, held_out)
    source = Source(looked_at, of_others, given, dtype_of(first.x), batch_size, steps, context_table=table, chunks=chunks)
    return Data(first, held_out, source._replace(rows=len(numbers)))


def iterated(data: Any, options: Options) -> Data:
    """An iterable of batches, which starts again when it ends if it can."""
    if options.weights is not None:
        raise FlowsError(OF_A_STREAM)
    if options.context is not None:
        raise FlowsError("fit: data is an iterable, so its context comes with it: it has to yield pairs (rows, context)")
    if options.steps_per_epoch is None:
        raise FlowsError("fit: data is an iterable, which may be of any length: give steps_per_epoch")
    if options.share is not None:
        raise FlowsError("fit: data is an iterable, of which no share can be held out: give validation rows")
    steps, batch_size = options.steps_per_epoch, options.rows_a_step(math.inf)
    once = iter(data) is data
    state: dict[str, Any] = {"iterator": iter(data), "seen": 0, "left": None}

    def batch() -> Rows | None:
        """The next batch that it yields, or None at its end."""
        for again in (True, False):
            found = next(state["iterator"], None)
            if found is not None:
                x, context = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
                name = f"a batch after row {state['seen']} of data"
                tables = state.setdefault("tables", (named_apart(x, f"fit: {name}"), named_apart(context, "fit: context")))
                x, context = in_order(x, tables[0], f"fit: {name}"), in_order(context, tables[1], f"fit: the context of {name}")
                rows = read_rows(x, context, name)
                like = jax.tree.map(lambda array: array.shape[1:], rows)
                if not len(rows.x):
                    raise FlowsError(f"fit: {name} has no rows; expected at least one in each batch")
                if state.setdefault("like", like) != like:
                    raise FlowsError(f"fit: {name} has rows of shape {like[:2]}; those before it {state['like'][:2]}")
                return rows
            if once or not again:
                return None
            state["iterator"] = iter(data)
        return None

    def gathered(count: int) -> tuple[Rows, np.ndarray] | None:
        """So many rows with their numbers, or None where there are fewer left."""
        pieces = [] if state["left"] is None else [state["left"]]
        while sum(len(piece.x) for piece in pieces) < count:
            more = batch()
            if more is None:
                return None
            state["seen"] += len(more.x)
            pieces.append(more)
        rows = jax.tree.map(lambda *each: np.concatenate(each), *pieces)
        state["left"] = take(rows, slice(count, None))
        first = state["seen"] - len(rows.x)
        return take(rows, slice(count)), np.arange(first, first + count)

    first = batch()
    event = ()
    if first is not None:
        state["left"], state["seen"], event = first, len(first.x), first.x.shape[1:]
    looked_at = min(max(rows_within(*LOOKED_AT, event), batch_size), steps * batch_size)
    found = gathered(looked_at)
    if found is None:
        raise FlowsError(
            f"fit: data ended before the {looked_at} rows of an epoch of {steps} steps; give fewer steps_per_epoch"
        )
    first = found[0]
    state["left"] = jax.tree.map(lambda *each: np.concatenate(each), first, state["left"])  # they are trained on, too
    chunk = _chunk_of(first.x[:1], batch_size)

    def chunks(epoch: int) -> Iterator[tuple[Rows, np.ndarray]]:
        left = steps * batch_size
        while left:
            found = gathered(min(chunk, left))
            if found is None:
                raise FlowsError(
                    f"fit: data ended in epoch {epoch}; an iterator cannot start again. Give max_epochs and steps_per_epoch "
                    "that it has rows for, or an iterable that starts anew with each iter()"
                )
            yield found
            left -= len(found[1])

    held_out = read_validation(options.validation, first, *state["tables"])
    table, context_table = state["tables"]
    given = (first, held_out)
    source = Source(found[1], None, given, dtype_of(first.x), batch_size, steps, table, context_table, chunks)
    return Data(first, held_out, source._replace(rows=steps * batch_size))


def _rows_of(blocks: np.ndarray, block: int, n: int) -> np.ndarray:
    rows = (blocks[:, None] * block + np.arange(block)).ravel()
    return rows[rows < n]


def _chunk_of(row: np.ndarray, batch_size: int) -> int:
    """The rows of a chunk, whole batches."""
    return max(CHUNK_BYTES // max(row.nbytes, 1) // batch_size, 1) * batch_size
