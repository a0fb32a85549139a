"""The result of a fit, also from a file: a distribution that knows its columns, its history and its held-out rows."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import jax
import numpy as np
from scipy.special import logsumexp

from flows.core import (
    Array,
    Distribution,
    DistributionLike,
    FlowsError,
    Shape,
    as_array,
    as_context,
    as_event,
    boolean,
    declares,
    functions_of,
    on_device,
    part_of,
    positive_int,
)
from flows.diagnostics.rows import RowReport, verify_rows
from flows.distributions.conditional import asked_of
from flows.persistence.models import TEXT, save_model
from flows.results.columns import Inputs, places_of
from flows.results.frames import Header
from flows.results.held_out import Kept, Scored, of_columns
from flows.results.history import History, page_of, summary
from flows.results.plotting import Plot

# Names of tensors next to a model.
PARAMETERS = "parameters"  # the key of their names in the text of a file
HISTORY = "history/"  # the prefix of arrays of the history
SCORES = "scores"  # of rows held out
SCORE_WEIGHTS = "score_weights"  # of the same rows
COLUMN_SCORES = "column_scores"  # of the same rows, and the usual values of columns
GAP_SCORES = "gap_scores"  # of the same rows, and what is usual for the columns that a row has
TURN = "turn"  # starts of the turns of angles
KINDS = "biuf"  # of the arrays of a history
KEPT = 2_000  # rows held out, at most, whose scores are kept


MEANT = {  # names that other libraries have
    "anomaly": "p_value(rows), which is small where a row is odd",
    "fit": "flows.fit(rng, result, rows), which returns a new result",
    "predict": "draw(rng, n) for new rows; flows.sklearn.FlowClassifier(...) predicts classes",
    "score": "log_prob(rows), in nats; its mean is the score",
}


class Hints:
    """An object whose missing attributes say what is meant, where other libraries have a name for it."""

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):  # a property that raised an AttributeError of its own
            return object.__getattribute__(self, name)
        hint = f"; what is meant may be {MEANT[name]}" if name in MEANT else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)


def number_of_draws(rng: Any, n: int | None) -> int:
    """Return n, which is required: a seed alone would be taken for the number."""
    if n is None:
        raise TypeError(f"draw: n is missing; expected draw(rng, n), such as draw(0, {rng if isinstance(rng, int) else 1000})")
    return positive_int(n, "draw: n")


class FitResult(Hints, Plot, Distribution):
    """A fitted distribution, `params, log_pdf, sample = result`, with methods for common questions.

    It is a pytree of its params: `jax.tree.map` and `jax.jit` take it, `_replace` gives it other params, and `pickle` makes
    the functions again from `init_fun`. `flows.load` reads it from a file.

    Attributes:
        init_fun: the fitted model as a constructor's value, with its standardisation inside.
        input_dim, context_dim: the arguments of init_fun.
        history: "train_loss" and "validation_loss" after each epoch (minus the mean log_pdf, nats a row, original units), and
            "best_epoch", counted from 0, the epoch of these params, or -1 for the start, whose validation loss is
            "start_loss"; "error", the standard error of the validation loss; "skipped", the steps of each epoch that were not
            taken; "gaussian_loss", the loss of the closed-form Gaussian on the same held-out rows (for vectors of at most 512
            columns; with a context its mean is linear in it; for codes and angles, on which it depends alike, the frequencies
            and von Mises densities); "rows" and "held_out", their numbers, for a stream in an epoch; with weights "effective",
            the number of rows of equal weight that are worth as much as the rows held out; "batch_size", "max_epochs" and
            "patience", as they were used; with `groups` or `order` the number of their values held out, "groups" or "order",
            and of rows that folds leave "unscored"; after `flows.select` "trained_loss", the loss of these params on rows of
            the training. A dict that draws itself: `history.plot()`. `history.interrupted` is whether Ctrl-C ended the fit.
        columns, context_columns: names of the columns of the tables it was fitted to, or None.
        turn: the start of the turn on which the data had each angle, an array of the event, 0 for other columns; None without
            angles, or without data. `draw`, `cdf`, `quantile` and `interval` have angles in [turn, turn + period): in [0,
            period) where the data lay there, or in [-period / 2, period / 2), as the `sample` of the model has them.
        seconds: the time of the fit, None for a model from a file.
        metadata: a dict of the user, from a file or for a file.
        parameters: a dict from the names of parameters to their shapes, if parameters have names: then `draw` returns a dict
            of arrays (n, *shape), and `log_prob` takes one. Otherwise None.
    """

    init_fun: DistributionLike
    input_dim: Any
    context_dim: Any
    history: History
    table: Header | None
    context_table: Header | None
    kept: Kept | None
    turn: np.ndarray | None
    seconds: float | None
    metadata: dict[str, Any]
    named: Any
    scored: Scored | None

    def __new__(cls, params, log_pdf, sample, init_fun=None, input_dim=None, context_dim=0, history=None, **more):
        self = super().__new__(cls, params, log_pdf, sample)
        history = History() if history is None else history
        vars(self).update(init_fun=init_fun, input_dim=input_dim, context_dim=context_dim, history=history)
        vars(self).update(dict.fromkeys(("table", "context_table", "kept", "scored", "turn", "seconds", "named")))
        vars(self).update(more)
        self.metadata = {} if more.get("metadata") is None else more["metadata"]
        return self

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        jax.tree_util.register_pytree_with_keys(cls, _flatten, _unflatten)

    @property
    def columns(self) -> tuple[str, ...] | None:
        return None if self.table is None else self.table.names

    @property
    def parameters(self) -> dict[str, Shape] | None:
        return None if self.named is None else dict(zip(self.named.names, self.named.shapes, strict=True))

    @property
    def context_columns(self) -> tuple[str, ...] | None:
        return None if self.context_table is None else self.context_table.names

    def log_prob(self, x: Any, *, context: Any = None, rng: Any = None) -> Array:
        """log p(x) of each row, (rows,), in nats, by the fitted params.

        Args:
            x: (rows, *event), or a table, whose columns are put in the order of those fitted to, by name. More than 8,256 rows
                are scored in pieces, so that a memory map of any length needs little memory, and two programs.
            context: (rows, *context), (*context,) shared by all, or a table.
            rng: as in log_pdf; then all rows are scored together.

        Errors:
            FlowsError: a table that lacks a column, or has others. TypeError: a column without numbers. Errors of log_pdf.
        """
        inputs = Inputs(self)
        if rng is None:
            return inputs.scored(self.log_pdf, self.params, inputs.rows(x), context)
        return self.log_pdf(self.params, inputs.rows(x), **inputs.context(context), rng=rng)

    def draw(self, rng: Any, n: int | None = None, *, context: Any = None) -> Any:
        """Draws by the fitted params: (n, *event); a frame where the model was fitted to one, and a dict of arrays (n, *shape)
        where parameters have names.

        Angles are on the turn of the data. A batch of contexts, (rows, *context) or a table of them, gives an array (rows, n,
        *event), or a dict of arrays (rows, n, *shape): n draws for each. A network of `EmbeddedContext` sees each context once.

        Args:
            rng: key or seed.
            n: the number of draws, which has to be given.
            context: (*context,) for all, (rows, *context), or a table.

        Errors:
            FlowsError: a context that is not finite. TypeError: no n.
        """
        inputs = Inputs(self)
        return inputs.draws(rng, number_of_draws(rng, n), inputs.context(context))

    def conditional(self, asked: Any, given: Any = (), *, gaps: bool = False) -> "FitResult":
        """Return the result for some columns given others, of a model that takes roles, such as `AnySubset`, with the same
        params: `log_prob`, `draw`, `p_value`, `save`, and of one column `cdf`, `quantile` and `interval`.

        Args:
            asked, given: columns of the new result, and of its context: names, if the model was fitted to a frame, or places.
            gaps: True for a context of (2, len(given)): the values, and 1 where one is there or 2 where it is missing.

        Errors:
            FlowsError: a column that is not there, or is there twice; a model whose context is not roles.

        Example:
            >>> import flows, numpy as np
            >>> rows = np.random.default_rng(0).normal(size=(200, 3))
            >>> result = flows.fit(0, flows.AnySubset(hidden=(8,)), rows, max_epochs=2, folds=1, verbose=0)
            >>> result.conditional(0, given=[2]).quantile(0.5, context=[1.0]).shape
            ()
        """
        event = as_event(self.input_dim)
        if len(event) != 1 or not declares(self.init_fun, "roles"):
            raise FlowsError(
                f"conditional: {self.init_fun!r:.60} takes no roles of columns; expected a model such as AnySubset"
            )
        places, known = (places_of(columns, *event, self.columns, "conditional") for columns in (asked, given))
        model = asked_of(self.init_fun, *event, places, known)
        shape: Any = (2, len(known)) if boolean(gaps, "conditional: gaps") and known else len(known)
        part = part_of(model, (len(places),), as_context(shape))
        log_pdf, sample = functions_of(part, self.params)
        fields: dict[str, Any] = {"input_dim": len(places), "context_dim": shape, "history": History(), "scored": None}
        turn = self.turn if part.region is not None and part.region.period.any() else None
        fields |= {"kept": of_columns(self.kept, places, known, gaps), "turn": turn if turn is None else turn[list(places)]}
        if self.table is not None:
            context_table = self.table.of(known) if known and not gaps else None
            fields |= {"table": self.table.of(places), "context_table": context_table}
        return self._replace(log_pdf=log_pdf, sample=sample, init_fun=model, **fields)

    @property
    def scores(self) -> np.ndarray:
        """log p of at most 2,000 rows held out, (rows,), in nats; after folds (folds, rows), each by the member that has not
        seen them."""
        if not self.has_scores:
            raise FlowsError(
                "there are no scores of rows held out: the model was not fitted to rows, the params of one from a file were "
                "changed, it is a conditional of a file or of folds with gaps, or flows.save wrote the file, not result.save"
            )
        if self.scored is None or not self.scored.by(self.params):
            weights = None if self.kept is None else self.kept.weights
            self.scored = Scored(self.params, np.asarray(self._held_out_scores(), np.float64), weights)
        return self.scored.scores

    @property
    def score_weights(self) -> np.ndarray | None:
        """Weights of `scores`, of their shape: the weights of the rows; None where all count equally."""
        return cast(Scored, self.scored).weights if len(self.scores) else None

    @property
    def has_scores(self) -> bool:
        """Return whether there are `scores`."""
        return self.kept is not None or (self.scored is not None and self.scored.by(self.params))

    def p_value(self, x: Any, *, context: Any = None) -> np.ndarray:
        """Conformal p-value of each row, (rows,): (1 + held-out scores not above the score of x) / (1 + their number).

        It is small where a row is odd: of rows like the training rows, at most 5% have a value of 0.05 or less, whatever the
        model (Bates, Candes, Lei, Romano and Sesia 2023, arXiv:2104.08279).
        The score is log_prob, and the least value 1 / (1 + number of scores). After folds each member ranks x among the rows
        that it has not seen.

        After a fit with weights it is (w + sum of the weights w_i of held-out scores not above) / (w + sum of all w_i), where
        w = sum w_i^2 / sum w_i is the mean weight of rows drawn in proportion to their weights, as x is. Scores are then worth
        as much as n = (sum w_i)^2 / sum w_i^2 of equal weight, the least value is 1 / (1 + n), and shares are right to about
        sqrt(a (1 - a) / n): where n is small, ranks are coarse.

        Args:
            x, context: as in `log_prob`.

        Errors:
            FlowsError: there are no scores of rows held out.
        """
        return self.p_values_of(np.asarray(self.scores_of(x, context), float))

    def p_values_of(self, scores_of_x: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
        """Rank scores, (rows,), or after folds (folds, rows), as in `p_value`; among `scores`, or others of the same rows."""
        known, scores_of_x = np.atleast_2d(self.scores if scores is None else scores), np.atleast_2d(scores_of_x)
        weights = np.ones(known.shape) if self.score_weights is None else np.atleast_2d(self.score_weights)
        total, below = weights.sum(), np.zeros(scores_of_x.shape[1])
        for scores, w, row_scores in zip(known, weights, scores_of_x, strict=True):
            order = np.argsort(scores)
            sums = np.concatenate([[0.0], np.cumsum(w[order])])
            below += sums[np.searchsorted(scores[order], row_scores, side="right")]
        unknown = np.isnan(scores_of_x).any(0) | np.isnan(known).any()
        weight = np.square(weights).sum() / total
        return np.where(unknown, np.nan, np.minimum((weight + below) / (weight + total), 1.0))

    def log_prob_and_p_value(self, x: Any, *, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """`log_prob` and `p_value` of rows, both (rows,), for the cost of one of them.

        Args:
            x, context: as in `log_prob`.

        Errors:
            FlowsError: there are no scores of rows held out.
        """
        scores = np.asarray(self.scores_of(x, context), float)
        log_p = scores if scores.ndim == 1 else logsumexp(scores, axis=0) - np.log(len(scores))
        return log_p, self.p_values_of(scores)

    def verify(self, data: Any, *, context: Any = None) -> RowReport:
        """Report the rows of data on which the model cannot be trusted: their round trip or log-det misses, or is not finite.

        Args:
            data, context: as in `log_prob`.

        Returns:
            A `RowReport`: print it, or read `.passed` and `.rows`.

        Errors:
            FlowsError: the model has no bijection to look at.
        """
        inputs = Inputs(self)
        rows, keywords = as_array(inputs.rows(data), "data"), inputs.context(context)
        log_p = np.asarray(inputs.scored(self.log_pdf, self.params, rows, keywords.get("context")), float)
        contexts = inputs.row_contexts(keywords, len(rows))
        return verify_rows(self.init_fun, self.params, self.input_dim, self.context_dim, rows, contexts, log_p)

    def save(self, path: Any, metadata: dict | None = None, *, allow_nan: bool = False) -> None:
        """Write the result to one file, for `flows.load(path)`, with its history, columns and held-out scores; arguments as in
        `flows.save`. `metadata` is by default `result.metadata`."""
        save_model(
            path, self.init_fun, self.params, self.input_dim, self.context_dim, self.metadata if metadata is None else metadata,
            allow_nan=allow_nan, more=self._stored,
        )  # fmt: skip

    def _stored(self) -> dict[str, Any]:
        """Return the contents of a file next to the model: arrays by name, and a text."""
        arrays = {HISTORY + name: np.asarray(array) for name, array in self.history.items()}
        if self.has_scores:
            arrays[SCORES] = self.scores
            if self.score_weights is not None:
                arrays[SCORE_WEIGHTS] = self.score_weights
            for name, array in zip((COLUMN_SCORES, GAP_SCORES), cast(Scored, self.scored)[-2:], strict=True):
                arrays |= {} if array is None else {name: array}
        if self.turn is not None:
            arrays[TURN] = np.asarray(self.turn, np.float64)
        text: dict[str, Any] = {"interrupted": True} if self.history.interrupted else {}
        if self.named is not None:
            text[PARAMETERS] = self.named.described()
        if self.history.objective is not None:
            text["objective"] = self.history.objective
        tables = {"table": self.table, "context_table": self.context_table}
        text |= {name: header.described() for name, header in tables.items() if header is not None}
        return {name: array for name, array in arrays.items() if array.dtype.kind in KINDS} | {TEXT: text}

    def __repr__(self) -> str:
        return "\n".join(f"{name:14} {text}".rstrip() for name, text in self._summary())

    def _repr_html_(self) -> str:
        return page_of(self._summary(), self.history)

    def _summary(self) -> list[tuple[str, str]]:
        return summary(self)

    def _replace(self, **changes: Any) -> "FitResult":
        has = {**self._asdict(), **self._attributes()}
        if unknown := changes.keys() - has:
            raise TypeError(f"_replace: {type(self).__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(has)}")
        return type(self)(**{**has, **changes})

    def __reduce__(self) -> tuple:
        part_of(self.init_fun, as_event(self.input_dim), as_context(self.context_dim))  # refuses what cannot be made again
        return _made_anew, (type(self), jax.device_get(self.params), self._attributes())

    def _attributes(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def _held_out_scores(self) -> Any:
        held_out = cast(Kept, self.kept)
        keywords: dict[str, Any] = {} if held_out.context is None else {"context": held_out.context}
        return self.log_pdf(self.params, held_out.x, **keywords)

    def scores_of(self, x: Any, context: Any) -> Any:
        return self.log_prob(x, context=context)

    def judges(self) -> "Sequence[FitResult]":
        """Return the results that score rows: the result itself, after folds each member, with the rows that it held out."""
        return [self]


def _made_anew(kind: type[FitResult], params: Any, attributes: dict[str, Any]) -> FitResult:
    event, context = as_event(attributes["input_dim"]), as_context(attributes["context_dim"])
    part = part_of(attributes["init_fun"], event, context)
    params = jax.tree.map(on_device, params)
    return kind(params, *functions_of(part, params), **attributes)


class _Rest:
    """All of a result but its params; equal for two results with equal functions."""

    def __init__(self, result: FitResult):
        self.result, self.functions = result._replace(params=None), result[1:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and self.functions == other.functions

    def __hash__(self) -> int:
        return hash(self.functions)


def _flatten(result: FitResult) -> tuple[tuple, _Rest]:
    return ((jax.tree_util.GetAttrKey("params"), result.params),), _Rest(result)


def _unflatten(rest: _Rest, children: Iterable[Any]) -> FitResult:
    (params,) = children
    return rest.result._replace(params=params)


jax.tree_util.register_pytree_with_keys(FitResult, _flatten, _unflatten)
