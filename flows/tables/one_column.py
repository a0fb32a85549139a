"""Answers of a table of one column, in the units of the frame: distribution function, quantiles, intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np

from flows.core import FlowsError
from flows.results.frames import frame_of, header_of, listed
from flows.results.result import FitResult
from flows.tables.fields import Rows
from flows.tables.schema import Schema


class Answers:
    """The part of a table's result that is for one column."""

    schema: Schema
    result: FitResult
    rows: Callable[..., Rows]
    context_of: Callable[[Any], Any]
    conditional: Callable[..., Any]
    any_given_any: Any

    def cdf(self, frame: Any) -> np.ndarray:
        """P(X <= x) of the one column, a number or an `Ordinal`, for each row, (rows,), given the condition in the row.

        Args:
            frame: rows with the columns of the schema, in any order.

        Errors:
            FlowsError: several columns, or one that has no order; as in `log_prob`.
        """
        if (alone := self._alone()) is not None:
            return alone.cdf(frame)
        answers, rows = self._answers("cdf"), self.rows(frame)
        return np.asarray(answers.cdf(rows.x, context=rows.context), float)

    def quantile(self, q: Any, given: Any = None) -> Any:
        """The value below which a share q of the one column lies, in its units, of the shape of q; where `given` is a frame, a
        frame with its index and a column such as "q0.05" for each q. Of an `Ordinal` the least value with P(X <= value) >= q.

        Args:
            q: between 0 and 1, a number or an array.
            given: as in `draw`.

        Errors:
            FlowsError: several columns, or one that has no order.
        """
        return self._answered("quantile", given, q)

    def interval(self, share: float, given: Any = None) -> Any:
        """The central interval (low, high) that holds a share of the one column, in its units; where `given` is a frame, a
        frame with its index and the columns "low" and "high".

        Args:
            share: between 0 and 1.
            given: as in `draw`.

        Errors:
            FlowsError: several columns, or one that has no order.
        """
        return self._answered("interval", given, share)

    def _answered(self, name: str, condition: Any, argument: Any) -> Any:
        if (alone := self._alone()) is not None:
            return getattr(alone, name)(argument, condition)
        answers = self._answers(name)
        answer = getattr(answers, name)(argument, context=self.context_of(condition))
        answer = np.stack(answer, -1) if isinstance(answer, tuple) else answer
        values = in_units(self.schema, np.asarray(answer, np.float64))
        if (header := header_of(condition)) is None:
            return values
        labels = ["low", "high"] if name == "interval" else [f"q{float(share)!r}" for share in np.ravel(argument)]
        if len(set(labels)) < len(labels):
            raise FlowsError(f"{name}: q is {argument!r:.60}; expected shares that differ, as each names a column of the frame")
        columns = values.reshape(len(values), -1).T
        frame = frame_of(header.library, labels, [x.tolist() if x.dtype == object else x for x in columns], len(values))
        return frame.set_axis(condition.index) if header.library == "pandas" else frame

    def _alone(self) -> Any:
        """The table of its one column, if it has roles."""
        return self.conditional(self.schema.columns) if self.any_given_any and len(self.schema.columns) == 1 else None

    def _answers(self, name: str) -> Any:
        columns = self.schema.columns
        answers = self.schema[columns[0]].answers(self.result) if len(columns) == 1 else None
        if answers is None:
            raise FlowsError(
                f"{name}: the model is of {len(columns)} columns, {listed(columns)}; expected one number, or one Ordinal. "
                "Name the others in tables.fit(condition=)"
            )
        return answers


def in_units(schema: Schema, values: np.ndarray) -> Any:
    """Encoded values of the one column, of any shape, in the units of the data; infinite values stay, and are gaps of times."""
    (name,), flat, finite = schema.columns, values.ravel(), np.isfinite(values.ravel())
    column = schema.native(name, np.where(finite, flat, 0.0), schema.fitted_to)
    # NumPy has no zones: polars would give such times in Universal Time; pandas hands on objects with theirs.
    units = np.array(column.to_list(), object) if getattr(column.dtype, "time_zone", None) else column.to_numpy()
    if not finite.all():
        if units.dtype.kind in "mM":
            units = np.where(finite, units, np.array("NaT", units.dtype))
        else:
            is_date = schema[name].sort == "times"
            units = np.where(finite, units, np.array(None)) if is_date else np.where(finite, units.astype(float), flat)
    return units.reshape(values.shape)[()]
