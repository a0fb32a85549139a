"""Tables of Ray Data: batches are Arrow tables, and each actor loads the model once."""

from collections.abc import Iterator, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
import pyarrow as pa
import ray.data

from flows.large.scorer import Drawer, Scorer, row_of

ROWS = 65_536  # of a frame


def scored(scorer: Scorer, table: Any, options: dict[str, Any]) -> Any:
    """Return a dataset with the new columns."""
    schema = table.schema()
    scorer.check(schema.names, row_of(schema.names, list(map(as_type, schema.types))))
    return table.map_batches(Scoring, fn_constructor_args=[scorer], **_actors(options))


def as_type(kind: Any) -> Any:
    """Return an Arrow type; of objects of Python, which are known when they are read, the type of gaps."""
    known = kind if isinstance(kind, pa.DataType) else getattr(kind, "pyarrow_dtype", None)
    try:
        return pa.from_numpy_dtype(kind) if known is None else known
    except (pa.ArrowNotImplementedError, TypeError):
        return pa.null()


def _actors(options: dict[str, Any]) -> dict[str, Any]:
    pool = {} if "concurrency" in options else {"compute": ray.data.ActorPoolStrategy(min_size=1)}
    return {"batch_format": "pyarrow", **pool, **options}


class Scoring:
    """An actor that scores batches."""

    def __init__(self, scorer: Scorer):
        self.scorer, self.batches = scorer, 0

    def __call__(self, batch: Any) -> Any:
        self.batches += 1
        return self.scorer.appended(batch, batch, f"batch {self.batches - 1} of this worker")


def sampled(drawer: Drawer, options: dict[str, Any]) -> Any:
    """Return a dataset, a block for each part."""
    parts = ray.data.range(drawer.parts, override_num_blocks=drawer.parts)
    return parts.map_batches(Drawing, fn_constructor_args=[drawer], **{"batch_size": 1, **_actors(options)})


class Drawing:
    """An actor that draws parts."""

    def __init__(self, drawer: Drawer):
        self.drawer = drawer

    def __call__(self, batch: Any) -> Any:
        return pa.concat_tables([nw.from_native(self.drawer(part)).to_arrow() for part in batch["id"].to_pylist()])


def frames(table: Any, names: Sequence[str], rng: np.random.Generator, here: int, count: int) -> Iterator[Any]:
    """Yield the batches of a worker and their numbers, from blocks in an order drawn from rng."""
    some = table.select_columns(list(names)).randomize_block_order(seed=int(rng.integers(2**31)))
    for number, batch in enumerate(some.iter_batches(batch_size=ROWS, batch_format="pyarrow")):
        if number % count == here:
            yield number, pl.from_arrow(batch)
