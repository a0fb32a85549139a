"""Angles of a result lie on the turn of its data; those of a model around 0."""

import copy
import pickle

import jax
import numpy as np
import pandas
import pytest
from common import error_of
from scipy import stats

import flows
from flows.training.data.prepare import turn_of
from flows.training.data.table import Rows, Split, Table

PI = np.pi
CHANCE = 0.02  # of a share of 10,000 draws: four standard errors
MODEL = flows.VonMises(0.5, concentration=2.0)
TRUTH = stats.vonmises(2.0, loc=0.5)


def result_of(init_fun, low, event=1, **more):
    return flows.FitResult(*init_fun(0, event), init_fun, event, turn=np.full(event, low, float), **more)


def share_from(low, x):
    """P(low <= X <= x) on the circle, which the distribution function of SciPy gives around the mean alone."""
    first, last = (TRUTH.cdf(each - 2 * PI * np.floor((each - 0.5 + PI) / (2 * PI))) for each in (low, x))
    return (last - first) % 1


LOW = pytest.mark.parametrize("low", [0.0, -PI, 4.0, 4.0 - 6 * PI])


@LOW
def test_distribution_functions_are_on_the_turn(low):
    result = result_of(MODEL, low)
    assert result.cdf_by == "draws"
    x = low + np.array([0.3, 2.0, PI, 5.5])
    shares = [share_from(low, each) for each in x]
    turned = np.asarray(result.cdf((x + 2 * PI * np.array([[0], [1], [-2]])).reshape(-1, 1))).reshape(3, 4)
    np.testing.assert_allclose(turned, np.broadcast_to(shares, (3, 4)), atol=CHANCE, rtol=0)
    q = np.array([0.05, 0.4, 0.8, 0.97])
    found = np.asarray(result.quantile(q), float)
    assert (found >= low - 1e-5).all() and (found < low + 2 * PI).all() and (np.diff(found) > 0).all()
    np.testing.assert_allclose(result.cdf(found[:, None]), q, atol=1e-3)
    np.testing.assert_allclose([share_from(low, float(each)) for each in found], q, atol=CHANCE)
    np.testing.assert_allclose(np.stack(result.interval(0.6)), result.quantile([0.2, 0.8]))


@LOW
def test_distribution_functions_at_the_ends_of_a_turn(low):
    assert result_of(MODEL, low).cdf([[low], [low + 2 * PI]]).tolist() == [0.0, 1.0]


@LOW
def test_draws_are_on_the_turn(low):
    result = result_of(MODEL, low)
    draws = np.asarray(result.draw(0, 500), float)
    assert (draws >= low - 1e-5).all() and (draws < low + 2 * PI).all()
    own = np.asarray(result.sample(0, result.params, 500), float)
    assert (own >= -PI - 1e-6).all() and (own < PI + 1e-6).all(), "those of a model are around 0"
    np.testing.assert_allclose(np.exp(1j * draws), np.exp(1j * own), atol=1e-5)


def test_without_a_turn_angles_are_around_0():
    result = flows.FitResult(*MODEL(0, 1), MODEL, 1)
    assert result.turn is None
    np.testing.assert_array_equal(result.draw(3, 50), result.sample(3, result.params, 50))
    np.testing.assert_allclose(result.cdf([[1.0], [1.0 + 2 * PI]]), share_from(-PI, 1.0), atol=CHANCE)
    line = flows.FitResult(*flows.Normal()(0, 1), flows.Normal(), 1)
    assert line.cdf([[9.0]])[0] == 1, "what is no angle is turned nowhere"


def rows_of(x, others=None):
    tables = [Table.of(Rows(np.asarray(each, float))) for each in (x, x if others is None else others)]
    return Split(*tables, tables[0], None, batch_size=1, steps=1)


