"""Features of a context, made by a network: the density by its parts, contexts of any shape, fits and checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of

import flows
from flows.conditioners import ConvNet

NORMAL = flows.Normal(conditioner=flows.MLP(4, last_scale=1.0))
RNG = np.random.default_rng(0)
C = 5 + 3 * RNG.normal(size=(40, 6))
X = RNG.normal(size=(40, 2))
ONE_EPOCH = {"max_epochs": 1, "folds": 1, "verbose": 0}


def test_the_density_is_given_standardised_features():
    model = flows.EmbeddedContext(NORMAL, flows.MLP(4, last_scale=1.0), 3)
    params, log_pdf, sample = model(0, 2, context_dim=6, init_context=C, init_inputs=X)
    apply_fun = flows.MLP(4, last_scale=1.0)(0, 6, 3).apply_fun
    h = np.asarray(apply_fun(params["network"], jnp.asarray(C, jnp.float32)), float)
    close(params["fixed"]["mean"], h.mean(0), 1e-4)
    close(params["fixed"]["std"], h.std(0), 1e-4)
    inner = NORMAL(0, 2, context_dim=3)
    expected = inner.log_pdf(params["distribution"], X, context=(h - h.mean(0)) / h.std(0))
    close(log_pdf(params, X, context=C), expected, 1e-4)
    draws, log_p = flows.sample_with_log_pdf(1, params, (params, log_pdf, sample), 40, context=C)
    close(log_pdf(params, draws, context=C), log_p, 1e-4)
    gradient = jax.grad(lambda params: log_pdf(params, X, context=C).sum())(params)
    assert all(float(abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient["network"]))
    assert not any(float(abs(leaf).max()) for leaf in jax.tree.leaves(gradient["fixed"]))


def test_contexts_are_images_or_series():
    @flows.conditioner
    def Mean():
        def net(rng, input_dim, output_dim):
            w = jax.random.normal(rng, (input_dim[-1], output_dim))
            return {"w": w}, lambda params, x: x.mean(tuple(range(1, x.ndim - 1))) @ params["w"]

        return net

    for shape in ((7, 2), (3, 4, 2)):
        params, log_pdf, _ = flows.EmbeddedContext(NORMAL, Mean(), 3)(0, 2, context_dim=shape)
        assert log_pdf(params, X, context=np.ones(shape)).shape == (40,)
    model = flows.EmbeddedContext(flows.Flow(flows.Coupling(ConvNet(4))), ConvNet(4), (2, 2, 3))
    params, _, sample = model(0, (2, 2, 2), context_dim=(2, 2, 1), init_context=RNG.normal(size=(9, 2, 2, 1)))
    assert sample(0, params, 4, context=np.ones((2, 2, 1))).shape == (4, 2, 2, 2)


@pytest.mark.parametrize("around", (lambda model: model, flows.StandardizedContext), ids=("alone", "standardised"))
def test_a_shared_context_runs_the_network_once(around):
    rows = []

    @flows.conditioner
    def Sum():
        def net(rng, input_dim, output_dim):
            def apply_fun(params, x):
                rows.append(len(x))
                return x.sum(1, keepdims=True) * params["w"][None]

            return {"w": jnp.ones(output_dim)}, apply_fun

        return net

    model = around(flows.EmbeddedContext(flows.StandardizedContext(flows.Flow(flows.AffineCoupling())), Sum(), 3))
    params, log_pdf, sample = model(0, 2, context_dim=6, init_context=C, init_inputs=X)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    rows.clear()
    shared, draws = log_pdf(params, X, context=C[0]), sample(1, params, 33, context=C[0])
    assert rows and {*rows} == {1}, "one row of context"
    close(shared, log_pdf(params, X, context=np.tile(C[:1], (40, 1))), 1e-5)
    close(draws, sample(1, params, 33, context=np.tile(C[:1], (33, 1))), 1e-5)
    assert {*rows} > {1}


@pytest.mark.filterwarnings("ignore")
def test_fit_trains_the_network_and_checks_see_its_features(tmp_path):
    theta = RNG.normal(size=(400, 1))
    series = theta[:, :, None] + RNG.normal(size=(400, 5, 1))
    model = flows.EmbeddedContext(flows.Flow(flows.MAF(1, hidden=(4,))), flows.MLP(4), 2)
    result = flows.fit(0, model, theta, context=series[..., 0], max_epochs=2, folds=1, verbose=0)
    result.save(tmp_path / "a.flows")
    loaded = flows.load(tmp_path / "a.flows")
    np.testing.assert_array_equal(
        loaded.log_prob(theta[:5], context=series[:5, :, 0]), result.log_prob(theta[:5], context=series[:5, :, 0])
    )
    checks = flows.check(result, theta[:150], context=series[:150, :, 0], samples=200)
    assert checks["latents"].p > 0 and checks["ranks"].p > 0 and checks.rows.passed


def test_measured_networks_are_measured_again():
    model = flows.EmbeddedContext(
        flows.Flow(flows.Coupling(ConvNet(4))), flows.conditioners.ConvResidual(4, 1, norm="batch"), (2, 2, 3)
    )
    images = RNG.normal(size=(9, 2, 2, 1))
    params = model(5, (2, 2, 2), context_dim=(2, 2, 1), init_context=images, init_inputs=RNG.normal(size=(9, 2, 2, 2))).params
    again = flows.remeasure(model, params, RNG.normal(size=(9, 2, 2, 2)), context=3 + images)
    moved = params["network"]["fixed"]["mean"] - again["network"]["fixed"]["mean"]
    assert float(abs(moved).max()) > 0.1
    assert all(map(np.array_equal, jax.tree.leaves(params["network"]["layers"]), jax.tree.leaves(again["network"]["layers"])))


@pytest.mark.filterwarnings("ignore")
def test_rows_are_verified_behind_a_context_that_is_standardised_and_embedded():
    spline = flows.Flow(flows.NSF(1, hidden=(4,), num_bins=2, bound=4.0))
    for model in (spline, flows.EmbeddedContext(spline, flows.MLP(4), 2)):
        result = flows.fit(0, model, np.tile(X, (3, 1)) + RNG.normal(size=(120, 2)), context=np.tile(C, (3, 1)), **ONE_EPOCH)
        report = result.verify(np.concatenate([X, [[30.0, 0.0]]]), context=np.concatenate([C, C[:1]]))
        assert [row.row for row in report.rows] == [40] and report.rows[0].beyond


def test_a_network_drops_units_in_training_and_may_be_a_function():
    model = flows.EmbeddedContext(NORMAL, flows.MLP(4, dropout=0.5, last_scale=1.0), 3)
    params, log_pdf, _ = model(0, 2, context_dim=6)
    a, b = (log_pdf(params, X, context=C, rng=key, train=True) for key in (1, 2))
    assert float(abs(a - b).max()) > 1e-2
    np.testing.assert_array_equal(log_pdf(params, X, context=C, rng=1), log_pdf(params, X, context=C))

    def masked(rng, input_dim, output_dim):
        mask = jnp.tri(input_dim, output_dim)
        return {"w": mask}, lambda params, x: x @ (params["w"] * mask)

    params, log_pdf, _ = flows.EmbeddedContext(NORMAL, masked, 3)(0, 2, context_dim=6)
    assert np.isfinite(log_pdf(params, X, context=C)).all()


def with_network(network):
    model = flows.EmbeddedContext(NORMAL, flows.MLP(4), 3)
    return model(0, 2, context_dim=6, params={**model(0, 2, context_dim=6).params, "network": network})


BAD = (
    (lambda: flows.EmbeddedContext(NORMAL, flows.MLP(4), 3)(0, 2), "there is no context"),
    (
        lambda: flows.EmbeddedContext(NORMAL, lambda rng, i, o: ({}, lambda params, x: x), 3)(0, 2, context_dim=6),
        "features that",
    ),
    (lambda: flows.EmbeddedContext(NORMAL, flows.MLP(4), 3)(0, 2, context_dim=6, params={"fixed": {}}), "are not its params"),
    (lambda: with_network({"b": jnp.ones(7)}), "EmbeddedContext: network"),
)


@pytest.mark.parametrize(("call", "expected"), BAD)
def test_bad_input_is_refused(call, expected):
    assert expected in error_of(call)
    with pytest.raises(TypeError, match="EmbeddedContext: network"):
        flows.EmbeddedContext(NORMAL, flows.Normal(), 3)
