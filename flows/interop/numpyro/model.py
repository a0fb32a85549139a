"""The density of a probabilistic program, for points of its unconstrained latents, and a flow fitted to it in one call.
Family: The posterior of a program."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import Delta, biject_to
from numpyro.infer import init_to_median
from numpyro.infer.util import constrain_fn, potential_energy
from numpyro.primitives import Messenger
from scipy.special import softmax

from flows.core import Array, DistributionLike, FlowsError, as_array, as_key, check_function, positive_int, warn_user
from flows.distributions.draws import sample_with_log_pdf
from flows.objectives import pareto_k
from flows.results.density import DensityFitResult, Parameters
from flows.training.density.figures import RELIABLE
from flows.training.density.target import Target
from flows.training.density.variational import fit_to_density

Sites = dict[str, Array]

MOST_SHOWN = 8  # sites in a repr
OVERDRAWN = 10  # draws of the flow for each weighted draw, and at least LEAST in all
LEAST = 4_000


class ModelDensity(NamedTuple):
    """The density of the unconstrained latents of a model.

    Attributes:
        log_density: maps points (n, dim) to log p(latents, observed) + log|det| of the map to the latents, (n,), in nats.
        dim: the length of a point: the latents, raveled, site after site in the order of the program.
        constrain: maps points (n, dim) to the dict of sites, (n, *shape), with deterministic sites.
    """

    log_density: Callable[[Array], Array]
    dim: int
    constrain: Callable[[Array], Sites]


def log_density(model: Callable, *args: Any, **kwargs: Any) -> ModelDensity:
    """The density of a NumPyro model as a function of points, for `flows.fit_to_density` and for samplers.

    The latents theta are mapped from the whole line by theta = T(z), NumPyro's `biject_to` of each site's support, and
    log_density(z) = log p(T(z), observed) + log|det dT/dz|, in nats. The density integrates to the evidence of the data.

    Args:
        model: a NumPyro model, with any handlers (`condition`, `substitute`, `reparam`, `scale`, `mask`).
        args, kwargs: the arguments of the model.

    Returns:
        `ModelDensity(log_density, dim, constrain)`.

    Errors:
        FlowsError: the model has no latents, discrete latents, or latents without a bijection from the line; it draws rows of
            a plate or a random key, or has a `numpyro.param` without a value; its density is NaN at the start (each site at
            the median of 15 draws of its prior), and the message names the site.

    Example:
        >>> import numpyro, numpyro.distributions as dist, jax.numpy as jnp
        >>> from flows.interop.numpyro import log_density
        >>> def model(y):
        ...     scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(0.0, scale), obs=y)
        >>> density = log_density(model, jnp.array([1.0, -1.0]))
        >>> round(density.log_density(jnp.zeros((1, density.dim)))[0].item(), 3)                # of log(scale) = 0
        -3.757
        >>> density.constrain(jnp.zeros((2, 1)))["scale"].tolist()
        [1.0, 1.0]
    """
    return inspected("log_density", model, args, kwargs)[0]


class ModelFit(NamedTuple):
    """A flow fitted to the density of a model.

    Attributes:
        result: the `DensityFitResult`, for points of the unconstrained latents: log Z (the evidence), effective sample size and
            Pareto k are in `result.diagnostics`; `result.save(path)` writes it to a file.
        density: the `ModelDensity` of the fit. `ModelFit(flows.load(path), log_density(model, ...))` restores a saved fit.
    """

    result: DensityFitResult
    density: ModelDensity

    def draw(self, rng: Any, n: int = 1, *, weighted: bool = False) -> Sites:
        """Return n draws of the flow, which approximates the posterior: a dict of sites, (n, *shape), with deterministic sites.

        Weighted draws are n of max(10 n, 4,000) draws of the flow, chosen with replacement, with probabilities in proportion to
        their weights p / q (sampling importance resampling, by systematic resampling, in random order). They follow the
        posterior itself as far as the weights can be trusted, and the same draw may come twice. The weights are not smoothed; a
        warning says if their Pareto k is above 0.7.

        Args:
            rng: key or seed.
            n: number of draws.
            weighted: resample by importance weights.

        Errors:
            FlowsError: n is not a whole number above 0; no draw has a finite weight.

        Source:
            Rubin, "Using the SIR Algorithm to Simulate Posterior Distributions", 1988; Kitagawa, "Monte Carlo Filter and
            Smoother for Non-Gaussian Nonlinear State Space Models", 1996 (systematic resampling).
        """
        n = positive_int(n, "ModelFit.draw: n")
        return self.density.constrain(self._weighted(as_key(rng), n) if weighted else self.result.draw(rng, n))

    def _weighted(self, key: Array, n: int) -> Array:
        draws_key, choice_key, order_key = jax.random.split(key, 3)
        x, log_q = sample_with_log_pdf(draws_key, self.result.params, self.result, max(OVERDRAWN * n, LEAST))
        log_w = Target(self.density.log_density, (self.density.dim,), x.dtype).raw(np.asarray(x)) - np.asarray(log_q, float)
        log_w = np.where(np.isnan(log_w) | (log_w == np.inf), -np.inf, log_w)
        if not np.isfinite(log_w).any():
            raise FlowsError("ModelFit.draw: no draw of the flow has a finite weight; look at .result.diagnostics")
        if (k := pareto_k(log_w)) > RELIABLE:
            warn_user(
                f"ModelFit.draw: Pareto k of the weights is {k:.2f}, above {RELIABLE}: draws repeat a few points. Fit longer, "
                "or give a larger flow"
            )
        ends = np.cumsum(softmax(log_w))
        at = (np.arange(n) + float(jax.random.uniform(choice_key))) / n * ends[-1]
        chosen = np.minimum(np.searchsorted(ends, at, side="right"), len(ends) - 1)
        return x[jax.random.permutation(order_key, chosen)]

    def __repr__(self) -> str:
        sites, point = dict[str, Any](), jax.ShapeDtypeStruct((1, self.density.dim), jnp.result_type(float))
        jax.eval_shape(lambda x: sites.update(self.density.constrain(x)), point)
        named = ", ".join(f"{name} {site.shape[1:]}" for name, site in list(sites.items())[:MOST_SHOWN])
        more = f", and {len(sites) - MOST_SHOWN} more" if len(sites) > MOST_SHOWN else ""
        return f"ModelFit of {named}{more}\n{self.result!r}"


def fit_model(
    rng: Any,
    model: Callable,
    *args: Any,
    flow: DistributionLike | None = None,
    fit: Callable[..., DensityFitResult] = fit_to_density,
    **kwargs: Any,
) -> ModelFit:
    """Fit a flow to the posterior of a NumPyro model, and measure how good the fit is.

    The fit is `log_density`, then `flows.fit_to_density`: the flow q of the unconstrained latents z that minimises KL(q || p),
    with log Z, the evidence of the observations.

    Args:
        rng: key or seed.
        model: a NumPyro model, as for `log_density`.
        args, kwargs: the arguments of the model; `flow` and `fit` are not passed to it.
        flow: a distribution; None for the default model of `flows.fit_to_density`.
        fit: the function that fits the flow, called as fit(rng, flow, log_density, dim). Bind settings by `functools.partial`:
            `fit=partial(flows.fit_to_density, max_epochs=20, verbose=0)`.

    Returns:
        A `ModelFit`: `.result` is the `DensityFitResult`, `.draw(rng, n)` gives dicts of sites.

    Errors:
        The errors of `log_density` and of `flows.fit_to_density`.

    Example:
        >>> import numpyro, numpyro.distributions as dist, jax.numpy as jnp, flows
        >>> from functools import partial
        >>> from flows.interop.numpyro import fit_model
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> fitted = fit_model(0, model, jnp.array(2.0), fit=partial(flows.fit_to_density, verbose=0))
        >>> round(fitted.result.diagnostics.log_normalizer.value, 2)                            # log N(2; 0, sqrt(2))
        -2.27
        >>> fitted.draw(1, 1_000)["mean"].mean().round(1).tolist()
        1.0
    """
    check_function(fit, "fit_model: fit", "flows.fit_to_density, or a functools.partial of it")
    density, latents = inspected("fit_model", model, args, kwargs)
    try:
        result = fit(rng, flow, density.log_density, density.dim)
    except FlowsError as error:
        slices = latents.slices.items()
        where = ", ".join(f"{name!r} {at.start}" + f" to {at.stop - 1}" * (at.stop > at.start + 1) for name, at in slices)
        raise FlowsError(f"fit_model: {error} (numbers of a point, all unconstrained: {where:.400})") from error
    if not isinstance(result, DensityFitResult):
        raise TypeError(
            f"fit_model: fit returned {result!r:.60}; expected a DensityFitResult: give a fit such as "
            "functools.partial(flows.fit_to_density, max_epochs=20)"
        )
    return ModelFit(result, density)


def inspected(caller: str, model: Callable, args: tuple, kwargs: dict) -> tuple[ModelDensity, Parameters]:
    """Return the density of a model, and the names and unconstrained shapes of its latents. The model runs once, with latents
    at the medians of their priors; a model without a density is refused."""
    check_function(model, f"{caller}: the model", "a function with NumPyro's primitives")
    sites = trace_at_start(caller, model, args, kwargs)
    latents = latents_of(caller, sites)
    start = {name: biject_to(sites[name]["fn"].support).inv(sites[name]["value"]) for name in latents}
    layout = Parameters.of({name: jnp.shape(value) for name, value in start.items()}, caller)
    refuse_nan(caller, sites)
    names = [name for name, site in sites.items() if name in latents or site["type"] == "deterministic"]
    seeded = handlers.seed(model, 0)  # latents have values, so no number depends on the key

    def point_density(point: Array) -> Array:
        return -jnp.asarray(potential_energy(seeded, args, kwargs, layout.natural(point)))

    def point_sites(point: Array) -> Sites:
        values = constrain_fn(seeded, args, kwargs, layout.natural(point), return_deterministic=True)
        return {name: jnp.asarray(value) for name, value in values.items()}

    densities, sites_of_points = jax.jit(jax.vmap(point_density)), jax.jit(jax.vmap(point_sites))

    def density(points: Array) -> Array:
        return densities(checked(points, layout.size, "log_density"))

    def constrain(points: Array) -> Sites:
        values = sites_of_points(checked(points, layout.size, "constrain"))
        return {name: values[name] for name in names}

    return ModelDensity(density, layout.size, constrain), layout


def checked(points: Any, dim: int, name: str) -> Array:
    points = as_array(points, f"{name} of a model: points")
    if points.ndim != 2 or points.shape[1] != dim:
        raise FlowsError(f"{name} of a model: points have shape {points.shape}; expected (n, {dim}), the unconstrained latents")
    return points


class Undetermined(Messenger):
    """Record the first plate, param and key without a value in a model, which would be drawn again or trained. It acts outside
    of the model's handlers."""

    def __init__(self, fn: Callable):
        super().__init__(fn)
        self.first = dict[str, Any]()

    def process_message(self, msg: Any) -> None:
        if msg["value"] is None and (msg["type"] != "param" or msg["fn"] is not None):
            self.first.setdefault(msg["type"], msg)


