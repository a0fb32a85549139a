"""Posteriors, and other conditional models, by draws for each row: are they too wide, and do they use the context?"""

from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError, positive_int
from flows.diagnostics.arrays import LEAST, as_conditional, as_floats, coarsest, drawn_by_row, features_of, generator, unit_of
from flows.diagnostics.uniformity import ranks, uniformity

FEW = 40  # rows of a slice, below which it is left out
RIDGE = 1.0  # of the regression that predicts points of reference, in rows


class Sbc(NamedTuple):
    """Simulation-based calibration of all columns.

    Attributes:
        statistic, size: as in `Uniformity`, of the part and column with the least p-value.
        p: the least p-value times the number of p-values, at most 1.
        part: the part with the least p-value: None for all rows, (context column, slice) for a slice.
        column: the column of rows with the least p-value.
        parts: all parts, in the order of `ps`.
        ps: p-values, (parts, columns).
        sizes: Kolmogorov distances, (parts, columns).
        ranks: the rank of each row among its draws, (rows, columns).
    """

    statistic: float
    p: float
    size: float
    part: tuple[int, int] | None
    column: int
    parts: tuple[tuple[int, int] | None, ...]
    ps: np.ndarray
    sizes: np.ndarray
    ranks: np.ndarray


class Coverage(NamedTuple):
    """The share of rows that regions hold, compared with the share that they should hold.

    Attributes:
        statistic, p, terms: Neyman's smooth statistic of the ranks, as in `Uniformity`.
        size: the largest error of coverage, |share of rows in a region - its level|, over all levels.
        levels: the level of the smallest region that holds each row, from 0 to 1, (rows,).
        ranks: the rank of each row among draws, (rows,).
    """

    statistic: float
    p: float
    size: float
    terms: np.ndarray
    levels: np.ndarray
    ranks: np.ndarray


def sbc(rows: Any, draws: Any, *, context: Any = None, slices: int = 5, rng: Any = 0) -> Sbc:
    """Simulation-based calibration: under true posteriors the ranks of rows, each among its draws, are uniform in every column.

    They are also uniform over rows that are chosen by their context. With `context`, each column of it is cut into slices of
    equally many rows, or by value if it has at most `slices` values, and each slice is tested alone: this finds a posterior
    that returns the prior, whose ranks are uniform over all rows. p-values are as in `uniformity`, the least times the count.

    Args:
        rows: true values of the columns that the posteriors describe, (rows, columns), or (rows,).
        draws: draws of the posterior for each row, (rows, draws, columns), or (rows, draws), such as 99 for each row.
        context: the condition of each posterior, (rows, context columns), or (rows,).
        slices: number of slices of each column of the context; slices of fewer than 40 rows are left out.
        rng: key or seed, by which ties are broken.

    Returns:
        `Sbc(statistic, p, size, part, column, parts, ps, sizes, ranks)`.

    Errors:
        FlowsError: NaN; fewer than 10 rows or 4 draws; shapes that do not belong together.

    Source:
        Talts, Betancourt, Simpson, Vehtari and Gelman, "Validating Bayesian Inference Algorithms with Simulation-Based
        Calibration", 2018, arXiv:1804.06788, theorem 1.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> context = rng.normal(size=1_000)
        >>> rows, prior = context + rng.normal(size=1_000), 2**0.5 * rng.normal(size=(1_000, 99))
        >>> whole, sliced = flows.diagnostics.sbc(rows, prior), flows.diagnostics.sbc(rows, prior, context=context)
        >>> bool(whole.p < 1e-3), bool(sliced.p < 1e-3), sliced.part
        (False, True, (0, 4))
    """
    x, drawn = as_conditional("sbc", rows, draws)
    parts = {None: np.ones(len(x), bool), **_slices(context, len(x), positive_int(slices, "sbc: slices"))}
    ranks_ = ranks(x, drawn, rng=rng)
    tests = [uniformity(ranks_[there], drawn.shape[1], shared=False) for there in parts.values()]
    statistics, ps, sizes = (np.stack([getattr(test, name) for test in tests]) for name in ("statistic", "p", "size"))
    part, column = np.unravel_index(statistics.argmax(), statistics.shape)  # p may be 0 of several
    least, worst = min(1.0, float(ps.min()) * ps.size), (part, column)
    names = tuple(parts)
    return Sbc(float(statistics[worst]), least, float(sizes[worst]), names[part], int(column), names, ps, sizes, ranks_)


