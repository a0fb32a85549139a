"""The bridge between a sampler and a flow, and the evidence that comes of it."""

import functools

import numpy as np
import pytest
from common import error_of

import flows
from flows.diagnostics import effective_draws
from flows.objectives import bridge_normalizer

LOG_Z = 1.25


def log_w(x, width=1.5):
    """log(p Z / q) of N(0, 1) and N(0.5, width)."""
    return LOG_Z - 0.5 * x**2 + 0.5 * ((x - 0.5) / width) ** 2 + np.log(width)


def test_the_constant_is_right_and_its_error_as_wide_as_it_says():
    """Of independent draws, and of chains whose draws depend on each other."""
    rng = np.random.default_rng(0)
    for slope, width in ((0.0, 1.5), (0.95, 0.6)):
        found = []
        for _ in range(100):
            x = rng.normal(size=(2, 1_000))
            for t in range(1, 1_000):
                x[:, t] = slope * x[:, t - 1] + np.sqrt(1 - slope**2) * x[:, t]
            y, effective = 0.5 + width * rng.normal(size=2_000), float(effective_draws(log_w(x, width)))
            estimate = bridge_normalizer(log_w(x, width).ravel(), log_w(y, width), effective=min(effective, 2_000))
            found.append((estimate.value - LOG_Z) / estimate.standard_error)
        assert np.abs(np.mean(found)) < 0.4 and 0.75 < np.std(found) < 1.3, (np.mean(found), np.std(found))
    assert effective < 1_000


def test_it_is_better_than_weights_where_the_flow_is_narrow():
    rng, errors = np.random.default_rng(1), {"bridge": [], "weights": []}
    for _ in range(50):
        x, y = rng.normal(size=500), 0.5 + 0.6 * rng.normal(size=500)
        errors["bridge"].append(bridge_normalizer(log_w(x, 0.6), log_w(y, 0.6)).value - LOG_Z)
        errors["weights"].append(flows.objectives.log_normalizer(log_w(y, 0.6)).value - LOG_Z)
    spread = {way: np.sqrt(np.mean(np.square(found))) for way, found in errors.items()}
    assert spread["bridge"] < 0.5 * spread["weights"]


def test_weights_without_a_bridge_are_refused():
    some = np.zeros(5)
    assert "-inf" in error_of(lambda: bridge_normalizer([0.0, -np.inf], some))
    assert "there are 1 and 5" in error_of(lambda: bridge_normalizer([0.0], some))
    assert "effective" in error_of(lambda: bridge_normalizer(some, some, effective=6))
    assert np.isfinite(bridge_normalizer(some, [0.0, -np.inf, 2.0]).value)


NORMAL = flows.Normal(trainable=True)
QUICK = functools.partial(flows.fit, max_epochs=2, folds=1, verbose=0)
MEAN, SD = np.array([1.0, -2.0]), np.array([0.5, 2.0])


def posterior(x):
    """Two independent normals around MEAN, of the constant 2 pi, in NumPy."""
    return -0.5 * np.square((x - MEAN) / SD).sum(1)


def test_the_evidence_of_draws_of_any_form():
    draws = MEAN + SD * np.random.default_rng(2).normal(size=(2, 300, 2))
    found = flows.evidence(0, draws, posterior, flow=NORMAL, fit=QUICK)
    assert abs(found.value - np.log(2 * np.pi)) < 4 * found.standard_error < 0.4
    assert abs(found.weighted.value - np.log(2 * np.pi)) < 5 * found.weighted.standard_error
    assert 400 < found.effective <= 600
    first, second = found.halves
    assert found.standard_error == pytest.approx(np.hypot(first.standard_error, second.standard_error) / 2)

    def named(p):
        return posterior(np.stack([p["a"], p["b"][:, 0]], 1))

    dicts = {"a": draws.reshape(-1, 2)[:, 0], "b": draws.reshape(-1, 2)[:, 1:]}
    assert flows.evidence(0, dicts, named, flow=NORMAL, fit=QUICK).value == pytest.approx(found.value, abs=0.1)


def test_draws_that_give_no_evidence_are_refused_or_warned_of():
    draws = MEAN + SD * np.random.default_rng(2).normal(size=(300, 2))
    evidence = functools.partial(flows.evidence, 0, flow=NORMAL, fit=QUICK)
    assert "100 draws" in error_of(lambda: evidence(draws[:50], posterior))
    assert "constant in number 1" in error_of(lambda: evidence(draws * [1, 0], posterior))
    assert "jax.vmap" in error_of(lambda: evidence(draws, lambda x: posterior(x).sum()))
    assert "at draws" in error_of(lambda: evidence(draws, lambda x: np.where(x[:, 0] > 1, -np.inf, 0.0)))
    with pytest.warns(UserWarning, match="R-hat of number 0"):
        evidence(np.stack([draws, draws + np.array([1, 0])]), lambda x: -np.abs(x).sum(1))
