"""The closed-form Gaussian of rows: the scale and correlation behind which a flow is trained, and the loss it has to reach.

It is computed in NumPy and float64, as it costs little next to a training and all later steps depend on it.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import i0e, log_ndtr

from flows.bijections.quantile_maps import QUARTILES
from flows.bijections.whiten import LEAST, correlation_factor
from flows.core import LOG_2PI, FlowsError, Region, pieces_of, seen
from flows.distributions.polar import likeliest
from flows.training.data.table import Rows, Table, take

SHRINKAGES = (0.0, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
FOLDS = 5
PLENTY = 100  # rows for each column; with more, shrinking correlations gains nothing
LOST = LEAST * float(np.finfo(float).eps)  # the diagonal of a correlation that is singular
NO_ROWS = np.zeros(0, int)
MOST_NUMBERS = 2**25  # in a regression; of more rows a part is used
NARROW = 0.1  # a standard deviation of whole numbers, which may all be equal
FEWEST = 1.5  # rows for each column; with fewer, a correlation is singular or nearly so

Weights = np.ndarray | None


class Scale(NamedTuple):
    """Mean and standard deviation of each column, or each channel of an image."""

    mean: np.ndarray
    std: np.ndarray


def moments(x: np.ndarray, weights: Weights = None) -> Scale:
    """Return moments of rows, computed in pieces, as memory may not hold all rows twice."""
    channels, row_weights = x.shape[-1], np.ones(len(x)) if weights is None else weights
    values_per_row = math.prod(x.shape[1:-1])  # values of a channel in a row

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for piece in pieces_of(len(x), x.shape[1:]):
            yield x[piece].reshape(-1, channels), np.repeat(row_weights[piece], values_per_row)

    total = row_weights.sum() * values_per_row
    mean = sum(w @ values for values, w in pieces()) / total
    far = np.max([np.abs(values - mean).max(0) for values, _ in pieces()], 0)
    far = np.where((far > 0) & np.isfinite(far), far, 1.0)  # squares of values divided by it neither overflow nor vanish
    squares = sum(w @ np.square((values - mean) / far) for values, w in pieces())
    return Scale(mean, far * np.sqrt(squares / total))


def check_spread(table: Table, scale: Scale, judged: np.ndarray, which: str = "") -> None:
    """Refuse a column that never changes, or by less than the working dtype can represent."""
    flat, (mean, std), dtype = table.x.reshape(-1, len(table.labels)), scale, table.dtype
    for j in map(int, np.flatnonzero(judged)):
        what = table.labels[j]
        if flat[0, j] == flat[:, j].max() == flat[:, j].min():
            raise FlowsError(
                f"fit: {what} of data is constant ({flat[0, j]!s} in all {len(table)} training rows{which}), so it has no "
                "density. Leave it out, or add noise the size of its recorded step"
            )
        if not np.isfinite(std[j]):
            raise FlowsError(f"fit: {what} of data varies by more than {dtype.name} can hold. Rescale it")
        if std[j] < max(8 * np.finfo(dtype).eps * abs(mean[j]), np.finfo(dtype).tiny):
            raise FlowsError(
                f"fit: {what} of data is {mean[j]:.9g} +- {std[j]:.3g}, values that {dtype.name} cannot tell apart. "
                "Subtract an offset first and rescale, or give float64 under jax.config.update('jax_enable_x64', True)"
            )


def quartiles(x: np.ndarray) -> Scale:
    """Return the median of each column, and the distance of its quartiles in standard deviations of a normal."""
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    return Scale(middle, (high - low) / QUARTILES)


def folds_of(weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows outside of each fold, and the rows in it, where both have weight."""
    fold = np.random.default_rng(0).permutation(len(weights)) % FOLDS
    for number in range(FOLDS):
        out = fold == number
        if weights[out].sum() and weights[~out].sum():
            yield ~out, out


def shrinkage_of(z: np.ndarray, weights: Weights = None) -> float:
    """Return how much to shrink the correlations of rows z (n, d): the best score over folds, where rows are few."""
    n, d = z.shape
    if d == 1 or n >= PLENTY * d:
        return 0.0
    if n < 2 * FOLDS:
        return 1.0
    w = np.ones(n) if weights is None else weights
    # With too few rows to refuse combinations of columns, these also hold in the other folds, and a singular map scores best.
    tried = SHRINKAGES if n >= FEWEST * d else SHRINKAGES[1:]
    losses = np.zeros(len(tried))
    for others, out in folds_of(w):
        rows = z[others] * np.sqrt(w[others] / w[others].sum())[:, None]
        covariance = rows.T @ rows
        scale = np.sqrt(np.maximum(np.diagonal(covariance), 1e-12))
        correlation = covariance / scale / scale[:, None]
        held_out = z[out] / scale
        for i, shrinkage in enumerate(tried):
            try:
                factor = np.linalg.cholesky((1 - shrinkage) * correlation + shrinkage * np.eye(d))
            except np.linalg.LinAlgError:
                losses[i] = np.inf
                continue
            losses[i] += w[out] @ losses_of(held_out, factor)
    return tried[int(losses.argmin())]


class Yardstick(NamedTuple):
    """The yardstick by which the losses of a fit are reported and judged."""

    log_dets: tuple[Any, Any] = (0.0, 0.0)  # of the layers before: nats a training row, and a held-out row (of members)
    gaussian: float | None = None  # the loss of the closed form on held-out rows, in the units of the data
    closed_form: str = "Gaussian"  # its name
    by_chance: float = 0.0  # how many nats one of two equally good models may be behind the other there
    held_out: np.ndarray = NO_ROWS  # the numbers of the held-out rows, of each member where these differ, in ...
    source: str = "data"


