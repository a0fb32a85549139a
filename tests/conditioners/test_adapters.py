"""Networks of other libraries: as conditioners they compute what they compute at home, and keep the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import error_of
from jax.example_libraries import stax
from networks import LIBRARIES, WIDTH, C, Wide, X, at_home, imported, plain, same, two_layers

import flows
from flows import load, save
from flows.conditioners import FromEquinox, FromLinen, FromNNX, FromStax
from flows.training.loop.trainer import program

pytestmark = pytest.mark.usefixtures("relaxed")  # none of these libraries is written for strict promotion
each = pytest.mark.parametrize("library", LIBRARIES)
# What the core does with any network; the others take their turn in the slow tests.
one = pytest.mark.parametrize(
    "library", ["nnx", *(pytest.param(other, marks=pytest.mark.slow) for other in LIBRARIES if other != "nnx")]
)


@each
@pytest.mark.parametrize("context_dim", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_coupling_computes_what_the_library_computes(library, context_dim):
    given = {"context": C} if context_dim else {}
    params, direct_fun, inverse_fun = flows.Coupling(two_layers(library))(0, 5, context_dim=context_dim)
    assert plain(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == (2 + context_dim + 1) * WIDTH + (WIDTH + 1) * 6
    y, log_det = direct_fun(params, X, **given)
    seen = np.concatenate([X[:, :2], C], axis=1) if context_dim else X[:, :2]
    theta = jnp.asarray(at_home(library, params["conditioner"], jnp.asarray(seen), 6)).T.reshape(2, 3, 40)
    expected, slopes = flows.transformers.Affine().direct(theta, jnp.asarray(X[:, 2:].T))
    np.testing.assert_allclose(y[:, 2:], expected.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_det, slopes.sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y[:, :2], X[:, :2])
    np.testing.assert_allclose(inverse_fun(params, y, **given)[0], X, atol=1e-4)


@one
def test_gradients_reach_every_leaf_and_training_lowers_the_loss(library):
    params, log_pdf, sample = flows.Flow(flows.Coupling(two_layers(library)))(0, 5)
    data = jnp.asarray(X * 2 + 1)

    def loss(params):
        return -log_pdf(params, data).mean()

    gradients = jax.grad(loss)(params)
    assert all(bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradients))
    assert all(jax.tree.leaves(flows.trainable(params)))
    optimizer = optax.adam(1e-2)
    state, first = optimizer.init(params), loss(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(20):
        params, state = step(params, state)
    assert float(loss(params)) < float(first) - 0.1
    assert sample(0, params, 3).shape == (3, 5)


@each
def test_functions_are_made_once_and_never_remember_a_key(library):
    layer = flows.Coupling(two_layers(library))
    first, second = layer(1, 3), layer(2, 3)
    assert first.direct_fun is second.direct_fun and first.inverse_fun is second.inverse_fun
    assert any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (first.params, second.params)), strict=True))
    # Made anew, past every cache, they are equal still: what was compiled for one serves the other.
    net = two_layers(library)
    (params, one), (_, other) = (net(key, 2, 4) for key in (1, 2))
    assert program(one, params, jnp.ones((3, 2))) == program(other, params, jnp.ones((3, 2))) is not None
    np.testing.assert_array_equal(one(params, jnp.ones((3, 2))), other(params, jnp.ones((3, 2))))


@one
def test_verify_finds_a_bijection(library):
    report = flows.verify(flows.Coupling(two_layers(library)), 3, context_dim=1)
    assert report.passed, str(report)


@each
def test_init_is_traceable(library):
    layer = flows.Coupling(two_layers(library))
    params = layer(3, 3).params
    ensemble = jax.vmap(lambda key: layer(key, 3).params)(jax.random.split(jax.random.key(0), 4))
    same(jax.jit(lambda key: layer(key, 3).params)(jax.random.key(3)), params)
    assert jax.tree.structure(ensemble) == jax.tree.structure(params)
    for stacked, leaf in zip(*map(jax.tree.leaves, (ensemble, params)), strict=True):
        assert stacked.shape == (4, *leaf.shape) and (leaf.ndim < 2 or bool((stacked[0] != stacked[1]).any()))


@one
def test_an_ensemble_and_a_loop_call_the_network(library):
    layer = flows.Coupling(two_layers(library))
    ensemble = jax.vmap(lambda key: layer(key, 3).params)(jax.random.split(jax.random.key(0), 4))
    log_dets = jax.vmap(lambda params: layer(0, 3).direct_fun(params, X[:, :3])[1])(ensemble)
    assert log_dets.shape == (4, 40) and float(log_dets.std(0).min()) > 0
    deep = flows.Repeat(flows.Serial(layer, flows.Reverse()), 3)
    params, direct_fun, inverse_fun = deep(0, 3)
    x = 0.3 * X[:, :3]  # initial weights of these libraries are not small
    np.testing.assert_allclose(inverse_fun(params, direct_fun(params, x)[0])[0], x, atol=1e-3)


@each
def test_a_constructor_of_ones_own_is_saved_and_loaded(library, path):
    init_fun = flows.Coupling(Wide(library, 4))
    assert init_fun == flows.Coupling(Wide(library, 4)) != flows.Coupling(Wide(library, 5))
    params, direct_fun, _ = init_fun(0, 5)
    save(path, init_fun, params, 5)
    again = load(path, constructors=[Wide])
    same(again.params, params)
    assert again.direct_fun is direct_fun
    same(again.direct_fun(again.params, X), direct_fun(params, X))
    unnamed = flows.Coupling(two_layers(library))
    assert "make is the function" in error_of(lambda: save(path, unnamed, unnamed(0, 5).params, 5))


def test_a_network_without_masks_is_not_autoregressive():
    report = flows.verify(flows.Autoregressive(two_layers("stax")), 2)
    assert not report.passed and "NOT a bijection" in str(report)


@each
def test_a_network_of_the_wrong_form_is_refused(library):
    adapter = {"equinox": FromEquinox, "nnx": FromNNX, "linen": FromLinen, "stax": FromStax}[library]
    imported(library)
    finished = {
        "equinox": lambda: imported(library).nn.Identity(),
        "nnx": lambda: imported(library).Linear(1, 1, rngs=imported(library).Rngs(0)),
        "linen": lambda: imported(library).Dense(1),
        "stax": lambda: stax.Dense(1),
    }[library]()
    for make in (finished, None):
        with pytest.raises(TypeError, match="expected a function that makes the network"):
            adapter(make)
    with pytest.raises(TypeError, match="make returned 3; expected a"):
        flows.Coupling(adapter(lambda *sizes: 3))(0, 3)
    with pytest.raises(flows.FlowsError, match=r"the network returned \(7, 5\), expected \(7, 4\)"):
        flows.Coupling(flows.conditioner(lambda: lambda rng, i, o: two_layers(library)(rng, i, o + 1))())(0, 4)
