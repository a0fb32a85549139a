"""The base that `fit` gives a flow of angles or of points of a sphere: it starts at the von Mises of the rows, and at their
regression on what comes before."""

from functools import partial

import jax
import jax.monitoring
import numpy as np
import pytest
from common import error_of
from scipy.special import i0e, i1e
from scipy.stats import vonmises

import flows
from flows.distributions.polar import log_area, log_mass, mass_and_mean
from flows.training import fit
from flows.training.model_view import from_gaussian

DRAW = np.random.default_rng(0)
TURN = 2 * np.pi
HOURS = DRAW.normal(23, 2, (800, 1)) % 24
GROUP = DRAW.integers(0, 3, 900)
LOC, CONCENTRATION = np.array([1.0, 4.0, 6.0]), np.array([0.5, 20.0, 500.0])
OF_GROUPS = DRAW.vonmises(LOC[GROUP], CONCENTRATION[GROUP])[:, None]
SPLINE = flows.transformers.CircularRationalQuadratic
REGRESSION = flows.VonMises(trainable=True, regression="chain")
QUICK = {"batch_size": 64, "verbose": 0}


def flow(*periods, base=None):
    layer = flows.Autoregressive(flows.conditioners.MaskedMLP(8), [SPLINE(4, period / 2) for period in periods])
    return flows.Flow(layer, flows.CircularUniform(periods[0]) if base is None else base)


def of_one(period=TURN, regression=False):
    return flows.VonMises(trainable=True, period=period, regression=regression)


@pytest.mark.parametrize("epochs", [1, 6, 60])
def test_a_fit_of_angles_is_not_behind_the_von_mises(epochs):
    result = fit(0, flow(24.0), HOURS[:700], validation=HOURS[700:], max_epochs=epochs, **QUICK)
    turned = HOURS * TURN / 24
    k, loc, _ = vonmises.fit(turned[:700], fscale=1)
    closed_form = vonmises(k, loc).logpdf(turned[700:]).mean() + np.log(TURN / 24)
    history = result.history
    assert -history["start_loss"] == pytest.approx(closed_form, abs=3e-3)
    assert -history["gaussian_loss"] == pytest.approx(closed_form, abs=3e-3)
    assert -min(history["validation_loss"]) > closed_form - 0.02
    away = np.abs((np.asarray(result.draw(1, 2000))[:, 0] - 23 + 12) % 24 - 12)
    assert (away < 6).mean() > 0.98  # of the rows 0.995


def test_bases_that_are_uniform_start_at_the_rows():
    def base(model, columns, context=None):
        return from_gaussian(model, (columns,), context, None).arguments["prior"]

    assert base(flow(TURN), 1) == of_one() and base(flow(TURN), 1, (2,)) == of_one(TURN, True)
    assert base(flow(TURN), 3) == REGRESSION and base(flow(*[TURN] * 3), 3) == REGRESSION
    assert base(flow(TURN), 2, (2, 2)) == of_one(TURN, True) and base(flow(TURN), 9, (4,)) == of_one(TURN, True)
    assert base(flow(TURN), 9) == of_one() and base(flow(TURN), 2, (600,)) == of_one()
    several = flows.Joint(flows.CircularUniform(24.0), flows.CircularUniform(360.0))
    assert base(flow(24.0, 360.0, base=several), 2) == of_one((24.0, 360.0), "chain")
    cylinder = flows.Joint(flows.CircularUniform(24.0), flows.Normal())
    assert base(flow(24.0, base=cylinder), 2, (1,)) == flows.Joint(of_one(24.0, True), flows.Normal())
    sphere = flows.Flow(flows.SphereFlow(1, (8,)), flows.SphereUniform())
    assert base(sphere, 3) == flows.VonMisesFisher(trainable=True)
    assert base(sphere, 3, (2,)) == flows.VonMisesFisher(trainable=True, regression=True)
    kept = flow(24.0, base=flows.VonMises(period=24.0))
    assert from_gaussian(kept, (1,), None, None) == kept
    within = flows.Flow(flows.Rotation(), flow(TURN))
    assert from_gaussian(within, (1,), None, None) == flows.Flow(flows.Rotation(), flow(TURN, base=of_one()))
    with pytest.warns(UserWarning, match="von Mises angles is .* nats a row better"):
        assert fit(0, flow(24.0), HOURS, standardize=False, max_epochs=1, **QUICK).init_fun == flow(24.0)


def test_points_on_one_side_of_a_sphere_start_at_their_von_mises_fisher():
    sphere = flows.Flow(flows.SphereFlow(1, (8,), num_bins=4), flows.SphereUniform())
    cap = flows.VonMisesFisher(loc=(0.0, 0.6, 0.8), concentration=200.0)(0, 3)
    points = np.asarray(cap.sample(1, {}, 400))
    result = fit(0, sphere, points[:300], validation=points[300:], max_epochs=1, **QUICK)
    assert result.init_fun == flows.Flow(sphere.arguments["bijection"], flows.VonMisesFisher(trainable=True))
    assert -result.history["start_loss"] == pytest.approx(float(cap.log_pdf({}, points[300:]).mean()), abs=0.05)
    around = np.r_[points[:200], -points[200:]]
    assert fit(0, sphere, around[::2], max_epochs=1, **QUICK, folds=1).init_fun == sphere


