"""The modes of an unnormalised density: maxima found from many starting points, each with a Gaussian and a mass."""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import log_softmax, logsumexp

from flows.core import LOG_2PI, FlowsError, warn_user
from flows.objectives import effective_sample_size
from flows.results.density import REACH
from flows.training.density.target import ITERATIONS, Target

AROUND_THE_MEAN = 3, 4, 9, 14  # of 16 points, one of each scale
SCALES = (1.0, 2.0, 4.0, REACH)  # standard deviations of the starting points, in turn
CANDIDATES = 4_096  # points from which later starts are chosen
UNLIKE = 0.05  # of these points at one scale: the share of candidates for a start
TURNS = 4  # in which starts are chosen
MOST_GAPS = 6  # pairs of modes with one more start between them
FAR = 1e4  # times the largest starting point: an end beyond is not a mode if the density still rises
COARSE = 0.5  # nats: a rounding step of the log-density at its maximum
ROUNDED = 1e-5  # of a log-density: two values this close are equal in float32
BARRIER = 1.0  # nats of a dip between two maxima that makes them two modes
BETWEEN = 9  # points between two maxima where a dip may be
DROP = 0.5  # nats that a Gaussian falls within one standard deviation
WIDTHS = 2.0 ** np.arange(-24, 9)  # times the width by the curvature: candidates for the width of a Gaussian
WEIGHED = 8_192  # draws that estimate masses
LEAST_SHARE = 0.02  # of these draws: the least share of a mode, before shares are normalised
ENOUGH = 100  # effective draws, below which the masses of the Gaussians are used
NEGLIGIBLE = 1e-3  # of the mass of the largest mode


class Gaussian(NamedTuple):
    """A Gaussian: its mean (d,), the standard deviations of its columns (d,), and the factor (d, d) of its correlation."""

    mean: np.ndarray
    std: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, factor: np.ndarray) -> "Gaussian":
        """Make a Gaussian of the Cholesky factor of its covariance."""
        std = np.sqrt(np.square(factor).sum(1))
        return cls(mean, std, factor / std[:, None])


class Modes(NamedTuple):
    """Gaussians at the modes: means (k, d), Cholesky factors of covariances (k, d, d), their shares of the mass (k,), and the
    effective sample size of their draws, as a share of the draws."""

    means: np.ndarray
    factors: np.ndarray
    shares: np.ndarray
    effective: float = 1.0

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        component = rng.choice(len(self.shares), n, p=self.shares)
        z = rng.standard_normal((n, self.means.shape[1]))
        return self.means[component] + np.einsum("nij,nj->ni", self.factors[component], z)

    def log_parts(self, x: np.ndarray) -> np.ndarray:
        """The log of share times density for each mode, (n, k)."""
        parts = np.empty((len(x), len(self.shares)))
        for k, (mean, factor, share) in enumerate(zip(self.means, self.factors, self.shares, strict=True)):
            z = np.linalg.solve(factor, (x - mean).T)
            parts[:, k] = math.log(share) + log_normal(z).sum(0) - np.log(np.diag(factor)).sum()
        return parts

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        total: np.ndarray = logsumexp(self.log_parts(x), 1)
        return total

    def reach(self, x: np.ndarray) -> np.ndarray:
        """The `log_pdf` with Cauchy tails in place of normal tails, (n,)."""
        log_parts, d = self.log_parts(x), self.means.shape[1]
        top = np.log(self.shares) - 0.5 * d * LOG_2PI - np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(1)
        total: np.ndarray = logsumexp(top - 0.5 * (d + 1) * np.log1p(2 * (top - log_parts)), 1)
        return total

    def widened(self, by: float) -> "Modes":
        """Gaussians of which half have `by` times the width, to reach into the tails."""
        means, factors = np.concatenate([self.means] * 2), np.concatenate([self.factors, by * self.factors])
        return Modes(means, factors, np.concatenate([self.shares] * 2) / 2, self.effective)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the mixture, and the Cholesky factor of its covariance."""
        mean, root = self.shares @ self.means, np.sqrt(self.shares)
        within = np.concatenate([share * factor for share, factor in zip(root, self.factors, strict=True)], 1)
        return mean, cholesky_of(np.concatenate([within, (root[:, None] * (self.means - mean)).T], 1))


def cholesky_of(a: np.ndarray) -> np.ndarray:
    """The Cholesky factor of a a', for a (d, n), which may be ill-conditioned."""
    factor: np.ndarray = np.transpose(np.linalg.qr(a.T, mode="r"))
    signed: np.ndarray = factor * np.where(np.diag(factor) < 0, -1.0, 1.0)
    return signed


