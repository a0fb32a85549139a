"""A schema as JSON, one column a line, which people may edit: errors name the place in the text."""

import dataclasses
import json
import math
from typing import Any

from flows.core import FlowsError
from flows.results.frames import LIBRARIES, listed
from flows.tables.fields import Field
from flows.tables.kinds import KINDS, Kind
from flows.tables.kinds.date import is_iso

VERSION = 1
LEARNT = ("dtype", "least", "largest", "origin", "digits", "why")  # of a field, next to its kind


def to_json(fields: dict[str, Field], condition: tuple[str, ...], library: str | None) -> str:
    """The text of a schema."""
    head = {"version": VERSION, "library": library, "condition": list(condition)}
    lines = [f"{json.dumps(key)}: {_text(value)}" for key, value in head.items()]
    columns = ",\n".join(f"    {_text(_described(field))}" for field in fields.values())
    return "{\n  " + ",\n  ".join(lines) + f',\n  "columns": [\n{columns}\n  ]\n}}\n'


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _described(field: Field) -> dict[str, Any]:
    kind: Any = field.kind
    arguments = {entry.name: getattr(kind, entry.name) for entry in dataclasses.fields(kind)}
    settings = {name: value for name, value in arguments.items() if value is not None or name == "value"}
    learnt = {name: getattr(field, name) for name in LEARNT}
    return {
        "name": _label(field.label),
        "kind": type(kind).__name__,
        **settings,
        **{name: value for name, value in learnt.items() if value not in (None, "")},
    }


def _label(label: Any) -> Any:
    """A name of a column; a list where it has several levels."""
    if isinstance(label, tuple):
        return list(map(_label, label))
    return int(label) if hasattr(label, "__index__") and not isinstance(label, bool) else str(label)


def from_json(text: str) -> tuple[dict[str, Field], tuple[str, ...], str | None]:
    """Columns, condition and library of the text of a schema."""
    if not isinstance(text, str | bytes):
        raise TypeError(f"from_json: a {type(text).__name__} was given; expected text")
    try:
        read = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise FlowsError(f"from_json: line {error.lineno}, column {error.colno}: {error.msg}; expected JSON") from None
    except (ValueError, RecursionError) as error:  # not text, a number of thousands of digits, brackets as deep
        raise FlowsError(f"from_json: the text cannot be read ({error}); expected JSON") from None
    _only(read, ("version", "library", "condition", "columns"), "the text")
    if read.get("version") != VERSION:
        raise FlowsError(f"from_json: version is {read.get('version')!r:.60}; this flows reads {VERSION}")
    library = read.get("library")
    if library is not None and library not in LIBRARIES:
        raise FlowsError(f"from_json: library is {library!r:.60}; expected one of {', '.join(map(repr, LIBRARIES))}, or null")
    columns, condition = read.get("columns"), read.get("condition", [])
    for name, value in (("columns", columns), ("condition", condition)):
        if not isinstance(value, list):
            raise FlowsError(f"from_json: {name} is {value!r:.60}; expected a list")
    fields: dict[str, Field] = {}
    for place, column in enumerate(columns):
        field = _field(column, f"column number {place}")
        if (name := str(field.label)) in fields:
            raise FlowsError(f"from_json: column number {place} has the name {name!r}, as one before; expected each once")
        fields[name] = field
    return fields, tuple(map(str, condition)), library


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FlowsError(f"from_json: {twice!r} occurs twice in {dict(pairs)!r:.100}; expected it once")
    return dict(pairs)


def _only(value: Any, names: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise FlowsError(f"from_json: {where} is {value!r:.60}; expected an object, {{...}}")
    unknown = [name for name in value if name not in names]
    if unknown:
        raise FlowsError(f"from_json: {where} has {listed(unknown)}; expected {', '.join(map(repr, names))}")


def _field(column: Any, where: str) -> Field:
    if not isinstance(column, dict) or "name" not in column:
        raise FlowsError(f"from_json: {where} is {column!r:.60}; expected an object with a name and a kind")
    label = _tuples(column["name"])
    where = f"column {label!r:.60}"
    if not isinstance(column.get("kind"), str) or column["kind"] not in KINDS:
        raise FlowsError(f"from_json: {where} has the kind {column.get('kind')!r:.60}; expected one of {', '.join(KINDS)}")
    make: Any = KINDS[column["kind"]]
    arguments = tuple(entry.name for entry in dataclasses.fields(make))
    _only(column, ("name", "kind", *arguments, *LEARNT), f"{where}, of the kind {make.__name__},")
    try:
        kind = make(**{name: column[name] for name in arguments if name in column})
    except FlowsError as error:
        raise FlowsError(f"from_json: {where}: {error}") from None
    except TypeError:
        raise FlowsError(
            f"from_json: {where}: the kind {make.__name__} lacks an argument; expected {', '.join(arguments)}"
        ) from None
    learnt = {name: column[name] for name in LEARNT if name in column and name not in arguments}
    _check_learnt(kind, learnt, where)
    return Field(kind, label, **learnt)


def _tuples(label: Any) -> Any:
    if isinstance(label, list):
        return tuple(map(_tuples, label))
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise FlowsError(f"from_json: the name of a column is {label!r:.60}; expected text, a whole number, or a list of them")
    return label


def _check_learnt(kind: Kind, learnt: dict[str, Any], where: str) -> None:
    """Refuse what was learnt if it is not of its type."""
    for name, value in learnt.items():
        if value is None:
            continue
        dated = kind.sort == "times" and name in ("least", "largest")
        if dated:
            fits, expected = is_iso(value), "a time in ISO 8601, such as '2024-01-31T12:00:00', or none for a kind that is new"
        elif name in ("least", "largest", "origin"):
            fits, expected = _is_number(value), "a finite number"
        elif name == "digits":
            fits, expected = isinstance(value, int) and _is_number(value) and 0 <= value <= 15, "a whole number from 0 to 15"
        elif name == "dtype":
            fits, expected = isinstance(value, str) or _is_categorical(value), "text, or an object with categories and of"
        else:
            fits, expected = isinstance(value, str), "text"
        if not fits:
            raise FlowsError(f"from_json: {where}: {name} is {value!r:.60}; expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_categorical(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("categories"), list) and isinstance(value.get("of"), str)
