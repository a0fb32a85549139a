"""Comparison of models on rows that they were not trained on, and their mixture, with the weights of the highest likelihood on
these rows. A model that is far behind is given up."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from flows.core import Array, Distribution, FlowsError, as_context, as_event, functions_of, on_device, part_of, positive
from flows.distributions.mixture import Mixture
from flows.results.ensemble import EnsembleResult
from flows.results.history import ROW_COUNTS, Epoch, History
from flows.results.pieces import by_pieces
from flows.results.result import FitResult
from flows.training.data.facts import ColumnFacts, check_candidate
from flows.training.data.prepare import Prepared, prepare_folds, with_model
from flows.training.data.table import Split, Table
from flows.training.devices import devices, devices_of
from flows.training.fitting import fit_prepared
from flows.training.model_view import ModelView, num_trained
from flows.training.options import Options, Run, check_distribution, optional

HOPELESS = 5.0  # standard errors behind the best at which a model is given up ...
SOON = 1 / 3  # ... after this share of its epochs
SURE = 2.0  # standard errors

# The mixture.
ITERATIONS = 300  # of expectation-maximisation, at most
SETTLED = 1e-5  # the largest change of a weight at convergence
WORTH = 0.005  # nats a row that a density has to add to the others to stay
PSEUDO_ROWS = 1.0  # of the prior, equal for all densities, so that no weight is 0 by chance alone
FOLDS = 5  # so that the rows that judge weights do not determine them


class Candidate(NamedTuple):
    """One model, fitted and scored on rows that it was not trained on.

    Attributes:
        name, init_fun: the name of the model, by default its printed form; and the model.
        result: a `FitResult`, with folds an `EnsembleResult` of one model for each; None if the fit failed or was given up.
        nats: the mean log_pdf of the held-out rows.
        error: the standard error of this mean.
        behind: how many nats the best model is better, and the standard error of this difference, taken row by row.
        num_params: the number of trained numbers.
        failure: why there is no result, or "".
        scores: log_pdf of each held-out row, in the order of `Selection.rows`.
        seconds: the time to fit and score it.
        cost: microseconds to score a row, where many rows are scored at once.
    """

    name: str
    init_fun: Any
    result: FitResult | None
    nats: float
    error: float
    behind: tuple[float, float]
    num_params: int
    failure: str
    scores: np.ndarray
    seconds: float
    cost: float = math.nan


def best_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda model: -np.inf if model.result is None else model.nats, reverse=True)


SELECT_RUN = Run(judged=False)  # the table says which model is behind


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectOptions(Options):
    total_minutes: Annotated[float | None, optional(positive)] = None
    run: Run = SELECT_RUN


class Comparison:
    """The candidates that were fitted so far: each once, or with folds once without the rows of each fold."""

    def __init__(self, key: Array, options: SelectOptions, columns: ColumnFacts, split: Split, folds: int, models: int = 1):
        self.key, self.options, self.columns, self.split, self.folds, self.models = key, options, columns, split, folds, models
        self.unseen = [part.held_out for part in ([split] if folds == 1 else split.folds(options, key, folds))]
        some = np.linspace(0, len(split.train) - 1, len(split.held_out)).astype(int)  # as many as are held out: one program
        self.trained = [split.train.take(some)] if folds == 1 else [*self.unseen[1:], self.unseen[0]]  # the next fold's
        self.end = time.monotonic() + (math.inf if options.total_minutes is None else 60 * options.total_minutes)
        self.rows = np.concatenate([test.numbers for test in self.unseen])
        self.weights, self.trained_weights = _weights_of(self.unseen), _weights_of(self.trained)
        self.trained_scores: dict[str, np.ndarray] = {}  # of rows of the training, by the name of a candidate
        self.fitted: list[Candidate] = []
        self.prepared: dict[tuple, Prepared] = {}  # by the first layers of a model
        self.interrupted = False

    @property
    def best(self) -> Candidate | None:
        scored = [candidate for candidate in self.fitted if candidate.result is not None]
        return max(scored, key=lambda candidate: candidate.nats, default=None)

    def add(self, name: str, init_fun: Any) -> None:
        """Fit and score one more candidate; an error in it is kept as its failure, so that the others go on."""
        start, scores, result, why, cost = time.monotonic(), np.zeros(0), None, "", math.nan
        try:
            late = start > self.end and self.best is not None
            if devices().any(self.interrupted or late):
                why = f"not fitted, as {'another was interrupted' if self.interrupted else 'the time was over'}"
            else:
                with devices_of(self.options.mesh, "fit"):
                    check_distribution(init_fun)
                    result, why = self._fit(init_fun)
                    if not why:
                        scores, self.trained_scores[name], cost = self._scored(result)
                        result.history["trained_loss"] = -np.average(self.trained_scores[name], weights=self.trained_weights)
                self.interrupted = result.history.interrupted
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.interrupted, why = True, "interrupted"
        except Exception as error:
            if devices().over:  # the others have left the whole comparison
                raise
            kind = "" if isinstance(error, FlowsError) else f"{type(error).__name__}: "
            why = f"{kind}{error}"
        seconds = time.monotonic() - start
        candidate = Candidate(name, init_fun, None, np.nan, np.nan, (np.nan, np.nan), 0, why, scores, seconds, cost)
        if result is not None and not why:
            nats, spread = self.mean(scores)
            numbers = num_trained(result.params) // self.folds  # of a single model
            candidate = candidate._replace(result=result, nats=nats, error=spread, behind=(0.0, 0.0), num_params=numbers)
        self.fitted.append(candidate)

    def ranked(self) -> list[Candidate]:
        best = self.best
        if best is None:
            failures = " ".join(f"{candidate.name}: {candidate.failure}." for candidate in self.fitted)
            raise FlowsError(f"select: no candidate could be fitted. {failures}")
        return best_first(
            candidate._replace(behind=self.difference(best.scores, candidate.scores)) for candidate in self.fitted
        )

    def _fit(self, init_fun: Any) -> tuple[FitResult, str]:
        """Return the result, and why it was given up, or "". It gets at most the time that is left for all candidates."""
        rows = self._prepared(init_fun)
        now, before = time.monotonic(), len(self.fitted)
        minutes = min(self.options.max_minutes or math.inf, max(self.end - now, 1e-3) / 60)
        end = min(self.end, now + (self.models - before) * self.options.max_seconds) if before + 1 < self.models else math.inf
        run = self.options.run._replace(place=f"model {before + 1} of {self.models}", end=end)
        options = replace(self.options, max_minutes=None if minutes == math.inf else minutes, run=run)
        if self.folds > 1:
            return fit_prepared(rows, options, self.key), ""
        best, test, why = self.best, self.unseen[0], list[str]()

        def given_up(epoch: Epoch) -> bool:
            if best is None or epoch.number + 1 != math.ceil(SOON * epoch.max_epochs):
                return False
            params, log_pdf, _ = epoch.best()
            nats, error = self.mean(best.scores - _scores(log_pdf, params, test, self.options.dequantize, self.key))
            if nats > HOPELESS * error:
                why.append(f"given up after {epoch.number + 1} epochs, {nats:.3g} nats behind")
            return bool(why)

        result = fit_prepared(rows, replace(options, callbacks=(given_up,)), self.key)
        return result, devices().meet(why="".join(why))[0]["why"]  # callbacks are called in the first alone

    def _prepared(self, init_fun: Any) -> Prepared:
        view = ModelView(init_fun, self.split.whole.event, self.split.whole.context_event, self.options.standardize)
        options, columns = self.options.for_model(view.init_fun), self.columns
        columns = columns._replace(context_scale=None) if view.prepares else columns
        facts = check_candidate(view, self.split, columns, options, self.folds)
        kind = view.region.kind if view.region is not None and view.curved.any() else None
        known = (facts.first, view.curved.tobytes(), kind, view.mixing, view.prepares)
        if (rows := self.prepared.get(known)) is None:
            rows = self.prepared[known] = prepare_folds(self.split, facts, options, self.key)
        return with_model(rows, self.split, facts, options)

    def _scored(self, result: FitResult) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the scores of all held-out rows and of rows of the training, and the microseconds to score one."""
        judges = result.judges()

        def scores(tables: list[Table]) -> np.ndarray:
            pairs, dequantize = zip(judges, tables, strict=True), self.options.dequantize
            return np.concatenate([_scores(judge.log_pdf, judge.params, table, dequantize, self.key) for judge, table in pairs])

        unseen, began = scores(self.unseen), time.process_time()
        trained = scores(self.trained)  # compiled by now
        return unseen, trained, 1e6 * (time.process_time() - began) / len(self.unseen[0])

    def stacked(self, ranked: list[Candidate]) -> tuple[dict[str, float], Candidate | None]:
        """Return the weights of candidates in their mixture, by name, and the mixture as a candidate."""
        single = ranked[0]
        able = [
            candidate
            for candidate in ranked
            if candidate.result is not None and not (np.isnan(candidate.scores) | (candidate.scores == np.inf)).any()
        ]
        if len(able) < 2:
            return {single.name: 1.0}, single
        began, mixture = time.monotonic(), stacked_scores(np.stack([candidate.scores for candidate in able], 1), self.weights)
        used = [(candidate, float(weight)) for candidate, weight in zip(able, mixture.weights, strict=True) if weight > 0]
        used.sort(key=lambda pair: -pair[1])
        members, weights = [candidate for candidate, _ in used], np.array([weight for _, weight in used])
        shares = {candidate.name: weight for candidate, weight in used}
        if len(members) == 1:
            return shares, members[0]
        nats, error = self.mean(mixture.scores)
        results = [member.result for member in members if member.result is not None]
        try:
            result, why = as_one(results, weights, mixture.scores, error, self.folds), ""
            trained = mixed(np.stack([self.trained_scores[name] for name in shares], 1), weights)
            result.history["trained_loss"] = -np.average(trained, weights=self.trained_weights)
        except (FlowsError, TypeError) as failure:  # some model cannot be a component
            result, why = None, str(failure)
        stack = Candidate(
            "stack", None if result is None else result.init_fun, result, nats, error,
            self.difference(single.scores, mixture.scores), sum(member.num_params for member in members), why, mixture.scores,
            time.monotonic() - began, sum(member.cost for member in members),
        )  # fmt: skip
        return shares, stack

    def difference(self, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        """Return how much better a is than b on average, and the standard error, row by row."""
        return self.mean(a - b) if len(a) == len(b) else (np.nan, np.nan)

    def mean(self, values: np.ndarray) -> tuple[float, float]:
        """Return the weighted mean over rows, and its standard error."""
        w = self.weights
        mean = np.average(values, weights=w)
        return float(mean), float(np.sqrt((np.square(w) * np.square(values - mean)).sum()) / w.sum())


def _weights_of(tables: Sequence[Table]) -> np.ndarray:
    return np.concatenate([np.ones(len(table)) if table.weights is None else table.weights for table in tables])


def _scores(log_pdf: Callable, params: Any, table: Table, dequantize: Any, key: Any) -> np.ndarray:
    rng = None if dequantize is None or dequantize is False else key
    scores = by_pieces(lambda x, context: log_pdf(params, x, context=context, rng=rng), table.x, table.context)
    return scores.astype(float)


class Stack(NamedTuple):
    """The weights of densities in their mixture, (densities,), 0 for a density that is left out; and the scores of rows,
    (rows,), each with weights that the row did not determine."""

    weights: np.ndarray
    scores: np.ndarray


def stacked_scores(scores: np.ndarray, counts: np.ndarray | None = None) -> Stack:
    """Return the mixture of densities with the highest likelihood on held-out rows.

    Args:
        scores: log-densities (rows, densities), in nats.
        counts: the weights of rows, (rows,).

    Source:
        Smyth and Wolpert, "Linearly Combining Density Estimators via Stacking", Machine Learning 36, 1998, section 3.
    """
    counts = np.ones(len(scores)) if counts is None else counts * len(counts) / counts.sum()
    fold = np.random.default_rng(0).permutation(len(scores)) % min(FOLDS, len(scores))
    crossed = np.full(len(scores), np.nan)
    for number in range(min(FOLDS, len(scores))):
        out = fold == number
        weights = _likeliest(scores[~out], counts[~out]) if (~out).any() else _even(scores)
        crossed[out] = mixed(scores[out], weights)
    return Stack(_likeliest(scores, counts), crossed)


def as_one(results: Sequence[FitResult], weights: np.ndarray, scores: np.ndarray, error: float, folds: int) -> FitResult:
    """Return the mixture of fitted models as a result; with folds the average of a mixture for each fold, so that each held-out
    row can be scored by models that were not trained on it.

    Args:
        results: models of the same rows; with folds each is an `EnsembleResult` with a member for each fold.
        weights: positive, with sum 1.
        scores: scores of held-out rows, in nats; `error` is the standard error of their mean.
        folds: the number of folds, 1 without folds.
    """
    first, log_weights = results[0], jnp.log(on_device(weights, jnp.float32))
    front = (folds,) * (folds > 1)
    models = [result.member if isinstance(result, EnsembleResult) and front else result.init_fun for result in results]
    flow = Mixture(*models, weights=tuple(map(float, weights)), trainable=False)
    components = tuple(result.params["components"] if front else result.params for result in results)
    params = {"components": components, "fixed": {"logits": jnp.broadcast_to(log_weights, (*front, len(results)))}}
    if front:
        flow = Mixture(flow, num_components=folds, trainable=False)
        params = {"components": params, "fixed": {"logits": jnp.full(folds, -np.log(folds), log_weights.dtype)}}
    losses = -scores.reshape(*front, -1).mean(-1, keepdims=True)
    history = {name: first.history[name] for name in (*ROW_COUNTS, "gaussian_loss") if name in first.history}
    history |= {"validation_loss": losses, "best_epoch": np.zeros(front, int), "error": np.full(front, error)}
    history |= {"stacked": np.array(len(results))}
    part = part_of(flow, as_event(first.input_dim), as_context(first.context_dim))
    triple = Distribution(params, *functions_of(part, params))
    fields: dict[str, Any] = {name: getattr(first, name) for name in ("table", "context_table", "kept", "turn")}
    fields["seconds"] = float(np.sum([result.seconds or 0.0 for result in results]))
    arguments = (*triple, flow, first.input_dim, first.context_dim, History(history))
    return EnsembleResult(*arguments, path=(), **fields) if folds > 1 else FitResult(*arguments, **fields)


def mixed(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return log sum_k w_k p_k of each row."""
    some = weights > 0
    log_densities: np.ndarray = logsumexp(scores[:, some], axis=1, b=weights[some])
    return log_densities


def _likeliest(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the weights of the highest likelihood, after dropping densities that add next to nothing, the least first."""
    members = list(range(scores.shape[1]))
    weights = _maximized(scores, counts)
    while len(members) > 1:
        whole = np.average(mixed(scores[:, members], weights), weights=counts)
        rests = [[member for member in members if member != left_out] for left_out in members]
        tried = [_maximized(scores[:, rest], counts, np.delete(weights, i)) for i, rest in enumerate(rests)]
        values = [
            np.average(mixed(scores[:, rest], rest_weights), weights=counts)
            for rest, rest_weights in zip(rests, tried, strict=True)
        ]
        best = int(np.argmax(values))
        if not values[best] > whole - WORTH:
            break
        members, weights = rests[best], tried[best]
    all_weights = np.zeros(scores.shape[1])
    all_weights[members] = weights
    return all_weights


def _maximized(scores: np.ndarray, counts: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Maximise the likelihood of the weights, which has one maximum, by expectation-maximisation."""
    count = scores.shape[1]
    weights = _even(scores) if start is None else start / start.sum()
    # A row with density 0 in every model has no information on the weights.
    informative = np.isfinite(scores).any(1)
    densities = np.exp(scores[informative] - scores[informative].max(1, keepdims=True))
    for _ in range(ITERATIONS):
        parts = densities * weights
        parts *= (counts[informative] / parts.sum(1))[:, None]
        new = (parts.sum(0) + PSEUDO_ROWS / count) / (counts[informative].sum() + PSEUDO_ROWS)
        settled, weights = np.abs(new - weights).max() < SETTLED, new
        if settled:
            break
    return weights


def _even(scores: np.ndarray) -> np.ndarray:
    return np.full(scores.shape[1], 1 / scores.shape[1])
