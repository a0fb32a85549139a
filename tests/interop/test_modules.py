"""A result as a field of modules of Equinox and Flax NNX, trained with the rest."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flows

eqx, nnx = pytest.importorskip("equinox"), pytest.importorskip("flax.nnx")
pytestmark = pytest.mark.usefixtures("relaxed")  # optax is not written for the strict rules

MODEL = flows.StandardizedContext(flows.Flow(flows.Serial(flows.Coupling(flows.MLP(4)), flows.Shuffle())))
ROWS, RAW = jnp.asarray(common.ROWS[:50], jnp.float32), jnp.asarray(np.random.default_rng(1).normal(size=(50, 5)), jnp.float32)
OPTIMIZER = optax.masked(optax.adamw(1e-2, weight_decay=0.1), flows.trainable)  # which would shrink whatever it is handed
pure = getattr(nnx, "as_pure", None) or nnx.pure  # as older ones call it


def result(seed=0, kind=flows.FitResult, model=MODEL, **more):
    """What a fit returns, without one; its scales are none of 0 and 1, so that decay would show."""
    triple = model(seed, 2, context_dim=3, init_inputs=ROWS, init_context=3 * RAW[:, :3] + 1)
    return kind(*triple, model, 2, 3, **more)


class OfEquinox(eqx.Module):
    encoder: eqx.nn.Linear
    flow: flows.FitResult

    def loss(self):
        return -self.flow.log_prob(ROWS, context=jax.vmap(self.encoder)(RAW)).mean()


class OfNNX(nnx.Module):
    def __init__(self, flow):
        self.encoder = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
        self.flow = nnx.data(jax.tree.map(nnx.Param, flow))

    def loss(self):
        return -pure(self.flow).log_prob(ROWS, context=self.encoder(RAW)).mean()


def of_equinox(flow=None):
    return OfEquinox(eqx.nn.Linear(5, 3, key=jax.random.key(0)), result() if flow is None else flow)


def check_trained(before, after):
    """All that trains has moved, and what is fixed is what it was, bit for bit."""
    keeps = jax.tree.leaves(flows.trainable(before.params))
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]
    assert same == [not keep for keep in keeps] and any(same)
    assert isinstance(after, flows.FitResult) and after.draw(0, 3, context=jnp.zeros(3)).shape == (3, 2)


def test_equinox_trains_a_result_with_the_rest():
    traces, module = [], of_equinox()

    @eqx.filter_jit
    def step(module, state):
        traces.append(0)
        value, gradients = eqx.filter_value_and_grad(OfEquinox.loss)(module)
        updates, state = OPTIMIZER.update(gradients, state, eqx.filter(module, eqx.is_inexact_array))
        return eqx.apply_updates(module, updates), state, value

    state, losses, trained = OPTIMIZER.init(eqx.filter(module, eqx.is_inexact_array)), [], module
    for _ in range(5):
        trained, state, loss = step(trained, state)
        losses.append(float(loss))
    np.testing.assert_allclose(losses[0], module.loss(), rtol=1e-5)
    assert losses[-1] < losses[0]
    check_trained(module.flow, trained.flow)
    step(of_equinox(result(1)), state)
    assert len(traces) == 1, "the functions of a result made anew are others"


def test_equinox_takes_a_module_with_a_result_apart(tmp_path):
    module, loss = of_equinox(), eqx.filter_jit(OfEquinox.loss)
    expected = loss(module)
    assert all(map(eqx.is_inexact_array, jax.tree.leaves(module)))
    assert loss(eqx.combine(*eqx.partition(module, eqx.is_inexact_array))) == expected
    assert loss(eqx.tree_at(lambda module: module.flow, of_equinox(result(1)), module.flow)) == expected
    assert eqx.tree_equal(module, of_equinox()) and not eqx.tree_equal(module, of_equinox(result(1)))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), module, of_equinox(result(1)))
    assert eqx.filter_eval_shape(eqx.filter_vmap(OfEquinox.loss), stacked).shape == (2,)
    eqx.tree_serialise_leaves(tmp_path / "module.eqx", module)
    read = eqx.tree_deserialise_leaves(tmp_path / "module.eqx", of_equinox(result(1)))
    assert isinstance(read.flow, flows.FitResult) and loss(read) == expected
    assert "FitResult" in eqx.tree_pformat(module) and "FitResult" in repr(module)


def test_nnx_trains_a_result_with_the_rest():
    traces, before = [], result()
    module = OfNNX(before)
    optimizer = nnx.Optimizer(module, OPTIMIZER, wrt=nnx.Param)
    expected = module.loss()

    @nnx.jit
    def step(module, optimizer):
        traces.append(0)
        value, gradients = nnx.value_and_grad(OfNNX.loss)(module)
        optimizer.update(module, gradients)
        return value

    losses = [float(step(module, optimizer)) for _ in range(5)]
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
    assert losses[-1] < losses[0] and len(traces) == 1
    check_trained(before, pure(module.flow))


def test_nnx_takes_a_module_with_a_result_apart():
    module = OfNNX(result())
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    fixed = [sum(not keep for keep in jax.tree.leaves(flows.trainable(tree))) for tree in (params, result())]
    assert fixed[0] == fixed[1] > 0, "the mask does not see what is fixed"
    loss = jax.jit(lambda params, rest: nnx.merge(graphdef, params, rest).loss())
    np.testing.assert_allclose(loss(params, rest), module.loss(), rtol=1e-5)
    whole = nnx.merge(graphdef, params, rest)
    assert isinstance(pure(whole.flow), flows.FitResult)
    nnx.update(whole, nnx.state(OfNNX(result(1)), nnx.Param))
    np.testing.assert_array_equal(*(jax.tree.leaves(pure(each.flow))[0] for each in (whole, OfNNX(result(1)))))


def test_one_variable_around_a_result_is_asked_as_it_is():
    class Around(nnx.Module):
        def __init__(self):
            self.flow = nnx.Param(result())

    loss = nnx.jit(lambda module: module.flow.log_prob(ROWS, context=RAW[:, :3]).mean())
    np.testing.assert_allclose(loss(Around()), result().log_prob(ROWS, context=RAW[:, :3]).mean(), rtol=1e-5)
