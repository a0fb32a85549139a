"""Noise that is learned: its density, the mass of cells, the weight of a draw, fits, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of

import flows
from flows.core import initialize

NOISE = flows.Flow(flows.Serial(flows.Logit(), flows.Invert(flows.Coupling(flows.MLP(4, last_scale=0.5)))), flows.Logistic())
LAYER = flows.Dequantize(0.5, 4, NOISE)
ROWS = np.random.default_rng(0).integers(0, 4, size=(8, 2)) * 0.5
QUICK = {"max_epochs": 1, "verbose": 0}


@pytest.fixture(scope="module")
def made():
    return LAYER(0, 2)


def test_the_log_det_is_minus_the_density_of_the_noise_at_the_values(made):
    params, direct_fun, inverse_fun = made
    y, log_det = direct_fun(params, ROWS, rng=3)
    u = (y - ROWS) / 0.5 + 0.5
    q = NOISE(0, 2, context_dim=2)
    density = q.log_pdf(params["noise"], u, context=2 * ROWS / 1.5 - 1)
    assert 0 < float(u.min()) < 0.3 and 0.7 < float(u.max()) < 1 and float(np.std(density)) > 0.1
    close(log_det, -density, 2e-4)
    x, back = inverse_fun(params, y)
    np.testing.assert_array_equal(x, ROWS)
    close(back, -log_det, 2e-4)  # of the very u
    plain, none = direct_fun(params, ROWS)
    np.testing.assert_array_equal(plain, ROWS)
    assert not np.asarray(none).any()


def test_a_mean_of_densities_is_the_mass_of_a_cell(made):
    """P(x) / step^d by a base whose masses are known, at params moved from their start; one draw lies below in the mean."""
    flow = flows.Flow(LAYER, flows.Uniform(-0.25, 1.75))
    params = {"bijection": made.params, "prior": flow(0, 2).params["prior"]}
    log_pdf = jax.jit(jax.vmap(lambda key: flow(0, 2).log_pdf(params, ROWS[:3], rng=key)))
    log_p = np.asarray(log_pdf(jax.random.split(jax.random.key(1), 4_000)), float)
    mean, error = np.exp(log_p).mean(0), np.exp(log_p).std(0) / 4_000**0.5
    mass = 1 / 2.0**2  # of a box of 2 x 2, per unit of area
    assert (error > 1e-4).all() and (abs(mean - mass) < 4 * error).all()
    assert (log_p.mean(0) < np.log(mass) - 5 * log_p.std(0) / 4_000**0.5).all()


def test_a_draw_has_the_weight_of_its_pair(made):
    flow = flows.Flow(LAYER, flows.Uniform(-0.25, 1.75))
    distribution = flow(0, 2)
    part = initialize(flow, jax.random.key(0), (2,), None)[1]
    x, log_p = part.draw(jax.random.key(2), distribution.params, 50, jnp.float32, None)
    y = flows.Uniform(-0.25, 1.75)(0, 2).sample(jax.random.split(jax.random.key(2))[0], distribution.params["prior"], 50)
    assert np.isin(np.asarray(x), [0, 0.5, 1.0, 1.5]).all()
    q = NOISE(0, 2, context_dim=2).log_pdf(
        distribution.params["bijection"]["noise"], (y - x) / 0.5 + 0.5, context=2 * x / 1.5 - 1
    )
    close(log_p, np.log(1 / 4) - q, 1e-3)


def test_without_levels_the_noise_sees_standardised_values():
    layer, rows = flows.Dequantize(1.0, noise=NOISE), 100 + 10 * np.round(np.random.default_rng(1).normal(size=(500, 2)))
    params, direct_fun, _ = layer(0, 2, init_inputs=rows)
    close(params["fixed"]["mean"], rows.mean(0), 1e-5)
    close(params["fixed"]["std"], rows.std(0), 1e-4)
    near = params | {"fixed": params["fixed"] | {"mean": jnp.zeros(2), "std": jnp.ones(2)}}
    assert float(abs(direct_fun(params, rows, rng=0)[0] - direct_fun(near, rows, rng=0)[0]).max()) > 1e-3
    again = flows.remeasure(layer, params, rows + 7)
    close(again["fixed"]["mean"] - params["fixed"]["mean"], np.full(2, 7.0), 1e-3)
    assert all(map(np.array_equal, jax.tree.leaves(again["noise"]), jax.tree.leaves(params["noise"])))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("standardize", (True, False))
def test_fit_trains_the_noise_and_a_file_keeps_it(standardize, tmp_path):
    model = flows.Flow(flows.Serial(flows.Dequantize(1.0, noise=NOISE), flows.ActNorm()))
    rows = np.random.default_rng(2).poisson(2.0, size=(300, 2)).astype(np.float32)
    result = flows.fit(0, model, rows, standardize=standardize, **QUICK)
    trained = [each for each in jax.tree_util.tree_leaves_with_path(result.params) if "noise" in str(each[0])]
    start = jax.tree.leaves(flows.Dequantize(1.0, noise=NOISE)(0, 2).params["noise"])
    assert len(trained) == len(start) > 0
    first = flows.fit(0, model, rows, standardize=standardize, max_epochs=2, learning_rate=0.05, verbose=0)
    moved = [each for each in jax.tree_util.tree_leaves_with_path(first.params) if "noise" in str(each[0])]
    assert any(float(abs(a[1] - b[1]).max()) > 1e-3 for a, b in zip(trained, moved, strict=True))
    result.save(tmp_path / "a.flows")
    loaded = flows.load(tmp_path / "a.flows")
    np.testing.assert_array_equal(
        loaded.log_pdf(loaded.params, rows[:4], rng=1), result.log_pdf(result.params, rows[:4], rng=1)
    )


@pytest.mark.parametrize(
    ("call", "expected"),
    (
        (lambda: flows.Dequantize(1.0, noise=flows.Normal(conditioner=flows.MLP(4)))(0, 2), "lives from -inf to inf; expected"),
        (lambda: flows.Dequantize(1.0, noise=flows.Uniform(0.0, 2.0))(0, 2), "lives from 0 to 2; expected"),
        (lambda: flows.Dequantize(1.0, noise=flows.Uniform(0.0, 1.0))(0, 2), "takes no context"),
        (lambda: flows.Dequantize((1.0, 0.0), noise=NOISE), "a step is 0"),
        (lambda: LAYER(0, 2, params={"fixed": {}}), "are not the params of learned noise"),
        (lambda: LAYER(0, 2, params={"noise": LAYER(0, 2).params["noise"], "fixed": {}}), "Dequantize: fixed"),
        (lambda: flows.Dequantize(noise=flows.Flow(flows.Serial(flows.Logit(), flows.MAF(1))))(0, 2), "differ with train=True"),
        (
            lambda: flows.Dequantize(1.0, noise=flows.Flow(flows.Serial(flows.Logit(), flows.FlowPlusPlus())))(0, 2),
            "expected an",
        ),
        (lambda: flows.Mixture(flows.Flow(LAYER), flows.Normal()), "Put it before the mixture"),
        (lambda: flows.fit(0, flows.Flow(LAYER), ROWS, members=2, **QUICK), "fit them one by one"),
        (lambda: flows.fit(0, flows.Flow(LAYER), np.tile(ROWS, (9, 1)), folds=3, **QUICK), "fit them one by one"),
    ),
)
def test_bad_input_is_refused(call, expected):
    error = error_of(call)
    assert expected in error
    with pytest.raises(TypeError, match="noise: argument 1 is"):
        flows.Dequantize(1.0, noise=flows.MLP(4))
