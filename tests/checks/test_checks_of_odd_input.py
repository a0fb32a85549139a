"""What is odd, and what is refused: few rows, NaN, constant draws, one column, images, files, rows in time order."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of, stirred
from triples import made, normal, triple

import flows

RIGHT = normal()
ROWS = np.random.default_rng(0).normal(size=(500, 2))
QUICK = {"only": ["coverage", "columns"], "samples": 1_000}


def test_few_rows_make_no_p_value():
    checks = flows.check(RIGHT, ROWS[:99])
    assert {each.verdict for each in checks.values()} == {"cannot tell"} and checks.passed
    assert checks["columns"].detail == "99 rows; at least 100 make a p-value"
    assert flows.check(RIGHT, ROWS[:100], **QUICK)["columns"].p is not None
    one = flows.check(RIGHT, ROWS[:1], samples=100)
    assert one.figures["standard_error"] is None and "1 rows" in repr(one)


def test_what_is_wrong_with_rows_is_named():
    rows = ROWS.copy()
    rows[7, 1], rows[9, 0] = np.nan, np.inf
    assert "check: data has nan in row 7, column 1, and 2 such rows" in error_of(lambda: flows.check(RIGHT, rows))
    assert "check: train has inf in row 1, column 0" in error_of(lambda: flows.check(RIGHT, ROWS, train=rows[8:]))
    assert "shape (500,)" in error_of(lambda: flows.check(RIGHT, ROWS[:, 0]))
    assert "shape (0, 2)" in error_of(lambda: flows.check(RIGHT, ROWS[:0]))


def test_rows_that_are_no_rows_are_refused():
    for data in (5, [], [[]], np.zeros((300, 0))):
        assert "expected (rows, columns)" in error_of(lambda data=data: flows.check(RIGHT, data))
    with pytest.raises(TypeError, match="expected rows of equal length"):
        flows.check(RIGHT, [[1, 2], [3]])
    far = error_of(lambda: flows.check(RIGHT, np.where(ROWS > 2, 1e200, ROWS)))
    assert "has 1e+200 in row" in far and "beyond float32" in far
    coarse = jnp.asarray(ROWS, jnp.bfloat16)
    told = flows.check(RIGHT, coarse, **QUICK)
    assert told.figures == flows.check(RIGHT, np.asarray(coarse, np.float32), **QUICK).figures


def test_numbers_that_float32_cannot_tell_apart_are_not_blamed_on_the_sampler():
    """The triple draws in float64; its density is asked in float32."""
    told = flows.check(normal(loc=1e9), ROWS + 1e9, only=["normalisation", "sampler", "columns"])
    assert told["sampler"].detail == told["normalisation"].detail and "too far from 0" in told["sampler"].detail
    near = flows.check(normal(loc=1e5), ROWS + 1e5, only=["normalisation", "sampler"])
    assert {each.verdict for each in near.values()} == {"pass"}


def test_names_and_numbers_that_do_not_fit_are_refused():
    def told(**given):
        return error_of(lambda: flows.check(RIGHT, ROWS, **given))

    assert "only is 'columsn'; expected names of shift, rows" in told(only="columsn")
    assert "only is []" in told(only=[])
    assert "tolerance has 'columsn'; expected names of" in told(tolerance={"columsn": 0.1})
    assert "tolerance of pairs is -1" in told(tolerance={"pairs": -1})
    assert "tolerance of pairs is nan" in told(tolerance={"pairs": float("nan")})
    assert "tolerance of pairs is inf" in told(tolerance={"pairs": float("inf")})  # is no number of JSON
    assert "only is ['foo']" in told(only=(name for name in ["foo"])) and "only is [[" in told(only=[["pairs"]])
    kept = flows.check(RIGHT, ROWS, level=np.float32(0.05), tolerance=np.float32(0.25), **QUICK)
    assert type(kept.figures["level"]) is float and kept["columns"].tolerance == 0.25
    assert "level is 1.0; expected a number between 0 and 1" in told(level=1.0)
    assert "samples is 99; expected at least 100" in told(samples=99)
    with pytest.raises(TypeError, match="only is 5; expected names of shift"):
        flows.check(RIGHT, ROWS, only=5)
    with pytest.raises(TypeError, match="expected the triple"):
        flows.check(flows.Normal(), ROWS)


def test_columns_and_contexts_are_those_of_the_model():
    gaussian = made(flows.Normal(trainable=True), {"loc": np.zeros(2, np.float32), "log_scale": np.zeros(2, np.float32)}, 2)
    assert "expected (rows, 2)" in error_of(lambda: flows.check(gaussian, ROWS[:, :1]))
    with pytest.raises(TypeError, match="context was given, but this model was fitted without one"):
        flows.check(gaussian, ROWS, context=ROWS)
    given = flows.Normal(trainable=True, regression=True)
    params = given(0, 2, context_dim=1).params
    regression = made(given, params, 2, 1)
    assert "context is missing" in error_of(lambda: flows.check(regression, ROWS))
    assert "context has shape (499, 1)" in error_of(lambda: flows.check(regression, ROWS, context=ROWS[1:, :1]))
    context = np.random.default_rng(1).normal(size=(500, 1))
    assert "expected a pair (rows, context)" in error_of(lambda: flows.check(regression, ROWS, context=context, train=ROWS))
    lone = error_of(lambda: flows.check(regression, ROWS, context=context, train=(ROWS, None)))
    assert "expected a pair (rows, context)" in lone
    few = flows.check(regression, ROWS, context=context, train=(ROWS[:9], context[:9]), only="copies")["copies"]
    assert few.verdict == "cannot tell" and "9 training rows" in few.detail
    unknown = np.where(context > 2, np.nan, context)
    row = int(np.isnan(unknown).argmax())
    for model in (regression, normal(loc=lambda c: c[..., :1])):
        message = error_of(lambda model=model: flows.check(model, ROWS, context=unknown))
        assert f"context of data has nan at [{row}, 0]" in message
        message = error_of(lambda model=model: flows.check(model, ROWS, context=context, train=(ROWS, unknown)))
        assert "context of train has nan" in message
    checks = flows.check(regression, ROWS, context=context, train=(ROWS, context), only=["ranks", "copies"])
    assert checks["ranks"].verdict == "pass" and "500 of 500 rows are in train" in repr(checks)
    assert "in train" not in repr(flows.check(regression, ROWS, context=context, train=(ROWS, -context), only="ranks"))
    plain = normal(loc=lambda c: c[..., :1])
    assert "context has shape (499, 2)" in error_of(lambda: flows.check(plain, ROWS, context=ROWS[1:]))
    assert "context of data has shape ()" in error_of(lambda: flows.check(plain, ROWS, context=0.0))
    assert "give (rows, 1)" in error_of(lambda: flows.check(plain, ROWS, context=ROWS[:, 0]))


def test_rows_that_are_training_rows_by_chance_are_no_matter():
    """Whole numbers, many of which were there before."""

    def draw(random, n, context):
        return random.poisson(20, size=(n, 2)).astype(float)

    counts = triple(lambda x, c: np.zeros(len(x)), draw)
    train, rows = draw(np.random.default_rng(1), 500, None), draw(np.random.default_rng(2), 500, None)
    told = flows.check(counts, rows, train=train, only=["columns", "copies"], samples=1_000)
    assert told.passed and not told.figures["remarks"] and "of 1,000 draws are training rows" in told["copies"].detail
    (remark,) = flows.check(counts, np.concatenate([rows, train]), train=train, only="columns", samples=1_000).figures[
        "remarks"
    ]
    assert "rows are in train" in remark and "% of draws, and were not held out" in remark


def test_a_context_for_all_makes_a_model_without_one():
    model = normal(loc=lambda c: c[..., :1])
    rows = ROWS + 3.0
    told = [flows.check(model, rows, context=context, **QUICK) for context in ([3.0, 0.0], np.full((500, 2), [3.0, 0.0]))]
    assert told[0].figures == told[1].figures and told[0]["columns"].verdict == "pass"
    assert not flows.check(model, rows, context=[2.5, 0.0], **QUICK).passed
    assert "ranks" not in flows.check(model, rows, context=[3.0, 0.0], samples=1_000)
    assert "see columns" in flows.check(model, rows, context=[3.0, 0.0], only="ranks")["ranks"].detail


def test_functions_that_return_something_else_are_refused():
    flat = (*RIGHT[:2], lambda rng, params, n, context=None: np.zeros(n))
    assert "sample returned shape (1000,); expected (1000, 2)" in error_of(lambda: flows.check(flat, ROWS, samples=1_000))
    two = ({}, lambda params, x, context=None: np.zeros((len(x), 2)), RIGHT[2])
    assert "log_pdf returned shape (500, 2); expected (500,)" in error_of(lambda: flows.check(two, ROWS, **QUICK))
    for returned, told in ((["a"] * 500, "dtype <U1"), (np.zeros(500) + 0j, "dtype complex128"), (([0.0], 0), "not an array")):
        odd = ({}, lambda params, x, context=None, returned=returned: returned, RIGHT[2])
        with pytest.raises(TypeError, match=f"log_pdf returned .*{told}"):
            flows.check(odd, ROWS, **QUICK)
    with pytest.raises(TypeError, match="sample returned dtype <U"):
        flows.check((*RIGHT[:2], lambda *given, **context: RIGHT[2](*given).astype(str)), ROWS, **QUICK)


def test_constant_draws_and_draws_that_are_not_finite_fail():
    constant = triple(lambda x, c: np.zeros(len(x)), lambda random, n, c: np.zeros((n, 2)))
    checks = flows.check(constant, ROWS[:150], train=ROWS[::2], samples=150)
    assert checks["columns"].verdict == checks["classifier"].verdict == checks["energy"].verdict == "FAIL" and repr(checks)
    lost = triple(normal()[1], lambda random, n, c: np.where(np.arange(n)[:, None] % 50, random.normal(size=(n, 2)), np.nan))
    lost = (*RIGHT[:2], lost[2])
    told = flows.check(lost, ROWS, samples=1_000)
    assert told["columns"].verdict == "FAIL" and "2.00% of draws are not finite" in told["columns"].detail
    assert told["energy"].verdict == "cannot tell"
    gone = (*RIGHT[:2], lambda rng, params, n, context=None: np.full((n, 2), np.inf))
    assert flows.check(gone, ROWS, samples=1_000)["columns"].detail == "100.00% of draws are not finite"
    unknown = ({}, lambda params, x, context=None: np.full(len(x), np.nan), RIGHT[2])
    told = flows.check(unknown, ROWS, samples=1_000)
    assert "500 of them without a density" in repr(told) and told["coverage"].verdict == "cannot tell"
    assert told["rows"].verdict == "FAIL" and told["rows"].detail == "log p of 500 of 500 rows is not finite"


def test_draws_that_are_whole_numbers_make_none_of_rows():
    """Rows are put in the dtype of draws, which would cut off their digits."""
    cut = triple(lambda x, c: np.zeros(len(x)), lambda random, n, c: random.normal(size=(n, 2)).astype(int))
    assert not flows.check(cut, ROWS, only="columns", samples=1_000).passed
    assert flows.check(cut, ROWS.astype(int), only="columns", samples=1_000).passed


def test_draws_given_a_context_that_are_constant_or_lost():
    context = np.random.default_rng(1).normal(size=(150, 1))
    constant = triple(lambda x, c: np.zeros(len(x)), lambda random, n, c: np.zeros((n, 2)))
    checks = flows.check(constant, ROWS[:150], context=context)
    assert checks["ranks"].verdict == checks["tarp"].verdict == checks["classifier"].verdict == "FAIL"
    lost = (*constant[:2], lambda rng, params, n, context=None: np.full((n, 2), np.nan))
    told = flows.check(lost, ROWS[:150], context=context, train=(ROWS, np.resize(context, (500, 1))))
    assert told["ranks"].detail == "100.00% of rows have draws that are not finite" and repr(told)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("some", [True, False], ids=["some", "all"])
def test_densities_that_are_not_finite_fail(value, some):
    def log_pdf(params, x, context=None):
        return np.where((np.asarray(x)[:, 0] > 1) | (not some), value, RIGHT[1](params, x))

    told = flows.check(({}, log_pdf, RIGHT[2]), ROWS, samples=1_000)
    assert told["rows"].verdict == "FAIL" and told.figures["log_likelihood"] is None
    assert told["sampler"].verdict == ("cannot tell" if np.isnan(value) else "FAIL")
    assert json.dumps(told.figures, allow_nan=False)


def test_figures_are_json_of_densities_beyond_all_numbers():
    told = flows.check(({}, lambda params, x, context=None: 1e300 * RIGHT[1](params, x), RIGHT[2]), ROWS, samples=1_000)
    assert told.figures["standard_error"] is None and json.dumps(told.figures, allow_nan=False) and repr(told)


def test_one_column_and_images():
    one = flows.check(normal(d=1), ROWS[:150, :1], samples=1_000)
    assert one.passed and one["pairs"].detail == "one column" and one["energy"].p is not None
    image = ({}, lambda params, x, context=None: RIGHT[1](params, np.asarray(x).reshape(-1, 2)), None)
    image = (*image[:2], lambda rng, params, n, context=None: RIGHT[2](rng, params, n).reshape(n, 2, 1, 1))
    told = flows.check(image, ROWS[:150].reshape(-1, 2, 1, 1), samples=1_000)
    flat = flows.check(RIGHT, ROWS[:150], samples=1_000)
    assert {name: each[:4] for name, each in told.items()} == {name: each[:4] for name, each in flat.items()}
    assert list(told.figures["crps"]) == ["(0, 0, 0)", "(1, 0, 0)"]


def test_one_column_given_a_context_is_told_by_its_distribution_function():
    init_fun = flows.Flow(flows.Coupling(flows.MLP(4)))
    result = made(init_fun, stirred(init_fun(0, 1, context_dim=1).params, 0.3), 1, 1)
    context = np.random.default_rng(1).normal(size=(500, 1)).astype(np.float32)
    rows = np.array(result.sample(jax.random.key(1), result.params, 500, context=context))
    assert result.cdf_by == "map" and "columns" in flows.check(result, rows[:99], context=context[:99])
    told = flows.check(result, rows, context=context, only=["columns", "ranks"])
    assert told.passed and "Kolmogorov distance of P(X <= x)" in told["columns"].detail
    lower = flows.check(result, rows - 0.5, context=context, only="columns")["columns"]
    assert lower.verdict == "FAIL" and lower.detail.endswith("rows lie lower than draws")


def test_a_file_is_checked_like_the_result_and_figures_are_json(path):
    init_fun = flows.Flow(flows.ActNorm())
    params = {**init_fun(0, 2).params}
    held_out = np.random.default_rng(1).normal(size=(300, 2))
    result = made(init_fun, params, 2, kept=(held_out,))
    result.save(path)
    told = [
        flows.check(each, ROWS, only=["shift", "rows", "latents", "columns"], samples=1_000)
        for each in (result, flows.load(path))
    ]
    assert told[0].figures == told[1].figures and told[0].passed and told[0].rows.passed
    assert json.loads(json.dumps(told[0].figures))["checks"]["shift"]["verdict"] == "pass"
    for name in ("draws", "ranks", "latents", "log_p", "rows"):
        assert isinstance(told[0].arrays[name], np.ndarray)


def test_rows_in_time_order_are_told_and_how_to_thin_them():
    noise, x = np.random.default_rng(2).normal(size=(2_000, 2)), np.zeros((2_000, 2))
    for i in range(1, 2_000):
        x[i] = 0.8 * x[i - 1] + 0.6 * noise[i]
    (remark,) = flows.check(RIGHT, x, **QUICK).figures["remarks"]
    assert "rows depend on those before them" in remark and "(column 0 correlates by 0.79" in remark
    step = int(remark.rpartition("::")[2].rstrip("]"))
    assert 8 <= step <= 20
    assert not flows.check(RIGHT, x[::step], **QUICK).figures["remarks"]
    assert not flows.check(RIGHT, noise, **QUICK).figures["remarks"]


def test_rows_far_out_are_those_that_verify_names():
    deep = flows.Flow(flows.Repeat(flows.Serial(flows.Coupling(flows.MLP(16, last_scale=0.1)), flows.Reverse()), 12))
    result = made(deep, stirred(deep(0, 2).params, 0.05), 2)
    rows = np.asarray(result.draw(jax.random.key(1), 300)).copy()
    rows[::3] *= 10
    told, report = flows.check(result, rows, only="rows"), result.verify(rows)
    assert told.rows == report and told.rows.looked_at == 300
    assert {each.row for each in report.rows} and {each.row for each in report.rows} <= set(range(0, 300, 3))
    assert told["rows"].verdict == "FAIL" and told["rows"].size == len(report.rows) / 300


def test_a_classifier_that_is_none_is_refused_before_there_is_work():
    def sample(*_):
        raise AssertionError("draws were made")

    with pytest.raises(TypeError, match="check: classifier is 5; expected an object with fit and predict_proba"):
        flows.check(({}, lambda params, x: x[:, 0], sample), np.zeros((200, 2)), classifier=5)


@pytest.mark.parametrize("width", [2, 4])
def test_a_triple_of_rows_of_another_width_is_told(width):
    def log_pdf(params, x):
        return -0.5 * np.square(np.asarray(x) - np.ones(3)).sum(1)

    def sample(rng, params, n):
        return np.zeros((n, 3))

    told = error_of(lambda: flows.check(({}, log_pdf, sample), np.zeros((200, width))))
    assert f"sample returned shape (10000, 3); expected (10000, {width})" in told
