"""Tables with gaps: one model of any columns given any others."""

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import error_of

import flows
from flows import tables
from flows.conditionals import Angle, Category, Number
from flows.tables import Circular, DateTime, Integer, Ordinal, Real, Schema
from flows.tables.kinds.dtypes import combined
from flows.training.loop.checkpoint import Checkpoint

rng = np.random.default_rng(0)
N = 120
GRADES = np.array(["low", "mid", "high"])
FRAME = pd.DataFrame(
    {
        "grade": pd.Categorical(GRADES[rng.integers(0, 3, N)], GRADES, ordered=True),
        "town": rng.choice(["Bonn", "Oslo"], N),
        "turn": rng.integers(0, 36, N) * 10.0,
        "size": rng.lognormal(size=N).round(1) + 0.1,
        "count": rng.poisson(3, N),
        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, N), "D"),
        "unit": "EUR",
        "note": "x",
    },
    index=np.arange(N) * 2,
)
KINDS = {
    "grade": Ordinal(GRADES.tolist()),
    "town": tables.Category(),
    "turn": Circular(360, step=10),
    "size": Real(low=0),
    "count": Integer(low=0),
    "day": DateTime(),
    "unit": tables.Constant("EUR"),
    "note": tables.Ignored(),
}
COLUMNS = "grade", "town", "turn", "size", "count", "day"  # as they are modelled
MODEL = flows.AnySubset(hidden=(8,), num_bins=2)


def with_gaps(frame, share=0.2):
    frame, mask = frame.copy(), np.random.default_rng(1).uniform(size=(len(frame), len(COLUMNS))) < share
    mask[0], mask[1] = [True, *[False] * 5], False  # a row with one gap, and one without
    for name, missing in zip(COLUMNS, mask.T, strict=True):
        frame[name] = frame[name].where(~missing)
    return frame


GAPPY = with_gaps(FRAME)


@pytest.fixture(scope="module")
def fitted():
    return tables.fit(0, GAPPY, Schema(KINDS), model=MODEL, max_epochs=2, folds=1, verbose=0)


def test_a_fit_with_gaps_that_stopped_goes_on(fitted, tmp_path, monkeypatch):
    def stop(epoch):
        raise KeyboardInterrupt

    settings = {"model": MODEL, "max_epochs": 2, "folds": 1, "verbose": 0, "checkpoint": tmp_path}
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        tables.fit(0, GAPPY, Schema(KINDS), callbacks=[stop], **settings)
    epochs = []
    again = tables.fit(0, GAPPY, Schema(KINDS), callbacks=[epochs.append], **settings)
    assert len(epochs) < len(fitted.result.history["validation_loss"])
    jax.tree.map(np.testing.assert_array_equal, again.result.params, fitted.result.params)


def test_columns_of_a_schema_become_columns_of_the_model(fitted):
    arguments = fitted.result.init_fun.arguments
    assert arguments["columns"] == (
        Category(3), Category(2), Angle(360.0, 10.0), Number(low=0.0), Number(low=0.0, step=1.0), Number(step=86400.0)
    )  # fmt: skip
    assert fitted.schema.columns == COLUMNS and arguments["hidden"] == (8,) and fitted.any_given_any
    assert np.isfinite(fitted.log_prob(GAPPY)).all()


def test_ends_of_a_model_are_steps():
    frame = pd.DataFrame({"x": [0.25, 1.25, 3.25], "y": [0.5, 1.5, 9.5], "z": [0.3, 1.4, 2.2]})
    kinds = {"x": Real(low=0, high=4, step=0.5), "y": Real(low=0, step=1), "z": Real(step=1)}
    schema = Schema(kinds).fitted(frame)
    columns = [schema[name].conditional(name, schema.complete(name)) for name in kinds]
    assert columns == [Number(0.25, 3.75, 0.5), Number(0.5, step=1.0), Number(step=1.0)]
    circle = Schema({"x": Circular(4, step=1.0)}).fitted(frame[["x"]])
    begin = "the steps of column 'x' begin at 0.25, and angles at 0; expected one start: Circular(4, low=0.25, step=1.0)"
    assert begin in error_of(lambda: circle["x"].conditional("x", circle.complete("x")))
    rows = schema.encode(frame)  # values off the steps from 0 are rounded to these, counted from one of them
    assert rows[:, 2].tolist() == [0.0, 1.0, 2.0]
    log_p = flows.AnySubset(*columns, hidden=(4,))(0, 3).log_pdf
    assert np.isfinite(log_p(flows.AnySubset(*columns, hidden=(4,))(0, 3).params, rows.astype(np.float32))).all()


