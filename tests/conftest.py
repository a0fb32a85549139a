"""Strict dtypes and ranks for every test; warnings are errors (pyproject.toml)."""

import functools
import itertools
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import flows

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MAPS = Path("/proc/self/maps")  # of a process of Linux, which has 65,530 of them at most; each compiled program takes three
MOST_MAPS, tests_run = 40_000, itertools.count(1)


@pytest.fixture(autouse=True)
def not_too_many_programs():
    """Programs of earlier tests go before there are too many: a process that runs thousands of tests ended without a word."""
    yield
    if next(tests_run) % 50 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


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
