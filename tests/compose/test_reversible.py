"""Gradients that find their inputs again: equal to those that keep them, in memory that does not grow with depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred
from networks import SmallConv

import flows
from flows import transformers as t
from flows.core.numerics import Precision, computed_with
from flows.diagnostics import enable_x64

STEP = flows.Serial(flows.ActNorm(), flows.InvertibleLinear(), flows.Coupling(flows.MLP(8, last_scale=1.0), t.Affine()))
IMAGES = flows.Serial(flows.ActNorm(), flows.InvertibleLinear(), flows.Coupling(SmallConv(), t.Affine()))
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
CONTEXT = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)


def loss_of(init_fun, x, context=None):
    given = {} if context is None else {"context": context}
    params, direct_fun, _ = init_fun(0, x.shape[1:], context_dim=0 if context is None else context.shape[1:])

    def loss(params, x, context):
        y, log_det = direct_fun(params, x, **({} if context is None else {"context": context}))
        weights = jnp.linspace(0.1, 1.0, y.size).reshape(y.shape)
        return (jnp.sin(y) * weights).sum() + jnp.square(log_det).sum()

    return stirred(params, 0.2), jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2) if given else (0, 1)))


def equal(plain, reversible, x, context=None):
    params, gradient = loss_of(plain, x, context)
    value, found = gradient(params, x, context)
    other, own = loss_of(reversible, x, context)[1](params, x, context)
    assert jax.tree.structure(found) == jax.tree.structure(own)
    close(other, value, 1e-5)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
        assert np.isfinite(b).all()
        scale = max(float(jnp.abs(a).max()), 1e-3)
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-4)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found)) > 0.1


def test_gradients_are_those_of_a_loop_that_keeps_its_inputs():
    equal(flows.Repeat(STEP, 3), flows.Repeat(STEP, 3, reversible=True), ROWS, CONTEXT)
    equal(flows.Repeat(flows.Coupling(flows.MLP(8)), 2), flows.Repeat(flows.Coupling(flows.MLP(8)), 2, reversible=True), ROWS)


def test_gradients_are_those_of_unlike_layers_that_keep_theirs():
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    layers = (flows.Squeeze(), flows.Repeat(IMAGES, 2, reversible=True), flows.ActNorm())
    plain = (flows.Squeeze(), flows.Repeat(IMAGES, 2), flows.ActNorm())
    equal(flows.Serial(*plain), flows.Reversible(*layers), images)


def test_memory_does_not_grow_with_depth():
    def bytes_of(n, **given):
        params, gradient = loss_of(flows.Repeat(STEP, n, **given), np.zeros((512, 4), np.float32))
        return gradient.lower(params, np.zeros((512, 4), np.float32), None).compile().memory_analysis().temp_size_in_bytes

    params = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(STEP(0, 4).params))  # and gradients, of one turn
    few, many = bytes_of(4, reversible=True), bytes_of(16, reversible=True)
    assert many < 1.05 * few + 12 * params
    assert bytes_of(16) > 2 * many


def test_convolutions_run_as_often_as_they_have_to():
    """A loop keeps their results for its gradient; a reversible one runs a network once on the way back, not twice."""
    step = flows.Serial(flows.ActNorm(), flows.Coupling(flows.conditioners.ConvNet(8), t.Affine()), flows.Reverse())
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)

    def convolutions(**given):
        params, gradient = loss_of(flows.Repeat(step, 3, **given), x)
        return gradient.lower(params, x, None).compile().as_text().count(" convolution(")

    # Two of 3x3 in the network: each once forwards and twice for its gradient, of kernels and of inputs.
    assert convolutions() == 6
    assert convolutions(reversible=True) == 8


def test_random_layers_draw_the_same_numbers_on_the_way_back():
    """Dropout in a coupling's network, by the key of its turn."""
    step = flows.Coupling(flows.MLP(16, dropout=0.5, last_scale=1.0))

    def gradient(init_fun):
        params, direct_fun, _ = init_fun(0, 4)

        def loss(params):
            return direct_fun(params, ROWS, rng=jax.random.key(3), train=True)[0].sum()

        return jax.grad(loss)(stirred(params, 0.2))

    found, own = (gradient(flows.Repeat(flows.Serial(step, flows.Reverse()), 2, reversible=each)) for each in (False, True))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_inputs_that_are_not_found_make_nan():
    """A scale so small that float32 loses the input; the value itself is finite."""
    params, direct_fun, _ = flows.Repeat(flows.FixedAffine(1.0), 2, reversible=True)(0, 2)
    assert np.isfinite(jax.grad(lambda x: direct_fun(params, x)[0].sum())(ROWS[:, :2])).all()
    lossy = flows.Repeat(flows.Serial(flows.ActNorm(), flows.Tanh()), 1, reversible=True)(0, 2)
    x = 4.0 * ROWS[:, :2] + np.float32(20.0)
    assert np.isfinite(lossy.direct_fun(lossy.params, x)[0]).all()
    assert np.isnan(jax.grad(lambda x: lossy.direct_fun(lossy.params, x)[0].sum())(x)).all()
    there, back = (flows.FixedAffine(1.0, (0.0, shift)) for shift in (1e6, -1e6))
    lossy = flows.Reversible(flows.FixedAffine((1.0, 1e4)), there, back)(0, 2)
    small = ROWS[:, :2] * np.float32([1.0, 1e-4])  # the second column alone is lost
    assert np.isnan(jax.grad(lambda x: lossy.direct_fun(lossy.params, x)[0].sum())(small)).all()
    same = np.ones((4, 4), np.float32)  # without spread
    params, gradient = loss_of(flows.Repeat(STEP, 2, reversible=True), same)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params, same, None)[1]))


