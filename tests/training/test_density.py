"""Fitting to a density: targets whose constants are known, and figures that say when not to believe them."""

import contextlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import error_of
from targets import TARGETS

import flows
from flows.objectives import reverse_kl
from flows.training import fit_to_density
from flows.training.density.divergences import OfDraws, powers, rounds_of, stands
from flows.training.density.modes import Gaussian
from flows.training.density.start import _refuse_improper, nearest_gaussian
from flows.training.density.target import Box, Target
from flows.training.density.variational import DensityOptions

QUICK = {"max_epochs": 3, "steps_per_epoch": 20, "num_samples": 64, "num_held_out": 200, "num_weights": 500, "verbose": 0}
QUICK["standardize"] = False  # the model as it is, from where it starts
NORMAL = flows.Normal(trainable=True)
FLOW = flows.Flow(flows.RealNVP(4, hidden=(16,), plain=True))


def gauss(x):
    """N((1, -2), 0.5^2), whose constant is e^3."""
    return 3.0 - 2 * jnp.square(x - jnp.array([[1.0, -2.0]])).sum(1) - jnp.log(2 * jnp.pi * 0.25)


def banana(x):
    """A normal bent by a map of volume 1; its constant is 1."""
    y = jnp.stack([x[:, 0], x[:, 1] + 0.5 * (jnp.square(x[:, 0]) - 1)], 1)
    return -0.5 * jnp.square(y).sum(1) - jnp.log(2 * jnp.pi)


@pytest.mark.parametrize("estimator", ["total", "sticking_the_landing", "score"])
def test_a_normal_target_is_found_by_every_estimator(estimator):
    result = fit_to_density(
        0, NORMAL, gauss, 2, estimator=estimator, max_epochs=20, steps_per_epoch=40, learning_rate=0.05, num_samples=128,
        num_held_out=500, num_weights=2000, standardize=False, verbose=0,
    )  # fmt: skip
    tolerance = 0.06 if estimator == "score" else 0.03
    np.testing.assert_allclose(result.params["loc"], [1, -2], atol=tolerance)
    assert result.history["validation_loss"].min() == pytest.approx(-3.0, abs=0.05)
    found = result.diagnostics
    assert found.log_normalizer.value == pytest.approx(3.0, abs=0.02) and found.log_normalizer.standard_error < 0.02
    assert found.effective_sample_size > 0.95 and found.num_samples == 2000
    assert (result.init_fun, result.input_dim, result.context_dim) == (NORMAL, 2, 0)


