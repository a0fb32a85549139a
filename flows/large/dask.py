"""Tables of Dask: each partition becomes a frame of pandas."""

from collections.abc import Iterator, Sequence
from typing import Any

import dask.dataframe as dd
import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.base import tokenize
from dask.delayed import delayed

from flows.large.scorer import Drawer, Scorer, Sent, row_of


def scored(scorer: Scorer, table: Any, options: dict[str, Any]) -> Any:
    """Return a frame of Dask with the new columns."""
    types = pa.Schema.from_pandas(table._meta, preserve_index=False)
    scorer.check(list(map(str, table.columns)), row_of(list(map(str, types.names)), types.types))
    return table.map_partitions(_scored, _once(scorer), meta=scorer(table._meta), **options)


def _scored(frame: Any, scorer: Scorer, partition_info: Any = None) -> Any:
    number = None if partition_info is None else partition_info["number"]
    return scorer.appended(frame, frame, f"part {number}")


def sampled(drawer: Drawer, options: dict[str, Any]) -> Any:
    """Return a frame of Dask, a partition for each part."""
    draw, meta = delayed(_drawn), as_pandas(drawer.example()).iloc[:0]
    once = _once(drawer)
    return dd.from_delayed([draw(once, part) for part in range(drawer.parts)], meta=meta, **options)


def _drawn(drawer: Drawer, part: int) -> Any:
    return as_pandas(drawer(part))


def as_pandas(frame: Any) -> Any:
    """Return a frame of any library as one of pandas."""
    return frame if isinstance(frame, pd.DataFrame) else nw.from_native(frame).to_pandas()


def _once(sent: Sent) -> Any:
    """Return a model as one task, so that it goes to each worker once, and not with each of its tasks."""
    return delayed(sent, name=f"{type(sent).__name__.lower()}-{tokenize(sent)}", traverse=False)


def frames(table: Any, names: Sequence[str], rng: np.random.Generator, here: int, count: int) -> Iterator[Any]:
    """Yield the partitions of a worker and their numbers, in an order drawn from rng."""
    labels = {str(label): label for label in table.columns}
    table = table[[labels[name] for name in names]]
    for part in rng.permutation(table.npartitions)[here::count]:
        yield int(part), table.partitions[int(part)].compute()
