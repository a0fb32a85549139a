"""Does the density integrate to 1, and do draws follow it?"""

from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc, gammaln, logsumexp, ndtr

from flows.checks.sample import Sample
from flows.checks.verdicts import Finding
from flows.diagnostics.arrays import chosen, squared_distances
from flows.objectives import log_normalizer, pareto_k

CENTRES = 500  # rows around which points lie
POINTS = 10_000
NEAREST = 100  # rows, at most, by which the spread around one is measured
SHARE = 0.05  # of rows, at most, that count as near
FLOOR = 0.1  # of the mean variance, that is added in all directions
DEGREES = 5.0  # of freedom, of Student's t
PLACES = 20  # rows around which draws are weighed
CONTEXTS = 20  # that are looked at, of a conditional model
NARROW = 0.5  # of the spread of what is near: so much narrower are the normals by which draws are weighed
MOST_COLUMNS = 64
MOST_K = 0.7  # of Pareto's k, above which no mean can be believed


class Around(NamedTuple):
    """Ellipsoids around points: centres (k, d), and triangles (k, d, d) that make them of a ball."""

    centres: np.ndarray
    triangles: np.ndarray

    def points(self, which: np.ndarray, ball: np.ndarray) -> np.ndarray:
        return self.centres[which] + np.einsum("mij,mj->mi", self.triangles[which], ball)

    def squared(self, x: np.ndarray) -> np.ndarray:
        """Squared distances in units of each ellipsoid, (rows, k)."""
        inverses = np.linalg.inv(self.triangles)
        moved = np.einsum("kij,kj->ki", inverses, self.centres)
        return np.stack([((x @ inverse.T - centre) ** 2).sum(1) for inverse, centre in zip(inverses, moved, strict=True)], 1)

    @property
    def log_volume(self) -> np.ndarray:
        return np.log(np.diagonal(self.triangles, axis1=1, axis2=2)).sum(1)


def normalisation(sample: Sample) -> Finding:
    """log of the integral of p, by draws of a mixture of Student's t around rows; of a conditional model around draws for some
    contexts, the mean of their integrals."""
    if reason := _unfit(sample):
        return Finding(reason)
    random = sample.random(30)
    weights = list[np.ndarray]()
    for cloud, context in _clouds(sample, random):
        around = ellipsoids(cloud, chosen(cloud, CENTRES, random))
        count = POINTS // (CONTEXTS if sample.conditional else 1)
        d, ball = cloud.shape[1], random.normal(size=(count, cloud.shape[1]))
        ball /= np.sqrt(random.chisquare(DEGREES, (count, 1)) / DEGREES)
        x = around.points(random.integers(len(around.centres), size=count), ball)
        constant = gammaln((DEGREES + d) / 2) - gammaln(DEGREES / 2) - d / 2 * np.log(DEGREES * np.pi)
        log_t = constant - around.log_volume - (DEGREES + d) / 2 * np.log1p(around.squared(x) / DEGREES)
        x = x.astype(sample.rows.dtype)
        log_p = sample.model.log_p(x.reshape(-1, *sample.model.event), context)
        weights.append(log_p - logsumexp(log_t, axis=1) + np.log(len(around.centres)))
    log_w = np.concatenate(weights)
    if unsure := _unsure(log_w):
        return Finding(unsure)
    told = log_normalizer(log_w)
    z = (
        np.expm1(told.value) / (told.standard_error * np.exp(told.value))
        if told.standard_error
        else np.sign(told.value) * np.inf
    )
    detail = f"log of the integral, {told.value:+.3f} +- {told.standard_error:.3f} nats"
    return Finding(detail, abs(told.value), float(2 * ndtr(-abs(z))))


def sampler(sample: Sample) -> Finding:
    """The mean of g(x) / p(x) over draws is 1, for a narrow normal g around a row."""
    if reason := _unfit(sample):
        return Finding(reason)
    means, covariance, worst = _of_draws(sample) if sample.conditional else _of_shared_draws(sample)
    if not len(means):
        return Finding(f"Pareto's k is {worst:.2f} around all rows: no such mean can be believed")
    off = means - 1
    squares = off @ np.linalg.lstsq(covariance, off, rcond=1e-9)[0]
    size = np.sqrt(max(float((off**2 - np.diag(covariance)).mean()), 0.0))
    at = int(np.abs(off).argmax())
    many = f"{len(off)} groups of rows" if sample.conditional else f"{len(off)} rows"
    detail = f"typical error of the density of draws around {many}, {off[at]:+.0%} at most"
    return Finding(detail, size, float(chdtrc(len(off), squares)))


