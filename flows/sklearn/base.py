"""Parts that the estimators share: inputs as frames, a fit of one table, scores that do not depend on other rows, pickles."""

import importlib.util
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from flows import tables
from flows.core import FlowsError, declares, native, number
from flows.persistence.pickles import packed, unpacked
from flows.results.frames import SHOWN, collected, frame_of, header_of, looked_at, module_of
from flows.results.pieces import by_pieces
from flows.results.result import Hints
from flows.tables.gaps import has_roles, without_codes_of_gaps
from flows.tables.infer import infer_schema, schema_of_numbers

ROWS = 256  # that are scored together: one program for any number of rows, so that scores do not depend on that number
OPTIONS = "max_epochs", "learning_rate", "weight_decay", "patience", "batch_size"  # of `flows.fit`, by default as there


class TableEstimator(Hints, BaseEstimator):
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
        learning_rate: Any = None,
        weight_decay: float | None = None,
        patience: int | None = None,
        folds: int | None = None,
        batch_size: int | None = None,
        random_state: Any = None,
    ):
        self.model = model
        self.schema = schema
        self.max_epochs = max_epochs
        self.minutes = minutes
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.folds = folds
        self.batch_size = batch_size
        self.random_state = random_state

    def _read(self, X: Any, sample_weight: Any) -> tuple[Any, tables.Schema | None, np.ndarray | None]:
        """Rows as a frame, what its columns hold, and their weights."""
        frame, schema = fitted_frame(self, X), self.schema
        if schema is None:
            nameless = self._fitted_to_array or is_nameless(frame)  # rows to come may lie beyond the ends of these
            schema = schema_of_numbers(frame, "fit") if nameless else infer_schema(frame, ends=False)
            schema = without_codes_of_gaps(schema, None) if get_tags(self).input_tags.allow_nan else schema
        elif not isinstance(schema, tables.Schema):
            raise TypeError(f"schema is a {type(schema).__name__}; expected a flows.tables.Schema, or None")
        elif schema.condition:
            raise FlowsError(
                f"schema has the condition {schema.condition!r:.100}; expected one without, as all columns of X are modelled. "
                "With a condition use flows.tables.fit"
            )
        return frame, schema, weights_of(frame, sample_weight)

    def _model(self) -> Any:
        return self.model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        model = self._model()
        several = model.values() if isinstance(model, dict) else np.ravel(np.array(model, object))
        tags.input_tags.allow_nan = any(declares(one, "roles") for one in several)
        return tags

    def _fit(self, frame: Any, schema: Any, weights: Any, groups: Any, order: Any, folds: int | None = None) -> None:
        if (minutes := self.minutes) is not None:
            number(minutes, "minutes", lambda x: x > 0, "a number above 0, or None for no limit")
        self.table_ = tables.fit(
            seed_of(self.random_state),
            frame,
            schema,
            model=self._model(),
            weights=weights,
            folds=folds if self.folds is None else self.folds,
            groups=groups,
            order=order,
            total_minutes=self.minutes,
            verbose=0,
            **{name: value for name in OPTIONS if (value := getattr(self, name)) is not None},
        )
        self.n_iter_ = _iterations(self.table_)

    def _frame(self, X: Any) -> Any:
        """Rows like those fitted to as a frame."""
        check_is_fitted(self)
        X = collected(X, "X")
        if self._fitted_to_array:
            return array_frame(_checked(self, X, reset=False))
        if header_of(X) is None:
            names = list(self.table_.schema)
            raise FlowsError(
                f"X is a {type(X).__name__}, and {type(self).__name__} was fitted to a frame; expected a frame with the "
                f"columns {', '.join(map(repr, names[:5]))}{' and more' * (len(names) > 5)}"
            )
        _check_columns(self, looked_at(X, "X").header.labels)
        return X

    def __getstate__(self) -> dict[str, Any]:
        """The state, with the fitted table as the bytes of a file."""
        state = dict(super().__getstate__())
        if "table_" in state:
            state["table_"] = packed(self.table_, self.table_.result.init_fun)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "table_" in state:
            state = state | {"table_": unpacked(state["table_"], tables.load)}
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
    parts = list[np.ndarray]()
    for rows in table.schema.pieces(frame, 2**16, errors="coerce" if outside else "raise", roles=has_roles(table.result)):
        _refuse_gaps(table.schema, rows)
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


