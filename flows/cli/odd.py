"""The column that makes a row odd."""

import sys
from typing import Any

import numpy as np
import polars as pl

from flows.tables import TableResult

USUAL = 256  # draws whose contributions tell what is usual for a column


class Odd:
    """The column whose contribution is furthest below what is usual for it, of rows that are odd enough.

    Args:
        share: the largest `anomaly` of such rows; None where nobody asks for them.
        quiet: no bar is wanted, which tells how long it takes.
    """

    def __init__(self, table: TableResult, share: float | None, quiet: bool):
        self.table, self.share = table, share
        self.verbose = int(sys.stderr.isatty() and not quiet)
        self.columns: list[str] = []
        self.usual: np.ndarray | None = None

    def of(self, rows: pl.DataFrame, anomaly: np.ndarray) -> list[pl.Series]:
        """The name of the column, and its contribution; null for the other rows, and where there is no contribution."""
        places = np.flatnonzero(anomaly <= (self.share or 0.0))
        names, values = np.full(len(rows), None, object), np.full(len(rows), np.nan)
        if len(places):
            found = self._contributions(rows[places])
            below = np.nan_to_num(found - self._medians(rows), nan=np.inf)
            least = below.argmin(1)
            known = below.min(1) < np.inf
            names[places[known]] = np.array(self.columns, object)[least[known]]
            values[places[known]] = found[known, least[known]]
        return [pl.Series(names.tolist(), dtype=pl.String), pl.Series(values).fill_nan(None)]

    def _contributions(self, rows: Any) -> np.ndarray:
        frame = self.table.contributions(rows, errors="coerce", verbose=self.verbose)
        self.columns = list(map(str, frame.columns))
        return np.stack([np.asarray(frame[name], float) for name in frame.columns], 1)

    def _medians(self, rows: pl.DataFrame) -> np.ndarray:
        """Return the usual value of each column, of draws; with a condition, of the first rows of it at hand."""
        if self.usual is None:
            given = rows.select(self.table.schema.condition).drop_nulls()[:USUAL]
            drawn = self.table.draw(0, 1, given) if given.width else self.table.draw(0, USUAL)
            self.usual = np.nanmedian(self._contributions(drawn), 0)
        return self.usual
