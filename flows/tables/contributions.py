"""log p(x_j | the other columns) of rows: log p(x) less the log of its sum, or of its integral, over column j.

The panels of an integral begin at quantiles of draws, at the value of the row, and at values of the draws that are nearest to
it in the other columns. `integrals.py` halves them. A row is as odd as its oddest column.
"""

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from flows.core import FlowsError, declares, warn_user
from flows.results.frames import Frame, frame_of, looked_at
from flows.results.held_out import Kept, Scored
from flows.results.pieces import by_pieces
from flows.results.result import FitResult
from flows.tables.fields import Rows
from flows.tables.gaps import has_roles
from flows.tables.integrals import MOST_POINTS, Angle, Codes, Line
from flows.tables.ranks import given_others
from flows.tables.schema import Schema
from flows.training.options import bar_or_none

USUAL_POINTS = 160  # of an integral, for the time that the bar shows at first
DRAWS, USUAL_DRAWS = 2_048, 256  # for panels; and whose contributions are usual for a column
NEAREST = 8  # draws
BATCHES = (8_208, 1_040)  # rows whose density is computed at once: few sizes, as each is compiled, and none is filled up
PIECE = 512  # rows whose panels are held at once, and fewer where the distances to draws would be more numbers than this:
NUMBERS = 2**24
PENDING = 65_536  # rows whose condition is encoded at once


def contributions(result: FitResult, schema: Schema, frame: Any, errors: str, verbose: int) -> Any:
    """A frame of log p(x_j | the others), as `TableResult.contributions` says."""
    table, columns = looked_at(frame, "contributions"), schema.columns
    (whole,) = _of_frame([result], schema, table, errors, verbose)
    order = sorted(range(len(columns)), key=lambda j: table.places[columns[j]])
    labels = [table.header.labels[table.places[columns[j]]] for j in order]
    framed_values = frame_of(table.header.library, labels, [whole[:, j] for j in order], len(whole))
    return framed_values.set_axis(table.native.index) if table.header.library == "pandas" else framed_values


def p_values(result: FitResult, schema: Schema, frame: Any, errors: str, verbose: int) -> np.ndarray:
    """The p-value of each row by its oddest column, as `TableResult.p_value` says."""
    scores, usual = column_scores(result, schema, verbose)
    values = _of_frame(result.judges(), schema, table := looked_at(frame, "p_value"), errors, verbose)
    outside = np.concatenate([part.outside for part in schema.pieces(table, PENDING, errors=errors, roles=has_roles(result))])
    return result.p_values_of(np.where(outside, -np.inf, np.fmin.reduce(values - usual[..., None, :], -1)), scores)


def column_scores(result: FitResult, schema: Schema, verbose: int) -> list[np.ndarray]:
    """The scores by columns of the rows held out, (..., rows) as `result.scores`, and the usual values behind them,
    (..., columns); a result computes them once."""
    shape, scored = result.scores.shape, cast(Scored, result.scored)
    if scored.by_columns is None:
        if result.kept is None:
            raise FlowsError(
                "p_value: the file has no scores by columns of the rows held out; expected one of `flows fit --by-columns`, or "
                'of a result that was asked p_value(frame, by="columns") before save'
            )
        parts = list[np.ndarray]()
        for judge in result.judges():
            x, contexts, _ = cast(Kept, judge.kept)
            usual = usual_values(judge, schema, contexts, verbose)
            least = np.fmin.reduce(_scores(judge, schema, x.astype(np.float64), contexts, verbose) - usual, -1)
            parts.append(np.nan_to_num(np.concatenate([least, usual]), nan=np.inf))
        scored = result.scored = scored._replace(by_columns=np.reshape(parts, (*shape[:-1], -1)))
    return np.split(cast(np.ndarray, scored.by_columns), shape[-1:], -1)


def usual_values(result: FitResult, schema: Schema, contexts: Any, verbose: int) -> np.ndarray:
    """The median of log p(x_j | the others) over draws of the model, (columns,), given some of these conditions."""
    drawn, conditions = _draws(result, contexts, USUAL_DRAWS)
    rows = schema.encode(schema.decode(drawn))  # on their steps, within their bounds
    return np.nan_to_num(np.nanmedian(_scores(result, schema, rows, conditions, verbose), 0), nan=-np.inf)


