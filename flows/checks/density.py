"""Does the density integrate to 1, and do draws follow it? Both checks use ellipsoids around rows, where p is large."""

from typing import NamedTuple

import jax
import numpy as np
from scipy.special import chdtrc, gammaln, logsumexp, ndtr

from flows.checks.sample import Sample
from flows.checks.verdicts import Finding
from flows.diagnostics.arrays import chosen, squared_distances, unit_of
from flows.objectives import log_normalizer, pareto_k

MOST_COLUMNS = 64
COARSE = 0.25  # of a standard deviation, by which inputs of p may be rounded
SHARE = 0.05  # of the points of a cloud, which count as near a place
FEWEST = 50  # points near a place
# normalisation
CENTRES = 500  # rows around which points lie
POINTS = 10_000
DEGREES = 5.0  # of freedom, of Student's t
NEAREST, FLOOR = 50, 1e-3  # few and thin, as p may be narrow between columns that go together
CONTEXTS = 20  # of a conditional model, at most
MOST_K = 0.7  # Pareto's k, above which no mean can be believed
# sampler
PLACES = 20  # rows, or groups of rows, around which draws are weighed
POINTS_OF_PLACE = 500  # from the normal around each place
PART = 0.01  # of a sum, which one draw adds to it at most
NEAREST_OF_PLACE, WIDE = 100, 0.02
ENOUGH = 0.5  # of the probability of a normal, which has to remain under the bound
LOST = 0.01  # of draws, where p is 0, above which this is the only finding: fewer may be rounded to the edge of the support
RESOLVED = 0.01  # of the largest variance, below which a direction repeats a place


def unfit(sample: Sample) -> str:
    """Return the reason why the score is not a density on flat space, or has too many columns; "" where the checks apply."""
    model = sample.model
    if model.likelihood == "lower bound":
        return "the score is a lower bound, and no density"
    if model.region is not None and not model.region.flat:
        return f"rows are {model.region.words.noun}, in part or all"
    if len(sample.columns) > MOST_COLUMNS:
        return f"{len(sample.columns):,} columns: no such mean can be believed above {MOST_COLUMNS}"
    low, middle, high = np.quantile(sample.rows.astype(np.float64), [0.16, 0.5, 0.84], axis=0)
    step = np.finfo(np.float64 if jax.config.jax_enable_x64 else np.float32).eps * np.abs(middle)  # type: ignore[attr-defined]
    if (coarse := (high > low) & (step > COARSE * (high - low) / 2)).any():
        return f"{sample.columns[int(coarse.argmax())].name} is too far from 0, beside its spread, for float32"
    return ""


def normalisation(sample: Sample) -> Finding:
    """Estimate the log of the integral of p, by draws of a mixture of Student's t around rows; for a conditional model around
    draws for some contexts, by the mean of their integrals."""
    if reason := unfit(sample):
        return Finding(reason)
    random = sample.random(30)
    clouds = [(sample.rows, sample.contexts)]
    if sample.conditional:
        clouds = [(sample.draws[i], sample.contexts[i]) for i in chosen(np.arange(len(sample.rows)), CONTEXTS, random)]
    log_w = np.concatenate([_weights(sample, cloud.astype(np.float64), context, random) for cloud, context in clouds])
    unknown = int((np.isnan(log_w) | np.isposinf(log_w)).sum())
    if unknown or not np.isfinite(log_w).any():
        off = f"NaN or inf at {unknown:,}" if unknown else "-inf at all"
        return Finding(f"log p is {off} of {len(log_w):,} points around rows")
    k = pareto_k(log_w)
    if k > MOST_K:
        return Finding(f"Pareto's k is {k:.2f}: no such mean can be believed")
    integral = log_normalizer(log_w)
    z = -np.expm1(-integral.value) / max(integral.standard_error, 1e-300)
    detail = f"log of the integral, {integral.value:+.3f} +- {integral.standard_error:.3f} nats"
    return Finding(detail, abs(integral.value), float(2 * ndtr(-abs(z))))