def test_a_density_is_of_what_is_there(fitted):
    whole = FRAME.iloc[:4]
    partial = whole.assign(size=np.nan, town=None)
    rest = fitted.conditional(["grade", "turn", "count", "day"])
    np.testing.assert_allclose(fitted.log_prob(partial), rest.log_prob(whole), atol=1e-4)
    first, others = fitted.conditional(COLUMNS[:2]), fitted.conditional(COLUMNS[2:], COLUMNS[:2])  # in the order of the columns
    np.testing.assert_allclose(first.log_prob(whole) + others.log_prob(whole), fitted.log_prob(whole), atol=1e-5)
    assert fitted.log_prob(whole, draws=3).tolist() == fitted.log_prob(whole).tolist()
    empty = whole.assign(**dict.fromkeys(["grade", "town", "turn", "size", "count"]), day=pd.NaT)
    assert fitted.log_prob(empty).tolist() == [0.0] * 4


def test_values_that_cannot_be_are_refused_or_coerced(fitted):
    odd = FRAME.iloc[:3].astype({"town": object}).assign(town=["Bonn", "Rome", None])
    assert "column 'town', row 1 (index 2), is 'Rome'; expected one of 'Bonn', 'Oslo'" in error_of(lambda: fitted.log_prob(odd))
    with pytest.warns(UserWarning, match="1 of 3 rows have an unknown category .* 0 have a gap"):
        scores = fitted.log_prob(odd, errors="coerce")
    assert np.isfinite(scores[[0, 2]]).all() and scores[1] == -np.inf
    with pytest.warns(UserWarning, match="1 of 3 rows"):
        assert fitted.p_value(odd, errors="coerce").argmin() == 1


@pytest.mark.parametrize("library", [pd.DataFrame, pl.from_pandas], ids=["pandas", "polars"])
def test_gaps_are_filled_and_the_rest_stays(fitted, library):
    noon = pd.Timestamp("2024-01-05 12:00")  # off the steps of the fit
    whole = GAPPY.assign(day=GAPPY["day"].where(np.arange(N) != 1, noon))
    frame = whole.assign(unit=GAPPY["unit"].where(np.arange(N) != 3)) if library is pd.DataFrame else library(whole)
    gaps = GAPPY[list(COLUMNS)].isna().to_numpy()
    for filled in (fitted.impute(frame), fitted.impute(frame, 1)):
        assert list(filled.columns) == list(frame.columns) and type(filled) is type(frame)
        got = filled if library is pd.DataFrame else filled.to_pandas()
        there = got[list(COLUMNS)].astype(object).to_numpy()
        before = whole[list(COLUMNS)].astype(object).to_numpy()
        assert (there == before)[~gaps].all() and not pd.isna(there).any()
        assert np.isfinite(fitted.log_prob(filled)).all()  # on steps, within bounds, and known
    if library is pd.DataFrame:
        assert filled.index.equals(GAPPY.index) and filled["unit"].iloc[3] == "EUR"
        assert filled.dtypes["day"] == GAPPY.dtypes["day"] and filled.dtypes["grade"] == GAPPY.dtypes["grade"]
    with pytest.warns(UserWarning, match="the frame has no gaps; a copy of it is returned"):
        assert fitted.impute(FRAME).equals(FRAME)


def test_what_is_expected_is_the_mean_of_draws(fitted):
    row = GAPPY.iloc[[1]].assign(size=np.nan, town=None, turn=np.nan)
    draws = fitted.draw(0, 4_000, given=row[["grade", "count", "day"]])
    filled = fitted.impute(row).iloc[0]
    assert abs(filled["size"] - draws["size"].mean()) < 0.15 * draws["size"].std()
    assert filled["town"] == draws["town"].mode()[0]
    mean = np.exp(1j * np.deg2rad(draws["turn"])).mean()
    assert abs(np.angle(np.exp(1j * np.deg2rad(filled["turn"])) / mean)) < 0.15 / max(abs(mean), 0.3)
    assert fitted.impute(row, 5).equals(fitted.impute(row, 5))
    twice = fitted.impute(pd.concat([row] * 9), 3)
    assert twice["size"].nunique() > 3  # equal rows have draws of their own


