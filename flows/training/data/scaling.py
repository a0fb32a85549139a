"""How columns are scaled before training, by their mean and deviation, their tails and what others tell of them."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from flows.bijections.arcsinh import Arcsinh
from flows.bijections.scaling import Standardize
from flows.bijections.whiten import MOST_COLUMNS, Whiten
from flows.core import BijectionInit
from flows.training.data.columns import ColumnFacts
from flows.training.data.gaussian import correlation_factor, moments, shrinkage_of, shrinkage_of_start
from flows.training.data.shapes import heavy_tails, sharp
from flows.training.data.table import Rows
from flows.training.options import Options

# Of a standard deviation: what is left of a column that those before it all but tell, of which it is freed. With few rows for
# each column networks overfit what is left, once it is as loud as the rest.
FREED, FREED_OF_MANY, MANY_ROWS = 0.2, 0.3, 50


class Tails(NamedTuple):
    """Which columns go through arcsinh, as `Arcsinh` does it."""

    features: tuple[int, ...]
    shift: np.ndarray
    scale: np.ndarray

    def direct(self, x: np.ndarray) -> np.ndarray:
        own, y = list(self.features), x.copy()
        y[:, own] = np.arcsinh(self._standardized(x))
        return y

    def inverse(self, y: np.ndarray) -> np.ndarray:
        own, x = list(self.features), y.copy()
        x[:, own] = self.shift[own] + self.scale[own] * np.sinh(y[:, own])
        return x

    def log_det(self, x: np.ndarray) -> np.ndarray:
        return -(np.log(self.scale[list(self.features)]) + np.log(np.hypot(1, self._standardized(x)))).sum(1)

    def _standardized(self, x: np.ndarray) -> np.ndarray:
        own = list(self.features)
        return (x[:, own] - self.shift[own]) / self.scale[own]


class Scaling(NamedTuple):
    """How columns are standardised: their tails first; then y = L^-1 (x - mean) / std, where L is the identity if factor is
    None."""

    init_fun: BijectionInit  # `Standardize` or `Whiten`
    mean: np.ndarray
    std: np.ndarray
    factor: np.ndarray | None
    tails: Tails | None = None
    shrinkage: float = 0.0  # of correlations, where a flow starts

    def tamed(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, float)
        return x if self.tails is None else self.tails.direct(x)

    def direct(self, x: np.ndarray) -> np.ndarray:
        z = (self.tamed(x) - self.mean) / self.std
        return z if self.factor is None else solve_triangular(self.factor, z.T, lower=True).T

    def log_det(self, x: np.ndarray) -> np.ndarray:
        """Of each row, or one for all."""
        found = -np.log(self.std).sum(keepdims=True) * math.prod(x.shape[1:-1])
        if self.factor is not None:
            found = found - np.log(np.diagonal(self.factor)).sum()
        return found if self.tails is None else found + self.tails.log_det(np.asarray(x, float))

    def deviations(self, y: np.ndarray) -> np.ndarray:
        """The columns of rows that went through it, in standard deviations from their means; behind arcsinh in its scales."""
        z = y if self.factor is None else y @ self.factor.T
        if self.tails is None:
            return z
        own, x = list(self.tails.features), self.tails.inverse(z * self.std + self.mean)
        z = z.copy()
        z[:, own] = ((x - self.tails.shift) / self.tails.scale)[:, own]
        return z

    @property
    def layers(self) -> tuple[BijectionInit, ...]:
        return (self.init_fun,) if self.tails is None else (Arcsinh(self.tails.features), self.init_fun)

    @property
    def params(self) -> tuple[Any, ...]:
        fixed = {name: getattr(self, name) for name in ("mean", "std", "factor") if getattr(self, name) is not None}
        of_tails = () if self.tails is None else ({"fixed": {"shift": self.tails.shift, "scale": self.tails.scale}},)
        return (*of_tails, {"fixed": fixed})


def scaling_of(rows: Rows, columns: ColumnFacts, options: Options, mixing: bool, like: Scaling | None = None) -> Scaling:
    """Mean and standard deviation of each column, or channel; of vectors the tails and the correlation too, unless they are to
    stay. With `mixing` each column is freed of all before it, otherwise those that these all but tell. Which have tails, how
    far correlations are shrunk and what is unmixed may be chosen already."""
    x, event, weights = rows.x, rows.x.shape[1:], rows.weights
    x = np.asarray(x, float) if len(event) == 1 else x
    whole = options.standardize in (True, "whiten") and len(event) == 1
    tails = None if not whole else _tails(x, columns.as_is, weights) if like is None else like.tails
    x = x if tails is None else tails.direct(x)
    mean, std = moments(x, weights)
    mean, std = np.where(columns.as_is, 0.0, mean), np.where(columns.as_is | ~(std > 0), 1.0, std)
    scaled = Scaling(Standardize(as_is=_numbers(columns.as_is)), mean, std, None, tails)
    if not whole or event[0] > MOST_COLUMNS or columns.as_is.all():
        return scaled
    return _whitened((x - mean) / std, scaled, columns.as_is, weights, mixing, like)


def _whitened(
    z: np.ndarray, scaled: Scaling, as_is: np.ndarray, weights: np.ndarray | None, mixing: bool, like: Scaling | None
) -> Scaling:
    """The scaling with the correlation of scaled rows z taken out, as far as it is to be; as in `like`, where that is given."""
    free, chosen = np.flatnonzero(~as_is), None if like is None else like.init_fun.arguments
    if like is not None and like.factor is None:
        return scaled._replace(shrinkage=like.shrinkage)
    z = z[:, free]
    shrinkage = shrinkage_of(z, weights) if chosen is None else chosen["shrinkage"]
    inner = correlation_factor(z, weights, shrinkage)
    if like is None or chosen is None:
        of_start = shrinkage_of_start(z, shrinkage, weights)
        left = FREED if len(z) < MANY_ROWS * len(free) else FREED_OF_MANY
        told = np.full(len(free), True) if mixing else np.diagonal(inner) <= left
        alone = ~told | sharp(z, inner, weights, told)
    else:
        of_start, alone = like.shrinkage, np.isin(free, chosen["unmixed"])
    if alone.all() and not mixing:
        return scaled._replace(shrinkage=of_start)
    if alone.any():
        inverse = np.where(alone[:, None], np.eye(len(inner)), np.linalg.inv(inner))
        inner = np.tril(np.linalg.inv(inverse))
    factor = np.eye(len(as_is))
    factor[np.ix_(free, free)] = inner
    whiten = Whiten(shrinkage, as_is=_numbers(as_is), unmixed=tuple(map(int, free[alone])))
    return scaled._replace(init_fun=whiten, factor=factor, shrinkage=of_start)


def _tails(x: np.ndarray, as_is: np.ndarray, weights: np.ndarray | None) -> Tails | None:
    heavy, shift, scale = heavy_tails(x, weights)
    heavy &= ~as_is
    if not heavy.any():
        return None
    return Tails(_numbers(heavy), np.where(heavy, shift, 0.0), np.where(heavy, scale, 1.0))


def _numbers(which: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(which)))
