"""Tables of Spark: batches of a partition are Arrow tables. Spark needs Java."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession
from pyspark.sql.functions import spark_partition_id
from pyspark.sql.pandas.types import from_arrow_schema, from_arrow_type, to_arrow_schema
from pyspark.sql.types import StructField, StructType

from flows.core import FlowsError
from flows.large.scorer import Drawer, Scorer, arrow_type, row_of


def scored(scorer: Scorer, table: Any, options: dict[str, Any]) -> Any:
    """Return a frame of Spark with the new columns."""
    types, zoned = to_arrow_schema(table.schema, timezone="UTC"), [name for name in scorer.columns if scorer.reading.zone(name)]
    scorer.check(table.columns, by_the_clock(row_of(types.names, types.types), zoned))
    new = [StructField(name, from_arrow_type(arrow_type(dtype))) for name, dtype in scorer.added.items()]

    def score(batches: Iterator[Any]) -> Iterator[Any]:
        first, context = 0, TaskContext.get()
        for batch in batches:
            rows = pa.Table.from_batches([batch]).rename_columns(types.names)
            part = f"part {context.partitionId()}, from row {first} on"
            yield from scorer.appended(rows, by_the_clock(rows, zoned), part).combine_chunks().to_batches()
            first += len(rows)

    return by_place(table).mapInArrow(score, StructType([*table.schema.fields, *new]), **options)


def by_place(table: Any) -> Any:
    """Return a table whose columns are called c0, c1, ...: mapInArrow cannot read names that have a dot or a backtick."""
    return table.toDF(*[f"c{place}" for place in range(len(table.columns))])


def by_the_clock(rows: Any, zoned: Sequence[str] = ()) -> Any:
    """Return rows whose times have no zone, as the clock of the session shows them, but for some columns."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz and field.name not in zoned:
            rows = rows.set_column(place, field.name, pc.local_timestamp(rows.column(place)))
    return rows


def sampled(drawer: Drawer, options: dict[str, Any]) -> Any:
    """Return a frame of Spark, a partition for each part."""
    try:
        session = SparkSession.builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise FlowsError(f"sample: Spark does not start ({error!s:.200}); it needs Java 17 or newer, of the system") from error
    schema = from_arrow_schema(plain(drawer.example()).schema)
    types = to_arrow_schema(schema, timezone="UTC")

    def draw(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            for part in batch.column("id").to_pylist():
                yield from plain(drawer(part)).cast(types).to_batches()

    return session.range(0, drawer.parts, 1, drawer.parts).mapInArrow(draw, schema, **options)


def plain(frame: Any) -> Any:
    """Return a frame as an Arrow table of types that Spark has: no dictionaries, no numbers without a sign."""
    table = nw.from_native(frame).to_arrow().replace_schema_metadata(None)
    for place, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        kind = pa.int64() if pa.types.is_unsigned_integer(kind) else kind
        kind = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else kind
        table = table.set_column(place, field.name, table.column(place).cast(kind, safe=False))
    return table


def frames(table: Any, names: Sequence[str], rng: np.random.Generator, here: int, count: int) -> Iterator[Any]:
    """Yield the batches of a worker, and the numbers of their partitions."""
    some = by_place(table).select([f"c{table.columns.index(name)}" for name in names])
    if count > 1:
        some = some.filter(spark_partition_id() % count == here)

    def written(batches: Iterator[Any]) -> Iterator[Any]:  # as bytes, since the local iterator goes row by row
        part = TaskContext.get().partitionId()
        for batch in batches:
            with pa.ipc.new_stream(sink := io.BytesIO(), batch.schema) as writer:
                writer.write_batch(batch)
            yield pa.RecordBatch.from_pydict({"part": [part], "rows": [sink.getvalue()]})

    for row in some.mapInArrow(written, "part long, rows binary").toLocalIterator():
        rows = pa.ipc.open_stream(row.rows).read_all().rename_columns(list(names))
        yield row.part, pl.from_arrow(by_the_clock(rows))
