"""Tables larger than memory: what `flows.large` adds to a loop over the same files, and what two workers save.

    python benchmarks/large.py [--rows 1600000] [--rounds 3] [--only loop dask programs ray spark pzflow]

A spline flow of 8 columns scores 16 Parquet files, with one thread of XLA a worker (NPROC=1), in turn: by a loop over the files
within one worker, by `score` on one worker of Dask and on two; on Ray and Spark by `score`, and by the map that a user would
write, which sends the result with its closure. `loop` is `result.log_prob` of a million rows against bare batches. Ray and
Spark run in .venv-engines, pzflow in .venv-peers; what is not there is left out. Writes benchmarks/results/large.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "large.json"
COLUMNS, FILES = [f"x{j}" for j in range(8)], 16
PYTHONS = {"loop": ".venv", "dask": ".venv", "programs": ".venv", "ray": ".venv-engines", "spark": ".venv-engines"}
PYTHONS |= {"pzflow": ".venv-peers"}


def rows_of(count):
    import numpy as np
    import pandas as pd

    return pd.DataFrame(np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32), columns=COLUMNS)


def write_files(folder, count):
    for number in range(FILES):
        rows_of(count // FILES).to_parquet(f"{folder}/{number:02}.parquet")


def fitted():
    import flows

    flow = flows.Flow(flows.NSF(4, hidden=(64, 64), num_bins=8))
    return flows.fit(0, flow, rows_of(4_000), max_epochs=1, folds=1, verbose=0)


def timed(rounds, **calls):
    """Seconds of each call, in turn, after one call of each: medians."""
    seconds = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def loop(folder, rounds):
    """A million rows of an array by `log_prob`, and by batches of its own largest piece."""
    import jax
    import numpy as np

    result = fitted()
    x = rows_of(1_000_000).to_numpy()
    log_pdf = jax.jit(result.log_pdf)

    def batches():
        size = 16_512
        whole = [np.asarray(log_pdf(result.params, x[i : i + size])) for i in range(0, len(x) - size, size)]
        return np.concatenate([*whole, np.asarray(log_pdf(result.params, x[-size:]))])

    return timed(rounds, log_prob=lambda: np.asarray(result.log_prob(x)), bare=batches)


def score_files(result, folder):
    import pandas as pd

    files = sorted(Path(folder).glob("*.parquet"))
    return float(sum(result.log_prob(pd.read_parquet(file)[COLUMNS]).sum() for file in files))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def dask(folder, rounds):
    """The loop within a worker, and `score` on that worker and on two; the peak of a worker's memory in MB."""
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    import flows

    result, table = fitted(), dd.read_parquet(folder)
    settings = {"threads_per_worker": 1, "dashboard_address": None, "env": {"NPROC": "1"}}
    clients = {count: Client(LocalCluster(n_workers=count, **settings), set_as_default=False) for count in (1, 2)}

    def on(count):
        scored = flows.large.score(result, table)["log_prob"].sum()
        return lambda: clients[count].compute(scored, sync=True)

    def by_loop():
        return clients[1].submit(score_files, result, folder, pure=False).result()

    seconds = timed(rounds, loop=by_loop, one=on(1), two=on(2))
    return seconds | {"peak MB": max(clients[2].run(peak).values()), "nats": by_loop(), "nats of score": on(2)()}