def trace_at_start(caller: str, model: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Return the sites of a model, with latents at the medians of their priors; refuse a model whose density is random."""
    watched = Undetermined(model)
    started = handlers.substitute(handlers.seed(watched, 0), substitute_fn=median_of)
    with handlers.block(), numpyro.validation_enabled(False):  # these errors do not name a site
        sites = handlers.trace(started).get_trace(*args, **kwargs)
    if plate := watched.first.get("plate"):
        name, (size, some) = plate["name"], plate["args"]
        raise FlowsError(
            f"{caller}: the plate {name!r} draws {some} of {size} rows, so that its density is random; expected all "
            "rows: leave subsample_size out. AutoFlow with numpyro.infer.SVI takes some rows per step"
        )
    if param := watched.first.get("param"):
        raise FlowsError(
            f"{caller}: the model has the numpyro.param {param['name']!r}, which a density does not train; give its value "
            f"by numpyro.handlers.substitute(model, data={{{param['name']!r}: ...}}), or a prior by numpyro.sample"
        )
    if "prng_key" in watched.first:
        raise FlowsError(
            f"{caller}: the model draws a random key (numpyro.prng_key()), so that its density is random; expected a model "
            "that draws at its sites alone. Draw other numbers outside of the model, and pass them as arguments"
        )
    return sites


def median_of(site: Any) -> Any:
    """Return the median of a latent that has one on the line; another latent is drawn, and refused when all sites are known."""
    with suppress(NotImplementedError, ValueError):
        return init_to_median(site)
    return None


def latents_of(caller: str, sites: Mapping[str, Any]) -> list[str]:
    """Return the names of the latents; refuse latents without a bijection from the whole line."""
    latents = [name for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]]
    if not any(math.prod(jnp.shape(sites[name]["value"])) for name in latents):
        raise FlowsError(
            f"{caller}: the model has no latents: each of its {len(sites)} sites is observed or follows from others. Expected "
            "a numpyro.sample without obs=; did handlers.condition give all of them a value?"
        )
    for name in latents:
        fn = sites[name]["fn"]
        if fn.support.is_discrete:
            raise FlowsError(
                f"{caller}: the latent {name!r} is discrete ({type(fn).__name__}), and a flow draws numbers; sum it out (a "
                "mixture by numpyro.distributions.MixtureSameFamily or MixtureGeneral), or give it a value by "
                "numpyro.handlers.condition"
            )
        if isinstance(fn, Delta):
            raise FlowsError(f"{caller}: the latent {name!r} is a point (Delta); expected numpyro.deterministic({name!r}, ...)")
        try:
            biject_to(fn.support)
        except NotImplementedError:
            raise FlowsError(
                f"{caller}: the latent {name!r} lives on {fn.support!r:.60}, to which NumPyro has no bijection from the line; "
                "give it other coordinates by numpyro.handlers.reparam (ProjectedNormalReparam of unit vectors)"
            ) from None
    return latents


def refuse_nan(caller: str, sites: Mapping[str, Any], empty: bool = False) -> None:
    """Refuse a density that is NaN, or 0 if `empty`, with all latents at their start, and name the site."""
    for name, site in sites.items():
        if site["type"] != "sample":
            continue
        value, observed = site["value"], site["is_observed"]
        with numpyro.validation_enabled(False):
            log_prob = site["fn"].log_prob(value)
        if isinstance(log_prob, jax.core.Tracer):
            continue
        nan = np.isnan(np.asarray(log_prob)).any()
        if not nan and not (empty and np.isneginf(np.asarray(log_prob)).any()):
            continue
        missing = int(np.isnan(np.asarray(value, float)).sum()) if observed else 0
        kind, remedy = "a latent", f"check the arguments of its {type(site['fn']).__name__}"
        if observed:
            kind = "observed" + f", and {missing} of its {np.size(value)} values are NaN" * (missing > 0)
        if missing:
            remedy = "leave missing values out, or mask them by numpyro.handlers.mask"
        elif not nan:
            remedy += ", or start elsewhere: init_loc_fn=numpyro.infer.init_to_value(values={...})"
        names = [key for key, latent in sites.items() if latent["type"] == "sample" and not latent["is_observed"]]
        start = ", ".join(f"{key} = {np.asarray(sites[key]['value'])!s:.40}" for key in names[:4]) + ", ..." * (len(names) > 4)
        number = "NaN" if nan else "-inf"
        raise FlowsError(f"{caller}: the log-density of {name!r} ({kind}) is {number} at the start, {start}; {remedy}")