def test_a_regression_starts_at_the_von_mises_of_each_category():
    codes, rows = np.eye(3, dtype=np.float32)[GROUP], OF_GROUPS.astype(np.float32)
    params, log_pdf, sample = REGRESSION(0, 1, context_dim=3, init_inputs=rows, init_context=codes)
    best = np.zeros(900)
    for group in range(3):
        own = group == GROUP
        k, loc, _ = vonmises.fit(OF_GROUPS[own, 0], fscale=1)
        best[own] = vonmises(k, loc).logpdf(OF_GROUPS[own, 0])
    mean = float(log_pdf(params, rows, context=codes).mean())
    assert best.mean() - 0.05 < mean <= best.mean() + 1e-3
    draws = np.asarray(sample(1, params, 900, context=codes))
    assert float(log_pdf(params, draws, context=codes).mean()) == pytest.approx(mean, abs=0.15)
    # One row of a fourth category is not a point to the model, and too few rows start without a slope.
    codes = np.c_[codes, np.zeros(900)].astype(np.float32)
    codes[0] = [0, 0, 0, 1]
    params, log_pdf, _ = REGRESSION(0, 1, context_dim=4, init_inputs=rows, init_context=codes)
    other = np.full((1, 1), rows[0, 0] + 1.0, np.float32)
    assert float(log_pdf(params, other, context=codes[:1])[0]) > -10
    few = REGRESSION(0, 1, context_dim=4, init_inputs=rows[:24], init_context=codes[:24]).params
    assert not np.any(few["slope"]) and few["loc"] == pytest.approx(of_one()(0, 1, init_inputs=rows[:24]).params["loc"])


def test_masses_and_means_are_those_of_scipy():
    k = np.geomspace(1e-5, 1e5, 300)
    expected, mean = np.log(2 * np.pi * i0e(k)), i1e(k) / i0e(k)
    values, slope = jax.jvp(partial(log_mass, n=1), (k.astype(np.float32),), (k.astype(np.float32),))
    np.testing.assert_allclose(values, expected, atol=3e-6)
    np.testing.assert_allclose(slope, k * (mean - 1), atol=2e-5)  # along log k
    assert mass_and_mean(k, 2) == (pytest.approx(expected), pytest.approx(mean))
    turn = (np.arange(20_000) + 0.5) * np.pi / 20_000
    for p in (3, 6, 300):
        for k in (0.1, 3.0, 200.0):
            density = np.exp(k * (np.cos(turn) - 1) + (p - 2) * np.log(np.sin(turn)))
            total = np.log(density.sum() * np.pi / 20_000) + log_area(p - 2)
            mean = (density * np.cos(turn)).sum() / density.sum()
            assert mass_and_mean(np.array(k), p) == (pytest.approx(total, abs=1e-6), pytest.approx(mean, rel=1e-4))


def test_a_start_is_measured_in_numpy():
    rows, codes = OF_GROUPS.astype(np.float32), np.eye(3, dtype=np.float32)[GROUP]
    REGRESSION(0, 1, context_dim=3)
    several, compiled = np.tile(rows, (1, 2)), list[str]()
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    of_parts = flows.core.distribution_part
    part, other = of_parts(REGRESSION, (1,), (3,)), of_parts(of_one(), (2,), None)
    compiled.clear()
    outside = part.init(jax.random.key(0), flows.core.Given(jax.device_put(rows), jax.device_put(codes)))
    other.init(jax.random.key(0), flows.core.Given(jax.device_put(several)))
    assert not [event for event in compiled if "backend_compile" in event]
    traced = jax.jit(lambda x, c: REGRESSION(0, 1, context_dim=3, init_inputs=x, init_context=c).params)(rows, codes)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), traced, outside)
    members = jax.vmap(lambda x: of_one()(0, 1, init_inputs=x).params)(np.stack([rows, rows + 1]))
    assert members["loc"][1] - members["loc"][0] == pytest.approx(1.0, abs=1e-5)


