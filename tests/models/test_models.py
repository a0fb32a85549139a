"""The published models: exact as a whole, built as published, alike in their arguments."""

import functools
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, facts, stirred
from registry import MODELS

import flows
from flows import transformers as t
from flows.conditioners import ConcatSquash, MaskedMLP, MaskedResidual, Residual
from flows.core import to_json
from flows.diagnostics import enable_x64
from flows.models.stack import UNROLLED, UNROLLED_AFFINE

D, CONTEXT = 3, 2
SOLVED = ("FFJORD", "RNODE")  # by so many steps


@pytest.mark.parametrize("name", list(MODELS))
def test_round_trip_log_dets_and_gradients(name):
    """In float64, from one compiled call: log-dets against autodiff, both directions, with a context where one is taken."""
    conditional = "context_dim" in MODELS[name].keywords
    x = np.random.default_rng(0).normal(size=(3, D))[[0, 1, 2, 0]]  # the last is the first, with another context
    if name == "SphereFlow":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    given = {"context": np.array([[1.0, -0.5]] * 3 + [[2.0, 0.5]])} if conditional else {}
    names = ("y", "log_det", "back", "back_log_det", "jacobian", "log_volume", "gradients")
    of = facts(MODELS[name], x, functools.partial(stirred, by=0.8 if name in SOLVED else 0.2), names, **given)
    close(of.back, x, 1e-8)
    close(of.log_det, of.log_volume, 1e-7 if name in SOLVED else 1e-9)
    close(of.back_log_det, -of.log_det, 1e-7)
    assert np.abs(of.log_det).max() > 0.1 and (np.ptp(of.log_det[:3]) > 0.02) == (name != "NICE"), "a trivial log-det"
    assert ((of.jacobian != 0).sum((0, 2)) > len(x)).all(), "a feature that looks at no other"
    for (path, leaf), train in zip(
        jax.tree_util.tree_leaves_with_path(of.gradients[0]), jax.tree.leaves(flows.trainable(of.bijection.params)), strict=True
    ):
        assert np.isfinite(leaf).all() and bool((leaf != 0).any()) == train, jax.tree_util.keystr(path)
    assert not conditional or np.abs(of.y[3] - of.y[0]).max() > 1e-3, "the context changes nothing"


def test_arguments_have_one_name_and_one_place():
    models = {value.constructor for value in MODELS.values()}
    for model in models:
        names = list(inspect.signature(model).parameters)
        assert names[0] == "num_layers" and names[-1] == "scan", model
        assert [name for name in ("hidden", "activation") if name in names] == names[
            1 : 1 + len({"hidden", "activation"} & {*names})
        ]
    assert repr(flows.Flow(flows.NSF(num_layers=10, hidden=(128, 128), num_bins=8, bound=3.0), flows.Normal()))
    assert repr(flows.Flow(flows.MAF(num_layers=5, hidden=(128, 128))))