def _slices(context: Any, n: int, slices: int) -> dict[Any, np.ndarray]:
    """Return masks of the rows in each slice, by (context column, slice)."""
    if context is None:
        return {}
    masks = dict[Any, np.ndarray]()
    for column, values in enumerate(_context("sbc", context, n).T):
        known = np.unique(values)
        edges = known[1:] if len(known) <= slices else np.unique(np.quantile(values, np.arange(1, slices) / slices))
        places = np.searchsorted(edges, values, side="right")
        if len(known) > 1:
            masks |= {(column, i): places == i for i in range(len(edges) + 1) if (places == i).sum() >= FEW}
    return masks


def _context(name: str, context: Any, n: int) -> np.ndarray:
    values = as_floats(context, f"{name}: context")
    if len(values) != n or values.ndim > 2:
        raise FlowsError(f"{name}: context has shape {values.shape}; expected one for each row, ({n}, context columns)")
    return values.reshape(n, -1)


def tarp(rows: Any, draws: Any, *, context: Any = None, references: Any = None, rng: Any = 0) -> Coverage:
    """Tests of accuracy with random points (TARP): balls around points of reference hold rows as often as draws.

        rank = #(draws with |draw - r| < |row - r|),   r a point of reference

    is uniform for the true posterior, whatever r is, and for no other if r takes all values and depends on the context: where
    r does not depend on it, a posterior that returns the prior passes. Columns are divided by their standard deviation.

    By default r is the prediction of a regression on the context, plus normal noise as wide as its errors. One half of the rows
    uses the regression of the other half, on columns, squares, products and 50 radial features: r has not seen its row.

    Args:
        rows: true values of the columns that the posteriors describe, (rows, columns), or (rows,).
        draws: draws of the posterior for each row, (rows, draws, columns), or (rows, draws), such as 99 for each row.
        context: the condition of each posterior, (rows, context columns), or (rows,).
        references: points of reference to use instead, of the shape of rows; they must not depend on rows.
        rng: key or seed of the points of reference.

    Returns:
        `Coverage(statistic, p, size, terms, levels, ranks)`, of balls.

    Errors:
        FlowsError: neither context nor references; NaN; fewer than 10 rows (40 without references) or 4 draws; shapes that do
            not belong together.

    Source:
        Lemos, Coogan, Hezaveh and Perreault-Levasseur, "Sampling-Based Accuracy Testing of Posterior Estimators for General
        Inference", 2023, arXiv:2302.03026: the algorithm TARP, and the theorem that it is necessary and sufficient.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> context, noise = rng.normal(size=(1_000, 2)), rng.normal(size=(1_000, 100, 2))
        >>> rows = context + noise[:, 0]
        >>> for draws in context[:, None] + noise[:, 1:], context[:, None] + 1.3 * noise[:, 1:], 2**0.5 * noise[:, 1:]:
        ...     result = flows.diagnostics.tarp(rows, draws, context=context)
        ...     print(bool(result.p < 1e-3), round(result.size, 2))
        False 0.02
        True 0.13
        True 0.26
    """
    x, drawn = as_conditional("tarp", rows, draws)
    random = generator(rng)
    if references is not None:
        points = as_floats(references, "tarp: references").reshape(len(np.atleast_1d(references)), -1)
        if points.shape != x.shape:
            got = np.shape(references)
            raise FlowsError(f"tarp: references have shape {got}; expected one for each row, {np.shape(rows)}")
    elif context is not None:
        points = _predicted(x, _context("tarp", context, len(x)), random)
    else:
        raise FlowsError(
            "tarp: got neither context nor references; expected one of them, as a posterior that returns the prior passes "
            "where points of reference do not depend on the context"
        )
    scale = unit_of(x)[1]
    far = (((x - points) / scale) ** 2).sum(1)
    draws_far = np.stack([(((draws_ - point) / scale) ** 2).sum(1) for draws_, point in zip(drawn, points, strict=True)])
    return _covered(ranks(far, draws_far, rng=int(random.integers(2**32))), drawn.shape[1], False, random)


