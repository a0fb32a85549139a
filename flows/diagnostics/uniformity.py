"""Are rows like draws, column by column? Ranks, a test that they are uniform, and a band for their distribution."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtr, betaln, chdtrc, gammaln

from flows.core import FlowsError, pieces_of, positive_int
from flows.diagnostics.arrays import LEAST, as_floats, coarsest, drawn_by_row, generator

ORDER = 4  # polynomials: location, spread, skewness and tails
MOST_COUNTS = 10**8  # of rows times points of a band
SIMULATED = 10_000  # empirical distributions, which set the level of a band at all points at once


class Uniformity(NamedTuple):
    """The distance of values from uniform; for values (rows, columns) each field is an array (columns,).

    Attributes:
        statistic: Neyman's smooth statistic, chi-square with 4 degrees of freedom if the values are uniform.
        p: the probability of a statistic as large.
        size: Kolmogorov distance, the largest difference of two distribution functions, from 0 to 1.
        terms: terms whose squares add up to the statistic, (4, *columns): location, spread, skewness and tails, in standard
            errors. Where the spread is negative, rows are less spread out than draws.
    """

    statistic: Any
    p: Any
    size: Any
    terms: np.ndarray


class Band(NamedTuple):
    """Limits of the empirical distribution function of uniform values, at all points at once.

    Attributes:
        at: points, (points,), in (0, 1).
        lower, upper: shares of values at or below them, (points,).
        pointwise: the level of each interval alone, at which all of them hold together at the level of the band.
    """

    at: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    pointwise: float


def ranks(rows: Any, draws: Any, *, rng: Any = 0) -> np.ndarray:
    """Ranks of rows among draws, column by column: 0, ..., draws, uniform if rows and draws are from one distribution.

    A random share of the draws that equal the row counts as below it, which keeps ranks of codes and rounded numbers uniform:

        rank = #(draws < row) + floor(V (#(draws = row) + 1)),   V uniform on [0, 1)

    Values of float32 and float64 are compared as float32.

    Args:
        rows: (rows,) or (rows, columns).
        draws: the same draws for all rows, (draws,) or (draws, columns); or draws for each row, (rows, draws) or
            (rows, draws, columns).
        rng: key or seed, by which ties are broken.

    Returns:
        Whole numbers from 0 to the number of draws, of the shape of rows.

    Errors:
        FlowsError: NaN; no rows or draws; shapes that do not belong together.

    Source:
        Talts, Betancourt, Simpson, Vehtari and Gelman, "Validating Bayesian Inference Algorithms with Simulation-Based
        Calibration", 2018, arXiv:1804.06788, section 4.

    Example:
        >>> import flows
        >>> flows.diagnostics.ranks([0.5, -1.0, 7.0], [0.0, 1.0, 2.0]).tolist()
        [1, 0, 3]
    """
    dtype = coarsest(rows, draws)
    x = as_floats(rows, "ranks: rows", infinite=True, rounded=dtype)
    drawn = as_floats(draws, "ranks: draws", infinite=True, rounded=dtype)
    below, equal = np.zeros(x.shape, int), np.zeros(x.shape, int)
    if drawn_by_row("ranks", x, drawn):
        for piece in pieces_of(len(x), drawn.shape[1:]):
            below[piece] = (drawn[piece] < x[piece, None]).sum(1)
            equal[piece] = (drawn[piece] == x[piece, None]).sum(1)
    else:
        ordered = np.sort(drawn, 0)
        for column in np.ndindex(x.shape[1:]):
            at = slice(None), *column
            below[at] = np.searchsorted(ordered[at], x[at], side="left")
            equal[at] = np.searchsorted(ordered[at], x[at], side="right") - below[at]
    return below + generator(rng).integers(0, equal + 1)


def uniformity(values: Any, draws: int | None = None, *, shared: bool | None = None) -> Uniformity:
    """Test whether ranks, or values from 0 to 1, are uniform, by Neyman's smooth statistic of four polynomials:

        S = sum_k b_k^2 / v,   b_k = rows^(-1/2) sum_i phi_k(u_i),   k = 1, ..., 4

    phi_k are the Legendre polynomials that are orthonormal on [0, 1], or on the points u = (rank + 1/2) / (draws + 1). S is
    chi-square with 4 degrees of freedom. Here v = 1, or v = 1 + rows / draws for ranks among the same draws, as all ranks share
    the errors of these. S shows smooth deviations, in location, spread, skewness and tails, that are too small for Kolmogorov's
    distance, which is the size.

    Args:
        values: ranks 0, ..., draws, (rows,) or (rows, columns); or without `draws` numbers from 0 to 1, such as
            `result.cdf` gives.
        draws: the number of draws among which values are ranks.
        shared: whether all rows have the same draws, (draws, columns) in `ranks`, or each row has separate draws.

    Returns:
        `Uniformity(statistic, p, size, terms)`.

    Errors:
        FlowsError: fewer than 10 rows or 4 draws; values that are not ranks, or outside [0, 1]; `draws` without `shared`.

    Source:
        Neyman, ""Smooth test" for goodness of fit", 1937; Janic-Wróblewska and Ledwina, "Data driven rank test for two-sample
        problem", 2000, of two samples by sums of squares of linear rank statistics.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> rows, draws = rng.normal(size=2_000), 1.25 * rng.normal(size=10_000)
        >>> test = flows.diagnostics.uniformity(flows.diagnostics.ranks(rows, draws), 10_000, shared=True)
        >>> bool(test.p < 1e-18), round(float(test.size), 2), test.terms.round(1).tolist()
        (True, 0.07, [-1.5, -10.7, 0.2, -2.0])
    """
    x = as_floats(values, "uniformity: values", LEAST)
    if x.ndim > 2:
        raise FlowsError(f"uniformity: values have shape {x.shape}; expected (rows,) or (rows, columns)")
    n, variance, table = len(x), 1.0, None
    if draws is None:
        if (x < 0).any() or (x > 1).any():
            raise FlowsError(
                f"uniformity: values reach from {x.min():g} to {x.max():g}; expected numbers from 0 to 1, or draws= for ranks"
            )
    else:
        m = positive_int(draws, "uniformity: draws")
        if m < ORDER or (x != np.floor(x)).any() or (x < 0).any() or (x > m).any():
            raise FlowsError(
                f"uniformity: values reach from {x.min():g} to {x.max():g} with draws={m}; expected whole numbers from 0 to "
                f"draws, and at least {ORDER} draws"
            )
        if shared is None:
            raise FlowsError(
                "uniformity: expected shared=True for ranks among the same draws, or False where each row has its own"
            )
        variance, table = 1 + n / m * shared, _on_grid(m)
    terms, size = np.empty((ORDER, *x.shape[1:])), np.empty(x.shape[1:])
    for column in np.ndindex(x.shape[1:]):
        u = x[:, *column]
        phi = _legendre(u) if table is None else table[u.astype(int)]
        terms[:, *column] = phi.sum(0) / np.sqrt(n * variance)
        size[column] = _distance(u, draws)
    statistic = (terms**2).sum(0)
    return Uniformity(statistic, chdtrc(ORDER, statistic), size[()], terms)


def _legendre(u: np.ndarray) -> np.ndarray:
    """Return Legendre polynomials 1, ..., 4 that are orthonormal on [0, 1], (rows, 4)."""
    return np.polynomial.legendre.legvander(2 * u - 1, ORDER)[:, 1:] * np.sqrt(2 * np.arange(1, ORDER + 1) + 1)


def _on_grid(draws: int) -> np.ndarray:
    """Return the polynomials on the grid of ranks, orthonormal for uniform ranks, (draws + 1, 4)."""
    points = (np.arange(draws + 1) + 0.5) / (draws + 1)
    q, r = np.linalg.qr(np.polynomial.legendre.legvander(2 * points - 1, ORDER))
    return (q * np.sign(np.diag(r)) * np.sqrt(draws + 1))[:, 1:]


def _distance(u: np.ndarray, draws: int | None) -> float:
    """Return Kolmogorov's distance from uniform values, or ranks."""
    n = len(u)
    if draws is not None:
        below = np.cumsum(np.bincount(u.astype(int), minlength=draws + 1)) / n
        return float(np.abs(below - np.arange(1, draws + 2) / (draws + 1)).max())
    ordered, steps = np.sort(u), np.arange(n + 1) / n
    return float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))