def test_each_model_is_built_as_published():
    """By the values they are short for."""
    plain, spline = flows.Coupling, t.RationalQuadratic(8, 3.0, min_bin=0.025, min_slope=0.05)
    coupling, autoregressive = (partial(engine, squash=3.0) for engine in (plain, flows.Autoregressive))
    linear, back = flows.InvertibleLinear(), flows.Reverse()
    net = flows.MLP(8, activation="relu")
    residual = coupling(Residual(8, 2), spline, unconditional=spline)
    masked = autoregressive(MaskedResidual(8, 2), spline)
    made = flows.Autoregressive(MaskedMLP(8), t.Inverse(t.Affine(2.0)), squash=5.0)
    additive = [plain(net, t.Additive()), plain(net, t.Additive(), flip=True)]
    squashed, circle, interval = ConcatSquash(8), t.CircularRationalQuadratic(4), t.RationalQuadratic(4, 1.0, ends="free")
    affine = [coupling(net, t.Affine(2.0)), coupling(net, t.Affine(2.0), flip=True)]
    for model, layers in {
        flows.NICE(3, (8,)): [*additive, additive[0], flows.Scale()],
        flows.NICE(2, (8,), plain=True): additive,
        flows.RealNVP(3, (8,)): [layer for i in (0, 1, 0) for layer in (affine[i], flows.BatchNorm())],
        flows.RealNVP(2, (8,), plain=True): affine,
        flows.Glow(2, (8,)): [flows.ActNorm(), linear, plain(net, t.Affine(scale="sigmoid"))] * 2,
        flows.MAF(2, (8,)): [made, flows.BatchNorm(), back] * 2,
        flows.MAF(2, (8,), plain=True): [made, back] * 2,
        flows.IAF(2, (8,), "relu"): [flows.InverseAutoregressive(MaskedMLP(8), t.Gated()), back] * 2,
        flows.NSF(2, (8, 8), num_bins=8, bound=3.0): [masked, back] * 2,
        flows.NSF(2, (8, 8), num_bins=8, bound=3.0, linear=True): [linear, masked] * 2 + [linear],
        flows.NSF(2, (8, 8), num_bins=8, bound=3.0, autoregressive=False, linear=True): [linear, residual] * 2 + [linear],
        flows.NSF(2, (8, 8), num_bins=8, bound=3.0, autoregressive=False): [residual, back] * 2,
        flows.NSF(2, (8,), num_bins=8, bound=3.0, plain=True, autoregressive=False): [coupling(net, spline), back] * 2,
        flows.NSF(2, (8,), num_bins=8, bound=3.0, plain=True): [autoregressive(MaskedMLP(8), spline), back] * 2,
        flows.NAF(2, (8,), "relu"): [flows.Autoregressive(MaskedMLP(8), t.DeepSigmoidal(16)), back] * 2,
        flows.BNAF(2, (8,)): [flows.BlockAutoregressive(8), back] * 2,
        flows.UMNN(2, (8,)): [flows.Autoregressive(MaskedMLP(8), t.MonotonicNetwork((50,) * 4, 30)), back] * 2,
        flows.SOS(2, (8,)): [flows.Autoregressive(MaskedMLP(8), t.SumOfSquares(5, 3)), back] * 2,
        flows.GaussianizationFlow(2): [flows.Householder(), flows.Elementwise(t.Gaussianization(20))] * 2,
        flows.FFJORD(2, (8,), solver="tsit5", steps=None): [flows.Continuous(squashed, "hutchinson")] * 2,
        flows.RNODE(1, (8,)): [flows.Continuous(squashed, "hutchinson", "rk4", 8, kinetic=0.01, jacobian=0.01)],
        flows.SphereFlow(2, (8,), "relu", num_bins=4): [flows.Householder(2), flows.SphereCoupling(net, circle, interval)] * 2,
    }.items():
        assert model.inner == flows.Serial(*layers), model
    assert flows.RealNVP(2, (8,), plain=True, squash=None).inner == flows.Serial(
        *[plain(net, t.Affine(2.0), flip=flip) for flip in (False, True)]
    )
    floors = {"squash": None, "min_bin": 1e-3, "min_slope": 1e-3}
    free = flows.NSF(2, (8,), num_bins=8, bound=3.0, plain=True, autoregressive=False, **floors)
    assert free.inner == flows.Serial(*[plain(net, t.RationalQuadratic(8, 3.0)), back] * 2)
    for constructor, most, expected in ((flows.NSF, 8, [3.0, 1.5]), (flows.MAF, 10, [5.0, 2.0])):
        few, many = (constructor(n, (8,), scan=False).inner.arguments["layers"] for n in (most, most + 1))
        assert [layers[0].arguments["squash"] for layers in (few, many)] == expected
    assert flows.MAF(11, squash=5.0, scan=False).inner == flows.Serial(*flows.MAF(1).inner.arguments["layers"] * 11)
    with pytest.raises(flows.FlowsError, match="NSF: min_slope was given, but the cubic spline has no such argument"):
        flows.NSF(spline="cubic", min_slope=0.1)
    for name in ("quadratic", "cubic", "linear", "linear_rational"):
        assert type(flows.NSF(spline=name)) is type(flows.NSF()) and name.title().replace("_", "") in repr(
            flows.NSF(spline=name).inner
        )
    dropped = flows.NSF(2, dropout=0.2).inner.arguments["layers"][0].arguments["conditioner"]
    assert dropped == MaskedResidual(64, 2, dropout=0.2)


