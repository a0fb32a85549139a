"""Parts that the estimators share: a fit of one table, scores that do not depend on other rows, and pickles."""

import io
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from flows import tables
from flows.core import FlowsError, number, to_json, warn_user
from flows.persistence.models import foreign_constructors, rows_held
from flows.results.pieces import by_pieces
from flows.sklearn.inputs import fitted_frame, frame_like_fitted, is_nameless
from flows.tables.infer import schema_of_numbers

ROWS = 256  # that are scored together: one program for any number of rows, so that scores do not depend on that number
MOST_BYTES = 2**62  # of a pickled model, whose file is trusted


class TableEstimator(BaseEstimator):
    """An estimator over `tables.fit`."""

    table_: tables.TableResult
    _fitted_to_array: bool

    def __init__(
        self,
        model: Any = "auto",
        *,
        schema: tables.Schema | None = None,
        max_epochs: int | None = None,
        minutes: float | None = None,
        random_state: Any = None,
    ):
        self.model = model
        self.schema = schema
        self.max_epochs = max_epochs
        self.minutes = minutes
        self.random_state = random_state

    def _read(self, X: Any, sample_weight: Any) -> tuple[Any, tables.Schema | None, np.ndarray | None]:
        """Rows as a frame, what its columns hold, and their weights."""
        frame, schema = fitted_frame(self, X), self.schema
        if schema is None:
            schema = schema_of_numbers(frame, "fit") if self._fitted_to_array or is_nameless(frame) else None
        elif not isinstance(schema, tables.Schema):
            raise TypeError(f"schema is a {type(schema).__name__}; expected a flows.tables.Schema, or None")
        elif schema.condition:
            raise FlowsError(
                f"schema has the condition {schema.condition!r:.100}; expected one without, as all columns of X are modelled. "
                "With a condition use flows.tables.fit"
            )
        return frame, schema, weights_of(frame, sample_weight)

    def _fit(self, frame: Any, schema: tables.Schema | None, weights: np.ndarray | None, folds: int | None = None) -> None:
        if (minutes := self.minutes) is not None:
            number(minutes, "minutes", lambda x: x > 0, "a number above 0, or None for no limit")
        self.table_ = tables.fit(
            seed_of(self.random_state),
            frame,
            schema,
            model=self.model,
            weights=weights,
            folds=folds,
            max_epochs=self.max_epochs,
            total_minutes=self.minutes,
            verbose=0,
        )
        self.n_iter_ = _iterations(self.table_)

    def _frame(self, X: Any) -> Any:
        check_is_fitted(self)
        return frame_like_fitted(self, X)

    def __getstate__(self) -> dict[str, Any]:
        """The state, with the fitted table as the bytes of a file."""
        state = dict(super().__getstate__())
        if "table_" in state:
            warn_of_rows(self.table_)
            self.table_.save(file := io.BytesIO())
            state["table_"] = file.getvalue()
            model: Any = self.table_.result.init_fun
            state["_constructors"] = foreign_constructors(model)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "table_" in state:
            table = tables.load(io.BytesIO(state["table_"]), state["_constructors"], max_bytes=MOST_BYTES)
            state = {name: value for name, value in state.items() if name != "_constructors"} | {"table_": table}
        super().__setstate__(state)


def weights_of(rows: Any, sample_weight: Any) -> np.ndarray | None:
    """Weights of rows, (rows,); None where all count alike."""
    if sample_weight is None:
        return None
    weights: np.ndarray = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():
        raise FlowsError("sample_weight is 0 in all rows; expected a weight above 0 in some")
    return weights


def seed_of(random_state: Any) -> int:
    """A seed, of None, a number or a generator."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def log_prob(table: tables.TableResult, frame: Any, *, outside: bool = False) -> np.ndarray:
    """log p of each row, (rows,), in nats, whatever the other rows are.

    Args:
        outside: give -inf to rows with a value that its column cannot have, instead of refusing them.
    """
    if outside:
        _refuse_gaps(table.schema, frame)
    parts = list[np.ndarray]()
    for rows in table.schema.pieces(frame, 2**16, errors="coerce" if outside else "raise"):
        inside, scores = ~rows.outside, np.full(len(rows.x), -np.inf)
        scores[inside] = in_chunks(table, rows.x[inside], None if rows.context is None else rows.context[inside])
        parts.append(scores)
    return np.concatenate(parts)


def log_prob_of_each(table: tables.TableResult, frame: Any, contexts: np.ndarray) -> np.ndarray:
    """log p of each row given each of several contexts, (rows, contexts), in nats. Rows are encoded once, which takes longer
    than small models do; columns of the condition are not read."""
    parts = [rows.x for rows in table.schema.pieces(frame, 2**16)]
    blocks = [[in_chunks(table, x, np.tile(context, (len(x), 1))) for context in contexts] for x in parts]
    return np.concatenate([np.stack(scores, 1) for scores in blocks])


def in_chunks(table: tables.TableResult, x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """log p of encoded rows, ROWS at once."""
    with np.errstate(over="ignore"):  # numbers beyond float32 are far from all rows, and scored as such
        scores = by_pieces(lambda x, context: table.result.log_prob(x, context=context), x, context, sizes=(ROWS,))
    return scores.astype(np.float64)


def _refuse_gaps(schema: tables.Schema, frame: Any) -> None:
    for name, gaps in schema.gaps(frame).items():
        raise FlowsError(
            f"column {name!r}, row {int(gaps.argmax())}, is a gap, the first of {int(gaps.sum())}; expected a value of "
            f"{schema[name]!r}. Drop such rows, or fill them"
        )


def _iterations(table: tables.TableResult) -> int:
    """The epochs of the model that was fitted for longest."""
    results = [table.result]
    if table.selection is not None:
        results = [candidate.result for candidate in table.selection.candidates if candidate.result is not None]
    return max(np.shape(result.history["validation_loss"])[-1] for result in results)


def warn_of_rows(table: tables.TableResult) -> None:
    """Warn of a model that is made of rows of the data, which go where it goes."""
    model: Any = table.result.init_fun
    if rows := rows_held(to_json(model)):
        warn_user(
            f"the model is a KernelDensity, whose file holds up to {rows:,} rows of the data; hand it on with them in mind"
        )
