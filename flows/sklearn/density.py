"""`NormalizingFlow`: the density of the rows of a table."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from flows import tables
from flows.core import FlowsError, ModelValue, from_json, positive_int, to_json, within
from flows.persistence.container import blamed_on
from flows.persistence.models import LEAST_BYTES
from flows.persistence.pickles import warn_of_rows
from flows.sklearn.base import TableEstimator, log_prob, seed_of, weights_of

KEY = "estimator"  # of the metadata of a file


class NormalizingFlow(DensityMixin, TableEstimator):
    """The density of rows, for scikit-learn: `flows.tables.fit` with `fit`, `score_samples` and `sample`.

    With `model=flows.AnySubset()` rows may have gaps, and are scored by what is there: see `FlowImputer`, which fills them.

    Columns of a frame are taken for what their dtypes and values say: numbers, counts, categories, dates. Columns of an
    array are numbers, with the step to which they are rounded, if that shows, and never categories; so are columns of a
    frame without names, which has 0, 1, ... for names. Arrays give arrays, frames give frames of their library.

    Args:
        model: of the numbers, as in `tables.fit`: a distribution, such as `flows.Flow(flows.NSF())`, a list or a dict of
            several, or "auto" for what `flows.select` compares, and stacks, for this number of rows and columns.
        schema: a `tables.Schema` of the columns, which are "0", "1", ... in an array; by default it is inferred.
        max_epochs, learning_rate, weight_decay, patience, folds, batch_size: of each model, as in `flows.fit`, whose defaults
            None stands for.
        minutes: for all fits together, after which the fit that runs ends with its epoch.
        random_state: None, an int or a `numpy.random.RandomState`. Two fits with one int are equal bit for bit, where no limit
            of time ended them.

    Attributes:
        table_: the fitted `TableResult`.
        n_iter_: epochs of the model that was fitted for longest.
        n_features_in_, feature_names_in_: of the columns; the latter where all have names.

    Errors:
        FlowsError, TypeError: rows or options that do not fit; the message says what is expected, and what to do.

    Example:
        >>> import numpy as np
        >>> import flows
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> estimator = flows.sklearn.NormalizingFlow(flows.Normal(trainable=True), max_epochs=1, random_state=0).fit(X)
        >>> estimator.score_samples(X).shape, estimator.sample(3).shape
        ((200,), (3, 2))
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None, order: Any = None) -> Self:
        """Fit the density of rows.

        Args:
            X: a frame, or an array (rows, columns).
            y: is not used.
            sample_weight: (rows,), 0 or more.
            groups, order: as in `flows.tables.fit`.

        Returns:
            The estimator itself.
        """
        self._fit(*self._read(X, sample_weight), groups, order)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of each row, (rows,), in nats: see `TableResult.log_prob`. Scores of a row alone and among others are equal."""
        frame = self._frame(X)
        return log_prob(self.table_, frame)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The mean of log p over rows, in nats, which can be compared over folds of unlike sizes.

        The `score` of scikit-learn's KernelDensity is the sum.

        Args:
            X: as in `fit`.
            y: is not used.
            sample_weight: (rows,), how much each counts.
        """
        scores = self.score_samples(X)
        return float(np.average(scores, weights=weights_of(X, sample_weight)))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draws of rows like the training rows, without the columns that a schema ignores; rows alone, where GaussianMixture
        returns a pair.

        Args:
            n_samples: how many.
            random_state: None for other draws in each call, an int or a `numpy.random.RandomState`.
        """
        check_is_fitted(self)
        frame = self.table_.draw(seed_of(random_state), positive_int(n_samples, "sample: n_samples"))
        return frame.to_numpy() if self._fitted_to_array else frame

    def p_value(self, X: Any, by: str = "density") -> np.ndarray:
        """Return how usual each row is, (rows,), by its density, or by="columns" by its oddest column: see
        `TableResult.p_value`. A share a of rows like the training rows has at most the value a."""
        frame = self._frame(X)
        return self.table_.p_value(frame, by=by, verbose=0)

    def contributions(self, X: Any) -> Any:
        """log p(x_j | all other columns) of each row and column, in nats: see `TableResult.contributions`. A row is odd by
        the column furthest below its usual value, such as its median over other rows, as units of columns differ.

        Returns:
            A frame with the columns that are modelled; for an array an array (rows, columns), 0 where a column is constant or
            ignored.
        """
        frame = self._frame(X)
        values = self.table_.contributions(frame, verbose=0)
        if not self._fitted_to_array:
            return values
        columns = {name: np.asarray(values[name]) for name in map(str, values.columns)}
        return np.stack([columns.get(str(j), np.zeros(len(frame))) for j in range(self.n_features_in_)], 1)

    def save(self, path: Any) -> None:
        """Write the fitted estimator to one file, for `NormalizingFlow.load`, and for `flows.tables.load`, which gives its
        `table_`. It has no row of the data, unless the model is made of rows, as a `KernelDensity` is, which brings a warning.
        A `random_state` that is not an int is not saved.

        Args:
            path: a file name, or a binary file that is open.
        """
        check_is_fitted(self)
        warn_of_rows(self.table_.result.init_fun)
        names = getattr(self, "feature_names_in_", None)
        state = {
            "model": _described(self.model),
            "schema": None if self.schema is None else self.schema.to_json(),
            "max_epochs": None if self.max_epochs is None else int(self.max_epochs),
            "minutes": None if self.minutes is None else float(self.minutes),
            "random_state": int(self.random_state) if isinstance(self.random_state, Integral) else None,
            "iterations": self.n_iter_,
            "array": self._fitted_to_array,
            "features": self.n_features_in_,
            "names": None if names is None else list(names),
        }
        self.table_.save(path, {**self.table_.metadata, KEY: state})

    @classmethod
    def load(cls, path: Any, constructors: Iterable[Callable] = ()) -> "NormalizingFlow":
        """The fitted estimator of a file that `save` wrote.

        Args:
            path: a file name, or a binary file that is open.
            constructors: your constructors that the model was made with.

        Errors:
            FlowsError: a file that `flows.tables.load` refuses, or that holds no such estimator.
        """
        constructors = tuple(constructors)
        table = tables.load(path, constructors)
        state = table.metadata.get(KEY)
        if state is None:
            raise FlowsError(f"{str(path)!r} holds a table, and no estimator; read it by flows.tables.load")
        with blamed_on(f"{str(path)!r} holds no estimator that can be read"), within(LEAST_BYTES):
            schema = None if state["schema"] is None else tables.Schema.from_json(state["schema"])
            estimator = cls(_model(state["model"], constructors), schema=schema, **_options(state))
            estimator.n_features_in_, estimator._fitted_to_array = _columns(state, table.schema)
            if state["names"] is not None:
                estimator.feature_names_in_ = np.array(state["names"], object)
            estimator.n_iter_, estimator._any_dtype = _whole(state, "iterations", 0), schema is not None
        estimator.table_ = table
        return estimator


def _options(state: dict[str, Any]) -> dict[str, Any]:
    """Options of a file, checked for their types."""
    options = {name: None if state[name] is None else _whole(state, name, 0) for name in ("max_epochs", "random_state")}
    minutes = state["minutes"]
    if minutes is not None and (type(minutes) is not float or not minutes > 0):
        raise FlowsError(f"its minutes are {minutes!r:.60}; expected a number above 0, or null")
    return {**options, "minutes": minutes}


def _columns(state: dict[str, Any], schema: tables.Schema) -> tuple[int, bool]:
    """The number of columns of X, and whether X is an array."""
    count, names, array = _whole(state, "features", 1), state["names"], state["array"]
    read = [name for name in schema if not isinstance(schema[name], tables.Ignored)]
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    fits = names is None or (named and len(names) == count == len(set(names)) and set(read) <= set(names))
    if not fits or type(array) is not bool or not len(read) <= count <= len(schema):
        raise FlowsError(f"its columns, {names!r:.80} of {count}, are not the columns of its table, {', '.join(read[:5])}")
    return count, array


def _whole(state: dict[str, Any], name: str, least: int) -> int:
    value = state[name]
    if type(value) is not int or not least <= value < 2**62:
        raise FlowsError(f"its {name} is {value!r:.60}; expected a whole number")
    return value


def _described(model: Any) -> Any:
    """A model, or several, for JSON; None as it is."""
    if isinstance(model, Mapping):
        return {"several": [[str(name), to_json(one)] for name, one in model.items()]}
    if model is None or isinstance(model, str):
        return model
    return {"one": to_json(model)} if isinstance(model, ModelValue) else [to_json(one) for one in model]


def _model(described: Any, constructors: tuple[Callable, ...]) -> Any:
    """Return the model that `_described` describes."""
    if described is None or isinstance(described, str):
        return described
    if isinstance(described, list):
        return [_distribution(one, constructors) for one in described]
    if "one" in described:
        return _distribution(described["one"], constructors)
    return {str(name): _distribution(one, constructors) for name, one in described["several"]}


def _distribution(described: Any, constructors: tuple[Callable, ...]) -> ModelValue:
    value = from_json(described, constructors)
    if not isinstance(value, ModelValue):
        raise FlowsError(f"its model is {value!r:.60}; expected a distribution")
    return value
