"""How people write numbers and dates as text: 1.234,5 €, (1,234.50), 45%, 16.08.2023; read, guessed, and written again.

A notation of numbers is the text of one number, 1234.5: its marks, its currency or unit, its brackets. Columns of files are
text of polars, without spaces around it: they become values of a kind, or as they suggest, with null where text is not a value.
"""

import datetime as dt
import decimal
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError

EXAMPLE = re.compile(r"([(]?)([^0-9]*)1([^0-9]?)234(?:([.,])(0|50*))?([^0-9]*?)([)]?)")
POWER = r"(?:[eE][-+][0-9]{1,3})?"
BODY = rf"(?:(?:[0-9][0-9.,'\u2019 \u00a0\u2009\u202f]*)?[0-9]|[.,][0-9]+){POWER}"
SIGN = "[-+\u2212]?"
NUMBER = re.compile(rf"([(]?)({SIGN})([^0-9.,()+\u2212-]*)({SIGN})({BODY})([^0-9()+\u2212]*)([)]?)")
SIGNS = {"": 1, "+": 1, "-": -1, "\u2212": -1}
THOUSANDS, MARKS = ("", ",", ".", " ", "\u00a0", "\u2009", "\u202f", "'", "\u2019"), ".,"
DOLLARS = re.compile(r"([A-Z]{1,3})?\s?\$|\u00a3")  # of which thousands have a comma
CODES = (  # ISO 4217, of the currencies that are traded most
    "AED AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW MXN MYR NGN NOK NZD PEN PHP "
    "PKR PLN RON RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR"
)
NAMES = {*CODES.split(), "kr", "kr.", "Kr", "Kr.", "Rs", "Rs.", "Rp", "Fr", "Fr.", "z\u0142", "K\u010d", "Ft", "lei"}
UNIT = re.compile(r"[%\u2030]|\u00b0[^\W\d_]?|[^\W\d_](?:[^\W\d_]|[\u00b2\u00b3/.\u00b7^-]){0,7}")
LETTERS = "mgshkKMVALlCFt\u00b5\u03bc"  # that are units where they stand at the number
NO_UNITS = {"am", "pm", "a.m.", "p.m.", "st", "nd", "rd", "th", "e", "x"}
NUMERIC = int | float | np.number | decimal.Decimal
LONG = 15  # digits, from which a number would lose some
ODD = 0.05  # of the distinct texts of a column: the share that may be mistyped
LEAST_ODD = 20  # distinct texts above which one may be mistyped
STRADDLES = 0.05  # of numbers with a mark and three digits behind: the share without a mark from which it sets thousands apart

DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d. %m. %Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
NAMED = ("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
SHORT = ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d")
CLOCKS = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
LAST = 2040  # year, after which the century of a year of two digits is open
FIRST = 200  # texts that leave few formats, before all are read
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
        if match is not None and bool(match[1]) == bool(match[7]) and match[3] in THOUSANDS and match[3] != (match[4] or None):
            digits = None if match[5] in (None, "5") else len(match[5])
            notation = cls(match[2], match[6], match[3], match[4] or "", digits, bool(match[1]))
            if abs(notation.number(example)) in (1234, 1234.5):
                return notation
        expected = "expected the number 1234.5 as people write it, such as '1.234,5 €'"
        raise FlowsError(f"{what}: text is {example!r:.60}; {expected}")

    @property
    def example(self) -> str:
        """The text of 1234.5; a 0 at its end says that all numbers have as many digits behind the mark."""
        decimals = "5" if self.digits is None else "0" if self.digits == 1 else "5".ljust(self.digits, "0")
        text = f"{self.before}1{self.thousands}234{self.mark}{decimals if self.mark else ''}{self.after}"
        return f"({text})" if self.brackets else text

    @property
    def decimal(self) -> str:
        """The decimal mark, if a number without one needs it."""
        return self.mark or ("," if self.thousands == "." else ".")

    @cached_property
    def body_pattern(self) -> re.Pattern[str]:
        mark = re.escape(self.decimal)
        grouped = rf"[1-9][0-9]{{0,2}}(?:{re.escape(self.thousands)}[0-9]{{3}})+|" if self.thousands else ""
        return re.compile(rf"(?:(?:{grouped}[0-9]+)(?:{mark}[0-9]+)?|{mark}[0-9]+){POWER}")

    def number(self, text: str) -> float:
        """Return the number that a text is; NaN where it is not one in this notation."""
        parts = Parts.of(text)
        around = _spaced(self.before), _spaced(self.after)
        if parts is None or (parts.before, parts.after) != around or not self.body_pattern.fullmatch(parts.body):
            return np.nan
        body = parts.body.replace(self.thousands, "") if self.thousands else parts.body
        return parts.sign * float(body.replace(self.decimal, "."))

    def numbers(self, values: Iterable[Any]) -> np.ndarray:
        """Return the numbers that texts are, NaN where one is not; numbers are taken as they are."""
        known = [x if isinstance(x, NUMERIC) else self.number(x) if isinstance(x, str) else np.nan for x in values]
        return np.array(known, np.float64)

    def text(self, number: float, digits: int | None) -> str:
        """Return a number as text, with at most these digits behind the mark, and with all that differ where None."""
        digits = self.digits if self.mark and self.digits is not None else digits
        plain = np.format_float_positional(abs(number), trim="-") if digits is None else f"{abs(number):.{digits}f}"
        whole, _, decimals = plain.partition(".")
        decimals = decimals if self.digits is not None else decimals.rstrip("0")
        grouped = f"{int(whole):,}".replace(",", self.thousands)
        body = f"{self.before}{grouped}{self.decimal + decimals if decimals else ''}{self.after}"
        if not number < 0 or not re.search("[1-9]", whole + decimals):
            return body
        return f"({body})" if self.brackets else f"-{body}"


def check_text(kind: str, text: Any) -> None:
    if text is not None:
        Notation.of(text, kind)


def _spaced(text: str) -> str:
    """Return a text with plain spaces."""
    return re.sub(r"\s", " ", text)


class Parts(NamedTuple):
    """A text that may be a number: its sign, what stands around it, with plain spaces, its digits and marks."""

    sign: int
    before: str
    after: str
    body: str
    brackets: bool

    @classmethod
    def of(cls, text: str) -> "Parts | None":
        match = NUMBER.fullmatch(text.strip())
        if match is None or bool(match[1]) != bool(match[7]):
            return None
        sign = SIGNS.get(match[2] + match[4])  # at most one, and after letters only behind a space
        if sign is None or (match[1] and match[2] + match[4]) or (match[4] and match[3][-1:].isalpha()):
            return None
        return cls(-1 if match[1] else sign, _spaced(match[3]), _spaced(match[6]), match[5], bool(match[1]))


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
    parts = {text: part for text in texts if (part := Parts.of(text))}
    around = Counter((part.before, part.after) for part in parts.values())
    if not around:
        return Reading()
    (before, after), _ = around.most_common(1)[0]
    inside = {text: part for text, part in parts.items() if (part.before, part.after) == (before, after)}
    bodies = [part.body for part in inside.values()]
    brackets = [part.brackets for part in inside.values()]
    if not _is_around(before, after) or all(brackets) or _are_codes(list(inside), bodies):
        return Reading()
    match = NUMBER.fullmatch(next(iter(inside)).strip())
    ways = [Notation(match[3], match[6], *marks) for marks in _marks(bodies)] if match else []
    reads = {way: sum(way.body_pattern.fullmatch(body) is not None for body in bodies) for way in ways}
    most = max(reads.values(), default=0)
    ways = [way for way in ways if reads[way] == most and most]
    if not ways or len(texts) - most > _may_be_odd(len(texts)):
        return Reading()
    odd = next((text for text in texts if np.isnan(ways[0].number(text))), None)
    ways = _likelier(ways, bodies, before.strip() or after.strip())
    return Reading(tuple(replace(way, digits=_digits(way, bodies), brackets=any(brackets)).example for way in ways), odd)


def _may_be_odd(count: int) -> float:
    return max(1, ODD * count) if count > LEAST_ODD else 0


def _is_around(before: str, after: str) -> bool:
    """Tell whether a currency stands in front, or a currency or a unit behind; letters are apart, or ids would be numbers."""
    if before and not (_is_currency(before.strip()) and not before[-1].isalpha()):
        return False
    unit = after.strip()
    if not unit or _is_currency(unit):
        return True
    alone = len(unit) == 1 and unit.isalpha() and unit not in LETTERS
    lettered = all(not sign.isnumeric() or unit[i - 1 : i].isalpha() for i, sign in enumerate(unit))
    return UNIT.fullmatch(unit) is not None and not alone and lettered and unit.lower() not in NO_UNITS


def _is_currency(text: str) -> bool:
    is_symbol = len(text) == 1 and unicodedata.category(text) == "Sc"
    return is_symbol or text in NAMES or DOLLARS.fullmatch(text) is not None


def _are_codes(texts: Sequence[str], bodies: Sequence[str]) -> bool:
    """Tell whether texts are codes, phone numbers or addresses: with a zero in front, many digits, or groups of one number."""
    groups = [re.split("[^0-9]", body) for body in bodies]
    alike = len(groups[0]) > 2 and all(len(group) == len(groups[0]) and len(group[0]) == 3 for group in groups)
    long = any(re.match("0[0-9]", body) or sum(map(len, group)) > LONG for body, group in zip(bodies, groups, strict=True))
    return long or (alike and len(bodies) > 1) or all(text.strip().startswith("+") for text in texts)


def _marks(bodies: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of the marks of thousands and decimals that occur in numbers."""
    there = {mark for mark in (*THOUSANDS, *MARKS) if mark and any(mark in body for body in bodies)}
    return [
        (thousands, mark)
        for thousands in THOUSANDS
        for mark in ("", *MARKS)
        if {thousands, mark} - {""} == there and (thousands != mark or not mark)
    ]


def _likelier(ways: list[Notation], bodies: Sequence[str], around: str) -> list[Notation]:
    """Decide whether a mark that always has three digits behind it sets thousands or decimals apart, where that shows."""
    if len(ways) < 2:
        return ways
    point, thousands = sorted(ways, key=lambda way: way.thousands)
    marked = [body for body in bodies if thousands.thousands in body]
    plain = [body for body in bodies if thousands.thousands not in body]
    if any(len(body) > 3 for body in plain):  # 1200 next to 1,234
        return [point] if point.mark == "." else [thousands, point]
    if DOLLARS.fullmatch(around):
        return [thousands if point.mark == "," else point]
    if plain and len(bodies) > LEAST_ODD and len(plain) >= STRADDLES * len(bodies):
        zeros = any(body.endswith("0") for body in marked)
        return [thousands] if point.mark == "," or zeros else [point]
    return [point] if point.mark == "." and not around else [thousands, point]


def _digits(way: Notation, bodies: Sequence[str]) -> int | None:
    """Return how many digits stand behind the mark of all numbers; None where they differ."""
    lengths = {len(body.partition(way.mark)[2]) if way.mark in body else 0 for body in bodies} if way.mark else {0}
    return lengths.pop() or None if len(lengths) == 1 else None


def dates_in(texts: Sequence[str]) -> Reading:
    """Find the formats of strftime in which distinct texts are dates; several where the order of day and month is open."""
    readings = dict[tuple[Any, ...], tuple[str, str | None]]()
    for way in (date + clock for date in (*DAYS, *NAMED, *SHORT) for clock in CLOCKS):
        if _dates(texts[:FIRST], way) is None or (times := _dates(texts, way)) is None:
            continue
        there = [time for time in times if time is not None]
        if there and not ("%y" in way and max(there).year > LAST):
            dated = [text for text, time in zip(texts, times, strict=True) if time is not None]
            odd = next((text for text, time in zip(texts, times, strict=True) if time is None), None)
            readings.setdefault(tuple(there), (_unpadded(way, dated), odd))
    ways = tuple(way for way, _ in readings.values())
    return Reading(ways, next((odd for _, odd in readings.values() if odd is not None), None))


def _dates(texts: Sequence[str], written: str) -> list[dt.datetime | None] | None:
    """Return the times that texts are in a format, None for a text that is not one; None where many are not."""
    times, left = list[dt.datetime | None](), _may_be_odd(len(texts))
    for text in texts:
        times.append(time_of(text.strip(), written))
        left -= times[-1] is None
        if left < 0:
            return None
    return times


def time_of(text: str, written: str) -> dt.datetime | None:
    """Return the time that a text is in a format; None where it is not one."""
    try:
        return dt.datetime.strptime(text, written.replace("%-", "%"))
    except ValueError:
        return None


def _unpadded(way: str, texts: Sequence[str]) -> str:
    """Return a format without zeros in front of days and months, or of hours, where texts have none."""
    some = [(text.strip(), dt.datetime.strptime(text.strip(), way)) for text in texts[:MANY]]
    short = {codes: re.sub(f"%[{codes}]", lambda match: f"%-{match[0][1]}", way) for codes in ("dm", "HI", "dmHI")}
    fit = (form for form in (way, *short.values()) if all(date_text(time, form).lower() == text.lower() for text, time in some))
    return next(fit, way)


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
