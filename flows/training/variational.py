"""`flows.fit_to_density`: variational inference with the training loop of `flows.fit`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.bijections.whiten import MOST_COLUMNS, Whiten
from flows.compose import joined
from flows.core import (
    Array,
    Distribution,
    DistributionPart,
    FlowsError,
    bijection_part,
    distribution_part,
    initialize,
    positive,
    positive_int,
)
from flows.core.contract import DistributionLike, Shape
from flows.core.errors import warn_user
from flows.core.inputs import as_dim, as_event, as_key, cast
from flows.core.publish import publish
from flows.distributions.flow import Flow
from flows.objectives import Estimate, effective_sample_size, importance_samples, log_normalizer, pareto_k, reverse_kl
from flows.objectives.importance import LEAST_FOR_TAIL
from flows.results.density import DensityFitResult, Diagnostics
from flows.training.before import unconstraining
from flows.training.checkpoint import Checkpoint, settings_of
from flows.training.gaussian import Yardstick, by_chance
from flows.training.gaussian_start import nearest_gaussian
from flows.training.loop import train
from flows.training.losses import HeldOut
from flows.training.options import (
    MAY_CHANGE,
    Options,
    check_distribution,
    decay,
    one_of,
    optional,
    share,
    true_or_false,
)
from flows.training.step import Report, State, before_epochs, schedule_of, trainer

ENOUGH, HARDLY = 0.99, 0.01  # the effective sample size, as a share of the draws, that needs no more; the growth that is little
COLDEST = 0.01  # the power of the density at which annealing begins
RELIABLE = 0.7  # the Pareto k up to which importance weights can be trusted
DENSITY_RATE = 3e-3
ESTIMATORS = ("total", "sticking_the_landing", "path", "score")


def enough_for_a_tail(x: Any, name: str) -> int:
    x = positive_int(x, name)
    if x < LEAST_FOR_TAIL:
        raise FlowsError(f"{name} is {x}; expected at least {LEAST_FOR_TAIL}, for Pareto k")
    return x


@dataclass(frozen=True, kw_only=True, eq=False)
class DensityOptions(Options):
    num_samples: Annotated[int, positive_int] = 256
    estimator: Annotated[str, one_of(*ESTIMATORS)] = "sticking_the_landing"
    standardize: Annotated[bool | str, true_or_false] = True
    ema: Annotated[float | None, optional(decay)] = None
    learning_rate: Annotated[float, positive] = DENSITY_RATE
    steps_per_epoch: Annotated[int, positive_int] = 100
    num_held_out: Annotated[int, positive_int] = 4_000
    num_weights: Annotated[int, enough_for_a_tail, MAY_CHANGE] = 10_000
    anneal: Annotated[float | None, optional(share)] = None

    caller: str = "fit_to_density"
    expected: str = "a log_density that is finite where the model draws: start with a model nearer to it, or rescale its points"
    remedy: str = "Give a model that draws only where log_density is finite"


class ReverseKL(NamedTuple):
    """What a step and a validation minimise, over draws of the model instead of rows."""

    part: DistributionPart
    log_density: Callable
    num_samples: int
    num_held_out: int
    estimator: str

    @property
    def draws(self) -> bool:
        return True

    @property
    def measures(self) -> bool:
        return False

    def loss(self, params: Any, rows: Any, beta: Array, key: Array) -> Array:
        """At the power of the density, (1,), that is this step's."""
        triple = (params, *publish(self.part, params))
        return reverse_kl(params, triple, lambda x: beta * self.log_density(x), key, self.num_samples, estimator=self.estimator)

    def held_out(self, params: Any, judged: Array, key: Array) -> HeldOut:
        """The loss at the same noise in every epoch, and the effective sample size; times `judged`, 1 or NaN. No single draw is
        told of."""
        triple = (params, *publish(self.part, params))
        log_w = importance_samples(params, triple, self.log_density, key, self.num_held_out)[1]
        kl, lse = judged * -log_w.mean(), jax.nn.logsumexp
        effective = jnp.exp(2 * lse(log_w) - lse(2 * log_w)) / len(log_w)
        return HeldOut(kl, jnp.zeros((), int), kl, jnp.zeros_like(kl), effective, jnp.full_like(kl, jnp.nan))

    def cause(self, params: Any, key: Array, n: int) -> str:
        """Say what is not finite among so many draws."""
        log_pdf, sample = publish(self.part, params)
        x = sample(key, params, n)
        for name, values in (("the model's sample", x), ("log_density", self.log_density(x)), ("log_pdf", log_pdf(params, x))):
            finite = np.isfinite(np.asarray(values, float)).reshape(len(x), -1).all(1)
            if not finite.all():
                row = int(np.flatnonzero(~finite)[0])
                return f"{name} is {np.asarray(values)[row]} at a draw x = {np.asarray(x)[row]!s:.200}"
        return "draws and densities are finite, but a gradient or an update is not"


