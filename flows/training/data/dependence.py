"""Columns that others determine: copies and combinations have no joint density, and near combinations cost digits."""

import numpy as np

from flows.core import FlowsError
from flows.training.data.gaussian import FEWEST, Scale
from flows.training.data.rounding import step_of
from flows.training.data.table import Table, warn_of_data

MOST_PAIRS = 3000  # columns up to which all pairs are compared
MOST_COMBINED = 512  # columns up to which combinations are looked for
LOOKED_AT = 10_000  # rows by which a column is suspected
SHOWN = 4  # terms of a combination that are named
LITTLE = 0.1  # of a standard deviation: a column of which others leave less depends on them
DIGITS = 3  # of the part that others leave; with fewer a column is warned of
PREDICTED = 0.5  # of a standard deviation: others leave at most this much of a rounded column that they predict
COARSE = 1e-3  # of a standard deviation: the error of a column far from 0, or from an end of its support, that is warned of
COARSER = 2.0  # times the step of a column: the rounding of others, at most
MORE = 1.1  # times the error of rounding, which an error may have to count as rounding
NEARLY = 0.99  # of the rows, whose errors have to count as rounding


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
        self.few = slice(None, None, max(1, len(table) // max(LOOKED_AT, 4 * len(columns))))  # rows from all over
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
        for i in range(0, len(self.table), LOOKED_AT):
            z = self.standardized(slice(i, i + LOOKED_AT), j + 1)
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
