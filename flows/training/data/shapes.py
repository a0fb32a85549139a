"""What the shape of each column asks of the map that prepares it: to be left unmixed, or to have its tails drawn in."""

import numpy as np

from flows.bijections.arcsinh import QUARTILES

LOOKED_AT = 20_000  # rows
SHARPEST = 1e-3  # of a standard deviation: what a flow is not asked to tell apart
FEWEST = 50  # rows, below which shapes are chance
TAILS = 0.2  # nats by which the best Gaussian of a column has to gain by arcsinh
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of arcsinh, in standard deviations of a normal with the column's quartiles
FOLDS = 5


def sharp(z: np.ndarray, factor: np.ndarray, weights: np.ndarray | None = None, among: np.ndarray | None = None) -> np.ndarray:
    """Which columns of z (n, d), or `among` some of them, have edges and spikes that mixing would blur, which costs more than
    their correlation gains.

    Column i of the whitened rows w, z = factor w, is what those before it do not tell of z_i. It is the better of the two for a
    flow to start from where the entropy of factor_ii w_i is less than that of z_i, as the best product of densities of single
    columns is the better by so much. Entropies are estimated by m-spacings (Vasicek, "A Test for Normality Based on Sample
    Entropy", 1976), and a difference that may be chance does not count.
    """
    z, weights = looked_at(z, weights)
    chosen = np.zeros(z.shape[1], bool)
    if len(z) < FEWEST:
        return chosen
    w = np.linalg.solve(factor, z.T).T
    chance = np.sqrt(2 / len(z))  # twice the standard error of the entropy of a normal
    mixed = np.tril(factor, -1).any(1)
    for i in map(int, np.flatnonzero(mixed if among is None else mixed & among)):
        alone, freed = entropy(z[:, i], weights), entropy(w[:, i], weights) + np.log(factor[i, i])
        chosen[i] = alone < freed - chance
    return chosen


def entropy(x: np.ndarray, weights: np.ndarray | None = None) -> float:
    """In nats. Values closer than a thousandth of a standard deviation count as so far apart."""
    if not x.std():
        return -np.inf
    order = np.argsort(x, kind="stable")
    x, mass = x[order], (np.full(len(x), 1.0) if weights is None else weights[order])
    total = np.cumsum(mass) / mass.sum()
    m = max(2, round(np.sqrt(len(x)) / 2))
    apart, share = np.maximum(x[m:] - x[:-m], SHARPEST * x.std()), total[m:] - total[:-m]
    some = share > 0  # rows of next to no weight have none
    return float(np.average(np.log(apart[some] / share[some]), weights=share[some]))


def heavy_tails(y: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the columns y (n, d): which have tails so heavy that arcsinh pays, and the shift and scale of it.

    It pays where the Gaussian of arcsinh((y - shift) / scale) gives rows that it has not seen more than the Gaussian of y does.
    """
    y, weights = looked_at(y, weights)
    heavy, shift, scale = np.zeros(y.shape[1], bool), np.zeros(y.shape[1]), np.ones(y.shape[1])
    if len(y) < FEWEST:
        return heavy, shift, scale
    fold = np.random.default_rng(0).permutation(len(y)) % FOLDS
    w = np.ones(len(y)) if weights is None else weights
    for j, column in enumerate(y.T):
        low, middle, high = np.quantile(column, [0.25, 0.5, 0.75])
        if not high > low:
            continue
        before = _score(column, np.zeros(len(y)), w, fold)
        tried = [(high - low) / QUARTILES * times for times in SCALES]
        scores = []
        for width in tried:
            u = (column - middle) / width
            scores.append(_score(np.arcsinh(u), -np.log(width) - np.log(np.hypot(1, u)), w, fold))
        best = int(np.argmax(scores))
        if scores[best] > before + TAILS:
            heavy[j], shift[j], scale[j] = True, middle, tried[best]
    return heavy, shift, scale


def _score(y: np.ndarray, log_slope: np.ndarray, weights: np.ndarray, fold: np.ndarray) -> float:
    """The mean log-density, in nats, of values under the Gaussian of those in other folds."""
    total = 0.0
    size = np.abs(y).max() or 1.0
    y = y / size  # squares neither overflow nor vanish
    log_slope = log_slope - np.log(size)
    for number in range(FOLDS):
        out = fold == number
        if not weights[out].sum() or not weights[~out].sum():
            continue
        mean = np.average(y[~out], weights=weights[~out])
        std = np.sqrt(np.average(np.square(y[~out] - mean), weights=weights[~out])) + 1e-12
        total += weights[out] @ (log_slope[out] - 0.5 * np.square((y[out] - mean) / std) - np.log(std))
    return float(total / weights.sum())


def looked_at(x: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Some rows, spread over all, of those that count."""
    if weights is not None:
        x, weights = x[weights > 0], weights[weights > 0]
    every = -(-len(x) // LOOKED_AT)
    return x[::every], None if weights is None else weights[::every]
