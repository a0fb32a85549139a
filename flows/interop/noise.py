"""Results for samplers: what they refuse, their noise, and a density that is asked at their draws."""

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
    Distribution,
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
from flows.interop.models import as_rows, model_of_result
from flows.results.columns import Inputs
from flows.results.density import Parameters
from flows.results.result import FitResult

CHECKED = 16  # draws of the flow at which a density is checked before a sampler gets it
SAME = 1e-3  # relative change of the log-density of a point that other points of the call may make


def context_of(caller: str, fitted: Any, context: Any) -> dict[str, Any]:
    """Return the context of a chain as a keyword; refuse a result whose draws cannot be positions."""
    model = model_of_result(fitted, caller)
    region, shape = model.known.part.region, model.context
    if region is not None and np.any(region.discrete):
        raise FlowsError(
            f"{caller}: {model.init_fun!r:.80} draws {region.words.noun}, and positions are numbers; fit a flow to the numbers "
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


class Noise(NamedTuple):
    """The noise of a flow: pairs of the direct and the inverse function of rows for its bijections, and bijections of flows in
    its base, from data to noise; the base as `(params, log_pdf, sample)`, and its event."""

    stages: list[tuple[Callable, Callable]]
    base: Distribution
    event: Shape

    def of(self, x: Array) -> Array:
        """Return rows of data as rows of noise."""
        for direct, _ in self.stages:
            x, _ = direct(x)
        return x

    def to_data(self, z: Array) -> tuple[Array, Array]:
        """Return rows of noise as rows of data, and log|det dx/dz|."""
        total: Any = 0.0
        for _, inverse in reversed(self.stages):
            z, log_det = inverse(z)
            total = total + log_det
        return z, total


def noise_of_flow(caller: str, fitted: FitResult, event: Shape, context: Array | None = None) -> Noise:
    """Return the noise of a flow; refuse a model without a single bijection, or whose noise is not on the whole line."""
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
            f"{caller}: {fitted.init_fun!r:.120} is {kind}, and has no single bijection; fit a single flow, such as "
            "flows.Flow(flows.RealNVP()), with folds=1 in flows.fit; or use `proposal`, which takes any result"
        )
    regions = distribution_part(base.value, base.event, base.context).region, regions_of(Serial(*bijections), event)[1]
    for region in filter(None, regions):
        if not region.flat or np.isfinite([region.low, region.high]).any():
            raise FlowsError(
                f"{caller}: the noise of {fitted.init_fun!r:.80} lies in {region!r:.80}, and samplers move on the whole "
                "line; fit a flow whose base is flows.Normal(), with support= for bounds, or use `proposal`"
            )
    base_part = distribution_part(base.value, base.event, base.context)
    return Noise(stages, Distribution(base.params, *functions_of(base_part, base.params)), base.event)


def check_density(
    caller: str, density: Callable, fitted: FitResult, keywords: dict[str, Any], named: Parameters | None
) -> None:
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
            raise FlowsError(f"{caller}: log_density takes a single point; {remedy}")
        if isinstance(result, Exception):
            raise result
        raise FlowsError(f"{caller}: log_density of {n} points returns the shape {result}, expected ({n},); {remedy}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((fitted.params, keywords))):
        return  # there are no numbers to check
    x = fitted.sample(0, fitted.params, CHECKED, **keywords)
    together, alone = np.asarray(density(x)), np.asarray(density(x[:1]))[0]
    bad = np.flatnonzero(np.isnan(together) | (together == np.inf))
    if len(bad):
        raise FlowsError(
            f"{caller}: log_density is {together[bad[0]]} at {np.asarray(x)[bad[0]]!s:.100}, a draw of the flow; "
            "expected finite numbers, or -inf outside of the support. Check it there, or fit a flow with its support="
        )
    if np.isfinite([together[0], alone]).all() and abs(together[0] - alone) > SAME * (1 + abs(alone)):
        raise FlowsError(
            f"{caller}: log_density of a point is {alone:.6g} alone and {together[0]:.6g} with other points, as if "
            f"log_density took a single point, or mixed the points; {remedy}"
        )


def names_of(fitted: FitResult) -> tuple[Parameters | None, Callable]:
    """Return the named parameters of a fit to a density, None without names, and the function from arrays to users' points."""
    named: Parameters | None = getattr(fitted, "named", None)
    return named, (lambda x: x) if named is None else named.natural


def one(position: Any, named: Parameters | None) -> Array:
    """Return one position as a single row."""
    if named is None or not isinstance(position, Mapping):
        return as_array(position, "position")[None]
    return named.packed({name: jnp.asarray(value)[None] for name, value in position.items()}, "position")


def packed(x: Mapping, named: Parameters) -> Array:
    """Return a dict of arrays (..., *shape) as vectors (..., size)."""
    shapes, leading = dict(zip(named.names, named.shapes, strict=True)), set[Shape]()
    rows = dict[str, Array]()
    for name in x.keys() & shapes.keys():
        rows[name], axes = as_rows(x[name], shapes[name], f"to_noise: x[{name!r}]")
        leading.add(axes)
    if len(leading) > 1:
        raise FlowsError(f"to_noise: the arrays of x have the leading axes {sorted(leading)}; expected the same in all")
    return named.packed({**x, **rows}, "to_noise: x").reshape(*leading.pop(), -1)