def _weights(sample: Sample, cloud: np.ndarray, context: np.ndarray | None, random: np.random.Generator) -> np.ndarray:
    """Return log p - log q of draws of the mixture q around a cloud."""
    around = ellipsoids(cloud, chosen(cloud, CENTRES, random), NEAREST, FLOOR)
    count, d = POINTS // (CONTEXTS if sample.conditional else 1), cloud.shape[1]
    ball = random.normal(size=(count, d)) / np.sqrt(random.chisquare(DEGREES, (count, 1)) / DEGREES)
    x = around.points(random.integers(len(around.centres), size=count), ball).astype(sample.rows.dtype)
    log_q = logsumexp(around.log_student(x.astype(np.float64), DEGREES), axis=0) - np.log(len(around.centres))
    return sample.model.log_p(x.reshape(-1, *sample.model.event), context) - log_q


def sampler(sample: Sample) -> Finding:
    """Test that the mean of w = g(x) / p(x) over draws is 1, for narrow normals g around rows. The mean of weights up to a
    bound is their probability under g, by points from g: so no single draw decides, and g may reach where p is 0."""
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
    enough = share >= ENOUGH
    if not enough.any():
        return Finding("draws are too thin around rows: no such mean can be believed")
    share = share[enough, None]
    w = np.where(log_w <= bound, np.exp(np.minimum(log_w, bound)), 0.0)[enough] / share
    moments = np.diag(w.var(1)) if sample.conditional else np.cov(w).reshape(len(w), -1)  # rows share their draws
    covariance = moments / w.shape[1] + np.diag((1 / share[:, 0] - 1) / log_v.shape[1])
    off = w.mean(1) - 1
    variances, directions = np.linalg.eigh(covariance)
    resolved = variances > RESOLVED * variances.max()
    squares = float(((directions.T @ off)[resolved] ** 2 / variances[resolved]).sum())
    size, at = np.sqrt(max(float((off**2 - np.diag(covariance)).mean()), 0.0)), int(np.abs(off).argmax())
    around = f"{len(off)} {'groups of rows' if sample.conditional else 'rows'}"
    detail = f"typical error of the density of draws, around {around}; {off[at]:+.0%} at most"
    return Finding(detail, float(size), float(chdtrc(int(resolved.sum()), squares)))


