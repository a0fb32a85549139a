"""Models that are wrong, each told by the check that is meant for it, with 2,000 rows."""

import numpy as np
import pytest
from scipy import stats
from triples import density, made, normal, triple

import flows
from flows.results import FitResult
from flows.results.held_out import Kept

ROWS = 2_000
SEEDS = [pytest.param(range(3), id=""), pytest.param(range(3, 10), id="10 seeds", marks=pytest.mark.slow)]
RIGHT = normal()


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=(*shape, 2) if shape else (ROWS, 2))


def too_wide(seed):
    return normal(scale=np.array([1.0, 1.25])), noise(seed), {}


def moved(seed):
    return normal(loc=np.array([0.0, 0.2])), noise(seed), {}


def correlated(seed):
    return RIGHT, noise(seed) @ np.linalg.cholesky([[1, 0.6], [0.6, 1]]).T, {}


def without_a_mode(seed):
    rows = noise(seed)
    rows[::10] = [4.0, 4.0] + 0.7 * rows[::10]
    return RIGHT, rows, {}


def ring(seed):
    """The model is a disc whose columns have the distribution of those of the rows, a ring."""

    def disc(random, n, context):
        turns = np.exp(2j * np.pi * random.uniform(size=(2, n))) * np.sqrt([np.ones(n), random.uniform(size=n)])
        on_ring, within = np.stack([turns.real, turns.imag], 2) + 0.05 * random.normal(size=(2, n, 2))
        places = stats.rankdata(within, axis=0).astype(int) - 1
        return np.take_along_axis(np.sort(on_ring, 0), places, 0)

    turns = 2 * np.pi * np.random.default_rng(seed).uniform(size=ROWS)
    drawn = triple(None, disc)[2]
    return ({}, RIGHT[1], drawn), np.stack([np.cos(turns), np.sin(turns)], 1) + 0.05 * noise(seed + 50), {}


def log_p_raised(seed):
    _, log_pdf, sample = RIGHT
    return ({}, lambda *given, **keywords: log_pdf(*given, **keywords) + 0.1, sample), noise(seed), {}


def sample_of_another(seed):
    return ({}, RIGHT[1], normal(scale=1.3)[2]), noise(seed), {}


def by_heart(seed):
    train = noise(seed + 50)
    return density(train, 0.05), noise(seed), {"train": train}


def wide_posterior(seed):
    context = noise(seed + 50)
    return normal(loc=lambda c: c, scale=1.3), context + noise(seed), {"context": context}


def heedless(seed):
    context = noise(seed + 50)
    return normal(loc=lambda c: 0 * c, scale=2**0.5), context + noise(seed), {"context": context}


def exchanged(seed):
    context = noise(seed + 50)
    return normal(loc=lambda c: c[:, ::-1]), context + noise(seed), {"context": context}


def correlated_noise(seed):
    init_fun = flows.Flow(flows.ActNorm())
    return made(init_fun, init_fun(0, 2).params, 2), correlated(seed)[1], {}


def overfitted(seed):
    """A density that is high at its training rows, which are handed in as data."""
    train, held_out = noise(seed, 300), noise(seed + 50, 1_000)
    return FitResult(*density(train, 0.1), None, 2, kept=Kept(held_out)), train, {}


WRONG = [
    (too_wide, "columns"),
    (moved, "columns"),
    (correlated, "pairs"),
    (correlated_noise, "latents"),
    (without_a_mode, "columns"),
    (without_a_mode, "classifier"),
    (ring, "classifier"),
    (log_p_raised, "normalisation"),
    (sample_of_another, "sampler"),
    (by_heart, "copies"),
    (wide_posterior, "ranks"),
    (wide_posterior, "tarp"),
    (heedless, "ranks"),
    (heedless, "tarp"),
    (heedless, "classifier"),
    (exchanged, "classifier"),
    (overfitted, "shift"),
]


OFTEN = {  # in as many of 10 seeds at least: a mode of weight 0.1 is worth 0.05 of accuracy, and 0.03 are tolerated
    (without_a_mode, "classifier"): 7,
    (sample_of_another, "sampler"): 8,
}


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize(("wrong", "name"), WRONG, ids=[f"{wrong.__name__}, {name}" for wrong, name in WRONG])
def test_a_wrong_model_is_told(wrong, name, seeds):
    missed = []
    for seed in seeds:
        fitted, rows, given = wrong(seed)
        told = flows.check(fitted, rows, **given, only=name, rng=seed)[name]
        missed += [told] if told.verdict != "FAIL" else []
    assert len(missed) <= len(seeds) * (1 - OFTEN.get((wrong, name), 10) / 10), missed


def test_what_is_wrong_is_said():
    fitted, rows, given = overfitted(0)
    checks = flows.check(fitted, rows, train=rows, only=["shift", "columns"])
    assert not checks.passed and checks.figures["remarks"][0].startswith("shift FAILs, and blames the rows")
    assert repr(checks).startswith("shift FAILs") and "300 of 300 rows are in train (rows 0, 1, 2, 3, 4, ...)" in repr(checks)
    assert "higher than of 1,000 rows held out" in checks["shift"].detail
    told = {wrong.__name__: flows.check(*wrong(0)[:2], only="columns")["columns"].detail for wrong in (too_wide, moved)}
    assert told["too_wide"].endswith("column 1, draws are too wide") and told["moved"].endswith("rows lie lower than draws")
    pairs = flows.check(*correlated(0)[:2], only="pairs")["pairs"]
    assert "correlation of column 0 and column 1: 0.5" in pairs.detail
    _, rows, given = by_heart(0)
    copied = flows.check(density(given["train"], 0.0001), rows, **given, only="copies")
    assert copied["copies"].size > 0.45


def test_sizes_below_the_tolerance_are_small():
    fitted, rows, _ = too_wide(0)
    small = flows.check(fitted, rows, only=["columns", "pairs"], tolerance={"columns": 0.2})
    assert small["columns"].verdict == "small" and small["columns"].p < 1e-10 and small.passed
    assert not flows.check(fitted, rows, only=["columns"], tolerance=0).passed
    both = flows.check(fitted, rows, only=["columns", "coverage"])
    alone = {name: flows.check(fitted, rows, only=name)[name] for name in both}
    assert both["columns"].size == alone["columns"].size, "a check finds the same whatever others are asked for"
    least = min(alone.values(), key=lambda each: each.p)
    assert both[least.name].p == 2 * least.p, "Holm's rule goes over all checks"
