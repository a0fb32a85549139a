"""`flows.revise`: another value of an argument, the same params."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from scipy import stats

import flows
from flows.diagnostics import enable_x64


def test_the_normal_of_a_temperature_is_that_much_wider():
    x = np.random.default_rng(0).normal(size=(6, 2))
    params, log_pdf, sample = flows.Normal(temperature=0.5)(0, 2)
    with enable_x64():
        close(log_pdf(params, x), stats.norm(scale=0.5).logpdf(x).sum(1), 1e-12)
    assert np.std(sample(1, params, 20_000)) == pytest.approx(0.5, rel=0.02)
    rows = 3.0 + 2.0 * np.random.default_rng(1).normal(size=(4_000, 2)).astype(np.float32)
    for covariance in ("diagonal", "full"):
        trained = flows.Normal(trainable=True, covariance=covariance, temperature=0.5)
        params, log_pdf, _ = trained(0, 2, init_inputs=rows)
        plain = flows.Normal(trainable=True, covariance=covariance)
        own, of_plain, _ = plain(0, 2, init_inputs=rows)
        close(log_pdf(params, rows[:5]), of_plain(own, rows[:5]), 1e-5)
        colder = flows.revise(plain, temperature=0.5)(0, 2)
        draws = colder.sample(1, own, 4_000)
        assert np.std(draws, 0) == pytest.approx(1.0, rel=0.05) and np.mean(draws, 0) == pytest.approx(3.0, abs=0.1)
    for base in (flows.Normal, flows.Logistic):
        assert "temperature" in error_of(lambda base=base: base(temperature=0.0))
    with enable_x64():
        close(flows.Logistic(temperature=0.5)(0, 2).log_pdf({}, x), stats.logistic(scale=0.5).logpdf(x).sum(1), 1e-12)


def test_an_argument_is_changed_wherever_it_is_named():
    init_fun = flows.Flow(flows.Serial(flows.NSF(2, hidden=(4,)), flows.ActNorm()), flows.Flow(flows.RealNVP(1, (4,))))
    params, _, sample = init_fun(0, 3)
    colder = flows.revise(init_fun, temperature=0.1)
    assert repr(colder).count("temperature=0.1") == 1 and colder != init_fun
    assert flows.revise(colder, temperature=1.0) == init_fun
    own, _, draw = colder(0, 3)
    assert jax.tree.structure(own) == jax.tree.structure(params)
    assert np.std(draw(1, params, 500)) < 0.5 * np.std(sample(1, params, 500))
    moved = flows.revise(flows.Serial(flows.NSF(2, (4,), bound=4.0), flows.Repeat(flows.NSF(2, (4,), bound=4.0), 2)), bound=5.0)
    assert repr(moved).count("bound=5.0") == 2


def test_a_flow_has_a_true_default():
    assert flows.Flow(flows.ActNorm()) == flows.Flow(flows.ActNorm(), flows.Normal())
    with pytest.raises(TypeError, match="Flow: prior"):
        flows.Flow(flows.ActNorm(), None)


def test_what_cannot_be_revised():
    init_fun = flows.Flow(flows.RealNVP(2, hidden=(4,)))
    told = error_of(lambda: flows.revise(init_fun, temperatur=0.5))
    assert "there are" in told and "temperature" in told.split("there are")[1] and "mask" not in told  # RealNVP's own layers
    init_fun(0, 2)
    assert "would change the params at events (2,)" in error_of(lambda: flows.revise(init_fun, hidden=(5,)))
    unused = flows.revise(flows.Flow(flows.RealNVP(2, hidden=(6,))), hidden=(7,))  # nothing is known of it yet
    params = flows.Flow(flows.RealNVP(2, hidden=(6,)))(0, 2).params
    assert "params" in error_of(lambda: unused(0, 2).log_pdf(params, jnp.zeros((1, 2))))
    with pytest.raises(TypeError, match="no argument was given"):
        flows.revise(init_fun)
    for wrong in (flows.Flow, lambda rng, input_dim: None, 3, flows.MLP(4)):
        with pytest.raises(TypeError, match="expected one such as"):
            flows.revise(wrong, temperature=1.0)
