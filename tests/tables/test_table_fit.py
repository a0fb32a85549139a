"""`tables.fit`, and what a `TableResult` is asked: scores, draws, files, in the units of the data."""

import functools
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import error_of
from scipy import stats

import flows
from flows import tables
from flows.diagnostics import enable_x64

FLOW = flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4))
QUICK = {"max_epochs": 2, "folds": 1, "verbose": 0}
RNG = np.random.default_rng(0)
ROWS = 400
COLOURS, KINDS = np.array(["red", "green", "blue"]), np.array(["a", "b"])


def mixed(rows=ROWS, seed=0):
    """Two categories, an angle, and two numbers between bounds, all of which depend on each other."""
    rng = np.random.default_rng(seed)
    colour, kind = rng.integers(0, 3, rows), rng.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "share": 1 / (1 + np.exp(-rng.normal(kind - 0.5, 1.0))),
            "colour": COLOURS[colour],
            "angle": (rng.normal(60.0 * colour, 30.0)) % 360,
            "kind": KINDS[(kind + (colour == 2)) % 2],
            "level": 2.0 + 3.0 * rng.beta(1 + colour, 2),
        }
    )


BOX = {"share": tables.Real(low=0, high=1), "level": tables.Real(low=2, high=5), "angle": tables.Circular(360)}
OPEN = {"colour": tables.Category(), "kind": tables.Category()}
SCHEMA = tables.Schema({**BOX, **OPEN})


@functools.cache
def fitted(condition=()):
    schema = tables.Schema({**BOX, **OPEN}, condition)
    return tables.fit(0, mixed(), schema, model=FLOW, validation=mixed(1_000, seed=9), **QUICK)


def grid(result, points=24, angles=48):
    """All codes, and points of angles and numbers, as a frame; and the volume of each point's cell."""
    t = np.linspace(-9, 9, points)
    share, width = 1 / (1 + np.exp(-t)), (t[1] - t[0]) / (2 + 2 * np.cosh(t))  # points lie closer near the ends
    axes = {"colour": COLOURS, "kind": KINDS, "angle": np.arange(angles) * 360 / angles, "share": share, "level": 2 + 3 * share}
    widths = {"angle": np.full(angles, 360 / angles), "share": width, "level": 3 * width}
    names = [name for name in axes if name not in result.schema.condition]
    values = np.meshgrid(*(axes[name] for name in names), indexing="ij")
    sizes = np.meshgrid(*(widths.get(name, np.ones(len(axes[name]))) for name in names), indexing="ij")
    frame = pd.DataFrame({name: value.ravel() for name, value in zip(names, values, strict=True)})
    return frame, np.prod(sizes, 0).ravel()


@pytest.mark.parametrize("condition", [(), ("kind",)], ids=["", "given"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "start"])
def test_masses_and_densities_sum_to_1(condition, trained):
    result = fitted(condition)
    if not trained:
        params = result.result.init_fun(3, result.result.input_dim, context_dim=result.result.context_dim).params
        result = tables.TableResult(result.schema, result.result._replace(params=params))
    frame, volume = grid(result)
    if condition:
        frame["kind"] = "b"
    assert np.exp(result.log_prob(frame)) @ volume == pytest.approx(1, abs=1e-3)


def test_draws_agree_with_masses():
    result = fitted()
    drawn = result.draw(1, 4_000)
    frame, volume = grid(result)
    frame["mass"] = np.exp(result.log_prob(frame)) * volume
    masses = frame.groupby(["colour", "kind"])["mass"].sum()
    counts = drawn.groupby(["colour", "kind"]).size().reindex(masses.index, fill_value=0)
    assert stats.chisquare(counts, masses / masses.sum() * len(drawn)).pvalue > 1e-3
    below = frame.query("level < 3.5")["mass"].sum()
    assert (drawn["level"] < 3.5).mean() == pytest.approx(below, abs=0.03)
    of_colours = drawn.groupby("colour")["level"].mean()
    assert of_colours["red"] + 0.2 < of_colours["blue"], "numbers depend on codes"
    assert list(drawn.columns) == list(mixed().columns) and drawn["angle"].between(0, 360, inclusive="left").all()


