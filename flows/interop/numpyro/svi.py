"""Models that train in NumPyro: as a module of a program, and any bijection as a guide over all latents.
Family: A flow in a NumPyro program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import Distribution, Normal, TransformedDistribution, constraints
from numpyro.distributions.transforms import AffineTransform, IndependentTransform
from numpyro.infer import init_to_median
from numpyro.infer.autoguide import AutoContinuous

from flows.compose import Invert
from flows.core import (
    Array,
    BijectionInit,
    BijectionPart,
    DistributionInit,
    DistributionLike,
    FlowsError,
    Given,
    Memo,
    Params,
    as_key,
    check_function,
    on_device,
    positive,
    trainable,
)
from flows.distributions.support import support
from flows.interop.models import Model, model_of
from flows.interop.numpyro.distribution import FlowDistribution, at_context
from flows.interop.numpyro.model import latents_of, refuse_nan
from flows.interop.numpyro.transform import FlowTransform
from flows.models.autoregressive import IAF
from flows.training.loop.losses import has_running_statistics

DEFAULT = IAF(3, hidden=(64, 64), plain=True)
_constant = Memo(size=256)  # params of each model, drawn with a constant key


def module(
    name: str, init_fun: DistributionLike, input_dim: int | Sequence[int], *, context_dim: int | Sequence[int] = 0
) -> Callable[..., FlowDistribution]:
    """Declare the params of a model in a NumPyro program: a trained prior, a likelihood, an amortised guide.

    The trained params are the site `name + "$params"` of `numpyro.param`, drawn with the handler's key unless a value is
    substituted. "fixed" params (permutations, fixed rotations) are not a site: they are drawn with a constant key, and so are
    the same in every call of SVI, MCMC and Predictive. Leaves in the same dict as "fixed" start with the constant key, too, as
    they belong together: the factors of `InvertibleLinear` are factors of one rotation.

    Layers that measure data (`ActNorm`, `Standardize`) see no data here, and start as they do without data.

    Args:
        name: the name of the module, different from the name of every other site.
        init_fun: a distribution, such as `flows.Flow(flows.NSF())`.
        input_dim, context_dim: as init_fun takes them.

    Returns:
        A function that returns a distribution, as `flows.interop.numpyro.distribution` does. Its argument is the context,
        (..., *context); a model without a context takes no argument.

    Errors:
        TypeError: not a distribution. FlowsError: a plain closure, codes, a log-density that is a lower bound; batch norm,
            whose running statistics would not be measured; substituted params of another model; a context that is missing.

    Example:
        >>> import flows, jax, jax.numpy as jnp, numpyro
        >>> from flows.interop.numpyro import module
        >>> from numpyro.infer import SVI, Trace_ELBO
        >>> def guide(x):                                             # q(z | x), for any x at once
        ...     posterior = module("q", flows.Flow(flows.IAF(1, hidden=(4,))), 2, context_dim=3)
        ...     with numpyro.plate("rows", len(x)):
        ...         numpyro.sample("z", posterior(x))
        >>> def model(x):
        ...     with numpyro.plate("rows", len(x)):
        ...         z = numpyro.sample("z", numpyro.distributions.Normal(jnp.zeros(2), 1.0).to_event(1))
        >>> svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
        >>> state, loss = svi.update(svi.init(jax.random.key(0), jnp.ones((5, 3))), jnp.ones((5, 3)))
        >>> sorted(svi.get_params(state))
        ['q$params']
    """
    model = model_of(init_fun, DistributionInit, input_dim, context_dim, "module")
    if has_running_statistics(init_fun):
        raise FlowsError(
            f"module: {init_fun!r:.80} has running statistics (BatchNorm), which a NumPyro program does not measure: use "
            "ActNorm, or a model without batch norm (batch_norm=False); or fit it with flows.fit, and give the result to "
            "flows.interop.numpyro.distribution"
        )
    site = f"{name}$params"
    trained = numpyro.param(site)
    if trained is None:
        key = numpyro.prng_key()
        trained = numpyro.param(site, drawn(model, jax.random.key(0) if key is None else as_key(key)))
    params = with_fixed(model, trained)
    model.check(params, f"module: the params of {name!r}")

    def at(context: Any = None) -> FlowDistribution:
        return at_context(params, context, model, f"module {name!r}")

    return at


def drawn(model: Model, key: Any) -> Params:
    """Draw the trained params with a key, and trained leaves next to "fixed" with the constant key."""
    params = model.known.part.init(key, Given())
    if all(jax.tree.leaves(trainable(params))):
        return params
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    fixed = {path[:i] for path in paths for i, step in enumerate(path) if getattr(step, "key", None) == "fixed"}

    def chosen(path: tuple, drawn: Any, constant: Any) -> Any:
        return constant if path[:-1] in fixed else drawn

    return split(jax.tree_util.tree_map_with_path(chosen, params, _by_constant_key(model)))[0]


def with_fixed(model: Model, trained: Params) -> Params:
    """Return all params, trained and fixed."""
    if all(jax.tree.leaves(trainable(model.known.params))):
        return trained
    fixed = split(_by_constant_key(model))[1]
    try:
        return jax.tree.map(lambda a, b: b if a is None else a, trained, fixed, is_leaf=lambda leaf: leaf is None)
    except ValueError:  # the structure differs, and the check after this names it
        return trained


def _by_constant_key(model: Model) -> Params:
    """Return params drawn with a constant key, as numbers even within a trace, so that no step draws them again."""
    with jax.ensure_compile_time_eval():
        return _constant(model, lambda: model.known.part.init(jax.random.key(0), Given()))


def split(params: Any) -> tuple[Any, Any]:
    """Return the trained leaves and the "fixed" leaves, each with None in the places of the others."""
    trains = trainable(params)
    return (
        jax.tree.map(lambda leaf, train: leaf if train else None, params, trains),
        jax.tree.map(lambda leaf, train: None if train else leaf, params, trains),
    )


class AutoFlow(AutoContinuous):
    """Any bijection as a guide over all latents of a NumPyro model, followed by a trained shift and scale.

    q: z ~ N(0, I), u = f^-1(z), latents = T(loc + scale u), with f the bijection, from data to noise, and T NumPyro's map of
    each site from the whole line. log q = log N(z; 0, I) - log|det of these maps|: a draw and its density come from one pass
    of f^-1, and no ELBO runs f. So inverse autoregressive flows and couplings are cheap; `MAF` draws feature by feature.

    Args:
        model: a NumPyro model. It may have `numpyro.param` sites, and observe some rows of a plate per step.
        bijection: a constructor's value, by default `IAF(3, hidden=(64, 64), plain=True)`. Layers that measure data (batch
            normalisation) are refused, as a guide sees no data.
        prefix: the prefix of the names of trained params: "auto_params" (a pytree), "auto_loc" and "auto_scale", (latents,).
        init_loc_fn: the start of loc, one of NumPyro's strategies; its default is the median of draws of the prior.
        init_scale: the start of scale, above 0, in units of the unconstrained latents.

    Errors:
        TypeError: not a constructor's value of a bijection. FlowsError: a bijection that holds a plain closure, needs a
            context, changes the event, lives on a part of the line, rounds points or measures data; a model without latents or
            with discrete latents; a density that is NaN or 0 at the start, and the message names the site.

    Source:
        Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016, arXiv:1606.04934; Hoffman et
        al., "NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport", 2019, arXiv:1903.03704.

    Example:
        >>> import flows, jax, numpyro, numpyro.distributions as dist, optax
        >>> from flows.interop.numpyro import AutoFlow
        >>> from numpyro.infer import SVI, Trace_ELBO
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> guide = AutoFlow(model, flows.IAF(1, hidden=(4,)))
        >>> svi = SVI(model, guide, optax.adam(0.02), Trace_ELBO(num_particles=16))
        >>> fitted = svi.run(jax.random.key(0), 500, 2.0, progress_bar=False)
        >>> draws = guide.sample_posterior(jax.random.key(1), fitted.params, sample_shape=(2_000,))
        >>> abs(draws["mean"].mean() - 1.0) < 0.1, abs(draws["mean"].std() - 0.5**0.5) < 0.1
        (Array(True, dtype=bool), Array(True, dtype=bool))
    """

    def __init__(
        self,
        model: Callable,
        bijection: Any = None,
        *,
        prefix: str = "auto",
        init_loc_fn: Callable = init_to_median,
        init_scale: float = 0.1,
    ):
        check_function(model, "AutoFlow: the model", "a function with NumPyro's primitives")
        check_function(init_loc_fn, "AutoFlow: init_loc_fn", "one of NumPyro's strategies, such as init_to_median")
        self.bijection = DEFAULT if bijection is None else bijection
        model_of(self.bijection, BijectionInit, 1, 0, "AutoFlow")
        self._init_scale = positive(init_scale, "AutoFlow: init_scale")
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        latents_of("AutoFlow", self._sites(args, kwargs, abstract=True))
        try:
            super()._setup_prototype(*args, **kwargs)
        except (RuntimeError, ValueError, UserWarning) as error:
            refuse_nan("AutoFlow", self._sites(args, kwargs, abstract=False), empty=True)
            if isinstance(error, ValueError):  # NumPyro's errors of usage, such as latents in a plate of some rows
                raise
            raise FlowsError(
                f"AutoFlow: no start was found at which the model's density and its gradient are finite ({error}); give "
                "init_loc_fn=numpyro.infer.init_to_value(values={...})"
            ) from error
        check_trains(self.bijection, self.latent_dim)

    def _sites(self, args: tuple, kwargs: dict, abstract: bool) -> dict[str, Any]:
        """Return the sites of the model at the start, without numbers if `abstract`."""
        started = handlers.substitute(handlers.seed(self.model, 0), substitute_fn=self.init_loc_fn)
        sites = dict[str, Any]()

        def run() -> None:
            with handlers.block(), numpyro.validation_enabled(False):
                sites.update(handlers.trace(started).get_trace(*args, **kwargs))

        jax.eval_shape(run) if abstract else run()
        return sites

    def _get_posterior(self) -> Distribution:
        name, d = self.prefix, self.latent_dim
        model = Model(self.bijection, (d,))
        trained = numpyro.param(f"{name}_params", lambda key: drawn(model, key))
        loc = numpyro.param(f"{name}_loc", self._init_latent)
        scale = numpyro.param(f"{name}_scale", jnp.full(d, self._init_scale), constraint=constraints.softplus_positive)
        params = with_fixed(model, trained)
        model.check(params, f"AutoFlow: {name}_params")
        to_line = FromNoise(params, Model(Invert(self.bijection), (d,)))
        to_latents = IndependentTransform(AffineTransform(loc, scale), 1)
        return TransformedDistribution(self.get_base_dist(), [to_line, to_latents])

    def get_base_dist(self) -> Distribution:
        return Normal(jnp.zeros(self.latent_dim), 1).to_event(1)


class FromNoise(FlowTransform):
    """The map from noise. NeuTra asks for the log-det of a point that it has just computed, so the log-det is computed in the
    same direction: within one jit it is the same pass."""

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return self.call_with_intermediates(x)[1] if intermediates is None else intermediates


def check_trains(bijection: Any, d: int) -> None:
    """Refuse a bijection that a guide of d unconstrained latents cannot train."""
    whose = f"AutoFlow: {bijection!r:.80}"
    part = bijection.part((d,), None)
    if part.output != (d,):
        raise FlowsError(f"{whose} maps {d} latents to events {part.output}; expected {d} numbers of noise")
    if has_running_statistics(bijection) or fixed_leaves_measure(part, d):
        raise FlowsError(
            f"{whose} has numbers that are measured from data and do not train, and a guide sees no data: leave batch "
            "normalisation out (plain=True), and Standardize and Whiten, as the guide has a shift and a scale; ActNorm trains"
        )
    lives = support(bijection, d)
    for region, side in ((lives.inputs, "latents"), (lives.outputs, "noise")):
        if not region.flat or np.isfinite([region.low, region.high]).any():
            raise FlowsError(
                f"{whose} has its {side} on a part of the line, or on circles or spheres; expected all numbers, as NumPyro "
                "maps each latent from the whole line, and the noise is normal. Leave such layers out"
            )


def fixed_leaves_measure(part: BijectionPart, d: int) -> bool:
    """Return whether a leaf that does not train depends on the data at init."""
    if not part.measures:
        return False
    data = np.random.default_rng(0).exponential(size=(4 * d + 16, d)).astype(np.float32)
    without, measured = (split(part.init(jax.random.key(0), Given(init_inputs=x)))[1] for x in (None, on_device(data)))
    return not all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (without, measured)), strict=True))
