"""Sums and integrals of a density over one column, of many rows at once: codes, angles, numbers on the line or between bounds.

An integral is taken by Simpson's rule on panels, which are halved, for each row by itself, until two levels agree.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

TOLERANCE = 1e-3  # nats, by which two levels of an integral may differ
ROUNDINGS = 2.0  # the same, in roundings of the largest log p
COARSEST = 0.1  # nats, the most that this allows: levels that miss a peak differ by about 1
MOST_POINTS = 4_096  # of an integral
SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)  # of the draws, below the ends of panels
FAR = 4.0  # standard deviations, beyond which rows are equally far from the draws
# For a panel of 5 equidistant points: Boole's rule, which follows from two levels of Simpson's, on three of them and on all; by
# how much these differ; and a third difference, as they may agree by chance where a panel is too wide.
RULES = np.array(
    [[7 / 90, 32 / 90, 12 / 90, 32 / 90, 7 / 90], np.array([-1, 4, -6, 4, -1]) / 12, np.array([-1, 2, 0, -2, 1]) / 50]
).T
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # log p of rows, by their places, with values in one column


# Each axis is a column that is moved. `spread` returns it with what it needs of draws; `features` are numbers, (rows, k), by
# which values are near or far; `log_total` is the log of the sum, or of the integral, of exp(score) over the column, (rows,).
class Codes(NamedTuple):
    """Codes 0, 1, ..., all of which are summed over."""

    classes: int

    def spread(self, drawn: np.ndarray) -> "Codes":
        return self

    def features(self, t: np.ndarray) -> np.ndarray:
        return (t[:, None] == np.arange(self.classes)).astype(np.float64)

    def log_total(self, score: Score, x: np.ndarray, near: np.ndarray, rounding: float) -> np.ndarray:
        rows, codes = np.repeat(np.arange(len(x)), self.classes), np.tile(np.arange(float(self.classes)), len(x))
        return np.asarray(logsumexp(score(rows, codes).reshape(-1, self.classes), axis=1))


class Angle(NamedTuple):
    """A number modulo a period."""

    period: float
    ends: np.ndarray = np.zeros(0)

    def spread(self, drawn: np.ndarray) -> "Angle":
        inner = np.quantile(drawn % self.period, SHARES) if len(drawn) else np.linspace(0.1, 0.9, 8) * self.period
        return Angle(self.period, np.array([0.0, *inner, self.period]))

    def features(self, t: np.ndarray) -> np.ndarray:
        turns = 2 * np.pi * t / self.period
        return np.stack([np.cos(turns), np.sin(turns)], 1)

    def log_total(self, score: Score, x: np.ndarray, near: np.ndarray, rounding: float) -> np.ndarray:
        return log_integral(score, knots_of(self.ends, x[:, None] % self.period, near % self.period), rounding)


class Line(NamedTuple):
    """A number between bounds, or on the line. `flows.Unconstrain` takes it to the line, and `to_s` takes that to (-2, 2),
    linear between the extremes of the draws at -1 and 1."""

    low: float
    high: float
    centre: float = 0.0
    half: float = 1.0
    std: float = 1.0
    ends: np.ndarray = np.zeros(0)

    def spread(self, drawn: np.ndarray) -> "Line":
        u = self._unbounded(drawn)
        if not len(u):
            return self._replace(ends=np.linspace(-2, 2, 9))
        least, most = float(u.min()), float(u.max())
        half = max((most - least) / 2, 1e-6 * max(abs(least), abs(most)), 1e-9)
        line = self._replace(centre=(least + most) / 2, half=half, std=max(float(u.std()), half / len(u)))
        return line._replace(ends=np.array([-2, -1.3, -1, *line.to_s(np.quantile(u, SHARES)), 1, 1.3, 2]))

    def features(self, t: np.ndarray) -> np.ndarray:
        return np.clip((self._unbounded(t) - self.centre) / self.std, -FAR, FAR)[:, None]

    def log_total(self, score: Score, x: np.ndarray, near: np.ndarray, rounding: float) -> np.ndarray:
        def density(rows: np.ndarray, s: np.ndarray) -> np.ndarray:
            t, log_slope = self._from_s(s)
            log_f = np.full(len(s), -np.inf)
            with np.errstate(over="ignore"):
                single, low, high = np.float32(t), np.float32(self.low), np.float32(self.high)
            within = np.isfinite(single) & (single > low) & (single < high)  # a value rounded to an end has no density
            log_f[within] = score(rows[within], t[within]) + log_slope[within]
            return log_f

        x, near = (self.to_s(self._unbounded(t)) for t in (x[:, None], near))
        return log_integral(density, knots_of(self.ends, x, near), rounding)

    def _unbounded(self, t: np.ndarray) -> np.ndarray:
        """Values on the line; draws that were rounded to the end of a box, or beyond it, are moved inside."""
        if not np.isfinite([self.low, self.high]).any():
            return t
        infinity = np.float32(np.inf)
        least, most = np.nextafter(np.float32(self.low), infinity), np.nextafter(np.float32(self.high), -infinity)
        inside = np.clip(t, least, most)
        from_low = np.log(inside - self.low) if np.isfinite(self.low) else 0.0
        return np.asarray(from_low - (np.log(self.high - inside) if np.isfinite(self.high) else 0.0))

    def to_s(self, u: np.ndarray) -> np.ndarray:
        z = (u - self.centre) / self.half
        return np.where(np.abs(z) <= 1, z, np.sign(z) * (2 - 1 / np.maximum(np.abs(z), 1)))

    def _from_s(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values, and the log of their slope in s."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            outer = 2 - np.maximum(np.abs(s), 1)
            u = self.centre + self.half * np.where(np.abs(s) <= 1, s, np.sign(s) / outer)
            log_slope = np.log(self.half) - 2 * np.log(outer)
            if np.isfinite([self.low, self.high]).all():
                share = 1 / (1 + np.exp(-u))
                slope = np.log(self.high - self.low) - np.logaddexp(0, u) - np.logaddexp(0, -u)
                return self.low + (self.high - self.low) * share, log_slope + slope
            if np.isfinite(self.low):
                return self.low + np.exp(u), log_slope + u
            if np.isfinite(self.high):
                return self.high - np.exp(-u), log_slope - u
            return u, log_slope


def knots_of(ends: np.ndarray, *points: np.ndarray) -> np.ndarray:
    """The ends of panels of each row, in order."""
    rows = len(points[0])
    return np.sort(np.clip(np.concatenate([np.tile(ends, (rows, 1)), *points], 1), ends[0], ends[-1]), 1)


def log_integral(log_f: Score, knots: np.ndarray, rounding: float) -> np.ndarray:
    """The log of the integral of exp(log_f) between the first and the last of the knots of each row, (rows,); NaN where that
    needs more than MOST_POINTS, or where log_f is NaN, or -inf at all points.

    Args:
        log_f: a function of the places of rows and of points, both (n,).
        knots: (rows, panels + 1), in order.
        rounding: of log_f, relative: levels agree to no less.
    """
    count, panels = len(knots), knots.shape[1] - 1
    starts, widths = knots[:, :-1], np.diff(knots, axis=1)
    inner = starts[:, :, None] + widths[:, :, None] * np.arange(4) / 4
    points = np.concatenate([inner.reshape(count, -1), knots[:, -1:]], 1)
    known = log_f(np.repeat(np.arange(count), points.shape[1]), points.ravel()).reshape(points.shape)
    # For each panel in play: its row, where it starts, how wide it is, and log_f at its five points.
    values = np.concatenate([known[:, :-1].reshape(count, panels, 4), known[:, 4::4, None]], 2).reshape(-1, 5)
    rows, starts, widths = np.repeat(np.arange(count), panels), starts.ravel(), widths.ravel()
    result, used = np.full(count, np.nan), np.full(count, points.shape[1])
    while len(rows):
        peak, panels_of = np.full(count, -np.inf), np.bincount(rows, minlength=count)
        with np.errstate(invalid="ignore", divide="ignore"):
            np.maximum.at(peak, rows, values.max(1))
            best, *differences = (np.exp(values - peak[rows, None]) @ RULES * widths[:, None]).T
            error = np.abs(differences).sum(0)
            total, missed = np.bincount(rows, best, count), np.bincount(rows, error, count)
            allowed = (TOLERANCE + np.minimum(ROUNDINGS * rounding * np.abs(peak), COARSEST)) * total
            solved = missed <= allowed  # not where there is NaN
            result = np.where(solved & (panels_of > 0), np.log(total) + peak, result)
            halved = ~solved[rows] & (error > allowed[rows] / (2 * panels_of[rows]))
        used += 4 * np.bincount(rows, halved, count).astype(int)
        goes_on = ~solved & np.isfinite(missed) & (used <= MOST_POINTS)
        stays, halved = goes_on[rows] & ~halved, goes_on[rows] & halved
        row, start, half = rows[halved], starts[halved], widths[halved] / 2
        between = log_f(np.repeat(row, 4), (start[:, None] + half[:, None] * np.arange(1, 8, 2) / 4).ravel())
        both = np.empty((len(row), 9))
        both[:, ::2], both[:, 1::2] = values[halved], between.reshape(-1, 4)
        rows = np.concatenate([rows[stays], row, row])
        starts, widths = np.concatenate([starts[stays], start, start + half]), np.concatenate([widths[stays], half, half])
        values = np.concatenate([values[stays], both[:, :5], both[:, 4:]])
    return result
