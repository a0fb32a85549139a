"""Energy distance of two samples."""

from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError, positive_int
from flows.diagnostics.arrays import as_samples, chosen, generator, squared_distances, unit_of

EXCEEDED = 50  # permutations with a distance as large, after which p is known well enough
BATCH = 256  # permutations at once


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
