"""Diagnostics of a model that was fitted to a density, by importance weights of its draws, and of draws with a wider base,
which reach into tails that the model lacks."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import norm

from flows.compose import joined
from flows.core import Array, Distribution, Shape, bijection_part, distribution_part, functions_of, leading, on_device, size
from flows.distributions.draws import sample_with_log_pdf
from flows.objectives import Estimate, effective_sample_size, log_normalizer, pareto_k
from flows.objectives.importance import LEAST_FOR_TAIL
from flows.results.density import Diagnostics
from flows.training.data.table import seed_of
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
WIDTHS = (1.0, 1.5, 2.5)  # of the base
SHARES = (0.75, 0.125, 0.125)  # of the draws


class Points(NamedTuple):
    """Points of several components, ordered by component: x (n, *event), log_q (components, n), the log-density of each
    component at each point, and counts, the number of points of each component."""

    x: np.ndarray
    log_q: np.ndarray
    counts: tuple[int, ...]

    @property
    def log_mixture(self) -> np.ndarray:
        """The log-density of the mixture of the components, by their shares of the points, (n,) [Veach and Guibas,
        "Optimally Combining Sampling Techniques for Monte Carlo Rendering", 1995, section 3.4]."""
        total: np.ndarray = logsumexp(self.log_q + np.log(np.array(self.counts) / len(self.x))[:, None], 0)
        return total


class Drawing:
    """Draws of a model and scores of points, in pieces of `together` points, so that each program is compiled once.

    A wider base is a wider noise: a mixture of normals widens around each mean, any other base around its location. A model on
    a circle or a sphere, or with a bounded base, stays as it is, and so does one whose draws are weighed by their paths.
    """

    def __init__(self, init_fun: Any, event: Shape, together: int):
        self.init_fun, self.together = init_fun, together
        *way, base = leading(init_fun, opening=False)
        self.layers = bijection_part(joined([stage.value for stage in way]), event, None) if way else None
        self.base = distribution_part(base.value, event if self.layers is None else self.layers.output, None)
        region = distribution_part(init_fun, event, None).region
        endless = self.base.region is None or bool(
            np.isinf(self.base.region.low).all() and np.isinf(self.base.region.high).all()
        )
        flat = endless and (region is None or region.flat)
        of_paths = getattr(init_fun, "likelihood", "exact") == "lower bound"
        self.widths: tuple[float, ...] = WIDTHS if flat and not of_paths else WIDTHS[:1]

    def of(self, triple: Distribution, key: Array, n: int, widths: int = len(WIDTHS)) -> Points:
        """n draws, with the first `widths` widths of the base."""
        if len(self.widths) == 1:
            return self._model_draws(triple, key, n)
        layer_params, bases = self._parts(triple.params, widths)
        counts = [math.floor(share * n) for share in SHARES[1 : len(bases)]]
        counts = [n - sum(counts), *counts]
        noise = []
        for i, (count, base) in enumerate(zip(counts, bases, strict=True)):
            keys = jax.random.split(jax.random.fold_in(key, i), -(-count // self.together))
            noise.append(np.concatenate([base.draw(piece_key, self.together) for piece_key in keys])[:count])
        z = np.concatenate(noise)
        x, log_det = self._mapped(1, layer_params, z)
        return Points(x, np.stack([np.asarray(base.log_pdf(z), float) for base in bases]) - log_det, tuple(counts))

    def scored(self, triple: Distribution, x: np.ndarray, widths: int = len(WIDTHS)) -> np.ndarray:
        """The log-density of the model, and of the model with wider bases, at points, (widths, n)."""
        if len(self.widths) == 1:
            return np.asarray(triple.log_pdf(triple.params, x), float)[None]
        layer_params, bases = self._parts(triple.params, widths)
        z, log_det = self._mapped(0, layer_params, x)
        return np.stack([np.asarray(base.log_pdf(z), float) for base in bases]) + log_det

    def _model_draws(self, triple: Distribution, key: Array, n: int) -> Points:
        keys = [jax.random.fold_in(key, i) for i in range(-(-n // self.together))]
        drawn = [sample_with_log_pdf(piece_key, triple.params, triple, self.together) for piece_key in keys]
        x, log_q = (np.concatenate([np.asarray(piece[j]) for piece in drawn])[:n] for j in (0, 1))
        return Points(x, log_q.astype(float)[None], (n,))

    def _parts(self, params: Any, widths: int) -> tuple[tuple, list["Base"]]:
        """The params of the layers, and the base at each width."""
        *way, base = leading(self.init_fun, params, opening=False)
        functions = functions_of(self.base, base.params)
        return tuple(stage.params for stage in way), [Base.of(*functions, base.params, by) for by in self.widths[:widths]]

    def _mapped(self, way: int, layer_params: tuple, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points mapped by the layers, to the noise (way 0) or from it (way 1), and the log-det there."""
        if self.layers is None:
            return x, np.zeros(len(x))
        params = layer_params[0] if len(layer_params) == 1 else layer_params
        function, mapped = functions_of(self.layers, params)[way], []
        for i in range(0, len(x), self.together):
            piece = x[i : i + self.together]
            outputs = function(params, np.resize(piece, (self.together, *piece.shape[1:])))
            mapped.append([np.asarray(output)[: len(piece)] for output in outputs])
        y, log_det = (np.concatenate(pieces) for pieces in zip(*mapped, strict=True))
        return y, log_det.astype(float)


