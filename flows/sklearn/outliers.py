"""`FlowOutlierDetector`: rows that are unlike those fitted to, at a rate of false alarms that is kept."""

from typing import Any, Self, cast

import numpy as np
from sklearn.base import OutlierMixin

from flows import tables
from flows.core import ModelValue, number, warn_user
from flows.results.held_out import Kept
from flows.sklearn.base import TableEstimator, in_chunks, log_prob
from flows.tables.ranks import usual_of, with_gaps
from flows.training.options import FEW, FOLDS

MOST = 0.5  # the largest rate of alarms
LEAST, ROWS_A_COLUMN = 50, 5  # rows, and rows for each column, of which a single model is fitted in folds
SLACK = 1e-9  # of a rate, by which products of floats miss it


class FlowOutlierDetector(OutlierMixin, TableEstimator):
    """Outliers by their density, for scikit-learn, at a rate of false alarms that is kept.

    A row is an outlier where log p is below `offset_`, the conformal quantile of the scores of n rows that were held out from
    training: the k-th least of them, k = floor(alarm_rate (n + 1)). Of rows like those fitted to, at most a share `alarm_rate`
    raises an alarm on average over such sets of rows, whatever the model. Below 2,000 rows (from 50 on, and 5 a column) a model
    is fitted in folds, which hold out each row once; it counts with the lower of two scores, by the model that has not seen it,
    and by the mixture that scores new rows. The same rows decide when training stops, and how models of a stack are weighted,
    which with few of them lets the rate rise by a little [30 rows, two columns, a flow of 100 epochs: 0.28 for 0.25].

    Values that are out of bounds, unknown categories of a frame, and values of a constant column other than its constant have
    log p = -inf, and are outliers. A row held out that alone has such a value counts as an outlier among the scores,
    too: otherwise new rows like the training rows would raise more alarms than promised.

    Args:
        alarm_rate: above 0, and at most 0.5.
        model, schema, max_epochs, minutes, learning_rate, weight_decay, patience, folds, batch_size, random_state: as in
            `NormalizingFlow`.

    Attributes:
        offset_: the score below which a row is an outlier; -inf, and a warning, where so few rows were held out that no rate
            as low can be kept except by no alarm at all.
        table_, n_iter_, n_features_in_, feature_names_in_: as in `NormalizingFlow`.

    Errors:
        FlowsError, TypeError: an alarm rate outside (0, 0.5]; as in `NormalizingFlow`.

    Source:
        Bates, Candès, Lei, Romano and Sesia, "Testing for Outliers with Conformal p-values", 2021, arXiv:2104.08279,
        section 2.

    Example:
        >>> import numpy as np
        >>> import flows
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = flows.Normal(trainable=True)
        >>> estimator = flows.sklearn.FlowOutlierDetector(0.05, model, max_epochs=1, random_state=0).fit(X)
        >>> estimator.predict([[0.0, 0.0], [9.0, 0.0]]).tolist()
        [1, -1]
    """

    def __init__(
        self,
        alarm_rate: float = 0.01,
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
        self.alarm_rate = alarm_rate
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

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None, order: Any = None) -> Self:
        """Fit the density of rows, and the score below which a row is an outlier.

        Args:
            X: a frame, or an array (rows, columns).
            y: is not used.
            sample_weight: (rows,), 0 or more.
            groups, order: as in `flows.tables.fit`; they leave folds to `folds` and to the default of `flows.fit`.

        Returns:
            The estimator itself.
        """
        rate = number(self.alarm_rate, "alarm_rate", lambda x: 0 < x <= MOST, f"a number above 0, and at most {MOST}")
        frame, schema, weights = self._read(X, sample_weight)
        count = len(frame) if weights is None else int((weights > 0).sum())
        enough = max(LEAST, ROWS_A_COLUMN * self.n_features_in_) <= count < FEW
        # All rows are held out once, as several models do by default.
        folds = FOLDS if enough and isinstance(self.model, ModelValue) and all(x is None for x in (groups, order)) else None
        self._fit(frame, schema, weights, groups, order, folds)
        result = self.table_.result
        rest = cast(Kept, result.kept)
        held_out = rest.x.reshape(-1, len(self.table_.schema.columns))
        contexts = None if rest.context is None else rest.context.reshape(len(held_out), 2, -1)
        # As new rows are scored, to the last digit: in a table of categories many rows have one score.
        scores = np.fmin(np.ravel(result.scores), in_chunks(self.table_, held_out.astype(np.float64), contexts))
        scores -= usual_of(result, contexts)
        scores[self._alone(with_gaps(held_out, contexts), frame, weights)] = -np.inf
        self.offset_ = offset(scores, result.score_weights, float(rate))
        return self

    def _alone(self, held_out: np.ndarray, frame: Any, weights: np.ndarray | None) -> np.ndarray:
        """Tell which of the rows held out are the only ones with a category, or with a second value of a column."""
        schema = self.table_.schema
        rows = self.table_.rows(frame)
        x = with_gaps(rows.x, rows.context)
        x = x if weights is None else x[weights > 0]
        alone = np.zeros(len(held_out), bool)
        for j in range(x.shape[1]):
            levels, counts = np.unique(x[:, j], return_counts=True)
            if j < len(schema.codes) or len(levels) == 2:
                alone |= np.isin(held_out[:, j], levels[counts == 1].astype(held_out.dtype))
        return alone

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of each row, (rows,), in nats; -inf of a value out of bounds, or of an unknown category. With
        `flows.AnySubset()` as the model, log p of what is there less what is usual for such columns."""
        frame = self._frame(X)
        scores = log_prob(self.table_, frame, outside=True)
        if not self.table_.any_given_any:
            return scores
        return scores - usual_of(self.table_.result, self.table_.rows(frame, errors="coerce").context)

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less `offset_`, (rows,): below 0 for outliers."""
        scores = self.score_samples(X)
        return np.subtract(scores, self.offset_, out=scores, where=scores > -np.inf)

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers, 1 for other rows, (rows,). Rows whose log p is NaN are outliers, and a warning counts them."""
        decision = self.decision_function(X)
        if unknown := int(np.isnan(decision).sum()):
            warn_user(f"log p of {unknown} of {len(decision)} rows is NaN; they count as outliers. See table_.verify")
        return np.where(decision >= 0, 1, -1)


def offset(scores: np.ndarray, score_weights: np.ndarray | None, rate: float) -> float:
    """The largest of the scores held out, (rows,), below which new ones are at most as usual as `rate`, by the measure of
    `FitResult.p_value`; -inf, and a warning, where there is none."""
    weights = np.ones(scores.shape) if score_weights is None else np.ravel(score_weights)
    order, total = np.argsort(scores), weights.sum()
    new_weight = np.square(weights).sum() / total
    lower = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])  # the weight of the scores below each
    usual = (new_weight + lower) / (new_weight + total)
    able = np.flatnonzero(usual <= rate * (1 + SLACK))
    if len(able):
        score = float(scores[order[able[-1]]])
        if score == -np.inf:
            share = weights[scores == -np.inf].sum() / total
            warn_user(
                f"of the rows held out, {share:.2%} have a value that no other row has, such as a category, and rows like them "
                f"are outliers whatever their score: more than alarm_rate={rate:.3g}. Raise it, or ignore such columns"
            )
        return score
    warn_user(
        f"no row can raise an alarm at alarm_rate={rate:.3g}, as {len(scores)} rows were held out; the least rate at which one "
        f"can is {usual[0]:.3g}. Raise it, or fit more rows"
    )
    return -np.inf
