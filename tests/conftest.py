"""Strict dtypes and ranks for every test; warnings are errors (pyproject.toml)."""

import jax
import numpy as np
import pytest

import flows

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiling is most of a test's time, and these programs run once: do it in half the time.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where in the source a program comes from


def pytest_runtest_teardown():
    """Every program compiled is a few mappings of memory, of which Linux gives a process 65,530."""
    try:
        with open("/proc/self/maps") as maps:
            mappings = sum(1 for _ in maps)
    except OSError:
        return
    if mappings > 20_000:
        jax.clear_caches()
        flows.clear_caches()


@pytest.fixture
def optimized():
    """The programs that users run, with what XLA does to them; it is where sums are regrouped and products contracted."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()


@pytest.fixture
def relaxed():
    """JAX's usual promotion, where stax networks or optax run: neither is written for the strict rules."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    """A tiny model's file."""
    params = {"log_scale": np.ones(1, np.float32), "shift": np.zeros(1, np.float32)}
    flows.save(path, flows.ActNorm(), params, 1, metadata={"unit": "cm"})
    return path
