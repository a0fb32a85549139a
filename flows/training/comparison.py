"""Models compared on the same rows: each fitted to one or several parts, scored on others, given up where it is hopeless."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError, positive
from flows.core.inputs import pieces_of
from flows.results.history import Epoch
from flows.results.result import FitResult
from flows.training.before import check_noise_once, curved, region_of
from flows.training.data_checks import Columns
from flows.training.fitting import fit_rows, folds_of, num_trained, own_layers
from flows.training.options import Options, check_distribution, optional
from flows.training.preprocess import Prepared, prepare_folds
from flows.training.reading import Data, Rows, all_rows, divided, groups_at, take
from flows.training.splitting import folds_of_rows, split

HOPELESS = 5.0  # standard errors behind the best, from which a model is given up ...
SOON = 1 / 3  # ... after that share of its epochs
SURE = 2.0  # standard errors
STOPPING = 0.15  # of the rows of a fold: they stop the fit


class Candidate(NamedTuple):
    """One model, fitted and scored on rows that it was not trained on.

    Attributes:
        name, init_fun: as given, or as the model prints.
        result: a `FitResult`, or None where the fit failed or was given up. After folds that of the best is a fit to all rows,
            any other that of one fold.
        nats: the mean log_pdf of the rows held out.
        error: the standard error of that mean.
        behind: by how many nats the best is better, and the standard error of that difference, row by row.
        num_params: trained numbers.
        failure: why there is no result, or "".
        scores: log_pdf of each row held out, in the order of `Selection.rows`.
        seconds: what it took.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectOptions(Options):
    total_minutes: Annotated[float | None, optional(positive)] = None


class Part(NamedTuple):
    """Rows to fit to, of which some stop the fit, and rows to score."""

    data: Data
    test: Rows
    numbers: np.ndarray  # of the rows to score


def parts_of(found: Data, options: Options, key: Array, folds: int) -> list[Part]:
    source = found.source
    if folds == 1:
        numbers = np.arange(len(found.held_out.x)) if source.others is None else source.others
        return [Part(found, found.held_out, numbers)]
    numbers = all_rows(found)
    parts = []
    for i, (rest, out) in enumerate(folds_of_rows(len(numbers), folds, key, groups_at(found, numbers))):
        kept, test = numbers[rest], numbers[np.sort(out)]
        of_train, others = split(len(kept), STOPPING, jax.random.fold_in(key, i), groups_at(found, kept))
        data = divided(found, kept[of_train], kept[others], options)
        parts.append(Part(data, take(source.given[0], test), test))
    return parts


