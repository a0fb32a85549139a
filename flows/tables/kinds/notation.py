"""How people write numbers and dates as text: 1.234,5 €, (1,234.50), 45%, 16.08.2023; read, guessed, and written again.

A notation of numbers is the text of one number, 1234.5: its marks, its currency or unit, its brackets. Columns of files are
text of polars, without spaces around it: they become values of a kind, or as they suggest, with null where text is not a value.
"""

import datetime as dt
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError

EXAMPLE = re.compile(r"([(]?)(\D*)1(\D?)234(?:([.,])(0|50*))?(\D*?)([)]?)")
SIGN, MINUS = "[-+\u2212]?", "-\u2212"
POWER = r"(?:[eE][-+]?\d+)?"
BODY = rf"(?:(?:\d[\d.,'\u2019 \u00a0\u2009\u202f]*)?\d|[.,]\d+){POWER}"
NUMBER = re.compile(rf"([(]?)({SIGN})([^\d.,()+\u2212-]*)({SIGN})({BODY})([^\d()+\u2212]*)([)]?)")
THOUSANDS, MARKS = ("", ",", ".", " ", "\u00a0", "\u2009", "\u202f", "'", "\u2019"), ".,"
CURRENCY = re.compile(r"([A-Z]{1,3})?\s?\$|[A-Z]{3}|[Kk]r[.]?|R[sp][.]?|Fr[.]?|z\u0142|K\u010d|Ft|lei")  # or a symbol
UNIT = re.compile(r"[%\u2030]|[^\W\d_][^\d_\s]{0,7}|[\u00b0][^\W\d_]?")
ODD = 0.01  # of the distinct texts of a column: the share that may be mistyped
LEAST_ODD = 20  # distinct numbers above which one text may be mistyped
STRADDLES = 0.05  # of numbers with a mark and three digits behind: the share without a mark from which it sets thousands apart

DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *(
        "%d/%m/%y",
        "%m/%d/%y",
        "%d-%m-%y",
        "%m-%d-%y",
        "%d. %m. %Y",
        "%d %b %Y",
        "%d %B %Y",
        "%d-%b-%Y",
        "%b %d, %Y",
        "%B %d, %Y",
    ),
)
CLOCKS = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
FIRST = 20  # texts that leave few formats, before all are read
MANY = 1_000  # texts that are written again, to see whether zeros stand in front

CODE = r"^[+-]?(0\d|\d{20})"  # such as 007, whose zeros a number would lose, or its last digits
GROUPS = r"^[+-]?[1-9]\d{0,2}[.]\d{3}$"  # one number of thousands, or one with three digits behind the point
TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"
ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Notation:
    """A way to write numbers.

    Attributes:
        before, after: a currency or a unit, with its space.
        thousands: the mark between groups of three digits; "" without one.
        mark: the decimal mark; "" where there is none.
        digits: behind the decimal mark; None for as many as a number needs.
        brackets: whether a negative number stands in brackets.
    """

    before: str = ""
    after: str = ""
    thousands: str = ""
    mark: str = ""
    digits: int | None = None
    brackets: bool = False

    @classmethod
    def of(cls, example: Any, what: str = "") -> "Notation":
        """Return the notation of a text of 1234.5; refuse another text."""
        match = EXAMPLE.fullmatch(example) if isinstance(example, str) else None
        if match is None or bool(match[1]) != bool(match[7]) or (match[3] and match[3] == match[4]):
            expected = "expected the number 1234.5 as people write it, such as '1.234,5 €'"
            raise FlowsError(f"{what}: text is {example!r:.60}; {expected}")
        digits = None if match[5] in (None, "5") else len(match[5])
        return cls(match[2], match[6], match[3], match[4] or "", digits, bool(match[1]))

    @property
    def example(self) -> str:
        """The text of 1234.5; a 0 at its end says that all numbers have as many digits behind the mark."""
        decimals = "5" if self.digits is None else "0" if self.digits == 1 else "5".ljust(self.digits, "0")
        text = f"{self.before}1{self.thousands}234{self.mark}{decimals if self.mark else ''}{self.after}"
        return f"({text})" if self.brackets else text

    @cached_property
    def body_pattern(self) -> re.Pattern[str]:
        mark = re.escape(self.mark)
        grouped = rf"[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+|" if self.thousands else ""
        return re.compile(rf"(?:(?:{grouped}\d+)(?:{mark}\d+)?|{mark}\d+){POWER}" if mark else rf"(?:{grouped}\d+){POWER}")

    def number(self, text: str) -> float:
        """Return the number that a text is; NaN where it is not one in this notation."""
        parts = NUMBER.fullmatch(text.strip())
        if parts is None or bool(parts[1]) != bool(parts[7]) or (parts[1] and parts[2] + parts[4]):
            return np.nan
        if (_spaced(parts[3]), _spaced(parts[6])) != (_spaced(self.before), _spaced(self.after)):
            return np.nan
        if not self.body_pattern.fullmatch(parts[5]):
            return np.nan
        body = parts[5].replace(self.thousands, "") if self.thousands else parts[5]
        number = float(body.replace(self.mark, ".") if self.mark else body)
        return -number if parts[1] or (parts[2] + parts[4]) in tuple(MINUS) else number

    def numbers(self, texts: Iterable[str]) -> np.ndarray:
        """Return the numbers that texts are, NaN where one is not."""
        return np.array([self.number(text) for text in texts], np.float64)

    def text(self, number: float, digits: int | None) -> str:
        """Return a number as text, with at most these digits behind the mark, and with all that differ where None."""
        digits = self.digits if self.mark and self.digits is not None else digits
        plain = np.format_float_positional(abs(number), trim="-") if digits is None else f"{abs(number):.{digits}f}"
        whole, _, decimals = plain.partition(".")
        decimals = decimals if self.digits is not None else decimals.rstrip("0")
        grouped = f"{int(whole):,}".replace(",", self.thousands)
        body = f"{self.before}{grouped}{(self.mark or '.') + decimals if decimals else ''}{self.after}"
        if not number < 0 or not re.search("[1-9]", whole + decimals):
            return body
        return f"({body})" if self.brackets else f"-{body}"


