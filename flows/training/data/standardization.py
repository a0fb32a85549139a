"""The layers that standardise rows. All rows decide which layers; the choice is a few numbers. It is measured on the training
rows, in NumPy and float64, and the measured numbers become params; each fold measures the same choice on its rows.

Columns of vectors with heavy tails go through `Arcsinh`, each by itself, or all together where whole rows are far out. Then
all go through `Standardize`, or through `Whiten`, which takes out of a column what the columns before it predict, where this
is nearly all of it. `Whiten` comes before `Arcsinh` where this gives a better Gaussian, as arcsinh does not preserve sums.
Images, and vectors under "columns", go through `Standardize` alone. Choices are compared by the Gaussian behind them, which is
measured on some rows and scored on the others.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from flows.bijections.composition import unit_of
from flows.bijections.quantile_maps import Arcsinh, chooser, drawn_in, drawn_out
from flows.bijections.scaling import Standardize, scaled, unscaled
from flows.bijections.whiten import MOST_COLUMNS, Whiten, correlation_factor, left_unmixed, unwhitened, whitened
from flows.core import BijectionInit, pieces_of
from flows.training.data.facts import Facts
from flows.training.data.gaussian import FEWEST, LOST, Scale, Weights, folds_of, losses_of, moments, quartiles, shrinkage_of
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
IN_CACHE, IN_MEMORY = 2**17, 2**22  # numbers in a piece, so that little new memory is needed


class Measured(NamedTuple):
    """A layer that was measured."""

    layer: BijectionInit
    fixed: dict[str, np.ndarray]  # its measured params
    direct: Callable[[np.ndarray], tuple[np.ndarray, Any]]  # gives rows behind it, and its log-det, of each row or one for all
    inverse: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(cls, layer: BijectionInit, fixed: Mapping[str, Any], dtype: Any = float) -> "Measured":
        """Make it of measured params, which are rounded to the dtype of a model's params."""
        fixed = {name: np.asarray(array, dtype).astype(float) for name, array in fixed.items()}
        return cls(layer, fixed, *FORMULAS[layer.constructor](fixed, **layer.arguments))


def _of_scale(fixed: dict, as_is: Any) -> tuple[Callable, Callable]:
    return lambda x: scaled(fixed, x, math.prod(x.shape[1:-1]), np), partial(unscaled, fixed)


def _of_arcsinh(fixed: dict, features: Any, together: bool) -> tuple[Callable, Callable]:
    which = chooser(features, "Arcsinh")(len(fixed["shift"]))
    direct = partial(_in_pieces, lambda x: drawn_in(fixed, which, x, together, np))
    return direct, partial(drawn_out, fixed, which, together=together, xp=np)


def _of_whiten(fixed: dict, **_: Any) -> tuple[Callable, Callable]:
    return partial(whitened, fixed, xp=np), partial(unwhitened, fixed, xp=np)


FORMULAS: dict[Any, Callable] = {Standardize: _of_scale, Arcsinh: _of_arcsinh, Whiten: _of_whiten}  # in NumPy, both ways


class Scaled(NamedTuple):
    """`Standardize` of the columns, or channels, that do not stay as they are."""

    as_is: np.ndarray

    def measured(self, x: np.ndarray, weights: Weights) -> Measured:
        mean, std = moments(x, weights)
        fixed = {"mean": np.where(self.as_is, 0.0, mean), "std": np.where(self.as_is | ~(std > 0), 1.0, std)}
        return Measured.of(Standardize(as_is=_numbers(self.as_is)), fixed)


class DrawnIn(NamedTuple):
    """`Arcsinh` of some columns, each by itself or all together; its shift and scale are chosen, and not measured."""

    which: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    together: bool = False

    def measured(self, x: np.ndarray, weights: Weights) -> Measured:
        which, together = self.which, self.together
        fixed = {"shift": np.where(which, self.shift, 0.0), "scale": np.where(which, self.scale, 1.0)}
        return Measured.of(Arcsinh(None if together and which.all() else _numbers(which), together), fixed)


