"""The losses of a fit to a density: an objective of draws, whose epochs come in rounds, and forward KL, on draws that
reach into the tails of the density, for a last round if the tails of the model differ."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, Distribution, DistributionPart, FlowsError, functions_of
from flows.training.data.gaussian import Yardstick, by_chance
from flows.training.data.table import Rows, seed_of
from flows.training.density.figures import ENOUGH, ENOUGH_K, RELIABLE, Figures
from flows.training.loop.driver import Source
from flows.training.loop.losses import HeldOut, Likelihood, scalar
from flows.training.loop.step import Report, State
from flows.training.loop.trainer import schedule_of, trainer, warmup_cosine
from flows.training.options import name_of_objective

HARDLY = 0.01  # of the best effective sample size: its growth in a round that gained little
HARDLY_K = 0.1  # the fall of Pareto k in such a round
COLDEST = 0.01  # the power of the density at which annealing begins
DRAWS = 2  # of a last round: times the draws of the figures
STEPS, BATCH = 600, 512  # steps at most, and not more than the fit has taken
RATE = 1e-3


@dataclass(frozen=True)
class OfDraws:
    """The loss of a step, an objective of draws of the model instead of rows; problems are equal if their objectives bind the
    same arguments to the same function. Validation weighs draws of fixed noise on the host, by the program that draws for the
    diagnostics, so that nothing else is compiled."""

    part: DistributionPart
    objective: Callable = field(compare=False)
    log_density: Callable
    num_samples: int
    key: Any
    draws, measures, has_rows, divisible, dealt, split = True, False, False, False, False, 0

    def loss(self, params: Any, rows: Any, beta: Array, key: Array) -> Array:
        """The loss at the power of the density in this step, (1,)."""
        density, triple = lambda x: beta * self.log_density(x), self.published(params)
        return scalar(self.objective(params, triple, density, key, self.num_samples), self.objective)

    def published(self, params: Any) -> Distribution:
        return Distribution(params, *functions_of(self.part, params))

    def held_out(self, params: Any, figures: HeldOut, key: Array) -> HeldOut:
        return figures

    def cause(self, params: Any, key: Array, n: int) -> str:
        """Return what is not finite among n draws."""
        _, log_pdf, sample = self.published(params)
        x = sample(key, params, n)
        for name, values in (("the model's sample", x), ("log_density", self.log_density(x)), ("log_pdf", log_pdf(params, x))):
            finite = np.isfinite(np.asarray(values, float)).reshape(len(x), -1).all(1)
            if not finite.all():
                row = int(np.flatnonzero(~finite)[0])
                return f"{name} is {np.asarray(values)[row]} at a draw x = {np.asarray(x)[row]!s:.200}"
        if not math.isfinite(value := float(self.loss(params, None, jnp.ones(1), key).ravel()[0])):
            return f"draws and densities are finite, but the objective {name_of_objective(self.objective)} is {value}"
        return "draws and densities are finite, but a gradient or an update is not"


class Draws(Source):
    """The epochs of a fit to a density, without rows: the host scores draws after each epoch. `options` say when rounds end."""

    def __init__(self, problem: OfDraws, figures: Figures, params: Any, options: Any, key: Array):
        self.problem, self.figures, steps = problem, figures, options.steps_per_epoch
        self.alike = options.objective is None
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
        # Draws by these keys compile in half the time, and are faster. The held-out noise is the same in every epoch.
        self.noise, key = jax.random.split(key)
        self.key = jax.random.wrap_key_data(jax.random.bits(key, (4,), np.uint32), impl="rbg")

    def _judged(self, state: State, number: int, losses: Any, taken: Any) -> tuple[State, Report]:
        used = state.params if self.options.ema is None else (state.average[1], state.params[1])
        value = self.figures.held_out(self.problem.published(self.compiled.params(used)), self.noise, not self.alike)
        if number < self.options.run.tempered:
            value = value._replace(mean=jnp.full_like(value.mean, jnp.nan))
        state, value, better = self.compiled.finish(state, self.key, None, value)
        return state, Report(losses, taken, value, better)

    def run(self, state: State, number: int) -> tuple[State, Report]:
        start, end = next(ends for ends in pairwise([0, *self.rounds]) if number < ends[1])
        steps = self.options.steps_per_epoch
        schedule = schedule_of(self.options, (end - start) * steps)((number - start) * steps, steps)
        betas = self.betas[number * steps : (number + 1) * steps, None, None]
        state, losses, taken = self.compiled.advance(state, self.key, None, betas, schedule, None)
        return self._judged(state, number, losses, taken)

    def score(self, state: State) -> tuple[State, Report]:
        none = np.zeros(0, np.float32)
        return self._judged(state, self.options.max_epochs, none, none.astype(bool))

    def cause(self, params: Any, number: int, step: int | None, member: int) -> str:
        if step is None:
            return self.problem.cause(params, self.noise, self.options.num_held_out)
        return self.problem.cause(params, jax.random.fold_in(self.key, number), self.problem.num_samples)


def rounds_of(max_epochs: int) -> list[int]:
    """The epochs at which rounds end: each is twice as long as the one before, and the last has the rest."""
    length, ends = max(1, max_epochs // 10), list[int]()
    while (end := (ends[-1] if ends else 0) + length) < max_epochs:
        ends.append(end)
        length *= 2
    return [*ends, max_epochs]


def stands(rounds: list[int], effective: list[float], tails: list[float]) -> bool:
    """Return whether a fit is over, by the effective sample sizes and the Pareto k at the start and after each epoch: at the
    end of a round the weights are good enough, or they are reliable and the round hardly improved them."""
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
    """Minus the weighted mean log-density of draws, with the model not in training mode: a quarter of the draws have a wider
    base, so their batch statistics are wrong for the model."""

    def of(self, params: Any, rows: Rows, key: Array | None, train: bool) -> Array:
        return super().of(params, rows, None, False)


def scores_by_formula(part: DistributionPart, params: Any) -> bool:
    """Return whether the log-density of points has no `while` loop, as gradients through solvers are slow."""
    x = jnp.zeros((1, *part.event))
    return "while[" not in str(jax.make_jaxpr(lambda params: part.log_pdf(params, x, None, None, False))(params))


def polish(figures: Figures, part: DistributionPart, triple: Distribution, options: Any, steps: int, key: Array) -> Any:
    """The params after steps that minimise the forward divergence KL(p || q), which is large where the model lacks mass: the
    mean of -w log q over draws of the mixture in `Figures`, with weights w of at most sqrt(n) times their mean
    [Ionides, "Truncated Importance Sampling", 2008]."""
    draws_key, steps_key = jax.random.split(key)
    points, log_p = figures.weighed(triple, draws_key, DRAWS * figures.n)
    log_w = log_p - points.log_mixture
    w = np.exp(np.where(np.isfinite(log_w), log_w - log_w.max(where=np.isfinite(log_w), initial=-math.inf), -math.inf))
    w = np.minimum(w, math.sqrt(len(w)) * w.mean())
    problem = ForwardKL(part, BATCH, options.precision, False)
    plain = replace(options, optimizer=None, ema=None, accumulate=1, mesh=None)
    compiled = trainer(problem, triple.params, plain, figures.target.dtype)
    rows = Rows(points.x, None, (w / w.mean()).astype(figures.target.dtype))
    steps = min(steps, STEPS)
    order = np.random.default_rng(seed_of(steps_key)).integers(len(w), size=(steps, 1, BATCH), dtype=np.int32)
    state = compiled.start(triple.params)
    state, _, _ = compiled.advance(state, steps_key, None, order, warmup_cosine(RATE, steps)(0, steps), rows)
    return compiled.params(state.params)
