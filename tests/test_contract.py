"""The rules of the contract: constructor values, memoisation, keywords, closures, fixed leaves, calibration."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import masked, small

import flows
from flows.diagnostics import enable_x64

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)


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


def scale_closure(rng, input_dim, **kwargs):
    """A plain closure in the style of the original."""
    params = {"w": jnp.ones(input_dim)}

    def direct_fun(params, inputs, **kwargs):
        return inputs * jnp.exp(params["w"])[None], jnp.broadcast_to(params["w"].sum(), inputs.shape[:1])

    def inverse_fun(params, inputs, **kwargs):
        return inputs * jnp.exp(-params["w"])[None], jnp.broadcast_to(-params["w"].sum(), inputs.shape[:1])

    return params, direct_fun, inverse_fun


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
    ],
)
def test_wrong_kinds_of_arguments_are_type_errors(call):
    with pytest.raises(TypeError):
        call()


def error_of(call):
    with pytest.raises(flows.FlowsError) as caught:
        call()
    return str(caught.value)


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
    assert "structure" in error_of(lambda: direct_fun({}, X))
    assert "init_inputs" in error_of(lambda: flows.ActNorm()(0, 3, init_inputs=X[:, :1]))
    assert "no rows" in error_of(lambda: flows.ActNorm()(0, 3, init_inputs=X[:0]))
    assert "at least one entry" in error_of(lambda: flows.ActNorm()(0, 0))
    assert "0 or more" in error_of(lambda: flows.Normal()(0, 3).sample(0, {}, -1))
    with jax.disable_jit():
        assert "(6, 2), expected (batch, 3)" in error_of(lambda: direct_fun(params, X[:, :2]))


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
    assert "no feature to transform" in error_of(lambda: flows.Coupling(small, flip=True)(0, 1))
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


# Plain closures


def test_a_plain_closure_is_a_first_class_layer():
    init_fun = flows.Flow(flows.Serial(scale_closure, flows.AffineCoupling(small)))
    first, second = init_fun(0, 3), init_fun(1, 3)
    assert first.log_pdf is second.log_pdf
    assert flows.verify(scale_closure, 3).passed
    assert flows.verify(flows.Repeat(scale_closure, 2), 3).passed
    assert flows.verify(flows.Invert(scale_closure), 3).passed


def test_a_closure_whose_functions_depend_on_rng_is_never_wrong_and_verify_says_so():
    def rotation(rng, input_dim):
        w = jax.random.orthogonal(rng, input_dim)
        return (), lambda p, x: (x @ w, jnp.zeros(len(x))), lambda p, y: (y @ w.T, jnp.zeros(len(y)))

    a, b = flows.Serial(rotation)(0, 3), flows.Serial(rotation)(1, 3)
    assert a.direct_fun is not b.direct_fun
    assert float(jnp.abs(a.direct_fun((((),)), X)[0] - b.direct_fun(((),), X)[0]).max()) > 0.1
    report = flows.verify(rotation, 3)
    assert "functions free of rng" in [each.name for each in report.properties if not each.passed]
    assert "NOT a bijection" in str(report)
    with pytest.raises(flows.FlowsError, match="functions free of rng"):
        flows.verify(rotation, 3, raise_on_failure=True)

    @flows.bijection
    def Rotation():
        def init_fun(rng, shape):
            w = jax.random.orthogonal(rng, shape[0])
            return {}, lambda p, x: (x @ w, jnp.zeros(())), lambda p, y: y @ w.T

        return init_fun

    with pytest.raises(flows.FlowsError, match="closes over a value"):
        Rotation()(0, 3)


def test_an_author_is_told_what_is_wrong_with_a_layer():
    def layer(params=None, direct=lambda p, x: (x, jnp.zeros(())), inverse=lambda p, y: y, **kind):
        @flows.bijection(**kind)
        def Layer():
            return lambda rng, shape: ({} if params is None else params, direct, inverse)

        return Layer()

    assert "log_det" in error_of(lambda: layer(direct=lambda p, x: (x, x))(0, 3))
    assert "the pair" in error_of(lambda: layer(direct=lambda p, x: x)(0, 3))
    assert "float arrays" in error_of(lambda: layer({"n": 3})(0, 3))
    assert "(7, 2), expected shape (7, 3)" in error_of(lambda: layer(inverse=lambda p, y: y[:2])(0, 3))
    assert "the point alone" in error_of(lambda: layer(inverse=lambda p, y: (y, 0.0))(0, 3))
    assert "log_det" in error_of(lambda: flows.Serial(flows.ActNorm(), layer(direct=lambda p, x: (x, x[:1])))(0, 3))
    with pytest.raises(TypeError, match="float arrays"):
        layer({"n": "three"})(0, 3)
    with pytest.raises(TypeError, match=r"expected \(params, function, function\)"):
        flows.bijection(lambda: lambda rng, shape: ({}, None))()(0, 3)
    with pytest.raises(flows.FlowsError, match="likelihood"):
        flows.bijection(likelihood="good")
    for mistake in (
        lambda p, x: (2 * x, jnp.zeros(())),  # a missing log-det
        lambda p, x: (2 * x, -3 * jnp.log(2.0)),  # a wrong sign
        lambda p, x: (jnp.cumsum(x), jnp.zeros(())),  # another inverse
    ):
        assert not flows.verify(layer(direct=mistake, inverse=lambda p, y: y / 2), 3).passed


def test_verify_looks_at_a_closures_own_log_det_of_the_inverse():
    def wrong_sign(rng, input_dim):
        log_det = input_dim * float(np.log(2.0))
        return {}, lambda p, x: (2 * x, jnp.full(len(x), log_det)), lambda p, y: (y / 2, jnp.full(len(y), log_det))

    failed = [each.name for each in flows.verify(wrong_sign, 3).properties if not each.passed]
    assert failed == ["its own log_det of inverse"]


def test_a_closure_that_reads_a_changed_setting_is_made_anew():
    setting = {"scale": 2.0}

    def scale(rng, input_dim):
        s = setting["scale"]
        log_det = input_dim * float(np.log(s))
        return {}, lambda p, x: (s * x, jnp.full(len(x), log_det)), lambda p, y: (y / s, jnp.full(len(y), -log_det))

    def late(rng, input_dim):
        def direct_fun(params, inputs, *, context=None):
            return inputs * setting["scale"], jnp.zeros(len(inputs))

        return {}, direct_fun, lambda p, y: (y / setting["scale"], jnp.zeros(len(y)))

    for layer in (scale, late):
        setting["scale"] = 2.0
        init_fun = flows.Serial(layer)
        first, again = init_fun(0, 3), init_fun(1, 3)
        assert first.direct_fun is again.direct_fun
        setting["scale"] = 3.0
        np.testing.assert_allclose(init_fun(0, 3).direct_fun(({},), X)[0], 3 * X, rtol=1e-6)


def test_an_init_may_use_numpy():
    @flows.bijection
    def Numpy():
        def init_fun(rng, shape):
            w = np.linalg.qr(np.asarray(jax.random.normal(rng, shape * 2)))[0]
            return {"fixed": {"w": w}}, lambda p, x: (x @ p["fixed"]["w"], jnp.zeros(())), lambda p, y: p["fixed"]["w"] @ y

        return init_fun

    first, second = Numpy()(0, 3), Numpy()(1, 3)
    assert first.direct_fun is second.direct_fun
    assert float(jnp.abs(first.params["fixed"]["w"] - second.params["fixed"]["w"]).max()) > 0.1


# Fixed leaves and calibration


def test_gradients_stop_at_fixed_leaves():
    init_fun = flows.Serial(flows.Shuffle(), flows.BatchNorm(), flows.AffineCoupling(small))
    params, direct_fun, _ = init_fun(0, 3)
    gradients = jax.grad(lambda params: jnp.square(direct_fun(params, X)[0]).sum())(params)
    assert not gradients[0]["fixed"]["ranks"].any() and not gradients[1]["fixed"]["mean"].any()
    assert flows.trainable(params)[1] == {
        "beta": True,
        "log_gamma": True,
        "fixed": dict.fromkeys(["mean", "momentum", "var"], False),
    }


def test_a_shuffle_survives_weight_decay():
    params, direct_fun, _ = flows.Shuffle()(0, 5)
    x = jnp.arange(5.0)[None]
    shrunk = jax.tree.map(lambda leaf: 0.01 * leaf, params)
    assert direct_fun(shrunk, x)[0].tolist() == direct_fun(params, x)[0].tolist()


def test_batch_norm_is_pure_and_calibrated_layer_after_layer():
    with enable_x64():
        x = jnp.asarray(np.random.default_rng(1).normal(size=(50, 3)) * [1.0, 5.0, 0.1] + [0.0, 3.0, -2.0])
        init_fun = flows.Serial(flows.BatchNorm(momentum=0.5), flows.AffineCoupling(small), flows.BatchNorm())
        old, direct_fun, inverse_fun = init_fun(0, 3)
        old = jax.tree.map(lambda leaf: leaf + 0.1, old)
        in_training = direct_fun(old, x, train=True)
        new = flows.calibrate(init_fun, old, x)
        for got, expected in zip(direct_fun(new, x), in_training, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6)
        for a, b, train in zip(*map(jax.tree.leaves, (old, new, flows.trainable(old))), strict=True):
            assert not train or (a == b).all()
        half = flows.calibrate(init_fun, old, x, moving=True)
        m = float(old[0]["fixed"]["momentum"])
        expected = m * old[0]["fixed"]["mean"] + (1 - m) * x.mean(0)
        np.testing.assert_allclose(half[0]["fixed"]["mean"], expected, rtol=1e-6)
        with pytest.raises(flows.FlowsError, match="train=False"):
            inverse_fun(new, x, train=True)


def test_batch_norm_repeats_moves_and_has_finite_gradients_on_constants():
    init_fun = flows.Repeat(flows.BatchNorm(momentum=0.25), 3)
    params = init_fun(0, 3).params
    moved = flows.calibrate(init_fun, params, X, moving=True)
    np.testing.assert_allclose(moved["fixed"]["mean"][0], 0.75 * X.mean(0), rtol=1e-5)
    assert moved["fixed"]["momentum"].tolist() == [0.25] * 3
    params, direct_fun, _ = flows.BatchNorm()(0, 3)
    gradient = jax.grad(lambda x: direct_fun(params, x, train=True)[0].sum())(jnp.ones((3, 3)))
    assert bool(jnp.isfinite(gradient).all())
    fixed = flows.Standardize()(0, 1, init_inputs=np.full((1000, 1), 0.1)).params["fixed"]
    assert fixed["std"].tolist() == [1.0]
    with pytest.raises(flows.FlowsError, match="calibrate"):
        flows.calibrate(flows.BatchNorm(), flows.BatchNorm()(0, 1).params, X)


def test_layers_without_params_repeat():
    params, direct_fun, _ = flows.Repeat(flows.Sigmoid(), 2)(0, 3)
    np.testing.assert_allclose(direct_fun(params, X)[0], jax.nn.sigmoid(jax.nn.sigmoid(X)), rtol=1e-6)


def test_data_reach_later_layers_as_earlier_ones_leave_them():
    x = 5 * X + 2
    params, direct_fun, _ = flows.Serial(flows.Reverse(), flows.ActNorm(), flows.Sigmoid(), flows.ActNorm())(
        0, 3, init_inputs=x
    )
    y = direct_fun(params, x)[0]
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-4)
    flow = flows.Flow(flows.ActNorm(), flows.Flow(flows.Sigmoid(), flows.Flow(flows.ActNorm())))
    inner = flow(0, 3, init_inputs=x).params["prior"]["prior"]["bijection"]
    assert float(jnp.abs(inner["shift"]).min()) > 0.1


# Functions as layers


def branching(params, x):
    return 2 * x if x.sum() > 0 else 0.5 * x


def test_an_if_is_explained_and_runs_row_by_row_on_request():
    with pytest.raises(flows.FlowsError, match=r"jnp\.where.*lax\.cond.*vectorize=False"):
        flows.FromFunction(branching)(0, 2)
    init_fun = flows.FromFunction(branching, vectorize=False)
    params, direct_fun, inverse_fun = flows.Serial(flows.Reverse(), init_fun)(0, 2)
    x = jnp.array([[1.0, 2.0], [-1.0, -2.0]])
    y, log_det = direct_fun(params, x)
    assert y.tolist() == [[4.0, 2.0], [-1.0, -0.5]]
    np.testing.assert_allclose(log_det, [np.log(4), -np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(inverse_fun(params, y)[0], x, rtol=1e-6)
    assert direct_fun(params, x[:0])[0].shape == (0, 2)


def test_a_row_without_an_inverse_is_nan_and_verify_reports_it():
    def square(params, x):
        return x**2 + 1.0

    params, _, inverse_fun = flows.FromFunction(square)(0, 1)
    back = inverse_fun(params, jnp.array([[5.0], [0.5]]))[0]
    assert abs(float(back[0, 0])) == pytest.approx(2.0, rel=1e-5) and bool(jnp.isnan(back[1, 0]))
    assert not flows.verify(flows.FromFunction(square), 2).passed
    with pytest.raises(flows.FlowsError, match="keeps the number of entries"):
        flows.FromFunction(lambda params, x: x[:1])(0, 2)


def test_newton_judges_every_entry_by_its_own_scale():
    params, direct_fun, inverse_fun = flows.FromFunction(lambda params, x, slope=1.0: jnp.exp(slope * x))(0, 2)
    y = jnp.array([[1e-6, 1e6], [0.01, 1e5]])
    np.testing.assert_allclose(inverse_fun(params, y)[0], np.log(y), rtol=1e-5)
    assert bool(jnp.isnan(direct_fun(params, jnp.full((1, 2), jnp.nan))[1]).all())


def test_newton_finds_far_and_steep_solutions():
    with enable_x64():
        params, _, inverse_fun = flows.FromFunction(lambda params, x: x**3 + 1e-3 * x)(0, 1)
        y = jnp.array([[1e-9], [1e6], [-27.0], [0.0]])
        x = inverse_fun(params, y)[0]
        np.testing.assert_allclose(x**3 + 1e-3 * x, y, rtol=1e-9, atol=1e-15)
        params, _, inverse_fun = flows.FromFunction(lambda params, x: jnp.exp(x))(0, 1)
        np.testing.assert_allclose(inverse_fun(params, jnp.array([[1e-4], [1e4]]))[0], np.log([[1e-4], [1e4]]), rtol=1e-9)
