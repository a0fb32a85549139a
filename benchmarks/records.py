"""The files of results: JSON with one record a line, so that a figure that changes is a line that changes.

A record is a dict or a list that holds no other dict, such as {"nats": -1.03, "ahead": [0.02, 0.01]}. What holds records is
indented, by one space a level. As everywhere in Python, infinities and NaN are Infinity and NaN.
"""

import json
from pathlib import Path
from typing import Any


def read(file: Path) -> Any:
    """What a file holds; an empty dict where there is none yet."""
    return json.loads(file.read_text()) if file.exists() else {}


def write(file: Path, found: dict | list) -> None:
    file.write_text(as_text(found) + "\n")


def as_text(found: dict | list) -> str:
    return indented(json.loads(json.dumps(found)), "\n")  # there and back, for keys that are numbers, and tuples


def indented(each: Any, newline: str) -> str:
    if not holds_dicts(each):
        return json.dumps(each)
    inner = newline + " "
    if isinstance(each, dict):
        lines = [f"{json.dumps(key)}: {indented(value, inner)}" for key, value in each.items()]
        return "{" + inner + f",{inner}".join(lines) + newline + "}"
    return "[" + inner + f",{inner}".join(indented(value, inner) for value in each) + newline + "]"


def holds_dicts(each: Any) -> bool:
    values = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    return any(isinstance(value, dict) or holds_dicts(value) for value in values)