class Base(NamedTuple):
    """A base, `by` times as wide around its centre; a mixture of normals has wider params instead. Draws and densities use the
    same params, so that they agree for any base."""

    density: Callable
    sample: Callable
    params: Any
    centre: Any
    by: float

    @classmethod
    def of(cls, log_pdf: Callable, sample: Callable, params: Any, by: float) -> "Base":
        named = params if isinstance(params, dict) else {}
        centre, numbers = jnp.asarray(named["loc"])[None] if "loc" in named else 0.0, named.get("fixed", named)
        if by == 1 or not {"mean", "logits"} <= set(numbers):
            return cls(log_pdf, sample, params, centre, by)
        log_by = math.log(by)
        if "log_scale" in numbers:
            wider = {**numbers, "log_scale": numbers["log_scale"] + log_by}
        else:
            eye = jnp.eye(numbers["tril"].shape[1], dtype=numbers["tril"].dtype)
            wider = {**numbers, "tril": jnp.tril(by * numbers["tril"], -1) + eye[None] * (numbers["tril"] + log_by)}
        return cls(log_pdf, sample, {"fixed": wider} if "fixed" in named else wider, centre, 1.0)

    def draw(self, key: Array, n: int) -> Array:
        z = self.sample(key, self.params, n)
        return z if self.by == 1 else self.centre + self.by * (z - self.centre)

    def log_pdf(self, z: Any) -> Array:
        if self.by == 1:
            return self.density(self.params, z)
        return self.density(self.params, self.centre + (z - self.centre) / self.by) - size(z.shape[1:]) * math.log(self.by)


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

    def held_out(self, triple: Any, key: Array, covers: bool = False) -> HeldOut:
        """The loss, the effective sample size and Pareto k of the draws of one call. It names no single draw.

        The loss is KL(q || p) - log Z. For an objective that covers modes it is -2 log(mean(sqrt(w))), which is -2 log(int
        sqrt(p q)) - log Z and treats p and q alike: a model that lacks half of the mass loses log 2 nats, and a model that is
        too wide a few. The value of such an objective cannot judge, as it is least where all draws miss p.
        """
        drawn = self.drawing.of(triple, key, self.drawing.together, 1)
        log_w = self.target.raw(drawn.x) - drawn.log_q[0]
        loss = 2 * (math.log(len(log_w)) - logsumexp(log_w / 2)) if covers else -log_w.mean()
        loss, zero = on_device(loss, self.target.dtype), jnp.zeros((), int)
        usable = not (np.isnan(log_w) | (log_w == np.inf)).any() and np.isfinite(log_w).any()
        effective = effective_sample_size(log_w) / len(log_w) if usable else math.nan
        tail = pareto_k(log_w) if usable and len(log_w) >= LEAST_FOR_TAIL else math.nan
        return HeldOut(loss, zero, loss, jnp.zeros_like(loss), effective, tail, math.nan)

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
