"""Copies: rows that are copies of others, as distinct from rows that are equal by chance because values were rounded; and
columns that others determine. Copies and combinations of columns have no joint density, and near combinations cost digits.
"""

from typing import Any

import numpy as np
from scipy.special import pdtr, pdtrc

from flows.core import FlowsError, pieces_of
from flows.training.data.gaussian import FEWEST, Scale
from flows.training.data.rounding import grid_of, step_of
from flows.training.data.table import Split, Table, warn_of_data

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

MOST_PAIRS = 3000  # columns up to which all pairs are compared
MOST_COMBINED = 512  # columns up to which combinations are looked for
SUSPECTED_BY = 10_000  # rows by which a column is suspected
SHOWN = 4  # terms of a combination that are named
LITTLE = 0.1  # of a standard deviation: a column of which others leave less depends on them
DIGITS = 3  # of the part that others leave; with fewer a column is warned of
PREDICTED = 0.5  # of a standard deviation: others leave at most this much of a rounded column that they predict
COARSE = 1e-3  # of a standard deviation: the error of a column far from 0, or from an end of its support, that is warned of
COARSER = 2.0  # times the step of a column: the rounding of others, at most
MORE = 1.1  # times the error of rounding, which an error may have to count as rounding
NEARLY = 0.99  # of the rows, whose errors have to count as rounding


