"""What is asked of a result: scores and draws by names of columns, distribution functions, anomalies; and after a file."""

import io
import json

import jax
import numpy as np
import pandas
import polars
import pytest
from common import AFFINE, QUICK, ROWS, error_of
from scipy import stats
from tqdm import tqdm

import flows
from flows.persistence.container import read, write
from flows.training import fit, fit_ensemble, fit_to_density

TABLE = pandas.DataFrame(ROWS, columns=["height", "weight"])
FRESH = np.random.default_rng(1).normal(size=(200, 2))
FRESH[:, 1] += 2 * FRESH[:, 0]
CONTEXT = np.random.default_rng(3).normal(size=(300, 1))


@pytest.fixture(scope="module")
def of_table():
    return fit(0, AFFINE, TABLE, **QUICK)


@pytest.fixture(scope="module")
def of_folds():
    return fit(0, AFFINE, TABLE, folds=3, **QUICK)


def saved_and_loaded(result, path):
    result.save(path, {"unit": "cm"})
    return flows.load(path)


# Names of columns


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: polars.DataFrame(dict(x)), lambda x: x.convert_dtypes()])
def test_columns_are_put_in_order_by_name(of_table, kind):
    assert of_table.columns == ("height", "weight") and of_table.context_columns is None
    expected = of_table.log_pdf(of_table.params, ROWS)
    np.testing.assert_array_equal(of_table.log_prob(ROWS), expected)
    np.testing.assert_array_equal(of_table.log_prob(kind(TABLE[["weight", "height"]])), expected)


def test_other_columns_are_refused_by_name(of_table):
    message = error_of(lambda: of_table.log_prob(TABLE.assign(age=1.0)[["age", "height"]]))
    assert (
        message == "x lacks 'weight'; it also has 'age'. Expected the columns that the model was fitted to: 'height', 'weight'"
    )
    twice = TABLE.iloc[:, [0, 1, 1]]
    assert "has twice 'weight'" in error_of(lambda: of_table.log_prob(twice))
    words = TABLE.assign(height="tall", weight=None)
    with pytest.raises(TypeError, match=r"columns 'height' holds .*, 'weight' holds .*; expected numbers"):
        of_table.log_prob(words)
    with pytest.raises(TypeError, match="fit: data: columns 'height' holds"):
        fit(0, AFFINE, words, **QUICK)


def test_names_that_cannot_be_told_apart_are_refused(of_table):
    for labels in (["a", "a"], ["1", 1]):
        assert "columns of one name" in error_of(
            lambda labels=labels: fit(0, AFFINE, pandas.DataFrame(ROWS, columns=labels), **QUICK)
        )
    assert "x is a Series, whose order cannot be checked" in error_of(lambda: of_table.log_prob(TABLE.iloc[0]))


@pytest.mark.parametrize("labels", [[7, 3], [("a", "x"), ("a", "y")], ["a", 3]])
def test_draws_have_the_labels_of_the_table(labels, path):
    table = pandas.DataFrame(ROWS, columns=labels)
    result = fit(0, AFFINE, table, **QUICK)
    for each in (result, saved_and_loaded(result, path)):
        pandas.testing.assert_index_equal(each.draw(0, 2).columns, table.columns)
        np.testing.assert_array_equal(each.log_prob(table[table.columns[::-1]]), result.log_prob(ROWS))


def test_what_is_no_table_of_numbers_is_refused_with_a_remedy():
    for odd, words in (
        (TABLE.to_dict(), "data is a dict; expected rows of numbers or a frame"),
        (polars.DataFrame({"a": ROWS, "b": ROWS[:, 0]}), r"column 'a' holds arrays of shape \(2,\)"),
    ):
        with pytest.raises(TypeError, match=words):
            fit(0, AFFINE, odd, **QUICK)


def test_functions_of_arrays_refuse_names(of_table):
    message = error_of(lambda: of_table.log_pdf(of_table.params, TABLE))
    assert "columns 'height', 'weight', whose order a function of arrays cannot check" in message
    assert "result.log_prob(table)" in message


@pytest.mark.parametrize("kind", [pandas.DataFrame, polars.DataFrame])
def test_draws_are_what_was_fitted(kind):
    result = fit(0, AFFINE, kind({"a": ROWS[:, 0], "b": ROWS[:, 1]}), **QUICK)
    drawn = result.draw(1, 5)
    assert type(drawn) is kind and list(drawn.columns) == ["a", "b"]
    np.testing.assert_allclose(drawn.to_numpy(), result.sample(1, result.params, 5), rtol=1e-6)


