"""Columns whose values were rounded: the step that is found, what is said of them, and `dequantize=True`."""

import numpy as np
import pytest
from common import error_of

import flows
from flows.training import DataWarning, fit
from flows.training.data.rounding import spiked, step_of, ties

DRAW = np.random.default_rng(0)
NORMAL = np.random.default_rng(0).normal(size=20_000)
CELSIUS = np.round(10 + 8 * NORMAL, 1)
LEVELS = np.random.default_rng(1).integers(0, 37, 20_000)
RAIN = np.where(np.random.default_rng(2).random(20_000) < 0.93, 0.0, np.round(np.exp(NORMAL - 3), 2))
QUICK = {"max_epochs": 1, "batch_size": 64, "verbose": 0}
GAUSS = flows.Normal(trainable=True)


@pytest.mark.parametrize(
    ("values", "step"),
    {
        "tenths of Celsius as Fahrenheit": (np.round(32 + 1.8 * CELSIUS, 2), 0.18),
        "whole Fahrenheit in tenths of Celsius": (np.round(np.round((np.round(50 + 15 * NORMAL) - 32) / 1.8, 1), 1), 0.1),
        "not rounded again": (32 + 1.8 * CELSIUS, 0.18),
        "tenths": (NORMAL.round(1), 0.1),
        "tenths far from 0": (1013 + NORMAL.round(1), 0.1),
        "fives": (5 * np.round(4 * NORMAL), 5.0),
        "thousands": (1000 * np.round(40 * NORMAL), 1000.0),
        "many whole numbers": (np.round(1e6 + 300 * NORMAL), 1.0),
        "miles an hour from knots": (1.15078 * LEVELS, 1.15078),
        "an atom among rounded values": (RAIN, 0.01),
        "a flag": (np.r_[np.zeros(99), 1.0], 1.0),
    }.values(),
)
def test_a_step_is_the_common_divisor_on_the_decimal_grid(values, step):
    assert step_of(values) == step
    assert step_of(values.astype(np.float32).astype(float)) == pytest.approx(step, rel=1e-5)


def test_values_on_no_decimal_grid_have_the_smallest_gap():
    assert step_of(np.round(9 * NORMAL) / 3) == pytest.approx(1 / 3, rel=1e-8)
    for values, step in ((np.round(9 * NORMAL) / 3, 1 / 3), (np.round(40 * NORMAL) / 256, 1 / 256), (LEVELS / 255, 1 / 255)):
        assert step_of(values.astype(np.float32).astype(float)) == pytest.approx(step, rel=1e-5)
    assert step_of(np.round(40 * NORMAL) / 256) == 1 / 256
    twice = np.r_[0.1 + 0.2 * (LEVELS % 2), np.full(50, 0.3)]  # 0.1 + 0.2 is not 0.3
    assert step_of(twice) == pytest.approx(0.2)


def test_what_is_continuous_has_no_step():
    for values in (
        NORMAL,
        np.exp(3 * NORMAL),
        1e-9 * np.exp(2 * NORMAL),
        2e4 + NORMAL,
        1e6 + 100 * NORMAL,
        np.random.default_rng(0).random(100_000),
        np.random.default_rng(0).standard_cauchy(20_000) ** 3,
    ):
        assert step_of(values) is None
        assert step_of(values.astype(np.float32).astype(float)) is None
    for values in (
        np.maximum(NORMAL, 0),
        np.clip(NORMAL, -1, 1),
        np.where(LEVELS < 36, np.sign(NORMAL), NORMAL),  # two atoms, and 3% between and beside them
        np.repeat(NORMAL[:230], 10),
        np.maximum(0, np.round(3000 * NORMAL, 4)),  # the grid of those above 0 is so fine that none is there twice
    ):
        assert step_of(values) is None
    assert step_of(np.array([1e300, 2e300] * 9)) == pytest.approx(1e300)


