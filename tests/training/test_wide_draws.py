"""Draws that reach further than a model: what they say of its tails, and what a last round makes of them."""

import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows.core import Distribution, functions_of, initialize
from flows.objectives import Estimate
from flows.training import fit_to_density
from flows.training.density import variational
from flows.training.density.divergences import polish
from flows.training.density.figures import Drawing, Points, log_normalizer_of_mixture

KEY = jax.random.key(0)
MEANS, FACTORS = [[-3.0, 0.0], [4.0, 1.0]], [[[1.0, 0.3], [0.3, 0.5]], [[0.2, 0.0], [0.0, 2.0]]]
BASES = {
    "Normal": flows.Normal(),
    "Normal, trained": flows.Normal(trainable=True),
    "StudentT": flows.StudentT(trainable=True),
    "GMM": flows.GMM(MEANS, FACTORS, [0.3, 0.7]),
    "GMM, diagonal": flows.GMM(num_components=2, covariance="diagonal"),
}


def model_of(base, event=(2,)):
    model = flows.Flow(flows.FixedAffine((3.0, -1.0), (0.5, 2.0)), flows.Flow(flows.AffineCoupling(flows.MLP(4)), base))
    params, part = initialize(model, jax.random.key(1), event, None)
    params = jax.tree.map(lambda leaf: leaf + 0.3, params) if base.arguments.get("means") is None else params
    return model, Distribution(params, *functions_of(part, params))


@pytest.mark.parametrize("name", list(BASES))
def test_each_component_has_its_density_at_all_points(name):
    """Means under each component by draws of all of them, in which a wrong density would show."""
    model, triple = model_of(BASES[name])
    drawing = Drawing(model, (2,), 5_000)
    points = drawing.of(triple, KEY, 20_000)
    assert points.counts == (15_000, 2_500, 2_500) and points.log_q.shape == (3, 20_000)
    np.testing.assert_allclose(points.log_q[0], triple.log_pdf(triple.params, points.x), atol=2e-3, rtol=1e-4)
    np.testing.assert_allclose(drawing.scored(triple, points.x), points.log_q, atol=2e-3, rtol=1e-4)
    weights = np.exp(points.log_q - points.log_mixture)
    np.testing.assert_allclose(weights.mean(1), 1.0, atol=0.05)
    ends = np.cumsum((0, *points.counts))
    for i, weight in enumerate(weights):
        own = np.median(points.x[ends[i] : ends[i + 1]], 0)
        below = [(weight * (points.x[:, j] < own[j])).mean() for j in range(2)]
        np.testing.assert_allclose(below, 0.5, atol=0.05)


def test_a_wider_base_is_wider_around_its_centre():
    points = Drawing(BASES["GMM"], (2,), 4_000).of(BASES["GMM"](0, 2), KEY, 32_000)
    for part, by in zip(np.split(points.x, np.cumsum(points.counts)[:-1]), (1.0, 1.5, 2.5), strict=True):
        right = part[part[:, 0] > 2.0]
        np.testing.assert_allclose(right.mean(0), [4.0, 1.0], atol=0.15)
        np.testing.assert_allclose(right[:, 1].std(), by * np.sqrt(2.0), rtol=0.06)


def test_models_without_a_tail_are_drawn_from_as_they_are():
    for base in (flows.Uniform(-1.0, 1.0), flows.VonMises()):
        model = flows.Flow(flows.Rotation() if base == flows.VonMises() else flows.FixedAffine(scale=2.0), base)
        params, part = initialize(model, KEY, (2,), None)
        triple = Distribution(params, *functions_of(part, params))
        drawing = Drawing(model, (2,), 64)
        points = drawing.of(triple, KEY, 100)
        assert points.counts == (100,) and points.log_q.shape == (1, 100) == drawing.scored(triple, points.x).shape
        np.testing.assert_allclose(points.log_q[0], triple.log_pdf(params, points.x), atol=1e-4)


