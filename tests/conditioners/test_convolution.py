"""Convolutions, and the networks of images that are made of them."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred

import flows
from flows import transformers as t
from flows.conditioners import ConvNet, ConvResidual, ConvSkip, conv, convolution
from flows.core.numerics import Precision, computed_with
from flows.diagnostics import enable_x64

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4, 4, 3)).astype(np.float32)
C = RNG.normal(size=(6, 2)).astype(np.float32)
MAPS = RNG.normal(size=(6, 4, 4, 2)).astype(np.float32)
NETS = {
    "ConvNet": ConvNet(4, last_scale=1.0),
    "without norms": ConvNet(4, last_scale=1.0, act_norm=False),
    "ConvResidual": ConvResidual(4, num_blocks=1, last_scale=1.0),
    "weight": ConvResidual(4, num_blocks=1, last_scale=1.0, norm="weight"),
    "batch": ConvResidual(4, num_blocks=1, last_scale=1.0, norm="batch", first_kernel=1),
}


def by_hand(w, x):
    """The convolution as its definition says, one place at a time."""
    k, (_, height, width, _) = w.shape[0], x.shape
    low = (k - 1) // 2
    x = np.pad(x, ((0, 0), (low, k - 1 - low), (low, k - 1 - low), (0, 0)))
    y = np.zeros((*x.shape[:1], height, width, w.shape[3]))
    for i in range(height):
        for j in range(width):
            y[:, i, j] = np.einsum("nabc,abco->no", x[:, i : i + k, j : j + k], w)
    return y


def of_lax(w, x):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout, precision="highest")


def arrays(k, dtype=np.float64):
    rng = np.random.default_rng(k)
    return rng.normal(size=(k, k, 2, 4)).astype(dtype), rng.normal(size=(3, 5, 4, 2)).astype(dtype)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_convolution_is_its_definition(k):
    w, x = arrays(k)
    with enable_x64():
        y = conv(jnp.asarray(w), jnp.asarray(x))
    assert y.dtype == jnp.float64
    np.testing.assert_allclose(y, by_hand(w, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("k", "way"), [(1, ""), (2, "in pieces"), (3, "whole"), (3, "in pieces"), (2, "by a product"), (3, "by a product")]
)
def test_its_derivatives_are_those_of_jax_in_both_modes(k, way, monkeypatch):
    if way == "in pieces":  # of two images, filled up with a fourth
        monkeypatch.setattr(convolution, "POSITIONS", 30)
        monkeypatch.setattr(convolution, "LEAST", 1)
    if way == "by a product":
        monkeypatch.setattr(convolution, "FEW", 0)
    w, x = arrays(k)
    dw, dx = arrays(k + 10)[0][:k, :k], arrays(k + 10)[1]

    def derivatives(fun, w, x):
        def loss(w, x):
            return jnp.sin(fun(w, x)).sum()

        gradient = jax.grad(loss, (0, 1))
        second = jax.jvp(gradient, (w, x), (dw, dx))[1]  # forward over reverse
        twice = jax.grad(lambda w, x: sum(map(jnp.vdot, gradient(w, x), (dw, dx))), (0, 1))(w, x)
        rows = jax.vmap(jax.grad(lambda w, row: loss(w, row[None])), (None, 0))(w, x)
        linear = jax.linearize(fun, w, x)[1](dw, dx)
        return fun(w, x), gradient(w, x), second, twice, rows, linear, jax.jvp(lambda x: fun(w, x), (x,), (dx,))[1]

    with enable_x64():
        w, x, dw, dx = map(jnp.asarray, (w, x, dw, dx))
        ours, theirs = (jax.jit(lambda w, x, fun=fun: derivatives(fun, w, x))(w, x) for fun in (conv, of_lax))
        program = str(jax.make_jaxpr(jax.grad(lambda w: conv(w, x).sum()))(w))
    assert ("scan[" in program) == (way == "in pieces") and ("dot_general[" in program) == (way in ("by a product", ""))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        close(a, b, 1e-10)


def test_what_has_no_tangent_costs_no_convolution():
    w, x = map(jnp.asarray, arrays(3, np.float32))

    def convolutions(fun, *given):
        return jax.jit(fun).lower(*given).as_text().count("stablehlo.convolution")

    def looped(w, x):
        return jnp.square(jax.lax.scan(lambda total, row: (total + conv(w, row[None]), None), jnp.zeros((1, 5, 4, 4)), x)[0])

    assert convolutions(lambda x: jax.jvp(lambda x: conv(w, x), (x,), (x,)), x) == 2
    assert convolutions(jax.grad(lambda w: looped(w, x).sum()), w) == 2


def test_gradients_are_laid_out_as_the_convolution_itself():
    """Another layout is slow in loops on CPUs."""
    w, x = map(jnp.asarray, arrays(3, np.float32))
    program = jax.jit(jax.grad(lambda w, x: jnp.square(conv(w, x)).sum(), (0, 1))).lower(w, x).as_text()
    lines = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) == 3
    for line in lines:
        assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line and "HIGHEST" in line, line


@pytest.mark.parametrize("k", [1, 3])
def test_training_may_ask_for_fewer_digits(k):
    w, x = map(jnp.asarray, arrays(k, np.float32))
    with computed_with(Precision("bfloat16")):
        low = conv(w, x)
        program = jax.jit(jax.grad(lambda w: conv(w, x).sum())).lower(w).as_text()
    assert low.dtype == jnp.float32
    assert 1e-4 < float(jnp.abs(low - conv(w, x)).max()) < 0.1
    products = [line for line in program.splitlines() if "stablehlo.convolution" in line or "dot_general" in line]
    assert products and all("bf16" in line for line in products)


def test_shapes_that_do_not_go_together_are_refused():
    w, x = map(jnp.asarray, arrays(3, np.float32))
    for call in (
        lambda: conv(w, x.astype(jnp.uint8)),
        lambda: flows.MLP(4)(0, 2, 2)[1](flows.MLP(4)(0, 2, 2)[0], jnp.ones((3, 2), int)),
    ):
        assert "x has dtype" in error_of(call) and "expected floating" in error_of(call)
    for given in ((w, x[0]), (w[0], x), (w[:, :, :1], x)):
        assert "expected (k, k, C, outputs) and (batch, H, W, C)" in error_of(lambda given=given: conv(*given))


def relu(x):
    return np.maximum(x, 0)


def test_the_network_of_glow_is_its_formula():
    params, apply_fun = ConvNet(5, last_scale=1.0)(0, (4, 4, 3), (4, 4, 6), context_dim=2)
    params = jax.tree.map(np.asarray, stirred(params, 0.2))
    h = X
    for layer in params[:2]:
        h = by_hand(layer["w"], h) + (C @ layer["context"])[:, None, None]
        h = relu((h - layer["shift"]) * np.exp(layer["log_scale"]))
    expected = (by_hand(params[2]["w"], h) + params[2]["b"]) * np.exp(3 * params[2]["log_scale"])
    np.testing.assert_allclose(apply_fun(params, jnp.asarray(X), context=jnp.asarray(C)), expected, rtol=1e-4, atol=1e-4)
    assert [layer["w"].shape for layer in params] == [(3, 3, 3, 5), (1, 1, 5, 5), (3, 3, 5, 6)]


@pytest.mark.parametrize("norm", [None, "weight"])
def test_a_convolutional_residual_network_is_its_formula(norm):
    params, apply_fun = ConvResidual(5, num_blocks=1, last_scale=1.0, norm=norm)(0, (4, 4, 3), (4, 4, 6), context_dim=2)
    start = jax.tree.map(np.asarray, params)
    params = jax.tree.map(np.asarray, stirred(params, 0.2))

    def layer(i, x):
        own = params["layers"][i]
        w = own["w"] if norm is None else own["w"] / np.sqrt((own["w"] ** 2).sum((0, 1, 2))) * own["gain"]
        return by_hand(w, x) + own["b"]

    h = layer(0, X) + (C @ params["context"])[:, None, None]
    gate = 1 / (1 + np.exp(-C @ params["gates"][0]["w"] - params["gates"][0]["b"]))
    expected = layer(3, h + layer(2, relu(layer(1, relu(h)))) * gate[:, None, None])
    np.testing.assert_allclose(apply_fun(params, jnp.asarray(X), context=jnp.asarray(C)), expected, rtol=1e-4, atol=1e-4)
    if norm:  # the scale is in the gains
        assert [float(own["w"].std().round(1)) for own in start["layers"]] == pytest.approx([0.2, 0.1, 0.1, 0.4], abs=0.11)
        small = np.abs(start["layers"][2]["gain"]) / np.sqrt((start["layers"][2]["w"] ** 2).sum((0, 1, 2)))
        np.testing.assert_allclose(small, 0.01, rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_a_network_with_skips_is_its_formula(train):
    params, apply_fun = ConvSkip(5, num_blocks=2)(0, (4, 4, 3), (4, 4, 6), context_dim=2)
    params = jax.tree.map(np.asarray, stirred(params, 0.2))
    fixed = {"mean": params["fixed"]["mean"], "var": tuple(np.exp(each) for each in params["fixed"]["var"])}
    params, order = {**params, "fixed": fixed}, [iter(params["layers"]), iter(range(6))]

    def layer(x):
        own = next(order[0])
        w = own["w"] / np.sqrt((own["w"] ** 2).sum((0, 1, 2))) * own.get("gain", 1.0)
        return by_hand(w, x) + own.get("b", 0.0)

    def norm(h):
        i = next(order[1])
        mean, var = (h.mean((0, 1, 2)), h.var((0, 1, 2))) if train else (fixed["mean"][i], fixed["var"][i])
        return (h - mean) / np.sqrt(var + 1e-4) + params["beta"][i]

    r = norm(np.concatenate([X, np.broadcast_to(C[:, None, None], (6, 4, 4, 2))], -1))
    h = layer(relu(np.concatenate([2 * r, -2 * r], -1)))
    out = layer(h)
    for _ in range(2):
        h = h + layer(relu(norm(layer(relu(norm(h))))))
        out = out + layer(h)
    expected = layer(relu(norm(out)))
    np.testing.assert_allclose(apply_fun(params, X, context=C, train=train), expected, rtol=1e-4, atol=1e-4)
    assert not list(order[0]) and not list(order[1])


def test_a_network_with_skips_trains_as_many_numbers_as_published():
    c, w, n, outputs = 5, 8, 3, 6
    params, apply_fun = ConvSkip(w, n)(0, (4, 4, c), (4, 4, outputs))
    gained = (n + 1) * (w * w + 2 * w) + w * outputs + 2 * outputs  # 1x1: of h to the output, and the last
    blocks = n * (9 * w * w + 9 * w * w + 2 * w + 2 * w)  # kernels, the bias and the norms of the second, two betas
    numbers = sum(leaf.size for leaf, own in zip(*map(jax.tree.leaves, (params, flows.trainable(params))), strict=True) if own)
    assert numbers == c + 9 * 2 * c * w + w + gained + blocks + w
    assert list(inspect.signature(apply_fun).parameters)[1:] == ["context", "train"] and ConvSkip(w).running


def test_the_norms_of_a_network_with_skips_are_measured():
    params, apply_fun = ConvSkip(4, num_blocks=1, last_scale=1.0)(0, (4, 4, 3), (4, 4, 2), init_inputs=jnp.asarray(5 + 2 * X))
    at_start = ConvSkip(4, num_blocks=1, last_scale=1.0)(0, (4, 4, 3), (4, 4, 2)).params
    y = apply_fun(params, 5 + 2 * X)
    np.testing.assert_allclose(y, apply_fun(params, 5 + 2 * X, train=True), rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(y - apply_fun(at_start, 5 + 2 * X)).max()) > 0.1


@pytest.mark.parametrize("name", ["ConvNet", "batch"])
def test_finer_contexts_are_seen_in_blocks(name):
    """As `Squeeze` makes them."""
    fine = RNG.normal(size=(6, 8, 8, 2)).astype(np.float32)
    blocks = flows.Squeeze()(0, (8, 8, 2)).direct_fun({}, fine)[0]
    (params, of_fine), (same, of_blocks) = (NETS[name](0, (4, 4, 3), (4, 4, 2), context_dim=c) for c in ((8, 8, 2), (4, 4, 8)))
    y = of_fine(params, X, context=fine)
    close(y, of_blocks(same, X, context=blocks), 0)
    assert (jnp.abs(y - of_fine(params, X, context=fine[::-1])) > 1e-4).any((1, 2, 3)).all()


@pytest.mark.parametrize(("name", "of_images"), [*((name, False) for name in NETS), ("ConvNet", True), ("weight", True)])
def test_a_coupling_of_images_inverts_with_contexts_that_are_vectors_or_images(name, of_images):
    init_fun, context_dim = flows.Coupling(NETS[name], t.Affine()), (4, 4, 2) if of_images else 2

    @jax.jit
    def measured(x, context):
        params, direct_fun, inverse_fun = init_fun(0, (4, 4, 3), context_dim=context_dim)
        params = stirred(params, 0.2)
        y, log_det = direct_fun(params, x, context=context)
        back, back_log_det = inverse_fun(params, y, context=context)
        jacobian = jax.jacfwd(lambda row: direct_fun(params, row[None], context=context[:1])[0].ravel())(x[0])
        of_other = abs(y - direct_fun(params, x, context=context + 1)[0]).max()
        return log_det, back, back_log_det, jnp.linalg.slogdet(jacobian.reshape(48, 48))[1], of_other

    with enable_x64():
        x, context = (each[:2].astype(np.float64) for each in (X, MAPS if of_images else C))
        log_det, back, back_log_det, expected, of_other = map(np.asarray, measured(x, context))
    close(back, x, 1e-10)
    close(log_det[0], expected, 1e-10)
    close(back_log_det, -log_det, 1e-12)
    assert abs(expected) > 0.1
    assert of_other > 1e-3, "a context that says nothing"


@pytest.mark.parametrize("name", ["ConvNet", "batch"])
def test_any_leading_axes_and_a_shared_context(name):
    params, apply_fun = NETS[name](0, (4, 4, 3), (4, 4, 2), context_dim=2)
    x, c = jnp.asarray(X), jnp.asarray(C)

    @jax.jit
    def outputs(x, c):
        def of(x, c):
            return apply_fun(params, x, context=c)

        folded = of(x.reshape(2, 3, 4, 4, 3), c.reshape(2, 3, 2)).reshape(6, 4, 4, 2)
        return of(x, c), folded, of(x[0], c[0]), of(x, c[0]), of(x[:0], c[0])

    rows, folded, of_one, shared, of_none = outputs(x, c)
    close(folded, rows, 1e-5)
    close(of_one, rows[0], 1e-5)
    close(shared[0], rows[0], 1e-5)
    assert float(jnp.abs(shared - rows)[1:].max()) > 1e-3
    assert of_none.shape == (0, 4, 4, 2)


def test_the_norms_of_glow_are_measured_at_init_and_then_trained():
    init_fun = flows.Coupling(ConvNet(4, last_scale=0.0))
    params, direct_fun, _ = init_fun(0, (4, 4, 3), context_dim=2, init_inputs=5 * X + 3, init_context=C)
    *hidden, last = jax.tree.map(np.asarray, params["conditioner"])
    h = 5 * X[..., :1] + 3
    for layer in hidden:
        h = by_hand(layer["w"], h) + (C @ layer["context"])[:, None, None]
        h = (h - layer["shift"]) * np.exp(layer["log_scale"])
        np.testing.assert_allclose(h.mean((0, 1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(h.std((0, 1, 2)), 1, rtol=1e-3)
        h = relu(h)
    np.testing.assert_array_equal(direct_fun(params, X, context=C)[0], X)  # the last layer is zero
    assert (last["w"] == 0).all() and (last["log_scale"] == 0).all()
    again = flows.remeasure(init_fun, params, X, context=C)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batch_norm_measures_images_and_train_uses_the_batch():
    init_fun = flows.Coupling(NETS["batch"])
    params, direct_fun, _ = init_fun(0, (4, 4, 3), context_dim=2, init_inputs=X, init_context=C)
    fresh = init_fun(0, (4, 4, 3), context_dim=2).params
    measured = direct_fun(params, X, context=C)
    for a, b in zip(direct_fun(params, X, context=C, train=True), measured, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # the statistics are those of the batch
    assert float(jnp.abs(direct_fun(fresh, X, context=C)[0] - measured[0]).max()) > 1e-3
    trained = jax.tree.map(lambda leaf, train: leaf + 0.1 if train else leaf, fresh, flows.trainable(fresh))
    again = flows.remeasure(init_fun, trained, X, context=C)
    for a, b, train in zip(*map(jax.tree.leaves, (again, trained, flows.trainable(fresh))), strict=True):
        assert bool((a == b).all()) == train
    statistics = params["conditioner"]["fixed"]
    assert statistics["mean"].shape == statistics["var"].shape == (2, 4)


@pytest.mark.parametrize("net", [ConvNet(8, last_scale=1.0, dropout=0.5), ConvResidual(8, 1, dropout=0.5, norm="weight")])
def test_dropout_is_for_training_and_needs_rng(net):
    params, apply_fun = net(0, (4, 4, 3), (4, 4, 2))
    params = stirred(params, 0.3)
    x = jnp.asarray(X)
    fun = jax.jit(apply_fun, static_argnames="train")
    plain = fun(params, x)
    np.testing.assert_array_equal(plain, fun(params, x, rng=jax.random.key(1)))
    first, again, other = (fun(params, x, rng=jax.random.key(key), train=True) for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3 and float(jnp.abs(first - plain).max()) > 1e-3
    assert "give rng=" in error_of(lambda: apply_fun(params, x, train=True))


def test_networks_show_the_keywords_they_use():
    def shown(net):
        return list(inspect.signature(net(0, (4, 4, 3), (4, 4, 2))[1]).parameters)[1:]

    assert shown(ConvNet(4)) == ["context"] and shown(ConvNet(4, dropout=0.1)) == ["context", "rng", "train"]
    assert shown(ConvResidual(4, norm="batch")) == ["context", "train"]
    for net, measures in ((ConvNet(4), True), (ConvNet(4, act_norm=False), False), (ConvResidual(4), False)):
        assert ("init_inputs" in flows.Coupling(net).keywords) == measures


@pytest.mark.parametrize("name", ["ConvNet", "weight"])
def test_the_last_layer_may_be_zero(name):
    for scale in (0.0, 0.01):
        params, apply_fun = NETS[name].constructor(**{**NETS[name].arguments, "last_scale": scale})(0, (4, 4, 3), (4, 4, 2))
        y, gradient = jax.jit(jax.value_and_grad(lambda params, fun=apply_fun: fun(params, jnp.asarray(X)).max()))(params)
        assert (y == 0) if scale == 0 else (0 < y < 0.3)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_what_is_trained_of_glow_for_cifar():
    """The numbers of its 96 networks, which with its other layers are 44.05 million."""
    net, total = ConvNet(512), 0
    for channels in (12, 24, 48):
        shape = (8, 8, channels)
        params = jax.eval_shape(lambda shape=shape: net(0, (*shape[:2], shape[2] // 2), shape).params)
        total += 32 * sum(leaf.size for leaf in jax.tree.leaves(params))
        total += 32 * (channels**2 + 2 * channels)  # of the linear map and the norm
    assert round(total / 1e6, 2) == 44.05


@pytest.mark.parametrize(("call", "said"), [
    (lambda: ConvNet(0), "width is 0; expected"),
    (lambda: ConvResidual(4, norm="layer"), "norm is 'layer'; expected 'weight', 'batch' or None"),
    (lambda: ConvResidual(4, first_kernel=0), "first_kernel is 0; expected"),
    (lambda: ConvSkip(0), "ConvSkip: width is 0; expected"),
    (lambda: ConvSkip(4)(0, 5, 4), "ConvSkip: the inputs are vectors of 5, expected images"),
    (lambda: ConvNet(4, dropout=1.0), "expected a number in [0, 1)"),
    (lambda: ConvNet(4)(0, 5, 4), "ConvNet: the inputs are vectors of 5, expected images (H, W, channels); MLP takes vectors"),
    (lambda: flows.Coupling(ConvResidual(4))(0, (6, 2)), "ConvResidual: the inputs are events (6, 1), expected images"),
    (lambda: ConvNet(4)(0, (4, 4, 1), (4, 2, 1)), "output_dim is (4, 2, 1), expected images (4, 4, channels)"),
    (lambda: ConvNet(4)(0, (4, 4, 1), 3), "output_dim is 3, expected images (4, 4, channels)"),
    (lambda: flows.Coupling(ConvNet(4))(0, (4, 4, 2), context_dim=(2, 2, 3)), "expected a vector, or images (4, 4, channels)"),
    (lambda: flows.Coupling(ConvNet(4))(0, (4, 4, 2), context_dim=(4, 4)), "context_dim is (4, 4), expected a vector, or"),
    (lambda: flows.Coupling(flows.MLP(4))(0, (4, 4, 2)), "such as conditioners.ConvNet(64)"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, said):
    assert said in error_of(call)


def test_arrays_of_another_shape_are_refused():
    net = ConvNet(4)
    params, apply_fun = net(0, (4, 4, 3), (4, 4, 2), context_dim=2)
    x, c = jnp.asarray(X), jnp.asarray(C)
    said = "inputs have shape (6, 4, 4, 2), expected (4, 4, 3) after any leading axes"
    assert said in error_of(lambda: apply_fun(params, x[..., :2], context=c))
    assert "context is of shape (5, 2), expected (6, 2)" in error_of(lambda: apply_fun(params, x, context=c[:5]))
    assert "context is none, expected (6, 2)" in error_of(lambda: apply_fun(params, x))
    assert "of shape (6, 2), expected none" in error_of(lambda: net(0, (4, 4, 3), (4, 4, 2))[1](params, x, context=c))
