"""Strict dtypes and ranks for every test; warnings are errors (pyproject.toml)."""

import functools
import os
import sys

import jax
import numpy as np
import pytest

import flows

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def the_same_rows(request):
    """A test draws the rows it would draw alone, whichever ran before it in its process."""
    if hasattr(request.module, "DRAW"):
        request.module.DRAW = np.random.default_rng(1)  # others than those of the module itself


@pytest.fixture
def optimized():
    """A `jax.jit` that makes the programs users run, with what XLA does to them: sums regrouped, products contracted."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    short = "xla_cpu_use_fusion_emitters"  # the Makefile asks for programs that are made the short way
    options = {short: True} if short in os.environ.get("XLA_FLAGS", "") else None
    yield functools.partial(jax.jit, compiler_options=options)
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()


@pytest.fixture
def untrained(monkeypatch):
    """`fit` ends before its first epoch, and returns None: what it refuses or warns of in rows it has told by then."""
    module = sys.modules["flows.training.fit"]  # as `flows.training.fit` is the function
    monkeypatch.setattr(module, "fit_prepared", lambda *_: None)


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
