"""`NormalScores`: each column made normal by itself."""

import jax
import jax.numpy as jnp
import numpy as np
from common import close, error_of
from scipy.special import ndtr, ndtri
from scipy.stats import kstest

import flows
from flows.diagnostics import enable_x64

DRAW = np.random.default_rng(0)


def test_columns_become_normal_and_come_back():
    rows = np.column_stack([np.exp(DRAW.normal(size=4000)), DRAW.random(4000), DRAW.standard_t(3, size=4000)]).astype(
        np.float32
    )
    params, direct_fun, inverse_fun = flows.NormalScores()(0, 3, init_inputs=rows)
    outputs, _ = direct_fun(params, rows)
    assert max(kstest(column, "norm").statistic for column in np.asarray(outputs, float).T) < 0.02
    close(inverse_fun(params, outputs)[0], rows, 1e-5)
    fixed = params["fixed"]
    scores = np.linspace(-2.4, 2.4, 16)
    close(fixed["scores"], scores, 1e-6)
    close(fixed["knots"], np.quantile(rows, ndtr(scores), axis=0), 1e-5)
    close(direct_fun(params, fixed["knots"])[0], np.repeat(scores[:, None], 3, 1), 1e-5)
    chords = np.diff(scores)[:, None] / np.diff(fixed["knots"], axis=0)
    close(fixed["slopes"][1:-1], 2 / (1 / chords[1:] + 1 / chords[:-1]), 1e-4)


def test_it_goes_straight_on_beyond_the_outer_quantiles_and_is_no_steeper_than_near_them():
    rows = np.concatenate([DRAW.random((3000, 1)), DRAW.random((300, 1)) * 1e-3 + 1.0]).astype(np.float32)  # crowded at an end
    params, direct_fun, inverse_fun = flows.NormalScores(16)(0, 1, init_inputs=rows)
    fixed = params["fixed"]
    last, wide = 0.32 / np.diff(fixed["knots"][-2:, 0]), 1.28 / (fixed["knots"][-1, 0] - fixed["knots"][-5, 0])
    assert fixed["slopes"][-1, 0] == np.float32(wide) or abs(fixed["slopes"][-1, 0] / wide - 1) < 1e-4
    assert wide < last
    points = jnp.array([[fixed["knots"][-1, 0] + 1], [fixed["knots"][-1, 0] + 2], [fixed["knots"][0, 0] - 1]])
    outputs, log_det = direct_fun(params, points)
    close(outputs[1] - outputs[0], fixed["slopes"][-1], 1e-4)
    close(outputs[2], -2.4 - fixed["slopes"][0], 1e-4)
    close(log_det, np.log(fixed["slopes"][jnp.array([-1, -1, 0]), 0]), 1e-5)
    close(inverse_fun(params, outputs)[0], points, 1e-5)


def test_the_log_det_of_what_was_measured_is_that_of_its_derivative():
    with enable_x64():
        rows = np.column_stack([np.exp(DRAW.normal(size=300)), DRAW.random(300)])
        params, direct_fun, _ = flows.NormalScores()(0, 2, init_inputs=rows)
        points = np.concatenate([rows[:50], [[-5.0, 4.0], [90.0, -3.0]]])
        jacobians = jax.vmap(jax.jacfwd(lambda x: direct_fun(params, x[None])[0][0]))(points)
        log_det = direct_fun(params, points)[1]
        np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobians))[1], rtol=1e-9, atol=1e-9)
        assert np.abs(log_det).max() > 1


def test_few_rows_and_values_that_repeat():
    few = DRAW.normal(size=(50, 1)).astype(np.float32)
    fixed = flows.NormalScores()(0, 1, init_inputs=few).params["fixed"]
    assert np.isclose(fixed["scores"][-1], -ndtri(2.5 / 50), rtol=1e-5), "as far as two rows or three lie beyond"
    same = np.concatenate([np.zeros((40, 1)), DRAW.random((40, 1))]).astype(np.float32)
    params, direct_fun, _ = flows.NormalScores()(0, 1, init_inputs=same)
    assert (np.diff(params["fixed"]["knots"], axis=0) > 0).all()
    outputs, log_det = direct_fun(params, same)
    assert np.isfinite(outputs).all() and np.isfinite(log_det).all()
    constant = flows.NormalScores()(0, 1, init_inputs=np.ones((40, 1), np.float32))
    assert np.isfinite(constant.direct_fun(constant.params, np.ones((3, 1), np.float32))[0]).all()


def test_some_features_and_wrong_arguments():
    rows = np.exp(DRAW.normal(size=(500, 2))).astype(np.float32)
    params, direct_fun, _ = flows.NormalScores(features=(1,))(0, 2, init_inputs=rows)
    outputs, _ = direct_fun(params, rows)
    np.testing.assert_array_equal(outputs[:, 0], rows[:, 0])
    assert abs(float(outputs[:, 1].mean())) < 0.1 and kstest(np.asarray(outputs[:, 1], float), "norm").statistic < 0.05
    assert "expected 2 or more" in error_of(lambda: flows.NormalScores(1))
    assert "features names feature 2, but there are 2" in error_of(lambda: flows.NormalScores(features=(2,))(0, 2))
    assert "expected a vector" in error_of(lambda: flows.NormalScores()(0, (2, 2)))
    again = flows.remeasure(flows.NormalScores(), flows.NormalScores()(0, 2, init_inputs=rows).params, 7 * rows)
    np.testing.assert_array_equal(
        again["fixed"]["knots"], flows.NormalScores()(0, 2, init_inputs=rows).params["fixed"]["knots"]
    )
