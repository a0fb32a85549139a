"""Are rows like draws, all columns together? Counts of codes, correlations, energy distance, distances to training rows; and
Holm's rule for several tests at once."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri, stdtr

from flows.core import FlowsError, on_a_line, positive_int
from flows.diagnostics.arrays import TOGETHER, as_samples, chosen, generator, squared_distances, unit_of

EXPECTED = 5.0  # counts, below which a code is counted together with others
EXCEEDED = 50  # permutations with a distance as large, after which p is known well enough
BATCH = 256  # permutations at once


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


class Energy(NamedTuple):
    """Energy distance of two samples.

    Attributes:
        statistic: n m / (n + m) times the energy distance of the n rows and m draws.
        p: the probability of a statistic as large, by permutations.
        size: the energy coefficient, from 0 for equal distributions to 1, without bias, and not below 0.
        permutations: the number of permutations made.
    """

    statistic: float
    p: float
    size: float
    permutations: int


def energy_distance(rows: Any, draws: Any, *, most: int = 1_000, permutations: int = 9_999, rng: Any = 0) -> Energy:
    """Energy distance between rows and draws, over all columns, each divided by its standard deviation in both together:

        E = 2 E|X - Y| - E|X - X'| - E|Y - Y'|,   coefficient H = E / (2 E|X - Y|)

    E is 0 for equal distributions alone, and shows location above all. p = (1 + #(permuted >= E)) / (1 + permutations), or
    50 / permutations where 50 are as large before all are made, which is equally valid. For the coefficient the means E|X - X'|
    are over pairs of different rows.

    Args:
        rows, draws: (rows, columns) and (draws, columns), or (rows,) and (draws,).
        most: rows, and draws, that are used at most, drawn at random; the cost grows with the square.
        permutations: at most this many; p is at least 1 / (1 + permutations).
        rng: key or seed.

    Returns:
        `Energy(statistic, p, size, permutations)`.

    Errors:
        FlowsError: NaN or inf; fewer than 10 rows; different columns.

    Source:
        Székely and Rizzo, "Energy statistics: A class of statistics based on distances", 2013; Besag and
        Clifford, "Sequential Monte Carlo p-values", 1991, of the stop.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> test = flows.diagnostics.energy_distance(rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 0.5)
        >>> test.p, round(test.size, 3)
        (0.0001, 0.055)
    """
    x, y = as_samples("energy_distance", rows=rows, draws=draws)
    random = generator(rng)
    x, y = (chosen(sample, positive_int(most, "energy_distance: most"), random) for sample in (x, y))
    n, m, total = len(x), len(y), positive_int(permutations, "energy_distance: permutations")
    if min(n, m) < 2:
        raise FlowsError(f"energy_distance: most is {most}; expected at least 2")
    both = np.concatenate([x, y])
    mean, scale = unit_of(both)
    z = (both - mean) / scale
    apart = np.sqrt(squared_distances(z, z))
    np.fill_diagonal(apart, 0.0)
    between, rows_, draws_ = apart[:n, n:].mean(), apart[:n, :n].sum(), apart[n:, n:].sum()
    energy = 2 * between - rows_ / n**2 - draws_ / m**2
    fair = 2 * between - rows_ / (n * (n - 1)) - draws_ / (m * (m - 1))
    p, made = _permuted(apart, n, energy, total, random)
    return Energy(float(n * m / (n + m) * energy), p, max(0.0, float(fair / (2 * between))) if between > 0 else 0.0, made)


def _permuted(apart: np.ndarray, n: int, energy: float, total: int, random: np.random.Generator) -> tuple[float, int]:
    """Return the p-value, and the number of permutations. With weights w of 1 / n and -1 / m the energy is -w' D w, also for a
    centred D, for which float32 suffices."""
    m, scale = len(apart) - n, max(float(apart.max()), 1e-300)
    centred = apart - apart.mean(0) - apart.mean(1)[:, None] + apart.mean()
    single = (centred / scale).astype(np.float32)
    least, met, made = energy / scale * (1 - 1e-5) - 1e-9, 0, 0  # with rounding, equal distances are as large
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)]).astype(np.float32)
    while made < total:
        count = min(BATCH, total - made)
        w = random.permuted(np.broadcast_to(weights, (count, n + m)), axis=1)
        reached = met + np.cumsum(-np.einsum("bi,bi->b", w @ single, w) >= least)
        if reached[-1] >= EXCEEDED:
            stop = int(np.argmax(reached >= EXCEEDED)) + 1
            return EXCEEDED / (made + stop), made + stop
        met, made = int(reached[-1]), made + count
    return (1 + met) / (1 + total), total


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


def nearest_distances(x: np.ndarray, known: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return for each row the distance to the nearest known row, in units of `scale`."""
    return _nearest(x, known, scale)[0]


def _nearest(x: np.ndarray, known: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the distance to the nearest known row, and the place of that; in pieces."""
    z, train, middle = x / scale, known / scale, known.mean(0) / scale  # near 0, differences of squares keep their digits
    step = max(1, TOGETHER // len(known))
    which = np.concatenate(
        [squared_distances(z[i : i + step] - middle, train - middle).argmin(1) for i in range(0, len(z), step)]
    )
    return np.sqrt(((z - train[which]) ** 2).sum(1)), which


def holm(p: Any) -> np.ndarray:
    """Raise p-values of several tests, so that by chance any of them is below a level with at most this probability:

        adjusted p_(i) = max_{j <= i} min(1, (tests - j + 1) p_(j)),   p_(1) <= p_(2) <= ...

    whatever the tests have in common.

    Args:
        p: p-values, (tests,); NaN is a test without a result, which does not count.

    Returns:
        Adjusted p-values, (tests,), in their order.

    Errors:
        FlowsError: values outside [0, 1]; more than one axis.

    Source:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    Example:
        >>> import flows
        >>> flows.diagnostics.holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    try:
        values = np.asarray(p, float)
    except (TypeError, ValueError):
        values = np.full((1, 1), np.nan)
    if values.ndim != 1 or (values < 0).any() or (values > 1).any():
        raise FlowsError(f"holm: p is {on_a_line(p)}; expected p-values from 0 to 1, of shape (tests,)")
    order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]  # NaN is last
    adjusted = np.full(values.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted
