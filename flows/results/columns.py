"""Columns of data: one record of the facts of a column, which results, checks and pictures read; and how a result reads its
inputs: rows in the order of the columns that it was fitted to, and a context for each row.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    Composite,
    FlowsError,
    ModelValue,
    Region,
    as_array,
    as_context,
    as_event,
    as_key,
    distribution_part,
    on_device,
    on_turn,
    pieces_of,
    size,
    wrapped,
)
from flows.results.frames import in_order
from flows.results.pieces import scored

MANY = 24  # categories, above which they are not drawn one by one


class Column(NamedTuple):
    """One column of flat rows.

    Attributes:
        name: the name in errors and pictures.
        place: the place among the columns.
        low, high: ends of an axis, where they are known: for an angle the start of its turn and of the next turn, for
            categories half a code beyond the outermost; else infinite.
        period: the period of an angle; 0 for other columns.
        classes: the number of codes 0, 1, ...; 0 for numbers.
        step: the step to which values are rounded, 0 where they are not; None where only rows can show it.
        called: names of the codes; () where they have none.
        dates, zone: whether values are days since 1970, and an axis has dates, by the clock of a zone.
    """

    name: str
    place: int = 0
    low: float = -np.inf
    high: float = np.inf
    period: float = 0.0
    classes: int = 0
    step: float | None = None
    called: tuple[str, ...] = ()
    dates: bool = False
    zone: Any = None

    def code(self, code: float) -> str:
        """Return the name of a code."""
        known = code == int(code) and 0 <= code < len(self.called)
        return self.called[int(code)] if known else f"code {code:g}"

    @property
    def bars(self) -> tuple[str, ...]:
        """Names of the bars of a picture, one for each code; () for numbers, and for too many codes without names."""
        return self.called or tuple(map(str, range(self.classes if self.classes <= MANY else 0)))


def places_of(columns: Any, count: int, names: tuple[str, ...] | None, caller: str) -> tuple[int, ...]:
    """Return the numbers of columns; one of them may stand for itself."""
    several = isinstance(columns, list | tuple | np.ndarray) and np.ndim(columns) > 0
    return tuple(place_of(column, count, names, "there is no", caller) for column in (columns if several else [columns]))


def place_of(column: Any, columns: int, names: tuple[str, ...] | None, what: str, caller: str = "fit") -> int:
    """Return the number of a column, by its name or number."""
    if names is not None and str(column) in names:
        return names.index(str(column))
    if isinstance(column, int | np.integer) and not isinstance(column, bool) and 0 <= column < columns:
        return int(column)
    known = f"names, {', '.join(names)}" if names else f"numbers from 0 to {columns - 1}"
    raise FlowsError(f"{caller}: {what} column {column!r}; expected one of the columns' {known}")


def columns_of(
    names: tuple[str, ...], region: Region | None, turn: Any = None, categories: Mapping[str, tuple[str, ...]] | None = None
) -> list[Column]:
    """Return the columns of the entries of an event, in order. Turns of angles begin half a turn below 0, unless `turn` says
    where; `categories` are names of codes by the name of their column."""
    called, count = categories or {}, len(names)
    period, classes = (
        np.zeros(count) if region is None else np.broadcast_to(np.asarray(field).ravel(), (count,))
        for field in (getattr(region, "period", 0), getattr(region, "classes", 0))
    )
    start = -period / 2 if turn is None else np.broadcast_to(np.asarray(turn).ravel(), (count,))
    columns = list[Column]()
    for j, name in enumerate(names):
        ends, step = (-np.inf, np.inf), None
        if classes[j] > MANY:  # bars would be as thin as lines
            ends, step = (0.0, float(classes[j])), 1.0
        elif classes[j]:
            ends = -0.5, classes[j] - 0.5
        elif period[j]:
            ends = float(start[j]), float(start[j] + period[j])
        columns.append(Column(name, j, *ends, float(period[j]), int(classes[j]), step, called.get(name, ())))
    return columns


class Columns(Protocol):
    """The names that data had: of a frame, of parameters, or none."""

    def numbers(self, x: Any, what: str) -> Any: ...  # rows that were handed in, in the order that a model was fitted to
    def natural(self, rows: Any) -> Any: ...  # rows as data were
    def entries(self, count: int) -> tuple[str, ...]: ...  # a name for each entry of a vector


class Arrays:
    """Data without names."""

    def numbers(self, x: Any, what: str) -> Any:
        return in_order(x, None, what)

    def natural(self, rows: Any) -> Any:
        return rows

    def entries(self, count: int) -> tuple[str, ...]:
        return tuple(f"column {j}" for j in range(count))


class Inputs:
    """Rows, contexts and draws of a result, read and checked."""

    def __init__(self, result: Any):
        self.result = result
        self.context_shape = as_context(result.context_dim)

    @property
    def columns(self) -> Columns:
        """The names that data had."""
        return getattr(self.result, "named", None) or self.result.table or Arrays()

    def rows(self, x: Any) -> Any:
        """Return rows as numbers."""
        return self.columns.numbers(x, "x")

    def context(self, context: Any) -> dict[str, Any]:
        """Return a context as a keyword of log_pdf and sample; {} for None."""
        if context is None:
            return {}
        if self.context_shape is None:
            raise TypeError("context was given, but this model was fitted without one; leave it out")
        return {"context": as_array(in_order(context, self.result.context_table, "context"), "context")}

    def scored(self, log_pdf: Callable, params: Any, x: Any, context: Any) -> Any:
        """Return log_pdf(params, x, context=context), in pieces where there are many rows."""
        condition = context if isinstance(context, np.ndarray) else self.context(context).get("context")
        scores = scored(self.result, log_pdf, params, x, condition)
        return log_pdf(params, x, **self.context(condition)) if scores is None else scores

    def drawn(self, key: Any, n: int, keywords: dict[str, Any]) -> Array:
        """Return draws by the fitted params, with angles on their turn."""
        drawn = self.result.sample(key, self.result.params, n, **keywords)
        return drawn if self.result.turn is None else wrapped(self.region, drawn, self.result.turn)

    def on_turn(self, x: Any) -> Any:
        """Return rows with their angles on the turn of the data, or around 0."""
        region, turn = self.region, self.result.turn
        if region is None or not region.period.any():
            return x
        return on_turn(region, on_device(x), -region.period / 2 if turn is None else turn)

    @property
    def region(self) -> Region | None:
        """The region where the points of the model live, as far as it is known."""
        if not callable(self.result.init_fun):
            return None
        return distribution_part(self.result.init_fun, as_event(self.result.input_dim), self.context_shape).region

    def described(self) -> list[Column]:
        """Return the columns of a vector."""
        return columns_of(self.columns.entries(*as_event(self.result.input_dim)), self.region, self.result.turn)

    @property
    def embeds(self) -> bool:
        """Return whether a network makes features of contexts, which are then not to be copied."""
        model = self.result.init_fun
        values = (model, *model.values_within()) if isinstance(model, ModelValue) else ()
        return any(isinstance(value.inner, Composite) and value.inner.features is not None for value in values)

    def draws(self, rng: Any, n: int, keywords: dict[str, Any]) -> Any:
        """Return n draws as data were, for each context where there are several."""
        self._check_finite(keywords)
        if not self.batched(keywords):
            return self.columns.natural(self.drawn(rng, n, keywords))
        drawn, named = self.drawn_for(as_key(rng), n, keywords["context"]), self.result.named
        return drawn if named is None else named.natural(drawn)

    def drawn_for(self, key: Any, n: int, contexts: Any) -> Array:
        """Return n draws for each context, (contexts, n, *event)."""
        if not self.embeds:
            drawn = self.drawn(key, n * len(contexts), {"context": jnp.repeat(contexts, n, 0)})
            return drawn.reshape(-1, n, *drawn.shape[1:])
        keys = jax.random.split(key, len(contexts))
        numbers = size(contexts.shape[1:]) + n * size(as_event(self.result.input_dim))
        pieces = pieces_of(len(contexts), (numbers,))
        draw = jax.vmap(lambda key, one: self.drawn(key, n, {"context": one}))
        return jnp.concatenate([draw(keys[piece], contexts[piece]) for piece in pieces])

    def _check_finite(self, keywords: dict[str, Any]) -> None:
        """Refuse a context that is not finite, of which draws would be NaN."""
        context = keywords.get("context")
        if context is None or isinstance(context, jax.core.Tracer) or (finite := np.isfinite(np.asarray(context))).all():
            return
        place = np.argwhere(~finite)[0].tolist()
        which = f"row {place[0]} of the context" if self.batched(keywords) else "the context"
        raise FlowsError(f"draw: {which} is {np.asarray(context)[tuple(place)]:g} at {place}; expected finite numbers")

    def batched(self, keywords: dict[str, Any]) -> bool:
        """Return whether there is a context for each row."""
        return bool(keywords) and keywords["context"].ndim == 1 + len(self.context_shape or ())

    def row_contexts(self, keywords: dict[str, Any], rows: int) -> Any:
        """Return a context for each row, or None where the model takes none."""
        if (shape := self.context_shape) is None:
            return None
        one = f"{shape}, one for all rows"
        if not keywords:
            raise FlowsError(f"context is missing; expected {(rows, *shape)}, a row for each of {rows}, or {one}")
        context = keywords["context"]
        if context.shape == shape:
            context = jnp.broadcast_to(context, (rows, *shape))
        if context.shape != (rows, *shape):
            raise FlowsError(
                f"context has shape {context.shape}; expected {(rows, *shape)}, a row for each of {rows}, or {one}"
            )
        return context.astype(jnp.result_type(jnp.float32, *jax.tree.leaves(self.result.params)))
