"""`NormalizingFlow`: the density of the rows of a table."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from flows import tables
from flows.core import FlowsError, ModelValue, from_json, positive_int, to_json, within
from flows.persistence.container import blamed_on
from flows.persistence.models import LEAST_BYTES
from flows.sklearn.base import TableEstimator, log_prob, seed_of, weights_of
from flows.sklearn.inputs import as_given

KEY = "estimator"  # of the metadata of a file


class NormalizingFlow(DensityMixin, TableEstimator):
    """The density of rows, for scikit-learn: `flows.tables.fit` with `fit`, `score_samples` and `sample`.

    Columns of a frame are taken for what their dtypes and values say: numbers, counts, categories, dates. Those of an array are
    numbers, with the step to which they are rounded, if that shows, and never categories; so are those of a frame without
    names, whose columns are 0, 1, ... Arrays give arrays, frames give frames of their library.

    Args:
        model: of the numbers, as of `tables.fit`: a distribution, such as `flows.Flow(flows.NSF())`, a list or a dict of
            several, or "auto" for what `flows.select` compares, and stacks, for so many rows and columns.
        schema: a `tables.Schema` of the columns, which are "0", "1", ... in an array; by default they are looked at.
        max_epochs: the epochs of each model; by default as of `flows.fit`.
        minutes: for all that is fitted, after which the fit that runs ends with its epoch.
        random_state: None, an int or a `numpy.random.RandomState`. Two fits with one int are equal bit for bit, where no limit
            of time ended them.

    Attributes:
        table_: the fitted `TableResult`.
        n_iter_: epochs of the model that was fitted for longest.
        n_features_in_, feature_names_in_: of the columns; the latter where all have names.

    Errors:
        FlowsError, TypeError: rows or options that do not fit, by what was given, expected, and what to do.

    Example:
        >>> import numpy as np
        >>> import flows
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> estimator = flows.sklearn.NormalizingFlow(flows.Normal(trainable=True), max_epochs=1, random_state=0).fit(X)
        >>> estimator.score_samples(X).shape, estimator.sample(3).shape
        ((200,), (3, 2))
    """

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

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "NormalizingFlow":
        """Fit the density of rows.

        Args:
            X: a frame of pandas or polars, or an array (rows, columns).
            y: is not looked at.
            sample_weight: (rows,), 0 or more.

        Returns:
            The estimator itself.
        """
        self._fit(*self._read(X, sample_weight))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of each row, (rows,), in nats: see `TableResult.log_prob`. Scores of a row alone and among others are equal."""
        frame = self._frame(X)
        return log_prob(self.table_, frame)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The mean of log p over rows, in nats, which can be compared over folds of unlike sizes.

        The `score` of scikit-learn's KernelDensity is the sum.

        Args:
            X: as of `fit`.
            y: is not looked at.
            sample_weight: (rows,), how much each counts.
        """
        scores = self.score_samples(X)
        return float(np.average(scores, weights=weights_of(X, sample_weight)))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draws of rows, like those fitted to; rows alone, where GaussianMixture gives a pair.

        Args:
            n_samples: how many.
            random_state: None for others in each call, an int or a generator.
        """
        check_is_fitted(self)
        return as_given(self, self.table_.draw(seed_of(random_state), positive_int(n_samples, "sample: n_samples")))

    def anomaly(self, X: Any) -> np.ndarray:
        """How usual each row is, (rows,): see `TableResult.anomaly`. Of rows like those fitted to, a share a has at most the
        value a."""
        frame = self._frame(X)
        return self.table_.anomaly(frame)

    def contributions(self, X: Any) -> Any:
        """log p(x_j | all other columns) of each row and column, in nats: see `TableResult.contributions`. The column with the
        least of a row is what makes it odd.

        Returns:
            A frame with the columns that are modelled; of an array an array (rows, columns), 0 where a column is constant.
        """
        frame = self._frame(X)
        found = self.table_.contributions(frame, verbose=0)
        if not self._fitted_to_array:
            return found
        columns = {name: np.asarray(found[name]) for name in map(str, found.columns)}
        return np.stack([columns.get(str(j), np.zeros(len(frame))) for j in range(self.n_features_in_)], 1)

    def save(self, path: Any) -> None:
        """Write the fitted estimator to one file, for `NormalizingFlow.load`, and for `flows.tables.load`, which gives its
        `table_`. It has no row of the data.

        Args:
            path: a file name, or a binary file that is open.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        told = {
            "model": _described(self.model),
            "schema": None if self.schema is None else self.schema.to_json(),
            "max_epochs": self.max_epochs,
            "minutes": self.minutes,
            "random_state": int(self.random_state) if isinstance(self.random_state, Integral) else None,
            "iterations": self.n_iter_,
            "array": self._fitted_to_array,
            "features": self.n_features_in_,
            "names": None if names is None else list(names),
        }
        self.table_.save(path, {**self.table_.metadata, KEY: told})

    @classmethod
    def load(cls, path: Any, constructors: Iterable[Callable] = ()) -> "NormalizingFlow":
        """The fitted estimator of a file that `save` wrote.

        Args:
            path: a file name, or a binary file that is open.
            constructors: your own ones that the model was made with.

        Errors:
            FlowsError: a file that `flows.tables.load` refuses, or that holds no such estimator.
        """
        constructors = tuple(constructors)
        table = tables.load(path, constructors)
        told = table.metadata.get(KEY)
        if told is None:
            raise FlowsError(f"{str(path)!r} holds a table, and no estimator; read it by flows.tables.load")
        with blamed_on(f"{str(path)!r} holds no estimator that can be read"), within(LEAST_BYTES):
            schema = None if told["schema"] is None else tables.Schema.from_json(told["schema"])
            options = {name: told[name] for name in ("max_epochs", "minutes", "random_state")}
            estimator = cls(_model(told["model"], constructors), schema=schema, **options)
            if told["names"] is not None:
                estimator.feature_names_in_ = np.array(list(map(str, told["names"])), object)
            estimator.n_features_in_, estimator.n_iter_ = int(told["features"]), int(told["iterations"])
            estimator._fitted_to_array = bool(told["array"])
        estimator.table_ = table
        return estimator


def _described(model: Any) -> Any:
    """A model, or several, for JSON."""
    if isinstance(model, Mapping):
        return {"several": [[str(name), to_json(one)] for name, one in model.items()]}
    if isinstance(model, str):
        return model
    return {"one": to_json(model)} if isinstance(model, ModelValue) else [to_json(one) for one in model]


def _model(described: Any, constructors: tuple[Callable, ...]) -> Any:
    """What `_described` tells."""
    if isinstance(described, str):
        return described
    if isinstance(described, list):
        return [from_json(one, constructors) for one in described]
    if "one" in described:
        return from_json(described["one"], constructors)
    return {name: from_json(one, constructors) for name, one in described["several"]}
