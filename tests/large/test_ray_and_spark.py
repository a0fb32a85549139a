"""Tables of Ray and Spark, by `make test-engines`: in the environment of other tests neither is installed."""

import os
import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("ray")
pytest.importorskip("pyspark")

import jax
import large_tables
import pyarrow as pa
import ray
from large_tables import ADDED, QUICK, Mortal, as_scored, model, numbers, parts_of, rows_of, typed

import flows
from flows import tables
from flows.large import frames, sample, score

SCENES = pytest.mark.parametrize("scene", ADDED)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of two engines
HERE = os.path.dirname(large_tables.__file__)
AS_HERE = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "PYTHONPATH": HERE,
    "PYSPARK_PYTHON": sys.executable,
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


class Ray:
    name, nothing = "ray", {"expr": ray.data.expressions.col("a") > 1e9}

    def __init__(self):
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2e8, log_to_driver=False, configure_logging=False)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order, context.enable_progress_bars = True, False

    def table(self, parts):
        return ray.data.from_pandas([part.reset_index(drop=True) for part in parts])

    def with_types(self, rows):
        """One block of Arrow: in blocks of pandas, text is a Python object like others."""
        return ray.data.from_arrow(pa.Table.from_pandas(rows))

    def rows(self, table):
        return table.to_pandas()

    def close(self):
        ray.shutdown()


class Spark:
    name, nothing = "spark", {"condition": "a > 1e9"}

    def __init__(self):
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.session.timeZone": "Asia/Tokyo",
        }
        for key, value in settings.items():
            builder = builder.config(key, value)
        self.session = builder.getOrCreate()
        self.session.sparkContext.setLogLevel("OFF")

    def table(self, parts):
        """A partition for each part, by the number of the part; columns and rows come back in their order."""
        whole = pd.concat([part.assign(part=number) for number, part in enumerate(parts)])
        rdd = self.session.createDataFrame(whole).rdd.map(lambda row: (row.part, row)).partitionBy(len(parts), int).values()
        return self.session.createDataFrame(rdd, self.session.createDataFrame(whole[:1]).schema).drop("part")

    def with_types(self, rows):
        return self.table([rows])

    def rows(self, table):
        return table.toPandas()

    def close(self):
        self.session.stop()


@pytest.fixture(scope="module", params=[Ray, Spark], ids=["ray", "spark"])
def engine(request):
    before = {name: os.environ.get(name) for name in AS_HERE}
    os.environ.update(AS_HERE)
    made = request.param()
    yield made
    made.close()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@SCENES
def test_an_engine_scores_rows_as_the_result_does(engine, scene):
    as_scored(scene, engine.rows(score(model(scene), engine.table(parts_of(rows_of(scene))), add=ADDED[scene])))


def test_a_killed_worker_changes_no_figure(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "flows.large.Scorer", lambda *arguments, **keywords: Mortal(tmp_path / "killed", *arguments, **keywords)
    )
    as_scored("plain", engine.rows(score(model("plain"), engine.table(parts_of(rows_of("plain"))), add=ADDED["plain"])))
    assert (tmp_path / "killed").exists()


def test_draws_depend_on_key_and_part_alone(engine, tmp_path, monkeypatch):
    fitted = model("typed")
    drawn = engine.rows(sample(3, fitted, 25_000, engine=engine.name, rows_a_part=10_000))
    parts = [fitted.draw(jax.random.fold_in(jax.random.key(3), part), n) for part, n in enumerate((10_000, 10_000, 5_000))]
    here = pd.concat(parts, ignore_index=True)
    for name in here:
        assert (drawn[name].to_numpy() == here[name].to_numpy()).all(), name
    assert np.isfinite(fitted.schema.encode(drawn[:10_000])).all() and here["size"].nunique() > 20_000


@pytest.mark.parametrize("kind", ["plain", "typed"])
def test_a_fit_that_streams_is_as_good_as_one_in_memory(engine, kind):
    names = ["a", "b", "c"] if kind == "plain" else ["town", "wind", "when", "size"]
    whole = (numbers() if kind == "plain" else typed())[names]
    rows, held_out = whole[:20_000], whole[20_000:22_000]

    def fit(data, **more):
        settings = {"batch_size": 500, "max_epochs": 4, "folds": 1, "verbose": 0, "validation": held_out, **more}
        if kind == "plain":
            return flows.fit(0, flows.Normal(trainable=True, covariance="full"), data, **settings)
        return tables.fit(0, data, model("typed").schema, model=flows.Normal(conditioner=flows.conditioners.MLP(4)), **settings)

    table = engine.table([rows[i : i + 3_000] for i in range(0, 20_000, 3_000)])
    log_p = [
        np.asarray(result.log_prob(held_out), float) for result in (fit(rows), fit(frames(table, names), steps_per_epoch=40))
    ]
    assert abs((log_p[0] - log_p[1]).mean()) < 2 * log_p[0].std() / np.sqrt(len(held_out)) and np.ptp(log_p[0]) > 1


def test_odd_tables_are_refused_before_anything_is_computed(engine):
    rows = numbers()[:9]
    for table, scene, said in (
        (rows.assign(b="x"), "plain", "'b' holds"),
        (rows.drop(columns="b"), "plain", "the table lacks 'b'"),
        (rows.assign(log_prob=0.0), "plain", "a column 'log_prob' already"),
        (typed()[:9].assign(size="x"), "typed", "'size', row 0, is 'x'"),
    ):
        with pytest.raises((flows.FlowsError, TypeError), match=said):
            score(model(scene), engine.with_types(table))


def test_an_error_names_part_and_row(engine):
    parts = [typed()[i : i + 4].reset_index(drop=True) for i in range(0, 12, 4)]
    parts[1].loc[2, "town"] = "Paris"
    scored = engine.rows(score(model("typed"), engine.table(parts)))
    assert np.isneginf(scored["log_prob"].to_numpy()).nonzero()[0].tolist() == [6]
    with pytest.raises(Exception, match=r"(part|batch) \d.*column 'town', row 2, is 'Paris'"):
        engine.rows(score(model("typed"), engine.table(parts), errors="raise"))


def test_names_of_columns_have_dots_and_backticks(engine):
    rows = numbers(200)[["c", "b", "a"]].set_axis(["a.b", "c`d", "e f"], axis=1)
    fitted = flows.fit(0, flows.Normal(trainable=True), rows, **QUICK)
    table = engine.with_types(rows)
    scored = engine.rows(score(fitted, table))
    assert list(scored) == [*rows, "log_prob"]
    np.testing.assert_allclose(scored["log_prob"], fitted.log_prob(rows), rtol=1e-5)
    assert all(list(frame.columns) == ["e f", "a.b"] for frame in frames(table, ["e f", "a.b"]))


def test_an_empty_table_and_the_order_of_frames(engine):
    with pytest.raises(flows.FlowsError, match="the table has no rows"):
        list(frames(engine.table([numbers()[:3]]).filter(**engine.nothing)))
    rows = numbers()[:40]
    stream = frames(engine.table([rows[i : i + 10] for i in range(0, 40, 10)]), ["a"])
    seen = [np.concatenate([frame["a"].to_numpy() for frame in stream]) for _ in range(2)]
    assert all((np.sort(one) == np.sort(rows["a"].to_numpy())).all() for one in seen)
