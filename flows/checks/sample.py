"""A fitted distribution as checks see it: log-densities and draws, from a result or from a triple; and rows next to its draws,
which all checks of a call share, with their columns as numbers that statistics can compare."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    FlowsError,
    ModelValue,
    Region,
    Shape,
    as_event,
    joint_draw_of,
    on_device,
    part_of,
    pieces_of,
    seen,
    size,
    stages,
)
from flows.diagnostics.arrays import chosen, generator, is_real
from flows.distributions.draws import functions
from flows.results import FitResult
from flows.results.columns import Arrays, Column, Columns, Inputs, columns_of
from flows.results.frames import numbers_of
from flows.results.pieces import by_pieces

PER_ROW = 99  # draws for each row of a conditional model
CONDITIONAL = 2_000  # rows with such draws, at most
NUMBERS = 2**25  # in all of these draws
MOST_ENTRIES = 32  # of a context, next to features that a network makes of it
LEAST = 100  # rows, below which no p-value can be believed
COMMON = 20  # rows and draws that have a code, below which it is too rare to be correlated with anything


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


class Sample:
    """Rows and draws of a model, flat, in the dtype of the draws.

    Attributes:
        model: the model that is checked.
        all_rows, all_contexts: all rows of the call, (rows, *event), and None, (*context,) or (rows, *context).
        train: rows that the model was fitted to, with their contexts, flat; or None.
        conditional: whether rows have different contexts.
        classifier: the classifier that separates rows from draws; None for the default.
        columns: the columns of flat rows.
    """

    def __init__(self, model: Model, rows: np.ndarray, contexts: Any, train: Any, classifier: Any, key: Any, samples: int):
        self.conditional = model.batched(contexts)
        if self.conditional and (contexts == contexts[:1]).all():
            contexts, self.conditional = contexts[0], False  # one for all
        self.model, self.all_rows, self.all_contexts, self.train = model, rows, contexts, train
        self.classifier, self.columns = classifier, model.columns
        self.arrays = dict[str, np.ndarray]()  # for pictures
        self._key, self._samples = key, samples

    def key(self, purpose: int) -> Any:
        """Return a key that depends on the purpose alone, so that no check depends on which others run."""
        return jax.random.fold_in(self._key, purpose)

    def random(self, purpose: int) -> np.random.Generator:
        return generator(self.key(purpose))

    @cached_property
    def log_p(self) -> np.ndarray:
        """Log-densities of all rows, (rows,), in nats. A triple draws first: its draws show whether rows have its event."""
        if self.model.result is None:
            _ = self._drawn
        return self.model.log_p(self.all_rows, self.all_contexts)

    @cached_property
    def report(self) -> Any:
        """The `RowReport` of all rows; None without a result."""
        return None if self.model.result is None else self.model.result.verify(self.all_rows, context=self.all_contexts)

    @cached_property
    def places(self) -> np.ndarray:
        """Places of the rows that are compared with draws, in order: at most as many as draws; with a context at most 2,000."""
        return self._chosen[self._finite] if self.conditional else self._chosen

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows at `places`, (rows, columns)."""
        return flat(self.all_rows[self.places]).astype(self._drawn.dtype)

    @cached_property
    def contexts(self) -> Any:
        """Contexts of `rows`, (rows, *context), of a conditional model; otherwise the one for all, or None."""
        return self.contexts_at(self.places)

    def contexts_at(self, places: np.ndarray) -> Any:
        """Return the contexts of rows at these places, or the one for all, or None."""
        return self.all_contexts[places] if self.conditional else self.all_contexts

    @cached_property
    def conditions(self) -> tuple[list[str], np.ndarray]:
        """Names and numbers of the contexts of `rows`, (rows, numbers). Where a network makes features of them, these and
        at most 32 entries at random; else all entries."""
        numbers = flat(self.contexts)
        names = [f"context column {j}" for j in range(numbers.shape[1])]
        if (made := self.model.features(self.contexts)) is None:
            return names, numbers
        varying = np.flatnonzero((numbers != numbers[:1]).any(0))
        some = np.sort(chosen(varying, MOST_ENTRIES, self.random(22)))
        names = [*(f"feature {j} of the context" for j in range(made.shape[1])), *(names[j] for j in some)]
        return names, np.concatenate([made, numbers[:, some]], 1)

    @cached_property
    def draws(self) -> np.ndarray:
        """Finite draws, (draws, columns), or of a conditional model (rows, 99, columns)."""
        return self._drawn[self._finite]

    @cached_property
    def off(self) -> float:
        """The share of draws that are not finite; of a conditional model, the share of rows with such a draw."""
        return 1 - float(self._finite.mean())

    @cached_property
    def draws_log_p(self) -> np.ndarray:
        """Log-densities of draws, (draws,), or (rows, 99)."""
        log_p = self.model.log_p(self.draws.reshape(-1, *self.model.event), self.contexts)
        return log_p.reshape(self.draws.shape[:-1])

    @cached_property
    def ones(self) -> np.ndarray:
        """One draw for each row of a conditional model; otherwise all draws."""
        return self.draws[:, 0] if self.conditional else self.draws

    @cached_property
    def numbers(self) -> tuple[list[str], list[np.ndarray]]:
        """Names of features, and these features of `rows` and of `ones`."""
        return features(self.columns, self.rows, self.ones)

    @cached_property
    def _chosen(self) -> np.ndarray:
        total, most = len(self.all_rows), self._samples
        if self.conditional:
            most = min(CONDITIONAL, max(NUMBERS // (PER_ROW * len(self.columns)), 1))
        return np.arange(total) if total <= most else np.sort(self.random(0).choice(total, most, replace=False))

    @cached_property
    def _finite(self) -> np.ndarray:
        return np.isfinite(self._drawn).reshape(len(self._drawn), -1).all(1)

    @cached_property
    def _drawn(self) -> np.ndarray:
        """All draws, also those that are not finite."""
        key, event, drawn = self.key(1), self.model.event, []
        if self.conditional:
            contexts = self.all_contexts[self._chosen]
            for piece in pieces_of(len(contexts), (PER_ROW, *event)):
                some = contexts[piece]
                drawn.append(self.model.draw(jax.random.fold_in(key, piece.start), len(some) * PER_ROW, some))
        else:
            for piece in pieces_of(self._samples, event):
                n = min(piece.stop, self._samples) - piece.start
                drawn.append(self.model.draw(jax.random.fold_in(key, piece.start), n, self.all_contexts))
        draws = flat(np.concatenate(drawn))
        return draws.reshape(len(self._chosen), PER_ROW, -1) if self.conditional else draws


def flat(x: Any) -> np.ndarray:
    array = np.asarray(x)
    return array.reshape(len(array), math.prod(array.shape[1:]))  # also without rows


def as_numbers(column: Column, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the numbers that stand for a column of flat rows (..., columns), as networks see them, by name."""
    values, names = x[..., column.place], [f"cos {column.name}", f"sin {column.name}"]
    if column.classes:
        names = [f"{column.name} = {column.code(code)}" for code in range(column.classes)]
    elif not column.period:
        return {column.name: values}
    values = values.astype(float) if values.dtype.kind in "biu" else values
    region = Region(period=np.array([column.period]), classes=np.array([column.classes]))
    return dict(zip(names, seen(region, values.reshape(-1, 1), np).T.reshape(len(names), *values.shape), strict=True))


def features(columns: list[Column], *samples: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Return names of features, and all columns of flat samples as features, (..., features); without rare codes, and without
    the last common code, which follows from the others."""
    names, numbers = list[str](), list[list[np.ndarray]]()
    for column in columns:
        by_name = [as_numbers(column, x) for x in samples]
        common = list(by_name[0])
        if column.classes:
            common = [name for name in common if all(numbers_[name].sum() >= COMMON for numbers_ in by_name)]
            common = common[: max(len(common) - 1, 1)]
        names += common
        numbers += [[numbers_[name] for numbers_ in by_name] for name in common]
    return names, [np.stack([feature[i] for feature in numbers], -1) if numbers else x[..., :0] for i, x in enumerate(samples)]