def test_few_values_off_the_grid_do_not_hide_it():
    assert step_of(np.r_[NORMAL.round(1), 0.123456789]) == 0.1
    assert step_of(np.r_[10.0 * LEVELS, 273]) == 10
    assert step_of(np.where(np.arange(20_000) % 100, NORMAL.round(1), NORMAL)) == 0.1
    halves = np.where(np.arange(20_000) % 25, np.round(3 * NORMAL), np.round(3 * NORMAL) + 0.5)
    assert step_of(halves) == 0.5, "4% that lie on a finer grid are not off it"
    heaped = np.where(np.arange(20_000) % 25, 5.0 * (LEVELS % 14), 10.0 + LEVELS)
    assert step_of(heaped) == 1, "and so many whole numbers do not miss multiples of 5"


def test_an_atom_among_rounded_values_is_told_with_the_step():
    assert ties(RAIN) == ("is rounded to 0.01, and is 0 in 92.8% of the rows", 0.01)
    assert ties(10.0 * LEVELS) == ("is rounded to 10", 10.0)
    assert ties(np.minimum(LEVELS, 9.0))[0] == "holds whole numbers", "of few levels one is always the most common"
    assert ties(np.maximum(NORMAL, 0)) == ("is 0 in 50.2% of the rows", None)
    data = np.column_stack([NORMAL, RAIN])[:600]
    with pytest.warns(
        DataWarning, match=r"column 1 is rounded to 0\.01, and is 0 in 9\d\.\d% of the rows.*dequantize=\{1: 0\.01\}"
    ):
        fit(0, GAUSS, data, folds=1, **QUICK)
    result = fit(0, GAUSS, data, dequantize=True, folds=1, **QUICK)
    assert result.init_fun.arguments["bijection"].arguments["layers"][0] == flows.Dequantize((0.0, 0.01))


def test_a_step_of_a_third_can_be_given_as_it_is_told():
    data = np.column_stack([NORMAL[:2000], np.round(300 * NORMAL[2000:4000]) / 3])
    with pytest.warns(DataWarning, match=r"rounded to 0\.333333\. .*dequantize=\{1: 0\.333333333\}"):
        fit(0, GAUSS, data, **QUICK)
    fit(0, GAUSS, data, dequantize={1: 0.333333333}, **QUICK)


def test_a_least_value_off_the_grid_is_named():
    rows = np.column_stack([NORMAL, 10.0 * LEVELS])[:400]
    rows[7, 1] = -3.0
    rows = np.concatenate([rows, rows + np.array([1.0, 0.0])])
    message = error_of(lambda: fit(0, GAUSS, rows, dequantize=True, validation=rows[:9], **QUICK))
    assert "its least value, -3, is not a whole number of steps from" in message
    rows[rows[:, 1] == -3, 1] = 13.0
    with pytest.warns(DataWarning, match=r"0\.25% of its values, such as 13, are not a whole number of steps from 0"):
        fit(0, GAUSS, rows, dequantize={1: 10}, validation=rows[8:20], **QUICK)


def test_spikes_are_values_that_repeat_as_their_neighbours_do_not():
    rng = np.random.default_rng(0)
    smooth, whole = rng.normal(12, 3, 2000), rng.poisson(12, 2000).astype(float)
    mostly = np.arange(2000) < 1400
    schooling = np.where(mostly, whole, np.round(smooth, 1))
    for name, column, has in (
        ("whole numbers with tenths between them", schooling, True),
        ("whole numbers with others between them", np.where(mostly, whole, smooth), True),
        ("prices that end in 9", 10 * whole - rng.binomial(9, 0.01, 2000), True),
        ("fewer of them", np.where(np.arange(2000) < 800, whole, smooth), False),
        ("whole numbers", whole, False),
        ("tenths", np.round(smooth, 1), False),
        ("no value repeats", smooth, False),
        ("zeros", np.where(mostly, 0.0, smooth), False),
        ("two values", mostly * 1.0, False),
    ):
        assert spiked(np.stack([smooth, column], 1)) == has, name
