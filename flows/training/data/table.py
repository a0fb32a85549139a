"""Rows on their way to a model: NumPy arrays in tables, divided at random into training rows and held-out rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError, Shape, warn_user, working_dtype
from flows.results.frames import Header, offset_of
from flows.training.options import Options, place_of

LOOKED_AT = 100_000, 2**24  # rows, and numbers, by which a stream is checked and measured before the first step
LEAST_ROWS = 2  # to train on; one row has no spread
SMALLER = 1, 2, 4  # divisors of the held-out parts, where copies leave too few rows for larger parts
ENOUGH = 0.5  # of the rows to hold out; with fewer, copies are so many that they are not kept together


class DataWarning(UserWarning):
    """A warning of data that can be fitted, but are probably not as intended."""


def warn_of_data(message: str) -> None:
    warn_user(message, DataWarning)


class Rows(NamedTuple):
    """Rows of data, (rows, *event), with their context, (rows, *context), and their weights, (rows,), or None. Held-out rows
    also have the log-det of the layers before, less its mean, (rows,)."""

    x: Any
    context: Any = None
    weights: Any = None
    log_det: Any = None


Headers = tuple[Header | None, Header | None]  # the columns of frames, of data and of their context
Pair = tuple[np.ndarray, np.ndarray]  # the numbers of training rows and of held-out rows


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with the names of rows and columns for errors. Compiled functions never take a table, only its rows."""

    rows: Rows  # NumPy arrays in the units of the data; later on the device in the units of the model
    numbers: np.ndarray  # of the rows in the data of the user
    source: str  # "data" or "validation"
    labels: tuple[str, ...]  # such as "column 'age'", "column 3" or "channel 1"
    dtype: np.dtype  # to work in
    headers: Headers = (None, None)

    @classmethod
    def of(cls, rows: Rows, headers: Headers = (None, None), numbers: Any = None, source: str = "data") -> "Table":
        """Make a table of rows as they were read, with these numbers or counted from 0."""
        kind = "column" if rows.x.ndim == 2 else "channel"
        names = range(rows.x.shape[-1]) if headers[0] is None else map(repr, headers[0].names)
        labels = tuple(f"{kind} {name}" for name in names)
        numbers = np.arange(len(rows.x)) if numbers is None else numbers
        return cls(rows, numbers, source, labels, dtype_of(rows.x), headers)

    x = property(attrgetter("rows.x"))
    context = property(attrgetter("rows.context"))
    weights = property(attrgetter("rows.weights"))

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
        return None if self.headers[0] is None else self.headers[0].names

    def offset(self, j: int) -> float:
        """Return the offset to add to the values of a column in messages."""
        return 0.0 if self.names is None else offset_of(self.names[j])

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, index: Any) -> "Table":
        return replace(self, rows=take(self.rows, index), numbers=self.numbers[index])

    def place(self, column: Any, what: str) -> int:
        """Return the number of a column, by its name or number."""
        return place_of(column, len(self.labels), self.names, what)


class Chunk(NamedTuple):
    """Rows of a stream that are trained on together; each process reads the rows that it needs."""

    size: int  # for an iterable the rows in this process
    take: Callable[[Any], Table]  # reads rows by number, in the order of the numbers
    state: Any = None  # of an iterable after these rows


