"""Rows on their way to a model: tables, which know what their rows and columns are called, and what a fit is given, split in
those to train on and those held out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError, Shape, working_dtype
from flows.results.frames import Header, offset_of
from flows.training.data.splitting import folds_of_rows
from flows.training.options import Options

LOOKED_AT = 100_000, 2**24  # rows, and numbers, by which a stream is checked and measured before the first step


class DataWarning(UserWarning):
    """Data can be fitted, but are probably not as they were meant."""


class Rows(NamedTuple):
    """Rows of data, (rows, *event), with their context, (rows, *context), and their weights, (rows,); or None. Of rows held
    out also the log-det of the layers that they went through, less its mean, (rows,)."""

    x: Any
    context: Any = None
    weights: Any = None
    log_det: Any = None


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with what errors call them and their columns. It never crosses into a compiled function; its rows do.

    Attributes:
        rows: as NumPy arrays in the units of the data; of the rows of a model, on the device in the model's units.
        numbers: of the rows in what was given, "data" or "validation".
        source: which of these it was.
        labels: "column 'age'", "column 3" or "channel 1", for each.
        dtype: to work in.
        header: the columns of the frame that data were, and `context_header` those of the context.
    """

    rows: Rows
    numbers: np.ndarray
    source: str
    labels: tuple[str, ...]
    dtype: np.dtype
    header: Header | None = None
    context_header: Header | None = None

    @classmethod
    def of(
        cls,
        rows: Rows,
        headers: tuple[Header | None, Header | None] = (None, None),
        numbers: np.ndarray | None = None,
        source: str = "data",
    ) -> "Table":
        """Rows as they were read, those of these numbers, or all."""
        header, context_header = headers
        kind = "column" if rows.x.ndim == 2 else "channel"
        names = list(range(rows.x.shape[-1])) if header is None else list(map(repr, header.names))
        labels = tuple(f"{kind} {name}" for name in names)
        numbers = np.arange(len(rows.x)) if numbers is None else numbers
        return cls(rows, numbers, source, labels, dtype_of(rows.x), header, context_header)

    @property
    def x(self) -> Any:
        return self.rows.x

    @property
    def context(self) -> Any:
        return self.rows.context

    @property
    def weights(self) -> Any:
        return self.rows.weights

    @property
    def event(self) -> Shape:
        """The shape of a row."""
        return tuple(self.rows.x.shape[1:])

    @property
    def context_event(self) -> Shape | None:
        """The shape of a row's context."""
        return None if self.rows.context is None else tuple(self.rows.context.shape[1:])

    @property
    def names(self) -> tuple[str, ...] | None:
        """Of the columns."""
        return None if self.header is None else self.header.names

    def offset(self, j: int) -> float:
        """Return what the values of a column lack where they are told."""
        return 0.0 if self.names is None else offset_of(self.names[j])

    @property
    def headers(self) -> tuple[Header | None, Header | None]:
        return self.header, self.context_header

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, index: Any) -> "Table":
        """Some of its rows."""
        return replace(self, rows=take(self.rows, index), numbers=self.numbers[index])

    def with_rows(self, rows: Rows) -> "Table":
        """The same rows in other units."""
        return replace(self, rows=rows)

    def place(self, column: Any, what: str) -> int:
        """The number of a column that is given by name or number."""
        return place_of(column, len(self.labels), self.names, what)


class Chunk(NamedTuple):
    """Rows of a stream that are trained on together, of which a process reads those that it needs.

    Attributes:
        size: how many there are; of an iterable in this process.
        take: reads those of some numbers, in their order.
        state: of an iterable, how to go on after them.
    """

    size: int
    take: Callable[[Any], Table]
    state: Any = None


class Stream(NamedTuple):
    """Rows that do not fit on the device, or into memory.

    Attributes:
        chunks: of the number of an epoch, its rows in pieces.
        own: whether a process has rows of its own, as of an iterable; all have the same otherwise.
        restore: goes on from the state of a chunk; None where there is none.
    """

    chunks: Callable[[int], Iterator[Chunk]]
    own: bool = False
    restore: Callable[[Any], None] | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """What a fit is given.

    Attributes:
        train: the rows to train on; of a stream those that were looked at.
        held_out: the others, or rows to validate on that were given.
        whole: all rows of data; of a stream those that were looked at.
        validation: rows to validate on that were given. By these two a checkpoint knows the data.
        batch_size: rows a step.
        steps: an epoch.
        groups: a number of each row of data, which copies have in common; None where there are none.
        stream: where the rows come from, if they are not on the device.
        total: rows to train on in an epoch.
    """

    train: Table
    held_out: Table
    whole: Table
    validation: Rows | None
    batch_size: int
    steps: int
    groups: np.ndarray | None = None
    stream: Stream | None = None
    total: int = 0

    @classmethod
    def of(cls, whole: Table, numbers: np.ndarray, held_out: Table, options: Options, groups: np.ndarray | None) -> "Split":
        """The rows of these numbers to train on, and others held out."""
        batch_size = options.rows_a_step(len(numbers))
        steps = options.steps_an_epoch(len(numbers), batch_size)
        validation = held_out.rows if held_out.source == "validation" else None
        return cls(whole.take(numbers), held_out, whole, validation, batch_size, steps, groups, total=len(numbers))

    @property
    def tables(self) -> tuple[Table, Table]:
        return self.train, self.held_out

    @property
    def others(self) -> np.ndarray:
        """The numbers of the rows of data that are held out."""
        return self.held_out.numbers if self.held_out.source == "data" else self.held_out.numbers[:0]

    def numbers(self) -> np.ndarray:
        """Those of all rows of data that count."""
        return np.unique(np.concatenate([self.train.numbers, self.others]))

    def divided(self, numbers: np.ndarray, others: np.ndarray, options: Options) -> "Split":
        """The rows divided anew: those of these numbers to train on, the others to hold out."""
        return Split.of(self.whole, numbers, self.whole.take(others), options, self.groups)

    def unsplit(self, options: Options) -> "Split":
        """All rows that count, to train on as to hold out."""
        numbers = self.numbers()
        return self.divided(numbers, numbers, options)

    def check_folds(self, count: int) -> None:
        """Refuse more folds than there are rows for, and those of a stream."""
        if self.stream is not None:
            raise FlowsError(f"fit: folds is {count}, but data is a stream; leave folds out, or give an array in memory")
        most = len(self.numbers()) // 2
        if not 2 <= count <= most:
            raise FlowsError(f"fit: folds is {count}; expected folds from 2 to {most}, half the rows")

    def folds(self, options: Options, key: Array, count: int) -> list["Split"]:
        """One for each fold, which holds out another part of the rows."""
        self.check_folds(count)
        numbers = self.numbers()
        groups = None if self.groups is None else self.groups[numbers]
        parts = folds_of_rows(len(numbers), count, key, groups)
        return [self.divided(numbers[of_train], numbers[others], options) for of_train, others in parts]


def place_of(column: Any, columns: int, names: tuple[str, ...] | None, what: str) -> int:
    """The number of a column that is given by name or number."""
    if names is not None and str(column) in names:
        return names.index(str(column))
    if isinstance(column, int | np.integer) and not isinstance(column, bool) and 0 <= column < columns:
        return int(column)
    known = f"names, {', '.join(names)}" if names else f"numbers from 0 to {columns - 1}"
    raise FlowsError(f"fit: {what} column {column!r}; expected one of the columns' {known}")


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
