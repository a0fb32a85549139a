"""Counts of codes, and correlations of pairs of columns: are rows like draws?"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import chdtrc, ndtri, stdtr

from flows.core import FlowsError
from flows.diagnostics.arrays import as_samples

EXPECTED = 5.0  # counts, below which a code is counted together with others


class Counts(NamedTuple):
    """Counts of codes in rows and draws.

    Attributes:
        statistic: chi-square of two samples, with `degrees` degrees of freedom.
        p: the probability of a statistic as large.
        size: total variation, half the sum of |share of rows - share of draws| over codes, from 0 to 1.
        degrees: degrees of freedom: the number of codes, rare codes counted as one, less 1.
        codes: codes of rows or draws.
        rows, draws: the share of each code in rows, and in draws.
    """

    statistic: float
    p: float
    size: float
    degrees: int
    codes: np.ndarray
    rows: np.ndarray
    draws: np.ndarray


class Correlations(NamedTuple):
    """Correlations of rows and draws.

    Attributes:
        statistic: the largest difference of a pair, in standard errors.
        p: the least p-value of a pair times the number of pairs, at most 1.
        size: the difference of this pair, |rows less draws|, from 0 to 2.
        pair: the columns of this pair.
        rows, draws: correlations of normal scores, (columns, columns).
        errors: standard errors of the differences, (columns, columns).
    """

    statistic: float
    p: float
    size: float
    pair: tuple[int, int]
    rows: np.ndarray
    draws: np.ndarray
    errors: np.ndarray


def code_counts(rows: Any, draws: Any) -> Counts:
    """Test whether codes occur in draws as often as in rows, by the chi-square of n rows and m draws with counts a_k and b_k:

        statistic = sum_k (a_k (m / n)^(1/2) - b_k (n / m)^(1/2))^2 / (a_k + b_k)

    Codes with an expected count below 5, in rows or in draws, are counted together.

    Args:
        rows, draws: codes, (rows,) and (draws,).

    Returns:
        `Counts(statistic, p, size, degrees, codes, rows, draws)`.

    Errors:
        FlowsError: NaN; fewer than 10 rows; more than one column.

    Source:
        Pearson, "On the probability that two distributions of frequency are really samples from the same population", 1911.

    Example:
        >>> import flows
        >>> test = flows.diagnostics.code_counts([0] * 50 + [1] * 50, [0] * 300 + [1] * 100)
        >>> round(test.statistic, 2), test.degrees, test.size, test.rows.tolist(), test.draws.tolist()
        (23.81, 1, 0.25, [0.5, 0.5], [0.75, 0.25])
    """
    x, y = as_samples("code_counts", rows=rows, draws=draws)
    if x.shape[1] > 1:
        raise FlowsError(f"code_counts: rows have {x.shape[1]} columns; expected one column of codes, (rows,)")
    n, m = len(x), len(y)
    codes, places = np.unique(np.concatenate([x, y]), return_inverse=True)
    counts = np.stack([np.bincount(part, minlength=len(codes)) for part in np.split(places.ravel(), [n])]).astype(float)
    shares = counts / [[n], [m]]
    common = counts[:, np.argsort(counts.sum(0), kind="stable")]
    least = EXPECTED * (n + m) / min(n, m)  # of rows and draws together
    rare = int(np.searchsorted(common.sum(0), least))
    if rare:  # all of these together, and more until they are enough
        rare += int(np.searchsorted(common.sum(0).cumsum()[rare - 1 :], least))
        common = np.concatenate([common[:, :rare].sum(1, keepdims=True), common[:, rare:]], 1)
    a, b = common
    statistic = float(((a * (m / n) ** 0.5 - b * (n / m) ** 0.5) ** 2 / (a + b)).sum())
    degrees = common.shape[1] - 1
    p = float(chdtrc(degrees, statistic)) if degrees else 1.0
    return Counts(statistic, p, float(np.abs(shares[0] - shares[1]).sum() / 2), degrees, codes, *shares)


def correlations(rows: Any, draws: Any) -> Correlations:
    """Compare the correlations of pairs of columns in rows and draws, by normal scores, z = Phi^-1 of the rank among rows and
    draws together, so that neither outliers nor the distributions of single columns count for much:

        t = (r_rows - r_draws) / (s^2 / n + s^2 / m)^(1/2),   s^2 = mean of (z_a z_b - r (z_a^2 + z_b^2) / 2)^2

    with z of mean 0 and variance 1 in each sample, and r its correlation in the sample. The variance s^2 is the mean over rows
    and draws together, as if they were alike; normality is not assumed. p is Student's. A column that is constant in a sample
    has correlation 0 there.

    Args:
        rows, draws: (rows, columns) and (draws, columns), at least 2 columns.

    Returns:
        `Correlations(statistic, p, size, pair, rows, draws, errors)`.

    Errors:
        FlowsError: NaN; fewer than 10 rows; one column.

    Source:
        Steiger and Hakstian, "The asymptotic distribution of elements of a correlation matrix: theory and application", 1982,
        of the variance; van der Waerden, "Order tests for the two-sample problem and their power", 1952, of the scores.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> rows, draws = rng.normal(size=(2_000, 3)), rng.normal(size=(10_000, 3))
        >>> rows[:, 2] += 0.3 * rows[:, 0]
        >>> test = flows.diagnostics.correlations(rows, draws)
        >>> test.pair, round(test.size, 2), bool(test.p < 1e-6), test.errors[0, 2].round(3).item()
        ((0, 2), 0.32, True, 0.024)
    """
    x, y = as_samples("correlations", rows=rows, draws=draws)
    if x.shape[1] < 2:
        raise FlowsError(
            f"correlations: rows have shape {x.shape} and draws {y.shape}; expected (rows, columns) and (draws, "
            "columns), of at least 2 columns"
        )
    scores = np.stack([_normal_scores(column) for column in np.concatenate([x, y]).T], 1)
    n, m = len(x), len(y)
    (r, r_variance), (s, s_variance) = (_correlation(part) for part in np.split(scores, [n]))
    # Pooled, as the variance of few rows alone is smallest where the difference is largest.
    errors, difference = np.sqrt((n * r_variance + m * s_variance) / (n + m) * (1 / n + 1 / m)), np.abs(r - s)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(errors > 0, difference / errors, np.where(difference > 1e-9, np.inf, 0.0))
    first, second = np.triu_indices(x.shape[1], 1)
    at = int(t[first, second].argmax())
    pair = int(first[at]), int(second[at])
    p = min(1.0, 2 * float(stdtr(n + m - 2, -t[pair])) * len(first))
    return Correlations(float(t[pair]), p, float(difference[pair]), pair, r, s, errors)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Return Phi^-1 of ranks; equal values have the middle of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return ndtri((counts.cumsum() - counts / 2)[places.ravel()] / len(values))


def _correlation(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return correlations, and the variance of the terms that rows add to them."""
    n, spread = len(z), z.std(0)
    z = np.where(spread > 1e-9, (z - z.mean(0)) / np.where(spread > 1e-9, spread, 1.0), 0.0)
    r, squares, cubes = z.T @ z / n, z**2, (z**3).T @ z / n
    both, fourth = squares.T @ squares / n, (squares**2).mean(0)
    variance = both - r * (cubes + cubes.T) + r**2 / 4 * (fourth[:, None] + 2 * both + fourth)
    return r, np.maximum(variance, 0.0)
