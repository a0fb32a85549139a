"""Inputs of estimators: what scikit-learn hands over as frames, and frames as what it expects."""

import importlib.util
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from flows.core import FlowsError, native
from flows.results.frames import SHOWN, collected, frame_of, header_of, looked_at, module_of


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


def frame_like_fitted(estimator: Any, X: Any) -> Any:
    """Rows like those fitted to as a frame."""
    X = collected(X, "X")
    if estimator._fitted_to_array:
        return array_frame(_checked(estimator, X, reset=False))
    if header_of(X) is None:
        names = list(estimator.table_.schema)
        raise FlowsError(
            f"X is a {type(X).__name__}, and {type(estimator).__name__} was fitted to a frame; expected a frame with the "
            f"columns {', '.join(map(repr, names[:5]))}{' and more' * (len(names) > 5)}"
        )
    _check_columns(estimator, looked_at(X, "X").header.labels)
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
    settings = {"dtype": None, "ensure_all_finite": False} if estimator._any_dtype else {"dtype": "numeric"}
    X = validate_data(estimator, X, reset=reset, ensure_min_samples=ensure_min_samples, **settings)
    X = native(X)
    if X.dtype.kind in "OUS":
        return X.astype(object)
    if X.dtype.kind == "f":
        return X.astype(np.float32) if X.dtype.itemsize < 4 else X
    return X if X.dtype.kind in "iu" and X.dtype != np.uint64 else X.astype(np.float64)