def test_draws_have_what_is_given(fitted):
    given = GAPPY[["size", "town"]].iloc[:5]
    draws = fitted.draw(0, 2, given=given)
    repeated = given.loc[given.index.repeat(2)].reset_index(drop=True)
    known = repeated["size"].notna()
    assert len(draws) == 10 and (draws["size"][known] == repeated["size"][known]).all() and draws.notna().all(axis=None)
    assert (fitted.draw(0, 3, given={"town": "Oslo", "size": None})["town"] == "Oslo").all()
    assert "'z' is not a column of the model; expected some of 'grade'" in error_of(lambda: fitted.draw(0, 1, given={"z": 1}))
    assert len(fitted.draw(0, 1, given=GAPPY[["size", "unit", "note"]].iloc[:2])) == 2  # a constant, and one that is ignored


def test_contributions_are_conditionals(fitted):
    rows = GAPPY.iloc[:6]
    got = fitted.contributions(rows, verbose=0)
    assert got.index.equals(rows.index) and got.isna().equals(rows[got.columns].isna())
    others = [name for name in COLUMNS if name != "size"]
    expected = fitted.conditional("size", others).log_prob(rows[rows["size"].notna()])
    np.testing.assert_allclose(got["size"].dropna(), expected, atol=1e-4)
    some = fitted.conditional(["size", "town"], ["day"])
    assert "ask the model of all" in error_of(lambda: some.contributions(FRAME.iloc[:2], verbose=0))


def test_rows_with_gaps_have_p_values_that_a_file_keeps(fitted, tmp_path):
    values = fitted.p_value(GAPPY)
    assert ((values > 0) & (values <= 1)).all() and np.ptp(values) > 0.5
    by_columns = fitted.p_value(GAPPY.iloc[:5], by="columns", verbose=0)
    fitted.save(tmp_path / "t.flows")
    loaded = tables.load(tmp_path / "t.flows")
    np.testing.assert_array_equal(loaded.p_value(GAPPY), values)
    np.testing.assert_allclose(loaded.p_value(GAPPY.iloc[:5], by="columns", verbose=0), by_columns)
    assert "gaps are taken to be at random" in repr(loaded) and loaded.result.history["orders"] >= 0
    assert loaded.impute(GAPPY).equals(fitted.impute(GAPPY))


def test_rows_with_gaps_are_ranked_by_what_is_usual(fitted):
    scores, usual = tables.ranks.gap_scores(fitted.result)
    there = fitted.result.kept.context[:, 1] == 0
    np.testing.assert_allclose(scores, fitted.result.scores - there @ usual[:-1] - usual[-1], atol=1e-6)
    assert (~there).any() and np.std(scores) < np.std(fitted.result.scores)  # which have more columns, or fewer
    there = GAPPY[list(COLUMNS)].notna().to_numpy()
    ranked = fitted.log_prob(GAPPY) - there @ usual[:-1] - usual[-1]
    expected = (1 + (scores <= ranked[:, None]).sum(1)) / (1 + len(scores))
    other = np.abs(scores - ranked[:, None]).min(1) > 1e-3  # than the rows held out themselves
    assert other.sum() > 50
    np.testing.assert_allclose(fitted.p_value(GAPPY)[other], expected[other])


def test_orders_of_columns_are_compared(fitted):
    x, contexts, _ = fitted.result.kept
    there = contexts[:, 1] == 0

    def log_p(half):
        role = np.where(there & half, 0, 2), np.where(there, np.where(half, 1, 0), 2)
        return sum(fitted.result.log_prob(x, context=np.stack([x, one], 1)) for one in role)

    first = np.arange(len(COLUMNS)) < 3
    expected = np.abs(log_p(first) - log_p(~first)).mean()
    assert expected > 1e-4
    np.testing.assert_allclose(fitted.result.history["orders"], expected, rtol=1e-4)