def test_draws_given_a_condition():
    result = fitted(("kind",))
    one = result.draw(1, 3, given={"kind": "a"})
    assert one["kind"].tolist() == ["a"] * 3 and list(one.columns) == list(mixed().columns)
    several = result.draw(1, 2, given=pd.DataFrame({"kind": ["a", "b"]}))
    assert several["kind"].tolist() == ["a", "a", "b", "b"]
    assert result.draw(1, 2, given=pl.DataFrame({"kind": ["a"]}))["kind"].tolist() == ["a", "a"]
    for given, words in ((None, "given is missing"), ({"kind": "z"}, "'z'"), ({"colour": "red"}, "lacks 'kind'")):
        assert words in error_of(lambda given=given: result.draw(1, 2, given=given))
    assert "without a condition" in error_of(lambda: fitted().draw(1, 2, given={"kind": "a"}))


def test_log_dets_of_all_kinds_are_those_of_autodiff():
    """What comes before the blocks is a bijection of the numbers in the units of the data."""
    result = fitted()
    bijection, d = result.result.init_fun.arguments["bijection"], len(result.schema.columns)
    x = result.schema.encode(mixed(20, seed=1))
    with enable_x64():
        params, direct, inverse = bijection(0, d)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), result.result.params["bijection"])
        y, log_det = direct(params, jnp.asarray(x))
        jacobians = jax.vmap(jax.jacobian(lambda row: direct(params, row[None])[0][0]))(jnp.asarray(x))
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobians)[1], rtol=1e-9)
        back, minus = inverse(params, y)
        np.testing.assert_allclose(back, x, rtol=1e-9)
        np.testing.assert_allclose(minus, -log_det, rtol=1e-9)
    assert np.ptp(log_det) > 0.1


def test_another_unit_of_a_column_moves_scores_by_its_log():
    frame, wider = mixed(), mixed()
    wider["level"] *= 1_000.0
    schema = SCHEMA.replace({"level": tables.Real(low=2_000, high=5_000)})
    validation = mixed(1_000, seed=9).assign(level=lambda frame: 1_000 * frame["level"])
    other = tables.fit(0, wider, schema, model=FLOW, validation=validation, **QUICK)
    np.testing.assert_allclose(other.log_prob(wider) + np.log(1_000), fitted().log_prob(frame), atol=5e-3)


def test_files_have_no_rows_and_give_the_same_scores(tmp_path):
    result, frame = fitted(("kind",)), mixed()
    result.save(tmp_path / "model", {"by": "me"})
    loaded = tables.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.log_prob(frame), result.log_prob(frame))
    np.testing.assert_array_equal(loaded.p_value(frame), result.p_value(frame))
    assert loaded.metadata == {"by": "me"} and loaded.schema == result.schema and loaded.likelihood == "exact"
    pd.testing.assert_frame_equal(loaded.draw(1, 3, given={"kind": "a"}), result.draw(1, 3, given={"kind": "a"}))
    assert isinstance(flows.load(tmp_path / "model"), flows.training.FitResult)
    data = (tmp_path / "model").read_bytes()
    for column in ("share", "angle", "level"):
        for value in frame[column][:50]:
            assert str(value).encode() not in data and np.float64(value).tobytes() not in data
    flows.fit(0, flows.Normal(trainable=True), np.asarray(frame[["share", "level"]]), max_epochs=1, verbose=0).save(
        tmp_path / "b"
    )
    assert "holds no table" in error_of(lambda: tables.load(tmp_path / "b"))
    text = result.schema.to_json()
    for before, after, expected in (
        ('["blue", ', '["grey", "blue", ', "'colour' has 4, and 3"),
        ("360", "180", "'angle' has 180, and 360"),
    ):
        assert before in text
        result.result.save(tmp_path / "edited", {"table": text.replace(before, after)})
        assert expected in error_of(lambda: tables.load(tmp_path / "edited"))


