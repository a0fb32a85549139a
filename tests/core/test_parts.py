"""Parts: made once for each model, whatever is traced; plain closures, whose functions are those of one init."""

import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import X, scale_closure
from registry import masked, small, spline

import flows
from flows.core.caching import fresh_caches
from flows.core.params import shapes_of
from flows.training.loop.trainer import program, program_of

X6 = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


@flows.bijection
def Rotation():
    """A layer that draws."""

    def init_fun(rng, shape):
        return {"fixed": {"w": jax.random.orthogonal(rng, shape[0])}}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return x @ params["fixed"]["w"], jnp.zeros(())

    def inverse_fun(params, y):
        return params["fixed"]["w"] @ y

    return init_fun


def drawing_flow():
    return flows.Flow(flows.Serial(Rotation(), flows.Coupling(small), flows.Repeat(Rotation(), 2)))


def test_a_first_init_may_be_traced_and_leaves_no_tracer_behind():
    keys = jax.random.split(jax.random.key(1), 2)

    def log_pdf(key):
        params, log_pdf, _ = drawing_flow()(key, 3)
        return log_pdf(params, X)

    def scanned(keys):
        return jax.lax.scan(lambda carry, key: (carry, log_pdf(key)), 0, keys)[1]

    found = []
    for run in (jax.jit(jax.vmap(log_pdf)), scanned, lambda keys: jnp.stack(list(map(log_pdf, keys)))):
        with fresh_caches():
            traced_first = run(keys)
            found.append((traced_first, log_pdf(keys[0])))  # what was kept serves an eager init
    for traced, eager in found:
        np.testing.assert_allclose(traced, found[-1][0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(eager, found[-1][0][0], rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(found[0][0][0] - found[0][0][1]).min()) > 1e-3  # the two keys draw two models
    with fresh_caches():
        shapes = jax.eval_shape(lambda key: drawing_flow()(key, 3).params, keys[0])
        assert shapes_of(shapes) == shapes_of(drawing_flow()(0, 3).params)


def calls_in_flows(function):
    """How many functions of the library are called, and how often, but those that listen to JAX once a bar was shown."""
    calls = []

    def note(frame, event, _):
        path = frame.f_code.co_filename
        if event == "call" and "/flows/" in path and not path.endswith("/persistence/programs.py"):
            calls.append((path, frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(set(calls)), len(calls)


def test_an_init_crosses_few_functions():
    """Most of the first trace each distinct layer once; a later one finds its part and runs what was compiled."""
    init_fun = flows.Flow(flows.NSF(2, hidden=(4,), num_bins=2))
    with fresh_caches():
        _, first = calls_in_flows(lambda: init_fun(0, 5))
        functions, later = calls_in_flows(lambda: init_fun(1, 5))
    assert first <= 1200
    assert functions <= 25 and later <= 100


# Plain closures


def shuffle_closure(rng, input_dim):
    """The permutation of jax-flows 0.0.1, which its functions close over."""
    order = jax.random.permutation(rng, input_dim)
    back = jnp.argsort(order)
    return {}, lambda p, x: (x[:, order], jnp.zeros(len(x))), lambda p, y: (y[:, back], jnp.zeros(len(y)))


def centering_closure(rng, input_dim, init_inputs=None):
    mean = jnp.zeros((1, input_dim)) if init_inputs is None else init_inputs.mean(0, keepdims=True)
    return {}, lambda p, x: (x - mean, jnp.zeros(len(x))), lambda p, y: (y + mean, jnp.zeros(len(y)))


def test_each_init_has_functions_of_its_own():
    init_fun = flows.Serial(flows.FactorOut(flows.Invert(shuffle_closure)), flows.ActNorm(), shuffle_closure)
    found = [init_fun(seed, 6) for seed in (0, 1, 0)]
    y = [each.direct_fun(each.params, X6)[0] for each in found]
    assert float(jnp.abs(y[0] - y[1]).max()) > 0.1
    np.testing.assert_array_equal(y[0], y[2])
    for each, out in zip(found, y, strict=True):
        np.testing.assert_allclose(each.inverse_fun(each.params, out)[0], X6, atol=1e-6)
    assert found[0].direct_fun is not found[2].direct_fun


def test_a_closure_in_all_its_places_has_plain_params():
    layer = flows.Serial(scale_closure, flows.Invert(scale_closure), scale_closure, flows.FactorOut(scale_closure))
    params, direct_fun, inverse_fun = layer(0, 3)
    assert [shapes_of(own)[1] for own in params] == [((3,),), ((3,),), ((3,),), ((2,),)]
    y, log_det = direct_fun(params, X)
    np.testing.assert_allclose(y[:, :1] / X[:, :1], np.exp(1.0), rtol=1e-5)  # out after e; the first two undo each other
    np.testing.assert_allclose(log_det, 3.0 + 2.0, rtol=1e-5)
    back, minus = inverse_fun(params, y)
    np.testing.assert_allclose(back, X, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(minus, -log_det, rtol=1e-6)
    moved = flows.remeasure(layer, params, X)
    assert shapes_of(moved) == shapes_of(params)


def test_what_needs_several_inits_of_one_model_refuses_a_closure(path):
    """Or an init that is traced, or functions made again for params that are there."""
    flow, data = flows.Flow(flows.Serial(scale_closure, flows.ActNorm())), np.random.default_rng(0).normal(size=(60, 3))
    quick = {"max_epochs": 1, "verbose": 0}

    @flows.bijection
    def Inside():
        return flows.Serial(scale_closure, flows.ActNorm())

    params = Inside()(0, 3).params
    result = flows.fit(0, flow, data, folds=1, **quick)
    for refused in (
        lambda: flows.Repeat(scale_closure, 2)(0, 3),
        lambda: flows.Mixture(flow, num_components=2)(0, 3),
        lambda: jax.jit(lambda key: flow(key, 3).params)(jax.random.key(0)),
        lambda: flows.fit_ensemble(0, flow, data, members=2, **quick),
        lambda: flows.fit(0, flow, data, folds=3, **quick),
        lambda: flows.save(path, Inside(), params, 3),
        lambda: pickle.dumps(result),
        lambda: result.verify(data),
        lambda: flows.select(0, {"closure": flow}, data, **quick),
    ):
        with pytest.raises(flows.FlowsError, match=r"plain closure.*@flows\.bijection"):
            refused()


def test_a_decorated_layer_may_make_a_model_of_closures():
    @flows.bijection(batched=True)
    def Around():
        def init_fun(rng, shape):
            params, direct_fun, inverse_fun = flows.Serial(scale_closure, scale_closure)(rng, shape)
            return params, direct_fun, lambda params, y: inverse_fun(params, y)[0]

        return init_fun

    params, direct_fun, _ = flows.Serial(Around(), flows.ActNorm())(0, 3)
    np.testing.assert_allclose(direct_fun(params, X)[0], np.exp(2.0) * X, rtol=1e-5)


@pytest.mark.parametrize("layer", [shuffle_closure, centering_closure])
def test_fit_trains_a_closure_with_the_functions_of_its_first_init(layer):
    flow, data = flows.Flow(flows.Serial(layer, flows.ActNorm())), np.random.default_rng(0).normal(size=(400, 6)) + 5
    settings = {"max_epochs": 3, "verbose": 0, "standardize": False, "validation": data[:100]}
    result = flows.fit(0, flow, data, **settings)
    score = float(np.mean(result.log_pdf(result.params, data[:100])))
    assert -score == pytest.approx(result.history.best, abs=1e-4)
    flow = flows.Flow(flows.Serial(layer, flows.Coupling(small)))
    with pytest.warns(UserWarning, match="5 models are better than one, but .* has a plain closure in it, so one is trained"):
        assert flows.fit(0, flow, data, **{**settings, "validation": None}).init_fun.arguments["bijection"]


def test_a_layer_that_remembers_rng_in_training_or_its_data_is_told_so():
    @flows.bijection
    def InTraining():
        def init_fun(rng, shape):
            noise = jax.random.normal(rng, shape)
            direct_fun = lambda params, x, train=False: (x + noise if train else x, jnp.zeros(()))  # noqa: E731
            return {}, direct_fun, lambda params, y: y

        return init_fun

    @flows.bijection
    def OfData():
        def init_fun(rng, shape, init_inputs=None):
            mean = jnp.zeros(shape) if init_inputs is None else init_inputs.mean(0)
            return {}, lambda params, x: (x - mean, jnp.zeros(())), lambda params, y: y + mean

        return init_fun

    for layer in (InTraining(), OfData()):
        with pytest.raises(flows.FlowsError, match="closes over a value that its init_fun drew from rng or computed from data"):
            layer(0, 3)


def test_a_program_tells_constants_and_tracers_apart():
    def scaled(factor):
        return lambda params, x: x * params * factor

    def remembered():
        kept = []
        jax.eval_shape(lambda x: kept.append(x) or x, jnp.ones(()))
        return lambda params, x: x * params * kept[0]

    def digest(function):
        return program(function, jnp.ones(()), jnp.ones((2, 3)))

    def loop(params, x):
        return jax.lax.while_loop(lambda state: state[0] < 3, lambda state: (state[0] + 1, state[1] * params), (0, x))[1]

    assert digest(scaled(2.0)) == digest(scaled(2.0)) is not None
    assert digest(loop) == digest(lambda *given: loop(*given)) is not None
    table = np.arange(3.0, dtype=np.float32)[None]
    different = [
        scaled(2.0), scaled(np.float32(2.0000002)), scaled(jnp.asarray(table)), scaled(jnp.asarray(table[:, ::-1])),
        lambda params, x: (2 * params) * x, loop,
    ]  # fmt: skip
    digests = [digest(each) for each in different]
    assert len({*digests, None}) == len(different) + 1
    assert digest(remembered()) is None
    key = jax.random.key(3)
    assert digest(lambda params, x: x * params + jax.random.normal(key, x.shape)) is not None
    called = lambda params, x: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((2, 3), "float32"), x)  # noqa: E731
    assert digest(called) is None


def test_an_optimizer_with_a_python_state_is_told_from_another():
    def decaying(decay):
        def update(updates, state, params=None):
            return jax.tree.map(lambda leaf: -0.1 * decay**state * leaf, updates), state + 1

        return optax.GradientTransformation(lambda params: 0, update)

    params = {"w": jnp.ones(3)}
    one, again, other = (program_of(decaying(decay), params) for decay in (0.1, 0.1, 0.9))
    assert one == again is not None and one != other


# Engines


def test_params_of_an_engine_are_a_dict_of_the_same_keys_whatever_the_options():
    weights = flows.transformers.MonotonicNetwork((4,), embedding=2)
    couplings = [
        flows.AffineCoupling(small), flows.Coupling(small, mask="random"), flows.Coupling(small, weights),
        flows.Coupling(small, unconditional=spline),
    ]  # fmt: skip
    autoregressive = [
        flows.MADE(masked),
        flows.Autoregressive(masked, random_order=True),
        flows.Autoregressive(masked, weights),
    ]
    for layers, keys in (
        (couplings, {"conditioner", "transformer", "unconditional", "fixed"}),
        (autoregressive, {"conditioner", "transformer", "fixed"}),
    ):
        for layer in layers:
            for event in (1, 3):
                assert set(layer(0, event).params) == keys
