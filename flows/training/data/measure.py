"""The layers that standardise rows: `choose.py` has chosen them, and they are measured on the rows to train on, in NumPy and
float64. What is measured becomes their params. Folds measure one choice on rows of their own.
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

IN_CACHE, IN_MEMORY = 2**17, 2**22  # numbers that are worked on together, so that there is little new memory


class Measured(NamedTuple):
    """A layer that was measured."""

    layer: BijectionInit
    fixed: dict[str, np.ndarray]  # what was measured, its params
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
    """`Arcsinh` of some columns, each by itself or all together, whose shift and scale are chosen, and never measured again."""

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
    """`Whiten`, which frees columns of those before them; those that are `alone` among the free ones are left unmixed.

    In units of `quartiles`, which no single row moves, where `Arcsinh` behind it is measured in this unit.
    """

    as_is: np.ndarray
    alone: np.ndarray
    shrinkage: float = 0.0
    in_quartiles: bool = False

    def measured(self, x: np.ndarray, weights: Weights) -> Measured:
        (mean, std), z = free_columns(x, weights, self.as_is)
        free, alone, factor = np.flatnonzero(~self.as_is), self.as_is.copy(), np.eye(len(self.as_is))
        alone[free] = self.alone
        of_free = correlation_factor(z, self.shrinkage, weights=weights, xp=np)
        factor[np.ix_(free, free)] = np.tril(left_unmixed(of_free, self.alone, np))
        if self.in_quartiles:
            median, unit = quartiles(x)
            median, unit = np.where(self.as_is, 0.0, median), np.where(self.as_is, 1.0, np.where(unit > 0, unit, std))
            # x = mean + std factor w, where w of a column that is alone is offset + inner y, y being what the layer makes of it
            offset, inner = np.where(alone, (median - mean) / std, 0.0), np.where(alone, unit / std, 1.0)
            mean, std, factor = mean + std * (factor @ offset), unit, (std / unit)[:, None] * factor * inner[None]
        fixed = {"mean": mean, "std": std, "factor": factor}
        layer = Whiten(self.shrinkage, as_is=_numbers(self.as_is), unmixed=_numbers(alone & ~self.as_is))
        return Measured(layer, fixed, partial(whitened, fixed, xp=np), partial(unwhitened, fixed, xp=np))


Step = Scaled | DrawnIn | Freed


class Choice(NamedTuple):
    """A choice in numbers: the steps that rows go through, in order, and the shrinkage of the correlations from which a
    flow starts behind them."""

    steps: tuple[Step, ...] = ()
    shrinkage: float = 0.0


class Pipeline(NamedTuple):
    """The layers that standardise rows, in order; there may be none."""

    steps: tuple[Measured, ...] = ()
    shrinkage: float = 0.0  # of the correlations from which a flow starts behind them
    dtype: np.dtype = np.dtype(float)  # in which images are scaled, piece by piece

    @property
    def layers(self) -> tuple[BijectionInit, ...]:
        return tuple(step.layer for step in self.steps)

    @property
    def params(self) -> tuple[Any, ...]:
        return tuple({"fixed": step.fixed} for step in self.steps)

    def direct(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows behind all layers, and the log-dets, of each row or one for all, in pieces that are worked on together."""
        if not self.steps:
            return x, np.zeros(1)
        if x.ndim == 2:
            return _in_pieces(self.through, np.asarray(x, float), IN_MEMORY)
        made = [self.through(x[piece]) for piece in pieces_of(len(x), x.shape[1:])]
        return np.concatenate([y.astype(self.dtype) for y, _ in made]), made[0][1]

    def through(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows behind all layers, and the log-dets."""
        total = np.zeros(1)
        for step in self.steps:
            x, log_det = step.direct(x)
            total = total + log_det
        return x, total

    def deviations(self, x: np.ndarray, behind: bool = True) -> np.ndarray:
        """The columns of rows behind all layers, or before them, in standard deviations from the middle, as measured."""
        for step in self.steps[::-1] if behind else ():
            x = step.inverse(x)
        middle, deviation, _ = unit_of([*zip(self.layers, self.params, strict=True)], x.shape[-1])
        return (x - middle) / deviation


def measure(choice: Choice, x: np.ndarray, weights: Weights, dtype: Any = float) -> Pipeline:
    """Measure the layers chosen, each on the rows as those before it leave them."""
    measured = list[Measured]()
    for step in choice.steps:
        x = measured[-1].direct(x)[0] if measured else x
        measured.append(step.measured(x, weights))
    return Pipeline(tuple(measured), choice.shrinkage, dtype)


def free_columns(x: np.ndarray, weights: Weights, as_is: np.ndarray) -> tuple[Scale, np.ndarray]:
    """The scale of all columns, and in it those that do not stay as they are."""
    scaling = Scaled(as_is).measured(x, weights)
    z = scaling.direct(x)[0]
    return Scale(**scaling.fixed), z[:, ~as_is] if as_is.any() else z


def _in_pieces(function: Callable, x: np.ndarray, most: int = IN_CACHE) -> tuple[np.ndarray, np.ndarray]:
    """function(x) of rows, and their log-dets, in pieces that a processor's cache holds: small steps one after the other take
    six times as long outside of it."""
    rows, y, log_dets = max(most // x.shape[1], 1), np.empty(x.shape), []
    for i in range(0, max(len(x), 1), rows):
        y[i : i + rows], log_det = function(x[i : i + rows])
        log_dets.append(log_det)
    return y, log_dets[0] if np.shape(log_dets[0]) != (len(x[:rows]),) else np.concatenate(log_dets)


def _numbers(which: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(which)))
