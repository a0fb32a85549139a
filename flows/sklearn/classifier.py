"""`FlowClassifier`: classes by Bayes' rule, from the density of rows given their label."""

from typing import Any, Self

import numpy as np
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length

from flows import tables
from flows.core import FlowsError, warn_user
from flows.results.frames import frame_of, library_of, looked_at
from flows.sklearn.base import TableEstimator, log_prob_of_each
from flows.tables.infer import infer_schema

LEAST_ROWS = 2  # of a class
SUM = 1e-6  # by which priors may miss 1


class FlowClassifier(ClassifierMixin, TableEstimator):
    """A classifier by Bayes' rule, for scikit-learn: one density of rows given their label.

    log P(label | x) = log p(x | label) + log P(label) - log sum_k p(x | k) P(k), with p(x | label) by
    `flows.tables.fit(condition=label)`. Columns may be of all kinds that tables have: see `NormalizingFlow`. A column
    that is constant in all rows says nothing about labels, and is not read.

    Args:
        model: of the numbers given the label, as in `tables.fit`; "auto" for what `flows.select` compares, and stacks.
        priors: (classes,), the probability of each class, in the order of `classes_`; None for the weighted share of its rows.
        schema: as in `NormalizingFlow`; labels are not one of its columns.
        max_epochs, minutes, learning_rate, weight_decay, patience, folds, batch_size, random_state: as in `NormalizingFlow`.

    Attributes:
        classes_: the labels, sorted.
        priors_: their probabilities, (classes,).
        table_: the fitted `TableResult`, whose condition is the place of the label in `classes_`.
        n_iter_, n_features_in_, feature_names_in_: as in `NormalizingFlow`.

    Errors:
        FlowsError, TypeError: one class, a class of one row, priors that do not fit; as in `NormalizingFlow`.

    Source:
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057,
        section 4.3, classify by class-conditional flows.

    Example:
        >>> import numpy as np
        >>> import flows
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = np.where(X[:, 0] > 0, "right", "left")
        >>> model = flows.Normal(conditioner=flows.conditioners.MLP(8))  # it takes a context, the label
        >>> estimator = flows.sklearn.FlowClassifier(model, max_epochs=5, random_state=0).fit(X, y)
        >>> estimator.predict([[2.0, 0.0], [-2.0, 0.0]]).tolist()
        ['right', 'left']
    """

    def __init__(
        self,
        model: Any = "auto",
        *,
        priors: Any = None,
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
        super().__init__(
            model,
            schema=schema,
            max_epochs=max_epochs,
            minutes=minutes,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            patience=patience,
            folds=folds,
            batch_size=batch_size,
            random_state=random_state,
        )
        self.priors = priors

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None, order: Any = None) -> Self:
        """Fit the density of rows given their label.

        Args:
            X: a frame, or an array (rows, columns).
            y: labels, (rows,), text or numbers of any type that scikit-learn takes for classes.
            sample_weight: (rows,), 0 or more.
            groups, order: as in `flows.tables.fit`.

        Returns:
            The estimator itself.
        """
        if y is None:
            raise FlowsError("fit: requires y to be passed, but the target y is None; expected a label for each row")
        if get_tags(self).input_tags.allow_nan:
            raise FlowsError(
                f"model is {self.model!r:.60}, of any columns given any others; expected a model of the numbers. Otherwise "
                "labels are a column of a table: flows.tables.fit(0, frame, model=flows.AnySubset()).conditional(label, given)"
            )
        frame, schema, weights = self._read(X, sample_weight)
        labels = column_or_1d(y, warn=True)
        check_consistent_length(frame, labels)
        check_classification_targets(labels)
        try:
            classes, places = np.unique(labels, return_inverse=True)
        except TypeError as error:
            raise FlowsError(f"y has labels that cannot be sorted ({error}); expected text, or numbers, without gaps") from None
        self._check_classes(classes, places, weights)
        priors = self._priors(classes, places, weights)
        schema = infer_schema(frame) if schema is None else schema
        self._label = "label"
        while self._label in schema:
            self._label += "_"
        kinds = {name: tables.Ignored() if isinstance(kind, tables.Constant) else kind for name, kind in schema.kinds.items()}
        kinds[self._label] = tables.Category(range(len(classes)))
        self._fit(self._labelled(frame, places), tables.Schema(kinds, [self._label]), weights, groups, order)
        self.classes_, self.priors_ = classes, priors
        return self

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """log P(class | row), (rows, classes), in the order of `classes_`. A row to which no class gives any density has the
        priors, and a warning counts such rows."""
        frame = self._frame(X)
        rows, places = len(frame), np.arange(len(self.classes_))
        library = library_of(looked_at(frame, "predict").native)
        labels = frame_of(library, [self._label], [places], len(places))
        joint = log_prob_of_each(self.table_, self._labelled(frame, np.zeros(rows)), self.table_.schema.context(labels))
        with np.errstate(divide="ignore"):
            log_priors = np.log(self.priors_)
        if (unknown := np.isnan(joint).any(1)).any():
            raise FlowsError(
                f"log p of {unknown.sum()} of {rows} rows is NaN in some class, of the row {unknown.argmax()} first; expected "
                "numbers. Look at them with table_.verify"
            )
        lost = (joint + log_priors).max(1) == -np.inf
        if lost.any():
            warn_user(f"{int(lost.sum())} of {rows} rows have no density in any class; their classes have the priors")
        joint[lost] = 0.0
        return log_softmax(joint + log_priors, axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """P(class | row), (rows, classes), in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row with the largest probability, (rows,)."""
        places = self.predict_log_proba(X).argmax(1)
        return self.classes_[places]

    def _labelled(self, frame: Any, places: np.ndarray) -> Any:
        """Rows with their labels, as places among the classes."""
        table = looked_at(frame, "X")
        columns = [table.column(name).to_native() for name in table.places]
        library, labels = library_of(table.native), places.astype(np.int64)
        if library == "pandas":
            columns = [column.reset_index(drop=True) for column in columns]
        return frame_of(library, [*table.header.labels, self._label], [*columns, labels], len(labels))

    def _check_classes(self, classes: np.ndarray, places: np.ndarray, weights: np.ndarray | None) -> None:
        counts = np.bincount(places if weights is None else places[weights > 0], minlength=len(classes))
        few = np.flatnonzero(counts < LEAST_ROWS)
        if len(classes) < 2:
            raise FlowsError(f"y has 1 class, {classes.tolist()[0]!r}; expected 2 or more, each of {LEAST_ROWS} rows at least")
        if len(few):
            condition = "" if weights is None else " with a weight above 0"
            raise FlowsError(
                f"the class {classes.tolist()[few[0]]!r} has {counts[few[0]]} rows{condition}; expected {LEAST_ROWS} or more. "
                "Drop it, or put it together with another"
            )

    def _priors(self, classes: np.ndarray, places: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        if self.priors is None:
            counts = np.bincount(places, weights, len(classes))
            return counts / counts.sum()
        try:
            priors = np.asarray(self.priors, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"priors is {self.priors!r:.80}; expected a number for each class, or None") from None
        if priors.shape != (len(classes),) or not (priors >= 0).all() or abs(priors.sum() - 1) > SUM:
            raise FlowsError(
                f"priors is {self.priors!r:.80}; expected {len(classes)} numbers, 0 or more with sum 1, in the order of the "
                f"classes {', '.join(map(repr, classes.tolist()[:5]))}"
            )
        return priors / priors.sum()