def _refuse_gaps(schema: tables.Schema, rows: tables.Rows) -> None:
    for name, gaps in zip((*schema.columns, *schema.constants, *schema.condition), rows.gaps.T, strict=True):
        if gaps.any():
            raise FlowsError(
                f"column {name!r}, row {int(gaps.argmax())}, is a gap, the first of {int(gaps.sum())}; expected a value of "
                f"{schema[name]!r}. Drop such rows, fill them, or give model=flows.AnySubset(), which takes them"
            )


def _iterations(table: tables.TableResult) -> int:
    """The epochs of the model that was fitted for longest."""
    results = [table.result]
    if table.selection is not None:
        results = [candidate.result for candidate in table.selection.candidates if candidate.result is not None]
    return max(np.shape(result.history["validation_loss"])[-1] for result in results)


# What scikit-learn hands over, as frames


def is_nameless(frame: Any) -> bool:
    """Tell whether a frame is an array of numbers in all but its type, as pandas makes one: its columns are 0, 1, ..."""
    labels = header_of(frame).labels  # type: ignore[union-attr]
    return labels == tuple(range(len(labels))) and all(dtype.kind in "iuf" for dtype in frame.dtypes)


def fitted_frame(estimator: Any, X: Any) -> Any:
    """The rows to fit as a frame; it sets `n_features_in_` and, where all columns have names, `feature_names_in_`."""
    X = collected(X, "fit: X")
    estimator._fitted_to_array = header_of(X) is None
    if estimator._fitted_to_array:
        return array_frame(_checked(estimator, X, reset=True, ensure_min_samples=2))
    labels = looked_at(X, "fit").header.labels
    estimator.n_features_in_ = len(labels)
    if hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    if all(isinstance(label, str) for label in labels):
        estimator.feature_names_in_ = np.array(labels, object)
    return X


def _check_columns(estimator: Any, labels: tuple[Any, ...]) -> None:
    """Refuse a frame with other columns than fitted, or in another order, as scikit-learn does, which does not see the names of
    all frames."""
    if len(labels) != estimator.n_features_in_ and not hasattr(estimator, "feature_names_in_"):
        name, count = type(estimator).__name__, estimator.n_features_in_
        raise FlowsError(f"X has {len(labels)} features, but {name} is expecting {count} features as input")
    known = list(getattr(estimator, "feature_names_in_", labels))
    if known == list(labels):
        return
    said = ["The feature names should match those that were passed during fit."]
    for words, some, others in (
        ("Feature names unseen at fit time:", labels, known),
        ("Feature names seen at fit time, yet now missing:", known, labels),
    ):
        odd = sorted(str(one) for one in some if one not in others)
        said += [words, *(f"- {one}" for one in odd[:SHOWN]), *["- ..."] * (len(odd) > SHOWN)] if odd else []
    if len(said) == 1:
        said.append("Feature names must be in the same order as they were in fit.")
    raise FlowsError("\n".join([*said, ""]))


def array_frame(X: np.ndarray) -> Any:
    """An array as a frame, whose columns are "0", "1", ..."""
    library = "pandas" if importlib.util.find_spec("pandas") else "polars"
    series = module_of(library).Series
    columns = [series(column.tolist()) for column in X.T] if X.dtype == object else list(X.T)
    return frame_of(library, list(map(str, range(X.shape[1]))), columns, len(X))


def _checked(estimator: Any, X: Any, reset: bool, ensure_min_samples: int = 1) -> np.ndarray:
    """An array of finite numbers; of the values of a schema, where there is one."""
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError("X is a masked array; expected one without a mask, or a frame, where a gap in a category is a value")
    if reset:
        estimator._any_dtype = estimator.schema is not None
    finite = "allow-nan" if get_tags(estimator).input_tags.allow_nan else True
    settings: dict[str, Any] = {"dtype": "numeric", "ensure_all_finite": finite}
    settings = {"dtype": None, "ensure_all_finite": False} if estimator._any_dtype else settings
    X = validate_data(estimator, X, reset=reset, ensure_min_samples=ensure_min_samples, **settings)
    X = native(X)
    if X.dtype.kind in "OUS":
        return X.astype(object)
    if X.dtype.kind == "f":
        return X.astype(np.float32) if X.dtype.itemsize < 4 else X
    return X if X.dtype.kind in "iu" and X.dtype != np.uint64 else X.astype(np.float64)