def check_text(kind: str, text: Any) -> None:
    if text is not None:
        Notation.of(text, kind)


def _spaced(text: str) -> str:
    """Return a text with plain spaces."""
    return re.sub(r"\s", " ", text)


class Reading(NamedTuple):
    """How the texts of a column can be read.

    Attributes:
        ways: examples of notations, or formats of dates; several where texts leave the way open, none where they are neither.
        odd: a text that cannot be read, where nearly all others can.
    """

    ways: tuple[str, ...] = ()
    odd: str | None = None


def numbers_in(texts: Sequence[str]) -> Reading:
    """Find how numbers are written in distinct texts: one currency or unit, one decimal mark, one mark of thousands."""
    parts = [NUMBER.fullmatch(text.strip()) for text in texts]
    around = Counter((_spaced(match[3]), _spaced(match[6])) for match in parts if match)
    if not around:
        return Reading()
    (before, after), _ = around.most_common(1)[0]
    inside = {
        text: match
        for text, match in zip(texts, parts, strict=True)
        if match and (_spaced(match[3]), _spaced(match[6])) == (before, after) and bool(match[1]) == bool(match[7])
    }
    bodies = [match[5] for match in inside.values()]
    if not _is_around(before, after) or any(re.match(r"0\d|.*\d{16}", body) for body in bodies):
        return Reading()  # codes and identifiers
    some = next(iter(inside.values()))
    ways = [Notation(some[3], some[6], thousands, mark) for thousands, mark in _marks(bodies)]
    reads = {way: int(sum(way.body_pattern.fullmatch(body) is not None for body in bodies)) for way in ways}
    most = max(reads.values(), default=0)
    ways = [way for way in ways if reads[way] == most and most]
    if not ways or len(texts) - most > (max(1, ODD * len(texts)) if len(texts) > LEAST_ODD else 0):
        return Reading()
    odd = next((text for text in texts if np.isnan(ways[0].number(text))), None)
    brackets = any(match[1] for match in inside.values())
    ways = _likelier(ways, bodies, is_money=_is_currency(before.strip()) or _is_currency(after.strip()))
    return Reading(tuple(replace(way, digits=_digits(way, bodies), brackets=brackets).example for way in ways), odd)


def _is_around(before: str, after: str) -> bool:
    before, after = before.strip(), after.strip()
    return (not before or _is_currency(before)) and (not after or _is_currency(after) or UNIT.fullmatch(after) is not None)


def _is_currency(text: str) -> bool:
    return CURRENCY.fullmatch(text) is not None or (len(text) == 1 and unicodedata.category(text) == "Sc")


