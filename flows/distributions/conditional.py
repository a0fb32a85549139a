"""Rows with gaps for `AnySubset`, and some of its columns given others. Family: Any columns given any."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditionals.roles import ABSENT, ASKED, GIVEN
from flows.core import (
    Array,
    Cdf,
    DistributionInit,
    DistributionLike,
    FlowsError,
    Given,
    Shape,
    Support,
    Traits,
    as_context,
    boolean,
    check_layers,
    declares,
    distribution,
    distribution_part,
    on_a_line,
    positive_int,
    structure_of,
)
from flows.distributions.any_subset import AnySubset, layout_of


def gaps(x: Any, fill: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows with gaps as `AnySubset` takes them: `x, context = flows.gaps(array)`. NaN means a missing value here.

    Gaps are absent, with a value of their column in their place, and the other values asked: `fit` and `log_pdf` take the rows
    by what is there. With `fill=True` gaps are asked and the other values given, so that `sample` fills them.

    Args:
        x: (rows, d), numbers; NaN where a value is missing.
        fill: whether gaps are asked.

    Returns:
        Rows without NaN, (rows, d), and their context, (rows, 2, d): given values, and roles.

    Errors:
        FlowsError: x is not a table of numbers, or has an infinite value.

    Example:
        >>> import flows, numpy as np
        >>> x, context = flows.gaps(np.array([[1.0, np.nan], [3.0, 4.0]]))
        >>> x.tolist(), context[0, 1].tolist()
        ([[1.0, 4.0], [3.0, 4.0]], [0.0, 2.0])
    """
    x, fill = _numbers(x), boolean(fill, "gaps: fill")
    missing = np.isnan(x)
    if np.isinf(x).any():
        raise FlowsError("gaps: x has infinite values; expected finite numbers, and NaN where a value is missing")
    there = np.where(missing.all(0), 0, x)
    whole = np.where(missing, np.nanquantile(there, 0.5, axis=0, method="lower"), x).astype(x.dtype)
    role = np.where(missing, *((ASKED, GIVEN) if fill else (ABSENT, ASKED))).astype(x.dtype)
    return whole, np.stack([np.where(role == GIVEN, x, 0), role], 1)


def given_of(values: np.ndarray) -> np.ndarray:
    """Return values, (rows, g), NaN where one is missing, as the context of a `Conditional`, (rows, 2, g)."""
    missing = np.isnan(values)
    return np.stack([np.where(missing, 0, values), np.where(missing, ABSENT, GIVEN)], 1)


def _numbers(x: Any) -> np.ndarray:
    try:
        if hasattr(x, "columns") and hasattr(x, "to_numpy"):  # gaps of pandas may be objects
            x = np.asarray(x.to_numpy(dtype=float, na_value=np.nan) if hasattr(x, "iloc") else x.to_numpy())
        array = np.ma.filled(x.astype(float), np.nan) if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
        if array.dtype.kind not in "biufO":
            raise TypeError
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError):
        raise FlowsError(f"gaps: x is {on_a_line(x)}; expected a table of numbers") from None
    if array.ndim != 2 or not array.size:
        raise FlowsError(f"gaps: x has shape {array.shape}; expected (rows, columns)")
    return array


def _support(model: Any, d: int, asked: tuple[int, ...], given: tuple[int, ...]) -> Support:
    def region(event: Shape) -> Any:
        whole = distribution_part(model, (d,), (2, d)).region
        return Support().inputs if whole is None else whole.of(np.asarray(asked))

    return Support(region, region)


def _cdf(arguments: dict[str, Any], context: Shape | None) -> Cdf | None:
    """The distribution function of one column of numbers, by the map of an `AnySubset`."""
    model, d, asked, known = arguments.values()
    if getattr(model, "constructor", None) is not AnySubset:
        return None
    layout = layout_of(**model.arguments, event=(d,))
    group, place = layout.groups[layout.group_of[asked[0]]][0], layout.place_of[asked[0]]
    if not hasattr(group, "tail"):
        return None

    def ask(function: Callable, params: Any, x: Array, context: Any, upper: Array) -> Array:
        values, _, there, penalty = layout.roles(params, *_whole(x[:, None], context, d, asked, known))
        c, theta = layout.column(params, values, there, int(layout.group_of[asked[0]]), place)
        return jnp.where(jnp.isnan(penalty), jnp.nan, function(c, theta, x[None], upper[None])[0])

    region = _support(model, d, asked, known).inputs((1,))
    return Cdf(partial(ask, group.tail), partial(ask, group.quantile), (float(region.low[0]), float(region.high[0])))


