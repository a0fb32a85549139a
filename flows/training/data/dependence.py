"""Columns that others determine: copies and combinations have no density together, and near ones cost digits."""

from collections.abc import Sequence

import numpy as np

from flows.core import FlowsError, warn_user
from flows.training.data.gaussian import FEWEST, Scale
from flows.training.data.grid import step_of
from flows.training.data.table import DataWarning, Table

MOST_PAIRS = 3000  # columns up to which all pairs are compared
MOST_COMBINED = 512  # columns up to which combinations are looked for
LOOKED_AT = 10_000  # rows by which a column is suspected
SHOWN = 4  # terms of a combination that are named
LITTLE = 0.1  # of a standard deviation: what a column adds to others, below which it depends on them
DIGITS = 3  # of what a column adds to others, below which it is warned of
TOLD = 0.5  # of a standard deviation: what a rounded column adds to others that tell it, at most
COARSE = 1e-3  # of a standard deviation: what is lost where a column is far from 0, or from an end of its support
COARSER = 2.0  # times its own step: what others are rounded to, at most
MORE = 1.1  # times the error that rounding makes: what is taken for no more than it
NEARLY = 0.99  # of the rows: the share whose error has to be no more than that


def check_dependence(table: Table, scale: Scale, columns: np.ndarray) -> None:
    """Refuse columns that are others again, or combinations of others, to the digits of the working dtype; warn of those that
    nearly are.

    `columns` are the numbers of those that are looked at.
    """
    x, dtype = table.x, table.dtype
    if len(columns) < 2 or len(x) < 3:
        return
    spread = _few(len(x), columns)
    z = (x[spread][:, columns] - scale.mean[columns]) / scale.std[columns]
    if len(columns) <= MOST_PAIRS:
        _refuse_copies(table, z, scale, columns)
    if len(columns) > MOST_COMBINED:
        return
    if len(x) < FEWEST * len(columns):
        warn_user(
            f"fit: {len(x)} training rows for {len(columns)} columns: too few to know how columns depend on each other, so "
            "their correlations are shrunk towards 0. Give more rows, or fewer columns",
            DataWarning,
        )
        return
    remainders = np.abs(np.diagonal(np.linalg.qr(z, mode="r"))) / np.sqrt(len(z))  # of each column, given those before it
    few, rounded = [], []
    lost = np.finfo(dtype).eps * _offsets(scale, columns)
    for j in np.flatnonzero((remainders < LITTLE) & (remainders < 10**DIGITS * lost)):
        coefficients = np.linalg.lstsq(z[:, :j], z[:, j], rcond=None)[0]
        largest = _largest_remainder(x, scale, columns, int(j), coefficients)
        if largest <= 64 * np.finfo(dtype).eps * max(1.0, np.abs(coefficients).sum()):
            formula = _formula(coefficients, scale, columns, int(j), table.labels)
            raise FlowsError(
                f"fit: {table.labels[columns[j]]} of data is a combination of others, {formula}, to all digits of "
                f"{dtype.name}: together they have no density. Leave one of them out"
            )
        few.append(f"{table.labels[columns[j]]} ({np.log10(max(remainders[j] / lost[j], 1)):.1f} digits)")
    close = np.flatnonzero((remainders < TOLD) & (remainders >= np.minimum(LITTLE, 10**DIGITS * lost)))
    steps = np.array([step_of(x[spread][:, k]) or 0.0 for k in columns]) if len(close) else np.zeros(len(columns))
    for j in close[steps[close] > 0]:
        coefficients = np.linalg.lstsq(z[:, :j], z[:, j], rcond=None)[0]
        missed = (z[:, j] - z[:, :j] @ coefficients) * scale.std[columns[j]]
        if _is_rounding(missed, steps[: j + 1], coefficients * scale.std[columns[j]] / scale.std[columns[:j]]):
            formula = _formula(coefficients, scale, columns, int(j), table.labels)
            rounded.append(f"{table.labels[columns[j]]} of data is {formula} and a constant, rounded to {steps[j]:.6g}")
    if rounded:
        warn_user(
            f"fit: {'; '.join(rounded)}: what others leave of it is no more than rounding explains. Leave it out; or give "
            "dequantize=, which spreads each value over its step",
            DataWarning,
        )
    if few:
        warn_user(
            f"fit: columns before it tell nearly all of {', '.join(few)} of data; in brackets what {dtype.name} keeps of the "
            "rest. Give the difference from what the others tell as a column instead, computed in float64",
            DataWarning,
        )


def _is_rounding(missed: np.ndarray, steps: np.ndarray, factors: np.ndarray) -> bool:
    """Whether rounding explains what a column misses of a combination of others, times these factors; its own step is last."""
    widths = np.abs(np.array([*factors, 1.0])) * steps
    if widths.max() > COARSER * widths[-1]:
        return False
    std, most = np.sqrt(np.square(widths).sum() / 12), widths.sum() / 2  # of a sum of uniform errors
    return bool(np.sqrt(np.mean(np.square(missed))) <= MORE * std and np.quantile(np.abs(missed), NEARLY) <= MORE * most)


def _few(n: int, columns: np.ndarray) -> slice:
    """Rows from all over the table."""
    return slice(None, None, max(1, n // max(LOOKED_AT, 4 * len(columns))))


def _offsets(scale: Scale, columns: np.ndarray) -> np.ndarray:
    """What a rounding of each column is multiplied by once its mean is subtracted."""
    return np.maximum(1.0, np.abs(scale.mean[columns]) / scale.std[columns])


def _largest_remainder(x: np.ndarray, scale: Scale, columns: np.ndarray, j: int, coefficients: np.ndarray) -> float:
    """What the combination misses at most, over all rows, in standard deviations of the column."""
    largest = 0.0
    for i in range(0, len(x), LOOKED_AT):
        z = (x[i : i + LOOKED_AT][:, columns[: j + 1]] - scale.mean[columns[: j + 1]]) / scale.std[columns[: j + 1]]
        largest = max(largest, float(np.abs(z[:, j] - z[:, :j] @ coefficients).max()))
    return largest


def _formula(coefficients: np.ndarray, scale: Scale, columns: np.ndarray, j: int, labels: Sequence[str]) -> str:
    used = np.flatnonzero(np.abs(coefficients) > 1e-4)
    used = used[np.argsort(-np.abs(coefficients[used]), kind="stable")]
    factors = coefficients * scale.std[columns[j]] / scale.std[columns[:j]]
    terms = [f"{factors[k]:.4g} x {labels[columns[k]]}" for k in sorted(used[:SHOWN])]
    more = f" and {len(used) - SHOWN} more" if len(used) > SHOWN else ""
    return " + ".join(terms).replace("+ -", "- ") + more


def _refuse_copies(table: Table, z: np.ndarray, scale: Scale, columns: np.ndarray) -> None:
    """Refuse a column that is another but for scale and offset."""
    x, dtype = table.x, table.dtype
    norms = np.sqrt(np.square(z).sum(0))
    z = z / np.where(norms > 0, norms, 1.0)
    for a, b in np.argwhere(np.triu(np.abs(z.T @ z) > 1 - 1e-6, 1)):
        i, j = int(columns[a]), int(columns[b])
        one, other = ((x[:, k] - scale.mean[k]) / scale.std[k] for k in (i, j))
        if np.abs(one - np.sign(z[:, a] @ z[:, b]) * other).max() <= 64 * np.finfo(dtype).eps:
            raise FlowsError(
                f"fit: {table.labels[j]} of data is {table.labels[i]} again, but for scale and offset: together they have "
                "no density. Leave one of them out"
            )
