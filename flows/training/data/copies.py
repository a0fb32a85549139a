"""Copies among rows, as distinct from rows that are equal by chance because values were rounded; warnings of copies."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import pdtr, pdtrc

from flows.core import pieces_of
from flows.training.data.rounding import grid_of
from flows.training.data.table import Split, warn_of_data

MOST_BYTES = 2**30  # of rows; copies are not looked for in more
LOOKED_AT = 100_000  # different rows by which columns are judged
ATOM = 0.01  # of all rows: a group of equal rows is an atom if it is larger than this, and than LARGE allows
LARGE = 10  # times the median size of groups of equal rows
FEW = 50  # different rows; a table of fewer that each come twice is discrete
CHANCE = 0.01  # that this many rows are equal
IMAGE = 16  # numbers of an image; two of this size are not equal by chance
NEAR = 5  # neighbours by which the density of values is estimated
UNEVEN = 3.0  # times as many equal pairs, at most, as among evenly spread values
SPIKY = 30.0  # the same for values on a grid, such as prices, which lie less evenly
ODD = 1e-6  # the chance below which sizes of groups are no coincidence
MIXED = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

RowsAndContext = tuple[np.ndarray, np.ndarray | None]


def check_copies(split: Split) -> None:
    """Warn of rows of data that are copies of others, and of rows of validation that are among data."""
    rows, validation = split.whole, split.validation
    if split.groups is not None:
        _, first, group_of_row = np.unique(split.groups, return_index=True, return_inverse=True)
        copied = first[group_of_row.ravel()]
        copies = np.flatnonzero(copied != np.arange(len(copied)))
        if len(copies):
            warn_of_data(
                f"fit: {len(copies)} of {len(copied)} rows of data are copies of others, such as row {copies[0]} of row "
                f"{copied[copies[0]]}. Copies are held out together, as a held-out copy of a training row tests "
                "nothing. Drop them, or keep one of each, with weights= for the number of its copies"
            )
    if validation is None or split.stream is not None:
        return
    groups = groups_of((rows.x, rows.context), (validation.x, validation.context))
    if groups is not None:
        data_groups, validation_groups = groups[: len(rows.x)], groups[len(rows.x) :]
        among = np.flatnonzero(np.isin(validation_groups, data_groups))
        if len(among):
            row = int(np.argmax(data_groups == validation_groups[among[0]]))
            warn_of_data(
                f"fit: {len(among)} of {len(validation_groups)} rows of validation are among data: row {among[0]}, for "
                f"example, is row {row} of data. They score as training rows do, so the fit stops too late. Leave them out "
                "of data, or give a share as validation"
            )


def groups_of(*tables: RowsAndContext) -> np.ndarray | None:
    """Return a number for each row of all tables, equal for copies; None without copies, or if the tables are too large.

    Rows that are equal because of rounded values or atoms are not copies. Copies are recognised in two ways. In some column
    values coincide so seldom, by its grid and by how often they do in different rows, that this many equal rows are not chance.
    Or groups of equal rows have sizes that independent rows of no distribution have: for the mean numbers f_k of groups of k
    rows, f_k^2 <= (k + 1) / k f_(k-1) f_(k+1), as k! f_k are moments of a Poisson rate.
    """
    if not tables or sum(array.nbytes for table in tables for array in table if array is not None) > MOST_BYTES:
        return None
    hashes = hashes_of(tables)
    if (np.diff(np.sort(hashes)) > 0).all():
        return None
    _, first, numbers, sizes = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    numbers = numbers.ravel()
    atoms = (sizes > ATOM * len(hashes)) & (sizes > LARGE * np.median(sizes))
    sizes, first = sizes[~atoms], first[~atoms]
    if not (sizes > 1).any() or not (_odd_sizes(sizes) or _no_chance(tables, first, int(sizes.sum() - len(sizes)))):
        return None
    alone = atoms[numbers]
    numbers[alone] = len(atoms) + np.arange(alone.sum())
    return numbers


def hashes_of(tables: tuple[RowsAndContext, ...]) -> np.ndarray:
    """Return a hash of 64 bits for each row, the same for equal rows."""
    hashes = []
    parts = [[part for part in table if part is not None] for table in tables]
    dtypes = [np.result_type(*arrays) for arrays in zip(*parts, strict=True)]
    for table_parts in parts:
        n = len(table_parts[0])
        total = np.zeros(n, np.uint64)
        for number, (part, dtype) in enumerate(zip(table_parts, dtypes, strict=True)):
            for piece in pieces_of(n, part.shape[1:]):
                total[piece] = _mixed(total[piece] + np.uint64(number)) ^ _hashed(part[piece], dtype)
        hashes.append(total)
    return np.concatenate(hashes)


def _hashed(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the sum of all words of 64 bits of each row, each mixed with its place."""
    flat = x.reshape(len(x), -1).astype(dtype, copy=False)
    if dtype.kind == "f":
        flat = flat + np.zeros((), dtype)  # -0.0 becomes 0.0
    wide = -(-flat.shape[1] * dtype.itemsize // 8) * 8 // dtype.itemsize
    if wide > flat.shape[1]:
        flat = np.concatenate([flat, np.zeros((len(flat), wide - flat.shape[1]), dtype)], 1)
    words = np.ascontiguousarray(flat).view(np.uint64)
    places = _mixed(MIXED[0] * np.arange(1, words.shape[1] + 1, dtype=np.uint64))
    return _mixed(_mixed(words ^ places).sum(1, dtype=np.uint64))


def _mixed(words: np.ndarray) -> np.ndarray:
    """Mix words, so that each bit depends on all bits (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014)."""
    for shift, factor in zip((30, 27), MIXED[1:], strict=True):
        words = words ^ (words >> np.uint64(shift))
        words *= factor
    return words ^ (words >> np.uint64(31))


def _odd_sizes(sizes: np.ndarray) -> bool:
    """Tell whether chance cannot explain the sizes of groups of equal rows, as too few have the next larger size."""
    f = np.concatenate([np.bincount(sizes), np.zeros(1, int)]).astype(float)
    k = np.arange(2, len(f) - 1)
    least, most = np.maximum(f[k] - 3 * np.sqrt(f[k]), 0), f[k - 1] + 3 * np.sqrt(f[k - 1]) + 4  # bounds of means
    return bool((pdtr(f[k + 1], k / (k + 1) * least**2 / most) < ODD).any())


def _no_chance(tables: tuple[RowsAndContext, ...], first: np.ndarray, copies: int) -> bool:
    """Tell whether n copies cannot be chance: in some column of the different rows `first`, too few values coincide."""
    event = tables[0][0].shape[1:]
    if len(event) > 1 and math.prod(event) >= IMAGE:
        return True
    if copies > len(first) and len(first) < FEW:
        return False
    starts = np.cumsum([0, *(len(table[0]) for table in tables)])
    different = np.sort(first)[:: -(-len(first) // LOOKED_AT)]
    rows_of_table = [different[(different >= low) & (different < high)] - low for low, high in pairwise(starts)]
    values = [table[0].reshape(len(table[0]), -1) for table in tables]
    for j in range(math.prod(event)):
        column = np.concatenate([x[rows, j] for x, rows in zip(values, rows_of_table, strict=True)]).astype(float)
        pairs = _coincidences(column) * (starts[-1] / len(column)) ** 2
        if pdtrc(copies - 1, pairs) < CHANCE:
            return True
    return False


def _coincidences(column: np.ndarray) -> float:
    """Return how many pairs of values may be equal by chance: by the equal ones, by their grid, and by the steps of float32."""
    values, counts = np.unique(column, return_counts=True)
    n, step = len(column), grid_of(values, counts)
    often = UNEVEN * float(n - len(values))
    if step is not None:
        low, high = np.quantile(column, [0.05, 0.95])
        often = max(often, SPIKY * n**2 / (2 * (max(high - low, step) / (0.9 * step) + 1)), SPIKY * _crowded(column, step))
    with np.errstate(over="ignore"):
        single = column.astype(np.float32)
        if (single == column).all():
            often = max(often, UNEVEN * _crowded(column, np.spacing(np.abs(single)).astype(float)))
    return often


def _crowded(column: np.ndarray, step: Any) -> float:
    """Return how many pairs of values this dense fall into one cell as wide as the step of each."""
    order = np.argsort(column)
    m = min(NEAR, len(column) - 1)
    apart, steps = column[order[m:]] - column[order[:-m]], np.broadcast_to(step, column.shape)[order[m:]]
    return float((m * steps / np.maximum(apart, steps)).sum()) / 2
