"""Diagnostics, by importance weights, of a model that was fitted to a density."""

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

ENOUGH = 0.99  # of the draws: an effective sample size that is good enough
ENOUGH_K = 0.6  # a Pareto k that is good enough
RELIABLE = 0.7  # the largest Pareto k at which importance weights are reliable
OF_MODES = 0.02  # of the draws: the share of Gaussians at the modes, which is lost if these are useless
WIDER = 2.0  # times the width of a mode: the width of half of these Gaussians
LEFT = 0.5  # of the mass of a mode: with a smaller share of the draws, the model has left the mode
SEEN = 0.01  # of all mass: modes with less are not examined
OFF = 0.05  # the relative error of a standard deviation that is allowed
SURE = 3.0  # standard errors
FEWEST = 100  # effective draws, below which no spread is judged
REACHED = 0.02  # of all mass: draws with a wider base that have less show nothing
ENOUGH_DRAWS = 30  # for each component of a mixture, for a regression on its densities
WIDEN = "Train longer, or give a larger model"


class Verdict(NamedTuple):
    """The verdict of the weights: the diagnostics, messages of warnings, and the loss, KL(q || p) - log Z, in nats. `left` says
    whether the model has left a mode, `lacking` (modes,) is the mass of each mode over the share of the draws there. `off` is
    the largest |log| ratio of a standard deviation of the model to the one of the density: 0 if it may be chance, NaN if it is
    unknown. Log-weights are None if some are not numbers."""

    diagnostics: Diagnostics
    messages: list[str]
    loss: float
    left: bool = False
    lacking: np.ndarray | None = None
    off: float = math.nan
    log_weights: np.ndarray | None = None

    @property
    def enough(self) -> bool:
        """True if training cannot gain anything."""
        diagnostics = self.diagnostics
        return not self.messages and diagnostics.effective_sample_size > ENOUGH and diagnostics.pareto_k <= ENOUGH_K


