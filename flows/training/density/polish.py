"""A last round of a fit whose tails are not those of the density: on draws that reach into them, by their weights."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, Distribution, DistributionPart, computed_with
from flows.training.data.table import Rows, take
from flows.training.density.figures import Figures
from flows.training.loop.losses import Likelihood
from flows.training.loop.trainer import trainer, warmup_cosine

DRAWS = 2  # times the draws of the figures
STEPS, BATCH = 600, 512  # steps at most: no more than the fit has taken
RATE = 1e-3


class ForwardKL(Likelihood):
    """Minus the weighted mean log-density of draws, by the model as it is used: a quarter of the draws are wider, so that their
    batch statistics are not the model's."""

    def loss(self, params: Any, rows: Rows, index: Array, key: Array | None) -> Array:
        with computed_with(self.precision):
            return -self._weighted(params, take(rows, index), None, False).mean()


def scores_by_formula(part: DistributionPart, params: Any) -> bool:
    """Return whether the log-density of points has no `while` loop, as gradients through solvers are slow."""
    x = jnp.zeros((1, *part.event))
    return "while[" not in str(jax.make_jaxpr(lambda params: part.log_pdf(params, x, None, None, False))(params))


def polish(figures: Figures, part: DistributionPart, triple: Distribution, options: Any, steps: int, key: Array) -> Any:
    """The params after steps that minimise the forward divergence KL(p || q), which is large where the model lacks mass: the
    mean of -w log q over draws of the mixture of the figures, w their weights, no larger than sqrt(n) times their mean
    [Ionides, "Truncated Importance Sampling", 2008]."""
    of_draws, of_steps = jax.random.split(key)
    points, log_p = figures.weighed(triple, of_draws, DRAWS * figures.n)
    log_w = log_p - points.log_mixture
    w = np.exp(np.where(np.isfinite(log_w), log_w - log_w.max(where=np.isfinite(log_w), initial=-math.inf), -math.inf))
    w = np.minimum(w, math.sqrt(len(w)) * w.mean())
    problem = ForwardKL(part, BATCH, options.precision, False)
    plain = replace(options, optimizer=None, ema=None, accumulate=1, mesh=None)
    compiled = trainer(problem, triple.params, plain, figures.target.dtype)
    rows = Rows(points.x, None, (w / w.mean()).astype(figures.target.dtype))
    seed = np.asarray(jax.random.key_data(of_steps)).tolist()
    steps = min(steps, STEPS)
    order = np.random.default_rng(seed).integers(len(w), size=(steps, 1, BATCH), dtype=np.int32)
    state = compiled.start(triple.params)
    state, _, _ = compiled.advance(
        state, of_steps, None, order, warmup_cosine(RATE, steps)(0, steps), compiled.placement.copied(rows)
    )
    return compiled.params(state.params)
