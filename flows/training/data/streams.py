"""Streams: memory-mapped files and iterables of batches. Some of their rows are read for the checks, and all rows, in chunks,
while the fit runs.
"""

import base64
import json
import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError, rows_within
from flows.results.frames import Header, in_order, named_apart
from flows.training.agreement import agreed
from flows.training.data.arrays import read_rows, read_validation
from flows.training.data.splitting import LEAST_ROWS, seed_of
from flows.training.data.table import LOOKED_AT, Chunk, Rows, Split, Stream, Table, take
from flows.training.options import Options

CHUNK_BYTES = 64 * 2**20  # of a stream, read at once
# Neighbouring rows that are read together, as a disk likes it; chunks mix blocks from all over, and their rows. There are fewer
# in a block where each is large, so that this many blocks at least may be held out.
BLOCK = 1024  # rows, at most
BLOCKS_HELD_OUT = 4  # blocks, at least
HELD_OUT = 100_000, 2**24  # rows, and numbers, at most, of a share of a stream
OF_A_STREAM = "fit: weights are for data in memory; draw the rows of a stream in proportion to theirs instead"


class DataFailed(Exception):
    """A stream raised an error while a fit was running, which had come to `state`."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error
        self.state: Any = None


def mapped(data: np.memmap, options: Options, key: Array) -> Split:
    """A memory-mapped file, of which whole blocks of neighbouring rows are held out and shuffled."""
    n, context, batch_size, seed = len(data), options.context, options.rows_a_step(math.inf), seed_of(key)
    if options.weights is not None:
        raise FlowsError(OF_A_STREAM)
    headers = None, named_apart(context, "fit: context")
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

    def table_at(numbers: np.ndarray, name: str = "data") -> Table:
        return Table.of(read_rows(data[numbers], None if context is None else context[numbers], name), headers, numbers)

    looked_at = np.sort(numbers[:: -(-len(numbers) // rows_within(*LOOKED_AT, data.shape[1:]))])
    first = table_at(looked_at)
    if options.share is None:
        held_out = read_validation(options.validation, first)
    else:
        held_out = table_at(np.sort(_rows_of(blocks[:others], block, n)))
    chunk, steps = _chunk_of(data[:1], batch_size), options.steps_an_epoch(len(numbers), batch_size)

    def chunks(epoch: int) -> Iterator[Chunk]:
        rng = np.random.default_rng([*seed, epoch])
        order = _rows_of(rng.permutation(blocks[others:]), block, n)[: steps * batch_size]
        for start in range(0, len(order), chunk):
            numbers = np.sort(order[start : start + chunk])
            yield Chunk(len(numbers), partial(rows_of_chunk, numbers))

    def rows_of_chunk(numbers: np.ndarray, index: Any) -> Table:
        """They are read as they follow each other on the disk."""
        wanted, name = numbers[index], f"a chunk of data from row {numbers[0]} on"
        order = np.argsort(wanted, kind="stable")
        return table_at(wanted[order], name).take(np.argsort(order, kind="stable"))

    return Split(first, held_out, first, held_out.rows, batch_size, steps, stream=Stream(chunks), total=len(numbers))


def iterated(data: Any, options: Options) -> Split:
    """An iterable of batches, which starts again when it ends if it can."""
    if options.weights is not None:
        raise FlowsError(OF_A_STREAM)
    if options.context is not None:
        raise FlowsError("fit: data is an iterable, so its context comes with it: it has to yield pairs (rows, context)")
    if options.steps_per_epoch is None:
        raise FlowsError("fit: data is an iterable, which may be of any length: give steps_per_epoch")
    if options.share is not None:
        raise FlowsError("fit: data is an iterable, of which no share can be held out: give validation rows")
    steps, batch_size, batches = options.steps_per_epoch, options.rows_a_step(math.inf), _Batches(data)
    processes = agreed().processes
    if processes > 1 and options.members is not None:
        raise FlowsError(
            f"{options.caller}: data is an iterable, of which each process yields rows of its own, and "
            f"members={options.members} train on the same; fit them one after the other"
        )
    looked_at = min(max(rows_within(*LOOKED_AT, batches.event), batch_size), steps * batch_size) // processes
    first = batches.gathered(looked_at)
    if first is None:
        raise FlowsError(
            f"fit: data ended before the {looked_at} rows of an epoch of {steps} steps; give fewer steps_per_epoch"
        )
    batches.put_back()  # they are trained on, too
    chunk = _chunk_of(first.x[:1], batch_size) // processes
    rows = agreed().joined(first.rows)
    first = Table.of(rows, first.headers, np.arange(len(rows.x)))

    def chunks(epoch: int) -> Iterator[Chunk]:
        left = steps * batch_size // processes
        while left:
            table = batches.gathered(min(chunk, left))
            if table is None:
                raise FlowsError(
                    f"fit: data ended in epoch {epoch}; an iterator cannot start again. Give max_epochs and steps_per_epoch "
                    "that it has rows for, or an iterable that starts anew with each iter()"
                )
            yield Chunk(len(table), table.take, batches.state())
            left -= len(table)

    held_out = read_validation(options.validation, first)
    stream = Stream(chunks, own=processes > 1, restore=batches.restore if batches.has_state else None)
    return Split(first, held_out, first, held_out.rows, batch_size, steps, stream=stream, total=steps * batch_size)


class _Piece(NamedTuple):
    """A batch of an iterable, of which some rows at its beginning were used, and the state of the iterator before it."""

    rows: Rows
    used: int
    state: Any


class _Batches:
    """The rows of an iterable of batches, one after the other; it starts again when it ends, if it can.

    An iterator with `get_state` and `set_state`, as Grain's have them, can go on later where it was.
    """

    def __init__(self, data: Any):
        self.data, self.iterator, self.once = data, iter(data), iter(data) is data
        self.seen = 0
        self.like: Any = None  # the shapes of a row and of its context
        self.headers: tuple[Header | None, Header | None] = (None, None)
        self.pieces, self.last = list[_Piece](), list[_Piece]()
        piece = self._next()
        self.event = () if piece is None else piece.rows.x.shape[1:]
        self.pieces += [] if piece is None else [piece]

    @property
    def has_state(self) -> bool:
        return hasattr(self.iterator, "get_state") and hasattr(self.iterator, "set_state")

    def gathered(self, count: int) -> Table | None:
        """So many rows, or None where there are fewer left."""
        while sum(len(piece.rows.x) - piece.used for piece in self.pieces) < count:
            more = self._next()
            if more is None:
                return None
            self.pieces.append(more)
        self.last, taken, left = list(self.pieces), list[Rows](), count
        while left:
            rows, used, state = self.pieces[0]
            taken.append(take(rows, slice(used, used + left)))
            left -= len(taken[-1].x)
            at_end = used + len(taken[-1].x) == len(rows.x)
            self.pieces[:1] = [] if at_end else [_Piece(rows, used + len(taken[-1].x), state)]
        first = self.seen - sum(len(piece.rows.x) - piece.used for piece in self.pieces) - count
        return Table.of(_joined(*taken), self.headers, np.arange(first, first + count))

    def put_back(self) -> None:
        """As it was before the last rows."""
        self.pieces = self.last

    def state(self) -> Any:
        """How to go on after the rows so far: the state of the iterator and how many rows of its next batch were used."""
        if not self.has_state:
            return None
        piece = self.pieces[0] if self.pieces else _Piece(Rows(None), 0, self.iterator.get_state())
        return {"iterator": _told(piece.state), "used": piece.used}

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self.iterator = self.iterator if self.once else iter(self.data)
        try:
            self.iterator.set_state(_untold(state["iterator"]))
        except Exception as error:
            raise FlowsError(
                f"fit: data cannot go on from the state that the checkpoint has ({type(error).__name__}: {error!s:.300}). Give "
                "the iterable that the fit began with, or another folder"
            ) from error
        self.pieces, piece = [], self._next() if state["used"] else None
        self.pieces += [] if piece is None else [piece._replace(used=state["used"])]

    def _next(self) -> _Piece | None:
        """The next batch, or None at the end."""
        before = self.iterator.get_state() if self.has_state else None
        batch = next(self.iterator, None)
        if batch is None and not self.once:
            self.iterator = iter(self.data)
            before = self.iterator.get_state() if self.has_state else None
            batch = next(self.iterator, None)
        if batch is None:
            return None
        x, context = batch if isinstance(batch, tuple) and len(batch) == 2 else (batch, None)
        name = f"a batch after row {self.seen} of data"
        if self.like is None:
            self.headers = named_apart(x, f"fit: {name}"), named_apart(context, "fit: context")
        header, context_header = self.headers
        context = in_order(context, context_header, f"fit: the context of {name}")
        rows = read_rows(in_order(x, header, f"fit: {name}"), context, name)
        if not len(rows.x):
            raise FlowsError(f"fit: {name} has no rows; expected at least one in each batch")
        like = jax.tree.map(lambda array: array.shape[1:], rows)
        self.like = like if self.like is None else self.like
        if self.like != like:
            raise FlowsError(f"fit: {name} has rows of shape {like[:2]}; those before it {self.like[:2]}")
        self.seen += len(rows.x)
        return _Piece(rows, 0, before)


def _told(state: Any) -> Any:
    """The state of an iterator, for JSON."""
    if isinstance(state, bytes):
        return {"bytes": base64.b64encode(state).decode()}
    try:
        return {"json": json.loads(json.dumps(state))}
    except TypeError:
        raise FlowsError(
            f"fit: get_state() of data is {state!r:.60}, which a checkpoint cannot hold; expected bytes, or what JSON can hold"
        ) from None


def _untold(told: Any) -> Any:
    return base64.b64decode(told["bytes"]) if "bytes" in told else told["json"]


def _joined(*pieces: Any) -> Rows:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *pieces)


def _rows_of(blocks: np.ndarray, block: int, n: int) -> np.ndarray:
    rows = (blocks[:, None] * block + np.arange(block)).ravel()
    return rows[rows < n]


def _chunk_of(row: np.ndarray, batch_size: int) -> int:
    """The rows of a chunk, whole batches."""
    return max(CHUNK_BYTES // max(row.nbytes, 1) // batch_size, 1) * batch_size
