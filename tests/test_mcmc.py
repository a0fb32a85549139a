"""Kernels keep a density, row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of
from scipy import stats

import flows
from flows.core import from_json, to_json

KERNELS = [flows.mcmc.hamiltonian(0.6, steps=3), flows.mcmc.hamiltonian(1.0, 1), flows.mcmc.metropolis(1.0, steps=2)]
NAMES = ["hamiltonian", "langevin", "metropolis"]
RNG = np.random.default_rng(0)


def bent(x):
    """A Gumbel distribution, and a logistic distribution around its tanh."""
    y = x[:, 1] - jnp.tanh(x[:, 0])
    return -x[:, 0] - jnp.exp(-x[:, 0]) - y - 2 * jax.nn.softplus(-y)


def draws_of_bent(n):
    first = RNG.gumbel(size=n)
    return np.stack([first, np.tanh(first) + RNG.logistic(size=n)], 1).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
def test_a_kernel_keeps_a_density(kernel):
    x = draws_of_bent(20_000)
    moved, accepted = jax.jit(lambda key, x: kernel(key, x, bent))(jax.random.key(1), x)
    moved, fresh = np.asarray(moved), draws_of_bent(20_000)
    assert 0.5 < accepted.mean() < 0.98 and np.abs(moved - x)[np.asarray(accepted) > 0].min(0).max() > 0
    for project in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x[:, 0] * x[:, 1]):
        assert stats.ks_2samp(project(moved), project(fresh)).pvalue > 1e-3
        assert np.corrcoef(project(moved), project(x))[0, 1] < 0.97  # it moves


@pytest.mark.parametrize("kernel", KERNELS[1:], ids=NAMES[1:])
def test_each_row_goes_alone_and_stays_where_a_density_is_not_a_number(kernel):
    x, key = draws_of_bent(8), jax.random.key(2)

    def holed(x):  # NaN right of 2
        return jnp.where(x[:, 0] > 2, jnp.nan, bent(x))

    run = jax.jit(lambda x: kernel(key, x, holed))
    x[:3, 0] = 3.0
    moved, accepted = run(x)
    assert (moved[:3] == x[:3]).all() and (accepted[:3] == 0).all() and (np.asarray(moved)[x[:, 0] <= 2, 0] <= 2).all()
    others = x.copy()
    others[:5] += 1
    np.testing.assert_array_equal(run(others)[0][5:], moved[5:])


def test_kernels_are_values():
    kernel = flows.mcmc.hamiltonian(step_size=0.3)
    assert repr(kernel) == "mcmc.hamiltonian(step_size=0.3)" and kernel == flows.mcmc.hamiltonian(0.3) != KERNELS[0]
    assert all(from_json(to_json(kernel)) == kernel for kernel in KERNELS)


def test_wrong_arguments_are_refused():
    assert "step_size" in error_of(lambda: flows.mcmc.hamiltonian(step_size=0))
    assert "steps" in error_of(lambda: flows.mcmc.metropolis(steps=0))
    kernel, x = flows.mcmc.metropolis(), np.zeros((3, 2), np.float32)
    assert "jax.vmap(log_density)" in error_of(lambda: kernel(0, x, lambda x: -(x**2).sum()))
    assert "expected rows" in error_of(lambda: kernel(0, 1.0, bent))
    with pytest.raises(TypeError, match="log_density"):
        kernel(0, x, flows.Normal())
