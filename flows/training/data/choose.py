"""The choice of the layers that standardise rows, as numbers from which `measure.py` makes layers. All rows decide it.

Columns of vectors with heavy tails go through `Arcsinh`, each by itself, or all together where whole rows are far out. Then
all go through `Standardize`, or through `Whiten`, which takes out of a column what the columns before it predict, where this
is nearly all of it. `Whiten` comes before `Arcsinh` where this gives a better Gaussian, as arcsinh does not preserve sums.
Images, and vectors under "columns", go through `Standardize` alone. Choices are compared by the Gaussian behind them, which is
measured on some rows and scored on the others.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from flows.bijections.whiten import MOST_COLUMNS, correlation_factor
from flows.training.data.facts import Facts
from flows.training.data.gaussian import FEWEST, LOST, Weights, folds_of, losses_of, moments, quartiles, shrinkage_of
from flows.training.data.measure import Choice, DrawnIn, Freed, Scaled, Step, free_columns, measure
from flows.training.data.table import Rows
from flows.training.options import Options

# A column is whitened if the columns before it leave at most this much of it. With few rows for each column networks overfit
# the rest, once it is scaled up.
FREED = 0.2  # of a standard deviation, with few rows
FREED_OF_MANY = 0.3  # of a standard deviation, with many rows
MANY_ROWS = 50  # rows for each column that count as many

FEW_ROWS = 25  # for each column; with fewer, a flow starts at a shrunk correlation
NOT_NORMAL = 3.0  # standard errors of the kurtosis
LOOKED_AT = 20_000  # rows
SHARPEST = 1e-3  # of a standard deviation: a distance that a flow need not resolve
FEWEST_ROWS = 50  # with fewer, shapes are chance
TAILS = 0.2  # nats by which the best Gaussian has to gain by arcsinh
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of arcsinh, in standard deviations of a normal with the column's quartiles
ROW_SCALE = 0.5  # of arcsinh of rows, in standard deviations of normals with the columns' quartiles
ENOUGH_ROWS = 10  # for each column, from which the Gaussian of all columns decides where tails are drawn in
MOST_NUMBERS = 2**20  # by which it decides


class Vectors(NamedTuple):
    """Rows by which layers are chosen. With `mixing` each column is whitened by all before it, otherwise only where these
    predict it."""

    x: np.ndarray
    weights: Weights
    as_is: np.ndarray
    mixing: bool = False

    def take(self, index: Any) -> "Vectors":
        return self._replace(x=self.x[index], weights=None if self.weights is None else self.weights[index])

    @property
    def some(self) -> "Vectors":
        """Some rows of positive weight, spread over all."""
        rows = self if self.weights is None else self.take(self.weights > 0)
        return rows.take(slice(None, None, -(-len(rows.x) // LOOKED_AT)))

    def behind(self, steps: tuple[Step, ...]) -> "Vectors":
        return self._replace(x=measure(Choice(steps), self.x, self.weights).through(self.x)[0])

    @property
    def scaled(self) -> "Vectors":
        """The columns that do not stay as they are, in standard deviations."""
        return self._replace(x=free_columns(*self[:3])[1], as_is=self.as_is[~self.as_is])


def choose(rows: Rows, facts: Facts, options: Options) -> Choice:
    """Choose layers for the mean and standard deviation of each column, or channel; for vectors also for tails and
    correlation, unless the options forbid it."""
    as_is = facts.columns.as_is
    if options.standardize is False or (facts.columns.curved.any() and as_is.all()):
        return Choice()
    if rows.x.ndim != 2 or options.standardize not in (True, "whiten"):
        return Choice((Scaled(as_is),))
    every = Vectors(np.asarray(rows.x, float), rows.weights, as_is, facts.view.mixing)
    some = every.some
    tails = _tails(some)
    freed = _freed_first(some) if tails else None
    if freed is not None and _loss(some, freed.steps) < _loss(some, _tails_first(some, tails).steps) - TAILS:
        return _freed_first(every) or _tails_first(every, tails)
    return _tails_first(every, tails)


def _tails_first(rows: Vectors, tails: tuple[Step, ...]) -> Choice:
    """Choose to draw tails in first, and then to standardise or whiten columns."""
    if len(rows.as_is) > MOST_COLUMNS or rows.as_is.all():
        return Choice((*tails, Scaled(rows.as_is)))
    z = rows.behind(tails).scaled
    shrinkage = shrinkage_of(z.x, z.weights)
    alone = _alone(z, shrinkage)
    last = Scaled(rows.as_is) if alone.all() and not rows.mixing else Freed(rows.as_is, alone, shrinkage)
    return Choice((*tails, last), shrinkage_of_start(z.x, shrinkage, z.weights))


def _freed_first(rows: Vectors) -> Choice | None:
    """Choose to whiten columns that the columns before them predict, and then to draw tails in; None without such columns, or
    with too many columns."""
    free, columns = int((~rows.as_is).sum()), len(rows.as_is)
    if not 1 < free <= columns <= MOST_COLUMNS or len(rows.x) < FEWEST * free:
        return None
    alone = _alone(rows._replace(mixing=False).scaled)
    if alone.all():
        return None
    freed = Freed(rows.as_is, alone, in_quartiles=True)
    behind = rows.behind((freed,))
    rest = _tails_first(behind, heavy_tails(behind))
    return rest._replace(steps=(freed, *rest.steps))


def _tails(rows: Vectors) -> tuple[Step, ...]:
    """Choose to draw in heavy tails of columns, or of whole rows, where the Gaussian of all columns gains by it."""
    tails, free, (middle, unit) = heavy_tails(rows), ~rows.as_is, quartiles(rows.x)
    few = len(rows.x) < max(FEWEST_ROWS, ENOUGH_ROWS * free.sum())
    if few or not 1 < free.sum() <= len(free) <= MOST_COLUMNS or not (unit > 0)[free].all():
        return tails
    tried = [*tails, DrawnIn(free, middle, ROW_SCALE * unit, together=True)]
    some = rows.take(slice(None, None, -(-rows.x.size // MOST_NUMBERS)))
    losses = [_loss(some, (step,), free) for step in tried]
    least = int(np.argmin(losses))
    return (tried[least],) if losses[least] < _loss(some, (), free) - TAILS else ()


def _loss(rows: Vectors, steps: tuple[Step, ...], columns: Any = slice(None)) -> float:
    """Return the loss of the closed-form Gaussian of some columns behind these steps, each measured on other rows; only the
    shift and scale of `DrawnIn` come from all rows."""
    x, w, total = rows.x, np.ones(len(rows.x)) if rows.weights is None else rows.weights, 0.0
    for others, out in folds_of(w):
        pipeline = measure(Choice(steps), x[others], w[others])
        (y, _), (z, log_det) = pipeline.through(x[others]), pipeline.through(x[out])
        y, z = y[:, columns], z[:, columns]
        mean, std = moments(y, w[others])
        std = np.where(std > 0, std, 1.0)
        factor = correlation_factor((y - mean) / std, weights=w[others], xp=np)
        total += w[out] @ (losses_of((z - mean) / std, factor) + np.log(std).sum() - log_det)
    return float(total / w.sum())


def _alone(rows: Vectors, shrinkage: float = 0.0) -> np.ndarray:
    """Mark columns z that are scaled alone: columns that the others leave large, unless all are mixed, and columns with edges
    and spikes, where blurring them costs more than their correlation gains.

    Column i of the whitened rows w, z = factor w, is the part of z_i that the columns before it do not predict. A flow starts
    better from it where the entropy of factor_ii w_i is less than the entropy of z_i: this difference is the gain of the best
    product of densities of single columns. Entropies are estimated by m-spacings (Vasicek, "A Test for Normality Based on
    Sample Entropy", 1976), and a difference that may be chance does not count.
    """
    n, d = rows.x.shape
    factor = correlation_factor(rows.x, shrinkage, weights=rows.weights, xp=np)
    left = FREED if n < MANY_ROWS * d else FREED_OF_MANY
    explained = np.full(d, True) if rows.mixing else np.diagonal(factor) <= left
    alone, (z, weights, *_) = ~explained, rows.some
    if len(z) >= FEWEST_ROWS:
        w = np.linalg.solve(factor, z.T).T
        chance = np.sqrt(2 / len(z))  # twice the standard error of the entropy of a normal
        for i in map(int, np.flatnonzero(np.tril(factor, -1).any(1) & explained)):
            freed = entropy(w[:, i], weights) + np.log(factor[i, i])
            alone[i] = entropy(z[:, i], weights) < freed - chance
    return alone


def shrinkage_of_start(z: np.ndarray, shrinkage: float, weights: Weights = None) -> float:
    """Return the shrinkage of the correlations from which a flow starts: `shrinkage`, which is best for the Gaussian itself,
    and more where rows z (n, d) are few and not normal. A flow that starts at correlations by chance learns less of the rest
    (half a nat less on breast cancer). Normal rows are best left at their correlation, as training would have to learn it.

    Normality is judged by Mardia's kurtosis, the mean of |y|^4 over rows y of L^-1 z, L L' their correlation ("Measures of
    Multivariate Skewness and Kurtosis with Applications", Biometrika 57, 1970, section 3).
    """
    n, d = z.shape
    few = (FEW_ROWS * d / n - 1) / 2
    if d == 1 or few <= 0 or n < FEWEST * d:
        return shrinkage
    factor = correlation_factor(z, weights=weights, xp=np)
    if np.diagonal(factor).min() <= LOST:
        return shrinkage
    distances = np.square(solve_triangular(factor, z.T, lower=True)).sum(0)
    kurtosis = float(np.average(np.square(distances), weights=weights)) / (d * (d + 2))
    beyond_chance = (kurtosis - (n - 1) / (n + 1)) / np.sqrt(8 / (d * (d + 2) * n))
    return shrinkage if beyond_chance < NOT_NORMAL else round(max(shrinkage, min(few, 1.0)), 2)


def entropy(x: np.ndarray, weights: Weights = None) -> float:
    """Return the entropy in nats. Values closer than a thousandth of a standard deviation count as that far apart."""
    if not x.std():
        return -np.inf
    order = np.argsort(x, kind="stable")
    x, mass = x[order], (np.full(len(x), 1.0) if weights is None else weights[order])
    total = np.cumsum(mass) / mass.sum()
    m = max(2, round(np.sqrt(len(x)) / 2))
    apart, share = np.maximum(x[m:] - x[:-m], SHARPEST * x.std()), total[m:] - total[:-m]
    some = share > 0  # rows of tiny weight have no share
    return float(np.average(np.log(apart[some] / share[some]), weights=share[some]))


def heavy_tails(rows: Vectors) -> tuple[DrawnIn, ...]:
    """Choose the columns with tails so heavy that arcsinh pays, each drawn in by itself; none if there are none.

    Arcsinh pays where the Gaussian of arcsinh((y - shift) / scale) has a higher score on held-out rows than the Gaussian of y.
    """
    y, weights, *_ = rows.some
    if len(y) < FEWEST_ROWS:
        return ()
    w = np.ones(len(y)) if weights is None else weights
    (middle, unit), folds, nothing = quartiles(y), [*folds_of(w)], np.zeros(len(y))
    which, scale = np.zeros(y.shape[1], bool), np.ones(y.shape[1])
    for j in map(int, np.flatnonzero((unit > 0) & ~rows.as_is)):
        tried, scores = [unit[j] * times for times in SCALES], []
        for width in tried:
            u = (y[:, j] - middle[j]) / width
            scores.append(_score(np.arcsinh(u), -np.log(width) - np.log(np.hypot(1, u)), w, folds))
        best = int(np.argmax(scores))
        which[j], scale[j] = scores[best] > _score(y[:, j], nothing, w, folds) + TAILS, tried[best]
    return (DrawnIn(which, middle, scale),) if which.any() else ()


def _score(y: np.ndarray, log_slope: np.ndarray, w: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the mean log-density, in nats, of values under the Gaussian of the values in other folds."""
    total = 0.0
    size = np.abs(y).max() or 1.0
    y = y / size  # squares neither overflow nor vanish
    log_slope = log_slope - np.log(size)
    for others, out in folds:
        mean = np.average(y[others], weights=w[others])
        std = np.sqrt(np.average(np.square(y[others] - mean), weights=w[others])) + 1e-12
        total += w[out] @ (log_slope[out] - 0.5 * np.square((y[out] - mean) / std) - np.log(std))
    return float(total / w.sum())