def modes_of(
    rng: np.random.Generator, target: Target, starts: int | np.ndarray, nearest: Gaussian | None = None
) -> Modes | None:
    """The modes to which L-BFGS climbs from points (n, d), the heaviest first; None if there are none.

    A quarter of the starts are `spread_points`. The others are chosen in three turns from many more such points, where the
    density is largest relative to the modes so far, as a wide mode hides narrow modes. A few more starts are halfway between
    modes, which may be ends of one ridge. Two ends belong to one mode if the density does not dip between them. The Gaussian
    of a mode has the axes of the Hessian, and on each axis the standard deviation within which the density falls by half a
    nat, so that a flat top also has a width. Its share comes from importance weights of draws of all Gaussians. Modes with
    less than a thousandth of the mass of the largest are left out.
    """
    if isinstance(starts, np.ndarray):
        ends, heights = _arrived(target, starts)
    else:
        ends, heights = _searched(rng, target, starts, nearest)
    if not len(ends):
        return None
    return _weighed(rng, target, _gaussians(target, ends, heights, _joined(target, ends, heights)))


def _searched(rng: np.random.Generator, target: Target, starts: int, nearest: Gaussian | None) -> tuple[np.ndarray, np.ndarray]:
    """The ends of L-BFGS from a number of starts, and the log-density there, the highest first."""
    points = spread_points(rng, CANDIDATES, target, nearest)
    points[0] = 0.0
    ends, heights = _arrived(target, points[: -(-starts // TURNS)])
    values = target(points) if starts > 1 and len(ends) else np.zeros(0)
    for turn in range(1, min(TURNS, starts) if len(values) else 0):
        groups = _joined(target, ends, heights)
        known, n = _gaussians(target, ends, heights, groups), (starts + TURNS - 1 - turn) // TURNS
        # Relative to normal tails a narrow mode shows best, relative to Cauchy tails a mode in a heavy tail.
        references = ((known.log_pdf, n - n // 2), (known.reach, n // 2))
        numbers = [_chosen(points, values - density(points), count) for density, count in references]
        chosen = points[np.concatenate(numbers).astype(int)]
        more = _arrived(target, np.concatenate([chosen, _gaps(ends, groups)]))
        ends, heights = _sorted(np.concatenate([ends, more[0]]), np.concatenate([heights, more[1]]))
    return ends, heights


def spread_points(rng: np.random.Generator, n: int, target: Target, nearest: Gaussian | None) -> np.ndarray:
    """Draws of normals, (n, d), with standard deviations 1, 2, 4 and 8 in turn, in units of the nearest Gaussian in columns
    where it is wider than 1; every fourth point is around its mean instead of 0."""
    points = rng.standard_normal((n, *target.event)) * np.resize(SCALES, n)[:, None]
    if nearest is not None:
        points *= np.maximum(nearest.std, 1.0)
        points[np.isin(np.arange(n) % 16, AROUND_THE_MEAN)] += nearest.mean
    return points


def _gaps(ends: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """Points halfway between the ends of different modes that are nearest to each other, of a few pairs of modes."""
    pairs = list(combinations(groups, 2))[:MOST_GAPS]
    nearest = [_nearest(ends, a, b) for a, b in pairs]
    return np.array([(ends[i] + ends[j]) / 2 for i, j in nearest]).reshape(-1, ends.shape[1])


def _chosen(points: np.ndarray, unlike: np.ndarray, n: int) -> np.ndarray:
    """The numbers of n points that are far from each other, among the points of each scale where the density differs most from
    the known modes."""
    chosen, distance = list[int](), np.full(len(points), np.inf)
    for i in range(n):
        same_scale = np.arange(i % len(SCALES), len(points), len(SCALES))
        able = same_scale[np.argsort(-unlike[same_scale], kind="stable")[: int(UNLIKE * len(same_scale))]]
        able = able[: max((unlike[able] > BARRIER).sum(), 1)]
        chosen.append(int(able[distance[able].argmax()]))
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(1))
    return np.array(chosen)


def _gaussians(target: Target, ends: np.ndarray, heights: np.ndarray, groups: list[np.ndarray]) -> Modes:
    """The Gaussians at the highest end of each group, with shares by their masses."""
    tops = [int(group[0]) for group in groups]
    maxima = zip(ends[tops], heights[tops], target.hessians(ends[tops]), strict=True)
    factors = np.stack([_factor(target, *maximum) for maximum in maxima])
    log_mass = heights[tops] + np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    heavy = log_mass > log_mass.max() + math.log(NEGLIGIBLE)
    return Modes(ends[tops][heavy], factors[heavy], np.exp(log_softmax(log_mass[heavy])))


def _arrived(target: Target, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends at which L-BFGS arrived, and the log-density there, the highest first."""
    ends, heights = target.climbed(points)
    usable = np.isfinite(heights) & np.isfinite(ends).all(1)
    away = usable & (np.abs(ends).max(1) > FAR * max(np.abs(points).max(), 1.0))
    if away.any():
        away &= target(2 * ends) > heights  # a maximum may lie far out
    arrived = usable & ~away
    if away.any() and not arrived.any():
        warn_user(
            f"fit_to_density: log_density has no maximum that {len(points)} starts could find: it still rises at "
            f"{ends[away][0]!s:.100}. It is improper, or unbounded as the densities of some hierarchical models are: look at "
            "it there"
        )
    height = float(heights[arrived].max(initial=-math.inf))
    step = abs(height) * float(np.finfo(target.dtype).eps)
    if arrived.any() and step > COARSE:
        raise FlowsError(
            f"fit_to_density: log_density is {height:.6g} where it is largest, and there {np.dtype(target.dtype).name} has "
            f"steps of {step:.2g} nats. Subtract a constant, such as its value at one point, or use float64 (jax_enable_x64)"
        )
    return _sorted(ends[arrived], heights[arrived])


def _sorted(ends: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-heights, kind="stable")
    return ends[order], heights[order]


def _joined(target: Target, ends: np.ndarray, heights: np.ndarray) -> list[np.ndarray]:
    """The numbers of the ends of each mode, its highest first. Ends are sorted by height; one from which the density rises all
    the way to another is a saddle, and of none."""
    groups, left = list[np.ndarray](), np.arange(len(ends))
    while len(left):
        near = ~_dips(target, ends[left[:1]], ends[left], heights[left])
        near[0] = True
        groups.append(left[near & (heights[left] >= heights[left[0]] - BARRIER)])
        left = left[~near]
    first, second = np.triu_indices(len(groups), 1)
    linked = np.zeros((len(groups), len(groups)), bool)
    if len(first):
        a, b = np.array([_nearest(ends, groups[i], groups[j]) for i, j in zip(first, second, strict=True)]).T
        tops = heights[[group[0] for group in groups]]
        linked[first, second] = ~_dips(target, ends[a], ends[b], np.minimum(tops[first], tops[second]))
    labels = connected_components(linked, directed=False)[1]
    return [np.sort(np.concatenate([groups[i] for i in np.flatnonzero(labels == label)])) for label in np.unique(labels)]


def _dips(target: Target, a: np.ndarray, b: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return whether the density falls by a nat below a height on the straight line between two points."""
    share = np.arange(1, BETWEEN + 1)[None, :, None] / (BETWEEN + 1)
    between: np.ndarray = target(a[:, None] * (1 - share) + b[:, None] * share).min(1)
    return between < height - BARRIER - ROUNDED * np.abs(height)


def _nearest(ends: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    apart = np.square(ends[a][:, None] - ends[b][None]).sum(2)
    i, j = np.unravel_index(apart.argmin(), apart.shape)
    return int(a[i]), int(b[j])


def _factor(target: Target, top: np.ndarray, height: float, hessian: np.ndarray) -> np.ndarray:
    """The Cholesky factor of the covariance of the Gaussian at a maximum."""
    known = np.isfinite(hessian).all()
    curvature, axes = np.linalg.eigh(-(hessian + hessian.T) / 2 if known else np.eye(len(top)))
    scale = np.maximum(curvature, ROUNDED**2) ** -0.5
    steps = scale * WIDTHS[:, None]  # (widths, d)
    both = top + np.array([1.0, -1.0])[:, None, None, None] * steps[:, :, None] * axes.T[None]
    drop = height - target(both).mean(0)
    down = drop >= DROP + ROUNDED * np.abs(height)
    last = np.where(down.any(0), down.argmax(0), len(WIDTHS) - 1)
    at = last, np.arange(len(top))
    std = np.where(np.isfinite(drop[at]), steps[at] * np.sqrt(DROP / np.clip(drop[at], DROP / 4, 4 * DROP)), steps[at] / 2)
    return cholesky_of(axes * std)


def _weighed(rng: np.random.Generator, target: Target, modes: Modes) -> Modes:
    """The Gaussians with shares by importance weights of draws of all, the heaviest first."""
    shares, least = modes.shares, np.maximum(modes.shares, LEAST_SHARE)
    drawn = modes._replace(shares=least / least.sum())
    x = drawn.draw(rng, WEIGHED)
    log_parts = drawn.log_parts(x)
    effective = _effective(log_w := target(x) - logsumexp(log_parts, 1))
    if effective * WEIGHED > ENOUGH:
        shares = _likeliest(log_parts - np.log(drawn.shares), np.exp(log_w - logsumexp(log_w)), shares)
    heavy = np.argsort(-shares)[: int((shares > NEGLIGIBLE * shares.max()).sum())]
    return Modes(drawn.means[heavy], drawn.factors[heavy], shares[heavy] / shares[heavy].sum(), effective)


def _effective(log_w: np.ndarray) -> float:
    return effective_sample_size(log_w) / len(log_w) if np.isfinite(log_w).any() else 0.0


def wide_normal_is_better(rng: np.random.Generator, target: Target, modes: Modes) -> bool:
    """Return whether draws of the standard normal are better than draws of the Gaussians at the modes, as on a ridge: from the
    standard normal a flow finds the whole ridge, and from its maxima only parts."""
    x = rng.standard_normal((WEIGHED, *target.event))
    return _effective(target(x) - log_normal(x).sum(1)) > modes.effective


def log_normal(z: np.ndarray) -> np.ndarray:
    return -0.5 * (z**2 + LOG_2PI)


def _likeliest(log_densities: np.ndarray, w: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The maximum-likelihood shares of components for weighted points, by expectation-maximisation."""
    for _ in range(ITERATIONS):
        shares = w @ np.exp(log_softmax(log_densities + np.log(np.maximum(shares, 1e-300)), 1))
    return shares