def _of_shared_draws(sample: Sample) -> tuple[np.ndarray, np.ndarray, float]:
    """Means around rows, their covariance, and the largest k of those that are left out."""
    random, cloud = sample.random(31), sample.rows.astype(np.float64)
    around = ellipsoids(cloud, chosen(cloud, PLACES, random))
    around = around._replace(triangles=NARROW * around.triangles)
    log_g = _log_normal(around.squared(sample.draws.astype(np.float64)), around.log_volume, cloud.shape[1])
    log_w = log_g - sample.draws_log_p[:, None]
    k = np.array([_k(each) for each in log_w.T])
    w = np.exp(log_w[:, k <= MOST_K])
    return w.mean(0), np.atleast_2d(np.cov(w, rowvar=False)) / len(w), float(k.max())


def _of_draws(sample: Sample) -> tuple[np.ndarray, np.ndarray, float]:
    """The same of a conditional model, over groups of rows: one half of the draws of each says how wide the normal is, the
    other is weighed."""
    rows, draws = sample.rows.astype(np.float64), sample.draws.astype(np.float64)
    d, half = rows.shape[1], draws.shape[1] // 2
    first, second = draws[:, :half], draws[:, half:]
    scale = np.maximum(first.std(1), 1e-300)
    moved, weighed = ((each - rows[:, None]) / scale[:, None] for each in (first, second))
    near = np.argsort((moved**2).sum(2), 1)[:, : max(half // 2, min(d + 2, half))]
    triangles = _triangles(np.take_along_axis(moved, near[:, :, None], 1)) * NARROW
    ball = np.linalg.solve(triangles, np.swapaxes(weighed, 1, 2))
    log_volume = np.log(np.diagonal(triangles, axis1=1, axis2=2)).sum(1) + np.log(scale).sum(1)
    log_w = _log_normal((ball**2).sum(1), log_volume[:, None], d) - sample.draws_log_p[:, half:]
    k = _k(log_w.ravel())
    if not k <= MOST_K:
        return np.zeros(0), np.zeros((0, 0)), k
    groups = np.array_split(np.exp(log_w).mean(1)[np.argsort(sample.log_p[sample.places])], PLACES)
    return np.array([g.mean() for g in groups]), np.diag([g.var(ddof=1) / len(g) for g in groups]), k


def _clouds(sample: Sample, random: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Points that show where p is, and the context that it has there."""
    if not sample.conditional or sample.contexts is None:
        return [(sample.rows.astype(np.float64), sample.contexts)]
    return [
        (sample.draws[i].astype(np.float64), sample.contexts[i]) for i in chosen(np.arange(len(sample.rows)), CONTEXTS, random)
    ]


def ellipsoids(cloud: np.ndarray, centres: np.ndarray) -> Around:
    """Around each centre one as wide as the points of the cloud near it."""
    n, d = cloud.shape
    scale = cloud.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    z, middle = cloud / scale, cloud.mean(0) / scale
    whole = np.linalg.cholesky(np.cov(z, rowvar=False).reshape(d, d) + 1e-9 * np.eye(d))
    z, at = (np.linalg.solve(whole, (each - middle).T).T for each in (z, centres / scale))
    count = min(n, max(min(NEAREST, int(SHARE * n)), 2 * d + 10))
    near = np.argpartition(squared_distances(at, z), count - 1, axis=1)[:, :count]
    return Around(centres, scale[:, None] * (whole @ _triangles(z[near] - at[:, None])))


def _triangles(near: np.ndarray) -> np.ndarray:
    """Of points (k, points, d) around 0, triangles (k, d, d) of their second moments."""
    d = near.shape[2]
    moments = np.einsum("kpi,kpj->kij", near, near) / near.shape[1]
    floor = FLOOR * np.trace(moments, axis1=1, axis2=2) / d
    return np.linalg.cholesky(moments + np.maximum(floor, 1e-9)[:, None, None] * np.eye(d))


def _log_normal(squared: np.ndarray, log_volume: np.ndarray, d: int) -> np.ndarray:
    return -0.5 * squared - log_volume - d / 2 * np.log(2 * np.pi)


def _unfit(sample: Sample) -> str:
    """Why the score is no density of the line, or the line has too many dimensions; nothing where all is well."""
    model = sample.model
    if model.likelihood == "lower bound":
        return "the score is a lower bound, and no density"
    if model.region is not None and not model.region.flat:
        return f"rows are {model.region.words.noun}, in part or all"
    if len(sample.columns) > MOST_COLUMNS:
        return f"{len(sample.columns):,} columns: no such mean can be believed above {MOST_COLUMNS}"
    return ""


def _unsure(log_w: np.ndarray) -> str:
    unknown = int(np.isnan(log_w).sum())
    if unknown:
        return f"log p is NaN at {unknown:,} of {len(log_w):,} points"
    k = _k(log_w)
    return "" if k <= MOST_K else f"Pareto's k is {k:.2f}: no such mean can be believed"


def _k(log_w: np.ndarray) -> float:
    """Pareto's k, inf where weights are none."""
    return float("inf") if np.isnan(log_w).any() or np.isinf(log_w).all() or (log_w == np.inf).any() else pareto_k(log_w)
