"""The layers that standardise rows: they are chosen and measured in NumPy and float64, and what is found becomes their params.

Columns of vectors with heavy tails go through `Arcsinh`, each by itself, or all together where it is rows that are far out.
Then all go through `Standardize`, or through `Whiten`, which frees a column of those before it where these all but tell it. A
`Whiten` comes before `Arcsinh` where that gives a better Gaussian, as behind arcsinh sums are no sums. Images, and vectors
under "columns", go through `Standardize` alone. Folds choose layers on all rows, and measure all but `Arcsinh` anew on their
own training rows.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from flows.bijections.arcsinh import QUARTILES, Arcsinh, drawn_in, drawn_out
from flows.bijections.composition import unit_of
from flows.bijections.scaling import Standardize, scaled, unscaled
from flows.bijections.whiten import MOST_COLUMNS, Whiten, correlation_factor, left_unmixed, unwhitened, whitened
from flows.core import BijectionInit, pieces_of
from flows.training.data.columns import ColumnFacts
from flows.training.data.gaussian import FEWEST, losses_of, moments, shrinkage_of, shrinkage_of_start
from flows.training.data.shapes import FEWEST as FEWEST_ROWS
from flows.training.data.shapes import FOLDS, TAILS, heavy_tails, looked_at, sharp
from flows.training.data.table import Rows
from flows.training.options import Options

# Of a standard deviation: what is left of a column that those before it all but tell, of which it is freed. With few rows for
# each column networks overfit what is left, once it is as loud as the rest.
FREED = 0.2  # of a standard deviation, where rows are few
FREED_OF_MANY = 0.3  # of a standard deviation, where they are many
MANY_ROWS = 50  # rows for each column, from which they are many

ENOUGH_ROWS = 10  # for each column, from which the Gaussian of all columns tells where tails are drawn in
IN_CACHE, IN_MEMORY = 2**17, 2**22  # numbers that are worked on together, so that there is little new memory
MOST_NUMBERS = 2**20  # of which it tells
OF_ROWS = 0.5  # the scale of arcsinh of rows, in standard deviations of normals with the columns' quartiles

Weights = np.ndarray | None


class Measured(NamedTuple):
    """A layer that was measured.

    Attributes:
        layer: the constructor's value.
        fixed: what was measured, its params.
        direct: of rows, gives them behind it and its log-det, of each row or one for all.
        inverse: of rows behind it, gives them before it.
        again: of rows and their weights, gives the same layer measured on these.
    """

    layer: BijectionInit
    fixed: dict[str, np.ndarray]
    direct: Callable[[np.ndarray], tuple[np.ndarray, Any]]
    inverse: Callable[[np.ndarray], np.ndarray]
    again: Callable[[np.ndarray, Weights], "Measured"]

    @property
    def params(self) -> dict[str, dict[str, np.ndarray]]:
        return {"fixed": self.fixed}


class Pipeline(NamedTuple):
    """The layers that standardise rows, in order.

    Attributes:
        steps: the layers, measured.
        shrinkage: of the correlations from which a flow starts behind them.
        dtype: in which images are scaled, piece by piece.
    """

    steps: tuple[Measured, ...]
    shrinkage: float
    dtype: np.dtype

    @property
    def layers(self) -> tuple[BijectionInit, ...]:
        return tuple(step.layer for step in self.steps)

    @property
    def params(self) -> tuple[Any, ...]:
        return tuple(step.params for step in self.steps)

    def direct(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows behind all layers, and the log-dets, of each row or one for all."""
        if x.ndim == 2:
            return _in_pieces(partial(_through, self.steps), np.asarray(x, float), IN_MEMORY)
        made = [_through(self.steps, x[piece]) for piece in pieces_of(len(x), x.shape[1:])]
        return np.concatenate([y.astype(self.dtype) for y, _ in made]), made[0][1]

    def deviations(self, y: np.ndarray) -> np.ndarray:
        """The columns of rows behind all layers, in standard deviations from their middle, as the layers measured these."""
        for step in self.steps[::-1]:
            y = step.inverse(y)
        return self.deviations_before(y)

    def deviations_before(self, x: np.ndarray) -> np.ndarray:
        """The same of rows before all layers."""
        middle, deviation, _ = unit_of([(step.layer, step.params) for step in self.steps], x.shape[-1])
        return (x - middle) / deviation

    def again(self, x: np.ndarray, weights: Weights) -> "Pipeline":
        """What was chosen, measured on other rows."""
        return self._replace(steps=measured_again(self.steps, x, weights))