@pytest.mark.parametrize(
    ("given", "low"),
    [
        ([0.1, 0.2], 0.0),  # either would do
        ([0.0, 2 * PI], 0.0),  # both ends belong to a turn
        ([0.1, 6.2], 0.0),
        ([-0.1, 3.0], -PI),
        ([-PI, PI], -PI),
        ([-0.1, 3.2], -0.1),  # in no natural one
        ([PI, 3 * PI], PI),  # a multiple of half a period
        ([400.0, 401.0], np.floor(400 / PI) * PI),
        ([-0.1, 6.3], -PI),  # more than a turn
        ([1e6, 1e6 + 1], -PI),  # too far out to know
    ],
)
def test_the_turn_of_data(given, low):
    region = flows.support(flows.VonMises(), 1).inputs
    assert turn_of(region, rows_of(np.array(given)[:, None]))[0] == pytest.approx(low)
    assert turn_of(region, rows_of([[given[0]]], [[given[1]]]))[0] == pytest.approx(low), "those held out count"
    assert turn_of(flows.support(flows.Normal(), 1).inputs, rows_of([[0.0]])) is None


@pytest.fixture(scope="module")
def clock():
    """A table of an hour and a number, and its fit."""
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"hour": (20 + 3 * rng.normal(size=300)) % 24, "number": 100 + rng.normal(size=300)})
    joint = flows.Joint(flows.VonMises(period=24.0, trainable=True), flows.Normal(trainable=True))
    return table, flows.fit(0, joint, table, max_epochs=2, batch_size=90, verbose=0)


def test_a_fit_keeps_the_turn_of_its_data(clock, tmp_path):
    table, result = clock
    assert result.turn.tolist() == [0.0, 0.0]
    result.save(tmp_path / "clock")
    copies = [flows.load(tmp_path / "clock"), pickle.loads(pickle.dumps(result)), copy.copy(result)]
    copies.append(jax.jit(lambda each: each)(result))
    for each in (result, result._replace(seconds=1.0), jax.tree.map(lambda leaf: leaf, result), *copies):
        draws = each.draw(0, 300)
        assert list(draws.columns) == list(table.columns) and each.turn.tolist() == [0.0, 0.0]
        assert 0 <= draws["hour"].min() < 12 < draws["hour"].max() < 24 and draws["number"].min() > 80
    assert flows.fit(0, result.init_fun, table - [12.0, 0.0], max_epochs=1, verbose=0).turn.tolist() == [-12.0, 0.0]


@pytest.mark.filterwarnings("ignore:fit. the closed-form Gaussian")
def test_turns_of_contexts_and_of_ensembles():
    rng = np.random.default_rng(1)
    context = rng.normal(size=(200, 1))
    rows = (PI + context + 0.2 * rng.normal(size=(200, 1))) % (2 * PI)
    model = flows.VonMises(conditioner=flows.MLP(4))
    result = flows.fit_ensemble(0, model, rows, context=context, members=2, max_epochs=1, batch_size=60, verbose=0)
    assert result.turn.tolist() == [0.0]
    draws = np.asarray(result.draw(0, 500, context=context[:2]))
    assert draws.shape == (2, 500, 1) and draws.min() >= 0 and draws.max() > PI
    found = result.quantile(0.5, context=context[:2])
    np.testing.assert_allclose(result.cdf(found[:, None], context=context[:2]), 0.5, atol=1e-3)


@pytest.mark.parametrize("bad", [np.zeros(2), np.zeros(1, np.float32), np.array([np.nan]), np.array([1e9])])
def test_a_turn_of_a_file_is_checked(bad, tmp_path):
    result = result_of(MODEL, 0.0)
    result.turn = bad
    path, beside = tmp_path / "file", result._stored
    result._stored = lambda: beside() | {"turn": bad}
    result.save(path)
    assert "its turns of angles" in error_of(lambda: flows.load(path))
    line = flows.FitResult(*flows.Normal()(0, 1), flows.Normal(), 1, turn=np.zeros(1))
    line.save(path)
    assert "its turns of angles" in error_of(lambda: flows.load(path))