def rounds_of(max_epochs: int) -> list[int]:
    """The epochs at which rounds end: each is twice as long as the one before, and the last takes what is left."""
    length, ends = max(1, max_epochs // 10), list[int]()
    while (end := (ends[-1] if ends else 0) + length) < max_epochs:
        ends.append(end)
        length *= 2
    return [*ends, max_epochs]


def stands(rounds: list[int], effective: list[float]) -> bool:
    """Whether a fit is over, by the effective sample sizes at the start and after each epoch: a round ends with one that is
    large enough, or that has hardly grown in it."""
    done = len(effective) - 1
    if done not in rounds[:-1] or not math.isfinite(effective[-1]):
        return False
    this = rounds.index(done)
    known = np.nan_to_num(effective)
    best, before = known.max(), known[: 1 + (rounds[this - 1] if this else 0)].max()
    return bool(best > ENOUGH or (this > 0 and best - before < HARDLY * best))


def _check_density(init_fun: Any, log_density: Callable, key: Array, event: Shape) -> None:
    """Refuse what is no density of the model's draws."""
    params, part = initialize(init_fun, key, event, None)
    jax.eval_shape(lambda params: reverse_kl(params, (params, *publish(part, params)), log_density, key, 2), params)


def powers(options: DensityOptions) -> np.ndarray:
    """The power to which the density is taken in each step."""
    steps = options.max_epochs * options.steps_per_epoch
    if options.anneal is None:
        return np.ones(steps, np.float32)
    rising = np.arange(steps) / (options.anneal * steps)
    return np.minimum(1.0, COLDEST + (1 - COLDEST) * rising).astype(np.float32)


def _layers(
    key: Array, log_density: Callable, event: Shape, box: Any, options: DensityOptions, curved: bool
) -> tuple[tuple, tuple]:
    """The layers before the model, and their params: of the density's support, and the nearest Gaussian, unless the model lives
    on circles or a sphere."""
    layers: tuple = () if box is None else (box,)
    params: tuple = () if box is None else ({},)
    unbounded = log_density
    if box is not None:
        part = bijection_part(box, event, None)

        def unbounded(y: Array) -> Array:
            x, log_det = part.invert({}, y, None, None, False)
            return log_density(x) + log_det

    if not options.standardize or len(event) != 1 or event[0] > MOST_COLUMNS or curved:
        return layers, params
    start = nearest_gaussian(key, unbounded, event[0], jnp.zeros(()).dtype)
    if start is None:
        return layers, params
    return (*layers, Whiten()), (*params, {"fixed": {name: jnp.asarray(each, float) for name, each in start._asdict().items()}})


def fit_to_density(
    rng: Any,
    init_fun: DistributionLike,
    log_density: Callable,
    input_dim: int | tuple[int, ...],
    *,
    num_samples: int = 256,
    estimator: str = "sticking_the_landing",
    max_epochs: int = 50,
    steps_per_epoch: int = 100,
    max_minutes: float | None = None,
    patience: int = 10,
    learning_rate: float = DENSITY_RATE,
    optimizer: optax.GradientTransformation | None = None,
    standardize: bool = True,
    support: Any = None,
    ema: float | None = None,
    num_held_out: int = 4_000,
    num_weights: int = 10_000,
    anneal: float | None = None,
    checkpoint: Any = None,
    checkpoint_every: float = 10.0,
    callbacks: Any = (),
    verbose: int = 1,
) -> DensityFitResult:
    """Fit a distribution q to an unnormalised density p Z by reverse KL, and say how good the fit is.

    Minimises KL(q || p) - log Z, the mean of log q(x) - log_density(x) over draws x of q; minus it is the ELBO. The fit starts
    at the Gaussian nearest to the density, found by L-BFGS, which stays inside the fitted model as its `Whiten`. It runs in
    rounds, each twice as long as the one before, in which the learning rate rises and falls to 0, until a round leaves the
    effective sample size where it was, or max_epochs are through. The loop is that of `flows.fit`: epochs are compiled, steps
    that are not finite are not taken, diverging epochs are undone and the learning rate is lowered, and the params that did
    best on held-out noise are returned. q may miss modes that are far from where it starts, and no figure made of draws of q
    can tell that for sure.

    Args:
        rng: key or seed.
        init_fun: a distribution that can be sampled with gradients, such as `flows.Flow(flows.Invert(flows.MAF()))`, whose
            samples and densities of samples are cheap, or a coupling flow.
        log_density: of points (n, *event) it gives (n,): log(p(x) Z), in nats. For one point: `jax.vmap(f)`.
        input_dim: the event.
        num_samples: draws a step.
        estimator: of the gradient, as of `flows.objectives.reverse_kl`.
        max_epochs, steps_per_epoch: steps are taken in epochs of so many; after each the model is scored.
        max_minutes, patience, learning_rate, optimizer, ema, checkpoint, checkpoint_every, callbacks, verbose: as of
            `flows.fit`. A checkpoint does not know log_density: it has to be the same.
        standardize: fit `Flow(Whiten(), init_fun)`, which starts at the nearest Gaussian, unless the standard normal sees parts
            of the density that it does not (of several modes it may take one), or the model lives on circles or a sphere; False
            for init_fun as it is.
        support: the box on which log_density is defined, as of `flows.fit`: no draw lies outside.
        num_held_out: draws for scoring.
        num_weights: draws for the diagnostics.
        anneal: the share of the steps in which the density is tempered: log_density is multiplied by a power that rises from
            0.01 to 1, so that draws spread over modes before these part. The validation loss of these epochs is NaN, and none
            of them can be the best; there are no rounds, and the learning rate rises and falls once. For several modes.

    Returns:
        A `DensityFitResult`: unpacks as `params, log_pdf, sample`, and has `.diagnostics` (effective sample size, the
        importance-weighted estimate of log Z, Pareto k), `.history`, `.init_fun` and `.save(path)`. A Pareto k above 0.7 is
        warned of.

    Errors:
        TypeError: `init_fun` is no distribution, log_density no function. FlowsError: log_density does not return one number
            a point; settings outside their range. FitError: no loss is ever finite, or the fit diverges at any rate.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770 (annealing: equation 20);
        Roeder, Wu and Duvenaud,
        "Sticking the Landing", 2017, arXiv:1703.09194; Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto Smoothed Importance
        Sampling", 2024, arXiv:1507.02646.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> log_density = lambda x: -0.5 * jnp.square(x - 3).sum(1)                             # Z = 2 pi
        >>> q = flows.Normal(trainable=True)
        >>> result = flows.fit_to_density(0, q, log_density, 2, max_epochs=2, verbose=0)
        >>> result.sample(1, result.params, 10_000).mean(0).round(1).tolist(), round(result.diagnostics.log_normalizer.value, 2)
        ([3.0, 3.0], 1.84)
    """
    options = DensityOptions.of(locals())
    check_distribution(init_fun, options.caller)
    key, event = as_key(rng), as_event(input_dim)
    of_init, of_steps, of_weights, of_start = jax.random.split(key, 4)
    box = unconstraining(options.support, event[-1], None, None)
    _check_density(init_fun if box is None else Flow(box, init_fun), log_density, of_init, event)
    region = distribution_part(init_fun, event, None).region
    layers, fixed = _layers(of_start, log_density, event, box, options, region is not None and not region.flat)
    if layers:
        init_fun = Flow(joined(layers), init_fun)
    params, part = initialize(init_fun, of_init, event, None)
    dtype = jnp.result_type(*jax.tree.leaves(params), jnp.float32)
    if layers:
        params = {**params, "bijection": fixed[0] if len(layers) == 1 else fixed}
    params = cast(params, dtype)
    problem = ReverseKL(part, log_density, options.num_samples, options.num_held_out, options.estimator)
    steps, betas = options.steps_per_epoch, powers(options)
    rounds = rounds_of(options.max_epochs) if options.anneal is None else [options.max_epochs]
    compiled = trainer(problem, params, options, dtype)
    schedules = [schedule_of(options, (end - start) * steps) for start, end in pairwise([0, *rounds])]
    tempered = -(-int((betas < 1).sum()) // steps)
    if tempered >= options.max_epochs:
        raise FlowsError(
            f"fit_to_density: anneal is {options.anneal} of {options.max_epochs} epochs, which leaves none for the density "
            "itself; expected more epochs, or a smaller share"
        )
    options = replace(options, stands=partial(stands, rounds), tempered=tempered)
    saved = None
    if options.checkpoint is not None:
        saved = Checkpoint(options, settings_of(init_fun, key, (), options, input_dim=list(event)))

    def order(number: int) -> np.ndarray:  # there are no rows
        return betas[number * steps : (number + 1) * steps, None]

    def rates(number: int) -> np.ndarray:
        this = next(i for i, end in enumerate(rounds) if number < end)
        return schedules[this]((number - ([0, *rounds][this])) * steps, steps)

    def run(state: State, number: int) -> tuple[State, Report]:
        judged = np.float32(1.0 if number >= tempered else np.nan)
        return compiled.run(state, of_steps, steps, order(number), rates(number), None, judged)

    def score(state: State) -> tuple[State, Report]:
        state, report = compiled.run(state, of_steps, 0, order(0), rates(0), None, np.float32(1.0))
        return before_epochs(state), report

    def why(params: Any, number: int, step: int | None, member: int) -> str:
        if step is None:
            return problem.cause(params, of_steps, problem.num_held_out)
        return problem.cause(params, jax.random.fold_in(of_steps, number), problem.num_samples)

    yardstick = Yardstick(by_chance=by_chance(options.num_held_out))

    def published(params: Any) -> Distribution:
        return Distribution(params, *publish(part, params))

    params, history = train(compiled, params, run, score, options, saved, why, published, math.prod(event), yardstick)
    triple = published(params)
    diagnostics = _diagnose(triple, log_density, of_weights, options.num_weights)
    return DensityFitResult(*triple, init_fun, as_dim(event), 0, history, diagnostics=diagnostics)


def _diagnose(triple: tuple, log_density: Callable, key: Array, n: int) -> Diagnostics:
    _, log_w = importance_samples(triple[0], triple, log_density, key, n)
    bad = np.flatnonzero(np.isnan(log_w) | (log_w == np.inf))
    if len(bad) or not np.isfinite(log_w).any():
        warn_user(
            f"fit_to_density: the importance weights of {len(bad) or n} of {n} draws are no numbers, so there are no "
            "diagnostics. Look at log_density where the model draws"
        )
        return Diagnostics(math.nan, Estimate(math.nan, math.nan), math.inf, n)
    found = Diagnostics(effective_sample_size(log_w) / n, log_normalizer(log_w), pareto_k(log_w), n)
    if found.pareto_k > RELIABLE:
        warn_user(
            f"fit_to_density: Pareto k is {found.pareto_k:.2f}, above {RELIABLE}: the model misses parts of the target, and "
            "neither its importance weights nor log Z can be trusted. Train longer, or give a larger model"
        )
    return found
