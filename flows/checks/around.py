"""Ellipsoids that follow a cloud of points, however it bends: where p is, and how wide."""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from flows.diagnostics.arrays import squared_distances

SHARE = 0.05  # of the points of a cloud, that count as near one
FEWEST = 50  # such points


class Around(NamedTuple):
    """Ellipsoids: centres (k, d), and triangles (k, d, d) that make them of a ball."""

    centres: np.ndarray
    triangles: np.ndarray

    def points(self, which: np.ndarray, ball: np.ndarray) -> np.ndarray:
        """Points of a ball (m, d), each as one of its ellipsoid."""
        return self.centres[which] + np.einsum("mij,mj->mi", self.triangles[which], ball)

    def log_normal(self, x: np.ndarray) -> np.ndarray:
        """Log-densities of normals, (k, rows)."""
        d = x.shape[1]
        return -0.5 * self._squared(x) - self._log_volume[:, None] - d / 2 * np.log(2 * np.pi)

    def log_student(self, x: np.ndarray, degrees: float) -> np.ndarray:
        """Log-densities of Student's t, (k, rows)."""
        d = x.shape[1]
        constant = gammaln((degrees + d) / 2) - gammaln(degrees / 2) - d / 2 * np.log(degrees * np.pi)
        return constant - self._log_volume[:, None] - (degrees + d) / 2 * np.log1p(self._squared(x) / degrees)

    def _squared(self, x: np.ndarray) -> np.ndarray:
        """Squared distances in units of each ellipsoid, (k, rows)."""
        inverses = np.linalg.inv(self.triangles)
        pairs = zip(inverses, self.centres, strict=True)
        return np.stack([np.square((x - centre) @ inverse.T).sum(1) for inverse, centre in pairs])

    @property
    def _log_volume(self) -> np.ndarray:
        return np.linalg.slogdet(self.triangles)[1]


def ellipsoids(cloud: np.ndarray, places: np.ndarray, most: int, floor: float, centred: bool = False) -> Around:
    """One for each place, as wide as the points of the cloud near it, at most so many where these are enough: around the place,
    or `centred` around their mean; with `floor` times the mean variance in all directions."""
    n, d = cloud.shape
    scale = cloud.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    middle = cloud.mean(0)
    whole = np.linalg.cholesky(np.cov(cloud / scale, rowvar=False).reshape(d, d) + 1e-9 * np.eye(d))
    z, at = (np.linalg.solve(whole, ((each - middle) / scale).T).T for each in (cloud, places))
    count = min(n, max(min(most, int(SHARE * n)), min(FEWEST, n // 4), 2 * d + 10))
    near = z[np.argpartition(squared_distances(at, z), count - 1, axis=1)[:, :count]]
    if centred:
        at = near.mean(1)
    return Around(middle + at @ whole.T * scale, scale[:, None] * (whole @ triangles(near - at[:, None], floor)))


def triangles(near: np.ndarray, floor: float) -> np.ndarray:
    """Return triangles (k, d, d) of the second moments of points (k, points, d) around 0."""
    d = near.shape[2]
    moments = np.einsum("kpi,kpj->kij", near, near) / near.shape[1]
    least = floor * np.trace(moments, axis1=1, axis2=2) / d
    return np.linalg.cholesky(moments + np.maximum(least, 1e-9)[:, None, None] * np.eye(d))
