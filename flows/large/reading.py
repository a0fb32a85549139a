"""How results read frames that hold their columns: scores of rows, and contexts for quantiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.core import FlowsError, as_context
from flows.results.frames import column_at, header_of, in_order, library_of, listed, looked_at, module_of
from flows.results.result import FitResult
from flows.tables.fields import context_of, encoded_rows
from flows.tables.kinds.dtypes import zone_in
from flows.tables.one_column import in_units
from flows.tables.result import TableResult


class Reading:
    """A `FitResult` as a reader of frames of numbers.

    Attributes:
        modelled, condition: names of columns; `others` are needed for scores, and have one value.
        answers: what has quantiles of the one column, or None.
    """

    others: tuple[str, ...] = ()

    def __init__(self, result: FitResult):
        if result.columns is None or (as_context(result.context_dim) and result.context_columns is None):
            what = "columns" if result.columns is None else "columns of the context"
            raise FlowsError(f"the model does not know the names of its {what}; fit it to a frame, whose columns have names")
        self.result, self.modelled, self.condition = result, result.columns, result.context_columns or ()
        self.answers: Any = result

    def rows(self, frame: Any, errors: str) -> Any:
        """Return rows and their context as numbers; refuse a gap, if errors is "raise"."""
        tables = (self.modelled, self.result.table), (self.condition, self.result.context_table)
        return [self._numbers(frame, names, table, errors) if names else None for names, table in tables]

    def _numbers(self, frame: Any, names: tuple[str, ...], table: Any, errors: str) -> np.ndarray:
        array: np.ndarray = in_order(selected(frame, names), table, "the table")
        if errors == "raise" and (gaps := np.argwhere(np.isnan(array))).size:
            raise FlowsError(f"column {names[gaps[0, 1]]!r}, row {gaps[0, 0]}, is a gap, or NaN; expected a number")
        return array

    def contexts(self, frame: Any, errors: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a context for each row, and which of them are known."""
        contexts = self._numbers(frame, self.condition, self.result.context_table, errors)
        return contexts, np.isfinite(contexts).all(1)

    def scores(self, frame: Any, errors: str, p_values: bool) -> Sequence[Any]:
        """Return log p of rows, and if asked p-values."""
        x, context = self.rows(frame, errors)
        scores = (
            self.result.log_prob_and_p_value(x, context=context) if p_values else [self.result.log_prob(x, context=context)]
        )
        if errors == "raise" and not (finite := np.isfinite(scores[0])).all():
            raise FlowsError(
                f"row {finite.argmin()} has log p {scores[0][finite.argmin()]:g}; expected a row within the support"
            )
        return scores

    def in_units(self, quantiles: np.ndarray) -> np.ndarray:
        """Return quantiles in the units of frames."""
        return quantiles

    def zone(self, name: str) -> str | None:
        """Return the zone of a column of times."""
        return None


class TableReading(Reading):
    """A `TableResult` as a reader of frames of what its schema has."""

    def __init__(self, table: TableResult):
        self.table, self.schema, self.result, self.modelled = table, table.schema, table.result, table.schema.columns
        self.others, self.condition = self.schema.constants, self.schema.condition
        self.answers = self.schema[self.modelled[0]].answers(self.result)

    def rows(self, frame: Any, errors: str) -> Any:
        return self.table.rows(frame, errors)

    def contexts(self, frame: Any, errors: str) -> tuple[np.ndarray, np.ndarray]:
        table, fields = looked_at(frame, "score"), {name: self.schema.complete(name) for name in self.condition}
        rows = encoded_rows(fields, self.condition, table, "score", errors)
        known = ~(rows.outside | rows.gaps.any(1))
        return context_of(fields, self.condition, table, np.where(known[:, None], rows.x, 0.0), "score"), known

    def scores(self, frame: Any, errors: str, p_values: bool) -> Sequence[Any]:
        if p_values:
            return self.table.log_prob_and_p_value(frame, errors=errors)
        return [self.table.log_prob(frame, errors=errors)]

    def in_units(self, quantiles: np.ndarray) -> np.ndarray:
        return np.asarray(in_units(self.schema, quantiles))

    def zone(self, name: str) -> str | None:
        return zone_in(self.schema.dtype_of(name))


def dtype_of_quantiles(reading: Reading) -> str:
    """Return the dtype of quantiles in frames, as pandas writes it; refuse a model that has none for each row."""
    if len(reading.modelled) != 1 or reading.answers is None:
        names, kind = listed(reading.modelled), "" if len(reading.modelled) > 1 else ", which has no order"
        raise FlowsError(f"quantiles: the model is of {names}{kind}; expected one number, or one Ordinal, given other columns")
    (name,) = reading.modelled
    if not reading.condition:
        raise FlowsError(f"quantiles: {name!r} has no condition, so that all rows have the same: ask result.quantile(0.05)")
    example = reading.in_units(np.zeros(1))
    if example.dtype.kind in "biufmM":
        return {"m": "timedelta64[us]", "M": "datetime64[us]"}.get(example.dtype.kind, "float64")
    return f"datetime64[us, {zone}]" if (zone := reading.zone(name)) else "str"


def selected(frame: Any, names: Sequence[str]) -> Any:
    """Return some columns of a frame of pandas or polars; of an Arrow table as a frame of polars."""
    header: Any = header_of(frame)
    places = [header.names.index(name) for name in names]
    return module_of("polars").from_arrow(frame.select(places)) if library_of(frame) == "pyarrow" else column_at(frame, places)
