"""Data that do not fit into memory: read in chunks by a thread, ahead of the steps that train on them."""

import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError
from flows.training.data_checks import judge, steps_of
from flows.training.diagnose import Suspects
from flows.training.preprocess import Prepared, scale_of_context
from flows.training.reading import LEAST_ROWS, Rows, as_share, measure, read, read_validation, take
from flows.training.step import Pace, Report, State, Trainer

CHUNK_BYTES = 64 * 2**20  # of data read at once
BLOCK = 1024  # neighbouring rows that are read together, as a disk likes it; chunks mix blocks from all over, and their rows
LOOKED_AT = 100_000  # rows by which data are judged and measured before the first step
HELD_OUT = 100_000  # rows at most, of a share


class Source(NamedTuple):
    """Where rows come from: `first` to look at, and `chunks(epoch)`, each with the numbers of its rows."""

    first: Rows
    numbers: np.ndarray  # of those rows
    held_out: Rows
    others: np.ndarray | None  # the numbers of those, if they are a share of the data
    chunks: Callable[[int], Iterator[tuple[Rows, np.ndarray]]]
    steps: int  # of an epoch


def is_streamed(data: Any) -> bool:
    """A memory-mapped array, or an iterable of batches that is no array, table or list."""
    if isinstance(data, np.memmap):
        return True
    plain = isinstance(data, list | tuple | str | bytes | dict | set) or hasattr(data, "__array__") or hasattr(data, "to_numpy")
    return hasattr(data, "__iter__") and not plain


def open_source(
    data: Any, context: Any, weights: Any, validation: Any, batch_size: int, steps: int | None, key: Array
) -> Source:
    if weights is not None:
        raise FlowsError("fit: weights are for data in memory; draw the rows of a stream in proportion to theirs instead")
    seed = np.asarray(jax.random.key_data(key)).tolist()
    if isinstance(data, np.memmap):
        return _mapped(data, context, validation, batch_size, steps, seed)
    if context is not None:
        raise FlowsError("fit: data is an iterable, so its context comes with it: it has to yield pairs (rows, context)")
    if steps is None:
        raise FlowsError("fit: data is an iterable, which may be of any length: give steps_per_epoch")
    if as_share(validation) is not None:
        raise FlowsError("fit: data is an iterable, of which no share can be held out: give validation rows")
    return _iterated(data, validation, batch_size, steps)


