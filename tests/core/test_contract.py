"""The rules of the contract: constructor values, memoisation, keywords, closures, fixed leaves, calibration."""

import inspect

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from common import X, error_of, scale_closure
from registry import masked, small

import flows


def counting():
    """A layer that counts how often its direct function is traced."""
    traces = []

    @flows.bijection
    def Counted(by: float = 2.0):
        def init_fun(rng, shape):
            return {"log_scale": jnp.full(shape, jnp.log(by))}, direct_fun, inverse_fun

        def direct_fun(params, x):
            traces.append(x.shape)
            return x * jnp.exp(params["log_scale"]), params["log_scale"].sum()

        def inverse_fun(params, y):
            return y * jnp.exp(-params["log_scale"])

        return init_fun

    return Counted, traces


# Constructor values


def test_a_value_prints_as_the_shortest_code_that_makes_it():
    value = flows.Serial(flows.AffineCoupling(flows.MLP(64, 64)), flows.ActNorm(), flows.BatchNorm(momentum=0.5))
    assert repr(value) == "Serial(AffineCoupling(MLP(64, 64)), ActNorm(), BatchNorm(momentum=0.5))"
    assert repr(flows.Coupling(transformer=flows.transformers.Affine(bound=2.0))) == (
        "Coupling(transformer=transformers.Affine(bound=2.0))"
    )
    assert repr(flows.NSF(4, hidden=[32])) == "NSF(num_layers=4, hidden=(32,))"
    assert repr(counting()[0]()).endswith("test_contract.Counted()")


def test_values_compare_by_value_with_defaults_filled_in_and_types_told_apart():
    assert flows.MLP(64) == flows.MLP(64, activation="relu") and hash(flows.MLP(64)) == hash(flows.MLP(64, activation="relu"))
    assert flows.GMM(np.zeros((1, 2)), np.eye(2)[None], [1.0]) == flows.GMM([[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]], (1.0,))
    Counted, _ = counting()
    assert len({Counted(1), Counted(1.0), Counted(True)}) == 3
    assert flows.Reverse() != flows.Shuffle() and flows.Reverse() != "Reverse()"
    with pytest.raises(AttributeError, match="immutable"):
        flows.Reverse().constructor = None


def test_likelihood_is_the_weakest_of_all_layers():
    @flows.bijection(likelihood="unbiased")
    def Estimated():
        def init_fun(rng, shape):
            return {}, lambda params, x: (x, jnp.zeros(())), lambda params, y: y

        return init_fun

    assert flows.Flow(flows.Serial(flows.ActNorm(), flows.Reverse())).likelihood == "exact"
    assert flows.Flow(flows.Serial(flows.ActNorm(), flows.Repeat(Estimated(), 2))).likelihood == "unbiased"


# Functions: made once, compiled inside


def test_a_second_init_and_a_second_call_trace_nothing():
    Counted, traces = counting()
    init_fun = flows.Flow(flows.Serial(Counted(), flows.Reverse(), Counted(3.0)))
    params, log_pdf, sample = init_fun(0, 3)
    log_pdf(params, X), sample(0, params, 4)
    seen = len(traces)
    again = flows.Flow(flows.Serial(Counted(), flows.Reverse(), Counted(3.0)))(1, 3)
    assert again.log_pdf is log_pdf and again.sample is sample
    again.log_pdf(again.params, X + 1), again.sample(5, again.params, 3)
    assert len(traces) == seen
    flows.clear_caches()
    assert init_fun(0, 3).log_pdf is not log_pdf


def test_a_first_init_under_jit_vmap_and_eval_shape_leaves_no_tracer_behind():
    for transform in (jax.jit, jax.eval_shape, lambda f: jax.vmap(f)):
        Counted, _ = counting()
        init_fun = flows.Serial(Counted(), flows.MADE(masked), flows.Shuffle())
        keys = jax.random.split(jax.random.key(0), 2)

        def make(key, init_fun=init_fun):
            return init_fun(key, 3).params

        if transform is jax.eval_shape:
            jax.eval_shape(make, keys[0])
        elif transform is jax.jit:
            jax.jit(make)(keys[0])
        else:
            transform(make)(keys)
        params, direct_fun, _ = init_fun(0, 3)
        assert bool(jnp.isfinite(direct_fun(params, X)[0]).all())


