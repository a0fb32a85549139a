"""A three-scale flow on (8, 8, 3): the contract carries events of several axes and changing shapes."""

import jax
import jax.numpy as jnp
import numpy as np
from registry import SmallConv, multi_scale

import flows
from flows.persistence import load, save


def test_a_multi_scale_flow_initialises_samples_trains_saves_and_loads(tmp_path):
    x = jax.random.normal(jax.random.key(0), (32, 8, 8, 3)) * jnp.array([1.0, 3.0, 0.5]).reshape(1, 1, 1, 3) + 2.0
    init_fun = flows.Flow(multi_scale, flows.Normal())
    params, log_pdf, sample = init_fun(0, (8, 8, 3), init_inputs=x)
    noise = flows.Serial(multi_scale)(0, (8, 8, 3)).direct_fun((params["bijection"],), x)[0]
    assert noise.shape == (32, 192)
    # The last scale has gone through three data-dependent normalisations; what left earlier, through fewer.
    assert abs(float(noise.std()) - 1) < 0.2 and abs(float(noise.mean())) < 0.2
    samples = sample(1, params, 5)
    assert samples.shape == (5, 8, 8, 3) and bool(jnp.isfinite(samples).all())
    gradients = jax.tree.leaves(jax.grad(lambda params: -log_pdf(params, x).mean())(params))
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
