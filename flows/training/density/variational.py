"""`flows.fit_to_density`: variational inference with the training loop of `flows.fit`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import (
    COLUMN,
    Array,
    DistributionInit,
    DistributionLike,
    FlowsError,
    Shape,
    as_dim,
    as_event,
    as_key,
    boolean,
    cast,
    explained_call,
    initialize,
    positive,
    positive_int,
    warn_user,
)
from flows.distributions.flow import Flow
from flows.models.autoregressive import IAF
from flows.models.splines import NSF
from flows.objectives.importance import LEAST_FOR_TAIL
from flows.results.density import DensityFitResult
from flows.results.history import History
from flows.results.parameters import Parameters
from flows.training.data.table import seed_of
from flows.training.density.divergences import Draws, ReverseKL, polish, scores_by_formula
from flows.training.density.figures import Figures, history_of_start
from flows.training.density.start import begin
from flows.training.density.target import Target, box_of, check_density, starts_of
from flows.training.devices import devices, devices_of
from flows.training.fingerprint import fingerprint
from flows.training.loop.checkpoint import settings_of
from flows.training.loop.driver import drive
from flows.training.options import MAY_CHANGE, Options, Run, check_distribution, decay, one_of, optional, share

LEAST_WIDTH, MOST_WIDTH = 32, 256  # of the networks of the default model
DENSITY_RATE = 3e-3
ESTIMATORS = ("total", "sticking_the_landing", "path", "score")


def enough_for_a_tail(x: Any, name: str) -> int:
    x = positive_int(x, name)
    if x < LEAST_FOR_TAIL:
        raise FlowsError(f"{name} is {x}; expected at least {LEAST_FOR_TAIL}, for Pareto k")
    return x


OF_DENSITY = Run(
    caller="fit_to_density",
    expected="a log_density that is finite where the model draws: start with a model nearer to it, rescale its points, or give "
    "the support= that it has",
    remedy="Give a model that draws only where log_density is finite",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class DensityOptions(Options):
    starts: Any = 32  # checked where the support is known
    num_samples: Annotated[int, positive_int] = 256
    estimator: Annotated[str, one_of(*ESTIMATORS)] = "sticking_the_landing"
    standardize: Annotated[bool | str, boolean] = True
    ema: Annotated[float | None, optional(decay)] = None
    learning_rate: Annotated[float, positive] = DENSITY_RATE
    steps_per_epoch: Annotated[int, positive_int] = 100
    num_held_out: Annotated[int, positive_int] = 4_000
    num_weights: Annotated[int, enough_for_a_tail, MAY_CHANGE] = 10_000
    anneal: Annotated[float | None, optional(share)] = None
    run: Run = OF_DENSITY

    def __post_init__(self) -> None:
        super().__post_init__()
        over = self.num_samples % self.devices_of_batches
        if over and self.num_samples != type(self).num_samples:
            raise FlowsError(
                f"fit_to_density: num_samples is {self.num_samples}, which does not split over {self.devices_of_batches} "
                f"devices; the nearest that does is {max(self.num_samples - over, self.devices_of_batches)}"
            )
        object.__setattr__(self, "num_samples", max(self.num_samples - over, self.devices_of_batches))


@explained_call("flows.fit_to_density(0, flow, log_density, 2)")
def fit_to_density(
    rng: Any,
    init_fun: DistributionLike | None,
    log_density: Callable,
    input_dim: int | tuple[int, ...] | Mapping[str, tuple[int, ...]],
    *,
    starts: Any = 32,
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
    mesh: Any = None,
    verbose: int = 1,
) -> DensityFitResult:
    """Fit a distribution q to an unnormalised density p Z by reverse KL, and say how good the fit is.

    Minimises KL(q || p) - log Z, the mean of log q(x) - log_density(x) over draws x of q; minus it is the ELBO.

    A fit to vectors of at most 512 numbers looks for the modes of the density first: it starts at the Gaussian nearest to a
    single mode, which stays inside the fitted model as its `Whiten`, and of several the base of a flow on `Normal()` becomes a
    `GMM`. Modes that no start reached cannot be known. Where draws of the start are as good already there is no training;
    otherwise rounds of epochs follow, each twice as long as the one before, until one leaves the figures good enough, or where
    they were. The loop is that of `flows.fit`; the guide, docs/guide/posteriors.md, tells the rest.

    Args:
        rng: key or seed.
        init_fun: a distribution that can be sampled with gradients; None for an inverse autoregressive flow,
            `Flow(IAF(4, hidden=(32, 32), plain=True))`, wider for more than 32 columns, and `Flow(NSF())` for one column. It
            draws in one pass, and was right in benchmarks where couplings were not; these score other points faster.
        log_density: of points (n, *event) it gives (n,): log(p(x) Z), in nats. For one point: `jax.vmap(f)`. Of named
            parameters it is handed a dict of arrays (n, *shape).
        input_dim: the event; or a dict from the names of parameters to their shapes, {"mu": (), "scale": (3,)}: `draw` of the
            result then returns a dict of arrays, and `log_prob` takes one; the triple is one of vectors, in its order.
        starts: from how many points modes are looked for, or such points, (n, *event) or a dict of arrays.
        num_samples: draws a step, a multiple of the devices of a mesh.
        estimator: of the gradient, as of `flows.objectives.reverse_kl`.
        max_epochs, steps_per_epoch: steps are taken in epochs of so many; after each the model is scored.
        max_minutes, patience, learning_rate, optimizer, ema, checkpoint, checkpoint_every, callbacks, mesh, verbose: as of
            `flows.fit`. A checkpoint knows log_density by its code and what it holds on to, parameters by their names.
        standardize: fit `Flow(Whiten(), init_fun)`, which starts at the nearest Gaussian or at the modes, unless the standard
            normal sees more of the density than they do, or the model lives on circles or a sphere; False for init_fun as it
            is, and modes enter the figures alone.
        support: the box on which log_density is defined, as of `flows.fit`: no draw lies outside. Of named parameters a dict,
            {"scale": (0, inf)}.
        num_held_out, num_weights: draws for scoring, and for the diagnostics.
        anneal: the share of the steps in which log_density is multiplied by a power that rises from 0.01 to 1, so that draws
            spread over modes before these part; losses of these epochs are NaN, and there are no rounds.

    Returns:
        A `DensityFitResult`: unpacks as `params, log_pdf, sample`, and has `.diagnostics` (effective sample size, the
        importance-weighted estimate of log Z, Pareto k, and how many modes were found), `.history`, `.init_fun` and
        `.save(path)`. A quarter of the draws behind the figures has a wider base, and with several modes 2% lie there, so that
        mass that q misses shows. Warned of are a Pareto k above 0.7, a standard deviation that is wrong by more than 5%, which
        a last round on weighted draws may mend, and a mode of which q has less than half the mass.

    Errors:
        TypeError: `init_fun` is no distribution, log_density no function. FlowsError: log_density does not return one number a
            point, is of a single point or mixes points, is improper as far as can be seen, or so large that its dtype
            has no digits left; a model whose `likelihood` is a 'lower bound'; settings outside their range; names that
            do not fit. FitError: no loss is ever finite, or the fit diverges at any rate.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770 (annealing: equation 20);
        Roeder, Wu and Duvenaud, "Sticking the Landing", 2017, arXiv:1703.09194; Vehtari, Simpson, Gelman, Yao and Gabry,
        "Pareto Smoothed Importance Sampling", 2024, arXiv:1507.02646; Hesterberg, "Weighted Average Importance Sampling and
        Defensive Mixture Distributions", 1995; Owen and Zhou, "Safe and Effective Importance Sampling", 2000.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> log_density = lambda x: -0.5 * jnp.square(x - 3).sum(1)                             # Z = 2 pi
        >>> q = flows.Normal(trainable=True)
        >>> result = flows.fit_to_density(0, q, log_density, 2, max_epochs=2, verbose=0)
        >>> result.sample(1, result.params, 10_000).mean(0).round(1).tolist(), round(result.diagnostics.log_normalizer.value, 2)
        ([3.0, 3.0], 1.84)
    """
    given = locals()
    with devices_of(mesh, "fit_to_density"):
        options = DensityOptions.of(given)
        return _fitted(as_key(rng), init_fun, log_density, input_dim, options)


def _fitted(key: Array, init_fun: Any, log_density: Callable, input_dim: Any, options: DensityOptions) -> DensityFitResult:
    if isinstance(log_density, DistributionInit):
        raise TypeError(
            f"fit_to_density: log_density is the model {log_density!r:.60}, and init_fun is {init_fun!r:.60}; expected "
            "flows.fit_to_density(rng, flow, log_density, input_dim)"
        )
    if init_fun is not None:
        check_distribution(init_fun, options.caller)
    named = Parameters.of(input_dim, options.caller) if isinstance(input_dim, Mapping) else None
    event = as_event(input_dim if named is None else named.size)
    init_fun = default_model(event) if init_fun is None else init_fun
    if getattr(init_fun, "likelihood", "exact") == "lower bound":
        raise FlowsError(
            f"fit_to_density: the log-density of {init_fun!r:.80} is a 'lower bound', as it adds noise to its points or rounds "
            "them (Dequantize): the divergence to a density cannot be told. Leave that layer out, and round draws afterwards"
        )
    user_density = log_density
    if named is not None:
        log_density = _of_vectors(log_density, named)
    of_init, of_steps, of_weights, of_start, of_last = jax.random.split(key, 5)
    box = box_of(options.support, named, event)
    check_density(init_fun, log_density, of_init, box)
    rng, points = np.random.default_rng(seed_of(of_start)), starts_of(options.starts, box)
    start = begin(rng, init_fun, log_density, box, points, options.standardize is True)
    init_fun = start.init_fun

    def settings(options: Options) -> dict[str, Any]:
        if options.checkpoint is None:  # what a function holds on to is not always to be told
            of_density = getattr(user_density, "__name__", type(user_density).__name__)
        else:
            of_density = fingerprint(user_density, "fit_to_density: log_density")
        names = None if named is None else named.described()
        return settings_of(init_fun, key, (), options, input_dim=list(event), log_density=of_density, parameters=names)

    params, part = initialize(init_fun, of_init, event, None)
    dtype = jnp.result_type(*jax.tree.leaves(params), jnp.float32)
    params = cast(start.set(params, event, dtype), dtype)
    problem = ReverseKL(part, log_density, options.num_samples, options.estimator)
    target, triple = Target(log_density, event, dtype), problem.published(params)
    figures = Figures(target, box, start, options.num_weights, options.num_held_out, points)
    began, outcome = time.monotonic(), figures.of(triple, of_weights)
    if options.anneal is not None or not outcome.enough:
        of_start = triple, outcome
        source = Draws(problem, figures, params, options, of_steps)
        params, history = drive(source, params, source.options, problem.published, settings)
        triple = problem.published(params)
        outcome = figures.of(triple, of_weights)
        if start.base is not None and outcome.lacking is not None:
            triple = triple._replace(params=start.weighed(params, outcome.lacking))
            outcome = figures.of(triple, of_last)
        late = devices().any(history.interrupted or time.monotonic() >= began + options.max_seconds)
        steps = options.steps_per_epoch * len(history["train_loss"])
        if outcome.off > 0 and not late and steps and scores_by_formula(part, params):
            of_round, again = jax.random.split(jax.random.fold_in(of_last, 1))
            polished = triple._replace(params=polish(figures, part, triple, options, steps, of_round))
            if (found := figures.of(polished, again)).off < outcome.off and not found.left:
                triple, outcome = polished, found
        if outcome.left and of_start[1].log_weights is not None and not of_start[1].left:
            (triple, outcome), history = of_start, History({**history, "best_epoch": -1}, interrupted=history.interrupted)
            lost = "the training lost modes that its start had, so the result is the start; give a larger model"
            outcome.messages.insert(0, lost)
    else:
        history = history_of_start(outcome.loss)
    for message in outcome.messages:
        warn_user(f"fit_to_density: {message}")
    told = {"diagnostics": outcome.diagnostics, "log_weights": outcome.log_weights}
    return DensityFitResult(*triple, init_fun, as_dim(event), 0, history, named=named, **told)


def _of_vectors(log_density: Callable, named: Parameters) -> Callable:
    """A density of a dict of parameters as one of vectors."""
    if not callable(log_density):
        raise TypeError(f"fit_to_density: log_density is {log_density!r:.60}; expected a function of a dict of arrays")
    return lambda x: log_density(named.natural(x))


def default_model(event: Shape) -> DistributionInit:
    """The model of a density of vectors."""
    if len(event) != 1:
        raise FlowsError(f"fit_to_density: a point has shape {event}, and None is a model of vectors; expected a distribution")
    width = min(max(event[0], LEAST_WIDTH), MOST_WIDTH)
    return Flow(NSF() if event == COLUMN else IAF(4, hidden=(width, width), plain=True))
