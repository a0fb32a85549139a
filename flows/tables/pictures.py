"""Pictures of a fitted table: draws next to rows, in the units of the frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flows.core import FlowsError, positive_int
from flows.results.columns import Column
from flows.results.frames import frame_of, shortened_name
from flows.results.pictures.axes import places_of
from flows.results.pictures.comparison import Compared
from flows.results.pictures.pairs import SHARES, band, pairs
from flows.results.pictures.style import pyplot
from flows.results.plotting import MOST_DRAWS, compared, quantiles_given, with_rows
from flows.tables.fields import Field
from flows.tables.kinds.date import DAY, cycles_of

MANY = 20  # cycles of a condition of dates, which are then drawn together
TIMES, EACH = 56, 40  # of a cycle, and draws of each: of a day and of a week alike, no two at one time of the day


def picture(table: Any, rows: Any, columns: Any, n: int, given: Any, rng: Any) -> Any:
    """The figure; arguments as of `TableResult.plot`."""
    pyplot()
    schema, result, n = table.schema, table.result, positive_int(n, "plot: n", most=MOST_DRAWS)
    names = [name for name in schema if name in schema.columns]
    places, left_out = places_of(columns, names)
    fields = {name: schema.complete(name) for name in (*names, *schema.condition)}
    x, context = _rows(table, rows, given)
    if len(names) == len(schema.condition) == 1 and schema.numbers:
        seen = with_rows(result, x, context, n, rng)
        if np.ndim(seen.context) == 2:
            return _band(table, fields[schema.condition[0]], fields[names[0]], seen, n, rng)
    both = compared(result, x, context, n, rng)

    def in_frame(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        chosen = [(fields[names[j]], schema.columns.index(names[j])) for j in places]
        return np.stack([field.kind.in_units(field, values[:, at]) for field, at in chosen], 1)

    both = both._replace(rows=in_frame(both.rows), draws=in_frame(both.draws), notes=[*left_out, *both.notes])
    return pairs([_axis(fields[names[j]]) for j in places], both)


def _rows(table: Any, rows: Any, given: Any) -> tuple[Any, Any]:
    """Rows of a frame as numbers, and what the model sees of the condition; None where they are not given."""
    schema = table.schema
    if rows is not None:
        if given is not None:
            raise FlowsError("plot: rows and given are there, and rows have the condition in them; give one of them")
        read = schema.rows(rows)
        return read.x, read.context
    if given is None:
        if schema.condition and table.result.kept is None:
            raise FlowsError(
                f"plot: the table has a condition, {', '.join(map(repr, schema.condition))}, and a file has no rows to take it "
                "from; give rows, or given="
            )
        return None, None
    contexts = schema.context(table.condition_of(given))
    return None, contexts[0] if isinstance(given, Mapping) else contexts


def _band(table: Any, given: Field, target: Field, seen: Compared, n: int, rng: Any) -> Any:
    """The one number against its condition."""
    result, notes = table.result, list(seen.notes)
    at = given.kind.in_units(given, given.kind.of_context(given, np.asarray(seen.context, float)))
    cycle = _cycle(given, at)

    def quantiles(places: np.ndarray) -> np.ndarray:
        encoded = given.kind.from_units(given, places)
        if not cycle:
            return target.kind.in_units(target, quantiles_given(result, _seen(table, given, encoded), n, rng))
        around = (encoded[:, None] + cycle * (np.arange(TIMES) / TIMES - 0.5)).ravel()
        drawn = np.asarray(result.draw(rng, EACH, context=_seen(table, given, around)), float).reshape(len(places), -1)
        return np.moveaxis(target.kind.in_units(target, np.quantile(drawn, SHARES, axis=1)), 0, 1)

    if cycle:
        notes.append(f"the band is of all times of the {'day' if cycle == DAY else 'week'} around a date")
    rows = None if seen.rows is None else target.kind.in_units(target, seen.rows)
    return band(_axis(given), _axis(target), seen._replace(rows=rows, context=at[:, None], notes=notes), quantiles)


def _cycle(given: Field, at: np.ndarray) -> float:
    """The seconds of the day or of the week, where dates span so many that a line through each would be a blur; else 0."""
    if given.kind.sort != "times":
        return 0.0
    fit = [cycle for cycle in cycles_of(given) if cycle * MANY <= np.ptp(at) * DAY]
    return max(fit, default=0.0)


def _seen(table: Any, given: Field, encoded: np.ndarray) -> np.ndarray:
    """Return what the model sees of values of the one column of the condition."""
    schema = table.schema
    native = schema.native(schema.condition[0], encoded, schema.fitted_to)
    return np.asarray(schema.context(frame_of(schema.fitted_to, [given.label], [native], len(encoded))))


def _axis(field: Field) -> Column:
    """Return what a column of a frame is on an axis."""
    return field.kind.axis(field, shortened_name(str(field.label)))
