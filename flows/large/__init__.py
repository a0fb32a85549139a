"""Tables larger than memory, by the engine that has them: Dask, Ray or Spark. A fitted model goes to the rows.

table = flows.large.score(result, table, add=("log_prob", "p_value"))    # the same table, lazy, with new columns
table = flows.large.sample(0, result, 10**9, engine="dask")              # draws, made where they are needed
result = flows.fit(0, flow, flows.large.frames(table, columns), steps_per_epoch=1_000, validation=frame)

Each engine is imported when it is needed, and has an extra: dask, ray, spark.
"""

import importlib
from typing import Any

from flows.core import FlowsError, as_key, lacking, positive_int
from flows.large.scorer import Drawer, Scorer
from flows.large.streams import Frames
from flows.results.frames import header_of, library_of

__all__ = ["Frames", "Scorer", "frames", "sample", "score"]

ENGINES = {"dask": "dask.dataframe.DataFrame", "ray": "ray.data.Dataset", "spark": "pyspark.sql.DataFrame"}
MODULES = {"pyspark": "spark"}  # engines whose module is called otherwise


def score(
    fitted: Any, table: Any, *, add: Any = ("log_prob",), errors: str = "coerce", prefix: str = "", options: Any = None
) -> Any:
    """Score the rows of a table by its engine: the table comes back, lazy, its columns as they were and one more for each of
    `add`. The model goes to each worker once, as a `Scorer`; `flows.keep_programs()`, called before, holds in workers, too.

    Args:
        fitted, add, errors, prefix: as in `Scorer`; with "raise" an error names part and row.
        table: a `dask.dataframe.DataFrame`, `ray.data.Dataset` or `pyspark.sql.DataFrame`. Ray keeps the order of rows only
            where `DataContext.get_current().execution_options.preserve_order` is True. Times of Spark are read by the clock of
            the session, where the times of the model have no zone.
        options: a dict of keywords for `map_partitions`, `map_batches` (`num_gpus`, `compute`) or `mapInArrow`.

    Errors:
        FlowsError, TypeError: as in `Scorer`, from the dtypes of the table, before anything is computed; another table.

    Example:
        >>> import dask.dataframe as dd, flows, numpy as np, pandas as pd
        >>> frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["x", "y"])
        >>> result = flows.fit(0, flows.Normal(trainable=True), frame, max_epochs=1, folds=1, verbose=0)
        >>> scored = flows.large.score(result, dd.from_pandas(frame, npartitions=3))
        >>> list(scored.columns), len(scored.compute())
        (['x', 'y', 'log_prob'], 200)
    """
    engine = engine_of(table, "score")
    return engine.scored(Scorer(fitted, add=add, errors=errors, prefix=prefix), table, _options(options))


def sample(rng: Any, fitted: Any, n: int, *, engine: str, rows_a_part: int = 1_000_000, options: Any = None) -> Any:
    """Draw n rows as a table of an engine, lazy, whose parts are drawn by the workers that need them.

    Part i is `fitted.draw(jax.random.fold_in(key, i), rows_a_part)`, whatever workers, retries and order, or what is left.

    Args:
        rng: key or seed.
        fitted: as in `Scorer`, without a condition.
        n: the number of rows.
        engine: "dask", "ray" or "spark", whose active session is used, or else a new one.
        rows_a_part: the number of rows of a part.
        options: as in `score`; of Dask for `from_delayed`.

    Errors:
        FlowsError: n below 1; an engine that is not known, or does not start; a model with a condition.

    Example:
        >>> import flows, numpy as np, pandas as pd
        >>> frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["x", "y"])
        >>> result = flows.fit(0, flows.Normal(trainable=True), frame, max_epochs=1, folds=1, verbose=0)
        >>> flows.large.sample(0, result, 2_500, engine="dask", rows_a_part=1_000).map_partitions(len).compute().tolist()
        [1000, 1000, 500]
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise FlowsError(f"sample: engine is {engine!r:.60}; expected {', '.join(map(repr, ENGINES))}")
    counts = positive_int(n, "sample: n", most=2**62), positive_int(rows_a_part, "sample: rows_a_part")
    return module_of_engine(engine).sampled(Drawer(fitted, as_key(rng), *counts), _options(options))


def frames(table: Any, columns: Any = None, *, seed: Any = 0) -> Frames:
    """Return frames of a table, one after the other, for `flows.fit` and `flows.tables.fit`: an iterable that starts again with
    each `iter()`. Dask goes by partitions and Ray by blocks, in an order drawn each time, Spark by its local iterator. Under
    `jax.distributed` each worker gets other parts.

    Args:
        table: as in `score`.
        columns: names of the columns to read; by default all.
        seed: key or seed, of the order of parts.

    Errors:
        FlowsError: a column that the table lacks; when it is read, no rows. TypeError: another table.

    Example:
        >>> import dask.dataframe as dd, flows, numpy as np, pandas as pd
        >>> table = dd.from_pandas(pd.DataFrame({"x": np.arange(6.0), "y": 0.0}), npartitions=2)
        >>> [frame.columns.tolist() for frame in flows.large.frames(table, ["x"])]
        [['x'], ['x']]
    """
    return Frames(table, columns, seed, engine_of(table, "frames"))


def engine_of(table: Any, what: str) -> Any:
    """Return the module of the engine of a table."""
    name = library_of(table)
    name = MODULES.get(name, name)
    if name in ENGINES and type(table).__name__ in ("DataFrame", "Dataset", "MaterializedDataset"):
        return module_of_engine(name)
    remedy = ""
    if header_of(table) is not None:
        remedy = "; a frame in memory goes to the result itself: result.log_prob(frame), or flows.large.Scorer(result)(frame)"
    raise TypeError(f"{what}: table is a {type(table).__name__}; expected a {', a '.join(ENGINES.values())}{remedy}")


def module_of_engine(name: str) -> Any:
    """Return the module of an engine, or say how it is installed."""
    try:
        return importlib.import_module(f"flows.large.{name}")
    except ImportError as error:
        raise ImportError(lacking(f"flows.large, for {name},", (error.name or name).partition(".")[0], name)) from error


def _options(options: Any) -> dict[str, Any]:
    if not isinstance(options, dict | None):
        raise TypeError(f"options is a {type(options).__name__}; expected a dict of keywords for the engine")
    return dict(options or {})