def test_metadata_do_not_hide_the_schema(tmp_path):
    schema, written = SCHEMA.fitted(mixed(20)), []
    result = tables.TableResult(schema, SimpleNamespace(save=lambda path, metadata: written.append(metadata)))
    assert "'table'" in error_of(lambda: result.save(tmp_path / "other", {"table": 1})) and not written
    result.save(tmp_path / "model", {"by": "me"})
    assert written == [{"by": "me", "table": schema.to_json()}]


def test_a_row_out_of_bounds_has_a_density_of_zero_and_one_with_a_gap_has_none():
    """Whatever a model says of them: of this one, log p is the share."""
    frame = mixed(6, seed=2)
    model = SimpleNamespace(log_prob=lambda x, context: x[:, 3], init_fun=None, context_dim=0)
    result = tables.TableResult(SCHEMA.fitted(frame), model)
    scores = frame["share"].to_numpy().copy()
    frame.loc[1, "colour"], frame.loc[2, "level"], frame.loc[3, "share"], frame.loc[4, "share"] = "pink", 7.0, np.nan, -0.5
    scores[[1, 2, 4]], scores[3] = -np.inf, np.nan
    with pytest.warns(UserWarning, match="3 of 6 rows .* 1 have a gap"):
        np.testing.assert_array_equal(result.log_prob(frame, errors="coerce"), scores)


def test_rows_without_a_density_are_coerced_where_that_is_asked_for():
    result, frame = fitted(), mixed(6, seed=2)
    frame.loc[1, "colour"], frame.loc[2, "level"], frame.loc[3, "share"] = "pink", 7.0, np.nan
    for words in ("row 1", "'pink'"):
        assert words in error_of(lambda: result.log_prob(frame))
    with pytest.warns(UserWarning, match="2 of 6 rows .* 1 have a gap"):
        scores = result.log_prob(frame, errors="coerce")
    assert np.isneginf(scores[[1, 2]]).all() and np.isnan(scores[3]) and np.isfinite(scores[[0, 4, 5]]).all()
    with pytest.warns(UserWarning, match="no density"):
        usual = result.p_value(frame, errors="coerce")
    assert (usual[[1, 2]] == 1 / (1 + len(result.result.scores))).all() and np.isnan(usual[3]) and (usual[[0, 4, 5]] > 0).all()
    np.testing.assert_allclose(scores[[0, 4, 5]], result.log_prob(frame.iloc[[0, 4, 5]]), rtol=1e-5)
    given, odd = fitted(("kind",)), mixed(3, seed=2)
    odd.loc[1, "kind"] = "z"
    with pytest.warns(UserWarning, match="1 of 3 rows have"):
        assert np.isneginf(given.log_prob(odd, errors="coerce")).tolist() == [False, True, False]
    assert "'raise', 'coerce'" in error_of(lambda: result.log_prob(frame, errors="ignore"))


@pytest.mark.filterwarnings("ignore:.*no density")
@pytest.mark.parametrize("condition", [(), ("kind",)], ids=["", "given"])
def test_scores_and_ranks_are_told_together(condition):
    result, frame = fitted(condition), mixed(20, seed=2)
    frame.loc[1, "colour"], frame.loc[2, "level"], frame.loc[3, "share"] = "pink", 7.0, np.nan
    log_p, usual = result.log_prob_and_p_value(frame, errors="coerce")
    np.testing.assert_allclose(log_p, result.log_prob(frame, errors="coerce"), rtol=1e-6)
    np.testing.assert_array_equal(usual, result.p_value(frame, errors="coerce"))
    assert np.isneginf(log_p[[1, 2]]).all() and np.isnan(log_p[3]) and np.isnan(usual[3])
    assert "'pink'" in error_of(lambda: result.log_prob_and_p_value(frame))


def test_scores_of_cells_are_their_masses():
    """Of a Gaussian of whole numbers, exactly."""
    counts = np.random.default_rng(0).normal(20.0, 2.0, 300).round()
    schema, model = tables.Schema({"n": tables.Integer()}), flows.Normal(trainable=True)
    result = tables.fit(0, pl.DataFrame({"n": counts}), schema, model=model, **QUICK)
    n = np.array([18.0, 20.0, 25.0])
    (_, scaling), base = result.result.params["bijection"], result.result.params["prior"]
    mean, std = (float(scaling["fixed"][name][0]) for name in ("mean", "std"))
    normal = stats.norm(counts.min() + mean + std * float(base["loc"][0]), std * np.exp(float(base["log_scale"][0])))
    masses = normal.cdf(n + 0.5) - normal.cdf(n - 0.5)
    frame = pl.DataFrame({"n": n})
    np.testing.assert_allclose(result.log_prob(frame, draws=256), np.log(masses), atol=2e-3)
    np.testing.assert_allclose(result.log_prob(frame), normal.logpdf(n), atol=1e-4)
    assert not np.allclose(normal.logpdf(n), np.log(masses), atol=2e-3)


def test_one_number_has_quantiles_in_its_units():
    frame = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=300), "group": np.repeat(["x", "y"], 150)})
    result = tables.fit(0, frame, condition="group", model=flows.Normal(conditioner=flows.conditioners.MLP(8)), **QUICK)
    low, high = result.interval(0.5, given={"group": "x"})
    middle = result.quantile(0.5, given={"group": "x"})
    assert np.datetime64("2019-06-01") < low < middle < high < np.datetime64("2021-06-01")
    rows = frame[["group"]].iloc[[7, 200]]
    quantiles, interval = result.quantile([0.25, 0.5], given=rows), result.interval(0.5, given=rows)
    assert quantiles.index.tolist() == interval.index.tolist() == [7, 200]
    assert quantiles.columns.tolist() == ["q0.25", "q0.5"] and interval.columns.tolist() == ["low", "high"]
    near = pd.Timedelta(days=9)  # as these are quantiles of draws
    assert abs(quantiles["q0.5"][7] - middle) < near and abs(quantiles["q0.25"][7] - low) < near
    assert (abs(interval["low"] - quantiles["q0.25"]) < near).all() and (interval["high"] > quantiles["q0.5"]).all()
    assert result.quantile(0.5, given=pl.DataFrame(rows))["q0.5"].to_list() == quantiles["q0.5"].to_list()
    assert "expected one number" in error_of(lambda: fitted().quantile(0.5))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_quantiles_are_of_the_dtype_of_the_column_and_in_its_zone(library):
    zoned = pd.Series(pd.date_range("2020-01-01", periods=200, freq="7h", tz="Europe/Berlin"))
    model = flows.Normal(trainable=True)
    middle = tables.fit(0, library({"day": zoned}), model=model, **QUICK).quantile([0.0, 0.5])[1]
    assert str(middle.tzinfo) == "Europe/Berlin" and zoned.iloc[0] < middle < zoned.iloc[-1]
    seconds = np.random.default_rng(0).gamma(3.0, size=200)
    result = tables.fit(0, library({"span": (seconds * 1e6).astype("m8[us]")}), model=model, **QUICK)
    least, middle = result.quantile([0.0, 0.5])
    assert np.isnat(least) and np.timedelta64(1, "s") < middle < np.timedelta64(5, "s")
    assert "draws is 'a'" in error_of(lambda: result.log_prob(result.draw(0, 2), draws="a"))


def test_gaps_weights_and_validation():
    frame = mixed(60)
    frame.loc[3, "share"], frame.loc[[3, 7], "level"] = np.nan, np.nan
    frame["weight"] = 1.0
    small = {**QUICK, "max_epochs": 1, "model": flows.Normal(conditioner=flows.conditioners.MLP(4))}
    assert "is a gap" in error_of(lambda: tables.fit(0, frame.drop(columns="weight"), SCHEMA, **small))
    with pytest.warns(UserWarning, match="2 of 60 rows are left out.*'share' in 1, 'level' in 2"):
        result = tables.fit(0, frame, SCHEMA, weights="weight", gaps="drop", validation=mixed(10).assign(weight=1.0), **small)
    assert result.result.history["rows"] == 58 and result.result.history["held_out"] == 10
    complete = frame.dropna().head(3)
    np.testing.assert_array_equal(result.log_prob(complete), result.log_prob(complete.drop(columns="weight")))
    assert "weight" not in result.draw(1, 1) and result.schema["weight"] == tables.Ignored()
    assert "of the condition" in error_of(lambda: tables.fit(0, frame, weights="kind", condition="kind"))
    assert "which is not a column of the frame" in error_of(lambda: tables.fit(0, frame, weights="size"))
    message = error_of(lambda: tables.fit(0, mixed(60), SCHEMA, validation=frame.drop(columns="weight"), **small))
    assert message.startswith("tables.fit: validation: ") and "column 'share', row 3, is a gap" in message
    for weights in (np.ones(58), np.ones(61)):
        message = error_of(
            lambda weights=weights: tables.fit(0, frame.drop(columns="weight"), SCHEMA, weights=weights, gaps="drop")
        )
        assert f"weights has shape {weights.shape}, expected (60,)" in message


