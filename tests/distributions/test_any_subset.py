"""`AnySubset`: any columns given any others, by one model."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import flows
from flows.conditionals import Angle, Category, Number
from flows.distributions.conditional import expectation_of
from flows.training import DataWarning
from flows.training.data import read

KINDS = (Category(3), Number(0, 4, step=1.0), Angle(24.0), Number(low=0), Category(2))
MODEL = flows.AnySubset(*KINDS, hidden=(4,), num_bins=2)
D = len(KINDS)
rng = np.random.default_rng(0)
ROWS = np.stack(
    [
        rng.integers(0, 3, 40),
        rng.integers(0, 5, 40),
        rng.uniform(-30, 30, 40),
        rng.exponential(size=40) + 0.01,
        rng.integers(0, 2, 40),
    ],
    1,
)


@pytest.fixture(scope="module")
def functions():
    """Params away from the start, in float64, and the functions of the model with roles."""
    params, log_pdf, sample = MODEL(0, D, context_dim=(2, D), init_inputs=ROWS, init_context=context("aaaaa"))
    leaves, tree = jax.tree.flatten(params)
    mask = jax.tree.leaves(flows.trainable(params))
    stirred = [
        leaf + 0.5 * np.random.default_rng(i).normal(size=leaf.shape) if trains else leaf
        for i, (leaf, trains) in enumerate(zip(leaves, mask, strict=True))
    ]
    return jax.tree.unflatten(tree, [np.asarray(leaf, float) for leaf in stirred]), log_pdf, sample


def context(roles, rows=ROWS):
    """The context of rows by a letter for each column: asked, given, absent."""
    role = np.array(["aGx".lower().index(letter) for letter in roles], float)
    given = np.where(role == 1, rows, 0.0)
    return np.stack([given, np.tile(role, (len(rows), 1))], 1)


def test_densities_and_masses_sum_to_one(functions):
    """Over codes and grid points, with sums over fine grids of an angle and of a number for the densities."""
    params, log_pdf, _ = functions
    codes = np.array(list(itertools.product(range(3), range(5), range(2))), float)
    rows = np.zeros((len(codes), D))
    rows[:, [0, 1, 4]] = codes
    mass = np.exp(log_pdf(params, rows, context=context("aaxxa", rows)))
    assert abs(mass.sum() - 1) < 1e-6 and mass.min() > 0
    angles = np.tile(ROWS[:1], (2_000, 1))
    angles[:, 2] = np.linspace(-12, 12, 2_000, endpoint=False)
    density = np.exp(log_pdf(params, angles, context=context("ggagg", angles)))
    assert abs(density.mean() * 24 - 1) < 1e-3
    numbers = np.tile(ROWS[:1], (40_000, 1))
    numbers[:, 3] = np.exp(np.linspace(-80, 80, 40_000))
    density = np.exp(log_pdf(params, numbers, context=context("gggag", numbers))) * numbers[:, 3]
    assert abs(np.trapezoid(density, np.log(numbers[:, 3])) - 1) < 1e-3


def test_what_is_expected_is_a_mean(functions):
    """By sums over codes, and over fine grids of an angle and of a number, next to 64 quantiles."""
    params, log_pdf, _ = functions
    function, _, likeliest = expectation_of(MODEL, D)
    given = context("aagaa", ROWS[:1])
    single = jax.tree.map(np.float32, params)
    expected = np.asarray(function(single, jnp.asarray(given, jnp.float32))[0])
    codes = np.tile(ROWS[:1], (5, 1))
    codes[:, 1] = np.arange(5)
    counts = np.exp(log_pdf(params, codes, context=context("xagxx", codes)))
    codes[:3, 0] = np.arange(3)
    masses = np.exp(log_pdf(params, codes[:3], context=context("axgxx", codes[:3])))
    np.testing.assert_allclose(expected[:3], masses, rtol=1e-5)
    assert abs(expected[3 + 2] - counts @ np.arange(5)) < 0.02
    numbers = np.tile(ROWS[:1], (40_000, 1))
    grid = np.linspace(-80, 80, 40_000)
    numbers[:, 3] = np.exp(grid)
    density = np.exp(log_pdf(params, numbers, context=context("xxgax", numbers)) + grid)
    quantiles = np.interp((np.arange(64) + 0.5) / 64, np.cumsum(density) * (grid[1] - grid[0]), grid)
    assert abs(expected[3 + 3] / np.exp(quantiles).mean() - 1) < 0.01
    row = likeliest(np.asarray(expected)[None])[0]
    assert row[0] == masses.argmax() and row[4] == expected[-2:].argmax() and row[3] == expected[3 + 3]


@pytest.mark.parametrize(("before", "after"), [("axxxx", "gaaaa"), ("aaaxx", "gggaa")])
def test_the_chain_rule_holds(functions, before, after):
    params, log_pdf, _ = functions
    joint = log_pdf(params, ROWS, context=context("aaaaa"))
    parts = log_pdf(params, ROWS, context=context(before)) + log_pdf(params, ROWS, context=context(after))
    np.testing.assert_allclose(parts, joint, atol=1e-5)
    alone, alone_log_pdf, _ = MODEL(0, D)
    assert jax.tree.map(jnp.shape, alone) == jax.tree.map(jnp.shape, params), "with a context and without"
    np.testing.assert_allclose(alone_log_pdf(params, ROWS), joint, atol=1e-5)


def test_entries_that_are_not_asked_are_not_read(functions):
    params, log_pdf, sample = functions
    roles = context("agxag")
    expected = log_pdf(params, ROWS, context=roles)
    others = ROWS.copy()
    others[:, [1, 2, 4]] = np.nan
    np.testing.assert_array_equal(log_pdf(params, others, context=roles), expected)
    roles[:, 0, [0, 2, 3]] = np.nan
    np.testing.assert_array_equal(log_pdf(params, others, context=roles), expected)
    drawn = np.asarray(sample(1, params, 40, context=roles))
    np.testing.assert_array_equal(drawn[:, [1, 4]], ROWS[:, [1, 4]])
    assert np.isnan(drawn[:, 2]).all() and np.isin(drawn[:, 0], [0, 1, 2]).all() and (drawn[:, 3] > 0).all()


def test_nothing_asked_other_roles_and_impossible_values(functions):
    params, log_pdf, sample = functions
    np.testing.assert_array_equal(log_pdf(params, ROWS, context=context("ggxgx")), 0)
    wrong = context("aaaaa")
    wrong[:, 1, 2] = 3
    assert np.isnan(log_pdf(params, ROWS, context=wrong)).all() and np.isnan(sample(0, params, 40, context=wrong)).all()
    for column, value in [(0, 3), (0, 0.5), (1, 2.5), (1, 5), (1, -1), (3, -0.1), (3, 0.0), (4, -1), (3, np.inf), (2, np.inf)]:
        rows = ROWS.copy()
        rows[:, column] = value
        assert np.isneginf(log_pdf(params, rows, context=context("aaaaa", rows))).all(), (column, value)
        given = context("".join("g" if i == column else "a" for i in range(D)), rows)
        assert np.isnan(log_pdf(params, rows, context=given)).all(), (column, value)
    rows = ROWS.copy()
    rows[0, 0] = np.nan
    log_p = log_pdf(params, rows, context=context("aaaaa", rows))
    assert np.isnan(log_p[0]) and np.isfinite(log_p[1:]).all()


def test_one_pass_is_unbiased_for_the_mean_over_orders(functions):
    params, log_pdf, _ = functions
    row, asked = ROWS[:1], (0, 1, 4)
    orders = list(itertools.permutations(asked))
    roles = np.full((len(orders) * 3, D), "x")
    for i, (order, step) in enumerate(itertools.product(orders, range(3))):
        roles[i, [*order[:step]]], roles[i, order[step]] = "g", "a"
    every = np.concatenate([context("".join(letters), row) for letters in roles])
    log_p = log_pdf(params, np.tile(row, (len(every), 1)), context=every).reshape(len(orders), 3).sum(1)
    one_pass = jax.vmap(partial(log_pdf, params, row, context=context("aaxxa", row), train=True))
    estimates = np.asarray(jax.jit(lambda keys: one_pass(rng=keys))(jax.random.split(jax.random.key(1), 4_000)))[:, 0]
    assert np.ptp(estimates) > 0.1
    assert abs(estimates.mean() - log_p.mean()) < 4 * estimates.std() / len(estimates) ** 0.5


def test_draws_are_as_the_density_says(functions):
    params, log_pdf, sample = functions
    rows = np.tile(ROWS[:1], (6, 1))
    rows[:, [0, 4]] = list(itertools.product(range(3), range(2)))
    expected = np.exp(log_pdf(params, rows, context=context("agxxa", rows)))
    drawn = np.asarray(sample(2, params, 20_000, context=np.tile(context("agxxa", rows[:1]), (20_000, 1, 1))))
    shares = np.array([(drawn[:, [0, 4]] == row[[0, 4]]).all(1).mean() for row in rows])
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / 20_000))
    grid = np.asarray(sample(3, params, 20_000, context=np.tile(context("xaxxx", rows[:1]), (20_000, 1, 1))))[:, 1]
    rows = np.tile(rows[:1], (5, 1))
    rows[:, 1] = np.arange(5)
    masses = np.exp(log_pdf(params, rows, context=context("xaxxx", rows)))
    np.testing.assert_allclose([(grid == value).mean() for value in range(5)], masses, atol=0.015)


def test_a_fit_takes_gaps_and_nothing_is_put_in_front(tmp_path):
    gappy = np.where(np.random.default_rng(1).uniform(size=ROWS.shape) < 0.2, np.nan, ROWS).astype(np.float32)
    x, roles = flows.gaps(gappy)
    np.testing.assert_array_equal(roles[:, 1], np.where(np.isnan(gappy), 2, 0))
    result = flows.fit(0, MODEL, x, context=roles, max_epochs=2, folds=1, verbose=0)
    assert result.init_fun == MODEL and "gaussian_loss" not in result.history
    result.save(tmp_path / "m.flows")
    loaded = flows.load(tmp_path / "m.flows")
    np.testing.assert_array_equal(loaded.log_prob(x, context=roles), result.log_prob(x, context=roles))
    whole, asked = flows.gaps(gappy, fill=True)
    filled = np.asarray(result.sample(0, result.params, len(x), context=asked))
    there = ~np.isnan(gappy)
    np.testing.assert_array_equal(filled[there], gappy[there])
    assert np.isfinite(filled).all() and np.isfinite(whole).all()


def test_rows_may_be_given_to_devices_by_shard_map():
    rows = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    params, log_pdf, _ = flows.AnySubset(hidden=(4,), num_bins=2)(0, 2, init_inputs=rows)
    by_rows, mesh = jax.sharding.PartitionSpec("rows"), jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(log_pdf, mesh=mesh, in_specs=(jax.sharding.PartitionSpec(), by_rows), out_specs=by_rows)
    np.testing.assert_allclose(mapped(params, rows), log_pdf(params, rows), rtol=1e-6)


def test_a_rounded_column_without_a_step_is_advised_to_have_one():
    rows = np.random.default_rng(0).normal(size=(400, 2)).round(1)
    with pytest.warns(DataWarning, match=r"column 1 is rounded to 0\.1.*Give each its step, as in .*Number\(step=0\.1\)"):
        flows.fit(
            0, flows.AnySubset(hidden=(8,), num_bins=2), rows, max_epochs=1, folds=1, verbose=0, callbacks=[lambda _: True]
        )


def test_rows_with_gaps_may_lie_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "CHUNK_BYTES", 30_000)  # 500 rows
    monkeypatch.setattr(read, "BLOCK", 64)
    rows = np.random.default_rng(1).normal(size=(2_000, 2))
    rows[:, 1] = rows[:, 0] ** 2 + 0.1 * rows[:, 1]
    x, roles = flows.gaps(np.where(np.random.default_rng(2).uniform(size=rows.shape) < 0.4, np.nan, rows).astype(np.float32))
    for name, array in (("x", x), ("roles", roles)):
        np.save(tmp_path / f"{name}.npy", array)
    mapped, mapped_roles = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("x", "roles"))
    model, held_out = flows.AnySubset(hidden=(16,), num_bins=4), (x[:200] + 0, roles[:200] + 0)
    settings = {"max_epochs": 4, "batch_size": 100, "learning_rate": 0.01, "verbose": 0, "validation": held_out}
    of_arrays, of_file = (flows.fit(0, model, a, context=b, **settings) for a, b in ((x, roles), (mapped, mapped_roles)))
    first, last = np.array([each.history["validation_loss"][[0, -1]] for each in (of_arrays, of_file)]).T
    assert (last < first - 0.1).all() and abs(last[0] - last[1]) < 0.1
    middles = [each.params["columns"][0]["fixed"]["middle"] for each in (of_arrays, of_file)]
    np.testing.assert_allclose(*middles, rtol=1e-4)


def test_gaps_of_frames_masks_and_single_rows():
    expected = np.array([[1.0, np.nan], [3.0, 4.0]])
    for table in (
        pd.DataFrame({"a": [1, 3], "b": pd.array([None, 4], "Int64")}),
        np.ma.masked_invalid(expected),
        np.array([[1, None], [3, 4]], object),
    ):
        x, roles = flows.gaps(table)
        np.testing.assert_array_equal(x, [[1.0, 4.0], [3.0, 4.0]])
        np.testing.assert_array_equal(roles[:, 1], [[0, 2], [0, 0]])
    x, roles = flows.gaps([[1.0, np.nan]], fill=True)
    assert roles.tolist() == [[[1.0, 0.0], [1.0, 0.0]]] and np.isfinite(x).all()


@pytest.mark.parametrize("column", [Number(low=1.5e9), Number(1e6, 1e6 + 10), Number(low=1900)])
def test_ends_far_from_zero_keep_their_digits(column):
    """Draws of float32 lie within, and gradients at rows with gaps are numbers."""
    low = np.float32(column.inner.low)
    x = low + np.random.default_rng(0).uniform(256, 2560, (50, 1)).astype(np.float32) * (10 / 2560 if low == 1e6 else 1)
    model = flows.AnySubset(column, Number(), hidden=(4,), num_bins=2)
    x = np.concatenate([x, np.ones_like(x)], 1) + np.array([[0, 1]]) * np.random.default_rng(1).normal(size=(50, 2))
    x = x.astype(np.float32)
    roles = np.zeros((50, 2, 2), np.float32)
    roles[::2, 1, 0] = 2
    params, log_pdf, sample = model(0, 2, context_dim=(2, 2), init_inputs=x, init_context=roles)
    drawn = np.asarray(sample(0, params, 2_000, context=roles[1]))
    assert np.isfinite(log_pdf(params, drawn, context=roles[1])).all()
    loss = lambda params: log_pdf(params, x, context=roles, rng=0, train=True).sum()  # noqa: E731
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.grad(loss)(params)))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: flows.AnySubset(flows.Normal()), "AnySubset: column 0 is .*expected one of flows.conditionals"),
        (lambda: flows.AnySubset(Number), r"column 0 is .*Number"),
        (lambda: flows.AnySubset(hidden=(8, 4)), r"hidden is \(8, 4\); expected one width for each block, all equal"),
        (lambda: MODEL(0, 3), r"the event is \(3,\); expected \(5,\), as 5 columns are given"),
        (lambda: MODEL(0, (5, 1)), "expected a vector"),
        (lambda: MODEL(0, D, context_dim=3), r"context_dim is 3; expected \(2, 5\): given values, and the role"),
        (lambda: Number(2, 1), "low is 2.0, and high is 1.0; expected low < high"),
        (lambda: Number(0, 1, step=2), "step is 2.0, and values span 1.0; expected a step that divides this"),
        (lambda: Number(0, 1, step=0.3), "step is 0.3, and values span 1.0; expected a step that divides this"),
        (lambda: Angle(360, step=7), "step is 7.0, and values span 360.0; expected a step that divides this"),
        (lambda: Number(step=-1), "step is -1"),
        (lambda: Angle(0), "Angle: period"),
        (lambda: Category(0), "Category: classes"),
        (lambda: flows.gaps(np.array([[1 + 1j]])), "expected a table of numbers"),
        (lambda: flows.gaps(np.array([["2020-01-01"]], "datetime64[D]")), "expected a table of numbers"),
        (lambda: flows.fit(0, flows.AnySubset(), ROWS, dequantize=1), "scales its columns itself; leave it out"),
        (lambda: flows.fit(0, flows.AnySubset(), ROWS, support=np.zeros((5, 2))), "scales its columns itself; leave it out"),
        (lambda: flows.gaps([1.0]), r"x has shape \(1,\); expected \(rows, columns\)"),
        (lambda: flows.gaps([["a"]]), "expected a table of numbers"),
        (lambda: flows.gaps([[np.inf]]), "infinite values"),
        (lambda: flows.fit(0, flows.AnySubset(), ROWS, standardize="whiten"), "scales its columns itself; leave it out"),
        (lambda: flows.fit(0, flows.AnySubset(), ROWS, support=(0, None)), "scales its columns itself; leave it out"),
    ],
)
def test_what_cannot_be_is_one_line(call, error):
    with pytest.raises((flows.FlowsError, TypeError), match=error):
        call()