def _predicted(x: np.ndarray, context: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return points of reference: predictions for each row from its context, by a ridge regression on other rows, plus noise
    as wide as its errors."""
    if len(x) < 4 * LEAST:
        raise FlowsError(f"tarp: got {len(x)} rows; expected at least {4 * LEAST}, or references=")
    halves = np.array_split(random.permutation(len(x)), 2)
    points = np.empty_like(x)
    for here, there in (halves, halves[::-1]):
        features = features_of(context[there], random)
        f, mean = features(context[there]), x[there].mean(0)
        weights = np.linalg.solve(f.T @ f + RIDGE * np.eye(f.shape[1]), f.T @ (x[there] - mean))
        errors = x[there] - mean - f @ weights
        points[here] = mean + features(context[here]) @ weights + errors.std(0) * random.normal(size=x[here].shape)
    return points


def coverage(log_p: Any, draws_log_p: Any, *, rng: Any = 0) -> Coverage:
    """Coverage of highest-density regions, by log-densities of rows among log-densities of draws: for the true model 90% of
    rows lie in the region that holds 90% of the draws, and so for every level.

        level = (#(draws log p > row log p) + share of ties at random) / draws

    It is exact for any score of rows and draws, such as a density or a bound.

    Args:
        log_p: log-densities of rows, (rows,); -inf is outside the support.
        draws_log_p: log-densities of shared draws, (draws,), or of draws for the context of each row, (rows, draws).
        rng: key or seed, by which ties are broken.

    Returns:
        `Coverage(statistic, p, size, terms, levels, ranks)`, of highest-density regions.

    Errors:
        FlowsError: NaN; fewer than 10 rows or 4 draws; shapes that do not belong together.

    Source:
        Cook, Gelman and Rubin, "Validation of Software for Bayesian Models Using Posterior Quantiles", 2006, of any scalar;
        Hermans et al., "A Trust Crisis In Simulation-Based Inference? Your Posterior Approximations Can Be Unfaithful", 2022,
        arXiv:2110.06581, of highest-density regions.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> rows, draws = rng.normal(size=2_000), 1.5 * rng.normal(size=10_000)
        >>> result = flows.diagnostics.coverage(-rows**2, -draws**2)
        >>> round(result.size, 2), float((result.levels < 0.5).mean().round(2))     # two thirds in the region for one half
        (0.2, 0.68)
    """
    dtype = coarsest(log_p, draws_log_p)
    rows = as_floats(log_p, "coverage: log_p", LEAST, infinite=True, rounded=dtype)
    draws = as_floats(draws_log_p, "coverage: draws_log_p", infinite=True, rounded=dtype)
    if rows.ndim != 1 or draws.ndim > 2 or (draws.ndim == 2 and len(draws) != len(rows)):
        raise FlowsError(
            f"coverage: log_p has shape {rows.shape} and draws_log_p {draws.shape}; expected (rows,), and (draws,) "
            "or (rows, draws)"
        )
    random = generator(rng)
    ranks_ = ranks(-rows, -draws, rng=int(random.integers(2**32)))
    return _covered(ranks_, draws.shape[-1], draws.ndim == 1, random)


def _covered(ranks_: np.ndarray, draws: int, shared: bool, random: np.random.Generator) -> Coverage:
    test = uniformity(ranks_, draws, shared=shared)
    levels = (ranks_ + random.uniform(size=ranks_.shape)) / (draws + 1)
    return Coverage(float(test.statistic), float(test.p), float(test.size), test.terms, levels, ranks_)


def crps(rows: Any, draws: Any) -> np.ndarray:
    """Continuous ranked probability score of each row and column, in units of the column; less is better:

        CRPS = E |X - y| - E |X - X'| / 2,   X and X' independent draws,

    without bias for few draws, as the second mean is over pairs of different draws. With one draw it would be |X - y|.

    Args:
        rows: y, (rows,) or (rows, columns).
        draws: the same draws for all rows, (draws,) or (draws, columns); or draws for each row, (rows, draws) or
            (rows, draws, columns); at least 2.

    Returns:
        Scores of the shape of rows.

    Errors:
        FlowsError: NaN; fewer than 2 draws; shapes that do not belong together.

    Source:
        Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007, equation 21; Ferro, "Fair
        scores for ensemble forecasts", 2014, of the second mean.

    Example:
        >>> import flows
        >>> flows.diagnostics.crps([0.0, 2.0], [1.0, 3.0]).tolist()
        [1.0, 0.0]
    """
    x, drawn = as_floats(rows, "crps: rows"), as_floats(draws, "crps: draws")
    by_row = drawn_by_row("crps", x, drawn, least=2)
    m, ordered = drawn.shape[by_row], np.sort(drawn, int(by_row))
    weights = (2 * np.arange(m) + 1 - m) / (m * (m - 1))  # E |X - X'| / 2, by the sorted draws
    if by_row:
        return np.abs(ordered - x[:, None]).mean(1) - np.einsum("nm...,m->n...", ordered, weights)
    scores = np.empty(x.shape)
    for column in np.ndindex(x.shape[1:]):
        y, values = x[:, *column], ordered[:, *column]
        sums, below = np.concatenate([[0.0], values.cumsum()]), np.searchsorted(values, y)
        far = y * below - sums[below] + (sums[-1] - sums[below]) - y * (m - below)
        scores[:, *column] = far / m - weights @ values
    return scores
