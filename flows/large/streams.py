"""Frames of a table that is larger than memory, one after the other, for a fit."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flows.core import FlowsError, as_key
from flows.results.frames import listed
from flows.tables.fields import names_of
from flows.training.data.table import seed_of
from flows.training.devices import share_of_parts


class Frames:
    """An iterable of frames of some columns of a table, which starts again with each `iter()`; `frames` makes it.

    Attributes:
        part: the number of the part that was read last, for errors.
    """

    def __init__(self, table: Any, columns: Any, seed: Any, engine: Any):
        there = list(map(str, table.columns() if callable(table.columns) else table.columns))
        names: Sequence[str] = there if columns is None else names_of(columns, "frames: columns")
        if missing := [name for name in names if name not in there]:
            raise FlowsError(f"frames: the table lacks {listed(missing)}; it has {listed(there)}")
        if not names or len(set(names)) < len(names):
            raise FlowsError(f"frames: columns is {columns!r:.60}; expected one name, or several that differ")
        self.table, self.names, self.engine, self.times, self.part = table, tuple(names), engine, 0, 0
        self.seed = seed_of(as_key(seed))

    def __iter__(self) -> Iterator[Any]:
        rng, self.times = np.random.default_rng([*self.seed, self.times]), self.times + 1
        (here, count), rows = share_of_parts(), 0
        for part, frame in self.engine.frames(self.table, self.names, rng, here, count):
            if len(frame):
                self.part, rows = part, rows + len(frame)
                yield frame
        if not rows:
            raise FlowsError("frames: the table has no rows here; expected one or more, and a part for each worker")
