"""The fixed scalar maps against high-precision values, at the ends of float32, and outside their supports."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from common import error_of
from scipy import special

import flows
from flows.bijections import Support
from flows.bijections.composition import layers_of
from flows.diagnostics import enable_x64

TINY, LARGE, LARGEST = 1.2e-38, 1e30, 3e38  # the smallest normal number of float32, and near the largest
REAL = np.array([-LARGEST, -LARGE, -60, -8, -1, -1e-3, -TINY, 0, TINY, 1e-3, 1, 8, 60, LARGE, LARGEST], np.float32)
POSITIVE = REAL[REAL > 0]


def declared(init_fun):
    """The intervals of its inputs and outputs."""
    declared = layers_of(init_fun)[0].declared
    return Support(declared.inputs, declared.outputs)


def softplus(x):
    return np.logaddexp(x, 0.0)


def log_normal(z):
    return -0.5 * z**2 - 0.5 * np.log(2 * np.pi)


# Constructor's value, then in float64: y(x), log dy/dx, x(y).
MAPS = {
    "Exp": (flows.Exp(), np.exp, lambda x: x, np.log),
    "Softplus": (flows.Softplus(), softplus, lambda x: -softplus(-x), lambda y: y + np.log(-np.expm1(-y))),
    "Tanh": (flows.Tanh(), np.tanh, lambda x: 2 * (np.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x)))), np.arctanh),
    "LeakyReLU": (
        flows.LeakyReLU(),
        lambda x: np.where(x < 0, 0.01 * x, x),
        lambda x: np.where(x < 0, np.log(0.01), 0.0),
        lambda y: np.where(y < 0, 100 * y, y),
    ),
    "NormalCDF": (
        flows.NormalCDF(1.0, 2.0),
        lambda x: special.ndtr((x - 1) / 2),
        lambda x: log_normal((x - 1) / 2) - np.log(2),
        lambda y: 1 + 2 * special.ndtri(y),
    ),
    "LogisticCDF": (
        flows.LogisticCDF(1.0, 2.0),
        lambda x: special.expit((x - 1) / 2),
        lambda x: -softplus((x - 1) / 2) - softplus((1 - x) / 2) - np.log(2),
        lambda y: 1 + 2 * special.logit(y),
    ),
    "Power": (
        flows.Power(1.5),
        lambda x: x**1.5,
        lambda x: np.log(1.5) + 0.5 * np.log(x),
        lambda y: y ** (1 / 1.5),
    ),
    "Power below 0": (
        flows.Power(-2),
        lambda x: x**-2.0,
        lambda x: np.log(2) - 3 * np.log(x),
        lambda y: y**-0.5,
    ),
    "Power 1": (flows.Power(1), lambda x: x, np.zeros_like, lambda y: y),
    "FixedAffine": (flows.FixedAffine(-4.0, 1.0), lambda x: 1 - 4 * x, lambda x: np.log(4) + 0 * x, lambda y: (1 - y) / 4),
}


def inside(interval, x):
    low, high = interval
    return x[(x > low) & (x < high)]


def as_float32(x):
    """As float32 arithmetic rounds: beyond its range to inf, and what is not a normal number to 0."""
    with np.errstate(over="ignore"):
        x = np.asarray(x).astype(np.float32)
    return np.where(np.abs(x) < 1.1754944e-38, np.float32(0), x)


@pytest.mark.parametrize("name", MAPS)
def test_values_are_right_to_the_ends_of_float32_and_gradients_are_numbers(name):
    init_fun, direct, log_slope, inverse = MAPS[name]
    params, direct_fun, inverse_fun = init_fun(0, 1)

    @jax.jit
    def both(x):
        def slopes(fun):
            return [jax.vmap(jax.grad(lambda x, i=i: fun(params, x[None])[i].sum()))(x) for i in range(2)]

        return direct_fun(params, x), slopes(direct_fun), inverse_fun(params, x), slopes(inverse_fun)

    own = declared(init_fun)
    with np.errstate(over="ignore", divide="ignore", under="ignore", invalid="ignore"):
        x = inside(own.inputs, REAL)
        outputs, slopes, *_ = both(x[:, None])
        y, log_det = (np.asarray(each).ravel() for each in outputs)
        np.testing.assert_allclose(y, as_float32(direct(x.astype(float))), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(log_det, as_float32(log_slope(x.astype(float))), rtol=1e-6, atol=2e-7)
        assert not np.isnan(slopes).any()

        edge = np.nextafter(np.float32(own.outputs.high), np.float32(0)) if np.isfinite(own.outputs.high) else LARGEST
        y = np.append(inside(own.outputs, REAL), np.float32(edge))
        *_, inputs, slopes = both(y[:, None])
        x, log_det = (np.asarray(each).ravel() for each in inputs)
        np.testing.assert_allclose(x, as_float32(inverse(y.astype(float))), rtol=2e-6, atol=2e-7)
        np.testing.assert_allclose(log_det, as_float32(-log_slope(x.astype(float))), rtol=1e-6, atol=2e-7)
        assert not np.isnan(slopes).any()


def test_values_of_fifty_digit_arithmetic():
    with enable_x64():

        def at(init_fun, x, inverse=False):
            triple = init_fun(0, 1)
            value, log_det = triple[1 + inverse](triple.params, np.array([[x]], float))
            return [float(value[0, 0]), float(log_det[0])]

        close = lambda got, expected: np.testing.assert_allclose(got, expected, rtol=1e-13)  # noqa: E731
        close(at(flows.Tanh(), 20.0)[1], -38.61370563888010939)
        np.testing.assert_allclose(at(flows.Tanh(), 1e-3)[1], -9.999998333333777778e-7, atol=3e-16)
        close(at(flows.Softplus(), -40.0), [4.248354255291588986e-18, -40.0])
        close(at(flows.Softplus(), 1e-10, inverse=True)[0], -23.0258509298904568)
        close(at(flows.Softplus(), 40.0, inverse=True)[0], 40.0)
        close(at(flows.NormalCDF(), -10.0), [7.619853024160526066e-24, -50.91893853320467274])
        close(at(flows.NormalCDF(1.0, 2.0), -5.0), [1.349898031630094527e-3, -5.418938533204672742 - np.log(2)])
        close(at(flows.NormalCDF(), 1e-20, inverse=True)[0], -9.26234008979840758)
        close(at(flows.NormalCDF(), 0.975, inverse=True)[0], 1.959963984540053856)
        close(at(flows.LogisticCDF(), -30.0), [9.357622968839298954e-14, -30.00000000000018715])
        close(at(flows.Power(0.3), 7.0), [1.79278996252099719, -2.566109908664655365])


@pytest.mark.parametrize("name", [name for name, case in MAPS.items() if declared(case[0]) != Support()])
def test_outside_the_support_is_nan_and_its_ends_are_not(name):
    init_fun = MAPS[name][0]
    params, *functions = init_fun(0, 1)
    own = declared(init_fun)
    for fun, (low, high) in zip(functions, (own.inputs, own.outputs), strict=True):
        ends = [end for end in (low, high) if np.isfinite(end)]
        outside = [
            end + sign * step for end, sign in zip((low, high), (-1, 1), strict=True) if end in ends for step in (0.5, LARGE)
        ]
        for value, log_det in [fun(params, np.array(outside, np.float32).reshape(-1, 1))] if outside else []:
            assert np.isnan(value).all() and np.isnan(log_det).all()
        for value, log_det in [fun(params, np.array(ends, np.float32).reshape(-1, 1))] if ends else []:
            assert not np.isnan(value).any() and not np.isnan(log_det).any()
        both = fun(params, np.array([[np.nan]], np.float32))
        assert np.isnan(both[0]).all() and np.isnan(both[1]).all()


def test_layers_that_are_not_defined_everywhere_say_so():
    bounded = (
        flows.Exp(),
        flows.LogisticCDF(),
        flows.Logit(),
        flows.NormalCDF(),
        flows.Power(2),
        flows.Sigmoid(),
        flows.Softplus(),
    )
    assert all(replace(each.own_support, entrywise=False) != Support() and each.own_support.entrywise for each in bounded)
    assert flows.LeakyReLU().own_support == Support(entrywise=True) and flows.ActNorm().own_support == Support()


def test_fixed_affine_takes_a_number_or_one_for_each_entry():
    x = np.arange(12.0, dtype=np.float32).reshape(1, 2, 2, 3)
    for scale in (2.0, (1.0, -2.0, 3.0), np.arange(1.0, 13.0).reshape(2, 2, 3)):
        init_fun = flows.FixedAffine(scale, shift=-1)
        y, log_det = init_fun(0, (2, 2, 3)).direct_fun({}, x)
        np.testing.assert_allclose(y, x * np.asarray(scale) - 1, rtol=1e-6)
        np.testing.assert_allclose(log_det, np.log(np.abs(np.broadcast_to(scale, (2, 2, 3)))).sum(), rtol=1e-6)
    params, direct_fun, inverse_fun = flows.LeakyReLU(0.5)(0, 2)
    assert direct_fun(params, np.array([[-4.0, 3.0]]))[0].tolist() == [[-2.0, 3.0]]
    assert inverse_fun(params, np.array([[-2.0, 3.0]]))[0].tolist() == [[-4.0, 3.0]]


def test_errors_say_what_was_expected():
    assert "number above 0" in error_of(lambda: flows.LeakyReLU(0.0))
    assert "number above 0" in error_of(lambda: flows.NormalCDF(scale=-1.0))
    assert "finite number" in error_of(lambda: flows.LogisticCDF(loc=np.inf))
    assert "size between" in error_of(lambda: flows.Power(0))
    assert "above 1e-37" in error_of(lambda: flows.FixedAffine(0.0))
    assert "expected finite numbers" in error_of(lambda: flows.FixedAffine(1.0, np.nan))
    assert "scale has shape (3,)" in error_of(lambda: flows.FixedAffine([1.0, 2.0, 3.0])(0, 2))


@pytest.mark.parametrize("init_fun", [flows.Logit(), flows.Power(3.0), flows.Invert(flows.Exp())], ids=repr)
def test_verify_looks_where_a_layer_is_defined(init_fun):
    report = flows.verify(init_fun, 2)
    assert report.passed, report
