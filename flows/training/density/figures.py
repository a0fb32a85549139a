"""What importance weights say of a model that was fitted to a density."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from flows.core import Array
from flows.distributions.draws import sample_with_log_pdf
from flows.objectives import Estimate, effective_sample_size, log_normalizer, pareto_k
from flows.objectives.importance import LEAST_FOR_TAIL
from flows.results.density import Diagnostics
from flows.results.history import History
from flows.training.density.modes import Modes
from flows.training.density.start import Beginning, Box
from flows.training.density.target import Target
from flows.training.loop.losses import HeldOut

ENOUGH = 0.99  # of the draws: the effective sample size above which no more is needed
ENOUGH_K = 0.6  # the Pareto k up to which no more is needed
RELIABLE = 0.7  # the Pareto k up to which importance weights can be trusted
OF_MODES = 0.02  # of the draws that count, the share of Gaussians at the modes: what is lost where these are of no use
WIDER = 2.0  # times the width of a mode, of half of these Gaussians
LEFT = 0.5  # of the mass of a mode: the share of the model's draws there, below which it has left the mode
SEEN = 0.01  # of all mass: modes that have less are not looked at


class Verdict(NamedTuple):
    """What the weights say: diagnostics, what is to be warned of, the loss, KL(q || p) - log Z, in nats, and how much more mass
    each mode has than the model's draws there (modes,). Log-weights are None where some are no numbers."""

    diagnostics: Diagnostics
    messages: list[str]
    loss: float
    lacking: np.ndarray | None = None
    log_weights: np.ndarray | None = None

    @property
    def enough(self) -> bool:
        """Whether nothing is to be gained."""
        diagnostics = self.diagnostics
        return not self.messages and diagnostics.effective_sample_size > ENOUGH and diagnostics.pareto_k <= ENOUGH_K


