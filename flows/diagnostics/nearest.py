"""Are draws copies of rows that a model was trained on?"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from flows.diagnostics.arrays import TOGETHER, as_samples, squared_distances, unit_of


class Nearest(NamedTuple):
    """Distances to the nearest training row, of draws and of held-out rows.

    Attributes:
        statistic: Wilcoxon's, in standard errors; above 0 draws are nearer.
        p: the probability of a statistic as large, one-sided: draws are nearer to training rows than held-out rows are.
        size: the share of pairs in which the draw is nearer than the held-out row, less 1/2.
        draws: distances of draws, (draws,), in standard deviations of the training rows, the root of the sum over columns.
        rows: distances of held-out rows, (rows,).
        of_draws, of_rows: the place of the nearest training row, (draws,) and (rows,).
        copied: places of draws that are equal to a training row.
        seen: places of held-out rows that are equal to a training row.
    """

    statistic: float
    p: float
    size: float
    draws: np.ndarray
    rows: np.ndarray
    of_draws: np.ndarray
    of_rows: np.ndarray
    copied: np.ndarray
    seen: np.ndarray


def nearest_rows(rows: Any, draws: Any, train: Any) -> Nearest:
    """Compare how near draws and held-out rows come to training rows: a model that has learnt the distribution, without copies,
    gives draws as far from its training rows as new rows are. Wilcoxon's rank-sum statistic is

        U = #(pairs with draw nearer than row) + #(equally near) / 2,   z = (U - n m / 2) / sd(U),   size U / (n m) - 1/2

    Args:
        rows: held-out rows, (rows, columns), or (rows,).
        draws: draws of the model, (draws, columns), or (draws,).
        train: rows that the model was trained on, (training rows, columns), or (training rows,).

    Returns:
        `Nearest(statistic, p, size, draws, rows, of_draws, of_rows, copied, seen)`. Rows in `seen` count like all others: with
        codes and rounded numbers some are equal by chance.

    Errors:
        FlowsError: NaN or inf; fewer than 10 rows; different columns.

    Source:
        Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other", 1947;
        Meehan, Chaudhuri and Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative Models", 2020,
        arXiv:2004.05675.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> train, rows = rng.normal(size=(500, 2)), rng.normal(size=(500, 2))
        >>> test = flows.diagnostics.nearest_rows(rows, train + 0.01, train)
        >>> bool(test.p < 1e-6), bool(test.size > 0.3), test.seen.tolist()
        (True, True, [])
    """
    x, y, known = as_samples("nearest_rows", rows=rows, draws=draws, train=train)
    scale = unit_of(known)[1]
    (near, rows_), (nearer, draws_) = (_nearest(sample, known, scale) for sample in (x, y))
    n, m = len(x), len(y)
    ordered = np.sort(near)
    equal = np.searchsorted(ordered, nearer, side="right")
    u = float((n - equal).sum() + (equal - np.searchsorted(ordered, nearer, side="left")).sum() / 2)
    ties = np.unique(np.concatenate([near, nearer]), return_counts=True)[1].astype(float)
    variance = n * m / 12 * (n + m + 1 - (ties**3 - ties).sum() / ((n + m) * (n + m - 1)))
    z = (u - n * m / 2) / np.sqrt(variance) if variance > 0 else 0.0
    copied, repeated = (np.flatnonzero((a == known[b]).all(1)) for a, b in ((y, draws_), (x, rows_)))
    return Nearest(float(z), float(ndtr(-z)), u / (n * m) - 0.5, nearer, near, draws_, rows_, copied, repeated)


def _nearest(x: np.ndarray, known: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the distance to the nearest known row, and the place of that; in pieces."""
    z, train, middle = x / scale, known / scale, known.mean(0) / scale  # near 0, differences of squares keep their digits
    step = max(1, TOGETHER // len(known))
    which = np.concatenate(
        [squared_distances(z[i : i + step] - middle, train - middle).argmin(1) for i in range(0, len(z), step)]
    )
    return np.sqrt(((z - train[which]) ** 2).sum(1)), which
