"""The rows that a fit is given, as arrays: read, and split into those to train on and those held out.

A stream is a memory-mapped file or an iterable of batches. Some of its rows are read for the checks, and all rows, in chunks,
while the fit runs.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError
from flows.core.inputs import rows_within, working_dtype
from flows.core.validation import check_finite
from flows.results.frames import Columns, in_order, named_apart, numbers_of
from flows.training.copies import groups_of
from flows.training.options import Options
from flows.training.splitting import LEAST_ROWS, counted, folds_of_rows, seed_of, split

CHUNK_BYTES = 64 * 2**20  # of a stream, read at once
# Neighbouring rows that are read together, as a disk likes it; chunks mix blocks from all over, and their rows. There are fewer
# in a block where each is large, so that this many blocks at least may be held out.
BLOCK, BLOCKS_HELD_OUT = 1024, 4
LOOKED_AT = 100_000, 2**24  # rows, and numbers, by which a stream is checked and measured before the first step
HELD_OUT = 100_000, 2**24  # rows, and numbers, at most, of a share of a stream
OF_A_STREAM = "fit: weights are for data in memory; draw the rows of a stream in proportion to theirs instead"

Chunks = Callable[[int], Iterator[tuple["Rows", np.ndarray]]]  # (epoch) -> pieces of its rows, each with their numbers


class Rows(NamedTuple):
    """Rows of data, (rows, *event), with their context, (rows, *context), and their weights, (rows,); or None."""

    x: Any
    context: Any = None
    weights: Any = None


class Source(NamedTuple):
    """Where the rows are in what was given, and how they are taken from there."""

    numbers: np.ndarray  # of the training rows in the data
    others: np.ndarray | None  # those of the rows held out, if they are a share of the data
    given: tuple[Rows, Rows | None]  # all rows of data and those to validate on, by which a checkpoint knows them
    dtype: np.dtype  # to work in
    batch_size: int  # rows a step
    steps: int  # an epoch
    table: Columns | None = None  # of data
    context_table: Columns | None = None
    chunks: Chunks | None = None  # of a stream
    groups: np.ndarray | None = None  # a number of each row of data, which copies have in common; None where there are none
    rows: int | None = None  # of a stream: how many there are to train on in an epoch, of which `numbers` were looked at

    @property
    def held_out(self) -> "Rows":
        """The rows held out, in the units of the data."""
        rows, held_out = self.given
        return take(rows, self.others) if held_out is None else held_out

    @property
    def names(self) -> tuple[str, ...] | None:
        """Of the columns of data."""
        return None if self.table is None else self.table.names


class DataFailed(Exception):
    """A stream raised an error while a fit was running, which had come to `state`."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error
        self.state: Any = None


class Data(NamedTuple):
    """What a fit is given, as NumPy arrays in the units of the data. Of a stream, `train` are the rows that were looked at."""

    train: Rows
    held_out: Rows
    source: Source


def read(data: Any, options: Options, key: Array) -> Data:
    """Read what a fit is given: arrays and tables whole, of a stream the rows that a first look needs."""
    if isinstance(data, np.memmap):
        return _mapped(data, options, key)
    if hasattr(data, "__iter__") and not (
        isinstance(data, list | tuple | str | bytes | dict | set) or hasattr(data, "__array__") or hasattr(data, "to_numpy")
    ):
        return _iterated(data, options)
    return read_arrays(data, options, key)


def read_arrays(data: Any, options: Options, key: Array) -> Data:
    """Read arrays or tables, and split them."""
    tables = named_apart(data, "fit: data"), named_apart(options.context, "fit: context")
    rows = read_rows(data, options.context, weights=options.weights)
    numbers, others = np.arange(len(rows.x)), None
    if rows.weights is not None:  # a row of weight 0 is as if it were not there
        numbers = np.flatnonzero(rows.weights)
    groups = groups_of((rows.x, rows.context))
    if options.share is None:
        held_out = read_validation(options.validation, rows, *tables)
    else:
        of_train, of_others = split(len(numbers), options.share, key, None if groups is None else groups[numbers])
        numbers, others = numbers[of_train], numbers[of_others]
        held_out = take(rows, others)
    return shares(rows, numbers, held_out, others, options, tables, groups)


def shares(
    rows: Rows,
    numbers: np.ndarray,
    held_out: Rows,
    others: np.ndarray | None,
    options: Options,
    tables: tuple[Columns | None, Columns | None],
    groups: np.ndarray | None,
) -> Data:
    """Data of which the rows of these numbers are trained on, and others, or rows that were given, are held out."""
    given = (rows, held_out if others is None else None)
    batch_size = options.rows_a_step(len(numbers))
    steps = options.steps_an_epoch(len(numbers), batch_size)
    source = Source(numbers, others, given, dtype_of(rows.x), batch_size, steps, *tables, groups=groups)
    return Data(take(rows, numbers), held_out, source)