def test_draws_of_contexts():
    table = pandas.DataFrame(CONTEXT, columns=["dose"])
    data = 2 * CONTEXT + 0.5 * ROWS[:, :1]
    conditional = flows.Normal(conditioner=flows.MLP(8))
    result = fit(0, conditional, data, context=table, learning_rate=0.05, **{**QUICK, "max_epochs": 10})
    assert result.context_columns == ("dose",) and result.columns is None
    assert result.draw(0, 3, context=[1.0]).shape == (3, 1)
    apart = pandas.DataFrame({"dose": [-2.0, 2.0]})
    drawn = result.draw(0, 400, context=apart)
    assert drawn.shape == (2, 400, 1)
    for i in (0, 1):
        shared = result.draw(0, 400, context=apart.to_numpy()[i])
        assert abs(float(drawn[i].mean() - shared.mean())) < 4 * float(shared.std()) / 20
    assert abs(float(drawn[0].mean() - drawn[1].mean())) > float(shared.std()) / 2
    np.testing.assert_array_equal(result.log_prob(data[:4], context=table[:4]), result.log_prob(data[:4], context=CONTEXT[:4]))
    assert "lacks 'dose'" in error_of(lambda: result.log_prob(data, context=table.rename(columns={"dose": "rate"})))
    assert "context" in error_of(lambda: result.log_prob(data[:4], context=CONTEXT[:3]))


# Anomalies


@pytest.mark.parametrize("bad", [False, True])
def test_scores_held_out_are_those_of_fresh_rows(bad):
    rng = np.random.default_rng(5)
    model = flows.Flow(flows.FixedAffine(shift=1.0, scale=3.0)) if bad else AFFINE
    small, ranks = [], []
    for seed in range(20):
        rows, fresh = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
        result = fit(seed, model, rows, validation=0.4, **QUICK)
        assert result.scores.shape == (120,)
        small.append(stats.ks_2samp(result.scores, np.asarray(result.log_prob(fresh))).pvalue)
        ranks.append(result.p_value(fresh))
    assert stats.kstest(small, "uniform").pvalue > 1e-3 and np.mean(np.array(small) < 0.05) <= 0.2
    for share in (0.05, 0.2, 0.5):
        assert abs((np.concatenate(ranks) <= share).mean() - share) < 0.03


def test_folds_rank_rows_among_those_that_they_have_not_seen(of_folds):
    assert of_folds.folds and of_folds.scores.shape == (3, 100)
    for i, rows in enumerate(of_folds.kept.x):
        np.testing.assert_allclose(of_folds.scores[i], of_folds.log_pdfs(of_folds.params, rows)[i], rtol=1e-4, atol=1e-4)
    each = np.asarray(of_folds.log_pdfs(of_folds.params, TABLE))
    ranks = of_folds.p_value(TABLE)
    below = sum((own[None] <= scores[:, None]).sum(1) for own, scores in zip(of_folds.scores, each, strict=True))
    np.testing.assert_allclose(ranks, (1 + below) / 301)
    far, nan = of_folds.p_value([[100.0, -100.0], [np.nan, 0.0]])
    assert far == 1 / 301 and np.isnan(nan)
    fresh = of_folds.p_value(FRESH)
    assert abs((fresh <= 0.2).mean() - 0.2) < 0.08


@pytest.mark.parametrize("kind", ["of_table", "of_folds"])
def test_scores_and_ranks_are_told_together(kind, request):
    result = request.getfixturevalue(kind)
    log_p, usual = result.log_prob_and_p_value(TABLE)
    np.testing.assert_allclose(log_p, result.log_prob(TABLE), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(usual, result.p_value(TABLE))


def test_without_rows_held_out_there_are_no_scores(of_table):
    q = fit_to_density(0, flows.Normal(trainable=True), lambda x: -0.5 * (x**2).sum(1), 2, max_epochs=1, steps_per_epoch=2,
                       num_weights=500, verbose=0)  # fmt: skip
    assert "  fit          loss -" in repr(q) and "effective sample size" in repr(q) and "likelihood" not in repr(q)
    for result in (q, flows.FitResult(*AFFINE(0, 2), AFFINE, 2)):
        assert "no scores of rows held out" in error_of(lambda result=result: result.p_value(ROWS))
    scores = of_table.scores
    other = jax.tree.map(lambda leaf: 2 * leaf, of_table)
    assert not np.allclose(other.scores, scores), "of the params that it has"


# Files


def test_all_of_it_comes_back_from_a_file(of_table, path):
    loaded = saved_and_loaded(of_table, path)
    assert isinstance(loaded, flows.FitResult) and loaded.columns == of_table.columns and loaded.seconds is None
    assert loaded.history.keys() == of_table.history.keys() and loaded.history["best_epoch"] == of_table.history["best_epoch"]
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.history), dict(of_table.history))
    swapped = TABLE[["weight", "height"]]
    for name in ("log_prob", "p_value"):
        np.testing.assert_array_equal(getattr(loaded, name)(swapped), getattr(of_table, name)(TABLE))
    pandas.testing.assert_frame_equal(loaded.draw(1, 3), of_table.draw(1, 3))
    assert repr(loaded) == repr(of_table).rpartition(",")[0], "but for the seconds"
    assert flows.describe(path)["columns"] == ["height", "weight"]
    header, _ = read(str(path))
    assert set(header) == {"constructor", "context", "event", "flows", "format"}
    before = path.read_bytes()
    saved_and_loaded(of_table._replace(seconds=99.0), path)
    assert path.read_bytes() == before, "equal results make equal files"
    assert "no scores" in error_of(lambda: jax.tree.map(lambda leaf: 2 * leaf, loaded).scores), "of other params"
    for same in (jax.tree.map(lambda leaf: leaf, loaded), jax.tree.map(lambda leaf: leaf + 0, loaded), jax.device_get(loaded)):
        np.testing.assert_array_equal(same.scores, of_table.scores)
    for name, each in of_table.history.items():
        assert type(loaded.history[name]) is type(each) and np.asarray(loaded.history[name]).dtype == np.asarray(each).dtype
    loaded.save(path)
    assert path.read_bytes() == before, "its metadata, too"


