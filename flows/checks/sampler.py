"""Do draws follow the density?"""

import numpy as np
from scipy.special import chdtrc

from flows.checks.around import Around, ellipsoids, triangles
from flows.checks.density import unfit
from flows.checks.sample import Sample
from flows.checks.verdicts import Finding
from flows.diagnostics.arrays import chosen

PLACES = 20  # rows, or groups of rows, around which draws are weighed
POINTS = 500  # from the normal around each
PART = 0.01  # of a sum, the most that one draw adds to it
NEAREST, FLOOR = 100, 0.02
ENOUGH = 0.5  # of the probability of a normal, that has to be left
LOST = 0.01  # of draws, where p is 0, above which that is what is wrong: as many may be rounded to the edge of it
RESOLVED = 0.01  # of the largest variance, below which a direction is the same place twice


def sampler(sample: Sample) -> Finding:
    """The mean of w = g(x) / p(x) over draws is 1, for a narrow normal g around a row. That of weights up to a bound is the
    probability of such weights under g, which points from g tell: so no single draw decides, and g may reach where p is 0."""
    if reason := unfit(sample):
        return Finding(reason)
    lost = float(np.isneginf(sample.draws_log_p).mean())
    if lost > LOST:
        return Finding(f"{lost:.0%} of draws lie where the density is 0", lost, 0.0)
    log_w, log_v = _by_groups(sample) if sample.conditional else _by_rows(sample)
    if np.isnan(log_w).any() or np.isnan(log_v).any():
        return Finding("log p is NaN at some draws, or points around rows")
    bound = np.log(PART * log_w.shape[1])
    share = (log_v <= bound).mean(1)
    kept = share >= ENOUGH
    if not kept.any():
        return Finding("draws are too thin around rows: no such mean can be believed")
    share = share[kept, None]
    w = np.where(log_w <= bound, np.exp(np.minimum(log_w, bound)), 0.0)[kept] / share
    of_draws = np.diag(w.var(1)) if sample.conditional else np.cov(w).reshape(len(w), -1)  # the same draws for all rows
    covariance = of_draws / w.shape[1] + np.diag((1 / share[:, 0] - 1) / log_v.shape[1])
    off = w.mean(1) - 1
    variances, directions = np.linalg.eigh(covariance)
    told = variances > RESOLVED * variances.max()
    squares = float(((directions.T @ off)[told] ** 2 / variances[told]).sum())
    size, at = np.sqrt(max(float((off**2 - np.diag(covariance)).mean()), 0.0)), int(np.abs(off).argmax())
    around = f"{len(off)} {'groups of rows' if sample.conditional else 'rows'}"
    detail = f"typical error of the density of draws, around {around}; {off[at]:+.0%} at most"
    return Finding(detail, float(size), float(chdtrc(int(told.sum()), squares)))


def _by_rows(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """log g - log p around some rows, of all draws, (rows, draws), and of points from g, (rows, points)."""
    random, cloud = sample.random(31), sample.rows.astype(np.float64)
    around = ellipsoids(cloud, chosen(cloud, PLACES, random), NEAREST, FLOOR, centred=True)
    which = np.repeat(np.arange(len(around.centres)), POINTS)
    y = around.points(which, random.normal(size=(len(which), cloud.shape[1]))).astype(sample.rows.dtype)
    log_g = around.log_normal(y.astype(np.float64))[which, np.arange(len(which))]
    log_v = log_g - sample.model.log_p(y.reshape(-1, *sample.model.event), sample.contexts)
    return around.log_normal(sample.draws.astype(np.float64)) - sample.draws_log_p, log_v.reshape(-1, POINTS)


def _by_groups(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Check a conditional model so, over groups of rows that are alike in log p: one half of the draws of each row says how
    wide the normal around it is, the other half is weighed."""
    size, random, d = len(sample.rows) // PLACES, sample.random(31), len(sample.columns)
    order = np.argsort(sample.log_p[sample.places], kind="stable")[: PLACES * size]
    rows, draws = sample.rows[order].astype(np.float64), sample.draws[order].astype(np.float64)
    half = draws.shape[1] // 2
    scale = draws[:, :half].std(1)[:, None]
    scale = np.where(scale > 0, scale, 1.0)
    moved = (draws - rows[:, None]) / scale
    nearest = np.argsort(np.square(moved[:, :half]).sum(2), 1)[:, : half // 2]
    near = np.take_along_axis(moved[:, :half], nearest[:, :, None], 1)
    middle = near.mean(1)
    around = Around(rows + middle * scale[:, 0], np.swapaxes(scale, 1, 2) * triangles(near - middle[:, None], FLOOR))
    points = PLACES * POINTS // len(rows)
    which = np.repeat(np.arange(len(rows)), points)
    y = around.points(which, random.normal(size=(len(which), d))).astype(sample.rows.dtype)
    contexts = None if sample.contexts is None else sample.contexts[order][which]
    log_p = sample.model.log_p(y.reshape(-1, *sample.model.event), contexts)
    log_v = _own(around, y.reshape(len(rows), points, d)) - log_p.reshape(len(rows), points)
    log_w = _own(around, draws[:, half:]) - sample.draws_log_p[order, half:]
    return log_w.reshape(PLACES, -1), log_v.reshape(PLACES, -1)


def _own(around: Around, x: np.ndarray) -> np.ndarray:
    """Log-densities of points (rows, many, d) by the normal of each row."""
    pairs = zip(around.centres, around.triangles, x, strict=True)
    return np.stack([Around(centre[None], triangle[None]).log_normal(each)[0] for centre, triangle, each in pairs])