def unsplit(found: Data, options: Options) -> Data:
    """All rows that count, to train on as to hold out."""
    numbers = all_rows(found)
    return divided(found, numbers, numbers, options)


def divided(found: Data, numbers: np.ndarray, others: np.ndarray, options: Options) -> Data:
    """The rows of what was read divided anew: those of these numbers to train on, the others to hold out."""
    rows, tables = found.source.given[0], (found.source.table, found.source.context_table)
    return shares(rows, numbers, take(rows, others), others, options, tables, found.source.groups)


def cross_fitted(found: Data, options: Options, key: Array, folds: int) -> list[Data]:
    """The data of each fold, which holds out another part of the rows."""
    numbers = all_rows(found)
    if found.source.chunks is not None:
        raise FlowsError(f"fit: folds is {folds}, but data is a stream; leave folds out, or give an array in memory")
    if not 2 <= folds <= len(numbers) // 2:
        raise FlowsError(f"fit: folds is {folds}; expected folds from 2 to {len(numbers) // 2}, half the rows")
    parts = folds_of_rows(len(numbers), folds, key, groups_at(found, numbers))
    return [divided(found, numbers[of_train], numbers[others], options) for of_train, others in parts]


def groups_at(found: Data, numbers: np.ndarray) -> np.ndarray | None:
    """The groups of copies of these rows; None where there are no copies."""
    return None if found.source.groups is None else found.source.groups[numbers]


def all_rows(found: Data) -> np.ndarray:
    """The numbers of all rows that count."""
    others = found.source.others
    return np.sort(found.source.numbers if others is None else np.concatenate([found.source.numbers, others]))


def _mapped(data: np.memmap, options: Options, key: Array) -> Data:
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


def _rows_of(blocks: np.ndarray, block: int, n: int) -> np.ndarray:
    rows = (blocks[:, None] * block + np.arange(block)).ravel()
    return rows[rows < n]


def _chunk_of(row: np.ndarray, batch_size: int) -> int:
    """The rows of a chunk, whole batches."""
    return max(CHUNK_BYTES // max(row.nbytes, 1) // batch_size, 1) * batch_size


def _iterated(data: Any, options: Options) -> Data:
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


def dtype_of(x: np.ndarray) -> np.dtype:
    return working_dtype(jax.dtypes.canonicalize_dtype(x.dtype))


def take(rows: Rows, index: Any) -> Rows:
    return jax.tree.map(lambda array: array[index], rows)


def narrow(x: Any) -> bool:
    """Whether these are whole numbers of one byte or two, as images have: they stay so until a batch is taken."""
    return x.dtype.kind in "iu" and x.dtype.itemsize <= 2


def floating(rows: Rows) -> Rows:
    """Rows whose data are floating numbers."""
    return rows._replace(x=rows.x.astype(np.float32)) if narrow(rows.x) else rows


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


def read_validation(validation: Any, rows: Rows, table: Columns | None = None, context_table: Columns | None = None) -> Rows:
    """Rows to validate on, or a pair of them and their context, like the rows to train on; columns are put in order by name."""
    pair = isinstance(validation, tuple) and len(validation) == 2
    if rows.context is not None and (not pair or validation[1] is None):
        raise FlowsError("fit: validation is rows alone; expected a pair (data, context), as there is a context")
    if rows.context is None and pair and any(np.ndim(each) != rows.x.ndim - 1 for each in validation):
        raise FlowsError("fit: validation is a pair (data, context); expected rows alone, as there is no context")
    x, c = validation if rows.context is not None else (validation, None)
    x, c = in_order(x, table, "fit: validation"), in_order(c, context_table, "fit: the context of validation")
    if np.ndim(x) < 2:
        raise FlowsError(f"fit: validation has shape {np.shape(x)}, expected (rows, {_listed(rows.x.shape[1:])})")
    held_out = read_rows(x, c, "validation", "the context of validation")
    for name, own, like in zip(("validation", "the context of validation"), held_out, rows, strict=False):
        if own is not None and (own.shape[1:] != like.shape[1:] or not len(own)):
            raise FlowsError(f"fit: {name} has shape {own.shape}, expected (rows, {_listed(like.shape[1:])})")
    if len(rows.x) < LEAST_ROWS:
        raise FlowsError(f"fit: data has {counted(len(rows.x))}; expected at least {LEAST_ROWS}")
    return held_out


def _listed(shape: tuple[int, ...]) -> str:
    return str(shape)[1:-1].strip(",")
