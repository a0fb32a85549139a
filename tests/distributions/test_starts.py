"""Bases and mixtures start at what the data tell of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from scipy.stats import laplace, logistic, multivariate_normal, t

import flows
from flows.distributions import seeding

DRAW = np.random.default_rng(0)
MIXED = (DRAW.normal(size=(2000, 3)) @ [[2.0, 0.5, 0.0], [0.0, 0.3, 1.0], [0.0, 0.0, 0.2]] + [5.0, -1.0, 30.0]).astype(
    np.float32
)
CLUSTERS = np.concatenate(
    [DRAW.normal(size=(n, 2)) * scale + at for n, scale, at in ((300, 0.1, 0), (600, 1.0, 5), (100, 0.5, -9))]
)
CLUSTERS = CLUSTERS.astype(np.float32)


def mean_at_start(init_fun, x, **given):
    params, log_pdf, _ = init_fun(0, x.shape[1], init_inputs=x, **given)
    return float(log_pdf(params, x).mean())


def test_a_normal_starts_at_the_moments():
    full = multivariate_normal(MIXED.mean(0), np.cov(MIXED.T, bias=True)).logpdf(MIXED).mean()
    assert mean_at_start(flows.Normal(True, covariance="full"), MIXED) == pytest.approx(full, abs=1e-3)
    diagonal = multivariate_normal(MIXED.mean(0), np.diag(MIXED.var(0))).logpdf(MIXED).mean()
    assert mean_at_start(flows.Normal(True), MIXED) == pytest.approx(diagonal, abs=1e-3)
    assert full > diagonal + 0.5
    params = flows.Normal(True)(0, (2, 1), init_inputs=MIXED[:, :2, None]).params
    close(params["loc"], MIXED[:, :2].mean(0)[:, None], 1e-3)
    few = flows.Normal(True, covariance="full")(0, 3, init_inputs=MIXED[:2]).params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(few))


@pytest.mark.parametrize(
    ("base", "reference"),
    [
        (flows.Laplace(True), laplace(3, 2)),
        (flows.Logistic(True), logistic(3, 2)),
        (flows.StudentT(3.0, True), t(3, 3, 2)),
        (flows.StudentT(1.0, True), t(1, 3, 2)),
    ],
)
def test_other_bases_start_near_the_best(base, reference):
    x = reference.rvs((4000, 1), random_state=1).astype(np.float32)
    assert mean_at_start(base, x) == pytest.approx(reference.logpdf(x).mean(), abs=0.01)
    standard = base(0, 1)
    assert mean_at_start(base, x) > float(standard.log_pdf(standard.params, x).mean()) + 0.2


def test_a_base_of_a_flow_starts_at_the_noise():
    flow = flows.Flow(flows.FixedAffine(2.0, 1.0), flows.Normal(True))
    close(flow(0, 3, init_inputs=MIXED).params["prior"]["loc"], 2 * MIXED.mean(0) + 1, 1e-3)


# Mixtures


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_mixture_is_fitted_at_init(covariance):
    init_fun = flows.GMM(num_components=3, covariance=covariance)
    params, log_pdf, sample = init_fun(0, 2, init_inputs=CLUSTERS)
    order = np.argsort(np.asarray(params["mean"])[:, 0])
    close(np.asarray(params["mean"])[order], [[-9, -9], [0, 0], [5, 5]], 0.15)
    close(jax.nn.softmax(params["logits"])[order], [0.1, 0.3, 0.6], 0.01)
    leaf = params["log_scale"] if covariance == "diagonal" else jnp.diagonal(params["tril"], axis1=1, axis2=2)
    close(jnp.exp(leaf)[order].mean(1), [0.5, 0.1, 1.0], 0.06)
    assert flows.trainable(params) == jax.tree.map(lambda _: True, params)
    assert float(log_pdf(params, CLUSTERS).mean()) > mean_at_start(flows.Normal(True, covariance="full"), CLUSTERS) + 1
    draws = np.asarray(sample(1, params, 4000))
    assert abs((draws[:, 0] < -6).mean() - 0.1) < 0.03 and abs((np.abs(draws) < 0.6).all(1).mean() - 0.3) < 0.05
    fixed = flows.GMM(num_components=3, trainable=False, covariance=covariance)(0, 2, init_inputs=CLUSTERS).params
    assert set(fixed) == {"fixed"}


def ring(rows):
    """The centres of 16 clusters on a circle, and rows of each."""
    angles = 2 * np.pi * np.arange(16) / 16
    centres = 10 * np.stack([np.cos(angles), np.sin(angles)], 1)
    x = centres[:, None] + 0.3 * np.random.default_rng(0).normal(size=(16, rows, 2))
    return centres, x.reshape(-1, 2).astype(np.float32)


def test_the_likeliest_of_several_starts_goes_on(monkeypatch):
    """Of round components of one size, whose mixture is quick to compile. Of these keys the first start lets two clusters share
    a component, and so does the unlikeliest."""

    def log_joint(z, weights, means, factors):
        return -100 * jnp.square(z[None] - means[:, None]).sum(2)

    def maximised(z, of, diagonal):
        return of.sum(1), of @ z / jnp.maximum(of.sum(1), 1e-3)[:, None], jnp.ones((len(of), 1, 1))

    monkeypatch.setattr(seeding, "_log_joint", log_joint)
    monkeypatch.setattr(seeding, "_maximised", maximised)
    centres, x = ring(40)
    found = jax.jit(lambda key: seeding.fitted_normals.__wrapped__(key, x, 16)[1])
    for key in (1, 2):
        means = np.asarray(found(jax.random.key(key)))
        assert np.linalg.norm(means[:, None] - centres[None], axis=-1).min(0).max() < 0.4


def test_all_clusters_are_found_whatever_the_key():
    """From one start two of them share a component for about every second key. Rows beyond those that starts are compared on
    count too."""
    centres, x = ring(40)
    for key in range(8):
        means = flows.GMM(num_components=16)(key, 2, init_inputs=x).params["mean"]
        assert np.linalg.norm(means[:, None] - centres[None], axis=-1).min(0).max() < 0.3
    many = np.concatenate([x] * 8)
    params = flows.GMM(num_components=16)(0, 2, init_inputs=many).params
    close(params["mean"][np.argsort(params["mean"][:, 0])], means[np.argsort(means[:, 0])], 1e-3)


def test_no_component_shrinks_onto_a_few_rows():
    x = DRAW.normal(size=(60, 5)).astype(np.float32)
    params, log_pdf, _ = flows.GMM(num_components=10)(0, 5, init_inputs=x)
    assert np.exp(np.diagonal(params["tril"], axis1=1, axis2=2)).min() > 0.05
    test = DRAW.normal(size=(1000, 5))
    assert np.asarray(log_pdf(params, test)).mean() > multivariate_normal(np.zeros(5)).logpdf(test).mean() - 10
    copies = np.repeat(x[:3], 20, axis=0)
    same = flows.GMM(num_components=5)(0, 5, init_inputs=copies).params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(same))
    told = x[:, :1] * np.float32([1.0, 2.0, -3.0, 0.5, 1e3])
    same = flows.GMM(num_components=5)(0, 5, init_inputs=told).params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(same))


def test_arguments_of_a_mixture():
    given = ([[0.0]], [[[1.0]]], [1.0])
    for arguments, message in (
        ({}, "expected means, covariances and weights, or num_components alone"),
        ({"means": [[0.0]]}, "expected means, covariances and weights"),
        ({"num_components": 2, "means": [[0.0]]}, "num_components was given with means"),
    ):
        with pytest.raises(TypeError, match=message):
            flows.GMM(**arguments)
    assert "expected 'full', or 'diagonal' with num_components" in error_of(lambda: flows.GMM(*given, covariance="diagonal"))
    assert "GMM: num_components is 0" in error_of(lambda: flows.GMM(num_components=0))
    assert "expected a vector" in error_of(lambda: flows.GMM(num_components=2)(0, (2, 2)))
    assert flows.GMM(*given)(0, 1).params.keys() == {"fixed"}


def test_copies_in_a_mixture_take_their_share_of_the_room():
    params = flows.Mixture(flows.Normal(True), num_components=4)(0, 2, init_inputs=CLUSTERS).params["components"]
    close(jnp.exp(params["log_scale"]), np.broadcast_to(CLUSTERS.std(0) / 2, (4, 2)), 0.1)
    assert len(np.unique(np.asarray(params["loc"]).round(3), axis=0)) == 4


# Kernel densities


def test_a_kernel_density_is_a_mixture_around_rows():
    params, log_pdf, sample = flows.KernelDensity(50)(0, 3, init_inputs=MIXED[:40])
    fixed = params["fixed"]
    kept = np.asarray(fixed["points"])[:40]
    assert sorted(map(tuple, kept)) == sorted(map(tuple, MIXED[:40])) and np.isneginf(fixed["log_weights"][40:]).all()
    h = np.exp(np.asarray(fixed["log_bandwidth"], float))
    expected = [np.mean([multivariate_normal(point, np.diag(h**2)).pdf(x) for point in kept]) for x in MIXED[:5]]
    close(log_pdf(params, MIXED[:5]), np.log(expected), 1e-4)
    draws = np.asarray(sample(1, params, 3000))
    close(draws.mean(0), MIXED[:40].mean(0), 0.15)
    assert jax.tree.leaves(flows.trainable(params)) == [False] * 3


def test_bandwidths_are_those_of_leaving_one_out():
    x = np.column_stack([DRAW.normal(size=400), 100 * DRAW.normal(size=400)]).astype(np.float32)
    params, log_pdf, _ = flows.KernelDensity()(0, 2, init_inputs=x)
    h = np.exp(np.asarray(params["fixed"]["log_bandwidth"]))
    assert 0.15 < h[0] < 0.8 and 15 < h[1] < 80
    test = np.column_stack([DRAW.normal(size=2000), 100 * DRAW.normal(size=2000)])
    scores = {}
    for factor in (0.25, 1.0, 4.0):
        other = {"fixed": {**params["fixed"], "log_bandwidth": params["fixed"]["log_bandwidth"] + np.log(factor)}}
        scores[factor] = float(log_pdf(other, test).mean())
    assert max(scores, key=scores.get) == 1.0


def test_it_says_that_it_holds_rows(tmp_path):
    result = flows.fit(0, flows.KernelDensity(100), MIXED, max_epochs=1, verbose=0)
    assert result.history["validation_loss"].min() < result.history["gaussian_loss"] + 1
    result.save(tmp_path / "kde")
    assert flows.describe(tmp_path / "kde")["training_rows"] == 100
    params, log_pdf, _ = flows.load(tmp_path / "kde")
    close(log_pdf(params, MIXED[:5]), result.log_pdf(result.params, MIXED[:5]), 0)
    assert "KernelDensity: num_points is 0" in error_of(lambda: flows.KernelDensity(0))
    assert "expected a vector" in error_of(lambda: flows.KernelDensity(2)(0, (2, 2)))
