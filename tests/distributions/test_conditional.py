"""Some columns given others: a distribution, and a result, with the params of the whole model."""

import jax
import numpy as np
import pandas as pd
import pytest

import flows
from flows.conditionals import Category, Number

MODEL = flows.AnySubset(Number(), Number(low=0, step=1.0), Category(3), hidden=(4,), num_bins=2)
rng = np.random.default_rng(0)
ROWS = np.stack([rng.normal(size=60), rng.integers(0, 9, 60), rng.integers(0, 3, 60)], 1).astype(np.float32)


@pytest.fixture(scope="module")
def result():
    frame = pd.DataFrame(ROWS, columns=["x", "n", "code"])
    return flows.fit(0, MODEL, frame, max_epochs=3, folds=1, verbose=0)


def roles(asked, given):
    role = np.full((len(ROWS), 3), 2.0, np.float32)
    role[:, asked], role[:, given] = 0, 1
    return np.stack([np.where(role == 1, ROWS, 0), role], 1)


def test_a_question_has_the_density_of_the_whole_model(result):
    asked, given = [2, 0], [1]
    conditional = flows.Conditional(MODEL, 3, asked, given)
    params, log_pdf, sample = conditional(0, 2, context_dim=1, init_inputs=ROWS[:, asked], init_context=ROWS[:, given])
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, result.params)
    whole = MODEL(0, 3, context_dim=(2, 3)).log_pdf
    expected = whole(result.params, ROWS, context=roles(asked, given))
    np.testing.assert_allclose(log_pdf(result.params, ROWS[:, asked], context=ROWS[:, given]), expected, atol=1e-5)
    draws = sample(1, result.params, 60, context=ROWS[:, given])
    assert draws.shape == (60, 2) and np.isin(draws[:, 0], [0, 1, 2]).all()
    assert flows.support(conditional, 2).inputs.classes.tolist() == [3, 0]
    alone = flows.Conditional(MODEL, 3, [0])(0, 1).log_pdf(result.params, ROWS[:, :1])
    np.testing.assert_allclose(alone, whole(result.params, ROWS, context=roles([0], [])), atol=1e-5)
    gappy = np.stack([ROWS[:, given], np.where(np.arange(60)[:, None] < 30, 1, 2)], 1)
    log_p = conditional(0, 2, context_dim=(2, 1)).log_pdf(result.params, ROWS[:, asked], context=gappy)
    np.testing.assert_allclose(log_p[:30], expected[:30], atol=1e-5)
    np.testing.assert_allclose(log_p[30:], whole(result.params, ROWS, context=roles(asked, []))[30:], atol=1e-5)


def test_a_result_answers_by_names_with_exact_quantiles(result, tmp_path):
    number = result.conditional("x", given=["code", "n"])
    assert (number.columns, number.context_columns, number.cdf_by) == (("x",), ("code", "n"), "map")
    context = np.array([1.0, 4.0], np.float32)
    q = np.array([0.02, 0.5, 0.98])
    np.testing.assert_allclose(number.cdf(number.quantile(q, context=context)[:, None], context=context), q, atol=1e-5)
    grid = np.linspace(-8, 8, 4_001)[:, None]
    density = np.exp(number.log_prob(grid, context=context))
    shares = np.interp(number.quantile(q, context=context), grid[:, 0], np.cumsum(density) * (grid[1, 0] - grid[0, 0]))
    np.testing.assert_allclose(shares, q, atol=2e-3)
    values = number.p_value(ROWS[:, [0]], context=ROWS[:, [2, 1]])
    assert values.min() >= 1 / 61 and values.max() <= 1 and len(set(values.tolist())) > 3
    number.save(tmp_path / "x.flows")
    loaded = flows.load(tmp_path / "x.flows")
    np.testing.assert_array_equal(loaded.p_value(ROWS[:, [0]], context=ROWS[:, [2, 1]]), values)
    assert loaded.quantile(0.5, context=context) == number.quantile(0.5, context=context)


