"""Couplings: masks, kinds, the unconditional part; and the block autoregressive layer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of, stirred

import flows
from flows import transformers as t
from flows.bijections.engine import reorder
from flows.diagnostics import enable_x64

X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
NET = flows.MLP(8, last_scale=1.0)
MASKS = {
    "halves": [0, 1],
    "alternating": [1, 3],
    (True, False, False, True, True): [0, 3, 4],
    (False,) * 5: [],
}  # fmt: skip


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_kept_features_are_kept_and_the_others_move(mask, flip):
    if mask == (False,) * 5 and flip:
        assert "keeps all 5 features" in error_of(lambda: flows.Coupling(NET, mask=mask, flip=flip)(0, 5))
        return
    kept = np.setdiff1d(np.arange(5), MASKS[mask]) if flip else np.array(MASKS[mask], int)
    params, direct_fun, inverse_fun = flows.Coupling(NET, mask=mask, flip=flip)(0, 5)
    params = stirred(params, 0.3)
    y, log_det = direct_fun(params, X)
    changed = (np.asarray(y) != X).all(0)
    np.testing.assert_array_equal(np.flatnonzero(~changed), kept)
    np.testing.assert_allclose(inverse_fun(params, y)[0], X, rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(log_det).min()) > 1e-4


@pytest.mark.parametrize("mask", ["halves", "alternating", "random"])
def test_a_single_feature_has_no_other_half(mask):
    """What alternates works in one dimension too, where nothing can be kept."""
    for flip in (False, True):
        params, direct_fun, _ = flows.Coupling(NET, mask=mask, flip=flip)(0, 1)
        assert (np.asarray(direct_fun(stirred(params, 0.3), X[:, :1])[0]) != X[:, :1]).all()


def test_a_random_mask_is_drawn_into_params():
    init_fun = flows.Coupling(NET, mask="random")
    kept = set()
    for seed in range(8):
        params, direct_fun, inverse_fun = init_fun(seed, 5)
        y = direct_fun(params, X)[0]
        same = tuple(np.flatnonzero((np.asarray(y) == X).all(0)).tolist())
        assert len(same) == 2
        kept.add(same)
        np.testing.assert_allclose(inverse_fun(params, y)[0], X, rtol=1e-4, atol=1e-5)
    assert len(kept) > 2
    assert "give one for all" in error_of(lambda: flows.Coupling(NET, (t.Affine(), t.Additive()), mask="random")(0, 2))


def test_several_kinds_equal_each_by_itself():
    kinds = (t.Additive(), t.Affine(), t.RationalQuadratic(num_bins=3), t.Affine(), t.Additive())
    params, direct_fun, _ = flows.Coupling(NET, kinds, mask="alternating")(0, 5)
    params = stirred(params, 0.2)
    moved = [0, 2, 4]
    theta = NET(0, 2, 8 * 3).apply_fun(params["conditioner"], jnp.asarray(X[:, [1, 3]])).T.reshape(8, 3, 6)
    y, log_det = direct_fun(params, X)
    total = 0.0
    for row, feature in enumerate(moved):
        kind = kinds[feature]
        expected, own = kind.direct(theta[: kind.num_params, row], jnp.asarray(X[:, feature]))
        np.testing.assert_allclose(y[:, feature], expected, rtol=1e-5, atol=1e-6)
        total = total + own
    np.testing.assert_allclose(log_det, total, rtol=1e-5, atol=1e-6)


def test_a_coupling_of_two_networks_scales_by_the_first_and_shifts_by_the_second():
    nets = NET, flows.MLP(3, activation="tanh", last_scale=1.0)
    params, direct_fun, _ = flows.AffineCouplingSplit(*nets)(0, 5)
    pairs = zip(nets, params["conditioner"], strict=True)
    log_scale, shift = (net(0, 2, 3).apply_fun(own, jnp.asarray(X[:, :2])) for net, own in pairs)
    s = 10 * np.tanh(np.asarray(log_scale) / 10)
    y, log_det = direct_fun(params, X)
    np.testing.assert_allclose(y, np.concatenate([X[:, :2], X[:, 2:] * np.exp(s) + shift], axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_det, s.sum(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mask", "event"), [((True, False, True, True, False), (5,)), ("checkerboard", (2, 3, 2))])
def test_two_networks_serve_any_mask(mask, event):
    nets = [flows.MLP(4, last_scale=1.0)] * 2 if len(event) == 1 else [flows.conditioners.ConvNet(4, last_scale=1.0)] * 2
    with enable_x64():
        params, direct_fun, inverse_fun = flows.Coupling(flows.conditioners.Pair(*nets), mask=mask)(0, event)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *event)))
        y, log_det = direct_fun(params, x)
        one = jax.jacobian(lambda row: direct_fun(params, row.reshape(1, *event))[0].ravel())
        np.testing.assert_allclose(log_det, [np.linalg.slogdet(one(row.ravel()))[1] for row in x], rtol=1e-10)
        np.testing.assert_allclose(inverse_fun(params, y)[0], x, atol=1e-10)
    assert np.abs(log_det).min() > 1e-3


def test_the_unconditional_part_adds_its_own_map_and_the_network_sees_x():
    init_fun = flows.Coupling(NET, t.Affine(), unconditional=t.Affine())
    params, direct_fun, _ = init_fun(0, 5)
    assert params["unconditional"]["theta"].shape == (2, 2)
    np.testing.assert_array_equal(direct_fun(params, X)[0][:, :2], X[:, :2])
    theta = jnp.asarray([[0.5, -0.25], [1.0, 2.0]])
    y, log_det = direct_fun({**params, "unconditional": {"theta": theta}}, X)
    plain_y, plain = direct_fun(params, X)
    expected = [each.T for each in t.Affine().direct(jnp.repeat(theta[:, :, None], 6, axis=2), jnp.asarray(X[:, :2].T))]
    np.testing.assert_allclose(y[:, :2], expected[0], rtol=1e-6)
    np.testing.assert_allclose(log_det, plain + expected[1].sum(1), rtol=1e-5)
    np.testing.assert_array_equal(y[:, 2:], plain_y[:, 2:])


def test_squash_bounds_what_the_network_sees():
    params, direct_fun, _ = flows.Coupling(NET, squash=2.0)(0, 5)
    far = jnp.asarray([[1e30, -3e38, 1.0, 2.0, 3.0], [np.inf, -np.inf, 1.0, 2.0, 3.0]])
    y, log_det = direct_fun(params, far)
    np.testing.assert_allclose(y[0, 2:], y[1, 2:], rtol=1e-6)
    assert bool(jnp.isfinite(y[:, 2:]).all() & jnp.isfinite(log_det).all())
    plain = flows.Coupling(NET)(0, 5).direct_fun
    x = 3 * X
    assert 0 < (abs(x[:, :2]) > 2).sum() < x[:, :2].size
    over = jnp.maximum(abs(x[:, :2]) - 2, 0.0)
    ways = {2.0: jnp.sign(x[:, :2]) * (abs(x[:, :2]) - over + jnp.tanh(over)), ("tanh", 2.0): 2 * jnp.tanh(x[:, :2] / 2)}
    for squash, seen in ways.items():
        bent = jnp.concatenate([seen, x[:, 2:]], axis=1)
        y = flows.Coupling(NET, squash=squash)(0, 5).direct_fun(params, x)[0]
        np.testing.assert_allclose(y[:, 2:], (x - bent + plain(params, bent)[0])[:, 2:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "order",
    [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2], [3, 0, 2, 1], list(np.random.default_rng(0).permutation(300))],
)
def test_rows_are_reordered(order):
    x = jnp.arange(2.0 * len(order)).reshape(len(order), 2)
    np.testing.assert_array_equal(reorder(x, np.array(order)), x[np.array(order)])
    np.testing.assert_array_equal(reorder(reorder(x, np.array(order)), np.argsort(order)), x)


def test_elementwise_takes_a_transformer_for_each_entry_and_trains_or_looks_at_the_context():
    params, direct_fun, _ = flows.Elementwise((t.Additive(), t.Affine()))(0, 2)
    y, log_det = direct_fun({"theta": jnp.asarray([[1.0, 0.5], [9.0, 2.0]])}, jnp.ones((1, 2)))
    s = 10 * np.tanh(0.05)
    np.testing.assert_allclose(y, [[2.0, np.exp(s) + 2]], rtol=1e-6)
    np.testing.assert_allclose(log_det, [s], rtol=1e-6)
    assert params["theta"].shape == (2, 2)
    assert "give context_dim" in error_of(lambda: flows.Elementwise(t.Affine(), NET)(0, 2))
    with pytest.raises(TypeError, match="context"):
        flows.Elementwise(t.Affine())(0, 2, context_dim=1)


def test_a_block_autoregressive_layer_is_increasing_onto_everything():
    with enable_x64():
        params, direct_fun, inverse_fun = flows.BlockAutoregressive(4, 3)(0, 2)
        params = stirred(params, 0.5)
        y = jnp.asarray([[0.0, 0.0], [1e4, -1e4], [-1e8, 3.0], [2.0, 1e12]])
        x, minus = inverse_fun(params, y)
        back, log_det = direct_fun(params, x)
        np.testing.assert_allclose(back, y, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(minus, -log_det, rtol=1e-12)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    far = jnp.asarray([[1e30, -1e30], [-1e30, 1e30], [30.0, -30.0]], jnp.float32)
    y, log_det = direct_fun(params, far)
    assert bool(jnp.isfinite(y).all() & jnp.isfinite(log_det).all())
    assert "expected vectors" in error_of(lambda: flows.BlockAutoregressive()(0, (2, 2)))


def test_second_derivatives_of_a_block_autoregressive_inverse():
    """d2x / dy2 = -f'' / f'^3 with one feature, and in the params as differences of first ones."""

    @jax.jit
    def measured(params, y):
        def f(x):
            return direct_fun(params, x[None, None])[0][0, 0]

        def slope(params, y):
            return jax.grad(lambda y: inverse_fun(params, y[None, None])[0][0, 0])(y)

        def moved(step):
            return slope(jax.tree.map(lambda leaf: leaf + step, params), y)

        x = inverse_fun(params, y[None, None])[0][0, 0]
        expected = -jax.grad(jax.grad(f))(x) / jax.grad(f)(x) ** 3
        mixed = jax.jvp(moved, (jnp.zeros(()),), (jnp.ones(()),))[1]
        return jax.grad(slope, 1)(params, y), expected, mixed, jax.vmap(moved)(jnp.asarray([1e-5, -1e-5]))

    with enable_x64():
        params, direct_fun, inverse_fun = flows.BlockAutoregressive(3)(0, 1)
        found = jax.tree.map(np.asarray, measured(stirred(params, 0.5), jnp.asarray(0.7)))
    second, expected, mixed, (above, below) = found
    np.testing.assert_allclose(second, expected, rtol=1e-8)
    np.testing.assert_allclose(mixed, (above - below) / 2e-5, rtol=1e-6)
    assert abs(float(expected)) > 1e-3 < abs(float(mixed))


