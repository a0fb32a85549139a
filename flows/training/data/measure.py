"""The layers that standardise rows: `choose.py` chooses them, and here they are measured on the training rows, in NumPy and
float64. The measured numbers become their params. Each fold measures the same choice on its rows.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from flows.bijections.arcsinh import Arcsinh, drawn_in, drawn_out
from flows.bijections.composition import unit_of
from flows.bijections.scaling import Standardize, scaled, unscaled
from flows.bijections.whiten import Whiten, correlation_factor, left_unmixed, unwhitened, whitened
from flows.core import BijectionInit, pieces_of
from flows.training.data.gaussian import Scale, Weights, moments, quartiles

IN_CACHE, IN_MEMORY = 2**17, 2**22  # numbers in a piece, so that little new memory is needed


class Measured(NamedTuple):
    """A layer that was measured."""

    layer: BijectionInit
    fixed: dict[str, np.ndarray]  # its measured params
    direct: Callable[[np.ndarray], tuple[np.ndarray, Any]]  # gives rows behind it, and its log-det, of each row or one for all
    inverse: Callable[[np.ndarray], np.ndarray]


class Scaled(NamedTuple):
    """`Standardize` of the columns, or channels, that do not stay as they are."""

    as_is: np.ndarray

    def measured(self, x: np.ndarray, weights: Weights) -> Measured:
        mean, std = moments(x, weights)
        fixed = {"mean": np.where(self.as_is, 0.0, mean), "std": np.where(self.as_is | ~(std > 0), 1.0, std)}
        direct = partial(scaled, fixed, places=math.prod(x.shape[1:-1]), xp=np)
        return Measured(Standardize(as_is=_numbers(self.as_is)), fixed, direct, partial(unscaled, fixed))


class DrawnIn(NamedTuple):
    """`Arcsinh` of some columns, each by itself or all together; its shift and scale are chosen, and not measured."""

    which: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    together: bool = False

    def measured(self, x: np.ndarray, weights: Weights) -> Measured:
        which, together = self.which, self.together
        fixed = {"shift": np.where(which, self.shift, 0.0), "scale": np.where(which, self.scale, 1.0)}
        direct = partial(_in_pieces, lambda x: drawn_in(fixed, which, x, together, np))
        inverse = partial(drawn_out, fixed, which, together=together, xp=np)
        return Measured(Arcsinh(None if together and which.all() else _numbers(which), together), fixed, direct, inverse)


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
        return Measured(layer, fixed, partial(whitened, fixed, xp=np), partial(unwhitened, fixed, xp=np))


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
    """Measure the chosen layers, each on the rows behind the layers before it."""
    measured = list[Measured]()
    for step in choice.steps:
        x = measured[-1].direct(x)[0] if measured else x
        measured.append(step.measured(x, weights))
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