def test_what_weights_have_in_common_with_their_components_is_no_error():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=3_000), 2.0 * rng.normal(size=1_000)])
    log_q = np.stack([-0.5 * (x / by) ** 2 - np.log(by * np.sqrt(2 * np.pi)) for by in (1.0, 2.0)])
    points = Points(x[:, None], log_q, (3_000, 1_000))
    exact = log_normalizer_of_mixture(3.0 + log_q[0] - points.log_mixture, points)
    assert exact.value == pytest.approx(3.0, abs=1e-9) and exact.standard_error < 1e-9
    found = []
    for seed in range(200):  # of a density that is neither
        rng = np.random.default_rng(seed)
        x = np.concatenate([rng.normal(size=300), 2.0 * rng.normal(size=100)])
        log_q = np.stack([-0.5 * (x / by) ** 2 - np.log(by * np.sqrt(2 * np.pi)) for by in (1.0, 2.0)])
        points = Points(x[:, None], log_q, (300, 100))
        log_p = -np.abs(x) * np.sqrt(2)  # of mass sqrt(2)
        found.append(log_normalizer_of_mixture(log_p - points.log_mixture, points))
    value, error = np.array(found).T
    np.testing.assert_allclose(value.mean(), 0.5 * np.log(2), atol=4 * value.std() / np.sqrt(200))
    np.testing.assert_allclose(error.mean(), value.std(), rtol=0.15)
    one = Points(x[:, None], log_q[:1], (400,))
    plain = flows.objectives.log_normalizer(log_p - log_q[0])
    np.testing.assert_allclose(log_normalizer_of_mixture(log_p - log_q[0], one), plain, rtol=1e-9)
    assert isinstance(plain, Estimate)


def test_a_last_round_trains_on_draws_by_their_weights(monkeypatch):
    """None is heavier than the square root of their number times their mean."""
    x = np.linspace(-1, 1, 16)[:, None]
    points, log_p = Points(x, np.zeros((1, 16)), (16,)), np.log(np.r_[np.arange(15.0) + 1, 9_000])
    figures = SimpleNamespace(weighed=lambda *_: (points, log_p + 700), n=8, target=SimpleNamespace(dtype=np.float32))
    seen = []

    class Trainer:
        placement = SimpleNamespace(copied=lambda rows: rows)
        start = staticmethod(lambda params: SimpleNamespace(params=params))
        params = staticmethod(lambda params: params)

        def advance(self, state, key, epoch, order, rates, rows):
            seen.append(rows)
            return state, None, None

    monkeypatch.setattr("flows.training.density.divergences.trainer", lambda *_: Trainer())
    polish(figures, None, Distribution({"loc": 0.0}, None, None), variational.DensityOptions(), 10, KEY)
    w = np.r_[np.arange(15.0) + 1, 4 * 9_120 / 16]
    np.testing.assert_allclose(seen[0].weights, w / w.mean(), rtol=1e-5)
    np.testing.assert_array_equal(seen[0].x, x)


def banana(x):
    return -(x[:, 0] ** 2) / 8 - 0.5 * (x[:, 1] - x[:, 0] ** 2 / 2) ** 2


def test_a_fit_that_lacks_tails_is_seen_and_mended(monkeypatch):
    model = flows.Flow(flows.Invert(flows.MAF(2, hidden=(16,))))
    settings = {"max_epochs": 5, "steps_per_epoch": 60, "num_samples": 64, "num_held_out": 1_000, "num_weights": 4_000}
    rounds = []

    def counted(figures, part, triple, *rest):
        rounds.append((figures.of(triple, KEY), triple))
        return polish(figures, part, triple, *rest)

    monkeypatch.setattr(variational, "polish", counted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mended = fit_to_density(0, model, banana, 2, **settings, verbose=0)
    ((verdict, narrow),) = rounds
    spread = [np.asarray(each.sample(1, each.params, 40_000))[:, 1].std() for each in (narrow, mended)]
    assert spread[0] < 0.95 * 3.0 and spread[0] + 0.1 < spread[1] < 3.15, "3 exactly"
    assert verdict.off == pytest.approx(np.log(3.0 / spread[0]), abs=0.06) and "number 1 of a point" in verdict.messages[0]
    for found in (verdict, mended):
        log_z = found.diagnostics.log_normalizer
        assert abs(log_z.value - np.log(4 * np.pi)) < 4 * log_z.standard_error


def test_a_density_without_numbers_far_out_is_weighed_by_the_draws_of_the_model():
    def walled(x):
        return jnp.where(jnp.abs(x).max(1) > 5.5, jnp.nan, -0.5 * jnp.square(x).sum(1))

    settings = {"num_weights": 1_000, "num_held_out": 500, "max_epochs": 1, "steps_per_epoch": 1, "verbose": 0}
    result = fit_to_density(0, flows.Flow(flows.RealNVP(2, hidden=(4,), plain=True)), walled, 2, **settings)
    assert result.diagnostics.num_samples == 1_000
    assert result.diagnostics.log_normalizer.value == pytest.approx(np.log(2 * np.pi), abs=0.02)
