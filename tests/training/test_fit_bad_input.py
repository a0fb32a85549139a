"""Bad input of fifty kinds, data and optimizers: each ends in a good model or in an error that says what to do."""

import warnings

import jax
import numpy as np
import optax
import pytest
from common import AFFINE, ROWS

import flows

DRAW = np.random.default_rng(0)
GOOD = None  # in place of the words of an error


def cell(value, row=17, column=1):
    x = ROWS.copy()
    x[row, column] = value
    return x


def column(values, place=1):
    x = ROWS.copy()
    x[:, place] = values
    return x


def explode(after):
    return optax.sgd(optax.join_schedules([optax.constant_schedule(0.05), optax.constant_schedule(np.inf)], [after]))


# name: (data, settings, words of the error or GOOD)
BAD_INPUT = {
    "as they should be": (ROWS, {}, GOOD),
    "a NaN": (cell(np.nan), {}, "nan in row 17, column 1"),
    "an inf": (cell(np.inf), {}, "inf in row 17, column 1"),
    "a -inf": (cell(-np.inf, 0, 0), {}, "-inf in row 0, column 0"),
    "all NaN": (ROWS * np.nan, {}, "nan in row 0, column 0 .300 of 300 rows"),
    "a NaN column": (column(np.nan), {}, "nan in row 0, column 1"),
    "a cell of 1e30": (cell(1e30), {}, "far from all others"),
    "a cell of -1e30": (cell(-1e30), {}, "far from all others"),
    "a cell of 1e300": (cell(1e300), {}, "range of float32"),
    "a cell of 1e5": (cell(1e5), {}, GOOD),
    "a cell of 1e-300": (cell(1e-300), {}, GOOD),
    "all times 1e30": (ROWS * 1e30, {}, GOOD),
    "all times 1e-30": (ROWS * 1e-30, {}, GOOD),
    "all times 1e-40": (ROWS * 1e-40, {}, "cannot tell apart"),
    "all times 1e200": (ROWS * 1e200, {}, "range of float32"),
    "all plus 1e4": (ROWS + 1e4, {}, GOOD),
    "all plus 1e9": (ROWS + 1e9, {}, "cannot tell apart"),
    "columns of unlike scale": (ROWS * [1e-20, 1e20], {}, GOOD),
    "a constant column": (column(3.0), {}, "column 1 of data is constant"),
    "a column of zeros": (column(0.0, 0), {}, "column 0 of data is constant"),
    "a column twice": (column(ROWS[:, 0]), {}, "column 0 again"),
    "a column and its negative": (column(5 - 2 * ROWS[:, 0]), {}, "column 0 again"),
    "almost constant": (column(np.where(np.arange(300) == 3, 1.0, 0.0)), {}, GOOD),
    "whole numbers": (DRAW.poisson(5, (300, 2)), {}, GOOD),
    "true and false": (DRAW.random((300, 2)) < [0.5, 0.3], {}, GOOD),
    "half zeros": (np.maximum(ROWS, 0), {}, GOOD),
    "every row twice": (np.repeat(ROWS, 2, axis=0), {}, GOOD),
    "one row": (ROWS[:1], {}, "1 row"),
    "two rows": (ROWS[:2], {}, "2 rows"),
    "three rows": (ROWS[:3], {}, GOOD),
    "no rows": (ROWS[:0], {}, "0 rows"),
    "no columns": (ROWS[:, :0], {}, "at least one column"),
    "one axis": (ROWS[:, 0], {}, "two axes"),
    "nothing": ([], {}, "two axes"),
    "lists": (ROWS.tolist(), {}, GOOD),
    "ragged lists": ([[1.0, 2.0], [3.0]], {}, "equal length"),
    "strings": ([["a", "b"], ["c", "d"]], {}, "real numbers"),
    "objects": (ROWS.astype(object), {}, "real numbers"),
    "complex numbers": (ROWS + 1j, {}, "real numbers"),
    "float16": (ROWS.astype(np.float16), {}, GOOD),
    "a Cauchy column": (column(DRAW.standard_cauchy(300)), {}, GOOD),
    "a rate of 1e3": (ROWS, {"learning_rate": 1e3}, GOOD),
    "a rate of 1e-12": (ROWS, {"learning_rate": 1e-12}, GOOD),
    "descent at 1e6": (ROWS, {"optimizer": optax.sgd(1e6)}, GOOD),
    "a rate that becomes inf": (ROWS, {"optimizer": explode(12)}, "updates of the optimizer are too large"),
    "a rate that is inf": (ROWS, {"optimizer": optax.sgd(np.inf)}, "updates of the optimizer are too large"),
    "steps uphill": (ROWS, {"optimizer": optax.sgd(-10.0)}, GOOD),
    "a NaN in the context": (ROWS, {"context": cell(np.nan)}, "context has nan in row 17"),
    "other rows of context": (ROWS, {"context": ROWS[:9]}, r"\(300, \*context\)"),
    "a weight below 0": (ROWS, {"weights": np.r_[-1.0, np.ones(299)]}, "the weight of row 0 is not"),
}


def entropy_of_a_normal(x):
    """What a normal of independent columns loses, in nats: a bound that any fit should come near."""
    return float(np.log(x.std(0)).sum() + x.shape[1] * 0.5 * np.log(2 * np.pi * np.e))


@pytest.mark.parametrize("name", BAD_INPUT)
def test_a_good_model_or_a_clear_error(name):
    data, settings, words = BAD_INPUT[name]
    options = {"max_epochs": 15, "batch_size": 90, "patience": 30, "verbose": 0, "learning_rate": 0.01, **settings}
    if "optimizer" in settings:
        del options["learning_rate"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if words is not GOOD:
            with pytest.raises((flows.FlowsError, TypeError), match=words) as error:
                flows.fit(0, AFFINE, data, **options)
            if isinstance(error.value, flows.FitError):
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(error.value.params))
            return
        result = flows.fit(0, AFFINE, data, **options)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))
    x = np.asarray(data, float)
    loss = -float(result.log_pdf(result.params, x.astype(np.float32)).mean())
    assert loss < entropy_of_a_normal(x) + (1.0 if len(x) > 3 else 2.0)
    assert np.isfinite(result.sample(1, result.params, 50)).all()


def test_there_are_forty_and_more():
    assert len(BAD_INPUT) >= 40 and sum(words is not GOOD for _, _, words in BAD_INPUT.values()) >= 15