def test_an_angle_depends_on_the_angles_before_it():
    params, log_pdf, sample = REGRESSION(0, 2)
    turn = ((np.arange(100) + 0.5) / 100 * TURN - np.pi).astype(np.float32)
    grid = np.stack(np.meshgrid(turn, turn, indexing="ij"), -1).reshape(-1, 2)
    params = {**params, "slope": np.array([[[5.0, 5.0], [3.0, 0.0]], [[5.0, 5.0], [0.0, -3.0]]], np.float32)}
    p = np.exp(np.asarray(log_pdf(params, grid))).reshape(100, 100) * (TURN / 100) ** 2
    assert p.sum() == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(p.sum(1) / (TURN / 100), vonmises(1.0).pdf(turn), atol=1e-4)
    draws = np.asarray(sample(1, params, 4000))
    expected = (p.ravel() * np.cos(grid.sum(1))).sum()  # the second angle is minus the first
    assert np.cos(draws.sum(1)).mean() == pytest.approx(expected, abs=0.05) and expected > 0.5


def test_angles_of_two_periods():
    both = of_one((24.0, 360.0), "chain")
    rows = np.random.default_rng(5).uniform(-3, 3, (400, 2)).astype(np.float32)
    scaled = (rows * [24, 360] / TURN).astype(np.float32)
    params, log_pdf, sample = both(0, 2, init_inputs=scaled)
    like = REGRESSION(0, 2, init_inputs=rows)
    expected = like.log_pdf(like.params, rows) - np.log(24 * 360 / TURN**2)
    np.testing.assert_allclose(log_pdf(params, scaled), expected, atol=1e-4)
    np.testing.assert_allclose(np.asarray(params["loc"]) / [24, 360] * TURN, like.params["loc"], atol=1e-4)
    draws = np.abs(np.asarray(sample(0, params, 2000))).max(0)
    assert 10 < draws[0] <= 12 and 150 < draws[1] <= 180
    assert flows.support(both, 2).inputs.period.tolist() == [24.0, 360.0]
    assert "VonMises: period" in error_of(lambda: flows.VonMises(period=(24.0, 0.0)))


def test_a_regression_without_a_gain_has_no_slope():
    context = np.random.default_rng(3).normal(size=(200, 10)).astype(np.float32)
    rows = np.random.default_rng(4).vonmises(1.0, 3.0, (200, 1)).astype(np.float32)
    alone = of_one()(0, 1, init_inputs=rows).params
    params = REGRESSION(0, 1, context_dim=10, init_inputs=rows, init_context=context).params
    assert not np.any(params["slope"])
    for name, leaf in alone.items():
        np.testing.assert_allclose(params[name], leaf, atol=1e-4)


def test_a_regression_on_the_sphere_is_the_one_that_made_the_points():
    context = DRAW.normal(size=(2000, 2)).astype(np.float32)
    base = flows.VonMisesFisher(trainable=True, regression=True)
    params, log_pdf, sample = base(0, 3, context_dim=2)
    slope = np.array([[[15.0, 0, 0]], [[0, 10.0, 0]]], np.float32)
    points = sample(1, {**params, "slope": slope}, 2000, context=context)
    started = base(0, 3, context_dim=2, init_inputs=points, init_context=context).params
    np.testing.assert_allclose(started["slope"], slope, atol=1.2)
    gradient = jax.grad(lambda params: log_pdf(params, points, context=context).mean())(started)
    assert all(np.abs(leaf).max() < 5e-3 for leaf in jax.tree.leaves(gradient))


def test_an_angle_starts_at_its_regression_on_the_angle_before(tmp_path):
    first = DRAW.vonmises(1.0, 0.5, 600)
    rows = np.stack([first, first + 1 + DRAW.vonmises(0, 30.0, 600)], 1)
    result = fit(0, flow(TURN, TURN), rows[:500], validation=rows[500:], max_epochs=1, **QUICK)
    k, loc, _ = vonmises.fit(first[:500], fscale=1)
    given = vonmises(30.0, 1.0).logpdf(rows[500:, 1] - rows[500:, 0]).mean()
    expected = vonmises(k, loc).logpdf(first[500:]).mean() + given
    assert -result.history["start_loss"] == pytest.approx(expected, abs=0.05)
    result.save(tmp_path / "angles.flows")
    loaded = flows.load(tmp_path / "angles.flows")
    assert loaded.init_fun == result.init_fun
    np.testing.assert_array_equal(loaded.log_prob(rows[:9]), result.log_prob(rows[:9]))


def test_a_regression_names_what_it_lacks():
    assert "give init_fun context_dim=" in error_of(lambda: REGRESSION(0, 1))
    for base in (flows.VonMises, flows.VonMisesFisher):
        for arguments in ({}, {"trainable": True, "conditioner": flows.MLP(8)}):
            made = partial(base, regression=True, **arguments)
            assert "give trainable=True, and no conditioner" in error_of(made)


def test_periods_are_one_for_each_entry():
    for period in ((24.0, 360.0), ()):
        with pytest.raises(flows.FlowsError, match=rf"period has {len(period)} lengths, and the event is \(3,\); expected one"):
            flows.VonMises(period=period)(0, 3)
    with pytest.raises(flows.FlowsError, match="regression is 'all'; expected True, False or \"chain\""):
        flows.VonMises(trainable=True, regression="all")