def test_an_ensemble_is_a_vmap_over_params():
    init_fun = flows.Flow(flows.AffineCoupling(small))
    params = jax.vmap(lambda key: init_fun(key, 3).params)(jax.random.split(jax.random.key(0), 4))
    log_pdf = init_fun(0, 3).log_pdf
    together = jax.vmap(log_pdf, in_axes=(0, None))(params, X)
    one = log_pdf(jax.tree.map(lambda leaf: leaf[2], params), X)
    np.testing.assert_allclose(together[2], one, rtol=1e-5)


def test_repeat_is_serial_by_scan():
    layer = flows.Serial(flows.AffineCoupling(small), flows.Shuffle(), flows.ActNorm())
    x = 3 * X + 1
    many, one = flows.Serial(*[layer] * 3)(7, 3, init_inputs=x), flows.Repeat(layer, 3)(7, 3, init_inputs=x)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many.params)
    for a, b in zip(jax.tree.leaves(stacked), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(many.direct_fun(many.params, x), one.direct_fun(one.params, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_functions_are_exported_for_any_number_of_rows():
    rows = jax.export.symbolic_shape("rows")[0]
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    masked = flows.conditioners.MaskedMLP(4)
    layers = [flows.ActNorm(), flows.Coupling(flows.MLP(4)), flows.InverseAutoregressive(masked), flows.BatchNorm()]
    flow = flows.Flow(flows.Serial(*layers), flows.Normal(trainable=True, covariance="full"))(0, 3)
    layer = flows.Serial(*layers)(0, 3)
    for params, fun in ((flow.params, flow.log_pdf), (layer.params, layer.direct_fun), (layer.params, layer.inverse_fun)):
        exported = jax.export.export(jax.jit(fun))(params, jax.ShapeDtypeStruct((rows, 3), np.float32))
        for got, expected in zip(jax.tree.leaves(exported.call(params, x)), jax.tree.leaves(fun(params, x)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_new_sample_sizes_rarely_trace_and_keep_their_first_rows():
    Counted, traces = counting()
    params, _, sample = flows.Flow(Counted())(0, 2)
    four = sample(3, params, 4)
    seen = len(traces)
    np.testing.assert_array_equal(sample(3, params, 3), four[:3])
    assert sample(3, params).shape == (1, 2) and sample(3, params, 0).shape == (0, 2)
    sample(3, params, 3)
    assert len(traces) <= seen + 2


# The vocabulary of keywords


def test_signatures_show_the_union_of_what_layers_name():
    init_fun = flows.Serial(flows.BatchNorm(), flows.Reverse())
    assert list(inspect.signature(init_fun).parameters) == ["rng", "input_dim", "init_inputs", "params"]
    assert list(inspect.signature(init_fun(0, 2).direct_fun).parameters) == ["params", "inputs", "train"]
    assert "context_dim" in inspect.signature(flows.Serial(flows.AffineCoupling(small))).parameters


def test_keywords_at_their_default_count_as_not_given():
    params, direct_fun, _ = flows.Reverse()(0, 3, context_dim=0, init_inputs=None, init_context=None, params=None)
    direct_fun(params, X, context=None, rng=None, train=False)
    direct_fun(params, X, rng=jax.random.key(0), train=True)  # always accepted
    flows.Reverse()(0, 3, init_inputs=X)


@pytest.mark.parametrize(
    "call",
    [
        lambda: flows.Reverse()(0, 3, data=X),
        lambda: flows.Reverse()(0, 3, evaluation=True),
        lambda: flows.Reverse()(0, 3, context_dim=2),
        lambda: flows.Serial(flows.ActNorm(), scale_closure)(0, 3, context_dim=2),
        lambda: flows.BatchNorm()(0, 3).direct_fun(flows.BatchNorm()(0, 3).params, X, evaluation=True),
        lambda: flows.Normal()(0, 3).log_pdf({}, X, training=True),
        lambda: flows.ActNorm(momentum=3),
        lambda: flows.Serial(),
        lambda: flows.Serial(flows.ActNorm),
        lambda: flows.Serial(flows.Normal()),
        lambda: flows.Serial(flows.MLP(3)),
        lambda: flows.Serial(3),
        lambda: flows.Flow(flows.Normal()),
        lambda: flows.Flow(flows.ActNorm(), flows.ActNorm()),
        lambda: flows.ActNorm()("seed", 3),
        lambda: flows.ActNorm()(True, 3),
        lambda: flows.ActNorm()(0, 3.0),
        lambda: flows.ActNorm()(0, "3"),
        lambda: flows.ActNorm()(0, ()),
        lambda: flows.Normal()(0, 3).sample(0, {}, 2.5),
        lambda: flows.BatchNorm()(0, 3).direct_fun(flows.BatchNorm()(0, 3).params, X, train=1),
        lambda: flows.ActNorm()(0, 3).direct_fun(flows.ActNorm()(0, 3).params, X.astype(jnp.complex64)),
        lambda: flows.ActNorm()(0, 3).direct_fun(flows.ActNorm()(0, 3).params, np.array([["a", "b", "c"]])),
        lambda: flows.ActNorm()(0, 3).direct_fun(flows.ActNorm()(0, 3).params, np.array([[1, None, 3]], object)),
        lambda: flows.ActNorm()(0, 3).direct_fun(flows.ActNorm()(0, 3).params, [[1.0, 2.0, 3.0], [1.0]]),
        lambda: flows.verify(flows.Normal(), 3),
        lambda: flows.MADE(3),
        lambda: flows.Coupling(3),
        lambda: flows.Coupling(transformer=3),
        lambda: flows.Autoregressive(transformer="affine"),
        lambda: flows.transformers.Inverse(3),
        lambda: flows.Elementwise(flows.transformers.Affine(), 3),
        lambda: flows.Normal(conditioner=flows.ActNorm()),
    ],
)
def test_wrong_kinds_of_arguments_are_type_errors(call):
    with pytest.raises(TypeError):
        call()


def test_wrong_shapes_are_named_with_what_was_expected_and_the_remedy():
    params, direct_fun, inverse_fun = flows.ActNorm()(0, 3)
    assert "(6, 2), expected (batch, 3)" in error_of(lambda: direct_fun(params, X[:, :2]))
    assert "input_dim=3" in error_of(lambda: direct_fun(params, X[:, :1]))
    assert "inputs[None]" in error_of(lambda: direct_fun(params, X[0]))
    assert "one batch axis" in error_of(lambda: direct_fun(params, X[None]))
    assert "ActNorm" in error_of(lambda: inverse_fun(params, X[:, :1]))
    assert "[:, None]" in error_of(lambda: flows.ActNorm()(0, 1).direct_fun(flows.ActNorm()(0, 1).params, X[:, 0]))
    other = flows.ActNorm()(0, 1).params
    assert "has shape (1,), expected (3,)" in error_of(lambda: direct_fun(other, X))
    assert "params lacks 'log_scale', 'shift'" in error_of(lambda: direct_fun({}, X))
    assert "init_inputs" in error_of(lambda: flows.ActNorm()(0, 3, init_inputs=X[:, :1]))
    assert "no rows" in error_of(lambda: flows.ActNorm()(0, 3, init_inputs=X[:0]))
    assert "at least one entry" in error_of(lambda: flows.ActNorm()(0, 0))
    assert "0 or more" in error_of(lambda: flows.Normal()(0, 3).sample(0, {}, -1))
    with jax.disable_jit():
        assert "(6, 2), expected (batch, 3)" in error_of(lambda: direct_fun(params, X[:, :2]))


def test_what_cannot_be_measured_is_named():
    bad = np.array(X)
    bad[4, 1] = np.nan
    assert "init_inputs has nan in row 4, column 1" in error_of(lambda: flows.RealNVP(1)(0, 3, init_inputs=bad))
    flow = flows.Flow(flows.Serial(flows.ActNorm(), flows.Coupling(small)))
    given = {"init_inputs": X, "init_context": bad * np.inf}
    assert "init_context has " in error_of(lambda: flow(0, 3, context_dim=3, **given))


def test_a_constructor_that_was_not_called_is_named():
    affine, mlp = flows.transformers.Affine, flows.MLP
    for make in (flows.Coupling, flows.Autoregressive, lambda net: flows.Elementwise(affine(), net), flows.Laplace):
        with pytest.raises(TypeError, match=r"the conditioner is the constructor MLP; call it: MLP\(...\)"):
            make(conditioner=mlp) if make is flows.Laplace else make(mlp)
    with pytest.raises(TypeError, match=r"the transformer is the constructor Affine; call it"):
        flows.Coupling(transformer=affine)
    for model in (flows.RealNVP, flows.MAF, flows.NSF):
        assert f"{model.__name__}: hidden is 64; expected" in error_of(lambda model=model: model(hidden=64))
        assert "hidden is '64'" in error_of(lambda model=model: model(hidden="64"))


def test_transformers_name_wrong_shapes():
    spline = flows.transformers.RationalQuadratic(num_bins=4)
    for theta, x in (((3, 2), (2,)), ((11, 2), (3,)), ((11,), (2,)), ((11, 1), (2,)), ((2, 11), (2,))):
        for function in (spline.direct, spline.inverse):
            message = error_of(lambda function=function, theta=theta, x=x: function(jnp.zeros(theta), jnp.zeros(x)))
            assert f"theta has shape {theta}, expected {(11, *x)}" in message
    y, log_det = flows.transformers.Affine().direct([[0, 0], [1, 1]], [1, 2])
    assert y.tolist() == [2.0, 3.0] and log_det.dtype == jnp.float32


def test_context_errors_say_what_is_missing():
    params, direct_fun, _ = flows.AffineCoupling(small)(0, 3, context_dim=2)
    assert "context is missing" in error_of(lambda: direct_fun(params, X))
    assert "expected (6, 2)" in error_of(lambda: direct_fun(params, X, context=np.ones((5, 2))))
    assert "expected (6, 2)" in error_of(lambda: direct_fun(params, X, context=np.ones(3)))
    params, _, sample = flows.Flow(flows.AffineCoupling(small))(0, 3, context_dim=2)
    assert sample(0, params, 5, context=np.ones(2)).shape == (5, 3)
    assert sample(0, params, 5, context=np.ones((5, 2))).shape == (5, 3)
    assert "expected (5, 2)" in error_of(lambda: sample(0, params, 5, context=np.ones((4, 2))))
    with pytest.raises(TypeError, match="context_dim"):
        plain = flows.AffineCoupling(small)(0, 3)
        plain.direct_fun(plain.params, X, context=np.ones(2))


def test_layers_refuse_events_that_cannot_work():
    assert "multiples of factor" in error_of(lambda: flows.Squeeze()(0, (3, 4, 1)))
    assert "expected (H, W, C)" in error_of(lambda: flows.Squeeze()(0, 4))
    assert "one channel" in error_of(lambda: flows.FactorOut(flows.ActNorm())(0, 1))
    assert "at least 2" in error_of(lambda: flows.Squeeze(1))
    assert "events (4, 4, 1)" in error_of(lambda: flows.RealNVP(1)(0, (4, 4, 2)))
    assert "one at least must be transformed" in error_of(lambda: flows.Coupling(small, mask=(True,))(0, 1))
    assert "expected a vector" in error_of(lambda: flows.MADE(masked)(0, (2, 2, 3)))
    assert "input_dim=2" in error_of(lambda: flows.GMM([[0.0, 0.0]], [np.eye(2)], [1.0])(0, 3))
    assert "do not fit" in error_of(lambda: flows.GMM([[0.0, 0.0]], np.eye(2), [1.0]))
    assert "positive definite" in error_of(lambda: flows.GMM([[0.0, 0.0]], [-np.eye(2)], [1.0]))
    assert "sum 1" in error_of(lambda: flows.GMM([[0.0, 0.0]], [np.eye(2)], [2.0]))
    assert "activation" in error_of(lambda: flows.MLP(3, activation="rleu"))
    assert "whole number" in error_of(lambda: flows.MLP(0))
    assert "momentum" in error_of(lambda: flows.BatchNorm(momentum=1.5))
    assert "Serial instead" in error_of(lambda: flows.Repeat(flows.Squeeze(), 2)(0, (4, 4, 1)))
    assert "input_dim=(2, 2, 4)" in error_of(lambda: flows.Invert(flows.Squeeze())(0, (2, 2, 4)))
    params, direct_fun, _ = flows.Invert(flows.Squeeze(), input_dim=(4, 4, 1))(0, (2, 2, 4))
    assert direct_fun(params, jnp.ones((1, 2, 2, 4)))[0].shape == (1, 4, 4, 1)


# Keys


def test_keys_of_every_kind_give_the_same_params():
    wanted = flows.InvertibleLinear()(jax.random.key(5), 3).params
    assert flows.Reverse()(2**70, 3, context_dim=np.int64(0)).params
    for rng in (5, np.int64(5), jax.random.PRNGKey(5), np.asarray(jax.random.PRNGKey(5))):
        got = flows.InvertibleLinear()(rng, 3).params
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), got, wanted))
