"""The epochs of rows on the device, each one compiled call; and epochs of data that do not fit there: a thread reads
chunks ahead of the steps that train on them."""

import math
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from flows.compose import first_nonfinite_layer
from flows.core import Array, on_device, pieces_of, stop_fixed
from flows.training.data.prepare import Prepared
from flows.training.data.read import DataFailed
from flows.training.data.table import Chunk, Rows, Stream, Table, floating, take
from flows.training.loop.driver import Source
from flows.training.loop.step import Report, State
from flows.training.loop.trainer import Trainer, schedule_of
from flows.training.options import Options

SHOWN = 3  # leaves that are named
TOO_LARGE = "losses and gradients are finite, but the updates of the optimizer are too large"


class RowEpochs(Source):
    """Epochs of rows, the sources of a training by `flows.fit`. `keys` is a key, or an array of the keys of members."""

    def __init__(self, rows: Prepared, compiled: Trainer, options: Options, keys: Array):
        self.rows, self.compiled, self.options, self.keys = rows, compiled, options, keys
        self.yardstick, self.schedule = rows.yardstick, schedule_of(options, options.max_epochs * rows.split.steps)

    def suspects(self, number: int, step: int, member: int) -> Table:
        """The rows of a step."""
        raise NotImplementedError

    def cause(self, params: Any, number: int, step: int | None, member: int) -> str:
        """Return where log_pdf is not finite among held-out rows, or among the rows of a step, or where its gradient is not."""
        if self.options.objective is not None:
            return f"the {self.options.measure}, or its gradient, is not finite there"
        part, train, prepared = self.compiled.program.problem.part, step is not None, self.rows.member(member)
        table = prepared.split.held_out if step is None else self.suspects(number, step, member)
        rows, rng = floating(table.rows), self.compiled.member(self.keys, member) if "rng" in part.keywords else None

        def log_pdf(params: Any, rows: Rows) -> Array:
            return part.log_pdf(stop_fixed(params), rows.x, rows.context, rng, train)

        pieces = [take(rows, piece) for piece in pieces_of(len(rows.x), rows.x.shape[1:])]
        values = np.concatenate([np.asarray(log_pdf(params, piece), float) for piece in pieces])
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            one = take(rows, bad[:1])
            layer = first_nonfinite_layer(lambda: log_pdf(params, one))
            flat = prepared.deviations(one.x).reshape(-1, one.x.shape[-1])
            far = np.unravel_index(np.abs(flat).argmax(), flat.shape)
            where = f", which {layer} is the first to return" if layer else ""
            return (
                f"log_pdf is {values[bad[0]]} at row {table.numbers[bad[0]]} of {table.source}{where}; of the row's columns, "
                f"{far[1]} is farthest out: {flat[far]:.3g} standard deviations from the mean"
            )
        if not train:
            return TOO_LARGE
        gradient = jax.grad(lambda params: -log_pdf(params, rows).mean())(params)
        leaves = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
            if not bool(jnp.isfinite(leaf).all())
        ]
        more = f" and {len(leaves) - SHOWN} more" if len(leaves) > SHOWN else ""
        return f"the gradient is not finite in {', '.join(leaves[:SHOWN])}{more}" if leaves else TOO_LARGE