def test_a_question_has_quantiles_given_gaps(fitted, tmp_path):
    size = fitted.conditional("size", ["grade", "town"])
    both = size.quantile([0.1, 0.9], given={"grade": "low", "town": None})
    frame = pd.DataFrame({"grade": ["low", "high"], "town": [None, "Oslo"]}, index=[7, 8])
    intervals = size.interval(0.8, given=frame)
    assert intervals.index.tolist() == [7, 8]
    np.testing.assert_allclose(intervals.loc[7], both, rtol=1e-4)
    rows = frame.assign(size=[both[0], 1.0])
    np.testing.assert_allclose(size.cdf(rows)[0], 0.1, atol=1e-3)
    grade = fitted.conditional("grade", "size")
    assert grade.quantile(0.5, given={"size": 1.0}) in GRADES and len(grade.quantile([0.5], given=rows[["size"]])) == 2
    draws = size.draw(0, 2, given=frame)
    assert draws["town"].isna().tolist() == [True, True, False, False] and (draws["size"] > 0).all()
    size.save(tmp_path / "q.flows")
    np.testing.assert_array_equal(tables.load(tmp_path / "q.flows").quantile([0.1, 0.9], {"grade": "low", "town": None}), both)


def test_pictures_and_checks_leave_gaps_out(fitted):
    plt = pytest.importorskip("matplotlib.pyplot")
    with pytest.warns(UserWarning, match=r"plot: \d+ of 120 rows are left out, as they have gaps"):
        assert len(fitted.plot(GAPPY, ["size", "town"], n=50).axes) == 3
    for given in ({"town": "Oslo"}, pl.DataFrame({"town": ["Oslo", "Bonn"]})):
        assert fitted.plot(columns=["size"], n=50, given=given).axes
    band = fitted.conditional("size", "count").plot(FRAME, n=50)
    assert "90% of the model" in [text.get_text() for text in band.legends[0].get_texts()]
    plt.close("all")
    with pytest.warns(UserWarning, match="check: data: .* rows are left out"):
        assert fitted.__flows_check__().read(GAPPY, None, "data")[0].shape[1] == len(COLUMNS)


def test_members_are_averaged():
    frame = GAPPY[["town", "size"]]
    folds = tables.fit(0, frame, model=MODEL, max_epochs=1, folds=2, verbose=0)
    expected = np.mean([tables.gaps.expected(one, contexts_of(frame)) for one in folds.result.judges()], 0)
    got = tables.gaps.expected(folds.result, contexts_of(frame))
    np.testing.assert_allclose(got[:, 1], expected[:, 1], rtol=1e-4)
    assert folds.result.scored.by_gaps is not None  # before any question, so that a file has them
    assert set(got[:, 0]) <= {0.0, 1.0} and folds.schema["town"].values == ("Bonn", "Oslo")
    assert np.isfinite(folds.log_prob(frame)).all() and ((p := folds.p_value(frame)) > 0).all() and (p <= 1).all()
    assert folds.impute(frame).notna().all(axis=None)


def contexts_of(frame):
    return flows.gaps(np.full((3, 2), np.nan), fill=True)[1]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: tables.fit(0, GAPPY, model=[MODEL, flows.Normal()]), "model has AnySubset.* among others; expected it alone"),
        (lambda: tables.fit(0, GAPPY, model=MODEL, condition="town"), "leave condition out, and ask result.conditional"),
        (
            lambda: tables.fit(0, GAPPY.assign(size=np.nan), Schema(KINDS).fitted(FRAME), model=MODEL),
            "'size' is empty in all rows; expected a value",
        ),
        (lambda: tables.fit(0, GAPPY), r"is a gap.* Fit rows with gaps by tables.fit\(0, frame, model=flows.AnySubset\(\)\)"),
    ],
)  # fmt: skip
def test_a_fit_that_cannot_be_is_refused(call, error):
    with pytest.raises(flows.FlowsError, match=error):
        call()


def test_questions_that_cannot_be_are_refused(fitted):
    for call, said in [
        (lambda: fitted.conditional("z"), "'z' is not a column that is modelled; expected some of 'grade'"),
        (lambda: fitted.conditional("unit"), "'unit' is not a column that is modelled"),
        (lambda: fitted.conditional("size", ["size"]), "each once"),
        (lambda: fitted.conditional(["size", "size"]), "each once"),
        (lambda: fitted.conditional([]), "expected one column that is asked"),
        (lambda: fitted.quantile(0.5), "expected one number, or one Ordinal"),
        (lambda: fitted.impute(GAPPY[["size"]]), "lacks"),
        (lambda: fitted.conditional("size").impute(FRAME), "is not of any columns given any others; fit one by tables.fit"),
    ]:  # fmt: skip
        assert said in error_of(call), said