def programs(folder, rounds):
    """Seconds of the first batch of a worker that compiles, and of the next worker, which reads its programs."""
    from distributed import Client, LocalCluster

    import flows

    found = {"first": [], "second": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as kept:
            flows.keep_programs(kept)
            scorer, batch = flows.large.Scorer(fitted(), add=["log_prob", "p_value"]), rows_of(25_000)
            for each in Path(kept).iterdir():  # of the fit, and of the scores of rows held out
                each.unlink()
            for seconds in found.values():
                settings = {"threads_per_worker": 1, "dashboard_address": None, "env": {"NPROC": "1"}}
                with LocalCluster(n_workers=1, **settings) as cluster, Client(cluster) as client:
                    client.run(__import__, "flows")
                    seconds.append(client.submit(first_batch, scorer, batch).result())
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def first_batch(scorer, batch):
    start = time.perf_counter()
    scorer(batch)
    return time.perf_counter() - start


def by_hand(result):
    """What a user would write: a function of an Arrow table."""

    def scored(table):
        return table.append_column("log_prob", [result.log_prob(table.select(COLUMNS).to_pandas()).__array__()])

    return scored


def ray(folder, rounds):
    import ray

    import flows

    os.environ["NPROC"] = "1"
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=4e8, log_to_driver=False)  # one reads
    ray.data.DataContext.get_current().enable_progress_bars = False
    result, table = fitted(), ray.data.read_parquet(folder)
    options = {"compute": ray.data.ActorPoolStrategy(size=2), "num_cpus": 1}

    class Bare:
        def __init__(self):
            self.scored = by_hand(result)

        def __call__(self, batch):
            return self.scored(batch)

    def score():
        return flows.large.score(result, table, options=options).sum("log_prob")

    def bare():
        return table.map_batches(Bare, batch_format="pyarrow", **options).sum("log_prob")

    def empty():
        return table.map_batches(lambda batch: batch, batch_format="pyarrow").sum("x0")

    return timed(rounds, score=score, bare=bare, empty=empty)


def spark(folder, rounds):
    import pyarrow as pa
    from pyspark.sql import SparkSession

    import flows

    os.environ |= {"NPROC": "1", "PYSPARK_PYTHON": sys.executable}
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for name in ("host", "bindAddress"):
        builder = builder.config(f"spark.driver.{name}", "127.0.0.1")
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    result, table = fitted(), session.read.parquet(folder)
    schema = ", ".join(f"{name} float" for name in COLUMNS)

    def bare_map(batches):
        scored = by_hand(result)
        for batch in batches:
            yield from scored(pa.Table.from_batches([batch])).to_batches()

    def sum_of(scored, column):
        return scored.agg({column: "sum"}).collect()[0][0]

    return timed(
        rounds,
        score=lambda: sum_of(flows.large.score(result, table), "log_prob"),
        bare=lambda: sum_of(table.mapInArrow(bare_map, f"{schema}, log_prob float"), "log_prob"),
        empty=lambda: sum_of(table.mapInArrow(lambda batches: batches, schema), "x0"),
    )


def pzflow(folder, rounds):
    """Seconds of pzflow for a million rows, by a flow of networks as wide as ours."""
    from pzflow import Flow
    from pzflow.bijectors import RollingSplineCoupling

    rows = rows_of(100_000)
    flow = Flow(COLUMNS, RollingSplineCoupling(4, hidden_layers=2, hidden_dim=64, K=8, B=5))
    flow.log_prob(rows[:100])
    return {
        "seconds of a million": 1e6
        / len(rows)
        * timed(rounds, log_prob=lambda: flow.log_prob(rows).block_until_ready())["log_prob"]
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_600_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PYTHONS, default=list(PYTHONS))
    parser.add_argument("--within", help=argparse.SUPPRESS)  # a process that measures one of them
    options = parser.parse_args()
    if options.within:
        print(json.dumps(globals()[options.only[0]](options.within, options.rounds)))
        return
    import records

    found = records.read(RESULTS)
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, options.rows)
        for name in options.only:
            python = ROOT / PYTHONS[name] / "bin" / "python"
            if not python.exists():
                print(f"{name:9} left out: there is no {PYTHONS[name]}")
                continue
            command = [python, __file__, "--only", name, "--within", folder, "--rounds", str(options.rounds)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = {key: round(value, 3) for key, value in json.loads(done.stdout.splitlines()[-1]).items()}
            print(f"{name:9} {found[name]}")
            records.write(RESULTS, found)


if __name__ == "__main__":
    main()
