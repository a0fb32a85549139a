"""Parts: made once for each model, whatever is traced; plain closures, whose functions come with their params."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import X, scale_closure
from registry import masked, small, spline

import flows
from flows.core.caching import fresh_caches, program
from flows.core.closures import Bound
from flows.core.params import shapes_of
from flows.training.loop.trainer import _program_of


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


def drawing_closure(rng, input_dim):
    params, *functions = scale_closure(rng, input_dim)
    return jax.tree.map(lambda leaf: jax.random.normal(rng, leaf.shape), params), *functions


FIRST_INITS = {
    "a flow": lambda: flows.Flow(flows.Serial(Rotation(), flows.Coupling(small), flows.Repeat(Rotation(), 2))),
    "closures": lambda: flows.Flow(flows.Serial(drawing_closure, flows.Invert(drawing_closure), Rotation())),
    "copies of a closure": lambda: flows.Mixture(flows.Flow(flows.Repeat(drawing_closure, 2)), num_components=2),
}


@pytest.mark.parametrize("name", FIRST_INITS)
def test_a_first_init_may_be_traced_and_leaves_no_tracer_behind(name):
    keys = jax.random.split(jax.random.key(1), 2)

    def log_pdf(key):
        params, log_pdf, _ = FIRST_INITS[name]()(key, 3)
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
        shapes = jax.eval_shape(lambda key: FIRST_INITS[name]()(key, 3).params, keys[0])
        assert shapes_of(shapes) == shapes_of(FIRST_INITS[name]()(0, 3).params)


def calls_in_flows(function):
    """How many functions of the library are called, and how often, but those that listen to JAX once a bar was shown."""
    calls = []

    def note(frame, event, _):
        path = frame.f_code.co_filename
        if event == "call" and "/flows/" in path and not path.endswith("/core/programs.py"):
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


def test_functions_that_compute_the_same_are_shared_between_inits():
    made = []

    def layer(rng, input_dim):
        made.append(None)
        factor = 2.0 if len(made) < 4 else 3.0

        def direct_fun(params, inputs):
            return jax.nn.relu(factor) * inputs, jnp.full(len(inputs), input_dim * np.log(factor), inputs.dtype)

        def inverse_fun(params, inputs):
            return inputs / factor, jnp.full(len(inputs), -input_dim * np.log(factor), inputs.dtype)

        return {}, direct_fun, inverse_fun

    init_fun = flows.Serial(layer)
    first, second = init_fun(0, 3), init_fun(1, 3)
    assert first.direct_fun is second.direct_fun and first.inverse_fun is second.inverse_fun
    third = init_fun(1, 3)  # the layer computes something else now
    assert third.direct_fun is not first.direct_fun
    np.testing.assert_allclose(third.direct_fun(third.params, X)[0], 3 * X, rtol=1e-6)
    np.testing.assert_allclose(first.direct_fun(first.params, X)[0], 2 * X, rtol=1e-6)


def test_a_closure_in_all_its_places_has_plain_params():
    layer = flows.Serial(
        scale_closure, flows.Invert(scale_closure), flows.Repeat(scale_closure, 2), flows.FactorOut(scale_closure)
    )
    params, direct_fun, inverse_fun = layer(0, 3)
    assert not any(isinstance(node, Bound) for node in jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, Bound)))
    assert [shapes_of(own)[1] for own in params] == [((3,),), ((3,),), ((2, 3),), ((2,),)]
    y, log_det = direct_fun(params, X)
    np.testing.assert_allclose(
        y[:, :1] / X[:, :1], np.exp(2.0), rtol=1e-5
    )  # out after two times e; the first two undo each other
    np.testing.assert_allclose(log_det, 6.0 + 2.0, rtol=1e-5)
    back, minus = inverse_fun(params, y)
    np.testing.assert_allclose(back, X, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(minus, -log_det, rtol=1e-6)
    moved = flows.remeasure(layer, params, X)
    assert shapes_of(moved) == shapes_of(params)


def test_copies_of_a_closure_that_breaks_the_first_rule_are_refused():
    def rotation(rng, input_dim):
        w = jax.random.orthogonal(rng, input_dim)
        return {}, lambda p, x: (x @ w, jnp.zeros(len(x))), lambda p, y: (y @ w.T, jnp.zeros(len(y)))

    for init_fun in (flows.Repeat(rotation, 2), flows.Mixture(flows.Flow(rotation), num_components=2)):
        with pytest.raises(flows.FlowsError, match=r"functions of .* differ from one init to the next"):
            init_fun(0, 3)


def shuffle_closure(rng, input_dim):
    """The permutation of jax-flows 0.0.1, which its functions close over."""
    order = jax.random.permutation(rng, input_dim)
    back = jnp.argsort(order)
    return {}, lambda p, x: (x[:, order], jnp.zeros(len(x))), lambda p, y: (y[:, back], jnp.zeros(len(y)))


def centering_closure(rng, input_dim, init_inputs=None):
    mean = jnp.zeros((1, input_dim)) if init_inputs is None else init_inputs.mean(0, keepdims=True)
    return {}, lambda p, x: (x - mean, jnp.zeros(len(x))), lambda p, y: (y + mean, jnp.zeros(len(y)))


@pytest.mark.parametrize("layer", [shuffle_closure, centering_closure])
@pytest.mark.parametrize("members", [None, 2])
def test_fit_refuses_a_closure_whose_functions_are_not_those_of_every_init(layer, members):
    """The functions of the result are made anew, and would not be those that were trained."""
    flow, data = flows.Flow(flows.Serial(layer, flows.ActNorm())), np.random.default_rng(0).normal(size=(60, 6)) + 5
    fit = flows.fit if members is None else partial(flows.fit_ensemble, members=members)
    with pytest.raises(flows.FlowsError, match="differ from one init to the next"):
        fit(0, flow, data, max_epochs=1, verbose=0)


def test_a_model_of_ones_own_with_a_closure_inside_is_saved_and_loaded(path):
    @flows.bijection
    def Inside():
        return flows.Serial(scale_closure, flows.ActNorm())

    params, direct_fun, _ = Inside()(0, 3)
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)
    flows.save(path, Inside(), params, 3)
    loaded = flows.load(path, constructors=[Inside])
    np.testing.assert_array_equal(loaded.direct_fun(loaded.params, X)[0], direct_fun(params, X)[0])


def test_copies_of_a_closure_start_at_the_data():
    def normal(rng, input_dim):
        def log_pdf(params, x):
            return -0.5 * jnp.square(x - params["loc"][None]).sum(1)

        return {"loc": jnp.zeros(input_dim)}, log_pdf, lambda rng, params, n: jax.random.normal(rng, (n, input_dim))

    data = 100 + np.random.default_rng(0).normal(size=(50, 2))
    params = flows.Mixture(normal, num_components=3)(0, 2, init_inputs=data).params
    assert float(jnp.abs(params["components"]["loc"] - 100).max()) < 10


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


def test_a_program_tells_constants_derivatives_and_tracers_apart():
    def scaled(factor):
        return lambda params, x: x * params * factor

    @jax.custom_jvp
    def odd(x):
        return 2 * x

    @odd.defjvp
    def _(primals, tangents):
        return odd(primals[0]), 3 * tangents[0]

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
        lambda params, x: odd(params) * x, lambda params, x: (2 * params) * x, loop,
    ]  # fmt: skip
    digests = [digest(each) for each in different]
    assert len({*digests, None}) == len(different) + 1
    assert digest(remembered()) is None
    key = jax.random.key(3)
    assert digest(lambda params, x: x * params + jax.random.normal(key, x.shape)) is not None
    stopped = lambda params, x: jax.lax.stop_gradient(x) * params  # noqa: E731
    assert digest(stopped) != digest(lambda params, x: x * params)  # the derivative by x
    called = lambda params, x: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((2, 3), "float32"), x)  # noqa: E731
    assert digest(called) is None


def test_an_optimizer_with_a_python_state_is_told_from_another():
    def decaying(decay):
        def update(updates, state, params=None):
            return jax.tree.map(lambda leaf: -0.1 * decay**state * leaf, updates), state + 1

        return optax.GradientTransformation(lambda params: 0, update)

    params = {"w": jnp.ones(3)}
    one, again, other = (_program_of(decaying(decay), params) for decay in (0.1, 0.1, 0.9))
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