def test_gaps_are_not_pooled():
    """A gap of a category with a pool is missing, and not rare."""
    frame = pd.DataFrame({"c": ["a", "b", None, "z"] * 30, "x": rng.normal(size=120)})
    schema = tables.infer_schema(frame).replace({"c": tables.Category(other="rest")})
    result = tables.fit(0, frame, schema, model=MODEL, max_epochs=1, folds=1, verbose=0)
    assert result.schema["c"].known == ("a", "b", "z", "rest") and result.impute(frame)["c"].notna().all()
    gap = result.log_prob(pd.DataFrame({"c": [None], "x": [0.5]}))
    np.testing.assert_allclose(gap, result.conditional("x").log_prob(pd.DataFrame({"x": [0.5]})), atol=1e-5)


def test_contributions_of_what_cannot_be_are_told_by_column(fitted):
    rows = FRAME.iloc[:2].astype({"town": object}).assign(town=["Rome", "Bonn"], size=[1.0, 2.0])
    with pytest.warns(UserWarning, match="1 of 2 rows have an unknown category"):
        got = fitted.contributions(rows, errors="coerce", verbose=0)
    assert got["town"].iloc[0] == -np.inf and got.iloc[0].drop("town").isna().all() and np.isfinite(got.iloc[1]).all()


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_a_dtype_that_does_not_hold_a_value_becomes_wider(library):
    column = pd.Series([1, None, 3], dtype="Int8") if library is pd.DataFrame else pl.Series("n", [1, None, 3], pl.Int8)
    mask = np.array([False, True, False])
    for value in (900, 2.5):
        other = pd.Series([value] * 3) if library is pd.DataFrame else pl.Series([value] * 3)
        assert list(combined(column, other, mask)) == [1, value, 3]
    narrow = (
        pd.Series(["a", None], dtype="category") if library is pd.DataFrame else pl.Series("n", ["a", None], pl.Enum(["a"]))
    )
    wide = pd.Series(["a", "b"]).astype("category") if library is pd.DataFrame else pl.Series(["a", "b"])
    assert list(combined(narrow, wide, np.array([False, True]))) == ["a", "b"]


def test_a_gap_has_no_zone(fitted):
    zoned = FRAME[["size", "day"]].assign(day=FRAME["day"].dt.tz_localize("UTC"))
    result = tables.fit(0, zoned, model=MODEL, max_epochs=1, folds=1, verbose=0)
    assert result.draw(0, 2, given={"day": None})["day"].notna().all()
    assert result.draw(0, 1, given=FRAME.iloc[:2][["size"]].assign(unit=1, day=pd.NaT).drop(columns="unit")).shape == (2, 2)


def test_one_column_alone_has_quantiles_and_folds_rank_columns():
    frame = with_gaps(FRAME)[["size"]]
    result = tables.fit(0, frame, model=MODEL, max_epochs=1, folds=2, verbose=0)
    low, high = result.interval(0.5)
    rows = pd.DataFrame({"size": [low, high]})
    above = result.cdf(rows) - [0.25, 0.75]  # to the end of a cell
    assert (above >= 0).all() and (above < 0.1).all()
    values = result.p_value(frame.iloc[:4], by="columns", verbose=0)
    assert ((values > 0) & (values <= 1)).all()


def test_a_question_can_be_checked(fitted):
    question = fitted.conditional(["size", "town"], ["count"]).__flows_check__()
    _, contexts = question.read(FRAME.iloc[:7], None, "data")
    assert question.draw(0, 14, contexts).shape == (14, 2) and question.draw(0, 5, contexts[0]).shape == (5, 2)


def test_gaps_that_are_values_stay_and_that_is_said():
    frame = GAPPY[["town", "size"]]
    result = tables.fit(0, frame, tables.infer_schema(frame), model=MODEL, max_epochs=1, folds=1, verbose=0)
    with pytest.warns(UserWarning, match="gaps of 'town' stay, as the schema has None among the values"):
        filled = result.impute(frame)
    assert filled["town"].isna().equals(frame["town"].isna()) and filled["size"].notna().all()
