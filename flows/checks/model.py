"""What is asked of a fitted distribution: log-densities and draws, whatever gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from flows.core import FlowsError, ModelValue, Region, Shape, as_context, as_event, joint_draw_of, part_of, pieces_of
from flows.distributions.draws import functions
from flows.results import FitResult
from flows.results.frames import as_numbers, numbers_of


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted distribution, as the checks see it.

    Attributes:
        log_pdf, params: of its triple.
        names: of the columns, of images of the pixels.
        event, context_shape: of a row and its context; None where there is none.
        region: where points live, as far as it is told.
        likelihood: 'exact', 'unbiased' or 'lower bound'.
        read: `read(data, context, name) -> (rows, contexts)`, (rows, *event) and None, (*context,) or (rows, *context).
        draw: `draw(key, n, contexts) -> (n, *event)`.
        result: the result that verifies rows and has scores of rows held out, if there is one.
        init_fun: the constructor's value, whose structure is told; None of a triple, and of plain closures.
    """

    log_pdf: Callable
    params: Any
    names: tuple[str, ...]
    event: Shape
    context_shape: Shape | None
    region: Region | None
    likelihood: str
    read: Callable[[Any, Any, str], tuple[np.ndarray, np.ndarray | None]]
    draw: Callable[[Any, int, np.ndarray | None], np.ndarray]
    result: FitResult | None = None
    init_fun: Any = None

    def log_p(self, rows: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
        """log p of each row, (rows,), in float64, by pieces that fit memory."""
        each = contexts is not None and contexts.ndim > len(self.context_shape or ())
        found = []
        for piece in pieces_of(len(rows), self.event):
            given = {} if contexts is None else {"context": jnp.asarray(contexts[piece] if each else contexts)}
            log_p = np.asarray(self.log_pdf(self.params, jnp.asarray(rows[piece]), **given), np.float64)
            found.append(_shaped(log_p, (len(rows[piece]),), "log_pdf"))
        return np.concatenate(found)


def model_of(fitted: Any, data: Any, context: Any) -> Model:
    """That of a result, of what says itself how it is checked, such as the result of a table, or of a triple."""
    if hasattr(fitted, "_to_check"):
        return fitted._to_check()
    return of_result(fitted) if isinstance(fitted, FitResult) else _of_triple(fitted, data, context)


def of_result(result: FitResult) -> Model:
    """That of a result of `fit`, `fit_to_density`, or a file."""
    event, shape = as_event(result.input_dim), as_context(result.context_dim)

    def read(data: Any, context: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        rows = _on_turn(result, _checked(numbers_of(result._rows(data), name), event, name, names))
        keywords = result._context(context)
        result._of_each(keywords, len(rows))  # refuses a context of another shape, and one that is missing
        return rows, np.asarray(keywords["context"]) if keywords else None

    def draw(key: Any, n: int, contexts: np.ndarray | None) -> np.ndarray:
        return np.asarray(result._drawn(key, n, {} if contexts is None else {"context": jnp.asarray(contexts)}))

    names = tuple(result._names(event[0])) if len(event) == 1 else _places(event)
    return Model(
        result.log_pdf, result.params, names, event, shape, result._region, getattr(result.init_fun, "likelihood", "exact"),
        read, draw, result, _told(result.init_fun, event, shape),
    )  # fmt: skip


def _told(init_fun: Any, event: Shape, context: Shape | None) -> Any:
    known = isinstance(init_fun, ModelValue) and not part_of(init_fun, event, context).closures
    return init_fun if known else None


def _on_turn(result: FitResult, rows: np.ndarray) -> np.ndarray:
    region = result._region
    return np.asarray(result._on_turn(jnp.asarray(rows))) if region is not None and region.period.any() else rows


def _of_triple(fitted: Any, data: Any, context: Any) -> Model:
    """That of `(params, log_pdf, sample)`: its event is that of the data."""
    log_pdf, sample = functions("check", fitted)
    event, params, joint = np.shape(as_numbers(data, "data"))[1:], fitted[0], joint_draw_of(sample)
    given = None if context is None else np.shape(as_numbers(context, "context"))
    shape = given if given is None or len(given) == 1 else given[1:]
    names = tuple(f"column {j}" for j in range(event[0])) if len(event) == 1 else _places(event)

    def read(data: Any, context: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        rows = _checked(numbers_of(data, name), event, name, names)
        contexts = None if context is None else numbers_of(context, "context")
        if contexts is not None and contexts.shape not in (shape, (len(rows), *(shape or ()))):
            raise FlowsError(f"context has shape {contexts.shape}; expected a row for each of {len(rows)} rows, or one for all")
        return rows, contexts

    def draw(key: Any, n: int, contexts: np.ndarray | None) -> np.ndarray:
        drawn = np.asarray(sample(key, params, n, **({} if contexts is None else {"context": jnp.asarray(contexts)})))
        return _shaped(drawn, (n, *event), "sample")

    region, likelihood = (None, "exact") if joint is None else (joint.region, joint.likelihood)
    return Model(log_pdf, params, names, event, shape, region, likelihood, read, draw)


def _shaped(array: np.ndarray, shape: Shape, name: str) -> np.ndarray:
    """What a function of a triple returned, which may be anybody's."""
    if array.shape != shape:
        raise FlowsError(f"check: {name} returned shape {array.shape}; expected {shape}, the event as that of data")
    return array


def _places(event: Shape) -> tuple[str, ...]:
    return tuple(map(str, np.ndindex(event)))


def _checked(rows: np.ndarray, event: Shape, name: str, names: tuple[str, ...]) -> np.ndarray:
    """Rows of that event, all of whose numbers are finite."""
    if rows.ndim < 2 or rows.shape[1:] != event or not len(rows):
        raise FlowsError(f"check: {name} has shape {rows.shape}; expected (rows, {', '.join(map(str, event))})")
    flat = rows.reshape(len(rows), -1)
    bad = ~np.isfinite(flat)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise FlowsError(
            f"check: {name} has {flat[row, column]} in row {row}, {names[column]}, and {int(bad.any(1).sum()):,} such "
            "rows; drop them, or find out where they are from"
        )
    return rows
