"""Arrays of any kind that users have: what is converted, and what is refused rather than computed with in silence."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from jax.sharding import PartitionSpec

import flows
from flows.diagnostics import enable_x64
from flows.training.loop.losses import has_running_statistics

NORMAL = flows.Normal(trainable=True)(0, 1)
X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def log_pdf(x):
    return NORMAL.log_pdf(NORMAL.params, x)


def test_masked_values_are_refused_everywhere():
    masked = np.ma.masked_array([[1.0], [2.0]], [[0], [1]])
    layer = flows.ActNorm()(0, 1)
    for call in (
        lambda: log_pdf(masked),
        lambda: layer.direct_fun(layer.params, masked),
        lambda: flows.ActNorm()(0, 1, init_inputs=masked),
        lambda: flows.fit(0, flows.Normal(trainable=True), masked),
        lambda: flows.remeasure(flows.ActNorm(), layer.params, masked),
    ):
        assert "masked values; drop these rows, or fill them" in error_of(call)
    close(log_pdf(np.ma.masked_array([[1.0]], [[0]])), log_pdf([[1.0]]), 0)


@pytest.mark.parametrize("dtype", [">f8", ">f4", "<f8", "longdouble", ">i4", "<i8", "uint8", "float16", "bool"])
def test_numbers_in_any_dtype_of_numpy(dtype):
    x = np.array([[0], [1]]).astype(dtype)
    close(log_pdf(x), log_pdf([[0.0], [1.0]]), 1e-3)
    result = flows.fit(0, flows.Normal(trainable=True), np.tile(x, (50, 1)), dequantize=1.0, max_epochs=1, verbose=0)
    assert np.isfinite(result.log_pdf(result.params, x)).all()


def test_rows_of_float32_where_float64_is_on():
    params, density, sample = flows.Flow(flows.Coupling(flows.MLP(4)))(0, 2)
    expected = density(params, X[:4, :2])
    with enable_x64():
        assert density(params, X[:4, :2]).dtype == sample(0, params, 3).dtype == np.float32
        close(density(params, X[:4, :2]), expected, 1e-6)


def test_whole_numbers_that_float32_cannot_hold():
    big = np.array([[1_000_000_001]])
    for x in (big, np.array([[1], [1_000_000_001]]), big.tolist(), jnp.array([[16_777_217]])):
        assert "holds the whole number 1" in error_of(lambda x=x: log_pdf(x))
    assert "it would be 1000000000. Subtract an offset" in error_of(lambda: log_pdf(big))
    log_pdf(np.array([[1_000_000_000]]))  # which it can
    with enable_x64():
        params, exact, _ = flows.Normal(trainable=True)(0, 1)
        close(exact({**params, "loc": params["loc"] + 1e9}, big), -1.4189385332, 1e-9)
    rows = np.random.default_rng(0).integers(10**9, 10**9 + 10**7, (500, 1))  # are standardised in float64 first
    assert flows.fit(0, flows.Normal(trainable=True), rows, max_epochs=1, verbose=0).history["start_loss"] < 17


@pytest.mark.parametrize(
    "make",
    [
        lambda: flows.Coupling(flows.conditioners.Residual(8, 1, batch_norm=True)),
        lambda: flows.Autoregressive(flows.conditioners.MaskedResidual(8, 1, batch_norm=True)),
    ],
    ids=["coupling", "autoregressive"],
)
def test_statistics_of_networks_are_measured_again_by_fit(make):
    model = flows.Flow(make())
    result = flows.fit(0, model, X, validation=X, standardize=False, max_epochs=2, ema=None, learning_rate=0.1, verbose=0)
    assert has_running_statistics(result.init_fun) and not has_running_statistics(flows.Flow(flows.ActNorm()))
    again = flows.remeasure(model, result.params, X)
    close(result.params["bijection"]["conditioner"]["fixed"]["mean"], again["bijection"]["conditioner"]["fixed"]["mean"], 1e-5)


@pytest.mark.parametrize(
    "model",
    [
        flows.RealNVP(4, hidden=(4,), scan=True),
        flows.MAF(4, hidden=(4,), scan=True),
        flows.NAF(1, hidden=(4,), num_units=2),
        flows.Repeat(flows.Coupling(flows.MLP(4)), 2, reversible=True),
    ],
    ids=["coupling", "autoregressive", "numerical inverse", "reversible"],
)
def test_loops_run_under_shard_map(model):
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    params, direct_fun, inverse_fun = model(0, 3)
    everywhere, by_rows = PartitionSpec(), PartitionSpec("rows")
    for function in (direct_fun, inverse_fun):
        sharded = jax.shard_map(function, mesh=mesh, in_specs=(everywhere, by_rows), out_specs=by_rows)
        for a, b in zip(jax.jit(sharded)(params, X), function(params, X), strict=True):
            close(a, b, 1e-5)

    def gradient(direct_fun):
        found = jax.jit(jax.grad(lambda params: direct_fun(params, X)[1].mean()))(params)
        return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found)])

    by_row = jax.shard_map(direct_fun, mesh=mesh, in_specs=(everywhere, by_rows), out_specs=by_rows)
    close(gradient(by_row), gradient(direct_fun), 1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.sample(0, t.params, 10**15), "num_samples is 1,000,000,000,000,000 of 3 numbers each; expected at most"),
        (lambda t: t.sample(0, t.params, 10**9), "Draw them in parts"),
        (lambda t: flows.RealNVP(hidden=b"ab"), "hidden is b'ab'; expected the widths of the hidden layers"),
        (lambda t: flows.MLP(b"ab"), "expected a whole number"),
        (lambda t: t.log_pdf(t.params, [[1.0, 2.0, 3.0], [1.0]]), "expected rows of equal length"),
        (lambda t: t.log_pdf(jax.tree.map(lambda leaf: leaf.astype(int), t.params), X), r"dtype int32; expected floating"),
        (lambda t: t.log_pdf("a", X), "params hold a leaf that is not an array of numbers"),
        (lambda t: t.log_pdf(np.ma.masked_equal([1, 2], 2), X), "params hold a leaf that is not an array of numbers"),
        (
            lambda t: flows.objectives.forward_kl("a", t, lambda x: x[:, 0], 0, 5),
            "forward_kl: params has the value 'a'; expected",
        ),
        (lambda t: flows.objectives.reverse_kl(t.params, t, lambda x: x[:, 0], 0, 5, estimator=X), "estimator is"),
        (lambda t: flows.load(3), "load: path is 3; expected the name of a file"),
        (lambda t: flows.Flow(flows.Glow())(0, (4, 4, 2)), "models of images are GlowImage()"),
        (lambda t: flows.Flow(flows.NSF(plain=True, autoregressive=False))(0, (4, 4, 2)), "models of images are GlowImage()"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_plain_words(call, words):
    triple = flows.Flow(flows.ActNorm())(0, 3)
    with pytest.raises((flows.FlowsError, TypeError), match=re.escape(words).replace(r"\ ", " ")):
        call(triple)