def by_chance(rows: int, weights: Weights = None) -> float:
    """Return how many nats a row one of two equally good models may be behind the other, over this many rows.

    Log-ratios of densities so close that they differ by D nats have a variance of about 2 D: over n rows, D is more than two
    standard errors from 0 where it is more than 8 / n.
    """
    return 8 / rows if weights is None else float(8 * np.square(weights).sum() / np.square(weights.sum()))


def closed_form_loss(train: Rows, held_out: Rows, region: Region | None) -> float | None:
    """Return minus the mean log-density of held-out rows under a model of the training rows without a network: frequencies of
    codes, the von Mises of each angle, a normal in cells for whole numbers, and the Gaussian of other numbers, with a mean
    linear in the context and in the features of the columns before. `region` is the region of the rows. None where rows are
    too few, or on spheres.
    """
    if region is None or region.flat:
        return regression_loss(train, held_out)
    if region.sphere.any():
        return None
    numbers, others = np.flatnonzero(region.of_line), np.flatnonzero(~region.of_line)
    loss = 0.0
    for j in np.flatnonzero(region.period):
        loss += _von_mises_loss(*(rows._replace(x=rows.x[:, j] * (2 * np.pi / region.period[j])) for rows in (train, held_out)))
        loss -= float(np.log(2 * np.pi / region.period[j]))
    for j in np.flatnonzero(region.classes):
        codes, held_out_codes = (rows.x[:, j].astype(int) for rows in (train, held_out))
        w = None if train.weights is None else train.weights / train.weights.mean()
        counts = np.bincount(codes, w, region.classes[j]) + 1
        loss -= float(np.average(np.log(counts / counts.sum())[held_out_codes], weights=held_out.weights))
    for j in np.flatnonzero(region.whole):
        loss += _cell_loss(*(rows._replace(x=rows.x[:, j].astype(float)) for rows in (train, held_out)))
    if not len(numbers):
        return loss
    parts = []
    for rows in (train, held_out):
        width = rows.x.shape[1] + int(region.classes.sum()) + (0 if rows.context is None else math.prod(rows.context.shape[1:]))
        few = take(rows, slice(None, None, -(-len(rows.x) * width // MOST_NUMBERS)))
        features = [seen(region.of(others), np.asarray(few.x, float)[:, others], np)]
        features += [] if few.context is None else [few.context.reshape(len(few.x), -1)]
        parts.append(Rows(few.x[:, numbers], np.concatenate(features, 1), few.weights))
    numbers_loss = regression_loss(*parts)
    return None if numbers_loss is None else loss + numbers_loss


def _cell_loss(train: Rows, held_out: Rows) -> float:
    """Return minus the mean log-mass that the normal of training rows gives to the cells around held-out whole numbers."""
    mean, std = moments(train.x[:, None], train.weights)
    near, far = ((np.abs(held_out.x - mean) + side) / np.maximum(std, NARROW) for side in (-0.5, 0.5))
    log_above = log_ndtr(-near)
    log_mass = log_above + np.log(-np.expm1(log_ndtr(-far) - log_above))
    return -float(np.average(log_mass, weights=held_out.weights))


def _von_mises_loss(train: Rows, held_out: Rows) -> float:
    """Return minus the mean log-density of held-out angles under the von Mises of the training rows, in radians. Its
    concentration is the one at which `flows.VonMises` starts."""
    sin, cos = (float(np.average(f(train.x), weights=train.weights)) for f in (np.sin, np.cos))
    k = float(likeliest(math.hypot(sin, cos), 2))
    away = 2 * np.square(np.sin((held_out.x - math.atan2(sin, cos)) / 2))
    return float(k * np.average(away, weights=held_out.weights) + np.log(2 * np.pi * i0e(k)))


def regression_loss(train: Any, held_out: Any) -> float | None:
    """Return minus the mean log-density of held-out rows under the Gaussian of the training rows, its mean linear in the
    context. Rows are `Rows` of vectors; None where rows are too few.
    """
    design, held_out_design = _design(train), _design(held_out)
    n = len(train.x)
    if n < FEWEST * (design.shape[1] + 1) or n < 2:
        return None
    w = np.ones(n) if train.weights is None else train.weights / train.weights.mean()
    root = np.sqrt(w)[:, None]
    coefficients = np.linalg.lstsq(design * root, np.asarray(train.x, float) * root, rcond=None)[0]
    residuals = train.x - design @ coefficients
    std = moments(residuals, train.weights).std
    std = np.where(std > 0, std, 1.0)
    z = residuals / std
    shrinkage = shrinkage_of(z, train.weights)
    factor = correlation_factor(z, shrinkage, weights=train.weights, xp=np)
    if np.diagonal(factor).min() <= LOST:
        return None
    losses = losses_of((held_out.x - held_out_design @ coefficients) / std, factor) + np.log(std).sum()
    loss = float(np.average(losses, weights=held_out.weights))
    return loss if math.isfinite(loss) else None


def _design(rows: Any) -> np.ndarray:
    ones = np.ones((len(rows.x), 1))
    return ones if rows.context is None else np.concatenate([ones, rows.context.reshape(len(ones), -1)], 1)


def losses_of(z: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return -log N(z; 0, L L') of each row, in nats."""
    y = solve_triangular(factor, z.T, lower=True)
    return 0.5 * np.square(y).sum(0) + 0.5 * LOG_2PI * len(y) + np.log(np.diagonal(factor)).sum()