class Epochs(RowEpochs):
    """The epochs of rows that are on the device, each one compiled call."""

    def __init__(self, rows: Prepared, compiled: Trainer, options: Options, keys: Array):
        super().__init__(rows, compiled, options, keys)
        n, placement, shares = len(rows.member(0).train.x), compiled.placement, compiled.shares
        self.order = orders(keys, n, rows.split.steps, compiled.parts(rows.split.batch_size), shares)
        self.numbers: np.ndarray | None = None  # of the rows in each share, (shares, rows)
        if shares == 1:
            self.on_devices = placement.copied((rows.train, rows.held_out), by_member=bool(rows.folds))
            return
        # Train rows are dealt at random, and short shares repeat their first row; held-out rows stay in order.
        dealt, others = np.random.default_rng([*seeds_of(keys)[0], shares]).permutation(n), len(rows.held_out.x)
        self.numbers = np.stack([np.resize(dealt[share::shares], -(-n // shares)) for share in range(shares)])
        blocks = np.minimum(np.arange(shares * -(-others // shares)).reshape(shares, -1), others - 1)
        both, here = ((rows.train, self.numbers), (rows.held_out, blocks)), placement.here
        self.on_devices = tuple(placement.spread(take(table, numbers[here].ravel())) for table, numbers in both)

    def run(self, state: State, number: int) -> tuple[State, Report]:
        return self._run(state, number, self.rows.split.steps)

    def score(self, state: State) -> tuple[State, Report]:
        return self._run(state, 0, 0)

    def _run(self, state: State, number: int, taken: int) -> tuple[State, Report]:
        order, schedule = self.order(number), self.schedule(number * self.rows.split.steps, self.rows.split.steps)
        return self.compiled.run(state, self.keys, taken, order, schedule, *self.on_devices)

    def suspects(self, number: int, step: int, member: int) -> Table:
        order = self.order(number)
        index = self.compiled.member(order, member)[step]
        if self.numbers is not None:  # the order is within each share
            index = self.numbers[np.repeat(np.arange(len(self.numbers)), index.shape[1] // len(self.numbers)), index]
        return self.rows.member(member).split.train.take(index.ravel())


def seeds_of(keys: Array) -> list[list[int]]:
    """Return the seed of one key, or the seeds of the keys of members."""
    return np.asarray(jax.random.key_data(jax.numpy.atleast_1d(keys))).tolist()


def orders(keys: Array, n: int, steps: int, parts: tuple[int, int], shares: int = 1) -> Callable[[int], np.ndarray]:
    """The rows of each step of an epoch, (steps, parts, rows), by its number, with an axis of members in front if keys do.
    With shares, a part has equally many rows of each share, in turn, by their numbers in the share.

    Rows that fill no batch are left out, others in each epoch. It runs on the host: a sort on the device takes longer, and half
    a second to compile.
    """
    seeds, sizes = seeds_of(keys), [len(range(share, n, shares)) for share in range(shares)]

    def one(seed: list[int], epoch: int) -> np.ndarray:
        rng, count = np.random.default_rng([*seed, epoch]), steps * math.prod(parts) // shares
        order = [rng.permutation(size)[:count].astype(np.int32).reshape(steps, parts[0], -1) for size in sizes]
        return order[0] if shares == 1 else np.concatenate(order, 2)

    return lambda epoch: one(seeds[0], epoch) if keys.ndim == 0 else np.stack([one(seed, epoch) for seed in seeds])


class Ready(NamedTuple):
    """A chunk on its way to the devices: its rows, or the rows that are needed here, in the units of the model; the order
    in which steps take these rows; and the order of rows in the whole chunk."""

    chunk: Chunk
    rows: Rows
    order: np.ndarray
    chunk_order: np.ndarray


class StreamEpochs(RowEpochs):
    """The epochs of a stream, in chunks; it keeps the rows of the first step of an epoch that was not taken."""

    def __init__(self, rows: Prepared, compiled: Trainer, options: Options, keys: Array):
        super().__init__(rows, compiled, options, keys)
        self.stream = cast(Stream, rows.split.stream)
        self.seed, self.restore = np.asarray(jax.random.key_data(keys)).ravel().tolist(), self.stream.restore
        self.refused: dict[int, Callable[[], Table]] = {}  # by member: reads the rows of this step
        # The first look at the rows, and the held-out rows, on all devices.
        self.looked_at = compiled.placement.copied((rows.train, rows.held_out))

    def run(self, state: State, number: int) -> tuple[State, Report]:
        losses, taken, first = [], [], number * self.rows.split.steps
        self.refused, placement = {}, self.compiled.placement
        try:
            with _ahead(partial(self._ready, number)) as chunks:
                for piece, ready in enumerate(chunks):
                    schedule = self.schedule(first, ready.order.shape[-3])
                    # Placed here, as the thread that reads has separate settings of JAX.
                    rows = placement.spread(ready.rows) if self.compiled.shares > 1 else jax.tree.map(on_device, ready.rows)
                    state, loss, was_taken = self.compiled.advance(state, self.keys, piece, ready.order, schedule, rows)
                    first += len(schedule)
                    losses.append(placement.fetched(loss))
                    taken.append(placement.fetched(was_taken))
                    self._note(ready, taken[-1])
                    self.state = ready.chunk.state
        except DataFailed as failure:
            failure.state = state  # it has the best params; the state before is used up
            raise
        return self._finished(state, np.concatenate(losses, -1), np.concatenate(taken, -1))

    def score(self, state: State) -> tuple[State, Report]:
        none = np.zeros((*self.keys.shape, 0))
        return self._finished(state, none, none)

    def _finished(self, state: State, losses: np.ndarray, taken: np.ndarray) -> tuple[State, Report]:
        state, value, better = self.compiled.finish(state, self.keys, *self.looked_at)
        return state, Report(losses, taken, value, better)

    def _note(self, ready: Ready, taken: np.ndarray) -> None:
        for member, was_taken in enumerate(np.atleast_2d(taken)):
            if not was_taken.all() and member not in self.refused:
                order = self.compiled.member(ready.chunk_order, member)
                self.refused[member] = partial(self._as_model_has, ready.chunk, order[np.argmin(was_taken)].ravel())

    def suspects(self, number: int, step: int, member: int) -> Table:
        return self.refused[member]()

    def _as_model_has(self, chunk: Chunk, index: Any) -> Table:
        table = chunk.take(index)
        return replace(table, rows=self.rows.ready(table.rows))

    def _ready(self, number: int) -> Iterator[Ready]:
        rng, make = np.random.default_rng([*self.seed, number]), self._separate if self.stream.separate else self._shared
        return (make(chunk, rng) for chunk in self.stream.chunks(number))

    def _shared(self, chunk: Chunk, rng: np.random.Generator) -> Ready:
        """A chunk that all have: each reads the rows that its devices need, the part of a device in each batch, in the order
        of the steps."""
        order, shares = self._order(rng, chunk.size), self.compiled.shares
        if shares == 1:
            return Ready(chunk, self._as_model_has(chunk, slice(None)).rows, order, order)
        parts = np.stack(np.split(order, shares, axis=2))
        in_turn = np.arange(parts[0].size, dtype=np.int32).reshape(parts[0].shape)
        rows = self._as_model_has(chunk, parts[self.compiled.placement.here].ravel()).rows
        return Ready(chunk, rows, np.tile(in_turn, (1, 1, shares)), order)

    def _separate(self, chunk: Chunk, rng: np.random.Generator) -> Ready:
        """A chunk of separate rows, which are a part of each batch; each device has a block of them."""
        here, shares = self.compiled.placement.here, self.compiled.shares
        accumulate, batch = self.compiled.parts(self.rows.split.batch_size)
        block = chunk.size // (here.stop - here.start)
        orders = [rng.permutation(block).astype(np.int32).reshape(-1, accumulate, batch // shares) for _ in range(shares)]
        chunk_order = [block * i + order for i, order in enumerate(orders[here])]
        rows = self._as_model_has(chunk, slice(None)).rows
        return Ready(chunk, rows, np.concatenate(orders, 2), np.concatenate(chunk_order, 2))

    def _order(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """The rows of a chunk in each step, (steps, parts, rows), with an axis in front for members."""
        parts = self.compiled.parts(self.rows.split.batch_size)
        orders = [rng.permutation(rows).astype(np.int32).reshape(-1, *parts) for _ in range(self.keys.size)]
        return orders[0] if self.keys.ndim == 0 else np.stack(orders)


@contextmanager
def _ahead(make: Callable[[], Iterator]) -> Iterator[Iterator]:
    """An iterator that runs in a separate thread, two items ahead; the end of the context ends the thread."""
    items, over = queue.Queue[Any](maxsize=2), threading.Event()

    def put(item: Any) -> bool:
        while not over.is_set():
            with suppress(queue.Full):
                items.put(item, timeout=0.1)
                return True
        return False

    def fill() -> None:
        try:
            if all(put((item, None)) for item in make()):
                put((None, None))
        except BaseException as error:  # raised again where the items are used
            put((None, error))

    def drained() -> Iterator:
        while True:
            item, error = items.get()
            if error is not None:
                raise DataFailed(error) if isinstance(error, Exception) else error
            if item is None:
                return
            yield item

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        yield drained()
    finally:
        over.set()
        thread.join(timeout=1.0)  # it may be waiting for data, and ends with Python
