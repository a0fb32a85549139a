"""`flows.fit`: what it refuses, and what it does when a loss is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import AFFINE, QUICK, ROWS, held_out_first

import flows
from flows.training import fit


def bad(row, column, value):
    x = ROWS.copy()
    x[row, column] = value
    return x


def offset(by):
    return ROWS + np.array([0.0, by])


@pytest.mark.parametrize(
    "data, words",
    [
        (bad(7, 1, np.nan), "nan in row 7, column 1"),
        (bad(3, 0, -np.inf), "-inf in row 3, column 0"),
        (bad(3, 0, 1e300), "1e\\+300 in row 3, column 0.*float32"),
        (ROWS * np.array([1.0, 0.0]), "column 1 of data is constant"),
        (offset(1e9), "column 1 of data is 1e\\+09.*float32 cannot tell apart"),
        (ROWS * 1e-40, "cannot tell apart"),
        (ROWS[:, 0], r"shape \(300,\).*np.asarray\(data\)\[:, None\]"),
        (ROWS[0], r"shape \(2,\)"),
        (ROWS[:, :0], "at least one column"),
        (ROWS[:1], "1 row.*leaves 0"),
        (ROWS[:2], "2 rows.*leaves 1"),
        (ROWS[:0], "0 rows"),
        ([], "two axes"),
    ],
)
def test_bad_data_are_an_error_that_says_where(data, words):
    with pytest.raises(flows.FlowsError, match=words):
        fit(0, AFFINE, data, **QUICK)


@pytest.mark.parametrize(
    "data, words",
    [
        (ROWS + 1j, "complex128"),
        (ROWS.astype(object), "object"),
        ([["a", "b"]], "real numbers"),
        ([[1.0], [1.0, 2.0]], "equal length"),
    ],
)
def test_what_is_not_real_numbers_is_a_type_error(data, words):
    with pytest.raises(TypeError, match=words):
        fit(0, AFFINE, data, **QUICK)


@pytest.mark.parametrize(
    "context, error, words",
    [
        (np.ones((3, 1)), flows.FlowsError, r"context has shape \(3, 1\), expected \(300, \*context\)"),
        (np.ones(300), flows.FlowsError, r"np.asarray\(context\)\[:, None\]"),
        (np.full((300, 1), np.nan), flows.FlowsError, "context has nan in row 0, column 0"),
        (np.ones((300, 1)), TypeError, "no layer of .* takes one"),
    ],
)
def test_bad_context_is_an_error(context, error, words):
    with pytest.raises(error, match=words):
        fit(0, flows.Flow(flows.ActNorm()), ROWS, context=context, **QUICK)


@pytest.mark.parametrize(
    "init_fun, words",
    [
        (flows.NSF(), r"bijection NSF\(\).*flows.Flow\(NSF\(\)\)"),
        (flows.Flow, "call it"),
        (flows.MLP(8), "expected a distribution"),
        ("NSF", "expected a distribution"),
        (lambda rng, d: ({}, lambda p, x: (x, 0.0), lambda p, x: (x, 0.0)), "expected shape"),
    ],
)
def test_what_is_not_a_distribution_is_an_error(init_fun, words):
    with pytest.raises((TypeError, flows.FlowsError), match=words):
        fit(0, init_fun, ROWS, **QUICK)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"validation": 0}, "between 0 and 1"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"validation": True}, "between 0 and 1"),
        ({"validation": 0.999}, "leaves 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"patience": -1}, "patience"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_settings_outside_their_range_are_errors(settings, words):
    with pytest.raises(flows.FlowsError, match=words):
        fit(0, AFFINE, ROWS, **{**QUICK, **settings})


def test_optimizers_are_optax_and_have_their_own_rate():
    with pytest.raises(TypeError, match="an optimizer of optax"):
        fit(0, AFFINE, ROWS, optimizer="adam", **QUICK)
    with pytest.raises(TypeError, match="set the rate in optimizer"):
        fit(0, AFFINE, ROWS, optimizer=optax.adam(1e-3), learning_rate=1e-2, **QUICK)


# Losses that are not finite


def test_a_model_without_finite_log_pdf_is_an_error_that_says_so():
    @flows.distribution
    def Broken():
        def init_fun(rng, shape):
            return {"w": jnp.ones(shape)}, log_pdf, lambda rng, params: jax.random.normal(rng, shape)

        def log_pdf(params, x):
            return jnp.log(-jnp.square(params["w"]).sum())

        return init_fun

    with pytest.raises(flows.FlowsError, match="no loss is finite at the initial params: log_pdf is nan at row"):
        fit(0, Broken(), ROWS, **QUICK)


def test_held_out_rows_of_density_zero_are_an_error():
    @flows.distribution
    def Bounded():
        def init_fun(rng, shape):
            return {"w": jnp.ones(shape)}, log_pdf, lambda rng, params: jax.random.normal(rng, shape)

        return init_fun

    def log_pdf(params, x):
        return jnp.where(jnp.abs(x).max() < 3, -params["w"].sum(), -jnp.inf)

    seed = 0
    order = held_out_first(seed, 300)
    data = 2 * np.tanh(ROWS)
    data[order[0]] = 5.0  # held out
    with pytest.raises(flows.FlowsError, match="density 0"):
        fit(seed, Bounded(), data, **{**QUICK, "standardize": False})
