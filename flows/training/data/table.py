"""Rows on their way to a model: what a fit is given, those to train on and those held out, and where they are in the data."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError, working_dtype
from flows.results.frames import Columns
from flows.training.data.splitting import folds_of_rows
from flows.training.options import Options

LOOKED_AT = 100_000, 2**24  # rows, and numbers, by which a stream is checked and measured before the first step

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


class Data(NamedTuple):
    """What a fit is given, as NumPy arrays in the units of the data. Of a stream, `train` are the rows that were looked at."""

    train: Rows
    held_out: Rows
    source: Source


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


class Suspects(NamedTuple):
    """The rows of a step that was not taken, or of a validation that is not finite."""

    rows: Rows
    numbers: np.ndarray  # of the rows in what was given
    given: str = "data"
    train: bool = True  # of a step
