"""`flows.fit_to_density`: variational inference with the training loop of `flows.fit`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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
    as_context,
    as_dim,
    as_event,
    as_key,
    boolean,
    cast,
    explained_call,
    initialize,
    positive,
    positive_int,
    traits_by,
    warn_user,
)
from flows.distributions.flow import Flow
from flows.models.autoregressive import IAF
from flows.models.splines import NSF
from flows.objectives import reverse_kl
from flows.objectives.importance import LEAST_FOR_TAIL
from flows.results.density import DensityFitResult, Parameters
from flows.results.history import History
from flows.results.result import FitResult
from flows.training.data.continued import Before, check_result
from flows.training.data.table import seed_of
from flows.training.density.divergences import Draws, OfDraws, polish, scores_by_formula
from flows.training.density.figures import Figures
from flows.training.density.start import begin
from flows.training.density.target import Target, box_of, check_density, starts_of
from flows.training.devices import devices, devices_of
from flows.training.fingerprint import digest_of, fingerprint, settings_of
from flows.training.loop.driver import drive
from flows.training.loop.losses import key_of
from flows.training.model_view import ModelView, values_of, warn_of_one_column
from flows.training.options import (
    MAY_CHANGE,
    Options,
    Run,
    check_distribution,
    decay,
    objective_of_draws,
    one_of,
    optional,
    share,
)

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
    "its support=",
    remedy="Give a model that draws only where log_density is finite",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class DensityOptions(Options):
    starts: Any = 32  # checked where the support is known
    objective: Annotated[Callable | None, optional(objective_of_draws)] = None
    num_samples: Annotated[int, positive_int] = 256
    estimator: Annotated[str | None, optional(one_of(*ESTIMATORS))] = None
    standardize: Annotated[bool | str, boolean] = True
    ema: Annotated[float | None, optional(decay)] = None
    learning_rate: Annotated[float, positive] = DENSITY_RATE
    steps_per_epoch: Annotated[int, positive_int] = 100
    num_held_out: Annotated[int, positive_int] = 4_000
    num_weights: Annotated[int, enough_for_a_tail, MAY_CHANGE] = 10_000
    anneal: Annotated[float | None, optional(share)] = None
    run: Run = OF_DENSITY

    @property
    def measure(self) -> str:
        return "loss" if self.objective is None else f"loss of the fit by {self.objective_name}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective is not None and self.estimator != type(self).estimator:
            raise TypeError(
                f"fit_to_density: estimator={self.estimator!r} is of the reverse KL, and objective is "
                f"{self.objective_name}; bind the estimator by functools.partial(objective, estimator=...)"
            )
        shares = self.placement.shares
        nearest = max(self.num_samples - self.num_samples % shares, shares)
        if self.num_samples % shares and self.num_samples != type(self).num_samples:
            raise FlowsError(
                f"fit_to_density: num_samples is {self.num_samples}, which does not split over {shares} devices; the nearest "
                f"that does is {nearest}"
            )
        object.__setattr__(self, "num_samples", nearest)


@explained_call("flows.fit_to_density(0, flow, log_density, 2)")
def fit_to_density(
    rng: Any,
    init_fun: DistributionLike | None,
    log_density: Callable,
    input_dim: int | tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None,
    *,
    objective: Callable | None = None,
    starts: Any = 32,
    num_samples: int = 256,
    estimator: str | None = None,
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
    """Fit a distribution q to an unnormalised density p Z by reverse KL, and measure how good the fit is.

    The loss is KL(q || p) - log Z, the mean of log q(x) - log_density(x) over draws x of q; the ELBO is minus this loss.

    For vectors of at most 512 numbers, the fit first looks for the modes of the density. The model starts at the Gaussian
    nearest to the density, which stays in the fitted model as a `Whiten` layer. If there are several modes, the base of a flow
    on `Normal()` also becomes a `GMM` with one component at each mode. The fit cannot know modes that no start reached. If the
    start is already good enough, there is no training. Otherwise the fit trains in rounds of epochs, each twice as long as the
    one before, until the diagnostics are good enough or a round hardly improves them. See docs/guide/posteriors.md.

    Args:
        rng: key or seed.
        init_fun: a distribution whose draws have gradients. None is `Flow(IAF(4, hidden=(32, 32), plain=True))`, an inverse
            autoregressive flow (wider for more than 32 columns), or `Flow(NSF())` for one column. An IAF draws in one pass, and
            was right in benchmarks where coupling flows were not; coupling flows score other points faster. Or the result of a
            fit, also from a file, which is fitted further: from its params, with its names and support, without `input_dim`,
            `support` and `standardize`. Modes are looked for all the same, as the diagnostics count draws there.
        log_density: a function of points (n, *event) that returns log(p(x) Z) in nats, (n,). If f takes one point, pass
            `jax.vmap(f)`. With named parameters the function takes a dict of arrays (n, *shape).
        input_dim: the event; or a dict from the names of parameters to their shapes, {"mu": (), "scale": (3,)}: then `draw` of
            the result returns a dict of arrays, and `log_prob` takes one; `log_pdf` and `sample` use vectors in this order.
        objective: a function `(params, distribution, log_density, rng, num_samples) -> scalar` that training minimises in
            place of the reverse KL, such as `flows.objectives.forward_kl` or
            `functools.partial(flows.objectives.alpha_divergence, alpha=2.0)`, which cover modes. The validation loss, which
            decides on the best epoch, is then -2 log(int sqrt(p q)) - log Z, as the value of such an objective is also small
            where all draws miss the density.
        starts: the number of points from which the fit looks for modes, or the points, (n, *event) or a dict of arrays.
        num_samples: draws per step, a multiple of the number of devices of a mesh.
        estimator: the estimator of the gradient of the reverse KL, see `flows.objectives.reverse_kl`. By default
            "sticking_the_landing"; for a model whose log-density is a 'lower bound' "total", the only one that suits it.
        max_epochs, steps_per_epoch: epochs at most, and the steps of an epoch; each epoch ends with a score of the model.
        max_minutes, patience, learning_rate, optimizer, ema, checkpoint, checkpoint_every, callbacks, mesh, verbose: see
            `flows.fit`. A checkpoint identifies log_density by its code and the values it holds, parameters by their names.
        standardize: True fits `Flow(Whiten(), init_fun)`, which starts at the nearest Gaussian or at the modes, unless the
            standard normal covers more of the density, or the model lives on circles or a sphere. False fits init_fun as it
            is; then only the diagnostics use the modes.
        support: the box on which log_density is defined, see `flows.fit`; no draw lies outside. For named parameters a dict,
            {"scale": (0, inf)}.
        num_held_out, num_weights: draws for the score after an epoch, and for the diagnostics.
        anneal: the share of the steps in which log_density is multiplied by a power that rises from 0.01 to 1, so that draws
            spread over the modes before these separate. The losses of these epochs are NaN, and there are no rounds.

    Returns:
        A `DensityFitResult`, which unpacks as `params, log_pdf, sample` and has `.diagnostics` (effective sample size, the
        importance-weighted estimate of log Z, Pareto k, the number of modes), `.history`, `.init_fun` and `.save(path)`. The
        diagnostics show mass that q misses: a quarter of their draws have a wider base, and 2% lie at the modes if there are
        several. The fit warns if Pareto k is above 0.7, if q has less than half of the mass of a mode, or if a standard
        deviation is still wrong by more than 5% after a last round of training on weighted draws.

    Errors:
        TypeError: `init_fun` is not a distribution, or log_density not a function. FlowsError: log_density does not return one
            number for each point, takes a single point, mixes points, has infinite mass as far as the fit can see, or is so
            large that its dtype has no digits left; the `likelihood` of the model is a 'lower bound'; a setting is outside
            its range; names do not fit. FitError: no loss is finite, or the fit diverges at every rate.

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
    arguments = locals()
    with devices_of(mesh, "fit_to_density"):
        options = DensityOptions.of(arguments)
        return _fitted(as_key(rng), init_fun, log_density, input_dim, options)