def _mapped(data: np.memmap, context: Any, validation: Any, batch_size: int, steps: int | None, seed: list) -> Source:
    n = len(data)
    if context is not None and not isinstance(context, np.memmap):
        context = read(context, None, "context")[0].x
    if context is not None and len(context) != n:
        raise FlowsError(f"fit: context has {len(context)} rows, expected {n}: one for each row of data")
    all_rows = Rows(data, context)
    blocks = np.random.default_rng(seed).permutation(-(-n // BLOCK))
    share, others = as_share(validation), 0
    if share is not None:
        others = min(max(round(len(blocks) * share), 1), max(HELD_OUT // BLOCK, 1))
    numbers = _rows_of(blocks[others:], n)
    if len(numbers) < max(batch_size, LEAST_ROWS):
        raise FlowsError(
            f"fit: data has {n} rows on disk, of which {n - len(numbers)} are held out, in blocks of {BLOCK}; too few are "
            f"left for batch_size={batch_size}. Give them as an array in memory, np.array(data)"
        )
    looked_at = np.sort(numbers[:: -(-len(numbers) // LOOKED_AT)])
    first = read(data[looked_at], None if context is None else context[looked_at])[0]
    if share is None:
        held_out, of_others = read_validation(validation, first), None
    else:
        of_others = np.sort(_rows_of(blocks[:others], n))
        held_out = read(data[of_others], None if context is None else context[of_others])[0]
    chunk = max(CHUNK_BYTES // max(data[:1].nbytes, 1) // batch_size, 1) * batch_size
    steps = min(steps or len(numbers) // batch_size, len(numbers) // batch_size)

    def chunks(epoch: int) -> Iterator[tuple[Rows, np.ndarray]]:
        rng = np.random.default_rng([*seed, epoch])
        order = _rows_of(rng.permutation(blocks[others:]), n)[: steps * batch_size]
        for start in range(0, len(order), chunk):
            numbers = np.sort(order[start : start + chunk])
            yield take(all_rows, numbers), numbers

    return Source(first, looked_at, held_out, of_others, chunks, steps)


def _rows_of(blocks: np.ndarray, n: int) -> np.ndarray:
    rows = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    return rows[rows < n]


def _iterated(data: Any, validation: Any, batch_size: int, steps: int) -> Source:
    once = iter(data) is data
    state: dict[str, Any] = {"iterator": iter(data), "seen": 0, "left": None}

    def batch() -> Rows | None:
        """The next that it yields, read and counted; None at its end."""
        for again in (True, False):
            found = next(state["iterator"], None)
            if found is not None:
                x, context = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
                name = f"a batch after row {state['seen']} of data"
                rows = read(x, context, name)[0]
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
        """So many rows; None where there are not."""
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

    looked_at = min(LOOKED_AT, steps * batch_size)
    found = gathered(looked_at)
    if found is None:
        raise FlowsError(
            f"fit: data ended before the {looked_at} rows of an epoch of {steps} steps; give fewer steps_per_epoch"
        )
    first = found[0]
    state["left"] = jax.tree.map(lambda *each: np.concatenate(each), first, state["left"])  # they are trained on, too
    chunk = max(CHUNK_BYTES // max(first.x[:1].nbytes, 1) // batch_size, 1) * batch_size

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

    return Source(first, found[1], read_validation(validation, first), None, chunks, steps)


def prepare_stream(source: Source, standardize: bool, dequantize: Any) -> Prepared:
    """As `prepare`, by the rows that were looked at."""
    first, dtype = source.first, read(source.first.x, None)[1]
    steps, scale = steps_of(dequantize, first.x, None), measure(first.x, dtype)
    if first.x.ndim == 2:
        judge(first.x, source.numbers, scale, dtype, standardize, steps, None)
    of_context = scale_of_context(first.context) if standardize and first.context is not None else None
    offset = first.x.min(tuple(range(first.x.ndim - 1)))
    prepared = Prepared(
        first, source.held_out, source.numbers, source.others, [first, source.held_out], dtype,
        scale if standardize else None, steps, offset, of_context,
    )  # fmt: skip
    return prepared.on_device()


class Stream:
    """The epochs of a stream, and the last rows that could not be trained on."""

    def __init__(
        self, source: Source, prepared: Prepared, trainer: Trainer, pace: Pace, keys: Any, batch_size: int, members: int | None
    ):
        self.source, self.prepared, self.trainer, self.pace, self.keys = source, prepared, trainer, pace, keys
        self.batch_size, self.members = batch_size, members
        self.seed = np.asarray(jax.random.key_data(keys)).ravel().tolist()
        self.refused: dict[int, Suspects] = {}  # by member, of the first step of an epoch that was not taken

    def epoch(self, state: State, number: int) -> tuple[State, Report]:
        losses, taken, first = [], [], number * self.source.steps
        rng = np.random.default_rng([*self.seed, number])
        self.refused = {}
        with _ahead(partial(self._chunks, number)) as chunks:
            for piece, (chunk, numbers) in enumerate(chunks):
                rows = jax.tree.map(jnp.asarray, chunk)  # not in the thread, which has settings of JAX of its own
                order, pace = self._order(rng, len(numbers)), self.pace(first, len(numbers) // self.batch_size)
                state, loss, was_taken = self.trainer.advance(state, self.keys, piece, order, pace, rows)
                first += len(pace)
                losses.append(np.asarray(loss))
                taken.append(np.asarray(was_taken))
                self._note(chunk, numbers, order, taken[-1])
        state, value, better = self.trainer.finish(state, self.keys, self.prepared.train, self.prepared.held_out)
        return state, Report(np.concatenate(losses, -1), np.concatenate(taken, -1), value, better)

    def _note(self, chunk: Rows, numbers: np.ndarray, order: np.ndarray, taken: np.ndarray) -> None:
        for member, own in enumerate(np.atleast_2d(taken)):
            if not own.all() and member not in self.refused:
                index = (order if self.members is None else order[member])[np.argmin(own)]
                self.refused[member] = Suspects(take(chunk, index), numbers[index])

    def suspects(self, number: int, step: int, member: int) -> Suspects:
        return self.refused[member]

    def _order(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        orders = [rng.permutation(rows).astype(np.int32).reshape(-1, self.batch_size) for _ in range(self.members or 1)]
        return orders[0] if self.members is None else np.stack(orders)

    def _chunks(self, number: int) -> Iterator[tuple[Rows, np.ndarray]]:
        for rows, numbers in self.source.chunks(number):
            checked = read(rows.x, rows.context, name=f"a chunk of data from row {numbers[0]} on")[0]
            yield self.prepared.ready(checked), numbers


class _ahead:
    """Iterates in a thread of its own, two items ahead; leaving ends the thread."""

    def __init__(self, make: Callable[[], Iterator]):
        self.items, self.over = queue.Queue[Any](maxsize=2), threading.Event()
        self.thread = threading.Thread(target=self._fill, args=(make,), daemon=True)

    def _fill(self, make: Callable[[], Iterator]) -> None:
        try:
            for item in make():
                if not self._put((item, None)):
                    return
            self._put((None, None))
        except BaseException as error:  # raised again where the items are used
            self._put((None, error))

    def _put(self, item: Any) -> bool:
        while not self.over.is_set():
            try:
                self.items.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __enter__(self) -> Iterator:
        self.thread.start()
        return self._drain()

    def _drain(self) -> Iterator:
        while True:
            item, error = self.items.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join(timeout=1.0)  # it may be waiting for data, and ends with the process
