"""A flow as a proposal for BlackJAX, and a density in the noise of a flow for its samplers. Family: BlackJAX.

    kernel = blackjax.irmh(log_density_of_one, *proposal(result))       # proposes draws of the flow
    noise = preconditioned(log_density, result)                         # a density for nuts, window_adaptation, ...
    chains = sample(0, log_density, result)                             # draws, by local moves and draws of the flow

Densities in this library take points (n, *event). BlackJAX needs densities of one position, and these functions make them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flows.core import Array, FlowsError, as_array, as_event
from flows.interop import needs
from flows.interop.chains import Chains, sample
from flows.interop.models import as_rows
from flows.interop.noise import check_density, context_of, names_of, noise_of_flow, one, packed
from flows.results.columns import Inputs
from flows.results.result import FitResult

needs("blackjax")

__all__ = ["Chains", "Preconditioned", "Proposal", "preconditioned", "proposal", "sample"]


class Proposal(NamedTuple):
    """The two functions of `blackjax.irmh`, in the order of its arguments: `blackjax.irmh(log_density_of_one, *proposal)`.

    Attributes:
        distribution: `distribution(rng_key)` returns a position, a draw of the flow.
        log_density: `log_density(from_state, to_state)` returns log q of the position of `to_state`, in nats; `from_state` has
            no effect, as draws of the flow do not depend on it.
    """

    distribution: Callable[[Any], Any]
    log_density: Callable[[Any, Any], Array]


class Preconditioned(NamedTuple):
    """A density in the noise of a flow, x(z) = f^-1(z), for samplers, and the maps between noise and data.

    Attributes:
        log_density: `log_density(z)` of one position z, an event of the noise, is log p(x(z)) + log|det dx/dz|, in nats.
        to_data: `to_data(z)` is x, for one position or positions with any leading axes, such as (chains, draws): a dict of
            arrays if the parameters have names.
        to_noise: `to_noise(x)` is z, for one point or points with any leading axes.
    """

    log_density: Callable[[Array], Array]
    to_data: Callable[[Any], Any]
    to_noise: Callable[[Any], Array]


def proposal(fitted: FitResult, *, context: Any = None) -> Proposal:
    """A fitted flow q as the proposal of an independent Metropolis-Hastings chain, `blackjax.irmh`.

    A draw x' of q replaces x with probability min(1, p(x') q(x) / (p(x) q(x'))). So the chain draws from p itself, also if q
    is a little wrong; its proposals do not depend on its position. q must have mass wherever p has.

    Args:
        fitted: a result of `flows.fit`, `flows.fit_ensemble`, `flows.fit_to_density` or `flows.load`.
        context: (*context,), for a conditional flow.

    Returns:
        A `Proposal`: `blackjax.irmh(log_density_of_one, *proposal(fitted))`. A position is one point: an array with the
        shape of the event, or a dict of arrays if the parameters have names.

    Errors:
        FlowsError: a model whose `likelihood` is 'lower bound', a model of codes or with plain closures; a context that is
            missing or has another shape. TypeError: not a result.

    Source:
        Tierney, "Markov Chains for Exploring Posterior Distributions", 1994, section 2.3.3.

    Example:
        >>> import blackjax, flows, jax, jax.numpy as jnp
        >>> from flows.interop.blackjax import proposal
        >>> log_density = lambda x: -0.5 * jnp.square(x - 3).sum(1)
        >>> result = flows.fit_to_density(0, flows.Normal(trainable=True), log_density, 2, max_epochs=1, verbose=0)
        >>> kernel = blackjax.irmh(lambda x: log_density(x[None])[0], *proposal(result))
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.zeros(2)))
        >>> bool(info.acceptance_rate > 0.5)
        True
    """
    keywords = context_of("proposal", fitted, context)
    named, natural = names_of(fitted)

    def distribution(rng_key: Any) -> Any:
        return natural(Inputs(fitted).drawn(rng_key, 1, keywords)[0])

    def log_density(from_state: Any, to_state: Any) -> Array:
        del from_state  # a draw does not depend on it
        return fitted.log_pdf(fitted.params, one(to_state.position, named), **keywords)[0]

    return Proposal(distribution, log_density)


def preconditioned(log_density: Callable, fitted: FitResult, *, context: Any = None) -> Preconditioned:
    """A density in the noise of a flow that was fitted to it, for any sampler of BlackJAX and its window adaptation.

    For x = f^-1(z), the log-density of z is log p(f^-1(z)) + log|det dx/dz|. With an exact flow this is its base, such as a
    normal, for any p, so a sampler can take long steps. With an inexact flow it is another density, and `to_data` still maps
    draws of it to exact draws of p.

    Args:
        log_density: a function of points (n, *event), or of a dict of arrays (n, *shape) if the parameters have names, that
            returns (n,), in nats, up to a constant. For a function f of one point, give `jax.vmap(f)`.
        fitted: a result whose model is a flow, for example from `flows.fit_to_density`. A flow whose inverse is a single pass,
            such as a coupling flow or `Flow(Invert(MAF()))`, adds little to the cost of the density.
        context: (*context,), for a conditional flow.

    Returns:
        A `Preconditioned`. Start a chain at `to_noise` of a draw of `fitted`.

    Errors:
        FlowsError: the errors of `proposal`; a mixture or an ensemble, which has several bijections; a flow whose noise is not
            on the whole line; a density of a single point, with a shape other than (n,), or NaN at draws of the flow.
            TypeError: not a result, or not a function.

    Source:
        Hoffman et al., "NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport", 2019, arXiv:1903.03704.

    Example:
        >>> import blackjax, flows, jax, jax.numpy as jnp
        >>> from flows.interop.blackjax import preconditioned
        >>> log_density = lambda x: -0.5 * jnp.square((x - 3) / 100).sum(1)
        >>> result = flows.fit_to_density(0, flows.Normal(trainable=True), log_density, 2, max_epochs=1, verbose=0)
        >>> noise = preconditioned(log_density, result)
        >>> kernel = blackjax.nuts(noise.log_density, 0.5, jnp.ones(2))
        >>> state, info = jax.jit(kernel.step)(jax.random.key(1), kernel.init(jnp.zeros(2)))
        >>> noise.to_data(state.position).shape
        (2,)
    """
    if not callable(log_density):
        raise TypeError(f"preconditioned: log_density is {log_density!r:.60}; expected a function of points (n, *event)")
    keywords = context_of("preconditioned", fitted, context)
    event, (named, natural) = as_event(fitted.input_dim), names_of(fitted)
    noise = noise_of_flow("preconditioned", fitted, event, keywords.get("context"))

    def density(x: Array) -> Array:
        return log_density(natural(x))

    check_density("preconditioned", density, fitted, keywords, named)

    def noise_density(z: Array) -> Array:
        z = as_array(z, "z")
        if z.shape != noise.event:
            raise FlowsError(
                f"preconditioned: log_density takes one position of shape {noise.event}, and z has shape {z.shape}; take "
                "jax.vmap of it for more than one"
            )
        x, log_det = noise.to_data(z[None])
        return density(x)[0] + log_det[0]

    def to_data(z: Any) -> Any:
        rows, leading = as_rows(z, noise.event, "to_data: z")
        return natural(noise.to_data(rows)[0].reshape(*leading, *event))

    def to_noise(x: Any) -> Array:
        if named is not None and isinstance(x, Mapping):
            x = packed(x, named)
        y, leading = as_rows(x, event, "to_noise: x")
        return noise.of(y).reshape(*leading, *noise.event)

    return Preconditioned(noise_density, to_data, to_noise)