def test_the_diagnostics_of_a_density_come_back_from_a_file(path):
    q = fit_to_density(0, flows.Normal(trainable=True), lambda x: -0.5 * (x**2).sum(1), 2, max_epochs=1, steps_per_epoch=2,
                       num_weights=500, verbose=0)  # fmt: skip
    loaded = saved_and_loaded(q, path)
    assert type(loaded) is type(q) and loaded.diagnostics == q.diagnostics


def test_ensembles_come_back_from_a_file(of_folds, path):
    for result in (of_folds, fit_ensemble(0, AFFINE, TABLE, members=2, **QUICK)):
        loaded = saved_and_loaded(result, path)
        assert (loaded.members, loaded.member, loaded.path) == (result.members, result.member, result.path)
        np.testing.assert_array_equal(loaded.log_pdfs(loaded.params, TABLE[:9]), result.log_pdfs(result.params, TABLE[:9]))
        np.testing.assert_array_equal(loaded.p_value(TABLE[:9]), result.p_value(TABLE[:9]))
        np.testing.assert_array_equal(loaded.history["best_epoch"], result.history["best_epoch"])
        assert loaded.folds == result.folds


def text(**changes):
    return np.frombuffer(json.dumps(changes).encode(), np.uint8)


LOSSES = np.zeros(3)


@pytest.mark.parametrize(
    "beside",
    [
        {"text": np.frombuffer(b"\xff\xfe{", np.uint8)},
        {"text": np.frombuffer(b"[1]", np.uint8)},
        {"text": np.frombuffer(b"[" * 100_000, np.uint8)},
        {"text": np.zeros(2)},
        {"text": text(table=3)},
        {"text": text(table={"labels": "ab", "library": "pandas"})},
        {"text": text(table={"labels": [1, None], "library": "pandas"})},
        {"text": text(table={"labels": ["a", "b", "c"], "library": "pandas"})},
        {"text": text(table={"labels": ["a", "b"], "library": "os"})},
        {"text": text(context_table={"labels": ["a"], "library": "pandas"})},
        {"text": text(surprise=1)},
        {"text": text(metadata=1)},
        {"text": text(path=3)},
        {"text": text(path=[])},
        {"text": text(path=["prior"])},
        {"text": text(path=["prior", "elsewhere"])},
        {"scores": np.zeros((1, 2, 3))},
        {"scores": np.zeros((2, 3))},
        {"scores": np.zeros(3, np.float32)},
        {"scores": np.full(3, np.nan)},
        {"scores": np.zeros(0)},
        {"score_weights": np.ones(29)},
        {"score_weights": np.ones(30, np.float32)},
        {"score_weights": np.full(30, np.nan)},
        {"score_weights": np.r_[-1.0, np.ones(29)]},
        {"score_weights": np.zeros(30)},
        {"column_scores": np.zeros(30)},
        {"column_scores": np.zeros((1, 32))},
        {"diagnostics": np.zeros(4)},
        {"history/best_epoch": np.array(99)},
        {"history/best_epoch": np.array(0.0)},
        {"history/validation_loss": np.array(0.0)},
        {"history/validation_loss": np.zeros((2, 3))},
        {"history/validation_loss": np.zeros(0)},
        {"history/train_loss": np.zeros(9)},
        {"history/rows": LOSSES},
        {"history/rows": np.array(np.nan)},
        {"history/else": LOSSES},
        {"else": np.zeros(3)},
    ],
)
def test_what_stands_beside_a_model_is_not_trusted(beside, of_table, path):
    of_table.save(path)
    header, tensors = read(str(path))
    write(str(path), header, {**tensors, **{f"result:{name}": each for name, each in beside.items()}})
    assert str(path) in error_of(lambda: flows.load(path))


