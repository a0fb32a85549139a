"""Figures, by importance weights, of a model that was fitted to a density."""

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import norm

from flows.core import Array, on_device
from flows.objectives import Estimate, effective_sample_size, log_normalizer, pareto_k
from flows.objectives.importance import LEAST_FOR_TAIL
from flows.results.density import Diagnostics
from flows.results.history import History
from flows.training.data.table import seed_of
from flows.training.density.draws import WIDTHS, Drawing, Points
from flows.training.density.modes import Modes
from flows.training.density.start import Beginning
from flows.training.density.target import Box, Target
from flows.training.loop.losses import HeldOut

ENOUGH = 0.99  # of the draws: the effective sample size above which no more is needed
ENOUGH_K = 0.6  # the Pareto k up to which no more is needed
RELIABLE = 0.7  # the Pareto k up to which importance weights can be trusted
OF_MODES = 0.02  # of the draws that count, the share of Gaussians at the modes: what is lost where these are of no use
WIDER = 2.0  # times the width of a mode, of half of these Gaussians
LEFT = 0.5  # of the mass of a mode: the share of the model's draws there, below which it has left the mode
SEEN = 0.01  # of all mass: modes that have less are not looked at
OFF = 0.05  # of a standard deviation: by how much the model's may differ from the density's
SURE = 3.0  # standard errors
FEWEST = 100  # draws that these are as good as, below which no spread is told
REACHED = 0.02  # of all mass: the share of draws with a wider base, below which these show nothing
ENOUGH_DRAWS = 30  # for each component of a mixture, for a regression on their densities
WIDEN = "Train longer, or give a larger model"


class Verdict(NamedTuple):
    """The verdict of the weights: diagnostics, what is to be warned of, the loss, KL(q || p) - log Z, in nats; whether the
    model has left a mode, and how much more mass each mode has than the model's draws there (modes,); the largest |log| of a
    standard deviation of the model over the one of the density, 0 where it is chance, NaN where it was not seen. Log-weights
    are None where some are no numbers."""

    diagnostics: Diagnostics
    messages: list[str]
    loss: float
    left: bool = False
    lacking: np.ndarray | None = None
    off: float = math.nan
    log_weights: np.ndarray | None = None

    @property
    def enough(self) -> bool:
        """Tells whether nothing is to be gained."""
        diagnostics = self.diagnostics
        return not self.messages and diagnostics.effective_sample_size > ENOUGH and diagnostics.pareto_k <= ENOUGH_K


