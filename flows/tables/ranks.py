"""Scores of rows with gaps, by a model of any columns given any others: of a column given the others, and what is usual for the
columns that a row has, with which p-values compare."""

from typing import Any, cast

import numpy as np
from scipy.special import logsumexp

from flows.conditionals.roles import ABSENT, ASKED, GIVEN
from flows.core import FlowsError
from flows.results.held_out import Kept, Scored
from flows.results.result import FitResult

PATTERNS = 2  # sets of columns of a row held out, next to those it has, by which the usual score is learnt


def asked(contexts: Any) -> np.ndarray:
    return np.asarray(contexts[:, 1] == ASKED)


def asked_of_roles(x: np.ndarray, there: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Contexts that ask some of the columns that are there, given the others, (rows, 2, d)."""
    return np.stack([x, np.where(there, np.where(asked, ASKED, GIVEN), ABSENT)], 1)


def given_others(result: FitResult, x: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """log p(x_j | the other columns that are there), (rows, d), one pass for each column; NaN where there is no value."""
    there, columns = asked(contexts), np.arange(x.shape[1])
    scores = [np.asarray(result.log_prob(x, context=asked_of_roles(x, there, columns == j)), float) for j in columns]
    return np.where(there, np.stack(scores, 1), np.nan)


def scores_and_p_values(result: FitResult, x: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """log p of rows and their p-values, (2, rows), which rank log p less what is usual for the columns that a row has."""
    held_out, usual = gap_scores(result)
    scores, usual = np.atleast_2d(np.asarray(result.scores_of(x, contexts), float)), np.atleast_2d(usual)
    ranked = scores - usual[:, :-1] @ asked(contexts).T - usual[:, -1:]
    return np.stack([logsumexp(scores, axis=0) - np.log(len(scores)), result.p_values_of(ranked, held_out)])


def usual_of(result: FitResult, contexts: np.ndarray | None) -> Any:
    """The log p that is usual for the columns that rows have, (rows,), the mean over members; 0 for other models."""
    if contexts is None:
        return 0.0
    usual = np.atleast_2d(gap_scores(result)[1]).mean(0)
    return asked(contexts) @ usual[:-1] + usual[-1]


def with_gaps(x: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
    """Rows with NaN where a value is absent."""
    return x if contexts is None else np.where(asked(contexts), x, np.nan)


def gap_scores(result: FitResult) -> list[np.ndarray]:
    """Scores of the rows held out less what is usual for their columns, (..., rows) as `result.scores`, and what is usual,
    (..., d + 1): numbers for the columns and for all, of which the sum is nearest to log p. A result computes them once."""
    shape, scored = result.scores.shape, cast(Scored, result.scored)
    if scored.by_gaps is None:
        if result.kept is None:
            raise FlowsError("p_value: the file has no scores of rows with gaps; save the result of tables.fit again")
        parts = [_usual(judge) for judge in result.judges()]
        scored = result.scored = scored._replace(by_gaps=np.reshape(parts, (*shape[:-1], -1)))
    return np.split(cast(np.ndarray, scored.by_gaps), shape[-1:], -1)


def _usual(judge: FitResult) -> np.ndarray:
    x, contexts, _ = cast(Kept, judge.kept)
    there, rng = asked(contexts), np.random.default_rng(0)
    some = [there & (rng.uniform(size=there.shape) < rng.uniform(size=(len(x), 1))) for _ in range(PATTERNS)]
    fewer = [np.asarray(judge.log_prob(x, context=asked_of_roles(x, mask, mask)), float) for mask in some]
    scores, masks = np.concatenate([judge.scores, *fewer]), np.concatenate([there, *some])
    design, finite = np.concatenate([masks, np.ones((len(masks), 1))], 1), np.isfinite(scores)
    usual = np.linalg.lstsq(design[finite], scores[finite], rcond=None)[0]
    return np.concatenate([judge.scores - design[: len(x)] @ usual, usual])


def disagreement(result: FitResult) -> float:
    """The mean difference of log p by two orders of the columns, in nats, over rows held out: the second half given the first,
    and the first given the second."""
    judge = result.judges()[0]
    x, contexts, _ = cast(Kept, judge.kept)
    there, first = asked(contexts), np.arange(x.shape[1]) < x.shape[1] // 2

    def by(half: np.ndarray) -> np.ndarray:
        alone, rest = asked_of_roles(x, there & half, half), asked_of_roles(x, there, ~half)
        return np.asarray(judge.log_prob(x, context=alone) + judge.log_prob(x, context=rest), float)

    return float(np.nanmean(np.abs(by(first) - by(~first))))