def _of_frame(results: Sequence[FitResult], schema: Schema, table: Frame, errors: str, verbose: int) -> np.ndarray:
    """log p(x_j | the others) by each result, (results, rows, columns); warnings count rows without."""
    parts = list[np.ndarray]()
    unsolved, counted = np.zeros(len(schema.columns), int), np.zeros(2, int)
    roles = has_roles(results[0])
    for part in schema.pieces(table, PENDING, errors=errors, roles=roles):
        values, sound = _without_density(schema, part)
        values = np.tile(values, (len(results), 1, 1))
        if len(sound):
            contexts = None if part.context is None else part.context[sound]
            values[:, sound] = [_scores(result, schema, part.x[sound], contexts, verbose) for result in results]
        unsolved += 0 if roles else np.isnan(values[:, sound]).any(0).sum(0)
        counted += [part.outside.sum(), (part.gaps.any(1) & ~part.outside).sum()]
        parts.append(values)
    if counted.any():
        warn_user(
            f"contributions: {counted[0]} of {table.rows} rows have an unknown category or a value out of bounds, which has "
            f"-inf; {counted[1]} have a gap. Their other values have NaN"
        )
    if unsolved.any():
        by_column = ", ".join(f"{name!r} in {count}" for name, count in zip(schema.columns, unsolved, strict=True) if count)
        warn_user(
            f"contributions: of {table.rows} rows some have NaN, {by_column}: the integral over the column needs more than "
            f"{MOST_POINTS:,} points, or log p is not finite there. Look at them with result.verify"
        )
    return np.concatenate(parts, 1)


def _without_density(schema: Schema, part: Rows) -> tuple[np.ndarray, np.ndarray]:
    """NaN for all values, but -inf for values that their column cannot have; and the places of rows that have a density."""
    values = np.full(part.x.shape, np.nan)
    codes, angles = len(schema.codes), len(schema.angles)
    with np.errstate(invalid="ignore"):
        wrong = np.isinf(part.x)
        wrong[:, :codes] |= part.x[:, :codes] < 0
        wrong[:, codes : codes + angles] |= np.isnan(part.x[:, codes : codes + angles]) & ~np.any(part.gaps, 1)[:, None]
        for j, ((low, high), step) in enumerate(zip(schema.supports, schema.steps, strict=True), codes + angles):
            t = part.x[:, j]
            whole = getattr(schema[schema.columns[j]], "whole", False)
            wrong[:, j] |= (t < low) | (t > high) | ((step == 0) & ((t == low) | (t == high))) | (whole & (t % 1 > 0))
    values[wrong & part.outside[:, None]] = -np.inf
    return values, np.flatnonzero(~(part.outside | part.gaps.any(1)))