class Figures:
    """Importance weights of draws of a mixture: of the model, of the model with a wider base, and of Gaussians at the modes
    that were found, unless there is one mode, at which the model starts.

    The weights are p / sum_j a_j q_j, a_j the share of the draws that component j made. A draw in a tail that the model lacks
    has a large weight, and so has a draw at a mode that it misses; as half of the Gaussians are twice as wide, no draw in the
    tails of a mode outweighs all others [Hesterberg, "Weighted Average Importance Sampling and Defensive Mixture
    Distributions", 1995].
    """

    def __init__(self, target: Target, box: Box, start: Beginning, n: int, held_out: int, starts: Any):
        self.target, self.box, self.n = target, box, n
        self.drawing = Drawing(start.init_fun, box.event, held_out)
        self.num_modes = 0 if start.modes is None else len(start.modes.shares)
        self.starts = starts if self.num_modes and isinstance(starts, int) else 0
        self.modes = start.modes.widened(WIDER) if start.modes and (self.num_modes > 1 or not start.at_mode) else None

    def held_out(self, triple: Any, key: Array) -> HeldOut:
        """The loss, the effective sample size and Pareto k of one call's draws. No single draw is told of."""
        drawn = self.drawing.of(triple, key, self.drawing.together, 1)
        log_w = self.target.raw(drawn.x) - drawn.log_q[0]
        kl, zero = on_device(-log_w.mean(), self.target.dtype), jnp.zeros((), int)
        usable = not (np.isnan(log_w) | (log_w == np.inf)).any() and np.isfinite(log_w).any()
        effective = effective_sample_size(log_w) / len(log_w) if usable else math.nan
        tail = pareto_k(log_w) if usable and len(log_w) >= LEAST_FOR_TAIL else math.nan
        return HeldOut(kl, zero, kl, jnp.zeros_like(kl), effective, tail, math.nan)

    def weighed(self, triple: Any, key: Array, n: int, widths: int = len(WIDTHS)) -> tuple[Points, np.ndarray]:
        """n draws of the mixture, and the log-density there; without the widest ones where that is no number for some."""
        of_model, of_modes = jax.random.split(key)
        count = 0 if self.modes is None else math.ceil(OF_MODES * n)
        points = self.drawing.of(triple, of_model, n - count, widths)
        if self.modes is not None:
            y = self.modes.draw(np.random.default_rng(seed_of(of_modes)), count)
            at_modes = np.asarray(self.box.back(on_device(y, points.x.dtype)))
            log_q = np.concatenate([points.log_q, self.drawing.scored(triple, at_modes, widths)], 1)
            x = np.concatenate([points.x, at_modes])
            points = Points(x, np.concatenate([log_q, logsumexp(self._at_modes(x), 1)[None]]), (*points.counts, count))
        log_p = self.target.raw(points.x)
        wide = slice(points.counts[0], n - count)
        if (~np.isfinite(points.log_mixture[wide]) | np.isnan(log_p[wide]) | (log_p[wide] == np.inf)).any():
            return self.weighed(triple, key, n, widths - 1)
        return points, log_p

    def of(self, triple: Any, key: Array) -> Verdict:
        """Return what the weights say of a model."""
        points, log_p = self.weighed(triple, key, self.n)
        own = slice(points.counts[0])
        loss = float((points.log_q[0] - log_p)[own].mean())
        log_w, found = log_p - points.log_mixture, (len(log_p), self.num_modes, self.starts)
        bad = np.flatnonzero(np.isnan(log_w) | (log_w == np.inf))
        if len(bad) or not np.isfinite(log_w).any():
            why = (
                f"the importance weights of {len(bad) or self.n} of {self.n} draws are no numbers, so there are no "
                "diagnostics. Look at log_density where the model draws"
            )
            return Verdict(Diagnostics(math.nan, Estimate(math.nan, math.nan), math.inf, *found), [why], loss)
        log_z, k, of_model = log_normalizer_of_mixture(log_w, points), pareto_k(log_w), (log_p - points.log_q[0])[own]
        effective = 1 / (1 + len(log_w) * log_z.standard_error**2)
        if np.isfinite(of_model).any():
            effective = min(effective, effective_sample_size(of_model) / len(of_model))
            wide = slice(own.stop, len(log_w) - (0 if self.modes is None else points.counts[-1]))
            if softmax(log_w)[wide].sum() < REACHED and len(of_model) >= LEAST_FOR_TAIL:
                k = max(k, pareto_k(of_model))  # in many columns wider draws meet no mass, and show no tail
        diagnostics = Diagnostics(effective, log_z, k, *found)
        left, lacking = ("", None) if self.modes is None else self._of_modes(points, log_w)
        off, narrow = self._spread(points, log_w, log_z, of_model)
        messages = [message for message in (left or narrow,) if message]
        if k > RELIABLE:
            messages.append(
                f"Pareto k is {k:.2f}, above {RELIABLE}: the model misses parts of the target, and neither its importance "
                f"weights nor log Z can be trusted. {WIDEN}"
            )
        return Verdict(diagnostics, messages, loss, bool(left), lacking, off, log_w)

    def _at_modes(self, x: np.ndarray) -> np.ndarray:
        """The log-densities of the Gaussians, times their shares, (n, Gaussians)."""
        on_line, log_det = self.box.outside(x)
        parts: np.ndarray = cast(Modes, self.modes).log_parts(on_line) + log_det[:, None]
        return parts

    def _spread(self, points: Points, log_w: np.ndarray, log_z: Estimate, own: np.ndarray) -> tuple[float, str]:
        """Where the spread of the model differs from the spread of the density, also on the line that stands for a support: by
        how much, NaN where that cannot be seen, and a warning of it."""
        wide = len(points.counts) - (self.modes is not None) > 1
        if not wide or not np.isfinite(own).any() or effective_sample_size(log_w) < FEWEST:
            return math.nan, ""
        weights, of_model = [softmax(log) for log in (log_w, points.log_q[0] - points.log_mixture)], log_normalizer(own)
        log_ratio, far = _ratios(points.x, *weights)
        far = far & _ratios(self.box.outside(points.x)[0], *weights)[1] if self.box.layer is not None else far
        if not far.any() and log_z.value - of_model.value <= SURE * math.hypot(log_z.standard_error, of_model.standard_error):
            return 0.0, ""
        if not far.any():
            seen = f"log Z is {log_z.value:.4f}, and {of_model.value:.4f} by its own draws alone"
            return log_z.value - of_model.value, f"the model is too narrow: {seen}. {WIDEN}"
        most = int(np.where(far, np.abs(log_ratio), 0.0).argmax())
        how = "narrow" if log_ratio[most] < 0 else "wide"
        ratio = f"{math.exp(log_ratio[most]):.2f} of what it is under the density"
        name = f"number {most} of a point" if self.box.named is None else self.box.named.entries()[most]
        told = f"the model is too {how}: the standard deviation of {name} is {ratio}. {WIDEN}"
        return float(np.abs(log_ratio[most])), told

    def _of_modes(self, points: Points, log_w: np.ndarray) -> tuple[str, np.ndarray]:
        """A warning of modes that have far less of the model's draws than of the mass; and the ratio, of each."""
        modes, n = cast(Modes, self.modes), points.counts[0]
        nearest = softmax(self._at_modes(points.x), 1).reshape(len(points.x), 2, self.num_modes).sum(1)
        mass, share_of_draws = softmax(log_w) @ nearest, nearest[:n].mean(0)
        lacking = mass / np.maximum(share_of_draws, 1 / n)
        left = np.flatnonzero((mass > SEEN) & (share_of_draws < LEFT * mass))
        if not len(left):
            return "", lacking
        k = left[np.argmax((mass - share_of_draws)[left])]
        at = np.asarray(self.box.back(on_device(modes.means[k : k + 1], self.target.dtype)))[0]
        message = (
            f"the model has left {len(left)} of {len(mass)} modes: at {at!s:.100} lie {mass[k]:.1%} of the mass, and "
            f"{share_of_draws[k]:.1%} of its draws. Give a flow on Normal() with standardize=True, which starts at all of "
            "them, or a larger one"
        )
        return message, lacking