class Figures:
    """Importance weights of a model's draws, and of Gaussians at the modes that were found, unless there is one mode, at which
    the model starts.

    The draws are those of the mixture (1 - a) q + a g of the model q and the Gaussians g, a = 0.02, each in its share, and the
    weights p / ((1 - a) q + a g): a mode that q misses has draws of g with large weights, and as half of g is twice as wide, no
    draw in the tails of a mode outweighs all others (Hesterberg, "Weighted Average
    Importance Sampling and Defensive Mixture Distributions", 1995).
    """

    def __init__(self, log_density: Callable, box: Box, start: Beginning, n: int, num_held_out: int, dtype: Any):
        self.target, self.box, self.n = Target(log_density, box.event, dtype), box, n
        self.num_modes = 0 if start.modes is None else len(start.modes.shares)
        self.modes = start.modes.widened(WIDER) if start.modes and (self.num_modes > 1 or not start.at_mode) else None
        self.of_modes = 0 if self.modes is None else math.ceil(OF_MODES * n)
        self.together = num_held_out  # draws of one call, so that one program serves

    def held_out(self, triple: Any, key: Array) -> HeldOut:
        """The loss, the effective sample size and Pareto k of one call's draws. No single draw is told of."""
        x, log_q = self._drawn(triple, key, self.together)
        log_w = self.target.raw(x) - log_q
        kl, zero = jnp.asarray(-log_w.mean(), self.target.dtype), jnp.zeros((), int)
        usable = not (np.isnan(log_w) | (log_w == np.inf)).any() and np.isfinite(log_w).any()
        effective = effective_sample_size(log_w) / len(log_w) if usable else math.nan
        tail = pareto_k(log_w) if usable and len(log_w) >= LEAST_FOR_TAIL else math.nan
        return HeldOut(kl, zero, kl, jnp.zeros_like(kl), effective, tail, math.nan)

    def _drawn(self, triple: Any, key: Array, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n draws of the model, and their log-density."""
        drawn = [
            sample_with_log_pdf(jax.random.fold_in(key, i), triple[0], triple, self.together)
            for i in range(-(-n // self.together))
        ]
        x, log_q = (np.concatenate([np.asarray(piece[j]) for piece in drawn])[:n] for j in (0, 1))
        return x, log_q.astype(float)

    def of(self, triple: Any, key: Array) -> Verdict:
        """What they say of a model."""
        of_model, of_modes = jax.random.split(key)
        x, log_q = self._drawn(triple, of_model, self.n - self.of_modes)
        log_p, parts = self.target.raw(x), None
        loss = float((log_q - log_p).mean())
        if self.modes is not None:
            seed = np.asarray(jax.random.key_data(of_modes)).tolist()
            y = self.modes.draw(np.random.default_rng(seed), self.of_modes)
            at_modes = np.asarray(self.box.back(jnp.asarray(y, x.dtype)))
            log_q = np.concatenate([log_q, np.asarray(triple[1](triple[0], at_modes), float)])
            x, log_p = np.concatenate([x, at_modes]), np.concatenate([log_p, self.target.raw(at_modes)])
            on_line, log_det = self.box.outside(x)
            parts = self.modes.log_parts(on_line) + log_det[:, None]
            share = self.of_modes / self.n
            log_q = np.logaddexp(math.log1p(-share) + log_q, math.log(share) + np.logaddexp.reduce(parts, 1))
        log_w = log_p - log_q
        bad = np.flatnonzero(np.isnan(log_w) | (log_w == np.inf))
        if len(bad) or not np.isfinite(log_w).any():
            why = (
                f"the importance weights of {len(bad) or self.n} of {self.n} draws are no numbers, so there are no "
                "diagnostics. Look at log_density where the model draws"
            )
            return Verdict(Diagnostics(math.nan, Estimate(math.nan, math.nan), math.inf, self.n, self.num_modes), [why], loss)
        diagnostics = Diagnostics(
            effective_sample_size(log_w) / self.n, log_normalizer(log_w), pareto_k(log_w), self.n, self.num_modes
        )
        messages, lacking = ([], None) if parts is None else self._of_modes(parts, log_w)
        if diagnostics.pareto_k > RELIABLE:
            messages.append(
                f"Pareto k is {diagnostics.pareto_k:.2f}, above {RELIABLE}: the model misses parts of the target, and neither "
                "its importance weights nor log Z can be trusted. Train longer, or give a larger model"
            )
        return Verdict(diagnostics, messages, loss, lacking, log_w)

    def _of_modes(self, log_parts: np.ndarray, log_w: np.ndarray) -> tuple[list[str], np.ndarray]:
        """A warning of modes that have far less of the model's draws than of the mass; and the ratio, of each."""
        modes = cast(Modes, self.modes)
        nearest = softmax(log_parts, 1).reshape(len(log_parts), 2, self.num_modes).sum(1)
        mass, share_of_draws = softmax(log_w) @ nearest, nearest[: self.n - self.of_modes].mean(0)
        lacking = mass / np.maximum(share_of_draws, 1 / self.n)
        left = np.flatnonzero((mass > SEEN) & (share_of_draws < LEFT * mass))
        if not len(left):
            return [], lacking
        k = left[np.argmax((mass - share_of_draws)[left])]
        at = np.asarray(self.box.back(jnp.asarray(modes.means[k : k + 1], self.target.dtype)))[0]
        message = (
            f"the model has left {len(left)} of {len(mass)} modes: at {at!s:.100} lie {mass[k]:.1%} of the mass, and "
            f"{share_of_draws[k]:.1%} of its draws. Give a flow on Normal() with standardize=True, which starts at all of "
            "them, or a larger one"
        )
        return [message], lacking


def history_of_start(loss: float) -> History:
    """Of a fit that needed no epoch."""
    none = {name: np.zeros(0) for name in ("train_loss", "validation_loss")}
    rest = {"best_epoch": -1, "start_loss": np.array(loss), "error": np.array(math.nan)}
    return History({**none, "skipped": np.zeros(0, int), **rest})