def ecdf_band(
    rows: int, draws: int | None = None, *, shared: bool | None = None, level: float = 0.95, points: int = 100, rng: Any = 0
) -> Band:
    """A band in which the whole empirical distribution function of uniform values lies with probability `level`.

    At a point z it holds the counts c of values at or below z for which 2 min(P(C <= c), P(C >= c)) >= gamma, where C is
    binomial, or for ranks among the same draws beta-binomial. gamma is such that all intervals hold at once in a share `level`
    of simulated functions.

    Args:
        rows: the number of values.
        draws: the number of draws, if values are ranks, plotted at (rank + 1) / (draws + 1); None for numbers from 0 to 1.
        shared: whether all rows have the same draws, as in `uniformity`.
        level: the probability of the band, such as 0.95.
        points: at most this many, evenly from 0 to 1.
        rng: key or seed of the simulated functions.

    Returns:
        `Band(at, lower, upper, pointwise)`.

    Errors:
        FlowsError: a level that is not between 0 and 1; `draws` without `shared`.

    Source:
        Säilynoja, Bürkner and Vehtari, "Graphical Test for Discrete Uniformity and its Applications in Goodness of Fit
        Evaluation and Multiple Sample Comparison", 2022, arXiv:2103.10522, section 2.

    Example:
        >>> import flows
        >>> band = flows.diagnostics.ecdf_band(1_000, points=4)
        >>> band.at.tolist(), band.lower.round(3).tolist(), band.upper.round(3).tolist()
        ([0.25, 0.5, 0.75], [0.218, 0.463, 0.718], [0.282, 0.537, 0.782])
    """
    n, cells = positive_int(rows, "ecdf_band: rows"), positive_int(points, "ecdf_band: points")
    if n * cells > MOST_COUNTS:
        raise FlowsError(
            f"ecdf_band: rows is {n} with points={cells}; expected at most {MOST_COUNTS // cells} rows: take some of them"
        )
    if cells < 2:
        raise FlowsError(f"ecdf_band: points is {points}; expected at least 2")
    if isinstance(level, bool) or not 0 < level < 1:
        raise FlowsError(f"ecdf_band: level is {level!r}; expected a number between 0 and 1, such as 0.95")
    m = None if draws is None else positive_int(draws, "ecdf_band: draws")
    if m is not None and shared is None:
        raise FlowsError("ecdf_band: expected shared=True for ranks among the same draws, or False where each row has its own")
    total, ends = cells_of(m, cells)
    random, at = generator(rng), ends[1:-1] / total
    mass = np.diff(ends) / total
    if m is not None and shared:  # the masses between sorted draws are Dirichlet
        gaps = random.standard_gamma(np.diff(ends), (SIMULATED, len(mass)))
        mass = gaps / gaps.sum(1, keepdims=True)
    counts = random.multinomial(n, mass, SIMULATED).cumsum(1)[:, :-1]
    tails = np.empty((len(at), n + 1))
    worst, c = np.ones(SIMULATED), np.arange(n + 1)
    for j, end in enumerate(ends[1:-1]):
        below = bdtr(c, n, at[j]) if m is None or not shared else _beta_binomial(n, end, total - end)
        tails[j] = 2 * np.minimum(below, 1 - np.concatenate([[0.0], below[:-1]]))
        worst = np.minimum(worst, tails[j, counts[:, j]])
    gamma = np.quantile(worst, 1 - level, method="lower")
    inside = tails >= gamma
    return Band(at, inside.argmax(1) / n, (n - inside[:, ::-1].argmax(1)) / n, float(1 - gamma))


def cells_of(draws: int | None, points: int) -> tuple[int, np.ndarray]:
    """Return a number of ranks, and those at which a band begins and ends cells of equal size, or nearly."""
    total = points if draws is None else draws + 1
    return total, np.unique(np.round(np.linspace(0, total, min(points, total) + 1)).astype(int))


def _beta_binomial(n: int, a: int, b: int) -> np.ndarray:
    """P(C <= c) for c = 0, ..., n, where C is binomial and its probability from Beta(a, b)."""
    c = np.arange(n + 1)
    log_choices = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    return np.minimum(np.cumsum(np.exp(log_choices + betaln(c + a, n - c + b) - betaln(a, b))), 1.0)
