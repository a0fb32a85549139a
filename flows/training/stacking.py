"""Several fitted models as one: their mixture, by the weights that are likeliest on rows held out."""

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
SETTLED = 1e-5  # the largest change of a weight at which it has arrived
WORTH = 0.005  # nats a row: what a density has to add to the others to stay
PSEUDO_ROWS = 1.0  # of the prior, shared out evenly, so that no weight is 0 by chance alone
FOLDS = 5  # by which weights are found without the rows that they are judged by


class Stack(NamedTuple):
    """The weights of densities in their mixture, (densities,), 0 of those that are left out, and the scores of rows by weights
    that have not seen them, (rows,)."""

    weights: np.ndarray
    scores: np.ndarray


def stacked_scores(scores: np.ndarray, counts: np.ndarray | None = None) -> Stack:
    """The mixture of densities that is likeliest on rows held out.

    Args:
        scores: log-densities (rows, densities), in nats.
        counts: how much each row counts, (rows,).

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
    """The mixture of fitted models: a result like any other; with folds the average of a mixture for each fold, so that each
    row held out is scored by models that have not seen it.

    Args:
        results: of models of the same rows, with folds each an `EnsembleResult` of as many members.
        weights: positive, with sum 1.
        scores: of rows held out, in nats, and `error` the standard error of their mean.
        folds: 1 where there are none.
    """
    first, log_weights = results[0], jnp.log(on_device(weights, jnp.float32))
    models = [result.member if isinstance(result, EnsembleResult) and folds > 1 else result.init_fun for result in results]
    flow = Mixture(*models, weights=tuple(map(float, weights)), trainable=False)
    params: Any = {"components": tuple(result.params for result in results), "fixed": {"logits": log_weights}}
    front: tuple[int, ...] = ()
    losses = -np.atleast_1d(scores.mean())
    if folds > 1:
        of_folds = {
            "components": tuple(result.params["components"] for result in results),
            "fixed": {"logits": jnp.broadcast_to(log_weights, (folds, len(results)))},
        }
        params = {"components": of_folds, "fixed": {"logits": jnp.full(folds, -np.log(folds), log_weights.dtype)}}
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
    """log sum_k w_k p_k of each row."""
    some = weights > 0
    log_densities: np.ndarray = logsumexp(scores[:, some], axis=1, b=weights[some])
    return log_densities


def _likeliest(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The likeliest weights, without the densities that add next to nothing, the least first."""
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
    """Expectation-maximisation of the weights alone, whose likelihood has one maximum."""
    count = scores.shape[1]
    weights = _even(scores) if start is None else start / start.sum()
    # A row to which every density gives 0 says nothing of the weights.
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
