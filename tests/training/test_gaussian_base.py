"""The base that `fit` gives a flow: a normal that starts at the correlation of rows, and at their regression on a context."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of
from scipy.stats import multivariate_normal, norm

import flows
from flows.training import fit
from flows.training.data.prepare import Prepared
from flows.training.data.standardization import shrinkage_of_start
from flows.training.data.table import Rows
from flows.training.model_view import from_gaussian

DRAW = np.random.default_rng(0)
NORMAL = DRAW.normal(size=(400, 3))
ROWS = NORMAL @ [[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]]
ACT = flows.ActNorm()
FULL = flows.Normal(trainable=True, covariance="full")
QUICK = {"max_epochs": 1, "batch_size": 64, "verbose": 0}


def gaussian(rows, held_out, weights=None):
    covariance = np.cov(rows.T, aweights=weights, bias=True)
    return multivariate_normal(np.average(rows, 0, weights), covariance).logpdf(held_out).mean()


def regression(rows, context, held_out, seen):
    design, of_held_out = (np.column_stack([np.ones(len(each)), each]) for each in (context, seen))
    coefficients = np.linalg.lstsq(design, rows, rcond=None)[0]
    covariance = np.atleast_2d(np.cov((rows - design @ coefficients).T, bias=True))
    residuals = held_out - of_held_out @ coefficients
    return multivariate_normal(np.zeros(rows.shape[1]), covariance).logpdf(residuals).mean()


def test_a_flow_starts_at_the_closed_form_gaussian_with_its_columns_unmixed():
    result = fit(0, flows.Flow(ACT), ROWS[:300], validation=ROWS[300:], **QUICK)
    assert result.init_fun == flows.Flow(flows.Standardize(), flows.Flow(ACT, FULL))
    assert -result.history["start_loss"] == pytest.approx(gaussian(ROWS[:300], ROWS[300:]), abs=1e-4)
    weights = np.r_[np.ones(150), 4 * np.ones(150)]
    weighted = fit(0, flows.Flow(ACT), ROWS[:300], weights=weights, validation=ROWS[300:], **QUICK)
    assert -weighted.history["start_loss"] == pytest.approx(gaussian(ROWS[:300], ROWS[300:], weights), abs=1e-3)


def test_a_start_measures_rows_as_often_as_their_weights_say():
    weighted = Rows(np.arange(4.0)[:, None], None, np.array([1.0, 0.0, 2.0, 5.0]))
    measured = Prepared.init_data.fget(SimpleNamespace(train=weighted)).init_inputs
    counts = np.bincount(np.asarray(measured)[:, 0].astype(int))
    np.testing.assert_allclose(counts / counts.sum(), [1 / 8, 0, 2 / 8, 5 / 8], atol=1e-3)


def test_a_column_that_others_all_but_tell_is_freed_of_them():
    rows = np.column_stack([NORMAL, NORMAL.sum(1) + 0.1 * DRAW.normal(size=400)])  # 0.06 of its deviation is left
    result = fit(0, flows.Flow(ACT), rows[:300], validation=rows[300:], **QUICK)
    assert result.init_fun == flows.Flow(flows.Whiten(unmixed=(0, 1, 2)), flows.Flow(ACT, FULL))
    assert -result.history["start_loss"] == pytest.approx(gaussian(rows[:300], rows[300:]), abs=1e-3)
    assert "a linear regression on earlier columns is subtracted from column 3" in repr(result)
    folds = fit(0, flows.Flow(ACT), rows, folds=2, **QUICK)
    assert folds.member.arguments["bijection"] == flows.Whiten(unmixed=(0, 1, 2))


def test_many_rows_free_a_column_of_which_more_is_left():
    less = np.column_stack([NORMAL, NORMAL.sum(1) + 0.46 * DRAW.normal(size=400)])  # 0.26 is left
    many = fit(0, flows.Flow(ACT), less, **QUICK)
    few = fit(0, flows.Flow(ACT), less[:150], **QUICK)  # fewer than 50 rows for each column
    assert many.init_fun.arguments["bijection"].arguments["unmixed"] == (0, 1, 2) and "is subtracted from" in repr(many)
    assert few.init_fun.arguments["bijection"] == flows.Standardize() and "freed" not in repr(few)


def test_what_is_no_flow_on_a_standard_normal_keeps_its_base():
    student = flows.Flow(ACT, flows.StudentT(trainable=True))
    diagonal = flows.GMM(num_components=1, covariance="diagonal")

    def objective(params, distribution, x):
        return -distribution.log_pdf(params, x).mean()

    kept = [
        (student, {}, flows.Flow(flows.Standardize(), student)),
        (flows.Flow(ACT), {"standardize": "whiten"}, flows.Flow(flows.Whiten(), flows.Flow(ACT))),
        (flows.Flow(ACT), {"standardize": "columns"}, flows.Flow(flows.Standardize(), flows.Flow(ACT))),
        (flows.Flow(ACT), {"objective": objective}, flows.Flow(flows.Standardize(), flows.Flow(ACT))),
        (flows.Normal(), {}, flows.Flow(flows.Whiten(), flows.Normal())),
        (diagonal, {}, flows.Flow(flows.Standardize(), diagonal)),
    ]
    for model, options, expected in kept:
        assert fit(0, model, ROWS, **QUICK, **options).init_fun == expected
    assert fit(0, flows.Flow(ACT), ROWS[:, :1], **QUICK).init_fun == flows.Flow(flows.Standardize(), flows.Flow(ACT))
    within = flows.Flow(ACT, flows.Flow(flows.Reverse()))
    assert fit(0, within, ROWS, **QUICK).init_fun.arguments["prior"] == flows.Flow(ACT, flows.Flow(flows.Reverse(), FULL))


def test_vectors_of_very_many_columns_keep_their_base():
    for columns, expected in ((512, flows.Flow(ACT, FULL)), (513, flows.Flow(ACT))):
        assert from_gaussian(flows.Flow(ACT), (columns,), None, None) == expected


def test_few_rows_that_are_not_normal_shrink_the_start():
    def of(rows, columns, power):
        z = np.random.default_rng(1).normal(size=(rows, columns))
        z = np.sign(z) * np.abs(z) ** power
        return shrinkage_of_start(z / z.std(0), 0.03)

    assert of(60, 6, 1) == 0.03 and of(60, 6, 3) == 0.75 and of(20, 6, 3) == 1.0
    assert of(150, 6, 3) == 0.03  # 25 rows for each column
    mixed = np.sign(NORMAL) * np.abs(NORMAL) ** 3 @ [[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]
    base = fit(0, flows.Flow(ACT), mixed[:33], validation=mixed[33:], **QUICK).init_fun.arguments["prior"].arguments["prior"]
    assert base == flows.Normal(trainable=True, covariance="full", shrinkage=round((75 / 33 - 1) / 2, 2))


def test_a_conditional_flow_starts_at_the_regression_on_its_context():
    context = DRAW.normal(size=(400, 2)) * [100.0, 1.0] + 7
    flow = flows.Flow(flows.Elementwise(flows.transformers.Affine(), flows.MLP(last_scale=0.0)))
    for columns in (1, 3):
        rows = ROWS[:, :columns] + context @ DRAW.normal(size=(2, columns))
        given = {"context": context[:300], "validation": (rows[300:], context[300:])}
        result = fit(0, flow, rows[:300], **given, **QUICK)
        told = regression(rows[:300], context[:300], rows[300:], context[300:])
        assert -result.history["start_loss"] == pytest.approx(told, abs=1e-3)
        assert result.history["gaussian_loss"] == pytest.approx(-told, abs=1e-6)
    few = np.tile(context[:20], (1, 3)) + DRAW.normal(size=(20, 6))  # three rows for each entry of a context say nothing
    base = flows.Normal(trainable=True, regression=True)
    seen, own = (jnp.asarray(each, jnp.float32) for each in (few, DRAW.normal(size=(20, 1))))
    params = base(0, 1, context_dim=6, init_inputs=own, init_context=seen).params
    assert not params["slope"].any()


def test_a_normal_whose_mean_is_linear_in_the_context():
    base = flows.Normal(trainable=True, covariance="full", regression=True, shrinkage=0.0)
    context = DRAW.normal(size=(400, 2))
    rows = ROWS + context @ [[1.0, 0.0, 2.0], [0.0, -1.0, 0.5]] + 5
    x, c = jnp.asarray(rows, jnp.float32), jnp.asarray(context, jnp.float32)
    params, log_pdf, sample = base(0, 3, context_dim=2, init_inputs=x, init_context=c)
    assert log_pdf(params, x, context=c).mean() == pytest.approx(regression(rows, context, rows, context), abs=1e-4)
    draws = np.asarray(sample(0, params, 4000, context=c[0]))
    mean = params["loc"] + c[0] @ params["slope"]
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.15)
    each = sample(1, params, 400, context=c)
    assert np.abs(np.corrcoef(np.asarray(each - x).T)).max() <= 1 + 1e-6 and each.shape == (400, 3)
    plain = flows.Normal(trainable=True, regression=True)
    theta = {"loc": jnp.array([1.0]), "log_scale": jnp.array([0.5]), "slope": jnp.array([[2.0], [-1.0]])}
    point, seen = np.array([[0.3], [2.0]], np.float32), np.array([[1.0, 2.0], [0.0, 1.0]], np.float32)
    _, log_pdf, _ = plain(0, 1, context_dim=2)
    scale = np.exp(10 * np.tanh(0.05))
    expected = norm(1 + seen @ [2.0, -1.0], scale).logpdf(point[:, 0])
    np.testing.assert_allclose(log_pdf(theta, point, context=seen), expected, rtol=1e-6)
    result = fit(0, flows.Flow(ACT), rows[:, :1], context=context, folds=1, **QUICK)
    assert result.cdf_by == "map"
    middle = result.quantile([0.2, 0.5], context=context[:3])
    cdf = [result.cdf(middle[:, i : i + 1], context=context[:3]) for i in (0, 1)]
    np.testing.assert_allclose(cdf, [[0.2] * 3, [0.5] * 3], atol=1e-5)
    draws = np.asarray(result.draw(1, 4000, context=context[:3]))[..., 0]
    np.testing.assert_allclose(np.quantile(draws, [0.2, 0.5], axis=1).T, middle, atol=0.15)


def test_arguments_of_the_normal_that_do_not_fit():
    assert "no full covariance trains" in error_of(lambda: flows.Normal(trainable=True, shrinkage=0.1))
    for wrong in (2, True, "much"):
        assert "expected a number from 0 to 1" in error_of(lambda w=wrong: flows.Normal(True, "full", shrinkage=w))
    assert "give trainable=True" in error_of(lambda: flows.Normal(regression=True))
    assert "give trainable=True" in error_of(lambda: flows.Normal(True, conditioner=flows.MLP(4), regression=True))
    assert "give init_fun context_dim=" in error_of(lambda: flows.Normal(True, regression=True)(0, 2))
    with pytest.raises(TypeError, match="context"):
        FULL(0, 2, context_dim=3)
    half = flows.Normal(True, "full", shrinkage=1.0)(0, 3, init_inputs=jnp.asarray(ROWS, jnp.float32)).params
    np.testing.assert_allclose(half["tril"], 0.0, atol=1e-6)
    assert jax.tree.structure(half) == jax.tree.structure(FULL(0, 3).params)
