"""Kinds of columns by themselves: masses in float32, slopes in the tails, draws at their quantiles."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import flows
from flows.conditionals import Angle, Number
from flows.core import enable_x64


def case(columns, dtype):
    """A group, its constants and params by name, and a theta away from 0."""
    group = columns[0].group(list(columns), 3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(len(columns), 50)) * 2 + 5, dtype)
    x = jnp.round(x) if any(column.step for column in columns) else x
    params, start = group.init(x, jnp.ones(x.shape, bool))
    c = {name: jnp.asarray(entry, dtype) for name, entry in group.constants.items()}
    c |= {name: leaf for name, leaf in params.items() if name != "fixed"} | params.get("fixed", {})
    theta = jnp.asarray(np.random.default_rng(1).normal(size=(*start.shape, 1)), dtype)
    return group, c, theta


@pytest.mark.parametrize("step", [1e-6, 1e-3, 1.0])
def test_masses_in_float32_are_right(step):
    """Against the same formula in float64, also in far tails."""
    x = 5 + np.array([[-40.0, -8.0, -2.0, 0.0, 1.0, 9.0, 60.0]])
    x = np.round(x / step) * step
    columns = (Number(step=step),)
    with enable_x64():
        group, c, theta = case(columns, np.float64)
        expected = np.asarray(group.log_p(c, theta, jnp.asarray(x)))
        z = np.asarray(group._map(c, theta, jnp.asarray(x) + np.array([[-1], [1]]) * step / 2)[0])
    with mpmath.workdps(60):
        upper = [1 / (1 + mpmath.exp(-mpmath.mpf(float(end)))) for end in z.ravel()]
        exact = [float(mpmath.log((b - a) / step)) for a, b in zip(upper[: x.size], upper[x.size :], strict=True)]
    np.testing.assert_allclose(expected[0], exact, atol=1e-6 if step > 1e-5 else 1e-3)
    group, c, theta = case(columns, np.float32)
    got = np.asarray(group.log_p(c, theta, jnp.asarray(x, jnp.float32)))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    slopes = jax.grad(lambda theta: group.log_p(c, theta, jnp.asarray(x, jnp.float32)).sum())(theta)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    "column",
    [Number(), Number(low=-3), Number(high=20), Number(-3, 20), Number(-3, 20, step=1.0), Angle(24.0), Angle(24.0, 1.0)],
)
def test_draws_lie_at_their_quantiles(column):
    """The share of mass up to a draw at u is u, or for rounded values the cell holds u."""
    with enable_x64():
        group, c, theta = case((column,), np.float64)
        u = jnp.linspace(0.01, 0.99, 9)[None]
        x = np.asarray(group.draw(c, theta, u))[0]
        assert np.asarray(group.inside(c, jnp.asarray(x)[None])).all() and (np.diff(x) >= 0).all()
        low, high = (
            (-12.0, 12.0) if "period" in c else (-3.0 if column.inner.low > -np.inf else -60.0, min(column.inner.high, 80.0))
        )
        if column.step:
            grid = np.arange(low, high + 0.5) if "period" not in c else np.arange(-11.0, 13.0)
            mass = np.exp(np.asarray(group.log_p(c, theta, jnp.asarray(grid)[None]))[0])
            assert abs(mass.sum() - 1) < 1e-9
            up_to = np.array([mass[grid <= value + 1e-9].sum() for value in x])
            at = np.array([mass[abs(grid - value) < 1e-9].sum() for value in x])
            if "period" not in c:
                assert ((up_to >= u[0] - 1e-9) & (up_to - at <= u[0] + 1e-9)).all()
            return
        grid = np.linspace(low, high, 400_001)[1:-1]
        density = np.exp(np.asarray(group.log_p(c, theta, jnp.asarray(grid)[None]))[0])
        up_to = np.interp(x, grid, np.cumsum(density) * (grid[1] - grid[0]))
        np.testing.assert_allclose(up_to, u[0], atol=2e-3)


@pytest.mark.parametrize("column", [Number(low=1.0), Number(high=1.0)], ids=repr)
def test_draws_of_a_number_with_one_end_do_not_lie_far_beyond_the_rows(column):
    """A logarithm of the logistic distribution has the tails of a power: the mean of 100,000 would not settle."""
    sign = 1 if column == Number(low=1.0) else -1
    rows = 1 + sign * np.exp(2 * np.random.default_rng(0).normal(size=(500, 1)))
    params, log_pdf, sample = flows.AnySubset(column, hidden=(2,), num_bins=4)(0, 1, init_inputs=rows)
    far = sign * (np.asarray(sample(0, params, 100_000)) - 1)
    largest = np.abs(rows - 1).max()
    assert (far > 0).all() and largest < far.max() < 30 * largest
    grid = 1 + sign * np.geomspace(1e-6, 1e3 * largest, 20_001)[:, None]
    mass = np.trapezoid(np.exp(log_pdf(params, grid)), np.abs(grid[:, 0] - 1))
    np.testing.assert_allclose(mass, 1, atol=1e-3)


def test_draws_of_tiny_numbers_differ():
    rows = 1e-33 * np.exp(np.random.default_rng(0).normal(size=(200, 2))).astype(np.float32)
    columns = Number(low=0), Number(low=0, high=float(3 * rows[:, 1].max()))
    params, _, sample = flows.AnySubset(*columns, hidden=(2,), num_bins=4)(0, 2, init_inputs=rows)
    draws = np.asarray(sample(0, params, 500))
    assert (draws > 0).all() and (draws[:, 1] < 3 * rows[:, 1].max()).all()
    assert all(len(np.unique(column)) > 400 and 0.2 < np.median(column) / 1e-33 < 5 for column in draws.T)
