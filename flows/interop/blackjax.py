"""A flow as a proposal for BlackJAX, and a density in the noise of a flow for its samplers. Family: BlackJAX.

    kernel = blackjax.irmh(log_density_of_one, *proposal(result))       # proposes draws of the flow
    noise = preconditioned(log_density, result)                         # a density for nuts, window_adaptation, ...

Densities in this library take points (n, *event). BlackJAX needs densities of one position, and these functions make them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.composition import regions_of
from flows.compose import Serial
from flows.core import (
    Array,
    FlowsError,
    Shape,
    as_array,
    as_context,
    as_event,
    bijection_part,
    distribution_part,
    functions_of,
    has_bijection,
    leading,
    structure_of,
)
from flows.interop import needs
from flows.interop.models import as_rows, model_of_result
from flows.results.columns import Inputs
from flows.results.density import Parameters
from flows.results.result import FitResult

needs("blackjax")

__all__ = ["Preconditioned", "Proposal", "preconditioned", "proposal"]

CHECKED = 16  # draws of the flow at which a density is checked before a sampler gets it
SAME = 1e-3  # relative change of the log-density of a point that other points of the call may make


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
    keywords = _context("proposal", fitted, context)
    named, natural = _names(fitted)

    def distribution(rng_key: Any) -> Any:
        return natural(Inputs(fitted).drawn(rng_key, 1, keywords)[0])

    def log_density(from_state: Any, to_state: Any) -> Array:
        del from_state  # a draw does not depend on it
        return fitted.log_pdf(fitted.params, _one(to_state.position, named), **keywords)[0]

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
    keywords = _context("preconditioned", fitted, context)
    event, (named, natural) = as_event(fitted.input_dim), _names(fitted)
    stages, noise_event = _functions(fitted, event, keywords.get("context"))

    def density(x: Array) -> Array:
        return log_density(natural(x))

    _check_density(density, fitted, keywords, named)

    def noise_density(z: Array) -> Array:
        z = as_array(z, "z")
        if z.shape != noise_event:
            raise FlowsError(
                f"preconditioned: log_density takes one position of shape {noise_event}, and z has shape {z.shape}; take "
                "jax.vmap of it for more than one"
            )
        x, log_det = _inverted(stages, z[None])
        return density(x)[0] + log_det[0]

    def to_data(z: Any) -> Any:
        rows, leading = as_rows(z, noise_event, "to_data: z")
        return natural(_inverted(stages, rows)[0].reshape(*leading, *event))

    def to_noise(x: Any) -> Array:
        if named is not None and isinstance(x, Mapping):
            x = _packed(x, named)
        y, leading = as_rows(x, event, "to_noise: x")
        for direct, _ in stages:
            y, _ = direct(y)
        return y.reshape(*leading, *noise_event)

    return Preconditioned(noise_density, to_data, to_noise)


def _context(caller: str, fitted: Any, context: Any) -> dict[str, Any]:
    """Return the context of a chain as a keyword; refuse a result whose draws cannot be positions."""
    model = model_of_result(fitted, caller)
    region, shape = model.known.part.region, model.context
    if region is not None and np.any(region.classes):
        raise FlowsError(
            f"{caller}: {model.init_fun!r:.80} draws codes of categories, and positions are numbers; fit a flow to the numbers "
            "alone, with the codes as its context: flows.one_hot"
        )
    keywords = Inputs(fitted).context(context)
    if shape is not None and not keywords:
        raise FlowsError(f"{caller}: context is missing; this is a conditional flow: give context= of shape {shape}")
    if keywords and keywords["context"].shape != shape:
        raise FlowsError(
            f"{caller}: context has shape {keywords['context'].shape}, expected {shape}: a chain has one context. For "
            "several, take jax.vmap of the function that runs it"
        )
    return keywords


def _functions(fitted: FitResult, event: Shape, context: Array | None) -> tuple[list[tuple[Callable, Callable]], Shape]:
    """Return pairs of the direct and the inverse function of rows for the bijections of a flow and of flows in its base, from
    data to noise; and the event of the noise."""
    *way, base = leading(fitted.init_fun, fitted.params, event, as_context(fitted.context_dim))
    stages, bijections = list[tuple[Callable, Callable]](), [stage.value for stage in way if stage.kind == "bijection"]
    for stage in way:
        if stage.kind == "bijection":
            part = bijection_part(stage.value, stage.event, stage.context)
            keywords = {} if context is None else {"context": context}
            direct, inverse = (partial(function, stage.params, **keywords) for function in functions_of(part, stage.params))
            stages.append((direct, inverse))
        elif context is not None:
            context = stage.part.embed(stage.params, context[None])[0]
    if not stages or has_bijection(base.value):
        structure = structure_of(base.value)
        kind = "a mixture" if structure.of_components else "several blocks" if structure.of_blocks else "not a flow"
        raise FlowsError(
            f"preconditioned: {fitted.init_fun!r:.120} is {kind}, and has no single bijection; fit a single flow, such as "
            "flows.Flow(flows.RealNVP()), with folds=1 in flows.fit; or use `proposal`, which takes any result"
        )
    regions = distribution_part(base.value, base.event, base.context).region, regions_of(Serial(*bijections), event)[1]
    for region in filter(None, regions):
        if not region.flat or np.isfinite([region.low, region.high]).any():
            raise FlowsError(
                f"preconditioned: the noise of {fitted.init_fun!r:.80} lies in {region!r:.80}, and samplers move on the whole "
                "line; fit a flow whose base is flows.Normal(), with support= for bounds, or use `proposal`"
            )
    return stages, base.event


def _check_density(density: Callable, fitted: FitResult, keywords: dict[str, Any], named: Parameters | None) -> None:
    """Refuse a density of a single point, a density with another shape, and a density that is NaN at draws of the flow."""
    event, dtype = as_event(fitted.input_dim), jnp.zeros(()).dtype
    n = max(event, default=0) + 2  # differs from every axis of a point
    points = "(n, *event)" if named is None else "a dict of arrays (n, *shape)"
    remedy = f"expected a function of points, {points}, that returns (n,): give jax.vmap(log_density)"

    def shape_of(*shape: int) -> Any:
        """Return the shape of the density for points of a shape, or the error that it raises."""
        try:
            return getattr(jax.eval_shape(lambda x: density(x), jax.ShapeDtypeStruct(shape, dtype)), "shape", None)
        except Exception as error:
            return error

    result = shape_of(n, *event)
    if result != (n,):
        if shape_of(*event) == ():
            raise FlowsError(f"preconditioned: log_density takes a single point; {remedy}")
        if isinstance(result, Exception):
            raise result
        raise FlowsError(f"preconditioned: log_density of {n} points returns the shape {result}, expected ({n},); {remedy}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((fitted.params, keywords))):
        return  # there are no numbers to check
    x = fitted.sample(0, fitted.params, CHECKED, **keywords)
    together, alone = np.asarray(density(x)), np.asarray(density(x[:1]))[0]
    bad = np.flatnonzero(np.isnan(together) | (together == np.inf))
    if len(bad):
        raise FlowsError(
            f"preconditioned: log_density is {together[bad[0]]} at {np.asarray(x)[bad[0]]!s:.100}, a draw of the flow; "
            "expected finite numbers, or -inf outside of the support. Check it there, or fit a flow with its support="
        )
    if np.isfinite([together[0], alone]).all() and abs(together[0] - alone) > SAME * (1 + abs(alone)):
        raise FlowsError(
            f"preconditioned: log_density of a point is {alone:.6g} alone and {together[0]:.6g} with other points, as if "
            f"log_density took a single point, or mixed the points; {remedy}"
        )


def _names(fitted: FitResult) -> tuple[Parameters | None, Callable]:
    """Return the named parameters of a fit to a density, None without names, and the function from arrays to users' points."""
    named: Parameters | None = getattr(fitted, "named", None)
    return named, (lambda x: x) if named is None else named.natural


def _one(position: Any, named: Parameters | None) -> Array:
    """Return one position as a single row."""
    if named is None or not isinstance(position, Mapping):
        return as_array(position, "position")[None]
    return named.packed({name: jnp.asarray(value)[None] for name, value in position.items()}, "position")


def _packed(x: Mapping, named: Parameters) -> Array:
    """Return a dict of arrays (..., *shape) as vectors (..., size)."""
    shapes, leading = dict(zip(named.names, named.shapes, strict=True)), set[Shape]()
    rows = dict[str, Array]()
    for name in x.keys() & shapes.keys():
        rows[name], axes = as_rows(x[name], shapes[name], f"to_noise: x[{name!r}]")
        leading.add(axes)
    if len(leading) > 1:
        raise FlowsError(f"to_noise: the arrays of x have the leading axes {sorted(leading)}; expected the same in all")
    return named.packed({**x, **rows}, "to_noise: x").reshape(*leading.pop(), -1)


def _inverted(stages: list[tuple[Callable, Callable]], z: Array) -> tuple[Array, Array]:
    """Return rows of noise as rows of data, and log|det dx/dz|."""
    total: Any = 0.0
    for _, inverse in reversed(stages):
        z, log_det = inverse(z)
        total = total + log_det
    return z, total