class Figures:
    """Importance weights of draws of a mixture: the model, the model with a wider base, and Gaussians at the modes, unless the
    model starts at the only mode.

    The weights are p / sum_j a_j q_j, where a_j is the share of the draws of component j. A draw in a tail that the model lacks
    has a large weight, and so has a draw at a mode that it misses. As half of the Gaussians are twice as wide, no draw in the
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
        """The loss, the effective sample size and Pareto k of the draws of one call. It names no single draw."""
        drawn = self.drawing.of(triple, key, self.drawing.together, 1)
        log_w = self.target.raw(drawn.x) - drawn.log_q[0]
        kl, zero = on_device(-log_w.mean(), self.target.dtype), jnp.zeros((), int)
        usable = not (np.isnan(log_w) | (log_w == np.inf)).any() and np.isfinite(log_w).any()
        effective = effective_sample_size(log_w) / len(log_w) if usable else math.nan
        tail = pareto_k(log_w) if usable and len(log_w) >= LEAST_FOR_TAIL else math.nan
        return HeldOut(kl, zero, kl, jnp.zeros_like(kl), effective, tail, math.nan)

    def weighed(self, triple: Any, key: Array, n: int, widths: int = len(WIDTHS)) -> tuple[Points, np.ndarray]:
        """n draws of the mixture, and the log-density there; without the widest draws if some have no number."""
        model_key, modes_key = jax.random.split(key)
        count = 0 if self.modes is None else math.ceil(OF_MODES * n)
        points = self.drawing.of(triple, model_key, n - count, widths)
        if self.modes is not None:
            y = self.modes.draw(np.random.default_rng(seed_of(modes_key)), count)
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
        """Return the verdict on a model."""
        points, log_p = self.weighed(triple, key, self.n)
        by_model = slice(points.counts[0])
        loss = float((points.log_q[0] - log_p)[by_model].mean())
        log_w, counts = log_p - points.log_mixture, (len(log_p), self.num_modes, self.starts)
        bad = np.flatnonzero(np.isnan(log_w) | (log_w == np.inf))
        if len(bad) or not np.isfinite(log_w).any():
            why = (
                f"the importance weights of {len(bad) or self.n} of {self.n} draws are not numbers, so there are no "
                "diagnostics. Look at log_density where the model draws"
            )
            return Verdict(Diagnostics(math.nan, Estimate(math.nan, math.nan), math.inf, *counts), [why], loss)
        log_z, k, model_w = log_normalizer_of_mixture(log_w, points), pareto_k(log_w), (log_p - points.log_q[0])[by_model]
        effective = 1 / (1 + len(log_w) * log_z.standard_error**2)
        if np.isfinite(model_w).any():
            effective = min(effective, effective_sample_size(model_w) / len(model_w))
            wide = slice(by_model.stop, len(log_w) - (0 if self.modes is None else points.counts[-1]))
            if softmax(log_w)[wide].sum() < REACHED and len(model_w) >= LEAST_FOR_TAIL:
                k = max(k, pareto_k(model_w))  # in many columns wider draws meet no mass, and show no tail
        diagnostics = Diagnostics(effective, log_z, k, *counts)
        left, lacking = ("", None) if self.modes is None else self._left_modes(points, log_w)
        off, narrow = self._spread(points, log_w, log_z, model_w)
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

    def _spread(self, points: Points, log_w: np.ndarray, log_z: Estimate, model_w: np.ndarray) -> tuple[float, str]:
        """How much the spread of the model differs from the spread of the density, also on the line that stands for a support;
        NaN if that is unknown; and a warning."""
        wide = len(points.counts) - (self.modes is not None) > 1
        if not wide or not np.isfinite(model_w).any() or effective_sample_size(log_w) < FEWEST:
            return math.nan, ""
        weights, model_z = [softmax(log) for log in (log_w, points.log_q[0] - points.log_mixture)], log_normalizer(model_w)
        log_ratio, far = _ratios(points.x, *weights)
        far = far & _ratios(self.box.outside(points.x)[0], *weights)[1] if self.box.layer is not None else far
        if not far.any() and log_z.value - model_z.value <= SURE * math.hypot(log_z.standard_error, model_z.standard_error):
            return 0.0, ""
        if not far.any():
            estimates = f"log Z is {log_z.value:.4f}, and {model_z.value:.4f} by its own draws alone"
            return log_z.value - model_z.value, f"the model is too narrow: {estimates}. {WIDEN}"
        most = int(np.where(far, np.abs(log_ratio), 0.0).argmax())
        how = "narrow" if log_ratio[most] < 0 else "wide"
        ratio = f"{math.exp(log_ratio[most]):.2f} of what it is under the density"
        name = f"number {most} of a point" if self.box.named is None else self.box.named.entries()[most]
        message = f"the model is too {how}: the standard deviation of {name} is {ratio}. {WIDEN}"
        return float(np.abs(log_ratio[most])), message

    def _left_modes(self, points: Points, log_w: np.ndarray) -> tuple[str, np.ndarray]:
        """A warning of modes whose share of the draws is far below their share of the mass, and the ratio for each mode."""
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


def _ratios(x: np.ndarray, density_weights: np.ndarray, model_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log ratio of the standard deviations of model and density for each number, and whether it is far from 0.

    Both standard deviations are of the same points, with weights of the density and of the model. So their ratio is 1 where
    both agree, and its standard error is the error of a difference.
    """
    x = x.reshape(len(x), -1).astype(float)
    with np.errstate(all="ignore"):  # constant columns, and squares that overflow
        influences, variances = [], []
        for w in (density_weights, model_weights):
            squares = np.square(x - w @ x)
            variances.append(w @ squares)
            influences.append(w[:, None] * (squares / variances[-1] - 1))
        log_ratio = 0.5 * np.log(variances[1] / variances[0])
        error = 0.5 * np.sqrt(np.square(influences[1] - influences[0]).sum(0))
        sure = float(norm.isf(norm.sf(SURE) / x.shape[1]))  # for all columns together
        return log_ratio, (np.abs(log_ratio) > OFF) & (np.abs(log_ratio) > sure * error)


def log_normalizer_of_mixture(log_w: np.ndarray, points: Points) -> Estimate:
    """log Z by weights of a mixture of known components: their ratios q_j / q have mean 1, and the part of the weights that
    they explain is not an error. With b from the regression w = sum_j b_j q_j / q + r, log Z is log sum_j b_j, with standard
    error std(r) / (sqrt(n) sum_j b_j) [Owen and Zhou, "Safe and Effective Importance Sampling", 2000, section 4]."""
    top, n = log_w.max(), len(log_w)
    w, ratios = np.exp(log_w - top), np.exp(points.log_q - points.log_mixture).T
    if n < ENOUGH_DRAWS * ratios.shape[1]:  # too few to estimate an error
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