def check_copies(split: Split, holding: str = "") -> None:
    """Warn of rows of data that are copies of others, and of rows of validation that are among data."""
    rows, validation = split.whole, split.validation
    copies_of = groups_of((rows.x, rows.context)) if holding else split.groups
    if copies_of is not None:
        _, first, group_of_row = np.unique(copies_of, return_index=True, return_inverse=True)
        copied = first[group_of_row.ravel()]
        copies = np.flatnonzero(copied != np.arange(len(copied)))
        if len(copies):
            remedy = "Drop them, or keep one of each, with weights= for the number of its copies"
            if (copied[copies] == copied[copies - 1]).all():
                remedy = "Each follows the row it repeats: of draws of a chain keep one of each, with weights= for their number"
            warn_of_data(
                f"fit: {len(copies)} of {len(copied)} rows of data are copies of others, such as row {copies[0]} of row "
                f"{copied[copies[0]]}. Copies are held out {f'by {holding}' if holding else 'together'}, as a held-out copy of "
                "a training row tests nothing. "
                f"{remedy}"
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


def groups_of(*tables: tuple[np.ndarray, np.ndarray | None]) -> np.ndarray | None:
    """Return a number for each row of all tables, equal for copies; None without copies, or if the tables are too large.

    Rows that are equal because of rounded values or atoms are not copies. Copies are recognised in two ways. In some column
    values coincide so seldom, by its grid and by how often they do in different rows, that this many equal rows are not chance.
    Or groups of equal rows have sizes that independent rows of no distribution have: for the mean numbers f_k of groups of k
    rows, f_k^2 <= (k + 1) / k f_(k-1) f_(k+1), as k! f_k are moments of a Poisson rate.
    """
    if sum(array.nbytes for table in tables for array in table if array is not None) > MOST_BYTES:
        return None
    several = len(tables) > 1
    x, context = (
        np.concatenate(parts) if several and parts[0] is not None else parts[0] for parts in zip(*tables, strict=True)
    )
    hashes = hashes_of(x, context)
    if (np.diff(np.sort(hashes)) > 0).all():
        return None
    _, first, numbers, sizes = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    numbers = numbers.ravel()
    atoms = (sizes > ATOM * len(hashes)) & (sizes > LARGE * np.median(sizes))
    sizes, first = sizes[~atoms], first[~atoms]
    if not (sizes > 1).any() or not (_odd_sizes(sizes) or _no_chance(x, first, int(sizes.sum() - len(sizes)))):
        return None
    alone = atoms[numbers]
    numbers[alone] = len(atoms) + np.arange(alone.sum())
    return numbers


def hashes_of(x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """Return a hash of 64 bits for each row with its context, the same for equal rows."""
    hashes = np.zeros(len(x), np.uint64)
    for number, array in enumerate([x] if context is None else [x, context]):
        for piece in pieces_of(len(x), array.shape[1:]):
            hashes[piece] = _mixed(hashes[piece] + np.uint64(number)) ^ _hashed(array[piece])
    return hashes


def _hashed(x: np.ndarray) -> np.ndarray:
    """Return the sum of all words of 64 bits of each row, each mixed with its place."""
    flat = x.reshape(len(x), -1)
    if x.dtype.kind == "f":
        flat = flat + np.zeros((), x.dtype)  # -0.0 becomes 0.0
    wide = -(-flat.shape[1] * x.itemsize // 8) * 8 // x.itemsize
    if wide > flat.shape[1]:
        flat = np.concatenate([flat, np.zeros((len(flat), wide - flat.shape[1]), x.dtype)], 1)
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


def _no_chance(x: np.ndarray, first: np.ndarray, copies: int) -> bool:
    """Tell whether n copies cannot be chance: in some column of the different rows `first`, too few values coincide."""
    if x.ndim > 2 and x[0].size >= IMAGE:
        return True
    if copies > len(first) and len(first) < FEW:
        return False
    values, different = x.reshape(len(x), -1), np.sort(first)[:: -(-len(first) // LOOKED_AT)]
    for j in range(values.shape[1]):
        pairs = _coincidences(values[different, j].astype(float)) * (len(x) / len(different)) ** 2
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


def check_dependence(table: Table, scale: Scale, columns: np.ndarray) -> None:
    """Refuse columns, of these numbers, that are copies or combinations of others to the digits of the working dtype; warn of
    columns that nearly are."""
    if len(columns) < 2 or len(table) < 3:
        return
    among = _Among(table, columns, Scale(scale.mean[columns], scale.std[columns]))
    if len(columns) <= MOST_PAIRS:
        among.refuse_copies()
    if len(columns) > MOST_COMBINED:
        return
    if len(table) < FEWEST * len(columns):
        warn_of_data(
            f"fit: {len(table)} training rows for {len(columns)} columns: too few to know how columns depend on each other, so "
            "their correlations are shrunk towards 0. Give more rows, or fewer columns"
        )
        return
    left = np.abs(np.diagonal(np.linalg.qr(among.z, mode="r"))) / np.sqrt(len(among.z))  # by the columns before each
    # The rounding error of each column, in standard deviations.
    lost = np.finfo(table.dtype).eps * np.maximum(1.0, np.abs(among.scale.mean) / among.scale.std)
    little, few = np.minimum(LITTLE, 10**DIGITS * lost), list[str]()
    for j in map(int, np.flatnonzero(left < little)):
        among.refuse_combination(j)
        few.append(f"{among.labels[j]} ({np.log10(max(left[j] / lost[j], 1)):.1f} digits)")
    if rounded := among.rounded(np.flatnonzero((left < PREDICTED) & (left >= little))):
        warn_of_data(
            f"fit: {'; '.join(rounded)}: the other columns explain it up to its rounding. Leave it out; or give "
            "dequantize=, which spreads each value over its step"
        )
    if few:
        warn_of_data(
            f"fit: columns before it explain nearly all of {', '.join(few)} of data; in brackets the digits that "
            f"{table.dtype.name} keeps of the rest. Give the difference from the explained part as a column instead, computed "
            "in float64"
        )


class _Among:
    """Columns of a table, of these numbers, with the scale of each; j is a place among them."""

    def __init__(self, table: Table, columns: np.ndarray, scale: Scale):
        self.table, self.columns, self.scale = table, columns, scale
        self.labels = [table.labels[j] for j in columns]
        self.least = 64 * np.finfo(table.dtype).eps  # the least number that the dtype distinguishes from 0
        self.few = slice(None, None, max(1, len(table) // max(SUSPECTED_BY, 4 * len(columns))))  # rows from all over
        self.z = self.standardized(self.few)

    def standardized(self, rows: slice, count: int | None = None) -> np.ndarray:
        """Return some rows of the first columns, or of all, standardised."""
        z: np.ndarray = (self.table.x[rows][:, self.columns[:count]] - self.scale.mean[:count]) / self.scale.std[:count]
        return z

    def refuse_copies(self) -> None:
        """Refuse a column that is a copy of another up to scale and offset."""
        norms = np.sqrt(np.square(self.z).sum(0))
        z = self.z / np.where(norms > 0, norms, 1.0)
        for a, b in np.argwhere(np.triu(np.abs(z.T @ z) > 1 - 1e-6, 1)):
            one, other = ((self.table.x[:, self.columns[j]] - self.scale.mean[j]) / self.scale.std[j] for j in (a, b))
            if np.abs(one - np.sign(z[:, a] @ z[:, b]) * other).max() <= self.least:
                raise FlowsError(
                    f"fit: {self.labels[b]} of data is {self.labels[a]} again, up to scale and offset: together they have no "
                    "density. Leave one of them out"
                )

    def combination(self, j: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Return the coefficients of column j on the columns before it: standardised, in the units of the data, and as text."""
        coefficients = np.linalg.lstsq(self.z[:, :j], self.z[:, j], rcond=None)[0]
        factors = coefficients * self.scale.std[j] / self.scale.std[:j]
        used = np.flatnonzero(np.abs(coefficients) > 1e-4)
        used = used[np.argsort(-np.abs(coefficients[used]), kind="stable")]
        terms = [f"{factors[k]:.4g} x {self.labels[k]}" for k in sorted(used[:SHOWN])]
        more = f" and {len(used) - SHOWN} more" if len(used) > SHOWN else ""
        return coefficients, factors, " + ".join(terms).replace("+ -", "- ") + more

    def refuse_combination(self, j: int) -> None:
        """Refuse a column that the columns before it determine to all digits, in all rows."""
        (coefficients, _, formula), largest = self.combination(j), 0.0
        for i in range(0, len(self.table), SUSPECTED_BY):
            z = self.standardized(slice(i, i + SUSPECTED_BY), j + 1)
            largest = max(largest, float(np.abs(z[:, j] - z[:, :j] @ coefficients).max()))
        if largest <= self.least * max(1.0, np.abs(coefficients).sum()):
            raise FlowsError(
                f"fit: {self.labels[j]} of data is a combination of others, {formula}, to all digits of "
                f"{self.table.dtype.name}: together they have no density. Leave one of them out"
            )

    def rounded(self, close: np.ndarray) -> list[str]:
        """Return a text for each of these columns that is a combination of others up to rounding."""
        few, texts = self.table.x[self.few], list[str]()
        steps = np.array([step_of(few[:, k]) or 0.0 for k in self.columns[: max(close, default=-1) + 1]])
        for j in map(int, close[steps[close] > 0]):
            coefficients, factors, formula = self.combination(j)
            missed = (self.z[:, j] - self.z[:, :j] @ coefficients) * self.scale.std[j]
            widths = np.abs(np.array([*factors, 1.0])) * steps[: j + 1]
            std, most = np.sqrt(np.square(widths).sum() / 12), widths.sum() / 2  # of a sum of uniform errors
            explained = np.sqrt(np.mean(np.square(missed))) <= MORE * std and np.quantile(np.abs(missed), NEARLY) <= MORE * most
            if explained and widths.max() <= COARSER * widths[-1]:
                texts.append(f"{self.labels[j]} of data is {formula} and a constant, rounded to {steps[j]:.6g}")
        return texts
