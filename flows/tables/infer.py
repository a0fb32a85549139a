"""Kinds of columns as their values suggest, each with the reason."""

import decimal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from flows.core import boolean, warn_user
from flows.results.frames import SHOWN, Frame, looked_at
from flows.tables.fields import CellError, Field, names_of
from flows.tables.kinds import Category, Constant, DateTime, Ignored, Integer, Kind, Ordinal, Real, number
from flows.tables.kinds.base import as_plain
from flows.tables.kinds.category import PLAIN
from flows.tables.kinds.date import ends_of_dates
from flows.tables.kinds.dtypes import described, factorized, is_date, names_among, row_of, values_of
from flows.tables.kinds.ends import ends_that_show
from flows.tables.kinds.notation import Notation, dates_in, numbers_in
from flows.tables.schema import Schema
from flows.training.data.rounding import ATOM, LEAST_TIES, step_of
from flows.training.data.table import DataWarning

MOST_TEXTS = 500  # values of text that are categories
MOST_OF_ROWS = 0.5  # the same, as a share of the rows
MOST_LEVELS = 20  # numbers that are categories, each in this many rows or more:
ROWS_OF_LEVEL = 5
FAR_ABOVE = 100  # times the least value that the largest is, where 0 may be the end
MOST_WHOLE = 2.0**53  # below which float64 has all whole numbers
LONG = 8  # digits after the point from which a step is not a decimal
SLACK = 1e-6  # of a step, by which the step with all digits may differ


def infer_schema(frame: Any, condition: Sequence[Any] = (), *, ends: bool = True) -> Schema:
    """The schema that the columns of a frame suggest, fitted to it. It prints as a table: column, kind, why.

    - Text, booleans and categorical dtypes are a `Category`, in which a gap is a value like others; text of more than 500
      values, or of more than half as many as there are rows, is `Ignored`. An ordered dtype of pandas is an `Ordinal`.
    - Text that is numbers, such as "$1,234" or "180,3", is `Real` or `Integer` with `text=`, and text that is dates `DateTime`
      with `format=`; draws are text again. Text that can be read in two ways, such as 01/02/2024 alone, is `Ignored`.
    - Whole numbers that span 2^60 or more, or reach 2^63, as identifiers and hashes do, are names: `Ignored`, or a `Category`
      where there are at most 20.
    - Numbers of at most 20 values, each in 5 rows or more, are a `Category` too. Other whole numbers are `Integer`, other
      numbers `Real`, with the step to which they are rounded, if that shows. Durations are `Real`, in seconds.
    - `low=0` where nothing is negative, the least value is at most a hundredth of the largest, and 0 itself occurs only if
      there is a step. From 500 rows on, other ends are guessed where they show: rows do not become rare towards a round number,
      such as minute 1439, or a value of 5 rows. An angle never is: `schema.replace({name: tables.Circular(360)})`.
    - Dates and times are `DateTime`; from 1,000 rows on with ends where they begin or end abruptly.
    - The condition has no ends but 0. A column of one value is a `Constant`; any other column is `Ignored`.

    A value that repeats in a column without a step, as zeros among 0.0173 and 2.4481, brings a warning (`DataWarning`), and so
    does a column that is left out.

    Args:
        frame: of pandas, polars, pyarrow, or another library that narwhals knows; one that is lazy is collected.
        condition: names of columns on which the density of the others depends.
        ends: guess ends that show, beyond which rows are then refused; False where later rows may lie beyond.

    Errors:
        FlowsError: columns of one name, no rows, a number that is not finite, a condition that is not a column. TypeError: not
            a frame, or text among numbers.

    Example:
        >>> import pandas
        >>> from flows import tables
        >>> frame = pandas.DataFrame({"age": [31, 64, 18, 25], "town": ["Bonn", "Oslo", "Bonn", "Oslo"], "unit": "kg"})
        >>> tables.infer_schema(frame)
        column  kind                               why
        age     Integer()                          whole numbers
        town    Category(values=('Bonn', 'Oslo'))  2 values of text
        unit    Constant(value='kg')               one value in all rows
    """
    table = looked_at(frame, "infer_schema")
    guesses = {name: _guessed(name, table.column(name)) for name in table.places}
    apart = names_of(condition) if boolean(ends, "infer_schema: ends") else tuple(guesses)
    guesses |= {name: guess.with_ends() for name, guess in guesses.items() if name not in apart}
    return _fitted(table, guesses, condition, "infer_schema")


