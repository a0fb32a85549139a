"""Pictures of a fitted table: draws beside rows, in the units of the frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flows.core import FlowsError, positive_int
from flows.results.columns import Column
from flows.results.frames import frame_of, shortened_name
from flows.results.pictures.columns import Compared, places_of
from flows.results.pictures.given import SHARES, band
from flows.results.pictures.pairs import pairs
from flows.results.pictures.style import pyplot
from flows.results.plotting import MOST_DRAWS, compared, quantiles_given, with_rows
from flows.tables import dates, numbers
from flows.tables.dtypes import zone_in
from flows.tables.fields import Field
from flows.tables.kinds import Category, Circular, DateTime

DAY = 86_400.0  # seconds
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
        return np.stack([in_units(fields[name], values[:, schema.columns.index(name)]) for name in names], 1)[:, places]

    both = both._replace(rows=in_frame(both.rows), draws=in_frame(both.draws), notes=[*left_out, *both.notes])
    return pairs([described(fields[names[j]]) for j in places], both)


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
    at = in_units(given, _of_context(given, np.asarray(seen.context, float)))
    cycle = _cycle(given, at)

    def quantiles(places: np.ndarray) -> np.ndarray:
        encoded = _encoded(given, places)
        if not cycle:
            return in_units(target, quantiles_given(result, _seen(table, given, encoded), n, rng))
        around = (encoded[:, None] + cycle * (np.arange(TIMES) / TIMES - 0.5)).ravel()
        drawn = np.asarray(result.draw(rng, EACH, context=_seen(table, given, around)), float).reshape(len(places), -1)
        return np.moveaxis(in_units(target, np.quantile(drawn, SHARES, axis=1)), 0, 1)

    if cycle:
        notes.append(f"the band is of all times of the {'day' if cycle == DAY else 'week'} around a date")
    rows = None if seen.rows is None else in_units(target, seen.rows)
    return band(described(given), described(target), seen._replace(rows=rows, context=at[:, None], notes=notes), quantiles)


def _cycle(given: Field, at: np.ndarray) -> float:
    """The seconds of the day or of the week, where dates span so many that a line through each would be a blur; else 0."""
    if not isinstance(given.kind, DateTime):
        return 0.0
    fit = [cycle for cycle in dates.cycles_of(given) if cycle * MANY <= np.ptp(at) * DAY]
    return max(fit, default=0.0)


def _seen(table: Any, given: Field, encoded: np.ndarray) -> np.ndarray:
    """Return what the model sees of values of the one column of the condition."""
    schema = table.schema
    native = schema.native(schema.condition[0], encoded, schema.fitted_to)
    return np.asarray(schema.context(frame_of(schema.fitted_to, [given.label], [native], len(encoded))))


def described(field: Field) -> Column:
    """Return what a column of a frame is on an axis."""
    kind: Any = field.kind
    name = shortened_name(str(field.label))
    if isinstance(kind, Category):
        names = kind.called
        return Column(name, low=-0.5, high=len(names) - 0.5, classes=len(names), called=names)
    if isinstance(kind, Circular):
        return Column(name, low=float(kind.low), high=float(kind.low + kind.period), period=kind.period, step=field.step)
    if isinstance(kind, DateTime):
        return Column(name, step=field.step / DAY, dates=True, zone=zone_in(field.dtype or ""))
    return Column(name, step=field.step)


def in_units(field: Field, values: np.ndarray) -> np.ndarray:
    """Encoded values, of any shape, in the units of the frame; codes as they are, and dates in days since 1970."""
    kind: Any = field.kind
    if isinstance(kind, Category):
        return values
    if isinstance(kind, Circular):
        return np.asarray(kind.low + np.mod(values, kind.period))
    if isinstance(kind, DateTime):
        return np.asarray((dates.start_of(field) + values) / DAY)
    return np.asarray(values + float(field.offset))


def _encoded(field: Field, values: np.ndarray) -> np.ndarray:
    """Return values as the model sees them."""
    kind: Any = field.kind
    if isinstance(kind, Category):
        return values
    if isinstance(kind, Circular):
        return np.asarray(values - kind.low)
    return np.asarray(values * DAY - dates.start_of(field) if isinstance(kind, DateTime) else values - float(field.offset))


def _of_context(field: Field, seen: np.ndarray) -> np.ndarray:
    """The column of a condition as it is encoded, of what a model sees of it, (rows, width)."""
    kind: Any = field.kind
    if isinstance(kind, Category):
        return seen.argmax(1).astype(float)
    if isinstance(kind, Circular):
        return np.asarray(np.mod(np.arctan2(seen[:, 1], seen[:, 0]) / (2 * np.pi), 1.0) * kind.period)
    return seen[:, 0] * dates.span_of(field) if isinstance(kind, DateTime) else numbers.bounded(field, seen[:, 0])