def _fitted(key: Array, init_fun: Any, log_density: Callable, input_dim: Any, options: DensityOptions) -> DensityFitResult:
    if isinstance(log_density, DistributionInit):
        raise TypeError(
            f"fit_to_density: log_density is the model {log_density!r:.60}, and init_fun is {init_fun!r:.60}; expected "
            "flows.fit_to_density(rng, flow, log_density, input_dim)"
        )
    before, named = None, Parameters.of(input_dim, options.caller) if isinstance(input_dim, Mapping) else None
    if isinstance(init_fun, FitResult):
        before, named = _before(init_fun, input_dim, options), getattr(init_fun, "named", None)
        init_fun, input_dim = init_fun.init_fun, init_fun.input_dim
    elif init_fun is not None:
        check_distribution(init_fun, options.caller)
    if input_dim is None:
        raise TypeError("fit_to_density: input_dim is missing; expected the number of columns of a point, such as 2, or names")
    event = as_event(input_dim if named is None else named.size)
    init_fun = default_model(event) if init_fun is None else init_fun
    if any(traits_by(value).rounding for value in values_of(init_fun)):
        raise FlowsError(
            f"fit_to_density: {init_fun!r:.80} rounds its draws (Dequantize), through which there is no gradient. Leave that "
            "layer out, and round draws afterwards"
        )
    of_paths = getattr(init_fun, "likelihood", "exact") == "lower bound"
    estimator = options.estimator or ("total" if of_paths else "sticking_the_landing")
    if of_paths and estimator != "total":
        raise FlowsError(
            f"fit_to_density: estimator={estimator!r} scores each draw again, and the log-density of {init_fun!r:.80} "
            "is a 'lower bound', by other draws of its layers; expected 'total', which weighs the path of each draw"
        )
    user_density = log_density
    if named is not None:
        log_density = _vector_density(log_density, named)
    init_key, steps_key, weights_key, start_key, last_key = jax.random.split(key, 5)
    box = box_of(options.support, named, event)
    check_density(init_fun, log_density, init_key, box)
    if before is not None:
        box = box._replace(layer=before.bounds)
    warn_of_one_column(ModelView(init_fun, event, None, standardize=False), options.caller)
    rng, points = np.random.default_rng(seed_of(start_key)), starts_of(options.starts, box)
    start = begin(rng, init_fun, log_density, box, points, options.standardize is True, before is not None)
    init_fun = start.init_fun

    def settings() -> dict[str, Any]:
        if options.checkpoint is None:  # a function may hold values without a digest
            density = getattr(user_density, "__name__", type(user_density).__name__)
        else:
            density = fingerprint(user_density, "fit_to_density: log_density")
        names = None if named is None else named.described()
        others = {"input_dim": list(event), "log_density": density, "parameters": names}
        others |= {} if before is None else {"start": digest_of(before.result.params)}
        return settings_of(init_fun, key, (), options, **others)

    params, part = initialize(init_fun, init_key, event, None)
    params = params if before is None else before.result.params
    dtype = jnp.result_type(*jax.tree.leaves(params), jnp.float32)
    params = cast(start.set(params, dtype), dtype)
    objective = partial(reverse_kl, estimator=estimator) if options.objective is None else options.objective
    problem = OfDraws(part, objective, log_density, options.num_samples, key_of(objective))
    target, triple = Target(log_density, event, dtype), problem.published(params)
    figures = Figures(target, box, start, options.num_weights, options.num_held_out, points)
    began, outcome = time.monotonic(), figures.of(triple, weights_key)
    if options.anneal is not None or not outcome.enough:
        at_start = triple, outcome
        source = Draws(problem, figures, params, options, steps_key)
        params, history = drive(source, params, problem.published, settings)
        triple = problem.published(params)
        outcome = figures.of(triple, weights_key)
        if start.base is not None and outcome.lacking is not None:
            triple = triple._replace(params=start.weighed(params, outcome.lacking))
            outcome = figures.of(triple, last_key)
        late = devices().any(history.interrupted or time.monotonic() >= began + options.max_seconds)
        steps = options.steps_per_epoch * len(history["train_loss"])
        if outcome.off > 0 and not late and steps and scores_by_formula(part, params):
            round_key, again = jax.random.split(jax.random.fold_in(last_key, 1))
            polished = triple._replace(params=polish(figures, part, triple, options, steps, round_key))
            if (corrected := figures.of(polished, again)).off < outcome.off and not corrected.left:
                triple, outcome = polished, corrected
        if outcome.left and at_start[1].log_weights is not None and not at_start[1].left:
            triple, outcome = at_start
            history["best_epoch"] = -1
            lost = "the training lost modes that its start had, so the result is the start; give a larger model"
            outcome.messages.insert(0, lost)
    else:
        losses = {"train_loss": np.zeros(0), "validation_loss": np.zeros(0), "skipped": np.zeros(0, int)}
        history = History(
            {**losses, "best_epoch": -1, "start_loss": np.array(outcome.loss), "error": np.array(np.nan)},
            objective=options.objective_name,
        )
    for message in outcome.messages:
        warn_user(f"fit_to_density: {message}")
    fields: dict[str, Any] = {"diagnostics": outcome.diagnostics, "log_weights": outcome.log_weights}
    fields |= {} if before is None else {"table": before.result.table, "turn": before.result.turn}
    return DensityFitResult(*triple, init_fun, as_dim(event), 0, history, named=named, **fields)


