"""Pictures of a fitted table: draws next to rows, in the units of the frame."""

from typing import Any

import numpy as np

from flows.core import FlowsError, as_context, positive_int
from flows.results.columns import Column
from flows.results.frames import frame_of, shortened_name
from flows.results.pictures.axes import places_of, pyplot
from flows.results.pictures.comparison import SHARES, Compared, band, pairs
from flows.results.plotting import MOST_DRAWS, compared, quantiles_given, with_rows
from flows.tables.fields import Field
from flows.tables.kinds.date import DAY, cycles_of

MANY = 20  # cycles of a condition of dates, which are then drawn together
TIMES, EACH = 56, 40  # of a cycle, and draws at each; of a week, too, no two are at one time of the day


def picture(table: Any, rows: Any, columns: Any, n: int, condition: Any, rng: Any) -> Any:
    """The figure; arguments as in `TableResult.plot`."""
    pyplot()
    schema, result, n = table.schema, table.result, positive_int(n, "plot: n", most=MOST_DRAWS)
    names = [name for name in schema if name in schema.columns]
    places, left_out = places_of(columns, names)
    fields = {name: schema.complete(name) for name in (*names, *schema.condition)}
    x, context = _rows(table, rows, condition)
    if len(names) == len(schema.condition) == 1 and schema.numbers:
        both = with_rows(result, x, context, n, rng)
        if np.ndim(both.context) > len(as_context(result.context_dim) or ()):
            return _band(table, fields[schema.condition[0]], fields[names[0]], both, n, rng)
    both = compared(result, x, context, n, rng)

    def in_frame(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        chosen = [(fields[names[j]], schema.columns.index(names[j])) for j in places]
        return np.stack([field.kind.in_units(field, values[:, at]) for field, at in chosen], 1)

    both = both._replace(rows=in_frame(both.rows), draws=in_frame(both.draws), notes=[*left_out, *both.notes])
    return pairs([_axis(fields[names[j]]) for j in places], both)


def _rows(table: Any, rows: Any, condition: Any) -> tuple[Any, Any]:
    """Rows of a frame as numbers, and what the model sees of the condition; None for a missing one."""
    schema = table.schema
    if rows is not None:
        if condition is not None:
            raise FlowsError("plot: rows and given are there, and rows have the condition in them; give one of them")
        read = table.rows(rows)
        return read.x, read.context
    if condition is None:
        if schema.condition and table.result.kept is None:
            raise FlowsError(
                f"plot: the table has a condition, {', '.join(map(repr, schema.condition))}, and a file has no rows to take it "
                "from; give rows, or given="
            )
        return None, None
    return None, table.context_of(condition)


def _band(table: Any, condition: Field, target: Field, both: Compared, n: int, rng: Any) -> Any:
    """The one number against its condition."""
    result, notes = table.result, list(both.notes)
    contexts = np.asarray(both.context, float)
    encoded = contexts[:, 0, 0] if contexts.ndim == 3 else condition.kind.from_context(condition, contexts)
    at = condition.kind.in_units(condition, encoded)
    cycle = _cycle(condition, at)

    def quantiles(places: np.ndarray) -> np.ndarray:
        encoded = condition.kind.from_units(condition, places)
        if not cycle:
            return target.kind.in_units(target, quantiles_given(result, _context(table, condition, encoded), n, rng))
        around = (encoded[:, None] + cycle * (np.arange(TIMES) / TIMES - 0.5)).ravel()
        drawn = np.asarray(result.draw(rng, EACH, context=_context(table, condition, around)), float).reshape(len(places), -1)
        return np.moveaxis(target.kind.in_units(target, np.quantile(drawn, SHARES, axis=1)), 0, 1)

    if cycle:
        notes.append(f"the band is of all times of the {'day' if cycle == DAY else 'week'} around a date")
    rows = None if both.rows is None else target.kind.in_units(target, both.rows)
    return band(_axis(condition), _axis(target), both._replace(rows=rows, context=at[:, None], notes=notes), quantiles)


def _cycle(condition: Field, at: np.ndarray) -> float:
    """The seconds of the day or of the week, where dates span too many for a line through each; else 0."""
    if condition.kind.sort != "times":
        return 0.0
    fit = [cycle for cycle in cycles_of(condition) if cycle * MANY <= np.ptp(at) * DAY]
    return max(fit, default=0.0)


def _context(table: Any, condition: Field, encoded: np.ndarray) -> np.ndarray:
    """Return what the model sees of values of the one column of the condition."""
    schema = table.schema
    native = schema.native(schema.condition[0], encoded, schema.fitted_to)
    return np.asarray(table.context_of(frame_of(schema.fitted_to, [condition.label], [native], len(encoded))))


def _axis(field: Field) -> Column:
    """Return what a column of a frame is on an axis."""
    return field.kind.axis(field, shortened_name(str(field.label)))
