"""A fitted distribution as checks see it: log-densities and draws, of a result or a triple, and what a page says of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import FlowsError, ModelValue, Region, Shape, as_event, joint_draw_of, on_device, part_of, size, stages
from flows.diagnostics.arrays import is_real
from flows.distributions.draws import functions
from flows.results import FitResult
from flows.results.columns import Arrays, Column, Columns, Inputs, columns_of
from flows.results.frames import numbers_of
from flows.results.pieces import by_pieces


class About(NamedTuple):
    """A fitted distribution in its words and its history.

    Attributes:
        lines: what `repr` of its result prints.
        code: the model as code.
        history: its `History`, if there is one.
        metadata: the dict of its file.
    """

    lines: str
    code: str
    history: Any
    metadata: dict[str, Any]


class Axis(NamedTuple):
    """A column as people read it: its name and ends in their units, and the function from numbers of the model to these."""

    column: Column
    in_units: Callable[[np.ndarray], np.ndarray] = np.asarray


@dataclass(frozen=True, eq=False)
class Model:
    """Log-densities and draws of a fitted distribution, with what checks know of it.

    Attributes:
        log_pdf, params: of its triple.
        columns: columns of flat rows.
        event, context_shape: shapes of a row and of its context; None without a context.
        region: where points live, as far as it is known.
        likelihood: 'exact', 'unbiased' or 'lower bound'.
        read: `read(data, context, name) -> (rows, contexts)`, (rows, *event) and None, (*context,) or (rows, *context).
        draw: `draw(key, n, contexts) -> (n, *event)`; of k contexts the first has the first n / k draws, and so on.
        result: the result that verifies rows and has scores of rows held out, if there is one.
        init_fun: the constructor's value, whose structure is known; None for a triple, and for plain closures.
        embeds: whether a network makes features of contexts, which are then not to be copied.
        about: what the result says of itself; None for a triple.
        axes: the columns in the units of a table; () where rows have the units of `columns`.
    """

    log_pdf: Callable
    params: Any
    columns: list[Column]
    event: Shape
    context_shape: Shape | None
    region: Region | None
    likelihood: str
    read: Callable[[Any, Any, str], tuple[np.ndarray, np.ndarray | None]]
    draw: Callable[[Any, int, np.ndarray | None], np.ndarray]
    result: FitResult | None = None
    init_fun: Any = None
    embeds: bool = False
    about: About | None = None
    axes: tuple[Axis, ...] = ()

    def batched(self, contexts: Any) -> bool:
        """Return whether there is a context for each row, and not one for all, or None."""
        return contexts is not None and contexts.ndim > len(self.context_shape or ())

    def row_contexts(self, contexts: Any, rows: int) -> Any:
        """Return a context for each row, (rows, *context), or None."""
        return None if contexts is None else np.broadcast_to(contexts, (rows, *(self.context_shape or ())))

    def log_p(self, rows: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
        """Return log p of each row, (rows,), in float64, by pieces that fit memory. Of k contexts the first is of the first
        rows / k rows, and so on."""
        per_context = len(rows) // len(contexts) if contexts is not None and self.batched(contexts) else 0
        if contexts is not None and per_context > 1 and self.embeds:
            groups = rows.reshape(len(contexts), per_context, *rows.shape[1:])
            log_pdf = jax.jit(jax.vmap(lambda x, c: self.log_pdf(self.params, x, context=c), out_axes=1))
            together = max(2**23 // max(size(groups.shape[1:]), size(contexts.shape[1:])), 1)
            sizes = (min(together, len(groups)),)
            log_p = by_pieces(lambda x, c: log_pdf(on_device(x), on_device(c)), groups, contexts, sizes=sizes)
            return log_p.T.astype(np.float64).ravel()

        def piece(x: np.ndarray, which: np.ndarray | None) -> np.ndarray:
            keywords = {} if contexts is None else {"context": on_device(contexts if which is None else contexts[which])}
            return _returned(self.log_pdf(self.params, on_device(x), **keywords), (len(x),), "log_pdf")

        return by_pieces(piece, rows, np.arange(len(rows)) // per_context if per_context else None).astype(np.float64)

    def features(self, contexts: np.ndarray) -> np.ndarray | None:
        """Return features that networks make of contexts, (rows, features), in the first of a mixture; None without them."""
        if not self.embeds or self.init_fun is None:
            return None
        way = next(iter(stages(self.init_fun, self.params, self.event, self.context_shape)))
        steps = [stage for stage in takewhile(lambda stage: stage.kind != "block", way) if stage.kind == "context"]

        def embedded(params: list[Any], context: Any) -> Any:
            for stage, stage_params in zip(steps, params, strict=True):
                context = stage.part.embed(stage_params, context)
            return context.reshape(len(context), -1).T

        program, params = jax.jit(embedded), [stage.params for stage in steps]
        return by_pieces(lambda piece: program(params, on_device(piece)), contexts).T


def model_of(fitted: Any, data: Any, context: Any) -> Model:
    """Return the model of a result, of a triple, or of an object that makes it, such as the result of a table."""
    if hasattr(fitted, "__flows_check__"):
        return fitted.__flows_check__()
    return result_model(fitted) if isinstance(fitted, FitResult) else _triple_model(fitted, data, context)


def result_model(result: FitResult) -> Model:
    """Return the model of a result of `fit`, `fit_to_density`, or a file."""
    inputs, event = Inputs(result), as_event(result.input_dim)
    names = _names(inputs.columns, event)

    def read(data: Any, context: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        rows = np.asarray(inputs.on_turn(_checked(numbers_of(inputs.rows(data), name), event, name, names)))
        keywords = inputs.context(context)
        inputs.row_contexts(keywords, len(rows))  # refuses a context of another shape, and one that is missing
        return rows, _checked_context(np.asarray(keywords["context"]), name) if keywords else None

    def draw(key: Any, n: int, contexts: np.ndarray | None) -> np.ndarray:
        if contexts is None or not inputs.batched({"context": contexts}):
            return np.asarray(inputs.drawn(key, n, {} if contexts is None else {"context": on_device(contexts)}))
        return np.asarray(inputs.drawn_for(key, n // len(contexts), on_device(contexts))).reshape(n, *event)

    init_fun, columns = result.init_fun, columns_of(names, inputs.region)
    known = isinstance(init_fun, ModelValue) and not part_of(init_fun, event, inputs.context_shape).closures
    return Model(
        result.log_pdf, result.params, columns, event, inputs.context_shape, inputs.region,
        getattr(init_fun, "likelihood", "exact"), read, draw, result, init_fun if known else None, inputs.embeds,
        About(repr(result), repr(init_fun), result.history, result.metadata or {}),
    )  # fmt: skip


def _triple_model(fitted: Any, data: Any, context: Any) -> Model:
    """Return the model of `(params, log_pdf, sample)`, whose event is the event of the data."""
    log_pdf, sample = functions("check", fitted)
    event, params, joint = numbers_of(data, "data").shape[1:], fitted[0], joint_draw_of(sample)
    shape = None if context is None else _checked_context(numbers_of(context, "context"), "data").shape
    shape = shape if shape is None or len(shape) == 1 else shape[1:]
    names = _names(Arrays(), event)

    def read(data: Any, context: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        rows = _checked(numbers_of(data, name), event, name, names)
        contexts = None if context is None else _checked_context(numbers_of(context, "context"), name)
        batched = contexts is not None and contexts.shape == (len(rows), *(shape or ()))
        if contexts is not None and not batched and (contexts.shape != shape or shape == (len(rows),)):
            hint = "; for one number in each row give (rows, 1)" if contexts.shape == (len(rows),) else ""
            raise FlowsError(
                f"context has shape {contexts.shape}; expected a row for each of {len(rows)} rows, or one for all{hint}"
            )
        return rows, contexts

    def draw(key: Any, n: int, contexts: np.ndarray | None) -> np.ndarray:
        if contexts is not None and contexts.ndim > len(shape or ()):
            contexts = np.repeat(contexts, n // len(contexts), 0)
        drawn = sample(key, params, n, **({} if contexts is None else {"context": on_device(contexts)}))
        return _returned(drawn, (n, *event), "sample")

    region, likelihood = (None, "exact") if joint is None else (joint.region, joint.likelihood)
    return Model(log_pdf, params, columns_of(names, region), event, shape, region, likelihood, read, draw)


def _returned(value: Any, shape: Shape, name: str) -> np.ndarray:
    """Return the output of a function of a triple, which a user may have written, as numbers that NumPy knows."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"check: {name} returned something that is not an array ({error}); expected {shape} numbers") from None
    if array.shape != shape:
        raise FlowsError(f"check: {name} returned shape {array.shape}; expected {shape}, with the event of the data")
    if not is_real(array.dtype):
        raise TypeError(f"check: {name} returned dtype {array.dtype}; expected real numbers")
    return _widened(array) if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(np.float64)