def test_deep_models_are_loops():
    """A loop is the same function of stacked params."""
    deep = flows.NSF(UNROLLED + 1, linear=True).inner.arguments["layers"]
    assert deep[0].constructor is flows.Repeat and deep[1:] == (flows.InvertibleLinear(),)
    assert flows.UMNN(UNROLLED + 1).inner == flows.UMNN(UNROLLED + 1, scan=False).inner, "a loop would integrate again"
    assert flows.NSF(UNROLLED, linear=True).inner.arguments["layers"][0] == flows.InvertibleLinear()
    assert flows.MAF(40, scan=False).inner == flows.Serial(*flows.MAF(1, squash=2.0).inner.arguments["layers"] * 40)
    for affine in (flows.NICE, flows.RealNVP, flows.Glow, flows.MAF, flows.IAF):
        assert affine(UNROLLED_AFFINE) == affine(UNROLLED_AFFINE, scan=None)
        assert affine(UNROLLED_AFFINE).inner == affine(UNROLLED_AFFINE, scan=False).inner
        assert affine(UNROLLED_AFFINE + 1).inner == affine(UNROLLED_AFFINE + 1, scan=True).inner
        assert affine(UNROLLED_AFFINE + 1).inner.arguments["layers"][0].constructor is flows.Repeat
    assert flows.RealNVP(1, scan=True).inner == flows.RealNVP(1, scan=False).inner

    params, direct_fun, inverse_fun = flows.RealNVP(5, (8,), scan=True, plain=True)(0, D)
    unrolled = flows.RealNVP(5, (8,), scan=False, plain=True)(0, D)
    flat = (*(jax.tree.map(lambda leaf, i=i: leaf[i], layer) for i in range(2) for layer in params[0]), *params[1:])
    assert jax.tree.structure(flat) == jax.tree.structure(unrolled.params)
    x = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)
    for a, b in zip(direct_fun(params, x), unrolled.direct_fun(flat, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(inverse_fun(params, x)[0], unrolled.inverse_fun(flat, x)[0], rtol=1e-5, atol=1e-5)


def test_a_mixture_base_is_what_its_formula_says():
    """Of a model with two components and one feature before another: the density by hand, and samples that follow it."""
    with enable_x64():
        params, log_pdf, sample = flows.MixtureMADE(2, hidden=(3,))(0, 2)
        params = stirred(params, 0.5)
        net = MaskedMLP(3)(0, 2, 12).apply_fun
        x = np.random.default_rng(0).normal(size=(5, 2))
        theta = np.asarray(net(params, jnp.asarray(x))).reshape(5, 3, 2, 2)  # rows, kinds, components, features
        w = np.exp(theta[:, 0]) / np.exp(theta[:, 0]).sum(1, keepdims=True)
        m, s = theta[:, 1] + np.array([-1.0, 1.0])[:, None], np.exp(10 * np.tanh(theta[:, 2] / 10))
        p = (w * np.exp(-0.5 * ((x[:, None] - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))).sum(1)
        np.testing.assert_allclose(log_pdf(params, x), np.log(p).sum(1), rtol=1e-9)

        draws = np.asarray(sample(1, params, 4000))
        # Through the distribution functions of its own conditionals, samples are uniform and independent.
        theta = np.asarray(net(params, jnp.asarray(draws))).reshape(-1, 3, 2, 2)
        w = np.exp(theta[:, 0]) / np.exp(theta[:, 0]).sum(1, keepdims=True)
        m, s = theta[:, 1] + np.array([-1.0, 1.0])[:, None], np.exp(10 * np.tanh(theta[:, 2] / 10))
        u = np.asarray((w * jax.scipy.stats.norm.cdf((draws[:, None] - m) / s)).sum(1))
        for column in u.T:
            gap = np.abs(np.sort(column) - (np.arange(4000) + 0.5) / 4000).max()
            assert gap < 1.63 / np.sqrt(4000), gap  # Kolmogorov and Smirnov, 1%
        assert abs(np.corrcoef(u.T)[0, 1]) < 0.05
    assert flows.Flow(flows.MAF(2), flows.MixtureMADE())  # a base like any other


def test_models_refuse_what_they_cannot_be():
    assert "NSF: hidden is (64, 32)" in error_of(lambda: flows.NSF(hidden=(64, 32)))
    assert "NSF: hidden is ()" in error_of(lambda: flows.NSF(hidden=()))
    assert "expected one of rational_quadratic, quadratic" in error_of(lambda: flows.NSF(spline="rq"))
    assert "MLP: dropout is 1.0; expected a number in [0, 1)" in error_of(lambda: flows.NSF(dropout=1.0, plain=True))
    assert "MAF: scan is 1; expected None, True or False" in error_of(lambda: flows.MAF(scan=1))
    assert "IAF: num_layers is 0" in error_of(lambda: flows.IAF(0))
    assert "UMNN: hidden is 64" in error_of(lambda: flows.UMNN(hidden=64))
    assert "MixtureMADE: num_components is 0" in error_of(lambda: flows.MixtureMADE(0))
    assert "expected a vector" in error_of(lambda: flows.MixtureMADE(2)(0, (2, 2)))
    assert "num_reflections is 0" in error_of(lambda: flows.Householder(0))
    assert to_json(flows.Glow(2))


@pytest.mark.parametrize("jitted", [False, True])
def test_a_layer_around_another_in_a_loop_leaves_the_layer_as_it_was(jitted):
    """What jit keeps of a function that was traced within a loop must not hold the loop's own index."""
    inner = flows.Coupling(flows.MLP(4), t.RationalQuadratic(2))
    kept = {}

    @flows.bijection(batched=True)
    def Around():
        def init_fun(rng, shape):
            params, direct_fun, inverse_fun = inner(rng, shape)
            run = kept.setdefault("run", jax.jit(direct_fun)) if jitted else direct_fun
            return params, lambda params, x: run(params, x), lambda params, y: inverse_fun(params, y)[0]

        return init_fun

    x = np.ones((3, 2), np.float32)
    single = inner(0, 2)
    for n in (2, 3):
        params, direct_fun, _ = flows.Repeat(Around(), n)(0, 2)
        y, log_det = x, 0.0
        for i in range(n):
            y, more = single.direct_fun(jax.tree.map(lambda leaf, i=i: leaf[i], params), y)
            log_det += more
        for a, b in zip(direct_fun(params, x), (y, log_det), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert kept.get("run", single.direct_fun)(single.params, x)[0].shape == (3, 2)


def test_a_block_network_needs_a_hidden_layer_and_hides_no_nan():
    with pytest.raises(flows.FlowsError, match=r"BNAF: hidden is \(\)"):
        flows.BNAF(hidden=())
    params, direct_fun, _ = flows.BNAF(2, (3,))(0, 2)
    y, log_det = direct_fun(params, np.array([[np.nan, 0.0], [1.0, 0.0]], np.float32))
    assert np.isnan(y[0]).any() and np.isnan(log_det[0]) and np.isfinite(log_det[1])


def test_reflections_have_no_length():
    params, direct_fun, _ = flows.Householder()(0, 3)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    for factor in (1e30, 1e-30):
        y = direct_fun(jax.tree.map(lambda leaf, factor=factor: leaf * factor, params), x)[0]
        np.testing.assert_allclose(y, direct_fun(params, x)[0], rtol=1e-5, atol=1e-5)


def test_labels_of_residual_flows():
    assert flows.IResNet(2).likelihood == flows.ResidualFlow(2, log_det="exact").likelihood == "exact"
    assert flows.ResidualFlow(2).likelihood == flows.Flow(flows.ResidualFlow(2)).likelihood == "unbiased"
