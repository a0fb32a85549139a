"""The bracketed solver behind inverses without a closed form: roots, ends, few evaluations, derivatives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flows.diagnostics import enable_x64
from flows.transformers.solve import solve

EPS = float(np.finfo(np.float32).eps)


def identity(x):
    return x, jnp.zeros_like(x)


def cube(x):
    return x**3, jnp.log(3 * x**2)  # flat at the root, where the slope is 0


def cliff(x):
    """A step of 1e4 within 1e-6 of x = 1, on a slope of 1."""
    z = 1e6 * (x - 1)
    step = math.log(1e10) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
    return x + 1e4 * jax.nn.sigmoid(z), jnp.logaddexp(0.0, step)


def slow(x):
    return jnp.arcsinh(x), -0.5 * jnp.log1p(x**2)


def waves(x):
    return x - 0.99 * jnp.sin(x), jnp.log(1 - 0.99 * jnp.cos(x))


@pytest.mark.parametrize(("function", "values"), [
    (identity, [0.0, 1e-30, -1e-30, 1e-3, 1.0, 1e30, -1e30, 3e38]),
    (cube, [0.0, 1e-30, 1e-3, -1.0, 30.0, 1e30, -3e38]),
    (cliff, [-5.0, 1.0, 10.0, 1e3, 9999.0, 10001.5, 1e6]),
    (slow, [0.0, 1e-3, 5.0, -30.0, 69.0, -80.0]),
    (waves, [1e-4, 0.1, 1.0, -3.0, 7.0, 1e2, 1e5]),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_solver_finds_hard_roots(function, values, dtype):
    """Between its neighbours, a few floats to both sides, the function passes y; or it is within a few roundings of y."""
    with enable_x64():
        y, eps = np.array(values, dtype), float(np.finfo(dtype).eps)
        x = np.asarray(jax.jit(lambda y: solve(function, y, unit=0.0))(y))
        assert x.dtype == y.dtype and np.isfinite(x).all()
        width = 16 * eps * np.abs(x)
        below, there, above = np.asarray(jax.jit(lambda x: function(x)[0])(np.stack([x - width, x, x + width])))
    passes = (below <= y) & (y <= above)
    assert (passes | (np.abs(there - y) <= 4 * eps * np.abs(y))).all()


def saturating(x):
    return jnp.tanh(x), -2 * jnp.log(jnp.cosh(x))


def line(slope):
    return lambda x: (slope * x, jnp.zeros_like(x) + jnp.log(slope))


def test_the_solver_outside_the_range_and_at_nan():
    y = jnp.asarray([3e38, -3e38, np.inf, -np.inf, np.nan, 1.0], jnp.float32)
    tenth = jax.jit(lambda y: solve(line(0.1), y))(y)
    np.testing.assert_allclose(tenth, [np.inf, -np.inf, np.inf, -np.inf, np.nan, 10.0], rtol=4 * EPS)
    y = jnp.asarray([2.0, -2.0, 0.5])
    np.testing.assert_allclose(jax.jit(lambda y: solve(saturating, y))(y), [np.inf, -np.inf, np.arctanh(0.5)], rtol=16 * EPS)
    held = jax.jit(lambda y: solve(saturating, y, -3.0, jnp.asarray([3.0, 5.0, 5.0])))(y)
    np.testing.assert_allclose(held, [3.0, -3.0, np.arctanh(0.5)], rtol=16 * EPS)
    assert bool(jnp.isnan(jax.jit(lambda y: solve(line(jnp.nan), y))(y)).all())


def test_a_root_beyond_the_dtype_is_a_constant():
    """It does not spoil the gradient of what it shares with other entries: d(1 / a) = -1 / a^2."""
    y = jnp.asarray([3e38, np.inf, 1.0], jnp.float32)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda a: solve(line(a), y).sum()))(0.5), -4.0, rtol=1e-6)


def test_few_evaluations_are_usual():
    counts = []

    def counted(x):
        jax.debug.callback(lambda: counts.append(1))
        return waves(x)

    jax.block_until_ready(jax.jit(lambda y: solve(counted, y, y - 1, y + 1))(jnp.linspace(-3, 3, 1000)))
    jax.effects_barrier()
    assert len(counts) <= 12


def test_derivatives_of_the_solver():
    """First and second order, in both modes, in y and in what is closed over; x^3 + a x = y has its root in closed form."""

    def root(a, y):
        return solve(lambda x: (x**3 + a * x, jnp.log(3 * x**2 + a)), y)

    def closed(a, y):
        w = jnp.cbrt(y / 2 + jnp.sqrt(y**2 / 4 + a**3 / 27))
        return w - a / (3 * w)

    def twice(f, n):
        return jax.jacrev(jax.jacrev(f, n), n)

    @jax.jit
    def program(a, y, many):
        def derivatives(find):
            def chain(a):
                return jax.lax.scan(lambda x, y: (find(a, x + y), x), 0.5 * jnp.ones_like(a), many)[0]

            once = [each(find, (0, 1))(a, y) for each in (jax.grad, jax.jacfwd, jax.hessian, twice)]
            return [*once, jax.vmap(jax.grad(find), in_axes=(0, None))(many, y)], [jax.grad(chain)(a), jax.hessian(chain)(a)]

        return derivatives(root), derivatives(closed)

    with enable_x64():
        found = jax.tree.map(np.asarray, program(jnp.array(1.5), jnp.array(2.0), jnp.linspace(0.5, 2, 5)))
    for of_root, of_closed, tolerance in zip(*found, (1e-10, 1e-9), strict=True):
        for got, want in zip(*map(jax.tree.leaves, (of_root, of_closed)), strict=True):
            np.testing.assert_allclose(got, want, rtol=tolerance)
