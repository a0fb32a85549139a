"""Which column makes a row odd: log p(x_j | the others), against closed forms, counts and grids."""

import functools
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import error_of
from scipy.special import logsumexp

import flows
from flows import tables
from flows.results.result import FitResult
from flows.tables.contributions import _Densities, _without_density, axes_of
from flows.tables.integrals import Angle, Codes, Line

QUICK = {"max_epochs": 2, "folds": 1, "verbose": 0}
MODEL = flows.Normal(covariance="full", conditioner=flows.conditioners.MLP(8))
COLOURS, KINDS = np.array(["red", "green", "blue"]), np.array(["a", "b"])


def result_of(model, frame, schema=None):
    """A model as it starts on a frame, without a fit."""
    schema = schema or tables.Schema({name: tables.Real() for name in frame.columns}).fitted(frame)
    x = schema.encode(frame)
    return tables.TableResult(schema, FitResult(*model(0, x.shape[1], init_inputs=x), init_fun=model, input_dim=x.shape[1]))


def gaussian(covariance, rows=2_000, scales=1.0):
    """A normal with the mean and covariance of a frame, the frame, and the closed form of log p(x_j | others)."""
    d = len(covariance)
    x = np.random.default_rng(0).multivariate_normal(np.zeros(d), covariance, rows) * scales
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(d)])
    result = result_of(flows.Normal(trainable=True, covariance="full"), frame)
    mean, precision = x.mean(0), np.linalg.inv(np.cov(x.T, bias=True))

    def closed_form(rows):
        variance = 1 / np.diag(precision)
        return -0.5 * np.square((rows - mean) @ precision * np.sqrt(variance)) - 0.5 * np.log(2 * np.pi * variance)

    return result, frame, closed_form


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.99])
def test_of_a_gaussian_it_is_the_closed_form(correlation):
    scales = np.array([1.0, 20.0, 0.01, 300.0])
    covariance = (1 - correlation) * np.eye(4) + correlation
    result, frame, closed_form = gaussian(covariance, scales=scales)
    rows = frame[:400].copy()
    narrow = scales * np.sqrt(1 - correlation)
    rows.iloc[:50, 0] += 8 * narrow[0]
    rows.iloc[50:100, 3] -= 20 * narrow[3]
    rows.iloc[100:110, 1] += 8 * scales[1]
    got, expected = result.contributions(rows, verbose=0).to_numpy(), closed_form(rows.to_numpy())
    exact = np.abs(result.log_prob(rows)) < 1_000  # of more, float32 has no thousandths
    assert exact[:100].all() and exact[110:].all()
    np.testing.assert_allclose(got[exact], expected[exact], atol=1e-3)
    np.testing.assert_allclose(got, expected, atol=1e-3, rtol=1e-5)
    assert expected[:50, 0].max() < expected[110:, 0].min() or correlation < 0.9


def test_narrow_modes_are_found_wherever_they_lie():
    """Of normals on the line, from a hundredth of a panel to a hundred of them wide, far out too."""
    rng, n = np.random.default_rng(0), 4_000
    line = Line(-np.inf, np.inf).spread(rng.normal(size=2_048))
    mean, std = rng.normal(size=n) * np.where(np.arange(n) % 4, 1, 10), 10 ** rng.uniform(-4, 0.5, n)

    def score(rows, t):
        return -0.5 * np.square((t - mean[rows]) / std[rows]) - np.log(std[rows] * np.sqrt(2 * np.pi))

    totals = line.log_total(score, rng.normal(size=n), rng.normal(size=(n, 8)), 1e-7)
    np.testing.assert_allclose(totals, 0.0, atol=1e-3)
    assert np.quantile(np.abs(totals), 0.9) < 1e-4


def test_a_column_that_was_shuffled_is_named():
    loads = np.array([1.0, -1.0, 1.0, 0.9, 0.8, -0.7])
    scales = np.array([1.0, 40.0, 0.2, 1.0, 5.0, 1.0])
    result, frame, _ = gaussian(np.outer(loads, loads) + 1e-4 * np.eye(6), scales=scales)
    rng = np.random.default_rng(1)
    usual = result.contributions(frame[1_000:1_200], verbose=0).median()
    rows, shuffled = frame[:200].copy(), rng.integers(0, 6, 200)
    for i, j in enumerate(shuffled):
        rows.iloc[i, j] = frame.iloc[rng.integers(200, 1_000), j]
    named = (result.contributions(rows, verbose=0) - usual).idxmin(axis=1)
    assert (named == frame.columns[shuffled]).mean() >= 0.95


