"""Any bijection as a guide of variational inference over all latents. Family: A flow in a NumPyro program."""

from collections.abc import Callable
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
from flows.core import Array, BijectionInit, BijectionPart, FlowsError, Given, check_function, on_device, positive
from flows.distributions.support import support
from flows.interop.models import Model, model_of
from flows.interop.numpyro.model import latents_of, refuse_nan
from flows.interop.numpyro.module import drawn, split, with_fixed
from flows.interop.numpyro.transform import FlowTransform
from flows.models.autoregressive import IAF
from flows.training.loop.losses import has_running_statistics

DEFAULT = IAF(3, hidden=(64, 64), plain=True)


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
