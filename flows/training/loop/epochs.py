"""The epochs of rows on the device, each one compiled call; and of data that do not fit there, of which a thread reads chunks
ahead of the steps that train on them."""

import queue
import threading
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, on_device
from flows.training.agreement import agreed
from flows.training.data.standardize import Prepared
from flows.training.data.streams import DataFailed
from flows.training.data.table import Chunk, Rows, Stream, Table, take
from flows.training.loop.step import Report, State, before_epochs
from flows.training.loop.trainer import Schedule, Trainer


class Epochs:
    """The epochs of rows that are on the device, each one compiled call. `keys` are a key, or those of members."""

    def __init__(self, rows: Prepared, compiled: Trainer, schedule: Schedule, keys: Array):
        self.rows, self.compiled, self.schedule, self.keys = rows, compiled, schedule, keys
        n, placement, shares = len(rows.of_member(0).train.x), compiled.placement, compiled.shares
        self.order = orders(keys, n, rows.split.steps, compiled.parts(rows.split.batch_size), shares)
        self.numbers = None if shares == 1 else shares_of(n, shares, seeds_of(keys)[0])
        if self.numbers is None:
            self.on_devices = placement.copied((rows.train, rows.held_out), by_member=bool(rows.folds))
        else:
            blocks, here = blocks_of(len(rows.held_out.x), shares), placement.here
            both = (rows.train, self.numbers), (rows.held_out, blocks)
            self.on_devices = [placement.own(take(of, numbers[here].ravel())) for of, numbers in both]

    def run(self, state: State, number: int) -> tuple[State, Report]:
        return self._run(state, number, self.rows.split.steps)

    def score(self, state: State) -> tuple[State, Report]:
        """The state whose best params are those of the start, and what they are worth."""
        state, report = self._run(state, 0, 0)
        return before_epochs(state), report

    def ready(self, state: State) -> None:
        """Compile the program of an epoch."""
        self.compiled.run.ready(*self._arguments(state, 0, 0))

    def _run(self, state: State, number: int, taken: int) -> tuple[State, Report]:
        return self.compiled.run(*self._arguments(state, number, taken))

    def _arguments(self, state: State, number: int, taken: int) -> tuple:
        order, steps = self.compiled.placement.order(self.order(number)), self.rows.split.steps
        return state, self.keys, taken, order, self.schedule(number * steps, steps), *self.on_devices

    def suspects(self, number: int, step: int, member: int) -> Table:
        """The rows of a step."""
        order = self.order(number)
        index = (order if self.keys.ndim == 0 else order[member])[step]
        if self.numbers is not None:  # of each share's rows
            index = self.numbers[np.repeat(np.arange(len(self.numbers)), index.shape[1] // len(self.numbers)), index]
        return self.rows.of_member(member).split.train.take(index.ravel())


def shares_of(n: int, shares: int, seed: list[int]) -> np.ndarray:
    """The numbers of the rows in each share, (shares, rows), dealt at random; in some the first comes once more at the end."""
    order = np.random.default_rng([*seed, shares]).permutation(n)
    return np.stack([np.resize(order[share::shares], -(-n // shares)) for share in range(shares)])


def blocks_of(n: int, shares: int) -> np.ndarray:
    """The same of rows one after the other, as they are held out."""
    return np.minimum(np.arange(shares * -(-n // shares)).reshape(shares, -1), n - 1)


def seeds_of(keys: Array) -> list[list[int]]:
    """Of one key, or of those of members."""
    return np.asarray(jax.random.key_data(jax.numpy.atleast_1d(keys))).tolist()


def orders(keys: Array, n: int, steps: int, parts: tuple[int, int], shares: int = 1) -> Callable[[int], np.ndarray]:
    """The rows of each step of an epoch, (steps, parts, rows), by its number; with an axis of members in front where keys have.
    Of shares equal parts of each, one after the other, by their numbers in it.

    Rows that fill no batch are left out, others in each epoch. It runs on the host: a sort on the device takes longer, and half
    a second to compile.
    """
    seeds, sizes = seeds_of(keys), [len(range(share, n, shares)) for share in range(shares)]

    def of_one(seed: list[int], epoch: int) -> np.ndarray:
        rng, (accumulate, rows) = np.random.default_rng([*seed, epoch]), parts
        count = steps * accumulate * rows // shares
        order = [rng.permutation(size)[:count].astype(np.int32).reshape(steps, accumulate, -1) for size in sizes]
        return order[0] if shares == 1 else np.concatenate(order, 2)

    def of_epoch(epoch: int) -> np.ndarray:
        return of_one(seeds[0], epoch) if keys.ndim == 0 else np.stack([of_one(seed, epoch) for seed in seeds])

    return of_epoch


class Ready(NamedTuple):
    """A chunk on its way to the devices: its rows, or those that this process needs, as the model has them, the order in which
    steps take them there, and that of the chunk itself."""

    chunk: Chunk
    rows: Rows
    order: np.ndarray
    of_chunk: np.ndarray


class StreamEpochs:
    """The epochs of a stream, with the methods of `Epochs`; it keeps the rows of the last step that was not taken."""

    def __init__(self, rows: Prepared, compiled: Trainer, schedule: Schedule, keys: Array, stream: Stream):
        self.rows, self.compiled, self.schedule, self.keys, self.stream = rows, compiled, schedule, keys, stream
        self.seed = np.asarray(jax.random.key_data(keys)).ravel().tolist()
        self.refused: dict[int, Callable[[], Table]] = {}  # by member, of the first step of an epoch that was not taken
        self.state: Any = None  # how the stream goes on after what was trained on

    @cached_property
    def looked_at(self) -> tuple[Rows, Rows]:
        """The rows that were looked at first, and those held out, on all devices."""
        return self.compiled.placement.copied((self.rows.train, self.rows.held_out))

    def ready(self, state: State) -> None:
        """Compile the program of the end of an epoch; those of chunks are when these are there."""
        self.compiled.finish.ready(state, self.keys, *self.looked_at)

    def run(self, state: State, number: int) -> tuple[State, Report]:
        losses, taken, first = [], [], number * self.rows.split.steps
        self.refused, together = {}, agreed()
        try:
            with _ahead(partial(self._ready, number)) as chunks:
                for piece, ready in enumerate(chunks):
                    schedule = self.schedule(first, ready.order.shape[-3])
                    placed = self._placed(ready)
                    if together.processes > 1:  # no process is left alone with what all compute
                        self.compiled.advance.ready(state, self.keys, piece, placed[0], schedule, placed[1])
                        together.meet()
                    state, loss, was_taken = self.compiled.advance(state, self.keys, piece, placed[0], schedule, placed[1])
                    first += len(schedule)
                    losses.append(self.compiled.placement.fetched(loss))
                    taken.append(self.compiled.placement.fetched(was_taken))
                    self._note(ready, taken[-1])
                    self.state = ready.chunk.state
        except DataFailed as failure:
            failure.state = state  # which has the best params; the one before is used up
            raise
        state, value, better = self.compiled.finish(state, self.keys, *self.looked_at)
        return state, Report(np.concatenate(losses, -1), np.concatenate(taken, -1), value, better)

    def score(self, state: State) -> tuple[State, Report]:
        """As of `Epochs`."""
        state, value, better = self.compiled.finish(state, self.keys, *self.looked_at)
        return before_epochs(state), Report(np.zeros((*self.keys.shape, 0)), np.zeros((*self.keys.shape, 0)), value, better)

    def _note(self, ready: Ready, taken: np.ndarray) -> None:
        for member, was_taken in enumerate(np.atleast_2d(taken)):
            if not was_taken.all() and member not in self.refused:
                order = ready.of_chunk if self.keys.ndim == 0 else ready.of_chunk[member]
                self.refused[member] = partial(self._as_model_has, ready.chunk, order[np.argmin(was_taken)].ravel())

    def suspects(self, number: int, step: int, member: int) -> Table:
        return self.refused[member]()

    def _as_model_has(self, chunk: Chunk, index: Any) -> Table:
        table = chunk.take(index)
        return table.with_rows(self.rows.ready(table.rows))

    def _ready(self, number: int) -> Iterator[Ready]:
        rng = np.random.default_rng([*self.seed, number])
        make = self._of_process if self.stream.own else self._of_all
        for chunk in self.stream.chunks(number):
            yield make(chunk, rng)

    def _of_all(self, chunk: Chunk, rng: np.random.Generator) -> Ready:
        """Of a chunk that all processes have, which each reads as far as its devices need it: of each batch those of a device,
        in the order of its steps."""
        order, index, shares = self._order(rng, chunk.size), slice(None), self.compiled.shares
        if shares == 1:
            return Ready(chunk, self._as_model_has(chunk, index).rows, order, order)
        parts = np.stack(np.split(order, shares, axis=2))
        in_turn = np.arange(parts[0].size, dtype=np.int32).reshape(parts[0].shape)
        rows = self._as_model_has(chunk, parts[self.compiled.placement.here].ravel()).rows
        return Ready(chunk, rows, np.tile(in_turn, (1, 1, shares)), order)

    def _of_process(self, chunk: Chunk, rng: np.random.Generator) -> Ready:
        """Of rows that no other process has, of which a part of each batch is made; each device has a block of them."""
        here, shares = self.compiled.placement.here, self.compiled.shares
        accumulate, batch = self.compiled.parts(self.rows.split.batch_size)
        block = chunk.size // (here.stop - here.start)
        orders = [rng.permutation(block).astype(np.int32).reshape(-1, accumulate, batch // shares) for _ in range(shares)]
        of_chunk = [block * i + order for i, order in enumerate(orders[here])]
        rows = self._as_model_has(chunk, slice(None)).rows
        return Ready(chunk, rows, np.concatenate(orders, 2), np.concatenate(of_chunk, 2))

    def _order(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """The rows of a chunk in each step, (steps, parts, rows); of members with an axis of these in front."""
        parts = self.compiled.parts(self.rows.split.batch_size)
        orders = [rng.permutation(rows).astype(np.int32).reshape(-1, *parts) for _ in range(self.keys.size)]
        return orders[0] if self.keys.ndim == 0 else np.stack(orders)

    def _placed(self, ready: Ready) -> tuple[Any, Rows]:
        """The order and the rows on the devices. Not in the thread that reads, which has settings of JAX of its own."""
        placement = self.compiled.placement
        if self.compiled.shares > 1:
            return placement.order(ready.order), placement.own(ready.rows)
        return placement.order(ready.order), placement.copied(jax.tree.map(on_device, ready.rows))


class _ahead:
    """An iterator that runs in a thread of its own, two items ahead; leaving it ends the thread."""

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
            if isinstance(error, Exception):
                raise DataFailed(error)
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join(timeout=1.0)  # it may be waiting for data, and ends with the process