def _by_rows(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return log g - log p around some rows, for all draws, (rows, draws), and for points from g, (rows, points)."""
    random, cloud = sample.random(31), sample.rows.astype(np.float64)
    around = ellipsoids(cloud, chosen(cloud, PLACES, random), NEAREST_OF_PLACE, WIDE, centred=True)
    which = np.repeat(np.arange(len(around.centres)), POINTS_OF_PLACE)
    y = around.points(which, random.normal(size=(len(which), cloud.shape[1]))).astype(sample.rows.dtype)
    log_g = around.log_normal(y.astype(np.float64))[which, np.arange(len(which))]
    log_v = log_g - sample.model.log_p(y.reshape(-1, *sample.model.event), sample.contexts)
    return around.log_normal(sample.draws.astype(np.float64)) - sample.draws_log_p, log_v.reshape(-1, POINTS_OF_PLACE)


def _by_groups(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for a conditional model, by groups of rows with similar log p: one half of the draws of each row sets the
    width of the normal around it, the other half is weighed."""
    size, random, d = len(sample.rows) // PLACES, sample.random(31), len(sample.columns)
    order = np.argsort(sample.log_p[sample.places], kind="stable")[: PLACES * size]
    rows, draws = sample.rows[order].astype(np.float64), sample.draws[order].astype(np.float64)
    half = draws.shape[1] // 2
    scale = draws[:, :half].std(1)[:, None]
    scale = np.where(scale > 0, scale, 1.0)
    moved = ((draws - rows[:, None]) / scale)[:, :half]
    nearest = np.argsort(np.square(moved).sum(2), 1)[:, : half // 2]
    near = np.take_along_axis(moved, nearest[:, :, None], 1)
    middle = near.mean(1)
    around = Ellipsoids(rows + middle * scale[:, 0], np.swapaxes(scale, 1, 2) * triangles(near - middle[:, None], WIDE))
    points = PLACES * POINTS_OF_PLACE // len(rows)
    which = np.repeat(np.arange(len(rows)), points)
    y = around.points(which, random.normal(size=(len(which), d))).astype(sample.rows.dtype)
    log_p = sample.model.log_p(y.reshape(-1, *sample.model.event), sample.contexts[order])
    log_v = around.log_normal(y.reshape(len(rows), points, d)) - log_p.reshape(len(rows), points)
    log_w = around.log_normal(draws[:, half:]) - sample.draws_log_p[order, half:]
    return log_w.reshape(PLACES, -1), log_v.reshape(PLACES, -1)


class Ellipsoids(NamedTuple):
    """Ellipsoids that follow a cloud of points: centres (k, d), and triangular matrices (k, d, d) that map a ball to them."""

    centres: np.ndarray
    triangles: np.ndarray

    def points(self, which: np.ndarray, ball: np.ndarray) -> np.ndarray:
        """Map points of a ball, (m, d), to the ellipsoids `which`, (m,)."""
        return self.centres[which] + np.einsum("mij,mj->mi", self.triangles[which], ball)

    def log_normal(self, x: np.ndarray) -> np.ndarray:
        """Log-densities of normals, (k, rows), at points (rows, d), or at points for each, (k, rows, d)."""
        return -0.5 * self._squared(x) - self._log_volume - x.shape[-1] / 2 * np.log(2 * np.pi)

    def log_student(self, x: np.ndarray, degrees: float) -> np.ndarray:
        """Log-densities of Student's t, (k, rows)."""
        d = x.shape[1]
        constant = gammaln((degrees + d) / 2) - gammaln(degrees / 2) - d / 2 * np.log(degrees * np.pi)
        return constant - self._log_volume - (degrees + d) / 2 * np.log1p(self._squared(x) / degrees)

    def _squared(self, x: np.ndarray) -> np.ndarray:
        """Squared distances in units of each ellipsoid, (k, rows)."""
        clouds = np.broadcast_to(x, (len(self.centres), *x.shape[-2:]))
        triples = zip(np.linalg.inv(self.triangles), self.centres, clouds, strict=True)
        return np.stack([np.square((points - centre) @ inverse.T).sum(1) for inverse, centre, points in triples])

    @property
    def _log_volume(self) -> np.ndarray:
        return np.linalg.slogdet(self.triangles)[1][:, None]


def ellipsoids(cloud: np.ndarray, places: np.ndarray, most: int, floor: float, centred: bool = False) -> Ellipsoids:
    """Make an ellipsoid for each place, as wide as the points of the cloud near it, at most `most` where these are enough:
    around the place, or `centred` around their mean; with `floor` times the mean variance added in all directions."""
    n, d = cloud.shape
    middle, scale = unit_of(cloud)
    whole = np.linalg.cholesky(np.cov(cloud / scale, rowvar=False).reshape(d, d) + 1e-9 * np.eye(d))
    z, at = (np.linalg.solve(whole, ((points - middle) / scale).T).T for points in (cloud, places))
    count = min(n, max(min(most, int(SHARE * n)), min(FEWEST, n // 4), 2 * d + 10))
    near = z[np.argpartition(squared_distances(at, z), count - 1, axis=1)[:, :count]]
    if centred:
        at = near.mean(1)
    return Ellipsoids(middle + at @ whole.T * scale, scale[:, None] * (whole @ triangles(near - at[:, None], floor)))


def triangles(near: np.ndarray, floor: float) -> np.ndarray:
    """Return Cholesky factors (k, d, d) of the second moments around 0 of points (k, points, d)."""
    d = near.shape[2]
    moments = np.einsum("kpi,kpj->kij", near, near) / near.shape[1]
    least = floor * np.trace(moments, axis1=1, axis2=2) / d
    return np.linalg.cholesky(moments + np.maximum(least, 1e-9)[:, None, None] * np.eye(d))