def mixed(rows, seed=0):
    rng = np.random.default_rng(seed)
    colour = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    kind = np.where(rng.random(rows) < 0.9, colour == 2, rng.random(rows) < 0.5).astype(int)
    return pd.DataFrame(
        {
            "level": 2.0 + 3.0 * rng.beta(1 + colour, 2),
            "colour": COLOURS[colour],
            "angle": rng.normal(20.0 + 60.0 * colour, 20.0) % 360,
            "count": rng.poisson(2.0 + 3 * kind),
            "kind": KINDS[kind],
            "size": rng.normal(colour, 0.3),
            "share": 1 / (1 + np.exp(-rng.normal(kind - 0.5, 1.0))),
        }
    )


BOX = {
    "share": tables.Real(low=0, high=1),
    "level": tables.Real(high=5),
    "angle": tables.Circular(360),
    "count": tables.Integer(low=0),
    "size": tables.Real(),
}
SCHEMA = tables.Schema({**BOX, "colour": tables.Category(), "kind": tables.Category()})


@functools.cache
def fitted(condition=()):
    schema = tables.Schema({**BOX, "colour": tables.Category(), "kind": tables.Category()}, condition)
    return tables.fit(0, mixed(1_000), schema, model=MODEL, **QUICK)


def grid(name, schema, t):
    """Encoded values of a column, and the width of each one's cell."""
    if name in schema.codes:
        classes = schema.classes[schema.codes.index(name)]
        return np.arange(classes), np.ones(classes)
    values = {
        "share": lambda: 1 / (1 + np.exp(-t)),
        "level": lambda: 5 - schema._fields["level"].least - np.exp(-t),
        "angle": lambda: np.linspace(0, 360, len(t), endpoint=False),
        "count": lambda: np.exp(t) - 0.5,
        "size": lambda: 2 + 3 * t,
    }[name]()
    return values, np.full(len(t), 360 / len(t)) if name == "angle" else np.gradient(values, t) * (t[1] - t[0])


@pytest.mark.parametrize("condition", [(), ("kind", "size")], ids=["", "given"])
def test_the_columns_of_a_mixed_table_have_masses_and_densities_that_sum_to_1(condition):
    """log p of a row less the log of the sum over a fine grid of one column, with the others as they are."""
    result, frame = fitted(condition), mixed(4, seed=3)
    got, schema, rows = result.contributions(frame, verbose=0), result.schema, result.schema.rows(frame)
    assert list(got.columns) == [name for name in frame.columns if name not in condition]
    places, points, widths, sizes = [], [], [], []
    for i in range(len(frame)):
        for j, name in enumerate(schema.columns):
            values, weights = grid(name, schema, np.linspace(-10, 10, 801))
            x = np.repeat(rows.x[[i]], len(values), 0)
            x[:, j] = values
            places, points, widths = [*places, np.full(len(x), i)], [*points, x], [*widths, weights]
            sizes.append(len(x))
    keywords = {} if not condition else {"context": rows.context[np.concatenate(places)]}
    scores = np.asarray(result.result.log_prob(np.concatenate(points), **keywords), float)
    each = np.split(scores, np.cumsum(sizes)[:-1])
    totals = np.array([logsumexp(log_p, b=weights) for log_p, weights in zip(each, widths, strict=True)]).reshape(
        len(frame), -1
    )
    expected = result.log_prob(frame)[:, None] - totals
    np.testing.assert_allclose(got[list(schema.columns)], expected, atol=1e-3)
    assert np.ptp(totals, 0).min() > 0.01