@pytest.mark.parametrize("library", [pd.DataFrame, pl.from_pandas])
def test_columns_of_groups_and_order_are_not_modelled(library):
    frame = mixed(120)
    frame["who"], frame["day"] = [f"p{i}" for i in np.arange(120) % 20], pd.date_range("2024-01-01", periods=120)[::-1]
    frame.loc[[3, 100], "level"] = np.nan
    small = {**QUICK, "max_epochs": 1, "model": flows.Normal(conditioner=flows.conditioners.MLP(4)), "gaps": "drop"}
    with pytest.warns(UserWarning, match="2 of 120 rows are left out"):
        result = tables.fit(0, library(frame.drop(columns="day")), groups="who", **small)
    levels = result.result.kept.x[:, 4] + result.schema.offsets["level"]
    held_out = {frame["who"][(frame["level"] - level).abs().idxmin()] for level in levels}
    assert result.schema["who"] == tables.Ignored() and "who" not in result.draw(1, 1).columns
    assert "rows of 2 groups held out" in repr(result) and len(held_out) == 2
    with pytest.warns(UserWarning, match="2 of 120 rows are left out"):
        last = tables.fit(0, library(frame.drop(columns="who")), order="day", **small)
    assert "of the last 12 rows held out" in repr(last) and "day" not in last.schema.columns
    levels = np.sort(last.result.kept.x[:, 4] + last.schema.offsets["level"])
    np.testing.assert_allclose(levels, np.sort(frame["level"].dropna()[:12]), rtol=1e-5)
    text = frame.drop(columns="who").assign(day=frame["day"].dt.strftime("%d.%m.%Y"))
    with pytest.warns(UserWarning, match="2 of 120 rows are left out"):
        again = tables.fit(0, library(text), order="day", **small)
    np.testing.assert_array_equal(again.result.kept.x, last.result.kept.x)
    for options, words in (
        ({"groups": "where"}, "tables.fit: groups is 'where', which is not a column of the frame"),
        ({"order": "kind", "condition": "kind"}, "tables.fit: order is 'kind', which is a column of the condition"),
        ({"groups": np.zeros(118)}, "tables.fit: groups has shape (118,), expected (120,), also for gaps"),
        ({"order": frame["day"].astype(str)}, "fit: order is text, such as 2024-04-29; expected numbers, or a column that is"),
        ({"order": "who"}, "fit: order is text, such as p0; expected"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            message = error_of(lambda options=options: tables.fit(0, library(frame), **{**small, **options}))
        assert words in message


def test_codes_alone_have_the_masses_of_their_counts():
    frame = pl.DataFrame({"a": np.repeat(["x", "y", "z"], [300, 150, 50]), "b": np.tile([True, False], 250)})
    result = tables.fit(0, frame, max_epochs=30, verbose=0)
    assert result.selection is not None and len(result.selection.candidates) == 2
    counts = frame.group_by("a", "b").len()
    masses = np.exp(result.log_prob(counts.select("a", "b")))
    np.testing.assert_allclose(masses, counts["len"].to_numpy() / len(frame), atol=0.02)
    assert "Leave it out" in error_of(lambda: tables.fit(0, frame, model=FLOW))


@pytest.mark.parametrize("option", [{"folds": 5}, {"checkpoint": "x"}, {"callbacks": [print]}])
def test_what_a_choice_among_models_does_not_have(option):
    (name,) = option
    assert f"{name} is given" in error_of(lambda: tables.fit(0, mixed(60), SCHEMA, **option))


def test_fresh_rows_are_as_usual_as_those_held_out():
    result = fitted()
    assert stats.kstest(result.p_value(mixed(500, seed=5)), "uniform").pvalue > 1e-3


@pytest.mark.filterwarnings("ignore:fit. row")
def test_every_kind_of_draw_is_encoded_again():
    frame = pd.DataFrame(
        {
            "count": RNG.poisson(3.0, ROWS),
            "price": RNG.gamma(3.0, size=ROWS).round(2),
            "hour": RNG.integers(0, 24, ROWS),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 1000, ROWS), "D"),
            "flag": RNG.random(ROWS) < 0.3,
            "same": "EUR",
        }
    )
    schema = tables.infer_schema(frame).replace({"hour": tables.Circular(24, step=1), "count": tables.Integer(low=0)})
    result = tables.fit(0, frame, schema, model=FLOW, **QUICK)
    drawn = result.draw(1, 10_000)
    assert (drawn.dtypes == frame.dtypes).all() and list(drawn.columns) == list(frame.columns)
    assert np.isfinite(result.log_prob(drawn)).mean() > 0.999
    assert set(drawn["hour"]) <= set(range(24)) and (drawn["count"] >= 0).all() and set(drawn["same"]) == {"EUR"}
    assert result.likelihood == "lower bound" and result.verify(drawn).looked_at == 10_000
    again = result.log_prob(drawn[:50], draws=4)
    assert np.isfinite(again).all() and not np.allclose(again, result.log_prob(drawn[:50]))