def _before(result: FitResult, input_dim: Any, options: DensityOptions) -> Before:
    """Return a result to go on from, with its names and support."""
    check_result(result, options)
    if input_dim is not None:
        raise TypeError(
            f"fit_to_density: input_dim is {input_dim!r:.60}, and the result has its points already, of shape "
            f"{as_event(result.input_dim)}; leave input_dim out"
        )
    if as_context(result.context_dim) is not None:
        raise FlowsError("fit_to_density: the result takes a context, and a density has none; give a model without a context")
    return Before.of(result, jnp.result_type(*jax.tree.leaves(result.params), jnp.float32), options.caller)


def _vector_density(log_density: Callable, named: Parameters) -> Callable:
    """The density of vectors that equals a density of a dict of parameters."""
    if not callable(log_density):
        raise TypeError(f"fit_to_density: log_density is {log_density!r:.60}; expected a function of a dict of arrays")
    return lambda x: log_density(named.natural(x))


def default_model(event: Shape) -> DistributionInit:
    """The model of a density of vectors."""
    if len(event) != 1:
        raise FlowsError(f"fit_to_density: a point has shape {event}, and None is a model of vectors; expected a distribution")
    width = min(max(event[0], LEAST_WIDTH), MOST_WIDTH)
    return Flow(NSF() if event == COLUMN else IAF(4, hidden=(width, width), plain=True))