def test_cells_of_steps_reach_beyond_their_bounds():
    frame = mixed(20)
    half = 0.5 * 0.25
    schema = SCHEMA.replace({"size": tables.Real(-2, 3, 0.25), "count": tables.Integer(0, 20)}).fitted(frame)
    axes = dict(zip(schema.columns, axes_of(schema), strict=True))
    assert axes["colour"] == Codes(3) and axes["kind"] == Codes(2) and isinstance(axes["angle"], Angle)
    ends = {name: axes[name][:2] for name in schema.numbers}
    assert ends.pop("level")[1] == 5 - frame["level"].min()
    assert ends == {"count": (-0.5, 20.5), "size": (-half, 5 + half), "share": (0, 1)}


def test_each_row_of_a_batch_has_its_condition():
    x, contexts = np.arange(6.0).reshape(3, 2), np.array([[100.0], [200.0], [300.0]])
    result = SimpleNamespace(log_prob=lambda rows, context: rows @ [1.0, 10.0] + context[:, 0])
    score, places = _Densities(result, x, contexts), np.arange(9_300) % 3
    moved = np.linspace(0.0, 1.0, 9_300)
    np.testing.assert_allclose(score(places, 1, moved), x[places, 0] + 10 * moved + contexts[places, 0])


def test_masses_are_those_of_counts():
    rng = np.random.default_rng(0)
    a = rng.choice(["x", "y", "z"], 1_500, p=[0.6, 0.3, 0.1])
    b = np.where(rng.random(1_500) < 0.8, a == "x", a != "x")
    frame = pl.DataFrame({"size": rng.normal(size=1_500), "a": a, "b": b})
    schema = tables.infer_schema(frame)
    model = flows.ChainRule(
        flows.Categorical(*schema.classes, hidden=()), flows.Normal(conditioner=flows.conditioners.MLP(4)), sizes=(2, 1)
    )
    counts = np.zeros((3, 2))
    np.add.at(counts, tuple(schema.encode(frame)[:, :2].astype(int).T), 1)
    (_, (hidden, last)), of_b = model(0, 3).params, np.log(counts / counts.sum(1, keepdims=True))
    codes = {"w": np.concatenate([np.zeros((3, 3)), of_b], 1), "b": np.concatenate([np.log(counts.sum(1)), np.zeros(2)])}
    params = jax.tree.map(jnp.float32, ((codes,), (hidden, jax.tree.map(jnp.zeros_like, last))))
    start = result_of(model, frame, schema)
    result = tables.TableResult(schema, start.result._replace(params=params))
    pairs = frame.unique(["a", "b"])
    places = tuple(schema.encode(pairs)[:, :2].astype(int).T)
    got = np.exp(result.contributions(pairs, verbose=0).select("a", "b").to_numpy())
    np.testing.assert_allclose(got[:, 0], (counts / counts.sum(0))[places], atol=1e-5)
    np.testing.assert_allclose(got[:, 1], (counts / counts.sum(1, keepdims=True))[places], atol=1e-5)
    assert len(pairs) == 6


def test_columns_come_back_in_the_order_of_the_frame_given(monkeypatch):
    """As what is asked of rows that have a density are here their codes, angles and numbers themselves."""
    monkeypatch.setattr(sys.modules["flows.tables.contributions"], "_scores", lambda result, schema, x, *_: x)
    result, frame = (
        tables.TableResult(SCHEMA.fitted(mixed(50)), SimpleNamespace(context_dim=0)),
        mixed(50)[["kind", *BOX, "colour"]],
    )
    got = result.contributions(frame, verbose=0)
    assert list(got.columns) == list(frame.columns)
    np.testing.assert_array_equal(got[list(result.schema.columns)], result.schema.encode(frame))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_frames_come_back_in_their_library_with_their_rows(library):
    result, rows = fitted(), mixed(3, seed=4)[["kind", "size", "angle", "share", "level", "count", "colour"]]
    expected = result.contributions(rows, verbose=0)
    if library is pl.DataFrame:
        got = result.contributions(pl.from_pandas(rows), verbose=0)
        assert isinstance(got, pl.DataFrame) and got.columns == list(rows.columns)
        np.testing.assert_allclose(got.to_numpy(), expected.to_numpy(), atol=1e-5)
    else:
        rows.index = [7, 5, 7]
        got = result.contributions(rows, verbose=0)
        assert list(got.index) == [7, 5, 7] and list(got.columns) == list(rows.columns)
        np.testing.assert_allclose(got.to_numpy(), expected.to_numpy(), atol=1e-5)