@pytest.mark.parametrize("condition", [("nothing",), ("colour", "nothing")])
def test_a_condition_that_is_no_column(condition):
    assert "'nothing'" in error_of(lambda: tables.fit(0, mixed(60), condition=condition, model=FLOW))


def test_a_condition_of_one_value():
    frame = mixed(60).assign(unit="kg")
    message = error_of(lambda: tables.fit(0, frame, condition="unit", model=FLOW))
    assert message.startswith("tables.fit: the condition, 'unit', has one value in all rows")


def test_few_rows_and_many_categories_can_be_fitted():
    rng = np.random.default_rng(0)
    few = tables.fit(0, mixed(30), SCHEMA, model=flows.Normal(conditioner=flows.conditioners.MLP(4)), **QUICK)
    assert np.isfinite(few.log_prob(mixed(5))).all()
    frame = pd.DataFrame({"town": [f"t{i}" for i in rng.integers(0, 500, 3_000)]})
    many = tables.fit(0, frame, tables.Schema({"town": tables.Category()}), model="auto", max_epochs=1, verbose=0)
    assert many.log_prob(frame).mean() == pytest.approx(-np.log(500), abs=0.2)


@pytest.mark.parametrize("given", [None, {"group": "x"}], ids=["", "given"])
def test_draws_beyond_float32_are_drawn_again(given):
    frame = pd.DataFrame({"size": np.random.default_rng(0).lognormal(size=200), "group": np.repeat(["x", "y"], 100)})
    schema = tables.Schema({"size": tables.Real(low=0), "group": tables.Category() if given else tables.Ignored()})
    model = flows.Normal(conditioner=flows.MLP(2)) if given else flows.Normal(trainable=True)
    result = tables.fit(0, frame, schema, condition=["group"] if given else [], model=model, **QUICK)
    old = result.result.params["prior"]
    normal = jax.tree.map(np.zeros_like, old["distribution"] if given else old)
    wide = normal[-1]["b"] if given else normal["log_scale"]
    wide[-1] = 4.5  # of a logarithm: exp(90) at one standard deviation
    prior = {**old, "distribution": normal} if given else normal
    result = tables.TableResult(result.schema, result.result._replace(params={**result.result.params, "prior": prior}))
    context = {"context": np.array([1.0, 0.0])} if given else {}
    assert np.isinf(np.asarray(result.result.draw(0, 400, **context))).any()
    drawn = result.draw(0, 400, given)
    assert np.isfinite(drawn["size"]).all() and drawn["size"].nunique() > 300
