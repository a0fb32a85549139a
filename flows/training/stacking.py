"""The mixture of several fitted models, with the weights of the highest likelihood on held-out rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from flows.core import Distribution, as_context, as_event, functions_of, on_device, part_of
from flows.distributions.mixture import Mixture
from flows.results.ensemble import EnsembleResult
from flows.results.history import History
from flows.results.result import FitResult

ITERATIONS = 300  # of expectation-maximisation, at most
SETTLED = 1e-5  # the largest change of a weight at convergence
WORTH = 0.005  # nats a row that a density has to add to the others to stay
PSEUDO_ROWS = 1.0  # of the prior, equal for all densities, so that no weight is 0 by chance alone
FOLDS = 5  # so that the rows that judge weights do not determine them


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
    models = [result.member if isinstance(result, EnsembleResult) and folds > 1 else result.init_fun for result in results]
    flow = Mixture(*models, weights=tuple(map(float, weights)), trainable=False)
    params: Any = {"components": tuple(result.params for result in results), "fixed": {"logits": log_weights}}
    front: tuple[int, ...] = ()
    losses = -np.atleast_1d(scores.mean())
    if folds > 1:
        components = {
            "components": tuple(result.params["components"] for result in results),
            "fixed": {"logits": jnp.broadcast_to(log_weights, (folds, len(results)))},
        }
        params = {"components": components, "fixed": {"logits": jnp.full(folds, -np.log(folds), log_weights.dtype)}}
        flow, front = Mixture(flow, num_components=folds, trainable=False), (folds,)
        losses = -scores.reshape(folds, -1).mean(1, keepdims=True)
    history = {name: first.history[name] for name in ("rows", "held_out", "gaussian_loss") if name in first.history}
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