def test_single_rows_have_gradients():
    """One row has no spread, by which inputs that are found again could be judged."""

    def per_row(init_fun, x):
        params, direct_fun, _ = init_fun(0, x.shape[1])
        params = stirred(params, 0.15)
        return jax.jit(jax.vmap(jax.grad(lambda row: direct_fun(params, row[None])[1].sum())))(x)

    found, expected = (per_row(flows.Repeat(STEP, 8, reversible=way), ROWS) for way in (True, False))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    lossy = flows.Repeat(flows.Serial(flows.ActNorm(), flows.Tanh()), 1, reversible=True)
    assert np.isnan(per_row(lossy, 4.0 * ROWS[:, :2] + np.float32(20.0))).all()


def test_gradients_are_exported_for_any_number_of_rows():
    params, direct_fun, _ = flows.Reversible(flows.Coupling(flows.MLP(4)), flows.ActNorm())(0, 4)
    gradient = jax.jit(jax.grad(lambda params, x: direct_fun(params, x)[1].sum()))
    (rows,) = jax.export.symbolic_shape("rows")
    exported = jax.export.export(gradient)(params, jax.ShapeDtypeStruct((rows, 4), np.float32))
    for a, b in zip(jax.tree.leaves(exported.call(params, ROWS)), jax.tree.leaves(gradient(params, ROWS)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_with_products_of_fewer_digits_inputs_are_found_or_the_gradient_is_nan():
    def loss(params, x):
        with computed_with(Precision("bfloat16")):
            y, log_det = direct_fun(params, x)
        return y.sum() + log_det.sum()

    params, direct_fun, _ = flows.Repeat(STEP, 3, reversible=True)(0, 4)
    gradient = jax.grad(loss)(stirred(params, 0.2), ROWS)
    _, direct_fun, _ = flows.Repeat(STEP, 3)(0, 4)
    plain = jax.grad(loss)(stirred(params, 0.2), ROWS)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(gradient), strict=True):
        scale = max(float(jnp.abs(a).max()), 1.0)
        assert np.isnan(b).all() or np.abs(a - b).max() < 0.02 * scale


def test_a_fit_by_it_is_that_of_a_plain_loop():
    rows = np.random.default_rng(0).normal(size=(400, 3)) @ np.random.default_rng(1).normal(size=(3, 3))
    quick = {"max_epochs": 2, "batch_size": 100, "verbose": 0, "folds": 1, "learning_rate": 1e-3}
    step = flows.Serial(flows.ActNorm(), flows.Coupling(flows.MLP(8)), flows.Reverse())
    losses = [
        flows.fit(0, flows.Flow(flows.Repeat(step, 3, reversible=each)), rows, **quick).history["validation_loss"]
        for each in (False, True)
    ]
    close(losses[0], losses[1], 1e-4)


def test_what_has_no_such_gradient_is_refused():
    for wrong, said in (
        (flows.BatchNorm(), "has no inverse in training"),
        (flows.Dequantize(), "is lower bound"),
        (flows.Continuous(trace="hutchinson", steps=2), "is unbiased"),
    ):
        assert said in error_of(lambda wrong=wrong: flows.Reversible(flows.ActNorm(), wrong)(0, 2))
        assert said in error_of(
            lambda wrong=wrong: flows.Repeat(flows.Serial(flows.ActNorm(), wrong), 2, reversible=True)(0, 2)
        )
    params, direct_fun, _ = flows.Repeat(STEP, 2, reversible=True)(0, 4)
    of_nothing = jax.grad(lambda params: direct_fun(params, jnp.zeros((0, 4)))[1].sum())(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(of_nothing))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: direct_fun(params, x)[1], (jnp.asarray(ROWS),), (jnp.asarray(ROWS),))


def test_a_loop_measures_float32_data_where_params_are_float64():
    with enable_x64():
        params = flows.Repeat(STEP, 2)(0, 4, init_inputs=ROWS).params
        one_by_one = flows.Serial(STEP, STEP)(0, 4, init_inputs=ROWS).params
    close(params[0]["shift"][0], one_by_one[0][0]["shift"], 1e-12)
    assert params[0]["shift"].dtype == np.float64


def test_a_loop_measures_data_by_one_program():
    """As many as the layers measured one after the other, also where it is traced."""
    rows = (ROWS * [1.0, 10.0, 0.1, 3.0] + 5.0).astype(np.float32)
    step = flows.Serial(flows.ActNorm(), flows.InvertibleLinear())
    looped = flows.Repeat(step, 3)(0, 4, init_inputs=rows).params
    x = rows
    for i, key in enumerate(jax.random.split(jax.random.key(0), 3)):
        own = step(key, 4, init_inputs=x).params
        for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(looped), strict=True):
            close(b[i], a, 1e-4)
        x = step(0, 4).direct_fun(own, x)[0]

    def size(n):
        return len(str(jax.make_jaxpr(lambda x: flows.Repeat(step, n)(0, 4, init_inputs=x).params)(rows)))

    assert size(12) < 1.2 * size(3)