@distribution(batched=True, support=_support, traits=Traits(prepares=True, joins=True), cdf=_cdf)
def Conditional(model: DistributionLike, d: int, asked: Sequence[int], given: Sequence[int] = ()):
    """Some columns given others: log p(x_A | x_B) of a model that takes roles, such as `AnySubset`, in nats.

    The event has the columns A, the context the columns B, or (2, len(given)): the values, and 1 where one is given or 2 where
    it is absent; without a context all are absent. Params are the model's, so that a fitted model answers every question.

    Args:
        model: a distribution of d columns whose context is (2, d): given values, and roles.
        d: how many columns the model has.
        asked, given: places of the columns, in the order of the event and of the context.

    Errors:
        FlowsError: a place that is not a column, or is there twice; an event or a context of other sizes.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> model = flows.AnySubset(hidden=(8,))
        >>> params = model(0, 3).params
        >>> _, log_pdf, sample = flows.Conditional(model, 3, asked=[2], given=[0, 1])(0, 1, context_dim=2)
        >>> log_pdf(params, jnp.zeros((4, 1)), context=jnp.ones(2)).shape, sample(1, params, 5, context=jnp.ones(2)).shape
        ((4,), (5, 1))
    """
    check_layers("Conditional", (model,), DistributionInit, "a distribution")
    if not declares(model, "roles"):
        raise FlowsError(
            f"Conditional: the context of {model!r:.80} is not roles of columns; expected a model such as AnySubset"
        )
    d, several = positive_int(d, "Conditional: d"), isinstance(asked, tuple) and isinstance(given, tuple)
    places = (*asked, *given) if several else ()
    whole = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < d for i in places)
    if not (several and asked and whole) or len(set(places)) < len(places):
        raise FlowsError(
            f"Conditional: asked is {asked}, and given is {given}; expected different places from 0 to {d - 1}, and one asked"
        )

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None):
        context, g = as_context(context_dim), len(given)
        if shape != (len(asked),) or context not in (None, (g,), (2, g)):
            raise FlowsError(
                f"Conditional: the event is {shape}, the context {context}; expected {(len(asked),)}, as {len(asked)} columns "
                f"are asked, and {(g,)} or {(2, g)}, as {g} are given"
            )
        part = distribution_part(model, (d,), (2, d))

        def log_pdf(params, x, context=None, rng=None, train=False):
            return part.log_pdf(params, *_whole(x, context, d, asked, given), rng, train)

        def sample(rng, params, num_samples, context=None):
            dtype = jax.tree.leaves(params)[0].dtype
            roles = _whole(jnp.zeros((num_samples, len(asked)), dtype), context, d, asked, given)[1]
            return part.sample(rng, params, num_samples, dtype, roles)[:, np.asarray(asked)]

        data = Given() if init_inputs is None else Given(*_whole(init_inputs, init_context, d, asked, given))
        return part.init(rng, data), log_pdf, sample

    return init_fun


def _whole(x: Array, context: Any, d: int, asked: Sequence[int], known: Sequence[int]) -> tuple[Array, Array]:
    """Rows of all columns and their roles, from rows of the columns that are asked and their context."""
    n, at = x.shape[0], np.asarray(known, np.int32)
    rows = jnp.zeros((n, d), x.dtype).at[:, np.asarray(asked)].set(x)
    role = jnp.full((n, d), ABSENT, x.dtype).at[:, np.asarray(asked)].set(ASKED)
    values = jnp.zeros((n, d), x.dtype)
    if context is not None:
        entries, given_or_not = (context, GIVEN) if context.ndim == 2 else (context[:, 0], context[:, 1])
        values, role = values.at[:, at].set(entries), role.at[:, at].set(given_or_not)
    return rows, jnp.stack([values, role], 1)


def expectation_of(model: Any, d: int) -> tuple[Callable, Shape, Callable]:
    """Return a function of params and contexts, (rows, 2, d), of what is expected of each column given what is known, the size
    of its rows, and `Layout.likeliest`, which turns its values into rows. A mixture has the means of its components."""
    first = model
    while structure_of(first).of_components:
        first = first.arguments["components"][0]
    layout = layout_of(**first.arguments, event=(d,))
    return partial(_expected, model, d), (sum(layout.widths) + layout.width,), layout.likeliest


def _expected(model: Any, d: int, params: Any, context: Array) -> Array:
    if not structure_of(model).of_components:
        return layout_of(**model.arguments, event=(d,)).expected(params, context)
    components, of_components = model.arguments["components"], params["components"]
    if model.arguments.get("num_components"):
        means = jax.vmap(partial(_expected, components[0], d), (0, None))(of_components, context)
    else:
        means = jnp.stack([_expected(one, d, p, context) for one, p in zip(components, of_components, strict=True)])
    return jnp.tensordot(jax.nn.softmax({**params, **params.get("fixed", {})}["logits"]), means, 1)


def asked_of(model: Any, d: int, asked: Sequence[int], known: Sequence[int]) -> Any:
    """Return `Conditional` of a model, or of a mixture's components: the mean density of their answers."""
    if not structure_of(model).of_components:
        return Conditional(model, d, asked, known)
    components, others = model.arguments["components"], {**model.arguments}
    del others["components"]
    return model.constructor(*(asked_of(component, d, asked, known) for component in components), **others)
