"""The losses of a fit to a density: reverse KL, whose epochs come in rounds, and forward KL, on draws that reach into the tails
of the density, for a last round where the tails of the model are others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, Distribution, DistributionPart, FlowsError, computed_with, functions_of
from flows.objectives import reverse_kl
from flows.training.data.gaussian import Yardstick, by_chance
from flows.training.data.table import Rows, seed_of, take
from flows.training.density.figures import ENOUGH, ENOUGH_K, RELIABLE, Figures
from flows.training.loop.losses import HeldOut, Likelihood
from flows.training.loop.step import Report, State
from flows.training.loop.trainer import schedule_of, trainer, warmup_cosine

HARDLY = 0.01  # of the best effective sample size: its growth in a round that gained little
HARDLY_K = 0.1  # the fall of Pareto k in such a round
COLDEST = 0.01  # the power of the density at which annealing begins
DRAWS = 2  # of a last round: times the draws of the figures
STEPS, BATCH = 600, 512  # steps at most: no more than the fit has taken
RATE = 1e-3


@dataclass(frozen=True)
class ReverseKL:
    """The loss of a step, over draws of the model instead of rows. What is held out is noise, and is weighed on the host,
    by the program that draws for the figures, so that nothing else has to be compiled."""

    part: DistributionPart
    log_density: Callable
    num_samples: int
    estimator: str
    draws, measures, of_rows, divisible, dealt, split = True, False, False, False, False, 0

    def loss(self, params: Any, rows: Any, beta: Array, key: Array) -> Array:
        """At the power of the density, (1,), that is this step's."""
        density, n = lambda x: beta * self.log_density(x), self.num_samples
        return reverse_kl(params, self.published(params), density, key, n, estimator=self.estimator)

    def published(self, params: Any) -> Distribution:
        return Distribution(params, *functions_of(self.part, params))

    def held_out(self, params: Any, figures: HeldOut, key: Array) -> HeldOut:
        return figures

    def cause(self, params: Any, key: Array, n: int) -> str:
        """Say what is not finite among so many draws."""
        _, log_pdf, sample = self.published(params)
        x = sample(key, params, n)
        for name, values in (("the model's sample", x), ("log_density", self.log_density(x)), ("log_pdf", log_pdf(params, x))):
            finite = np.isfinite(np.asarray(values, float)).reshape(len(x), -1).all(1)
            if not finite.all():
                row = int(np.flatnonzero(~finite)[0])
                return f"{name} is {np.asarray(values)[row]} at a draw x = {np.asarray(x)[row]!s:.200}"
        return "draws and densities are finite, but a gradient or an update is not"


class Draws:
    """The epochs of a fit to a density, a `Source` of the driver without rows: the host judges draws after each. `options` tell
    when rounds end."""

    state: Any = None
    restore: Any = None

    def __init__(self, problem: ReverseKL, figures: Figures, params: Any, options: Any, key: Array):
        self.problem, self.figures, steps = problem, figures, options.steps_per_epoch
        self.compiled = trainer(problem, params, options, figures.target.dtype)
        self.betas, most = powers(options), options.max_epochs
        tempered = -(-int((self.betas < 1).sum()) // steps)
        if tempered >= most:
            raise FlowsError(
                f"fit_to_density: anneal is {options.anneal} of {most} epochs, which leaves none for the density itself; "
                "expected more epochs, or a smaller share"
            )
        self.rounds = rounds_of(most) if options.anneal is None else [most]
        self.options = replace(options, run=options.run._replace(stands=partial(stands, self.rounds), tempered=tempered))
        self.yardstick = Yardstick(by_chance=by_chance(options.num_held_out))
        # Keys whose numbers compile in half the time, and are drawn faster. The noise held out is the same in every epoch.
        self.noise, key = jax.random.split(key)
        self.key = jax.random.wrap_key_data(jax.random.bits(key, (4,), np.uint32), impl="rbg")

    def _arguments(self, state: State, number: int) -> tuple:
        start, end = next(ends for ends in pairwise([0, *self.rounds]) if number < ends[1])
        steps = self.options.steps_per_epoch
        schedule = schedule_of(self.options, (end - start) * steps)((number - start) * steps, steps)
        return state, self.key, None, self.betas[number * steps : (number + 1) * steps, None, None], schedule, None

    def _judged(self, state: State, number: int) -> tuple[State, HeldOut, Any]:
        used = state.params if self.options.ema is None else (state.average[1], state.params[1])
        value = self.figures.held_out(self.problem.published(self.compiled.params(used)), self.noise)
        if number < self.options.run.tempered:
            value = value._replace(mean=jnp.full_like(value.mean, jnp.nan))
        return self.compiled.finish(state, self.key, None, value)

    def ready(self, state: State) -> None:
        self.compiled.advance.ready(*self._arguments(state, 0))

    def run(self, state: State, number: int) -> tuple[State, Report]:
        state, losses, taken = self.compiled.advance(*self._arguments(state, number))
        state, value, better = self._judged(state, number)
        return state, Report(losses, taken, value, better)

    def score(self, state: State) -> tuple[State, Report]:
        state, value, better = self._judged(state, self.options.max_epochs)
        none = np.zeros(0, np.float32)
        return state, Report(none, none.astype(bool), value, better)

    def cause(self, params: Any, number: int, step: int | None, member: int) -> str:
        if step is None:
            return self.problem.cause(params, self.noise, self.options.num_held_out)
        return self.problem.cause(params, jax.random.fold_in(self.key, number), self.problem.num_samples)


def rounds_of(max_epochs: int) -> list[int]:
    """The epochs at which rounds end: each is twice as long as the one before, and the last takes what is left."""
    length, ends = max(1, max_epochs // 10), list[int]()
    while (end := (ends[-1] if ends else 0) + length) < max_epochs:
        ends.append(end)
        length *= 2
    return [*ends, max_epochs]


def stands(rounds: list[int], effective: list[float], tails: list[float]) -> bool:
    """Tell whether a fit is over, by the effective sample sizes and the Pareto k at the start and after each epoch: a round
    ends with weights that are good enough, or that can be trusted and have hardly gained in it."""
    done = len(effective) - 1
    if done not in rounds[:-1] or not math.isfinite(effective[-1]):
        return False
    this = rounds.index(done)
    start = rounds[this - 1] if this else 0
    known = np.nan_to_num(effective)
    best, before = known.max(), known[: 1 + start].max()
    hardly = this > 0 and best - before < HARDLY * best and tails[-1] <= RELIABLE and not tails[-1] < tails[start] - HARDLY_K
    return bool((best > ENOUGH and tails[-1] <= ENOUGH_K) or hardly)


def powers(options: Any) -> np.ndarray:
    """The power to which the density is taken in each step."""
    steps = options.max_epochs * options.steps_per_epoch
    if options.anneal is None:
        return np.ones(steps, np.float32)
    rising = np.arange(steps) / (options.anneal * steps)
    return np.minimum(1.0, COLDEST + (1 - COLDEST) * rising).astype(np.float32)


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
    steps = min(steps, STEPS)
    order = np.random.default_rng(seed_of(of_steps)).integers(len(w), size=(steps, 1, BATCH), dtype=np.int32)
    state = compiled.start(triple.params)
    state, _, _ = compiled.advance(
        state, of_steps, None, order, warmup_cosine(RATE, steps)(0, steps), compiled.placement.copied(rows)
    )
    return compiled.params(state.params)
