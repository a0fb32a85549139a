"""Details of checks for pictures and pages: the model, its columns in their units, curves, and odd rows."""

import datetime as dt
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from flows.checks.model import About, Axis, flat
from flows.checks.sample import Sample, as_numbers
from flows.checks.verdicts import OneTest
from flows.results.columns import Column

NAMED = 20  # rows that `verify` names


class OddRow(NamedTuple):
    """A row by itself.

    Attributes:
        place: its place in the data.
        p_value, log_p: as the result has them; the former None without scores of rows held out.
        values: its values in their units, as text.
        deviations: how far each is from the mean of rows, in their standard deviations; NaN for angles and codes.
        reason: why `verify` names it; "" for an odd one.
    """

    place: int
    p_value: float | None
    log_p: float
    values: tuple[str, ...]
    deviations: tuple[float, ...]
    reason: str = ""


class Details(NamedTuple):
    """All that a page shows next to the table.

    Attributes:
        about: what the result says of itself; None for a triple.
        axes: the columns in their units.
        tests: tests by check, with their curves.
        differ: places of the columns, those first whose correlations or margins differ most.
        pairs: names of two columns and the correlations of their normal scores, of rows and of draws, that differ most.
        odd: the oddest rows, and the rows that `verify` names.
    """

    about: About | None = None
    axes: tuple[Axis, ...] = ()
    tests: dict[str, list[OneTest]] = {}  # noqa: RUF012 - never written to
    differ: tuple[int, ...] = ()
    pairs: tuple[tuple[str, str, float, float], ...] = ()
    odd: tuple[OddRow, ...] = ()


def details_of(sample: Sample, report: Any, oddest: np.ndarray) -> Details:
    """Return the details of a sample; they have no functions of the model, so that they can be pickled."""
    model, odd = sample.model, list[OddRow]()
    axes = model.axes or tuple(map(Axis, model.columns))
    named = () if report is None else report.rows[:NAMED]
    places = [*oddest.tolist(), *(row.row for row in named)]
    rows, all_rows = flat(sample.all_rows[places]), flat(sample.all_rows)
    with np.errstate(over="ignore", invalid="ignore"):
        middle, spread = all_rows.mean(0, dtype=float), all_rows.std(0, dtype=float)
        deviations = (rows - middle) / np.where(spread > 0, spread, np.nan)
    deviations[:, [bool(column.period or column.classes) for column in sample.columns]] = np.nan
    p_values, reasons = sample.arrays.get("shift"), [""] * len(oddest) + [row.reason for row in named]
    values = np.array([axis.in_units(rows[:, j]) for j, axis in enumerate(axes)]).T
    for place, of_row, far, reason in zip(places, values, deviations.tolist(), reasons, strict=True):
        texts = tuple(text_of(axis.column, value) for axis, value in zip(axes, of_row, strict=True))
        p = None if p_values is None else float(p_values[place])
        odd.append(OddRow(place, p, float(sample.log_p[place]), texts, tuple(far), reason))
    place_of = {name: c.place for c in sample.columns for name in as_numbers(c, np.zeros((1, len(sample.columns))))}
    tests = dict(sample.tests)
    if "ranks" in tests:
        tests["ranks"] = [test._replace(place=place_of[test.name]) for test in tests["ranks"]]
    sizes = sorted(tests.get("columns", tests.get("ranks", [])), key=lambda test: -test.size)
    first = [place_of[name] for pair in sample.pairs[:1] for name in pair[:2]]
    differ = dict.fromkeys([*first, *(test.place for test in sizes), *range(len(axes))])
    return Details(model.about, axes, tests, tuple(differ), tuple(sample.pairs), tuple(odd))


def text_of(column: Column, value: float) -> str:
    """Return a value in the unit of its column."""
    if column.dates:
        try:
            moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=float(value))
            return str(moment.astimezone(_zone(column.zone)) if column.zone else moment.replace(tzinfo=None))
        except OverflowError:  # a draw beyond the years 1 to 9999
            return f"{value:.7g} days since 1970"
    return column.code(float(value)) if column.classes else f"{value:.7g}"


def _zone(name: str) -> dt.tzinfo:
    """Return a time zone by its name, or by its offset from Universal Time, such as +02:00."""
    offset = name.removeprefix("UTC")
    return dt.datetime.fromisoformat(f"2000-01-01T00:00{offset}").tzinfo or dt.UTC if offset[:1] in "+-" else ZoneInfo(name)
