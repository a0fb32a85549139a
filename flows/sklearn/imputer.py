"""`FlowImputer`: gaps of a table filled by one model of every column given any others."""

from typing import Any

from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import get_tags

from flows import tables
from flows.core import FlowsError, boolean
from flows.distributions.any_subset import AnySubset
from flows.sklearn.base import seed_of
from flows.sklearn.density import NormalizingFlow


class FlowImputer(OneToOneFeatureMixin, TransformerMixin, NormalizingFlow):
    """Gaps filled, for scikit-learn, by `flows.AnySubset`, a density of every column given any others, text and categories too.

    Rows to fit and to fill may have gaps in any columns, NaN, None or NaT. Whether a value is missing must not depend on the
    value, given the values that are there. Values that are there stay as they are. Arrays give arrays, frames give frames of
    their library. `score_samples` is log p of what is there.

    Args:
        model: None for `flows.AnySubset()`, or one with other settings; several go through `flows.select`.
        sample_posterior: whether gaps of a row are filled by one joint draw given what is there, for multiple imputation; equal
            rows get separate draws. Otherwise by the mean of each number, the likeliest category, and the mean direction of an
            angle.
        schema, max_epochs, minutes, learning_rate, weight_decay, patience, folds, batch_size, random_state: as in
            `NormalizingFlow`; with an int as random_state, `transform` gives the same draws again.

    Attributes:
        table_, n_iter_, n_features_in_, feature_names_in_: as in `NormalizingFlow`.

    Errors:
        FlowsError, TypeError: a model that takes no gaps; as in `NormalizingFlow`.

    Example:
        >>> import flows, numpy as np
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> X[::3, 0] = np.nan
        >>> imputer = flows.sklearn.FlowImputer(flows.AnySubset(hidden=(8,)), max_epochs=1, random_state=0)
        >>> bool(np.isnan(imputer.fit_transform(X)).any())
        False
    """

    def __init__(
        self,
        model: Any = None,
        *,
        sample_posterior: bool = False,
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
        self.sample_posterior = sample_posterior

    def _model(self) -> Any:
        return AnySubset() if self.model is None else self.model

    def _read(self, X: Any, sample_weight: Any) -> Any:
        if not get_tags(self).input_tags.allow_nan:
            raise FlowsError(f"FlowImputer: model is {self.model!r:.80}; expected one that takes gaps, flows.AnySubset()")
        return super()._read(X, sample_weight)

    def transform(self, X: Any) -> Any:
        """Return rows with their gaps filled.

        Args:
            X: as in `fit`.
        """
        frame = self._frame(X)
        draws = boolean(self.sample_posterior, "sample_posterior")
        filled = self.table_.impute(frame, seed_of(self.random_state) if draws else None)
        return filled.to_numpy() if self._fitted_to_array else filled
