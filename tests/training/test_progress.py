"""Fits that fall apart near the highest learning rate, whose patience is not over there."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flows
from flows.training.loop.driver import Loop
from flows.training.loop.progress import TIMES_BACK, Progress
from flows.training.options import FIT_RUN, LEARNING_RATE, Options

ROWS = np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32) * np.float32(np.exp(-0.5))


@flows.bijection
def Ledge():
    """y = x exp(w), but for w > 0.6 y = x exp(3 / 2), from where no gradient leads back."""

    def scale(params):
        return jnp.where(params["w"] < 0.6, params["w"], 1.5)[0]

    def direct_fun(params, x):
        return x * jnp.exp(scale(params)), scale(params)

    return lambda rng, shape: ({"w": jnp.zeros(1)}, direct_fun, lambda params, y: y * jnp.exp(-scale(params)))


SHORT = {"max_epochs": 40, "patience": 3, "batch_size": 90, "verbose": 0}
STEEP = {**SHORT, "learning_rate": 0.5, "standardize": False, "ema": None}


def fit(**changes):
    return flows.fit(0, flows.Flow(Ledge()), ROWS, **{**STEEP, **changes})


def test_a_fit_that_falls_apart_goes_back_and_on_at_a_lower_rate(tmp_path):
    told = []
    with pytest.warns(UserWarning, match="fell apart 1 time near the highest learning rate"):
        result = fit(callbacks=[told.append])
    losses, rates = result.history["validation_loss"], np.array([each.rate for each in told])
    best = int(np.argmin(losses[:4]))
    assert (losses[best + 1 : best + 4] > losses[best] + 1).all(), "it fell off"
    assert losses[result.history["best_epoch"]] < losses[best] - 0.05 and len(losses) > 8
    assert rates[best + 3] == 1 and rates[best + 4] == pytest.approx(0.1, rel=1e-5) and rates.max() == rates[0] == 1
    assert rates[-1] == pytest.approx(0.1 * 1.01 ** (3 * (len(rates) - best - 5)), rel=1e-3), "and slowly grows again"
    for epochs in (2, 7):  # before it went back, and after

        def enough(epoch, last=epochs):
            return epoch.number >= last

        with pytest.warns(UserWarning, match="fell apart") if epochs == 7 else np.errstate():
            fit(checkpoint=tmp_path, callbacks=[enough])
    with pytest.warns(UserWarning, match="fell apart"):
        again = fit(checkpoint=tmp_path)
    for a, b in zip(*(jax.tree.leaves((each.params, dict(each.history))) for each in (result, again)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_rate_of_a_fit_that_fell_apart_grows_no_higher_than_to_a_share():
    told = []
    with pytest.warns(UserWarning, match="fell apart"):
        fit(batch_size=9, max_epochs=24, patience=6, callbacks=[told.append])
    rates = np.array([each.rate for each in told])
    first = int(np.argmax(rates < 1))
    assert rates[first] == pytest.approx(0.1, rel=1e-5) and rates[first:].max() == pytest.approx(0.3, rel=1e-5)


def test_an_optimizer_of_ones_own_counts_as_before():
    result = fit(optimizer=optax.adam(0.5), learning_rate=LEARNING_RATE)
    assert len(result.history["validation_loss"]) == result.history["best_epoch"] + 4


def course(train, validation, **more):
    best = int(np.argmin(validation))
    return Progress(train=train, validation=validation, best_epoch=best, waited=len(train) - 1 - best, initial=9.0, **more)


@pytest.mark.parametrize(
    ("train", "validation", "apart"),
    [
        ([3.0, 2.0, 2.9, 2.8, 2.7], [3.0, 2.0, 2.9, 2.8, 2.7], True),
        ([3.0, 2.0, 1.5, 1.2, 1.0], [3.0, 2.0, 2.9, 3.5, 4.0], False),  # it follows its rows too closely
        ([3.0, 2.0, 2.9, 2.8, 2.7], [3.0, 2.0, 2.05, 2.9, 2.1], False),  # in a single epoch
        ([3.0, 2.0, 2.9, 2.05, 2.2], [3.0, 2.0, 2.9, 2.8, 2.7], False),
        ([3.0, 2.0, 2.2, 2.2, 2.2], [3.0, 2.0, 2.2, 2.2, 2.2], False),  # within three times chance
        ([3.0, 2.0, np.nan, 2.8, 2.7], [3.0, 2.0, np.nan, 2.8, 2.7], False),
    ],
)
def test_what_falls_apart(train, validation, apart):
    options = Options(max_epochs=20, patience=3)
    assert course(train, validation).falls_apart(options, 0.1) == apart
    assert not course(train, validation, times_back=TIMES_BACK).falls_apart(options, 0.1)
    of_ones_own = [{"optimizer": optax.sgd(1.0)}, {"objective": flows.objectives.flow_matching}]
    for other in (*of_ones_own, {"max_epochs": 5}, {"max_epochs": 7}, {"patience": 4}):
        assert not course(train, validation).falls_apart(Options(**{"max_epochs": 20, "patience": 3, **other}), 0.1)
    early = Progress(train=train[2:], validation=validation[2:], waited=3, initial=2.0)
    assert early.falls_apart(options, 0.1) == apart, "beside the start"
    noted = course(train, validation)
    noted.go_back()
    assert (noted.times_back, noted.fell_apart, noted.waited) == (1, 1, 0) and not noted.over(options)


@pytest.mark.parametrize(
    ("options", "place", "expected"),
    [
        ({}, {}, "at most 02:30 more"),  # 15 epochs of 10 s
        ({"max_minutes": 2.0}, {}, "at most 01:10 more"),
        ({"max_minutes": 0.5}, {}, "at most 00:00 more"),
        ({}, {"place": "model 2 of 3"}, "at most 02:30 more"),
        ({"max_minutes": 2.0}, {"place": "model 2 of 3", "end": 291.0}, "all at most 04:01 more"),
    ],
)
def test_the_bar_says_how_long_a_fit_takes_at_most(options, place, expected):
    """A first epoch of 30 s, in which programs are compiled, and two of 10 s; the fit began at 0."""
    member = Progress(train=[1.0])
    loop = SimpleNamespace(options=Options(max_epochs=18, run=FIT_RUN._replace(**place), **options), members=[member])
    loop.first, loop.began = None, 0.0
    assert Loop._left(loop, 30.0) == ""
    member.train = [1.0] * 3
    assert Loop._left(loop, 50.0) == f", {expected}"