class Freed(NamedTuple):
    """`Whiten`, which takes out of columns what the columns before them predict; columns marked by `alone` stay unmixed.

    With `in_quartiles` the units are quartiles, which no single row moves, as for an `Arcsinh` behind it.
    """

    as_is: np.ndarray
    alone: np.ndarray
    shrinkage: float = 0.0
    in_quartiles: bool = False

    def measured(self, x: np.ndarray, weights: Weights) -> Measured:
        (mean, std), z = free_columns(x, weights, self.as_is)
        free, alone, factor = np.flatnonzero(~self.as_is), self.as_is.copy(), np.eye(len(self.as_is))
        alone[free] = self.alone
        free_factor = correlation_factor(z, self.shrinkage, weights=weights, xp=np)
        factor[np.ix_(free, free)] = np.tril(left_unmixed(free_factor, self.alone, np))
        if self.in_quartiles:
            median, unit = quartiles(x)
            median, unit = np.where(self.as_is, 0.0, median), np.where(self.as_is, 1.0, np.where(unit > 0, unit, std))
            # x = mean + std factor w, where w of a column that is alone is offset + inner y, with y the output of the layer
            offset, inner = np.where(alone, (median - mean) / std, 0.0), np.where(alone, unit / std, 1.0)
            mean, std, factor = mean + std * (factor @ offset), unit, (std / unit)[:, None] * factor * inner[None]
        fixed = {"mean": mean, "std": std, "factor": factor}
        layer = Whiten(self.shrinkage, as_is=_numbers(self.as_is), unmixed=_numbers(alone & ~self.as_is))
        return Measured.of(layer, fixed)


Step = Scaled | DrawnIn | Freed


class Choice(NamedTuple):
    """A choice in numbers: the steps that rows go through, in order, and the shrinkage of the correlations at which a flow
    behind them starts."""

    steps: tuple[Step, ...] = ()
    shrinkage: float = 0.0


class Pipeline(NamedTuple):
    """The layers that standardise rows, in order; possibly none."""

    steps: tuple[Measured, ...] = ()
    shrinkage: float = 0.0  # of the correlations at which a flow behind them starts
    dtype: np.dtype = np.dtype(float)  # of scaled images

    @property
    def layers(self) -> tuple[BijectionInit, ...]:
        return tuple(step.layer for step in self.steps)

    @property
    def params(self) -> tuple[Any, ...]:
        return tuple({"fixed": step.fixed} for step in self.steps)

    def direct(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows behind all layers, and the log-dets, of each row or one for all, computed in pieces."""
        if not self.steps:
            return x, np.zeros(1)
        if x.ndim == 2:
            return _in_pieces(self.through, np.asarray(x, float), IN_MEMORY)
        made = [self.through(x[piece]) for piece in pieces_of(len(x), x.shape[1:])]
        return np.concatenate([y.astype(self.dtype) for y, _ in made]), made[0][1]

    def through(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows behind all layers, and the log-dets."""
        total = np.zeros(1)
        for step in self.steps:
            x, log_det = step.direct(x)
            total = total + log_det
        return x, total

    def deviations(self, x: np.ndarray, behind: bool = True) -> np.ndarray:
        """Return the columns of rows behind all layers, or before them, in standard deviations from the middle."""
        for step in self.steps[::-1] if behind else ():
            x = step.inverse(x)
        middle, deviation, _ = unit_of([*zip(self.layers, self.params, strict=True)], x.shape[-1])
        return (x - middle) / deviation


def measure(choice: Choice, x: np.ndarray, weights: Weights, dtype: Any = float) -> Pipeline:
    """Measure the chosen layers, each on the rows behind the layers before it, in params of this dtype."""
    measured = list[Measured]()
    for step in choice.steps:
        x = measured[-1].direct(x)[0] if measured else x
        measured.append(Measured.of(*step.measured(x, weights)[:2], dtype))
    return Pipeline(tuple(measured), choice.shrinkage, dtype)


def free_columns(x: np.ndarray, weights: Weights, as_is: np.ndarray) -> tuple[Scale, np.ndarray]:
    """Return the scale of all columns, and in this scale the columns that do not stay as they are."""
    scaling = Scaled(as_is).measured(x, weights)
    z = scaling.direct(x)[0]
    return Scale(**scaling.fixed), z[:, ~as_is] if as_is.any() else z


def _in_pieces(function: Callable, x: np.ndarray, most: int = IN_CACHE) -> tuple[np.ndarray, np.ndarray]:
    """Return function(x) of rows, and their log-dets, in pieces that fit into a processor's cache, outside of which many small
    steps take six times as long."""
    rows, y, log_dets = max(most // x.shape[1], 1), np.empty(x.shape), []
    for i in range(0, max(len(x), 1), rows):
        y[i : i + rows], log_det = function(x[i : i + rows])
        log_dets.append(log_det)
    return y, log_dets[0] if np.shape(log_dets[0]) != (len(x[:rows]),) else np.concatenate(log_dets)


def _numbers(which: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(which)))


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
    as_is = facts.columns.as_is | facts.view.curved
    if options.standardize is False or (facts.view.curved.any() and as_is.all()):
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
