"""Streams: memory-mapped files and iterables of batches. Some of their rows are read for the checks, and all rows, in chunks,
while the fit runs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flows.core import Array, FlowsError, rows_within
from flows.results.frames import named_apart
from flows.training.data.batches import Batches
from flows.training.data.table import LEAST_ROWS, LOOKED_AT, Chunk, Split, Stream, Table, read_rows, read_validation, seed_of
from flows.training.devices import devices
from flows.training.options import Options

CHUNK_BYTES = 64 * 2**20  # of a stream, read at once
# Neighbouring rows that are read together, as a disk likes it; chunks mix blocks from all over, and their rows. There are fewer
# in a block where each is large, so that this many blocks at least may be held out.
BLOCK = 1024  # rows, at most
BLOCKS_HELD_OUT = 4  # blocks, at least
HELD_OUT = 100_000, 2**24  # rows, and numbers, at most, of a share of a stream
OF_A_STREAM = "fit: weights are for data in memory; draw the rows of a stream in proportion to theirs instead"


@dataclass(eq=False)
class DataFailed(Exception):
    """A stream raised an error while a fit was running, which had come to `state`."""

    error: Exception
    state: Any = None


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
    steps, batch_size, batches = options.steps_per_epoch, options.rows_a_step(math.inf), Batches(data)
    together = devices()
    if options.members is not None and not together.alone:
        raise FlowsError(
            f"{options.caller}: data is an iterable, of which each process yields rows of its own, and "
            f"members={options.members} train on the same; fit them one after the other"
        )
    looked_at = together.part_of(min(max(rows_within(*LOOKED_AT, batches.event), batch_size), steps * batch_size))
    first = batches.gathered(looked_at)
    if first is None:
        raise FlowsError(
            f"fit: data ended before the {looked_at} rows of an epoch of {steps} steps; give fewer steps_per_epoch"
        )
    batches.put_back()  # they are trained on, too
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
                    "that it has rows for, or an iterable that starts anew with each iter()"
                )
            yield Chunk(len(table), table.take, batches.state())
            left -= len(table)

    held_out = read_validation(options.validation, first)
    stream = Stream(chunks, own=not together.alone, restore=batches.restore if batches.has_state else None)
    return Split(first, held_out, first, held_out.rows, batch_size, steps, stream=stream, total=steps * batch_size)


def _chunk_of(row: np.ndarray, batch_size: int) -> int:
    """The rows of a chunk, whole batches."""
    return max(CHUNK_BYTES // max(row.nbytes, 1) // batch_size, 1) * batch_size