def test_block_autoregressive_weights_never_overflow():
    params, direct_fun, inverse_fun = flows.BlockAutoregressive(3)(0, 2)

    @jax.jit
    def measured(params, x):
        y, log_det = direct_fun(params, x)
        return y, log_det, inverse_fun(params, y)[0], jax.grad(lambda params: direct_fun(params, x)[1].sum())(params)

    for name, value in itertools.product(("raw", "log_norm"), (-50.0, 100.0, 1e30)):
        layers = [{**layer, name: jnp.full_like(layer[name], value)} for layer in params["layers"]]
        found = measured({**params, "layers": type(params["layers"])(layers)}, X[:, :2])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), f"{name} = {value}"


def test_the_ends_of_float32_harm_no_other_feature():
    x = jnp.zeros((3, 4)).at[0, 0].set(3e38).at[1, 0].set(jnp.inf).at[2, 0].set(-3e38)
    params, direct_fun, inverse_fun = flows.Coupling(flows.MLP(8, last_scale=1.0))(0, 4)
    for function in (direct_fun, inverse_fun):
        y, log_det = function(params, x)
        assert bool(jnp.isfinite(y[:, 2:]).all() & jnp.isfinite(log_det).all())
        np.testing.assert_array_equal(y[:, 0], x[:, 0])
    params, direct_fun, inverse_fun = flows.BlockAutoregressive(3)(0, 2)
    far = jnp.asarray([[3e38, 0.5], [jnp.inf, 0.5]], jnp.float32)
    y, _ = direct_fun(params, far)
    assert bool(jnp.isfinite(y[:, 1]).all()) and y[1, 0] == jnp.inf
    x, _ = inverse_fun(params, far)
    assert bool(jnp.isfinite(x[:, 1]).all()) and not bool(jnp.isnan(x).any())


def test_a_flipped_random_mask_keeps_the_others():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 5)), jnp.float32)
    kept = []
    for flip in (False, True):
        init_fun = flows.Coupling(flows.MLP(8, last_scale=1.0), mask="random", flip=flip)
        params, direct_fun, _ = init_fun(0, 5)
        kept.append(np.asarray(direct_fun(params, x)[0] == x)[0])
    assert (kept[0] ^ kept[1]).all() and kept[0].sum() in (2, 3)


@pytest.mark.parametrize("call", [
    lambda: flows.Coupling(NET, mask="quarters"), lambda: flows.Coupling(NET, mask=(True, False))(0, 3),
    lambda: flows.Coupling(NET, mask=(1, 0, 1))(0, 3), lambda: flows.Coupling(NET, squash=0.0),
    lambda: flows.Coupling(NET, (t.Affine(),) * 2)(0, 3), lambda: flows.Elementwise(()), lambda: flows.BlockAutoregressive(0),
])  # fmt: skip
def test_arguments_out_of_range_are_refused(call):
    assert "expected" in error_of(call)