def schema_of_numbers(frame: Any, what: str) -> Schema:
    """The schema of a frame of numbers that have no meaning but their size, as arrays hold them: each column is `Real`, with
    the step that shows, or a `Constant`; no codes, and no ends."""
    table, guesses = looked_at(frame, what), dict[str, Guess]()
    for name in table.places:
        values, _ = values_of(name, table.column(name), what)
        values = values[np.isfinite(values)]  # others are refused where they are encoded
        levels, counts = np.unique(values, return_counts=True)
        step = _step(values, levels) if len(levels) > 1 else None
        spike = _spike(levels, counts) if len(levels) > 1 and step is None else ""
        guesses[name] = _constant(levels[0].item()) if len(levels) == 1 else Guess(Real(step=step), "numbers", spike)
    return _fitted(table, guesses, (), what)


def _fitted(table: Frame, guesses: Mapping[str, "Guess"], condition: Sequence[Any], what: str) -> Schema:
    if spikes := [f"column {name!r} {guess.spike}" for name, guess in guesses.items() if guess.spike]:
        more = f" and {len(spikes) - SHOWN} columns more" if len(spikes) > SHOWN else ""
        warn_user(
            f"{what}: {'; '.join(spikes[:SHOWN])}{more}, and shows no step. A density is unbounded on values that "
            "repeat, so a better fit may not be a better model. Give the step to which values are to be rounded: "
            "schema.replace({name: tables.Real(step=...)})",
            DataWarning,
        )
    left_out = {name: guess for name, guess in guesses.items() if guess.unread or not guess.kind.is_read}
    if unread := [f"{name!r} ({guess.unread or guess.why})" for name, guess in left_out.items()]:
        more = f"; and {len(unread) - SHOWN} columns more" if len(unread) > SHOWN else ""
        warn_user(
            f"{what}: not read as numbers, dates or categories: {'; '.join(unread[:SHOWN])}{more}. Drop such columns, or say "
            "what they hold: schema.replace({name: kind})",
            DataWarning,
        )
    fields = {name: Field(guess.kind, name, why=guess.why) for name, guess in guesses.items()}
    return Schema.made(fields, names_of(condition), None).fitted(table)


class Guess(NamedTuple):
    """A kind and the reason.

    Attributes:
        spike: what a warning says of a value that repeats.
        unread: what a warning says of texts that cannot be read; of a column that is left out it says the reason.
        ends: that show, as a low and a high one.
    """

    kind: Kind
    why: str
    spike: str = ""
    unread: str = ""
    ends: tuple[Any, ...] = (None, None)

    def with_ends(self) -> "Guess":
        ends = {name: end for name, end in zip(("low", "high"), self.ends, strict=True) if end is not None}
        more = f", not rarer next to {' and '.join(map(str, ends.values()))}" if ends else ""
        return self._replace(kind=replace(self.kind, **ends), why=self.why + more)  # type: ignore[type-var]


def _guessed(name: str, column: Any) -> Guess:
    """Guess what a column holds."""
    dtype = str(column.dtype)
    if column.dtype.is_numeric():
        return _number(name, column)
    if column.dtype.is_nested() or dtype in ("Binary", "Time"):
        return Guess(Ignored(), f"holds {dtype}")
    try:
        places, values = factorized(column)
    except TypeError:  # objects that cannot be compared
        return Guess(Ignored(), f"holds {dtype}")
    gaps = bool((places < 0).any())
    if len(values) + gaps == 1:
        return _constant(as_plain(values[0]) if values else None)
    if is_date(native := described(column)):
        return Guess(DateTime(), "times", ends=ends_of_dates(name, Field(DateTime()), column, "infer_schema"))
    if dtype.startswith("Duration"):
        return _number(name, column)
    ordered = isinstance(native, dict) and bool(native.get("ordered"))
    return _guessed_by_values(name, column, ordered, places, values, gaps)


