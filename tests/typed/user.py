"""What a user writes, for mypy and pyright: right calls pass, and each wrong one is reported at its line.

Nothing here runs. Each wrong call carries a comment that says it is reported; a comment without a report is an error, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import jax
import jax.numpy as jnp

import flows
from flows.core.contract import LogPdf, Sample, Transform
from flows.diagnostics import VerifyReport
from flows.results.history import History
from flows.training import FitResult

x = jnp.ones((8, 2))


# Right: the contract


def closure(rng: jax.Array, input_dim: int) -> tuple[Any, Callable, Callable]:
    return {}, lambda params, inputs: (inputs, jnp.zeros(2)), lambda params, outputs: (outputs, jnp.zeros(2))


def network(rng: Any, input_dim: int, output_dim: int) -> tuple[Any, Callable]:
    return {}, lambda params, inputs: jnp.zeros((*inputs.shape[:-1], output_dim))


@flows.bijection
def Shift(by: float = 1.0):
    return lambda rng, shape: ({}, lambda params, x: (x + by, jnp.zeros(())), lambda params, y: y - by)


@flows.distribution(likelihood="lower bound")
def Bound(width: float):
    return lambda rng, shape: ({}, lambda params, x: -x.sum(), lambda rng, params: jnp.zeros(shape))


init_fun = flows.Flow(flows.Serial(flows.ActNorm(), Shift(2.0), closure, flows.Coupling(flows.MLP(8, 8))), flows.Normal())
params, log_pdf, sample = init_fun(0, 2)
assert_type(log_pdf, LogPdf)
assert_type(sample, Sample)
assert_type(log_pdf(params, x), jax.Array)
layer = flows.Repeat(flows.Serial(flows.Coupling(network), flows.Reverse()), 3)(jax.random.key(0), input_dim=2)
assert_type(layer.direct_fun, Transform)
outputs, log_det = layer.inverse_fun(layer.params, x, context=None, rng=0, train=False)
flows.Coupling(flows.MLP(8), [flows.transformers.Affine(), flows.transformers.Additive()], mask=[True, False])
flows.Autoregressive(flows.conditioners.MaskedMLP(8), flows.transformers.RationalQuadratic(num_bins=4))
flows.Mixture(flows.Normal(trainable=True), flows.Laplace(), weights=[0.5, 0.5])
flows.Joint(flows.Uniform(0.0, [1.0, 2.0]), Bound(1.0), sizes=(2, 1))
assert_type(flows.keep_programs("programs"), Path | None)
result = flows.fit(0, flows.Flow(flows.NSF(num_layers=2)), x, max_epochs=1)
assert_type(result, FitResult)
assert_type(result.history, History)
flows.fit(0, flows.Normal(trainable=True), [[1.0, 2.0]], validation=0.2)
flows.select(0, {"a": init_fun, "b": flows.Normal()}, x)
report: VerifyReport = flows.verify(closure, 3)


# Wrong

flows.Normal(True, "full", None, 4.0, 0.1, True, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
flows.Coupling(wrong=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
flows.fit(0, flows.NSF(), x)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
flows.fit(0, flows.Flow, x)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
flows.Flow()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
flows.Serial(flows.ActNorm)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
flows.Serial(flows.Normal())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
flows.Repeat(flows.ActNorm())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
flows.Flow(flows.ActNorm(), flows.Reverse())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
flows.Coupling(flows.transformers.Affine())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
flows.Coupling(flows.MLP(8), "affine")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
flows.transformers.RationalQuadratic(num_bin=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
flows.NSF(hidden=64)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shift("far")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Bound()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
log_pdf(params, inputs=x, weights=x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
sample(0, params, num_samples="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
result.history.draw()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