def pipeline_of(rows: Rows, columns: ColumnFacts, options: Options, mixing: bool, dtype: np.dtype) -> Pipeline:
    """Mean and standard deviation of each column, or channel; of vectors the tails and the correlation too, unless they are to
    stay. With `mixing` each column is freed of all before it, otherwise those that these all but tell."""
    x, weights, as_is = rows.x, rows.weights, columns.as_is
    if x.ndim != 2 or options.standardize not in (True, "whiten"):
        return Pipeline((_scaling(x, weights, as_is),), 0.0, dtype)
    x = np.asarray(x, float)
    tails, before = _tails(*looked_at(x, weights), as_is), list[Measured]()
    if tails and _freeing_is_better(*looked_at(x, weights), as_is, mixing, tails):
        freeing = _freeing(x, weights, as_is)
        if freeing is not None:
            before, x = [freeing], freeing.direct(x)[0]
            tails = _tails_of_columns(x, weights, as_is)
    steps, shrinkage = _tails_first(x, weights, as_is, mixing, tails)
    return Pipeline((*before, *steps), shrinkage, dtype)


def _freeing_is_better(x: np.ndarray, weights: Weights, as_is: np.ndarray, mixing: bool, tails: list[Measured]) -> bool:
    """Whether columns are to be freed of those before them first, and then to have their tails drawn in."""
    freeing = _freeing(x, weights, as_is)
    if freeing is None:
        return False
    behind = freeing.direct(x)[0]
    others = (freeing, *_tails_first(behind, weights, as_is, mixing, _tails_of_columns(behind, weights, as_is))[0])
    steps = _tails_first(x, weights, as_is, mixing, tails)[0]
    return _held_out_loss(others, x, weights) < _held_out_loss(steps, x, weights) - TAILS