def _constant(value: Any) -> Guess:
    if value is not None and not isinstance(value, str | bool | int | float):
        return Guess(Ignored(), f"holds {type(value).__name__}")
    return Guess(Constant(value), "no value in any row" if value is None else "one value in all rows")


def _guessed_by_values(name: str, column: Any, ordered: bool, places: np.ndarray, values: list[Any], gaps: bool) -> Guess:
    """Guess what a column holds by its values, as its dtype is neither one of numbers nor one of times."""
    odd = next((value for value in values if not isinstance(value, PLAIN)), None)
    if odd is not None and not isinstance(odd, decimal.Decimal):
        return Guess(Ignored(), f"holds {type(odd).__name__}")
    texts = np.array([isinstance(value, str) for value in values])
    count = f"{len(values):,} values{' and gaps' * gaps}"
    if ordered:
        return Guess(Ordinal(), f"{count} of an ordered dtype")
    if str(column.dtype).startswith(("Categorical", "Enum")):
        return Guess(Category(), f"{count} of a categorical dtype")
    if all(isinstance(value, bool | np.bool_) for value in values):
        return Guess(Category(), f"true or false{', and gaps' * gaps}")
    if not texts.any():
        return _number(name, column)
    if not texts.all():
        row = int(np.append(texts, False)[places].argmax())
        raise TypeError(
            f"infer_schema: column {name!r}, {row_of(column, row)}, is {values[places[row]]!r:.60}, in a column with numbers; "
            "expected numbers, or text. Make it a gap (None), or turn all of them into text"
        )
    return _written(name, column, places, values) or Guess(Category(), f"{count} of text")


def _written(name: str, column: Any, places: np.ndarray, texts: list[str]) -> Guess | None:
    """Guess what texts are: numbers or dates as people write them, or more than there are categories; None for categories."""
    present = places[places >= 0]
    if len(texts) <= MOST_LEVELS and np.bincount(present).min() >= ROWS_OF_LEVEL:
        return None
    known, texts = texts, [texts[place] for place in present[np.sort(np.unique(present, return_index=True)[1])]]
    count, is_long = f"{len(texts):,} texts in {len(places):,} rows", len(texts) > min(MOST_TEXTS, MOST_OF_ROWS * len(places))
    for reading, kind in ((numbers_in(texts), "Real(text={!r})"), (dates_in(texts), "DateTime(format={!r})")):
        if len(reading.ways) > 1:
            ways = " or ".join(map(kind.format, reading.ways))
            return Guess(Ignored(), f"{count}, {ways}", unread=f"texts such as {texts[0]!r} that can be read as {ways}")
        if reading.odd is not None:
            row = int((places == known.index(reading.odd)).argmax())
            what = "dates" if kind.startswith("Date") else "numbers"
            unread = f"{what} but for {reading.odd!r:.60} in {row_of(column, row)}, which is to be corrected, or to be a gap"
            return Guess(Ignored() if is_long else Category(), count, unread=unread)
        if reading.ways and kind.startswith("Date"):
            dates = DateTime(format=reading.ways[0])
            return Guess(dates, f"dates such as {texts[0]!r}", ends=ends_of_dates(name, Field(dates), column, "infer_schema"))
        if reading.ways:
            values = np.append(Notation.of(reading.ways[0]).numbers(known), np.nan)[places]
            guess = _number_of(name, column, values, places < 0, reading.ways[0])
            return guess._replace(why=f"text such as {texts[0]!r:.30}, {guess.why}")
    if not is_long:
        return None
    digits = [text for text in texts if any(character.isdigit() for character in text)]
    if any(" " in text.strip() for text in texts) and 2 * len(digits) < len(texts):
        return Guess(Ignored(), count, unread=f"{count}, such as free text has")
    shown = ", ".join(f"{text!r:.30}" for text in (digits or texts)[:3])
    return Guess(Ignored(), count, unread=f"{count}, such as {shown}: identifiers, or numbers that cannot be read")


