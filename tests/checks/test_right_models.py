"""Models that are right: their own draws are rows of the population that they describe, and nothing FAILs."""

import functools

import jax
import numpy as np
import pytest
from common import stirred
from frames import GIVEN, mixed
from scipy import stats
from triples import made, normal

import flows
from flows import tables
from flows.results import EnsembleResult
from flows.results.held_out import Kept

pytestmark = pytest.mark.filterwarnings("ignore:.*the closed-form Gaussian with")
FLOW = flows.Flow(flows.Serial(flows.ActNorm(), flows.Coupling(flows.MLP(8))))
RIGHT = {  # a model, its event, the size of its context
    "Gaussian": (flows.Flow(flows.ActNorm()), 2, 0),
    "mixture": (flows.Mixture(flows.Normal(trainable=True), num_components=3), 2, 0),
    "behind bounds": (flows.Flow(flows.Unconstrain(0.0, 5.0), flows.Normal(trainable=True, covariance="full")), 2, 0),
    "conditional Gaussian": (flows.Flow(flows.Serial(flows.ActNorm(), flows.Coupling(flows.MLP(4)))), 2, 2),
    "ensemble": (flows.Mixture(FLOW, num_components=3, trainable=False), 2, 0),
    "circle": (flows.VonMises(), 1, 0),
}
COARSE = flows.Flow(flows.Serial(flows.Dequantize(1.0), flows.ActNorm()))  # cells as wide as two standard deviations
SEEDS = [pytest.param(range(3), id=""), pytest.param(range(3, 50), id="50 seeds", marks=pytest.mark.slow)]


@functools.cache
def right(name):
    """A result, and a function that draws from it."""
    init_fun, d, context_dim = RIGHT[name]
    params = stirred(init_fun(0, d, context_dim=context_dim).params, 0.3, seed=5)
    kind, more = (EnsembleResult, {"path": ()}) if name == "ensemble" else (flows.FitResult, {})
    of = functools.partial(made, init_fun, params, d, context_dim, kind=kind, **more)

    def rows(seed, n):
        context = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32) if context_dim else None
        given = {} if context is None else {"context": context}
        return np.asarray(of().sample(jax.random.key(1_000 + seed), params, n, **given)), context

    held_out = [rows(99 - i, 2_000)[0] for i in range(3)] if name == "ensemble" else rows(99, 2_000)[0]
    return of(kept=(np.array(held_out), rows(99, 2_000)[1])), rows


@functools.cache
def table(condition):
    """A result of a table of codes, whole numbers and a real one, and a function that draws from it."""
    kinds = {"town": tables.Category(), "guests": tables.Integer(low=0), "x": tables.Real(), "unit": tables.Constant("kg")}
    schema = tables.Schema(kinds, condition)
    result = tables.fit(0, mixed(), schema, model=GIVEN, validation=0.5, folds=1, max_epochs=1, verbose=0)
    given = mixed(rows=1_000, seed=1)[["town"]] if condition else None

    def rows(seed, n):
        return result.draw(1_000 + seed, 1 if condition else n, given=given)

    held_out = result.schema.rows(rows(99, 1_000))
    kept = Kept(held_out.x, held_out.context)
    return tables.TableResult(schema.fitted(mixed()), result.result._replace(kept=kept, scored=None)), rows


def test_cells_that_are_wide_are_no_matter():
    """What is drawn within a cell does not follow the density there, of the best of models neither."""
    scaled = {
        "bijection": ({"fixed": {"offset": np.zeros(2)}}, {"log_scale": np.full(2, 0.7), "shift": np.zeros(2)}),
        "prior": {},
    }
    result = made(COARSE, jax.tree.map(np.float32, scaled), 2)
    rows = np.asarray(result.draw(jax.random.key(5), 2_000))
    told = flows.check(result, rows, only=["latents", "coverage", "columns"], samples=5_000, tolerance=0)
    assert told.passed and told["latents"].detail.endswith("from that of draws"), told
    moved = flows.check(result, rows + (np.arange(2_000) % 10 == 0)[:, None], only="latents", samples=5_000)
    assert moved["latents"].verdict == "FAIL"


def failing(checks):
    return {name: (each.p, each.size, each.detail) for name, each in checks.items() if each.verdict == "FAIL"}


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("name", RIGHT)
def test_nothing_fails_of_a_right_model(name, seeds):
    result, rows = right(name)
    found = []
    for seed in seeds:
        x, context = rows(seed, 600)
        checks = flows.check(result, x, context=context, rng=seed, samples=3_000, tolerance=0)
        assert set(checks) >= {"shift", "rows", "coverage", "classifier"}
        found.append(failing(checks))
    assert sum(map(bool, found)) <= len(found) // 40, found


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("condition", [(), ("town",)], ids=["", "given"])
def test_nothing_fails_of_a_right_table(condition, seeds):
    result, rows = table(condition)
    found = [failing(flows.check(result, rows(seed, 600), rng=seed, samples=3_000, tolerance=0)) for seed in seeds]
    assert sum(map(bool, found)) <= len(found) // 40, found


ALONE = ("normalisation", "sampler", "latents", "coverage", "columns", "shift", "copies", "energy", "classifier")
UNIFORM = {  # a check, the size of the event, and whether it is of models with a context
    **dict.fromkeys(ALONE, (1, False)),
    "pairs": (2, False),
    "ranks": (1, True),
    "tarp": (2, True),
}


@functools.cache
def gaussian(d):
    init_fun = flows.Flow(flows.ActNorm())
    return made(init_fun, init_fun(0, d).params, d)


@pytest.mark.slow
@pytest.mark.parametrize("name", UNIFORM)
def test_p_values_of_a_right_model_are_uniform(name):
    d, conditional = UNIFORM[name]
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows, given = rng.normal(size=(400, d)), {}
        fitted = gaussian(d)
        if conditional:
            context = rng.normal(size=(400, d))
            fitted, rows, given = normal(loc=lambda c: c, d=d), rows + context, {"context": context}
        elif name == "shift":
            fitted = fitted._replace(kept=Kept(rng.normal(size=(400, d))), scored=None)
        elif name == "copies":
            given = {"train": rng.normal(size=(400, d))}
        told = flows.check(fitted, rows, **given, only=name, rng=seed, samples=2_000)[name]
        found += [] if told.p is None else [told.p]
    assert len(found) >= 150
    # The least of many p-values times their number is 1 more often than a p-value; that of the accuracy is one of few.
    side = "greater" if name in ("ranks", "classifier") else "two-sided"
    assert stats.kstest(found, "uniform", alternative=side).pvalue > 0.01, np.quantile(found, [0.01, 0.1, 0.25, 0.5, 0.75, 0.9])