def _tails(x: np.ndarray, weights: Weights, as_is: np.ndarray) -> list[Measured]:
    """`Arcsinh` of columns with heavy tails, or of whole rows, where the Gaussian of all columns gains by it."""
    tails, free = _tails_of_columns(x, weights, as_is), np.flatnonzero(~as_is)
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    few = len(x) < max(FEWEST_ROWS, ENOUGH_ROWS * len(free))
    if few or not 1 < len(free) <= len(as_is) <= MOST_COLUMNS or not (high > low)[free].all():
        return tails
    tried = [*tails, _drawing_in(~as_is, middle, OF_ROWS * (high - low) / QUARTILES, together=True)]
    every = -(-x.size // MOST_NUMBERS)
    some, w = x[::every], None if weights is None else weights[::every]
    losses = [_held_out_loss((each,), some, w, free) for each in tried]
    least = int(np.argmin(losses))
    return [tried[least]] if losses[least] < _held_out_loss((), some, w, free) - TAILS else []


def _tails_of_columns(x: np.ndarray, weights: Weights, as_is: np.ndarray) -> list[Measured]:
    """`Arcsinh` of the columns that have heavy tails, if there are any."""
    heavy, shift, scale = heavy_tails(x, weights)
    heavy &= ~as_is
    return [_drawing_in(heavy, shift, scale)] if heavy.any() else []


def _tails_first(
    x: np.ndarray, weights: Weights, as_is: np.ndarray, mixing: bool, tails: list[Measured]
) -> tuple[tuple[Measured, ...], float]:
    """The layers of vectors x, and the shrinkage of the correlations from which a flow starts behind them."""
    last, shrinkage = _last(_through(tails, x)[0], weights, as_is, mixing)
    return (*tails, last), shrinkage


def _last(x: np.ndarray, weights: Weights, as_is: np.ndarray, mixing: bool) -> tuple[Measured, float]:
    """The last layer, `Standardize` or `Whiten`, and the shrinkage of the correlations from which a flow starts behind it."""
    scaling, free = _scaling(x, weights, as_is), np.flatnonzero(~as_is)
    if len(as_is) > MOST_COLUMNS or not len(free):
        return scaling, 0.0
    z = scaling.direct(x)[0]
    z = z if len(free) == len(as_is) else z[:, free]
    shrinkage = shrinkage_of(z, weights)
    factor = correlation_factor(z, shrinkage, weights=weights, xp=np)
    of_start = shrinkage_of_start(z, shrinkage, weights)
    alone = _alone(z, factor, weights, mixing)
    if alone.all() and not mixing:
        return scaling, of_start
    return _whitening(as_is, shrinkage, free[alone], scaling.fixed, _within(factor, alone, as_is)), of_start


def _freeing(x: np.ndarray, weights: Weights, as_is: np.ndarray) -> Measured | None:
    """A layer that frees the columns which those before them all but tell; None where there are none, or too many."""
    free = np.flatnonzero(~as_is)
    if not 1 < len(free) <= len(as_is) <= MOST_COLUMNS or len(x) < FEWEST * len(free):
        return None
    z = _scaling(x, weights, as_is).direct(x)[0][:, free]
    alone = _alone(z, correlation_factor(z, weights=weights, xp=np), weights, mixing=False)
    return None if alone.all() else _freeing_others(as_is, free[alone], x, weights)


def _freeing_others(as_is: np.ndarray, unmixed: np.ndarray, x: np.ndarray, weights: Weights) -> Measured:
    """`Whiten` with the median and the distance of the quartiles for a unit, which no single row moves, as `Arcsinh` behind it
    is measured in this unit."""
    measured = _scaling(x, weights, as_is).fixed
    mean, std = measured["mean"], measured["std"]
    free, alone = np.flatnonzero(~as_is), as_is | np.isin(np.arange(len(as_is)), unmixed)
    z = ((x - mean) / std)[:, free]
    factor = _within(correlation_factor(z, weights=weights, xp=np), alone[free], as_is)
    low, median, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    median = np.where(as_is, 0.0, median)
    unit = np.where(as_is, 1.0, np.where(high > low, (high - low) / QUARTILES, std))
    # x = mean + std factor w, where w of a column that is alone is offset + inner y, y being what the layer makes of it.
    offset, inner = np.where(alone, (median - mean) / std, 0.0), np.where(alone, unit / std, 1.0)
    scale = {"mean": mean + std * (factor @ offset), "std": unit}
    again = partial(_freeing_others, as_is, unmixed)
    return _whitening(as_is, 0.0, unmixed, scale, (std / unit)[:, None] * factor * inner[None], again)


def _alone(z: np.ndarray, factor: np.ndarray, weights: Weights, mixing: bool) -> np.ndarray:
    """Which of the columns z (n, d) are scaled alone: those that keep enough of their own, and those that mixing would blur."""
    n, d = z.shape
    left = FREED if n < MANY_ROWS * d else FREED_OF_MANY
    explained = np.full(d, True) if mixing else np.diagonal(factor) <= left
    return ~explained | sharp(z, factor, weights, explained)


def _within(factor: np.ndarray, alone: np.ndarray, as_is: np.ndarray) -> np.ndarray:
    """The factor of all columns, where some stay as they are."""
    free, whole = np.flatnonzero(~as_is), np.eye(len(as_is))
    whole[np.ix_(free, free)] = np.tril(left_unmixed(factor, alone, np))
    return whole


def _held_out_loss(steps: tuple[Measured, ...], x: np.ndarray, weights: Weights, columns: Any = slice(None)) -> float:
    """The loss of the closed-form Gaussian of some columns behind these layers, on rows that neither has seen (but for
    `Arcsinh`, whose shift and scale are those of all rows)."""
    w = np.ones(len(x)) if weights is None else weights
    fold, total = np.random.default_rng(0).permutation(len(x)) % FOLDS, 0.0
    for number in range(FOLDS):
        out = fold == number
        if not w[out].sum() or not w[~out].sum():
            continue
        measured = measured_again(steps, x[~out], w[~out])
        (y, _), (z, log_det) = _through(measured, x[~out]), _through(measured, x[out])
        y, z = y[:, columns], z[:, columns]
        mean, std = moments(y, w[~out])
        std = np.where(std > 0, std, 1.0)
        factor = correlation_factor((y - mean) / std, weights=w[~out], xp=np)
        total += w[out] @ (losses_of((z - mean) / std, factor) + np.log(std).sum() - log_det)
    return float(total / w.sum())


def measured_again(steps: tuple[Measured, ...], x: np.ndarray, weights: Weights) -> tuple[Measured, ...]:
    """The same layers, measured on other rows."""
    again = list[Measured]()
    for step in steps:
        again.append(step.again(x, weights))
        x = again[-1].direct(x)[0] if step is not steps[-1] else x
    return tuple(again)


def _through(steps: Sequence[Measured], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows behind these layers, and the log-dets, of each row or one for all."""
    total = np.zeros(1)
    for step in steps:
        x, log_det = step.direct(x)
        total = total + log_det
    return x, total


def _in_pieces(function: Callable, x: np.ndarray, most: int = IN_CACHE) -> tuple[np.ndarray, np.ndarray]:
    """function(x) of rows, and their log-dets, in pieces that a processor's cache holds: small steps one after the other take
    six times as long outside of it."""
    rows, y, log_dets = max(most // x.shape[1], 1), np.empty(x.shape), []
    for i in range(0, max(len(x), 1), rows):
        y[i : i + rows], log_det = function(x[i : i + rows])
        log_dets.append(log_det)
    return y, log_dets[0] if np.shape(log_dets[0]) != (len(x[:rows]),) else np.concatenate(log_dets)


def _drawing_in(which: np.ndarray, shift: np.ndarray, scale: np.ndarray, together: bool = False) -> Measured:
    """`Arcsinh`, which folds measure on all rows."""
    fixed = {"shift": np.where(which, shift, 0.0), "scale": np.where(which, scale, 1.0)}
    direct = partial(_in_pieces, lambda x: drawn_in(fixed, which, x, together, np))
    inverse = partial(drawn_out, fixed, which, together=together, xp=np)
    layer = Arcsinh(None if together and which.all() else _numbers(which), together)
    return Measured(layer, fixed, direct, inverse, lambda x, weights: _drawing_in(which, shift, scale, together))


def _scaling(x: np.ndarray, weights: Weights, as_is: np.ndarray) -> Measured:
    """`Standardize`."""
    mean, std = moments(x, weights)
    fixed = {"mean": np.where(as_is, 0.0, mean), "std": np.where(as_is | ~(std > 0), 1.0, std)}
    direct = partial(scaled, fixed, places=math.prod(x.shape[1:-1]), xp=np)

    def again(x: np.ndarray, weights: Weights) -> Measured:
        return _scaling(x, weights, as_is)

    return Measured(Standardize(as_is=_numbers(as_is)), fixed, direct, partial(unscaled, fixed), again)


def _whitening(
    as_is: np.ndarray,
    shrinkage: float,
    unmixed: np.ndarray,
    scale: dict[str, np.ndarray],
    factor: np.ndarray,
    again: Callable[[np.ndarray, Weights], Measured] | None = None,
) -> Measured:
    """`Whiten`."""
    layer = Whiten(shrinkage, as_is=_numbers(as_is), unmixed=tuple(map(int, unmixed)))
    fixed = {**scale, "factor": factor}

    def anew(x: np.ndarray, weights: Weights) -> Measured:
        scaling, free = _scaling(x, weights, as_is), np.flatnonzero(~as_is)
        of_rows = correlation_factor(scaling.direct(x)[0][:, free], shrinkage, weights=weights, xp=np)
        whole = _within(of_rows, np.isin(free, unmixed), as_is)
        return _whitening(as_is, shrinkage, unmixed, scaling.fixed, whole)

    return Measured(layer, fixed, partial(whitened, fixed, xp=np), partial(unwhitened, fixed, xp=np), again or anew)


def _numbers(which: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(which)))