def _widened(array: np.ndarray) -> np.ndarray:
    """Return numbers of dtypes that NumPy lacks, such as bfloat16, in float32."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _names(columns: Columns, event: Shape) -> tuple[str, ...]:
    return columns.entries(*event) if len(event) == 1 else tuple(map(str, np.ndindex(event)))


def _checked(rows: np.ndarray, event: Shape, name: str, names: tuple[str, ...]) -> np.ndarray:
    """Refuse rows of another event, and numbers that are not finite in the precision of the model."""
    if rows.ndim < 2 or rows.shape[1:] != event or not rows.size:
        expected = ", ".join(map(str, event)) if event and 0 not in event else "columns"
        raise FlowsError(f"check: {name} has shape {rows.shape}; expected (rows, {expected})")
    rows = _widened(rows)
    numbers = flat(rows)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(numbers if jax.config.jax_enable_x64 else numbers.astype(np.float32))  # type: ignore[attr-defined]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise FlowsError(
            f"check: {name} has {numbers[row, column]} in row {row}, {names[column]}, and {int(bad.any(1).sum()):,} such "
            f"rows{', beyond float32' * bool(np.isfinite(numbers[row, column]))}; drop them, or find out where they are from"
        )
    return rows


def _checked_context(contexts: np.ndarray, name: str) -> np.ndarray:
    """Refuse contexts with numbers that are not finite."""
    if not contexts.ndim or not contexts.size:
        got = f"check: context of {name} has shape {contexts.shape}"
        raise FlowsError(f"{got}; expected (rows, columns), or (columns,) for all rows")
    contexts = _widened(contexts)
    bad = ~np.isfinite(contexts)
    if bad.any():
        at = ", ".join(map(str, np.argwhere(bad)[0]))
        got = f"check: context of {name} has {contexts[bad][0]} at [{at}]"
        raise FlowsError(f"{got}; drop that row, or find out where it is from")
    return contexts


def flat(x: Any) -> np.ndarray:
    array = np.asarray(x)
    return array.reshape(len(array), math.prod(array.shape[1:]))  # also without rows
