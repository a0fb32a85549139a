"""Layers of one's own: plain closures, decorated layers, functions; what is fixed and what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import X, error_of, scale_closure
from registry import small

import flows
from flows.diagnostics import enable_x64

# Plain closures


def test_a_plain_closure_is_a_first_class_layer():
    init_fun = flows.Flow(flows.Serial(scale_closure, flows.AffineCoupling(small)))
    params, log_pdf, _ = init_fun(0, 3)
    np.testing.assert_array_equal(log_pdf(params, X), init_fun(1, 3).log_pdf(params, X))
    assert flows.verify(scale_closure, 3).passed
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

    report = flows.verify(wrong_sign, 3)
    assert [each.name for each in report.properties if not each.passed] == ["its own log_det of inverse"]
    assert str(report).split("\n")[0].endswith("a bijection, but its log_det is WRONG")


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
        np.testing.assert_allclose(init_fun(0, 3).direct_fun(({},), X)[0], 2 * X, rtol=1e-6)
        setting["scale"] = 3.0
        np.testing.assert_allclose(init_fun(0, 3).direct_fun(({},), X)[0], 3 * X, rtol=1e-6)


def test_an_init_may_use_numpy_and_is_then_run_as_a_closures(tmp_path):
    """It has functions of its own, which serve its params alone; those of a trial serve params that are there."""

    @flows.bijection
    def Numpy():
        def init_fun(rng, shape):
            w = np.linalg.qr(np.asarray(jax.random.normal(rng, shape * 2)))[0]
            return {"fixed": {"w": w}}, lambda p, x: (x @ p["fixed"]["w"], jnp.zeros(())), lambda p, y: p["fixed"]["w"] @ y

        return init_fun

    first, second = Numpy()(0, 3), Numpy()(1, 3)
    assert float(jnp.abs(first.params["fixed"]["w"] - second.params["fixed"]["w"]).max()) > 0.1
    np.testing.assert_array_equal(second.direct_fun(first.params, X)[0], first.direct_fun(first.params, X)[0])
    flow, quick, rows = flows.Flow(Numpy()), {"max_epochs": 1, "verbose": 0}, np.random.default_rng(0).normal(size=(40, 3))
    for refused in (
        lambda: flows.Repeat(Numpy(), 2)(0, 3),
        lambda: flows.Mixture(flow, num_components=2)(0, 3),
        lambda: flows.fit_ensemble(0, flow, rows, members=2, **quick),
        lambda: flows.fit(0, flow, X, folds=3, **quick),
        lambda: jax.jit(lambda key: flow(key, 3).params)(jax.random.key(0)),
    ):
        with pytest.raises(flows.FlowsError, match=r"Numpy.*a layer in NumPy.*Write its init_fun with jax\.numpy"):
            refused()
    params, log_pdf, _ = flow(0, 3)
    flows.save(tmp_path / "numpy.flows", flow, params, 3)
    loaded = flows.load(tmp_path / "numpy.flows", constructors=[Numpy])
    np.testing.assert_array_equal(loaded.log_pdf(loaded.params, X), log_pdf(params, X))


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
        new = flows.remeasure(init_fun, old, x)
        for got, expected in zip(direct_fun(new, x), in_training, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6)
        for a, b, train in zip(*map(jax.tree.leaves, (old, new, flows.trainable(old))), strict=True):
            assert not train or (a == b).all()
        half = flows.remeasure(init_fun, old, x, moving=True)
        m = float(old[0]["fixed"]["momentum"])
        expected = m * old[0]["fixed"]["mean"] + (1 - m) * x.mean(0)
        np.testing.assert_allclose(half[0]["fixed"]["mean"], expected, rtol=1e-6)
        with pytest.raises(flows.FlowsError, match="train=False"):
            inverse_fun(new, x, train=True)


def test_batch_norm_repeats_moves_and_has_finite_gradients_on_constants():
    init_fun = flows.Repeat(flows.BatchNorm(momentum=0.25), 3)
    params = init_fun(0, 3).params
    moved = flows.remeasure(init_fun, params, X, moving=True)
    np.testing.assert_allclose(moved["fixed"]["mean"][0], 0.75 * X.mean(0), rtol=1e-5)
    assert moved["fixed"]["momentum"].tolist() == [0.25] * 3
    params, direct_fun, _ = flows.BatchNorm()(0, 3)
    gradient = jax.grad(lambda x: direct_fun(params, x, train=True)[0].sum())(jnp.ones((3, 3)))
    assert bool(jnp.isfinite(gradient).all())
    fixed = flows.Standardize()(0, 1, init_inputs=np.full((1000, 1), 0.1)).params["fixed"]
    assert fixed["std"].tolist() == [1.0]
    with pytest.raises(flows.FlowsError, match="another input_dim"):
        flows.remeasure(flows.BatchNorm(), flows.BatchNorm()(0, 1).params, X)


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


def test_each_row_of_a_layer_that_draws_has_a_key_of_its_own():
    @flows.bijection
    def Noisy():
        return lambda rng, shape: ({}, direct_fun, inverse_fun)

    def direct_fun(params, x, rng=None):
        return x + jax.random.normal(rng, x.shape), jnp.zeros(())

    def inverse_fun(params, y, rng=None):
        return y - jax.random.normal(rng, y.shape)

    params, direct_fun_, inverse_fun_ = flows.Serial(Noisy(), Noisy())(0, 2)
    y = direct_fun_(params, jnp.zeros((8, 2)), rng=1)[0]
    assert len(np.unique(y)) == 16
    np.testing.assert_allclose(inverse_fun_(params, y, rng=1)[0], 0, atol=1e-6)


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
    shifted = flows.FromFunction(lambda params, x: jnp.exp(x) - jnp.array([1.7, 0.0]))(0, 2)
    back = shifted.inverse_fun({}, jnp.array([[0.0, 1e4], [0.0, 1e-3]]))[0]  # one entry of each row has target 0
    np.testing.assert_allclose(back, np.log([[1.7, 1e4], [1.7, 1e-3]]), rtol=1e-5)
    assert bool(jnp.isnan(direct_fun(params, jnp.full((1, 2), jnp.nan))[1]).all())


def test_newton_finds_far_and_steep_solutions():
    with enable_x64():
        params, _, inverse_fun = flows.FromFunction(lambda params, x: x**3 + 1e-3 * x)(0, 1)
        y = jnp.array([[1e-9], [1e6], [-27.0], [0.0]])
        x = inverse_fun(params, y)[0]
        np.testing.assert_allclose(x**3 + 1e-3 * x, y, rtol=1e-9, atol=1e-15)
        params, _, inverse_fun = flows.FromFunction(lambda params, x: jnp.exp(x))(0, 1)
        np.testing.assert_allclose(inverse_fun(params, jnp.array([[1e-4], [1e4]]))[0], np.log([[1e-4], [1e4]]), rtol=1e-9)


@flows.bijection
def NearlyRight():
    """An inverse that is wrong where a normal has a thirtieth of its mass."""

    def init_fun(rng, shape):
        return {}, lambda params, x: (x + 1, 0.0 * x.sum()), lambda params, y: jnp.where(y > 2.8, y, y - 1)

    return init_fun


def test_verify_looks_at_enough_points_to_find_what_is_rarely_wrong():
    assert not flows.verify(NearlyRight(), 2).passed
    assert flows.verify(NearlyRight(), 2, rows=2).passed, "two points say nothing"
    for rows in (0, 1.5, True, "many"):
        assert "verify: rows is" in error_of(lambda rows=rows: flows.verify(NearlyRight(), 2, rows=rows))


def test_a_layer_may_be_a_record():
    """Its inverse's own log-det is taken, and of the keywords that its functions name, or take as `**call`, they are handed
    those that it says."""

    @flows.bijection
    def Noted(wrong=False):
        def init_fun(rng, shape, context_dim=0):
            functions = (5,) if wrong else (inverse_fun, both)
            return flows.Layer({"a": jnp.zeros(shape)}, direct_fun, *functions, keywords=("context",))

        def direct_fun(params, x, context=None, rng=None):
            seen.append(rng)
            return x * jnp.exp(params["a"]) + context.sum(), params["a"].sum()

        def inverse_fun(params, y, context=None, rng=None):
            return (y - context.sum()) * jnp.exp(-params["a"])

        def both(params, y, **call):
            return inverse_fun(params, y, **call), -params["a"].sum() + 7.0

        return init_fun

    seen = []
    params, direct_fun, inverse_fun = Noted()(0, 2, context_dim=1)
    y, log_det = direct_fun(params, X[:, :2], context=jnp.ones(1), rng=0)
    x, back = inverse_fun(params, y, context=jnp.ones(1))
    np.testing.assert_allclose(x, X[:, :2], rtol=1e-5)
    assert set(seen) == {None} and log_det.tolist() == [0.0] * len(X) and back.tolist() == [7.0] * len(X)
    with pytest.raises(TypeError, match=r"Noted: its init_fun returned Layer.*expected a Layer of params and functions"):
        Noted(wrong=True)(0, 2, context_dim=1)


def test_a_longer_tuple_is_told_what_a_record_is():
    @flows.bijection
    def Four():
        def init_fun(rng, shape):
            return {}, lambda params, x: (x, x.sum()), lambda params, y: y, lambda params, y: (y, y.sum())

        return init_fun

    with pytest.raises(
        TypeError, match=r"Four: its init_fun returned .*expected \(params, function, function\), or a flows.Layer"
    ):
        Four()(0, 2)
