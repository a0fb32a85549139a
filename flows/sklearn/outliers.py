"""`FlowOutlierDetector`: rows that are unlike those fitted to, at a rate of false alarms that is kept."""

from typing import Any, cast

import numpy as np
from sklearn.base import OutlierMixin

from flows import tables
from flows.core import FlowsError, warn_user
from flows.results.result import FitResult, Kept
from flows.sklearn.base import TableEstimator, log_prob

MOST = 0.5  # the largest rate of alarms
SLACK = 1e-9  # of a rate, by which products of floats miss it


class FlowOutlierDetector(OutlierMixin, TableEstimator):
    """Outliers by their density, for scikit-learn, at a rate of false alarms that is kept.

    A row is an outlier where log p is below `offset_`, the conformal quantile of the scores of n rows that were held out from
    training: the k-th least of them, k = floor(alarm_rate (n + 1)). Of rows like those fitted to, at most a share `alarm_rate`
    raises an alarm on average over such sets of rows, whatever the model. After folds, below 2,000 rows, each row held out is
    scored by a model that has not seen it, and a new one by their mixture, which scores higher, not lower.

    Values that are out of bounds, unknown categories of a frame, and other values than the one of a constant column have
    log p = -inf, and are outliers. A row held out whose value would have been such a one without it, as no other row has it,
    counts as an outlier among the scores, too: otherwise new rows like those fitted raised more alarms than promised.

    Args:
        alarm_rate: above 0, and at most 0.5.
        model, schema, max_epochs, minutes, random_state: as of `NormalizingFlow`.

    Attributes:
        offset_: the score below which a row is an outlier; -inf where so few rows were held out that no rate as low can be kept
            but by no alarm, of which a warning tells.
        table_, n_iter_, n_features_in_, feature_names_in_: as of `NormalizingFlow`.

    Errors:
        FlowsError, TypeError: an alarm rate outside (0, 0.5]; as of `NormalizingFlow`.

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
        random_state: Any = None,
    ):
        self.alarm_rate = alarm_rate
        self.model = model
        self.schema = schema
        self.max_epochs = max_epochs
        self.minutes = minutes
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "FlowOutlierDetector":
        """Fit the density of rows, and the score below which a row is an outlier.

        Args:
            X: a frame of pandas or polars, or an array (rows, columns).
            y: is not looked at.
            sample_weight: (rows,), 0 or more.

        Returns:
            The estimator itself.
        """
        rate = self.alarm_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0 < rate <= MOST:
            raise FlowsError(f"alarm_rate is {rate!r:.60}; expected a number above 0, and at most {MOST}")
        frame, schema, weights = self._read(X, sample_weight)
        self._fit(frame, schema, weights)
        self.offset_ = offset(self.table_.result, float(rate), self._alone(frame, weights))
        return self

    def _alone(self, frame: Any, weights: np.ndarray | None) -> np.ndarray:
        """Which of the rows held out alone have a category, or alone keep a column from being constant."""
        schema, kept = self.table_.schema, cast(Kept, self.table_.result.kept).x.reshape(-1, len(self.table_.schema.columns))
        x = schema.rows(frame).x
        x = x if weights is None else x[weights > 0]
        alone = np.zeros(len(kept), bool)
        for j in range(x.shape[1]):
            levels, counts = np.unique(x[:, j], return_counts=True)
            if j < len(schema.codes) or len(levels) == 2:
                alone |= np.isin(kept[:, j], levels[counts == 1].astype(kept.dtype))
        return alone

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of each row, (rows,), in nats; -inf of a value out of bounds, or of an unknown category."""
        frame = self._frame(X)
        return log_prob(self.table_, frame, outside=True)

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less `offset_`, (rows,): below 0 for outliers."""
        scores = self.score_samples(X)
        return np.subtract(scores, self.offset_, out=scores, where=scores > -np.inf)

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers, 1 for other rows, (rows,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def offset(result: FitResult, rate: float, alone: np.ndarray | None = None) -> float:
    """The largest score held out of which lower ones are at most as usual as `rate`, by `FitResult.anomaly`; -inf, and a
    warning, where there is none.

    Args:
        alone: which rows held out count as outliers, whatever their scores.
    """
    scores = np.ravel(result.scores)
    scores = scores if alone is None else np.where(alone, -np.inf, scores)
    weights = np.ones(scores.shape) if result.score_weights is None else np.ravel(result.score_weights)
    order, total = np.argsort(scores), weights.sum()
    of_x = np.square(weights).sum() / total
    lower = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])  # the weight of those below each
    usual = (of_x + lower) / (of_x + total)
    able = np.flatnonzero(usual <= rate * (1 + SLACK))
    if len(able):
        found = float(scores[order[able[-1]]])
        if found == -np.inf:
            share = weights[scores == -np.inf].sum() / total
            warn_user(
                f"of the rows held out, {share:.2%} have a value that no other row has, such as a category, and rows like them "
                f"are outliers whatever their score: more than alarm_rate={rate:.3g}. Raise it, or ignore such columns"
            )
        return found
    warn_user(
        f"no row can raise an alarm at alarm_rate={rate:.3g}, as {len(scores)} rows were held out; the least rate at which one "
        f"can is {usual[0]:.3g}. Raise it, or fit more rows"
    )
    return -np.inf
