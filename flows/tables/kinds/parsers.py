"""Text of polars, without spaces around it, as values of a kind, or as its values suggest; null where it is not one."""

from typing import Any

ZERO_FIRST = r"^[+-]?0\d"  # a code, such as 007, whose zeros a number would lose
TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"
ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
WORDS = {"true": True, "false": False}


def guessed(text: Any) -> Any | None:
    """Values of True and False, whole numbers, numbers, dates or times of ISO 8601, if there is nothing else; else None."""
    if text.null_count() < len(text):
        for parse in (booleans, times) if holds_codes(text) else (booleans, numbers, times):
            values = parse(text)
            if values.null_count() == text.null_count():
                return values
    return None


def holds_codes(text: Any) -> bool:
    """Tell whether a value begins with a zero that a number would lose."""
    return bool((text.str.contains(ZERO_FIRST) & ~text.str.contains(r"[.eE]")).any())


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
