"""What `flows fit` and `flows schema` share: rows with a dtype for each column, and the schema of them."""

from pathlib import Path

import numpy as np
import polars as pl

from flows import tables
from flows.cli.columns import guessed
from flows.cli.failures import Mistake
from flows.cli.models import asked
from flows.cli.source import Reading, Source
from flows.core import FlowsError
from flows.tables.schema import Schema


def read_rows(path: str, reading: Reading, rows: int | None = None, seed: int = 0) -> tuple[pl.DataFrame, Source]:
    """All rows of a file, or so many of them at random, with a dtype for each column."""
    source = Source(path, reading)
    block = source.whole()
    frame = guessed(block, reading.gaps) if source.origin.is_text else block.frame
    if rows is not None and rows < len(frame):
        frame = frame[np.sort(np.random.default_rng(seed).choice(len(frame), rows, replace=False))]
    return frame, source


def schema_of(
    frame: pl.DataFrame,
    source: Source,
    path: str | None,
    condition: tuple[str, ...],
    ignore: tuple[str, ...],
    weights: str = "",
) -> Schema:
    """That of a file of JSON, or what the columns suggest."""
    for word, names in (("--condition", condition), ("--ignore", ignore), ("--weights", (weights,) if weights else ())):
        for name in names:
            if name not in frame.columns:
                raise Mistake(
                    f"{word} is {name!r}, no column of {source.name}, which has {', '.join(map(repr, frame.columns[:8]))}"
                )
    read = frame.drop([*ignore, *([weights] if weights else [])])
    if path is None:
        if not read.columns:
            raise Mistake(f"no column of {source.name} is left to model")
        schema = asked(lambda rows: tables.infer_schema(rows, condition), read, source.name, 1, "Correct it")
    else:
        schema = _from_file(path, condition)
    for name in ignore:
        schema = schema.ignoring(name, "--ignore")
    return schema


def _from_file(path: str, condition: tuple[str, ...]) -> Schema:
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        schema = Schema.from_json(text)
    except FlowsError as error:
        raise Mistake(f"{path}: {str(error).removeprefix('from_json: ')}") from None
    if condition and schema.condition and condition != schema.condition:
        raise Mistake(
            f"--condition is {', '.join(condition)}, and {path} has {', '.join(schema.condition)}; expected one of them"
        )
    return Schema(schema.kinds, condition) if condition and not schema.condition else schema