class Stream(NamedTuple):
    """Rows that do not fit on the device, or into memory."""

    chunks: Callable[[int], Iterator[Chunk]]  # from the number of an epoch
    separate: bool = False  # whether processes have separate rows, as of an iterable; otherwise all have the same
    restore: Callable[[Any], None] | None = None  # continues from the state of a chunk; None if there is no state


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a fit. A checkpoint recognises them by `whole` and `validation`."""

    train: Table  # the rows to train on; of a stream the first look
    held_out: Table  # the other rows, or the rows of `validation=`
    whole: Table  # all rows of data; of a stream the first look
    validation: Rows | None  # the rows of `validation=`
    batch_size: int
    steps: int  # an epoch
    groups: np.ndarray | None = None  # the place of each row in `groups=` or `order=`; or numbers, equal for copies
    stream: Stream | None = None  # the source of rows that do not fit on the device
    total: int = 0  # rows to train on in an epoch

    @classmethod
    def of(cls, whole: Table, numbers: np.ndarray, held_out: Table, options: Options, groups: np.ndarray | None) -> "Split":
        """Make a split of the rows of these numbers to train on, and held-out rows."""
        batch_size = options.rows_a_step(len(numbers))
        steps = options.steps_an_epoch(len(numbers), batch_size)
        validation = held_out.rows if held_out.source == "validation" else None
        return cls(whole.take(numbers), held_out, whole, validation, batch_size, steps, groups, total=len(numbers))

    @property
    def tables(self) -> tuple[Table, Table]:
        return self.train, self.held_out

    @property
    def others(self) -> np.ndarray:
        """The numbers of the held-out rows of data."""
        return self.held_out.numbers if self.held_out.source == "data" else self.held_out.numbers[:0]

    def numbers(self) -> np.ndarray:
        """Return the numbers of all rows of data with a weight."""
        return np.unique(np.concatenate([self.train.numbers, self.others]))

    def divided(self, numbers: np.ndarray, others: np.ndarray, options: Options) -> "Split":
        """Divide the rows again: rows of these numbers to train on, the others to hold out."""
        return Split.of(self.whole, numbers, self.whole.take(others), options, self.groups)

    def for_folds(self, count: int, options: Options) -> "Split":
        """Return a split for several folds, with all rows in both parts; this split for one fold. Refuse too many folds, and
        folds of a stream."""
        if count == 1:
            return self
        if self.stream is not None:
            raise FlowsError(f"fit: folds is {count}, but data is a stream; leave folds out, or give an array in memory")
        numbers = self.numbers()
        if count > len(numbers) // 2:
            raise FlowsError(f"fit: folds is {count}; expected folds from 2 to {len(numbers) // 2}, half the rows")
        return self.divided(numbers, numbers, options)

    def suits_folds(self, count: int, options: Options) -> bool:
        """Tell whether folds are possible, and no group is larger than a fold."""
        sizes = np.ones(count) if self.groups is None or options.groups is None else np.bincount(self.groups[self.numbers()])
        return options.holding != "order" and bool(count * sizes.max() <= sizes.sum())

    def folds(self, options: Options, key: Array, count: int) -> list["Split"]:
        """Return a split for each fold, which holds out another part of the rows."""
        numbers = self.numbers()
        groups = None if self.groups is None else self.groups[numbers]
        parts = folds_of_rows(len(numbers), count, key, groups, options.holding)
        return [self.divided(numbers[train], numbers[others], options) for train, others in parts]


def split_numbers(
    n: int, validation: float, key: Array, groups: np.ndarray | None = None, holding: str = "", before: Sequence[int] = ()
) -> Pair:
    """Draw the numbers of the training rows and of the held-out rows at random; rows of one of the `groups` stay together.
    With the option `holding`, "groups" always stay together, and of "order" the last rows are held out. As many rows
    as fits had `before` are divided as they were then, and of the others the same share is held out."""
    *earlier, last = (0, *(count for count in before if 0 < count < n))
    if last and holding != "order":
        parts = split_numbers(last, validation, key, None if groups is None else groups[:last], holding, earlier)
        return _joined_by_others(n, validation, key, np.arange(n) if groups is None else groups, parts)
    held_out = max(round(n * validation), 1)
    if n - held_out < LEAST_ROWS:
        raise FlowsError(
            f"fit: data has {counted(n)}, and validation={validation} leaves {max(n - held_out, 0)} to train on; "
            f"expected at least {LEAST_ROWS}. Give more rows, or a smaller validation"
        )
    order = np.random.default_rng(seed_of(key)).permutation(n)
    part = np.full(n, -1)
    chosen = order[:held_out] if groups is None or holding != "order" else np.argsort(groups, kind="stable")[n - held_out :]
    part[chosen] = 0
    if groups is not None and holding == "groups":
        part = _dealt(groups, order, (1 - validation, validation)) - 1
    elif groups is not None and not holding:
        smallest = int(np.unique(groups, return_counts=True)[1].min())
        together = _parts(groups, order, max(held_out, smallest), 1)
        part = together if ENOUGH * held_out <= (together == 0).sum() <= n - LEAST_ROWS else part
    return order[part[order] < 0], order[part[order] == 0]


def _joined_by_others(n: int, validation: float, key: Array, groups: np.ndarray, parts: Pair) -> Pair:
    """Return the parts of the first rows with the other rows: a row of a group that is there already joins its part."""
    train, others = parts
    rest = np.arange(len(train) + len(others), n)
    _, group = np.unique(groups[rest], return_inverse=True)
    rng = np.random.default_rng([*seed_of(key), len(rest)])
    out = rng.random(n)[group] < validation
    out = np.where(np.isin(groups[rest], groups[train]), False, np.isin(groups[rest], groups[others]) | out)
    return np.concatenate([train, rng.permutation(rest[~out])]), np.concatenate([others, rest[out]])


def folds_of_rows(n: int, folds: int, key: Array, groups: np.ndarray | None = None, holding: str = "") -> list[Pair]:
    """Return training and held-out numbers of each fold; all folds have equally many, so that they share their programs."""
    order, size = np.random.default_rng(seed_of(key)).permutation(n), n // folds
    part = np.full(n, -1)
    part[order[: folds * size]] = np.repeat(np.arange(folds), size)
    if groups is not None and holding:
        part = _dealt(groups, order, (1 / folds,) * folds)
    for smaller in SMALLER:
        if groups is None or holding:
            break
        together = _parts(groups, order, size // smaller, folds)
        if np.bincount(together[together >= 0], minlength=folds).min() >= max(ENOUGH * size / smaller, 1):
            part = together
            break
    sizes = np.bincount(part[part >= 0], minlength=folds)
    pairs = []
    for fold in range(folds):  # rows beyond the smallest fold, as copies may leave, are not used
        out = part[order] == fold
        pairs.append((np.sort(order[~out][: n - sizes.max()]), order[out][: sizes.min()]))
    return pairs


def _parts(groups: np.ndarray, order: np.ndarray, size: int, parts: int) -> np.ndarray:
    """Return the part of each row, or -1: whole groups in random order, as long as they fit into the size of a part."""
    _, first, group_of_row, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    places, sizes = np.argsort(order), counts.tolist()
    part_of_group, left = [-1] * len(sizes), np.argsort(places[first]).tolist()
    for part in range(parts):
        room, rest = size, list[int]()
        for group in left:
            if sizes[group] <= room:
                part_of_group[group] = part
                room -= sizes[group]
            else:
                rest.append(group)
        left = rest
    return np.array(part_of_group)[group_of_row.ravel()]


def _dealt(groups: np.ndarray, order: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return the part of each row: whole groups, the largest first, each into the part that is then the least full for its
    share. Groups of one size are in random order."""
    _, first, group_of_row, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    if len(counts) < len(shares):
        raise FlowsError(f"fit: groups has {len(counts)} values; expected {len(shares)} or more. Give fewer folds or no groups")
    ranked, sizes, loads = np.lexsort((np.argsort(order)[first], -counts)), counts.tolist(), [0] * len(shares)
    part_of_group = np.zeros(len(counts), int)
    for group in ranked.tolist():
        full = [(load + sizes[group]) / share for load, share in zip(loads, shares, strict=True)]
        part_of_group[group] = part = full.index(min(full))
        loads[part] += sizes[group]
    if 0 in loads:
        part_of_group[ranked[-1]] = loads.index(0)
    return part_of_group[group_of_row]


def seed_of(key: Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


def counted(n: int) -> str:
    return f"{n} row{'s' * (n != 1)}"


def dtype_of(x: np.ndarray) -> np.dtype:
    return working_dtype(jax.dtypes.canonicalize_dtype(x.dtype))


def take(rows: Rows, index: Any) -> Rows:
    return jax.tree.map(lambda array: array[index], rows)


def narrow(x: Any) -> bool:
    """Tell whether x has whole numbers of one or two bytes, such as images, which become floats only in a batch."""
    return x.dtype.kind in "iu" and x.dtype.itemsize <= 2


def floating(rows: Rows) -> Rows:
    """Return rows with data as floats."""
    return rows._replace(x=rows.x.astype(np.float32)) if narrow(rows.x) else rows