def test_rounded_values_have_the_quantiles_of_their_masses(result):
    rounded = result.conditional(1)
    masses = np.exp(rounded.log_prob(np.arange(9_000.0)[:, None]))
    assert abs(masses.sum() - 1) < 1e-3
    expected = [masses[0], masses[:4].sum(), masses[:4].sum(), 0]
    np.testing.assert_allclose(rounded.cdf([[0.0], [3.0], [3.7], [-1.0]]), expected, atol=1e-5)
    q = np.array([0.1, 0.5, 0.9])
    np.testing.assert_array_equal(rounded.quantile(q), np.searchsorted(np.cumsum(masses), q))
    assert result.conditional("code").cdf_by == "draws"


def test_gaps_leave_out_rows_that_lack_an_answer():
    gappy = ROWS.copy()
    gappy[::2, 0] = np.nan
    x, context = flows.gaps(gappy)
    result = flows.fit(0, MODEL, x, context=context, max_epochs=2, folds=1, verbose=0, validation=0.5)
    question = result.conditional(0, given=1)
    there = int((result.kept.context[:, 1, 0] == 0).sum())
    assert 0 < there < len(result.kept.x) and question.kept.x.shape == (there, 1)
    assert len(question.scores) == there and np.isfinite(question.scores).all()


def test_an_impossible_context_has_no_answer(result):
    question = result.conditional("x", given="n")
    for value in (np.nan, 2.5, -1.0):
        context = np.array([value], np.float32)
        assert np.isnan(question.log_prob([[0.0]], context=context)).all()
        assert np.isnan(question.quantile(0.5, context=context)) and np.isnan(question.cdf([[0.0]], context=context)).all()
        drawn = question.sample(0, question.params, 3, context=context)
        assert np.isnan(drawn).all()


def test_members_answer_by_the_mean_of_their_densities():
    folds = flows.fit(0, MODEL, ROWS, max_epochs=2, folds=2, verbose=0)
    question = folds.conditional(0, given=[1])
    assert question.cdf_by == "map" and question.folds and question.scores.shape == folds.scores.shape
    members = [question.log_pdf_of_member(question.params_of_member(i), ROWS[:, :1], context=ROWS[:, 1:2]) for i in range(2)]
    np.testing.assert_allclose(
        question.log_prob(ROWS[:, :1], context=ROWS[:, 1:2]), np.logaddexp(*members) - np.log(2), atol=1e-5
    )
    context = np.array([4.0], np.float32)
    q = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(question.cdf(question.quantile(q, context=context)[:, None], context=context), q, atol=1e-5)
    assert np.isfinite(question.p_value(ROWS[:, :1], context=ROWS[:, 1:2])).all()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda r: r.conditional("z"), "conditional: there is no column 'z'; expected one of the columns' names, x, n, code"),
        (lambda r: r.conditional("x", ["x"]), r"asked is \(0,\), and given is \(0,\); expected different places from 0 to 2"),
        (lambda r: r.conditional([]), "and one asked"),
        (lambda r: flows.Conditional(MODEL, 3, [0])(0, 2), r"the event is \(2,\), the context None; expected \(1,\)"),
        (lambda r: flows.Conditional(MODEL, 3, [0], [1])(0, 1, context_dim=3), r"and \(1,\) or \(2, 1\), as 1 are given"),
        (lambda r: flows.Conditional(3, 3, [0]), "expected a distribution"),
        (
            lambda r: flows.FitResult({}, None, None, flows.Normal(), 3).conditional(0),
            "takes no roles of columns; expected a model",
        ),
        (lambda r: flows.Conditional(flows.Normal(), 3, [0]), "is not roles of columns; expected a model such as AnySubset"),
        (lambda r: flows.Conditional(flows.Conditional(MODEL, 3, [0]), 1, [0]), "is not roles of columns"),
        (lambda r: flows.Conditional(MODEL, 3, 2), "expected different places from 0 to 2"),
        (lambda r: flows.Conditional(MODEL, 3, [True]), "expected different places from 0 to 2"),
        (lambda r: r.conditional(None), "there is no column None"),
        (
            lambda r: flows.fit(0, flows.Flow(flows.ActNorm(), MODEL), ROWS),
            "scales its columns itself; fit it alone, not within",
        ),
        (
            lambda r: flows.fit(0, flows.StandardizedContext(MODEL), ROWS, context=roles([0, 1, 2], [])),
            "fit it alone, not within",
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line(result, call, error):
    with pytest.raises((flows.FlowsError, TypeError), match=error):
        call(result)
