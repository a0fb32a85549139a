"""Code written for jax-flows 0.0.1 runs unchanged: the calls of its README, its tests and its notebook, written anew."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import stirred
from jax.example_libraries import optimizers, stax
from scipy.stats import multivariate_normal
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture

import flows

pytestmark = pytest.mark.usefixtures("relaxed")
RNG = jax.random.PRNGKey(0)


def transform(rng, input_dim, output_dim, hidden_dim=16):
    init_fun, apply_fun = stax.serial(stax.Dense(hidden_dim), stax.Relu, stax.Dense(output_dim))
    _, params = init_fun(rng, (input_dim,))
    return params, apply_fun


def masked_transform(rng, input_dim, outputs=2):
    """A MADE of stax layers, its masks made by hand."""
    inputs = np.arange(input_dim)
    hidden = np.arange(16) % max(input_dim - 1, 1)
    first = jnp.asarray(inputs[:, None] <= hidden[None], float)
    second = jnp.asarray(np.tile(hidden[:, None] < inputs[None], (1, outputs)), float)
    init_fun, apply_fun = stax.serial(flows.MaskedDense(first), stax.Relu, flows.MaskedDense(second))
    return init_fun(rng, (input_dim,))[1], apply_fun


def network(out_dim, hidden_dim):
    return stax.serial(stax.Dense(hidden_dim), stax.Tanh, stax.Dense(out_dim))


LAYERS = {
    "ActNorm": flows.ActNorm(),
    "AffineCoupling": flows.AffineCoupling(transform),
    "AffineCoupling()": flows.AffineCoupling(),
    "AffineCouplingSplit": flows.AffineCouplingSplit(transform, transform),
    "AffineCouplingSplit()": flows.AffineCouplingSplit(),
    "BatchNorm": flows.BatchNorm(),
    "FixedInvertibleLinear": flows.FixedInvertibleLinear(),
    "Invert": flows.Invert(flows.ActNorm()),
    "InvertibleLinear": flows.InvertibleLinear(),
    "MADE": flows.MADE(masked_transform),
    "MADE()": flows.MADE(),
    "NeuralSplineCoupling": flows.NeuralSplineCoupling(K=5, B=3, hidden_dim=8),
    "NeuralSplineCoupling(network)": flows.NeuralSplineCoupling(network=network),
    "Reverse": flows.Reverse(),
    "Shuffle": flows.Shuffle(),
    "Sigmoid": flows.Sigmoid(),
    "Logit": flows.Logit(),
    "Serial": flows.Serial(flows.Shuffle(), flows.AffineCoupling(transform), flows.ActNorm(), flows.FixedInvertibleLinear()),
}


@functools.partial(jax.jit, static_argnums=(0, 1))
def there_and_back(direct_fun, inverse_fun, params, inputs):
    """Outputs and log-dets, those of the inverse at the outputs, and Jacobians."""
    there = direct_fun(params, inputs)
    jacobian = jax.vmap(jax.jacfwd(lambda x: direct_fun(params, x[None])[0][0]))(inputs)
    return *there, *inverse_fun(params, there[0]), jacobian


@pytest.mark.parametrize("input_dim", [3, (3,), pytest.param((4,), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_called_as_before(name, input_dim):
    d = input_dim if isinstance(input_dim, int) else input_dim[0]
    inputs = np.random.default_rng(0).uniform(-10.0, 10.0, size=(20, d)).astype(np.float32)
    inputs = inputs / 21 + 0.5 if name == "Logit" else inputs
    params, direct_fun, inverse_fun = LAYERS[name](RNG, input_dim)
    outputs, log_det, back, back_log_det, jacobian = there_and_back(direct_fun, inverse_fun, params, inputs)
    assert outputs.shape == back.shape == (20, d) and log_det.shape == back_log_det.shape == (20,)
    np.testing.assert_allclose(back, inputs, atol=1e-3)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobian, float))[1], atol=2e-2, rtol=1e-3)


def test_input_dim_by_name_and_data_through_serial():
    inputs = jax.random.uniform(RNG, (20, 3), minval=-10.0, maxval=10.0)
    init_fun = flows.Serial(flows.ActNorm())
    params, direct_fun, _ = init_fun(RNG, input_dim=(3,), init_inputs=inputs)
    outputs, _ = direct_fun(params, inputs)
    np.testing.assert_allclose(outputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(0), 1, atol=1e-4)
    log_weight, bias = params[0]["log_scale"], params[0]["shift"]
    np.testing.assert_allclose(bias, inputs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(log_weight, jnp.log(1 / (inputs.std(0) + 1e-6)), rtol=1e-4)


def test_the_semantics_of_coupling_and_made():
    inputs = jax.random.normal(RNG, (5, 3))
    params, direct_fun, _ = flows.AffineCoupling(transform)(RNG, 3)
    _, apply_fun = transform(RNG, 1, 4)
    log_weight, bias = jnp.split(apply_fun(params["conditioner"], inputs[:, :1]), 2, axis=1)
    expected = jnp.concatenate([inputs[:, :1], inputs[:, 1:] * jnp.exp(log_weight) + bias], axis=1)
    np.testing.assert_allclose(direct_fun(params, inputs)[0], expected, rtol=1e-2, atol=1e-3)
    params, direct_fun, _ = flows.MADE(masked_transform)(RNG, 3)
    _, apply_fun = masked_transform(RNG, 3)
    log_weight, bias = jnp.split(apply_fun(params["conditioner"], inputs), 2, axis=1)
    outputs, log_det = direct_fun(params, inputs)
    np.testing.assert_allclose(outputs, (inputs - bias) * jnp.exp(-log_weight), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(log_det, -log_weight.sum(1), rtol=1e-2, atol=1e-3)


def test_normal_and_gmm_as_scipy_and_scikit_learn_have_them():
    x = jax.random.normal(RNG, (20, 2))
    params, log_pdf, sample = flows.Normal()(RNG, 2)
    np.testing.assert_allclose(log_pdf(params, x), multivariate_normal([0.0, 0.0]).logpdf(x), rtol=1e-5)
    assert sample(RNG, params, 10).shape == (10, 2) and sample(RNG, params).shape == (1, 2)
    data = make_moons(n_samples=500, noise=0.05, random_state=0)[0]
    model = GaussianMixture(n_components=10, random_state=0).fit(data)
    init_fun = flows.GMM(model.means_, model.covariances_, model.weights_)
    params, log_pdf, sample = init_fun(RNG, 2)
    np.testing.assert_allclose(log_pdf(params, data[:50]), model.score_samples(data[:50]), rtol=1e-3, atol=1e-3)
    assert sample(RNG, params, 1).shape == (1, 2)
    one = flows.GMM([[1.0]], [[[4.0]]], [1.0])(RNG, 1)
    assert one.sample(RNG, one.params, 1).shape == (1, 1)


def test_the_training_loop_of_the_readme():
    X = jnp.asarray(make_moons(n_samples=512, noise=0.05, random_state=0)[0])
    X = (X - X.mean(0)) / X.std(0)
    bijection = flows.Serial(*(flows.MADE(masked_transform), flows.Reverse()) * 3)
    params, log_pdf, sample = flows.Flow(bijection, flows.Normal())(RNG, 2)
    start = -log_pdf(params, X).mean()
    opt_init, opt_update, get_params = optimizers.adam(step_size=5e-3)
    opt_state = opt_init(params)

    def loss(params, inputs):
        return -log_pdf(params, inputs).mean()

    @jax.jit
    def step(i, opt_state, batch):
        gradients = jax.grad(loss)(get_params(opt_state), batch)
        return opt_update(i, gradients, opt_state)

    for i in range(100):
        opt_state = step(i, opt_state, X)
    params = get_params(opt_state)
    assert float(loss(params, X)) < float(start) - 0.2
    samples = sample(RNG, params, 100)
    assert samples.shape == (100, 2) and bool(jnp.isfinite(samples).all())


def test_the_same_loop_with_optax():
    X = jax.random.normal(RNG, (256, 2)) * 2 + 1
    params, log_pdf, _ = flows.Flow(flows.AffineCoupling(transform), flows.Normal(trainable=True))(RNG, 2)
    optimizer = optax.masked(optax.adamw(3e-2), flows.trainable)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        value, gradients = jax.value_and_grad(lambda p: -log_pdf(p, X).mean())(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(150):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < losses[0] - 0.3
    assert bool((params["prior"]["loc"] != 0).all()), "the prior trains"


def test_batch_norm_names_the_new_keyword():
    params, direct_fun, _ = flows.BatchNorm()(RNG, 3)
    with pytest.raises(TypeError, match="train="):
        direct_fun(params, jnp.ones((2, 3)), evaluation=True)


def test_made_with_a_transform_of_two_arguments_refuses_a_context():
    with pytest.raises(flows.FlowsError, match=r"MADE\(\) or MADE\(MaskedMLP"):
        flows.MADE(masked_transform)(RNG, 3, context_dim=2)


def test_a_context_is_appended_to_the_inputs_of_a_users_network():
    sizes = []

    def noted(rng, input_dim, output_dim):
        sizes.append((input_dim, output_dim))
        return transform(rng, input_dim, output_dim)

    for input_dim, expected in ((3, (1 + 2, 4)), (1, (0 + 2, 2))):
        params, direct_fun, _ = flows.AffineCoupling(noted)(RNG, input_dim, context_dim=2)
        assert set(sizes) == {expected}
        direct_fun(params, jnp.ones((4, input_dim)), context=jnp.ones((4, 2)))
        sizes.clear()
    flows.AffineCoupling(noted)(RNG, 1)  # nothing to look at: constants
    assert not sizes


def test_masked_dense_is_a_stax_pair():
    mask = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    init_fun, apply_fun = flows.MaskedDense(mask)
    shape, (w, b) = init_fun(RNG, (-1, 2))
    assert shape == (-1, 2) and float(jnp.abs(w).max()) <= 2**-0.5 and float(jnp.abs(b).max()) <= 2**-0.5
    x = jax.random.normal(RNG, (4, 2))
    np.testing.assert_allclose(apply_fun((w, b), x), x @ (w * mask) + b, rtol=1e-6)
    with pytest.raises(flows.FlowsError, match="mask"):
        init_fun(RNG, (3,))


def test_a_neural_spline_coupling_keeps_the_params_of_its_stax_pair():
    layer = flows.NeuralSplineCoupling(K=4, hidden_dim=6, network=network)
    assert layer == flows.NeuralSplineCoupling(K=4, hidden_dim=6, network=network)
    params, direct_fun, _ = layer(0, 4)
    assert layer(1, 4).direct_fun is direct_fun
    assert params[0]["conditioner"][0][0].shape == (2, 6)


def test_a_neural_spline_coupling_transforms_both_halves():
    params, direct_fun, _ = flows.NeuralSplineCoupling(K=4, B=3, hidden_dim=6)(0, 4)
    x = jax.random.uniform(RNG, (5, 4), minval=-2.0, maxval=2.0)
    assert np.abs(direct_fun(stirred(params, by=0.5), x)[0] - x).max(0).min() > 1e-2


def test_made_takes_a_network_for_the_scale_and_one_for_the_translation():
    nets = flows.conditioners.MaskedMLP(8, activation="tanh", last_scale=1.0), flows.conditioners.MaskedMLP(6, last_scale=1.0)
    params, direct_fun, inverse_fun = flows.MADE(*nets)(0, 3, context_dim=2)
    x, context = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), np.ones(2, np.float32)
    w, b = (
        net(0, 3, 3, context_dim=2).apply_fun(own, x, context=jnp.tile(context, (4, 1)))
        for net, own in zip(nets, params["conditioner"], strict=True)
    )
    y, log_det = direct_fun(params, x, context=context)
    soft = np.tanh(w / 10) * 10
    np.testing.assert_allclose(y, (x - b) * np.exp(-soft), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, -soft.sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(inverse_fun(params, y, context=context)[0], x, atol=1e-5)
    with pytest.raises(flows.FlowsError, match=r"MLP\(8\)\) depends on all inputs"):
        flows.MADE(nets[0], flows.MLP(8))(0, 3)
    with pytest.raises(flows.FlowsError, match=r"MLP\(8\) depends on all inputs"):  # which are x and the context
        flows.Autoregressive(flows.MLP(8))(0, 1, context_dim=1)

    ordered = flows.conditioners.MaskedResidual(6, order=(2, 0, 1))
    for pair in ((ordered, ordered), (nets[0], ordered)):
        with pytest.raises(flows.FlowsError, match="has another order than 0, 1, 2"):
            flows.MADE(*pair)(0, 3)

    def half(rng, input_dim):
        return masked_transform(rng, input_dim, outputs=1)

    params, direct_fun, inverse_fun = flows.MADE(half, half)(RNG, 3)
    y, _ = direct_fun(params, x)
    np.testing.assert_allclose(inverse_fun(params, y)[0], x, atol=1e-5)
