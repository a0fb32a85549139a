"""Eager calls are filled up to few sizes, so that a new number of rows rarely compiles; no row's result is another."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from common import stirred

import flows
from flows.core.numerics import filled, first, grown

X = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
CONTEXT = np.random.default_rng(1).normal(size=(1000, 2)).astype(np.float32)
FLOW = flows.Flow(flows.Coupling(flows.MLP(4)))


@pytest.fixture(scope="module")
def programs():
    """The names of the programs that XLA has compiled so far."""
    names = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **given: names.append(given.get("fun_name")) if "backend_compile" in event else None
    )
    return names


def test_up_to_a_thousand_rows_there_are_twenty_sizes():
    sizes = [filled(n) for n in range(1001)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 20
    assert all(n <= size <= max(2 * n - 1, 1) for n, size in enumerate(sizes[:129]))


def test_sizes_are_few_and_not_much_too_large():
    assert all(n <= filled(n) <= 1.25 * n and filled(filled(n)) == filled(n) for n in range(129, 20_000))
    assert all(filled(n) % 512 for n in range(513, 20_000)), "CPUs are slow where rows lie so far apart"


def test_rows_are_filled_up_and_cut_without_a_program(programs):
    x = jax.device_put(X[:37, :2])
    before = len(programs)
    for n in range(1, 38):
        rows = first(x, n)
        assert isinstance(rows, jax.Array) and np.array_equal(rows, X[:n, :2])
        assert np.array_equal(grown(rows, 40), X[np.minimum(np.arange(40), n - 1), :2])
    assert len(programs) == before
    jax.jit(lambda x: x + 1)(x)
    assert len(programs) > before, "programs were counted"


def test_a_thousand_sizes_compile_forty_programs(programs):
    params, log_pdf, sample = FLOW(0, 3)
    sizes = np.random.default_rng(0).permutation(1000) + 1
    before = len(programs)
    for n in sizes:
        assert log_pdf(params, X[:n]).shape == (n,) and sample(0, params, int(n)).shape == (n, 3)
        assert len(programs) - before <= 40
    assert len(programs) - before >= 20, "programs were counted"
    before = len(programs)
    for n in sizes[:100] - 1:
        assert log_pdf(params, jax.device_put(X[:n])).shape == (n,) and len(sample(1, params, int(n))) == n
    assert len(programs) == before


@pytest.mark.parametrize("n", [3, 150, 600])
def test_a_row_has_the_result_that_it_has_in_any_other_number(n):
    distribution, layer = FLOW(0, 3, context_dim=2), flows.Coupling(flows.MLP(4))(0, 3, context_dim=2)
    densities, maps = (distribution.log_pdf, stirred(distribution.params, 0.5)), (layer.direct_fun, stirred(layer.params, 0.5))
    for (function, params), context in ((densities, CONTEXT[:n]), (densities, CONTEXT[0]), (maps, CONTEXT[:n])):
        found = jax.tree.leaves(function(params, X[:n], context=context))
        exact = jax.tree.leaves(jax.jit(function)(params, X[:n], context=context))
        for one, other in zip(found, exact, strict=True):
            assert isinstance(one, jax.Array) and one.shape == other.shape and float(jnp.std(one)) > 0.1
            assert np.all(np.abs(one - other) <= 4 * np.spacing(np.maximum(np.abs(other), 1.0)))


def test_draws_for_rows_of_context_are_those_of_any_number():
    params, _, sample = FLOW(0, 3, context_dim=2)
    draws = sample(0, params, 5, context=CONTEXT[:5])
    assert draws.shape == (5, 3) and float(jnp.std(draws)) > 0.1
    np.testing.assert_allclose(draws, sample(0, params, 7, context=CONTEXT[:7])[:5], rtol=1e-6)
    jitted = jax.jit(sample, static_argnums=2)(0, params, 5, context=CONTEXT[:5])
    np.testing.assert_allclose(draws, jitted, rtol=1e-5)


def test_what_may_depend_on_the_other_rows_is_not_filled():
    """Batch norm under train=True, and a plain closure that looks at the batch, see the rows given and no others."""
    x, rows = jnp.asarray(X[:5]), X[:5].astype(float)
    norm = flows.BatchNorm()(0, 3)
    y = norm.direct_fun(norm.params, x, train=True)[0]
    np.testing.assert_allclose(y, (rows - rows.mean(0)) / rows.std(0), atol=1e-3)

    def centred(rng, input_dim, **kwargs):
        def direct_fun(params, inputs, **kwargs):
            return inputs - inputs.mean(0, keepdims=True), jnp.zeros(len(inputs))

        return (), direct_fun, direct_fun

    for init_fun in (centred, flows.Serial(flows.ActNorm(), centred)):
        params, direct_fun, _ = init_fun(0, 3)
        np.testing.assert_allclose(direct_fun(params, x)[0], rows - rows.mean(0), atol=1e-6)

    def network(rng, input_dim, output_dim):
        return jnp.ones((input_dim, output_dim)), lambda params, inputs: (inputs - inputs.mean(0, keepdims=True)) @ params

    params, direct_fun, _ = flows.Serial(flows.Coupling(network))(0, 3)
    np.testing.assert_allclose(direct_fun(params, x)[0], jax.jit(direct_fun)(params, x)[0], rtol=1e-6)


def test_draws_that_may_depend_on_each_other_are_as_many_as_were_asked_for():
    def base(rng, input_dim, context_dim=0):
        def sample(rng, params, num_samples, context=None):
            centred = context - context.mean(0, keepdims=True)
            return jnp.broadcast_to(centred.sum(1)[:, None], (num_samples, input_dim))

        return (), lambda params, inputs, context=None: inputs.sum(1), sample

    distribution = flows.Flow(flows.ActNorm(), base)(0, 3, context_dim=2)
    found = distribution.sample(0, distribution.params, 5, context=CONTEXT[:5])
    np.testing.assert_allclose(found[:, 0], (CONTEXT[:5] - CONTEXT[:5].mean(0)).sum(1), atol=1e-5)


def test_an_array_written_to_after_the_call_changes_nothing():
    """NumPy arrays whose memory JAX could share are copied, whatever their size."""
    memory = np.empty(4 * 64 * 3 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    x = memory[start : start + 4 * 64 * 3].view(np.float32).reshape(64, 3)
    x[:] = X[:64]
    params, log_pdf, _ = FLOW(0, 3)
    expected = np.asarray(log_pdf(params, X[:64]))
    shared = flows.core.inputs.as_array(x, "x")
    x[:] = 7.0
    np.testing.assert_array_equal(shared, X[:64])
    np.testing.assert_array_equal(log_pdf(params, shared), expected)


def test_refusals_name_the_rows_that_were_given():
    params, log_pdf, _ = FLOW(0, 3, context_dim=2)
    with pytest.raises(flows.FlowsError, match=r"context has shape \(4, 2\), expected \(5, 2\)"):
        log_pdf(params, X[:5], context=CONTEXT[:4])
    with pytest.raises(flows.FlowsError, match=r"\(5, 2\)"):
        log_pdf(params, X[:5, :2], context=CONTEXT[:5])
    assert log_pdf(params, X[:0], context=CONTEXT[0]).shape == (0,)


def test_params_stay_where_the_key_is():
    """Stacked ones too, which NumPy puts together: a key that is committed to a device makes params that are."""
    key = jax.device_put(jax.random.key(0), jax.devices()[0])
    for given, committed in ((key, True), (jax.random.key(0), False)):
        params = flows.Repeat(flows.Coupling(flows.MLP(4)), 3)(given, 3).params
        assert {leaf.committed for leaf in jax.tree.leaves(params)} == {committed}