def _ratios(x: np.ndarray, of_density: np.ndarray, of_model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log of the model's standard deviation over the density's, of each number, and whether it is far from 0.

    Both are of the same points, with weights of the density and of the model, so that their ratio is 1 where both agree, and
    has the standard error of a difference.
    """
    x = x.reshape(len(x), -1).astype(float)
    with np.errstate(all="ignore"):  # of columns that stay where they are, and squares that overflow
        of_each, variances = [], []
        for w in (of_density, of_model):
            squares = np.square(x - w @ x)
            variances.append(w @ squares)
            of_each.append(w[:, None] * (squares / variances[-1] - 1))
        log_ratio = 0.5 * np.log(variances[1] / variances[0])
        error = 0.5 * np.sqrt(np.square(of_each[1] - of_each[0]).sum(0))
        sure = float(norm.isf(norm.sf(SURE) / x.shape[1]))  # of all columns together
        return log_ratio, (np.abs(log_ratio) > OFF) & (np.abs(log_ratio) > sure * error)


def log_normalizer_of_mixture(log_w: np.ndarray, points: Points) -> Estimate:
    """log Z by weights of a mixture whose components are known: their ratios q_j / q have mean 1, and what the weights have in
    common with them is no error. With b of the regression w = sum_j b_j q_j / q + r, log Z is log sum_j b_j, and its standard
    error std(r) / (sqrt(n) sum_j b_j) [Owen and Zhou, "Safe and Effective Importance Sampling", 2000, section 4]."""
    top, n = log_w.max(), len(log_w)
    w, ratios = np.exp(log_w - top), np.exp(points.log_q - points.log_mixture).T
    if n < ENOUGH_DRAWS * ratios.shape[1]:  # which would leave no error to see
        return log_normalizer(log_w)
    b = np.linalg.lstsq(ratios, w, rcond=None)[0]
    z, rest = b.sum(), w - ratios @ b
    if not z > 0:  # a few large weights
        return log_normalizer(log_w)
    return Estimate(float(top + math.log(z)), float(np.sqrt(np.square(rest).sum() / (n * (n - len(b)))) / z))


def history_of_start(loss: float) -> History:
    """Return the history of a fit that needed no epoch."""
    losses = {"train_loss": np.zeros(0), "validation_loss": np.zeros(0), "skipped": np.zeros(0, int)}
    return History({**losses, "best_epoch": -1, "start_loss": np.array(loss), "error": np.array(math.nan)})
