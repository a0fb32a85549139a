"""Tables of Dask, in this process and in two others; and what holds for all engines: programs, bytes, refusals."""

import pickle

import cloudpickle
import dask
import dask.dataframe as dd
import jax
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from common import error_of
from large_tables import ADDED, QUICK, Mortal, as_scored, model, numbers, parts_of, rows_of, typed

import flows
from flows import tables
from flows.large import Scorer, frames, sample, score

# Of Dask, which calls pandas as an older one wants it.
pytestmark = pytest.mark.filterwarnings("ignore:.*inplace keyword", "ignore:An error occurred while calling the read_parquet")
SLOW = [pytest.param(scene, marks=pytest.mark.slow) for scene in ("conditional", "ensemble", "quantiles")]
SCENES = pytest.mark.parametrize("scene", ["plain", "typed", *SLOW])


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two processes of one thread, which start again when they are killed."""
    from distributed import Client, LocalCluster

    as_here = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "NPROC": "1"}
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, env=as_here) as made, Client(made) as client:
        yield client


def table_of(parts):
    """The parts as partitions of Dask, which has no frame of them in one piece."""
    return dd.from_delayed([dask.delayed(part) for part in parts], meta=parts[0].iloc[:0])


@SCENES
def test_dask_scores_rows_as_the_result_does(cluster, scene):
    table = score(model(scene), table_of(parts_of(rows_of(scene))), add=ADDED[scene])
    assert table.npartitions == 17
    scored = table.compute()
    assert (scored.dtypes == table.dtypes).all()
    as_scored(scene, scored)


def test_a_killed_worker_changes_no_figure(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "flows.large.Scorer", lambda *arguments, **keywords: Mortal(tmp_path / "killed", *arguments, **keywords)
    )
    scored = score(model("plain"), table_of(parts_of(rows_of("plain"))), add=ADDED["plain"])
    as_scored("plain", scored.compute())
    assert (tmp_path / "killed").exists()
    cluster.wait_for_workers(2)


def compiled(scorer, parts):
    """How often XLA compiles while parts are scored."""
    count = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: count.append(event) if "backend_compile" in event else None
    )
    try:
        for part in parts:
            scorer(part)
    finally:
        jax.monitoring.clear_event_listeners()
    return len(count)


def programs_of(scene):
    """How many programs two parts of both sizes take, and how many more all parts take."""
    parts = parts_of(rows_of(scene))
    scorer = Scorer(model(scene), add=ADDED[scene])

    def programs():
        two = compiled(scorer, [max(parts, key=len), parts[0]])
        return two, compiled(scorer, parts)

    return programs


@SCENES
def test_17_parts_take_no_more_programs_than_two(scene):
    jax.clear_caches()
    two, more = programs_of(scene)()
    assert two > 0 and more == 0


@pytest.mark.slow
@SCENES
def test_workers_take_no_more_programs_for_17_parts_than_for_two(cluster, scene):
    of_workers = cluster.run(programs_of(scene))
    assert len(of_workers) == 2 and all(more == 0 for _, more in of_workers.values())


@SCENES
def test_no_row_is_sent(scene):
    fitted, text = model(scene), pickle.dumps(Scorer(model(scene), add=ADDED[scene]))
    result = fitted.result if isinstance(fitted, tables.TableResult) else fitted
    rows = np.asarray(result.kept.x).reshape(-1, np.shape(result.kept.x)[-1])
    sent = [row.tobytes() in text for row in rows if row.size > 1] + [rows.T[0][:3].tobytes() in text]
    assert not any(sent) and rows.T[0].size > 20
    assert rows.tobytes() in pickle.dumps(result)  # which has them


def test_a_scorer_takes_frames_of_pandas_polars_and_arrow():
    rows = numbers()[:50]
    scorer = Scorer(model("plain"), prefix="new_")
    of_pandas, of_polars, of_arrow = (scorer(make(rows)) for make in (pd.DataFrame, pl.from_pandas, pa.Table.from_pandas))
    values = of_pandas["new_log_prob"].to_numpy()
    assert np.isfinite(values).all() and of_pandas.index.equals(rows.index)
    assert (of_polars["new_log_prob"].to_numpy() == values).all() and of_polars.columns == [*rows, "new_log_prob"]
    assert (of_arrow["new_log_prob"].to_numpy() == values).all() and isinstance(of_arrow, pa.Table)
    assert scorer(rows.set_axis(rows.index * 2)).index[-1] == 98
    empty = scorer(rows[:0])
    assert len(empty) == 0 and empty["new_log_prob"].dtype == np.float64


def odd():
    rows = typed()[:6].copy()
    rows["wind"] = rows["wind"].where(rows.index != 1)
    rows.loc[2, "town"], rows.loc[3, "size"] = "Paris", -1.0
    return rows


def test_errors_says_what_becomes_of_odd_values():
    fitted, rows = model("typed"), odd()
    with pytest.warns(UserWarning, match="2 of 6 rows have an unknown category or a value out of bounds"):
        scored = Scorer(fitted, add=["log_prob", "p_value"])(rows)
    log_p, p_values = scored["log_prob"].to_numpy(), scored["p_value"].to_numpy()
    assert np.isnan(log_p[1]) and np.isneginf(log_p[2:4]).all() and np.isfinite(log_p[[0, 4, 5]]).all()
    assert np.isnan(p_values[1]) and (p_values[2:4] == p_values[[0, 2, 4, 5]].min()).all()
    with dask.config.set(scheduler="synchronous"):
        table = score(fitted, dd.from_pandas(rows[:2], npartitions=1), errors="raise")
        assert "part 0: encode: column 'wind', row 1, is a gap" in error_of(table.compute)
        whole = dd.from_pandas(rows.assign(wind=10.0), npartitions=3)
        assert "part 1: encode: column 'town', row 0 (index 2), is 'Paris'" in error_of(
            score(fitted, whole, errors="raise").compute
        )
        gaps = numbers()[:4].assign(a=[0.0, np.nan, 0.0, 0.0])
        assert np.isnan(score(model("plain"), dd.from_pandas(gaps, npartitions=2))["log_prob"].compute()).sum() == 1
        raising = score(model("plain"), dd.from_pandas(gaps, npartitions=2), errors="raise")
        assert "part 0: column 'a', row 1, is a gap, or NaN" in error_of(raising.compute)
    quantiles = Scorer(model("quantiles"), add=[0.5])(rows.drop(columns="size"))["q0.5"]
    assert quantiles.isna().tolist() == [False, True, True, False, False, False]


def test_quantiles_of_dates_and_of_ordered_names_have_their_dtypes():
    frame = typed(500)[["when", "town"]].assign(level=np.array(["low", "mid", "high"])[np.arange(500) % 3])
    levels = {"level": tables.Ordinal(["low", "mid", "high"]), "town": tables.Category()}
    for name, schema in (("when", None), ("level", tables.Schema(levels, ["town"]))):
        own = frame[[name, "town"]]
        fitted = tables.fit(
            0,
            own,
            schema,
            condition=["town"],
            **({"model": flows.Normal(conditioner=flows.conditioners.MLP(4))} if schema is None else {}),
            **{**QUICK, **({} if schema is None else {"folds": None})},
        )
        rows = frame[["town"]][:4].assign(town=["Bonn", "Oslo", "Paris", "Rome"])
        scored, asked = Scorer(fitted, add=[0.5])(rows), fitted.quantile([0.5], given=rows.iloc[[0, 1, 3]])
        assert scored["q0.5"].dropna().tolist() == asked["q0.5"].tolist() and scored["q0.5"].isna().tolist() == [
            False,
            False,
            True,
            False,
        ]
        of_arrow = Scorer(fitted, add=[0.5])(pa.Table.from_pandas(rows))["q0.5"]
        assert of_arrow.to_pylist()[2] is None and str(of_arrow.type) == {"when": "timestamp[us]", "level": "string"}[name]


REFUSED = {
    "a frame": (lambda: score(model("plain"), numbers()), "result.log_prob(frame), or flows.large.Scorer(result)(frame)"),
    "an array": (lambda: score(model("plain"), np.zeros((3, 3))), "table is a ndarray; expected a dask.dataframe.DataFrame"),
    "not a result": (lambda: Scorer("model"), "fitted is a str; expected a TableResult"),
    "no names": (
        lambda: Scorer(flows.fit(0, flows.Normal(trainable=True), numbers(50)[["a"]].to_numpy(), **QUICK)),
        "names of its columns; fit it to a frame",
    ),
    "a column less": (lambda: few(numbers()[:9].drop(columns="b")), "the table lacks 'b'; expected the columns 'a', 'b', 'c'"),
    "a column that is there": (lambda: few(numbers()[:9].assign(log_prob=0.0)), "column 'log_prob' already; give prefix="),
    "text": (lambda: few(numbers()[:9].assign(b="x")), "'b' holds"),
    "text of a kind": (lambda: few(typed()[:9].assign(size="x"), "typed"), "column 'size'"),
    "times of a zone": (
        lambda: few(typed()[:9].assign(when=typed()["when"][:9].dt.tz_localize("UTC")), "typed"),
        "column 'when'",
    ),
    "numbers for times": (lambda: few(typed()[:9].assign(when=1.0), "typed"), "column 'when'"),
    "several columns": (lambda: Scorer(model("plain"), add=[0.5]), "the model is of 'a', 'b', 'c'; expected one number"),
    "no condition": (lambda: Scorer(table_of_one(), add=[0.5]), "'size' has no condition, so that all rows have the same"),
    "no order": (lambda: Scorer(table_of_one("town", "wind"), add=[0.5]), "the model is of 'town', which has no order"),
    "one name": (lambda: Scorer(model("plain"), add="p_value"), "add is 'p_value'; expected a list"),
    "another name": (lambda: Scorer(model("plain"), add=["score"]), "add has 'score'; expected 'log_prob'"),
    "a share of 1": (lambda: Scorer(model("plain"), add=[1]), "add has 1.0"),
    "twice": (lambda: Scorer(model("plain"), add=["log_prob", "log_prob"]), "several that differ"),
    "errors": (lambda: Scorer(model("plain"), errors="ignore"), "errors is 'ignore'"),
    "options": (lambda: score(model("plain"), dask_of(numbers()[:9]), options=3), "options is a int; expected a dict"),
    "no rows to draw": (lambda: sample(0, model("plain"), 0, engine="dask"), "sample: n is 0"),
    "an engine": (lambda: sample(0, model("plain"), 5, engine="flink"), "engine is 'flink'; expected 'dask', 'ray', 'spark'"),
    "a list of engines": (lambda: sample(0, model("plain"), 5, engine=["dask"]), "engine is ['dask']; expected 'dask', 'ray'"),
    "no seed": (lambda: frames(dask_of(numbers()[:9]), seed=None), "rng is None; expected one key"),
    "a condition": (lambda: sample(0, model("quantiles"), 5, engine="dask"), "the model has the condition 'town', 'wind'"),
    "an empty table": (lambda: list(frames(dask_of(numbers()[:9].iloc[:0]))), "the table has no rows"),
    "another column": (
        lambda: frames(dask_of(numbers()[:9]), ["d"]),
        "frames: the table lacks 'd'; it has 'c', 'name', 'b', 'a'",
    ),
    "a lambda": (
        lambda: Scorer(
            flows.fit(
                0, flows.Flow(flows.AffineCoupling(lambda rng, d, k: None), flows.Normal()), numbers(50)[["a", "b"]], **QUICK
            )
        ),
        "lambda",
    ),
}


def dask_of(frame):
    return dd.from_pandas(frame, npartitions=1)


def few(frame, scene="plain"):
    return score(model(scene), dask_of(frame))


def table_of_one(name="size", condition=None):
    frame = typed()[:200][[name, *([condition] if condition else [])]]
    settings = {"model": flows.Normal(trainable=True)} if name == "size" else {}
    return tables.fit(0, frame, condition=[condition] if condition else (), max_epochs=1, verbose=0, **settings)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_computed(case):
    call, expected = REFUSED[case]
    with pytest.raises((flows.FlowsError, TypeError)) as caught:
        call()
    assert expected in str(caught.value), caught.value


def test_a_worker_with_another_version_or_without_a_constructor_says_so(monkeypatch):
    text = pickle.dumps(Scorer(model("plain")))
    flows.clear_caches()
    monkeypatch.setattr(flows, "__version__", "9.9")
    assert "comes from flows 0.1.0, and this worker has flows 9.9" in error_of(lambda: pickle.loads(text)(numbers()[:9]))
    monkeypatch.undo()
    scorer = pickle.loads(text)
    scorer.packed = scorer.packed._replace(constructors=("no_such_module:Warp",))
    assert "made with Warp of the module no_such_module, which cannot be imported here" in error_of(
        lambda: scorer(numbers()[:9])
    )


def test_a_constructor_of_a_session_goes_with_the_model():
    @flows.bijection
    def Twice():
        return lambda rng, shape: ((), lambda params, x: (2 * x, np.log(4.0)), lambda params, y: y / 2)

    fitted = flows.fit(0, flows.Flow(Twice(), flows.Normal(trainable=True)), numbers(200)[["a", "b"]], **QUICK)
    content = cloudpickle.dumps(Scorer(fitted))
    flows.clear_caches()
    again = cloudpickle.loads(content)(numbers()[:9])["log_prob"]
    np.testing.assert_allclose(again, fitted.log_prob(numbers()[:9][["a", "b"]]), rtol=1e-6)


def test_equal_scorers_load_once_and_keep_programs_where_the_sender_does(monkeypatch, tmp_path):
    scorer, loads, kept = Scorer(model("plain")), [], []
    scorer.programs = str(tmp_path)
    text, load = pickle.dumps(scorer), flows.load
    flows.clear_caches()
    monkeypatch.setattr("flows.large.scorer.load", lambda *given, **more: loads.append(1) or load(*given, **more))
    monkeypatch.setattr("flows.large.scorer.setting", lambda name: None)
    monkeypatch.setattr("flows.large.scorer.keep_programs", kept.append)
    for again in (pickle.loads(text), pickle.loads(text)):
        assert np.isfinite(again(numbers()[:9])["log_prob"]).all()
    assert loads == [1] and kept == [str(tmp_path)]


def draws_of(fitted, scheduler, **more):
    table = sample(3, fitted, 2_500, engine="dask", rows_a_part=1_000)
    return table.compute(scheduler=scheduler, **more), table.dtypes


def test_draws_depend_on_key_and_part_alone():
    fitted = model("plain")
    drawn, dtypes = draws_of(fitted, "synchronous")
    parts = [fitted.draw(jax.random.fold_in(jax.random.key(3), part), n) for part, n in enumerate((1_000, 1_000, 500))]
    pd.testing.assert_frame_equal(drawn, pd.concat(parts))
    assert (dtypes == drawn.dtypes).all() and (parts[0]["a"] != parts[1]["a"]).all()


def test_draws_are_the_same_on_two_workers_and_are_rows_of_the_schema(cluster):
    fitted = model("typed")
    pd.testing.assert_frame_equal(draws_of(fitted, "synchronous")[0], draws_of(fitted, None)[0])
    table = sample(3, fitted, 10_000, engine="dask", rows_a_part=5_000)
    assert np.isfinite(fitted.schema.encode(table.compute(scheduler="synchronous"))).all()


@pytest.mark.parametrize("kind", ["plain", "typed"])
def test_a_fit_that_streams_from_parquet_and_is_ended_once_is_as_good_as_one_in_memory(kind, tmp_path, monkeypatch):
    """A checkpoint is of the first frames: an iterable that was read already has others."""
    names = ["a", "b", "c"] if kind == "plain" else ["town", "wind", "when", "size"]
    whole = (numbers() if kind == "plain" else typed())[names]
    rows, held_out = whole[:20_000], whole[20_000:22_000]
    dd.from_pandas(rows, npartitions=6).to_parquet(tmp_path / "rows")
    monkeypatch.setattr("flows.training.loop.checkpoint.Checkpoint.due", property(lambda self: True))

    def fit(data, **more):
        settings = {"batch_size": 500, "max_epochs": 4, "folds": 1, "verbose": 0, "validation": held_out, **more}
        if kind == "plain":
            return flows.fit(0, flows.Normal(trainable=True, covariance="full"), data, **settings)
        return tables.fit(0, data, model("typed").schema, model=flows.Normal(conditioner=flows.conditioners.MLP(4)), **settings)

    def streamed(**more):
        table = frames(dd.read_parquet(tmp_path / "rows"), names)
        return fit(table, steps_per_epoch=40, checkpoint=tmp_path / "checkpoint", **more)

    def end(epoch):
        if epoch.number == 2:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        streamed(callbacks=[end])
    results = [fit(rows), streamed()]
    log_p = [np.asarray(result.log_prob(held_out), float) for result in results]
    assert abs((log_p[0] - log_p[1]).mean()) < 2 * log_p[0].std() / np.sqrt(len(held_out)) and np.ptp(log_p[0]) > 1


def test_a_stream_of_odd_frames_is_refused(tmp_path):
    schema, rows = model("typed").schema, typed()[["town", "wind", "when", "size"]]
    normal, held_out = flows.Normal(conditioner=flows.conditioners.MLP(4)), rows[:100]
    odd_rows = rows[:4_000].assign(town=np.where(np.arange(4_000) == 3_500, "Paris", rows["town"][:4_000]))

    def fit(table, schema=schema, **more):
        settings = {"model": normal, "validation": held_out, "steps_per_epoch": 40, "batch_size": 100, **QUICK, **more}
        return error_of(lambda: tables.fit(0, frames(dd.from_pandas(table, npartitions=4)), schema, **settings))

    said = fit(odd_rows)
    assert "part 3: encode: column 'town', row 500 (index 3500), is 'Paris'" in said and "Category(other=" in said
    assert "schema is None; expected one that was" in fit(rows[:4_000], None)
    assert "schema was not fitted to a frame" in fit(rows[:4_000], tables.Schema(schema.kinds))
    assert "model is 'auto'; expected one model" in fit(rows[:4_000], model="auto")
    assert "gaps is 'drop'; drop rows with gaps" in fit(rows[:4_000], gaps="drop")
    assert "give validation rows" in fit(rows[:4_000], validation=None)
    assert "give validation rows" in fit(rows[:4_000], validation=0.2)
    assert "weights are for data in memory" in fit(rows[:4_000], weights="size")


def test_partitions_come_in_an_order_drawn_each_time_and_are_shared_out(monkeypatch):
    table = dd.from_pandas(numbers()[:80], npartitions=8)
    stream, again = frames(table, ["a"]), frames(table, ["a"])
    assert [list(frame.columns) for frame in frames(table, ["a", "c"])] == [["a", "c"]] * 8
    orders = [[frame.index[0] for frame in stream] for _ in range(2)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(0, 80, 10))
    assert [frame.index[0] for frame in again] == orders[0]
    shares = []
    for here in range(2):
        monkeypatch.setattr("flows.large.streams.share_of_parts", lambda here=here: (here, 2))
        shares += [frame.index[0] for frame in frames(table, ["a"], seed=1)]
    assert sorted(shares) == list(range(0, 80, 10)) and shares != sorted(shares)


def test_large_says_how_an_engine_is_installed(monkeypatch):
    import sys

    from flows.core.extras import installs

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "flows.large.ray", raising=False)
    with pytest.raises(ImportError) as caught:
        sample(0, model("plain"), 5, engine="ray")
    assert str(caught.value) == f"flows.large, for ray, needs the package ray: {installs('ray')}"