# What is said


def test_it_prints_as_a_few_lines(of_table):
    lines = repr(of_table).splitlines()
    assert lines[0].split(maxsplit=1) == ["FitResult", "270 rows of 2 columns (height, weight)"] and len(lines) <= 5
    nats = -of_table.history.best
    assert f"log-likelihood {nats:.3f} +- " in lines[2] and "of 30 rows held out" in lines[2]
    np.testing.assert_allclose(of_table.scores.mean(), nats, rtol=1e-4)
    np.testing.assert_allclose(of_table.history["error"], of_table.scores.std() / np.sqrt(30), rtol=1e-3)
    assert "Gaussian" in lines[3] and f"{-of_table.history['gaussian_loss']:.3f}" in lines[3]
    page = of_table._repr_html_()
    assert page.count("<polyline") == 2 and "validation loss" in page and "nan" not in page
    triple = repr(flows.Flow(flows.NSF())(0, 5))
    assert len(triple) < 100 and "numbers in" in triple and len(repr(flows.ActNorm()(0, 2))) < 100


def test_the_bar_says_that_it_compiles(monkeypatch):
    told, shown = io.StringIO(), []
    monkeypatch.setattr(tqdm, "set_description", lambda self, text, refresh=True: shown.append((self.desc, text)))
    monkeypatch.setattr("sys.stderr", told)
    fit(0, AFFINE, ROWS, **{**QUICK, "verbose": 1})
    assert shown[0] == ("compiling", "fit") and "compiling" in told.getvalue()


# Rows that are not to be trusted


def test_rows_that_are_not_to_be_trusted_are_named():
    deep = flows.Flow(flows.Repeat(flows.Serial(flows.Coupling(flows.MLP(16, last_scale=0.1)), flows.Reverse()), 12))
    result = fit(0, deep, ROWS, **QUICK, folds=1)
    good = result.verify(ROWS)
    assert good.passed and good.looked_at == 300 and str(good).startswith("0 of 300 rows are not to be trusted")
    rows = np.concatenate([ROWS[:3], 1e6 * ROWS[3:5], [[np.nan, 0.0]]])
    report = result.verify(rows)
    assert [each.row for each in report.rows] == [3, 4, 5] and not report.passed
    assert result.verify(ROWS[:0]).passed and result.p_value(ROWS[:0]).shape == (0,)
    assert report.rows[2].reason == "its log-density is nan"
    assert "row 3: " in str(report)


def test_a_context_reaches_the_rows_that_are_looked_at():
    data = 2 * CONTEXT + 0.5 * ROWS[:, :1]
    model = flows.Flow(flows.Autoregressive(flows.conditioners.MaskedMLP(8)))
    result = fit(0, model, data, context=CONTEXT, folds=2, max_epochs=2, batch_size=90, verbose=0)
    assert result.verify(data, context=CONTEXT).passed
    with_splines = fit(0, flows.Flow(flows.Elementwise(flows.transformers.RationalQuadratic(bound=3.0))), ROWS, **QUICK)
    far = with_splines.verify(np.array([[0.0, 0.0], [30.0, 0.0]]))
    assert [each.row for each in far.rows] == [1] and "outside the range of the splines, +-3" in far.rows[0].reason


def test_each_component_has_its_own_splines():
    """One without any sees rows anywhere, and each of the others those of its own units."""

    def splines(bound):
        return flows.Elementwise(flows.transformers.RationalQuadratic(bound=bound))

    rows = (100 + 5 * ROWS).astype(np.float32)
    near = flows.Flow(flows.FixedAffine(scale=1e-3), flows.Flow(splines(4.0)))
    wide = flows.Flow(flows.Whiten(), flows.Flow(splines(400.0)))
    together = flows.Flow(flows.Serial(flows.Whiten(), splines(4.0)))
    clusters = flows.Flow(flows.Whiten(), flows.GMM(num_components=2))
    far = np.concatenate([rows, [[100.0, 400.0]]]).astype(np.float32)
    for init_fun, flagged in (
        (flows.Mixture(near, wide), []),
        (flows.Mixture(clusters, flows.Mixture(together, num_components=2), flows.Mixture(wide, clusters)), [300]),
    ):
        params, log_pdf, sample = init_fun(0, 2, init_inputs=rows)
        report = flows.FitResult(params, log_pdf, sample, init_fun, 2).verify(far)
        assert [each.row for each in report.rows] == flagged
        assert all("outside the range of the splines, +-4" in each.reason for each in report.rows)
