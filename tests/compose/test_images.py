"""A three-scale flow on (8, 8, 3): the contract carries events of several axes and changing shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import SmallConv, multi_scale

import flows
from flows import load, save


def test_a_multi_scale_flow_initialises_samples_trains_saves_and_loads(tmp_path):
    x = jax.random.normal(jax.random.key(0), (32, 8, 8, 3)) * jnp.array([[[[1.0, 3.0, 0.5]]]]) + 2.0
    init_fun = flows.Flow(multi_scale, flows.Normal())
    params, log_pdf, sample = init_fun(0, (8, 8, 3), init_inputs=x)
    noise = flows.Serial(multi_scale)(0, (8, 8, 3)).direct_fun((params["bijection"],), x)[0]
    assert noise.shape == (32, 192)
    # The last scale has gone through three data-dependent normalisations; what left earlier, through fewer.
    assert abs(float(noise.std()) - 1) < 0.2 and abs(float(noise.mean())) < 0.2
    samples = sample(1, params, 5)
    assert samples.shape == (5, 8, 8, 3) and bool(jnp.isfinite(samples).all())
    gradients = jax.tree.leaves(jax.jit(jax.grad(lambda params: -log_pdf(params, x).mean()))(params))
    trained = jax.tree.leaves(flows.trainable(params))
    assert all(bool((leaf != 0).any()) == train for leaf, train in zip(gradients, trained, strict=True))
    save(tmp_path / "images.flows", init_fun, params, (8, 8, 3))
    again = load(tmp_path / "images.flows", constructors=[SmallConv])
    np.testing.assert_array_equal(again.log_pdf(again.params, x), log_pdf(params, x))


def test_squeeze_keeps_blocks_together():
    x = jnp.arange(32.0).reshape(1, 4, 4, 2)
    params, direct_fun, inverse_fun = flows.Squeeze()(0, (4, 4, 2))
    y = direct_fun(params, x)[0]
    assert y[0, 0, 1, :4].tolist() == x[0, :2, 2:, 0].ravel().tolist()  # one channel's 2 x 2 block
    np.testing.assert_array_equal(inverse_fun(params, y)[0], x)


def test_a_context_reaches_the_channels_of_an_image():
    init_fun = flows.Coupling(SmallConv())
    params, direct_fun, _ = init_fun(0, (4, 4, 3), context_dim=2)
    x = jnp.ones((2, 4, 4, 3))
    a, b = (direct_fun(params, x, context=jnp.array(context))[0] for context in ([0.0, 0.0], [5.0, -5.0]))
    assert float(jnp.abs(a - b).max()) > 1e-2


@pytest.mark.parametrize("make", [flows.ActNorm, flows.BatchNorm, flows.Standardize])
def test_what_is_measured_of_images_is_measured_of_channels(make):
    x = np.random.default_rng(0).normal(size=(5, 3, 4, 2)) * [1.0, 30.0] + [0.0, 7.0]
    x += np.arange(4.0).reshape(1, 1, 4, 1)  # places differ
    params, direct_fun, inverse_fun = make()(0, (3, 4, 2), init_inputs=x)
    y, log_det = direct_fun(params, x.astype(np.float32))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-4)
    np.testing.assert_allclose(log_det, -12 * np.log(x.std((0, 1, 2))).sum(), rtol=1e-4)
    np.testing.assert_allclose(inverse_fun(params, y)[1], -log_det, rtol=1e-6)


def test_factor_out_lets_the_first_half_of_the_channels_go():
    x = np.random.default_rng(0).normal(size=(6, 2, 2, 5)).astype(np.float32) * 3 + 1
    params, direct_fun, _ = flows.FactorOut(flows.ActNorm())(0, (2, 2, 5), init_inputs=x)
    y = np.asarray(direct_fun(params, x)[0])
    np.testing.assert_array_equal(y[:, :8], x[..., :2].reshape(6, 8))
    rest = y[:, 8:].reshape(-1, 3)  # measured of the channels that stay
    np.testing.assert_allclose(rest.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rest.std(0), 1, rtol=1e-4)