def test_a_value_that_is_none_of_its_column_is_the_odd_one():
    result, rows = fitted(), mixed(6, seed=2)
    rows.loc[1, "colour"], rows.loc[2, "level"], rows.loc[3, "share"], rows.loc[4, "angle"] = "pink", 5.0, np.nan, np.inf
    assert "row 1" in error_of(lambda: result.contributions(rows, verbose=0))
    with pytest.warns(UserWarning, match="3 of 6 rows have an unknown .* 1 have a gap"):
        got = result.contributions(rows, errors="coerce", verbose=0)
    for i, name in ((1, "colour"), (2, "level"), (4, "angle")):
        assert np.isneginf(got[name][i]) and got.loc[i].drop(name).isna().all()
    assert got.loc[3].isna().all() and np.isfinite(got.loc[[0, 5]].to_numpy()).all()
    given = fitted(("kind", "size"))
    rows.loc[5, "kind"] = "c"
    with pytest.warns(UserWarning, match="4 of 6"):
        of_given = given.contributions(rows, errors="coerce", verbose=0)
    assert of_given.loc[5].isna().all() and np.isfinite(of_given.loc[0]).all()
    np.testing.assert_array_equal(np.isneginf(of_given).to_numpy().sum(1), [0, 1, 1, 0, 1, 0])


def test_in_a_row_without_a_density_the_value_that_is_none_of_its_column_is_told():
    schema, rows = SCHEMA.fitted(mixed(50)), mixed(6, seed=2)
    rows.loc[1, "colour"], rows.loc[2, "level"], rows.loc[3, "share"], rows.loc[4, "angle"] = "pink", 5.0, np.nan, np.inf
    values, sound = _without_density(schema, schema.rows(rows, errors="coerce"))
    expected = np.full((6, 7), np.nan)
    expected[[1, 2, 4], [schema.columns.index(name) for name in ("colour", "level", "angle")]] = -np.inf
    np.testing.assert_array_equal(values, expected)
    assert sound.tolist() == [0, 5]


@flows.distribution
def Waves():
    """A normal of two numbers with waves along the first; where the second is above 0 there are many, above 2 no density."""

    def log_pdf(params, x):
        waves = jnp.where(x[1] > 0, 50_000.0, 3.0)
        log_p = -0.5 * (x**2).sum() + jnp.log1p(0.9 * jnp.cos(waves * x[0]))
        return jnp.where(x[1] > 2, jnp.nan, log_p)

    def sample(rng, params):
        return flows.Normal()(0, 2).sample(rng, {}, 1)[0]

    return lambda rng, shape: ({}, log_pdf, sample)


def test_a_row_that_needs_too_many_points_is_nan_and_counted():
    frame = pd.DataFrame({"wavy": [0.1, 0.2, 0.3, 0.4], "plain": [-1.0, 1.0, -0.5, 3.0]})
    result = result_of(
        Waves(), frame, tables.Schema({"wavy": tables.Real(), "plain": tables.Real()}).fitted(frame - frame.min())
    )
    with pytest.warns(UserWarning, match="of 4 rows some have NaN, 'wavy' in 2.*4,096 points"):
        got = result.contributions(frame, verbose=0)
    assert got["wavy"].isna().tolist() == [False, True, False, True]


def test_folds_are_a_mixture_and_one_column_has_its_density():
    frame = pd.DataFrame({"x": np.random.default_rng(0).gamma(3.0, size=200)})
    model = flows.Normal(trainable=True)
    result = tables.fit(0, frame, tables.Schema({"x": tables.Real(low=0)}), model=model, max_epochs=1, folds=2, verbose=0)
    got = result.contributions(frame, verbose=0)["x"]
    np.testing.assert_allclose(got, result.log_prob(frame), atol=1e-3)


def test_the_bar_tells_beforehand_how_long_it_takes(capsys):
    result, frame, _ = gaussian(np.eye(2), rows=50)
    result.contributions(frame)
    assert "contributions, about " in capsys.readouterr().err
    result.contributions(frame, verbose=0)
    assert not capsys.readouterr().err
    assert "verbose is 2" in error_of(lambda: result.contributions(frame, verbose=2))
