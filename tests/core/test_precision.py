"""What a density keeps in float32: a row's does not depend on the others, and low-precision data are computed with care."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import stirred
from registry import BIJECTIONS

import flows
from flows.conditioners import MaskedMLP, MaskedResidual, Residual
from flows.transformers import MixtureCDF, RationalQuadratic

DEEP = {
    "RealNVP": (flows.RealNVP(3, hidden=(64, 64)), 21),
    "MAF": (flows.MAF(3, hidden=(64, 64)), 21),
    "NSF": (flows.NSF(2, hidden=(32, 32)), 5),
    "NSF, masked residual": (flows.Repeat(flows.Autoregressive(MaskedResidual(32), RationalQuadratic()), 3), 8),
    "NSF, residual": (flows.Serial(flows.Coupling(Residual(32), RationalQuadratic()), flows.InvertibleLinear()), 8),
    "MixtureCDF": (flows.Autoregressive(MaskedMLP(32), MixtureCDF()), 8),
}
SIZES = (1, 3, 16, 257)


def some_of(few):
    return [each if each in few else pytest.param(each, marks=pytest.mark.slow) for each in DEEP]


def check_rows(name, sizes, jit):
    bijection, d = DEEP[name]
    params, log_pdf, _ = flows.Flow(bijection)(0, d)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), stirred(params, by=0.05))
    x = np.random.default_rng(1).normal(size=(1000, d)).astype(np.float32)
    log_pdf = jit(log_pdf)
    whole = np.asarray(log_pdf(params, x))
    assert len(np.unique(whole)) > 900
    ulp = np.finfo(np.float32).eps * np.maximum(1, np.abs(whole))
    for rows in sizes:
        part = np.asarray(log_pdf(params, x[:rows]))
        # A row alone is a matrix times a vector, which some processors add up in another order: 7.1 was seen.
        assert (np.abs(part - whole[:rows]) <= 8 * ulp[:rows]).all(), f"{rows} rows: {np.abs(part - whole[:rows]) / ulp[:rows]}"


@pytest.mark.parametrize("name", some_of(("MAF", "NSF")))
def test_the_density_of_a_row_does_not_depend_on_its_batch(name, optimized):
    check_rows(name, (1, 257), optimized)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_nor_on_a_batch_of_any_size(name, optimized):
    check_rows(name, SIZES, optimized)


@pytest.mark.parametrize("name", some_of(("RealNVP", "MixtureCDF")))
def test_bfloat16_data_are_computed_in_float32(name):
    bijection, d = DEEP[name]
    params, direct_fun, inverse_fun = bijection(0, d)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), stirred(params, by=0.05))
    x = jnp.asarray(np.random.default_rng(2).normal(size=(7, d)), jnp.bfloat16)
    y, log_det = direct_fun(params, x)
    expected, full = direct_fun(params, x.astype(np.float32))
    assert y.dtype == jnp.bfloat16 and log_det.dtype == jnp.float32
    np.testing.assert_array_equal(log_det, full)
    np.testing.assert_array_equal(y, expected.astype(jnp.bfloat16))
    np.testing.assert_array_equal(inverse_fun(params, y)[1], inverse_fun(params, y.astype(np.float32))[1])


@pytest.mark.parametrize("name", ["BlockAutoregressive", "FixedInvertibleLinear", "InvertibleLinear", *DEEP])
def test_products_ask_for_every_digit_on_accelerators(name):
    bijection, d = DEEP[name] if name in DEEP else (BIJECTIONS[name].init_fun, 3)
    made = []
    params = jax.eval_shape(lambda: made.append(bijection(0, d)) or made[0].params)
    for fun in made[0][1:]:
        program = jax.jit(fun).lower(params, jnp.zeros((600, d))).as_text()
        products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in products), products
        assert products or "solve" in program