def _marks(bodies: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of the marks of thousands and decimals that occur in numbers."""
    there = {mark for mark in (*THOUSANDS, *MARKS) if mark and any(mark in body for body in bodies)}
    return [
        (thousands, mark)
        for thousands in THOUSANDS
        for mark in ("", *MARKS)
        if {thousands, mark} - {""} == there and (thousands != mark or not mark)
    ]


def _likelier(ways: list[Notation], bodies: Sequence[str], is_money: bool) -> list[Notation]:
    """Decide whether a mark that always has three digits behind it sets thousands or decimals apart, where that shows."""
    if len(ways) < 2:
        return ways
    point, thousands = sorted(ways, key=lambda way: way.thousands)
    marked = [body for body in bodies if thousands.thousands in body]
    plain = [body for body in bodies if thousands.thousands not in body]
    if any(len(body) > 3 for body in plain):  # 1200 next to 1,234
        return [point] if point.mark == "." else [thousands, point]
    if plain and len(marked) > 1 and len(plain) >= STRADDLES * len(bodies):
        zeros = any(body.endswith("0") for body in marked)
        return [thousands] if point.mark == "," or zeros else [point]
    if is_money:
        return [thousands]
    return [point] if point.mark == "." else [thousands, point]


def _digits(way: Notation, bodies: Sequence[str]) -> int | None:
    """Return how many digits stand behind the mark of all numbers; None where they differ."""
    lengths = {len(body.partition(way.mark)[2]) if way.mark in body else 0 for body in bodies} if way.mark else {0}
    return lengths.pop() or None if len(lengths) == 1 else None


def dates_in(texts: Sequence[str]) -> Reading:
    """Find the formats of strftime in which all of distinct texts are dates; two where the order of day and month is open."""
    ways = [date + clock for date in DATES for clock in CLOCKS]
    for some in (texts[:FIRST], texts):
        ways = [way for way in ways if all(fits(text.strip(), way) for text in some)]
    return Reading(tuple(_unpadded(way, texts) for way in ways))


def fits(text: str, written: str) -> bool:
    """Tell whether a text is a date in a format."""
    try:
        dt.datetime.strptime(text, plain_format(written))
    except ValueError:
        return False
    return True


def _unpadded(way: str, texts: Sequence[str]) -> str:
    """Return a format without zeros in front of days and months, or of hours, where texts have none."""
    some = [(text.strip(), dt.datetime.strptime(text.strip(), way)) for text in texts[:MANY]]
    short = {codes: re.sub(f"%[{codes}]", lambda match: f"%-{match[0][1]}", way) for codes in ("dm", "HI", "dmHI")}
    fit = (form for form in (way, *short.values()) if all(date_text(time, form).lower() == text.lower() for text, time in some))
    return next(fit, way)


def plain_format(written: str) -> str:
    """Return a format for reading, which takes numbers with zeros in front and without."""
    return written.replace("%-", "%")


def date_text(time: dt.datetime, written: str) -> str:
    """Return a time as text, with years of four digits, which strftime does not write on all systems."""
    text = written.replace("%Y", f"{time.year:04d}")
    text = re.sub("%-([dmHI])", lambda match: str(int(time.strftime(f"%{match[1]}"))), text)
    return time.strftime(text)


def guessed(text: Any) -> Any | None:
    """Values of True and False, whole numbers, numbers, dates or times of ISO 8601, if there is nothing else; else None."""
    if text.null_count() < len(text):
        for parse in (booleans, times) if holds_codes(text) or _sets_thousands_apart(text) else (booleans, numbers, times):
            values = parse(text)
            if values.null_count() == text.null_count():
                return values
    return None


def holds_codes(text: Any) -> bool:
    """Tell whether a value has digits that a number would lose."""
    return bool((text.str.contains(CODE) & ~text.str.contains(r"[.eE]")).any())


def _sets_thousands_apart(text: Any) -> bool:
    """Tell whether points stand between thousands, as in 950, 1.200 and 12.500."""
    marked = text.filter(text.str.contains(".", literal=True))
    if not len(marked) or not marked.str.contains(GROUPS).all():
        return False
    ways = numbers_in(text.drop_nulls().unique(maintain_order=True).to_list()).ways
    return any(Notation.of(way).thousands for way in ways)


def booleans(text: Any) -> Any:
    return text.str.to_lowercase().replace_strict(WORDS, default=None)


def numbers(text: Any) -> Any:
    """Whole numbers, or numbers where not all are whole."""
    whole = text.cast(int, strict=False)
    return whole if whole.null_count() == text.null_count() else text.cast(float, strict=False)


def times(text: Any) -> Any:
    """Dates, or times with a zone or without."""
    dates = text.str.to_date("%Y-%m-%d", strict=False)
    if dates.null_count() == text.null_count():
        return dates
    matches = text.str.contains(TIME)
    if not (matches | text.is_null()).all():
        return matches.set(~matches, None)  # such a column is refused, by the first value that is not a time
    text = text.str.replace("T", " ").str.replace(r"^(.{16})($|Z|[+-])", "${1}:00${2}")
    if text.str.contains(ZONE).any():
        return text.str.replace("Z$", "+00:00").str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", strict=False, time_unit="us")
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")


PARSERS = {"numbers": numbers, "times": times, "true or false": booleans}