def test_a_bent_target_needs_a_flow():
    options = {"max_epochs": 30, "steps_per_epoch": 60, "learning_rate": 0.01, "num_samples": 128, "verbose": 0}
    flow = fit_to_density(0, FLOW, banana, 2, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        normal = fit_to_density(0, NORMAL, banana, 2, **{**options, "learning_rate": 0.05})
    assert abs(flow.diagnostics.log_normalizer.value) < 0.05 and flow.diagnostics.pareto_k < 0.7
    assert flow.diagnostics.effective_sample_size > 0.8 > normal.diagnostics.effective_sample_size
    assert flow.history["validation_loss"].min() < 0.1 < normal.history["validation_loss"].min()
    x = np.asarray(flow.sample(1, flow.params, 4000))
    np.testing.assert_allclose(np.cov(x[:, 0] ** 2, x[:, 1])[0, 1], -1.0, atol=0.25)  # exactly -Var(x^2) / 2


def correlated(x):
    """A normal far away, with correlation 0.9; its constant is 1."""
    y = jnp.stack([(x[:, 0] - 40) / 3, ((x[:, 1] + 9) - 0.3 * (x[:, 0] - 40)) / 0.4], 1)
    return -0.5 * jnp.square(y).sum(1) - jnp.log(2 * jnp.pi * 1.2)


def test_a_fit_starts_at_the_nearest_gaussian():
    result = fit_to_density(0, FLOW, correlated, 2, **{**QUICK, "standardize": True, "max_epochs": 20})
    fixed = result.params["bijection"]["fixed"]
    np.testing.assert_allclose(fixed["mean"], [40, -9], atol=0.01)
    np.testing.assert_allclose(fixed["std"], [3, np.hypot(0.9, 0.4)], rtol=1e-3)
    np.testing.assert_allclose(fixed["factor"][1, 0], 0.9 / np.hypot(0.9, 0.4), rtol=1e-3)
    assert result.init_fun == flows.Flow(flows.Whiten(), FLOW) and len(result.history["train_loss"]) < 20, "it stands"
    assert abs(result.diagnostics.log_normalizer.value) < 0.02 and result.diagnostics.effective_sample_size > 0.95


def test_a_gaussian_that_takes_one_of_two_modes_is_no_start():
    def modes(*places):
        return lambda x: jax.nn.logsumexp(jnp.stack([-12 * jnp.square(x - place).sum(1) for place in places]), axis=0)

    def nearest(log_density):
        return nearest_gaussian(np.random.default_rng(0), Target(log_density, (2,), jnp.float32))

    assert nearest(modes(1.5, -0.3)) is None
    one = nearest(modes(1.2))
    np.testing.assert_allclose(one.mean, 1.2, atol=1e-3)
    np.testing.assert_allclose(one.std, 24**-0.5, rtol=1e-3)
    assert nearest(lambda x: jnp.nan * x[:, 0]) is None
    millions = nearest(lambda x: -0.5 * jnp.square((x - 3e6) / jnp.array([[1e6, 1.0]], x.dtype)).sum(1))
    np.testing.assert_allclose(millions.mean, 3e6, rtol=1e-3)
    np.testing.assert_allclose(millions.std, [1e6, 1.0], rtol=1e-2)


def test_rounds_grow_and_a_fit_ends_with_one_that_gained_little():
    assert rounds_of(50) == [5, 15, 35, 50] and rounds_of(3) == [1, 3] and rounds_of(1) == [1]
    rounds, low = [2, 6, 9], [0.1, 0.2, 0.5]

    def over(effective, before=0.5, now=0.5):
        return stands(rounds, effective, [before] * (len(effective) - 1) + [now])

    assert not over([0.1, 0.2]) and not over(low), "the first round may end low"
    assert over([0.1, 0.2, 0.995]) and not over([*low, 0.5, 0.6, 0.6, 0.7])
    assert over([*low, 0.4, 0.5, 0.503, 0.502]) and not over([*low, 0.4, 0.5, 0.503, float("nan")])
    assert not over([*low, *[0.6] * 7]), "the last round is the end anyway"
    assert not over([0.1, 0.2, 0.995], now=0.8), "the tail of the weights is to be good, too"
    late = [*low, 0.4, 0.5, 0.503, 0.502]
    assert not over(late, before=0.9, now=0.7) and over(late, before=0.75, now=0.7), "unless it gains no more"
    assert not over(late, before=0.9, now=0.85), "nor can it be trusted"
    assert over([*low, 0.4, 0.5, 0.503, 0.995], now=0.4)


BOXED = flows.Flow(flows.Elementwise(flows.transformers.RationalQuadratic(16, 3.0)), flows.Uniform(-3.0, 3.0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture", "funnel", "many-well"])
def test_the_constants_of_known_targets_are_found(name):
    target, log_z = TARGETS[name]
    wells: dict = {"max_epochs": 10, "steps_per_epoch": 60, "learning_rate": 0.03, "num_samples": 512, "num_weights": 4000}
    model, options, least = (BOXED, wells, 0.6) if name == "many-well" else (None, {}, 0.98)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore" if model else "error", "fit_to_density: Pareto k")
        result = fit_to_density(1, model, target, 2, **options, verbose=0)
    (log_normalizer, error), history = result.diagnostics.log_normalizer, result.history
    assert log_normalizer == pytest.approx(log_z, abs=4 * error) and error < 0.01
    assert result.diagnostics.effective_sample_size > least
    losses = [float(history["start_loss"]), *history["validation_loss"]]  # a mixture starts at the target, and stays there
    assert min(losses) == pytest.approx(-log_z, abs=0.5 if model else 0.03)


def test_a_model_that_misses_the_tails_is_warned_of():
    def wide(x):
        return -2 * jnp.log1p(jnp.square(x[:, 0]) / 3)

    with pytest.warns(UserWarning, match=r"too narrow: the standard deviation of number 0 of a point is 0\.[78]\d of"):
        fit_to_density(0, NORMAL, wide, 1, **{**QUICK, "max_epochs": 15, "num_weights": 4000}, learning_rate=0.05)


def test_what_is_not_finite_does_not_reach_the_params():
    def walled(x):
        return jnp.where(x[:, 0] > 3.2, jnp.nan, gauss(x))

    with pytest.warns(UserWarning, match="steps were skipped"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit_to_density: (Pareto|the importance|the model is too)")
        result = fit_to_density(0, NORMAL, walled, 2, **{**QUICK, "num_held_out": 20, "num_weights": 30})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))
    with pytest.raises(flows.FitError, match=r"no loss is finite .*log_density is nan at a draw x = \["):
        fit_to_density(0, NORMAL, lambda x: jnp.nan * x[:, 0], 2, **QUICK)
    with pytest.raises(flows.FitError, match="undone, the last of 9"):
        fit_to_density(0, NORMAL, gauss, 2, optimizer=optax.sgd(jnp.inf), **{**QUICK, "max_epochs": 20})


def test_it_is_a_fit_like_any_other(tmp_path):
    told = []
    options = {**QUICK, "callbacks": [told.append], "checkpoint": tmp_path / "fit", "checkpoint_every": 1e-9}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, again = (fit_to_density(0, FLOW, gauss, 2, **options) for _ in range(2))
        other = fit_to_density(1, FLOW, gauss, 2, **QUICK)
        averaged = fit_to_density(0, FLOW, gauss, 2, ema=0.9, **QUICK)
    assert [epoch.number for epoch in told] == [0, 1, 2]
    for a, b, c, d in zip(*(jax.tree.leaves(each.params) for each in (first, again, other, averaged)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c) and not np.array_equal(a, d)
    assert "num_samples was 64" in error_of(lambda: fit_to_density(0, FLOW, gauss, 2, **{**options, "num_samples": 32}))
    first.save(tmp_path / "q.flows")
    params, log_pdf, _ = flows.load(tmp_path / "q.flows")
    np.testing.assert_array_equal(log_pdf(params, jnp.ones((2, 2))), first.log_pdf(first.params, jnp.ones((2, 2))))


ENDLESS = {**QUICK, "standardize": True}


def half_a_scale(p):
    """A prior 1/s of a scale that nothing else tells of from below."""
    return -jnp.log(p["s"]) - p["s"] / 5 - p["a"] ** 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_to_density(0, NORMAL, lambda x: x, 2, **QUICK), "expected floating numbers of shape"),
        (lambda: fit_to_density(0, NORMAL, gauss, 2, **{**QUICK, "num_samples": 0}), "num_samples is 0"),
        (lambda: fit_to_density(0, NORMAL, gauss, 2, estimator="best", **QUICK), "expected one of 'total'"),
        (lambda: fit_to_density(0, NORMAL, gauss, 0, **QUICK), "input_dim"),
        (
            lambda: fit_to_density(0, FLOW, lambda x: -jnp.square(x[:, 0]), 2, **ENDLESS),
            "improper, as far as can be seen: it does not fall where number 1",
        ),
        (lambda: fit_to_density(0, FLOW, lambda x: 0 * x[:, 0], 2, support=(0, None), **ENDLESS), "improper"),
        (
            lambda: fit_to_density(0, FLOW, half_a_scale, {"a": (), "s": ()}, support={"s": (0, None)}, **ENDLESS),
            "where 's' goes",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    assert words in error_of(call)
    with pytest.raises(TypeError, match="expected a function of points"):
        fit_to_density(0, NORMAL, "gauss", 2, **QUICK)
    with pytest.raises(TypeError, match=r"expected flows.fit_to_density\(rng, flow, log_density, input_dim\)"):
        fit_to_density(0, gauss, NORMAL, 2, **QUICK)
    with pytest.raises(TypeError, match="expected a distribution"):
        fit_to_density(0, flows.RealNVP(), gauss, 2, **QUICK)
    with pytest.raises(TypeError, match="cannot be traced by JAX"):
        fit_to_density(0, NORMAL, lambda x: -np.square(np.asarray(x)).sum(1), 2, **QUICK)
    with pytest.raises(TypeError, match="cannot be traced by JAX"):
        fit_to_density(0, NORMAL, lambda x: -x.sum(1) if x.sum() > 0 else x.sum(1), 2, **QUICK)


def test_a_wide_parameter_beside_one_with_an_end_is_no_improper_one():
    def log_density(p):
        return -0.5 * jnp.square((p["a"] - 50) / 100) + jnp.log(p["s"]) - p["s"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit as short as this
        result = fit_to_density(0, FLOW, log_density, {"a": (), "s": ()}, support={"s": (0, None)}, **ENDLESS)
    assert np.isfinite(result.diagnostics.log_normalizer.value)


def test_a_support_is_looked_at_for_an_end_where_it_has_one():
    def density(x):
        """Flat but for the first column, as far as the line goes."""
        return -0.5 * np.square((x[..., 0] - 50) / 100)

    box = Box(flows.Unconstrain((-np.inf, 0.0), (np.inf, np.inf)), (2,))
    for std, refused in (([100.0, 1.0], ""), ([1.0, 100.0], "where number 1 of a point goes to an end of its support")):
        with pytest.raises(flows.FlowsError, match=refused) if refused else contextlib.nullcontext():
            _refuse_improper(Gaussian(np.array([50.0, 0.0]), np.array(std), np.eye(2)), box, density)


def test_a_density_that_is_never_finite_is_an_error_that_says_so(monkeypatch):
    def raw(self, x):  # of as many points as are asked for
        return np.asarray(self.log_density(jnp.asarray(x, self.dtype).reshape(-1, 2)), float).reshape(x.shape[:-1])

    monkeypatch.setattr(Target, "raw", raw)
    with pytest.raises(flows.FitError, match=r"fit_to_density: no loss is finite.*log_density is nan.*where the model"):
        fit_to_density(0, NORMAL, lambda x: jnp.full(len(x), jnp.nan), 2, **QUICK)
    with pytest.raises(flows.FitError, match=r"undone, the last of 9.*log_density is nan at a draw"):

        def rarely(x):  # at one of 200 draws of the validation, and in no step of two draws
            return jnp.where(len(x) == 200, jnp.nan, 1.0) * gauss(x)

        fit_to_density(0, NORMAL, rarely, 2, **{**QUICK, "max_epochs": 20})
    with pytest.raises(flows.FlowsError, match="fit_to_density: max_epochs is 0"):
        fit_to_density(0, NORMAL, gauss, 2, **{**QUICK, "max_epochs": 0})
    with pytest.raises(flows.FlowsError, match="fit_to_density: callbacks is 3"):
        fit_to_density(0, NORMAL, gauss, 2, callbacks=3, **QUICK)


def test_a_fit_is_not_lost_to_its_diagnostics(monkeypatch):
    raw = Target.raw

    def holed(self, x):
        found = raw(self, x)
        found[7:8] = np.nan if len(found) > 300 else found[7:8]  # among the draws of the diagnostics alone
        return found

    monkeypatch.setattr(Target, "raw", holed)
    with pytest.warns(UserWarning, match="weights of 1 of 500 draws are not numbers"):
        result = fit_to_density(0, NORMAL, gauss, 2, **QUICK, starts=1)
    assert np.isnan(result.diagnostics.effective_sample_size) and result.diagnostics.pareto_k == np.inf
    assert len(result.history["train_loss"]) == 3 and np.isfinite(result.params["loc"]).all()


def two_modes(x):
    """Two narrow normals five widths apart on either side of 0; the constant is 1."""
    sides = [-0.5 * jnp.square((x[:, 0] - at) / 0.4) - jnp.log(0.8 * jnp.sqrt(2 * jnp.pi)) for at in (-2.0, 2.0)]
    return jnp.logaddexp(*sides)


def test_the_density_is_tempered_for_a_share_of_the_steps():
    options = DensityOptions(max_epochs=5, steps_per_epoch=4, anneal=0.6)
    assert powers(options)[0] == np.float32(0.01) and (powers(options)[12:] == 1).all()
    np.testing.assert_allclose(powers(options)[:12], 0.01 + 0.99 * np.arange(12) / 12, rtol=1e-6)
    assert (powers(DensityOptions(max_epochs=5, steps_per_epoch=4)) == 1).all()
    params, part = flows.core.initialize(NORMAL, jax.random.key(0), (2,), None)
    problem = OfDraws(part, reverse_kl, gauss, 64, reverse_kl)
    half = OfDraws(part, reverse_kl, lambda x: 0.5 * gauss(x), 64, reverse_kl)
    key, one = jax.random.key(1), jnp.ones(1)
    np.testing.assert_allclose(problem.loss(params, None, 0.5 * one, key), half.loss(params, None, one, key), rtol=1e-6)


def test_annealing_keeps_both_modes_and_judges_only_what_it_did_to_the_density_itself():
    model = flows.Flow(flows.Repeat(flows.Invert(flows.Planar()), 8))
    seen: list = []
    settings = {**QUICK, "max_epochs": 10, "steps_per_epoch": 100, "learning_rate": 2e-2, "patience": 3}

    def annealed(callback):
        whole = {"anneal": 0.55, "starts": 1, "estimator": "total", "callbacks": [callback], **settings}
        return fit_to_density(0, model, two_modes, 1, **whole)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit_to_density: the model is too narrow")
        result = annealed(lambda epoch: seen.append(epoch.best_epoch))
    with pytest.warns(UserWarning, match="ended while the density was tempered"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit_to_density: the model is too narrow")
        ended = [annealed(lambda epoch, last=last: epoch.number == last) for last in (0, 4)]
    assert jax.tree.all(jax.tree.map(np.array_equal, ended[0].params, ended[1].params)), "these are the params of the start"
    losses = result.history["validation_loss"]
    assert np.isnan(losses[:6]).all() and np.isfinite(losses[6:]).all() and len(losses) == 10
    assert np.isfinite(result.history["train_loss"]).all() and seen[:6] == [-1] * 6 and result.history["best_epoch"] >= 6
    x = np.asarray(result.sample(1, result.params, 2_000))[:, 0]
    assert 0.2 < (x > 0).mean() < 0.8 and (np.abs(x) < 0.5).mean() < 0.1
    assert losses.min(where=np.isfinite(losses), initial=9) < 0.3
    assert "leaves none" in error_of(lambda: fit_to_density(0, NORMAL, gauss, 2, anneal=0.6, **{**QUICK, "max_epochs": 2}))
    assert "share of the steps" in error_of(lambda: fit_to_density(0, NORMAL, gauss, 2, anneal=1.0, **QUICK))


def test_a_tempered_fit_goes_on_from_its_checkpoint_and_says_when_it_ends_too_early(tmp_path):
    settings = {**QUICK, "max_epochs": 6, "anneal": 0.5}
    stops = [lambda epoch: epoch.number == 1]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        whole = fit_to_density(0, NORMAL, gauss, 2, **settings)
        part = fit_to_density(0, NORMAL, gauss, 2, checkpoint=tmp_path, callbacks=stops, **settings)
        again = fit_to_density(0, NORMAL, gauss, 2, checkpoint=tmp_path, **settings)
    assert part.history["best_epoch"] == -1 and any(
        "ended while the density was tempered" in str(each.message) for each in said
    )
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again.history["validation_loss"], whole.history["validation_loss"])


def test_a_tempered_epoch_that_is_lost_is_tried_again_at_a_lower_rate():
    def edged(x):
        return jnp.where(jnp.abs(x).max(1) < 4, -2 * jnp.square(x).sum(1), jnp.nan)

    settings = {**QUICK, "max_epochs": 20, "steps_per_epoch": 5, "num_held_out": 100, "learning_rate": 0.3, "anneal": 0.6}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fit_to_density(0, NORMAL, edged, 2, **settings)
    assert np.isfinite(result.history["validation_loss"][-1]) and result.history["best_epoch"] >= 12