def _scores(result: FitResult, schema: Schema, x: np.ndarray, contexts: Any, verbose: int) -> np.ndarray:
    """log p(x_j | the others) of rows that have a density, (rows, columns)."""
    if declares(result.init_fun, "roles"):
        return given_others(result, x, contexts)
    if declares(result.init_fun, "prepares"):
        raise FlowsError("contributions: the model is of some columns given others; ask the model of all columns")
    axes = axes_of(schema)
    drawn, conditions = _draws(result, contexts, DRAWS)
    axes = [axis.spread(drawn[:, j]) for j, axis in enumerate(axes)]
    score = _Densities(result, x, contexts)
    with tqdm(
        total=len(x), desc="contributions", unit="row", disable=not bar_or_none(verbose, "contributions: verbose")
    ) as bar:
        if verbose:
            points = sum(axis.classes if isinstance(axis, Codes) else USUAL_POINTS for axis in axes)
            bar.set_description(f"contributions, about {score.seconds(points * len(x)):.2g} s")
        known = _Neighbours(axes, drawn, conditions)
        values = np.empty(x.shape)
        piece = max(min(PIECE, NUMBERS // (len(axes) * len(drawn) or 1)), 1)
        for start in range(0, len(x), piece):
            places = np.arange(start, min(start + piece, len(x)))
            log_p = score(places, 0, x[places, 0])
            distances = known.distances(x[places], None if contexts is None else contexts[places])
            for j, axis in enumerate(axes):

                def log_density(some: np.ndarray, t: np.ndarray, j: int = j, places: np.ndarray = places) -> np.ndarray:
                    return score(places[some], j, t)

                near = known.nearest(j, distances, x[places, j])
                values[places, j] = log_p - axis.log_total(log_density, x[places, j], near, score.rounding)
            bar.update(len(places))
    return values


def axes_of(schema: Schema) -> list[Codes | Angle | Line]:
    """The axes of all columns; cells of steps reach beyond bounds by half a step."""
    lines = [Line(low - step / 2, high + step / 2) for (low, high), step in zip(schema.supports, schema.steps, strict=True)]
    return [*map(Codes, schema.classes), *map(Angle, schema.periods), *lines]


def _draws(result: FitResult, contexts: Any, most: int) -> tuple[np.ndarray, Any]:
    """Draws of the model, and their conditions: the conditions of some rows, evenly spaced."""
    contexts = np.zeros((1, 2, result.input_dim)) if has_roles(result) else contexts  # all columns are asked
    if contexts is None:
        drawn, conditions = np.asarray(result.draw(0, most), np.float64), None
    else:
        some = contexts[np.linspace(0, len(contexts) - 1, min(len(contexts), most)).astype(int)]
        count = -(-most // len(some))
        drawn = np.asarray(result.draw(0, count, context=some), np.float64).reshape(len(some) * count, -1)
        conditions = np.repeat(some, count, 0)
    finite = np.isfinite(drawn).all(1)
    return drawn[finite], None if conditions is None else conditions[finite]


class _Densities:
    """log p of rows with one column moved, of a few sizes of batches."""

    def __init__(self, result: FitResult, x: np.ndarray, contexts: Any):
        self.result, self.x, self.contexts = result, x, contexts
        self.rounding = 0.0  # of log p, relative; of the dtype that it comes in

    def __call__(self, places: np.ndarray, j: int, values: np.ndarray) -> np.ndarray:
        def log_density(places: np.ndarray, values: np.ndarray) -> Any:
            rows = self.x[places]
            rows[:, j] = values
            log_p = self.result.log_prob(rows, context=None if self.contexts is None else self.contexts[places])
            self.rounding = float(np.finfo(log_p.dtype).eps)
            return log_p

        return by_pieces(log_density, places, values, sizes=BATCHES).astype(float)

    def seconds(self, points: int) -> float:
        """About how long these points take, once the density is compiled."""
        size = BATCHES[0] if points >= BATCHES[0] else BATCHES[-1]
        places = np.resize(np.arange(len(self.x)), size)
        self(places, 0, self.x[places, 0])
        began = time.monotonic()
        self(places, 0, self.x[places, 0])
        return (time.monotonic() - began) * points / size


class _Neighbours:
    """The draws that are nearest to rows in all columns but one, where the others may have modes that quantiles do not show."""

    def __init__(self, axes: list[Any], drawn: np.ndarray, conditions: Any):
        self.axes, self.drawn = axes, drawn
        conditions = np.zeros((len(drawn), 0)) if conditions is None else conditions
        self.scale = np.where(conditions.std(0) > 0, conditions.std(0), 1.0)
        self.blocks, self.conditions = [axis.features(drawn[:, j]) for j, axis in enumerate(axes)], conditions / self.scale

    def distances(self, x: np.ndarray, contexts: Any) -> list[np.ndarray]:
        """Squared distances, (rows, draws), by column; the last is over all columns and the condition."""
        squares = [_squared(axis.features(x[:, j]), self.blocks[j]) for j, axis in enumerate(self.axes)]
        whole = squares[0].copy()
        for square in squares[1:]:
            whole += square
        if contexts is not None:
            whole = whole + _squared(contexts / self.scale, self.conditions)
        return [*squares, whole]

    def nearest(self, j: int, distances: list[np.ndarray], values: np.ndarray) -> np.ndarray:
        """Values of column j in the nearest draws, (rows, NEAREST)."""
        if len(self.drawn) <= NEAREST:
            return np.repeat(values[:, None], NEAREST, 1)
        places = np.argpartition(distances[-1] - distances[j], NEAREST, 1)[:, :NEAREST]
        return self.drawn[places, j]


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