class Comparison:
    """The candidates that were fitted so far, each to all parts."""

    def __init__(self, key: Array, options: SelectOptions, columns: Columns, parts: list[Part]):
        self.key, self.options, self.columns, self.parts = key, options, columns, parts
        self.end = time.monotonic() + (math.inf if options.total_minutes is None else 60 * options.total_minutes)
        self.rows = np.concatenate([part.numbers for part in parts])
        weights = [np.ones(len(part.numbers)) if part.test.weights is None else part.test.weights for part in parts]
        self.weights = np.concatenate(weights)
        self.fitted: list[Candidate] = []
        self.held_out: dict[int, np.ndarray] = {}  # of each part the best scores so far of the rows that stop its fits
        self.prepared: dict[tuple, Prepared] = {}  # by the part, and the layers of a model's own that rows go through first
        self.interrupted = False

    @property
    def best(self) -> Candidate | None:
        scored = [each for each in self.fitted if each.result is not None]
        return max(scored, key=lambda each: each.nats, default=None)

    def add(self, name: str, init_fun: Any) -> None:
        """Fit and score one more, whatever goes wrong with it: the others are worth having."""
        start, scores, result, why = time.monotonic(), [], None, ""
        try:
            if self.interrupted or start > self.end:
                why = f"not fitted, as {'another was interrupted' if self.interrupted else 'the time was over'}"
            else:
                check_distribution(init_fun)
                for i, part in enumerate(self.parts):
                    result, why = self._fit(init_fun, i)
                    if not why:
                        scores.append(_scores(result.log_pdf, result.params, part.test, self.options.dequantize, self.key))
                        why = self._behind(np.concatenate(scores))
                    if why or result.history.interrupted:
                        break
                self.interrupted = result is not None and result.history.interrupted
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.interrupted, why = True, "interrupted"
        except Exception as error:
            kind = "" if isinstance(error, FlowsError) else f"{type(error).__name__}: "
            why = f"{kind}{error}"
        self.fitted.append(self._candidate(name, init_fun, result, scores, why, time.monotonic() - start))

    def of_all(self, init_fun: Any, found: Data) -> FitResult:
        """The model fitted again, to all rows but those that stop it, or as an average over folds, as `fit` does it."""
        numbers = all_rows(found)
        of_train, others = split(
            len(numbers), min(STOPPING, self.options.share or STOPPING), self.key, groups_at(found, numbers)
        )
        data = divided(found, numbers[of_train], numbers[others], self.options)
        rows, model = self._ready(init_fun, data, None)
        return fit_rows(self.key, model, rows, self.options)

    def ranked(self) -> list[Candidate]:
        if self.best is None:
            told = " ".join(f"{each.name}: {each.failure}." for each in self.fitted)
            raise FlowsError(f"select: no candidate could be fitted. {told}")
        best = self.best
        return sorted(
            (each._replace(behind=self._difference(best.scores, each.scores)) for each in self.fitted),
            key=lambda each: -np.inf if each.result is None else each.nats,
            reverse=True,
        )

    def _fit(self, init_fun: Any, i: int) -> tuple[FitResult, str]:
        """The result of one part, and why it was given up, or ""."""
        rows, model = self._ready(init_fun, self.parts[i].data, i)
        if rows.folds:  # whose members are behind their average, and have seen what others hold out
            return fit_rows(self.key, model, rows, self.options), ""
        held_out, best, why = self.parts[i].data.held_out, self.held_out.get(i), list[str]()

        def given_up(epoch: Epoch) -> bool:
            if best is None or epoch.number + 1 != math.ceil(SOON * epoch.max_epochs):
                return False
            params, log_pdf, _ = epoch.best()
            nats, error = self._mean(
                best - _scores(log_pdf, params, held_out, self.options.dequantize, self.key), held_out.weights
            )
            if nats > HOPELESS * error:
                why.append(f"given up after {epoch.number + 1} epochs, {nats:.3g} nats behind")
            return bool(why)

        result = fit_rows(self.key, model, rows, replace(self.options, callbacks=(given_up,)))
        if not why:
            scores = _scores(result.log_pdf, result.params, held_out, self.options.dequantize, self.key)
            if best is None or np.average(scores - best, weights=held_out.weights) > 0:
                self.held_out[i] = scores
        return result, "".join(why)

    def _ready(self, init_fun: Any, data: Data, i: int | None) -> tuple[Prepared, Any]:
        """The rows of a part, or of all, for a model. Where parts are folds, these are what few rows are split into again."""
        own, model = own_layers(init_fun, data, self.options)
        options = replace(self.options, validation=None) if len(self.parts) > 1 else self.options
        count = folds_of(model, data, options, self.key)
        bent = curved(region_of(init_fun, data), data)
        check_noise_once(init_fun, self.options, data, self.columns.steps)
        columns, known = self.columns.left_curved(bent) if bent.any() else self.columns, (i, own, count, bent.tobytes())
        if (rows := self.prepared.get(known)) is None:
            rows = prepare_folds(data, columns, self.options, self.key, own, count)
        if i is not None:
            self.prepared[known] = rows
        return rows, model

    def _behind(self, scores: np.ndarray) -> str:
        """Why there is no use in more folds, or ""."""
        if self.best is None or len(scores) == len(self.rows):
            return ""
        nats, error = self._difference(self.best.scores[: len(scores)], scores)
        fold = len(scores) * len(self.parts) // len(self.rows)
        return f"given up after {fold} of {len(self.parts)} folds, {nats:.3g} nats behind" if nats > HOPELESS * error else ""

    def _difference(self, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        """By how much a is better on the rows that both have scored."""
        n = min(len(a), len(b))
        return self._mean(a[:n] - b[:n], self.weights[:n]) if n else (np.nan, np.nan)

    def _mean(self, values: np.ndarray, weights: np.ndarray | None) -> tuple[float, float]:
        """The mean, and its standard error."""
        w = np.ones(len(values)) if weights is None else weights
        mean = np.average(values, weights=w)
        return float(mean), float(np.sqrt((np.square(w) * np.square(values - mean)).sum()) / w.sum())

    def _candidate(self, name: str, init_fun: Any, result: Any, scores: list, why: str, seconds: float) -> Candidate:
        both = np.concatenate(scores) if scores and not why else np.zeros(0)
        if why or result is None:
            return Candidate(name, init_fun, None, np.nan, np.nan, (np.nan, np.nan), 0, why, both, seconds)
        nats, error = self._mean(both, self.weights[: len(both)])
        return Candidate(name, init_fun, result, nats, error, (0.0, 0.0), num_trained(result.params), "", both, seconds)


def _scores(log_pdf: Callable, params: Any, rows: Rows, dequantize: Any, key: Any) -> np.ndarray:
    """log_pdf of each row."""
    rng = {} if dequantize is None or dequantize is False else {"rng": key}
    found = []
    for own in pieces_of(len(rows.x), rows.x.shape[1:]):
        piece = take(rows, own)
        context = {} if piece.context is None else {"context": piece.context}
        found.append(np.asarray(log_pdf(params, piece.x, **rng, **context), float))
    return np.concatenate(found)
