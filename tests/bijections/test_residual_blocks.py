"""Networks that contract, and residual blocks made of them: certificates, estimates, inverses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import close, error_of, stirred

import flows
from flows.bijections.residual import drawn_log_det, fixed_point, log_uniform
from flows.conditioners import Lipschitz
from flows.conditioners.lipschitz import CONTRACTING, contracted, norm_bound
from flows.diagnostics import enable_x64

NET = Lipschitz(16, coefficient=0.95, activation="elu", last_scale=1.0)
X = np.random.default_rng(0).normal(size=(6, 3))
DRAWS = 4_000


def singular(w):
    return float(np.linalg.svd(np.asarray(w, float))[1].max(initial=0.0))


def test_norms_are_bounded_from_above_and_closely():
    draw = np.random.default_rng(0)
    rotation = np.linalg.qr(draw.normal(size=(64, 64)))[0]
    one = np.outer(draw.normal(size=8), draw.normal(size=5))
    for w, most in ((draw.normal(size=(128, 128)), 1.001), (rotation, 64 ** (1 / 128) + 1e-4), (one, 1.0001), (one.T, 1.0001)):
        for scale in (1.0, 1e-10, 1e10):
            bound = float(norm_bound(jnp.asarray(scale * w, jnp.float32)))
            assert singular(np.asarray(scale * w, np.float32)) < bound < most * singular(scale * w)
    zero = jnp.zeros((3, 2))
    assert float(norm_bound(zero)) < 1e-20 and not np.asarray(jax.grad(lambda w: contracted(w, 0.9).sum())(zero) - 1).any()


def test_no_singular_value_is_above_the_coefficient_however_it_is_trained(relaxed):
    """200 steps of Adam at a rate of 1e-2 towards a map that stretches."""
    params, apply_fun = Lipschitz(16, 16)(0, 3, 3)
    x = jnp.asarray(X, jnp.float32)
    optimizer = optax.adam(1e-2)

    def loss(params):
        return jnp.square(apply_fun(params, x) - 5 * x).sum()

    @jax.jit
    def step(state, _):
        params, opt_state = state
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), [contracted(layer["w"], 0.97) for layer in params]

    (trained, _), matrices = jax.lax.scan(step, (params, optimizer.init(params)), length=200)
    largest = [np.linalg.svd(np.asarray(each, float), compute_uv=False).max(1) for each in matrices]
    assert max(each.max() for each in largest) <= 0.97
    assert min(each[-1] for each in largest) > 0.9 and singular(trained[0]["w"]) > 1.5, "the bound was reached"


def test_a_certificate_holds_in_every_activation_and_is_refused_where_there_is_none():
    slopes = jax.vmap(jax.grad(lambda act, x: CONTRACTING[act](x), argnums=1), (None, 0))
    for name in CONTRACTING:
        assert np.abs(slopes(name, jnp.linspace(-20, 20, 4001))).max() <= 1 + 1e-6
    assert NET.lipschitz == pytest.approx(0.95**2) and flows.MLP(8).lipschitz is None

    @flows.conditioner(lipschitz=lambda by: by)
    def Half(by=0.5):
        return lambda rng, input_dim, output_dim: ({"w": jnp.zeros(())}, lambda params, x: by * jnp.tanh(x + params["w"]))

    params, direct_fun, inverse_fun = flows.ResidualBlock(Half())(0, 3)
    close(inverse_fun(params, direct_fun(params, X)[0])[0], X, 1e-6)
    assert "constant of 1.5" in error_of(lambda: flows.ResidualBlock(Half(1.5)))
    assert "MLP(8) has a Lipschitz constant of None" in error_of(lambda: flows.ResidualBlock(flows.MLP(8)))
    assert "expected one of 'exact'" in error_of(lambda: flows.ResidualBlock(NET, "biased"))
    assert "expected a vector" in error_of(lambda: flows.ResidualBlock(NET)(0, (2, 2, 1)))
    assert "between 0 and 1" in error_of(lambda: Lipschitz(8, coefficient=1.0))
    assert "slope is at most 1" in error_of(lambda: Lipschitz(8, activation="silu"))
    assert "expected vectors" in error_of(lambda: Lipschitz(8)(0, (2, 2, 1), 3))


def test_a_network_that_contracts_is_its_formula():
    """Of matrices whose norms nothing has to bring down; the context enters the first layer."""
    rng = np.random.default_rng(0)
    first, last = ({"w": 0.2 * rng.normal(size=size), "b": rng.normal(size=size[1])} for size in ((3, 4), (4, 2)))
    first["context"], last["log_beta"], context = rng.normal(size=(2, 4)), 0.7, rng.normal(size=(6, 2))
    h = X @ first["w"] + first["b"] + context @ first["context"]
    expected = h / (1 + np.exp(-np.exp(0.7) * h)) / 1.1 @ last["w"] + last["b"]

    @jax.jit
    def apply_fun(params, x, context):
        return Lipschitz(4)(0, 3, 2, context_dim=2).apply_fun(params, x, context=context)

    close(apply_fun(*jax.tree.map(np.float32, ((first, last), X, context))), expected, 1e-5)


@functools.cache
def stretched(log_det):
    """A block whose Jacobian is large, its params and its direct function, in float64."""
    with enable_x64():
        params, direct_fun, inverse_fun = flows.ResidualBlock(NET, log_det)(0, 3)
        first, last = stirred(params, 0.5)
        last["w"] = first["w"].T * jnp.array([[1.0, -1.0, 1.0]])
        return (first, last), direct_fun, inverse_fun


def test_draws_have_the_exact_value_and_gradient_in_the_mean():
    params, direct_fun, _ = stretched("unbiased")
    with enable_x64():
        apply_fun = NET(0, 3, 3).apply_fun
        slopes = jax.vmap(jax.jacobian(lambda x: apply_fun(params, x)))(X)
        assert max(map(singular, slopes)) > 0.5, "series that end at once prove nothing"

        def both(params, x, rng=None):
            value, pull = jax.vjp(lambda params, x: direct_fun(params, x, rng=rng)[1], params, x)
            return value, pull(jnp.cos(jnp.arange(len(X), dtype=float)))

        exact = jax.jit(both)(params, X)
        drawn = jax.jit(jax.vmap(lambda key: both(params, X, key)))(jax.random.split(jax.random.key(1), DRAWS))
        expected, found = (np.concatenate([np.reshape(each, (n, -1)) for each in jax.tree.leaves(tree)], axis=1)
                           for n, tree in ((1, exact), (DRAWS, drawn)))  # fmt: skip
    spread = found.std(0) / DRAWS**0.5
    far = np.abs(found.mean(0) - expected[0]) / np.maximum(spread, 1e-12)
    counts = spread > 1e-12
    assert counts[: len(X)].all() and counts.mean() > 0.7
    close(found.mean(0)[~counts], expected[0][~counts], 1e-10)
    assert far[: len(X)].max() < 3 and (far[counts] < 3).mean() > 0.99 and far[counts].max() < 4.5
    assert np.abs(exact[0]).max() > 0.1


def test_estimates_are_one_draw_and_the_same_for_all_that_is_asked():
    params, direct_fun, inverse_fun = stretched("unbiased")
    with enable_x64():
        exact = direct_fun(params, X)[1]
        close(stretched("exact")[1](params, X)[1], exact, 1e-12)
        close(direct_fun(params, X, rng=3)[1], direct_fun(params, X, rng=3)[1], 0)
        assert (direct_fun(params, X, rng=3)[1] != exact).all()
        close(inverse_fun(params, direct_fun(params, X)[0])[1], -exact, 1e-7)
        flow = flows.Flow(flows.ResidualBlock(NET, "unbiased"))(0, 3)
        x, log_p = flows.sample_with_log_pdf(1, flow.params, flow, 5)
        close(log_p, flow.log_pdf(flow.params, x), 1e-7)
    with pytest.raises(TypeError, match="rng"):
        stretched("exact")[1](params, X, draw=3)
    report = flows.verify(flows.ResidualBlock(Lipschitz(coefficient=0.9), "unbiased"), 1, rows=8)
    assert report.passed and "mean over rng" in str(report), report


def test_the_loop_keeps_nothing_for_the_gradient():
    """However many terms: the gradient needs the memory of the last product and one derivative."""
    net = NET(0, 3, 3)
    g = lambda params, x: net.apply_fun(params, x)  # noqa: E731

    def loss(params, bound):
        held = functools.partial(g, jax.lax.stop_gradient(params))
        return drawn_log_det(jax.random.key(0), functools.partial(g, params), held, jnp.asarray(X), bound).sum()

    sizes = [
        jax.jit(jax.grad(loss), static_argnums=1).lower(net.params, bound).compile().memory_analysis().temp_size_in_bytes
        for bound in (0.5, 0.99)
    ]
    assert sizes[0] == sizes[1]


def test_a_fixed_point_that_is_not_found_is_nan_for_its_row_alone():
    def g(x):  # contracts near 0 alone
        return jnp.where(jnp.abs(x) < 10, 0.5 * jnp.sin(x), -3.0 * x)

    y = jnp.asarray(np.concatenate([X, [[100.0, 0.0, 0.0]], [[np.nan, 0.0, 0.0]]]), jnp.float32)
    found = np.asarray(jax.jit(lambda y: fixed_point(g, y, 0.5, y))(y))
    assert np.isnan(found[-2:]).all() and np.isfinite(found[:-2]).all()
    close(found[:-2] + 0.5 * np.sin(found[:-2]), X, 1e-6)
    close(fixed_point(g, y[:1], 0.5, y[:1]), found[:1], 0)


def test_the_gradient_of_a_fixed_point_is_the_implicit_one():
    x, weights = X, np.cos(np.arange(3))
    for _ in range(60):
        x = X - 0.4 * np.sin(x)

    @jax.jit
    @jax.grad
    def gradient(y):
        return (fixed_point(lambda x: 0.4 * jnp.sin(x), y, 0.5, y) * weights[None].astype(np.float32)).sum()

    close(gradient(X.astype(np.float32)), weights / (1 + 0.4 * np.cos(x)), 1e-5)


def test_derivatives_of_a_fixed_point_are_the_implicit_ones_in_both_modes():
    def solved(a, y):
        return fixed_point(lambda x: a * jnp.sin(x), y, 0.5, y)

    with enable_x64():
        y = jnp.asarray(X)
        x = solved(0.4, y)
        expected = 1 / (1 + 0.4 * np.cos(x))
        forward = jax.jvp(solved, (0.4, y), (0.0, jnp.ones_like(y)))[1]
        close(forward, expected, 1e-10)
        of_a, of_y = jax.grad(lambda a, y: solved(a, y).sum(), argnums=(0, 1))(0.4, y)
        close(of_y, expected, 1e-10)
        close(of_a, -(np.sin(x) * expected).sum(), 1e-10)
        assert jax.hessian(lambda a: solved(a, y).sum())(0.4).shape == ()


def test_series_are_drawn_with_all_their_tail():
    """A generator makes 0 once in 2^23 draws: there the number of terms must be as rare as it is long."""
    block = flows.ResidualBlock(Lipschitz(coefficient=0.9), "unbiased")
    params = ({"w": 5 * jnp.eye(3), "b": jnp.zeros(3)},)
    estimate = block(0, 3).direct_fun(params, jnp.ones((2, 3)), rng=jax.random.key(2667181))[1]
    assert np.abs(estimate).max() < 100
    draws = np.asarray(jax.vmap(functools.partial(log_uniform, dtype=jnp.float32))(jax.random.split(jax.random.key(0), 50_000)))
    assert np.isfinite(draws).all() and draws.max() <= 0
    close(draws.mean(), -1.0, 0.03)
    assert "expected at most 0.999" in error_of(lambda: flows.ResidualBlock(Lipschitz(coefficient=0.9999), "unbiased"))


def test_jacobians_of_many_rows_are_made_in_pieces(monkeypatch):
    params, direct_fun, _ = flows.ResidualBlock(NET)(0, 3)
    expected = direct_fun(params, jnp.asarray(X, jnp.float32))[1]
    monkeypatch.setattr("flows.bijections.residual.NUMBERS", 18)  # of two rows
    with flows.core.caching.fresh_caches():
        _, direct_fun, _ = flows.ResidualBlock(NET)(0, 3)
        close(direct_fun(params, jnp.asarray(X[:5], jnp.float32))[1], expected[:5], 1e-6)


def test_a_network_sees_a_context_of_several_axes_as_it_was_given():
    @flows.conditioner(lipschitz=0.5)
    def Shifted():
        def net(rng, input_dim, output_dim, context_dim=0):
            return {}, lambda params, x, context: 0.3 * jnp.tanh(x + context[:, 0, :1] + 2 * context[:, 1, :1])

        return net

    context = jax.random.normal(jax.random.key(0), (6, 2, 2))
    params, direct_fun, inverse_fun = flows.ResidualBlock(Shifted())(0, 3, context_dim=(2, 2))
    y = direct_fun(params, X, context=context)[0]
    close(y, X + 0.3 * np.tanh(X + context[:, 0, :1] + 2 * context[:, 1, :1]), 1e-5)
    close(inverse_fun(params, y, context=context)[0], X, 1e-5)


def test_fit_names_a_row_whose_root_is_not_found():
    """A network that contracts near 0 alone, though it says that it always does."""

    @flows.conditioner(lipschitz=0.5)
    def Liar():
        def apply_fun(params, x):
            return params["w"] * jnp.where(jnp.abs(x) < 4, 0.5 * jnp.sin(x), -x)  # x + g(x) is never 12

        return lambda rng, input_dim, output_dim: ({"w": jnp.ones(())}, apply_fun)

    rows = np.random.default_rng(0).normal(size=(60, 17))  # beyond 16 features there is no Newton to help
    rows[7, 3] = 12.0
    model = flows.Flow(flows.Invert(flows.ResidualBlock(Liar())))
    with pytest.raises(flows.FitError, match="row 7"):
        flows.fit(0, model, rows, validation=rows[:20], standardize=False, max_epochs=2, folds=1, verbose=0)
