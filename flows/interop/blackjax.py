"""A flow as a proposal of BlackJAX, and as what straightens a density for its samplers. Family: BlackJAX.

    kernel = blackjax.irmh(log_density_of_one, *proposal(result))       # proposes draws of the flow
    noise = preconditioned(log_density, result)                         # a density for nuts, window_adaptation, ...

Densities of ours are of points (n, *event); BlackJAX wants those of one position, which is what these functions hand to it.
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
    OF_BLOCKS,
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
from flows.distributions.standardized_context import standardized
from flows.interop import needs
from flows.interop.models import as_rows, model_of_result
from flows.results.columns import Inputs
from flows.results.parameters import Parameters
from flows.results.result import FitResult

needs("blackjax")

__all__ = ["Preconditioned", "Proposal", "preconditioned", "proposal"]

LOOKED_AT = 16  # draws of the flow at which a density is looked at before a sampler is handed it
SAME = 1e-3  # of a log-density: what the points beside a point may change of it


class Proposal(NamedTuple):
    """The two functions of `blackjax.irmh`, in the order of its arguments: `blackjax.irmh(log_density_of_one, *proposal)`.

    Attributes:
        distribution: `distribution(rng_key)` is a position, a draw of the flow.
        log_density: `log_density(from_state, to_state)` is log q of the position of `to_state`, in nats: the flow's draws do
            not depend on where the chain is.
    """

    distribution: Callable[[Any], Any]
    log_density: Callable[[Any, Any], Array]


class Preconditioned(NamedTuple):
    """A density in the noise of a flow, x(z) = f^-1(z), for samplers, and the way there and back.

    Attributes:
        log_density: `log_density(z)` of one position z, of the event of the noise: log p(x(z)) + log|det dx/dz|, in nats.
        to_data: `to_data(z)` is x, of one position or of any leading axes of them, such as (chains, draws): a dict of arrays
            where parameters were named.
        to_noise: `to_noise(x)` is z, of one point or of any leading axes of them.
    """

    log_density: Callable[[Array], Array]
    to_data: Callable[[Any], Any]
    to_noise: Callable[[Any], Array]


def proposal(fitted: FitResult, *, context: Any = None) -> Proposal:
    """A fitted flow q as the proposal of an independent Metropolis-Hastings chain, `blackjax.irmh`.

    A draw x' of q takes the place of x with probability min(1, p(x') q(x) / (p(x) q(x'))), so that the chain is one of p
    whatever q misses by a little: it forgets where it was with every step that is taken. p has to lie where q has mass.

    Args:
        fitted: a result of `flows.fit`, `flows.fit_ensemble`, `flows.fit_to_density` or `flows.load`.
        context: (*context,), of a conditional flow.

    Returns:
        A `Proposal`: `blackjax.irmh(log_density_of_one, *proposal(fitted))`. Positions are those of one point: an array of the
        event, or a dict of arrays where parameters were named.

    Errors:
        FlowsError: a model whose `likelihood` is a 'lower bound', of codes, or of plain closures; a context that is missing or
            has another shape. TypeError: no result.

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
    given = _context("proposal", fitted, context)
    named, natural = _names(fitted)

    def distribution(rng_key: Any) -> Any:
        return natural(Inputs(fitted).drawn(rng_key, 1, given)[0])

    def log_density(from_state: Any, to_state: Any) -> Array:
        del from_state  # a draw does not depend on it
        return fitted.log_pdf(fitted.params, _one(to_state.position, named), **given)[0]

    return Proposal(distribution, log_density)


def preconditioned(log_density: Callable, fitted: FitResult, *, context: Any = None) -> Preconditioned:
    """A density as one of the noise of a flow that was fitted to it, for any sampler of BlackJAX, and its window adaptation.

    Where x = f^-1(z) the density of z is log p(f^-1(z)) + log|det dx/dz|. If the flow were exact this would be its base, a
    normal say, whatever p looks like: a sampler takes long steps where it had to creep. Draws `to_data(z)` are those of p for
    any flow.

    Args:
        log_density: of points (n, *event) it gives (n,), in nats, up to a constant; where parameters were named it is handed a
            dict of arrays (n, *shape). For one point: `jax.vmap(f)`.
        fitted: a result whose model is a flow, of `flows.fit_to_density`, say. One whose inverse is a single pass, such as a
            coupling flow or `Flow(Invert(MAF()))`, costs little beside the density.
        context: (*context,), of a conditional flow.

    Returns:
        A `Preconditioned`. Start a chain at `to_noise` of a draw of `fitted`.

    Errors:
        FlowsError: as of `proposal`; a mixture or an ensemble, which has no one bijection; a flow whose noise is not of the
            whole line; a density of a single point, of another shape than (n,), or NaN where the flow draws. TypeError: no
            result, or no function.

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
    given = _context("preconditioned", fitted, context)
    event, (named, natural) = as_event(fitted.input_dim), _names(fitted)
    stages, noise_event = _functions(fitted, event, given.get("context"))

    def of_rows(x: Array) -> Array:
        return log_density(natural(x))

    _check_density(of_rows, fitted, given, named)

    def of_noise(z: Array) -> Array:
        z = as_array(z, "z")
        if z.shape != noise_event:
            raise FlowsError(
                f"preconditioned: log_density is of one position {noise_event}, and was given {z.shape}; take jax.vmap of it "
                "for more than one"
            )
        x, log_det = _inverted(stages, z[None])
        return of_rows(x)[0] + log_det[0]

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

    return Preconditioned(of_noise, to_data, to_noise)


def _context(caller: str, fitted: Any, context: Any) -> dict[str, Any]:
    """The context of a chain as a keyword; a result whose draws cannot be positions is refused."""
    model = model_of_result(fitted, caller)
    region, shape = model.known.part.region, model.context
    if region is not None and np.any(region.classes):
        raise FlowsError(
            f"{caller}: {model.init_fun!r:.80} draws codes of categories, and positions are numbers; fit a flow to the numbers "
            "alone, given the codes as its context: flows.one_hot"
        )
    given = Inputs(fitted).context(context)
    if shape is not None and not given:
        raise FlowsError(f"{caller}: context is missing; this is a conditional flow, give context= of the shape {shape}")
    if given and given["context"].shape != shape:
        raise FlowsError(
            f"{caller}: context has shape {given['context'].shape}, expected {shape}: a chain is of one context. For others "
            "take jax.vmap of the function that runs it"
        )
    return given


def _functions(fitted: FitResult, event: Shape, context: Array | None) -> tuple[list[tuple[Callable, Callable]], Shape]:
    """The functions and inverses of rows by the bijections of a flow, and of flows that are its base, from data to noise; the
    event of the noise."""
    *way, base = leading(fitted.init_fun, fitted.params, event, as_context(fitted.context_dim))
    stages, bijections = list[tuple[Callable, Callable]](), [stage.value for stage in way if stage.kind == "bijection"]
    for stage in way:
        if stage.kind == "bijection":
            part = bijection_part(stage.value, stage.event, stage.context)
            given = {} if context is None else {"context": context}
            direct, inverse = (partial(function, stage.params, **given) for function in functions_of(part, stage.params))
            stages.append((direct, inverse))
        elif context is not None:
            context = standardized(stage.params, context)
    if not stages or has_bijection(base.value):
        order = structure_of(base.value).order
        kind = {"mixture": "a mixture", **dict.fromkeys(OF_BLOCKS, "several blocks")}.get(order, "no flow")
        raise FlowsError(
            f"preconditioned: {fitted.init_fun!r:.120} is {kind}, and has no one bijection; fit a single flow, such as "
            "flows.Flow(flows.RealNVP()), with folds=1 in flows.fit; or use `proposal`, which takes any result"
        )
    regions = distribution_part(base.value, base.event, base.context).region, regions_of(Serial(*bijections), event)[1]
    for region in filter(None, regions):
        if not region.flat or np.isfinite([region.low, region.high]).any():
            raise FlowsError(
                f"preconditioned: the noise of {fitted.init_fun!r:.80} lives in {region!r:.80}, and samplers move on the whole "
                "line; fit a flow on flows.Normal(), with support= for bounds, or use `proposal`"
            )
    return stages, base.event


def _check_density(of_rows: Callable, fitted: FitResult, given: dict[str, Any], named: Parameters | None) -> None:
    """Refuse a density of a single point, of another shape, and one that is NaN where the flow draws."""
    event, dtype = as_event(fitted.input_dim), jnp.zeros(()).dtype
    n = max(event, default=0) + 2  # unlike any axis of a point
    points = "(n, *event)" if named is None else "a dict of arrays (n, *shape)"
    remedy = f"expected one of points, {points}, that returns (n,): give jax.vmap(log_density)"

    def shape_of(*shape: int) -> Any:
        """The shape of the density of points of a shape, or the error that it raises."""
        try:
            return getattr(jax.eval_shape(of_rows, jax.ShapeDtypeStruct(shape, dtype)), "shape", None)
        except Exception as error:
            return error

    result = shape_of(n, *event)
    if result != (n,):
        if shape_of(*event) == ():
            raise FlowsError(f"preconditioned: log_density is of a single point; {remedy}")
        if isinstance(result, Exception):
            raise result
        raise FlowsError(f"preconditioned: log_density of {n} points returns the shape {result}, expected ({n},); {remedy}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((fitted.params, given))):
        return  # there are no numbers to look at
    x = fitted.sample(0, fitted.params, LOOKED_AT, **given)
    together, alone = np.asarray(of_rows(x)), np.asarray(of_rows(x[:1]))[0]
    bad = np.flatnonzero(np.isnan(together) | (together == np.inf))
    if len(bad):
        raise FlowsError(
            f"preconditioned: log_density is {together[bad[0]]} at {np.asarray(x)[bad[0]]!s:.100}, a draw of the flow; "
            "expected numbers, or -inf where there is no mass. Look at it there, or fit a flow with the support= that it has"
        )
    if np.isfinite([together[0], alone]).all() and abs(together[0] - alone) > SAME * (1 + abs(alone)):
        raise FlowsError(
            f"preconditioned: log_density of a point is {alone:.6g} alone and {together[0]:.6g} beside others, as if it were "
            f"one of a single point, or of all together; {remedy}"
        )


def _names(fitted: FitResult) -> tuple[Parameters | None, Callable]:
    """The names of parameters, of a fit to a density that had some, and the function from arrays to what users are handed."""
    named: Parameters | None = getattr(fitted, "named", None)
    return named, (lambda x: x) if named is None else named.natural


def _one(position: Any, named: Parameters | None) -> Array:
    """One position as rows of one."""
    if named is None or not isinstance(position, Mapping):
        return as_array(position, "position")[None]
    return named.packed({name: jnp.asarray(value)[None] for name, value in position.items()}, "position")


def _packed(x: Mapping, named: Parameters) -> Array:
    """A dict of arrays (..., *shape) as vectors (..., size)."""
    shapes, leading = dict(zip(named.names, named.shapes, strict=True)), set[Shape]()
    rows = dict[str, Array]()
    for name in x.keys() & shapes.keys():
        rows[name], axes = as_rows(x[name], shapes[name], f"to_noise: x[{name!r}]")
        leading.add(axes)
    if len(leading) > 1:
        raise FlowsError(f"to_noise: the arrays of x have the leading axes {sorted(leading)}; expected the same in all")
    return named.packed({**x, **rows}, "to_noise: x").reshape(*leading.pop(), -1)


def _inverted(stages: list[tuple[Callable, Callable]], z: Array) -> tuple[Array, Array]:
    """Rows of noise as rows of data, and log|det dx/dz|."""
    total: Any = 0.0
    for _, inverse in reversed(stages):
        z, log_det = inverse(z)
        total = total + log_det
    return z, total