def _number(name: str, column: Any) -> Guess:
    """Guess what numbers are: one value, few of them, names, whole ones, or others, with their step."""
    if (distinct := names_among(column)) > MOST_LEVELS:
        return Guess(Ignored(), f"{distinct:,} whole numbers that are names, not counts")
    if distinct > 1:
        return Guess(Category(), f"{distinct} whole numbers that are names, not counts")
    values, missing = values_of(name, column, "infer_schema")
    return _number_of(name, column, values, missing)


def _number_of(name: str, column: Any, values: np.ndarray, missing: np.ndarray, text: str | None = None) -> Guess:
    """Guess what these values are, which people may have written as text."""
    there, is_duration = values[~missing], str(column.dtype).startswith("Duration")
    infinite = np.isinf(there)
    if infinite.any():
        row = int(np.flatnonzero(~missing)[infinite.argmax()])
        said = f"is {values[row]}; expected finite numbers"
        raise CellError.at("infer_schema", name, column, row, said, "Drop such rows, or make it a gap (None)")
    levels, counts = np.unique(there, return_counts=True)
    if len(levels) + missing.any() <= 1:
        return _constant(levels[0].item() if len(levels) else None)
    if len(levels) <= MOST_LEVELS and counts.min() >= ROWS_OF_LEVEL and not is_duration and text is None:
        gaps = ", and gaps" if missing.any() else ""
        return Guess(Category(), f"{len(levels)} numbers, each in {ROWS_OF_LEVEL} rows or more{gaps}")
    step = _step(there, levels, is_duration)
    whole = not is_duration and _are_whole(levels)
    why = "whole numbers" if whole else "numbers" if step is None else f"numbers in steps of {step:.6g}"
    low = None
    if levels[0] >= 0 and FAR_ABOVE * float(levels[0]) <= levels[-1] and (step is not None or levels[0] > 0):
        low = 0
        why += ", none is negative and some are near 0"
    ends = ends_that_show(levels, counts, step)
    ends = None if low == 0 else ends[0], ends[1]
    if whole:
        return Guess(Integer(low=low, text=text), why, ends=tuple(end if end is None else round(end) for end in ends))
    spike = _spike(levels, counts) if step is None else ""
    return Guess(Real(low=low, step=step, text=text), why + (f"; {spike}" if spike else ""), spike, ends=ends)


def _are_whole(levels: np.ndarray) -> bool:
    return levels.dtype.kind == "i" or bool((levels == np.rint(levels)).all() and np.abs(levels).max() < MOST_WHOLE)


def _step(values: np.ndarray, levels: np.ndarray, is_duration: bool = False) -> float | None:
    """The step of values that occur at these levels; 1 of whole numbers, None where none shows."""
    if _are_whole(levels) and not is_duration:
        return 1.0
    step = step_of(values)
    return None if step is None else _exact(step, levels)


def _exact(step: float, levels: np.ndarray) -> float:
    """A step of thirds, say, with all digits: `step_of` returns only digits that are certain."""
    if number.decimals_of(step) < LONG:
        return step
    span = float(levels[-1] - levels[0])
    finer = span / max(round(span / step), 1)
    return finer if abs(finer - step) <= SLACK * step else step


def _spike(levels: np.ndarray, counts: np.ndarray) -> str:
    """Find a value that repeats as its neighbours do not."""
    most, rows = int(counts.argmax()), int(counts.sum())
    if counts[most] < LEAST_TIES or counts[most] <= ATOM * rows:
        return ""
    return f"is {levels[most]:.6g} in {counts[most] / rows:.1%} of the rows"
